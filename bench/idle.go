package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// What ten containers that do nothing may cost, the node and their inits
// together.
const (
	idleContainers = 10
	idleCPUBar     = 0.1  // % of one processor
	idleMemoryBar  = 20.0 // MB of anonymous memory
	idleWatch      = time.Minute
	idleWatchQuick = 10 * time.Second
	idleSettles    = 5 * time.Second // what has just started still tidies up
)

const megabyte = 1e6

// idleNode measures what ten containers cost in which nothing happens.
func idleNode() *workload {
	w := &workload{name: "scale-idle", unit: "%", less: true, what: "of one processor, for ten containers that do nothing: the node with their inits, and the node alone; switches of others with two"}
	memory := &workload{name: "scale-idle-mem", unit: "MB", less: true, what: "anonymous memory of the same"}
	watch := func(o *options) time.Duration {
		if o.Quick {
			return idleWatchQuick
		}
		return idleWatch
	}
	w.takes = func(o *options) time.Duration {
		return watch(o) + idleSettles + 5*time.Second + time.Duration(o.installedSwitches())*laying
	}
	w.measure = func(l *lab, o *options, r *results) {
		n := startNode(l)
		alone := []int{n.pid(l)}
		all := alone
		for i := range idleContainers {
			all = append(all, n.container(l, fmt.Sprintf("idle%d", i), "exec sleep 1000").Pid)
		}
		cases := append([]idler{{"fairlead", all}, {"node", alone}}, idlePeers(l, o, r, w)...)
		sleep(l, idleSettles)
		before := map[int]float64{}
		for _, c := range cases {
			for _, pid := range c.pids {
				before[pid] = threadsCPU(pid)
			}
		}
		start := time.Now()
		progress("%s  watching for %v", w.name, watch(o))
		sleep(l, watch(o))
		took := time.Since(start).Seconds()
		for _, who := range cases {
			var cpu, bytes float64
			for _, pid := range who.pids {
				cpu += threadsCPU(pid) - before[pid]
				anonymous, err := anonymousMemory(pid)
				l.check(err, "ask for the memory of process %d", pid)
				bytes += anonymous
			}
			f, m := r.figure(w, who.path), r.figure(memory, who.path)
			f.add(sample{Value: 100 * cpu / took, spent: spent{CPU: cpu}})
			m.add(sample{Value: bytes / megabyte})
			if who.path == "fairlead" {
				r.atMost(f, fmt.Sprintf("in %v", watch(o)), (*figure).median, idleCPUBar)
				r.atMost(m, "ten containers", (*figure).median, idleMemoryBar)
			}
		}
	}
	return w
}

// installedSwitches is how many switches of others are measured.
func (o *options) installedSwitches() (n int) {
	for _, p := range paths {
		if len(p.programs) > 0 && o.measures(p) {
			n++
		}
	}
	return n
}

// An idler is who does nothing.
type idler struct {
	path string
	pids []int
}

// idlePeers are the switches of others, with two containers each.
func idlePeers(l *lab, o *options, r *results, w *workload) (list []idler) {
	for _, p := range paths {
		if len(p.programs) == 0 || !o.measures(p) {
			continue
		}
		peer := idler{path: p.name}
		err := l.attempt(func(l *lab) {
			for _, s := range layCable(l, p).services {
				peer.pids = append(peer.pids, s.Pid())
			}
		})
		if err != nil {
			l.check(nil, "%s", p.name) // which ends here when it was interrupted
			r.notRun(w, p.name, err)
			continue
		}
		list = append(list, peer)
	}
	return list
}

// sleep waits, unless it is interrupted.
func sleep(l *lab, d time.Duration) {
	select {
	case <-time.After(d):
	case <-l.ctx.Done():
	}
	l.check(nil, "wait")
}

// anonymousMemory is what a process has in memory that no file backs, in bytes.
func anonymousMemory(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "RssAnon:" {
			n, err := strconv.ParseFloat(f[1], 64)
			return n * 1024, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no RssAnon", pid)
}

// nodeMemory is how much memory the process has that leads a container outside,
// with one container. A node without any stands beside it, and of switches that lead
// nowhere what connects two containers.
func nodeMemory() *workload {
	w := &workload{name: "scale-memory", unit: "MB", less: true, what: "resident memory of what leads one container outside; the node's with none beside it, and what Open vSwitch and VDE take between two"}
	w.takes = func(o *options) time.Duration { return usual + time.Duration(o.installedSwitches())*laying }
	w.measure = func(l *lab, o *options, r *results) {
		f := r.figure(w, "fairlead-empty")
		bytes, err := resident(startNode(l).pid(l))
		l.check(err, "ask for the node's memory")
		f.add(sample{Value: bytes / megabyte})
		for _, p := range leaders {
			if p.mtu != 1500 || p.rawUDP || !o.measuresLeader(p) {
				continue
			}
			once := &lab{ctx: l.ctx, name: l.name, attempted: p.program != ""}
			err := once.do(func() {
				bytes, err := resident(laySite(once, p, "", nil).pid)
				once.check(err, "ask for its memory")
				r.figure(w, p.name).add(sample{Value: bytes / megabyte})
			})
			if err != nil && p.program == "" {
				l.check(err, "%s", p.name)
			} else if err != nil {
				r.notRun(w, p.name, err)
			}
		}
		switchMemory(l, o, r, w)
	}
	return w
}

// switchMemory is that of the programs of others that connect two containers, once
// frames have crossed.
func switchMemory(l *lab, o *options, r *results, w *workload) {
	for _, p := range paths {
		if len(p.programs) == 0 || !o.measures(p) {
			continue
		}
		once := &lab{ctx: l.ctx, name: l.name, attempted: true}
		err := once.do(func() {
			c := layCable(once, p)
			c.settle(once, func() error { return c.connect(once) })
			var all float64
			for _, s := range c.services {
				bytes, err := resident(s.Pid())
				once.check(err, "ask for the memory of process %d", s.Pid())
				all += bytes
			}
			r.figure(w, p.name).add(sample{Value: all / megabyte})
		})
		if err != nil {
			l.check(nil, "%s", p.name) // which ends here when it was interrupted
			r.notRun(w, p.name, err)
		}
	}
}
