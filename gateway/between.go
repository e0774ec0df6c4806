package gateway

import "fairlead/packet"

// Networks of one node do not reach one another, except by what their containers
// publish. Two that are both routed do, as they are.

// SetRouted says whether the network is one that others may be routed to and from.
// Both have to be.
func (g *Gateway) SetRouted(routed bool) { g.routed.Store(routed) }

// SetMasquerade says whether what leaves the network gets the uplink's address, as
// it does without a word. Else the network outside has to know a way back.
func (g *Gateway) SetMasquerade(masquerade bool) { g.untouched.Store(!masquerade) }

// networkOf is the network of containers an address belongs to, nil if it is none.
func (p *plugs) networkOf(a packet.Addr) *Gateway {
	if !a.Is4() {
		return nil
	}
	ip := a.Netip()
	for _, g := range p.gateways {
		if g != nil && g.subnet.Contains(ip) {
			return g
		}
	}
	return nil
}

// reaches reports whether an address is not on a network that is kept apart from
// this one. A gateway is nobody but its own network's, and no directed broadcast is
// passed on (RFC 2644).
func (g *Gateway) reaches(a packet.Addr) bool {
	other := g.router.plugs.Load().networkOf(a)
	if other == nil || other == g {
		return true
	}
	ip := [4]byte(a[12:])
	return g.routed.Load() && other.routed.Load() && ip != other.addr && !isBroadcast(other.subnet, ip)
}

// comesBack finds the flow of a packet to an address that is not the uplink's: an
// answer to what left as it was.
func (r *Router) comesBack(f *packet.Frame, d *packet.Decision) bool {
	k, complete := r.key(f)
	if !complete || !r.find(f, k, d) {
		return false
	}
	if d.NAT.Kind != packet.NATNone {
		d.NAT = packet.Translation{}
		return false
	}
	return true
}
