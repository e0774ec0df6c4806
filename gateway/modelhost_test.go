package gateway

import (
	"net/netip"
	"slices"

	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/policy"
)

// A hostSegment is an uplink that keeps flows: at its one far end are all the
// sockets of the host.
type hostSegment struct {
	*segment
	far packet.MAC
}

const hostNetwork = packet.NetworkID(11)

// addHost joins host sockets, of a host with these addresses.
func (w *world) addHost(addr string, more ...string) (*hostSegment, *side) {
	u := &hostSegment{segment: &segment{network: hostNetwork, mtu: 65535, inbound: w.router.Inbound(hostNetwork),
		mac: packet.MAC{2, 9, 9, 9, 9, byte(hostNetwork)}, addr: netip.PrefixFrom(netip.MustParseAddr(addr), 0)}}
	for _, a := range more {
		u.extra = append(u.extra, addrOf(stationAt(a)))
	}
	w.router.PlugUplink(u)
	return u, w.addSide(hostNetwork, u, u.mtu)
}

func (u *hostSegment) KeepsFlows() bool                                { return true }
func (u *hostSegment) FlowEnded(uint32)                                {}
func (u *hostSegment) Ask(*packet.Frame, *packet.Decision, packet.Out) {}
func (u *hostSegment) Tick(int64, packet.Out)                          {}
func (u *hostSegment) Apply(f *packet.Frame, d *packet.Decision, out packet.Out) {
	u.inbound.Apply(f, d, out)
}

func (u *hostSegment) Route(f *packet.Frame, d *packet.Decision) {
	if f.EtherType == packet.EtherTypeIPv4 {
		u.inbound.Route(f, d)
	} else {
		d.RefuseCopy(packet.NotUnderstood)
	}
}

// Resolve refuses what sockets cannot carry, and whoever has the wrong port: a
// budget is the real one's.
func (u *hostSegment) Resolve(f *packet.Frame, _ packet.Addr, d *packet.Decision) {
	if reason := refusedByHost(isOtherICMP(f), d.NAT.New, &d.NAT.Before); reason != packet.OK {
		d.RefuseCopy(reason)
		return
	}
	d.SrcMAC, d.DstMAC, d.Egress = u.mac, u.far, packet.Place{Network: u.network, Port: u.port}
}

func refusedByHost(otherICMP, begins bool, k *packet.Tuple) packet.Reason {
	switch {
	case otherICMP:
		return packet.NotCarried
	case k.Proto == packet.ProtoICMP && k.SrcPort&1 == 0 && k.DstPort == 0:
		return packet.PingForbidden
	case begins && (k.DstPort == 9999 || k.DstPort == 443):
		return packet.SocketBudget
	}
	return packet.OK
}

// What the model knows of host sockets, policies and names.

var (
	hostAddr = "198.18.7.7"
	hostToo  = "198.18.7.8"
	// allowList is the policy of the third network, of which its container's own is
	// a part.
	allowList = "allow 203.0.113.0/24\nallow 198.18.7.7\nallow 172.19.0.1 8080\nallow 8.8.8.8 80/tcp\nallow 192.0.2.9 53/udp"
	ownList   = "allow 0.0.0.0/0 80\nallow 0.0.0.0/0 53\nallow 203.0.113.5\nallow 198.18.7.7"
)

// modelServices answer at once, unless they are full.
type modelServices struct{ dnsFull, dhcpFull bool }

func (s *modelServices) Query(q Question, reply func([]byte)) bool {
	if s.dnsFull {
		return false
	}
	reply(answerFor(q.Payload))
	return true
}

func (s *modelServices) Message(q Question, reply func(Offer)) bool {
	if s.dhcpFull {
		return false
	}
	to := offeredTo(q.MAC, q.Payload)
	reply(Offer{Payload: answerFor(q.Payload), MAC: to.MAC, Addr: to.IP})
	return true
}

func answerFor(question []byte) []byte { return append([]byte("answer to "), question...) }

// offeredTo is whom DHCP answers: everybody, or who has asked.
func offeredTo(from packet.MAC, message []byte) station {
	if message[0]&1 == 0 {
		return packettest.Broadcast
	}
	return station{MAC: from, IP: netip.AddrFrom4([4]byte{172, 17, 9, message[0]})}
}

// hide is why a container does not see a client as it is, and what it sees.
func (m *model) hide(n packet.NetworkID, client packet.Addr) (as packet.Addr, hidden bool) {
	l, a := m.links[n], client.Netip()
	return packet.AddrFromNetip(l.addr), a.IsLoopback() || l.subnet.Contains(a) || l.internal
}

// planAtGateway is for packets to the gateway's own address.
func (m *model) planAtGateway(p *modelPlan, d *dissected, k packet.Tuple) (*modelPlan, packet.Reason) {
	port := uint16(5353)
	if k.Proto != packet.ProtoTCP || k.DstPort != 53 {
		p, reason := m.planHairpin(p, d, k, d.link)
		if redirects := d.link.hostLoopback && (k.Proto == packet.ProtoTCP || k.Proto == packet.ProtoUDP); reason == packet.Refused && !redirects && d.link.hostLink != nil {
			return m.planToHost(d, k)
		} else if reason != packet.Refused || !redirects {
			return p, reason
		}
		port = k.DstPort
	}
	p = &modelPlan{owner: d.in.port.Config().Container, to: hostNetwork, redirect: true}
	reason := m.source(p, d, k, m.links[hostNetwork], packet.AddrFrom4([4]byte{127, 0, 0, 1}), port)
	p.rule = 0
	return p, reason
}

// planHairpin is for packets to an address of ours.
func (m *model) planHairpin(p *modelPlan, d *dissected, k packet.Tuple, own *modelLink) (*modelPlan, packet.Reason) {
	from := packet.AddrFromNetip(own.addr)
	if r := m.oneToOne(d.link.network(), k.Src, own.network()); r != nil {
		from = r.Outside
	}
	dst, dport, reason := m.destination(p, d.link.network(), own.network(), k, from)
	if reason != packet.OK {
		return p, reason
	}
	rule := p.rule
	p.mapping, p.owner = nil, d.in.port.Config().Container
	if as, hidden := m.hide(p.to, from); own.keeps && hidden {
		p.answers = packet.Tuple{Src: dst, SrcPort: dport, Dst: as, DstPort: k.SrcPort, Proto: k.Proto}
		return p, m.keep(p, d.link.network(), k)
	}
	reason = m.source(p, d, k, own, dst, dport)
	p.rule = rule
	return p, reason
}

// fromPublished is for datagrams from a published port: they leave at the port
// it is published at.
func (m *model) fromPublished(p *modelPlan, d *dissected, k packet.Tuple, up *modelLink) bool {
	for _, r := range m.rules {
		if p.redirect || k.Proto != packet.ProtoUDP || r.Kind != packet.NATPublish || r.Proto != k.Proto || r.Network != d.link.network() ||
			r.Inside != k.Src || r.InsidePort != k.SrcPort {
			continue
		}
		planned := *p
		planned.answers.DstPort, planned.rule = r.OutsidePort, r.Number
		if r.Outside != packet.AddrFrom4([4]byte{}) {
			if planned.answers.Dst = r.Outside; !up.uplink || !up.owns(r.Outside.Netip()) {
				continue
			}
		}
		if !m.taken(&planned, d.link.network(), k) {
			*p = planned
			return true
		}
	}
	return false
}

// mayLeave is step 5.3.
func (m *model) mayLeave(d *dissected, k packet.Tuple) bool {
	l := d.link
	begins := k.Proto != packet.ProtoICMP && k.Proto != packet.ProtoTCP || d.begins() ||
		k.Proto == packet.ProtoICMP && (d.isEcho() || d.later) && k.DstPort == 0
	if l.uplink || !begins || l.egress == nil && l.own == nil ||
		k.Dst.Netip() == l.addr && k.DstPort == 53 && (k.Proto == packet.ProtoTCP || k.Proto == packet.ProtoUDP) {
		return true
	}
	for _, e := range []*policy.Egress{l.own, l.egress} {
		if e == nil {
			continue
		}
		if _, ok := e.Check(k.Dst, k.DstPort, k.Proto, m.w.now); !ok {
			return false
		}
	}
	return true
}

// services is what becomes of a question to the gateway; false if it is none.
func (m *model) services(d *dissected) bool {
	l := d.link
	if l.services == nil || d.dst() != l.addr || d.udp == nil || d.udp.DstPort != 53 && d.udp.DstPort != 67 {
		return false
	}
	full, reason := l.services.dnsFull, packet.DNSBusy
	if d.udp.DstPort == 67 {
		full, reason = l.services.dhcpFull, packet.DHCPBusy
	}
	switch {
	case d.first || len(d.frame)-packet.VNetLen > maxQuestion:
		m.says(packet.Drop, packet.NotUnderstood, 0)
	case full && len(d.ip.Payload) > 8:
		m.says(packet.Gateway, packet.ForGateway, 0)
		m.busy[reason]++ // when it is applied
	default:
		m.says(packet.Gateway, packet.ForGateway, 0)
		m.answerLater(d)
	}
	return true
}

// broadcast is what everybody hears, and the gateway if it is for DHCP.
func (m *model) broadcast(d *dissected) {
	m.says(packet.Flood, packet.ToGroup, 0)
	m.toOthers(d)
	if s := d.link.services; d.in != m.w.machine && s != nil && !s.dhcpFull && d.udp != nil && d.udp.DstPort == 67 && d.dst() == packettest.Broadcast.IP {
		m.answerLater(d)
	}
}

// answerLater has a question answered with the next tick.
func (m *model) answerLater(d *dissected) {
	l, question, own := d.link, d.ip.Payload[8:], 0
	for _, a := range l.answers {
		if a.to == d.in {
			own++
		}
	}
	if len(question) == 0 || len(l.answers) == maxAnswers || own == answersPerContainer {
		return
	}
	src, dst := d.back(l.addr)
	sport, dport := d.tuple.DstPort, d.tuple.SrcPort
	if sport == 67 {
		dst, dport = offeredTo(dst.MAC, question), 68
	}
	a := modelAnswer{to: d.in}
	if answer := answerFor(question); len(answer)+28 <= l.mtu {
		a.b = framed(packettest.UDP(src, dst, sport, dport, answer), 0, false, d.tags)
	}
	l.answers = append(l.answers, a)
}

type modelAnswer struct {
	to *end
	b  []byte // nil is one that is too large
}

// lasts reports whether a flow ends with its socket.
func (f *modelFlow) lasts() bool {
	return f.kept && f.fwd.Proto == packet.ProtoTCP && f.heard[1] && !(f.fin[0] && f.fin[1]) && !f.dead[0] && !f.dead[1]
}

// hostFrame sends something that has to do with host sockets.
func (r *run) hostFrame() {
	far := pick(r, "203.0.113.5", "203.0.113.200", "8.8.8.8", "192.0.2.9", hostAddr, hostToo)
	switch r.rng.IntN(13) {
	case 0, 1: // out, or to the host
		r.dressed(r.eve, r.packet(r.eve.station, r.eve.to(far), r.client(), r.service()))
	case 2, 3, 4, 5, 6: // somebody speaks to a published port, or a mapping
		client := pick(r, far, far, far, "127.0.0.1", packet.StandIn(7).String(), "172.19.9.9", "172.17.9.9", "172.17.0.2")
		at := pick(r, hostAddr, hostAddr, hostToo, "127.0.0.1")
		r.dressed(r.host, r.packet(r.host.from(client), r.host.to(at), r.client(), pick(r, r.service(), r.service(), r.client())))
	case 7, 8: // services at the gateway's address
		e := pick(r, r.eve, r.eve, r.alice)
		r.dressed(e, r.packet(e.station, e.to(netAddr(e.side).String()), r.client(), pick(r, 53, r.service())))
	case 9: // names
		e := pick(r, r.eve, r.alice)
		r.put(e, packettest.UDP(e.station, e.to(netAddr(e.side).String()), r.client(), 53, r.data(pick(r, 60, 1500))))
	case 12: // DHCP
		r.lease(pick(r, r.eve, r.alice, r.bob))
	case 10: // no station's
		r.put(r.host, packettest.UDP(r.host.from(pick(r, "0.0.0.0", "240.0.0.1")), r.host.to(hostAddr), r.client(), r.service(), nil))
	case 11: // a client speaks to another address of the host, from the same port
		f := r.hostFlow()
		if f == nil || !r.m.links[f.from].keeps {
			return
		}
		k := f.fwd
		k.Dst = addrOf(stationAt(pick(r, hostAddr, hostToo)))
		src, dst := r.host.from(k.Src.String()), r.host.to(k.Dst.String())
		if k.Proto == packet.ProtoTCP {
			r.put(r.host, r.tcp(src, dst, k.SrcPort, k.DstPort, packet.TCPSyn, nil))
		} else {
			r.put(r.host, r.build(r.host, k))
		}
	}
}

// lease sends a message to a DHCP server, or one that is like it.
func (r *run) lease(e *end) {
	src, dst := e.station, packettest.Broadcast
	switch r.rng.IntN(8) {
	case 0:
		dst = station{MAC: packet.BroadcastMAC, IP: Broadcast(e.side.Gateway.(*Gateway).subnet)} // not for DHCP
	case 1, 2, 3:
		src.IP = netip.IPv4Unspecified()
	case 4, 5, 6:
		dst = e.to(netAddr(e.side).String())
	}
	sport, dport := pick[uint16](r, 68, 68, 1068), uint16(67)
	if r.rng.IntN(4) == 0 {
		sport, dport = 1068, 69 // no DHCP; an answer to port 68 the guard would take for some
	}
	b := packettest.UDP(src, dst, sport, dport, r.data(pick(r, 60, 1500)))
	if r.rng.IntN(4) == 0 {
		b = packettest.Partial(b)
	}
	if r.rng.IntN(8) == 0 {
		b = packettest.Tagged(b, pick(r, []uint16{0}, []uint16{0, 0})...)
	}
	r.put(e, b)
}

// hostFlow is one of the model's across host sockets.
func (r *run) hostFlow() *modelFlow {
	for range 20 {
		if f, _ := r.anyFlow(); f != nil && f.kept {
			return f
		}
	}
	return nil
}

// hostChange ends a flow as a socket does, or changes what is allowed.
func (r *run) hostChange() {
	l := r.m.links[3]
	g := r.net3.Gateway.(*Gateway)
	switch r.rng.IntN(9) {
	case 8:
		if l.hostLink == nil {
			l.hostLink = r.machine
			g.SetHost(r.machine.port.ID())
		} else {
			l.hostLink = nil
			g.FlushPort(r.machine.port.ID())
		}
	case 0:
		l.internal = !l.internal
		g.SetInternal(l.internal)
	case 1:
		l.hostLoopback = !l.hostLoopback
		g.SetHostLoopback(l.hostLoopback)
	case 2:
		if l.egress = nil; r.rng.IntN(2) == 0 {
			l.egress = mustEgress(r.t, "allow:list", allowList)
		}
		g.SetEgress(l.egress)
	case 3:
		if l.own = nil; r.rng.IntN(2) == 0 {
			l.own = mustEgress(r.t, "allow:list", ownList)
		}
		r.router.SetEgress(r.eve.port.Config().Container, l.own)
	case 4:
		if r.rng.IntN(2) == 0 {
			r.services.dnsFull = !r.services.dnsFull
		} else {
			r.services.dhcpFull = !r.services.dhcpFull
		}
	default:
		f := r.hostFlow()
		if f == nil || f.expired(r.now) { // else it may have gone already
			return
		}
		k := f.fwd // as it comes out of the socket
		if r.m.links[f.to].keeps {
			k = f.answers
		}
		if r.rng.IntN(2) == 0 || r.m.flows[modelKey{hostNetwork, k.Reverse()}] != nil {
			k = k.Reverse()
		}
		r.hostSide.Gateway.(*hostSegment).inbound.EndFlows([]packet.Tuple{k})
		r.m.end(f)
	}
}

// seldom names what came up less than a hundred times.
func (y *tally) seldom() (missing []string) {
	y.each(func(what string, n int) {
		if n < 100 {
			missing = append(missing, what)
		}
	})
	return slices.Compact(missing)
}
