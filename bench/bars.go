package main

import "fmt"

// noMore is the bar that a value of f, in a unit of its own, is no more than
// bound.
func (r *results) noMore(f *figure, what string, value, bound float64) {
	r.Bars = append(r.Bars, bar{
		Name:  fmt.Sprintf("%s: %s, %s", f.Workload, f.Path, what),
		Want:  fmt.Sprintf("at most %g", bound),
		Have:  fmt.Sprintf("%.3g", value),
		Met:   len(f.Samples) > 0 && value <= bound,
		Bound: bound, Value: value,
	})
}

// cheaper is the bar that f costs no more than other does, by the rule for
// ratios.
func (r *results) cheaper(f, other *figure, what string, cost func(s sample) float64) {
	costs := func(f *figure) *figure {
		c := &figure{Workload: f.Workload, Path: f.Path, Less: true}
		for _, s := range f.Samples {
			c.add(sample{Round: s.Round, Value: cost(s)})
		}
		return c
	}
	r.atLeast(costs(f), costs(other), 1)
	b := &r.Bars[len(r.Bars)-1]
	b.Name += ", how many times less " + what
}

// cpuOfBytes are the CPU seconds of the path's process for each gigabyte.
func cpuOfBytes(s sample) float64 { return s.CPU / (s.Bytes / 1e9) }

// again is how many segments were retransmitted for each gigabyte.
func (f *figure) again() float64 {
	var bytes, again float64
	for _, s := range f.Samples {
		bytes += s.Bytes
		again += float64(s.Retransmits)
	}
	if bytes == 0 {
		return 0
	}
	return again / (bytes / 1e9)
}

// dropped is how many frames the containers' interfaces did not take.
func (f *figure) dropped() (n float64) {
	for _, s := range f.Samples {
		n += float64(s.Dropped)
	}
	return n
}
