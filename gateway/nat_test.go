package gateway

import (
	"bytes"
	"testing"
	"time"

	"fairlead/nat"
	"fairlead/packet"
	"fairlead/packet/packettest"
)

// TestEchoThroughNAT is RFC 5508 REQ-1: a query from inside, its answer, and
// the same identifier towards another destination.
func TestEchoThroughNAT(t *testing.T) {
	r := newNATRig(t, nat.Config{})
	for _, dst := range []station{server, someRouter} {
		out := r.mustInside(1, packettest.ICMPEcho(alice, dst, 77, 1, []byte("hello")))
		if got := out.Tuple(); got.Src != addrOf(masqueraded) || got.SrcPort != 77 {
			t.Errorf("out as %v", got)
		}
		back := r.mustOutside(packettest.ICMPEchoReply(dst, masqueraded, 77, 1, []byte("hello")))
		want := packettest.ICMPEchoReply(station{MAC: gw.MAC, IP: dst.IP}, alice, 77, 1, []byte("hello"))
		packet.IPv4(payload(want)).DecrementTTL()
		if !bytes.Equal(back.B, want) {
			t.Errorf("back:\ngot  % x\nwant % x", back.B, want)
		}
	}
	if d, f := r.outside(packettest.ICMPEchoReply(server, masqueraded, 78, 1, nil)); f != nil || d.Verdict != packet.Drop {
		t.Errorf("an answer nobody asked for: %+v", d)
	}
}

// errorKindsThrough are the errors that go through NAT, with what follows the
// checksum.
var errorKindsThrough = []struct {
	kind, code uint8
	rest       uint32
}{
	{packet.ICMPUnreachable, packet.ICMPNetUnreachable, 0},
	{packet.ICMPUnreachable, packet.ICMPPortUnreachable, 0},
	{packet.ICMPUnreachable, packet.ICMPFragNeeded, 1400},
	{packet.ICMPUnreachable, packet.ICMPAdminProhibited, 0},
	{packet.ICMPTimeExceeded, packet.ICMPTTLExceeded, 0},
	{packet.ICMPTimeExceeded, packet.ICMPReassemblyExceeded, 0},
	{packet.ICMPParameter, 0, 9 << 24},
}

// TestErrorsFromOutside is RFC 5508 REQ-4, RFC 4787 REQ-12 and RFC 5382 REQ-9:
// an error of any router about a masqueraded packet arrives as one about the
// packet the container sent.
func TestErrorsFromOutside(t *testing.T) {
	for name, sent := range map[string][]byte{
		"UDP":  packettest.UDP(alice, server, 4000, 53, make([]byte, 100)),
		"TCP":  packettest.TCP(alice, server, packettest.Segment{SrcPort: 4000, DstPort: 80, Flags: packet.TCPSyn}, nil),
		"echo": packettest.ICMPEcho(alice, server, 77, 1, make([]byte, 100)),
	} {
		r := newNATRig(t, nat.Config{})
		// Another one has the port, so that this one gets another.
		r.mustInside(2, retold(t, sent, bob))
		out := r.mustInside(1, sent)
		if f := r.frame(natNetwork, 1, sent); out.SrcPort == f.SrcPort {
			t.Fatalf("%s: the port was to be translated", name)
		}
		for _, e := range errorKindsThrough {
			for _, limit := range []int{28, 60, 576} {
				for _, from := range []station{someRouter, server, isp} {
					b := packettest.ICMPError(from, masqueraded, e.kind, e.code, e.rest, bytes.Clone(out.B), limit)
					got := r.mustOutside(b)
					about := r.frame(natNetwork, 1, sent)
					m := wantICMP(t, got, alice, e.kind, e.code)
					if tuple, ok := got.Quoted(); !ok || tuple != about.Tuple() || m.MTU() != e.rest || got.Tuple().Src != addrOf(from) {
						t.Errorf("%s: from %v about %v, %v; MTU %d", name, got.Tuple().Src, tuple, ok, m.MTU())
					}
				}
			}
		}
		// About nothing that is known, and about what another host sent.
		stranger := packettest.UDP(masqueraded, server, 9, 9, nil)
		d, f := r.outside(packettest.ICMPError(someRouter, masqueraded, packet.ICMPUnreachable, 1, 0, stranger, 60))
		if f != nil || d.Verdict != packet.Drop || d.Reason != packet.BadQuote || d.Originate != packet.OriginNone {
			t.Errorf("%s: about an unknown packet: %+v", name, d)
		}
	}
}

// retold is a frame with another source.
func retold(t testing.TB, b []byte, src station) []byte {
	f := &packet.Frame{B: bytes.Clone(b)}
	mustParse(t, f)
	tr := packet.Translation{Before: f.Tuple(), After: f.Tuple()}
	tr.After.Src = addrOf(src)
	tr.Edit(f)
	packet.Ethernet(f.Ether()).SetSrc(src.MAC)
	return f.B
}

// TestErrorsFromInside is RFC 5508 REQ-5: what a container says of a packet from
// outside comes from our address and is about the packet the other one sent.
func TestErrorsFromInside(t *testing.T) {
	r := newNATRig(t, nat.Config{})
	r.mustInside(1, packettest.UDP(alice, server, 4000, 53, nil))
	reply := packettest.UDP(server, masqueraded, 53, 4000, []byte("late"))
	in := r.mustOutside(reply)
	sibling := packettest.ICMPError(bob, station{MAC: gw.MAC, IP: server.IP}, packet.ICMPUnreachable, packet.ICMPPortUnreachable, 0, bytes.Clone(in.B), 576)
	if d, f := r.inside(2, sibling); f != nil || d.Verdict != packet.Drop || d.Reason != packet.BadQuote || d.Originate != packet.OriginNone {
		t.Errorf("about a packet its sender cannot have seen: %+v", d)
	}
	for _, from := range []station{alice, {MAC: alice.MAC, IP: someRouter.IP}} { // itself, or a router it is
		r.gw.unguarded = from != alice
		b := packettest.ICMPError(from, station{MAC: gw.MAC, IP: server.IP}, packet.ICMPUnreachable, packet.ICMPPortUnreachable, 0, bytes.Clone(in.B), 576)
		got := r.mustInside(1, b)
		wantICMP(t, got, server, packet.ICMPUnreachable, packet.ICMPPortUnreachable)
		asSent := &packet.Frame{B: reply}
		mustParse(t, asSent)
		if tuple, ok := got.Quoted(); !ok || tuple != asSent.Tuple() || got.Tuple().Src != addrOf(masqueraded) {
			t.Errorf("from %v about %v, %v", got.Tuple().Src, tuple, ok)
		}
	}
	r.gw.unguarded = false
	unknown := packettest.ICMPError(alice, server, packet.ICMPUnreachable, 3, 0, packettest.UDP(server, alice, 1, 2, nil), 60)
	if d, f := r.inside(1, unknown); f != nil || d.Reason != packet.BadQuote {
		t.Errorf("about an unknown packet: %+v", d)
	}
}

// TestErrorsEndNothing is RFC 4787 REQ-12, RFC 5382 REQ-10 and RFC 5508 REQ-6: a
// connection outlives any number of errors about it, and they do not lengthen
// its life either.
func TestErrorsEndNothing(t *testing.T) {
	r := newNATRig(t, nat.Config{})
	out := r.mustInside(1, packettest.UDP(alice, server, 4000, 7000, nil))
	for range 100 {
		for _, e := range errorKindsThrough {
			r.mustOutside(packettest.ICMPError(someRouter, masqueraded, e.kind, e.code, e.rest, bytes.Clone(out.B), 60))
		}
		r.later(2 * time.Second)
	}
	in := r.mustOutside(packettest.UDP(server, masqueraded, 7000, 4000, nil)) // after 200 s, for 300 more
	for range 10 {
		r.later(29 * time.Second)
		r.mustOutside(packettest.ICMPError(someRouter, masqueraded, packet.ICMPTimeExceeded, 0, 0, bytes.Clone(out.B), 60))
		r.mustInside(1, packettest.ICMPError(alice, with(gw, server.IP.String()), packet.ICMPUnreachable, 3, 0, bytes.Clone(in.B), 60))
	}
	r.later(12 * time.Second)
	if d, f := r.outside(packettest.UDP(server, masqueraded, 7000, 4000, nil)); f != nil || d.Verdict != packet.Drop {
		t.Errorf("errors have lengthened the life of a flow: %+v", d)
	}
}

// publish has a port of ours lead to bob's port 80.
func (r *natRig) publish(proto packet.Proto, port uint16) {
	r.t.Helper()
	r.router.Flows(func(flows *nat.Table) {
		if _, err := flows.Publish(nat.Rule{
			Network: natNetwork, Container: 2, Inside: addrOf(bob), Proto: proto, OutsidePort: port, InsidePort: 80,
		}); err != nil {
			r.t.Fatal(err)
		}
	})
}

// TestErrorsHairpin is RFC 5508 REQ-7: two containers meet at our outside
// address, and what the one says of the other's packet is translated twice.
func TestErrorsHairpin(t *testing.T) {
	r := newNATRig(t, nat.Config{})
	r.publish(packet.ProtoUDP, 8080)
	sent := packettest.UDP(alice, masqueraded, 4000, 8080, []byte("hello"))
	at := r.mustInside(1, sent)
	if got := at.Tuple(); got.Src != addrOf(masqueraded) || got.Dst != addrOf(bob) || got.DstPort != 80 {
		t.Fatalf("arrives as %v", got)
	}
	back := r.mustInside(2, packettest.ICMPError(bob, masqueraded, packet.ICMPUnreachable, packet.ICMPPortUnreachable, 0, bytes.Clone(at.B), 576))
	wantICMP(t, back, alice, packet.ICMPUnreachable, packet.ICMPPortUnreachable)
	if about, ok := back.Quoted(); !ok || about != r.frame(natNetwork, 1, sent).Tuple() || back.Tuple().Src != addrOf(masqueraded) {
		t.Errorf("from %v about %v, %v", back.Tuple().Src, about, ok)
	}
}

// TestTooLargeWithDF is RFC 4787 REQ-13: what does not fit the next link is
// said to its sender, in either direction, once for a frame of many segments.
func TestTooLargeWithDF(t *testing.T) {
	r := newNATRig(t, nat.Config{})
	r.uplink.mtu = 1400
	udp := func(size int) []byte {
		return dontFragment(packettest.UDP(alice, server, 4000, 53, make([]byte, size)))
	}
	tcp := dontFragment(packettest.TCP(alice, server, packettest.Segment{SrcPort: 4000, DstPort: 80, Flags: packet.TCPSyn}, make([]byte, 14480)))
	for name, b := range map[string][]byte{
		"UDP": udp(1400 - 28 + 1), "unfinished": packettest.Partial(udp(1472)), "many segments": packettest.GSO(tcp, 1448),
	} {
		d, f := r.inside(1, b)
		if f != nil || d.Reason != packet.FragNeeded {
			t.Fatalf("%s: %+v", name, d)
		}
		m := wantICMP(t, r.answer(), alice, packet.ICMPUnreachable, packet.ICMPFragNeeded)
		if m.MTU() != 1400 {
			t.Errorf("%s: MTU %d", name, m.MTU())
		}
		if !bytes.Equal(m.Data()[12:28], payload(b)[12:28]) {
			t.Errorf("%s: quotes another packet than was sent: % x", name, m.Data())
		}
	}
	r.mustInside(1, udp(1400-28))

	r.uplink.mtu = 9000
	r.mustInside(1, udp(1472))
	big := dontFragment(packettest.UDP(server, masqueraded, 53, 4000, make([]byte, 1473)))
	if d, f := r.outside(big); f != nil || d.Reason != packet.FragNeeded {
		t.Fatalf("from outside: %+v", d)
	}
	if m := wantICMP(t, r.answer(), server, packet.ICMPUnreachable, packet.ICMPFragNeeded); m.MTU() != 1500 {
		t.Errorf("from outside: MTU %d", m.MTU())
	}
}

func dontFragment(b []byte) []byte {
	packet.IPv4(payload(b)).SetFragment(true, false, 0)
	return resum(b)
}

// TestTooLargeWithoutDF is RFC 4787 REQ-13a: the packet goes out in fragments of
// the next link's MTU, which the switch cuts. A TCP stream is cut elsewhere
// instead.
func TestTooLargeWithoutDF(t *testing.T) {
	r := newNATRig(t, nat.Config{})
	r.uplink.mtu = 1400
	d, f := r.inside(1, packettest.Partial(packettest.UDP(alice, server, 4000, 53, make([]byte, 4000))))
	if f == nil || d.MTU != 1400 || len(r.sent) != 0 {
		t.Fatalf("%+v, %d answers", d, len(r.sent))
	}
	whole := packettest.UDP(with(gw, masqueraded.IP.String()), server, 4000, 53, make([]byte, 4000))
	var cut packet.Fragmenter
	if !cut.Reset(f, int(d.MTU)) {
		t.Fatal("cannot be cut")
	}
	buf, offset := make([]byte, packet.MaxFrame), 0
	for n, ok := cut.Next(buf); ok; n, ok = cut.Next(buf) {
		ip := packet.IPv4(payload(buf[:n]))
		if len(ip) > 1400 || ip.FragmentOffset() != offset {
			t.Errorf("%d bytes at %d, want %d", len(ip), ip.FragmentOffset(), offset)
		}
		if want := payload(whole)[packet.IPv4MinLen+offset:]; !bytes.HasPrefix(want, ip.Payload()) {
			t.Errorf("the fragment at %d is another datagram's", offset)
		}
		offset += len(ip.Payload())
	}
	if offset != packet.UDPLen+4000 {
		t.Errorf("%d bytes in fragments", offset)
	}

	stream := packettest.TCP(alice, server, packettest.Segment{SrcPort: 4000, DstPort: 80, Flags: packet.TCPSyn}, make([]byte, 14480))
	d, f = r.inside(1, packettest.GSO(stream, 1448))
	if f == nil || d.MTU != 0 || f.PacketLen() != 1400 {
		t.Errorf("a stream: %+v", d)
	}
}

// TestNoRoomIsSaid is RFC 5508 REQ-8: administratively prohibited.
func TestNoRoomIsSaid(t *testing.T) {
	r := newNATRig(t, nat.Config{PerContainer: 2})
	for i := range uint16(2) { // both answered and going on, so that neither gives way
		r.mustInside(1, packettest.UDP(alice, server, 4000+i, 7000, nil))
		r.mustOutside(packettest.UDP(server, masqueraded, 7000, 4000+i, nil))
		r.mustInside(1, packettest.UDP(alice, server, 4000+i, 7000, nil))
	}
	d, f := r.inside(1, packettest.UDP(alice, server, 4002, 7000, nil))
	if f != nil || d.Reason != packet.FlowBudget {
		t.Fatalf("%+v", d)
	}
	wantICMP(t, r.answer(), alice, packet.ICMPUnreachable, packet.ICMPAdminProhibited)
	r.mustInside(2, packettest.UDP(bob, server, 4002, 7000, nil))
}

// TestRecycledByAmount: one that ends flows in no time has their records back
// without waiting for the next tick.
func TestRecycledByAmount(t *testing.T) {
	r := newNATRig(t, nat.Config{Flows: 64})
	for i := range uint16(2000) {
		r.mustInside(1, packettest.UDP(alice, server, 4000+i, 7000, nil))
		if i%50 == 49 {
			r.turn()
		}
	}
	r.turn()
	r.router.Flows(func(flows *nat.Table) {
		if flows.Retired() >= recycleAt {
			t.Errorf("%d flows wait to be recycled", flows.Retired())
		}
	})
}

// TestTTLThroughNAT is RFC 5508 REQ-10a: time exceeded, to whoever sent the
// packet, about the packet he sent.
func TestTTLThroughNAT(t *testing.T) {
	expiring := func(b []byte) []byte {
		packet.IPv4(payload(b)).SetTTL(1)
		return resum(b)
	}
	r := newNATRig(t, nat.Config{})
	sent := expiring(packettest.UDP(alice, server, 4000, 33434, nil))
	if d, f := r.inside(1, sent); f != nil || d.Reason != packet.TTLExceeded {
		t.Fatalf("%+v", d)
	}
	m := wantICMP(t, r.answer(), alice, packet.ICMPTimeExceeded, packet.ICMPTTLExceeded)
	if !bytes.Equal(m.Data(), payload(sent)) {
		t.Errorf("quotes % x", m.Data())
	}
	r.mustInside(1, packettest.UDP(alice, server, 4000, 33434, nil))
	reply := expiring(packettest.UDP(server, masqueraded, 33434, 4000, nil))
	if d, f := r.outside(reply); f != nil || d.Reason != packet.TTLExceeded {
		t.Fatalf("from outside: %+v", d)
	}
	answer := r.answer()
	if m := wantICMP(t, answer, server, packet.ICMPTimeExceeded, packet.ICMPTTLExceeded); !bytes.Equal(m.Data(), payload(reply)) ||
		answer.Tuple().Src != addrOf(masqueraded) {
		t.Errorf("to outside, from %v, quotes % x", answer.Tuple().Src, m.Data())
	}
}

// TestOtherICMP is RFC 5508 REQ-10b, 10c and REQ-11: queries that have no
// identifier NAT knows, and what ends at its link.
func TestOtherICMP(t *testing.T) {
	for name, kind := range map[string]uint8{
		"timestamp": 13, "information": 15, "address mask": 17, "router solicitation": 10, "photuris": 40,
	} {
		r := newNATRig(t, nat.Config{})
		b := packettest.ICMPEcho(alice, server, 1, 1, make([]byte, 12))
		m := packet.ICMP(payload(b)[packet.IPv4MinLen:])
		m.SetType(kind)
		m.UpdateChecksum(0)
		if d, f := r.inside(1, b); f != nil || d.Reason != packet.NotTranslatable || len(r.sent) != 0 {
			t.Errorf("%s: %+v, %d answers", name, d, len(r.sent))
		}
	}
	for name, kind := range map[string]uint8{"redirect": packet.ICMPRedirect, "source quench": packet.ICMPSourceQuench} {
		r := newNATRig(t, nat.Config{})
		out := r.mustInside(1, packettest.UDP(alice, server, 4000, 7000, nil))
		b := packettest.ICMPError(isp, masqueraded, kind, 1, 0, bytes.Clone(out.B), 60)
		if d, f := r.outside(b); f != nil || d.Reason != packet.BadQuote || len(r.sent) != 0 {
			t.Errorf("%s: %+v, %d answers", name, d, len(r.sent))
		}
	}
}

// TestUnsolicitedSYN is RFC 5382 REQ-4 from the router's side: at a port in use
// a stranger's SYN is answered after six seconds, and not at all if the
// container opens from its side in the meantime.
func TestUnsolicitedSYN(t *testing.T) {
	syn := func(from station) []byte {
		return packettest.TCP(from, masqueraded, packettest.Segment{SrcPort: 9, DstPort: 4000, Flags: packet.TCPSyn}, nil)
	}
	ours := func(to station) []byte {
		return packettest.TCP(alice, to, packettest.Segment{SrcPort: 4000, DstPort: 9, Flags: packet.TCPSyn}, nil)
	}
	for _, opens := range []bool{false, true} {
		r := newNATRig(t, nat.Config{})
		r.mustInside(1, ours(isp))
		stranger := syn(server)
		if d, f := r.outside(stranger); f != nil || d.Reason != packet.Filtered || len(r.sent) != 0 {
			t.Fatalf("%+v, %d answers", d, len(r.sent))
		}
		if opens {
			r.later(2 * time.Second)
			r.mustInside(1, ours(server))
			r.mustOutside(syn(server)) // sent again: both have opened
		}
		for range 50 {
			r.later(time.Second / 10)
		}
		if len(r.sent) != 0 {
			t.Fatal("answered within six seconds")
		}
		r.later(time.Second)
		if opens {
			if len(r.sent) != 0 {
				t.Error("answered, although the container opened from its side")
			}
			continue
		}
		answer := r.answer()
		m := wantICMP(t, answer, server, packet.ICMPUnreachable, packet.ICMPPortUnreachable)
		if !bytes.HasPrefix(m.Data(), payload(stranger)[:28]) {
			t.Errorf("quotes % x", m.Data())
		}
	}
}

// TestFragmentsThroughNAT is RFC 4787 REQ-14 from the router's side: later
// fragments that come first wait, go on with the first, and are each translated.
func TestFragmentsThroughNAT(t *testing.T) {
	fragments := func(b []byte) (all [][]byte) {
		f := &packet.Frame{B: b}
		mustParse(t, f)
		var s packet.Fragmenter
		s.Reset(f, 1000)
		buf := make([]byte, packet.MaxFrame)
		for n, ok := s.Next(buf); ok; n, ok = s.Next(buf) {
			all = append(all, bytes.Clone(buf[:n]))
		}
		return all
	}
	r := newNATRig(t, nat.Config{})
	r.mustInside(2, packettest.UDP(bob, server, 4000, 7000, nil)) // has the port
	sent := fragments(packettest.UDP(alice, server, 4000, 7000, make([]byte, 2500)))
	d, f := r.inside(1, sent[2])
	if f != nil || d.Verdict != packet.Hold || d.Reason != packet.FirstFragment || d.HoldKey == 0 {
		t.Fatalf("a later one first: %+v", d)
	}
	port := r.mustInside(1, sent[0]).SrcPort
	if len(r.resumed) != 1 || r.resumed[0] != d.HoldKey || port == 4000 {
		t.Fatalf("resumed %v, waiting for %v; port %d", r.resumed, d.HoldKey, port)
	}
	for i, want := range fragments(packettest.UDP(with(gw, masqueraded.IP.String()), server, port, 7000, make([]byte, 2500))) {
		got := r.mustInside(1, sent[i])
		packet.IPv4(payload(want)).DecrementTTL()
		if !bytes.Equal(payload(got.B), payload(want)) {
			t.Errorf("fragment %d:\n got % x\nwant % x", i, payload(got.B)[:40], payload(want)[:40])
		}
	}

	// The answer, back in the worst order.
	answer := fragments(packettest.UDP(server, masqueraded, 7000, port, make([]byte, 2500)))
	for _, later := range []int{2, 1} {
		if d, f := r.outside(answer[later]); f != nil || d.Verdict != packet.Hold {
			t.Fatalf("back: %+v", d)
		}
	}
	for _, i := range []int{0, 2, 1} {
		if got := r.mustOutside(answer[i]); got.Tuple().Dst != addrOf(alice) {
			t.Errorf("back to %v", got.Tuple())
		}
	}

	// The first one never comes.
	orphan := r.frame(natNetwork, 1, fragments(withID(packettest.UDP(alice, server, 1, 2, make([]byte, 2500))))[1])
	orphan.Flags |= packet.Resumed
	d = lookedUp(orphan, false)
	r.gw.Route(orphan, &d)
	if d.Reason != packet.FragmentOrphan {
		t.Errorf("an orphan: %+v", d)
	}
}

// withID is a packet with another identification.
func withID(b []byte) []byte {
	packet.IPv4(payload(b)).SetID(0x4321)
	return resum(b)
}

// TestTrainsCount: a flow and its rule count the packets of a train, and their bytes,
// as of packets that come one by one.
func TestTrainsCount(t *testing.T) {
	const size, n = 100, 5 // the last one is shorter
	payload := make([]byte, size*(n-1)+1)
	segment := packettest.Segment{SrcPort: 4000, DstPort: 80, Flags: packet.TCPAck}
	syn := packettest.Segment{SrcPort: 4000, DstPort: 80, Flags: packet.TCPSyn}
	for name, c := range map[string]struct {
		first  []byte // of the flow
		packet func(payload []byte) []byte
	}{
		"UDP": {
			packettest.UDP(alice, server, 4000, 7000, nil),
			func(b []byte) []byte { return packettest.UDP(alice, server, 4000, 7000, b) },
		},
		"TCP": {
			packettest.TCP(alice, server, syn, nil),
			func(b []byte) []byte { return packettest.TCP(alice, server, segment, b) },
		},
	} {
		var counted [2][2]uint64
		for i, train := range []bool{false, true} {
			r := newNATRig(t, nat.Config{})
			r.router.flows.Masquerade(natNetwork, natUplink)
			r.mustInside(1, c.first)
			if train {
				r.mustInside(1, packettest.GSO(c.packet(payload), size))
			}
			for b := payload; len(b) > 0 && !train; b = b[min(size, len(b)):] {
				r.mustInside(1, c.packet(b[:min(size, len(b))]))
			}
			for f := range r.router.flows.Flows {
				counted[i] = [2]uint64{f.Packets[0], f.Bytes[0]}
			}
			for rule := range r.router.flows.Rules {
				if got := [2]uint64{rule.Packets, rule.Bytes}; got != counted[i] {
					t.Errorf("%s: the rule has counted %v, the flow %v", name, got, counted[i])
				}
			}
		}
		if counted[0] != counted[1] || counted[0][0] != 1+n {
			t.Errorf("%s: one by one it is %v packets and bytes, as a train %v", name, counted[0], counted[1])
		}
	}
}
