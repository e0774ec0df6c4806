package main

import (
	"bytes"
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

func TestPrint(t *testing.T) {
	r := newResults(&options{Pairs: 7, Seconds: 3})
	w := &workload{name: "tcp-1-cubic", unit: "Gb/s"}
	for _, path := range []string{"fairlead", "raw", "kernel"} {
		f := r.figure(w, path)
		for round := range 7 {
			f.add(sample{Round: round, Value: 20, Bytes: 2e9, Retransmits: 3, CPU: 0.5})
		}
	}
	r.figure(w, "never measured")
	r.Figures[0].ratio(r.Figures[2])
	r.atLeast(r.Figures[0], r.Figures[1], 2)
	r.fail(&workload{name: "stall"}, errors.New("no such program"))
	var out bytes.Buffer
	r.printIn(&out, 200)
	for _, want := range []string{
		"fairlead   20.00  20.00–20.00      1.00   1.00      1.5     0.250",
		"NOT MET  tcp-1-cubic: fairlead beside raw: 1.000, lower quartile 1.000, 7 pairs, want at least 2.00",
		"stall: no such program",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "never measured") {
		t.Errorf("a path without samples is in\n%s", out.String())
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
