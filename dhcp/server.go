package dhcp

import (
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"fairlead/packet"
)

// Times of a server.
const (
	DefaultLease = time.Hour
	LeastLease   = 2 * time.Minute
	Forever      = time.Duration(forever)

	offerTime   = 30 * second // that an offered address waits for its station
	declineTime = 600 * second
	probeTime   = second / 2 // in which who has an address says so
)

// Bounds of a server. A container that sends for many stations has a quarter of
// the addresses and no more than maxPerContainer; a cable to a real network, which
// is no container's, has what is left.
const (
	maxLeases       = 4096
	maxPerContainer = 64
	// What a station declines may not keep it from another address.
	leastPerContainer = 2
	maxTries          = 8192 // addresses that are looked at for one station
)

// A ServerConfig says what a server lends and what it tells of the network.
type ServerConfig struct {
	Server netip.Prefix // its own address, with the length of the subnet
	Router netip.Addr   // the zero Addr: none is told
	DNS    []netip.Addr
	Domain string
	Search []string
	MTU    int
	Routes []Route       // beside the router
	Lease  time.Duration // 0 is DefaultLease, Forever has no end

	// First and Last bound what is lent to stations without a reservation; zero
	// is the subnet, from its end, half of which is left to containers.
	First, Last netip.Addr
	Hosts       []Host
}

// A Route is a static route that stations are told (RFC 3442).
type Route struct {
	Prefix netip.Prefix
	Via    netip.Addr
}

// A Host is a station that always gets the same address: the one with MAC, or
// with the client identifier ID.
type Host struct {
	MAC  packet.MAC
	ID   string // its bytes
	Addr netip.Addr
	Name string
}

// A Segment is what a server knows of its network.
type Segment interface {
	// Take reserves an address of the subnet, unless somebody has it; Give gives it
	// back.
	Take(a netip.Addr) bool
	Give(a netip.Addr)
	// Probe asks on the segment who has an address, and Holder says who has
	// answered.
	Probe(a netip.Addr)
	Holder(a netip.Addr) (packet.MAC, bool)
}

// A Station is who sent a message, as far as its port tells.
type Station struct {
	Container packet.ContainerID // 0 when the port is no container's
	MAC       packet.MAC         // of its frame
	Addr      netip.Addr         // the source of its packet
	Fixed     netip.Addr         // what it has without us, as containers do; it is offered that
	Name      string             // of what is Fixed
}

// A Reply is a message to a station: the payload of a datagram from ServerPort to
// ClientPort.
type Reply struct {
	Payload []byte
	MAC     packet.MAC
	Addr    netip.Addr
}

// A Server lends addresses of one network (RFC 2131 4.3). It is the only one
// there: it refuses what it has not lent, and it takes no messages of relays,
// because nobody has to go beyond the segment to reach it.
//
// It is bounded by maxLeases, in which each container has a share. Who is refused
// hears nothing, and asks again.
type Server struct {
	conf    ServerConfig
	segment Segment

	leases   map[identity]*lease
	byAddr   map[netip.Addr]*lease // those that hold an address of the subnet
	reserved map[netip.Addr]*Host
	held     map[packet.ContainerID]int // how many addresses are whose
	next     netip.Addr                 // where the search for a free address goes on
	due      int64                      // when Tick has something to do; 0 is never
	stats    ServerStats
	changes  uint64
}

// ServerStats counts messages, and what became of them.
type ServerStats struct {
	Discover, Request, Decline, Release, Inform uint64 // heard
	Offer, Ack, Nak                             uint64 // said
	Ignored                                     uint64 // of relays, of other servers' clients, malformed
	Exhausted                                   uint64 // no address was left
	Conflicts                                   uint64 // addresses that somebody has who did not get them here
}

// NewServer returns a server that has lent nothing yet and has no reservations:
// Configure makes them.
func NewServer(conf ServerConfig, segment Segment) *Server {
	conf.Hosts = nil
	s := &Server{segment: segment, leases: make(map[identity]*lease), byAddr: make(map[netip.Addr]*lease),
		reserved: make(map[netip.Addr]*Host), held: make(map[packet.ContainerID]int)}
	s.configure(conf)
	return s
}

// Configure has it lend and tell something else from now on. Leases stay until
// they are to be renewed. It returns the hosts whose address somebody has already,
// and who get another one until they are reserved again.
func (s *Server) Configure(conf ServerConfig) (taken []Host) {
	for a := range s.reserved {
		if s.byAddr[a] == nil {
			s.segment.Give(a)
		}
	}
	clear(s.reserved)
	s.configure(conf)
	for i := range conf.Hosts {
		h := &conf.Hosts[i]
		if s.reserved[h.Addr] == nil && s.isHost(h.Addr) && (s.byAddr[h.Addr] != nil || s.segment.Take(h.Addr)) {
			s.reserved[h.Addr] = h
		} else {
			taken = append(taken, *h)
		}
	}
	return taken
}

func (s *Server) configure(conf ServerConfig) {
	if conf.Lease == 0 {
		conf.Lease = DefaultLease
	}
	conf.Hosts = slices.Clone(conf.Hosts)
	s.conf, s.next = conf, netip.Addr{}
}

// Stats returns the counters.
func (s *Server) Stats() ServerStats { return s.stats }

// Receive takes what a station sent: the payload of a datagram to ServerPort,
// borrowed for the call. What there is to say is given to reply, now or by a
// later Tick, once at most.
func (s *Server) Receive(now int64, from Station, b []byte, reply func(Reply)) {
	m := s.parse(&from, b)
	if m == nil {
		s.stats.Ignored++
		return
	}
	s.expire(now)
	x := &exchange{s: s, now: now, from: &from, m: m, reply: reply}
	switch m.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		s.stats.Discover++
		x.discover()
	case dhcpv4.MessageTypeRequest:
		s.stats.Request++
		x.request()
	case dhcpv4.MessageTypeDecline:
		s.stats.Decline++
		x.decline()
	case dhcpv4.MessageTypeRelease:
		s.stats.Release++
		x.release()
	case dhcpv4.MessageTypeInform:
		s.stats.Inform++
		x.inform()
	default:
		s.stats.Ignored++
	}
}

// Tick does what is due and returns when it is to be called again; zero is after
// the next Receive.
func (s *Server) Tick(now int64) (due int64) {
	s.expire(now)
	return s.due
}

// parse reads a message of the station itself, nil when it is none.
func (s *Server) parse(from *Station, b []byte) *dhcpv4.DHCPv4 {
	if len(b) > maxMessage || len(b) == 0 || b[opAt] != byte(dhcpv4.OpcodeBootRequest) {
		return nil
	}
	m, err := dhcpv4.FromBytes(b)
	if err != nil || m.HWType != iana.HWTypeEthernet || len(m.ClientHWAddr) != len(from.MAC) || [6]byte(m.ClientHWAddr) != from.MAC ||
		!m.GatewayIPAddr.IsUnspecified() || from.MAC.IsGroup() || from.MAC.IsZero() {
		return nil
	}
	return m
}

// An exchange is one message and what is done about it.
type exchange struct {
	s     *Server
	now   int64
	from  *Station
	m     *dhcpv4.DHCPv4
	reply func(Reply)
}

// discover offers an address (RFC 2131 4.3.1), once it is known that nobody else
// has it.
func (x *exchange) discover() {
	s := x.s
	if x.from.Fixed.IsValid() {
		x.offer(x.from.Fixed)
		return
	}
	l := s.leaseOf(x)
	if l == nil || !s.choose(x, l) {
		s.stats.Exhausted++
		if l != nil && !l.addr.IsValid() {
			delete(s.leases, l.id)
		}
		return
	}
	switch l.state {
	case leaseProbing:
		l.waiting = x // instead of what it said before
		return
	case leaseOffered:
		s.set(l, leaseOffered, x.now+offerTime)
	}
	x.offer(l.addr)
}

// offer says that the station may have an address; or that it has it, to one that
// would not ask again (RFC 4039).
func (x *exchange) offer(a netip.Addr) {
	if x.m.Options.Has(rapidCommit) {
		x.grant(a)
		return
	}
	x.s.stats.Offer++
	x.say(dhcpv4.MessageTypeOffer, a)
}

// grant lends the station an address, and says so.
func (x *exchange) grant(a netip.Addr) {
	s := x.s
	s.bind(x, a)
	s.stats.Ack++
	x.say(dhcpv4.MessageTypeAck, a)
}

// request lends what was asked for (RFC 2131 4.3.2): by a station that takes an
// offer, that has come back, or that has the address and wants to keep it.
func (x *exchange) request() {
	s := x.s
	chosen := station(x.m.ServerIdentifier())
	if x.m.Options.Has(dhcpv4.OptionServerIdentifier) && chosen != s.conf.Server.Addr() {
		s.forget(x) // it takes another server's offer
		s.stats.Ignored++
		return
	}
	want := station(x.m.ClientIPAddr)
	if !want.IsValid() {
		want = station(x.m.RequestedIPAddress())
	}
	if !want.IsValid() {
		s.stats.Ignored++
		return
	}
	if s.mayHave(x, want, chosen.IsValid()) {
		x.grant(want)
		return
	}
	s.stats.Nak++
	x.say(dhcpv4.MessageTypeNak, netip.Addr{})
}

// decline takes an address out of use that somebody else has (RFC 2131 4.3.3).
// What is Fixed stays: there is no other.
func (x *exchange) decline() {
	s := x.s
	l := s.leases[x.identity()]
	if l == nil || l.state != leaseOffered && l.state != leaseBound || l.fixed() || l.addr != station(x.m.RequestedIPAddress()) ||
		station(x.m.ServerIdentifier()) != s.conf.Server.Addr() {
		s.stats.Ignored++
		return
	}
	s.quarantine(l, x.now, l.id.container)
}

// release takes an address back (RFC 2131 4.3.4). Who had it gets it again as long
// as nobody else does.
func (x *exchange) release() {
	s := x.s
	l := s.leases[x.identity()]
	if l == nil || l.state != leaseBound || l.addr != station(x.m.ClientIPAddr) {
		s.stats.Ignored++
		return
	}
	s.release(l)
}

// inform tells a station of the network that has an address already (RFC 2131
// 4.3.5).
func (x *exchange) inform() {
	s := x.s
	if a := station(x.m.ClientIPAddr); !a.IsValid() || !s.conf.Server.Masked().Contains(a) {
		s.stats.Ignored++
		return
	}
	s.stats.Ack++
	x.say(dhcpv4.MessageTypeAck, netip.Addr{})
}
