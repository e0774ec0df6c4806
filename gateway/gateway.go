package gateway

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"sync/atomic"

	"fairlead/arp"
	"fairlead/packet"
	"fairlead/policy"
)

// Config says what a gateway is.
type Config struct {
	Network packet.NetworkID
	Name    string // of the network, for people
	MAC     packet.MAC
	Addr    netip.Prefix // IPv4, with the subnet's length
	MTU     int          // of the network

	// Unguarded says that a container may send from any address, as a router does.
	Unguarded bool
}

// A Gateway is the router's side on one network of containers.
type Gateway struct {
	network   packet.NetworkID
	name      string
	mac       packet.MAC
	addr      [4]byte
	subnet    netip.Prefix
	broadcast [4]byte // of the subnet
	mtu       int
	unguarded bool
	router    *Router
	uplinks   atomic.Pointer[[]Uplink]
	host      atomic.Uint32 // the PortID of the host's own link; 0 is none

	hostLoopback, internal atomic.Bool
	untouched, routed      atomic.Bool // see SetMasquerade, SetRouted
	egress                 atomic.Pointer[policy.Egress]
	dns, dhcp, dhcpHeard   atomic.Pointer[service]
	answers                answers

	mu         sync.Mutex
	neighbours *arp.Table
	probes     [][4]byte // that Tick is to ask
}

// New returns a network's gateway and plugs it into the router. Close takes it
// off again.
func New(conf Config, r *Router) *Gateway {
	g := &Gateway{
		network: conf.Network, name: conf.Name, mac: conf.MAC, mtu: conf.MTU, unguarded: conf.Unguarded,
		addr: conf.Addr.Addr().As4(), subnet: conf.Addr.Masked(), broadcast: Broadcast(conf.Addr).As4(),
		router: r, neighbours: arp.NewTable(),
	}
	g.uplinks.Store(&[]Uplink{})
	r.plugGateway(g)
	return g
}

// Close takes the gateway off its router, with all flows of its network.
func (g *Gateway) Close() { g.router.unplugGateway(g) }

// Network is the number of the gateway's network, Name what people call it.
func (g *Gateway) Network() packet.NetworkID { return g.network }
func (g *Gateway) Name() string              { return g.name }

// MAC is the gateway's address on the segment.
func (g *Gateway) MAC() packet.MAC { return g.mac }

// MTU is that of the network.
func (g *Gateway) MTU() int { return g.mtu }

// SetUplinks says which ways out the network has, the first of equally specific
// ones being taken.
func (g *Gateway) SetUplinks(list []Uplink) { g.uplinks.Store(&list) }

// Apply carries out what Route decided of f. See vswitch.Gateway.
func (g *Gateway) Apply(f *packet.Frame, d *packet.Decision, out packet.Out) {
	if g.isHost(f.Port) {
		g.applyHost(f, d, out)
		return
	}
	if d.Neighbour {
		g.learn(f, out)
	}
	g.router.apply(f, d, out)
	switch {
	case d.Query:
		g.askService(f, d)
	case d.EgressOwn != 0 || d.EgressRule != 0:
		g.countEgress(f, d)
	}
}

// Tick sends answers, asks again for neighbours that did not answer, and does what
// is due in the router.
func (g *Gateway) Tick(now int64, out packet.Out) {
	g.sendAnswers(out)
	var failed [][4]byte
	g.mu.Lock()
	ask := g.probes
	g.probes = nil
	next := g.neighbours.Tick(now,
		func(a [4]byte) { ask = append(ask, a) },
		func(a [4]byte) { failed = append(failed, a) })
	g.mu.Unlock()
	for _, a := range ask {
		g.ask(a, 0, out)
	}
	for _, a := range failed {
		out.Resume(packet.ARPKey(g.network, a))
	}
	if next != 0 {
		out.Wake(g.network, next)
	}
	if next := g.router.tick(now, out); next != 0 {
		out.Wake(g.network, next)
	}
}

// A Route is one line of a network's routing table.
type Route struct {
	Prefix  netip.Prefix
	Via     packet.Addr      // the next router; zero when the destination is reached directly
	Network packet.NetworkID // the link: the network itself or an uplink's
	Name    string           // of it
	Source  packet.Addr      // the router's address there
}

// Routes lists the routing table: the most specific first, of equal ones the
// first is taken.
func (g *Gateway) Routes() []Route {
	list := []Route{{Prefix: g.subnet, Network: g.network, Name: g.name, Source: packet.AddrFrom4(g.addr)}}
	for _, up := range *g.uplinks.Load() {
		if up.Addr() == (packet.Addr{}) {
			continue
		}
		add := func(p netip.Prefix, via packet.Addr) {
			list = append(list, Route{Prefix: p, Via: via, Network: up.Network(), Name: up.Name(), Source: up.Addr()})
		}
		add(up.Subnet(), packet.Addr{})
		for _, p := range up.Routes() {
			add(p, up.NextHop())
		}
		if len(up.Routes()) == 0 && up.NextHop() != (packet.Addr{}) {
			add(everything, up.NextHop())
		}
	}
	sortRoutes(list)
	return list
}

// lookup is the uplink towards a destination outside: the one with the most
// specific route; nil when there is none. It agrees with Routes.
func (g *Gateway) lookup(dst packet.Addr) (best Uplink) {
	a, bits := dst.Netip(), -1
	for _, up := range *g.uplinks.Load() {
		if up.Addr() == (packet.Addr{}) {
			continue
		}
		take := func(p netip.Prefix) {
			if p.Bits() > bits && p.Contains(a) {
				best, bits = up, p.Bits()
			}
		}
		take(up.Subnet())
		for _, p := range up.Routes() {
			take(p)
		}
		if len(up.Routes()) == 0 && up.NextHop() != (packet.Addr{}) {
			take(everything)
		}
	}
	return best
}

var everything = netip.PrefixFrom(netip.IPv4Unspecified(), 0)

// Broadcast is the directed broadcast address of an IPv4 subnet.
func Broadcast(p netip.Prefix) netip.Addr {
	a := p.Addr().As4()
	host := uint32(1)<<(32-p.Bits()) - 1
	binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])|host)
	return netip.AddrFrom4(a)
}
