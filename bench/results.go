package main

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The rule for bars: a single ratio means nothing on a machine whose figures
// vary by a fifth.
const (
	minPairs    = 7    // so many pairs at least,
	quartileBar = 0.93 // and their lower quartile this part of the bar
)

// A sample is one measurement of one path.
type sample struct {
	Round       int     `json:"round"` // samples of one round stand beside each other
	Value       float64 `json:"value"`
	Retransmits int     `json:"retransmits"`
	CPU         float64 `json:"cpu_seconds"` // of the path's process; 0 where it has none
	Bytes       float64 `json:"bytes"`       // received at the far end
}

// A figure is what a path reached on a workload.
type figure struct {
	Workload string   `json:"workload"`
	Path     string   `json:"path"`
	Unit     string   `json:"unit"`
	Value    quantile `json:"value"`
	Samples  []sample `json:"samples"`
	Note     string   `json:"note,omitempty"`
	Group    string   `json:"group,omitempty"`
	Less     bool     `json:"less_is_better,omitempty"`

	// Ratios to the other paths of the workload, by their names.
	Ratios map[string]quantile `json:"ratios,omitempty"`
}

// A bar is what a figure has to reach.
type bar struct {
	Name  string  `json:"name"`
	Want  string  `json:"want"`
	Have  string  `json:"have"`
	Met   bool    `json:"met"`
	Bound float64 `json:"bound"`
	Value float64 `json:"value"`
}

// A failure is a workload that could not be measured, or a path that was not
// crossed.
type failure struct {
	Workload string `json:"workload"`
	Why      string `json:"why"`
}

// results are all that was measured.
type results struct {
	Machine  machine   `json:"machine"`
	Pairs    int       `json:"pairs"`
	Seconds  int       `json:"seconds"`
	Figures  []*figure `json:"figures"`
	Bars     []bar     `json:"bars"`
	Failures []failure `json:"failures,omitempty"`
	NotRun   []failure `json:"not_run,omitempty"` // of peers
}

// machine is where it was measured.
type machine struct {
	Time   time.Time `json:"time"`
	Kernel string    `json:"kernel"`
	CPU    string    `json:"cpu"`
	CPUs   int       `json:"cpus"`
	Go     string    `json:"go"`
	User   string    `json:"user"` // root, or user in a user namespace
	Load   string    `json:"load"` // the load average at the start
}

func newResults(o *options) *results {
	var u unix.Utsname
	_ = unix.Uname(&u)
	load, _ := os.ReadFile("/proc/loadavg")
	r := &results{
		Pairs: o.pairs, Seconds: o.duration(),
		Machine: machine{
			Time: time.Now().UTC().Truncate(time.Second), Kernel: unix.ByteSliceToString(u.Release[:]),
			CPUs: runtime.NumCPU(), Go: runtime.Version(), User: os.Getenv("FAIRLEAD_WORLD"),
		},
	}
	if f := strings.Fields(string(load)); len(f) > 0 {
		r.Machine.Load = f[0]
	}
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "model name" {
			r.Machine.CPU = strings.TrimSpace(value)
			break
		}
	}
	return r
}

func (r *results) fail(w *workload, err error) {
	r.Failures = append(r.Failures, failure{w.name, err.Error()})
}

// notRun says why a peer was not measured, or not to the end: no fault of ours.
func (r *results) notRun(w *workload, path string, err error) {
	r.NotRun = append(r.NotRun, failure{w.name + ", " + path, err.Error()})
}

func (r *results) barsMet() bool {
	return !slices.ContainsFunc(r.Bars, func(b bar) bool { return !b.Met })
}

// figure starts the figure of a path on a workload.
func (r *results) figure(w *workload, path string) *figure {
	f := &figure{Workload: w.name, Path: path, Unit: w.unit, Group: w.group, Less: w.less}
	r.Figures = append(r.Figures, f)
	return f
}

func (f *figure) add(s sample) {
	f.Samples = append(f.Samples, s)
	var values []float64
	for _, s := range f.Samples {
		values = append(values, s.Value)
	}
	f.Value = quantiles(values)
}

// better is how many times better one value of f is than another.
func (f *figure) better(value, other float64) float64 {
	if f.Less {
		value, other = other, value
	}
	if other == 0 {
		return math.Inf(1)
	}
	return value / other
}

// ratio compares the samples of f with those of other that were taken beside
// them: how many times better they are.
func (f *figure) ratio(other *figure) (q quantile, pairs int) {
	var ratios []float64
	for _, s := range f.Samples {
		for _, o := range other.Samples {
			if s.Round == o.Round && o.Value > 0 {
				ratios = append(ratios, f.better(s.Value, o.Value))
			}
		}
	}
	if len(ratios) == 0 {
		return quantile{}, 0
	}
	q = quantiles(ratios)
	if f.Ratios == nil {
		f.Ratios = map[string]quantile{}
	}
	f.Ratios[other.Path] = q
	return q, len(ratios)
}

// atLeast is the bar that f reaches bound times other.
func (r *results) atLeast(f, other *figure, bound float64) {
	q, pairs := f.ratio(other)
	r.Bars = append(r.Bars, bar{
		Name:  fmt.Sprintf("%s: %s beside %s", f.Workload, f.Path, other.Path),
		Want:  fmt.Sprintf("at least %.2f", bound),
		Have:  fmt.Sprintf("%.3f, lower quartile %.3f, %d pairs", q.Median, q.Q1, pairs),
		Met:   pairs >= minPairs && q.Median >= bound && q.Q1 >= quartileBar*bound,
		Bound: bound, Value: q.Median,
	})
}

// atMost is the bar that a value stays below bound, in the unit of f.
func (r *results) atMost(f *figure, what string, value, bound float64) {
	r.Bars = append(r.Bars, bar{
		Name:  fmt.Sprintf("%s: %s, %s", f.Workload, f.Path, what),
		Want:  fmt.Sprintf("at most %g %s", bound, f.Unit),
		Have:  fmt.Sprintf("%.2f %s", value, f.Unit),
		Met:   len(f.Samples) > 0 && value <= bound,
		Bound: bound, Value: value,
	})
}

// A quantile is where the middle of some values lies.
type quantile struct {
	Q1     float64 `json:"q1"`
	Median float64 `json:"median"`
	Q3     float64 `json:"q3"`
	Max    float64 `json:"max"`
}

// quantiles interpolates between the neighbours in rank, as most programs do
// (Hyndman and Fan's type 7).
func quantiles(values []float64) quantile {
	v := slices.Sorted(slices.Values(values))
	at := func(p float64) float64 {
		rank := p * float64(len(v)-1)
		below := math.Floor(rank)
		above := math.Ceil(rank)
		return v[int(below)] + (rank-below)*(v[int(above)]-v[int(below)])
	}
	return quantile{Q1: at(0.25), Median: at(0.5), Q3: at(0.75), Max: v[len(v)-1]}
}
