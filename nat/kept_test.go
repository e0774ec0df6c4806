package nat

import (
	"testing"
	"time"

	"fairlead/packet"
)

// An ended is an owner that keeps what it is told.
type ended struct {
	nobody
	list []uint32
}

func (e *ended) Ended(uplink packet.NetworkID, number uint32) {
	if uplink == lan {
		e.list = append(e.list, number)
	}
}

func newKeptRig(t *testing.T, c Config) (*rig, *ended) {
	r, e := newRig(t, c), &ended{}
	r.SetOwner(e)
	r.Keep(lan, true)
	return r, e
}

func (r *rig) expireAll(after time.Duration) {
	r.now += int64(after)
	for r.Expire(r.now, 1000) {
	}
}

func TestKeptConnectionsHaveNoTimeout(t *testing.T) {
	r, told := newKeptRig(t, Config{})
	syn := r.out(alice, tcp(aliceAddr, 4000, world, 80))
	established := r.out(alice, tcp(aliceAddr, 4001, world, 80))
	r.establish(established)
	half := r.out(alice, tcp(aliceAddr, 4002, world, 80))
	r.establish(half)
	r.Seen(half, r.now, 1, 60, packet.TCPAck|packet.TCPFin)
	closed := r.out(alice, tcp(aliceAddr, 4003, world, 80))
	r.establish(closed)
	r.Seen(closed, r.now, 1, 60, packet.TCPAck|packet.TCPFin)
	r.Seen(Flow{closed.ref, true}, r.now, 1, 60, packet.TCPAck|packet.TCPFin)
	datagrams := r.out(alice, udp(aliceAddr, 4000, world, 7000))

	r.expireAll(100 * 24 * time.Hour)
	for _, f := range []Flow{established, half} {
		_, k := r.key(f.ref, 0)
		if r.find(net1, k, packet.TCPAck) != f {
			t.Errorf("%v is another", k)
		}
	}
	for f := range r.Flows {
		if f.Expires != Never {
			t.Errorf("%v %s ends at %d", f.Forward, f.State, f.Expires)
		}
	}
	// A SYN nobody answered, what is closed, and what is no connection has its
	// time as elsewhere.
	for _, f := range []Flow{syn, closed, datagrams} {
		if _, k := r.key(f.ref, 0); r.body(f.ref).live {
			t.Errorf("%v is still there", k)
		}
	}
	if len(told.list) != 3 {
		t.Errorf("told of %v", told.list)
	}
}

func TestEnd(t *testing.T) {
	r, told := newKeptRig(t, Config{})
	rule := r.publish(Rule{Network: net1, Container: alice, Inside: aliceAddr, Proto: packet.ProtoTCP, OutsidePort: 8080, InsidePort: 80})
	outward := r.out(alice, tcp(aliceAddr, 4000, world, 80))
	inward := r.in(tcp(world, 5000, ours, 8080))
	for _, x := range []struct {
		f Flow
		k packet.Tuple
	}{
		{outward, tcp(ours, 4000, world, 80)},  // as it leaves
		{inward, tcp(world, 5000, ours, 8080)}, // as it came
	} {
		if !r.End(lan, x.k) || r.body(x.f.ref).live || r.End(lan, x.k) || r.End(lan2, x.k) {
			t.Errorf("%v: told of %v", x.k, told.list)
		}
	}
	if len(told.list) != 2 || told.list[0] != outward.Number() || told.list[1] != inward.Number() {
		t.Errorf("told of %v, want %d and %d", told.list, outward.Number(), inward.Number())
	}

	// However a flow ends: told.
	for _, end := range map[string]func(){
		"container": func() { r.FlushContainer(alice) },
		"uplink":    func() { r.FlushAddress(lan, packet.Addr{}) },
	} {
		told.list = nil
		f := r.out(alice, udp(aliceAddr, 4000, world, 7000))
		if end(); len(told.list) != 1 || told.list[0] != f.Number() {
			t.Errorf("told of %v", told.list)
		}
	}
	told.list = nil
	f := r.in(tcp(world, 5000, ours, 8080))
	if r.Unpublish(rule.Number); len(told.list) != 1 || told.list[0] != f.Number() {
		t.Errorf("told of %v", told.list)
	}

	// And on other uplinks not.
	told.list = nil
	r.commit(r.PlanOut(net1, alice, udp(aliceAddr, 4000, world, 7000), lan2, oursToo))
	r.Keep(lan, false)
	r.out(alice, udp(aliceAddr, 4001, world, 7000))
	if r.FlushContainer(alice); len(told.list) != 0 {
		t.Errorf("told of %v", told.list)
	}
}

func TestKeptFlowsGiveWay(t *testing.T) {
	r, told := newKeptRig(t, Config{Flows: 100, PerContainer: 2})
	first := r.out(alice, tcp(aliceAddr, 4000, world, 80))
	second := r.out(alice, tcp(aliceAddr, 4001, world, 80))
	r.establish(second)
	r.out(alice, tcp(aliceAddr, 4002, world, 80))
	if len(told.list) != 1 || told.list[0] != first.Number() {
		t.Errorf("told of %v, want %d", told.list, first.Number())
	}
}

// TestKeptFlowHearsLateReset: whether a reset ends a connection is for the uplink to
// say that keeps it. One that is late, of an earlier connection with the same ports,
// ends nothing, and a SYN that is sent again belongs to the flow it began.
func TestKeptFlowHearsLateReset(t *testing.T) {
	r, told := newKeptRig(t, Config{})
	k := tcp(aliceAddr, 4000, world, 80)
	f := r.out(alice, k)
	r.Seen(Flow{f.ref, true}, r.now, 1, 60, packet.TCPSyn|packet.TCPAck)
	r.Seen(f, r.now, 1, 40, packet.TCPRst)
	if have := r.find(net1, k, packet.TCPSyn); have != f || len(told.list) != 0 {
		t.Errorf("a SYN behind a reset finds %v, want %v; told of %v", have, f, told.list)
	}
	if !r.End(lan, tcp(ours, 4000, world, 80)) {
		t.Error("the uplink cannot end it")
	}
}
