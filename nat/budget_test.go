package nat

import (
	"testing"

	"fairlead/packet"
)

// TestBudget: which flow goes when a container has as many as it may.
func TestBudget(t *testing.T) {
	r := newRig(t, Config{Flows: 100, PerContainer: 4})
	key := func(n int) packet.Tuple { return tcp(aliceAddr, uint16(40000+n), world, 80) }
	there := func(want ...int) {
		t.Helper()
		got := 0
		for n := range 20 {
			if _, ok := r.Find(net1, new(key(n)), r.now, packet.TCPAck); ok {
				if got == len(want) || want[got] != n {
					t.Fatalf("flow %d is there, want %v", n, want)
				}
				got++
			}
		}
		if got != len(want) {
			t.Fatalf("%d flows, want %v", got, want)
		}
	}
	r.establish(r.out(alice, key(0)))
	r.out(alice, key(1))
	r.out(alice, key(2))
	r.establish(r.out(alice, key(3)))
	r.out(alice, key(4)) // the oldest that was never answered goes
	there(0, 2, 3, 4)
	r.establish(r.find(net1, key(4), 0))
	r.out(alice, key(5))
	there(0, 3, 4, 5)
	r.establish(r.find(net1, key(5), 0))

	// All are in use: refused, and nothing changes.
	if _, reason := r.PlanOut(net1, alice, key(6), lan, ours); reason != packet.FlowBudget {
		t.Fatalf("at the budget: %v", reason)
	}
	there(0, 3, 4, 5)
	// The table has looked at them meanwhile; then one is closed.
	for range 200 {
		r.now += second
		r.Expire(r.now, 100)
	}
	closing := r.find(net1, key(3), packet.TCPAck)
	r.Seen(closing, r.now, 1, 60, packet.TCPFin|packet.TCPAck)
	r.Seen(Flow{closing.ref, true}, r.now, 1, 60, packet.TCPFin|packet.TCPAck)
	r.out(alice, key(6))
	there(0, 4, 5, 6)
	if s := r.Stats(); s.Evicted != 3 || s.Flows != 4 {
		t.Errorf("%+v", s)
	}
	// Bob has a budget of his own.
	r.out(bob, tcp(bobAddr, 40000, world, 80))
}

// TestTableFull: a full table takes from who asks, never from others.
func TestTableFull(t *testing.T) {
	r := newRig(t, Config{Flows: 10, PerContainer: 8})
	for n := range uint16(8) {
		r.out(alice, udp(aliceAddr, 5000+n, world, 7000))
	}
	for n := range uint16(2) {
		r.talk(r.out(bob, udp(bobAddr, 6000+n, world, 7000)))
	}
	if _, reason := r.PlanOut(net1, bob, udp(bobAddr, 6002, world, 7000), lan, ours); reason != packet.FlowTableFull {
		t.Errorf("bob: %v", reason)
	}
	r.out(alice, udp(aliceAddr, 5008, world, 7000))
	if s := r.Stats(); s.Flows != 10 || s.Evicted != 1 {
		t.Errorf("%+v", s)
	}
}

// talk has both sides of a UDP flow show that they mean it, after its first packet.
func (r *rig) talk(f Flow) {
	r.Seen(Flow{f.ref, true}, r.now, 1, 100, 0)
	r.Seen(f, r.now, 1, 100, 0)
}

// TestHostileAtItsBudget: a container that opens whatever it can leaves the
// flows of others alone, and room for new ones.
func TestHostileAtItsBudget(t *testing.T) {
	r := newRig(t, Config{Flows: 4000, PerContainer: 1000})
	for n := range uint16(500) {
		r.Seen(Flow{r.out(bob, udp(bobAddr, 10000+n, world, 7000)).ref, true}, r.now, 1, 100, 0)
	}
	opened, refused := 0, 0
	for n := range 20_000 {
		k := udp(aliceAddr, uint16(n), packet.AddrFrom4([4]byte{203, 0, 113, byte(n >> 8)}), 7000)
		p, reason := r.PlanOut(net1, alice, k, lan, ours)
		var f Flow
		if reason == packet.OK {
			f, reason = r.Commit(p, r.now)
		}
		switch reason {
		case packet.OK:
			opened++
			if r.Seen(f, r.now, 1, 100, 0); n%2 == 0 {
				r.talk(f) // with an accomplice
			}
		case packet.FlowBudget:
			refused++
		default:
			t.Fatal(reason)
		}
		r.now += second / 1000
		r.Expire(r.now, 100)
		r.Recycle(r.Retired())
	}
	if opened < 1000 || refused == 0 {
		t.Errorf("%d opened, %d refused", opened, refused)
	}
	for n := range uint16(500) {
		r.find(net1, udp(bobAddr, 10000+n, world, 7000), 0)
		r.out(bob, udp(bobAddr, 20000+n, world2, 7000))
	}
	if s := r.Stats(); s.Flows != 2000 {
		t.Errorf("%+v", s)
	}
}

// TestFlush: what ends with a container, an address, an uplink.
func TestFlush(t *testing.T) {
	fill := func() *rig {
		r := newRig(t, Config{})
		r.publish(Rule{Network: net1, Container: bob, Proto: packet.ProtoTCP, OutsidePort: 8080, Inside: bobAddr, InsidePort: 80})
		r.out(alice, tcp(aliceAddr, 1, world, 80))
		r.out(bob, tcp(bobAddr, 1, world, 80))
		r.in(tcp(world, 5000, ours, 8080))
		r.commit(r.PlanHairpin(net1, alice, tcp(aliceAddr, 2, ours, 8080), lan, ours))
		r.commit(r.PlanOut(net2, alice, tcp(aliceAddr, 1, world, 80), lan2, oursToo))
		return r
	}
	for name, tt := range map[string]struct {
		flush func(r *rig)
		want  int // flows that are left
	}{
		"container with a published port": {func(r *rig) { r.FlushContainer(bob) }, 2},
		"container":                       {func(r *rig) { r.FlushContainer(alice) }, 2},
		"inside address":                  {func(r *rig) { r.FlushAddress(net1, bobAddr) }, 2},
		"outside address":                 {func(r *rig) { r.FlushAddress(lan, ours) }, 1},
		"uplink":                          {func(r *rig) { r.FlushAddress(lan2, packet.Addr{}) }, 4},
		"network":                         {func(r *rig) { r.FlushAddress(net1, packet.Addr{}) }, 1},
		"nobody":                          {func(r *rig) { r.FlushAddress(net2, ours) }, 5},
	} {
		r := fill()
		tt.flush(r)
		n := 0
		for range r.Mappings {
			n++
		}
		if s := r.Stats(); s.Flows != tt.want || s.Retired != 5-tt.want || s.Mappings != n {
			t.Errorf("%s: %+v, %d mappings, want %d flows", name, s, n, tt.want)
		}
	}
}

// TestLists: what people see of flows and rules.
func TestLists(t *testing.T) {
	r := newRig(t, Config{})
	r.Masquerade(net1, lan)
	k := tcp(aliceAddr, 40000, world, 80)
	f := r.out(alice, k)
	look := func(want FlowInfo) {
		t.Helper()
		n := 0
		for got := range r.Flows {
			n++
			if want.Expires = got.Expires; got != want {
				t.Errorf("lists\n got %+v\nwant %+v", got, want)
			}
		}
		if n != 1 {
			t.Errorf("%d flows", n)
		}
	}
	want := FlowInfo{Number: f.Number(), Kind: packet.NATMasquerade, Rule: 1, Container: alice, From: net1, To: lan,
		Forward: k, Reply: tcp(world, 80, ours, 40000), State: "SYN_SENT", Unreplied: true,
		Packets: [2]uint64{1, 0}, Bytes: [2]uint64{100, 0}}
	look(want)
	r.establish(f)
	want.State, want.Unreplied, want.Assured = "ESTABLISHED", false, true
	want.Packets, want.Bytes = [2]uint64{2, 1}, [2]uint64{160, 60}
	look(want)
	for got := range r.Flows {
		if left := (got.Expires - r.now) / second; left != 7440 {
			t.Errorf("%d seconds to live", left)
		}
	}
	for got := range r.Rules {
		want := Rule{Number: 1, Kind: packet.NATMasquerade, Network: net1, Uplink: lan, Flows: 1, Packets: 3, Bytes: 220}
		if got != want {
			t.Errorf("rule\n got %+v\nwant %+v", got, want)
		}
	}
}

// TestLateClock: a node that slept, or an owner that comes late, ends what is due
// in one go.
func TestLateClock(t *testing.T) {
	r := newRig(t, Config{})
	for n := range uint16(100) {
		r.out(alice, udp(aliceAddr, 5000+n, world, 7000))
		r.now += second
	}
	if at, ok := r.Due(); !ok || at > r.now {
		t.Errorf("due at %d, %v", at, ok)
	}
	for r.now += 10_000 * second; r.Expire(r.now, 10); {
	}
	if s := r.Stats(); s.Flows != 0 || s.Expired != 100 {
		t.Errorf("%+v", s)
	}
	if _, ok := r.Due(); ok {
		t.Error("something is due")
	}
	r.out(alice, udp(aliceAddr, 5000, world, 7000))
	if at, ok := r.Due(); !ok || at < r.now || at > r.now+5*second {
		t.Errorf("due in %d s, %v", (at-r.now)/second, ok)
	}
}
