package trace

import (
	"fmt"

	"fairlead/packet"
)

// Words for ICMP types and, for destination unreachable, codes: tcpdump's.
var (
	icmp4 = map[uint8]string{
		packet.ICMPEchoReply: "echo reply", packet.ICMPUnreachable: "unreachable",
		packet.ICMPSourceQuench: "source quench", packet.ICMPRedirect: "redirect", packet.ICMPEcho: "echo request",
		packet.ICMPTimeExceeded: "time exceeded", packet.ICMPParameter: "parameter problem",
	}
	unreachable4 = map[uint8]string{
		packet.ICMPNetUnreachable: "net unreachable", packet.ICMPHostUnreachable: "host unreachable",
		packet.ICMPProtoUnreachable: "protocol unreachable", packet.ICMPPortUnreachable: "port unreachable",
		packet.ICMPFragNeeded: "fragmentation needed", packet.ICMPAdminProhibited: "administratively prohibited",
	}
	icmp6 = map[uint8]string{
		packet.ICMPv6Unreachable: "unreachable", packet.ICMPv6PacketTooBig: "packet too big",
		packet.ICMPv6TimeExceeded: "time exceeded", packet.ICMPv6Parameter: "parameter problem",
		packet.ICMPv6Echo: "echo request", packet.ICMPv6EchoReply: "echo reply",
		packet.ICMPv6RouterSolicit: "router solicitation", packet.ICMPv6RouterAdvert: "router advertisement",
		packet.ICMPv6NeighborSolicit: "neighbour solicitation", packet.ICMPv6NeighborAdvert: "neighbour advertisement",
		packet.ICMPv6Redirect: "redirect", packet.ICMPv6MLDv2Report: "multicast listener report",
	}
)

func icmp4Words(m packet.ICMP) string {
	if m.Type() == packet.ICMPUnreachable {
		if words, ok := unreachable4[m.Code()]; ok {
			return "ICMP " + words
		}
	}
	return "ICMP " + typeWords(icmp4, m)
}

func icmp6Words(m packet.ICMP) string { return "ICMPv6 " + typeWords(icmp6, m) }

func typeWords(names map[uint8]string, m packet.ICMP) string {
	if words, ok := names[m.Type()]; ok {
		return words
	}
	return fmt.Sprintf("type %d code %d", m.Type(), m.Code())
}
