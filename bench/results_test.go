package main

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
)

func TestQuantiles(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   quantile
	}{
		{[]float64{5}, quantile{5, 5, 5, 5}},
		{[]float64{2, 1}, quantile{1.25, 1.5, 1.75, 2}},
		{[]float64{7, 1, 6, 2, 5, 3, 4}, quantile{2.5, 4, 5.5, 7}},
		{[]float64{8, 1, 7, 2, 6, 3, 5, 4}, quantile{2.75, 4.5, 6.25, 8}},
	} {
		if got := quantiles(c.values); got != c.want {
			t.Errorf("quantiles of %v: %v, want %v", c.values, got, c.want)
		}
	}
}

// pair is two figures of one workload; their samples stand beside each other.
func pair(values, others []float64) (f, other *figure) {
	f, other = &figure{Path: "a"}, &figure{Path: "b"}
	for i, v := range values {
		f.add(sample{Round: i, Value: v})
	}
	for i, v := range others {
		other.add(sample{Round: i, Value: v})
	}
	return f, other
}

func TestBar(t *testing.T) {
	ten := []float64{10, 10, 10, 10, 10, 10, 10, 10}
	for name, c := range map[string]struct {
		values []float64
		met    bool
	}{
		"all above":                   {[]float64{10, 11, 10, 11, 10, 11, 10}, true},
		"exactly at the bar":          {[]float64{9.5, 9.5, 9.5, 9.5, 9.5, 9.5, 9.5}, true},
		"median below":                {[]float64{10, 10, 10, 9.4, 9.4, 9.4, 9.4}, false},
		"lower quartile far below":    {[]float64{8, 8, 8, 10, 10, 10, 10}, false},
		"one outlier is forgiven":     {[]float64{1, 10, 10, 10, 10, 10, 10}, true},
		"six pairs are not enough":    {[]float64{10, 10, 10, 10, 10, 10}, false},
		"nothing measured is not met": {nil, false},
		"starved in half the rounds":  {[]float64{10, 10, 10, 0, 0, 0, 0}, false},
		"starved always":              {[]float64{0, 0, 0, 0, 0, 0, 0}, false},
	} {
		var r results
		f, other := pair(c.values, ten)
		r.atLeast(f, other, 0.95)
		if missed, open := r.verdict(); r.Bars[0].Met != c.met || (missed+open == 0) != c.met {
			t.Errorf("%s: %+v", name, r.Bars[0])
		}
	}
}

// Ratios are of samples of one round, not of medians.
func TestRatioPairsRounds(t *testing.T) {
	f, other := pair([]float64{10, 20, 40}, []float64{10, 10, 10})
	f.Samples[2].Round = 7 // nothing was measured beside it
	if q, pairs := f.ratio(other); pairs != 2 || math.Abs(q.Median-1.5) > 1e-9 {
		t.Errorf("%d pairs, median %v", pairs, q.Median)
	}
}

func TestAtMost(t *testing.T) {
	var r results
	f, _ := pair([]float64{1, 2, 3}, nil)
	r.atMost(f, "worst", (*figure).worst, 3)
	r.atMost(f, "worst", (*figure).worst, 2)
	r.atMost(&figure{}, "worst of nothing", (*figure).worst, 2)
	if !r.Bars[0].Met || r.Bars[1].Met || r.Bars[2].Met {
		t.Errorf("%+v", r.Bars)
	}
}

// What --check ends with: a bar of which nobody can tell is not met, and is not missed.
func TestCheck(t *testing.T) {
	met, missed, open := bar{Met: true}, bar{}, bar{Open: true}
	for name, c := range map[string]struct {
		bars   []bar
		failed []failure
		status int
		says   string
	}{
		"none":            {nil, nil, exitOpen, "nothing that was measured has a bar"},
		"all met":         {[]bar{met, met}, nil, 0, ""},
		"one missed":      {[]bar{met, missed}, nil, exitMissed, "1 bar not met, 0 open"},
		"one open":        {[]bar{met, open}, nil, exitOpen, "of 1 bar nobody can tell"},
		"missed and open": {[]bar{open, missed, open}, nil, exitMissed, "1 bar not met, 2 open"},
		"one failed":      {[]bar{met}, []failure{{"x", "it has ended"}}, exitMissed, "1 workload could not be measured"},
	} {
		var said strings.Builder
		r := &results{Bars: c.bars, Failures: c.failed}
		if status := r.check(&said); status != c.status || !strings.Contains(said.String(), c.says) || (said.Len() == 0) != (c.says == "") {
			t.Errorf("%s: status %d, %q", name, status, said.String())
		}
	}
}

// carried adds a figure to results, the same in each of seven rounds.
func (r *results) carried(w *workload, path string, value float64) *figure {
	f := r.figure(w, path)
	for i := range minPairs {
		f.add(sample{Round: i, Value: value})
	}
	return f
}

// A bar about what was not measured is open, and says whom it lacks and why. So is
// one beside the best peer when another one is missing.
func TestOpenBars(t *testing.T) {
	w := &workload{name: "x", unit: "Gb/s"}
	begin := func() (*results, map[string]*figure) {
		r := newResults(&options{Pairs: minPairs})
		return r, map[string]*figure{"fairlead": r.carried(w, "fairlead", 10)}
	}
	only := func(r *results) bar {
		t.Helper()
		if len(r.Bars) != 1 {
			t.Fatalf("the bars are %+v", r.Bars)
		}
		return r.Bars[0]
	}
	says := func(b bar, met, open bool, words ...string) {
		t.Helper()
		for _, word := range words {
			if !strings.Contains(b.Name+": "+b.Have, word) {
				t.Errorf("no %q in %+v", word, b)
			}
		}
		if b.Met != met || b.Open != open {
			t.Errorf("%+v: want met %v, open %v", b, met, open)
		}
	}

	r, figures := begin()
	r.NotRun = []failure{{"kernel", "it has no bridge"}}
	r.hold(w, figures, "kernel", 1)
	says(only(r), false, true, "beside kernel", "it has no bridge")

	r, figures = begin()
	r.notRun(w, "kernel", errors.New("it ended"))
	r.hold(w, figures, "kernel", 1)
	says(only(r), false, true, "it ended")

	r, figures = begin()
	r.asked.Paths = []string{"fairlead"}
	r.hold(w, figures, "kernel", 1)
	r.holdPeers(w, figures, 1)
	if len(r.Bars) != 0 {
		t.Errorf("bars about what was not to be measured: %+v", r.Bars)
	}

	r, figures = begin()
	r.holdPeers(w, figures, 0.9)
	says(only(r), false, true, "the best peer")

	r, figures = begin()
	r.carried(w, "vde", 5)
	r.holdPeers(w, figures, 0.9)
	says(only(r), true, false, "beside vde", "2.000")

	r, figures = begin()
	r.carried(w, "vde", 5)
	r.NotRun = []failure{{"ovs", "there is no ovs-vswitchd"}}
	r.holdPeers(w, figures, 0.9)
	says(only(r), false, true, "beside vde", "not measured: ovs")

	r, figures = begin()
	r.carried(w, "vde", 50)
	r.NotRun = []failure{{"ovs", "there is no ovs-vswitchd"}}
	r.holdPeers(w, figures, 0.9)
	says(only(r), false, false, "not measured: ovs") // missed, whoever else there were

	// A part of a workload lacks what the workload lacks.
	r, figures = begin()
	r.running = "whole"
	r.carried(w, "vde", 5)
	r.notRun(&workload{name: "another part"}, "textbook", errors.New("it ended"))
	r.holdPeers(w, figures, 0.9)
	says(only(r), false, true, "not measured: textbook")
}

// Beside a bar stands the first of the programs that only read and write which was
// measured on that workload, in the bar's unit.
func TestLimits(t *testing.T) {
	packets, bytes, times := &workload{name: "p", unit: "k/s"}, &workload{name: "b", unit: "Gb/s"}, &workload{name: "t", unit: "µs", less: true}
	r := &results{}
	f, kernel := r.carried(packets, "fairlead", 10), r.carried(packets, "kernel", 10)
	if r.limitOf(f) != nil {
		t.Error("a limit was made up")
	}
	r.carried(packets, "raw", 8)
	r.carried(packets, "raw-trains", 9)
	r.carried(bytes, "raw-awake", 1)
	r.figure(times, "raw-awake") // of which nothing was measured
	r.carried(times, "raw", 5)
	for _, c := range []struct {
		of   *figure
		want string
	}{
		{f, "raw-trains"}, {r.carried(bytes, "fairlead", 1), ""}, {r.carried(times, "fairlead", 1), "raw"},
		{&figure{Workload: "p", Path: "fairlead", Unit: "s of CPU"}, ""}, {&figure{Workload: "p", Path: "fairlead", Unit: "MB"}, ""},
	} {
		got := ""
		if limit := r.limitOf(c.of); limit != nil {
			got = limit.Path
		}
		if got != c.want {
			t.Errorf("the limit of %s in %s is %q, want %q", c.of.Workload, c.of.Unit, got, c.want)
		}
	}
	r.atLeast(f, kernel, 1.5)
	if have := r.Bars[0].Have; !strings.Contains(have, "raw-trains, which joins datagrams of one length and judges nothing, has 0.90") {
		t.Errorf("beside the bar stands %q", have)
	}
}

// Nobody may wait for longer than the bar. Where the machine by itself has longer pauses
// nobody can tell, unless ours are longer than these. Beside the bar stands what the kernel
// alone has.
func TestNoLonger(t *testing.T) {
	w := &workload{name: "stall", unit: "ms", less: true}
	for name, c := range map[string]struct {
		quiet, attached []float64
		met, open       bool
		says            string
	}{
		"short":                       {[]float64{1, 1.5}, []float64{1, 2}, true, false, "0 of 2 are longer than the bar, and when nothing happens 0 of 2, the worst 1.50 ms"},
		"long on a quiet machine":     {[]float64{1, 1.5}, []float64{1, 2.1}, false, false, "1 of 2 are"},
		"short on a restless machine": {[]float64{1, 7}, []float64{1, 2}, true, false, "happens 1 of 2, the worst 7.00 ms"},
		"as long as by itself":        {[]float64{3, 7}, []float64{3, 7}, false, true, "the machine's own hide any of ours"},
		"a little longer":             {[]float64{1, 7}, []float64{1, 8.9}, false, true, "the machine's own hide any of ours"},
		"much longer":                 {[]float64{1, 7}, []float64{1, 9.1}, false, false, "1 of 2 are"},
		"nothing measured has no bar": {[]float64{1}, nil, false, false, ""},
	} {
		r := &results{}
		quiet, unattached, attached := r.figure(w, "quiet"), r.figure(w, "unattached"), r.figure(w, "attached")
		unattached.add(sample{Value: 6})
		for i, v := range c.quiet {
			quiet.add(sample{Round: i, Value: v})
		}
		for i, v := range c.attached {
			attached.add(sample{Round: i, Value: v})
		}
		r.noLonger(attached, quiet)
		switch {
		case c.attached == nil:
			if len(r.Bars) != 0 {
				t.Errorf("%s: %+v", name, r.Bars)
			}
		case r.Bars[0].Met != c.met || r.Bars[0].Open != c.open || !strings.Contains(r.Bars[0].Have, c.says) ||
			!strings.Contains(r.Bars[0].Have, "; unattached, which hangs on no switch, has 6.00"):
			t.Errorf("%s: %+v", name, r.Bars[0])
		}
	}
}

// Each has to stay below a bar but one of twenty, and the worst stands beside it.
func TestEachAtMost(t *testing.T) {
	for late, met := range map[int]bool{0: true, 5: true, 6: false} {
		r := &results{}
		f := r.figure(&workload{name: "scale-attach", unit: "ms", less: true}, "fairlead")
		for i := range 100 {
			value := 1.5
			if i < late {
				value = 7
			}
			f.add(sample{Round: i, Value: value})
		}
		r.eachAtMost(f, 2)
		worst := map[bool]string{true: "7.00", false: "1.50"}[late > 0]
		if b := r.Bars[0]; b.Met != met || b.Name != "scale-attach: fairlead, 95 of 100" || !strings.HasSuffix(b.Have, "; the worst "+worst+" ms") {
			t.Errorf("%d are late: %+v", late, b)
		}
	}
}

// What a measurement made is cleaned up in reverse, also when it broke off.
func TestLabCleansUp(t *testing.T) {
	l := &lab{ctx: context.Background(), name: "x"}
	var order []int
	err := l.do(func() {
		l.Cleanup(func() { order = append(order, 1) })
		l.Cleanup(func() { order = append(order, 2) })
		l.check(nil, "do nothing")
		l.check(errors.New("no"), "do %s", "it")
		t.Error("check did not break off")
	})
	if err == nil || err.Error() != "do it: no" || len(order) != 2 || order[0] != 2 {
		t.Errorf("error %v, order %v", err, order)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	l = &lab{ctx: ctx}
	if err := l.do(func() { l.check(nil, "do nothing") }); err == nil {
		t.Error("an interrupted lab goes on")
	}
}

// A cost of nothing, as of a processor that was idle, has no ratio, nor what stands
// beside nothing. Who carries nothing beside somebody who does is no times as good.
func TestRatioOfNothing(t *testing.T) {
	for name, c := range map[string]struct {
		values, others []float64
		less           bool
		median         float64
		pairs          int
	}{
		"cost of nothing":  {[]float64{0, 10}, []float64{10, 10}, true, 1, 1},
		"starved":          {[]float64{0, 10}, []float64{10, 10}, false, 0.5, 2},
		"starved together": {[]float64{0, 10}, []float64{0, 10}, false, 1, 1},
		"beside nothing":   {[]float64{10, 10}, []float64{0, 10}, false, 1, 1},
	} {
		f, other := pair(c.values, c.others)
		f.Less, other.Less = c.less, c.less
		if q, pairs := f.ratio(other); pairs != c.pairs || q.Median != c.median {
			t.Errorf("%s: %d pairs, median %v", name, pairs, q.Median)
		}
	}
}

// All that comes while a workload is measured belongs to it.
func TestEnd(t *testing.T) {
	r := newResults(&options{Pairs: 7, Seconds: 1})
	for _, name := range []string{"first", "second"} {
		w := &workload{name: name}
		f := r.figure(&workload{name: name + "-mem"}, "fairlead")
		f.add(sample{Value: 1})
		r.atMost(f, "worst", (*figure).worst, 2)
		r.end(w, 0, map[string]error{"second": errors.New("no")}[name])
	}
	if r.Figures[0].Run != "first" || r.Figures[1].Run != "second" || r.Bars[0].Run != "first" || r.Bars[1].Run != "second" {
		t.Errorf("%+v %+v %+v", r.Figures[0], r.Figures[1], r.Bars)
	}
	if !r.has("first") || r.has("second") || len(r.Failures) != 1 {
		t.Errorf("complete are %v, failures %v", r.Complete, r.Failures)
	}
}

// Whom a path stands beside, and who is the best of the others.
func TestBeside(t *testing.T) {
	r := &results{}
	add := func(workload, path string, value float64, less, peer bool) *figure {
		f := &figure{Workload: workload, Path: path, Less: less, Peer: peer}
		f.add(sample{Value: value})
		r.Figures = append(r.Figures, f)
		return f
	}
	wire := add("a", "fairlead-wire", 1, false, false)
	few, many := add("b", "fairlead-2", 1, false, false), add("b", "fairlead-10", 1, false, false)
	add("a", "kernel", 1, false, false)
	add("a", "kernel-10", 1, false, false)
	kernel := add("b", "kernel-10", 1, false, false)
	slow, fast := add("a", "ovs", 2, false, true), add("a", "vde", 3, false, true)
	late, soon := add("b", "ovs", 3, true, true), add("b", "vde", 2, true, true)
	if r.besideKernel(wire).Path != "kernel" || r.besideKernel(few) != nil || r.besideKernel(many) != kernel {
		t.Error("a path stands beside a kernel's bridge of another kind")
	}
	if r.bestPeer("a") != fast || r.bestPeer("b") != soon {
		t.Errorf("the best peers are not %s and %s but %s and %s", fast.Path, soon.Path, slow.Path, late.Path)
	}
	if r.bestPeer("c") != nil {
		t.Error("a workload nobody has measured has a best peer")
	}
}

func TestPeers(t *testing.T) {
	for name, want := range map[string]bool{
		"fairlead": false, "raw": false, "kernel": false, "switching": false, "fairlead-wire": false,
		"textbook": true, "ovs": true, "vde": true, "slirp-1500": true, "docker-proxy": true,
	} {
		if got := isPeer(name); got != want {
			t.Errorf("%s: a peer is %v", name, got)
		}
	}
}
