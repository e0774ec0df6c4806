package uplink

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"fairlead/arp"
	"fairlead/dhcp"
	"fairlead/packet"
)

// maxNeighbours bounds the neighbour table: all of them are behind one port. It
// is the kernel's gc_thresh3.
const maxNeighbours = 1024

// An Inbound takes the IPv4 packets that came in for the uplink's MAC: the
// router. See vswitch.Gateway for its methods.
//
// If it has a method AddressGone(packet.Addr) too, that is told each address
// that is the uplink's no more: connections from it cannot go on.
type Inbound interface {
	Prefetch(frames []packet.Frame)
	Route(f *packet.Frame, d *packet.Decision)
	Apply(f *packet.Frame, d *packet.Decision, out packet.Out)
}

// A Config says what a raw uplink is. It does not change once it is made.
type Config struct {
	Network packet.NetworkID // of its segment
	Name    string
	MAC     packet.MAC
	MTU     int

	Addr    netip.Prefix   // with the subnet's length; not with DHCP
	Gateway netip.Addr     // the next router; the zero Addr is none; not with DHCP
	Extra   []netip.Addr   // further addresses, for 1:1 translation
	Routes  []netip.Prefix // what it leads to; none is everything
	DHCP    bool           // Addr, Gateway and perhaps a smaller MTU come by DHCP
	Avoid   []netip.Prefix // subnets a lease may not be in, because we route there
	Held    bool           // Addr and Extra are ours already, by a node before

	// SharedMAC says that MAC is the host's too, so its DHCP client must not take
	// us for itself.
	SharedMAC bool
}

// A Raw is an uplink that is a station of a real L2 network. The zero Raw is
// not one; see New.
type Raw struct {
	conf    Config
	inbound Inbound
	facts   atomic.Pointer[facts]

	mu         sync.Mutex
	started    bool
	neighbours *arp.Table
	claims     []arp.Claim // of the main address, and of Extra
	client     *dhcp.Client
	lease      dhcp.Lease // what claims[0] follows
	without    int64      // since when there is none
	server     packet.MAC // where the lease came from: the server's, or a relay's
	declined   conflict   // the last lease that was somebody else's
	stopping   chan struct{}
	probes     []*probe

	ready     chan struct{} // closed by the first Tick that isReady
	readyOnce sync.Once
}

// facts are what packets are decided by: a snapshot, replaced whole.
type facts struct {
	addr    packet.Addr // of masquerade; zero while there is none
	owned   []packet.Addr
	subnet  netip.Prefix
	nextHop packet.Addr
	mtu     int
}

// A conflict is an address that was found to be somebody else's.
type conflict struct {
	addr netip.Addr
	mac  packet.MAC
	at   int64
}

// New returns an uplink. It is silent until its first Tick: then it probes for
// its addresses, which takes 300 ms and makes them its own, or asks for a lease.
func New(conf Config, inbound Inbound) (*Raw, error) {
	if !conf.DHCP && !conf.Addr.Addr().Is4() {
		return nil, fmt.Errorf("uplink %s: %v is not an IPv4 address with a length, such as 192.0.2.2/24", conf.Name, conf.Addr)
	}
	for _, a := range conf.Extra {
		if !a.Is4() {
			return nil, fmt.Errorf("uplink %s: %v is not an IPv4 address, such as 192.0.2.50", conf.Name, a)
		}
	}
	u := &Raw{
		conf: conf, inbound: inbound, ready: make(chan struct{}),
		neighbours: arp.NewTableOf(maxNeighbours),
		claims:     make([]arp.Claim, 1+len(conf.Extra)),
	}
	if conf.DHCP {
		c := dhcp.Config{MAC: conf.MAC, Seed: rand.Uint64()}
		if conf.SharedMAC {
			c.ID = append([]byte{0}, "fairlead-"+conf.Name...) // type 0: a name
		}
		u.client = dhcp.NewClient(c)
	}
	u.facts.Store(&facts{mtu: conf.MTU})
	return u, nil
}

// Ready is closed once it is known whether all addresses of the configuration
// are ours: 300 ms after the first Tick. One that comes by DHCP takes as long as
// the server does.
func (u *Raw) Ready() <-chan struct{} { return u.ready }

// A probe is a question whether an address is free on the segment.
type probe struct {
	addr  netip.Addr
	claim arp.Claim
	told  chan error
}

// Probe asks whether a station of the segment has an address, which is not the
// uplink's. Within 300 ms of the next Tick, for which the caller wakes the
// switch, it is told who has it, or nil.
func (u *Raw) Probe(addr netip.Addr) <-chan error {
	p := &probe{addr: addr, told: make(chan error, 1)}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.probes = append(u.probes, p)
	return p.told
}

// Network is the number of the uplink's segment, Name what people call it.
func (u *Raw) Network() packet.NetworkID { return u.conf.Network }
func (u *Raw) Name() string              { return u.conf.Name }

// MAC is the uplink's address on its segment.
func (u *Raw) MAC() packet.MAC { return u.conf.MAC }

// MTU is that of the segment: as configured, or less if the lease says so.
func (u *Raw) MTU() int { return u.facts.Load().mtu }

// Addr is the address packets leave with; the zero Addr while there is none.
func (u *Raw) Addr() packet.Addr { return u.facts.Load().addr }

// Owns reports whether an address is the uplink's, the further ones included.
func (u *Raw) Owns(a packet.Addr) bool { return slices.Contains(u.facts.Load().owned, a) }

// Subnet is what is reached without a router. It contains nothing while there is
// no address.
func (u *Raw) Subnet() netip.Prefix { return u.facts.Load().subnet }

// NextHop is the router for the rest; the zero Addr is none.
func (u *Raw) NextHop() packet.Addr { return u.facts.Load().nextHop }

// Routes are the destinations the uplink is for; none is everything. The slice
// is not to be changed.
func (u *Raw) Routes() []netip.Prefix { return u.conf.Routes }

// Resolve fills in how a packet gets to a station of the segment: Egress and
// MACs; or it has the packet wait and the station be asked for; or refuses it as
// unreachable. It changes nothing but d.
func (u *Raw) Resolve(f *packet.Frame, hop packet.Addr, d *packet.Decision) {
	if !u.facts.Load().reaches(hop) {
		d.RefuseCopy(packet.HostUnreachable)
		return
	}
	addr := [4]byte(hop[12:])
	u.mu.Lock()
	e, state := u.neighbours.Resolve(f.Time, addr)
	if state == arp.Unknown && !u.neighbours.MayAsk(f.Container) {
		state = arp.Failed // it would wait for an answer to nothing
	}
	u.mu.Unlock()
	switch state {
	case arp.Failed:
		d.RefuseCopy(packet.HostUnreachable)
		return
	case arp.Unknown, arp.Incomplete:
		if d.Verdict != packet.Flood {
			d.Verdict, d.Reason, d.HoldKey = packet.Hold, packet.NextHop, packet.ARPKey(u.conf.Network, addr)
		}
	default:
		d.SrcMAC, d.DstMAC, d.Egress = u.conf.MAC, e.MAC, packet.Place{Network: u.conf.Network, Port: e.Port}
	}
	if (state == arp.Unknown || state == arp.Stale) && d.Originate == packet.OriginNone {
		d.Originate, d.To = packet.OriginARPRequest, packet.Place{Network: u.conf.Network}
	}
}

// reaches reports whether hop is a station of the segment other than us.
func (k *facts) reaches(hop packet.Addr) bool {
	if k.addr == (packet.Addr{}) || !hop.Is4() || slices.Contains(k.owned, hop) {
		return false
	}
	if hop == k.nextHop {
		return true // in whatever subnet: some providers lend a single address
	}
	a := hop.Netip()
	if !k.subnet.Contains(a) {
		return false
	}
	// First and last address of a subnet are no station's (RFC 1122 3.3.6, RFC
	// 3021): a directed broadcast is not passed on (RFC 2644).
	host := uint32(1)<<(32-k.subnet.Bits()) - 1
	bits := be32(hop) & host
	return k.subnet.Bits() >= 31 || bits != 0 && bits != host
}

func be32(a packet.Addr) uint32 {
	return uint32(a[12])<<24 | uint32(a[13])<<16 | uint32(a[14])<<8 | uint32(a[15])
}

// Ask applies an OriginARPRequest of Resolve, for d.NextHop.
func (u *Raw) Ask(f *packet.Frame, d *packet.Decision, out packet.Out) {
	addr := [4]byte(d.NextHop[12:])
	u.mu.Lock()
	next, ok := u.neighbours.Asked(f.Time, addr, f.Container)
	u.mu.Unlock()
	if ok {
		u.ask(addr, out)
		out.Wake(u.conf.Network, next)
	}
}

// ask sends an ARP request.
func (u *Raw) ask(addr [4]byte, out packet.Out) {
	self := u.Addr()
	u.originate(arp.Request(out.Room(), u.conf.MAC, [4]byte(self[12:]), addr), out)
}

// originate sends n bytes of out's room to the segment: all ports it has, which
// is one.
func (u *Raw) originate(n int, out packet.Out) {
	out.Originate(packet.Place{Network: u.conf.Network}, n)
}
