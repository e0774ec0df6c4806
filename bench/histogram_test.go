package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// Every duration is in a class that ends at most 1/128 above it, and classes
// follow one another.
func TestHistogramClasses(t *testing.T) {
	var h histogram
	for class := range h.counts {
		longest := longestOf(class)
		if classOf(longest) != class || class > 0 && classOf(longestOf(class-1)+1) != class {
			t.Fatalf("class %d ends at %d, which is in class %d", class, longest, classOf(longest))
		}
		if shortest := longestOf(max(class-1, 0)) + 1; class > 0 && float64(longest) > float64(shortest)*(1+1.0/128) {
			t.Fatalf("class %d is from %d to %d", class, shortest, longest)
		}
	}
	if last := longestOf(len(h.counts) - 1); last != 1<<longestBits-1 {
		t.Errorf("the last class ends at %d", last)
	}
}

func TestHistogramQuantiles(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 2, 10, 999, 100_000} {
		var h histogram
		all := make([]time.Duration, n)
		for i := range all {
			all[i] = time.Duration(math.Exp(random.Float64() * 25))
			h.add(all[i])
		}
		slices.Sort(all)
		for _, part := range []float64{0.001, 0.5, 0.99, 0.999, 1} {
			want := all[int(math.Ceil(part*float64(n)))-1]
			if got := h.quantile(part); got < want || float64(got) > float64(want)*(1+1.0/128) {
				t.Errorf("%d durations: %v have at most %v, want %v", n, part, got, want)
			}
		}
	}
	var h histogram
	if got := h.quantile(0.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
	h.add(-1)
	h.add(1 << 62)
	if low, high := h.quantile(0.5), h.quantile(1); low != 0 || high != 1<<longestBits-1 {
		t.Errorf("%v and %v", low, high)
	}
}
