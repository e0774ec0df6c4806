package gateway

import (
	"slices"

	"fairlead/packet"
)

// An Inbound is the router as an uplink sees it: it takes the IPv4 packets that
// came in there.
type Inbound struct {
	r       *Router
	network packet.NetworkID
}

// Inbound returns the router's side towards the uplink with a network's number.
func (r *Router) Inbound(n packet.NetworkID) *Inbound { return &Inbound{r, n} }

// Route is the routing path for a packet from outside, addressed to the
// uplink's MAC. It fills d and changes nothing.
func (in *Inbound) Route(f *packet.Frame, d *packet.Decision) {
	// 5.1 for me?
	up := in.r.plugs.Load().uplink(in.network)
	if up == nil {
		d.RefuseCopy(packet.NotForUs) // it goes just now
		return
	}
	ip := packet.IPv4(f.Ether()[f.L3:])
	if !routable(ip) || up.Owns(packet.AddrFrom4(ip.Src())) || isBroadcast(up.Subnet(), ip.Src()) {
		d.RefuseCopy(packet.Martian)
		return
	}
	if !up.Owns(packet.AddrFrom4(ip.Dst())) {
		d.RefuseCopy(packet.NotForUs)
		return
	}

	// 5.4 NAT
	if k, complete := in.r.key(f); !(complete && in.r.find(f, k, d)) && !in.r.begin(f, k, complete, d) {
		return
	}
	if g := in.r.plugs.Load().gateway(d.NAT.Out); g != nil && !d.NAT.Quoted && g.subnet.Contains(d.NAT.After.Src.Netip()) {
		d.RefuseCopy(packet.Martian) // who is inside does not come from outside
		return
	}

	// 5.2 TTL
	if ip.TTL() <= 1 {
		in.r.refuse(f, d, packet.TTLExceeded, packet.OriginTimeExceeded)
		return
	}

	// 5.5 MTU  5.6 next hop
	in.r.pass(f, d)
}

// Apply carries out what Route decided.
func (in *Inbound) Apply(f *packet.Frame, d *packet.Decision, out packet.Out) { in.r.apply(f, d, out) }

// endAtOnce bounds how many flows are ended while others wait.
const endAtOnce = 256

// EndFlows ends the flows whose packets leave, or came in, on the uplink with
// these tuples.
func (in *Inbound) EndFlows(list []packet.Tuple) {
	for some := range slices.Chunk(list, endAtOnce) {
		in.r.mu.Lock()
		for _, k := range some {
			in.r.flows.End(in.network, k)
		}
		in.r.mu.Unlock()
	}
	in.r.recycle(recycleAt)
}
