package nat

import (
	"testing"
	"time"

	"fairlead/packet"
)

// What docs/nat.md says of the table, requirement by requirement.

func of(p packet.Proto, k packet.Tuple) packet.Tuple {
	if k.Proto = p; p == packet.ProtoICMP {
		k.DstPort = 0
	}
	return k
}

var withPorts = []packet.Proto{packet.ProtoUDP, packet.ProtoTCP, packet.ProtoICMP}

// A caller is a table and what the gateway does with it.
type caller struct {
	t   *testing.T
	nat *Table
	now int64
}

func newCaller(t *testing.T, c Config) *caller {
	if c.Seed == 0 {
		c.Seed = 1
	}
	return &caller{t: t, nat: New(c), now: 1000 * int64(time.Second)}
}

func (c *caller) later(d time.Duration) { c.now += int64(d) }

// tryFrom is a packet a container sends from a network. It returns the tuple
// the packet leaves with.
func (c *caller) tryFrom(n packet.NetworkID, id packet.ContainerID, k packet.Tuple, flags uint8) (packet.Tuple, packet.Reason) {
	f, ok := c.nat.Find(n, &k, c.now, flags)
	if !ok {
		if k.Proto == packet.ProtoTCP && !beginsTCP(flags) {
			return packet.Tuple{}, packet.NoFlow
		}
		p, reason := c.nat.PlanOut(n, id, k, lan, ours)
		if k.Dst == ours || k.Dst == oursToo {
			p, reason = c.nat.PlanHairpin(n, id, k, lan, ours)
		}
		if reason == packet.OK {
			f, reason = c.nat.Commit(p, c.now)
		}
		if reason != packet.OK {
			return packet.Tuple{}, reason
		}
	}
	c.nat.Seen(f, c.now, 1, 100, flags)
	return c.nat.Translation(f).After, packet.OK
}

// from is tryFrom for packets that have to pass, from the usual network.
func (c *caller) from(id packet.ContainerID, k packet.Tuple, flags uint8) packet.Tuple {
	c.t.Helper()
	after, reason := c.tryFrom(net1, id, k, flags)
	if reason != packet.OK {
		c.t.Fatalf("%v is refused: %v", k, reason)
	}
	return after
}

// back is a packet that comes in on the uplink.
func (c *caller) back(k packet.Tuple, flags uint8) (packet.Tuple, packet.Reason) {
	f, ok := c.nat.Find(lan, &k, c.now, flags)
	if !ok {
		if k.Proto == packet.ProtoTCP && !beginsTCP(flags) {
			return packet.Tuple{}, packet.NoFlow
		}
		p, reason := c.nat.PlanIn(lan, k)
		if reason == packet.OK {
			f, reason = c.nat.Commit(p, c.now)
		}
		if reason != packet.OK {
			return packet.Tuple{}, reason
		}
	}
	c.nat.Seen(f, c.now, 1, 100, flags)
	return c.nat.Translation(f).After, packet.OK
}

func (c *caller) publish(r Rule) Rule {
	c.t.Helper()
	r, err := c.nat.Publish(r)
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

// TestMappingIsEndpointIndependent is RFC 4787 REQ-1, RFC 5382 REQ-1 and RFC
// 5508 REQ-1a: one outside port towards everybody; and RFC 7857: protocols do
// not meet.
func TestMappingIsEndpointIndependent(t *testing.T) {
	c := newCaller(t, Config{})
	c.from(bob, udp(bobAddr, 5000, world, 7), 0) // so that it is not simply preserved
	for _, proto := range withPorts {
		want := c.from(alice, of(proto, udp(aliceAddr, 5000, world, 7)), packet.TCPSyn).SrcPort
		if preserved := want == 5000; preserved == (proto == packet.ProtoUDP) {
			t.Errorf("%v: port %d", proto, want)
		}
		for i, k := range []packet.Tuple{
			udp(aliceAddr, 5000, world, 8), udp(aliceAddr, 5000, world2, 7), udp(aliceAddr, 5000, world2, 9999),
		} {
			if got := c.from(alice, of(proto, k), packet.TCPSyn); got.SrcPort != want || got.Src != ours {
				t.Errorf("%v, destination %d: seen as %v port %d, want %d", proto, i, got.Src, got.SrcPort, want)
			}
			if proto == packet.ProtoICMP && i > 0 {
				break // an identifier has no second port
			}
		}
	}
}

// TestMappingEndsWithItsFlows is RFC 4787 REQ-6 read the other way, and RFC 7857.
func TestMappingEndsWithItsFlows(t *testing.T) {
	c := newCaller(t, Config{})
	for i := range uint16(10) {
		c.from(alice, of(packet.ProtoICMP, udp(aliceAddr, 5, world, i)), 0)
		c.from(alice, udp(aliceAddr, 5000, world, 7000+i), 0)
		c.later(20 * time.Second)
	}
	if s := c.nat.Stats(); s.Mappings != 2 {
		t.Errorf("%d mappings", s.Mappings)
	}
	c.later(301 * time.Second)
	c.nat.Expire(c.now, 1000)
	if s := c.nat.Stats(); s.Mappings != 0 || s.Flows != 0 {
		t.Errorf("%+v", s)
	}
}

// TestPortsAreNotOverloaded is RFC 4787 REQ-3 and RFC 5382 REQ-7: no two
// endpoints have the same outside port, not even for different destinations.
func TestPortsAreNotOverloaded(t *testing.T) {
	for _, proto := range withPorts {
		c := newCaller(t, Config{})
		seen := map[uint16]int{}
		for i := range 2000 {
			inside := packet.AddrFrom4([4]byte{10, 88, byte(i >> 8), byte(i)})
			remote := packet.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)})
			k := of(proto, udp(inside, 5000, remote, 7))
			port := c.from(packet.ContainerID(1+i%100), k, packet.TCPSyn).SrcPort
			if other, taken := seen[port]; taken {
				t.Fatalf("%v: endpoints %d and %d share port %d", proto, other, i, port)
			}
			seen[port] = i
		}
	}
}

// TestPortChoice is RFC 4787 REQ-3a, 3b and REQ-4, and RFC 6056.
func TestPortChoice(t *testing.T) {
	chosen := func(seed uint64) (ports []uint16) {
		c := newCaller(t, Config{Seed: seed})
		for i := range 200 {
			inside := packet.AddrFrom4([4]byte{10, 88, 1, byte(i)})
			port := c.from(alice, udp(inside, 5001, world, 7), 0).SrcPort
			if i == 0 && port != 5001 {
				t.Errorf("a free port is not kept: %d", port)
			}
			if port < 1024 || port%2 != 1 {
				t.Errorf("port %d for 5001", port)
			}
			ports = append(ports, port)
		}
		return ports[1:]
	}
	one, other := chosen(1), chosen(2)
	neighbours, same := 0, 0
	for i := range one {
		if i > 0 && one[i]-one[i-1] == 2 {
			neighbours++
		}
		if one[i] == other[i] {
			same++
		}
	}
	if neighbours > 5 || same > 5 {
		t.Errorf("of %d ports %d follow on the one before and %d are the same with another seed", len(one), neighbours, same)
	}

	c := newCaller(t, Config{})
	for _, port := range []uint16{1, 500, 1023} {
		if got := c.from(alice, udp(aliceAddr, port, world, 7), 0).SrcPort; got < 1024 || got%2 != port%2 {
			t.Errorf("port %d for %d", got, port)
		}
	}
	// A published port is nobody's mapping.
	c.publish(Rule{Network: net1, Container: bob, Inside: bobAddr, Proto: packet.ProtoUDP, OutsidePort: 7000, InsidePort: 80})
	if got := c.from(alice, udp(aliceAddr, 7000, world, 7), 0).SrcPort; got == 7000 {
		t.Error("a published port was given away")
	}
}

// TestIdleTimeouts is RFC 4787 REQ-5, RFC 5382 REQ-5, RFC 5508 REQ-2 and RFC
// 7857 2.1: how long a flow lives without a packet.
func TestIdleTimeouts(t *testing.T) {
	const syn, ack, fin, rst = packet.TCPSyn, packet.TCPAck, packet.TCPFin, packet.TCPRst
	handshake := []step{{out, syn}, {in, syn | ack}, {out, ack}}
	for name, tt := range map[string]struct {
		k     packet.Tuple
		steps []step
		want  time.Duration
		conf  Timeouts
	}{
		"UDP":                 {udp(aliceAddr, 5000, world, 7000), []step{{out, 0}}, 300 * time.Second, Timeouts{}},
		"UDP answered":        {udp(aliceAddr, 5000, world, 7000), []step{{out, 0}, {in, 0}}, 300 * time.Second, Timeouts{}},
		"UDP well-known":      {udp(aliceAddr, 5000, world, 443), []step{{out, 0}, {in, 0}}, 30 * time.Second, Timeouts{}},
		"DNS":                 {udp(aliceAddr, 5000, world, 53), []step{{out, 0}}, 30 * time.Second, Timeouts{}},
		"DNS answered":        {udp(aliceAddr, 5000, world, 53), []step{{out, 0}, {in, 0}}, 10 * time.Second, Timeouts{}},
		"echo":                {of(packet.ProtoICMP, udp(aliceAddr, 5000, world, 0)), []step{{out, 0}, {in, 0}}, 60 * time.Second, Timeouts{}},
		"SYN":                 {tcp(aliceAddr, 5000, world, 80), handshake[:1], 240 * time.Second, Timeouts{}},
		"SYN answered":        {tcp(aliceAddr, 5000, world, 80), handshake[:2], 240 * time.Second, Timeouts{}},
		"TCP":                 {tcp(aliceAddr, 5000, world, 80), handshake, (2*60 + 4) * time.Minute, Timeouts{}},
		"TCP half closed":     {tcp(aliceAddr, 5000, world, 80), append(handshake[:3:3], step{in, fin | ack}), 240 * time.Second, Timeouts{}},
		"TCP closed":          {tcp(aliceAddr, 5000, world, 80), append(handshake[:3:3], step{in, fin | ack}, step{out, fin | ack}), 240 * time.Second, Timeouts{}},
		"TCP reset":           {tcp(aliceAddr, 5000, world, 80), append(handshake[:3:3], step{out, rst}), 240 * time.Second, Timeouts{}},
		"UDP, configured":     {udp(aliceAddr, 5000, world, 7000), []step{{out, 0}}, 500 * time.Second, Timeouts{UDP: 500 * time.Second}},
		"echo, configured":    {of(packet.ProtoICMP, udp(aliceAddr, 5, world, 0)), []step{{out, 0}}, 90 * time.Second, Timeouts{ICMP: 90 * time.Second}},
		"TCP, configured":     {tcp(aliceAddr, 5000, world, 80), handshake, 24 * time.Hour, Timeouts{TCPEstablished: 24 * time.Hour}},
		"opening, configured": {tcp(aliceAddr, 5000, world, 80), handshake[:1], 300 * time.Second, Timeouts{TCPTransitory: 300 * time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCaller(t, Config{Timeouts: tt.conf})
			c.play(tt.k, tt.steps)
			last := c.now
			alive := func() bool {
				c.nat.Expire(c.now, 1000)
				_, ok := c.nat.Find(net1, &tt.k, c.now, ack)
				return ok && c.nat.Stats().Flows == 1
			}
			for c.now < last+int64(tt.want) { // the table looks in between
				if !alive() {
					t.Fatalf("ended after %v", time.Duration(c.now-last))
				}
				c.later(tt.want / 7)
			}
			if c.now = last + int64(tt.want); !alive() {
				t.Error("ended too early")
			}
			if c.later(time.Second); alive() {
				t.Error("lives too long")
			}
		})
	}
}

// A step is a packet of a connection, in the direction of the first one or back.
type step struct {
	way   direction // out or in
	flags uint8
}

// play sends the packets of a connection that a container begins, a second
// apart. Each has to pass, with the tuple that the first one's makes certain.
func (c *caller) play(k packet.Tuple, steps []step) {
	c.t.Helper()
	var seen packet.Tuple
	for i, s := range steps {
		c.later(time.Second)
		if s.way == out {
			after := c.from(alice, k, s.flags)
			if i > 0 && after != seen {
				c.t.Fatalf("packet %d leaves as %v, the first one did as %v", i, after, seen)
			}
			seen = after
			continue
		}
		after, reason := c.back(seen.Reverse(), s.flags)
		if reason != packet.OK || after != k.Reverse() {
			c.t.Fatalf("packet %d comes in as %v, %v, want %v", i, after, reason, k.Reverse())
		}
	}
}

// TestBothDirectionsRefresh is RFC 4787 REQ-6 and 6a.
func TestBothDirectionsRefresh(t *testing.T) {
	for _, way := range []direction{out, in} {
		c := newCaller(t, Config{})
		k := udp(aliceAddr, 5000, world, 7000)
		seen := c.from(alice, k, 0)
		for range 10 {
			c.later(290 * time.Second)
			c.nat.Expire(c.now, 1000)
			if way == out {
				if got := c.from(alice, k, 0); got != seen {
					t.Fatalf("leaves as %v, did as %v", got, seen)
				}
			} else if _, reason := c.back(seen.Reverse(), 0); reason != packet.OK {
				t.Fatalf("refused: %v", reason)
			}
		}
	}
	// A stranger refreshes nothing.
	c := newCaller(t, Config{})
	seen := c.from(alice, udp(aliceAddr, 5000, world, 7000), 0)
	for range 3 {
		c.later(100 * time.Second)
		if _, reason := c.back(udp(world2, 7000, ours, seen.SrcPort), 0); reason != packet.Filtered {
			t.Fatalf("a stranger's packet: %v", reason)
		}
	}
	c.later(time.Second)
	c.nat.Expire(c.now, 1000)
	if s := c.nat.Stats(); s.Flows != 0 || s.Mappings != 0 {
		t.Errorf("a stranger keeps %+v alive", s)
	}
}

// TestSameAddressesInsideAndOutside is RFC 4787 REQ-7: two networks and the
// world may use the same addresses.
func TestSameAddressesInsideAndOutside(t *testing.T) {
	c := newCaller(t, Config{})
	k := udp(aliceAddr, 5000, bobAddr, 7000) // bobAddr is somebody outside here
	one, reason1 := c.tryFrom(net1, alice, k, 0)
	other, reason2 := c.tryFrom(net2, bob, k, 0)
	if reason1 != packet.OK || reason2 != packet.OK || one == other {
		t.Fatalf("%v %v, %v %v", one, reason1, other, reason2)
	}
	for _, tt := range []struct {
		seen packet.Tuple
		want packet.NetworkID
	}{{one, net1}, {other, net2}} {
		if after, reason := c.back(tt.seen.Reverse(), 0); reason != packet.OK || after != k.Reverse() {
			t.Errorf("back as %v, %v", after, reason)
		}
		f, ok := c.nat.Find(lan, new(tt.seen.Reverse()), c.now, 0)
		if out := c.nat.Translation(f).Out; !ok || out != tt.want {
			t.Errorf("goes to network %d, want %d", out, tt.want)
		}
	}
}

// TestFilteringIsAddressDependent is RFC 4787 REQ-8 and RFC 5382 REQ-3.
func TestFilteringIsAddressDependent(t *testing.T) {
	for _, proto := range []packet.Proto{packet.ProtoUDP, packet.ProtoTCP} {
		c := newCaller(t, Config{})
		mapped := c.from(alice, of(proto, udp(aliceAddr, 5000, world, 7000)), packet.TCPSyn).SrcPort
		for _, tt := range []struct {
			k    packet.Tuple
			want packet.Reason
		}{
			{udp(world, 7000, ours, mapped), packet.OK},
			{udp(world, 9, ours, mapped), packet.OK}, // another port of the same address
			{udp(world2, 7000, ours, mapped), packet.Filtered},
			{udp(world, 7000, ours, mapped+1), packet.Refused},
		} {
			after, reason := c.back(of(proto, tt.k), packet.TCPSyn)
			if reason != tt.want || reason == packet.OK && (after.Dst != aliceAddr || after.DstPort != 5000 || after.Src != world) {
				t.Errorf("%v: %v, %v, want %v", tt.k, after, reason, tt.want)
			}
		}
		// From a published port on everybody may come, and is seen as who he is.
		c.publish(Rule{Network: net1, Container: alice, Inside: aliceAddr, Proto: proto, OutsidePort: 8080, InsidePort: 80})
		if after, reason := c.back(of(proto, udp(world2, 7000, ours, 8080)), packet.TCPSyn); reason != packet.OK ||
			after != of(proto, udp(world2, 7000, aliceAddr, 80)) {
			t.Errorf("published: %v, %v", after, reason)
		}
	}
}

// TestHairpinHasOutsideSource is RFC 4787 REQ-9, RFC 5382 REQ-8 and RFC 5508
// REQ-7: two containers that know each other by our outside address only.
func TestHairpinHasOutsideSource(t *testing.T) {
	for _, proto := range []packet.Proto{packet.ProtoUDP, packet.ProtoTCP} {
		c := newCaller(t, Config{})
		c.publish(Rule{Network: net1, Container: bob, Inside: bobAddr, Proto: proto, OutsidePort: 8080, InsidePort: 80})
		mapped := c.from(alice, of(proto, udp(aliceAddr, 5000, world, 7000)), packet.TCPSyn).SrcPort
		k := of(proto, udp(aliceAddr, 5000, ours, 8080))
		at := c.from(alice, k, packet.TCPSyn)
		if want := of(proto, udp(ours, mapped, bobAddr, 80)); at != want {
			t.Fatalf("%v: arrives as %v, want %v", proto, at, want)
		}
		if back := c.from(bob, at.Reverse(), packet.TCPSyn|packet.TCPAck); back != k.Reverse() {
			t.Errorf("%v: the answer comes as %v, want %v", proto, back, k.Reverse())
		}
	}
}

// TestHairpinPing is RFC 5508 REQ-7: a query to another container's own outside
// address.
func TestHairpinPing(t *testing.T) {
	c := newCaller(t, Config{})
	if _, err := c.nat.OneToOne(Rule{Network: net1, Container: bob, Uplink: lan, Outside: oursToo, Inside: bobAddr}); err != nil {
		t.Fatal(err)
	}
	k := ping(aliceAddr, 77, oursToo)
	at := c.from(alice, k, 0)
	if want := ping(ours, at.SrcPort, bobAddr); at != want {
		t.Fatalf("arrives as %v, want %v", at, want)
	}
	if back := c.from(bob, at.Reverse(), 0); back != k.Reverse() {
		t.Errorf("the answer comes as %v, want %v", back, k.Reverse())
	}
}

// TestHairpinBetweenMappings is the same for two players behind one address,
// who were told each other's by a server: both send, and both hear the other
// one, although each port is open to those only its owner talks to.
func TestHairpinBetweenMappings(t *testing.T) {
	for _, proto := range []packet.Proto{packet.ProtoUDP, packet.ProtoTCP} {
		c := newCaller(t, Config{})
		one := c.from(alice, of(proto, udp(aliceAddr, 5000, world, 7000)), packet.TCPSyn).SrcPort
		other := c.from(bob, of(proto, udp(bobAddr, 6000, world, 7000)), packet.TCPSyn).SrcPort
		there := of(proto, udp(aliceAddr, 5000, ours, other))
		back := of(proto, udp(bobAddr, 6000, ours, one))
		if got, reason := c.tryFrom(net2, 77, of(proto, udp(addr("10.9.0.5"), 7, ours, other)), packet.TCPSyn); reason != packet.Filtered {
			t.Errorf("%v: from another network: %v, %v", proto, got, reason)
		}
		if got, reason := c.tryFrom(net1, alice, there, packet.TCPSyn); reason != packet.OK || got != of(proto, udp(ours, one, bobAddr, 6000)) {
			t.Errorf("%v: %v, %v", proto, got, reason)
		}
		if got, reason := c.tryFrom(net1, bob, back, packet.TCPSyn); reason != packet.OK || got != of(proto, udp(ours, other, aliceAddr, 5000)) {
			t.Errorf("%v: %v, %v", proto, got, reason)
		}
	}
}

// TestExhaustionIsRefusal is RFC 4787 REQ-11: when there is no port left for a
// container it is told so, and nothing changes for the endpoints that have one.
func TestExhaustionIsRefusal(t *testing.T) {
	c := newCaller(t, Config{MaxContainers: 2, Flows: 1 << 18, PerContainer: 1 << 17})
	port := c.from(alice, udp(aliceAddr, 5000, world, 7), 0).SrcPort
	refused := 0
	for i := range 1 << 16 {
		inside := packet.AddrFrom4([4]byte{10, 89, byte(i >> 8), byte(i)})
		if _, reason := c.tryFrom(net1, alice, udp(inside, 4000, world, 7), 0); reason != packet.OK {
			if refused++; reason != packet.PortsExhausted {
				t.Fatalf("refused as %v", reason)
			}
		}
	}
	if refused == 0 {
		t.Fatal("more ports than there are")
	}
	if got := c.from(alice, udp(aliceAddr, 5000, world2, 9), 0).SrcPort; got != port {
		t.Errorf("the endpoint is seen as %d and %d", port, got)
	}
	if _, reason := c.back(udp(world, 99, ours, port), 0); reason != packet.OK {
		t.Errorf("filtered differently: %v", reason)
	}
	if _, reason := c.back(udp(addr("203.0.113.99"), 99, ours, port), 0); reason != packet.Filtered {
		t.Errorf("filtered differently: %v", reason)
	}
}

// TestHostileContainer: one that takes all the ports it gets leaves another one
// its share.
func TestHostileContainer(t *testing.T) {
	c := newCaller(t, Config{MaxContainers: 126, Flows: 1 << 18, PerContainer: 1 << 17})
	got := 0
	for i := range 1 << 16 {
		inside := packet.AddrFrom4([4]byte{10, 89, byte(i >> 8), byte(i)})
		if _, reason := c.tryFrom(net1, alice, udp(inside, 4000, world, 7), 0); reason == packet.OK {
			got++
		}
	}
	share := 64512 / 2 / 126
	if want := 64512 - 125*share; got != want {
		t.Errorf("one container got %d ports, want %d", got, want)
	}
	for i := range share {
		if _, reason := c.tryFrom(net1, bob, udp(bobAddr, uint16(10000+i), world, 7), 0); reason != packet.OK {
			t.Fatalf("the other one has %d: %v", i, reason)
		}
	}
}

// TestTCPSequences is RFC 5382 REQ-2: whatever order of packets RFC 9293 allows,
// each passes, whoever began.
func TestTCPSequences(t *testing.T) {
	const syn, ack, fin, rst = packet.TCPSyn, packet.TCPAck, packet.TCPFin, packet.TCPRst
	open := []step{{out, syn}, {in, syn | ack}, {out, ack}}
	for name, steps := range map[string][]step{
		"handshake and close": {{out, syn}, {in, syn | ack}, {out, ack}, {out, ack}, {in, ack}, {out, fin | ack}, {in, ack}, {in, fin | ack}, {out, ack}},
		"simultaneous open":   {{out, syn}, {in, syn}, {out, syn | ack}, {in, syn | ack}, {out, ack}, {in, ack}},
		"SYNs repeated":       {{out, syn}, {out, syn}, {in, syn | ack}, {out, syn}, {in, syn | ack}, {out, ack}},
		"simultaneous close":  append(open[:3:3], step{out, fin | ack}, step{in, fin | ack}, step{out, ack}, step{in, ack}),
		"half close":          append(open[:3:3], step{out, fin | ack}, step{in, ack}, step{in, ack}, step{out, ack}, step{in, fin | ack}, step{out, ack}),
		"FIN repeated":        append(open[:3:3], step{out, fin | ack}, step{out, fin | ack}, step{in, fin | ack}, step{in, fin | ack}, step{out, ack}),
		"reset by the server": append(open[:3:3], step{in, rst}),
		"refused":             {{out, syn}, {in, rst | ack}},
		"refused, again":      {{out, syn}, {in, rst | ack}, {out, syn}, {in, syn | ack}, {out, ack}},
		"reset, again":        append(open[:3:3], step{out, rst | ack}, step{out, syn}, step{in, syn | ack}, step{out, ack}),
		"closed, again": append(open[:3:3], step{out, fin | ack}, step{in, fin | ack}, step{out, ack},
			step{out, syn}, step{in, syn | ack}, step{out, ack}),
	} {
		t.Run(name, func(t *testing.T) {
			newCaller(t, Config{}).play(tcp(aliceAddr, 5000, world, 80), steps)

			// The same from outside, to a published port.
			c := newCaller(t, Config{})
			c.publish(Rule{Network: net1, Container: alice, Inside: aliceAddr, Proto: packet.ProtoTCP, OutsidePort: 8080, InsidePort: 80})
			k, at := tcp(world, 5000, ours, 8080), tcp(world, 5000, aliceAddr, 80)
			for i, s := range steps {
				c.later(time.Second)
				if s.way == out {
					if after, reason := c.back(k, s.flags); reason != packet.OK || after != at {
						t.Fatalf("published, packet %d: %v, %v", i, after, reason)
					}
				} else if after := c.from(alice, at.Reverse(), s.flags); after != k.Reverse() {
					t.Fatalf("published, packet %d: %v", i, after)
				}
			}
		})
	}
	c := newCaller(t, Config{})
	if _, reason := c.tryFrom(net1, alice, tcp(aliceAddr, 5000, world, 80), ack); reason != packet.NoFlow {
		t.Errorf("a segment of no connection: %v", reason)
	}
}

// TestResetEndsNothingAtOnce is RFC 7857 2.2: who forges a RST ends nothing.
func TestResetEndsNothingAtOnce(t *testing.T) {
	const syn, ack, rst = packet.TCPSyn, packet.TCPAck, packet.TCPRst
	k := tcp(aliceAddr, 5000, world, 80)
	for _, way := range []direction{out, in} {
		c := newCaller(t, Config{})
		c.play(k, []step{{out, syn}, {in, syn | ack}, {out, ack}, {way, rst}})
		c.later(239 * time.Second)
		c.nat.Expire(c.now, 1000)
		if _, ok := c.nat.Find(net1, &k, c.now, ack); !ok {
			t.Fatal("ended early")
		}
		// Both go on, so it was no reset.
		c.play(k, []step{{out, ack}, {in, ack}})
		c.later(2 * time.Hour)
		c.nat.Expire(c.now, 1000)
		if _, ok := c.nat.Find(net1, &k, c.now, ack); !ok {
			t.Error("the connection went on and has ended")
		}
	}
}
