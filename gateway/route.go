package gateway

import (
	"fairlead/nat"
	"fairlead/packet"
)

// Route is the routing path. It is called for frames addressed to the
// gateway's MAC and for groups it hears; f is parsed and passed the guard. It
// fills d and changes nothing. A frame that is flooded already (a broadcast, or
// anything in hub mode) stays so, whatever the gateway makes of its copy.
func (g *Gateway) Route(f *packet.Frame, d *packet.Decision) {
	if g.isHost(f.Port) {
		g.routeHost(f, d)
		return
	}

	// 5.1 for me?
	if f.EtherType == packet.EtherTypeARP {
		g.routeARP(f, d)
		return
	}
	if packet.Ethernet(f.Ether()).Dst() != g.mac {
		g.routeBroadcast(f, d)
		return // a group: heard and not routed (RFC 1812 5.3.4)
	}
	if f.EtherType != packet.EtherTypeIPv4 {
		d.RefuseCopy(packet.NotUnderstood)
		return
	}
	ip := packet.IPv4(f.Ether()[f.L3:])
	forNames := g.asksNameserver(f, ip)
	if !routable(ip) && !forNames || ip.Src() == g.broadcast || ip.Dst() == g.broadcast {
		d.RefuseCopy(packet.Martian)
		return
	}
	if ip.Dst() == g.addr && g.isPing(f) {
		d.EndAtGateway()
		d.Originate = packet.OriginEchoReply
		return
	}
	if (ip.Dst() == g.addr || forNames) && g.routeQuestion(f, d) {
		return
	}

	// 5.2 TTL
	if ip.TTL() <= 1 && !g.owns(packet.AddrFrom4(ip.Dst())) {
		g.router.refuse(f, d, packet.TTLExceeded, packet.OriginTimeExceeded)
		return
	}

	// 5.3 egress policy, of what begins something  5.4 NAT
	if !g.translate(f, d) {
		return
	}
	if g.isForHost(&d.NAT) {
		g.toHost(f, d)
		return
	}
	if ip.TTL() <= 1 { // it was for us as it seemed, and is for a container
		g.router.refuse(f, d, packet.TTLExceeded, packet.OriginTimeExceeded)
		return
	}

	// 5.5 MTU  5.6 next hop  5.7 uplink
	g.router.pass(f, d)
}

// translate finds or plans the flow of a packet from a container: step 5.4. It
// returns false when d is decided.
func (g *Gateway) translate(f *packet.Frame, d *packet.Decision) bool {
	r := g.router
	k, complete := r.key(f)
	outside, _ := g.owner(k.Dst)
	if outside == 0 && g.subnet.Contains(k.Dst.Netip()) {
		// A station of this very network, which could have been asked directly.
		d.NAT = packet.Translation{In: f.Network, Out: f.Network, Before: k, After: k}
		return true
	}
	if complete && r.find(f, k, d) {
		return true
	}
	if outside == 0 && !g.reaches(k.Dst) {
		d.RefuseCopy(packet.OtherNetwork) // never answered: that one is not there for us
		return false
	}
	if complete && begins(f, k) && !g.mayLeave(f, &k, d) {
		r.refuse(f, d, packet.EgressDenied, packet.OriginProhibited)
		return false
	}
	if outside == 0 && r.plugs.Load().networkOf(k.Dst) == nil && g.lookup(k.Dst) == nil {
		r.refuse(f, d, packet.NoRoute, packet.OriginNetUnreachable)
		return false
	}
	return r.begin(f, k, complete, d)
}

// planLocked plans the flow of a packet from a container of the network.
func (g *Gateway) planLocked(c packet.ContainerID, k packet.Tuple) (nat.Plan, packet.Reason) {
	r := g.router
	switch n, addr := g.owner(k.Dst); {
	case n == g.network:
		return g.planAtGateway(c, k)
	case n != 0:
		plan, reason := r.flows.PlanHairpin(g.network, c, k, n, addr)
		if reason == packet.Refused && r.keepers[n] != nil {
			// The address is the host's as well, and so is what listens there.
			return r.flows.PlanOut(g.network, c, k, n, addr)
		}
		return plan, reason
	}
	if other := r.plugs.Load().networkOf(k.Dst); other != nil && other != g {
		return r.flows.PlanTrack(g.network, c, k, other.network)
	}
	if up := g.lookup(k.Dst); up != nil && g.untouched.Load() {
		return r.flows.PlanLeave(g.network, c, k, up.Network())
	} else if up != nil {
		return r.flows.PlanOut(g.network, c, k, up.Network(), up.Addr())
	}
	return nat.Plan{}, packet.NoRoute
}

// owns reports whether an address is the router's own, as containers of the
// network see it: the gateway's, also as their nameserver, or an uplink's.
func (g *Gateway) owns(a packet.Addr) bool {
	n, _ := g.owner(a)
	return n != 0
}

// owner returns the network an address of the router's own is on, and the
// address that stands for the router there; 0 when it is not ours.
func (g *Gateway) owner(a packet.Addr) (packet.NetworkID, packet.Addr) {
	if a == packet.AddrFrom4(g.addr) || a == packet.AddrFrom4(nameserver) {
		return g.network, a
	}
	for _, up := range *g.uplinks.Load() {
		if up.Owns(a) {
			return up.Network(), up.Addr()
		}
	}
	return 0, packet.Addr{}
}
