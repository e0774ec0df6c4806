package gateway

import (
	"math/rand/v2"
	"reflect"
	"testing"

	"fairlead/nat"
	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/test/lab"
)

// TestPrefetchChangesNothing takes the same batches through two towns, of which only
// one prefetches: frames of flows there are and are not yet, broken ones, and what is
// not routed at all.
func TestPrefetchChangesNothing(t *testing.T) {
	with, without := newTown(t, nat.Config{}), newTown(t, nat.Config{})
	without.plain, without.now = true, with.now
	with.known()
	without.known()
	rng := rand.New(rand.NewPCG(lab.Seed(t), 2))
	routed := 0
	for range 300 {
		from := rng.IntN(len(with.ends))
		batch := make([][]byte, 2+rng.IntN(packet.BatchFrames-1))
		for i := range batch {
			batch[i] = someFrame(rng, with.ends[from])
		}
		got, want := with.send(with.ends[from], batch...), without.send(without.ends[from], batch...)
		if len(got) != len(want) {
			t.Fatalf("%d decisions, without prefetching %d", len(got), len(want))
		}
		for i := range got {
			if a, b := &got[i].Decision, &want[i].Decision; a.Reason == packet.FirstFragment && b.Reason == a.Reason {
				a.HoldKey = b.HoldKey // each router has its own secret
			}
			if got[i].Decision != want[i].Decision {
				t.Fatalf("frame %d of %d:\n     got %+v\nwithout %+v", i, len(batch), got[i].Decision, want[i].Decision)
			}
			if got[i].Decision.Reason == packet.Routed {
				routed++
			}
		}
		for i := range with.ends {
			if a, b := with.ends[i].got(), without.ends[i].got(); !reflect.DeepEqual(a, b) {
				t.Fatalf("%s received %d frames, without prefetching %d, or others", with.ends[i].IP, len(a), len(b))
			}
		}
		with.now += int64(rng.IntN(1e9))
		without.now = with.now
	}
	if routed < 1000 {
		t.Errorf("only %d frames were routed", routed)
	}
}

// someFrame is what somebody may send: mostly a datagram to one of a few ports
// outside, or an answer to one.
func someFrame(rng *rand.Rand, e *end) []byte {
	near, far := uint16(4000+rng.IntN(20)), uint16(7000+rng.IntN(3))
	switch rng.IntN(4) {
	case 0:
		return packettest.Random(rng, e.station, e.to("198.51.100.9"), e.to("172.17.0.3"))
	case 1:
		return packettest.UDP(e.from("203.0.113.5"), e.to("192.0.2.7"), far, near, nil)
	}
	return packettest.UDP(e.station, e.to("203.0.113.5"), near, far, nil)
}
