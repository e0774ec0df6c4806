package gateway

import (
	"maps"
	"slices"

	"fairlead/packet"
	"fairlead/policy"
)

// Step 5.3: where containers may open connections to. A connection that has begun
// goes on, whatever the policies say later; so one is asked once for each.

// SetEgress sets the policy of the network. Without one, which is nil, everything
// may leave.
func (g *Gateway) SetEgress(e *policy.Egress) { g.egress.Store(e) }

// SetEgress sets a container's own policy, which is asked before that of its
// network. It is forgotten when the container's flows are flushed.
func (r *Router) SetEgress(c packet.ContainerID, e *policy.Egress) {
	if e == nil && r.ownEgress(c) == nil {
		return // as of most, and the snapshot stays
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	fresh := make(map[packet.ContainerID]*policy.Egress)
	if old := r.egress.Load(); old != nil {
		maps.Copy(fresh, *old)
	}
	if e != nil {
		fresh[c] = e
	} else {
		delete(fresh, c)
	}
	r.egress.Store(&fresh)
}

// ownEgress is a container's own policy, nil if it has none.
func (r *Router) ownEgress(c packet.ContainerID) *policy.Egress {
	if own := r.egress.Load(); own != nil {
		return (*own)[c]
	}
	return nil
}

// mayLeave asks the policies about a packet that begins a connection, and notes
// which rules have decided. The policies are asked about where the container
// believes to send; names it may always ask for.
func (g *Gateway) mayLeave(f *packet.Frame, k *packet.Tuple, d *packet.Decision) bool {
	own, all := g.router.ownEgress(f.Container), g.egress.Load()
	if own == nil && all == nil || g.asksForNames(k) {
		return true
	}
	n, _ := g.owner(k.Dst)
	host, ok := n != 0 && n != g.network, false
	g.router.names.Lock()
	defer g.router.names.Unlock()
	if d.EgressOwn, ok = ask(own, host, k, f.Time); ok {
		d.EgressRule, ok = ask(all, host, k, f.Time)
	}
	return ok
}

// ask asks a policy, if there is one. host says that the destination is the host.
func ask(e *policy.Egress, host bool, k *packet.Tuple, now int64) (uint16, bool) {
	if e == nil {
		return 0, true
	}
	check := (*policy.Egress).Check
	if host {
		check = (*policy.Egress).CheckOwn
	}
	rule, ok := check(e, k.Dst, k.DstPort, k.Proto, now)
	return uint16(rule), ok
}

func (g *Gateway) asksForNames(k *packet.Tuple) bool {
	own := k.Dst == packet.AddrFrom4(g.addr) || k.Dst == packet.AddrFrom4(nameserver)
	return own && k.DstPort == dnsPort && (k.Proto == packet.ProtoUDP || k.Proto == packet.ProtoTCP)
}

// countEgress counts a decision under the rules that made it: a connection that
// has begun, or a packet that was refused.
func (g *Gateway) countEgress(f *packet.Frame, d *packet.Decision) {
	if !d.Routed && d.Reason != packet.EgressDenied {
		return
	}
	if e := g.router.ownEgress(f.Container); e != nil && (d.Routed || d.EgressRule == 0) {
		e.Count(int(d.EgressOwn))
	}
	if e := g.egress.Load(); e != nil {
		e.Count(int(d.EgressRule))
	}
}

// policies are those that a container of the network is subject to.
func (g *Gateway) policies(c packet.ContainerID) (list []*policy.Egress) {
	for _, e := range []*policy.Egress{g.router.ownEgress(c), g.egress.Load()} {
		if e != nil {
			list = append(list, e)
		}
	}
	return list
}

// Closed reports whether a policy lets a container open no connection at all.
func (g *Gateway) Closed(c packet.ContainerID) bool {
	return slices.ContainsFunc(g.policies(c), (*policy.Egress).Closed)
}

// WantsName reports whether a policy of a container's has a rule for a name, and
// LearnName tells those that have that a container is about to hear it stands for
// an address, and until when.
func (g *Gateway) WantsName(c packet.ContainerID, name string) bool {
	return slices.ContainsFunc(g.policies(c), func(e *policy.Egress) bool { return e.Wants(name) })
}

func (g *Gateway) LearnName(c packet.ContainerID, name string, a packet.Addr, until int64) {
	g.router.names.Lock()
	defer g.router.names.Unlock()
	for _, e := range g.policies(c) {
		e.Learn(name, a, until)
	}
}
