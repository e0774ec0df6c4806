package main

import (
	"testing"
	"time"

	hosts "fairlead/test/lab"
)

// Every try of the loss rows is proved by the path's counters, and says how much of
// what the path carries was sent.
func TestLosses(t *testing.T) {
	hosts.NoLeaks(t)
	l := &lab{ctx: t.Context(), name: t.Name()}
	err := l.do(func() {
		c := layCable(l, pathNamed(t, "kernel"))
		f := c.flooding(l, datagrams{Least: frame60, Most: frame60}, 10*time.Millisecond)
		offered := []float64{0.5, 1.5}
		var samples []sample
		hosts.Eventually(l, 10*time.Second, func() (err error) { // whoever receives may come late
			samples, err = f.losses(c, offered)
			return err
		})
		for i, s := range samples {
			if s.Offered <= 0 || s.Value < 0 || s.Value > 100 || s.Frames == 0 || s.Bytes != s.Frames*frame60 {
				t.Errorf("at %.0f %%: %+v", 100*offered[i], s)
			}
		}
		asked, counted := 0, c.crossed
		c.crossed = func() (crossed, error) {
			if asked++; asked > 2 { // what the path carries is known by then
				return crossed{}, nil
			}
			return counted()
		}
		if _, err := f.losses(c, offered); len(samples) != len(offered) || err == nil {
			t.Errorf("%d samples, %v: what crossed no path is reported", len(samples), err)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

// What gets lost of one load is not compared with what gets lost of another.
func TestLossTable(t *testing.T) {
	var r results
	w := &workload{name: "loss", unit: "%", less: true}
	ours, raw, kernel := r.figure(w, "fairlead"), r.figure(w, "raw"), r.figure(w, "kernel")
	for round, offered := range []float64{0.8, 0.9, 1.0} {
		ours.add(sample{Round: round, Value: 1, Offered: offered, Frames: 100, Dropped: 25})
		raw.add(sample{Round: round, Value: 10, Offered: 1.5, Frames: 100})
		kernel.add(sample{Round: round, Value: 5, Frames: 100})
	}
	if ratio := ours.timesOf(raw); ratio != "–" {
		t.Errorf("a loss at 90 %% is %s times as good as one at 150 %%", ratio)
	}
	if ratio := kernel.timesOf(ours); ratio != "–" {
		t.Errorf("a loss at some load is %s times as good as one at 90 %%", ratio)
	}
	for cell, want := range map[string]string{
		ours.offered(): "90", raw.offered(): "150", kernel.offered(): "–", ours.overrun(): "20", raw.overrun(): "–",
	} {
		if cell != want {
			t.Errorf("a cell holds %s, want %s", cell, want)
		}
	}
}
