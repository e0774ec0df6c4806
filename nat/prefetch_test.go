package nat

import (
	"fmt"
	"testing"

	"fairlead/packet"
)

// Few flows are in the processor's caches anyway: prefetching begins where there are
// many, and ends where they have gone.
func TestPrefetches(t *testing.T) {
	table := crowd(t, prefetchFrom-1, false, 1000*second)
	if table.Prefetches() {
		t.Errorf("with %d flows", prefetchFrom-1)
	}
	crowdJoin(t, table, prefetchFrom, false, 1000*second)
	if !table.Prefetches() {
		t.Errorf("not with %d flows", prefetchFrom)
	}
	table.FlushContainer(1)
	if table.Prefetches() {
		t.Errorf("with %d flows, when most have gone", table.Stats().Flows)
	}
}

// TestPrefetch asks for more packets than a batch has, of flows and of none.
func TestPrefetch(t *testing.T) {
	table := crowd(t, 1000, false, 1000*second)
	var p Prefetch
	for i := range 3 * packet.BatchFrames {
		_, k := crowdFlow(i*20, false)
		table.Expect(&p, net1, &k)
	}
	if p.n != packet.BatchFrames {
		t.Errorf("%d of %d packets are expected", p.n, packet.BatchFrames)
	}
	before := table.Stats()
	table.Prefetch(&p)
	New(Config{}).Prefetch(&p)
	table.Prefetch(&Prefetch{})
	if table.Stats() != before {
		t.Errorf("%+v became %+v", before, table.Stats())
	}
}

// BenchmarkBatch takes batches of packets of random flows through the table, as a
// worker does that handles one after the other: between two of them is work that
// the processor does not look beyond.
func BenchmarkBatch(b *testing.B) {
	for _, n := range []int{1000, many() / 50, many() / 10, many()} {
		table := crowd(b, n, false, 1000*second)
		for _, prefetched := range []bool{false, true} {
			b.Run(fmt.Sprintf("%d/prefetched=%v", n, prefetched), func(b *testing.B) {
				var keys [packet.BatchFrames]packet.Tuple
				x, now := uint64(1), 1000*second
				for i := 0; i < b.N; i += len(keys) {
					now += 1e5
					for j := range keys {
						x = mix(x+uint64(i+j), 0x9e3779b97f4a7c15)
						_, keys[j] = crowdFlow(int(x%uint64(n)), false)
					}
					if prefetched {
						var p Prefetch
						for j := range keys {
							table.Expect(&p, net1, &keys[j])
						}
						table.Prefetch(&p)
					}
					for j := range keys {
						f, ok := table.Find(net1, &keys[j], now, 0)
						if !ok {
							b.Fatal("not found")
						}
						tr := table.Translation(f)
						table.Seen(f, now, 1, int(tr.After.SrcPort), 0)
					}
				}
			})
		}
	}
}
