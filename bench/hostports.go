package main

import (
	"fmt"
	"time"

	hosts "fairlead/test/lab"
)

// What ten thousand published ports may cost.
const (
	manyPorts     = 10_000 // half of them TCP, half UDP
	publishBar    = 2.0    // seconds
	portMemoryBar = 2048.0 // bytes of the node for each
	idleBar       = 5.0    // ms of a processor in five seconds: nothing but what the Go runtime does
)

// idle is how long processors are watched.
const idle = 5 * time.Second

// proxied is how many ports docker-proxy publishes here: each is a process.
const proxied = 40

// A crowd is what publishing many ports cost.
type crowd struct {
	seconds, bytes, idle float64 // bytes for each port, idle in ms
}

// portCosts are the workloads that say what published ports cost, and where that
// is in a crowd.
var portCosts = []struct {
	workload workload
	of       func(c crowd) float64
	what     string
	bar      float64
}{
	{workload{name: "host-ports", unit: "s"}, func(c crowd) float64 { return c.seconds }, "10,000 ports", publishBar},
	{workload{name: "host-ports-mem", unit: "B"}, func(c crowd) float64 { return c.bytes }, "each port", portMemoryBar},
	{workload{name: "host-ports-cpu", unit: "ms"}, func(c crowd) float64 { return c.idle }, "in 5 s", idleBar},
}

// hostPorts publishes ten thousand ports of a container and looks what that
// costs.
func hostPorts() *workload {
	w := &workload{name: "host-ports", what: "until 10,000 ports are published, TCP and UDP; then memory for each, and CPU while nobody comes"}
	w.takes = func(*options) time.Duration { return 30 * time.Second }
	w.measure = func(l *lab, o *options, r *results) {
		paths := []struct {
			name    string
			rounds  int
			publish func(l *lab) crowd
			crowds  []crowd
		}{
			{name: "fairlead", rounds: min(o.Pairs, 2), publish: fairleadPorts},
			{name: "pasta-1500", rounds: 1, publish: pastaPorts},
			{name: "rootlesskit", rounds: 1, publish: rootlesskitPorts},
			{name: "docker-proxy", rounds: 1, publish: dockerPorts},
		}
		for i := range paths {
			p := &paths[i]
			if !o.measuresLeader(leaderNamed(p.name)) {
				continue
			}
			for range p.rounds {
				once := &lab{ctx: l.ctx, name: l.name, attempted: p.name != "fairlead"} // the descriptors are not kept
				err := once.do(func() { p.crowds = append(p.crowds, p.publish(once)) })
				if err != nil && p.name == "fairlead" {
					l.check(err, "%s", p.name)
				} else if err != nil {
					r.notRun(w, p.name, err)
					continue
				}
				c := p.crowds[len(p.crowds)-1]
				progress("%s  %-13s %.2f s, %.0f bytes a port, %.1f ms of CPU in %v", w.name, p.name, c.seconds, c.bytes, c.idle, idle)
			}
		}
		for _, cost := range portCosts {
			cost.workload.group, cost.workload.less = hostGroup, true
			for _, p := range paths {
				f := r.figure(&cost.workload, p.name)
				for round, c := range p.crowds {
					f.add(sample{Round: round, Value: cost.of(c)})
				}
				switch {
				case len(p.crowds) == 0:
				case p.name == "fairlead":
					r.atMost(f, cost.what, (*figure).median, cost.bar)
				case p.name == "docker-proxy" && cost.workload.name == w.name:
					f.Note = fmt.Sprintf("a process for each port, started one after the other: measured with %d and multiplied", proxied)
				}
			}
		}
	}
	return w
}

// The port numbers, of TCP and of UDP.
const firstPort, lastPort = 20_000, 20_000 + manyPorts/2 - 1

// portsSite is a site on which nothing is published yet.
func portsSite(l *lab, p *leader) *site {
	bare := *p
	bare.lay = func(*site, *lab) {}
	return laySite(l, &bare, "", nil)
}

// leaderNamed finds one.
func leaderNamed(name string) *leader {
	for _, p := range leaders {
		if p.name == name {
			return p
		}
	}
	return nil
}

// watch measures memory and CPU of processes, the memory beside what they had
// before.
func watch(l *lab, c *crowd, ports int, before float64, pids ...int) {
	var bytes, cpu float64
	for _, pid := range pids {
		b, err := resident(pid)
		l.check(err, "ask for the memory")
		bytes += b
		cpu -= threadsCPU(pid)
	}
	c.bytes = (bytes - before) / float64(ports)
	time.Sleep(idle)
	for _, pid := range pids {
		cpu += threadsCPU(pid)
	}
	c.idle = max(cpu, 0) * 1e3 // a thread may have ended
}

func fairleadPorts(l *lab) (c crowd) {
	s := portsSite(l, leaderNamed("fairlead"))
	s.layNode(l)
	s.fairlead(l, "network", "connect", "--name", "c", "default", "netns:"+s.namespace)
	before, err := resident(s.pid)
	l.check(err, "ask for the memory")
	at := fmt.Sprintf("%s:%d-%d:%[2]d-%[3]d", siteMachine.Addr(), firstPort, lastPort)
	start := time.Now()
	s.fairlead(l, "publish", "c", at, at+"/udp")
	c.seconds = time.Since(start).Seconds()
	s.listens(l)
	watch(l, &c, manyPorts, before, s.pid)
	return c
}

// listens makes sure that the last TCP port is open.
func (s *site) listens(l *lab) { s.machine.Listens(l, lastPort) }

func pastaPorts(l *lab) (c crowd) {
	s := portsSite(l, leaderNamed("pasta-1500"))
	start := time.Now()
	span := fmt.Sprintf("%d-%d", firstPort, lastPort)
	s.pasta(l, "-t", span, "-u", span)
	s.listens(l)
	c.seconds = time.Since(start).Seconds()
	watch(l, &c, manyPorts, 0, s.pid)
	return c
}

func rootlesskitPorts(l *lab) (c crowd) {
	s := portsSite(l, leaderNamed("rootlesskit"))
	var publish []string
	for port := firstPort; port <= lastPort; port++ {
		for _, proto := range []string{"tcp", "udp"} {
			publish = append(publish, "-p", fmt.Sprintf("%s:%d:%[2]d/%s", siteMachine.Addr(), port, proto))
		}
	}
	start := time.Now()
	s.rootlesskit(l, publish...)
	s.listens(l)
	c.seconds = time.Since(start).Seconds()
	watch(l, &c, manyPorts, 0, s.pid)
	return c
}

func dockerPorts(l *lab) (c crowd) {
	s := portsSite(l, leaderNamed("docker-proxy"))
	hosts.Join(l, s.machine, "docker0", s.container, "eth0")
	s.machine.Addr(l, "docker0", proxyPrefix.String())
	var pids []int
	start := time.Now()
	for port := lastPort - proxied + 1; port <= lastPort; port++ {
		pids = append(pids, s.dockerProxy(l, "tcp", port).Pid())
		s.machine.Listens(l, port)
	}
	c.seconds = time.Since(start).Seconds() * manyPorts / proxied
	watch(l, &c, proxied, 0, pids...)
	return c
}
