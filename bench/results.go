package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"fairlead/bench/flags"
)

// The rule for bars: a single ratio means nothing on a machine whose figures
// vary by a fifth.
const (
	minPairs    = flags.MinPairs // so many pairs at least,
	quartileBar = 0.93           // and their lower quartile this part of the bar
)

// A sample is one measurement of one path.
type sample struct {
	Round       int     `json:"round"` // samples of one round stand beside each other
	Value       float64 `json:"value"`
	Retransmits int     `json:"retransmits"`
	Dropped     uint64  `json:"tx_dropped,omitempty"` // by the containers' interfaces
	Offered     float64 `json:"offered,omitempty"`    // part of what the path carries that was sent, where that is not as much as goes
	Bytes       float64 `json:"bytes"`                // received at the far end
	Frames      float64 `json:"frames,omitempty"`     // carried by the path
	Stolen      float64 `json:"stolen,omitempty"`     // share of the processors' time the hypervisor took meanwhile
	spent               // of the path's process for that

	watched bool // Stolen was measured
}

// A figure is what a path reached on a workload.
type figure struct {
	Workload string   `json:"workload"`
	Path     string   `json:"path"`
	Unit     string   `json:"unit"`
	Value    quantile `json:"value"`
	Samples  []sample `json:"samples"`
	What     string   `json:"what,omitempty"`
	Note     string   `json:"note,omitempty"`
	Group    string   `json:"group,omitempty"`
	Less     bool     `json:"less_is_better,omitempty"`
	Peer     bool     `json:"peer,omitempty"` // somebody else's program for what we do
	Stolen   float64  `json:"stolen"`         // share of the processors' time the hypervisor took meanwhile

	// Ratios to the other paths of the workload, by their names.
	Ratios map[string]quantile `json:"ratios,omitempty"`

	// Run is the workload that was running, as --only names it. It may have
	// figures of others: host-ports measures host-ports-mem.
	Run string `json:"run"`
}

// A bar is what a figure has to reach.
type bar struct {
	Name  string  `json:"name"`
	Want  string  `json:"want"`
	Have  string  `json:"have"`
	Met   bool    `json:"met"`
	Open  bool    `json:"open,omitempty"` // nobody can tell, and Have says why
	Bound float64 `json:"bound"`
	Value float64 `json:"value"`
	Run   string  `json:"run"`
}

// A failure is a workload that could not be measured, or a path that was not
// crossed.
type failure struct {
	Workload string `json:"workload"`
	Why      string `json:"why"`
}

// results are all that was measured. Complete are the workloads that were
// measured to their end: what a run that resumes takes over (resume.go).
type results struct {
	Format   int      `json:"format"`
	Machine  machine  `json:"machine"`
	Commit   string   `json:"commit"`
	Pairs    int      `json:"pairs"`
	Few      int      `json:"few"` // where there is no bar
	Seconds  int      `json:"seconds"`
	Quick    bool     `json:"quick,omitempty"`
	Paths    string   `json:"paths,omitempty"` // that were asked for
	Complete []string `json:"complete"`
	// Took is how many seconds each workload took, also of a run that went on later.
	Took     map[string]float64 `json:"took_seconds,omitempty"`
	Figures  []*figure          `json:"figures"`
	Bars     []bar              `json:"bars"`
	Failures []failure          `json:"failures,omitempty"`
	NotRun   []failure          `json:"not_run,omitempty"` // of peers

	asked   *options // what is being measured, nil when nothing is
	running string   // and which workload
}

func newResults(o *options) *results {
	return &results{
		Format: formatVersion, Machine: thisMachine(), Commit: thisCommit(),
		Pairs: o.Pairs, Few: o.Few, Seconds: o.Seconds, Quick: o.Quick, Paths: strings.Join(o.Paths, ","),
		Took: map[string]float64{}, asked: o,
	}
}

// end ends the measurement of a workload, with what went wrong and the share of
// the processors' time that was stolen meanwhile. All that came since the one
// before is its.
func (r *results) end(w *workload, stolen float64, err error) {
	for _, f := range r.Figures {
		if f.Run == "" {
			f.Run = w.name
			f.note(stolen)
		}
	}
	for i := range r.Bars {
		r.Bars[i].Run = cmp.Or(r.Bars[i].Run, w.name)
	}
	if err != nil {
		r.fail(w, err)
	} else {
		r.Complete = append(r.Complete, w.name)
	}
	r.running = ""
}

func (r *results) fail(w *workload, err error) {
	r.Failures = append(r.Failures, failure{w.name, err.Error()})
}

// notRun says why a peer was not measured, or not to the end: no fault of ours.
func (r *results) notRun(w *workload, path string, err error) {
	r.NotRun = append(r.NotRun, failure{r.run(w) + ", " + path, err.Error()})
}

// run is the workload that w is, or is a part of.
func (r *results) run(w *workload) string { return cmp.Or(r.running, w.name) }

// verdict counts the bars that are missed, and those nobody can tell of.
func (r *results) verdict() (missed, open int) {
	for _, b := range r.Bars {
		switch {
		case b.Open:
			open++
		case !b.Met:
			missed++
		}
	}
	return missed, open
}

// check returns the exit status of --check, and says why it is not 0: a bar of which
// nobody can tell is not met, and where nothing was measured there are none.
func (r *results) check(to io.Writer) int {
	switch missed, open := r.verdict(); {
	case len(r.Failures) > 0:
		fmt.Fprintf(to, "--check: %s could not be measured, %s not met.\n", counted(len(r.Failures), "workload"), counted(missed, "bar"))
		return exitMissed
	case len(r.Bars) == 0:
		fmt.Fprintln(to, "--check: nothing that was measured has a bar.")
		return exitOpen
	case missed > 0:
		fmt.Fprintf(to, "--check: %s not met, %d open.\n", counted(missed, "bar"), open)
		return exitMissed
	case open > 0:
		fmt.Fprintf(to, "--check: no bar is missed, and of %s nobody can tell: see those that are open.\n", counted(open, "bar"))
		return exitOpen
	}
	return 0
}

// figure starts the figure of a path on a workload.
func (r *results) figure(w *workload, path string) *figure {
	f := &figure{Workload: w.name, Path: path, Unit: w.unit, What: w.what, Group: w.group, Less: w.less, Peer: isPeer(path)}
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

// note notes what was stolen: while it was measured, where that is known, else in
// the time of the whole workload.
func (f *figure) note(stolen float64) {
	sum, watched := 0.0, 0
	for _, s := range f.Samples {
		if s.watched {
			sum, watched = sum+s.Stolen, watched+1
		}
	}
	if f.Stolen = stolen; watched > 0 {
		f.Stolen = sum / float64(watched)
	}
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
// them: how many times better they are. It is kept.
func (f *figure) ratio(other *figure) (q quantile, pairs int) {
	ratios := f.beside(other)
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

// beside lists how many times better the samples of f are than those of other of
// the same rounds. Who carried nothing where other carried something is no times as
// good: that is what starving looks like. Beside nothing there is no ratio, nor for
// what cost nothing or took no time, because it was too little to be counted, nor of
// what got lost of loads that are not the same.
func (f *figure) beside(other *figure) (ratios []float64) {
	for _, s := range f.Samples {
		for _, o := range other.Samples {
			if s.Round == o.Round && o.Value > 0 && (s.Value > 0 || !f.Less) && s.Offered == 0 && o.Offered == 0 {
				ratios = append(ratios, f.better(s.Value, o.Value))
			}
		}
	}
	return ratios
}

// isPeer reports whether a path is somebody else's program for what we do.
func isPeer(name string) bool {
	p := leaderNamed(name)
	of, _ := size(name)
	return p != nil && p.program != "" || slices.ContainsFunc(paths, func(p *path) bool { return (p.name == name || p.name == of) && p.peer })
}

// find looks for the figure of a path on a workload, with samples.
func (r *results) find(workload, path string) *figure {
	for _, f := range r.Figures {
		if f.Workload == workload && f.Path == path && len(f.Samples) > 0 {
			return f
		}
	}
	return nil
}

// besideKernel is the figure of the kernel's bridge that one stands beside: of
// fairlead-1000 it is that of kernel-1000, where that is measured.
func (r *results) besideKernel(f *figure) *figure {
	if _, variant, ok := strings.Cut(f.Path, "-"); ok {
		if k := r.find(f.Workload, "kernel-"+variant); k != nil && k != f {
			return k
		}
	}
	return r.find(f.Workload, "kernel")
}

// besidePeer is the figure of the best peer that one stands beside: where peers are
// measured at one of several sizes, those of ours and of the kernel's of that size do.
func (r *results) besidePeer(f *figure) *figure {
	best := r.bestPeer(f.Workload)
	if best == nil {
		return nil
	}
	if _, n := size(best.Path); r.find(f.Workload, fmt.Sprintf("fairlead-%d", n)) != nil {
		if _, own := size(f.Path); own != n {
			return nil
		}
	}
	return best
}

// bestPeer is the peer with the best median on a workload.
func (r *results) bestPeer(workload string) (best *figure) {
	for _, f := range r.Figures {
		if f.Workload == workload && f.Peer && len(f.Samples) > 0 &&
			(best == nil || f.better(f.Value.Median, best.Value.Median) > 1) {
			best = f
		}
	}
	return best
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
