package gateway

import (
	"bytes"
	"net/netip"
	"slices"

	"github.com/google/gopacket/layers"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

// What the model knows of the host's own link.

// asksForGateway reports whether a frame asks who has the gateway's address.
func (d *dissected) asksForGateway() bool {
	if d.eth.EthernetType != layers.EthernetTypeARP {
		return false
	}
	a := packet.ARP(d.bare[packet.VNetLen+14:])
	return a.Op() == packet.ARPRequest && netip.AddrFrom4(a.TargetIP()) == d.link.addr
}

// planFromHost has the container see the host's own port, if it can tell the
// connection from others then.
func (m *model) planFromHost(d *dissected, k packet.Tuple) (*modelPlan, packet.Reason) {
	p := &modelPlan{to: d.link.network(), answers: k.Reverse()}
	if n, state := m.resolve(d.link, k.Dst.Netip()); state <= staleState {
		p.owner = n.end.port.Config().Container
	}
	return p, m.keep(p, d.link.network(), k)
}

func (m *model) planToHost(d *dissected, k packet.Tuple) (*modelPlan, packet.Reason) {
	p := &modelPlan{owner: d.in.port.Config().Container, to: d.link.network(), answers: k.Reverse()}
	if m.taken(p, d.link.network(), k) {
		return p, packet.NotTranslatable
	}
	return p, packet.OK
}

// fromHostLink is a packet of the host's to a container, whose MAC is known.
func (m *model) fromHostLink(d *dissected) {
	to := m.w.endAt(packet.MAC(d.eth.DstMAC))
	if to == nil || to == m.w.machine {
		m.says(packet.Drop, packet.SamePort, 0)
		return
	}
	n, k := d.link.network(), d.tuple
	b := d.frame
	edited := func(after packet.Tuple, about *packet.Tuple) {
		if before := k; about == nil && after == before || about != nil && after == *about {
			return
		}
		b = finished(d.frame)
		for range d.tags {
			const at = packet.VNetLen + 12
			b = slices.Concat(b[:at], b[at+packet.VLANLen:])
		}
		translated(b, d, after, about)
		if len(d.tags) > 0 {
			b = packettest.Tagged(b, d.tags...)
		}
	}
	begins := d.begins() || k.Proto != packet.ProtoTCP && (k.Proto != packet.ProtoICMP || d.isEcho() && k.DstPort == 0)
	switch about := quotedOf(d); {
	case d.later, d.dst() == d.link.addr:
	case about != nil:
		if f, reply := m.find(n, about.Reverse(), false, m.w.now); f != nil {
			edited(f.after(reply).Reverse(), about)
		}
	case d.otherICMP():
	default:
		f, reply := m.find(n, k, d.begins(), m.w.now)
		if f == nil && begins {
			_, reason := m.plan(d, k)
			if reason != packet.OK {
				origin := packet.OriginNone
				if d.tcp != nil {
					origin = packet.OriginReset
				}
				m.answer(d, reason, origin, 0)
				return
			}
			f = m.commit(d, k)
		}
		if f != nil {
			edited(f.after(reply), nil)
			m.seen(f, reply, d)
		}
	}
	m.says(packet.Unicast, packet.KnownMAC, 0)
	m.expect(to, expected{b: b})
}

// quotedOf is the packet an error is about, if that can be one of its sender's.
func quotedOf(d *dissected) *packet.Tuple {
	if !d.isError() {
		return nil
	}
	if about := quotedTuple(d); about != nil && about.Dst == d.tuple.Src {
		return about
	}
	return nil
}

// after is the tuple of a flow's packets on their way on.
func (f *modelFlow) after(reply bool) packet.Tuple {
	if reply {
		return f.fwd.Reverse()
	}
	return f.answers.Reverse()
}

// toHostLink is what a container sends to the host.
func (m *model) toHostLink(d *dissected, about *packet.Tuple, commit func() (packet.Tuple, bool)) {
	host := d.link.hostLink
	switch {
	case host == nil:
		m.refuse(d, packet.Refused)
		return
	case len(d.tags) > 0:
		m.says(packet.Drop, packet.NotUnderstood, 0)
		return
	}
	m.says(packet.Unicast, packet.ForHost, 0)
	if d.first {
		m.learnPiece(d)
	}
	after, ok := commit()
	if !ok {
		return
	}
	b := bytes.Clone(d.frame)
	if k, _ := m.ports(d); about == nil && after != k || about != nil && after != *about {
		b = finished(d.bare)
		translated(b, d, after, about)
	}
	m.expect(host, expected{b: b})
}

// endAt is whose MAC it is.
func (w *town) endAt(mac packet.MAC) *end {
	for _, e := range w.ends {
		if e.MAC == mac {
			return e
		}
	}
	return nil
}

// linkFrame sends something by the host's link, or to the host.
func (r *run) linkFrame() {
	host, eve := r.machine, r.eve
	there := station{MAC: eve.MAC, IP: eve.IP}
	switch r.rng.IntN(10) {
	case 0, 1, 2: // from the ports hidden clients have as well, to where they go
		r.dressed(host, r.packet(host.station, there, r.client(), pick(r, 80, 40001, r.service())))
	case 3:
		r.put(host, packettest.ARPRequest(host.station, eve.IP))
	case 4:
		r.put(eve, packettest.ARPRequest(eve.station, pick(r, netAddr(eve.side), stationAt("172.19.0.77").IP)))
	case 5: // a ping, in pieces; the answer comes back in pieces too
		r.ids++
		for _, e := range []*end{host, eve} {
			b := packettest.ICMPEcho(host.station, there, r.client(), 1, r.data(2000))
			if e == eve {
				id := packet.ICMP(payload(b)[20:]).ID()
				b = packettest.ICMPEchoReply(eve.station, eve.to(host.IP.String()), id, 1, r.data(2000))
			}
			r.inPieces(e, b)
		}
	case 6:
		r.put(host, packettest.UDP(host.station, packettest.Broadcast, 68, pick[uint16](r, 67, 99), r.data(60)))
	case 7:
		r.put(host, packettest.UDP(host.station, host.to("203.0.113.5"), r.client(), 80, nil)) // to itself
	case 8:
		r.put(host, packettest.IP(host.station, there, packet.ProtoESP, r.data(60)))
	default:
		r.dressed(eve, r.packet(eve.station, eve.to(host.IP.String()), r.client(), r.service()))
	}
}
