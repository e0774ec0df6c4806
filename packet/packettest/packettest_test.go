package packettest

import (
	"math/rand/v2"
	"testing"

	"fairlead/packet"
)

// TestWays takes each maker by itself, so that none hides behind another.
func TestWays(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	ways := map[packet.Reason][]maker{packet.OK: good}
	for r, m := range broken {
		ways[r] = m
	}
	for want, makers := range ways {
		for i, m := range makers {
			for range 200 {
				src, dst := pair(rng, nil)
				b := m(rng, src, dst)
				f := packet.Frame{B: b}
				if got := packet.Parse(&f); got != want {
					t.Fatalf("way %d to be %v: Parse says %v\n%x", i, want, got, b[:min(len(b), 120)])
				}
			}
		}
	}
}
