// Package packettest builds frames for tests and examples: readable calls in,
// bytes with a virtio-net header in front out.
//
//	a := packettest.Station{MAC: ..., IP: netip.MustParseAddr("10.0.0.2")}
//	b := packettest.Station{MAC: ..., IP: netip.MustParseAddr("10.0.0.3")}
//	packettest.ICMPEcho(a, b, 7, 1, []byte("hello"))
//	packettest.GSO(packettest.TCP(a, b, packettest.Segment{Flags: packet.TCPAck}, payload), 1448)
//
// Every call returns bytes of its own, which the caller owns. All functions
// are safe for concurrent use; a *rand.Rand handed in is not.
//
// Checksums are summed here word by word and not by package packet, so that a
// test that compares the two means something.
package packettest

import (
	"encoding/binary"
	"net/netip"

	"fairlead/packet"
)

// A Station is one end of a conversation.
type Station struct {
	MAC packet.MAC
	IP  netip.Addr
}

// IPv6 is the same station with its IPv6 link-local address.
func (s Station) IPv6() Station { return Station{s.MAC, s.MAC.LinkLocal()} }

// Broadcast is everybody on the segment.
var Broadcast = Station{packet.BroadcastMAC, netip.AddrFrom4([4]byte{255, 255, 255, 255})}

// Ethernet builds a frame around any payload.
func Ethernet(src, dst packet.MAC, t packet.EtherType, payload []byte) []byte {
	b := make([]byte, packet.VNetLen+packet.EthernetLen, packet.VNetLen+packet.EthernetLen+len(payload))
	e := packet.Ethernet(b[packet.VNetLen:])
	e.SetDst(dst)
	e.SetSrc(src)
	e.SetType(t)
	return append(b, payload...)
}

// ARPRequest builds the question who has target's address.
func ARPRequest(src Station, target netip.Addr) []byte {
	return arp(packet.ARPRequest, src, Station{packet.BroadcastMAC, target}, packet.MAC{})
}

// ARPReply builds src's answer to dst.
func ARPReply(src, dst Station) []byte {
	return arp(packet.ARPReply, src, dst, dst.MAC)
}

func arp(op uint16, src, dst Station, target packet.MAC) []byte {
	a := packet.ARP(make([]byte, packet.ARPLen))
	a.Init()
	a.SetOp(op)
	a.SetSenderMAC(src.MAC)
	a.SetSenderIP(src.IP.As4())
	a.SetTargetMAC(target)
	a.SetTargetIP(dst.IP.As4())
	return Ethernet(src.MAC, dst.MAC, packet.EtherTypeARP, a)
}

// IP builds an IPv4 or IPv6 packet, by the family of src, around any payload.
// Proto may be an IPv6 extension header that the payload begins with.
func IP(src, dst Station, proto packet.Proto, payload []byte) []byte {
	if src.IP.Is4() {
		return IPv4(src, dst, proto, nil, payload)
	}
	ip := packet.IPv6(make([]byte, packet.IPv6Len, packet.IPv6Len+len(payload)))
	ip.SetVersion(0, 0x12345)
	ip.SetPayloadLen(len(payload))
	ip.SetNextHeader(proto)
	ip.SetHopLimit(64)
	ip.SetSrc(src.IP.As16())
	ip.SetDst(dst.IP.As16())
	return Ethernet(src.MAC, dst.MAC, packet.EtherTypeIPv6, append(ip, payload...))
}

// IPv4 builds an IPv4 packet with options, whose length must be a multiple of
// four.
func IPv4(src, dst Station, proto packet.Proto, options, payload []byte) []byte {
	ip := packet.IPv4(make([]byte, packet.IPv4MinLen, packet.IPv4MaxLen+len(payload)))
	ip.SetHeaderLen(packet.IPv4MinLen + len(options))
	ip.SetTotalLen(packet.IPv4MinLen + len(options) + len(payload))
	ip.SetID(0x1234)
	ip.SetTTL(64)
	ip.SetProto(proto)
	ip.SetSrc(src.IP.As4())
	ip.SetDst(dst.IP.As4())
	ip = append(ip, options...)
	ip.SetChecksum(^Sum(ip, 0))
	return Ethernet(src.MAC, dst.MAC, packet.EtherTypeIPv4, append(ip, payload...))
}

// ICMPEcho builds an echo request, ICMP or ICMPv6 by the family of src.
func ICMPEcho(src, dst Station, id, seq uint16, data []byte) []byte {
	return echo(src, dst, packet.ICMPEcho, packet.ICMPv6Echo, id, seq, data)
}

// ICMPEchoReply builds an echo reply, ICMP or ICMPv6 by the family of src.
func ICMPEchoReply(src, dst Station, id, seq uint16, data []byte) []byte {
	return echo(src, dst, packet.ICMPEchoReply, packet.ICMPv6EchoReply, id, seq, data)
}

func echo(src, dst Station, type4, type6 uint8, id, seq uint16, data []byte) []byte {
	m := packet.ICMP(make([]byte, packet.ICMPLen, packet.ICMPLen+len(data)))
	m.SetType(type4)
	m.SetID(id)
	m.SetSeq(seq)
	m = append(m, data...)
	proto, pseudo := packet.ProtoICMP, uint16(0)
	if src.IP.Is6() {
		m.SetType(type6)
		proto, pseudo = packet.ProtoICMPv6, PseudoSum(src.IP, dst.IP, packet.ProtoICMPv6, len(m))
	}
	m.SetChecksum(^Sum(m, pseudo))
	return IP(src, dst, proto, m)
}

// Discovery builds a message of neighbour discovery: kind is its type, target what
// those are about that are about an address, and each MAC is named in an option.
func Discovery(src, dst Station, kind uint8, target netip.Addr, macs ...packet.MAC) []byte {
	option := uint8(1) // of the source
	m := make([]byte, packet.ICMPLen)
	m[0] = kind
	switch kind {
	case packet.ICMPv6RouterAdvert:
		m = append(m, make([]byte, 8)...)
	case packet.ICMPv6NeighborSolicit:
		m = append(m, target.AsSlice()...)
	case packet.ICMPv6NeighborAdvert:
		m[4], option = 0x20, 2 // what was known is replaced
		m = append(m, target.AsSlice()...)
	case packet.ICMPv6Redirect:
		option = 2
		m = append(append(m, target.AsSlice()...), target.AsSlice()...)
	}
	for _, mac := range macs {
		m = append(append(m, option, 1), mac[:]...)
	}
	packet.ICMP(m).SetChecksum(^Sum(m, PseudoSum(src.IP, dst.IP, packet.ProtoICMPv6, len(m))))
	b := IP(src, dst, packet.ProtoICMPv6, m)
	packet.IPv6(b[packet.VNetLen+packet.EthernetLen:]).SetHopLimit(255) // or nobody takes it
	return b
}

// ICMPError builds an ICMP or ICMPv6 error, by the family of src, about the
// packet in the frame about, of which it quotes at most limit bytes. Rest is
// what follows the checksum, where the MTU is.
func ICMPError(src, dst Station, kind, code uint8, rest uint32, about []byte, limit int) []byte {
	f := packet.Frame{B: about}
	if r := packet.Parse(&f); r != packet.OK {
		panic("packettest: not a packet to quote: " + r.Why())
	}
	quoted := f.Packet()
	m := packet.ICMP(make([]byte, packet.ICMPLen, packet.ICMPLen+len(quoted)))
	m.SetType(kind)
	m.SetCode(code)
	m.SetMTU(rest)
	m = append(m, quoted[:min(len(quoted), limit)]...)
	proto, pseudo := packet.ProtoICMP, uint16(0)
	if src.IP.Is6() {
		proto, pseudo = packet.ProtoICMPv6, PseudoSum(src.IP, dst.IP, packet.ProtoICMPv6, len(m))
	}
	m.SetChecksum(^Sum(m, pseudo))
	return IP(src, dst, proto, m)
}

// UDP builds a datagram.
func UDP(src, dst Station, srcPort, dstPort uint16, payload []byte) []byte {
	u := packet.UDP(make([]byte, packet.UDPLen, packet.UDPLen+len(payload)))
	u.SetSrcPort(srcPort)
	u.SetDstPort(dstPort)
	u.SetLen(packet.UDPLen + len(payload))
	u = append(u, payload...)
	sum := ^Sum(u, PseudoSum(src.IP, dst.IP, packet.ProtoUDP, len(u)))
	if sum == 0 {
		sum = 0xffff
	}
	u.SetChecksum(sum)
	return IP(src, dst, packet.ProtoUDP, u)
}

// A Segment says what the header of a TCP segment holds. The length of Options
// must be a multiple of four.
type Segment struct {
	SrcPort, DstPort uint16
	Seq, Ack         uint32
	Flags            uint8
	Options          []byte
}

// TCP builds a segment.
func TCP(src, dst Station, s Segment, payload []byte) []byte {
	t := packet.TCP(make([]byte, packet.TCPMinLen, packet.TCPMinLen+len(s.Options)+len(payload)))
	t.SetSrcPort(s.SrcPort)
	t.SetDstPort(s.DstPort)
	t.SetSeq(s.Seq)
	t.SetAck(s.Ack)
	t.SetHeaderLen(packet.TCPMinLen + len(s.Options))
	t.SetFlags(s.Flags)
	t.SetWindow(502)
	t = append(append(t, s.Options...), payload...)
	t.SetChecksum(^Sum(t, PseudoSum(src.IP, dst.IP, packet.ProtoTCP, len(t))))
	return IP(src, dst, packet.ProtoTCP, t)
}

// Tagged puts VLAN tags, outer first, into a frame. Of two, the outer one is
// of IEEE 802.1ad.
func Tagged(frame []byte, tci ...uint16) []byte {
	const at = packet.VNetLen + 12
	b := append([]byte(nil), frame[:at]...)
	for i, t := range tci {
		tpid := packet.EtherTypeVLAN
		if i < len(tci)-1 {
			tpid = packet.EtherTypeQinQ
		}
		b = binary.BigEndian.AppendUint16(b, uint16(tpid))
		b = binary.BigEndian.AppendUint16(b, t)
	}
	b = append(b, frame[at:]...)
	v, shift := packet.VNet(b), uint16(len(tci)*packet.VLANLen)
	if v.Flags()&packet.VNetNeedsCSum != 0 {
		v.SetCSumStart(v.CSumStart() + shift)
	}
	if v.HdrLen() != 0 {
		v.SetHdrLen(v.HdrLen() + shift)
	}
	return b
}

// Partial leaves the checksum of a TCP or UDP frame unfinished, as the kernel
// does on a device with checksum offload.
func Partial(frame []byte) []byte {
	f := parsed(frame)
	offset, proto := packet.TCPChecksumOffset, packet.ProtoTCP
	if f.Proto == packet.ProtoUDP {
		offset, proto = packet.UDPChecksumOffset, packet.ProtoUDP
	}
	t, tuple := f.Transport(), f.Tuple()
	sum := PseudoSum(tuple.Src.Netip(), tuple.Dst.Netip(), proto, len(t))
	binary.BigEndian.PutUint16(t[offset:], sum)
	v := f.VNet()
	v.SetFlags(packet.VNetNeedsCSum)
	v.SetCSumStart(f.L4)
	v.SetCSumOffset(uint16(offset))
	return f.B
}

// GSO makes a TCP or UDP frame one that stands for several of size payload
// bytes each, with an unfinished checksum.
func GSO(frame []byte, size int) []byte {
	f := parsed(Partial(frame))
	v, header := f.VNet(), packet.UDPLen
	switch {
	case f.Proto == packet.ProtoUDP:
		v.SetGSOType(packet.GSOUDPL4)
	case f.EtherType == packet.EtherTypeIPv6:
		v.SetGSOType(packet.GSOTCPv6)
	default:
		v.SetGSOType(packet.GSOTCPv4)
	}
	if f.Proto == packet.ProtoTCP {
		header = packet.TCP(f.Transport()).HeaderLen()
	}
	v.SetGSOSize(uint16(size))
	v.SetHdrLen(f.L4 + uint16(header))
	return f.B
}

// parsed is the record of a copy of the frame. It panics on a malformed one:
// the test that made it is wrong.
func parsed(frame []byte) packet.Frame {
	f := packet.Frame{B: append([]byte(nil), frame...)}
	if r := packet.Parse(&f); r != packet.OK || f.L4 == 0 {
		panic("packettest: not a whole transport packet: " + r.Why())
	}
	return f
}

// Sum is the ones' complement sum of RFC 1071, as slow as it is plain.
func Sum(b []byte, initial uint16) uint16 {
	sum := uint32(initial)
	for i, c := range b {
		if i%2 == 0 {
			sum += uint32(c) << 8
		} else {
			sum += uint32(c)
		}
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum>>16 + sum&0xffff)
}

// PseudoSum is the sum of the pseudo-header of either family.
func PseudoSum(src, dst netip.Addr, proto packet.Proto, length int) uint16 {
	b := append(src.AsSlice(), dst.AsSlice()...)
	b = binary.BigEndian.AppendUint32(b, uint32(length))
	b = binary.BigEndian.AppendUint32(b, uint32(proto))
	return Sum(b, 0)
}
