package test

import (
	"fmt"
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
	{"static entries", 4, (*soak).changeStatics},
	{"publish", 6, (*soak).publish},
	{"unpublish", 3, (*soak).unpublish},
	{"rename", 2, (*soak).rename},
	{"update", 3, (*soak).update},
	{"traffic between containers", 12, (*soak).trafficBetween},
	{"traffic out", 6, (*soak).trafficOut},
	{"traffic to a published port", 8, (*soak).trafficIn},
	{"harm", 3, (*soak).doHarm},
	{"exec that is killed", 3, (*soak).killExec},
	{"show all there is", 3, (*soak).look},
	{"the node stands still", 2, (*soak).standStill},
	{"kill -9 of the node", 3, (*soak).killTheNode},
	{"up --replace", 3, (*soak).replaceTheNode},
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
	n := s.networks[s.rng.IntN(len(s.networks))]
	b = &soaked{name: fmt.Sprintf("c%d", s.made), home: n, nets: map[*soakNet]string{}, vlans: map[*soakNet]int{}, ports: map[int]string{}}
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
	switch s.rng.IntN(10) {
	case 0, 1:
		args = append(args, "--opt", fmt.Sprintf("vlan=%d", s.inVLAN(b, n)))
	case 2:
		args = append(args, "--opt", "trunk=10,20-29")
	case 3:
		args = append(args, "--opt", fmt.Sprintf("trunk=30-39,native=%d", s.inVLAN(b, n)))
	}
	if s.leads(b) && s.rng.IntN(3) == 0 {
		args = append(args, "-p", s.newPort(b))
	}
	return b, append(append(args, "--"), play(s.t, "summed", soakPort)...)
}

// inVLAN has what a container sends on a network without a tag be in a VLAN.
func (s *soak) inVLAN(b *soaked, n *soakNet) int {
	b.vlans[n] = 10 + 10*s.rng.IntN(2)
	return b.vlans[n]
}

// newPort publishes one of the host's ports that nobody has had for long.
func (s *soak) newPort(b *soaked) string {
	s.nextPort++
	if s.nextPort == 30000 {
		s.nextPort = 20000
	}
	b.ports[s.nextPort] = []string{"tcp", "tcp", "udp"}[s.rng.IntN(3)]
	return b.port(s.nextPort)
}

// port is a published port as publish and unpublish take it.
func (b *soaked) port(p int) string { return fmt.Sprintf("%d:%s/%s", p, soakPort, b.ports[p]) }

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
	s.forget(func(e soakStatic) bool { return e.box == b })
	how(b)
	if b.client != nil {
		select {
		case <-b.client.done:
		case <-time.After(patience):
			s.t.Fatalf("the client of %s has not ended", b.name)
		}
		s.dismiss(b.client)
	}
	s.endAssault(b)
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
			n.hub = n.hub || option == "hub=on"
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
	if s.rng.IntN(6) == 0 {
		args = append(args, "--opt", fmt.Sprintf("vlan=%d", s.inVLAN(b, n)))
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
	if n == b.home {
		s.endAssault(b)
		b.home = nil
	}
	s.forget(func(e soakStatic) bool { return e.box == b && e.net == n })
	s.do("network", "disconnect", n.name, b.name)
	delete(b.nets, n)
	delete(b.vlans, n)
	return true
}

// leads reports whether a container has a network with a way out. One in a VLAN may
// have its default route there, where no gateway is.
func (s *soak) leads(b *soaked) bool {
	return len(b.vlans) == 0 && slices.ContainsFunc(s.netsOf(b, true), func(n *soakNet) bool {
		return !n.internal && (s.byHost() || n == s.networks[0]) // a link is of the default network alone
	})
}

func (s *soak) publish() bool {
	b := s.pickBox(func(b *soaked) bool { return s.leads(b) && len(b.ports) < 4 })
	if b == nil {
		return false
	}
	s.do("publish", b.name, s.newPort(b))
	return true
}

func (s *soak) unpublish() bool {
	b := s.pickBox(func(b *soaked) bool { return len(b.ports) > 0 })
	if b == nil {
		return false
	}
	port := s.pickPort(b)
	disturb(&b.well)
	s.do("unpublish", b.name, b.port(port))
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
	s.begun() // who execs in it says the name it has now
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

// drawProto is that of traffic which may have any.
func (s *soak) drawProto() string { return []string{"tcp", "udp"}[s.rng.IntN(2)] }

// drawTraffic draws what is sent, most of it little.
func (s *soak) drawTraffic(proto, to string) []string {
	size := 1 + s.rng.IntN(20_000)
	if proto == "tcp" && s.rng.IntN(3) == 0 {
		size = s.rng.IntN(3_000_000)
	}
	return play(s.t, "sums", proto, to, strconv.Itoa(size), strconv.FormatUint(s.rng.Uint64(), 10))
}

func (s *soak) trafficBetween() bool {
	from := s.pickBox(harmless)
	if from == nil {
		return false
	}
	nets := s.netsOf(from, true)
	n := nets[s.rng.IntN(len(nets))]
	to := s.pickBox(func(b *soaked) bool {
		_, on := b.nets[n]
		return on && b != from && harmless(b) && b.vlans[n] == from.vlans[n]
	})
	if to == nil {
		return false
	}
	s.land(mostFlights - 1)
	what := fmt.Sprintf("traffic from %s to %s on %s", from.name, to.name, n.name)
	s.note(what)
	cmd, said := s.inside(from.name, s.drawTraffic(s.drawProto(), to.nets[n]+":"+soakPort))
	s.fly(what, cmd, said, &from.well, &to.well)
	return true
}

func (s *soak) trafficOut() bool {
	from := s.pickBox(func(b *soaked) bool { return s.leads(b) && harmless(b) })
	if from == nil {
		return false
	}
	s.land(mostFlights - 1)
	what := "traffic from " + from.name + " to the outside"
	s.note(what)
	cmd, said := s.inside(from.name, s.drawTraffic(s.drawProto(), s.Router.FarHost+":"+soakPort))
	s.fly(what, cmd, said, &s.ways, &from.well)
	return true
}

func (s *soak) trafficIn() bool {
	to := s.pickBox(func(b *soaked) bool { return len(b.ports) > 0 && s.leads(b) && harmless(b) })
	if to == nil {
		return false
	}
	s.land(mostFlights - 1)
	port := s.pickPort(to)
	what := fmt.Sprintf("traffic from outside to port %d of %s", port, to.name)
	s.note(what)
	cmd, said := s.host(s.Host, s.drawTraffic(to.ports[port], fmt.Sprintf("%s:%d", s.reach, port)))
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
	s.dismiss(c)
	return true
}

// dismiss waits for the end of a client, whose standard input ends.
func (s *soak) dismiss(c *client) {
	s.t.Helper()
	c.in.Close()
	c.wait()
	s.clients = slices.DeleteFunc(s.clients, func(x *client) bool { return x == c })
}

// look asks for everything there is to be asked for.
func (s *soak) look() bool {
	for _, name := range []string{"switch", "mac", "arp", "nat", "flows", "rules", "routes", "leases", "drops"} {
		s.run("show", name)
	}
	s.run("check")
	return true
}
