package nat

import (
	"slices"
	"time"

	"fairlead/packet"
)

// The model is the table as a textbook has it: maps and lists that are searched
// from the beginning, no index, no wheel, no pools. It says what has to become of
// a packet; where the table may choose (a free port, which flow goes when there
// is no room), it says whether the choice was right.
type model struct {
	config        Config
	share, common int   // of ports, per uplink address and protocol
	waiting       int   // records of ended flows a container may have
	now           int64 // the last that Commit or Expire was told

	flows   map[modelKey]*modelFlow // by both keys
	list    []*modelFlow
	maps    []*modelMapping
	rules   []Rule
	retired map[packet.ContainerID]int // not recycled
	told    []uint32                   // the flows whose end an uplink has to hear of
}

type modelKey struct {
	scope packet.NetworkID
	tuple packet.Tuple
}

type modelFlow struct {
	number    uint32
	keys      [2]modelKey
	kind      packet.NATKind
	rule      uint32
	container packet.ContainerID
	inward    bool
	toMapping bool
	hidden    packet.Hidden
	mapping   *modelMapping

	last           int64 // of either direction
	heard          [2]bool
	ack, fin, rst  [2]bool
	packets, bytes [2]uint64
}

type modelMapping struct {
	endpoint
	port    uint16
	primary bool
	flows   int
}

func newModel(c Config) *model {
	return &model{config: c, flows: make(map[modelKey]*modelFlow), retired: make(map[packet.ContainerID]int)}
}

// find is Find, with the direction.
func (m *model) find(k modelKey, now int64, flags uint8) (*modelFlow, int) {
	f := m.flows[k]
	if f == nil || m.expired(f, now) || k.tuple.Proto == packet.ProtoTCP && flags&0x17 == packet.TCPSyn && f.over(k) {
		return nil, 0
	}
	if f.keys[0] == k {
		return f, 0
	}
	return f, 1
}

func (m *model) seen(f *modelFlow, dir int, now int64, packets, bytes int, flags uint8) {
	f.last = max(f.last, now/granule*granule)
	f.heard[dir] = true
	f.packets[dir] += uint64(packets)
	f.bytes[dir] += uint64(bytes)
	if r := m.rule(f.rule); r != nil {
		r.Packets += uint64(packets)
		r.Bytes += uint64(bytes)
	}
	if f.keys[0].tuple.Proto == packet.ProtoTCP {
		f.ack[dir] = f.ack[dir] || flags&packet.TCPAck != 0 && flags&packet.TCPSyn == 0
		f.fin[dir] = f.fin[dir] || flags&packet.TCPFin != 0
		f.rst[dir] = flags&packet.TCPRst != 0
	}
}

// tcpState has conntrack's names.
func (f *modelFlow) tcpState() string {
	switch {
	case f.rst[0] || f.rst[1]:
		return "CLOSE"
	case f.fin[0] && f.fin[1]:
		return "TIME_WAIT"
	case !f.heard[1]:
		return "SYN_SENT"
	case f.fin[0] || f.fin[1]:
		return "FIN_WAIT"
	case !f.ack[0]:
		return "SYN_RECV"
	}
	return "ESTABLISHED"
}

// over reports whether a connection of TCP is one no more, for a SYN: both sides
// have closed it, or it was reset and the SYN is from who began it. Of a flow that is
// kept the uplink says so.
func (f *modelFlow) over(k modelKey) bool {
	return f.fin[0] && f.fin[1] || (f.rst[0] || f.rst[1]) && f.keys[0] == k && !f.kept()
}

// kept reports whether the flow crosses the uplink that keeps flows.
func (f *modelFlow) kept() bool { return f.keys[0].scope == lan2 || f.keys[1].scope == lan2 }

func (m *model) deadline(f *modelFlow) int64 {
	t, port := m.config.Timeouts, f.keys[0].tuple.DstPort
	if f.kept() && f.keys[0].tuple.Proto == packet.ProtoTCP &&
		slices.Contains([]string{"SYN_RECV", "ESTABLISHED", "FIN_WAIT"}, f.tcpState()) {
		return Never
	}
	var life time.Duration
	switch f.keys[0].tuple.Proto {
	case packet.ProtoTCP:
		if life = t.TCPTransitory; f.tcpState() == "ESTABLISHED" {
			life = t.TCPEstablished
		}
	case packet.ProtoUDP:
		switch {
		case port == 53 && f.heard[1]:
			life = t.DNS
		case port < 1024:
			life = t.UDPWellKnown
		default:
			life = t.UDP
		}
	case packet.ProtoICMP, packet.ProtoICMPv6:
		life = t.ICMP
	default:
		life = t.Other
	}
	return f.last + granule + int64(life)
}

func (m *model) expired(f *modelFlow, now int64) bool { return now > m.deadline(f) }

// replaceable flows are none to a packet that begins something, expendable ones
// may go if need be.
func (m *model) replaceable(f *modelFlow, k modelKey) bool { return f.over(k) || m.expired(f, m.now) }

// counts reports whether a flow is one to a packet of another.
func (m *model) counts(f *modelFlow) bool { return !m.replaceable(f, modelKey{}) }

func (m *model) expendable(f *modelFlow) bool {
	if f.inward && !f.toMapping && f.keys[0].tuple.Proto != packet.ProtoTCP {
		return true
	}
	meant := f.packets[0] > 1
	if f.keys[0].tuple.Proto == packet.ProtoTCP {
		meant = f.ack[0]
	}
	return !f.heard[1] || !meant || f.rst[0] || f.rst[1] || m.replaceable(f, f.keys[0])
}

// A modelPlan is what the table should plan. With anyPort it may choose the
// source port.
type modelPlan struct {
	packet.Translation
	anyPort bool
	port    uint16 // preferred, 0 for none
	source  *endpoint
	mapping *modelMapping
	target  *modelMapping // that the packet is sent to
	inward  bool
}

func (m *model) plan(q question) (modelPlan, packet.Reason) {
	p := modelPlan{Translation: packet.Translation{New: true, Container: q.container,
		In: q.scope, Out: q.uplink, Before: q.tuple, After: q.tuple}}
	if q.direction != track && isICMP(q.tuple.Proto) && q.tuple.DstPort != 0 {
		return p, packet.NoFlow
	}
	reason := packet.OK
	switch q.direction {
	case out:
		reason = m.planSource(&p, q)
	case in:
		p.inward = true
		reason = m.planDestination(&p, q, q.scope, q.tuple.Src)
		p.mapping = p.target
		if as, why := (modelOwner{}).Hide(p.Out, p.Container, q.tuple.Src); reason == packet.OK && q.scope == lan2 && why != packet.HiddenNot {
			p.After.Src, p.Hidden = as, why
		}
		if reason == packet.OK && m.taken(&p, q) {
			if p.anyPort = true; p.Hidden == packet.HiddenNot {
				p.Hidden = packet.HiddenPortTaken
			}
			if !hasPorts(q.tuple.Proto) {
				reason = packet.PortsExhausted
			}
		}
	case hairpin:
		from := q.outside
		if r := m.own(q.scope, q.tuple.Src, q.uplink); r != nil {
			from = r.Outside
		}
		if reason = m.planDestination(&p, q, q.uplink, from); reason == packet.OK {
			rule := p.Rule
			as, why := (modelOwner{}).Hide(p.Out, p.Container, from)
			if p.Container = q.container; q.uplink == lan2 && why != packet.HiddenNot {
				p.After.Src, p.Hidden = as, why
				if m.taken(&p, q) {
					p.anyPort = true
					if !hasPorts(q.tuple.Proto) {
						reason = packet.PortsExhausted
					}
				}
			} else {
				reason = m.planSource(&p, q)
			}
			p.Kind, p.Rule = packet.NATHairpin, rule
		}
	case redirect:
		p.After.Dst, p.After.DstPort = q.to, q.port
		reason = m.planSource(&p, q)
		p.Kind, p.Rule = packet.NATRedirect, 0
	case track:
		if m.taken(&p, q) {
			reason = packet.NotTranslatable
		}
	}
	if reason == packet.OK {
		reason = m.admits(&p, q)
	}
	return p, reason
}

func (m *model) planSource(p *modelPlan, q question) packet.Reason {
	if r := m.own(q.scope, q.tuple.Src, q.uplink); r != nil {
		p.Kind, p.Rule, p.After.Src = packet.NATOneToOne, r.Number, r.Outside
		if m.taken(p, q) {
			p.anyPort = true
			if !hasPorts(q.tuple.Proto) {
				return packet.PortsExhausted
			}
		}
		return packet.OK
	}
	if m.planPublished(p, q) {
		return packet.OK
	}
	if !hasPorts(q.tuple.Proto) {
		return packet.NotTranslatable
	}
	if q.outside == (packet.Addr{}) {
		return packet.NoRoute
	}
	p.Kind, p.After.Src = packet.NATMasquerade, q.outside
	for _, r := range m.rules {
		if r.Kind == packet.NATMasquerade && r.Network == q.scope && r.Uplink == q.uplink {
			p.Rule = r.Number
		}
	}
	e := endpoint{q.scope, q.container, q.tuple.Src, q.tuple.SrcPort, q.tuple.Proto, q.uplink, q.outside}
	if x := m.primary(e); x != nil {
		p.After.SrcPort = x.port
		if !m.taken(p, q) {
			p.mapping = x
			return packet.OK
		}
		p.After.SrcPort = q.tuple.SrcPort
	}
	if !m.hasPort(e) {
		return packet.PortsExhausted
	}
	p.source, p.anyPort = &e, true
	if p.After.SrcPort = e.port; m.usable(p, q, e.port) {
		p.port = e.port
	}
	return packet.OK
}

func (m *model) planDestination(p *modelPlan, q question, uplink packet.NetworkID, from packet.Addr) packet.Reason {
	k := q.tuple
	port := m.publishedAt(k.Dst, k.Proto, k.DstPort)
	publish := func() packet.Reason {
		p.Kind, p.Rule, p.Out, p.Container = packet.NATPublish, port.Number, port.Network, port.Container
		p.After.Dst, p.After.DstPort = port.Inside, port.InsidePort
		return packet.OK
	}
	if port != nil && port.Outside == k.Dst {
		return publish()
	}
	for _, r := range m.rules {
		if r.Kind == packet.NATOneToOne && r.Uplink == uplink && r.Outside == k.Dst {
			p.Kind, p.Rule, p.Out, p.Container, p.After.Dst = packet.NATOneToOne, r.Number, r.Network, r.Container, r.Inside
			return packet.OK
		}
	}
	if port != nil {
		return publish()
	}
	x := m.mappingAt(uplink, k.Dst, k.Proto, k.DstPort)
	if x == nil || q.direction == hairpin && uplink == lan2 {
		return packet.Refused
	}
	talks := func(f *modelFlow) bool {
		remote := f.keys[0].tuple.Dst
		if f.inward {
			remote = f.keys[0].tuple.Src
		}
		return f.mapping == x && remote == from && m.counts(f)
	}
	if x.network != q.scope && !slices.ContainsFunc(m.list, talks) {
		return packet.Filtered
	}
	p.Kind, p.Out, p.Container, p.target, p.ToMapping = packet.NATMasquerade, x.network, x.container, x, true
	for _, r := range m.rules {
		if r.Kind == packet.NATMasquerade && r.Network == x.network && r.Uplink == x.uplink {
			p.Rule = r.Number
		}
	}
	p.After.Dst, p.After.DstPort = x.addr, x.endpoint.port
	return packet.OK
}

// taken reports whether answers would be taken for another flow's.
func (m *model) taken(p *modelPlan, q question) bool {
	f := m.flows[modelKey{p.Out, p.After.Reverse()}]
	if (modelKey{p.Out, p.After.Reverse()} == modelKey{q.scope, q.tuple}) {
		return true
	}
	return f != nil && m.counts(f) && f.keys[0] != modelKey{q.scope, q.tuple}
}

// usable reports whether a new mapping may have a port.
func (m *model) usable(p *modelPlan, q question, port uint16) bool {
	e, t := p.source, *p
	t.After.SrcPort = port
	return int(port) >= firstPort(e.proto) && m.mappingAt(e.uplink, e.outside, e.proto, port) == nil &&
		m.publishedAt(e.outside, e.proto, port) == nil && !m.taken(&t, q)
}

// hasPort reports whether a container may have one more port of a pool.
func (m *model) hasPort(e endpoint) bool {
	held := map[packet.ContainerID]int{}
	for _, x := range m.maps {
		if x.uplink == e.uplink && x.outside == e.outside && x.proto == e.proto {
			held[x.container]++
		}
	}
	borrowed := 0
	for _, n := range held {
		borrowed += max(n-m.share, 0)
	}
	ports := map[uint16]bool{}
	for _, r := range m.rules {
		// A mapping that was there first keeps its port, and it is counted as that.
		if r.Kind == packet.NATPublish && r.Proto == e.proto && int(r.OutsidePort) >= firstPort(e.proto) &&
			m.publishedAt(e.outside, e.proto, r.OutsidePort) != nil &&
			m.mappingAt(e.uplink, e.outside, e.proto, r.OutsidePort) == nil {
			ports[r.OutsidePort] = true
		}
	}
	return held[e.container] < m.share || borrowed < m.common-len(ports)
}

// make takes in a flow the table has made, with the tuple it chose.
func (m *model) make(p modelPlan, q question, after packet.Tuple) *modelFlow {
	f := &modelFlow{kind: p.Kind, hidden: p.Hidden, rule: p.Rule, container: p.Container, inward: p.inward, toMapping: p.ToMapping, mapping: p.mapping,
		keys: [2]modelKey{{q.scope, q.tuple}, {p.Out, after.Reverse()}}, last: m.now / granule * granule}
	if p.source != nil {
		f.mapping = &modelMapping{endpoint: *p.source, port: after.SrcPort, primary: m.primary(*p.source) == nil}
		m.maps = append(m.maps, f.mapping)
	}
	if f.mapping != nil {
		f.mapping.flows++
	}
	if r := m.rule(f.rule); r != nil {
		r.Flows++
	}
	m.flows[f.keys[0]], m.flows[f.keys[1]] = f, f
	m.list = append(m.list, f)
	return f
}

func (m *model) end(f *modelFlow) {
	delete(m.flows, f.keys[0])
	delete(m.flows, f.keys[1])
	m.list = slices.DeleteFunc(m.list, func(x *modelFlow) bool { return x == f })
	if f.mapping != nil {
		if f.mapping.flows--; f.mapping.flows == 0 {
			m.maps = slices.DeleteFunc(m.maps, func(x *modelMapping) bool { return x == f.mapping })
		}
	}
	m.retired[f.container]++
	if f.kept() {
		m.told = append(m.told, f.number)
	}
}

func (m *model) rule(number uint32) *Rule {
	for i := range m.rules {
		if m.rules[i].Number == number {
			return &m.rules[i]
		}
	}
	return nil
}

// own is the one-to-one rule of an inside address.
func (m *model) own(network packet.NetworkID, inside packet.Addr, uplink packet.NetworkID) *Rule {
	for i, r := range m.rules {
		if r.Kind == packet.NATOneToOne && r.Network == network && r.Inside == inside && r.Uplink == uplink {
			return &m.rules[i]
		}
	}
	return nil
}

func (m *model) publishedAt(a packet.Addr, proto packet.Proto, port uint16) (found *Rule) {
	for i, r := range m.rules {
		if r.Kind == packet.NATPublish && r.Proto == proto && r.OutsidePort == port &&
			(r.Outside == a || r.Outside == anyOf(a)) && (found == nil || r.Outside == a) {
			found = &m.rules[i]
		}
	}
	return found
}

func (m *model) primary(e endpoint) *modelMapping {
	for _, x := range m.maps {
		if x.primary && x.endpoint == e {
			return x
		}
	}
	return nil
}

func (m *model) mappingAt(uplink packet.NetworkID, outside packet.Addr, proto packet.Proto, port uint16) *modelMapping {
	for _, x := range m.maps {
		if x.uplink == uplink && x.outside == outside && x.proto == proto && x.port == port {
			return x
		}
	}
	return nil
}
