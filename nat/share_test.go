package nat

import (
	"testing"

	"fairlead/packet"
)

// What each container has of the table whatever the others do, and what its own
// flows have whatever comes from outside.

// filled begins flows until one is refused, has both sides show that they mean
// them, and says how many there are and why there are no more.
func filled(r *rig, begin func(n int) (Plan, packet.Reason)) (n int, reason packet.Reason) {
	for ; ; n++ {
		p, reason := begin(n)
		var f Flow
		if reason == packet.OK {
			f, reason = r.Commit(p, r.now)
		}
		if reason != packet.OK {
			return n, reason
		}
		if p.Before.Proto == packet.ProtoTCP {
			r.establish(f)
		} else {
			r.Seen(f, r.now, 1, 100, 0)
			r.talk(f)
		}
	}
}

// outward is the first packet of a connection to world.
func (r *rig) outward(c packet.ContainerID, n int) (Plan, packet.Reason) {
	a := packet.AddrFrom4([4]byte{172, 17, 1, byte(c)})
	return r.PlanOut(net1, c, tcp(a, uint16(1024+n), world, 80), lan, ours)
}

// TestGuaranteedShare: containers that together fill all that is for whoever
// comes first leave each of the others its share, and one that gives its flows
// back leaves them to all.
func TestGuaranteedShare(t *testing.T) {
	r := newRig(t, Config{Flows: 800, PerContainer: 300, MaxContainers: 10}) // 40 for each, and 400
	fill := func(c packet.ContainerID) (int, packet.Reason) {
		return filled(r, func(n int) (Plan, packet.Reason) { return r.outward(c, n) })
	}
	for i, want := range []struct {
		flows  int
		reason packet.Reason
	}{
		{300, packet.FlowBudget}, {180, packet.FlowTableFull},
		{40, packet.FlowTableFull}, {40, packet.FlowTableFull}, {40, packet.FlowTableFull}, {40, packet.FlowTableFull},
		{40, packet.FlowTableFull}, {40, packet.FlowTableFull}, {40, packet.FlowTableFull}, {40, packet.FlowTableFull},
	} {
		if n, reason := fill(1<<16 | packet.ContainerID(1+i)); n != want.flows || reason != want.reason {
			t.Errorf("container %d has %d flows, then %v; want %d, %v", i, n, reason, want.flows, want.reason)
		}
	}
	if s := r.Stats(); s.Flows != 800 || s.Evicted != 0 {
		t.Errorf("%+v", s)
	}
	r.FlushContainer(1<<16 | 1)
	if n, reason := filled(r, func(n int) (Plan, packet.Reason) { return r.outward(1<<16|2, 180+n) }); n != 120 || reason != packet.FlowBudget {
		t.Errorf("%d more flows, then %v", n, reason)
	}
}

// TestOutsidersLeaveRoom: what comes from outside, with or without a handshake,
// leaves an eighth of what a container may have to the container, and takes the
// place of nothing that the container began.
func TestOutsidersLeaveRoom(t *testing.T) {
	for name, k := range map[string]packet.Tuple{
		"connections": tcp(world, 0, ours, 8080), "datagrams": udp(world, 0, ours, 8080),
	} {
		for _, tt := range []struct {
			why        string
			config     Config
			most, left int
		}{
			{"budget", Config{Flows: 800, PerContainer: 80, MaxContainers: 10}, 70, 10},
			{"share", Config{Flows: 160, PerContainer: 160, MaxContainers: 2}, 35, 5},
		} {
			r := newRig(t, tt.config)
			r.publish(Rule{Network: net1, Container: alice, Proto: k.Proto, OutsidePort: 8080, Inside: aliceAddr, InsidePort: 80})
			if tt.why == "share" { // bob has all that is for whoever comes first
				if n, _ := filled(r, func(n int) (Plan, packet.Reason) { return r.outward(bob, n) }); n != 120 {
					t.Errorf("bob has %d flows", n)
				}
			}
			ask := func(n int) (Plan, packet.Reason) {
				k.Src, k.SrcPort = packet.AddrFrom4([4]byte{203, 0, byte(n >> 8), byte(n)}), 5000
				return r.PlanIn(lan, k)
			}
			if k.Proto == packet.ProtoTCP {
				if n, reason := filled(r, ask); n != tt.most || reason == packet.OK {
					t.Errorf("%s, %s: %d from outside, then %v", name, tt.why, n, reason)
				}
			} else {
				for n := range 1000 { // the newest takes the place of the oldest
					p, reason := ask(n)
					if reason != packet.OK {
						t.Fatalf("%s, %s: %v", name, tt.why, reason)
					}
					r.talk(r.commit(p, reason))
					r.Recycle(r.Retired())
				}
			}
			if n := r.holderOf(alice).flows; n != tt.most {
				t.Errorf("%s, %s: %d flows, want %d", name, tt.why, n, tt.most)
			}
			for n := range tt.left {
				r.out(alice, tcp(aliceAddr, uint16(6000+n), world, 80)) // and these are never answered
			}
			for n := range 1000 {
				if p, reason := ask(2000 + n); reason == packet.OK {
					r.commit(p, reason)
				}
				r.Recycle(r.Retired())
			}
			for n := range tt.left {
				r.find(net1, tcp(aliceAddr, uint16(6000+n), world, 80), 0)
			}
		}
	}
}
