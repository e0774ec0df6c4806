package main

import (
	"context"
	"fmt"

	"net"
	"net/netip"
	"os"
	"slices"

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
	api   bool     // it is a client of the node's
	in    bool     // and in a container, so that all it hears is no
	many  int      // processes, if it is more than one
	more  float64  // bytes that the node may need beyond moreMemory
	open  bool     // the network has guard=off
	rules int      // of its own firewall
	loop  bool     // it is two namespaces, bridged behind the switch's back
	first uint64   // so many of its frames are read before anything is measured, no two alike
	needs []string // programs

	// moves are the reasons, and other counters of its ports, that have to move, or it
	// was no attack.
	moves []string
	// bounded are the tables it fills, with the most it may have of them.
	bounded map[string]uint64
}

// Bounds of docs/limits.md.
const (
	macTable       = 8192
	leasesOfOne    = 64
	neighbourBound = 16
)

// tenMillion is how many stations a flood of MACs comes from at least: a table of them
// would take a gigabyte.
const tenMillion = 10_000_000

var attacks = []attack{
	{name: "hostile-macs", kind: "macs", first: tenMillion, moves: []string{countRead, "spoofed-mac"}, bounded: map[string]uint64{haveMACs: 1},
		what: "frames of more than 10,000,000 source MACs to as many destinations"},
	{name: "hostile-macs-open", kind: "macs", open: true, first: tenMillion, moves: []string{countRead, countFlooded, haveMACs}, bounded: map[string]uint64{haveMACs: macTable},
		what: "frames of more than 10,000,000 source MACs to as many destinations, with guard=off"},
	{name: "hostile-arp", kind: "arp", moves: []string{countRead, "spoofed-address"}, what: "ARP: who has every address, and claims to them"},
	{name: "hostile-arp-open", kind: "arp", open: true, moves: []string{countRead, haveNeighbours}, bounded: map[string]uint64{haveNeighbours: neighbourBound},
		what: "ARP: who has every address, and claims to them, with guard=off"},
	{name: "hostile-dhcp", kind: "dhcp", moves: []string{countRead, "spoofed-mac"}, bounded: map[string]uint64{haveLeases: 0}, what: "DHCP discovers, each of another client"},
	{name: "hostile-dhcp-open", kind: "dhcp", open: true, moves: []string{countRead, haveLeases}, bounded: map[string]uint64{haveLeases: leasesOfOne, haveMACs: macTable},
		what: "DHCP discovers, each of another client, with guard=off"},
	{name: "hostile-spoof", kind: "spoof", moves: []string{countRead, "spoofed-gateway", "spoofed-neighbour", "rogue-dhcp", "rogue-router", "loopback-address"},
		what: "claims to be gateway, neighbour, DHCP server and router, and packets from 127.0.0.1"},
	{name: "hostile-storm", kind: "storm", moves: []string{countRead, countFlooded, "flood-limit"}, what: "broadcasts as fast as its interface takes them"},
	{name: "hostile-loop", kind: "storm", open: true, loop: true, needs: []string{"ip"}, moves: []string{countRead, countFlooded, "loop"},
		what: "two ports bridged behind the switch's back, and broadcasts into that, with guard=off"},
	{name: "hostile-interface", kind: "interface", needs: []string{"ethtool"},
		what: "its interface down and up, with other MTU, queue, offloads and route_localnet, again and again"},
	{name: "hostile-client", kind: "client", api: true, more: 64e6, // 256 connections, and traces that wait: 8 batches of 2.2 MB
		what: "requests as fast as they are answered, and some malformed, without end, byte by byte, for all ports, to be replaced, and with answers that nobody reads"},
	{name: "hostile-knock", kind: "client", api: true, in: true,
		what: "from a container: the same, all of which is refused"},
	{name: "hostile-clients", kind: "client", api: true, many: 16, more: 256e6, // all connections there are
		what: "from 16 processes: requests as hostile-client has them"},
	{name: "hostile-knocks", kind: "client", api: true, in: true, many: 16,
		what: "from 16 processes of a container: the same, all of which is refused"},
	{name: "write-time-5000", kind: "ask", rules: 5000, moves: []string{countWritten, "slow-receiver"}, needs: []string{"nft"},
		what: "it asks for connections, and each packet to it passes 5,000 firewall rules of its own"},
	{name: "write-time-20000", kind: "ask", rules: 20_000, moves: []string{countWritten, "slow-receiver"}, needs: []string{"nft"},
		what: "it asks for connections, and each packet to it passes 20,000 firewall rules of its own"},
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
	switch {
	case a.api:
		w.what = "what two containers keep while a client of the node's sends " + a.what
	case a.kind == "interface" || a.kind == "ask" || a.loop:
		w.what = "what two containers keep beside a third: " + a.what
	}
	w.takes = func(o *options) time.Duration {
		all := 5*time.Second + time.Duration(a.first)*2*time.Microsecond
		if a.api {
			all += wholeBurst + time.Duration(2*o.Pairs)*(someBurst+o.moment())
		}
		return all + time.Duration(4*o.Pairs)*(o.moment()+attackFirst+around)
	}
	w.measure = func(l *lab, o *options, r *results) {
		hosts.Need(l, a.needs...)
		b := layBattle(l, a)
		b.begin(l)
		parts := []*workload{
			{name: a.name + "-requests", unit: "k/s", what: "TCP requests answered, 100 bytes each; " + w.what},
			{name: a.name + "-tcp", unit: "Gb/s", what: "bulk TCP; " + w.what},
		}
		attacked, aside := &battleCase{name: "attacked", dev: b.dev}, &battleCase{name: "aside", dev: voidDevice}
		alone := &battleCase{name: "alone"}
		cases := []*battleCase{attacked, aside}
		if a.api { // a flood leaves others less, but has their processor awake
			cases = append(cases, alone)
		}
		for _, c := range cases {
			for _, p := range parts {
				c.figures = append(c.figures, r.figure(p, c.name))
			}
		}
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
		note := b.proof(l)
		for i := range parts {
			attacked.figures[i].Note = note
			aside.figures[i].Note = "the same attacker, on a TAP that nobody reads"
			r.atLeast(attacked.figures[i], aside.figures[i], hostileBar)
			if a.api {
				alone.figures[i].Note = "nobody attacks"
			}
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
	memory    float64        // the node's before the attack

	moved   map[string]uint64 // what was counted at his ports while he attacked
	tables  map[string]uint64 // the most he had of the node's tables at the end of a part
	done    uint64            // changes of his interface, answers to his requests
	starved []error           // what the others could not do meanwhile
}

// A battleCase is where the attacker turns to; without an interface he does nothing.
type battleCase struct {
	name, dev string
	figures   []*figure // of requests, of bulk TCP
}

// A hostile client has a burst of two seconds (docs/limits.md), and gets some of it back
// while nobody attacks. It is about what lasts, so that is used up before.
const (
	wholeBurst = 5 * time.Second
	someBurst  = time.Second
)

// attackFirst is how long an attack goes on before anything is measured.
const attackFirst = 100 * time.Millisecond

func layBattle(l *lab, a attack) *battle {
	options := []string{}
	if a.open {
		options = append(options, "--opt", "guard=off")
	}
	b := &battle{attack: a, n: startNode(l, options...), dev: "eth0", names: []string{"attacker"}, moved: map[string]uint64{}, tables: map[string]uint64{}}
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
	own, here := b.victim, in("attacker")
	switch {
	case a.api && !a.in:
		here = func(name string, args ...string) *hosts.Cmd {
			return clients.Command(context.Background(), name, args...)
		}
	case a.loop:
		own, here = b.layLoop(l), inside("ip", "netns", "exec", "loop1")
	default:
		own = b.n.container(l, "attacker", "")
	}
	b.attacker = startAttacker(l, here, theatre{Own: whois(l, own), Victim: whois(l, b.victim), Gateway: gatewayStation(), Rules: a.rules, Processes: a.many})
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
		got, err := b.under(l, c, during, func() (outcome, error) { return b.near.do(j) })
		s := sample{Bytes: float64(got.Bytes)}
		switch {
		case err != nil && c.dev == b.dev: // what starves is worth nothing, and ends nothing
			b.starved = append(b.starved, fmt.Errorf("%s: %w", j.Do, err))
		case err != nil:
			l.check(err, "%s, %s beside an attack on nobody", b.name, j.Do)
		case j.Do == "stream":
			s.Value = float64(got.Bytes) * 8 / got.Took.Seconds() / 1e9
		default:
			s.Value = float64(got.Count) / got.Took.Seconds() / 1e3
		}
		samples = append(samples, s)
	}
	return samples
}

// under has something done while the attack goes on, and proves that it did.
func (b *battle) under(l *lab, c *battleCase, during time.Duration, do func() (outcome, error)) (outcome, error) {
	kind := b.kind
	if c.dev == voidDevice && (kind == "ask" || b.api) {
		kind = "storm" // a flood is what there is to do to it
	}
	if c.dev == "" {
		time.Sleep(attackFirst)
		return do()
	}
	before := b.counted(l)
	first := attackFirst
	if b.api && c.dev == b.dev {
		first = someBurst
	}
	l.check(b.attacker.begin(job{Do: kind, Dev: c.dev, To: b.to(oncePort), For: first + during}), "attack")
	time.Sleep(first)
	got, err := do()
	did, attackErr := b.attacker.end()
	l.check(attackErr, "attack")
	if did.Count == 0 {
		l.Fatalf("%s: the attacker did nothing", b.name)
	}
	if c.dev == b.dev {
		b.note(l, did, before)
	}
	return got, err
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
