package gateway

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"fairlead/arp"
	"fairlead/loop"
	"fairlead/nat"
	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/test/lab"
)

// TestHub: in a hub everybody gets the frame as it was sent, and the router's
// copy goes its own way; it is lost where another one would wait, and nobody
// else's copy with it.
func TestHub(t *testing.T) {
	w := newWorld(t, nat.Config{})
	w.hub = true
	town := buildTown(w)
	far := town.alice.to("203.0.113.5")
	udp := packettest.UDP(town.alice.station, far, 4000, 53, []byte("hello"))
	heard := func(name string, d packet.Decision, routed bool, answer packet.Origin) {
		t.Helper()
		if d.Verdict != packet.Flood || d.Reason != packet.HubMode || d.Routed != routed || d.Originate != answer {
			t.Errorf("%s: %+v", name, d)
		}
		if got := town.bob.got(); len(got) == 0 || string(got[0]) != string(udp) {
			t.Errorf("%s: the other station got % x", name, got)
		}
	}
	heard("nobody is known", w.one(town.alice, udp), false, packet.OriginARPRequest)
	heard("asked already", w.one(town.alice, udp), false, 0)
	for range 3 {
		w.now += 1e9
		w.tick()
	}
	w.drain()
	heard("gave no answer", w.one(town.alice, udp), false, packet.OriginHostUnreachable)
	w.drain()
	w.now += 4e9
	town.known()
	heard("known", w.one(town.alice, udp), true, 0)
	wantTuple(t, w.arrived(town.isp), "192.0.2.7", "203.0.113.5", 4000, 53)
	heard("TTL", func() packet.Decision { udp = withTTL(udp, 1); return w.one(town.alice, udp) }(), false, packet.OriginTimeExceeded)
}

// TestScan: who looks for stations of a network by way of the gateway waits for
// as many as may be asked for at once, and is told at once of the others.
func TestScan(t *testing.T) {
	r := newNATRig(t, nat.Config{})
	for n := range arp.MaxAsking + 10 {
		b := packettest.UDP(alice, station{MAC: gw.MAC, IP: netip.AddrFrom4([4]byte{172, 17, 9, byte(n + 1)})}, 4000, 53, nil)
		d, _ := r.inside(1, b)
		if n < arp.MaxAsking && (d.Verdict != packet.Hold || d.Originate != packet.OriginARPRequest) ||
			n >= arp.MaxAsking && (d.Verdict != packet.Drop || d.Reason != packet.HostUnreachable || d.Originate != packet.OriginHostUnreachable) {
			t.Fatalf("packet %d: %+v", n, d)
		}
	}
	if d, _ := r.inside(2, packettest.UDP(bob, with(gw, "172.17.9.250"), 4000, 53, nil)); d.Verdict != packet.Hold {
		t.Errorf("another one: %+v", d)
	}
}

// TestWayChangedMeanwhile: what changes while a packet is on its way does not
// send it astray: it is dropped, and the next one finds the way.
func TestWayChangedMeanwhile(t *testing.T) {
	publish := func(r *natRig, c packet.ContainerID, inside station) (n uint32) {
		r.router.Flows(func(flows *nat.Table) {
			rule, err := flows.Publish(nat.Rule{Network: natNetwork, Container: c, Inside: addrOf(inside), Proto: packet.ProtoUDP, OutsidePort: 8080, InsidePort: 80})
			if n = rule.Number; err != nil {
				t.Fatal(err)
			}
		})
		return n
	}
	for name, change := range map[string]func(r *natRig, rule uint32){
		"destination": func(r *natRig, rule uint32) {
			r.router.Flows(func(flows *nat.Table) { flows.Unpublish(rule) })
			publish(r, 1, alice)
		},
		"uplink": func(r *natRig, _ uint32) {
			r.gw.SetUplinks([]Uplink{&otherUplink{*r.uplink}})
		},
	} {
		r := newNATRig(t, nat.Config{})
		rule := publish(r, 2, bob)
		f := r.frame(natUplink, fromUplink, packettest.UDP(server, masqueraded, 4000, 8080, nil))
		d := packet.Decision{Verdict: packet.Gateway, Reason: packet.ForGateway}
		route, apply := r.inbound.Route, r.inbound.Apply
		if name == "uplink" {
			f = r.frame(natNetwork, 1, packettest.UDP(alice, server, 4000, 53, nil))
			route, apply = r.gw.Route, r.gw.Apply
		}
		route(f, &d)
		if !d.Routed {
			t.Fatalf("%s: %+v", name, d)
		}
		change(r, rule)
		before := bytes.Clone(f.B)
		apply(f, &d, r.out())
		var flows int
		r.router.Flows(func(t *nat.Table) { flows = t.Stats().Flows })
		if d.Verdict != packet.Drop || d.Reason != packet.NoRoute || d.Routed || flows != 0 || !bytes.Equal(f.B, before) {
			t.Errorf("%s: %d flows, decided %+v", name, flows, d)
		}
	}
}

// An otherUplink is a second one.
type otherUplink struct{ fakeUplink }

func (u *otherUplink) Network() packet.NetworkID { return natUplink + 1 }

// TestManyWorkersAtOnce has two workers route in all directions while rules, containers
// and an uplink come and go. It is for the race detector, and for the law of
// conservation.
func TestManyWorkersAtOnce(t *testing.T) {
	w := newWorldOf(t, 2, nat.Config{Flows: 256, PerContainer: 100})
	town := buildTown(w)
	w.now = loop.Clock()
	town.known()
	for _, s := range w.sides {
		s.sw.SetRecorder(nil)
	}
	rounds := 150
	var busy sync.WaitGroup
	for i, e := range w.ends {
		busy.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(i)))
			client := func() uint16 { return 40000 + uint16(rng.IntN(30)) }
			for range rounds {
				var frames [][]byte
				for range 32 {
					src, dst, sport, dport := e.station, e.to("203.0.113.5"), client(), uint16(80)
					switch {
					case e == town.isp:
						src, dst, sport, dport = e.from("203.0.113.5"), e.to("192.0.2.7"), 80, client()
						if rng.IntN(3) == 0 {
							sport, dport = client(), 8080
						}
					case e == town.isp2:
						src, dst = e.from("203.0.113.200"), e.to("198.51.100.7")
					case rng.IntN(3) == 0:
						dst, dport = e.to("192.0.2.7"), 8080
					}
					flags := []uint8{packet.TCPSyn, packet.TCPAck, packet.TCPFin | packet.TCPAck, packet.TCPRst}[rng.IntN(4)]
					b := tcpTo(src, dst, sport, dport, flags)
					if rng.IntN(4) == 0 {
						b = packettest.UDP(src, dst, sport, dport, make([]byte, rng.IntN(1400)))
					}
					frames = append(frames, b)
				}
				e.turn(loop.Clock(), frames)
				e.got()
			}
		})
	}
	busy.Go(func() {
		for i := range rounds / 3 {
			rule := w.publish(leads(town.bob, packet.ProtoTCP, 8080, 80))
			w.sides[i%len(w.sides)].sw.Wake()
			w.router.Flows(func(t *nat.Table) { t.Unpublish(rule.Number) })
			switch i % 5 {
			case 0:
				w.router.FlushContainer(town.alice.port.Config().Container)
			case 1:
				w.router.UnplugUplink(town.up2.network)
				w.router.PlugUplink(town.up2)
			}
			time.Sleep(time.Millisecond)
		}
	})
	busy.Wait()
	lab.Eventually(t, 10*time.Second, func() error {
		if w.lanes.Holding() > 0 {
			return errors.New("frames wait")
		}
		return nil
	})
}
