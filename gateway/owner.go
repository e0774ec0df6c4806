package gateway

import (
	"net/netip"

	"fairlead/packet"
)

// An owner is the router as its table of flows knows it.
type owner struct{ *Router }

func (o owner) Ended(uplink packet.NetworkID, number uint32) {
	if k := o.keepers[uplink]; k != nil {
		k.FlowEnded(number)
	}
}

// A Home is what of a container's routing table decides where its answers go.
type Home struct {
	Subnets []netip.Prefix   // of all networks it is attached to
	Default packet.NetworkID // where its default route leads, 0 is nowhere
}

// SetHome says what the routing table of a container is. Until then, and when it
// is flushed, it is that of a container with one network.
func (r *Router) SetHome(c packet.ContainerID, h Home) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.homes[c] = h
}

// Hide has a container see its gateway in the place of a client to whom its
// answer would go another way, or none.
func (o owner) Hide(n packet.NetworkID, c packet.ContainerID, client packet.Addr) (packet.Addr, packet.Hidden) {
	g := o.plugs.Load().gateway(n)
	if g == nil {
		return packet.Addr{}, packet.HiddenNot // nothing goes there anyway
	}
	h, ok := o.homes[c]
	if !ok {
		h = Home{Default: n}
	}
	return packet.AddrFrom4(g.addr), g.hides(h, client)
}

func (g *Gateway) hides(h Home, client packet.Addr) packet.Hidden {
	a := client.Netip()
	switch {
	case packet.IsStandIn(client):
		return packet.HiddenFamily
	case a.IsLoopback():
		return packet.HiddenLoopback
	case g.subnet.Contains(a):
		return packet.HiddenInSubnet
	}
	for _, subnet := range h.Subnets {
		if subnet.Contains(a) {
			return packet.HiddenInSubnet
		}
	}
	if g.internal.Load() || h.Default != g.network {
		return packet.HiddenNoDefaultRoute
	}
	return packet.HiddenNot
}

func (o owner) Owns(uplink packet.NetworkID, source packet.Addr) bool {
	up := o.plugs.Load().uplink(uplink)
	return up != nil && !isLoopback(source) && up.Owns(source)
}
