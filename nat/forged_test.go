package nat

import (
	"testing"

	"fairlead/packet"
)

// What a hostile container, and forged packets from outside, cannot do to others.

// TestChurn: a container that begins flow after flow faster than the workers let
// go of those that ended is refused until they have, and nobody else is.
func TestChurn(t *testing.T) {
	for _, flows := range []int{1024, 65536} {
		r := newRig(t, Config{Flows: flows})
		for _, way := range []string{"evicts", "resets"} {
			begun := 0
			for reason := packet.OK; reason == packet.OK; begun++ {
				if begun > 4*flows {
					t.Fatalf("%s: no end of flows: %+v", way, r.Stats())
				}
				k := tcp(aliceAddr, 1025, packet.AddrFrom4([4]byte{203, byte(begun >> 16), byte(begun >> 8), byte(begun)}), 80)
				if way == "resets" {
					k.Dst = world
				}
				var p Plan
				var f Flow
				if p, reason = r.PlanOut(net1, alice, k, lan, ours); reason == packet.OK {
					f, reason = r.Commit(p, r.now)
				}
				if reason == packet.OK && way == "resets" {
					r.Seen(f, r.now, 1, 60, packet.TCPRst)
				}
				if reason != packet.OK && reason != packet.FlowBudget {
					t.Fatalf("%s: refused as %v after %d", way, reason, begun)
				}
			}
			if begun < flows/8 {
				t.Errorf("%s: refused after %d", way, begun)
			}
			r.FlushContainer(alice)
			for n := range flows / 8 {
				p, reason := r.PlanOut(net1, bob, tcp(bobAddr, 1025, packet.AddrFrom4([4]byte{198, 18, byte(n >> 8), byte(n)}), 80), lan, ours)
				if reason == packet.OK {
					_, reason = r.Commit(p, r.now)
				}
				if reason != packet.OK {
					t.Fatalf("%s: bob, flow %d: %v", way, n, reason)
				}
			}
			r.FlushContainer(bob)
			r.Recycle(r.Retired())
			r.out(alice, tcp(aliceAddr, 1025, world, 80))
			r.FlushContainer(alice)
		}
	}
}

// TestForgedQuestions: a published service that answers everybody is asked from
// forged addresses. The container's own flows stay, and new ones find room; so do
// clients.
func TestForgedQuestions(t *testing.T) {
	for i, proto := range []packet.Proto{packet.ProtoUDP, packet.ProtoICMP, packet.ProtoUDP, packet.ProtoICMP} {
		asks := 1 + i/2
		r := newRig(t, Config{Flows: 800})
		own := make([]packet.Tuple, 70) // that the container needs itself
		for n := range own {
			own[n] = udp(aliceAddr, uint16(6000+n), world, 7000)
			r.talk(r.out(alice, own[n]))
		}
		if _, err := r.OneToOne(Rule{Network: net1, Container: alice, Uplink: lan, Inside: aliceAddr, Outside: oursToo}); err != nil {
			t.Fatal(err)
		}
		client := of(proto, udp(world, 5000, oursToo, 5353))
		for n := range 5000 {
			f := r.in(of(proto, udp(packet.AddrFrom4([4]byte{203, 0, byte(n >> 8), byte(n)}), 5000, oursToo, 5353)))
			r.Seen(Flow{f.ref, true}, r.now, 1, 100, 0)
			for range asks - 1 {
				r.Seen(f, r.now, 1, 100, 0)
			}
			if r.now += second / 200; n%200 == 0 {
				r.Expire(r.now, 4096)
			}
			r.Recycle(r.Retired())
		}
		r.in(client)
		for _, k := range own {
			r.find(net1, k, 0)
		}
		r.out(alice, tcp(aliceAddr, 5555, world, 80))
	}
}

// TestForgedReset: a RST that anybody can forge, and a SYN after it, end no
// connection and take no port away.
func TestForgedReset(t *testing.T) {
	const syn, ack, rst = packet.TCPSyn, packet.TCPAck, packet.TCPRst
	c := newCaller(t, Config{})
	k := tcp(aliceAddr, 5000, world, 80)
	c.play(k, []step{{out, syn}, {in, syn | ack}, {out, ack}, {in, rst}, {in, syn}, {in, rst}, {out, ack}, {in, ack}})
	if s := c.nat.Stats(); s.Created != 1 || s.Ended != 0 {
		t.Errorf("%+v", s)
	}

	// Who began it may begin it again. That the new one cannot be had does not end
	// the old one.
	c = newCaller(t, Config{})
	c.play(k, []step{{out, syn}, {in, syn | ack}, {out, ack}, {in, rst}})
	if _, found := c.nat.Find(net1, &k, c.now, syn); found {
		t.Error("a SYN is of the connection that was reset")
	}
	p, reason := c.nat.PlanOut(net1, alice, k, lan, ours)
	if reason != packet.OK {
		t.Fatal(reason)
	}
	p.question.outside = packet.Addr{} // the lease is gone
	if _, reason = c.nat.Commit(p, c.now); reason != packet.NoRoute {
		t.Errorf("without an address: %v", reason)
	}
	if _, found := c.nat.Find(net1, &k, c.now, ack); !found {
		t.Error("the connection has ended for one that did not begin")
	}
}

// TestToMapping: where a flow was let in by a mapping alone.
func TestToMapping(t *testing.T) {
	r := newRig(t, Config{})
	r.publish(Rule{Network: net1, Container: alice, Proto: packet.ProtoUDP, OutsidePort: 8080, Inside: aliceAddr, InsidePort: 80})
	r.out(alice, udp(aliceAddr, 4000, world, 7000))
	for _, tt := range []struct {
		flow Flow
		want bool
	}{
		{r.commit(r.PlanHairpin(net1, bob, udp(bobAddr, 6000, ours, 4000), lan, ours)), true},
		{r.commit(r.PlanHairpin(net1, bob, udp(bobAddr, 6000, ours, 8080), lan, ours)), false},
		{r.in(udp(world, 7001, ours, 4000)), true},
		{r.in(udp(world, 7001, ours, 8080)), false},
		{r.out(bob, udp(bobAddr, 6000, world, 7000)), false},
	} {
		for _, reply := range []bool{false, true} {
			if got := r.Translation(FlowOf(tt.flow.Number(), reply)); got.ToMapping != tt.want {
				t.Errorf("%+v: want %v", got, tt.want)
			}
		}
	}
}
