package nat

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"fairlead/packet"
)

// TestReadersAndWriter has workers look up, translate and count packets while
// the owner makes and ends flows, and uses their records again as soon as every
// worker has passed a turn. Whatever a worker finds has to be about the packet
// it asked for. It is the race detector's test.
func TestReadersAndWriter(t *testing.T) {
	r := newRig(t, Config{Flows: 300, PerContainer: 300})
	rule := r.publish(Rule{Network: net1, Container: bob, Proto: packet.ProtoUDP, OutsidePort: 53, Inside: bobAddr, InsidePort: 53})
	const workers, ports = 3, 400
	var (
		clock atomic.Int64
		stop  atomic.Bool
		found atomic.Int64
		turns [workers]atomic.Int64
		wg    sync.WaitGroup
	)
	clock.Store(r.now)
	key := func(n int) (packet.NetworkID, packet.Tuple) {
		if n%2 == 0 {
			return net1, udp(aliceAddr, uint16(10000+n), world, 7000)
		}
		return lan, udp(world, uint16(10000+n), ours, 53)
	}
	for w := range workers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 0))
			for !stop.Load() {
				var batch Prefetch
				for range 64 {
					scope, k := key(rnd.IntN(ports))
					r.Expect(&batch, scope, &k)
				}
				r.Prefetch(&batch)
				for range 64 {
					scope, k := key(rnd.IntN(ports))
					now := clock.Load()
					f, ok := r.Find(scope, &k, now, 0)
					if !ok {
						continue
					}
					found.Add(1)
					if tr := r.Translation(f); tr.Before != k || tr.Reply || tr.In != scope {
						t.Errorf("%+v for %v on %d", tr, k, scope)
						return
					}
					r.Seen(f, now, 1, 100, 0)
				}
				turns[w].Add(1)
				runtime.Gosched()
			}
		})
	}
	rounds := 3000
	if raceEnabled {
		rounds /= 10
	}
	rnd := rand.New(rand.NewPCG(99, 0))
	for range rounds {
		now := clock.Add(second / 4)
		for range 20 {
			scope, k := key(rnd.IntN(ports))
			p, reason := r.PlanIn(scope, k)
			if scope == net1 {
				p, reason = r.PlanOut(scope, alice, k, lan, ours)
			}
			if reason == packet.OK {
				_, reason = r.Commit(p, now)
			}
			if reason != packet.OK {
				t.Errorf("%v: %v", k, reason)
			}
		}
		switch r.Expire(now, 1000); rnd.IntN(30) {
		case 0:
			r.FlushContainer(alice)
		case 1:
			r.Unpublish(rule.Number)
			rule = r.publish(rule)
		}
		// A grace period.
		n := r.Retired()
		var before [workers]int64
		for w := range turns {
			before[w] = turns[w].Load()
		}
		for w := range turns {
			for turns[w].Load() < before[w]+2 && !t.Failed() {
				runtime.Gosched()
			}
		}
		r.Recycle(n)
	}
	stop.Store(true)
	wg.Wait()
	if s := r.Stats(); found.Load() == 0 || s.Ended == 0 {
		t.Errorf("%d found, %+v", found.Load(), s)
	}
}
