package policy

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

var (
	me      = station("10.0.0.2")
	other   = station("10.0.0.3")
	gateway = station("10.0.0.1")

	nobody4   = netip.IPv4Unspecified()
	nobody6   = netip.IPv6Unspecified()
	group4    = packettest.Station{MAC: packet.MAC{1, 0, 0x5e, 0, 0, 0xfb}, IP: netip.MustParseAddr("224.0.0.251")}
	group6    = packettest.Station{MAC: packet.MAC{0x33, 0x33, 0xff, 0, 0, 2}, IP: netip.MustParseAddr("ff02::1:ff00:2")}
	global6   = netip.MustParseAddr("2001:db8::2")
	stranger6 = netip.MustParseAddr("2001:db8::99")
)

func station(s string) packettest.Station {
	ip := netip.MustParseAddr(s)
	return packettest.Station{MAC: packet.MACFromIPv4(ip), IP: ip}
}

// at is a station with another address.
func at(s packettest.Station, ip netip.Addr) packettest.Station {
	return packettest.Station{MAC: s.MAC, IP: ip}
}

// behind is a station with another MAC.
func behind(s packettest.Station, mac packet.MAC) packettest.Station {
	return packettest.Station{MAC: mac, IP: s.IP}
}

// newGuard is that of me's port, who has an IPv6 address as well.
func newGuard(strict bool) *Guard {
	return &Guard{
		Strict: strict, MAC: me.MAC,
		Addrs:      []packet.Addr{packet.AddrFromNetip(me.IP), packet.AddrFromNetip(global6)},
		GatewayMAC: gateway.MAC,
		GatewayAddrs: []packet.Addr{
			packet.AddrFromNetip(gateway.IP), packet.AddrFromNetip(gateway.MAC.LinkLocal()),
		},
	}
}

// resolver is the containers' nameserver, as frames are addressed to it.
var resolver = at(gateway, netip.MustParseAddr("127.0.0.11"))

// firstFragment says of a packet that there is more of it.
func firstFragment(b []byte) []byte {
	ip := packet.IPv4(b[packet.VNetLen+packet.EthernetLen:])
	binary.BigEndian.PutUint16(ip[6:], 0x2000) // MF
	ip.UpdateChecksum()
	return b
}

func udp(src, dst packettest.Station) []byte { return packettest.UDP(src, dst, 1, 2, []byte("x")) }

// arp builds a request whose sender fields are claim's, from the station at src.
func arp(src packet.MAC, claim packettest.Station, target netip.Addr) []byte {
	b := packettest.ARPRequest(claim, target)
	packet.Ethernet(b[packet.VNetLen:]).SetSrc(src)
	return b
}

const (
	solicit, announce = packet.ICMPv6NeighborSolicit, packet.ICMPv6NeighborAdvert
	routerAdvert      = packet.ICMPv6RouterAdvert
)

// asks is the question whether anybody has an address, from nobody's.
func asks(target netip.Addr) []byte {
	return packettest.Discovery(at(me, nobody6), group6, solicit, target)
}

// icmp4 is a message of ICMP, eight bytes of it.
func icmp4(kind uint8) []byte {
	return packettest.IP(me, other, packet.ProtoICMP, []byte{kind, 0, 0, 0, 10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0})
}

// advert is a message of neighbour discovery from me to other.
func advert(kind uint8, target netip.Addr, macs ...packet.MAC) []byte {
	return packettest.Discovery(me.IPv6(), other.IPv6(), kind, target, macs...)
}

// make136 is what n bytes of an advertisement of me's are, and nothing else.
func make136(n int) []byte {
	target := me.MAC.LinkLocal().As16()
	return append([]byte{announce, 0, 0, 0, 0x20, 0, 0, 0}, target[:]...)[:n]
}

// behindOptions puts destination options in front of a packet's payload.
func behindOptions(b []byte) []byte {
	return ahead(b, packet.ProtoDestOptions, []byte{0, 0, 1, 4, 0, 0, 0, 0})
}

// inFragment has a packet's payload be the first fragment of more.
func inFragment(b []byte) []byte { return inFragmentOf(1, b) }

// inFragmentOf puts a fragment header in front of it, with more to come or not.
func inFragmentOf(more byte, b []byte) []byte {
	return ahead(b, packet.ProtoFragment, []byte{0, 0, 0, more, 0, 0, 0, 1})
}

// ahead puts an extension header in front of what follows the fixed one.
func ahead(b []byte, proto packet.Proto, header []byte) []byte {
	ip := packet.IPv6(b[packet.VNetLen+packet.EthernetLen:])
	header[0] = byte(ip.NextHeader())
	return packettest.IP(me.IPv6(), other.IPv6(), proto, append(header, ip[packet.IPv6Len:]...))
}

func parsed(t testing.TB, b []byte) *packet.Frame {
	t.Helper()
	f := &packet.Frame{B: b}
	if r := packet.Parse(f); r != packet.OK {
		t.Fatalf("malformed: %v\n% x", r, b)
	}
	return f
}

func TestGuard(t *testing.T) {
	const ok = packet.OK
	lo4, lo4end := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.255.255.255")
	lo6 := netip.IPv6Loopback()
	mapped := func(ip netip.Addr) netip.Addr { return netip.AddrFrom16(ip.As16()) }
	for _, c := range []struct {
		name          string
		frame         []byte
		strict, loose packet.Reason // what a guard that is on says, and one that is off
	}{
		// Sources of Ethernet.
		{"own", udp(me, other), ok, ok},
		{"own to the gateway", udp(me, gateway), ok, ok},
		{"no MAC", udp(behind(me, packet.MAC{}), other), packet.BadSourceMAC, packet.BadSourceMAC},
		{"group MAC", udp(behind(me, group4.MAC), other), packet.BadSourceMAC, packet.BadSourceMAC},
		{"broadcast MAC", udp(behind(me, packet.BroadcastMAC), other), packet.BadSourceMAC, packet.BadSourceMAC},
		{"another's MAC", udp(behind(me, other.MAC), other), packet.SpoofedMAC, ok},
		{"gateway's MAC", udp(behind(me, gateway.MAC), other), packet.SpoofedGateway, packet.SpoofedGateway},
		{"no IP", packettest.Ethernet(me.MAC, other.MAC, 0x88b5, make([]byte, 46)), ok, ok},
		{"no IP, another's MAC", packettest.Ethernet(other.MAC, me.MAC, 0x88b5, make([]byte, 46)), packet.SpoofedMAC, ok},
		{"no IP, gateway's MAC", packettest.Ethernet(gateway.MAC, me.MAC, 0x88b5, make([]byte, 46)), packet.SpoofedGateway, packet.SpoofedGateway},

		// IPv4.
		{"another's address", udp(at(me, other.IP), other), packet.SpoofedAddress, ok},
		{"address of outside", udp(at(me, netip.MustParseAddr("192.0.2.7")), other), packet.SpoofedAddress, ok},
		{"gateway's address", udp(at(me, gateway.IP), other), packet.SpoofedGateway, packet.SpoofedGateway},
		{"from loopback", udp(at(me, lo4), other), packet.LoopbackAddress, packet.LoopbackAddress},
		{"from the end of loopback", udp(at(me, lo4end), other), packet.LoopbackAddress, packet.LoopbackAddress},
		{"to loopback", udp(me, at(other, lo4)), packet.LoopbackAddress, packet.LoopbackAddress},
		{"to the end of loopback", udp(me, at(other, lo4end)), packet.LoopbackAddress, packet.LoopbackAddress},
		{"for names", packettest.UDP(me, resolver, 4000, 53, nil), ok, ok},
		{"for names by TCP", packettest.TCP(me, resolver, packettest.Segment{SrcPort: 4000, DstPort: 53, Flags: packet.TCPSyn}, nil), ok, ok},
		{"for names, tagged", packettest.Tagged(packettest.UDP(me, resolver, 4000, 53, nil), 5), ok, ok},
		{"for names, with another's address", packettest.UDP(at(me, other.IP), resolver, 4000, 53, nil), packet.SpoofedAddress, ok},
		{"for names, from there", packettest.UDP(at(me, resolver.IP), resolver, 4000, 53, nil), packet.LoopbackAddress, packet.LoopbackAddress},
		{"for names, from loopback", packettest.UDP(at(me, lo4), resolver, 4000, 53, nil), packet.LoopbackAddress, packet.LoopbackAddress},
		{"for names, of another", packettest.UDP(me, at(other, resolver.IP), 4000, 53, nil), packet.LoopbackAddress, packet.LoopbackAddress},
		{"for names, of all", packettest.UDP(me, at(packettest.Broadcast, resolver.IP), 4000, 53, nil), packet.LoopbackAddress, packet.LoopbackAddress},
		{"for names, beside", packettest.UDP(me, at(gateway, netip.MustParseAddr("127.0.0.12")), 4000, 53, nil), packet.LoopbackAddress, packet.LoopbackAddress},
		{"for names, another port", packettest.UDP(me, resolver, 53, 54, nil), packet.LoopbackAddress, packet.LoopbackAddress},
		{"for names, in a fragment", firstFragment(packettest.UDP(me, resolver, 4000, 53, nil)), packet.LoopbackAddress, packet.LoopbackAddress},
		{"from the nameserver", packettest.UDP(at(me, resolver.IP), other, 53, 4000, nil), packet.LoopbackAddress, packet.LoopbackAddress},
		{"ping the nameserver", packettest.ICMPEcho(me, resolver, 1, 1, nil), packet.LoopbackAddress, packet.LoopbackAddress},
		{"beside loopback", udp(at(me, netip.MustParseAddr("126.255.255.255")), other), packet.SpoofedAddress, ok},
		{"DHCP discover", udp(at(me, nobody4), packettest.Broadcast), ok, ok},
		{"nobody to one", udp(at(me, nobody4), other), packet.SpoofedAddress, ok},
		{"nobody to a group", udp(at(me, nobody4), group4), packet.SpoofedAddress, ok},
		{"own to a group", udp(me, group4), ok, ok},
		{"broadcast address", udp(at(me, packettest.Broadcast.IP), other), packet.SpoofedAddress, ok},
		{"DHCP server", packettest.UDP(me, other, 67, 68, nil), packet.RogueDHCP, ok},
		{"DHCP server, to all", packettest.UDP(me, packettest.Broadcast, 67, 68, nil), packet.RogueDHCP, ok},
		{"DHCP server without an address", packettest.UDP(at(me, nobody4), packettest.Broadcast, 67, 68, nil), packet.RogueDHCP, ok},
		{"DHCP server, tagged", packettest.Tagged(packettest.UDP(me, other, 67, 68, nil), 5), packet.RogueDHCP, ok},
		{"DHCP server as the gateway", packettest.UDP(at(me, gateway.IP), other, 67, 68, nil), packet.SpoofedGateway, packet.SpoofedGateway},
		{"DHCP server from another port", packettest.UDP(me, other, 1234, 68, nil), packet.RogueDHCP, ok},
		{"DHCP server from another port, to all", packettest.UDP(me, packettest.Broadcast, 1234, 68, nil), packet.RogueDHCP, ok},
		{"DHCP server from another port, without an address", packettest.UDP(at(me, nobody4), packettest.Broadcast, 68, 68, nil), packet.RogueDHCP, ok},
		{"DHCP server in a fragment", firstFragment(packettest.UDP(me, other, 1234, 68, make([]byte, 16))), packet.RogueDHCP, ok},
		{"DHCP client", packettest.UDP(at(me, nobody4), packettest.Broadcast, 68, 67, nil), ok, ok},
		{"DHCP client renews", packettest.UDP(me, gateway, 68, 67, nil), ok, ok},
		{"to port 68 by TCP", packettest.TCP(me, other, packettest.Segment{SrcPort: 67, DstPort: 68, Flags: packet.TCPSyn}, nil), ok, ok},
		{"DHCP relay", packettest.UDP(me, other, 67, 67, nil), ok, ok},
		{"tagged", packettest.Tagged(udp(at(me, gateway.IP), other), 5), packet.SpoofedGateway, packet.SpoofedGateway},
		{"tagged twice", packettest.Tagged(udp(at(me, other.IP), other), 5, 6), packet.SpoofedAddress, ok},

		// IPv6.
		{"own IPv6", udp(at(me, global6), other.IPv6()), ok, ok},
		{"another's IPv6", udp(at(me, stranger6), other.IPv6()), packet.SpoofedAddress, ok},
		{"own link-local", udp(me.IPv6(), other.IPv6()), ok, ok},
		{"another link-local", udp(at(me, netip.MustParseAddr("fe80::1234")), other.IPv6()), ok, ok},
		{"end of link-local", udp(at(me, netip.MustParseAddr("febf::1")), other.IPv6()), ok, ok},
		{"beside link-local", udp(at(me, netip.MustParseAddr("fec0::1")), other.IPv6()), packet.SpoofedAddress, ok},
		{"gateway's link-local", udp(at(me, gateway.MAC.LinkLocal()), other.IPv6()), packet.SpoofedGateway, packet.SpoofedGateway},
		{"from ::1", udp(at(me, lo6), other.IPv6()), packet.LoopbackAddress, packet.LoopbackAddress},
		{"to ::1", udp(me.IPv6(), at(other, lo6)), packet.LoopbackAddress, packet.LoopbackAddress},
		{"duplicate address detection", packettest.IP(at(me, nobody6), group6, packet.ProtoICMPv6,
			append([]byte{packet.ICMPv6NeighborSolicit, 0, 0, 0}, make([]byte, 20)...)), packet.SpoofedNeighbour, ok},
		{"duplicate address detection of one's own", asks(me.MAC.LinkLocal()), ok, ok},
		{"duplicate address detection of a link-local made up", asks(netip.MustParseAddr("fe80::1234")), ok, ok},
		{"duplicate address detection of another's", asks(other.MAC.LinkLocal()), packet.SpoofedNeighbour, ok},
		{"duplicate address detection of the gateway's", asks(gateway.MAC.LinkLocal()), packet.SpoofedGateway, packet.SpoofedGateway},
		{":: to one", udp(at(me, nobody6), other.IPv6()), packet.SpoofedAddress, ok},
		{"own address, mapped", udp(at(me, mapped(me.IP)), other.IPv6()), packet.SpoofedAddress, packet.SpoofedAddress},
		{"gateway's address, mapped", udp(at(me, mapped(gateway.IP)), other.IPv6()), packet.SpoofedAddress, packet.SpoofedAddress},
		{"to loopback, mapped", udp(me.IPv6(), at(other, mapped(lo4))), packet.SpoofedAddress, packet.SpoofedAddress},
		{"DHCPv6 server", packettest.UDP(me.IPv6(), other.IPv6(), 547, 546, nil), packet.RogueDHCP, ok},
		{"DHCPv6 server from another port", packettest.UDP(at(me, global6), other.IPv6(), 1234, 546, nil), packet.RogueDHCP, ok},
		{"DHCPv6 server, nobody's address", packettest.UDP(at(me, nobody6), group6, 1234, 546, nil), packet.RogueDHCP, ok},
		{"DHCPv6 client", packettest.UDP(me.IPv6(), group6, 546, 547, nil), ok, ok},
		{"DHCPv6 port by IPv4", packettest.UDP(me, other, 547, 546, nil), ok, ok},

		// Neighbour discovery.
		{"solicitation", advert(solicit, other.MAC.LinkLocal(), me.MAC), ok, ok},
		{"solicitation without a MAC", advert(solicit, other.MAC.LinkLocal()), ok, ok},
		{"solicitation with another's MAC", advert(solicit, other.MAC.LinkLocal(), other.MAC), packet.SpoofedNeighbour, ok},
		{"solicitation with the gateway's MAC", advert(solicit, other.MAC.LinkLocal(), gateway.MAC), packet.SpoofedGateway, packet.SpoofedGateway},
		{"solicitation of the gateway", advert(solicit, gateway.MAC.LinkLocal(), me.MAC), ok, ok},
		{"router solicitation", advert(packet.ICMPv6RouterSolicit, nobody6, me.MAC), ok, ok},
		{"router solicitation with another's MAC", advert(packet.ICMPv6RouterSolicit, nobody6, other.MAC), packet.SpoofedNeighbour, ok},
		{"router advertisement", advert(routerAdvert, nobody6, me.MAC), packet.RogueRouter, ok},
		{"router advertisement without a MAC", advert(routerAdvert, nobody6), packet.RogueRouter, ok},
		{"router advertisement with another's MAC", advert(routerAdvert, nobody6, other.MAC), packet.RogueRouter, ok},
		{"router advertisement with the gateway's MAC", advert(routerAdvert, nobody6, gateway.MAC), packet.RogueRouter, packet.SpoofedGateway},
		{"router advertisement from the gateway's address", packettest.Discovery(at(me, gateway.MAC.LinkLocal()), group6, routerAdvert, nobody6), packet.SpoofedGateway, packet.SpoofedGateway},
		{"router advertisement to all", packettest.Discovery(me.IPv6(), group6, routerAdvert, nobody6, me.MAC), packet.RogueRouter, ok},
		{"router advertisement, tagged for no VLAN", packettest.Tagged(advert(routerAdvert, nobody6), 0), packet.RogueRouter, ok},
		{"router advertisement, tagged for no VLAN twice", packettest.Tagged(advert(routerAdvert, nobody6), 0, 0), packet.RogueRouter, ok},
		{"router advertisement behind an option", behindOptions(advert(routerAdvert, nobody6)), packet.RogueRouter, ok},
		{"router advertisement behind two", behindOptions(behindOptions(advert(routerAdvert, nobody6))), packet.RogueRouter, ok},
		{"router advertisement in a fragment", inFragment(advert(routerAdvert, nobody6)), packet.RogueRouter, ok},
		{"router advertisement behind an option in a fragment", inFragment(behindOptions(advert(routerAdvert, nobody6))), packet.RogueRouter, ok},
		{"router advertisement behind an empty fragment header", inFragmentOf(0, advert(routerAdvert, nobody6)), packet.RogueRouter, ok},
		{"router advertisement that ends early", packettest.IP(me.IPv6(), other.IPv6(), packet.ProtoICMPv6, []byte{routerAdvert, 0, 0, 0, 0, 0, 0, 0}), packet.RogueRouter, ok},
		{"advertisement", advert(announce, me.MAC.LinkLocal(), me.MAC), ok, ok},
		{"advertisement without a MAC", advert(announce, me.MAC.LinkLocal()), ok, ok},
		{"advertisement of own address", advert(announce, global6, me.MAC), ok, ok},
		{"advertisement of a link-local made up", advert(announce, netip.MustParseAddr("fe80::1234"), me.MAC), ok, ok},
		{"advertisement of another's link-local", advert(announce, other.MAC.LinkLocal(), me.MAC), packet.SpoofedNeighbour, ok},
		{"advertisement of another's link-local without a MAC", advert(announce, other.MAC.LinkLocal()), packet.SpoofedNeighbour, ok},
		{"advertisement of another's address", advert(announce, stranger6, me.MAC), packet.SpoofedNeighbour, ok},
		{"advertisement of another's MAC", advert(announce, me.MAC.LinkLocal(), other.MAC), packet.SpoofedNeighbour, ok},
		{"advertisement of another's MAC behind its own", advert(announce, me.MAC.LinkLocal(), me.MAC, other.MAC), packet.SpoofedNeighbour, ok},
		{"advertisement of the gateway's link-local", advert(announce, gateway.MAC.LinkLocal(), me.MAC), packet.SpoofedGateway, packet.SpoofedGateway},
		{"advertisement of the gateway's MAC", advert(announce, me.MAC.LinkLocal(), gateway.MAC), packet.SpoofedGateway, packet.SpoofedGateway},
		{"advertisement, tagged", packettest.Tagged(advert(announce, other.MAC.LinkLocal(), me.MAC), 5), packet.SpoofedNeighbour, ok},
		{"advertisement behind an option", behindOptions(advert(announce, other.MAC.LinkLocal(), me.MAC)), packet.SpoofedNeighbour, ok},
		{"advertisement in a fragment", inFragment(advert(announce, me.MAC.LinkLocal(), me.MAC)), packet.SpoofedNeighbour, ok},
		{"advertisement that ends early", packettest.IP(me.IPv6(), other.IPv6(), packet.ProtoICMPv6, make136(16)), packet.SpoofedNeighbour, ok},
		{"advertisement with an option that is none", packettest.IP(me.IPv6(), other.IPv6(), packet.ProtoICMPv6, append(make136(24), 2, 0, 0, 0, 0, 0, 0, 0)), packet.SpoofedNeighbour, ok},
		{"advertisement with half an option", packettest.IP(me.IPv6(), other.IPv6(), packet.ProtoICMPv6, append(make136(24), 2)), packet.SpoofedNeighbour, ok},
		{"advertisement with a long MAC", packettest.IP(me.IPv6(), other.IPv6(), packet.ProtoICMPv6, append(append(make136(24), 2, 2), make([]byte, 14)...)), packet.SpoofedNeighbour, ok},
		{"redirect to another", advert(packet.ICMPv6Redirect, other.MAC.LinkLocal(), me.MAC), packet.RogueRouter, ok},
		{"redirect to oneself", advert(packet.ICMPv6Redirect, me.MAC.LinkLocal(), me.MAC), packet.RogueRouter, ok},
		{"redirect to the gateway", advert(packet.ICMPv6Redirect, gateway.MAC.LinkLocal()), packet.RogueRouter, packet.SpoofedGateway},
		{"redirect of IPv4", icmp4(packet.ICMPRedirect), packet.RogueRouter, ok},
		{"redirect of IPv4, tagged for no VLAN", packettest.Tagged(icmp4(packet.ICMPRedirect), 0), packet.RogueRouter, ok},
		{"redirect of IPv4 in a fragment", firstFragment(icmp4(packet.ICMPRedirect)), packet.RogueRouter, ok},
		{"router advertisement of IPv4", icmp4(packet.ICMPRouterAdvert), packet.RogueRouter, ok},
		{"router solicitation of IPv4", icmp4(10), ok, ok},

		// ARP.
		{"who has", arp(me.MAC, me, other.IP), ok, ok},
		{"who has the gateway", arp(me.MAC, me, gateway.IP), ok, ok},
		{"is at", packettest.ARPReply(me, gateway), ok, ok},
		{"gratuitous", arp(me.MAC, me, me.IP), ok, ok},
		{"probe", arp(me.MAC, at(me, nobody4), me.IP), ok, ok},
		{"probe of the gateway's", arp(me.MAC, at(me, nobody4), gateway.IP), ok, ok},
		{"claim of another's address", arp(me.MAC, at(me, other.IP), gateway.IP), packet.SpoofedAddress, ok},
		{"claim of the gateway's address", arp(me.MAC, at(me, gateway.IP), other.IP), packet.SpoofedGateway, packet.SpoofedGateway},
		{"reply with the gateway's address", packettest.ARPReply(at(me, gateway.IP), other), packet.SpoofedGateway, packet.SpoofedGateway},
		{"claim of another's MAC", arp(me.MAC, behind(me, other.MAC), other.IP), packet.SpoofedMAC, ok},
		{"claim of the gateway's MAC", arp(me.MAC, behind(me, gateway.MAC), other.IP), packet.SpoofedGateway, packet.SpoofedGateway},
		{"probe with the gateway's MAC", arp(me.MAC, at(gateway, nobody4), me.IP), packet.SpoofedGateway, packet.SpoofedGateway},
		{"claim of no MAC", arp(me.MAC, behind(me, packet.MAC{}), other.IP), packet.SpoofedMAC, ok},
		{"from another's MAC", arp(other.MAC, me, gateway.IP), packet.SpoofedMAC, ok},
		{"from loopback in ARP", arp(me.MAC, at(me, lo4), other.IP), packet.LoopbackAddress, packet.LoopbackAddress},
		{"for loopback in ARP", arp(me.MAC, me, lo4), packet.LoopbackAddress, packet.LoopbackAddress},
		{"tagged claim", packettest.Tagged(arp(me.MAC, at(me, gateway.IP), other.IP), 1), packet.SpoofedGateway, packet.SpoofedGateway},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := parsed(t, c.frame)
			before := bytes.Clone(f.B)
			if got := newGuard(true).Check(f); got != c.strict {
				t.Errorf("with the guard on: %v, want %v", got, c.strict)
			}
			if got := newGuard(false).Check(f); got != c.loose {
				t.Errorf("with the guard off: %v, want %v", got, c.loose)
			}
			if !bytes.Equal(f.B, before) {
				t.Error("the frame was changed")
			}
		})
	}
}

// TestZeroGuard: without a gateway and without strictness only what nobody may
// do is refused, and no zero field of the guard is taken for an address.
func TestZeroGuard(t *testing.T) {
	var g Guard
	for _, c := range []struct {
		name  string
		frame []byte
		want  packet.Reason
	}{
		{"anybody", udp(me, other), packet.OK},
		{"gateway's", udp(gateway, other), packet.OK},
		{"nobody", udp(at(me, nobody4), other), packet.OK},
		{"nobody, IPv6", udp(at(me, nobody6), other.IPv6()), packet.OK},
		{"ARP of no MAC", arp(me.MAC, behind(me, packet.MAC{}), other.IP), packet.OK},
		{"no MAC", udp(behind(me, packet.MAC{}), other), packet.BadSourceMAC},
		{"loopback", udp(at(me, netip.MustParseAddr("127.0.0.1")), other), packet.LoopbackAddress},
	} {
		if got := g.Check(parsed(t, c.frame)); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestGuardRandom holds what must be true of every frame that passes.
func TestGuardRandom(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	strict := newGuard(true)
	passed := 0
	for range 20_000 {
		f := &packet.Frame{B: packettest.Good(rng, me, other, gateway)}
		if packet.Parse(f) != packet.OK || strict.Check(f) != packet.OK {
			continue
		}
		passed++
		if src := packet.Ethernet(f.Ether()).Src(); src != me.MAC {
			t.Fatalf("source MAC %v passed\n% x", src, f.B)
		}
		tuple := f.Tuple()
		if f.EtherType == packet.EtherTypeARP {
			tuple.Src = packet.AddrFrom4(packet.ARP(f.Ether()[f.L3:]).SenderIP())
		}
		if tuple.Src.Is4() && tuple.Src.Netip() != me.IP {
			t.Fatalf("source address %v passed\n% x", tuple.Src, f.B)
		}
		if newGuard(false).Check(f) != packet.OK {
			t.Fatalf("a guard that is off is stricter than one that is on\n% x", f.B)
		}
	}
	if passed < 1000 {
		t.Errorf("only %d frames passed", passed)
	}
}

// FuzzGuard: whatever Parse lets through can be judged, and the guard that is
// on lets nothing pass that the one that is off refuses.
func FuzzGuard(f *testing.F) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		f.Add(packettest.Good(rng, me, other, gateway))
	}
	f.Add(packettest.UDP(me, packettest.Broadcast, 1234, 68, nil))
	f.Add(packettest.UDP(me.IPv6(), other.IPv6(), 1234, 546, nil))
	for kind := uint8(packet.ICMPv6RouterSolicit); kind <= packet.ICMPv6Redirect; kind++ {
		f.Add(advert(kind, me.MAC.LinkLocal(), me.MAC))
		f.Add(advert(kind, other.MAC.LinkLocal(), me.MAC))
		f.Add(inFragment(behindOptions(advert(kind, me.MAC.LinkLocal(), other.MAC))))
	}
	on, off, lan := newGuard(true), newGuard(false), newGuard(false)
	lan.Others = new(Bound)
	lan.Others.Set([]*Guard{on})
	f.Fuzz(func(t *testing.T, b []byte) {
		frame := &packet.Frame{B: b}
		if packet.Parse(frame) != packet.OK {
			return
		}
		if lan.Check(frame) == packet.OK {
			for _, a := range append(announced(frame), packet.Ethernet(frame.Ether()).Src().LinkLocal()) {
				if a == me.MAC.LinkLocal() || a == me.IP || a == global6 {
					t.Errorf("a LAN passes for %v", a)
				}
			}
		}
		if on.Check(frame) != packet.OK {
			return
		}
		if off.Check(frame) != packet.OK {
			t.Errorf("%v with the guard off, fine with it on", off.Check(frame))
		}
		if frame.Proto == packet.ProtoUDP && frame.L4 != 0 {
			to := packet.UDP(frame.Ether()[frame.L4:]).DstPort()
			if frame.EtherType == packet.EtherTypeIPv4 && to == 68 || frame.EtherType == packet.EtherTypeIPv6 && to == 546 {
				t.Errorf("a datagram to port %d passed: a DHCP client takes it", to)
			}
		}
		if frame.L4 != 0 && (frame.Proto == packet.ProtoICMPv6 && (frame.Transport()[0] == 134 || frame.Transport()[0] == 137) ||
			frame.Proto == packet.ProtoICMP && (frame.Transport()[0] == 5 || frame.Transport()[0] == 9)) {
			t.Error("what only a router says passed")
		}
		for _, a := range announced(frame) {
			if a != me.MAC.LinkLocal() && a != me.IP && a != global6 {
				t.Errorf("it is announced that me is %v", a)
			}
		}
	})
}

// announced are the addresses whose neighbours' entries a frame of me's changes, by
// the plain reading of RFC 826 and RFC 4861, and link-local addresses of the MACs
// it names. Link-local addresses that are formed of no MAC are anybody's, and those
// that are stand for the MAC's, whatever lies between fe80::/10 and the interface's part.
func announced(f *packet.Frame) (list []netip.Addr) {
	if f.EtherType == packet.EtherTypeARP {
		b := f.Ether()[f.L3:]
		sender := netip.AddrFrom4([4]byte(b[14:18]))
		list = append(list, packet.MAC(b[8:14]).LinkLocal())
		if !sender.IsUnspecified() {
			list = append(list, sender)
		}
		return list
	}
	if f.EtherType != packet.EtherTypeIPv6 || f.Proto != packet.ProtoICMPv6 || f.L4 == 0 {
		return nil
	}
	b, options := f.Transport(), map[byte]int{133: 8, 134: 16, 135: 24, 136: 24, 137: 40}[f.Transport()[0]]
	if options == 0 {
		return nil
	}
	if b[0] >= 136 {
		a := netip.AddrFrom16([16]byte(b[8:24]))
		if mac, formed := packet.AddrFromNetip(a).FormedFrom(); !a.IsLinkLocalUnicast() {
			list = append(list, a)
		} else if formed {
			list = append(list, mac.LinkLocal())
		}
	}
	for b = b[options:]; len(b) > 0; b = b[8*int(b[1]):] {
		if b[0] == 1 || b[0] == 2 {
			list = append(list, packet.MAC(b[2:8]).LinkLocal())
		}
	}
	return list
}

// A port with a LAN behind it may use what no port of the network is held to.
func TestGuardOfLAN(t *testing.T) {
	station7, station9 := at(station("10.0.0.7"), other.IP), station("10.0.0.9")
	g := newGuard(false)
	g.Others = new(Bound)
	g.Others.Set([]*Guard{newGuard(true), {MAC: station9.MAC, Addrs: []packet.Addr{packet.AddrFromNetip(station9.IP)}}})
	mine := func(b []byte) []byte { // from a station of the LAN
		packet.Ethernet(b[packet.VNetLen:]).SetSrc(station7.MAC)
		return b
	}
	lies := packettest.Station{MAC: station7.MAC, IP: station7.MAC.LinkLocal()}
	says := func(kind uint8, target netip.Addr, mac packet.MAC) []byte {
		return packettest.Discovery(lies, other.IPv6(), kind, target, mac)
	}
	for _, c := range []struct {
		name  string
		frame []byte
		want  packet.Reason
	}{
		{"station of the LAN", udp(station7, me), packet.OK},
		{"station of another LAN", udp(at(station7, netip.MustParseAddr("192.0.2.1")), me), packet.OK},
		{"who is not held to anything", udp(station9, me), packet.OK},
		{"nobody", udp(at(station7, nobody4), packettest.Broadcast), packet.OK},
		{"DHCP server", packettest.UDP(station7, me, 67, 68, nil), packet.OK},
		{"who has", arp(station7.MAC, station7, me.IP), packet.OK},
		{"container's MAC", udp(behind(station7, me.MAC), other), packet.SpoofedMAC},
		{"container's MAC, no IP", packettest.Ethernet(me.MAC, other.MAC, 0x88b5, make([]byte, 46)), packet.SpoofedMAC},
		{"container's address", udp(at(station7, me.IP), other), packet.SpoofedAddress},
		{"container's IPv6", udp(at(station7, global6), other.IPv6()), packet.SpoofedAddress},
		{"container's link-local", udp(at(station7, me.MAC.LinkLocal()), other.IPv6()), packet.SpoofedAddress},
		{"claim of the container's address", arp(station7.MAC, at(station7, me.IP), other.IP), packet.SpoofedAddress},
		{"claim of the container's MAC", mine(arp(station7.MAC, me, other.IP)), packet.SpoofedMAC},
		{"advertisement", says(announce, lies.IP, station7.MAC), packet.OK},
		{"advertisement of another router", says(announce, stranger6, station9.MAC), packet.OK},
		{"advertisement of the container's link-local", says(announce, me.MAC.LinkLocal(), station7.MAC), packet.SpoofedNeighbour},
		{"advertisement of the container's address", says(announce, global6, station7.MAC), packet.SpoofedNeighbour},
		{"advertisement of the container's MAC", says(announce, lies.IP, me.MAC), packet.SpoofedNeighbour},
		{"advertisement in a fragment", mine(inFragment(advert(announce, lies.IP, station7.MAC))), packet.SpoofedAddress},
		{"router advertisement", says(routerAdvert, nobody6, station7.MAC), packet.OK},
		{"router advertisement with a container's MAC", says(routerAdvert, nobody6, me.MAC), packet.SpoofedNeighbour},
		{"redirect to another router", says(packet.ICMPv6Redirect, stranger6, station7.MAC), packet.OK},
		{"redirect to a container", says(packet.ICMPv6Redirect, me.MAC.LinkLocal(), station7.MAC), packet.SpoofedNeighbour},
		{"gateway's address", udp(at(station7, gateway.IP), other), packet.SpoofedGateway},
	} {
		if got := g.Check(parsed(t, c.frame)); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	g.Others.Set(nil)
	if got := g.Check(parsed(t, udp(me, other))); got != packet.OK {
		t.Errorf("when it has gone: %v", got)
	}
}

func TestGuardAllocatesNothing(t *testing.T) {
	g := newGuard(true)
	frames := []*packet.Frame{
		parsed(t, udp(me, other)), parsed(t, udp(me.IPv6(), other.IPv6())), parsed(t, arp(me.MAC, me, other.IP)),
		parsed(t, udp(at(me, other.IP), other)), parsed(t, advert(announce, me.MAC.LinkLocal(), me.MAC)),
	}
	lan := newGuard(false)
	lan.Others = new(Bound)
	lan.Others.Set([]*Guard{g})
	if n := testing.AllocsPerRun(100, func() {
		for _, f := range frames {
			_ = g.Check(f)
			_ = lan.Check(f)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkGuard(b *testing.B) {
	g, f := newGuard(true), parsed(b, udp(me, other))
	b.ReportAllocs()
	for b.Loop() {
		_ = g.Check(f)
	}
}

// A port whose frames the node makes itself is trusted.
func TestGuardTrusted(t *testing.T) {
	g := newGuard(true)
	g.Trusted = true
	client := at(other, netip.MustParseAddr("127.0.0.1"))
	if r := g.Check(parsed(t, udp(client, me))); r != packet.OK {
		t.Error(r)
	}
}
