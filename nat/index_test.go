package nat

import (
	"math/rand/v2"
	"testing"
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
