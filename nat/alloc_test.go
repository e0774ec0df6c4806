package nat

import (
	"testing"

	"fairlead/packet"
	"fairlead/test/lab"
)

// TestReleaseZeroAllocations holds the promise of the data path: nothing is
// allocated for a packet, nor for a flow that takes the place of another.
func TestReleaseZeroAllocations(t *testing.T) {
	lab.NeedRelease(t)
	r := newRig(t, Config{Flows: 5000, PerContainer: 100})
	r.publish(Rule{Network: net1, Container: bob, Proto: packet.ProtoTCP, OutsidePort: 8080, Inside: bobAddr, InsidePort: 80})
	if _, err := r.OneToOne(Rule{Network: net1, Container: bob, Uplink: lan, Inside: bobAddr, Outside: oursToo}); err != nil {
		t.Fatal(err)
	}
	r.publish(Rule{Network: net1, Container: alice, Proto: packet.ProtoUDP, OutsidePort: 5353, Inside: aliceAddr, InsidePort: 53})
	r.SetOwner(hidesAll{})
	r.Keep(lan2, true)
	known := tcp(aliceAddr, 40000, world, 80)
	known6 := tcp(v6Of(aliceAddr), 40000, v6Of(world), 80)
	for _, f := range []Flow{r.out(alice, known), r.commit(r.PlanOut(net1, alice, known6, lan, v6Of(ours)))} {
		r.establish(f)
	}

	begin := func(p Plan, reason packet.Reason) {
		if reason != packet.OK {
			t.Fatal(reason)
		}
		f, reason := r.Commit(p, r.now)
		if reason != packet.OK {
			t.Fatal(reason)
		}
		r.Seen(f, r.now, 1, 100, packet.TCPSyn)
	}
	port := uint16(0)
	for name, run := range map[string]func(){
		"a packet of a known flow": func() {
			for _, k := range []packet.Tuple{known, known6} {
				var p Prefetch
				r.Expect(&p, net1, &k)
				r.Prefetch(&p)
				f, ok := r.Find(net1, &k, r.now, packet.TCPAck)
				if !ok || r.Translation(f).After.SrcPort != 40000 {
					t.Fatal("not found")
				}
				r.Seen(f, r.now, 1, 1500, packet.TCPAck)
			}
		},
		"masquerade": func() { begin(r.PlanOut(net1, alice, tcp(aliceAddr, port, world, 80), lan, ours)) },
		"published":  func() { begin(r.PlanIn(lan, tcp(world, port, ours, 8080))) },
		"hairpin":    func() { begin(r.PlanHairpin(net1, alice, tcp(aliceAddr, port, ours, 8080), lan, ours)) },
		"redirect": func() {
			begin(r.PlanRedirect(net1, alice, tcp(aliceAddr, port, bobAddr, 53), lan, ours, addr("127.0.0.1"), 5353))
		},
		"by sockets": func() { begin(r.PlanOut(net1, alice, tcp(aliceAddr, port, world, 80), lan2, oursToo)) },
		"from a published port": func() {
			begin(r.PlanOut(net1, alice, udp(aliceAddr, 53, world, port), lan2, oursToo))
		},
		"hidden":     func() { begin(r.PlanIn(lan2, tcp(world, port, oursToo, 8080))) },
		"one-to-one": func() { begin(r.PlanIn(lan, udp(world, port, oursToo, 9))) },
		"refused": func() {
			if _, reason := r.PlanIn(lan, udp(world, port, ours, 9)); reason != packet.Refused {
				t.Fatal(reason)
			}
		},
	} {
		all := func() {
			port++
			run()
			r.now += second / 100
			r.Expire(r.now, 100)
			r.Recycle(r.Retired())
		}
		for range 1000 {
			all() // memory is taken as flows come, up to the budget
		}
		if n := testing.AllocsPerRun(1000, all); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// TestReleaseRefusedAllocatesNothing: nor is it for a packet that is refused, by an address
// whose ports nobody has yet.
func TestReleaseRefusedAllocatesNothing(t *testing.T) {
	lab.NeedRelease(t)
	r := newRig(t, Config{Flows: 100, PerContainer: 1})
	r.establish(r.out(alice, tcp(aliceAddr, 40000, world, 80)))
	for _, k := range []packet.Tuple{ping(aliceAddr, 0, world), udp(aliceAddr, 53, world, 53)} {
		refused := func() {
			if _, reason := r.PlanOut(net1, alice, k, lan, ours); reason != packet.FlowBudget {
				t.Fatal(reason)
			}
		}
		if n := testing.AllocsPerRun(100, refused); n != 0 {
			t.Errorf("%v: %v allocations", k, n)
		}
	}
}

// hidesAll is an owner that hides every client.
type hidesAll struct{ nobody }

func (hidesAll) Hide(packet.NetworkID, packet.ContainerID, packet.Addr) (packet.Addr, packet.Hidden) {
	return aliceAddr, packet.HiddenLoopback
}
