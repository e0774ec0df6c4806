package main

import (
	"math"
	"math/bits"
	"time"
)

// A histogram counts durations in memory that does not grow. It has 128 classes
// for each power of two of nanoseconds, as HdrHistogram has, so what it says is
// at most 1/128 more than what was.
type histogram struct {
	counts [(longestBits - classBits + 1) << classBits]uint64
	count  uint64
	max    time.Duration
}

const (
	classBits   = 7
	longestBits = 40 // 18 minutes: whatever takes longer counts as that
)

func (h *histogram) add(d time.Duration) {
	d = min(max(d, 0), 1<<longestBits-1)
	h.counts[classOf(d)]++
	h.count++
	h.max = max(h.max, d)
}

// classOf numbers the classes. Below 1<<classBits each duration is one of its
// own; above, each power of two has as many as all below it together.
func classOf(d time.Duration) int {
	shift := max(bits.Len64(uint64(d))-classBits-1, 0)
	return shift<<classBits + int(d>>shift)
}

// longestOf is the longest duration of a class.
func longestOf(class int) time.Duration {
	shift := max(class>>classBits-1, 0)
	return time.Duration(class-shift<<classBits+1)<<shift - 1
}

// quantile is how long a part of all durations took at most.
func (h *histogram) quantile(part float64) time.Duration {
	left := uint64(math.Ceil(part * float64(h.count)))
	for class, n := range h.counts {
		if n > 0 && n >= left {
			return min(longestOf(class), h.max)
		}
		left -= n
	}
	return h.max
}
