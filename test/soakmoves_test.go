package test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"fairlead/node/api"
)

// soakMoves are what a soak does, each as often as its weight says. do is false
// when there is nothing to do it to, and then changes nothing.
var soakMoves = []struct {
	name   string
	weight int
	do     func(s *soak) bool
}{
	{"run", 12, (*soak).runBox},
	{"run in the foreground", 4, (*soak).runInForeground},
	{"stop", 3, func(s *soak) bool { return s.dropAny(func(b *soaked) { s.do("stop", "-t", "0", b.name) }) }},
	{"kill", 3, func(s *soak) bool { return s.dropAny(func(b *soaked) { s.do("kill", b.name) }) }},
	{"kill -9 of an init", 2, (*soak).killInit},
	{"kill -9 of a client", 2, (*soak).killClient},
	{"network create", 3, (*soak).createNetwork},
	{"network rm", 2, (*soak).removeAnyNetwork},
	{"network connect", 6, (*soak).connect},
	{"network disconnect", 4, (*soak).disconnect},
	{"publish", 6, (*soak).publish},
	{"unpublish", 3, (*soak).unpublish},
	{"rename", 2, (*soak).rename},
	{"update", 3, (*soak).update},
	{"traffic between containers", 12, (*soak).trafficBetween},
	{"traffic out", 6, (*soak).trafficOut},
	{"traffic to a published port", 8, (*soak).trafficIn},
	{"exec that is killed", 3, (*soak).killExec},
	{"show all there is", 3, (*soak).look},
	{"the node stands still", 2, (*soak).standStill},
	{"kill -9 of the node", 3, (*soak).killTheNode},
}

// mostBoxes and mostNets are as many as a small machine has at once.
const mostBoxes, mostNets = 12, 6

// pickBox is any container that is fit for something, nil if there is none.
func (s *soak) pickBox(fit func(b *soaked) bool) *soaked {
	var list []*soaked
	for _, b := range s.boxes {
		if fit == nil || fit(b) {
			list = append(list, b)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list[s.rng.IntN(len(list))]
}

// newBox draws a container and the arguments it is run with.
func (s *soak) newBox() (b *soaked, args []string) {
	s.made++
	b = &soaked{name: fmt.Sprintf("c%d", s.made), nets: map[*soakNet]string{}, ports: map[int]bool{}}
	n := s.networks[s.rng.IntN(len(s.networks))]
	b.nets[n] = n.address(s.rng)
	args = []string{"--name", b.name, "--net", n.name}
	if b.nets[n] != "" {
		args = append(args, "--ip", b.nets[n])
	}
	switch s.rng.IntN(8) {
	case 0:
		args = append(args, "--opt", wire)
	case 1:
		args = append(args, "--opt", veth)
	}
	if !n.internal && s.rng.IntN(3) == 0 {
		args = append(args, "-p", fmt.Sprintf("%d:%s", s.newPort(b), soakPort))
	}
	return b, append(append(args, "--"), play(s.t, "summed", soakPort)...)
}

// newPort is one of the host's nobody has had for long.
func (s *soak) newPort(b *soaked) int {
	s.nextPort++
	if s.nextPort == 30000 {
		s.nextPort = 20000
	}
	b.ports[s.nextPort] = true
	return s.nextPort
}

func (s *soak) runBox() bool {
	if len(s.boxes) >= mostBoxes {
		return false
	}
	b, args := s.newBox()
	s.do(append([]string{"run", "-d"}, args...)...)
	s.logSays(b.name, "listening")
	s.enter(b)
	return true
}

func (s *soak) runInForeground() bool {
	if len(s.boxes) >= mostBoxes {
		return false
	}
	b, args := s.newBox()
	s.note("fairlead run " + strings.Join(args, " "))
	b.client = s.background(append([]string{"run"}, args...)...)
	b.client.says("listening")
	s.enter(b)
	return true
}

// enter takes a container that runs into the model, with the address it got.
func (s *soak) enter(b *soaked) {
	s.boxes = append(s.boxes, b)
	s.readAddresses(b)
}

// readAddresses takes down addresses the node has chosen. They do not decide what
// is done.
func (s *soak) readAddresses(b *soaked) {
	s.t.Helper()
	var i api.Inspect
	if err := s.ask("/v1/containers/"+b.name, &i); err != nil {
		s.t.Fatal(err)
	}
	for n, addr := range b.nets {
		if addr == "" {
			b.nets[n] = i.NetworkSettings.Networks[n.name].IPAddress
		}
	}
}

// drop ends a container in some way and waits until it has gone.
func (s *soak) drop(b *soaked, how func(b *soaked)) {
	s.t.Helper()
	disturb(&b.well)
	how(b)
	if b.client != nil {
		select {
		case <-b.client.done:
		case <-time.After(patience):
			s.t.Fatalf("the client of %s has not ended", b.name)
		}
		b.client.in.Close()
		s.clients = slices.DeleteFunc(s.clients, func(c *client) bool { return c == b.client })
	}
	s.gone(b.name)
	s.boxes = slices.DeleteFunc(s.boxes, func(x *soaked) bool { return x == b })
}

func (s *soak) dropAny(how func(b *soaked)) bool {
	b := s.pickBox(nil)
	if b == nil {
		return false
	}
	s.drop(b, how)
	return true
}

func (s *soak) killInit() bool {
	return s.dropAny(func(b *soaked) {
		s.note("kill -9 of the init of " + b.name)
		kill(s.t, s.pid(b.name), syscall.SIGKILL)
	})
}

func (s *soak) killClient() bool {
	b := s.pickBox(func(b *soaked) bool { return b.client != nil })
	if b == nil {
		return false
	}
	s.drop(b, func(b *soaked) {
		s.note("kill -9 of the client of " + b.name)
		b.client.signal(syscall.SIGKILL)
	})
	return true
}

func (s *soak) createNetwork() bool {
	if len(s.networks) >= mostNets {
		return false
	}
	s.made++
	n := &soakNet{name: fmt.Sprintf("n%d", s.made), internal: s.rng.IntN(4) == 0, subnet: fmt.Sprintf("10.88.%d", s.made%250)}
	args := []string{"network", "create", "--subnet", n.subnet + ".0/24"}
	if n.internal {
		args = append(args, "--internal")
	}
	for _, option := range []string{"join=off", "mtu=1400", "hub=on", "link=veth"} {
		if s.rng.IntN(6) == 0 {
			args = append(args, "-o", option)
		}
	}
	s.do(append(args, n.name)...)
	s.networks = append(s.networks, n)
	return true
}

func (s *soak) removeNetwork(n *soakNet) {
	s.do("network", "rm", n.name)
	s.networks = slices.DeleteFunc(s.networks, func(x *soakNet) bool { return x == n })
}

func (s *soak) removeAnyNetwork() bool {
	for _, n := range s.networks[1:] {
		if s.pickable(n) == 0 {
			s.removeNetwork(n)
			return true
		}
	}
	return false
}

// pickable is how many containers are on a network.
func (s *soak) pickable(n *soakNet) (count int) {
	for _, b := range s.boxes {
		if _, on := b.nets[n]; on {
			count++
		}
	}
	return count
}

// netsOf are the networks a container is on, or is not, in the order of all.
func (s *soak) netsOf(b *soaked, on bool) (list []*soakNet) {
	for _, n := range s.networks {
		if _, is := b.nets[n]; is == on {
			list = append(list, n)
		}
	}
	return list
}

func (s *soak) connect() bool {
	b := s.pickBox(func(b *soaked) bool { return len(s.netsOf(b, false)) > 0 && len(b.nets) < 4 })
	if b == nil {
		return false
	}
	list := s.netsOf(b, false)
	n := list[s.rng.IntN(len(list))]
	addr := n.address(s.rng)
	args := []string{"network", "connect"}
	if addr != "" {
		args = append(args, "--ip", addr)
	}
	s.do(append(args, n.name, b.name)...)
	disturb(&b.well) // its default route may be another now
	b.nets[n] = addr
	s.readAddresses(b)
	return true
}

func (s *soak) disconnect() bool {
	b := s.pickBox(func(b *soaked) bool { return len(b.nets) > 1 })
	if b == nil {
		return false
	}
	list := s.netsOf(b, true)
	n := list[s.rng.IntN(len(list))]
	disturb(&b.well)
	s.do("network", "disconnect", n.name, b.name)
	delete(b.nets, n)
	return true
}

// leads reports whether a container has a network with a way out.
func (s *soak) leads(b *soaked) bool {
	return slices.ContainsFunc(s.netsOf(b, true), func(n *soakNet) bool { return !n.internal })
}

func (s *soak) publish() bool {
	b := s.pickBox(func(b *soaked) bool { return s.leads(b) && len(b.ports) < 4 })
	if b == nil {
		return false
	}
	s.do("publish", b.name, fmt.Sprintf("%d:%s", s.newPort(b), soakPort))
	return true
}

func (s *soak) unpublish() bool {
	b := s.pickBox(func(b *soaked) bool { return len(b.ports) > 0 })
	if b == nil {
		return false
	}
	port := s.pickPort(b)
	disturb(&b.well)
	s.do("unpublish", b.name, fmt.Sprintf("%d:%s", port, soakPort))
	delete(b.ports, port)
	return true
}

func (s *soak) pickPort(b *soaked) int {
	var list []int
	for p := range b.ports {
		list = append(list, p)
	}
	slices.Sort(list)
	return list[s.rng.IntN(len(list))]
}

func (s *soak) rename() bool {
	b := s.pickBox(nil)
	if b == nil {
		return false
	}
	s.made++
	name := fmt.Sprintf("c%d", s.made)
	s.do("rename", b.name, name)
	b.name = name
	return true
}

func (s *soak) update() bool {
	b := s.pickBox(nil)
	if b == nil {
		return false
	}
	rates := []string{"none", "100mbit", "400mbit"}
	s.do("update", "--rate-in", rates[s.rng.IntN(3)], "--rate-out", rates[s.rng.IntN(3)], b.name)
	return true
}

// drawTraffic draws what is sent: half of it by TCP, most of it little.
func (s *soak) drawTraffic(to string) []string {
	proto, size := "tcp", 1+s.rng.IntN(20_000)
	if s.rng.IntN(2) == 0 {
		proto = "udp"
	} else if s.rng.IntN(3) == 0 {
		size = s.rng.IntN(3_000_000)
	}
	return play(s.t, "sums", proto, to, strconv.Itoa(size), strconv.FormatUint(s.rng.Uint64(), 10))
}

func (s *soak) trafficBetween() bool {
	from := s.pickBox(nil)
	if from == nil {
		return false
	}
	nets := s.netsOf(from, true)
	n := nets[s.rng.IntN(len(nets))]
	to := s.pickBox(func(b *soaked) bool { _, on := b.nets[n]; return on && b != from })
	if to == nil {
		return false
	}
	s.land(mostFlights - 1)
	what := fmt.Sprintf("traffic from %s to %s on %s", from.name, to.name, n.name)
	s.note(what)
	cmd, said := s.inside(from.name, s.drawTraffic(to.nets[n]+":"+soakPort))
	s.fly(what, cmd, said, &from.well, &to.well)
	return true
}

func (s *soak) trafficOut() bool {
	from := s.pickBox(s.leads)
	if from == nil {
		return false
	}
	s.land(mostFlights - 1)
	what := "traffic from " + from.name + " to the outside"
	s.note(what)
	cmd, said := s.inside(from.name, s.drawTraffic(s.Router.FarHost+":"+soakPort))
	s.fly(what, cmd, said, &s.ways, &from.well)
	return true
}

func (s *soak) trafficIn() bool {
	to := s.pickBox(func(b *soaked) bool { return len(b.ports) > 0 && s.leads(b) })
	if to == nil {
		return false
	}
	s.land(mostFlights - 1)
	port := s.pickPort(to)
	what := fmt.Sprintf("traffic from outside to port %d of %s", port, to.name)
	s.note(what)
	command := s.drawTraffic(fmt.Sprintf("%s:%d", s.reach, port))
	if command[3] == "udp" {
		command[3] = "tcp" // ports of the soak are published for that
	}
	cmd, said := s.host(s.Host, command)
	s.fly(what, cmd, said, &s.ways, &to.well)
	return true
}

// killExec kills a client of exec at some moment.
func (s *soak) killExec() bool {
	b := s.pickBox(nil)
	if b == nil {
		return false
	}
	s.note("exec in " + b.name + " that is killed")
	c := s.background("exec", "-i", b.name, "sleep", "1000")
	time.Sleep(time.Duration(s.rng.IntN(40)) * time.Millisecond)
	c.stop()
	c.in.Close()
	s.clients = slices.DeleteFunc(s.clients, func(x *client) bool { return x == c })
	return true
}

// look asks for everything there is to be asked for.
func (s *soak) look() bool {
	for _, name := range []string{"switch", "mac", "arp", "nat", "flows", "rules", "routes", "leases", "drops"} {
		s.run("show", name)
	}
	s.run("check")
	return true
}

// standStill stops the node for a moment, as a machine that swaps or a virtual one
// that is moved does: to it all clocks jump, and what was to happen in the
// meantime is due at once.
func (s *soak) standStill() bool {
	pid, moment := s.nodePid(), time.Duration(s.rng.IntN(1500))*time.Millisecond
	s.note(fmt.Sprintf("the node stands still for %v", moment))
	kill(s.t, pid, syscall.SIGSTOP)
	time.Sleep(moment)
	kill(s.t, pid, syscall.SIGCONT)
	return true
}

// mostJump is how far the clock of one node may be from that of the next.
const mostJump = 30 * 24 * time.Hour

// killTheNode has the next one adopt the containers. What they say to one another
// goes on. Half of the time the monotonic clock jumps, forward or back: the next
// node is in a time namespace of its own (time_namespaces(7)).
func (s *soak) killTheNode() bool {
	if !s.kills() {
		return false
	}
	jump := time.Duration(0)
	if s.rng.IntN(2) == 0 {
		jump = time.Duration(s.rng.Int64N(int64(mostJump)))
	}
	s.note(fmt.Sprintf("kill -9 of the node; the next one's clock is off by %v", jump.Truncate(time.Second)))
	s.judgeMemory()
	s.memory = nil
	s.begun()
	disturb(&s.ways)
	s.killNode()
	if out, status := s.Machine.Try(s.t, "env", "FAIRLEAD_DIR="+s.dir, "PATH="+filepath.Dir(s.bin)+":"+os.Getenv("PATH"),
		"unshare", "-T", "--monotonic", strconv.Itoa(int(jump.Seconds())), "--fork", s.bin, "up"); status != 0 {
		s.t.Fatal(out)
	}
	return true
}
