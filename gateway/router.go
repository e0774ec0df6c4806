package gateway

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"fairlead/nat"
	"fairlead/packet"
	"fairlead/policy"
)

// A Router is what the gateways of one node share: the table of flows, the
// rules of NAT, and the uplinks. See the package comment for its concurrency.
type Router struct {
	flows *nat.Table
	plugs atomic.Pointer[plugs]

	mu        sync.Mutex // guards new flows, rules, and what follows
	fragments *nat.Fragments
	syns      *nat.SYNs
	rates     map[packet.Place]*policy.Rate // of ICMP errors and resets
	ticking   packet.NetworkID              // the network whose Tick does what is due here
	due       int64                         // when it was asked to; in the past it says nothing
	recycling bool
	keepers   map[packet.NetworkID]keeper // the uplinks that are such
	homes     map[packet.ContainerID]Home // of all containers with a network

	grace func(func()) // see loop.Loop.Grace

	dnsTCP atomic.Uint32                                         // see SetServices
	egress atomic.Pointer[map[packet.ContainerID]*policy.Egress] // see SetEgress
	names  sync.Mutex                                            // guards what policies know of names
}

// plugs are the networks the router joins: a snapshot, replaced whole.
type plugs struct {
	gateways []*Gateway // by NetworkID, nil where there is none
	uplinks  []Uplink   // by NetworkID, nil where there is none
	keeping  []bool     // by NetworkID: the uplink keeps flows
}

// An Uplink is a way out: an address on another network, and who is there.
// Package uplink has one. All methods may be called by any worker; those
// without effects are called for each packet and allocate nothing.
type Uplink interface {
	// Network is the number of the segment the uplink is on.
	Network() packet.NetworkID
	Name() string
	MTU() int
	MAC() packet.MAC

	// Addr is the address of masquerade; the zero Addr while there is none.
	Addr() packet.Addr
	// Owns reports whether an address is the uplink's.
	Owns(a packet.Addr) bool
	// Subnet is what is reached directly, NextHop the router for the rest (the
	// zero Addr is none), Routes the destinations the uplink is for. Without
	// any it is for all of them.
	Subnet() netip.Prefix
	NextHop() packet.Addr
	Routes() []netip.Prefix

	// Resolve fills in how a packet gets to a station of the segment: Egress and
	// MACs; or it has the packet wait and the station be asked for; or refuses it
	// as unreachable. It changes nothing but d.
	Resolve(f *packet.Frame, hop packet.Addr, d *packet.Decision)
	// Ask applies an OriginARPRequest of Resolve.
	Ask(f *packet.Frame, d *packet.Decision, out packet.Out)
}

// A keeper is an Uplink that may keep flows, as one made of host sockets does:
// it has an end of every flow itself. See nat.Table.Keep.
type keeper interface {
	KeepsFlows() bool
	// FlowEnded tells that a flow across the uplink is no more. The router's lock
	// is held.
	FlowEnded(number uint32)
}

// A link is a side of the router, an uplink or a network, as packets leave by
// it.
type link interface {
	Network() packet.NetworkID
	MTU() int
	Resolve(f *packet.Frame, hop packet.Addr, d *packet.Decision)
	Ask(f *packet.Frame, d *packet.Decision, out packet.Out)
}

// NewRouter returns a router that joins nothing yet, with the flows of t. grace
// calls a function once no worker uses anymore what it did before.
func NewRouter(t *nat.Table, grace func(func())) *Router {
	r := &Router{
		flows: t, grace: grace, fragments: nat.NewFragments(), syns: nat.NewSYNs(),
		rates: make(map[packet.Place]*policy.Rate), keepers: make(map[packet.NetworkID]keeper),
		homes: make(map[packet.ContainerID]Home),
	}
	t.SetOwner(owner{r})
	r.plugs.Store(&plugs{})
	return r
}

// plugGateway joins a network to the router, in the place of one with its
// number.
func (r *Router) plugGateway(g *Gateway) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flows.FlushAddress(g.network, packet.Addr{})
	r.replaceLocked(g.network, g)
}

// unplugGateway takes a network off, with all its flows.
func (r *Router) unplugGateway(g *Gateway) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.plugs.Load().gateway(g.network) == g {
		r.replaceLocked(g.network, nil)
		r.flows.FlushAddress(g.network, packet.Addr{})
	}
}

func (r *Router) replaceLocked(n packet.NetworkID, g *Gateway) {
	old := r.plugs.Load()
	fresh := &plugs{gateways: replaced(old.gateways, n, g), uplinks: old.uplinks, keeping: old.keeping}
	r.plugs.Store(fresh)
	r.ticking, r.due = 0, 0
	for _, g := range fresh.gateways {
		if g != nil {
			r.ticking = g.network
			break
		}
	}
}

// PlugUplink joins an uplink to the router, so that packets find it that come
// back. A network uses it after Gateway.SetUplinks.
func (r *Router) PlugUplink(up Uplink) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k, keeps := up.(keeper)
	if keeps = keeps && k.KeepsFlows(); keeps {
		r.keepers[up.Network()] = k
		r.flows.Keep(up.Network(), true)
	}
	r.replaceUplinkLocked(up.Network(), up, keeps)
}

func (r *Router) replaceUplinkLocked(n packet.NetworkID, up Uplink, keeps bool) {
	old := r.plugs.Load()
	r.plugs.Store(&plugs{gateways: old.gateways, uplinks: replaced(old.uplinks, n, up), keeping: replaced(old.keeping, n, keeps)})
}

// UnplugUplink takes an uplink off, with all flows across it.
func (r *Router) UnplugUplink(n packet.NetworkID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.replaceUplinkLocked(n, nil, false)
	for at := range r.rates {
		if at.Network == n {
			delete(r.rates, at)
		}
	}
	r.flows.FlushAddress(n, packet.Addr{})
	r.flows.Keep(n, false)
	delete(r.keepers, n)
}

// replaced is a copy of list with v at n.
func replaced[T any](list []T, n packet.NetworkID, v T) []T {
	c := make([]T, max(len(list), int(n)+1))
	copy(c, list)
	c[n] = v
	return c
}

func (p *plugs) gateway(n packet.NetworkID) *Gateway {
	if int(n) < len(p.gateways) {
		return p.gateways[n]
	}
	return nil
}

func (p *plugs) uplink(n packet.NetworkID) Uplink {
	if int(n) < len(p.uplinks) {
		return p.uplinks[n]
	}
	return nil
}

// sockets is the uplink made of the host's sockets, nil if there is none.
func (p *plugs) sockets() Uplink {
	for n, keeps := range p.keeping {
		if keeps {
			return p.uplinks[n]
		}
	}
	return nil
}

// keeps reports whether a network is an uplink that keeps flows.
func (p *plugs) keeps(n packet.NetworkID) bool { return int(n) < len(p.keeping) && p.keeping[n] }

// Flows calls fn with the router's table. Nothing that makes, ends or lists
// flows or rules may be called elsewhere, except on the path.
func (r *Router) Flows(fn func(t *nat.Table)) {
	r.mu.Lock()
	fn(r.flows)
	r.mu.Unlock()
	r.recycle(recycleAt)
}

// FlushContainer ends all flows of a container that is gone, and forgets its
// policy and its home.
func (r *Router) FlushContainer(c packet.ContainerID) {
	r.Flows(func(t *nat.Table) {
		t.FlushContainer(c)
		delete(r.homes, c)
	})
	r.SetEgress(c, nil)
}

// forgetPort drops what is kept for a port that is gone.
func (r *Router) forgetPort(at packet.Place) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.rates, at)
}
