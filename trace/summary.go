package trace

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	"fairlead/packet"
)

func (r *Record) ether() packet.Ethernet { return packet.Ethernet(r.head[:r.headLen]) }

// at is the head from an offset of the frame's record on.
func (r *Record) at(offset uint16) []byte { return r.head[min(int(offset), r.headLen):r.headLen] }

// ipv4 is the packet's header, of a record that isIPv4.
func (r *Record) ipv4() packet.IPv4 { return packet.IPv4(r.at(uint16(r.frame.L3))) }

func (r *Record) isIPv4() bool {
	return r.frame.EtherType == packet.EtherTypeIPv4 && len(r.ipv4()) >= packet.IPv4MinLen
}

// Summary says what the frame is, in the words of tcpdump as far as they go: what
// Parse has found in it, and of a malformed frame what can be read.
func (r *Record) Summary() string {
	if r.headLen < packet.EthernetLen {
		return fmt.Sprintf("%d bytes", r.Len)
	}
	var tags string
	for _, tci := range r.frame.VLAN[:r.frame.Tags] {
		tags += fmt.Sprintf("vlan %d ", tci&0xfff)
	}
	return tags + r.networkWords()
}

func (r *Record) networkWords() string {
	b := r.at(uint16(r.frame.L3))
	switch t := r.frame.EtherType; {
	case t == packet.EtherTypeARP && packet.ARP(b).Valid():
		return arpWords(b)
	case t == packet.EtherTypeIPv4 && len(b) >= packet.IPv4MinLen:
		ip := packet.IPv4(b)
		return r.ipWords(packet.AddrFrom4(ip.Src()), packet.AddrFrom4(ip.Dst()), ip.Proto())
	case t == packet.EtherTypeIPv6 && len(b) >= packet.IPv6Len:
		ip := packet.IPv6(b)
		return r.ipWords(ip.Src(), ip.Dst(), ip.NextHeader())
	}
	words := fmt.Sprintf("%s > %s", r.ether().Src(), r.ether().Dst())
	if r.frame.L3 == 0 {
		return words // Parse gave it up at its tags
	}
	t := r.frame.EtherType.String()
	if strings.HasPrefix(t, "0x") {
		t = "ethertype " + t
	}
	return words + " " + t
}

func arpWords(a packet.ARP) string {
	sender, target := packet.AddrFrom4(a.SenderIP()), packet.AddrFrom4(a.TargetIP())
	if a.Op() == packet.ARPReply {
		return fmt.Sprintf("ARP %s is at %s", sender, a.SenderMAC())
	}
	return fmt.Sprintf("ARP who has %s, tell %s", target, sender)
}

// ipWords describes a packet between two addresses. next is the protocol that
// the fixed header names: all there is to say when Parse got no further.
func (r *Record) ipWords(src, dst packet.Addr, next packet.Proto) string {
	f := &r.frame
	proto := cmp.Or(f.Proto, next)
	words := fmt.Sprintf("%s > %s", src, dst)
	transport := r.at(f.L4)
	switch {
	case f.L4 == 0 || len(transport) < packet.ICMPLen: // not there to be read
		words += " " + proto.String()
	case proto == packet.ProtoICMP:
		words += " " + icmp4Words(packet.ICMP(transport))
	case proto == packet.ProtoICMPv6:
		words += " " + icmp6Words(packet.ICMP(transport))
	default:
		words = fmt.Sprintf("%s > %s %s", netip.AddrPortFrom(src.Netip(), f.SrcPort), netip.AddrPortFrom(dst.Netip(), f.DstPort), proto)
		if proto == packet.ProtoTCP && len(transport) >= packet.TCPMinLen {
			words += tcpFlags(transport)
		}
	}
	switch {
	case f.Flags.Has(packet.LaterFragment):
		words += ", later fragment"
	case f.Flags.Has(packet.Fragment):
		words += ", first fragment"
	}
	return words
}

func tcpFlags(t packet.TCP) (words string) {
	for _, f := range []struct {
		bit  uint8
		name string
	}{
		{packet.TCPSyn, " SYN"}, {packet.TCPFin, " FIN"}, {packet.TCPRst, " RST"}, {packet.TCPPsh, " PSH"}, {packet.TCPAck, " ACK"},
	} {
		if t.Flags()&f.bit != 0 {
			words += f.name
		}
	}
	return words
}

// tupleWords are a connection's addresses in one direction. ICMP echo has its
// identifier for ports.
func tupleWords(t packet.Tuple) string {
	switch t.Proto {
	case packet.ProtoTCP, packet.ProtoUDP:
		return fmt.Sprintf("%s > %s", netip.AddrPortFrom(t.Src.Netip(), t.SrcPort), netip.AddrPortFrom(t.Dst.Netip(), t.DstPort))
	case packet.ProtoICMP, packet.ProtoICMPv6:
		return fmt.Sprintf("%s > %s id %d", t.Src, t.Dst, max(t.SrcPort, t.DstPort))
	}
	return fmt.Sprintf("%s > %s", t.Src, t.Dst)
}
