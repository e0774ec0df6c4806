package gateway

import (
	"net/netip"
	"slices"
	"time"

	"fairlead/nat"
	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/policy"
)

// The model is the router as a textbook has it: maps and lists that are
// searched from their start, headers read by gopacket, checksums summed anew. It
// says what has to become of a frame and which bytes have to arrive where; the
// differential test (modelrun_test.go) compares. What it cannot know, which port
// is given to a connection that cannot keep its own, it is told, and says whether
// that is allowed.
type model struct {
	w      *town
	links  map[packet.NetworkID]*modelLink
	flows  map[modelKey]*modelFlow // by both of its keys
	maps   []*modelMapping
	rules  []nat.Rule
	pieces map[pieceKey]pieceEntry // fragments
	syns   []*modelSYN
	held   []modelHeld
	rates  map[packet.Place]*bucket
	clock  int64 // the last time the table of flows was told

	busy     map[packet.Reason]int // questions there was no room for
	resumes  []uint64
	outcomes []outcome
	sent     map[*end][]expected
}

// A modelLink is a side of the router.
type modelLink struct {
	side    *side
	addr    netip.Addr // the router's
	subnet  netip.Prefix
	extra   netip.Addr
	mtu     int
	uplink  bool
	keeps   bool // host sockets
	nextHop netip.Addr
	routes  []netip.Prefix
	ways    []packet.NetworkID // of a network: its uplinks

	// Of a network as well: what its gateway is told.
	internal, hostLoopback bool
	routed                 bool
	egress, own            *policy.Egress // own is that of its one container
	services               *modelServices
	hostLink               *end
	answers                []modelAnswer // that Tick has to send

	neighbours map[netip.Addr]modelNeighbour
	asked      map[netip.Addr]*modelQuestion
}

type modelNeighbour struct {
	mac  packet.MAC
	end  *end
	seen int64
}

type modelQuestion struct {
	asks   int
	due    int64
	failed bool
}

func (l *modelLink) network() packet.NetworkID { return l.side.network }
func (l *modelLink) owns(a netip.Addr) bool    { return a == l.addr || l.uplink && a == l.extra }

// An outcome is what the model expects of one decision.
type outcome struct {
	verdict packet.Verdict
	reason  packet.Reason
	answer  packet.Origin
}

// expected is a packet that has to arrive, finished; in fragments of mtu if that
// is not zero, its segments of gso bytes.
type expected struct {
	b        []byte
	mtu, gso int
}

type modelKey struct {
	scope packet.NetworkID
	tuple packet.Tuple
}

type modelFlow struct {
	from, to     packet.NetworkID
	fwd, answers packet.Tuple
	rule         uint32
	container    packet.ContainerID
	mapping      *modelMapping
	kept         bool // crosses host sockets

	last                  [2]int64
	heard, ack, fin, dead [2]bool
}

type modelMapping struct {
	network   packet.NetworkID
	container packet.ContainerID
	inside    packet.Addr
	port      uint16
	proto     packet.Proto
	uplink    packet.NetworkID
	outside   packet.Addr

	at      uint16 // the outside port
	primary bool
	flows   []*modelFlow
}

type pieceKey struct {
	scope    packet.NetworkID
	src, dst packet.Addr
	id       uint16
	proto    packet.Proto
}

type pieceEntry struct {
	src, dst uint16
	until    int64
}

type modelSYN struct {
	d   *dissected
	due int64
}

type modelHeld struct {
	key uint64
	in  *end
	b   []byte
}

// A bucket counts tokens in nanoseconds of its own refilling.
type bucket struct{ level, last int64 }

func (b *bucket) allows(now int64) bool {
	b.level, b.last = min(errorsBurst*1e9/errorsPerSecond, b.level+now-b.last), now
	return b.level >= 1e9/errorsPerSecond
}

// The life of flows.

func (f *modelFlow) open() bool {
	if f.fwd.Proto != packet.ProtoTCP {
		return f.heard[1]
	}
	return f.heard[1] && f.ack[0] && !f.fin[0] && !f.fin[1] && !f.dead[0] && !f.dead[1]
}

func (f *modelFlow) expired(now int64) bool { return now > f.deadline() }

func (f *modelFlow) deadline() int64 {
	if f.lasts() {
		return nat.Never
	}
	open := f.open()
	var timeout time.Duration
	switch port := f.fwd.DstPort; {
	case f.fwd.Proto == packet.ProtoTCP && open:
		timeout = 7440 * time.Second
	case f.fwd.Proto == packet.ProtoTCP:
		timeout = 240 * time.Second
	case f.fwd.Proto == packet.ProtoUDP && port == 53 && open:
		timeout = 10 * time.Second
	case f.fwd.Proto == packet.ProtoUDP && port < 1024:
		timeout = 30 * time.Second
	case f.fwd.Proto == packet.ProtoUDP:
		timeout = 300 * time.Second
	case f.fwd.Proto == packet.ProtoICMP:
		timeout = 60 * time.Second
	default:
		timeout = 600 * time.Second
	}
	return max(f.last[0], f.last[1]) + eighth + int64(timeout)
}

// eighth of a second is how exactly a flow knows its times.
const eighth = 1 << 27

// seen takes a packet into its flow.
func (m *model) seen(f *modelFlow, reply bool, d *dissected) {
	i := 0
	if reply {
		i = 1
	}
	f.last[i] = max(m.w.now, f.last[i]) &^ (eighth - 1)
	f.heard[i] = true
	if f.fwd.Proto == packet.ProtoTCP {
		f.dead[i] = d.tcp != nil && d.tcp.RST
		if d.tcp != nil {
			f.ack[i] = f.ack[i] || d.tcp.ACK && !d.tcp.SYN
			f.fin[i] = f.fin[i] || d.tcp.FIN
		}
	}
}

// silent takes down a SYN that is answered in six seconds.
func (m *model) silent(d *dissected) {
	same := 0
	for _, s := range m.syns {
		if s.due != 0 && s.d.link == d.link && s.d.tuple.Src == d.tuple.Src {
			same++
			if s.d.tuple == d.tuple || same == 16 {
				return
			}
		}
	}
	if len(m.syns) < 256 && len(d.frame) <= 152 {
		m.syns = append(m.syns, &modelSYN{d, m.w.now + 6e9})
	}
}

// over reports whether a SYN in a direction begins another connection.
func (f *modelFlow) over(reply bool) bool {
	return f.fin[0] && f.fin[1] || (f.dead[0] || f.dead[1]) && !reply && !f.kept
}

// countsNoMore is what a flow is to others.
func (m *model) countsNoMore(f *modelFlow) bool { return f.over(true) || f.expired(m.clock) }

// find is the flow of a tuple, and whether it is in the direction of answers.
func (m *model) find(scope packet.NetworkID, k packet.Tuple, begins bool, now int64) (*modelFlow, bool) {
	f := m.flows[modelKey{scope, k}]
	if f == nil || f.expired(now) {
		return nil, false
	}
	reply := !(f.from == scope && f.fwd == k)
	if begins && f.over(reply) {
		return nil, false
	}
	return f, reply
}

func (m *model) end(f *modelFlow) {
	delete(m.flows, modelKey{f.from, f.fwd})
	delete(m.flows, modelKey{f.to, f.answers})
	if x := f.mapping; x != nil {
		x.flows = slices.DeleteFunc(x.flows, func(o *modelFlow) bool { return o == f })
		if len(x.flows) == 0 {
			m.maps = slices.DeleteFunc(m.maps, func(o *modelMapping) bool { return o == x })
		}
	}
}

func (m *model) endAll(gone func(*modelFlow) bool) {
	for _, f := range m.flows {
		if gone(f) {
			m.end(f)
		}
	}
}

// A modelPlan is a flow to be.
type modelPlan struct {
	to       packet.NetworkID
	answers  packet.Tuple // its Dst port is a guess if chosen
	rule     uint32
	owner    packet.ContainerID
	mapping  *modelMapping // the one it uses
	make     *modelMapping // or the one to be made
	chosen   bool          // a port had to be found
	redirect bool
	original uint16
}

// plan says where a packet that begins something goes.
func (m *model) plan(d *dissected, k packet.Tuple) (*modelPlan, packet.Reason) {
	p := &modelPlan{owner: d.in.port.Config().Container}
	if k.Proto == packet.ProtoICMP && k.DstPort != 0 {
		return nil, packet.NoFlow
	}
	if d.in == m.w.machine {
		return m.planFromHost(d, k)
	}
	if d.link.uplink {
		return p, m.planIn(p, d.link, k)
	}
	if own := m.ownerOf(d.link, k.Dst.Netip()); own != nil {
		if own == d.link {
			return m.planAtGateway(p, d, k)
		}
		if p, reason := m.planHairpin(p, d, k, own); reason != packet.Refused || !own.keeps {
			return p, reason
		}
		p = &modelPlan{owner: d.in.port.Config().Container, to: own.network()} // it is the host's as well
		return p, m.source(p, d, k, own, k.Dst, k.DstPort)
	}
	if other := m.otherNetwork(d.link, k.Dst.Netip()); other != nil {
		p.to, p.answers = other.network(), k.Reverse()
		if m.taken(p, d.link.network(), k) {
			return p, packet.NotTranslatable
		}
		return p, packet.OK
	}
	up := m.lookup(d.link, k.Dst.Netip())
	if up == nil {
		return p, packet.NoRoute
	}
	p.to = up.network()
	return p, m.source(p, d, k, up, k.Dst, k.DstPort)
}

func (m *model) planIn(p *modelPlan, up *modelLink, k packet.Tuple) packet.Reason {
	dst, dport, reason := m.destination(p, up.network(), up.network(), k, k.Src)
	if reason != packet.OK {
		return reason
	}
	if p.mapping != nil {
		p.owner = p.mapping.container
	}
	p.answers = packet.Tuple{Src: dst, SrcPort: dport, Dst: k.Src, DstPort: k.SrcPort, Proto: k.Proto}
	if as, hidden := m.hide(p.to, k.Src); up.keeps && hidden {
		p.answers.Dst = as
	}
	return m.keep(p, up.network(), k)
}

// keep leaves the source port as it is, if that can be.
func (m *model) keep(p *modelPlan, scope packet.NetworkID, k packet.Tuple) packet.Reason {
	if p.chosen = m.taken(p, scope, k); p.chosen && !hasPorts(k.Proto) {
		return packet.PortsExhausted
	}
	return packet.OK
}

// source fills in what a container's packet looks like to who answers it.
func (m *model) source(p *modelPlan, d *dissected, k packet.Tuple, up *modelLink, dst packet.Addr, dport uint16) packet.Reason {
	p.answers = packet.Tuple{Src: dst, SrcPort: dport, Dst: packet.AddrFromNetip(up.addr), DstPort: k.SrcPort, Proto: k.Proto}
	if r := m.oneToOne(d.link.network(), k.Src, up.network()); r != nil {
		p.answers.Dst, p.rule = r.Outside, r.Number
		return m.keep(p, d.link.network(), k)
	}
	if m.fromPublished(p, d, k, up) {
		return packet.OK
	}
	if !hasPorts(k.Proto) {
		return packet.NotTranslatable
	}
	p.make = &modelMapping{network: d.link.network(), container: d.in.port.Config().Container, inside: k.Src, port: k.SrcPort, proto: k.Proto,
		uplink: up.network(), outside: packet.AddrFromNetip(up.addr)}
	p.make.primary = true
	for _, x := range m.maps {
		if x.primary && x.sameEndpoint(p.make) {
			p.answers.DstPort = x.at
			if !m.taken(p, d.link.network(), k) {
				p.mapping, p.make = x, nil
				return packet.OK
			}
			p.make.primary = false
		}
	}
	p.answers.DstPort = k.SrcPort
	least := uint16(1024)
	if k.Proto == packet.ProtoICMP {
		least = 1
	}
	p.original = k.SrcPort
	p.chosen = k.SrcPort < least || !m.free(p.make, k.SrcPort) || m.taken(p, d.link.network(), k)
	return packet.OK
}

func (x *modelMapping) sameEndpoint(y *modelMapping) bool {
	return x.network == y.network && x.container == y.container && x.inside == y.inside && x.port == y.port &&
		x.proto == y.proto && x.uplink == y.uplink && x.outside == y.outside
}

// free reports whether nobody has an outside port.
func (m *model) free(want *modelMapping, port uint16) bool {
	return m.published(want.outside, want.proto, port) == nil && m.mappingAt(want.uplink, want.outside, want.proto, port) == nil
}

func (m *model) mappingAt(uplink packet.NetworkID, outside packet.Addr, proto packet.Proto, port uint16) *modelMapping {
	for _, x := range m.maps {
		if x.uplink == uplink && x.outside == outside && x.proto == proto && x.at == port {
			return x
		}
	}
	return nil
}

func (m *model) published(a packet.Addr, proto packet.Proto, port uint16) (found *nat.Rule) {
	for i, r := range m.rules {
		if r.Kind == packet.NATPublish && r.Proto == proto && r.OutsidePort == port &&
			(r.Outside == a || r.Outside == packet.AddrFrom4([4]byte{}) && found == nil) {
			found = &m.rules[i]
		}
	}
	return found
}

func (m *model) oneToOne(n packet.NetworkID, inside packet.Addr, uplink packet.NetworkID) *nat.Rule {
	for i, r := range m.rules {
		if r.Kind == packet.NATOneToOne && r.Network == n && r.Inside == inside && r.Uplink == uplink {
			return &m.rules[i]
		}
	}
	return nil
}

// destination finds who is meant by an address of ours. Within a network nobody
// is filtered.
func (m *model) destination(p *modelPlan, scope, uplink packet.NetworkID, k packet.Tuple, from packet.Addr) (packet.Addr, uint16, packet.Reason) {
	port := m.published(k.Dst, k.Proto, k.DstPort)
	for _, r := range m.rules {
		if port != nil && port.Outside == k.Dst {
			break // nothing is more specific
		}
		if r.Kind == packet.NATOneToOne && r.Uplink == uplink && r.Outside == k.Dst {
			p.to, p.rule, p.owner = r.Network, r.Number, r.Container
			return r.Inside, k.DstPort, packet.OK
		}
	}
	if port != nil {
		p.to, p.rule, p.owner = port.Network, port.Number, port.Container
		return port.Inside, port.InsidePort, packet.OK
	}
	x := m.mappingAt(uplink, k.Dst, k.Proto, k.DstPort)
	if x == nil || scope != uplink && m.links[uplink].keeps {
		return packet.Addr{}, 0, packet.Refused
	}
	for _, f := range x.flows {
		remote := f.fwd.Dst
		if m.links[f.from].uplink {
			remote = f.fwd.Src
		}
		if remote == from && !m.countsNoMore(f) || x.network == scope {
			p.to, p.mapping = x.network, x
			return x.inside, x.port, packet.OK
		}
	}
	return packet.Addr{}, 0, packet.Filtered
}

// taken reports whether the answers would be taken for those of another flow.
func (m *model) taken(p *modelPlan, scope packet.NetworkID, k packet.Tuple) bool {
	if p.to == scope && p.answers == k {
		return true // its own questions
	}
	f := m.flows[modelKey{p.to, p.answers}]
	return f != nil && !m.countsNoMore(f) && !(f.from == scope && f.fwd == k)
}

// ownerOf is the side whose address a is, as a network sees it; nil if it is
// none of ours.
func (m *model) ownerOf(l *modelLink, a netip.Addr) *modelLink {
	if a == l.addr {
		return l
	}
	for _, n := range l.ways {
		if m.links[n].owns(a) {
			return m.links[n]
		}
	}
	return nil
}

// lookup is the uplink with the most specific route.
func (m *model) lookup(l *modelLink, a netip.Addr) (best *modelLink) {
	bits := -1
	for _, n := range l.ways {
		up := m.links[n]
		routes := append([]netip.Prefix{up.subnet}, up.routes...)
		if len(up.routes) == 0 {
			routes = append(routes, everything)
		}
		for _, r := range routes {
			if r.Contains(a) && r.Bits() > bits {
				best, bits = up, r.Bits()
			}
		}
	}
	return best
}

// station is the router as a side knows it, with one of its addresses.
func (l *modelLink) station(a netip.Addr) packettest.Station {
	return packettest.Station{MAC: l.side.MAC(), IP: a}
}
