package gateway

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"

	"fairlead/nat"
	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/policy"
)

// FuzzGateway: a frame that Parse and the guard let pass is decided on and
// answered without a panic, the same way each time, and what is answered is a
// well-formed frame to who asked, or a question who has the next hop.
func FuzzGateway(f *testing.F) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 50 {
		f.Add(packettest.Good(rng, alice, gw), int64(1), false)
	}
	f.Add(packettest.ICMPEcho(alice, gw, 0, 0, make([]byte, 8)), int64(1), false)
	f.Add(packettest.ARPRequest(alice, gw.IP), int64(1), true)
	f.Add(packettest.UDP(alice, outside, 1, 2, make([]byte, 1000)), int64(1), false)
	f.Add(packettest.UDP(alice, gw, 4000, 53, []byte("who?")), int64(1), false)
	f.Add(packettest.UDP(alice, gw, 68, 67, []byte("renew")), int64(1), true)
	f.Add(packettest.UDP(with(alice, "0.0.0.0"), packettest.Broadcast, 68, 67, []byte("discover")), int64(1), false)
	f.Add(packettest.Tagged(packettest.UDP(with(alice, "0.0.0.0"), packettest.Broadcast, 68, 67, []byte("discover")), 7), int64(1), false)
	guard := policy.Guard{
		Strict: true, MAC: alice.MAC,
		Addrs:      []packet.Addr{packet.AddrFromNetip(alice.IP)},
		GatewayMAC: gw.MAC, GatewayAddrs: []packet.Addr{packet.AddrFromNetip(gw.IP)},
	}
	f.Fuzz(func(t *testing.T, b []byte, after int64, hub bool) {
		frame := &packet.Frame{B: b, Time: after, Network: 1, Port: 1}
		if len(b) > packet.MaxFrame || packet.Parse(frame) != packet.OK || guard.Check(frame) != packet.OK {
			return
		}
		forUs := packet.Ethernet(frame.Ether()).Dst() == gw.MAC
		if !forUs && !hub && !frame.Flags.Has(packet.Multicast) {
			return // a switch does not hand it over
		}
		r, dns, dhcp := newRig(t), new(fakeDNS), new(fakeDHCP)
		r.gw.SetDNS(dns, func() {})
		r.gw.SetDHCP(dhcp, func() {})
		d := r.route(frame, hub)
		if !forUs && d.Verdict != packet.Flood {
			t.Errorf("others lost their copies: %+v", d)
		}
		answer := r.apply(frame, &d)
		checkServices(t, r, frame, d.Query, dns, dhcp)
		if answer == nil {
			return
		}
		if d.Originate == packet.OriginARPRequest {
			checkQuestion(t, frame, answer)
			return
		}
		a := checkAnswer(t, frame, answer)
		if d.Originate == packet.OriginNetUnreachable {
			checkICMP(t, packet.IPv4(a.Packet()).Payload())
		}
	})
}

// checkQuestion wants a whole ARP request for where a packet goes.
func checkQuestion(t *testing.T, f *packet.Frame, question []byte) {
	q := &packet.Frame{B: question}
	if reason := packet.Parse(q); reason != packet.OK || q.EtherType != packet.EtherTypeARP {
		t.Fatalf("no ARP request: %v\n% x", reason, question)
	}
	ether, arp := packet.Ethernet(q.Ether()), packet.ARP(q.Packet())
	if ether.Src() != gw.MAC || ether.Dst() != packet.BroadcastMAC || arp.SenderMAC() != gw.MAC || arp.SenderIP() != gw.IP.As4() ||
		arp.TargetIP() != packet.IPv4(f.Packet()).Dst() {
		t.Errorf("%v asks %v who has %v: %v, %v", ether.Src(), ether.Dst(), arp.TargetIP(), arp.SenderMAC(), arp.SenderIP())
	}
}

// checkServices wants questions passed on where the decision says so, and each
// answered by where it came in.
func checkServices(t *testing.T, r *rig, f *packet.Frame, query bool, dns *fakeDNS, dhcp *fakeDHCP) {
	if asked := len(dns.asked) + len(dhcp.asked); (asked > 0) != (query && len(packet.UDP(f.Transport()).Payload()) > 0) {
		t.Fatalf("asked %d times, query is %v", asked, query)
	}
	for _, reply := range dns.reply {
		reply([]byte("!"))
	}
	for _, reply := range dhcp.reply {
		reply(Offer{Payload: []byte("!"), MAC: packet.BroadcastMAC, Addr: packettest.Broadcast.IP})
	}
	r.out = out{buf: r.buf}
	if r.gw.Tick(f.Time, &r.out); (r.out.n > 0) != (len(dns.reply)+len(dhcp.reply) > 0) {
		t.Errorf("an answer of %d bytes", r.out.n)
	}
	if r.out.n > 0 {
		a := &packet.Frame{B: r.buf[:r.out.n]}
		if mustParse(t, a); a.Tags != f.Tags || r.out.to != (packet.Place{Network: 1, Port: f.Port}) || a.SrcPort != f.DstPort {
			t.Errorf("answered to %+v: % x", r.out.to, a.B)
		}
		checkSums(t, a)
	}
}

// FuzzInbound: a frame from outside, or from inside, that Parse lets pass meets a
// router with a flow of every kind. It is decided on without a panic, the same
// way each time and without an effect; what is passed on is well-formed, with
// its sums as right or wrong as they came, and goes to a container or leaves with
// our address; what is answered goes back to who sent it, and is short.
func FuzzInbound(f *testing.F) {
	client := station{MAC: isp.MAC, IP: server.IP}
	ours := station{MAC: masqueraded.MAC, IP: masqueraded.IP}
	rng := rand.New(rand.NewPCG(7, 8))
	for range 40 {
		f.Add(packettest.Good(rng, client, ours), false)
		f.Add(packettest.Good(rng, alice, station{MAC: gw.MAC, IP: server.IP}), true)
	}
	ack := packettest.Segment{SrcPort: 80, DstPort: 4000, Flags: packet.TCPAck}
	syn := packettest.Segment{SrcPort: 5000, DstPort: 8080, Flags: packet.TCPSyn}
	back := packettest.TCP(client, ours, ack, []byte("hello"))
	for _, b := range [][]byte{
		back, packettest.Partial(back), packettest.TCP(client, ours, syn, nil), withTTL(back, 1), withTTL(back, 0),
		packettest.TCP(client, ours, packettest.Segment{SrcPort: 5000, DstPort: 4000, Flags: packet.TCPSyn}, nil),
		packettest.UDP(client, ours, 53, 4000, []byte("answer")), packettest.UDP(client, ours, 1, 2, nil),
		packettest.GSO(packettest.TCP(client, ours, ack, make([]byte, 5000)), 1448),
		dontFragment(packettest.UDP(client, ours, 53, 4000, make([]byte, 2000))),
		packettest.ICMPEcho(client, ours, 7, 1, nil), packettest.ICMPEchoReply(client, ours, 77, 1, []byte("pong")),
		packettest.ICMPEchoReply(client, ours, 0, 1, nil), packettest.IP(client, ours, packet.ProtoESP, make([]byte, 20)),
		packettest.ICMPError(client, ours, packet.ICMPUnreachable, packet.ICMPFragNeeded, 1400,
			packettest.UDP(ours, client, 4000, 53, []byte("query")), 576),
		packettest.ICMPError(client, ours, packet.ICMPTimeExceeded, 0, 0,
			packettest.TCP(ours, client, packettest.Segment{SrcPort: 4000, DstPort: 80}, nil), 28),
		packettest.UDP(with(client, "172.17.0.3"), ours, 1, 8080, nil), packettest.UDP(ours, ours, 1, 2, nil),
	} {
		f.Add(b, false)
	}
	f.Fuzz(func(t *testing.T, b []byte, inside bool) {
		if len(b) > packet.MaxFrame {
			return
		}
		r := newNATRig(t, nat.Config{Flows: 64})
		r.publish(packet.ProtoTCP, 8080)
		far := station{MAC: gw.MAC, IP: server.IP}
		r.mustInside(1, packettest.TCP(alice, far, packettest.Segment{SrcPort: 4000, DstPort: 80, Flags: packet.TCPSyn}, nil))
		r.mustInside(1, packettest.UDP(alice, far, 4000, 53, nil))
		r.mustInside(1, packettest.ICMPEcho(alice, far, 77, 1, nil))
		r.sent = nil

		frame := &packet.Frame{B: bytes.Clone(b), Time: r.now, Network: natUplink, Port: fromUplink}
		mac, route := masqueraded.MAC, r.inbound.Route
		if inside {
			frame.Network, frame.Port, frame.Container = natNetwork, 1, 1
			mac, route = gw.MAC, r.gw.Route
		}
		if packet.Parse(frame) != packet.OK || frame.EtherType != packet.EtherTypeIPv4 || packet.Ethernet(frame.Ether()).Dst() != mac {
			return // a switch or an uplink does not hand it over
		}
		before := frame.Clone(nil)
		d, again := lookedUp(frame, false), lookedUp(frame, false)
		route(frame, &d)
		route(frame, &again)
		if d != again || !reflect.DeepEqual(*frame, before) {
			t.Fatalf("decided %+v, then %+v, or the frame was changed", d, again)
		}
		r.inbound.Apply(frame, &d, r.out())

		if d.Verdict == packet.Unicast {
			wantPassed(t, &before, frame, &d)
		}
		for _, s := range r.sent {
			wantAnswer(t, &before, s)
		}
		if len(r.sent) > 1 || len(r.sent) > 0 && d.Verdict == packet.Unicast {
			t.Errorf("%d frames sent because of one: %+v", len(r.sent), d)
		}
	})
}

// wantPassed holds what is true of every packet that is passed on.
func wantPassed(t *testing.T, before, after *packet.Frame, d *packet.Decision) {
	was := *after
	if reason := packet.Parse(after); reason != packet.OK || was.L4 != after.L4 || was.Flags != after.Flags || was.SrcPort != after.SrcPort || was.DstPort != after.DstPort {
		t.Fatalf("passed on as %v, %+v; its record said %+v", reason, *after, was)
	}
	old, ip := packet.IPv4(before.Packet()), packet.IPv4(after.Packet())
	src, dst := ip.Src(), ip.Dst()
	switch {
	case len(before.B) != len(after.B) || ip.TTL() != old.TTL()-1 || ip.ID() != old.ID():
		t.Error("what has no business to change has")
	case packettest.Sum(ip[:ip.HeaderLen()], 0) != 0xffff:
		t.Error("wrong IP checksum")
	case d.Egress.Network == natUplink && src != masqueraded.IP.As4(), d.Egress.Network == natNetwork && !subnet.Contains(netip.AddrFrom4(dst)):
		t.Errorf("from %v to %v on network %d", src, dst, d.Egress.Network)
	case packet.Ethernet(after.Ether()).Src() != d.SrcMAC || packet.Ethernet(after.Ether()).Dst() != d.DstMAC:
		t.Error("MACs")
	}
	if right(before) != right(after) {
		t.Errorf("the transport checksum was right: %v, is right: %v\n% x\n% x", right(before), right(after), before.B, after.B)
	}
}

// right reports whether the checksum over a whole transport packet is, finished
// or not; if there is none to look at it is.
func right(f *packet.Frame) bool {
	if f.L4 == 0 || f.Flags.Has(packet.Fragment) {
		return true
	}
	p := f.Transport()
	k := f.Tuple()
	pseudo := uint16(0)
	switch {
	case f.Proto == packet.ProtoUDP && packet.UDP(p).Checksum() == 0:
		return true
	case f.Proto != packet.ProtoICMP:
		pseudo = packettest.PseudoSum(k.Src.Netip(), k.Dst.Netip(), f.Proto, len(p))
	}
	if f.Flags.Has(packet.NeedsChecksum) {
		sum := packet.TCP(p).Checksum
		if f.Proto == packet.ProtoUDP {
			sum = packet.UDP(p).Checksum
		}
		return sum() == pseudo
	}
	return packettest.Sum(p, pseudo) == 0xffff
}

// wantAnswer holds what is true of everything the router says because of a frame.
func wantAnswer(t *testing.T, about *packet.Frame, s sentFrame) {
	a := &packet.Frame{B: s.b}
	mustParse(t, a)
	ip, asked := packet.IPv4(a.Packet()), packet.IPv4(about.Packet())
	switch {
	case s.to != packet.Place{Network: about.Network, Port: about.Port} || packet.Ethernet(a.Ether()).Dst() != packet.Ethernet(about.Ether()).Src():
		t.Errorf("answered to %+v", s.to)
	case ip.Dst() != asked.Src() || ip.TTL() != 64 || packettest.Sum(ip[:ip.HeaderLen()], 0) != 0xffff:
		t.Errorf("answered % x", s.b)
	case len(ip) > max(576, len(asked)):
		t.Errorf("an answer of %d bytes to a packet of %d", len(ip), len(asked))
	}
}
