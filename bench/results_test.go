package main

import (
	"context"
	"errors"
	"math"
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
	} {
		var r results
		f, other := pair(c.values, ten)
		r.atLeast(f, other, 0.95)
		if r.Bars[0].Met != c.met || r.barsMet() != c.met {
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
	r.atMost(f, "worst", f.Value.Max, 3)
	r.atMost(f, "worst", f.Value.Max, 2)
	r.atMost(&figure{}, "worst of nothing", 0, 2)
	if !r.Bars[0].Met || r.Bars[1].Met || r.Bars[2].Met {
		t.Errorf("%+v", r.Bars)
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

// A cost of nothing, as of a processor that was idle, has no ratio.
func TestRatioOfNothing(t *testing.T) {
	f, other := pair([]float64{0, 10}, []float64{10, 10})
	f.Less, other.Less = true, true
	if q, pairs := f.ratio(other); pairs != 1 || q.Median != 1 {
		t.Errorf("%d pairs, median %v", pairs, q.Median)
	}
}

// All that comes while a workload is measured belongs to it.
func TestEnd(t *testing.T) {
	r := newResults(&options{Pairs: 7, Seconds: 1})
	for _, name := range []string{"first", "second"} {
		w := &workload{name: name}
		f := r.figure(&workload{name: name + "-mem"}, "fairlead")
		f.add(sample{Value: 1})
		r.atMost(f, "worst", 1, 2)
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
