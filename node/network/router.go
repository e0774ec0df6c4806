package network

import (
	"net/netip"
	"slices"
	"sync"

	"fairlead/gateway"
	"fairlead/nat"
	"fairlead/packet"
	"fairlead/policy"
	vswitch "fairlead/switch"
	"fairlead/uplink"
	"fairlead/uplink/sockets"
)

// A Router is what the networks of one node share: the flows and rules of NAT,
// and the uplinks. It may be used from any goroutine that is not a worker.
type Router struct {
	lanes *vswitch.Lanes
	rt    *gateway.Router

	loopFound func(vswitch.Loop) // nil is nobody
	slowFound func(vswitch.Slow) // likewise

	adding sync.Mutex // one uplink at a time; held before mu

	mu       sync.Mutex // guards what follows; nobody waits for a worker with it
	networks []*Network
	uplinks  []*Uplink
	numbers  map[packet.NetworkID]bool // of uplinks, those included that are just going
	leaving  map[*vswitch.Switch]bool  // of uplinks that are just going
	gone     vswitch.Counts            // of networks and uplinks that have been closed
}

// firstUplink is the number of the first uplink's segment; networks have lower
// ones. There may be a few hundred.
const (
	firstUplink packet.NetworkID = 4096
	// MaxNetworks is the highest number of a network.
	MaxNetworks                  = firstUplink - 1
	maxUplinks  packet.NetworkID = 256
)

// NewRouter returns a router without networks and uplinks. Networks join it as
// they are made.
func NewRouter(lanes *vswitch.Lanes, flows nat.Config) *Router {
	return &Router{lanes: lanes, rt: gateway.NewRouter(nat.New(flows), lanes.Grace),
		numbers: make(map[packet.NetworkID]bool), leaving: make(map[*vswitch.Switch]bool)}
}

// TellLoops has fn told of ports that are found joined; see vswitch.Config. It is
// called before there are networks.
func (r *Router) TellLoops(fn func(vswitch.Loop)) { r.loopFound = fn }

// TellSlow does the same with receivers that took very long.
func (r *Router) TellSlow(fn func(vswitch.Slow)) { r.slowFound = fn }

// Flows calls fn with the table of flows and rules, which nobody else changes
// meanwhile.
func (r *Router) Flows(fn func(t *nat.Table)) { r.rt.Flows(fn) }

// SetEgress sets a container's own policy, which is asked beside that of its
// network. It is forgotten with the container's flows.
func (r *Router) SetEgress(c packet.ContainerID, e *policy.Egress) { r.rt.SetEgress(c, e) }

// SetHome says what the routing table of a container is, which has an attachment
// to each of several networks. It is forgotten with the container's flows.
func (r *Router) SetHome(c packet.ContainerID, h gateway.Home) { r.rt.SetHome(c, h) }

// Forget ends what is left of a container that is gone, on all networks.
func (r *Router) Forget(c packet.ContainerID) { r.rt.FlushContainer(c) }

// UplinkConfig says what a raw uplink is.
type UplinkConfig struct {
	Name    string // of its interface
	MAC     packet.MAC
	MTU     int
	Addr    netip.Prefix // address and length of the subnet; not with DHCP
	Gateway netip.Addr   // the next router; the zero Addr is none
	Extra   []netip.Addr // further addresses, for 1:1 translation
	Routes  []netip.Prefix
	DHCP    bool // ask for Addr and the rest on the link

	SharedMAC bool // MAC is the host's too
	Held      bool // its addresses are ours already, by a node before

	// Lost is called once, on a worker, when the link is gone for good.
	Lost func(err error)
}

// An Uplink is a way out of networks: a segment of one port. Raw ones and that
// by sockets differ in their far end only.
type Uplink struct {
	gateway.Uplink // the far end, as the router sees it
	end            end
	raw            *uplink.Raw  // the same; nil if it is sockets
	conf           UplinkConfig // of sockets it has the name only
	sw             *vswitch.Switch
}

// An end is the far end of an uplink's segment.
type end interface {
	gateway.Uplink
	vswitch.Gateway
	State(now int64) uplink.State
	// Stop has it give back what it was lent, and tells when it has.
	Stop() (released <-chan struct{})
}

// Config returns what the uplink was made from, Switch its segment.
func (u *Uplink) Config() UplinkConfig    { return u.conf }
func (u *Uplink) Switch() *vswitch.Switch { return u.sw }

// State is what there is to show of it, at a time of the workers' clock.
func (u *Uplink) State(now int64) uplink.State { return u.end.State(now) }

// Sockets are those of the uplink by host sockets, nil for a raw one.
func (u *Uplink) Sockets() *sockets.Sockets {
	if e, ok := u.end.(socketsEnd); ok {
		return e.Sockets
	}
	return nil
}

func (r *Router) findLocked(name string) *Uplink {
	for _, u := range r.uplinks {
		if u.conf.Name == name {
			return u
		}
	}
	return nil
}

// Uplinks lists the uplinks in the order they came.
func (r *Router) Uplinks() []*Uplink {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.uplinks)
}

// retire takes a switch that is closed off the router, and keeps its counters for
// Totals.
func (r *Router) retire(sw *vswitch.Switch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.networks = slices.DeleteFunc(r.networks, func(n *Network) bool { return n.sw == sw })
	delete(r.leaving, sw)
	c := sw.Totals()
	r.gone.Add(&c)
}

// Totals sums the counters of all networks and uplinks, of those too that are
// gone: what the conservation law is held against.
func (r *Router) Totals() vswitch.Counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	total := r.gone
	for _, n := range r.networks {
		c := n.sw.Totals()
		total.Add(&c)
	}
	for _, u := range r.uplinks {
		c := u.sw.Totals()
		total.Add(&c)
	}
	for sw := range r.leaving {
		c := sw.Totals()
		total.Add(&c)
	}
	return total
}

// CheckCopies holds the node's totals against the conservation law.
func (r *Router) CheckCopies() error {
	c := r.Totals()
	if err := c.CheckCopies(); err != nil {
		return err
	}
	return c.CheckHold(r.lanes.Holding())
}
