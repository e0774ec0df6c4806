package gateway

import (
	"encoding/binary"
	"net/netip"
	"sync"

	"fairlead/arp"
	"fairlead/packet"
	"fairlead/policy"
)

// ICMP errors are rate-limited for each port (RFC 1812 4.3.2.8): fast enough
// for traceroute and mtr, slow enough to be no amplifier.
const (
	errorsPerSecond = 100
	errorsBurst     = 50
)

// A Gateway is the router of one network.
type Gateway struct {
	mac       packet.MAC
	addr      [4]byte
	subnet    netip.Prefix
	broadcast [4]byte // of the subnet

	mu         sync.Mutex
	neighbours *arp.Table
	errors     map[packet.PortID]*policy.Rate
}

// New returns the gateway that owns address addr (IPv4, with the subnet's
// length) and mac on its network.
func New(mac packet.MAC, addr netip.Prefix) *Gateway {
	return &Gateway{
		mac:        mac,
		addr:       addr.Addr().As4(),
		subnet:     addr.Masked(),
		broadcast:  Broadcast(addr).As4(),
		neighbours: arp.NewTable(),
		errors:     make(map[packet.PortID]*policy.Rate),
	}
}

// MAC is the gateway's address on the segment.
func (g *Gateway) MAC() packet.MAC { return g.mac }

// Route is the routing path. It is called for frames addressed to the
// gateway's MAC and for groups it hears; f is parsed and passed the guard. It
// fills d and changes nothing. A frame that is flooded already (a broadcast, or
// anything in hub mode) stays so, whatever the gateway makes of its copy.
func (g *Gateway) Route(f *packet.Frame, d *packet.Decision) {
	// 5.1 for me?
	if f.EtherType == packet.EtherTypeARP {
		g.routeARP(f, d)
		return
	}
	if packet.Ethernet(f.Ether()).Dst() != g.mac {
		return // a group: heard and not routed (RFC 1812 5.3.4)
	}
	if f.EtherType != packet.EtherTypeIPv4 {
		refuse(d, packet.NotUnderstood)
		return
	}
	ip := packet.IPv4(f.Ether()[f.L3:])
	if !g.routable(ip) {
		refuse(d, packet.NotUnderstood)
		return
	}
	if ip.Dst() == g.addr && isEcho(f) {
		take(d)
		d.Originate = packet.OriginEchoReply
		return
	}

	// 5.2 TTL  5.3 egress policy  5.4 NAT  5.5 MTU  5.6 next hop

	// 5.7 uplink
	refuse(d, packet.NoRoute)
	if g.mayAnswerWithError(f, ip) {
		d.Originate = packet.OriginNetUnreachable
	}
}

// refuse drops the frame at the gateway; copies for others go on.
func refuse(d *packet.Decision, r packet.Reason) {
	if d.Verdict != packet.Flood {
		d.Refuse(r)
	}
}

// take ends the frame at the gateway; copies for others go on.
func take(d *packet.Decision) {
	if d.Verdict != packet.Flood {
		d.Verdict, d.Reason = packet.Gateway, packet.ForGateway
	}
}

// routeARP answers requests for the gateway's address and hears what others
// say of theirs.
func (g *Gateway) routeARP(f *packet.Frame, d *packet.Decision) {
	a := packet.ARP(f.Ether()[f.L3:])
	forMe := a.TargetIP() == g.addr
	if a.Op() == packet.ARPRequest && forMe {
		d.Originate = packet.OriginARPReply
	}
	take(d)
	// RFC 826: merge what is known already, add only who talks to us. Nobody is
	// behind a group's MAC (RFC 1812 3.3.2).
	sender := a.SenderIP()
	if sender == ([4]byte{}) || a.SenderMAC().IsGroup() || !g.subnet.Contains(netip.AddrFrom4(sender)) {
		return
	}
	g.mu.Lock()
	known, ok := g.neighbours.Lookup(f.Time, sender)
	g.mu.Unlock()
	d.Neighbour = (forMe || ok) && !(known.MAC == a.SenderMAC() && known.Port == f.Port && f.Time-known.Seen < 1e9)
}

// routable reports whether a router may act upon the header: its checksum is
// right (RFC 1812 5.2.2), and the addresses are no martians, groups or
// broadcasts (RFC 1812 5.3.7).
func (g *Gateway) routable(ip packet.IPv4) bool {
	src, dst := ip.Src(), ip.Dst()
	return src != [4]byte{} && src[0] < 224 && src != g.broadcast &&
		dst[0] != 0 && dst[0] < 224 && dst != g.broadcast &&
		packet.Sum(ip[:ip.HeaderLen()], 0) == 0xffff
}

// isEcho reports whether the frame is part of a ping. A later fragment of ICMP
// counts: answering each fragment by itself answers the whole datagram.
func isEcho(f *packet.Frame) bool {
	if f.Proto != packet.ProtoICMP {
		return false
	}
	return f.Flags.Has(packet.LaterFragment) || f.L4 != 0 && packet.ICMP(f.Ether()[f.L4:]).Type() == packet.ICMPEcho
}

// mayAnswerWithError says whether an ICMP error may be sent about a packet:
// never about an error, a later fragment or a group's packet (RFC 1122 3.2.2),
// and not faster than the port's rate.
func (g *Gateway) mayAnswerWithError(f *packet.Frame, ip packet.IPv4) bool {
	if f.Flags.Has(packet.LaterFragment) || f.Flags.Has(packet.Multicast) {
		return false
	}
	if f.Proto == packet.ProtoICMP && f.L4 != 0 && packet.ICMP(f.Ether()[f.L4:]).IsError4() {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	rate := g.errors[f.Port]
	return rate == nil || rate.Allows(f.Time)
}

// Broadcast is the directed broadcast address of an IPv4 subnet.
func Broadcast(p netip.Prefix) netip.Addr {
	a := p.Addr().As4()
	host := uint32(1)<<(32-p.Bits()) - 1
	binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])|host)
	return netip.AddrFrom4(a)
}
