package nat

import (
	"testing"

	"fairlead/packet"
)

// Flows that are listed in slices are each listed once, whatever comes and goes
// between.
func TestFlowsFrom(t *testing.T) {
	r := newRig(t, Config{})
	first := r.open(300)
	seen := make(map[uint32]int)
	count := func(f FlowInfo) bool { seen[f.Number]++; return true }
	for next, more := uint32(0), true; more; {
		before := len(seen)
		if next, more = r.FlowsFrom(next, 64, count); len(seen) > before+64 {
			t.Fatalf("%d flows in one slice of 64", len(seen)-before)
		}
		if before == 0 {
			r.FlushContainer(bob) // whose the later half is
		}
	}
	for _, ref := range first {
		if seen[ref] != 1 {
			t.Errorf("flow %d is listed %d times", ref, seen[ref])
		}
	}
}

// open makes n flows of alice's and as many of bob's after them, and returns the
// numbers of alice's.
func (r *rig) open(n int) (first []uint32) {
	for i := range n {
		f := r.out(alice, tcp(aliceAddr, uint16(20000+i), world, 80))
		first = append(first, f.ref)
	}
	for i := range n {
		r.out(bob, tcp(bobAddr, uint16(20000+i), world, 80))
	}
	return first
}

// Rules that are taken back together end their flows, and no others.
func TestUnpublishMany(t *testing.T) {
	r := newRig(t, Config{})
	var numbers []uint32
	for port := range uint16(3) {
		numbers = append(numbers, r.publish(Rule{Network: net1, Container: alice, Proto: packet.ProtoTCP, Inside: aliceAddr, InsidePort: 80, OutsidePort: 8080 + port}).Number)
		r.in(tcp(world, 5000, ours, 8080+port))
	}
	if !r.Unpublish(numbers[0], numbers[2]) || r.Stats().Flows != 1 {
		t.Errorf("%d flows are left of three", r.Stats().Flows)
	}
	if r.Unpublish(numbers[1], numbers[2]) || r.Stats().Flows != 0 {
		t.Errorf("one of them was gone; %d flows are left", r.Stats().Flows)
	}
}
