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
	p := in.r.plugs.Load()
	up := p.uplink(in.network)
	if up == nil {
		d.RefuseCopy(packet.NotForUs) // it goes just now
		return
	}
	ip := packet.IPv4(f.Ether()[f.L3:])
	if p.keeps(in.network) {
		// It came out of a socket of ours, so it is for us, and the host's kernel has
		// made sure that who sends may: from the host's own addresses as well.
		if !isStation(ip.Src()) || !isStation(ip.Dst()) {
			d.RefuseCopy(packet.Martian)
			return
		}
	} else if reason := arrives(ip, up); reason != packet.OK && !(reason == packet.NotForUs && in.r.comesBack(f, d)) {
		d.RefuseCopy(reason)
		return
	}

	// 5.4 NAT
	if k, complete := in.r.key(f); !(complete && in.r.find(f, k, d)) && !in.r.begin(f, k, complete, d) {
		return
	}
	switch from := sender(ip, &d.NAT); {
	case isLoopback(from) && (d.NAT.Kind != packet.NATRedirect || from != packet.AddrFrom4(nameserver)), // not even from our own sockets
		!d.NAT.Quoted && !p.keeps(in.network) && p.inside(d.NAT.Out, from): // who is inside does not come from outside
		d.RefuseCopy(packet.Martian)
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

// arrives says whether a packet from a wire may come in on an uplink.
func arrives(ip packet.IPv4, up Uplink) packet.Reason {
	switch {
	case !routable(ip) || up.Owns(packet.AddrFrom4(ip.Src())) || isBroadcast(up.Subnet(), ip.Src()):
		return packet.Martian
	case !up.Owns(packet.AddrFrom4(ip.Dst())):
		return packet.NotForUs
	}
	return packet.OK
}

// sender is who a packet will be from. Who sent an ICMP error keeps its address,
// unless it is whom the packet it quotes was for: see Translation.Edit.
func sender(ip packet.IPv4, t *packet.Translation) packet.Addr {
	switch {
	case !t.Quoted:
		return t.After.Src
	case t.After.Dst != t.Before.Dst:
		return t.After.Dst
	}
	return packet.AddrFrom4(ip.Src())
}

// inside reports whether an address is on a network of containers.
func (p *plugs) inside(n packet.NetworkID, a packet.Addr) bool {
	g := p.gateway(n)
	return g != nil && g.subnet.Contains(a.Netip())
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
