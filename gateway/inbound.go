package gateway

import "fairlead/packet"

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
		refuse(d, packet.NotForUs) // it goes just now
		return
	}
	ip := packet.IPv4(f.Ether()[f.L3:])
	if !routable(ip) || up.Owns(packet.AddrFrom4(ip.Src())) {
		refuse(d, packet.Martian)
		return
	}
	if !up.Owns(packet.AddrFrom4(ip.Dst())) {
		refuse(d, packet.NotForUs)
		return
	}

	// 5.4 NAT
	if !in.translate(f, d) {
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

// translate finds or plans the flow of a packet from outside: step 5.4. It
// returns false when d is decided.
func (in *Inbound) translate(f *packet.Frame, d *packet.Decision) bool {
	r := in.r
	if isError(f) {
		return r.translateError(f, d)
	}
	k, ok := r.key(f, d)
	if !ok {
		return false
	}
	if r.known(f, k, d) {
		return true
	}
	return r.begin(f, k, d)
}
