package nat

import (
	"testing"

	"fairlead/packet"
)

// TestFlushLooksAtItsOwn: when a container goes, the flows of others are looked at
// only while a rule leads to it.
func TestFlushLooksAtItsOwn(t *testing.T) {
	r := newRig(t, Config{})
	for n := range 100 {
		r.out(alice, tcp(aliceAddr, uint16(40000+n), world, 80))
	}
	r.out(bob, tcp(bobAddr, 40000, world, 80))
	looked := func() (n int) {
		r.flushOf(bob, func(uint32) bool { n++; return false })
		return n
	}
	if n := looked(); n != 1 {
		t.Errorf("%d flows are looked at, bob has one", n)
	}
	rule := r.publish(Rule{Network: net1, Container: bob, Inside: bobAddr, Proto: packet.ProtoTCP, OutsidePort: 8080, InsidePort: 80})
	if n := looked(); n != 101 {
		t.Errorf("with a port of bob's published, %d of 101 flows are looked at", n)
	}
	r.Unpublish(rule.Number)
	if n := looked(); n != 1 {
		t.Errorf("with none any more, %d flows are looked at", n)
	}
	if len(r.rules.leading) != 0 {
		t.Errorf("rules lead to %v", r.rules.leading)
	}
	r.FlushContainer(1<<16 | 77) // which never had a flow
	if s := r.Stats(); s.Flows != 101 {
		t.Errorf("%d flows are left of 101", s.Flows)
	}
}
