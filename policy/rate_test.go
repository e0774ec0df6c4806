package policy

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// A bucket is the token bucket as textbooks draw it: tokens drip in one by one
// as time passes, a unit takes one out. Its clock ticks in nanoseconds, so it
// is exact.
type bucket struct {
	interval, depth int64 // nanoseconds for each token; tokens it holds
	filled          int64 // nanoseconds' worth of tokens in it
	last            int64
}

func (b *bucket) take(now int64) bool {
	b.filled, b.last = min(b.depth*b.interval, b.filled+now-b.last), now
	if b.filled < b.interval {
		return false
	}
	b.filled -= b.interval
	return true
}

func TestRateAgainstBucket(t *testing.T) {
	for _, c := range []struct{ perSecond, burst int }{
		{1, 1}, {1, 10}, {100, 50}, {1000, 1}, {7, 3}, {10_000, 1000}, {10_000_000, 100}, {1_000_000_000, 5},
	} {
		t.Run(fmt.Sprintf("%d per second, %d at once", c.perSecond, c.burst), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(c.perSecond), uint64(c.burst)))
			rate := NewRate(c.perSecond, c.burst)
			interval := int64(1e9) / int64(c.perSecond)
			slow := bucket{interval: interval, depth: int64(c.burst), filled: int64(c.burst) * interval}
			now, passed, refused := int64(0), 0, 0
			for i := range 20_000 {
				switch rng.IntN(1000) {
				case 0:
					now += rng.Int64N(2 * interval * int64(c.burst+1))
				case 1: // many at the same moment
				default:
					now += rng.Int64N(interval + 1)
				}
				got, want := rate.Allows(now), slow.take(now)
				if got != want {
					t.Fatalf("step %d at %d: %v, the bucket says %v", i, now, got, want)
				}
				if rate.Allows(now) != got {
					t.Fatal("asking has changed the answer")
				}
				if got {
					rate.Take(now, 1)
					passed++
				} else {
					refused++
				}
			}
			if passed == 0 || refused == 0 {
				t.Errorf("%d passed, %d were refused: one of the two was not tried", passed, refused)
			}
		})
	}
}

func TestRateWithoutLimit(t *testing.T) {
	for _, rate := range []Rate{{}, NewRate(0, 5), NewRate(-1, 0)} {
		for range 1000 {
			if !rate.Allows(0) {
				t.Fatalf("%+v refuses", rate)
			}
			rate.Take(0, 1)
		}
	}
}

// TestRateBounds: what cannot be said exactly in nanoseconds still passes
// something, and holds back something.
func TestRateBounds(t *testing.T) {
	for _, c := range []struct{ perSecond, burst, atOnce int }{
		{10, 0, 1},                // at least one
		{10, -3, 1},               //
		{2_000_000_000, 3, 3},     // faster than the clock ticks
		{1, 1_000_000, 1_000_000}, // eleven days' worth
	} {
		rate := NewRate(c.perSecond, c.burst)
		n := 0
		for ; rate.Allows(0) && n <= c.atOnce; n++ {
			rate.Take(0, 1)
		}
		if n != c.atOnce {
			t.Errorf("%d per second, %d at once: %d passed at once, want %d", c.perSecond, c.burst, n, c.atOnce)
		}
	}
}

// TestRateTakenBeyondItsLimit: who takes without asking owes it.
func TestRateTakenBeyondItsLimit(t *testing.T) {
	rate := NewRate(10, 1)
	for range 5 {
		rate.Take(0, 1)
	}
	if rate.Allows(5e8 - 1) {
		t.Error("allowed before the debt is paid")
	}
	if !rate.Allows(5e8) {
		t.Error("refused although the debt is paid")
	}
}

// TestRateExact: what does not come out even in nanoseconds adds up all the same.
func TestRateExact(t *testing.T) {
	for _, perSecond := range []int{7, 37_500_000, 1_250_000_000, 12_500_000_000} {
		rate := NewRate(perSecond, 1)
		n := 0
		for now := int64(0); now < 1e9; now = rate.Until(now) {
			if !rate.Allows(now) {
				t.Fatalf("%d per second: refused at %d, when it is allowed", perSecond, now)
			}
			rate.Take(now, 1500)
			n += 1500
			if until := rate.Until(now); until > now && rate.Allows(until-1) {
				t.Fatalf("%d per second: allowed before %d", perSecond, until)
			}
		}
		if want := perSecond; n < want || n > want+want/1000+1500 {
			t.Errorf("%d per second: %d in a second", perSecond, n)
		}
	}
	if rate := (Rate{}); rate.Until(5) != 5 {
		t.Error("no limit has one wait")
	}
}
