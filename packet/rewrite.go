package packet

import "encoding/binary"

// Edit carries the translation out on a parsed frame of its family, in place:
// addresses and ports (of ICMP echo the identifier) become those of t.After,
// and checksums are brought up to date incrementally, so that a packet that was
// damaged on its way stays damaged for its receiver to see. The frame's record
// is kept in step.
//
// It writes to f.B: nobody else may share the bytes. A frame of several
// segments, a first fragment and a later one, which has addresses only, are
// edited like any other. The frame's tuple must be t.Before, or with t.Quoted
// that of the packet it quotes.
func (t *Translation) Edit(f *Frame) {
	switch {
	case t.Before == t.After:
	case t.Quoted:
		t.editError(f)
	case f.L4 == 0:
		setTuple(f.Packet(), nil, f.Proto, &t.After, false)
	default:
		// Only the sum of our own transport header may be unfinished here: one
		// of a packet in a tunnel counts neither our addresses nor our ports.
		setTuple(f.Packet(), f.Transport(), f.Proto, &t.After, f.Flags.Has(NeedsChecksum))
		f.SrcPort, f.DstPort = ports(f.Transport(), f.Proto)
	}
}

// editError edits an ICMP error and the packet it quotes. Type, code, the MTU of
// "fragmentation needed" and whatever follows the quoted headers stay.
func (t *Translation) editError(f *Frame) {
	q, ok := f.quote()
	if !ok {
		return
	}
	// What an error says of our translated packet is for its true sender, and
	// comes from whom that believes to talk to: even when a router before that
	// one sent it, whose address means nothing on the other side (RFC 5508
	// REQ-4, REQ-5).
	outer := f.Tuple()
	if t.After.Src != t.Before.Src {
		outer.Dst = t.After.Src
	}
	if t.After.Dst != t.Before.Dst {
		outer.Src = t.After.Dst
	}

	// The quote begins at an even offset of the message, so what is edited of it
	// changes the sum over the message by as much as its own. It is more
	// fields than with a packet, because checksums are payload here.
	head := q.packet[:min(q.l4+TCPMinLen, len(q.packet))]
	before := Sum(head, 0)
	setTuple(q.packet, q.transport(), q.proto, &t.After, false)
	d := Delta(0).Replace16(before, Sum(head, 0))

	addrs := setAddrs(f.Packet(), &outer)
	if f.Proto == ProtoICMPv6 {
		d = d.plus(addrs)
	}
	m := ICMP(f.Transport())
	m.SetChecksum(d.Update(m.Checksum()))
}

// setTuple writes the tuple into a network packet and its transport header and
// brings the checksums up to date. Of a quoted transport header the checksum
// may be cut off; its first eight bytes are there. Without one it is nil.
func setTuple(packet, transport []byte, p Proto, to *Tuple, partial bool) {
	addrs := setAddrs(packet, to)
	if transport == nil {
		return
	}
	switch p {
	case ProtoTCP:
		ports := setPorts(transport, to)
		t := TCP(transport)
		switch {
		case len(t) < TCPChecksumOffset+2:
		case partial:
			t.SetChecksum(addrs.UpdatePartial(t.Checksum()))
		default:
			t.SetChecksum(addrs.plus(ports).Update(t.Checksum()))
		}
	case ProtoUDP:
		ports := setPorts(transport, to)
		u := UDP(transport)
		if partial {
			u.SetChecksum(addrs.UpdatePartial(u.Checksum()))
		} else {
			u.SetChecksum(addrs.plus(ports).UpdateUDP(u.Checksum()))
		}
	case ProtoICMP, ProtoICMPv6:
		var d Delta
		if p == ProtoICMPv6 {
			d = addrs
		}
		m := ICMP(transport)
		if m.isEcho(p) {
			id := to.SrcPort | to.DstPort // the other one is 0
			d = d.Replace16(m.ID(), id)
			m.SetID(id)
		}
		m.SetChecksum(d.Update(m.Checksum()))
	}
}

// setAddrs writes the addresses of a network packet, and in IPv4 the header
// checksum. It returns what that adds to a pseudo-header.
func setAddrs(packet []byte, to *Tuple) Delta {
	if packet[0]>>4 == 6 {
		ip := IPv6(packet)
		d := Delta(0).ReplaceAddr(ip.Src(), to.Src).ReplaceAddr(ip.Dst(), to.Dst)
		ip.SetSrc(to.Src)
		ip.SetDst(to.Dst)
		return d
	}
	ip := IPv4(packet)
	src, dst := [4]byte(to.Src[12:]), [4]byte(to.Dst[12:])
	d := Delta(0).Replace32(binary.BigEndian.Uint32(ip[12:]), binary.BigEndian.Uint32(src[:])).
		Replace32(binary.BigEndian.Uint32(ip[16:]), binary.BigEndian.Uint32(dst[:]))
	ip.SetSrc(src)
	ip.SetDst(dst)
	ip.SetChecksum(d.Update(ip.Checksum()))
	return d
}

// setPorts writes the ports, which TCP and UDP have in the same place, and
// returns what that adds to a sum over them.
func setPorts(transport []byte, to *Tuple) Delta {
	old := binary.BigEndian.Uint32(transport)
	ports := uint32(to.SrcPort)<<16 | uint32(to.DstPort)
	binary.BigEndian.PutUint32(transport, ports)
	return Delta(0).Replace32(old, ports)
}

// ports reads them from a transport header of which eight bytes are there; one
// that is nil has none.
func ports(transport []byte, p Proto) (src, dst uint16) {
	switch {
	case transport == nil:
	case p == ProtoTCP || p == ProtoUDP:
		return binary.BigEndian.Uint16(transport), binary.BigEndian.Uint16(transport[2:])
	case p == ProtoICMP || p == ProtoICMPv6:
		return ICMP(transport).ports(p)
	}
	return 0, 0
}

// A quote is the packet an ICMP error is about, as much of it as there is.
type quote struct {
	packet []byte // from its network header on, borrowed from the frame
	l4     int    // offset of the transport header in it
	proto  Proto
}

// transport is the transport header and what there is behind it; nil for a
// protocol without ports.
func (q quote) transport() []byte {
	switch q.proto {
	case ProtoTCP, ProtoUDP, ProtoICMP, ProtoICMPv6:
		return q.packet[q.l4:]
	}
	return nil
}

// Quoted returns the tuple of the packet that an ICMP error is about, for a
// parsed frame of any kind. It returns false when the frame is no such error,
// is damaged, quotes less than the eight bytes of transport header that RFC 792
// promises, or quotes a packet that its receiver did not send. Checksums
// of the message and of the quoted IP header must be right (RFC 5508 REQ-3);
// that of the quoted transport header is not looked at, because it is often cut
// off, and unfinished when the packet was never on a wire.
//
// Redirects, which are for a router's own link, and source quench, which RFC
// 6633 took back, count as no errors here.
func (f *Frame) Quoted() (Tuple, bool) {
	q, ok := f.quote()
	if !ok {
		return Tuple{}, false
	}
	outer, message := f.Tuple(), f.Transport()
	t := Tuple{Proto: q.proto}
	var pseudo uint16
	if f.EtherType == EtherTypeIPv6 {
		t.Src, t.Dst = IPv6(q.packet).Src(), IPv6(q.packet).Dst()
		pseudo = PseudoSum6(outer.Src, outer.Dst, f.Proto, len(message))
	} else {
		t.Src, t.Dst = AddrFrom4(IPv4(q.packet).Src()), AddrFrom4(IPv4(q.packet).Dst())
	}
	if t.Src != outer.Dst || Sum(message, pseudo) != 0xffff {
		return Tuple{}, false
	}
	t.SrcPort, t.DstPort = ports(q.transport(), q.proto)
	return t, true
}

// quote finds the packet an ICMP error is about. An error in fragments, which
// no router sends, is not understood: it may end anywhere.
func (f *Frame) quote() (quote, bool) {
	if f.L4 == 0 || f.Flags.Has(Fragment) {
		return quote{}, false
	}
	var q quote
	var ok bool
	switch m := ICMP(f.Transport()); f.Proto {
	case ProtoICMP:
		switch m.Type() {
		case ICMPUnreachable, ICMPTimeExceeded, ICMPParameter:
			q, ok = quote4(IPv4(m.Data()))
		}
	case ProtoICMPv6:
		if ICMPv6Unreachable <= m.Type() && m.Type() <= ICMPv6Parameter {
			q, ok = quote6(IPv6(m.Data()))
		}
	}
	if !ok || len(q.packet) < q.l4+ICMPLen {
		return quote{}, false
	}
	switch q.proto {
	case ProtoICMP, ProtoICMPv6:
		// Nobody is told of the fate of an error (RFC 1122 section 3.2.2), and
		// what is no echo has no identifier.
		if q.proto != f.Proto || !ICMP(q.transport()).isEcho(q.proto) {
			return quote{}, false
		}
	}
	return q, true
}

// quote4 reads the header of a quoted IPv4 packet. Behind the packet, as long
// as its header says it was, may come zeros and extensions (RFC 4884).
func quote4(ip IPv4) (quote, bool) {
	if len(ip) < IPv4MinLen || ip[0]>>4 != 4 {
		return quote{}, false
	}
	header := ip.HeaderLen()
	if header < IPv4MinLen || header > len(ip) || Sum(ip[:header], 0) != 0xffff || ip.FragmentOffset() != 0 {
		return quote{}, false
	}
	return quote{packet: ip[:min(ip.TotalLen(), len(ip))], l4: header, proto: ip.Proto()}, true
}

// quote6 reads the headers of a quoted IPv6 packet.
func quote6(ip IPv6) (quote, bool) {
	if len(ip) < IPv6Len || ip[0]>>4 != 6 {
		return quote{}, false
	}
	end := min(IPv6Len+ip.PayloadLen(), len(ip))
	upper, r := ip.upperLayer(end)
	if r != OK || upper.fragment != 0 && fragmentHeader(ip[upper.fragment:]).offset() != 0 {
		return quote{}, false
	}
	return quote{packet: ip[:end], l4: upper.offset, proto: upper.proto}, true
}

// DecrementTTL takes one off the time to live, which must not be zero, and
// brings the header checksum up to date (RFC 1141, RFC 1624).
func (ip IPv4) DecrementTTL() {
	const word = 8 // TTL and protocol
	old := binary.BigEndian.Uint16(ip[word:])
	ip.SetTTL(ip.TTL() - 1)
	d := Delta(0).Replace16(old, binary.BigEndian.Uint16(ip[word:]))
	ip.SetChecksum(d.Update(ip.Checksum()))
}
