package gateway

import (
	"bytes"
	"net/netip"
	"testing"

	"fairlead/arp"
	"fairlead/nat"
	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/trace"
)

// A town is the world most tests take place in: two networks, an uplink for
// everything and one for 203.0.113.128/25.
type town struct {
	*world
	net, net2, wan, wan2 *side
	up, up2              *segment
	alice, bob, dave     *end // dave is on the second network
	isp, isp2            *end
	hostSide             *side // of host sockets, in the random test
	host                 *end
	machine              *end // the host by a link of its own, in the random test
}

func newTown(t *testing.T, flows nat.Config) *town { return buildTown(newWorld(t, flows)) }

// buildTown has a world of its own be a town.
func buildTown(world *world) *town {
	w := &town{world: world}
	w.up, w.wan = w.addUplink(9, "192.0.2.7/24", "192.0.2.1", 1500)
	w.up2, w.wan2 = w.addUplink(10, "198.51.100.7/24", "198.51.100.1", 1300, "203.0.113.128/25")
	w.net = w.addNetwork(1, "172.17.0.1/16", 1500, w.up, w.up2)
	w.net2 = w.addNetwork(2, "172.18.0.1/16", 1400, w.up)
	w.alice, w.bob, w.dave = w.attach(w.net, "172.17.0.2"), w.attach(w.net, "172.17.0.3"), w.attach(w.net2, "172.18.0.2")
	w.isp, w.isp2 = w.attach(w.wan, "192.0.2.1"), w.attach(w.wan2, "198.51.100.1")
	return w
}

// known has everybody known to the router.
func (w *town) known() *town {
	w.send(w.alice, packettest.ARPRequest(w.alice.station, netAddr(w.net)))
	w.send(w.bob, packettest.ARPRequest(w.bob.station, netAddr(w.net)))
	w.send(w.dave, packettest.ARPRequest(w.dave.station, netAddr(w.net2)))
	w.send(w.isp, packettest.ARPReply(w.isp.station, w.isp.to("192.0.2.7")))
	w.send(w.isp2, packettest.ARPReply(w.isp2.station, w.isp2.to("198.51.100.7")))
	w.drain()
	return w
}

// to is a station behind the router, as the station at an end sends to it.
func (e *end) to(ip string) station { return station{MAC: e.side.MAC(), IP: stationAt(ip).IP} }

// from is a station that sends through the one at the end.
func (e *end) from(ip string) station { return station{MAC: e.MAC, IP: stationAt(ip).IP} }

// one is the way of one frame.
func (w *world) one(e *end, b []byte) packet.Decision {
	w.t.Helper()
	records := w.send(e, b)
	if len(records) == 0 {
		w.t.Fatal("nothing was decided")
	}
	return records[0].Decision
}

// passes wants a frame passed on to a far end, and returns it finished.
func (w *world) passes(e *end, b []byte, to *end) *packet.Frame {
	w.t.Helper()
	w.drain()
	if d := w.one(e, b); d.Verdict != packet.Unicast || d.Reason != packet.Routed {
		w.t.Fatalf("decided %+v", d)
	}
	return w.arrived(to)
}

// arrived is the one frame at a far end, finished and verified.
func (w *world) arrived(e *end) *packet.Frame {
	w.t.Helper()
	got := e.got()
	if len(got) != 1 {
		w.t.Fatalf("%d frames arrived at %v", len(got), e.IP)
	}
	f := &packet.Frame{B: got[0]}
	mustParse(w.t, f)
	packet.Complete(f)
	if f.EtherType == packet.EtherTypeIPv4 {
		checkSums(w.t, f)
	}
	return f
}

func (w *world) publish(r nat.Rule) nat.Rule {
	w.t.Helper()
	w.router.Flows(func(t *nat.Table) {
		var err error
		if r.Kind == packet.NATOneToOne {
			r, err = t.OneToOne(r)
		} else {
			r, err = t.Publish(r)
		}
		if err != nil {
			w.t.Fatal(err)
		}
	})
	return r
}

// leads is a rule that leads to a container.
func leads(to *end, proto packet.Proto, outside, inside uint16) nat.Rule {
	return nat.Rule{Network: to.side.network, Container: to.port.Config().Container, Proto: proto,
		Inside: addrOf(to.station), InsidePort: inside, OutsidePort: outside}
}

func tcpTo(src, dst station, sport, dport uint16, flags uint8) []byte {
	return packettest.TCP(src, dst, packettest.Segment{SrcPort: sport, DstPort: dport, Seq: 100, Ack: 200, Flags: flags}, nil)
}

func wantTuple(t *testing.T, f *packet.Frame, src, dst string, sport, dport uint16) {
	t.Helper()
	want := packet.Tuple{Src: addrOf(stationAt(src)), Dst: addrOf(stationAt(dst)), SrcPort: sport, DstPort: dport, Proto: f.Proto}
	if got := f.Tuple(); got != want {
		t.Errorf("arrived as %v, want %v", got, want)
	}
}

func TestMasqueradeByTheMostSpecificRoute(t *testing.T) {
	w := newTown(t, nat.Config{}).known()
	for _, c := range []struct {
		dst, as string
		isp     *end
	}{
		{"203.0.113.5", "192.0.2.7", w.isp}, {"203.0.113.200", "198.51.100.7", w.isp2}, {"8.8.8.8", "192.0.2.7", w.isp},
	} {
		for name, b := range map[string][]byte{
			"UDP":        packettest.UDP(w.alice.station, w.alice.to(c.dst), 4000, 53, []byte("odd")),
			"TCP":        tcpTo(w.alice.station, w.alice.to(c.dst), 4000, 53, packet.TCPSyn),
			"unfinished": packettest.Partial(tcpTo(w.alice.station, w.alice.to(c.dst), 4000, 53, packet.TCPSyn)),
		} {
			f := w.passes(w.alice, b, c.isp)
			wantTuple(t, f, c.as, c.dst, 4000, 53)
			if ether := packet.Ethernet(f.Ether()); ether.Dst() != c.isp.MAC || ether.Src() != c.isp.side.MAC() || packet.IPv4(f.Packet()).TTL() != 63 {
				t.Errorf("%s: left as % x", name, f.B[:40])
			}
		}
		back := packettest.UDP(c.isp.from(c.dst), c.isp.to(c.as), 53, 4000, []byte("answer"))
		wantTuple(t, w.passes(c.isp, back, w.alice), c.dst, "172.17.0.2", 53, 4000)
		// A packet without a checksum stays one.
		packet.UDP(back[packet.VNetLen+34:]).SetChecksum(0)
		if d := w.one(c.isp, back); d.Reason != packet.Routed {
			t.Fatalf("decided %+v", d)
		}
		if b := w.alice.got()[0]; packet.UDP(b[packet.VNetLen+34:]).Checksum() != 0 {
			t.Error("a checksum was made up")
		}
	}
	// A neighbour on the link itself is no business of the next router.
	if d := w.one(w.alice, packettest.UDP(w.alice.station, w.alice.to("192.0.2.9"), 1, 2, nil)); d.NextHop != addrOf(stationAt("192.0.2.9")) {
		t.Errorf("next hop %v", d.NextHop)
	}
}

func TestPublishedAndHairpin(t *testing.T) {
	w := newTown(t, nat.Config{}).known()
	w.publish(leads(w.bob, packet.ProtoTCP, 8080, 80))
	w.publish(leads(w.dave, packet.ProtoTCP, 8081, 81))
	f := w.passes(w.isp, tcpTo(w.isp.from("203.0.113.5"), w.isp.to("192.0.2.7"), 5000, 8080, packet.TCPSyn), w.bob)
	wantTuple(t, f, "203.0.113.5", "172.17.0.3", 5000, 80)
	f = w.passes(w.bob, tcpTo(w.bob.station, w.bob.to("203.0.113.5"), 80, 5000, packet.TCPSyn|packet.TCPAck), w.isp)
	wantTuple(t, f, "192.0.2.7", "203.0.113.5", 8080, 5000)

	port := uint16(6000)
	for _, c := range []struct {
		from, to *end
		by, as   string // the address it asks at, and who it is seen as
		port, at uint16
	}{
		{w.alice, w.bob, "192.0.2.7", "192.0.2.7", 8080, 80}, // a sibling's
		{w.bob, w.bob, "192.0.2.7", "192.0.2.7", 8080, 80},   // its own
		{w.alice, w.bob, "172.17.0.1", "172.17.0.1", 8080, 80},
		{w.alice, w.bob, "198.51.100.7", "198.51.100.7", 8080, 80},
		{w.alice, w.dave, "192.0.2.7", "192.0.2.7", 8081, 81}, // on another network
		{w.alice, w.dave, "172.17.0.1", "172.17.0.1", 8081, 81},
	} {
		port++
		f := w.passes(c.from, tcpTo(c.from.station, c.from.to(c.by), port, c.port, packet.TCPSyn), c.to)
		wantTuple(t, f, c.as, c.to.IP.String(), port, c.at)
		f = w.passes(c.to, tcpTo(c.to.station, c.to.to(c.as), c.at, port, packet.TCPSyn|packet.TCPAck), c.from)
		wantTuple(t, f, c.by, c.from.IP.String(), c.port, port)
		// TTL is used up on this way like on any.
		d := w.one(c.from, withTTL(tcpTo(c.from.station, c.from.to(c.by), port, c.port, packet.TCPAck), 1))
		if d.Reason != packet.TTLExceeded || d.Originate != packet.OriginTimeExceeded {
			t.Errorf("with TTL 1: %+v", d)
		}
	}
}

func TestOneToOne(t *testing.T) {
	w := newTown(t, nat.Config{}).known()
	w.up.extra = []packet.Addr{addrOf(stationAt("192.0.2.50"))}
	w.publish(nat.Rule{Kind: packet.NATOneToOne, Network: 1, Container: w.bob.port.Config().Container, Uplink: 9,
		Outside: w.up.extra[0], Inside: addrOf(w.bob.station)})
	const far, own, bob = "203.0.113.5", "192.0.2.50", "172.17.0.3"
	wantTuple(t, w.passes(w.bob, packettest.UDP(w.bob.station, w.bob.to(far), 9, 99, nil), w.isp), own, far, 9, 99)
	wantTuple(t, w.passes(w.isp, tcpTo(w.isp.from(far), w.isp.to(own), 5, 22, packet.TCPSyn), w.bob), far, bob, 5, 22)
	wantTuple(t, w.passes(w.bob, tcpTo(w.bob.station, w.bob.to(far), 22, 5, packet.TCPSyn|packet.TCPAck), w.isp), own, far, 22, 5)
	wantTuple(t, w.passes(w.isp, packettest.ICMPEcho(w.isp.from(far), w.isp.to(own), 7, 1, nil), w.bob), far, bob, 7, 0)
	// What has no ports needs none here.
	wantTuple(t, w.passes(w.bob, packettest.IP(w.bob.station, w.bob.to(far), packet.ProtoESP, make([]byte, 40)), w.isp), own, far, 0, 0)
	wantTuple(t, w.passes(w.isp, packettest.IP(w.isp.from(far), w.isp.to(own), 47, make([]byte, 40)), w.bob), far, bob, 0, 0)
	// Others are masqueraded at the first address, and those of them have not.
	if d := w.one(w.alice, packettest.IP(w.alice.station, w.alice.to(far), packet.ProtoESP, make([]byte, 40))); d.Reason != packet.NotTranslatable ||
		d.Originate != packet.OriginProtoUnreachable {
		t.Errorf("ESP of a container that is masqueraded: %+v", d)
	}
}

// TestFromOutside are the packets from outside that come to nothing.
func TestFromOutside(t *testing.T) {
	w := newTown(t, nat.Config{}).known()
	w.publish(leads(w.bob, packet.ProtoUDP, 8080, 80))
	us := w.isp.to("192.0.2.7")
	udp := func(src, dst string, port uint16) []byte {
		return packettest.UDP(w.isp.from(src), w.isp.to(dst), 1, port, nil)
	}
	for _, c := range []struct {
		name   string
		b      []byte
		want   packet.Reason
		answer packet.Origin
	}{
		{"for another", udp("203.0.113.5", "192.0.2.8", 1), packet.NotForUs, 0},
		{"for the other uplink", udp("203.0.113.5", "198.51.100.7", 1), packet.NotForUs, 0},
		{"for a container", udp("203.0.113.5", "172.17.0.3", 80), packet.NotForUs, 0},
		{"for the gateway", udp("203.0.113.5", "172.17.0.1", 80), packet.NotForUs, 0},
		{"for everybody there", udp("203.0.113.5", "192.0.2.255", 1), packet.NotForUs, 0},
		{"from ourselves", udp("192.0.2.7", "192.0.2.7", 8080), packet.Martian, 0},
		{"from class E", udp("240.0.0.1", "192.0.2.7", 8080), packet.Martian, 0},
		{"from a group", udp("224.0.0.1", "192.0.2.7", 8080), packet.Martian, 0},
		{"from nobody", udp("0.0.0.0", "192.0.2.7", 8080), packet.Martian, 0},
		{"from everybody", udp("192.0.2.255", "192.0.2.7", 8080), packet.Martian, 0},
		{"from the subnet", udp("192.0.2.0", "192.0.2.7", 8080), packet.Martian, 0},
		{"from a container's sibling", udp("172.17.0.9", "192.0.2.7", 8080), packet.Martian, 0},
		{"nothing published", udp("203.0.113.5", "192.0.2.7", 8081), packet.Refused, packet.OriginPortUnreachable},
		{"TCP, nothing published", tcpTo(w.isp.from("203.0.113.5"), us, 1, 8080, packet.TCPSyn), packet.Refused, packet.OriginReset},
		{"no protocol of ours", packettest.IP(w.isp.from("203.0.113.5"), us, 47, make([]byte, 8)), packet.Refused, packet.OriginProtoUnreachable},
		{"TTL", withTTL(udp("203.0.113.5", "192.0.2.7", 8080), 1), packet.TTLExceeded, packet.OriginTimeExceeded},
		{"ping with TTL 1", withTTL(packettest.ICMPEcho(w.isp.from("203.0.113.5"), us, 1, 1, nil), 1), packet.ForGateway, packet.OriginEchoReply},
		{"echo reply 0", packettest.ICMPEchoReply(w.isp.from("203.0.113.5"), us, 0, 1, nil), packet.NoFlow, 0},
		{"of a VLAN", packettest.Tagged(udp("203.0.113.5", "192.0.2.7", 8080), 7), packet.UnknownMAC, 0}, // where we are not
		{"tagged twice", packettest.Tagged(udp("203.0.113.5", "192.0.2.7", 8080), 0, 0), packet.NotUnderstood, 0},
		{"loopback", udp("127.0.0.1", "192.0.2.7", 8080), packet.LoopbackAddress, 0}, // the guard's already
	} {
		d := w.one(w.isp, c.b)
		if d.Reason != c.want || d.Originate != c.answer {
			t.Errorf("%s: %v, %q; want %v, %q", c.name, d.Reason, d.Originate, c.want, c.answer)
		}
		if got := w.isp.got(); (len(got) == 1) != (c.answer != 0) {
			t.Errorf("%s: %d answers", c.name, len(got))
		}
	}
}

// TestReset: sequence and acknowledgement of a reset are those RFC 9293 3.10.7.1
// wants.
func TestReset(t *testing.T) {
	w := newTown(t, nat.Config{}).known()
	for flags, want := range map[uint8]packettest.Segment{
		packet.TCPSyn:                 {Ack: 101, Flags: packet.TCPRst | packet.TCPAck},
		packet.TCPAck:                 {Seq: 200, Flags: packet.TCPRst},
		packet.TCPFin:                 {Ack: 101, Flags: packet.TCPRst | packet.TCPAck},
		packet.TCPSyn | packet.TCPAck: {Seq: 200, Flags: packet.TCPRst},
	} {
		for _, dst := range []string{"192.0.2.7", "172.17.0.1"} {
			w.drain()
			w.one(w.alice, tcpTo(w.alice.station, w.alice.to(dst), 4000, 81, flags))
			f := w.arrived(w.alice)
			r := packet.TCP(f.Transport())
			wantTuple(t, f, dst, "172.17.0.2", 81, 4000)
			if r.Seq() != want.Seq || r.Ack() != want.Ack || r.Flags() != want.Flags {
				t.Errorf("to flags %#x: seq %d ack %d flags %#x", flags, r.Seq(), r.Ack(), r.Flags())
			}
		}
	}
	if d := w.one(w.alice, tcpTo(w.alice.station, w.alice.to("203.0.113.5"), 4000, 81, packet.TCPRst)); d.Reason != packet.NoFlow || d.Originate != 0 {
		t.Errorf("to a reset: %+v", d)
	}
}

// TestEchoZero: 0 is an identifier like any other, and no errors or other
// messages are taken for its flow.
func TestEchoZero(t *testing.T) {
	w := newTown(t, nat.Config{}).known()
	far := w.alice.to("203.0.113.5")
	f := w.passes(w.alice, packettest.ICMPEcho(w.alice.station, far, 0, 1, nil), w.isp)
	back := packettest.ICMPEchoReply(w.isp.from("203.0.113.5"), w.isp.to("192.0.2.7"), f.SrcPort, 1, nil)
	if m := packet.ICMP(w.passes(w.isp, back, w.alice).Transport()); m.ID() != 0 {
		t.Errorf("answered with identifier %d", m.ID())
	}
	about := packettest.ICMPError(w.alice.station, far, packet.ICMPUnreachable, 3, 0, packettest.UDP(far, w.alice.station, 1, 2, nil), 60)
	if d := w.one(w.alice, about); d.Reason != packet.BadQuote {
		t.Errorf("an error: %+v", d)
	}
	stamp := packettest.IP(w.alice.station, far, packet.ProtoICMP, append([]byte{13, 0, 0xf2, 0xff}, make([]byte, 16)...))
	if d := w.one(w.alice, stamp); d.Reason != packet.NotTranslatable {
		t.Errorf("a timestamp: %+v", d)
	}
	if d := w.one(w.bob, packettest.ICMPEchoReply(w.bob.station, far, 0, 1, nil)); d.Reason != packet.NoFlow {
		t.Errorf("an answer nobody asked for: %+v", d)
	}
}

// TestNextHop: packets wait for ARP, and go on or are refused together.
func TestNextHop(t *testing.T) {
	w := newTown(t, nat.Config{})
	far := w.alice.to("203.0.113.5")
	for i := range uint16(3) {
		d := w.one(w.alice, packettest.UDP(w.alice.station, far, 4000+i, 53, nil))
		want := packet.OriginNone
		if i == 0 {
			want = packet.OriginARPRequest
		}
		if d.Verdict != packet.Hold || d.Reason != packet.NextHop || d.Originate != want {
			t.Fatalf("decided %+v", d)
		}
	}
	if got := w.isp.got(); len(got) != 1 || !bytes.Equal(got[0], packettest.ARPRequest(w.isp.to("192.0.2.7"), w.isp.IP)) {
		t.Errorf("asked % x", got)
	}
	records := w.send(w.isp, packettest.ARPReply(w.isp.station, w.isp.to("192.0.2.7")))
	if n := passed(records); n != 3 {
		t.Errorf("%d of 3 went on", n)
	}
	wantTuple(t, w.passes(w.alice, packettest.UDP(w.alice.station, far, 4000, 53, nil), w.isp), "192.0.2.7", "203.0.113.5", 4000, 53)

	// Back: the container is not known to the router either.
	d := w.one(w.isp, packettest.UDP(w.isp.from("203.0.113.5"), w.isp.to("192.0.2.7"), 53, 4000, nil))
	if d.Verdict != packet.Hold || d.Originate != packet.OriginARPRequest {
		t.Errorf("decided %+v", d)
	}
	for i := range 3 { // it does not answer
		w.now += 1e9
		w.drain()
		records := w.tick()
		if i < 2 {
			if got := w.bob.got(); len(got) != 1 {
				t.Errorf("second %d: asked %d times", i, len(got))
			}
			continue
		}
		if len(records) != 1 || records[0].Decision.Reason != packet.HostUnreachable || records[0].Decision.Originate != packet.OriginHostUnreachable {
			t.Errorf("in the end: %+v", records)
		}
	}
	wantICMP(t, w.arrived(w.isp), stationAt("203.0.113.5"), packet.ICMPUnreachable, packet.ICMPHostUnreachable)

	// Known again, and then for longer than is sure: used, and asked.
	w.now += 4e9
	w.known()
	w.now += arp.ReachableTime + 1
	d = w.one(w.bob, packettest.UDP(w.bob.station, w.bob.to("172.17.0.2"), 1, 2, nil))
	if d.Verdict != packet.Unicast || d.Originate != packet.OriginARPRequest {
		t.Errorf("stale: %+v", d)
	}
	if got := w.alice.got(); len(got) != 2 {
		t.Errorf("%d frames: the packet and the question", len(got))
	}
}

func passed(records []trace.Record) (n int) {
	for i := range records {
		if records[i].Decision.Reason == packet.Routed {
			n++
		}
	}
	return n
}

// TestLaterFragmentsFirst: whatever order fragments come in, they go on, also
// to an address of our own, where a ping is answered piece by piece.
func TestLaterFragmentsFirst(t *testing.T) {
	w := newTown(t, nat.Config{}).known()
	cut := func(b []byte) (pieces [][]byte) {
		f := &packet.Frame{B: b}
		mustParse(t, f)
		var c packet.Fragmenter
		for c.Reset(f, 1500); ; {
			room := make([]byte, packet.MaxFrame)
			n, ok := c.Next(room)
			if !ok {
				return pieces
			}
			pieces = append(pieces, room[:n])
		}
	}
	for name, c := range map[string]struct {
		from, to *end
		b        []byte
	}{
		"out":          {w.alice, w.isp, packettest.UDP(w.alice.station, w.alice.to("203.0.113.5"), 4000, 53, make([]byte, 4000))},
		"ping to us":   {w.isp, w.isp, packettest.ICMPEcho(w.isp.from("203.0.113.5"), w.isp.to("192.0.2.7"), 9, 1, make([]byte, 4000))},
		"from inside":  {w.alice, w.alice, packettest.ICMPEcho(w.alice.station, w.alice.to("192.0.2.7"), 9, 1, make([]byte, 4000))},
		"the gateway":  {w.alice, w.alice, packettest.ICMPEcho(w.alice.station, w.alice.to("172.17.0.1"), 9, 1, make([]byte, 4000))},
		"identifier 0": {w.isp, w.isp, packettest.ICMPEcho(w.isp.from("203.0.113.6"), w.isp.to("192.0.2.7"), 0, 1, make([]byte, 4000))},
	} {
		w.drain()
		pieces := cut(c.b)
		w.send(c.from, pieces[2], pieces[1])
		w.send(c.from, pieces[0])
		if got := c.to.got(); len(got) != len(pieces) {
			t.Errorf("%s: %d of %d pieces", name, len(got), len(pieces))
		}
		if n := w.lanes.Holding(); n != 0 {
			t.Errorf("%s: %d wait", name, n)
		}
	}
	// Without the first one they are lost in the end.
	pieces := cut(packettest.UDP(w.alice.station, w.alice.to("203.0.113.7"), 4000, 53, make([]byte, 4000)))
	d := w.one(w.alice, pieces[1])
	if d.Verdict != packet.Hold || d.Reason != packet.FirstFragment {
		t.Fatalf("decided %+v", d)
	}
	records := w.within(w.net, func(_ int64, out packet.Out) { out.Resume(d.HoldKey) })
	if len(records) != 1 || records[0].Decision.Reason != packet.FragmentOrphan {
		t.Errorf("at its deadline: %+v", records)
	}
}

// TestNoWay are the packets from inside that have none.
func TestNoWay(t *testing.T) {
	w := newTown(t, nat.Config{}).known()
	udp := packettest.UDP(w.alice.station, w.alice.to("203.0.113.5"), 4000, 53, nil)
	if d := w.one(w.alice, packettest.UDP(w.alice.station, w.alice.to("192.0.2.255"), 1, 2, nil)); d.Reason != packet.Martian || d.Originate != 0 {
		t.Errorf("to everybody on the uplink: %+v", d)
	}
	for want, vlans := range map[packet.Reason][]uint16{packet.NotUnderstood: {0, 0}, packet.UnknownMAC: {7}} { // in VLANs there is no gateway
		if d := w.one(w.alice, packettest.Tagged(udp, vlans...)); d.Reason != want || d.Originate != 0 {
			t.Errorf("tagged %d: %+v", vlans, d)
		}
	}
	if d := w.one(w.alice, withTTL(udp, 1)); d.Reason != packet.TTLExceeded || d.Originate != packet.OriginTimeExceeded {
		t.Errorf("TTL 1: %+v", d)
	}
	if d := w.one(w.alice, withTTL(packettest.UDP(w.alice.station, w.alice.to("192.0.2.7"), 1, 2, nil), 1)); d.Reason != packet.Refused {
		t.Errorf("TTL 1 to us: %+v", d) // what traceroute asks its last router
	}
	wantTuple(t, w.passes(w.alice, udp, w.isp), "192.0.2.7", "203.0.113.5", 4000, 53)
	flows := func() (n int) {
		w.router.Flows(func(t *nat.Table) { n = t.Stats().Flows })
		return n
	}
	if flows() == 0 {
		t.Error("no flow")
	}
	w.router.UnplugUplink(w.up.network)
	if n := flows(); n != 0 {
		t.Errorf("%d flows are left of an uplink that is gone", n)
	}
	if d := w.one(w.isp, packettest.UDP(w.isp.from("203.0.113.5"), w.isp.to("192.0.2.7"), 53, 4000, nil)); d.Reason != packet.NotForUs {
		t.Errorf("in by it: %+v", d)
	}
	w.router.PlugUplink(w.up)
	*w.up = segment{network: w.up.network, mtu: 1500, mac: w.up.mac, inbound: w.up.inbound, neighbours: w.up.neighbours, port: w.up.port}
	if d := w.one(w.alice, udp); d.Reason != packet.NoRoute || d.Originate != packet.OriginNetUnreachable {
		t.Errorf("by an uplink without an address: %+v", d)
	}
	if d := w.one(w.isp, packettest.UDP(w.isp.from("203.0.113.5"), w.isp.to("192.0.2.7"), 53, 4000, nil)); d.Reason != packet.NotForUs {
		t.Errorf("in by an uplink without an address: %+v", d)
	}
}

// netAddr is the gateway's address on a network.
func netAddr(s *side) netip.Addr { return netip.AddrFrom4(s.Gateway.(*Gateway).addr) }

// TestTickIsAskedForOnce: the flows of a second do not wake a worker each.
func TestTickIsAskedForOnce(t *testing.T) {
	r := newNATRig(t, nat.Config{})
	for i, want := range []bool{true, false, false} {
		r.wake = 0
		r.mustInside(1, packettest.UDP(alice, server, uint16(4000+i), 53, nil))
		if (r.wake != 0) != want {
			t.Errorf("flow %d: asked for a tick at %d", i, r.wake)
		}
	}
	r.now += expireEvery // nobody came
	r.wake = 0
	r.mustInside(1, packettest.UDP(alice, server, 5000, 53, nil))
	if r.wake != r.now+expireEvery {
		t.Errorf("after that time: asked for %d", r.wake)
	}
}
