package gateway

import (
	"net/netip"
	"slices"

	"fairlead/packet"
	"fairlead/policy"
)

// refuse drops a packet and tells its sender, as far as that is allowed.
func (r *Router) refuse(f *packet.Frame, d *packet.Decision, reason packet.Reason, answer packet.Origin) {
	d.RefuseCopy(reason)
	if answer != packet.OriginNone && r.mayAnswer(f, answer) {
		d.Originate = answer
	} else {
		d.Originate = packet.OriginNone
	}
}

// answerTo is what the sender of a refused packet is told.
func answerTo(reason packet.Reason, f *packet.Frame) packet.Origin {
	switch reason {
	case packet.Refused:
		switch f.Proto {
		case packet.ProtoTCP:
			return packet.OriginReset
		case packet.ProtoUDP:
			return packet.OriginPortUnreachable
		}
		return packet.OriginProtoUnreachable
	case packet.SocketBudget:
		if f.Proto == packet.ProtoTCP {
			return packet.OriginReset
		}
		return packet.OriginProhibited
	case packet.HostUnreachable:
		return packet.OriginHostUnreachable
	case packet.NoFlow:
		return packet.OriginReset
	case packet.NoRoute:
		return packet.OriginNetUnreachable
	case packet.NotTranslatable, packet.NotCarried:
		return packet.OriginProtoUnreachable
	case packet.FlowBudget, packet.FlowTableFull, packet.PortsExhausted, packet.PingForbidden, packet.EgressDenied:
		return packet.OriginProhibited
	}
	return packet.OriginNone
}

// routable reports whether a router may act upon the header: its checksum is
// right (RFC 1812 5.2.2), and the addresses are no martians, groups or
// broadcasts (RFC 1812 5.3.7).
func routable(ip packet.IPv4) bool {
	src, dst := ip.Src(), ip.Dst()
	return isStation(src) && src[0] != 127 && isStation(dst) && dst[0] != 127 && headerIntact(ip)
}

// headerIntact reports whether the checksum of the header is right.
func headerIntact(ip packet.IPv4) bool { return packet.Sum(ip[:ip.HeaderLen()], 0) == 0xffff }

// isStation reports whether an address can be that of a host: none of 0/8, 240/4
// and the groups.
func isStation(a [4]byte) bool { return a[0] != 0 && a[0] < 224 }

func isLoopback(a packet.Addr) bool { return a.Is4() && a[12] == 127 }

// isBroadcast reports whether an address is the broadcast or network address of
// a subnet (RFC 1812 5.3.5).
func isBroadcast(subnet netip.Prefix, a [4]byte) bool {
	if !subnet.IsValid() || subnet.Bits() > 30 {
		return false
	}
	ip := netip.AddrFrom4(a)
	return ip == subnet.Masked().Addr() || ip == Broadcast(subnet)
}

// isEcho reports whether the frame asks for an echo. A later fragment of ICMP
// counts: answering each fragment by itself answers the whole datagram.
func isEcho(f *packet.Frame) bool {
	if f.Proto != packet.ProtoICMP {
		return false
	}
	return f.Flags.Has(packet.LaterFragment) || f.L4 != 0 && packet.ICMP(f.Ether()[f.L4:]).Type() == packet.ICMPEcho
}

// isError reports whether the frame is an ICMP error.
func isError(f *packet.Frame) bool {
	return f.Proto == packet.ProtoICMP && f.L4 != 0 && packet.ICMP(f.Ether()[f.L4:]).IsError4()
}

// tcpFlags are those of a TCP packet, else 0.
func tcpFlags(f *packet.Frame) uint8 {
	if f.Proto != packet.ProtoTCP || f.L4 == 0 {
		return 0
	}
	return packet.TCP(f.Ether()[f.L4:]).Flags()
}

// isOtherICMP reports whether the frame is an ICMP message that is neither a
// request nor an answer of echo: one without an identifier NAT knows.
func isOtherICMP(f *packet.Frame) bool {
	if f.Proto != packet.ProtoICMP || f.L4 == 0 {
		return false
	}
	t := packet.ICMP(f.Ether()[f.L4:]).Type()
	return t != packet.ICMPEcho && t != packet.ICMPEchoReply
}

// hasPorts reports whether packets of a protocol have ports, or an identifier.
// Those of others are told apart by their addresses alone.
func hasPorts(p packet.Proto) bool {
	return p == packet.ProtoTCP || p == packet.ProtoUDP || p == packet.ProtoICMP
}

// begins reports whether a packet with tuple k may begin a connection.
func begins(f *packet.Frame, k packet.Tuple) bool {
	switch f.Proto {
	case packet.ProtoTCP:
		const of = packet.TCPSyn | packet.TCPAck | packet.TCPRst | packet.TCPFin
		return tcpFlags(f)&of == packet.TCPSyn
	case packet.ProtoICMP:
		return isEcho(f) && k.DstPort == 0 // a request, or the rest of one
	}
	return true
}

// ICMP errors and resets are rate-limited for each port (RFC 1812 4.3.2.8):
// fast enough for traceroute, mtr and refused connections, slow enough to be no
// amplifier.
const (
	errorsPerSecond = 100
	errorsBurst     = 50
)

// mayAnswer says whether an ICMP error or a reset may be sent about a packet:
// never about an error, a later fragment, a group's packet or a reset (RFC 1122
// 3.2.2, RFC 9293 3.5.2), and not faster than the port's rate.
func (r *Router) mayAnswer(f *packet.Frame, answer packet.Origin) bool {
	if f.Flags.Has(packet.LaterFragment) || f.Flags.Has(packet.Multicast) || isError(f) {
		return false
	}
	if answer == packet.OriginReset && (f.Proto != packet.ProtoTCP || f.L4 == 0 || tcpFlags(f)&packet.TCPRst != 0) {
		return false
	}
	if r.plugs.Load().keeps(f.Network) {
		return true // who hears it is a socket of ours
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	rate := r.rates[packet.Place{Network: f.Network, Port: f.Port}]
	return rate == nil || rate.Allows(f.Time)
}

// answered takes one answer off the port's rate.
func (r *Router) answered(f *packet.Frame) {
	at := packet.Place{Network: f.Network, Port: f.Port}
	r.mu.Lock()
	defer r.mu.Unlock()
	rate := r.rates[at]
	if rate == nil {
		made := policy.NewRate(errorsPerSecond, errorsBurst)
		rate = &made
		r.rates[at] = rate
	}
	rate.Take(f.Time, 1)
}

// sortRoutes puts the most specific routes first and keeps the order of equal
// ones.
func sortRoutes(list []Route) {
	slices.SortStableFunc(list, func(a, b Route) int { return b.Prefix.Bits() - a.Prefix.Bits() })
}
