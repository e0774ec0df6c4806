package gateway

import (
	"testing"

	"fairlead/nat"
	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/test/lab"
)

// TestReleaseZeroAllocations takes batches of every kind through networks,
// router and uplink on memory queues: neither a packet nor a batch may allocate.
func TestReleaseZeroAllocations(t *testing.T) {
	lab.NeedRelease(t)
	w := newWorld(t, nat.Config{})
	up, wan := w.addUplink(9, "192.0.2.7/24", "192.0.2.1", 1400)
	net := w.addNetwork(1, "172.17.0.1/16", 1500, up)
	router := station{MAC: net.MAC(), IP: gw.IP}
	a, b, isp := w.attach(net, "172.17.0.2"), w.attach(net, "172.17.0.3"), w.attach(wan, "192.0.2.1")
	for _, e := range []*end{a, b} {
		w.send(e, packettest.ARPRequest(e.station, router.IP))
	}
	ours := station{MAC: up.mac, IP: up.addr.Addr()}
	sockets, hostSide := w.addHost(hostAddr)
	net3 := w.addNetwork(3, "172.19.0.1/16", 1500, sockets)
	eve, host := w.attach(net3, "172.19.0.2"), w.attach(hostSide, "203.0.113.1")
	sockets.far = host.MAC
	self := w.attachHost(net3)
	w.send(eve, packettest.ARPRequest(eve.station, netAddr(net3)))
	net3.Gateway.(*Gateway).SetEgress(mustEgress(t, "allow:list", "allow 203.0.113.0/24 80\nallow example.org"))
	w.send(isp, packettest.ARPReply(isp.station, ours))
	w.router.Flows(func(t *nat.Table) {
		for _, port := range []uint16{8080, 8081} {
			_, err := t.Publish(nat.Rule{Network: 1, Container: b.port.Config().Container, Proto: packet.ProtoTCP,
				Inside: addrOf(b.station), InsidePort: port - 8000, OutsidePort: port})
			if err != nil {
				w.t.Error(err)
			}
		}
	})

	server := station{MAC: net.MAC(), IP: server.IP}
	client := station{MAC: isp.MAC, IP: server.IP}
	at := func(s station, mac packet.MAC) station { return station{MAC: mac, IP: s.IP} }
	tcp := func(src, dst station, sport, dport uint16, flags uint8) []byte {
		return packettest.TCP(src, dst, packettest.Segment{SrcPort: sport, DstPort: dport, Flags: flags}, make([]byte, 200))
	}
	// The flows there are, each begun by a SYN.
	w.send(a, tcp(a.station, server, 4000, 80, packet.TCPSyn))
	w.send(a, packettest.UDP(a.station, server, 4000, 9999, nil))
	w.send(isp, tcp(client, ours, 5000, 8080, packet.TCPSyn))
	hairpin := at(ours, net.MAC())
	w.send(a, tcp(a.station, hairpin, 4001, 8081, packet.TCPSyn))
	viaSockets, fromSockets := eve.to("203.0.113.5"), host.from("203.0.113.5")
	w.send(eve, tcp(eve.station, viaSockets, 4000, 80, packet.TCPSyn))
	w.send(self, tcp(self.station, eve.station, 6000, 80, packet.TCPSyn))
	w.drain()

	out := tcp(a.station, server, 4000, 80, packet.TCPAck)
	for _, c := range []struct {
		name   string
		from   *end
		b      []byte
		want   packet.Reason
		answer packet.Origin
	}{
		{"masquerade out", a, out, packet.Routed, 0},
		{"masquerade out, unfinished", a, packettest.Partial(out), packet.Routed, 0},
		{"masquerade out, super-frame", a, packettest.GSO(packettest.TCP(a.station, server,
			packettest.Segment{SrcPort: 4000, DstPort: 80, Flags: packet.TCPAck}, make([]byte, 60000)), 1448), packet.Routed, 0},
		{"masquerade back", isp, tcp(client, ours, 80, 4000, packet.TCPAck), packet.Routed, 0},
		{"published in", isp, tcp(client, ours, 5000, 8080, packet.TCPAck), packet.Routed, 0},
		{"published back", b, tcp(b.station, server, 80, 5000, packet.TCPAck), packet.Routed, 0},
		{"hairpin there", a, tcp(a.station, hairpin, 4001, 8081, packet.TCPAck), packet.Routed, 0},
		{"hairpin back", b, tcp(b.station, hairpin, 81, 4001, packet.TCPAck), packet.Routed, 0},
		{"by host sockets", eve, tcp(eve.station, viaSockets, 4000, 80, packet.TCPAck), packet.Routed, 0},
		{"from host sockets", host, tcp(fromSockets, host.to(hostAddr), 80, 4000, packet.TCPAck), packet.Routed, 0},
		{"from the host", self, tcp(self.station, eve.station, 6000, 80, packet.TCPAck), packet.KnownMAC, 0},
		{"to the host", eve, tcp(eve.station, self.station, 80, 6000, packet.TCPAck), packet.ForHost, 0},
		{"refused by policy", eve, tcp(eve.station, viaSockets, 4000, 81, packet.TCPSyn), packet.EgressDenied, packet.OriginProhibited},
		{"cut into fragments", a, packettest.UDP(a.station, server, 4000, 9999, make([]byte, 1472)), packet.Routed, 0},
		{"time exceeded", a, withTTL(out, 1), packet.TTLExceeded, packet.OriginTimeExceeded},
		{"fragmentation needed", a, dontFragment(packettest.UDP(a.station, server, 4000, 9999, make([]byte, 1472))),
			packet.FragNeeded, packet.OriginFragNeeded},
		{"port unreachable", isp, packettest.UDP(client, ours, 1, 2, nil), packet.Refused, packet.OriginPortUnreachable},
		{"reset", isp, tcp(client, ours, 1, 2, packet.TCPSyn), packet.Refused, packet.OriginReset},
		{"no flow", a, tcp(a.station, server, 1, 2, packet.TCPAck), packet.NoFlow, packet.OriginReset},
		{"error through NAT", isp, packettest.ICMPError(client, ours, packet.ICMPTimeExceeded, 0, 0,
			tcp(ours, client, 4000, 80, packet.TCPAck), 60), packet.Routed, 0},
		{"ping to us", isp, packettest.ICMPEcho(client, ours, 1, 1, nil), packet.ForGateway, packet.OriginEchoReply},
		{"not for us", isp, packettest.UDP(client, at(server, up.mac), 1, 2, nil), packet.NotForUs, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.now += 1e9 // the rate of answers has recovered
			records := w.send(c.from, c.b)
			if d := records[0].Decision; d.Reason != c.want || d.Originate != c.answer {
				t.Fatalf("decided %+v", d)
			}
			frames := make([][]byte, packet.BatchFrames)
			for i := range frames {
				frames[i] = c.b
			}
			for _, s := range w.sides {
				s.sw.SetRecorder(nil)
			}
			var allocs float64
			w.on(func() {
				allocs = testing.AllocsPerRun(20, func() {
					w.now += 1e7
					c.from.queue.frames = frames
					for c.from.port.Ready(w.now, 0) {
					}
					w.drain()
				})
			})
			if allocs != 0 {
				t.Errorf("%v allocations for a batch of %d frames", allocs, len(frames))
			}
		})
	}
}

// withTTL is an untagged frame with another time to live.
func withTTL(b []byte, n uint8) []byte {
	c := append([]byte(nil), b...)
	packet.IPv4(payload(c)).SetTTL(n)
	return resum(c)
}

// TestAllocations: deciding and answering allocate nothing, but for the rate of
// a port that gets its first ICMP error.
func TestAllocations(t *testing.T) {
	r := newRig(t)
	for name, b := range map[string][]byte{
		"ARP":         packettest.ARPRequest(alice, gw.IP),
		"ping":        packettest.ICMPEcho(alice, gw, 1, 1, make([]byte, 56)),
		"unreachable": packettest.UDP(alice, outside, 1, 2, nil),
		"refused":     packettest.UDP(alice.IPv6(), gw.IPv6(), 1, 2, nil),
	} {
		f, d := r.frame(1, b), packet.Decision{}
		if n := testing.AllocsPerRun(100, func() {
			f.Time += 2e9 // a neighbour is due, a rate has recovered
			d = lookedUp(f, false)
			r.gw.Route(f, &d)
			r.out.buf = r.buf
			r.gw.Apply(f, &d, &r.out)
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		if (d.Originate == packet.OriginNone) != (name == "refused") {
			t.Errorf("%s: decided %+v", name, d)
		}
	}
}
