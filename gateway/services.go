package gateway

import (
	"fairlead/nat"
	"fairlead/packet"
)

// What a container reaches at its gateway's address is on the host's loopback:
// the node's own DNS over TCP, and with leave everything else. It is reached by
// host sockets, and by no other address: a packet to 127.0.0.0/8 is a martian.

// loopback is where services of the host are.
var loopback = packet.AddrFrom4([4]byte{127, 0, 0, 1})

// SetServices says at which port of the host's loopback the node answers DNS over
// TCP. 0 is nowhere.
func (r *Router) SetServices(dnsTCP uint16) { r.dnsTCP.Store(uint32(dnsTCP)) }

// SetHostLoopback says whether containers of the network reach the services of
// the host's loopback, at the gateway's address.
func (g *Gateway) SetHostLoopback(allowed bool) { g.hostLoopback.Store(allowed) }

// SetInternal says whether the network is internal: its containers have no
// default route.
func (g *Gateway) SetInternal(internal bool) { g.internal.Store(internal) }

// planAtGateway plans the flow of a packet to the gateway's address: our own
// service, a published port, or a service of the host, on its loopback or by a link
// of its own.
func (g *Gateway) planAtGateway(c packet.ContainerID, k packet.Tuple) (nat.Plan, packet.Reason) {
	r := g.router
	port := uint16(r.dnsTCP.Load())
	if k.Proto != packet.ProtoTCP || k.DstPort != dnsPort || port == 0 {
		plan, reason := r.flows.PlanHairpin(g.network, c, k, g.network, k.Dst)
		switch {
		case reason != packet.Refused:
			return plan, reason
		case g.hostLoopback.Load() && (k.Proto == packet.ProtoTCP || k.Proto == packet.ProtoUDP):
			port = k.DstPort
		case g.host.Load() != 0:
			return r.flows.PlanTrack(g.network, c, k, g.network)
		default:
			return plan, reason
		}
	}
	up := r.plugs.Load().sockets()
	if up == nil {
		return nat.Plan{}, packet.Refused
	}
	return r.flows.PlanRedirect(g.network, c, k, up.Network(), up.Addr(), loopback, port)
}
