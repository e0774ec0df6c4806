// Package network wires one network together: a switch, its gateway, its
// subnet and its policy, on a loop. It is what a node, the benchmarks and the
// tests construct.
//
// A Network may be used from any goroutine that is not a worker.
package network

import (
	"fmt"
	"net/netip"
	"slices"

	"fairlead/arp"
	"fairlead/gateway"
	"fairlead/loop"
	"fairlead/nat"
	"fairlead/packet"
	"fairlead/policy"
	vswitch "fairlead/switch"
)

// DefaultMTU is Ethernet's. Segmentation offload carries 64 KiB through it in
// one frame, so a larger one gains nothing and costs trouble with whoever is
// outside.
const DefaultMTU = 1500

// DefaultSubnet is that of Docker's default network.
var DefaultSubnet = netip.MustParsePrefix("172.17.0.1/16")

// Config says what a network is. It does not change once it is made.
type Config struct {
	ID   packet.NetworkID
	Name string
	// Gateway is the gateway's address with the length of the subnet, as in
	// `--bip`; zero is DefaultSubnet.
	Gateway netip.Prefix
	// Pool says which addresses of the subnet containers are given; nil is all of
	// them. It does not change, nor does what is in it.
	Pool *Pool
	// Internal is a network without a way out.
	Internal bool
	Options  Options
}

// A Network is one L2 segment with its router.
type Network struct {
	conf   Config
	router *Router
	sw     *vswitch.Switch
	gw     *gateway.Gateway
	pool   *pool

	// Guarded by the router's mutex.
	uplinks   []*Uplink // ways out it was given
	internal  bool      // it uses none of them
	untouched bool      // what leaves keeps the containers' addresses
}

// New makes a network without containers and joins it to the router.
func New(conf Config, router *Router) (*Network, error) {
	if !conf.Gateway.IsValid() {
		conf.Gateway = DefaultSubnet
	}
	if conf.Options.MTU == 0 {
		conf.Options.MTU = DefaultMTU
	}
	if err := checkGateway(conf.Gateway); err != nil {
		return nil, fmt.Errorf("network %s: %w", conf.Name, err)
	}
	if err := conf.Options.DHCP.Fits(conf.Gateway); err != nil {
		return nil, fmt.Errorf("network %s: %w", conf.Name, err)
	}
	mac := packet.MACFromIPv4(conf.Gateway.Addr())
	gw := gateway.New(gateway.Config{
		Network: conf.ID, Name: conf.Name, MAC: mac, Addr: conf.Gateway, MTU: conf.Options.MTU,
		Unguarded: conf.Options.Unguarded,
	}, router.rt)
	n := &Network{
		conf: conf, gw: gw, router: router,
		pool: newPool(conf.Gateway, conf.Pool),
		sw: vswitch.New(vswitch.Config{
			ID: conf.ID, Name: conf.Name, MTU: conf.Options.MTU,
			Ageing: conf.Options.Ageing, Hub: conf.Options.Hub,
			Gateway: gw, LoopGuard: !conf.Options.LoopsLeft, LoopFound: router.loopFound,
			SlowFound: router.slowFound,
			GatewayAddrs: []packet.Addr{
				packet.AddrFromNetip(conf.Gateway.Addr()),
				packet.AddrFromNetip(mac.LinkLocal()),
			},
		}, router.lanes),
	}
	n.internal, n.untouched = conf.Internal, conf.Options.NotMasqueraded
	gw.SetInternal(conf.Internal)
	gw.SetMasquerade(!conf.Options.NotMasqueraded)
	gw.SetRouted(conf.Options.Routed)
	n.sw.SetJoin(!conf.Options.Unjoined)
	router.mu.Lock()
	defer router.mu.Unlock()
	router.networks = append(router.networks, n)
	return n, nil
}

// SetUplinks says which ways out the network has, by the names of their
// interfaces; the first of equally specific ones is taken.
func (n *Network) SetUplinks(names ...string) error {
	r := n.router
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []*Uplink
	for _, name := range names {
		u := r.findLocked(name)
		if u == nil {
			return fmt.Errorf("network %s: no uplink %s", n.conf.Name, name)
		}
		list = append(list, u)
	}
	n.setUplinksLocked(list)
	return nil
}

func (n *Network) setUplinksLocked(list []*Uplink) {
	before := n.usedLocked()
	n.uplinks = list
	n.plugUplinksLocked(before)
}

// usedLocked are the uplinks the network leads out by: none of one that is
// internal, and without masquerade no sockets: what they send has the host's
// address.
func (n *Network) usedLocked() (list []*Uplink) {
	for _, u := range n.uplinks {
		if !n.internal && !(n.untouched && u.Sockets() != nil) {
			list = append(list, u)
		}
	}
	return list
}

// plugUplinksLocked has the gateway use the uplinks it may, and NAT have a rule
// for each; before are those that have one.
func (n *Network) plugUplinksLocked(before []*Uplink) {
	list := n.usedLocked()
	n.router.Flows(func(t *nat.Table) {
		for _, u := range before {
			if n.untouched || !slices.Contains(list, u) {
				t.Unpublish(t.Masquerade(n.conf.ID, u.Network()).Number)
			}
		}
		for _, u := range list {
			if !n.untouched {
				t.Masquerade(n.conf.ID, u.Network())
			}
		}
	})
	ways := make([]gateway.Uplink, len(list))
	for i, u := range list {
		ways[i] = u.end
	}
	n.gw.SetUplinks(ways)
}

// SetInternal says whether the network is without a way out. Its connections to
// the outside end when it becomes so.
func (n *Network) SetInternal(internal bool) {
	n.router.mu.Lock()
	defer n.router.mu.Unlock()
	before := n.usedLocked()
	n.internal = internal
	n.gw.SetInternal(internal)
	n.plugUplinksLocked(before)
	if internal {
		n.endFlows()
	}
}

// SetMasquerade says whether what leaves the network has the uplink's address, or
// keeps that of the container. Connections that have begun end with a change:
// their far end knows them by the other address.
func (n *Network) SetMasquerade(masquerade bool) {
	n.router.mu.Lock()
	defer n.router.mu.Unlock()
	if n.untouched == !masquerade {
		return
	}
	before := n.usedLocked()
	n.untouched = !masquerade
	n.gw.SetMasquerade(masquerade)
	n.plugUplinksLocked(before)
	n.endFlows()
}

// SetJoin says whether small packets of a flow may get to containers as one large
// one, which their kernels take apart.
func (n *Network) SetJoin(join bool) { n.sw.SetJoin(join) }

// SetRouted says whether the network and others that are so reach one another by
// their gateways. Without it they do not, and connections between them end.
func (n *Network) SetRouted(routed bool) {
	n.gw.SetRouted(routed)
	if !routed {
		n.router.Flows(func(t *nat.Table) {
			t.FlushUntranslated(n.conf.ID, func(to packet.NetworkID) bool { return to != n.conf.ID && to < firstUplink })
		})
	}
}

// endFlows ends all flows of the network.
func (n *Network) endFlows() {
	n.router.Flows(func(t *nat.Table) { t.FlushAddress(n.conf.ID, packet.Addr{}) })
}

// SetEgress says where the network's containers may open connections to; nil is
// everywhere. Connections that have begun go on.
func (n *Network) SetEgress(e *policy.Egress) { n.gw.SetEgress(e) }

// SetHostLoopback says whether they reach services of the host's loopback, at the
// gateway's address.
func (n *Network) SetHostLoopback(allowed bool) { n.gw.SetHostLoopback(allowed) }

// dropUplinkLocked takes an uplink that goes off the network.
func (n *Network) dropUplinkLocked(u *Uplink) {
	n.setUplinksLocked(slices.DeleteFunc(slices.Clone(n.uplinks), func(x *Uplink) bool { return x == u }))
}

// Uplinks lists the ways out the network uses: of one that is internal, none.
func (n *Network) Uplinks() []*Uplink {
	n.router.mu.Lock()
	defer n.router.mu.Unlock()
	return n.usedLocked()
}

// Routes lists the network's routing table.
func (n *Network) Routes() []gateway.Route { return n.gw.Routes() }

// checkGateway refuses what cannot be a gateway's address and subnet.
func checkGateway(p netip.Prefix) error {
	switch a := p.Addr(); {
	case !a.Is4():
		return fmt.Errorf("gateway %s is not an IPv4 address with a length, such as 172.17.42.1/16", p)
	case p.Bits() < 8 || p.Bits() > 30:
		return fmt.Errorf("subnet %s: the length must be from 8 to 30", p.Masked())
	case a == p.Masked().Addr() || a == gateway.Broadcast(p):
		return fmt.Errorf("gateway %s is the network or broadcast address of its own subnet", p)
	case a.IsLoopback() || a.IsMulticast() || a.IsUnspecified() || a.As4()[0] >= 224 || a.As4()[0] == 0:
		return fmt.Errorf("gateway %s is not an address a station can have", p)
	}
	return nil
}

// Config returns what the network was made from.
func (n *Network) Config() Config { return n.conf }

// Switch is the network's segment.
func (n *Network) Switch() *vswitch.Switch { return n.sw }

// GatewayMAC is the gateway's address on the segment.
func (n *Network) GatewayMAC() packet.MAC { return n.gw.MAC() }

// Reserve takes an address for a container: want, or the lowest free one when
// want is the zero Addr. Release gives it back.
func (n *Network) Reserve(want netip.Addr) (netip.Prefix, error) {
	a, err := n.pool.take(want)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("network %s: %w", n.conf.Name, err)
	}
	return netip.PrefixFrom(a, n.conf.Gateway.Bits()), nil
}

// Release gives a reserved address back; the zero Addr is nobody's.
func (n *Network) Release(a netip.Addr) {
	if a.IsValid() {
		n.pool.give(a)
	}
}

// Endpoint is a container's attachment to the network.
type Endpoint struct {
	Name      string
	Container packet.ContainerID
	MAC       packet.MAC
	Addr      netip.Addr
	Queue     vswitch.Queue // the network closes it when the port goes, or cannot be made
	Isolated  bool
	VLANs     policy.VLANs // it is in
	// AnySource is for a port with a LAN behind it: it may use any source but the
	// gateway's and the containers', and has neither MAC nor Addr.
	AnySource bool
	Limit     *vswitch.Limit                   // the container's rates; nil is none
	Lost      func(p *vswitch.Port, err error) // see vswitch.PortConfig
}

// Attach gives an endpoint its port, and then raises the carrier of its link:
// the container sees a cable only when somebody reads the other end. The queue
// is the network's in every case: after an error it is closed.
func (n *Network) Attach(e Endpoint) (*vswitch.Port, error) {
	port, err := n.sw.AddPort(vswitch.PortConfig{
		Name: e.Name, Container: e.Container, Queue: e.Queue, Isolated: e.Isolated, VLANs: e.VLANs, Limit: e.Limit,
		FloodLimit: n.conf.Options.FloodLimit, Metered: !e.AnySource, Shared: e.AnySource,
		Worker: n.router.lanes.Home(e.Container),
		Guard: policy.Guard{
			Strict: !n.conf.Options.Unguarded && !e.AnySource,
			MAC:    e.MAC,
			Addrs:  []packet.Addr{packet.AddrFromNetip(e.Addr)},
		},
		Outside: !n.conf.Options.Unguarded && e.AnySource,
		Lost:    e.Lost,
	})
	if err != nil {
		_ = e.Queue.Close() // nobody has read it
		return nil, fmt.Errorf("network %s: %w", n.conf.Name, err)
	}
	if !n.conf.Options.Unguarded && e.Addr.Is4() && e.VLANs.Untagged == 0 {
		// Nobody else may say who has the address. A datagram of many fragments or a
		// train is too large to wait until it is asked for.
		n.gw.AddNeighbour(arp.Entry{Addr: e.Addr.As4(), MAC: e.MAC, Port: port.ID(), Container: e.Container, Seen: loop.Clock()})
	}
	if q, ok := e.Queue.(interface{ SetCarrier(bool) error }); ok {
		if err := q.SetCarrier(true); err != nil {
			n.sw.RemovePort(port, nil)
			return nil, fmt.Errorf("network %s: raise the carrier of %s: %w", n.conf.Name, e.Name, err)
		}
	}
	return port, nil
}

// Detach takes a port off the network, and ends the flows its container has there.
// Its link is closed soon after, and closed called then; see vswitch.Switch.RemovePort.
// Of a container that is gone for good Router.Forget takes the rest.
func (n *Network) Detach(p *vswitch.Port, closed func()) {
	flush := func() {
		n.router.Flows(func(t *nat.Table) { t.FlushContainerOn(p.Config().Container, n.conf.ID) })
	}
	n.sw.RemovePort(p, func() {
		flush() // a worker in mid-turn may have begun one more
		closed()
	})
	flush()
}

// Close removes all ports, closes their links and leaves the router.
func (n *Network) Close() {
	n.gw.Close()
	n.sw.Close()
	n.router.retire(n.sw)
}
