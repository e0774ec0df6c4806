package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What a file has complete is taken over, and nothing else.
func TestResume(t *testing.T) {
	o := &options{Pairs: 7, Seconds: 2}
	old := newResults(o)
	old.Commit = "0123456789ab"
	for _, name := range []string{"tcp-1-cubic", "tcp-4-cubic", "stall"} {
		w := &workload{name: name, unit: "Gb/s"}
		f := old.figure(w, "fairlead")
		f.add(sample{Round: 0, Value: 20, Bytes: 1e9, Retransmits: 3, Frames: 1e5, spent: spent{CPU: 0.5}})
		old.atMost(f, "worst", (*figure).worst, 2)
		old.notRun(w, "ovs", errors.New("it does not start"))
		old.Took[name] = 10
		old.end(w, 0, map[string]error{"tcp-4-cubic": errors.New("interrupted")}[name])
	}
	name := filepath.Join(t.TempDir(), "bench.json")
	if err := old.writeJSON(name); err != nil {
		t.Fatal(err)
	}
	r := newResults(o)
	r.Commit = old.Commit
	if err := r.resume(name); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(r.Complete, []string{"tcp-1-cubic", "stall"}) || len(r.Figures) != 2 || len(r.Bars) != 2 || len(r.NotRun) != 2 || len(r.Failures) != 0 {
		t.Errorf("taken over are %v, %d figures, %d bars, not run %v, failures %v", r.Complete, len(r.Figures), len(r.Bars), r.NotRun, r.Failures)
	}
	if got, want := r.Figures[0].Samples[0], old.Figures[0].Samples[0]; got != want {
		t.Errorf("a sample has become %+v, was %+v", got, want)
	}
	only := newResults(&options{Only: []string{"tcp-1-cubic"}, Pairs: 7, Seconds: 2})
	only.Commit = old.Commit
	if err := only.resume(name); err != nil {
		t.Fatal(err)
	}
	if len(only.Failures) != 1 || only.Failures[0].Workload != "tcp-4-cubic" {
		t.Errorf("of what failed and is not measured again there is %v", only.Failures)
	}
	if len(r.Took) != 2 || len(only.Took) != 3 {
		t.Errorf("of what was taken over it is known how long it took: %v, and with what failed %v", r.Took, only.Took)
	}
	if r.Machine.Time != old.Machine.Time {
		t.Error("it began anew")
	}
	if entries, err := os.ReadDir(filepath.Dir(name)); err != nil || len(entries) != 1 {
		t.Errorf("beside the file there are %v (%v)", entries, err)
	}
}

// A file of other conditions is refused, and the error names what differs.
func TestResumeRefuses(t *testing.T) {
	o := &options{Pairs: 7, Seconds: 2}
	name := filepath.Join(t.TempDir(), "bench.json")
	for want, change := range map[string]func(old *results){
		"":                                    func(*results) {},
		"another commit: ffff, and this is 0": func(old *results) { old.Commit = "ffff" },
		"another kernel: 5.4":                 func(old *results) { old.Machine.Kernel = "5.4" },
		"another processor: 6502":             func(old *results) { old.Machine.CPU = "6502" },
		"another number of processors: 999":   func(old *results) { old.Machine.CPUs = 999 },
		"another Go":                          func(old *results) { old.Machine.Go = "go1" },
		"another user":                        func(old *results) { old.Machine.User = "somebody" },
		"another number of pairs: 9":          func(old *results) { old.Pairs = 9 },
		"another number of pairs where there is no bar: 9": func(old *results) { old.Few = 9 },
		"another seconds: 9":     func(old *results) { old.Seconds = 9 },
		"another --quick: true":  func(old *results) { old.Quick = true },
		`another --paths: "raw"`: func(old *results) { old.Paths = "raw" },
		"has format 1":           func(old *results) { old.Format = 1 },
	} {
		r, old := newResults(o), newResults(o)
		r.Commit, old.Commit = "0123456789ab", "0123456789ab"
		change(old)
		if err := old.writeJSON(name); err != nil {
			t.Fatal(err)
		}
		err := r.resume(name)
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), name)) {
			t.Errorf("%q: %v", want, err)
		}
	}
	r := newResults(o)
	if err := r.resume(filepath.Join(t.TempDir(), "none.json")); err != nil {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := os.WriteFile(name, []byte("no JSON"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := r.resume(name); err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("no JSON: %v", err)
	}
}
