package main

import (
	"fmt"
	"slices"
	"strings"
)

// limits are the programs that only read and write, by the unit of what they are a
// limit of. The first that a workload was measured with bounds us there. Of how long
// others wait while containers die, it is the dead that hang on no switch.
var limits = map[string][]string{
	"Gb/s": {"raw"},
	"k/s":  {"raw-trains", "raw", "host-raw"},
	"µs":   {"raw-awake", "raw", "host-raw"},
	"1/s":  {"raw"},
	"ms":   {"raw", "unattached"},
}

// limitOf is what such a program has on the workload of f, in the unit of f: how
// many bytes it carries says nothing about what processors spend on them.
func (r *results) limitOf(f *figure) *figure {
	for _, name := range limits[f.Unit] {
		if limit := r.find(f.Workload, name); limit != nil && limit.Unit == f.Unit {
			return limit
		}
	}
	return nil
}

// hold is the bar that fairlead reaches bound times another path on a workload. If
// that was to be measured and was not, the bar is open.
func (r *results) hold(w *workload, figures map[string]*figure, name string, bound float64) {
	switch f, other := figures["fairlead"], figures[name]; {
	case f == nil:
	case other != nil && len(other.Samples) > 0:
		r.atLeast(f, other, bound)
	case r.wanted(func(p *path) bool { return p.name == name }):
		r.open(w, name, bound)
	}
}

// holdPeers holds fairlead against the best switch of others.
func (r *results) holdPeers(w *workload, figures map[string]*figure, bound float64) {
	best := r.bestPeer(w.name)
	switch {
	case figures["fairlead"] == nil:
	case best != nil:
		r.atLeast(figures["fairlead"], best, bound)
		r.besides(r.absentPeers(w))
	case r.wanted(func(p *path) bool { return p.peer }):
		r.open(w, "the best peer", bound)
	}
}

// absentPeers are the peers of bulk traffic that were to be measured on a workload
// and were not, or not to its end.
func (r *results) absentPeers(w *workload) (names []string) {
	for _, p := range paths {
		if p.peer && slices.ContainsFunc(r.NotRun, func(f failure) bool {
			of, _ := size(f.Workload) // of one of several sizes
			return f.Workload == p.name || f.Workload == r.run(w)+", "+p.name || of == r.run(w)+", "+p.name
		}) {
			names = append(names, p.name)
		}
	}
	return names
}

// besides names those who might have been better than the best that the last bar
// stands beside. While there are any nobody can tell that it is met.
func (r *results) besides(absent []string) {
	if len(absent) == 0 {
		return
	}
	r.last().doubt("not measured: " + strings.Join(absent, ", "))
}

// last is the bar that came last.
func (r *results) last() *bar { return &r.Bars[len(r.Bars)-1] }

// doubt says why nobody can tell whether a bar is met; one that is missed stays so.
func (b *bar) doubt(why string) {
	b.Have += "; " + why
	b.Open, b.Met = b.Open || b.Met, false
}

// wanted reports whether one of some paths was to be measured.
func (r *results) wanted(which func(p *path) bool) bool {
	return r.asked != nil && slices.ContainsFunc(allPaths(), func(p *path) bool { return which(p) && r.asked.wants(p) })
}

// open is a bar of which nobody can tell whether it is met, because something was
// not measured. It says why, as far as that is known.
func (r *results) open(w *workload, beside string, bound float64) {
	why := "see what was not measured, and why"
	for _, f := range r.NotRun {
		if f.Workload == beside || f.Workload == r.run(w)+", "+beside {
			why = f.Why
		}
	}
	r.Bars = append(r.Bars, bar{
		Name: fmt.Sprintf("%s: fairlead beside %s", w.name, beside), Want: fmt.Sprintf("at least %.2f", bound),
		Have: "not measured: " + why, Open: true, Bound: bound,
	})
}

// atLeast is the bar that f reaches bound times other. Beside it stands what the
// limit reaches, if one was measured.
func (r *results) atLeast(f, other *figure, bound float64) {
	q, pairs := f.ratio(other)
	have := fmt.Sprintf("%.3f, lower quartile %.3f, %d pairs", q.Median, q.Q1, pairs)
	if limit := r.limitOf(f); limit != nil && limit != other {
		if ratios := limit.beside(other); len(ratios) > 0 {
			have += fmt.Sprintf("; %s, %s, has %.2f", limit.Path, limit.reason(), quantiles(ratios).Median)
		}
	}
	r.Bars = append(r.Bars, bar{
		Name:  fmt.Sprintf("%s: %s beside %s", f.Workload, f.Path, other.Path),
		Want:  fmt.Sprintf("at least %.2f", bound),
		Have:  have,
		Met:   pairs >= minPairs && q.Median >= bound && q.Q1 >= quartileBar*bound,
		Open:  pairs < minPairs,
		Bound: bound, Value: q.Median,
	})
}

// alike adds to the last bar, which is about two figures of ours, what the same two of a
// limit have, if they were measured.
func (r *results) alike(many, few *figure) {
	if many == nil || few == nil {
		return
	}
	if ratios := many.beside(few); len(ratios) > 0 {
		b := r.last()
		b.Have += fmt.Sprintf("; %s, %s, has %.2f of %s", many.Path, many.reason(), quantiles(ratios).Median, few.Path)
	}
}

// atMost is the bar that what of says of f stays below bound, in the unit of f.
func (r *results) atMost(f *figure, what string, of func(*figure) float64, bound float64) {
	r.noMore(f, what, of, bound, " "+f.Unit)
}

// noMore is the same of a value in some other unit. Beside it stands what is said of
// the limit, if one was measured.
func (r *results) noMore(f *figure, what string, of func(*figure) float64, bound float64, unit string) {
	value := of(f)
	have := number(value) + unit
	if limit := r.limitOf(f); limit != nil && limit != f {
		have += fmt.Sprintf("; %s, %s, has %s", limit.Path, limit.reason(), number(of(limit)))
	}
	r.Bars = append(r.Bars, bar{
		Name:  fmt.Sprintf("%s: %s, %s", f.Workload, f.Path, what),
		Want:  fmt.Sprintf("at most %g%s", bound, unit),
		Have:  have,
		Met:   len(f.Samples) > 0 && value <= bound,
		Bound: bound, Value: value,
	})
}

// eachAtMost is the bar that each sample but one of twenty stays below bound. Beside it
// stands the worst.
func (r *results) eachAtMost(f *figure, bound float64) {
	r.atMost(f, fmt.Sprintf("%d of %d", nearly(len(f.Samples)), len(f.Samples)), (*figure).nearlyAll, bound)
	r.last().Have += fmt.Sprintf("; the worst %s %s", number(f.worst()), f.Unit)
}

// nearly is how many of n are all but one of twenty.
func nearly(n int) int { return n - n/20 }

// nearlyAll is what all samples but one of twenty stay below.
func (f *figure) nearlyAll() float64 {
	if len(f.Samples) == 0 {
		return 0
	}
	var values []float64
	for _, s := range f.Samples {
		values = append(values, s.Value)
	}
	slices.Sort(values)
	return values[nearly(len(values))-1]
}

// reason is why a limit is one.
func (f *figure) reason() string {
	switch {
	case f.Path == "unattached":
		return "which hangs on no switch"
	case strings.HasPrefix(f.Path, "lookup"):
		return "which only reads, looks up and writes"
	case f.Path == "raw-trains":
		return "which joins datagrams of one length and judges nothing"
	case f.Workload == "scale-attach-path":
		return "which only makes a TAP and moves it"
	}
	return "which only reads and writes"
}

// What bars are about.
func (f *figure) median() float64 { return f.Value.Median }
func (f *figure) worst() float64  { return f.Value.Max }

// cheaper is the bar that f costs no more than other does, by the rule for
// ratios.
func (r *results) cheaper(f, other *figure, what string, cost func(s sample) float64) {
	costs := func(f *figure) *figure {
		c := &figure{Workload: f.Workload, Path: f.Path, Unit: "s of CPU", Less: true}
		for _, s := range f.Samples {
			c.add(sample{Round: s.Round, Value: cost(s)})
		}
		return c
	}
	r.atLeast(costs(f), costs(other), 1)
	b := r.last()
	b.Name += ", how many times less " + what
}

// cpuOfBytes are the CPU seconds of the path's process for each gigabyte.
func cpuOfBytes(s sample) float64 { return s.CPU / (s.Bytes / 1e9) }

// steady are the bars of bulk TCP that nothing gets lost on its way.
func (r *results) steady(f *figure, streams int) {
	switch streams {
	case 1:
		r.noMore(f, "retransmits for each gigabyte", (*figure).again, oneStreamAgain, "")
	case 4:
		r.noMore(f, "retransmits for each gigabyte", (*figure).again, manyStreamAgain, "")
	}
	r.undropped(f)
}

// undropped is the bar that the containers' interfaces took every frame.
func (r *results) undropped(f *figure) {
	r.noMore(f, "frames its TAPs dropped", (*figure).dropped, 0, "")
}

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
