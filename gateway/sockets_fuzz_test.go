package gateway

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"fairlead/nat"
	"fairlead/packet"
	"fairlead/packet/packettest"
)

// FuzzSockets: whatever a container sends and whatever comes out of a socket, a
// container never sees an address of the host's loopback, and reaches one by a
// redirect only; and what DNS answers is well-formed.
func FuzzSockets(f *testing.F) {
	toGateway := station{MAC: gw.MAC, IP: gw.IP}
	rng := rand.New(rand.NewPCG(9, 10))
	for _, host := range []bool{false, true} {
		for range 20 {
			f.Add(packettest.Good(rng, alice, station{MAC: gw.MAC, IP: server.IP}), true, host)
			f.Add(packettest.Good(rng, alice, toGateway), true, host)
			f.Add(packettest.Good(rng, onHost, hostSelf), false, host)
			f.Add(packettest.Good(rng, standIn(7), onHost), false, host)
		}
		for _, b := range [][]byte{
			packettest.UDP(alice, toGateway, 4000, 53, []byte("?")), packettest.GSO(packettest.UDP(alice, toGateway, 4000, 53, make([]byte, 100)), 30),
			packettest.Tagged(packettest.UDP(alice, toGateway, 4000, 53, []byte("?")), 7), packettest.UDP(alice, toGateway, 4000, 8000, nil),
			syn(alice, toGateway, 4000, 53), syn(alice, hostSelf, 4000, 8080), syn(alice, alsoHost, 4000, 22),
			packettest.ICMPEcho(alice, hostSelf, 7, 1, nil),
		} {
			f.Add(b, true, host)
		}
		for _, b := range [][]byte{
			syn(onHost, onHost, 4000, 8080), syn(hostSelf, hostSelf, 4000, 8080), syn(alice, hostSelf, 4000, 8080),
			packettest.UDP(standIn(1), hostSelf, 4000, 8080, nil), synAck(onHost, hostSelf, 5353, 4000), synAck(server, hostSelf, 80, 4001),
			packettest.ICMPError(onHost, hostSelf, packet.ICMPUnreachable, 3, 0, syn(hostSelf, server, 4001, 80), 60),
			packettest.ICMPError(onHost, hostSelf, packet.ICMPUnreachable, 3, 0, syn(hostSelf, onHost, 4000, 5353), 60),
		} {
			f.Add(b, false, host)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, inside, hostLoopback bool) {
		if len(b) > packet.MaxFrame {
			return
		}
		r, _ := newSocketsRig(t, nat.Config{Flows: 64})
		dns := new(fakeDNS)
		r.gw.SetDNS(dns, func() {})
		r.router.SetServices(5353)
		r.gw.SetHostLoopback(hostLoopback)
		r.publish(packet.ProtoTCP, 8080)
		r.publish(packet.ProtoUDP, 8080)
		r.mustInside(1, syn(alice, toGateway, 4000, 53))
		r.mustInside(1, syn(alice, server, 4001, 80))
		r.sent = nil

		frame := &packet.Frame{B: bytes.Clone(b), Time: r.now, Network: natUplink, Port: fromUplink}
		mac, route, apply := masqueraded.MAC, r.inbound.Route, r.inbound.Apply
		if inside {
			frame.Network, frame.Port, frame.Container = natNetwork, 1, 1
			mac, route, apply = gw.MAC, r.gw.Route, r.gw.Apply
		}
		if packet.Parse(frame) != packet.OK || frame.EtherType != packet.EtherTypeIPv4 || packet.Ethernet(frame.Ether()).Dst() != mac {
			return
		}
		d, again := lookedUp(frame, false), lookedUp(frame, false)
		route(frame, &d)
		route(frame, &again)
		if d != again {
			t.Fatalf("decided %+v, then %+v", d, again)
		}
		apply(frame, &d, r.out())
		for i, reply := range dns.reply {
			if q := dns.asked[i]; !inside || q.From.Dst != addrOf(gw) || q.From.DstPort != 53 {
				t.Errorf("asked %+v", q)
			}
			reply([]byte("!"))
		}
		before := len(r.sent)
		r.tick()
		if n := len(r.sent) - before; n != len(dns.reply) {
			t.Errorf("%d answers to %d questions", n, len(dns.reply))
		}
		for _, s := range r.sent[before:] {
			a := &packet.Frame{B: s.b}
			mustParse(t, a)
			checkSums(t, a)
		}
		if d.Verdict != packet.Unicast {
			return
		}
		mustParse(t, frame)
		loopback := isLoopback(frame.Tuple().Src) || isLoopback(frame.Tuple().Dst)
		switch redirect := d.NAT.Kind == packet.NATRedirect; {
		case loopback && (d.Egress.Network == natNetwork || !redirect && !d.NAT.Reply): // an answer goes to who asked
			t.Errorf("%v passed on: %+v", frame.Tuple(), d)
		case redirect && d.NAT.New && !hostLoopback && d.NAT.After.DstPort != 5353:
			t.Errorf("reached the host's loopback: %+v", d)
		}
	})
}
