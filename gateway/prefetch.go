package gateway

import (
	"fairlead/nat"
	"fairlead/packet"
)

// Prefetch has the flows of a batch brought from memory, where there are so many
// that they do not stay in the processor's caches. See vswitch.Gateway and
// docs/decisions/nat-prefetch.md.
func (g *Gateway) Prefetch(frames []packet.Frame) {
	if g.router.prefetches(frames) {
		g.router.prefetch(g.network, g.mac, frames)
	}
}

// Prefetch does so for frames from the uplink.
func (in *Inbound) Prefetch(frames []packet.Frame) {
	if up := in.r.plugs.Load().uplink(in.network); up != nil && in.r.prefetches(frames) {
		in.r.prefetch(in.network, up.MAC(), frames)
	}
}

// prefetches reports whether it pays: a single frame waits as long either way.
func (r *Router) prefetches(frames []packet.Frame) bool {
	return len(frames) > 1 && r.flows.Prefetches()
}

// prefetch brings the flows of those frames that are for us: mac is our address on
// network n. Which of them the path finds, and as what, it decides for itself.
func (r *Router) prefetch(n packet.NetworkID, mac packet.MAC, frames []packet.Frame) {
	var p nat.Prefetch
	for i := range frames {
		f := &frames[i]
		if packet.Parse(f) == packet.OK && f.EtherType == packet.EtherTypeIPv4 && packet.Ethernet(f.Ether()).Dst() == mac {
			k := f.Tuple()
			r.flows.Expect(&p, n, &k)
		}
	}
	r.flows.Prefetch(&p)
}
