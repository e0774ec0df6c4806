package gateway

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"
	"testing"

	"fairlead/nat"
	"fairlead/packet"
	"fairlead/packet/packettest"
)

// What the differential test sends.

func pick[T any](r *run, list ...T) T { return list[r.rng.IntN(len(list))] }

// frame sends a random frame, from one of the places where frames come from.
func (r *run) frame() {
	inside := pick(r, r.alice, r.bob, r.dave)
	outside := pick(r, r.isp, r.isp, r.isp2)
	far := pick(r, "203.0.113.5", "203.0.113.200", "8.8.8.8", "192.0.2.9")
	ours := pick(r, "192.0.2.7", "192.0.2.7", "192.0.2.50", "198.51.100.7")
	switch n := r.rng.IntN(100); {
	case n < 25: // out
		r.dressed(inside, r.packet(inside.station, inside.to(far), r.client(), r.service()))
	case n < 55: // on with a flow
		if f, reply := r.anyFlow(); f != nil {
			e, k := r.seenAt(f, reply)
			r.dressed(e, r.build(e, k))
		}
	case n < 67: // in, whether asked for or not
		r.dressed(outside, r.packet(outside.from(far), outside.to(ours), r.client(), pick(r, r.service(), r.client())))
	case n < 73: // to ourselves, from inside
		by := pick(r, ours, ours, "172.17.0.1", "172.18.0.1")
		r.dressed(inside, r.packet(inside.station, inside.to(by), r.client(), r.service()))
	case n < 80:
		r.errorAbout()
	case n < 84:
		r.fragments(inside, outside, far, ours)
	case n < 87: // nobody is there
		dead := pick(r, "192.0.2.99", "198.51.100.99", "172.17.0.99", "172.17.0.3", "172.18.0.1", "172.17.0.2")
		r.dressed(inside, r.packet(inside.station, inside.to(dead), r.client(), r.service()))
	case n < 89: // who is there is on another network
		apart := pick(r, r.alice, r.dave, r.eve, r.eve)
		r.dressed(apart, r.packet(apart.station, apart.to(pick(r, "172.17.0.2", "172.18.0.2", "172.19.0.2", "172.19.255.255")), r.client(), r.service()))
	case n < 91:
		r.put(inside, packettest.ARPRequest(inside.station, netAddr(inside.side)))
	default:
		r.odd(inside, outside, far, ours)
	}
}

func (r *run) client() uint16 { return 40000 + uint16(r.rng.IntN(5)) }
func (r *run) service() uint16 {
	return pick[uint16](r, 80, 53, 443, 8080, 8081, 5353, 5354, 5355, 8443, 9999, r.client())
}

// packet is one of TCP, UDP or a ping.
func (r *run) packet(src, dst station, sport, dport uint16) []byte {
	switch r.rng.IntN(5) {
	case 0:
		return packettest.ICMPEcho(src, dst, sport, 1, r.data(100))
	case 1, 2:
		return packettest.UDP(src, dst, sport, dport, r.data(100))
	}
	flags := pick[uint8](r, packet.TCPSyn, packet.TCPSyn, packet.TCPSyn, packet.TCPAck, packet.TCPSyn|packet.TCPAck, packet.TCPFin|packet.TCPAck, packet.TCPRst)
	return r.tcp(src, dst, sport, dport, flags, r.data(40))
}

func (r *run) tcp(src, dst station, sport, dport uint16, flags uint8, data []byte) []byte {
	s := packettest.Segment{SrcPort: sport, DstPort: dport, Seq: r.rng.Uint32(), Ack: r.rng.Uint32(), Flags: flags}
	if r.rng.IntN(2) == 0 {
		s.Options = []byte{packet.TCPOptionMSS, 4, 5, 0xb4}
	}
	return packettest.TCP(src, dst, s, data)
}

func (r *run) data(most int) []byte {
	b := make([]byte, r.rng.IntN(most))
	for i := range b {
		b[i] = byte(r.rng.Uint32())
	}
	return b
}

// anyFlow is one of the model's, in one of its directions.
func (r *run) anyFlow() (*modelFlow, bool) {
	if len(r.m.flows) == 0 {
		return nil, false
	}
	var keys []modelKey
	for k, f := range r.m.flows {
		if k.scope == f.from && k.tuple == f.fwd {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b modelKey) int {
		return cmp.Or(cmp.Compare(a.scope, b.scope), bytes.Compare(a.tuple.Src[:], b.tuple.Src[:]), bytes.Compare(a.tuple.Dst[:], b.tuple.Dst[:]),
			cmp.Compare(a.tuple.SrcPort, b.tuple.SrcPort), cmp.Compare(a.tuple.DstPort, b.tuple.DstPort), cmp.Compare(a.tuple.Proto, b.tuple.Proto))
	})
	return r.m.flows[pick(r, keys...)], r.rng.IntN(2) == 0
}

// seenAt is where packets of a flow come from in one of its directions, and
// their tuple there.
func (r *run) seenAt(f *modelFlow, reply bool) (*end, packet.Tuple) {
	n, k := f.from, f.fwd
	if reply {
		n, k = f.to, f.answers
	}
	for _, e := range r.ends {
		if e.side.network == n && (r.m.links[n].uplink || e.IP == k.Src.Netip()) {
			return e, k
		}
	}
	r.t.Fatalf("nobody sends %v", k)
	return nil, k
}

// via is whom an end sends its packets to: the router, or the host to its one
// container.
func (r *run) via(e *end) packet.MAC {
	if e == r.machine {
		return r.eve.MAC
	}
	return e.side.MAC()
}

// build is a packet with that tuple.
func (r *run) build(e *end, k packet.Tuple) []byte {
	src, dst := station{MAC: e.MAC, IP: k.Src.Netip()}, station{MAC: r.via(e), IP: k.Dst.Netip()}
	switch {
	case k.Proto == packet.ProtoTCP:
		flags := pick[uint8](r, packet.TCPAck, packet.TCPAck, packet.TCPAck, packet.TCPAck|packet.TCPPsh, packet.TCPSyn|packet.TCPAck,
			packet.TCPSyn|packet.TCPAck, packet.TCPSyn, packet.TCPFin|packet.TCPAck, packet.TCPRst)
		return r.tcp(src, dst, k.SrcPort, k.DstPort, flags, r.data(40))
	case k.Proto == packet.ProtoUDP:
		return packettest.UDP(src, dst, k.SrcPort, k.DstPort, r.data(40))
	case k.Proto == packet.ProtoICMP && k.DstPort == 0:
		return packettest.ICMPEcho(src, dst, k.SrcPort, 1, r.data(40))
	case k.Proto == packet.ProtoICMP:
		return packettest.ICMPEchoReply(src, dst, k.DstPort, 1, r.data(40))
	}
	return packettest.IP(src, dst, k.Proto, r.data(40))
}

// dressed sends a packet as it may come: unfinished, large, a super-frame,
// nearly out of time, tagged.
func (r *run) dressed(e *end, b []byte) {
	f := &packet.Frame{B: b}
	mustParse(r.t, f)
	plain := f.EtherType == packet.EtherTypeIPv4 && !f.Flags.Has(packet.Fragment) && (f.Proto == packet.ProtoTCP || f.Proto == packet.ProtoUDP)
	k := f.Tuple()
	src, dst := station{MAC: packet.Ethernet(f.Ether()).Src(), IP: k.Src.Netip()}, station{MAC: packet.Ethernet(f.Ether()).Dst(), IP: k.Dst.Netip()}
	if r.rng.IntN(6) == 0 && f.L4 != 0 { // large
		size := pick(r, 1250, 1350, 1360, 1440)
		switch f.Proto {
		case packet.ProtoTCP:
			b = packettest.TCP(src, dst, packettest.Segment{SrcPort: k.SrcPort, DstPort: k.DstPort, Flags: packet.TCP(f.Transport()).Flags()}, make([]byte, size))
			if r.rng.IntN(2) == 0 {
				b = packettest.TCP(src, dst, packettest.Segment{SrcPort: k.SrcPort, DstPort: k.DstPort, Flags: packet.TCP(f.Transport()).Flags()},
					make([]byte, 3000+r.rng.IntN(20000)))
				b = packettest.GSO(b, size)
				plain = false
			}
		case packet.ProtoUDP:
			b = packettest.UDP(src, dst, k.SrcPort, k.DstPort, make([]byte, size))
		}
	}
	if plain && r.rng.IntN(3) == 0 {
		b = packettest.Partial(b)
	}
	if r.rng.IntN(2) == 0 {
		b = dontFragment(b)
	}
	if r.rng.IntN(25) == 0 {
		b = withTTL(b, pick[uint8](r, 0, 1, 1, 2))
	}
	if r.rng.IntN(60) == 0 {
		b = packettest.Tagged(b, pick(r, []uint16{0}, []uint16{0, 0})...)
	}
	r.put(e, b)
}

// errorAbout sends an ICMP error about a packet of a flow, or about one that is
// nobody's.
func (r *run) errorAbout() {
	f, reply := r.anyFlow()
	if f == nil {
		return
	}
	e, k := r.seenAt(f, reply)
	about := k.Reverse()
	if r.rng.IntN(6) == 0 {
		about.DstPort ^= 0x4000
	}
	quoted := r.build(e, about)
	from := k.Src.Netip()
	if r.m.links[e.side.network].uplink && r.rng.IntN(2) == 0 {
		from = netip.MustParseAddr("198.18.0.1") // a router on the way
	}
	kind, code, rest := pick[uint8](r, 3, 3, 11, 12, 5), uint8(0), uint32(0)
	if kind == 3 {
		if code = pick[uint8](r, 0, 1, 3, 4, 13); code == 4 {
			rest = 1400
		}
	}
	if i := slices.IndexFunc(r.m.w.ends, func(x *end) bool { return x != e && x.side == e.side }); i >= 0 && r.rng.IntN(6) == 0 {
		e = r.m.w.ends[i] // a sibling, who cannot know
		from = e.IP
	}
	if kind == packet.ICMPRedirect && !r.m.links[e.side.network].uplink {
		kind = packet.ICMPParameter // of a container the guard takes the other for a router's
	}
	r.dressed(e, packettest.ICMPError(station{MAC: e.MAC, IP: from}, station{MAC: r.via(e), IP: k.Dst.Netip()}, kind, code, rest, quoted, 576))
}

// fragments sends a datagram in pieces, in any order and sometimes without the
// first.
func (r *run) fragments(inside, outside *end, far, ours string) {
	if r.pieces++; r.pieces > 20 {
		return // more than a source may have under way
	}
	e, src, dst := inside, inside.station, inside.to(pick(r, far, far, far, ours, netAddr(inside.side).String()))
	if r.rng.IntN(3) == 0 {
		e, src, dst = outside, outside.from(far), outside.to(ours)
	}
	data := r.data(3000)
	b := packettest.UDP(src, dst, r.client(), r.service(), data)
	if r.rng.IntN(3) == 0 {
		b = packettest.ICMPEcho(src, dst, r.client(), 1, data)
	}
	if f, reply := r.anyFlow(); f != nil && f.fwd.Proto == packet.ProtoUDP && r.rng.IntN(2) == 0 {
		var k packet.Tuple
		e, k = r.seenAt(f, reply)
		b = packettest.UDP(station{MAC: e.MAC, IP: k.Src.Netip()}, station{MAC: r.via(e), IP: k.Dst.Netip()}, k.SrcPort, k.DstPort, data)
	}
	r.inPieces(e, b)
}

// inPieces sends a packet in fragments, in any order.
func (r *run) inPieces(e *end, b []byte) {
	r.ids++
	packet.IPv4(payload(b)).SetID(r.ids)
	f := &packet.Frame{B: resum(b)}
	mustParse(r.t, f)
	var cut packet.Fragmenter
	cut.Reset(f, pick(r, 700, 1400))
	var pieces []func()
	for i := 0; ; i++ {
		room := make([]byte, packet.MaxFrame)
		n, ok := cut.Next(room)
		if !ok {
			break
		}
		if i > 0 || r.rng.IntN(6) > 0 {
			pieces = append(pieces, func() { r.put(e, room[:n]) })
		}
	}
	r.rng.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
	r.queue = append(r.queue, pieces...)
}

// odd are the frames a router has no use for, and others random ones rarely are.
func (r *run) odd(inside, outside *end, far, ours string) {
	timestamp := append([]byte{13, 0, 0xf2, 0xff}, make([]byte, 16)...)
	switch r.rng.IntN(20) {
	case 0:
		r.put(inside, packettest.Ethernet(inside.MAC, inside.side.MAC(), 0x88b5, make([]byte, 46)))
	case 1:
		r.put(inside, packettest.IP(inside.station, inside.to(far), packet.ProtoICMP, timestamp))
	case 2:
		r.put(outside, packettest.IP(outside.from(far), outside.to(ours), packet.ProtoICMP, timestamp))
	case 3, 4:
		r.put(inside, packettest.IP(inside.station, inside.to(pick(r, far, ours)), pick[packet.Proto](r, packet.ProtoESP, 47), r.data(60)))
	case 5:
		r.put(outside, packettest.IP(outside.from(far), outside.to(ours), pick[packet.Proto](r, packet.ProtoESP, 47), r.data(60)))
	case 6:
		dst := pick(r, "255.255.255.255", "240.0.0.1", "224.0.0.1", "0.0.0.0", "172.17.255.255", "192.0.2.255", "192.0.2.0")
		r.put(inside, packettest.UDP(inside.station, inside.to(dst), 1, 2, nil))
	case 7:
		src := pick(r, ours, "240.0.0.1", "0.0.0.0", "192.0.2.255", "172.17.0.2", "172.18.0.77")
		r.put(outside, packettest.UDP(outside.from(src), outside.to(ours), r.client(), r.service(), nil))
	case 8, 9:
		r.put(outside, r.packet(outside.from(far), outside.to(pick(r, "192.0.2.8", "172.17.0.2", "192.0.2.255")), r.client(), r.service()))
	case 10: // an answer nobody asked for, or identifier 0
		r.put(pick(r, inside, inside), packettest.ICMPEchoReply(inside.station, inside.to(far), pick(r, 0, r.client()), 1, nil))
	case 11:
		r.put(inside, packettest.ICMPEcho(inside.station, inside.to(far), 0, 1, nil))
	case 12:
		r.put(inside, packettest.ICMPEcho(inside.station, inside.to(netAddr(inside.side).String()), 1, 1, r.data(200)))
	case 13, 14: // too large for that way, and not to be cut
		b := packettest.UDP(r.alice.station, r.alice.to("203.0.113.200"), r.client(), r.service(), make([]byte, 1300))
		r.put(r.alice, dontFragment(b))
	case 15, 16: // who could have been asked directly
		r.dressed(r.alice, r.packet(r.alice.station, r.alice.to(pick(r, "172.17.0.2", "172.17.0.3")), r.client(), r.service()))
	case 17, 18: // two that open a connection from both sides
		for _, waiting := range r.m.syns {
			k := waiting.d.tuple
			x := r.m.mappingAt(waiting.d.link.network(), k.Dst, k.Proto, k.DstPort)
			if x == nil || waiting.due == 0 || k.Src.Netip().IsLoopback() || r.rng.IntN(2) == 0 {
				continue
			}
			for _, e := range r.ends {
				if addrOf(e.station) == x.inside {
					r.put(e, tcpTo(e.station, e.to(k.Src.String()), x.port, k.SrcPort, packet.TCPSyn))
				}
			}
			return
		}
	default: // as much as one port may have wait
		for range 20 {
			r.put(inside, packettest.UDP(inside.station, inside.to("192.0.2.99"), r.client(), 9999, nil))
		}
	}
}

// full are the reasons of a table that is full, each in a town of its own.
func full(t *testing.T, seen *tally) {
	for _, c := range []struct {
		name string
		conf nat.Config
		n    int // how many flows there may be
		want packet.Reason
	}{
		{"flows of a container", nat.Config{PerContainer: 3}, 3, packet.FlowBudget},
		{"flows of the node", nat.Config{Flows: 3, PerContainer: 100}, 3, packet.FlowTableFull},
		{"ports", nat.Config{MaxContainers: 32000, PerContainer: 1 << 17}, 64512 - 32000 + 1, packet.PortsExhausted},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newTown(t, c.conf).known()
			udp := func(from *end, i int) packet.Decision {
				return w.one(from, packettest.UDP(from.station, from.to("203.0.113.5"), uint16(1024+i), 9999, nil))
			}
			for i := range c.n {
				if d := udp(w.alice, i); d.Reason != packet.Routed {
					t.Fatalf("flow %d: %+v", i, d)
				}
				if i%50 == 0 {
					w.drain()
				}
				if c.n < 100 { // answered and asked again, it is not given up for another one
					w.one(w.isp, packettest.UDP(w.isp.from("203.0.113.5"), w.isp.to("192.0.2.7"), 9999, uint16(1024+i), nil))
					udp(w.alice, i)
				}
			}
			for i := range 120 {
				w.now += 1e7
				d := udp(w.alice, c.n+i)
				if d.Reason != c.want || d.Originate != packet.OriginProhibited {
					t.Fatalf("one more: %+v", d)
				}
				seen.add(&d)
				w.drain()
			}
			// Who has flows of his own to lose does not pay for the others.
			d := udp(w.bob, 1)
			if want := map[bool]packet.Reason{true: packet.FlowTableFull, false: packet.Routed}[c.want == packet.FlowTableFull]; d.Reason != want {
				t.Errorf("another container: %+v", d)
			}
		})
	}
}
