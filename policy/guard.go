package policy

import (
	"encoding/binary"

	"fairlead/packet"
)

// A Guard says which source addresses a port may use. The gateway's identity
// and loopback addresses are refused on every port; whether the port is also
// held to its own MAC and addresses is the user's choice (`--opt guard`).
//
// The zero Guard refuses what no port may do and allows the rest.
type Guard struct {
	// Trusted is for a port whose frames the node makes itself: nothing is
	// refused, loopback addresses neither.
	Trusted bool
	// Strict holds the port to MAC and Addrs, and refuses what is for DHCP clients
	// and what only a router says.
	Strict bool
	MAC    packet.MAC
	// MACOnly holds it to MAC and nothing else: in the tagged VLANs of a trunk, where
	// addresses are not ours to give.
	MACOnly bool
	// Addrs are the port's addresses; a handful, so a scan beats a map.
	Addrs []packet.Addr

	// Others are what a port with a LAN behind it may not use: it may use all else.
	// Nil for other ports, and where the guard is off. Ignored if Strict.
	Others *Bound

	// The gateway's identity; zero values are never matched.
	GatewayMAC   packet.MAC
	GatewayAddrs []packet.Addr
}

// Check judges the sources of a parsed frame: OK, or the reason to drop it. It
// reads the frame and changes nothing.
func (g *Guard) Check(f *packet.Frame) packet.Reason {
	if g.Trusted {
		return packet.OK
	}
	ether := packet.Ethernet(f.Ether())
	src := ether.Src()
	switch {
	case src.IsGroup() || src.IsZero():
		return packet.BadSourceMAC
	case src == g.GatewayMAC:
		return packet.SpoofedGateway
	case g.refusesMAC(src):
		return packet.SpoofedMAC
	}
	switch f.EtherType {
	case packet.EtherTypeIPv4:
		return g.checkIPv4(f)
	case packet.EtherTypeIPv6:
		return g.checkIPv6(f)
	case packet.EtherTypeARP:
		return g.checkARP(f)
	}
	return packet.OK
}

// refusesMAC reports whether a MAC is not one for the port to use.
func (g *Guard) refusesMAC(m packet.MAC) bool {
	if g.Strict || g.MACOnly {
		return m != g.MAC
	}
	return g.Others.hasMAC(m)
}

// refusesAddr reports whether an address is not one for the port to use.
func (g *Guard) refusesAddr(a packet.Addr) bool {
	if g.Strict {
		return !contains(g.Addrs, a)
	}
	return g.Others.hasAddr(a)
}

func (g *Guard) checkIPv4(f *packet.Frame) packet.Reason {
	ip := packet.IPv4(f.Ether()[f.L3:])
	src, dst := ip.Src(), ip.Dst()
	if src[0] == 127 || dst[0] == 127 && !g.asksForNames(f, dst) {
		return packet.LoopbackAddress
	}
	// 0.0.0.0 is nobody's address: a host that has none yet may only shout
	// (RFC 1122 3.2.1.3; DHCP discover).
	if nobody := src == [4]byte{} && f.Flags.Has(packet.Broadcast); !nobody {
		if reason := g.checkSource(packet.AddrFrom4(src)); reason != packet.OK {
			return reason
		}
	}
	if g.Strict && f.Proto == packet.ProtoICMP && f.L4 != 0 && isRouters4(packet.ICMP(f.Transport()).Type()) {
		return packet.RogueRouter
	}
	return g.checkLending(f, dhcpClient)
}

// isRouters4 reports whether a type of ICMP is said by routers only: a redirect
// (RFC 792), an advertisement (RFC 1256). A host that believes either sends its
// traffic where it says.
func isRouters4(kind uint8) bool {
	return kind == packet.ICMPRedirect || kind == packet.ICMPRouterAdvert
}

// checkLending refuses what is for a DHCP client: who believes it may have any
// address and router. Clients take it from whatever port it comes (they filter
// by their own), so no more is asked than where it goes.
func (g *Guard) checkLending(f *packet.Frame, client uint16) packet.Reason {
	if g.Strict && f.Proto == packet.ProtoUDP && f.L4 != 0 && f.DstPort == client {
		return packet.RogueDHCP
	}
	return packet.OK
}

// asksForNames reports whether a frame is what a route inside makes of a question
// to the containers' nameserver. Nothing else leaves a host for an address of its
// loopback.
func (g *Guard) asksForNames(f *packet.Frame, dst [4]byte) bool {
	return dst == nameserver && packet.Ethernet(f.Ether()).Dst() == g.GatewayMAC && !g.GatewayMAC.IsZero() &&
		(f.Proto == packet.ProtoUDP || f.Proto == packet.ProtoTCP) && f.DstPort == dnsPort && !f.Flags.Has(packet.Fragment)
}

var nameserver = [4]byte{127, 0, 0, 11}

const dnsPort = 53

// Where clients of DHCP and of DHCPv6 listen (RFC 2131 4.1, RFC 8415 7.2).
const dhcpClient, dhcpClient6 = 68, 546

func (g *Guard) checkIPv6(f *packet.Frame) packet.Reason {
	if reason := g.checkAddrs6(f); reason != packet.OK {
		return reason
	}
	if f.Proto == packet.ProtoICMPv6 && f.L4 != 0 && packet.ICMP(f.Transport()).IsDiscovery() {
		return g.checkDiscovery(f)
	}
	return g.checkLending(f, dhcpClient6)
}

func (g *Guard) checkAddrs6(f *packet.Frame) packet.Reason {
	ip := packet.IPv6(f.Ether()[f.L3:])
	src, dst := ip.Src(), ip.Dst()
	if src == loopback6 || dst == loopback6 {
		return packet.LoopbackAddress
	}
	if src.Is4() || dst.Is4() {
		// ::ffff:a.b.c.d names an IPv4 host inside a program, never on a wire
		// (RFC 4291 2.5.5.2); tables hold IPv4 addresses in this form.
		return packet.SpoofedAddress
	}
	// :: is nobody's address: who has none yet asks groups (duplicate address
	// detection, RFC 4862 5.4.2; router solicitation, RFC 4861 4.1).
	if src == (packet.Addr{}) && f.Flags.Has(packet.Multicast) {
		return packet.OK
	}
	return g.checkSource6(src)
}

// checkSource6 judges an IPv6 address the port uses as its own.
func (g *Guard) checkSource6(a packet.Addr) packet.Reason {
	mac, formed := a.FormedFrom()
	switch {
	case !isLinkLocal6(a):
		return g.checkSource(a)
	case contains(g.GatewayAddrs, a):
		return packet.SpoofedGateway
	case formed && g.refusesMAC(mac):
		return packet.SpoofedAddress
	}
	return packet.OK // a host forms as many link-local addresses as it likes
}

// checkDiscovery looks at what a message of neighbour discovery claims, as checkARP
// does: it lands in the neighbours' tables, whoever sent it. Any may name a MAC;
// who has the target is said by an advertisement and by a redirect, and by who asks
// for it from nobody's address: it will be his (RFC 4862 5.4.3).
func (g *Guard) checkDiscovery(f *packet.Frame) packet.Reason {
	m, kind := packet.Discovery(f.Transport()), packet.ICMP(f.Transport()).Type()
	if g.Strict && (kind == packet.ICMPv6RouterAdvert || kind == packet.ICMPv6Redirect) {
		return packet.RogueRouter // whole or not, it is none of a container's business (RFC 6105)
	}
	if !m.Valid() || f.Flags.Has(packet.Fragment) {
		// Nobody ought to take it (RFC 4861 7.1, RFC 6980 5), and what it claims is
		// not here to be read.
		if g.Strict || g.Others != nil {
			return packet.SpoofedNeighbour
		}
		return packet.OK
	}
	for o := m.Options(); len(o) > 0; o = o.Next() {
		switch mac, named := o.MAC(); {
		case !named:
		case mac == g.GatewayMAC && !mac.IsZero():
			return packet.SpoofedGateway
		case g.refusesMAC(mac):
			return packet.SpoofedNeighbour
		}
	}
	claims := kind == packet.ICMPv6NeighborAdvert || kind == packet.ICMPv6Redirect ||
		kind == packet.ICMPv6NeighborSolicit && packet.IPv6(f.Packet()).Src() == packet.Addr{}
	if !claims {
		return packet.OK
	}
	switch reason := g.checkSource6(m.Target()); reason {
	case packet.OK, packet.SpoofedGateway:
		return reason
	}
	return packet.SpoofedNeighbour
}

// checkARP looks at what the packet claims rather than at who sent it: the
// claim is what lands in the neighbours' tables.
func (g *Guard) checkARP(f *packet.Frame) packet.Reason {
	a := packet.ARP(f.Ether()[f.L3:])
	ip, target := a.SenderIP(), a.TargetIP()
	if ip[0] == 127 || target[0] == 127 {
		return packet.LoopbackAddress
	}
	switch mac := a.SenderMAC(); {
	case mac == g.GatewayMAC && !mac.IsZero():
		return packet.SpoofedGateway
	case g.refusesMAC(mac):
		return packet.SpoofedMAC
	}
	if ip == [4]byte{} {
		return packet.OK // an address probe claims nothing, RFC 5227 2.1.1
	}
	return g.checkSource(packet.AddrFrom4(ip))
}

func (g *Guard) checkSource(a packet.Addr) packet.Reason {
	if contains(g.GatewayAddrs, a) {
		return packet.SpoofedGateway
	}
	if g.refusesAddr(a) {
		return packet.SpoofedAddress
	}
	return packet.OK
}

var loopback6 = packet.Addr{15: 1}

func isLinkLocal6(a packet.Addr) bool {
	return binary.BigEndian.Uint16(a[:])&0xffc0 == 0xfe80
}

func contains(list []packet.Addr, a packet.Addr) bool {
	for i := range list {
		if list[i] == a {
			return true
		}
	}
	return false
}
