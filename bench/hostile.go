package main

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"fairlead/node/api"
	"fairlead/packet"
	"fairlead/packet/packettest"
	hosts "fairlead/test/lab"
)

// hostileBar is the part of what two innocent containers keep beside an attacker who
// only uses up processors that they have to keep beside the same one on their switch.
const hostileBar = 0.8

// An attack is what a hostile container does to the switch it hangs on.
type attack struct {
	name, what string

	kind  string   // of an attacker's job
	open  bool     // the network has guard=off
	rules int      // of its own firewall
	loop  bool     // it is two namespaces, bridged behind the switch's back
	moves []string // reasons that have to be counted at its port, or it was no attack
	needs []string // programs
}

var attacks = []attack{
	{name: "hostile-macs", kind: "macs", moves: []string{"spoofed-mac"}, what: "frames of 10,000,000 source MACs to as many destinations"},
	{name: "hostile-macs-open", kind: "macs", open: true, what: "frames of 10,000,000 source MACs to as many destinations, with guard=off"},
	{name: "hostile-arp", kind: "arp", moves: []string{"spoofed-address"}, what: "ARP: who has every address, and claims to them"},
	{name: "hostile-dhcp", kind: "dhcp", what: "DHCP discovers, each of another client"},
	{name: "hostile-spoof", kind: "spoof", moves: []string{"spoofed-gateway", "spoofed-neighbour", "rogue-dhcp", "rogue-router"},
		what: "claims to be gateway, neighbour, DHCP server and router"},
	{name: "hostile-storm", kind: "storm", what: "broadcasts as fast as its interface takes them"},
	{name: "hostile-loop", kind: "storm", open: true, loop: true, needs: []string{"ip"}, what: "two ports bridged behind the switch's back, and broadcasts into that, with guard=off"},
	{name: "hostile-interface", kind: "interface", needs: []string{"ip"}, what: "its interface down and up, with other MTU, queue, offloads and route_localnet, again and again"},
	{name: "write-time-5000", kind: "ask", rules: 5000, needs: []string{"nft"}, what: "it asks for connections, and each packet to it passes 5,000 firewall rules of its own"},
	{name: "write-time-20000", kind: "ask", rules: 20_000, moves: []string{"slow-receiver"}, needs: []string{"nft"}, what: "it asks for connections, and each packet to it passes 20,000 firewall rules of its own"},
}

// hostileWorkloads are what two containers keep of requests and of bulk TCP while a
// third attacks, beside the same when that floods a TAP of its own that nobody reads.
func hostileWorkloads() (ws []*workload) {
	for _, a := range attacks {
		ws = append(ws, hostile(a))
	}
	return ws
}

func hostile(a attack) *workload {
	w := &workload{name: a.name, asked: true, what: "what two containers keep while a third sends " + a.what}
	if a.kind == "interface" || a.kind == "ask" {
		w.what = "what two containers keep beside a third: " + a.what
	}
	w.takes = func(o *options) time.Duration {
		return 5*time.Second + time.Duration(4*o.Pairs)*(o.moment()+attackFirst+around)
	}
	w.measure = func(l *lab, o *options, r *results) {
		hosts.Need(l, a.needs...)
		b := layBattle(l, a)
		parts := []*workload{
			{name: a.name + "-requests", unit: "k/s", what: "TCP requests answered, 100 bytes each; " + w.what},
			{name: a.name + "-tcp", unit: "Gb/s", what: "bulk TCP; " + w.what},
		}
		cases := []*battleCase{{name: "attacked", dev: b.dev}, {name: "aside", dev: voidDevice}}
		for _, c := range cases {
			for _, p := range parts {
				c.figures = append(c.figures, r.figure(p, c.name))
			}
		}
		attacked, aside := cases[0], cases[1]
		for round := range o.Pairs {
			for _, c := range cases {
				for i, s := range b.measure(l, c, o.moment()) {
					s.Round = round
					c.figures[i].add(s)
					progress("%s  round %d of %d  %-8s %6.2f %s", c.figures[i].Workload, round+1, o.Pairs, c.name, s.Value, parts[i].unit)
				}
			}
			slices.Reverse(cases)
		}
		note := b.moved(l)
		for i := range parts {
			attacked.figures[i].Note = note
			aside.figures[i].Note = "the same attacker, on a TAP that nobody reads"
			r.atLeast(attacked.figures[i], aside.figures[i], hostileBar)
		}
		run(l, b.n.bin, "check")
	}
	return w
}

// A battle is two innocent containers and an attacker on a node of the bench's own.
type battle struct {
	attack
	n         *node
	near, far *endProcess // in the innocent ones
	attacker  *endProcess
	victim    *api.Container // who answers
	names     []string       // of the attacker's ports
	dev       string         // his interface on the switch
}

// A battleCase is where the attacker turns to.
type battleCase struct {
	name, dev string
	figures   []*figure // of requests, of bulk TCP
}

// attackFirst is how long an attack goes on before anything is measured.
const attackFirst = 100 * time.Millisecond

func layBattle(l *lab, a attack) *battle {
	options := []string{}
	if a.open {
		options = append(options, "--opt", "guard=off")
	}
	b := &battle{attack: a, n: startNode(l, options...), dev: "eth0", names: []string{"attacker"}}
	clients := hosts.NewHost(l, "clients")
	inside := func(words ...string) func(name string, args ...string) *hosts.Cmd {
		return func(name string, args ...string) *hosts.Cmd {
			line := append(append(words[1:len(words):len(words)], name), args...)
			return clients.Command(context.Background(), words[0], line...)
		}
	}
	in := func(container string) func(name string, args ...string) *hosts.Cmd {
		return inside(b.n.bin, "exec", "-i", container)
	}
	b.victim = b.n.container(l, "victim", "")
	b.n.container(l, "other", "")
	var own *api.Container
	here := in("attacker")
	if a.loop {
		own, here = b.layLoop(l), inside("ip", "netns", "exec", "loop1")
	} else {
		own = b.n.container(l, "attacker", "")
	}
	b.attacker = startAttacker(l, here, theatre{Own: whois(l, own), Victim: whois(l, b.victim), Gateway: gatewayStation(), Rules: a.rules})
	b.far = startFar(l, in("victim"), datagrams{})
	b.near = startEnd(l, in("other"), "near")
	return b
}

// layLoop joins two ports behind the switch's back.
func (b *battle) layLoop(l *lab) (first *api.Container) {
	b.dev, b.names = "br0", []string{"loop1", "loop2"}
	for i, name := range b.names {
		l.Cleanup(func() { _ = os.Remove("/run/netns/" + name) })
		c := b.n.namespace(l, name)
		if i == 0 {
			first = c
		}
	}
	run(l, "ip", "link", "add", "cable1", "netns", "loop1", "type", "veth", "peer", "name", "cable2", "netns", "loop2")
	for i, name := range b.names {
		inside := func(args ...string) { run(l, "ip", append([]string{"-n", name}, args...)...) }
		cable := fmt.Sprintf("cable%d", i+1)
		inside("link", "add", "br0", "type", "bridge")
		for _, dev := range []string{"eth0", cable} {
			inside("link", "set", dev, "master", "br0")
		}
		for _, dev := range []string{cable, "br0"} {
			inside("link", "set", dev, "up")
		}
	}
	return first
}

// measure measures requests and bulk TCP, each while the attack goes on.
func (b *battle) measure(l *lab, c *battleCase, during time.Duration) (samples []sample) {
	for _, j := range []job{
		{Do: "echo", To: b.to(echoTCPPort), For: during},
		{Do: "stream", To: b.to(bulkPort), For: during, Control: bulkControl},
	} {
		kind := b.kind
		if c.dev == voidDevice && kind == "ask" {
			kind = "storm" // a flood is what there is to do to it
		}
		l.check(b.attacker.begin(job{Do: kind, Dev: c.dev, To: b.to(oncePort), For: attackFirst + during}), "attack")
		time.Sleep(attackFirst)
		got, err := b.near.do(j)
		l.check(err, "%s, %s", b.name, j.Do)
		did, err := b.attacker.end()
		l.check(err, "attack")
		if did.Count == 0 {
			l.Fatalf("%s: the attacker did nothing", b.name)
		}
		value := float64(got.Count) / got.Took.Seconds() / 1e3
		if j.Do == "stream" {
			value = float64(got.Bytes) * 8 / got.Took.Seconds() / 1e9
		}
		samples = append(samples, sample{Value: value, Bytes: float64(got.Bytes)})
	}
	return samples
}

// moved says what the attack had counted at the attacker's ports. An attack that
// nothing was counted of was none.
func (b *battle) moved(l *lab) string {
	var switches []api.Switch
	l.check(b.n.get(l, "/v1/switches", &switches), "ask for the ports")
	counted := map[string]uint64{}
	read := uint64(0)
	for _, s := range switches {
		for _, p := range s.Ports {
			if !slices.Contains(b.names, p.Container) {
				continue
			}
			read += p.Counts.Read
			for _, reasons := range []map[string]uint64{p.Counts.Dropped, p.Counts.Failed} {
				for reason, n := range reasons {
					counted[reason] += n
				}
			}
		}
	}
	for _, reason := range b.moves {
		if counted[reason] == 0 {
			l.Fatalf("%s: nothing was counted as %s", b.name, reason)
		}
	}
	note := []string{fmt.Sprintf("%d frames of the attacker were read", read)}
	for _, reason := range slices.Sorted(maps.Keys(counted)) {
		note = append(note, fmt.Sprintf("%s %d", reason, counted[reason]))
	}
	return strings.Join(note, ", ")
}

// to is a port of the victim.
func (b *battle) to(port int) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(b.victim.IP), uint16(port))
}

// whois is who a container is on the switch.
func whois(l *lab, c *api.Container) packettest.Station {
	mac, err := net.ParseMAC(c.MAC)
	l.check(err, "read the MAC of %s", c.Name)
	return packettest.Station{MAC: packet.MAC(mac), IP: netip.MustParseAddr(c.IP)}
}

// gatewayStation is the gateway of the default network.
func gatewayStation() packettest.Station {
	a := netip.MustParseAddr("172.17.0.1")
	return packettest.Station{MAC: packet.MACFromIPv4(a), IP: a}
}
