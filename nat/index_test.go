package nat

import (
	"math/rand/v2"
	"testing"

	"fairlead/packet"
)

// TestIndexChurn keeps an index as full as it may be while everything in it is
// replaced, again and again: hardly an entry may find its two buckets full, and
// none may be lost.
func TestIndexChurn(t *testing.T) {
	sizes, rounds := []int{50, 1000, 200_000}, 1_000_000
	if raceEnabled {
		sizes, rounds = sizes[:2], 10_000
	}
	for _, n := range sizes {
		r := rand.New(rand.NewPCG(1, 2))
		var x index
		x.init(n)
		hashes := make([]uint64, n+1)
		for e := 1; e <= n; e++ {
			hashes[e] = r.Uint64()
			if !x.add(hashes[e], uint32(e)) {
				t.Fatalf("no room for entry %d of %d", e, n)
			}
		}
		failed := 0
		for range max(10*n, rounds) {
			e := 1 + r.IntN(n)
			if hashes[e] != 0 {
				x.remove(hashes[e], uint32(e))
			}
			if hashes[e] = r.Uint64(); !x.add(hashes[e], uint32(e)) {
				failed++
				hashes[e] = 0
			}
		}
		if failed > 4 {
			t.Errorf("%d times no room with %d entries", failed, n)
		}
		for e := 1; e <= n; e++ {
			found := hashes[e] == 0
			a, b := x.pair(hashes[e])
			for m := match(a, b, hashes[e]); m != 0; m &= m - 1 {
				found = found || numberAt(a, b, hashes[e], m) == uint32(e)
			}
			if !found {
				t.Fatalf("entry %d of %d is lost", e, n)
			}
		}
	}
}

// TestFullIndex fills indexes until nothing fits: each flow that is made is found
// by both of its keys, also when they meet at the last free entry of a bucket.
func TestFullIndex(t *testing.T) {
	refused := 0
	for seed := range uint64(100) {
		table := New(Config{Flows: 100, PerContainer: 100, Seed: seed + 1})
		table.index.init(1)
		for n := range uint16(40) {
			k := udp(aliceAddr, 5000+n, world, 7000)
			p, reason := table.PlanOut(net1, alice, k, lan, ours)
			if reason != packet.OK {
				t.Fatal(reason)
			}
			f, reason := table.Commit(p, second)
			if reason != packet.OK {
				if refused++; reason != packet.FlowTableFull {
					t.Fatal(reason)
				}
				continue
			}
			answer := table.Translation(f).After.Reverse()
			if got, ok := table.Find(net1, &k, second, 0); !ok || got != f {
				t.Errorf("seed %d: flow %d is not found", seed, n)
			}
			if got, ok := table.Find(lan, &answer, second, 0); !ok || got.Number() != f.Number() {
				t.Errorf("seed %d: answers to flow %d are not found", seed, n)
			}
		}
	}
	if refused == 0 {
		t.Error("no index was full")
	}
}
