package nat

import "fairlead/packet"

// A Plan is a flow that does not exist yet: what Commit will make for the packet
// that begins it. Planning changes nothing, and the same question in the same
// state of the table gets the same answer.
type Plan struct {
	// Translation is that of the first packet, with New set.
	packet.Translation

	question question
	source   endpoint // who needs a mapping; proto 0 if nobody
	mapping  uint32   // the one it has; 0 and a port if it is to be made
	target   uint32   // the mapping the packet is sent to, if that is how it is let in
	port     uint16
	inward   bool
}

// A question is what a plan answers. Commit asks it again.
type question struct {
	direction direction
	scope     packet.NetworkID
	container packet.ContainerID
	tuple     packet.Tuple
	uplink    packet.NetworkID // or, for track, where the packet goes
	outside   packet.Addr

	to   packet.Addr // of redirect
	port uint16
}

type direction uint8

const (
	out direction = iota
	in
	hairpin
	redirect
	track
	leave
	fromHost
)

// PlanOut plans the flow of a packet that a container sends from network scope
// by way of an uplink whose address is outside: translated one-to-one if its
// source has an outside address there, else masqueraded. The packet must be one
// that begins something: of TCP a SYN, of ICMP an echo request.
func (t *Table) PlanOut(scope packet.NetworkID, c packet.ContainerID, k packet.Tuple,
	uplink packet.NetworkID, outside packet.Addr) (Plan, packet.Reason) {
	return t.plan(&question{direction: out, scope: scope, container: c, tuple: k, uplink: uplink, outside: outside})
}

// PlanIn plans the flow of a packet that came in on an uplink for one of our
// addresses there: to a published port, to the container that has the address
// one-to-one, or to a mapping that its sender may use. Refused means that nobody
// has the port, Filtered that the mapping's container does not talk to the
// sender.
func (t *Table) PlanIn(uplink packet.NetworkID, k packet.Tuple) (Plan, packet.Reason) {
	return t.plan(&question{direction: in, scope: uplink, tuple: k})
}

// PlanHairpin plans the flow of a packet that a container sends from network
// scope to an address of ours: its destination is found as PlanIn finds it, and
// its source becomes what the world would see (RFC 4787 REQ-9), at that uplink
// and outside address. Where there is no uplink, the gateway's address and the
// network itself do as well.
func (t *Table) PlanHairpin(scope packet.NetworkID, c packet.ContainerID, k packet.Tuple,
	uplink packet.NetworkID, outside packet.Addr) (Plan, packet.Reason) {
	return t.plan(&question{direction: hairpin, scope: scope, container: c, tuple: k, uplink: uplink, outside: outside})
}

// PlanRedirect plans the flow of a packet that a container sends to a port which
// leads to another address by way of an uplink: both are translated, the source
// as by PlanOut.
func (t *Table) PlanRedirect(scope packet.NetworkID, c packet.ContainerID, k packet.Tuple,
	uplink packet.NetworkID, outside, to packet.Addr, port uint16) (Plan, packet.Reason) {
	return t.plan(&question{redirect, scope, c, k, uplink, outside, to, port})
}

// PlanTrack plans a flow that is not translated, from one segment to another or
// within one.
func (t *Table) PlanTrack(scope packet.NetworkID, c packet.ContainerID, k packet.Tuple,
	to packet.NetworkID) (Plan, packet.Reason) {
	return t.plan(&question{direction: track, scope: scope, container: c, tuple: k, uplink: to})
}

// PlanLeave plans the flow of a packet that leaves by an uplink as it is: the
// network it comes from is not masqueraded. Only a container with an outside
// address of its own there has that one.
func (t *Table) PlanLeave(scope packet.NetworkID, c packet.ContainerID, k packet.Tuple,
	uplink packet.NetworkID) (Plan, packet.Reason) {
	return t.plan(&question{direction: leave, scope: scope, container: c, tuple: k, uplink: uplink})
}

// PlanHost plans the flow of a packet that the host sends to container c by a link
// of its own on network scope. It is not translated, but for another source port
// where the container has a flow already that began like this one: a client from
// outside that sees it from the host's address (packet.Hidden), or a hairpin.
func (t *Table) PlanHost(scope packet.NetworkID, c packet.ContainerID, k packet.Tuple) (Plan, packet.Reason) {
	return t.plan(&question{direction: fromHost, scope: scope, container: c, tuple: k, uplink: scope})
}

func (t *Table) plan(q *question) (Plan, packet.Reason) {
	p := Plan{
		Translation: packet.Translation{New: true, Container: q.container,
			In: q.scope, Before: q.tuple, Out: q.uplink, After: q.tuple},
		question: *q,
	}
	if q.direction != track && isICMP(q.tuple.Proto) && q.tuple.DstPort != 0 {
		return p, packet.NoFlow // an echo reply begins nothing
	}
	reason := packet.OK
	switch q.direction {
	case out:
		reason = t.planSource(&p)
	case in:
		p.inward = true
		if reason = t.planDestination(&p, q.scope, q.tuple.Src); reason == packet.OK {
			p.mapping, p.Container = p.target, t.ownerOf(&p)
			reason = t.planClient(&p, t.keeps[q.scope])
		}
	case hairpin:
		seenFrom := q.outside
		if r := t.rules.outsideOf(q.scope, q.tuple.Src, q.uplink); r != nil {
			seenFrom = r.Outside
		}
		if reason = t.planDestination(&p, q.uplink, seenFrom); reason == packet.OK {
			rule := p.Rule
			reason = t.planHairpinSource(&p, seenFrom)
			p.Kind, p.Rule = packet.NATHairpin, rule
		}
	case redirect:
		p.After.Dst, p.After.DstPort = q.to, q.port
		reason = t.planSource(&p)
		p.Kind, p.Rule = packet.NATRedirect, 0
	case leave:
		if r := t.rules.outsideOf(q.scope, q.tuple.Src, q.uplink); r != nil {
			reason = t.planSource(&p)
			break
		}
		fallthrough
	case track:
		if t.taken(&p) {
			reason = packet.NotTranslatable
		}
	case fromHost:
		p.inward = true
		reason = t.planClient(&p, false)
	}
	if reason == packet.OK {
		reason = t.admits(&p)
	}
	return p, reason
}

func isICMP(p packet.Proto) bool { return p == packet.ProtoICMP || p == packet.ProtoICMPv6 }

// hasPorts reports whether a protocol can be masqueraded.
func hasPorts(p packet.Proto) bool {
	return p == packet.ProtoTCP || p == packet.ProtoUDP || isICMP(p)
}

// planClient decides what a container sees of a client from outside: its own
// address and port, if that can be.
func (t *Table) planClient(p *Plan, hide bool) packet.Reason {
	if hide {
		if as, why := t.owner.Hide(p.Out, p.Container, p.After.Src); why != packet.HiddenNot {
			p.After.Src, p.Hidden = as, why
		}
	}
	reason := t.keepSource(p)
	if p.After.SrcPort != p.Before.SrcPort && p.Hidden == packet.HiddenNot {
		p.Hidden = packet.HiddenPortTaken
	}
	return reason
}

// planHairpinSource has a container be seen by another as by the world, unless
// that one's answer would not find back.
func (t *Table) planHairpinSource(p *Plan, seenFrom packet.Addr) packet.Reason {
	if q := &p.question; t.keeps[q.uplink] {
		if as, why := t.owner.Hide(p.Out, t.ownerOf(p), seenFrom); why != packet.HiddenNot {
			p.After.Src, p.Hidden = as, why
			return t.keepSource(p)
		}
	}
	return t.planSource(p)
}

// planSource gives the packet the source the world sees.
func (t *Table) planSource(p *Plan) packet.Reason {
	q := &p.question
	if r := t.rules.outsideOf(q.scope, q.tuple.Src, q.uplink); r != nil {
		p.Kind, p.Rule = packet.NATOneToOne, r.Number
		p.After.Src = r.Outside
		return t.keepSource(p)
	}
	if t.planPublished(p) {
		return packet.OK
	}
	if !hasPorts(q.tuple.Proto) {
		return packet.NotTranslatable
	}
	if q.outside == (packet.Addr{}) {
		return packet.NoRoute // the uplink has no address yet
	}
	p.Kind = packet.NATMasquerade
	p.Rule = t.rules.masquerade[[2]packet.NetworkID{q.scope, q.uplink}]
	p.After.Src = q.outside
	p.source = endpoint{q.scope, q.container, q.tuple.Src, q.tuple.SrcPort, q.tuple.Proto, q.uplink, q.outside}
	if n := t.findMapping(&p.source); n != 0 {
		p.After.SrcPort = t.maps.at(n).outsidePort
		if !t.taken(p) {
			p.mapping = n
			return packet.OK
		}
	}
	port, ok := t.choosePort(&p.source, func(port uint16) bool {
		p.After.SrcPort = port
		return !t.taken(p)
	})
	if !ok {
		return packet.PortsExhausted
	}
	p.port, p.After.SrcPort = port, port
	return packet.OK
}

// planPublished gives a datagram that a container sends from a published port the
// source at which it is published: who is reached there answers from there.
func (t *Table) planPublished(p *Plan) bool {
	q := &p.question
	if q.tuple.Proto != packet.ProtoUDP || q.direction == redirect {
		return false
	}
	for _, r := range t.rules.inner[innerKey{q.scope, q.tuple.Src, q.tuple.SrcPort}] {
		p.After.Src, p.After.SrcPort = r.Outside, r.OutsidePort
		if r.Outside == anyOf(r.Outside) {
			p.After.Src = q.outside
		} else if !t.owner.Owns(q.uplink, r.Outside) {
			continue
		}
		if p.After.Src != (packet.Addr{}) && !t.taken(p) {
			p.Kind, p.Rule = packet.NATPublish, r.Number
			return true
		}
	}
	p.After.Src, p.After.SrcPort = q.tuple.Src, q.tuple.SrcPort
	return false
}

// planDestination finds who is meant by an address of ours, seen from that
// uplink by a sender the world sees as from.
func (t *Table) planDestination(p *Plan, uplink packet.NetworkID, from packet.Addr) packet.Reason {
	k := &p.question.tuple
	// The most specific rule: a port of this very address, the address, a port of
	// all addresses.
	port, own := t.rules.publishedAt(k.Dst, k.Proto, k.DstPort), t.rules.insideOf(uplink, k.Dst)
	switch {
	case port != nil && (own == nil || port.Outside == k.Dst):
		p.Kind, p.Rule, p.Out = packet.NATPublish, port.Number, port.Network
		p.After.Dst, p.After.DstPort = port.Inside, port.InsidePort
		return packet.OK
	case own != nil:
		p.Kind, p.Rule, p.Out = packet.NATOneToOne, own.Number, own.Network
		p.After.Dst = own.Inside
		return packet.OK
	}
	pool := t.maps.pools[poolKey{uplink, k.Dst, k.Proto}]
	if p.question.direction == hairpin && t.keeps[uplink] {
		pool = nil // the ports of mappings mean nothing there: sockets have others
	}
	if pool == nil || pool.owner[k.DstPort] == 0 || pool.owner[k.DstPort] == published {
		return packet.Refused
	}
	n := pool.owner[k.DstPort]
	m := t.maps.at(n)
	// A hairpin within one network is let through: those two can talk anyway,
	// and of two that open a way to each other at our address the first packet
	// could never be let through otherwise (RFC 4787 REQ-9).
	if m.network != p.question.scope && !t.talksTo(n, from) {
		return packet.Filtered
	}
	p.Kind, p.Out = packet.NATMasquerade, m.network
	p.Rule = t.rules.masquerade[[2]packet.NetworkID{m.network, m.uplink}]
	p.After.Dst, p.After.DstPort = m.inside, m.insidePort
	p.target, p.ToMapping = n, true
	return packet.OK
}

// ownerOf is whom an inward flow is for.
func (t *Table) ownerOf(p *Plan) packet.ContainerID {
	if p.target != 0 {
		return t.maps.at(p.target).container
	}
	return t.rules.at(p.Rule).Container
}

// sourceTries is how many other source ports are tried for a client; Linux tries
// 128 too (nf_nat_core.c, NF_NAT_MAX_ATTEMPTS).
const sourceTries = 128

// keepSource leaves the source port as it is, unless the container already has
// a flow with that very client at that port, by another address of ours: then
// the client gets another port.
func (t *Table) keepSource(p *Plan) packet.Reason {
	if !t.taken(p) {
		return packet.OK
	}
	if !hasPorts(p.Before.Proto) {
		return packet.PortsExhausted
	}
	h := t.hash(p.question.scope, &p.Before)
	for i := range uint64(sourceTries) {
		p.After.SrcPort = uint16(1024 + (h+i)%(1<<16-1024))
		if !t.taken(p) {
			return packet.OK
		}
	}
	return packet.PortsExhausted
}

// taken reports whether the answers of the planned flow would be taken for those
// of another that is still going on, or for its own questions.
func (t *Table) taken(p *Plan) bool {
	answers := p.After.Reverse()
	if p.Out == p.In && answers == p.Before {
		return true
	}
	ref, _ := t.lookup(p.Out, &answers)
	return ref != 0 && t.counts(ref) && !t.begunBy(ref, &p.question)
}

// replaceable reports whether a flow that is still in the table is none to a
// packet that begins something in direction dir.
func (t *Table) replaceable(ref uint32, dir int) bool {
	b := t.body(ref)
	return b.over(dir) || t.expired(b, t.forwardPort(ref), t.now)
}

// counts reports whether a flow is one to flows that have other questions: for
// them a RST says nothing.
func (t *Table) counts(ref uint32) bool { return !t.replaceable(ref, 1) }

// replaces reports whether the planned flow takes the place of one of the same
// container that had the same questions.
func (t *Table) replaces(p *Plan) bool {
	ref, dir := t.lookup(p.In, &p.Before)
	return ref != 0 && t.replaceable(ref, dir) && t.body(ref).container == p.Container
}

// begunBy reports whether a flow began with the same packet.
func (t *Table) begunBy(ref uint32, q *question) bool {
	scope, k := t.key(ref, 0)
	return scope == q.scope && k == q.tuple
}
