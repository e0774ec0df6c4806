package gateway

import (
	"fairlead/nat"
	"fairlead/packet"
)

// A network may have a link to the host (docs/hostlink.md). The host is a station
// of the segment then, with the gateway's MAC and address: frames between it and
// containers cross the switch as between two containers, and what is sent to that
// address is sorted here. The gateway keeps ARP, ping, its services and the
// published ports; the rest is the host's.
//
// The host's connections are flows, not because anything in them is translated but
// so that they are told from what the gateway's address stands for as well: clients
// of published ports that containers see by it. And a container may answer the
// host whatever its egress policy says of connections of its own.

// SetHost says which port the host's own link has, until that is flushed.
func (g *Gateway) SetHost(port packet.PortID) { g.host.Store(uint32(port)) }

func (g *Gateway) isHost(port packet.PortID) bool {
	return port != 0 && packet.PortID(g.host.Load()) == port
}

// routeHost decides on a frame from the host, of which the switch knows where it
// goes: it has the answers to it find back. The host is asked and told nothing by
// the gateway; it has its own ARP, and its packets have their destinations' MACs.
func (g *Gateway) routeHost(f *packet.Frame, d *packet.Decision) {
	if f.EtherType != packet.EtherTypeIPv4 || f.Flags.Has(packet.Multicast) || f.Flags.Has(packet.LaterFragment) {
		return
	}
	r, k := g.router, f.Tuple()
	if k.Dst == packet.AddrFrom4(g.addr) || r.find(f, k, d) || isOtherICMP(f) || !begins(f, k) {
		return
	}
	r.mu.Lock()
	plan, reason := r.planLocked(f, k)
	r.mu.Unlock()
	if reason == packet.OK && d.Verdict == packet.Flood && plan.Before != plan.After {
		reason = packet.PortsExhausted // the copies go as they are
	}
	if reason == packet.OK {
		d.NAT = plan.Translation
		return
	}
	d.Refuse(reason)
	// An ICMP error would come from the host's own address, which its kernel does
	// not believe.
	if f.Proto == packet.ProtoTCP && r.mayAnswer(f, packet.OriginReset) {
		d.Originate = packet.OriginReset
	}
}

// applyHost carries out what routeHost decided.
func (g *Gateway) applyHost(f *packet.Frame, d *packet.Decision, out packet.Out) {
	r := g.router
	if d.NAT.New {
		if reason := r.commit(f, d, out); reason != packet.OK {
			d.RefuseCopy(reason) // of a flood the copies have gone
			return
		}
	}
	r.saw(f, d)
	d.NAT.Edit(f)
	if d.Originate != packet.OriginNone {
		r.answer(f, d, out)
	}
}

// planHostLocked plans the flow of a packet from the host: the container's it is
// for, if that is known.
func (g *Gateway) planHostLocked(f *packet.Frame, k packet.Tuple) (nat.Plan, packet.Reason) {
	var owner packet.ContainerID
	g.mu.Lock()
	if to, known := g.neighbours.Lookup(f.Time, [4]byte(k.Dst[12:])); known {
		owner = to.Container
	}
	g.mu.Unlock()
	return g.router.flows.PlanHost(g.network, owner, k)
}

// isPing reports whether a packet to the gateway's address is one the gateway
// answers. Of a fragment that may be the rest of an answer to a ping of the host's
// that is known when the first one is.
func (g *Gateway) isPing(f *packet.Frame) bool {
	if !isEcho(f) {
		return false
	}
	if g.host.Load() == 0 || !f.Flags.Has(packet.LaterFragment) {
		return true
	}
	k, complete := g.router.key(f)
	return complete && k.DstPort == 0
}

// isForHost reports whether a packet from a container is for the host: what goes
// to the gateway's address, and to nobody behind it.
func (g *Gateway) isForHost(t *packet.Translation) bool {
	to := t.After.Dst
	if t.Quoted {
		to = t.After.Src
	}
	return t.Out == g.network && to == packet.AddrFrom4(g.addr)
}

// toHost has a frame go to the host.
func (g *Gateway) toHost(f *packet.Frame, d *packet.Decision) {
	host := g.host.Load()
	switch {
	case host == 0: // its flow is older
		g.router.refuse(f, d, packet.Refused, answerTo(packet.Refused, f))
		return
	case f.Tags > 0:
		d.RefuseCopy(packet.NotUnderstood) // the host is in no VLAN
		return
	}
	d.Routed, d.ToHost, d.Egress = true, true, packet.Place{Network: g.network, Port: packet.PortID(host)}
	if d.Verdict != packet.Flood {
		d.Verdict, d.Reason = packet.Unicast, packet.ForHost
	}
}
