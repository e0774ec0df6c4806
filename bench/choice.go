package main

import (
	"cmp"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// usual is how long a workload takes that does not say.
const usual = 15 * time.Second

// expected is how long a workload takes.
func (w *workload) expected(o *options) time.Duration {
	if w.takes == nil {
		return usual
	}
	return w.takes(o)
}

// expected is how long workloads take together.
func (o *options) expected(ws []*workload) (all time.Duration) {
	for _, w := range ws {
		all += w.expected(o)
	}
	return all
}

// chosen are the workloads --only names, of the eight quick ones or of all.
func (o *options) chosen() []*workload {
	var ws []*workload
	for _, w := range workloads {
		named := slices.ContainsFunc(o.Only, func(word string) bool { return strings.Contains(w.name, word) })
		if named || len(o.Only) == 0 && !w.asked && (w.quick || !o.Quick) {
			ws = append(ws, w)
		}
	}
	return ws
}

// free are the options of a workload no bar is about.
func (o *options) free() *options {
	f := *o
	f.Pairs = cmp.Or(o.Few, o.Pairs)
	return &f
}

// brief are the options of a workload that is no more than its neighbours': a second
// for each measurement.
func (o *options) brief() *options {
	b := *o
	b.Seconds = 1
	return &b
}

// measuresLeader reports whether a leader is measured.
func (o *options) measuresLeader(p *leader) bool {
	return len(o.Paths) == 0 || slices.Contains(o.Paths, p.name)
}

// measures reports whether a path is measured: it was chosen, and what it takes
// is here.
func (o *options) measures(p *path) bool { return o.wants(p) && p.missing() == nil }

// wants reports whether a path was chosen.
func (o *options) wants(p *path) bool {
	if len(o.Paths) > 0 {
		return slices.Contains(o.Paths, p.name) || p.of != "" && slices.Contains(o.Paths, p.of)
	}
	return !p.asked && (p.quick || !o.Quick)
}

// skipPaths notes once which paths are not measured, and what would have them
// measured.
func (r *results) skipPaths(o *options) {
	for _, p := range paths {
		if err := p.missing(); o.wants(p) && err != nil {
			if f := (failure{p.name, err.Error()}); !slices.Contains(r.NotRun, f) {
				r.NotRun = append(r.NotRun, f)
			}
		}
	}
}

// noteMissing says which paths of a workload are not measured, and why; those that
// many workloads have are noted once, by skipPaths.
func (r *results) noteMissing(w *workload, o *options, of []*path) {
	for _, p := range of {
		common := slices.ContainsFunc(paths, func(c *path) bool { return c.name == p.name && c.what == p.what })
		if err := p.missing(); err != nil && o.wants(p) && !common {
			r.notRun(w, p.name, err)
		}
	}
}

// unasked are the paths, with some that are else measured only when asked for.
func unasked(names ...string) []*path {
	list := slices.Clone(paths)
	for i, p := range list {
		if slices.Contains(names, p.name) {
			now := *p
			now.asked = false
			list[i] = &now
		}
	}
	return list
}

// missing says what a path takes and is not here.
func (p *path) missing() error {
	for _, program := range p.programs {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("there is no %s; try: sudo apt-get install %s", program, packageOf(program))
		}
	}
	if p.possible != nil {
		return p.possible()
	}
	return nil
}

// isPath reports whether there is a path or a leader of that name.
func isPath(name string) bool {
	return slices.ContainsFunc(allPaths(), func(p *path) bool { return p.name == name }) ||
		slices.ContainsFunc(leaders, func(p *leader) bool { return p.name == name })
}

// allPaths are those of bulk traffic and those through NAT.
func allPaths() []*path { return slices.Concat(paths, natPaths(out)) }

// list prints what can be measured.
func list(to io.Writer) {
	const row = "  %-16s %s\n"
	fmt.Fprint(to, "Workloads:\n")
	for _, w := range workloads {
		what := w.what
		switch {
		case w.quick:
			what += " (--quick)"
		case w.asked:
			what += " (only with --only)"
		}
		fmt.Fprintf(to, row, w.name, what)
	}
	for _, group := range []struct {
		of    string
		paths []*path
	}{{"between containers", paths}, {"through NAT", natPaths(out)}} {
		fmt.Fprintf(to, "\nPaths %s:\n", group.of)
		for _, p := range group.paths {
			what := p.what
			switch {
			case p.quick:
				what += " (--quick)"
			case p.asked:
				what += " (only with --paths)"
			}
			fmt.Fprintf(to, row, p.name, what)
		}
	}
	fmt.Fprint(to, "\nPaths by the host's sockets:\n")
	for _, p := range leaders {
		fmt.Fprintf(to, row, p.name, p.what)
	}
}
