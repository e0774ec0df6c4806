package gateway

import (
	"fairlead/arp"
	"fairlead/packet"
)

// quoteMax bounds what an ICMP error quotes so that the error stays within 576
// bytes (RFC 1812 4.3.2.3).
const quoteMax = 576 - packet.IPv4MinLen - packet.ICMPLen

// ttl is what the router's own packets start with, as Linux's default.
const ttl = 64

// answer sends what the router has to say about f to where f came from.
func (r *Router) answer(f *packet.Frame, d *packet.Decision, out packet.Out) {
	self := r.self(f, d.Originate)
	n := 0
	switch buf := out.Room(); {
	case d.Originate == packet.OriginARPReply:
		n = arpReply(f, buf, self.mac)
	case d.Originate == packet.OriginEchoReply:
		n = echoReply(f, buf, self.mac)
	case d.Originate == packet.OriginReset:
		r.answered(f)
		n = reset(f, buf, self.mac)
	default:
		r.answered(f)
		kind := errorKinds[d.Originate]
		n = icmpError(f, buf, self, kind.icmpType, kind.code, d.MTU)
	}
	out.Originate(packet.Place{Network: f.Network, Port: f.Port}, n)
}

// errorKinds are type and code of the ICMP errors.
var errorKinds = [packet.NumOrigins]struct{ icmpType, code uint8 }{
	packet.OriginNetUnreachable:   {packet.ICMPUnreachable, packet.ICMPNetUnreachable},
	packet.OriginHostUnreachable:  {packet.ICMPUnreachable, packet.ICMPHostUnreachable},
	packet.OriginProtoUnreachable: {packet.ICMPUnreachable, packet.ICMPProtoUnreachable},
	packet.OriginPortUnreachable:  {packet.ICMPUnreachable, packet.ICMPPortUnreachable},
	packet.OriginFragNeeded:       {packet.ICMPUnreachable, packet.ICMPFragNeeded},
	packet.OriginProhibited:       {packet.ICMPUnreachable, packet.ICMPAdminProhibited},
	packet.OriginTimeExceeded:     {packet.ICMPTimeExceeded, packet.ICMPTTLExceeded},
}

// A self is the router as a network sees it.
type self struct {
	mac  packet.MAC
	addr [4]byte
}

// self is who speaks when f is answered. To what ends here that is the address it
// was sent to, as with any host; what was on its way to a container hears of the
// router by the address of the side it came in by.
func (r *Router) self(f *packet.Frame, answer packet.Origin) self {
	p := r.plugs.Load()
	if g := p.gateway(f.Network); g != nil {
		return self{g.mac, g.addr}
	}
	up := p.uplink(f.Network)
	if up == nil {
		return self{} // unplugged since; the frame's port is about to go
	}
	addr := up.Addr()
	passing := answer == packet.OriginTimeExceeded || answer == packet.OriginFragNeeded || answer == packet.OriginHostUnreachable
	if f.EtherType == packet.EtherTypeIPv4 && !passing {
		if dst := packet.AddrFrom4(packet.IPv4(f.Ether()[f.L3:]).Dst()); up.Owns(dst) {
			addr = dst
		}
	}
	return self{up.MAC(), [4]byte(addr[12:])}
}

// turn copies the first n bytes of the frame, counted from its Ethernet
// header, behind a virtio-net header that asks for nothing, and turns the
// addresses round. VLAN tags stay, so the answer returns the way it came.
func turn(f *packet.Frame, buf []byte, n int, mac packet.MAC) packet.Ethernet {
	clear(buf[:packet.VNetLen])
	ether := packet.Ethernet(buf[packet.VNetLen:][:n])
	copy(ether, f.Ether())
	ether.SetDst(packet.Ethernet(f.Ether()).Src())
	ether.SetSrc(mac)
	return ether
}

func arpReply(f *packet.Frame, buf []byte, mac packet.MAC) int {
	n := int(f.L3) + packet.ARPLen
	ether := turn(f, buf, n, mac)
	a := packet.ARP(ether[f.L3:])
	arp.Answer(a, a, mac)
	return packet.VNetLen + n
}

// echoReply answers one packet of a ping, whole or a fragment; ID, flags and
// options stay, so the answers to the fragments are the fragments of the answer.
// The change of type is added to the ICMP checksum and not summed anew, because
// in a first fragment it covers fragments we never see together.
func echoReply(f *packet.Frame, buf []byte, mac packet.MAC) int {
	ether := turn(f, buf, f.Len(), mac)
	ip := packet.IPv4(ether[f.L3:])
	src, dst := ip.Src(), ip.Dst()
	ip.SetSrc(dst)
	ip.SetDst(src)
	ip.SetTTL(ttl)
	ip.UpdateChecksum()
	if !f.Flags.Has(packet.LaterFragment) {
		icmp := packet.ICMP(ether[f.L4:])
		turned := packet.Delta(0).Replace16(packet.ICMPEcho<<8, packet.ICMPEchoReply<<8)
		icmp.SetType(packet.ICMPEchoReply)
		sum := turned.Update(icmp.Checksum())
		if sum == 0 {
			// Of the two zeros of ones' complement this one is right for a
			// message of nothing but zeros as well (RFC 1624 section 3).
			sum = 0xffff
		}
		icmp.SetChecksum(sum)
	}
	return packet.VNetLen + f.Len()
}

// icmpError makes an ICMP error about f: our address, type and code, and a
// quote of the packet (RFC 792, RFC 1812 4.3.2). mtu is that of RFC 1191, zero
// for other errors.
func icmpError(f *packet.Frame, buf []byte, me self, icmpType, code uint8, mtu uint16) int {
	about := packet.IPv4(f.Ether()[f.L3:])
	quote := about[:min(about.TotalLen(), quoteMax)]
	head := int(f.L3) + packet.IPv4MinLen + packet.ICMPLen
	ether := turn(f, buf, int(f.L3), me.mac)
	ether = ether[:head+len(quote)]
	copy(ether[head:], quote)

	ip := packet.IPv4(ether[f.L3:])
	clear(ip[:packet.IPv4MinLen+packet.ICMPLen])
	ip.SetHeaderLen(packet.IPv4MinLen)
	ip.SetTOS(0xc0) // internetwork control, RFC 1812 4.3.2.5
	ip.SetTotalLen(len(ip))
	ip.SetTTL(ttl)
	ip.SetProto(packet.ProtoICMP)
	ip.SetSrc(me.addr)
	ip.SetDst(about.Src())
	ip.UpdateChecksum()
	icmp := packet.ICMP(ip[packet.IPv4MinLen:])
	icmp.SetType(icmpType)
	icmp.SetCode(code)
	if code == packet.ICMPFragNeeded && icmpType == packet.ICMPUnreachable {
		icmp.SetMTU(uint32(mtu))
	}
	icmp.UpdateChecksum(0)
	return packet.VNetLen + len(ether)
}

// reset refuses a TCP segment as a host does (RFC 9293 3.10.7.1).
func reset(f *packet.Frame, buf []byte, mac packet.MAC) int {
	about := packet.IPv4(f.Ether()[f.L3:])
	theirs := packet.TCP(f.Transport())
	n := int(f.L3) + packet.IPv4MinLen + packet.TCPMinLen
	ether := turn(f, buf, int(f.L3), mac)[:n]

	ip := packet.IPv4(ether[f.L3:])
	clear(ip)
	ip.SetHeaderLen(packet.IPv4MinLen)
	ip.SetTotalLen(len(ip))
	ip.SetFragment(true, false, 0)
	ip.SetTTL(ttl)
	ip.SetProto(packet.ProtoTCP)
	ip.SetSrc(about.Dst())
	ip.SetDst(about.Src())
	ip.UpdateChecksum()

	t := packet.TCP(ip[packet.IPv4MinLen:])
	t.SetSrcPort(theirs.DstPort())
	t.SetDstPort(theirs.SrcPort())
	t.SetHeaderLen(packet.TCPMinLen)
	if theirs.Flags()&packet.TCPAck != 0 {
		t.SetSeq(theirs.Ack())
		t.SetFlags(packet.TCPRst)
	} else {
		length := len(theirs) - theirs.HeaderLen()
		for _, bit := range []uint8{packet.TCPSyn, packet.TCPFin} {
			if theirs.Flags()&bit != 0 {
				length++
			}
		}
		t.SetAck(theirs.Seq() + uint32(length))
		t.SetFlags(packet.TCPRst | packet.TCPAck)
	}
	t.UpdateChecksum(packet.PseudoSum4(ip.Src(), ip.Dst(), packet.ProtoTCP, len(t)))
	return packet.VNetLen + n
}
