package gateway

import (
	"slices"

	"encoding/binary"
	"net/netip"

	"github.com/google/gopacket/layers"

	"fairlead/nat"
	"fairlead/packet"
	"fairlead/packet/packettest"
)

// frame takes one frame through the model, and what it lets go on.
func (m *model) frame(in *end, b []byte) {
	m.one(in, b, false)
	m.goOn()
}

// goOn takes the frames through that have waited for something that came.
func (m *model) goOn() {
	for len(m.resumes) > 0 {
		key := m.resumes[len(m.resumes)-1]
		m.resumes = m.resumes[:len(m.resumes)-1]
		var ready, rest []modelHeld
		for _, h := range m.held {
			if h.key == key {
				ready = append(ready, h)
			} else {
				rest = append(rest, h)
			}
		}
		m.held = rest
		for _, h := range ready {
			m.one(h.in, h.b, true)
		}
	}
}

func (m *model) one(in *end, b []byte, again bool) {
	d := m.dissect(in, b)
	d.again = again
	switch {
	case d.eth.EthernetType == layers.EthernetTypeARP && in == m.w.machine:
		m.says(packet.Flood, packet.ToGroup, 0)
		m.toOthers(d)
	case d.eth.EthernetType == layers.EthernetTypeARP:
		m.arp(d)
	case d.ip == nil:
		m.says(packet.Drop, packet.NotUnderstood, 0)
	case d.size() > d.link.mtu:
		m.says(packet.Drop, packet.Oversize, 0) // the switch's
	case d.eth.DstMAC[0]&1 == 1:
		m.broadcast(d)
	case in == m.w.machine:
		m.fromHostLink(d)
	case d.link.uplink:
		m.fromOutside(d)
	default:
		m.fromInside(d)
	}
}

func (m *model) says(v packet.Verdict, r packet.Reason, a packet.Origin) {
	m.outcomes = append(m.outcomes, outcome{v, r, a})
}

func (m *model) expect(to *end, e expected) { m.sent[to] = append(m.sent[to], e) }

// arp is what the router makes of ARP, to itself or to all.
func (m *model) arp(d *dissected) {
	a := packet.ARP(d.bare[packet.VNetLen+14:])
	l, sender := d.link, netip.AddrFrom4(a.SenderIP())
	group := d.eth.DstMAC[0]&1 == 1
	o := outcome{packet.Gateway, packet.ForGateway, 0}
	if group {
		o = outcome{packet.Flood, packet.ToGroup, 0}
		m.toOthers(d)
	}
	known, state := m.resolve(l, sender)
	forUs := netip.AddrFrom4(a.TargetIP()) == l.addr
	learn := l.uplink || (forUs || state <= staleState) &&
		!(state <= staleState && known.mac == a.SenderMAC() && known.end == d.in && m.w.now-known.seen < 1e9)
	if learn {
		q := l.asked[sender]
		delete(l.asked, sender)
		l.neighbours[sender] = modelNeighbour{a.SenderMAC(), d.in, m.w.now}
		if q != nil && !q.failed {
			m.resumes = append(m.resumes, packet.ARPKey(l.network(), sender.As4()))
		}
	}
	if !l.uplink && forUs && a.Op() == packet.ARPRequest {
		o.answer = packet.OriginARPReply
		m.expect(d.in, expected{b: packettest.ARPReply(l.station(l.addr), packettest.Station{MAC: a.SenderMAC(), IP: sender})})
	}
	if !group && forUs && a.Op() == packet.ARPReply && l.hostLink != nil {
		o = outcome{packet.Unicast, packet.ForHost, 0}
		m.expect(l.hostLink, expected{b: d.frame})
	}
	m.outcomes = append(m.outcomes, o)
}

// toOthers is what everybody hears.
func (m *model) toOthers(d *dissected) {
	for _, e := range m.w.ends {
		if e.side == d.in.side && e != d.in && (e != m.w.machine || !d.asksForGateway()) {
			m.expect(e, expected{b: d.frame})
		}
	}
}

// How much is known of a neighbour.
const (
	reachableState = iota
	staleState
	incompleteState
	failedState
	unknownState
)

func (m *model) resolve(l *modelLink, a netip.Addr) (modelNeighbour, int) {
	n, known := l.neighbours[a]
	q := l.asked[a]
	switch age := m.w.now - n.seen; {
	case known && (age <= 60e9 || age <= 300e9 && q != nil):
		return n, reachableState
	case known && age <= 300e9:
		return n, staleState
	case q == nil:
		return n, unknownState
	case !q.failed:
		return n, incompleteState
	case m.w.now < q.due:
		return n, failedState
	}
	return n, unknownState
}

func (m *model) ask(l *modelLink, a netip.Addr, to *end) {
	l.asked[a] = &modelQuestion{asks: 1, due: m.w.now + 1e9}
	m.askOnce(l, a, to)
}

func (m *model) askOnce(l *modelLink, a netip.Addr, to *end) {
	for _, e := range m.w.ends {
		if e.side == l.side && e != m.w.machine && (to == nil || e == to) {
			m.expect(e, expected{b: packettest.ARPRequest(l.station(l.addr), a)})
		}
	}
}

// martian reports whether no router may act on such an address.
func martian(a netip.Addr) bool {
	return a.IsLoopback() || a.As4()[0] == 0 || a.As4()[0] >= 224
}

func (m *model) fromInside(d *dissected) {
	l, broadcast := d.link, Broadcast(d.link.subnet)
	ping := d.isEcho() || d.later && d.tuple.Proto == packet.ProtoICMP
	if d.later && l.hostLink != nil { // or it is of an answer to the host
		k, complete := m.ports(d)
		ping = ping && complete && k.DstPort == 0
	}
	switch {
	case martian(d.src()) || martian(d.dst()) || d.dst() == broadcast:
		m.says(packet.Drop, packet.Martian, 0)
		return
	case d.dst() == l.addr && ping:
		m.echo(d)
		return
	case m.services(d):
		return
	case d.ip.TTL <= 1 && m.ownerOf(l, d.dst()) == nil:
		m.refuse(d, packet.TTLExceeded)
		return
	}
	k, complete := m.ports(d)
	if l.subnet.Contains(d.dst()) && m.ownerOf(l, d.dst()) == nil {
		m.pass(d, k, l, nil, nil)
		return
	}
	m.translate(d, k, complete)
}

func (m *model) fromOutside(d *dissected) {
	l := d.link
	switch subnet := l.subnet; {
	case l.keeps:
		for _, a := range []netip.Addr{d.src(), d.dst()} {
			if martian(a) && !a.IsLoopback() {
				m.says(packet.Drop, packet.Martian, 0)
				return
			}
		}
	case martian(d.src()) || martian(d.dst()) || l.owns(d.src()) || d.src() == Broadcast(subnet) || d.src() == subnet.Addr():
		m.says(packet.Drop, packet.Martian, 0)
		return
	case !l.owns(d.dst()):
		m.says(packet.Drop, packet.NotForUs, 0)
		return
	}
	k, complete := m.ports(d)
	m.translate(d, k, complete)
}

// ports is the tuple, with the ports of a later fragment if they are known.
func (m *model) ports(d *dissected) (packet.Tuple, bool) {
	k := d.tuple
	if !d.later || !hasPorts(k.Proto) {
		return k, true
	}
	p, ok := m.pieces[d.piece()]
	if !ok || p.until <= m.w.now {
		return k, false
	}
	k.SrcPort, k.DstPort = p.src, p.dst
	return k, true
}

func (d *dissected) piece() pieceKey {
	return pieceKey{d.link.network(), d.tuple.Src, d.tuple.Dst, d.ip.Id, d.tuple.Proto}
}

// translate finds the flow or begins one, and goes on from there.
func (m *model) translate(d *dissected, k packet.Tuple, complete bool) {
	n := d.link.network()
	if complete && d.isError() {
		if about := quotedTuple(d); about != nil && (d.link.uplink || about.Dst == d.tuple.Src) {
			if f, reply := m.find(n, about.Reverse(), false, m.w.now); f != nil {
				m.routed(d, k, f, reply, about)
				return
			}
		}
	}
	if complete && !d.otherICMP() {
		if f, reply := m.find(n, k, d.begins(), m.w.now); f != nil {
			m.routed(d, k, f, reply, nil)
			return
		}
	}
	other := m.otherNetwork(d.link, d.dst())
	if other != nil && !(d.link.routed && other.routed && d.dst() != other.addr && d.dst() != other.subnet.Addr() && d.dst() != Broadcast(other.subnet)) {
		m.says(packet.Drop, packet.OtherNetwork, 0)
		return
	}
	if complete && !m.mayLeave(d, k) {
		m.refuse(d, packet.EgressDenied)
		return
	}
	if !d.link.uplink && other == nil && m.ownerOf(d.link, d.dst()) == nil && m.lookup(d.link, d.dst()) == nil {
		m.refuse(d, packet.NoRoute)
		return
	}
	switch {
	case !complete && d.again:
		m.refuse(d, packet.FragmentOrphan)
	case !complete:
		m.hold(d, m.w.fragmentKey(d), packet.FirstFragment, 0)
	case d.isError():
		m.refuse(d, packet.BadQuote)
	case d.otherICMP():
		m.says(packet.Drop, packet.NotTranslatable, 0)
	case k.Proto == packet.ProtoTCP && !d.begins(), k.Proto == packet.ProtoICMP && (!d.isEcho() && !d.later || k.DstPort != 0):
		m.refuse(d, packet.NoFlow)
	default:
		p, reason := m.plan(d, k)
		switch {
		case reason == packet.OK:
			to := p.answers.Reverse()
			m.leave(d, k, m.links[p.to], &packet.Tuple{Src: to.Src, Dst: to.Dst, SrcPort: to.SrcPort, DstPort: to.DstPort, Proto: k.Proto}, nil, p, nil, false)
		case reason == packet.Refused && (d.isEcho() || d.later && k.Proto == packet.ProtoICMP):
			m.echo(d)
		default:
			m.refuse(d, reason)
			if reason == packet.Filtered && d.tcp != nil {
				m.silent(d)
			}
		}
	}
}

// otherNetwork is the network an address is on that a container of another sends
// to; nil if it is none.
func (m *model) otherNetwork(l *modelLink, a netip.Addr) *modelLink {
	if l.uplink || m.ownerOf(l, a) != nil {
		return nil
	}
	for _, other := range m.links {
		if other != l && !other.uplink && other.subnet.Contains(a) {
			return other
		}
	}
	return nil
}

// quotedTuple is that of the packet an error quotes, nil when it says nothing.
func quotedTuple(d *dissected) *packet.Tuple {
	q := d.icmp.Payload
	if len(q) < 28 || d.first || (d.icmp.TypeCode.Type() != 3 && d.icmp.TypeCode.Type() != 11 && d.icmp.TypeCode.Type() != 12) {
		return nil
	}
	inner := quote(q)
	t := &packet.Tuple{Src: packet.AddrFrom4([4]byte(q[12:16])), Dst: packet.AddrFrom4([4]byte(q[16:20])), Proto: packet.Proto(q[9])}
	switch {
	case t.Src != d.tuple.Dst:
		return nil
	case t.Proto == packet.ProtoICMP && q[20] == packet.ICMPEcho:
		t.SrcPort = binary.BigEndian.Uint16(inner[4:])
	case t.Proto == packet.ProtoICMP && q[20] == packet.ICMPEchoReply:
		t.DstPort = binary.BigEndian.Uint16(inner[4:])
	case t.Proto == packet.ProtoICMP:
		return nil
	case hasPorts(t.Proto):
		t.SrcPort, t.DstPort = binary.BigEndian.Uint16(inner), binary.BigEndian.Uint16(inner[2:])
	}
	return t
}

// quote is the transport part of a quoted packet without options.
func quote(q []byte) []byte { return q[20:] }

// routed is the way of a packet of a flow, or of an error about it.
func (m *model) routed(d *dissected, k packet.Tuple, f *modelFlow, reply bool, about *packet.Tuple) {
	out, after := f.to, f.answers.Reverse()
	if reply {
		out, after = f.from, f.fwd.Reverse()
	}
	if about != nil {
		after = after.Reverse()
	}
	m.leave(d, k, m.links[out], &after, about, nil, f, reply)
}

func (m *model) leave(d *dissected, k packet.Tuple, out *modelLink, after, about *packet.Tuple, p *modelPlan, f *modelFlow, reply bool) {
	from := after.Src.Netip()
	switch {
	case about == nil:
	case after.Dst != about.Dst:
		from = after.Dst.Netip()
	default:
		from = d.src()
	}
	if d.link.uplink && (from.IsLoopback() || !d.link.keeps && about == nil && out.subnet.Contains(from)) {
		m.says(packet.Drop, packet.Martian, 0)
		return
	}
	commit := func() (packet.Tuple, bool) {
		if p != nil {
			if f = m.commit(d, k); f == nil {
				return *after, false
			}
			*after = f.answers.Reverse()
		}
		if about == nil {
			m.seen(f, reply, d)
		}
		return *after, true
	}
	hop := after.Dst
	if about != nil {
		hop = after.Src
	}
	switch {
	case !out.uplink && hop.Netip() == out.addr:
		m.toHostLink(d, about, commit)
	case d.ip.TTL <= 1:
		m.refuse(d, packet.TTLExceeded)
	default:
		m.pass(d, *after, out, about, commit)
	}
}

// pass is the rest of the way: MTU, next hop, and out.
func (m *model) pass(d *dissected, after packet.Tuple, out *modelLink, about *packet.Tuple, commit func() (packet.Tuple, bool)) {
	if len(d.tags) > 0 {
		m.says(packet.Drop, packet.NotUnderstood, 0)
		return
	}
	e := expected{}
	if d.size() > out.mtu {
		if d.ip.Flags&2 != 0 { // DF
			m.refuseMTU(d, out.mtu)
			return
		}
		e.mtu = out.mtu
		if packet.VNet(d.bare).GSOType() != packet.GSONone {
			e.gso, e.mtu = int(packet.VNet(d.bare).GSOSize())-(d.size()-out.mtu), 0
		}
	}
	hop := after.Dst.Netip()
	if about != nil {
		hop = after.Src.Netip()
	}
	if out.uplink {
		if !out.subnet.Contains(hop) {
			hop = out.nextHop
		} else if hop == Broadcast(out.subnet) || hop == out.subnet.Addr() {
			m.says(packet.Drop, packet.Martian, 0)
			return
		}
	}
	if !out.uplink && hop == out.addr { // nobody else has it
		m.refuse(d, packet.HostUnreachable)
		return
	}
	n, state := m.resolve(out, hop)
	if out.keeps {
		n, state = modelNeighbour{m.w.host.MAC, m.w.host, 0}, reachableState
		begins := false
		if about == nil && !d.otherICMP() {
			k, _ := m.ports(d)
			f, _ := m.find(d.link.network(), k, d.begins(), m.w.now)
			begins = f == nil
		}
		k, _ := m.ports(d)
		if reason := refusedByHost(d.otherICMP(), begins, &k); reason != packet.OK {
			m.refuse(d, reason)
			return
		}
	}
	origin := packet.OriginNone
	var askAt *end
	switch state {
	case failedState:
		m.refuse(d, packet.HostUnreachable)
		return
	case incompleteState, unknownState:
		if state == unknownState {
			origin = packet.OriginARPRequest
		}
		m.hold(d, packet.ARPKey(out.network(), hop.As4()), packet.NextHop, origin)
		if origin != 0 {
			m.ask(out, hop, nil)
		}
		return
	case staleState:
		origin, askAt = packet.OriginARPRequest, n.end
	}
	m.says(packet.Unicast, packet.Routed, origin)
	if d.first {
		m.learnPiece(d)
	}
	ok := true
	if commit != nil {
		after, ok = commit()
	}
	e.b = rewritten(d, after, about, out.side.MAC(), n.mac)
	if origin != 0 {
		m.ask(out, hop, askAt)
	}
	if ok {
		m.expect(n.end, e)
	}
}

func (m *model) learnPiece(d *dissected) {
	if hasPorts(d.tuple.Proto) {
		m.pieces[d.piece()] = pieceEntry{d.tuple.SrcPort, d.tuple.DstPort, m.w.now + 30e9}
	}
	m.resumes = append(m.resumes, m.w.fragmentKey(d))
}

// hold has a frame wait. When it is one too many the oldest goes, of its port
// or of the one that has most.
func (m *model) hold(d *dissected, key uint64, why packet.Reason, origin packet.Origin) {
	if d.again || len(d.frame) > 2048 {
		m.says(packet.Drop, packet.HoldFull, origin)
		return
	}
	m.says(packet.Hold, why, origin)
	of := make(map[*end]int)
	for _, h := range m.held {
		of[h.in]++
	}
	from := d.in
	if of[from] < 64 && len(m.held) == 256 {
		for _, h := range m.held {
			if of[h.in] > of[from] {
				from = h.in
			}
		}
	}
	if of[d.in] == 64 || len(m.held) == 256 {
		i := slices.IndexFunc(m.held, func(h modelHeld) bool { return h.in == from })
		m.held = slices.Delete(m.held, i, i+1)
	}
	m.held = append(m.held, modelHeld{key, d.in, d.frame})
}

// commit makes the flow, as it turned out where that was open. There is none
// when what let it in has ended since the table was told the time.
func (m *model) commit(d *dissected, k packet.Tuple) *modelFlow {
	m.clock = max(m.clock, m.w.now)
	n := d.link.network()
	var p *modelPlan
	for {
		var reason packet.Reason
		if p, reason = m.plan(d, k); reason != packet.OK {
			if reason == packet.Filtered && d.tcp != nil {
				m.silent(d)
			}
			return nil
		}
		if old := m.flows[modelKey{n, k}]; old != nil {
			m.end(old)
			continue
		}
		if p.chosen {
			m.choose(n, k, p)
		}
		in := m.flows[modelKey{p.to, p.answers}]
		if in == nil {
			break
		}
		m.end(in)
	}
	f := &modelFlow{kept: m.links[n].keeps || m.links[p.to].keeps, from: n, to: p.to, fwd: k, answers: p.answers, rule: p.rule, container: p.owner, mapping: p.mapping}
	f.last[0] = m.clock &^ (eighth - 1)
	if p.make != nil {
		p.make.at = p.answers.DstPort
		m.maps = append(m.maps, p.make)
		f.mapping = p.make
	}
	if f.mapping != nil {
		f.mapping.flows = append(f.mapping.flows, f)
	}
	m.flows[modelKey{n, k}] = f
	m.flows[modelKey{p.to, p.answers}] = f
	for _, s := range m.syns {
		if s.d.link.network() == p.to && s.d.tuple == p.answers {
			s.due = 0
		}
	}
	return f
}

// choose takes over the port that was chosen, if it may be.
func (m *model) choose(n packet.NetworkID, k packet.Tuple, p *modelPlan) {
	want := p.answers
	m.w.router.Flows(func(t *nat.Table) {
		for f := range t.Flows {
			if f.From == n && f.Forward == k {
				p.answers = f.Reply
			}
		}
	})
	port := p.answers.DstPort
	want.DstPort = port
	ok := p.answers == want && port >= 1024 && !m.taken(p, n, k)
	if p.make != nil {
		ok = ok && m.free(p.make, port) && port&1 == p.original&1
	}
	if !ok {
		m.w.t.Errorf("%v was given %v, which it may not", k, p.answers)
	}
}
