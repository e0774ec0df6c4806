package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	hosts "fairlead/test/lab"
)

// The test binary plays the program where that starts itself: its paths are
// processes.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		if role, ok := roles[os.Args[1]]; ok {
			exit(os.Args[1], role(os.Args[2:]))
		}
	}
	os.Exit(m.Run())
}

func TestParse(t *testing.T) {
	dir := t.TempDir()
	for line, want := range map[string]string{
		"": "",
		"--quick --only tcp-1,nat --paths raw,pasta-1500": "",
		"--pairs 1 --seconds 1":                           "",
		"--check --quick":                                 "",
		"--json " + dir + "/x.json --svg x.svg":           "",
		"--resume " + dir + "/x.json":                     "",
		"--pairs 0":                                       "--pairs 0: at least 1",
		"--seconds -1":                                    "--seconds -1: at least 1",
		"--check --pairs 3":                               "--check needs --pairs 7",
		"--resume x.json --json y.json":                   "no place beside it",
		"--show x.json --fill docs/x.md":                  "",
		"--show x.json --json y.json":                     "no place beside it",
		"--only sctp":                                     "--only sctp: no workload's name holds that",
		"--only tcp,sctp":                                 "--only sctp: no workload's name holds that",
		"--paths raw,carrier-pigeon":                      "--paths carrier-pigeon: there is no such path",
		"--json /tmp/bench.json":                          "a /tmp of its own",
		"--json " + dir + "/none/x.json":                  "no such file or directory",
		"tcp":                                             `accepts no arguments, and got "tcp"`,
		"--sctp":                                          "unknown flag: --sctp",
	} {
		_, err := parse(strings.Fields(line))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
}

// What is measured unasked, and what when asked.
func TestChoice(t *testing.T) {
	for line, want := range map[string]struct{ pairs, seconds int }{
		"":                  {7, 2},
		"--quick":           {4, 1},
		"--quick --check":   {7, 1},
		"--quick --pairs 9": {9, 1},
		"--seconds 3":       {7, 3},
	} {
		o, err := parse(strings.Fields(line))
		if err != nil || o.Pairs != want.pairs || o.Seconds != want.seconds {
			t.Errorf("%q: %d pairs, %d seconds (%v), want %v", line, o.Pairs, o.Seconds, err, want)
		}
	}
	for line, want := range map[string][]string{
		"--quick":                     {"fairlead", "raw", "kernel"},
		"--paths raw":                 {"raw"},
		"--paths two-workers --quick": {"two-workers"},
	} {
		o, err := parse(strings.Fields(line))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range paths {
			if o.measures(p) {
				got = append(got, p.name)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q measures %v, want %v", line, got, want)
		}
	}
	o := options{}
	if p := pathNamed(t, "two-workers"); o.wants(p) {
		t.Error("two-workers is measured unasked")
	}
	for only, want := range map[string][]string{
		"tcp-1-":          {"tcp-1-cubic", "tcp-1-bbr"},
		"nat-in-8,stall":  {"nat-in-8-cubic", "nat-in-8-bbr", "stall"},
		"host-in-1-cubic": {"host-in-1-cubic"},
	} {
		o := options{Only: strings.Split(only, ","), Quick: true}
		var got []string
		for _, w := range o.chosen() {
			got = append(got, w.name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("--only %s chooses %v, want %v", only, got, want)
		}
	}
}

// What only the curious want is measured when it is named.
func TestAsked(t *testing.T) {
	for only, want := range map[string]int{"": 0, "hostile-,write-time-": len(attacks), "hostile-macs": 2} {
		o := options{}
		if only != "" {
			o.Only = strings.Split(only, ",")
		}
		n := 0
		for _, w := range o.chosen() {
			if w.asked {
				n++
			}
		}
		if n != want {
			t.Errorf("--only %q chooses %d of the workloads that have to be asked for, want %d", only, n, want)
		}
	}
}

// Each name means one thing.
func TestNames(t *testing.T) {
	for _, list := range [][]string{names(workloads), names(paths), names(natPaths(in))} {
		for i, name := range list {
			if slices.Contains(list[:i], name) {
				t.Errorf("%s is there twice", name)
			}
		}
	}
}

func names[T any](list []*T) (names []string) {
	for _, e := range list {
		switch e := any(e).(type) {
		case *workload:
			names = append(names, e.name)
		case *path:
			names = append(names, e.name)
		}
	}
	return names
}

func pathNamed(t *testing.T, name string) *path {
	t.Helper()
	i := slices.IndexFunc(paths, func(p *path) bool { return p.name == name })
	if i < 0 {
		t.Fatalf("there is no path %s", name)
	}
	return paths[i]
}

// All that is measured unasked fits into an hour, and what is quick into two
// minutes, as far as the workloads know themselves, when every peer is installed.
func TestExpected(t *testing.T) {
	everythingThere(t)
	for line, most := range map[string]time.Duration{"": time.Hour, "--quick": 2 * time.Minute} {
		o, err := parse(strings.Fields(line))
		if err != nil {
			t.Fatal(err)
		}
		ws := o.chosen()
		got := o.expected(ws)
		t.Logf("%q: %d workloads, %v", line, len(ws), got)
		for _, w := range ws {
			t.Logf("  %-18s %v", w.name, w.expected(o))
		}
		if got > most {
			t.Errorf("%q takes %v, want %v at most", line, got, most)
		}
	}
	for d, want := range map[time.Duration]string{
		12 * time.Second: "10 seconds", 89 * time.Second: "90 seconds", 100 * time.Second: "2 minutes", time.Hour: "60 minutes",
	} {
		if got := about(d); got != want {
			t.Errorf("%v is about %s, want %s", d, got, want)
		}
	}
}

// everythingThere has every program and right that some path takes.
func everythingThere(t *testing.T) {
	dir := t.TempDir()
	for line := range strings.Lines(packages) {
		line, _, _ = strings.Cut(line, "#")
		for i, program := range strings.Fields(line) {
			if i > 0 {
				if err := os.WriteFile(filepath.Join(dir, program), nil, 0o755); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	t.Setenv("PATH", dir)
	f, err := os.OpenFile(filepath.Join(dir, "backlog"), os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = writeBacklog(f, "1000")
	}
	if err != nil {
		t.Fatal(err)
	}
	was := backlog
	backlog = f
	t.Cleanup(func() { backlog = was; f.Close() })
	for _, p := range paths {
		if err := p.missing(); err != nil && !p.asked {
			t.Errorf("%s: %v", p.name, err)
		}
	}
}

// What is not installed is listed once, with what installs it.
func TestMissing(t *testing.T) {
	o, err := parse([]string{"--paths=raw,ovs,vde"})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", t.TempDir())
	var r results
	r.skipPaths(o)
	if len(r.NotRun) != 2 || r.NotRun[0].Workload != "ovs" ||
		r.NotRun[1].Why != "there is no vde_switch; try: sudo apt-get install vde2" {
		t.Errorf("not run: %+v", r.NotRun)
	}
	if o.measures(pathNamed(t, "ovs")) || !o.measures(pathNamed(t, "raw")) {
		t.Error("what is missing is measured, or what is not missing is not")
	}
}

// Every program that is looked for is in packages.txt.
func TestPackages(t *testing.T) {
	for _, p := range allPaths() {
		for _, program := range p.programs {
			packageOf(program) // which panics
		}
	}
	for _, p := range leaders {
		if p.program != "" && packageOf(p.program) != p.pkg {
			t.Errorf("%s is in package %s, and in packages.txt in %s", p.program, p.pkg, packageOf(p.program))
		}
	}
}

func TestList(t *testing.T) {
	var out bytes.Buffer
	list(&out)
	for _, want := range []string{"\n  tcp-1-cubic ", "\n  nat-in-8-bbr ", "\n  ovs-tso ", "\n  pasta-65520 ", "(only with --paths)", "(--quick)"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// Every path carries what is sent, and counts it.
func TestPathsCarry(t *testing.T) {
	hosts.NoLeaks(t)
	hosts.NeedTUN(t)
	for of, list := range map[string][]*path{"containers": paths, "nat-out": natPaths(out), "nat-in": natPaths(in)} {
		for _, p := range list {
			if p.missing() == nil {
				t.Run(of+"/"+p.name, func(t *testing.T) { carries(t, p) })
			}
		}
	}
}

func carries(t *testing.T, p *path) {
	l := &lab{ctx: t.Context(), name: t.Name()}
	err := l.do(func() {
		c := layCable(l, p)
		c.settle(l, func() error { return c.connect(l) })
		before, err := c.crossed()
		l.check(err, "count")
		l.check(c.connect(l), "connect")
		// Three packets of what opens a connection, one at least of what closes it, all
		// of which may still be under way.
		hosts.Eventually(l, 10*time.Second, func() error {
			after, err := c.crossed()
			if n := after.minus(before); err == nil && (n.Frames < 4 || n.Bytes < 4*40) {
				err = fmt.Errorf("a connection crossed, and the path counted %d frames, %d bytes", n.Frames, n.Bytes)
			}
			return err
		})
	})
	if err != nil {
		t.Error(err)
	}
}

// A peer that does not work is noted, and the others are measured.
func TestTurns(t *testing.T) {
	hosts.NoLeaks(t)
	fails := func(l *lab, c *cable) { l.Fatalf("it does not start") }
	list := []*path{
		{name: "kernel", every: 1, lay: kernelBridge},
		{name: "third", every: seldom, lay: kernelBridge},
		{name: "peer", every: 1, peer: true, lay: kernelBridge},
		{name: "slow peer", every: 1, peer: true, lay: kernelBridge},
		{name: "ends", every: 1, peer: true, lay: kernelBridge},
		{name: "never", every: 1, peer: true, lay: fails},
	}
	w := &workload{name: "x"}
	var r results
	var figures map[string]*figure
	l := &lab{ctx: t.Context(), name: t.Name()}
	err := l.do(func() {
		figures = w.turns(l, &options{Pairs: 4}, &r, list, func(l *lab, c *cable) func() (sample, error) {
			n := 0
			return func() (sample, error) {
				if n++; c.name == "ends" && n > 1 {
					return sample{}, errors.New("it ended")
				}
				return sample{Value: map[string]float64{"slow peer": 1, "ends": 1, "peer": 9, "kernel": 10, "third": 10}[c.name]}, nil
			}
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"kernel": 4, "third": 2, "peer": 4, "slow peer": 2, "ends": 1} {
		if f := figures[name]; f == nil || len(f.Samples) != want {
			t.Errorf("%s: %+v, want %d samples", name, f, want)
		}
	}
	if len(r.NotRun) != 2 || r.NotRun[0].Workload != "x, never" || r.NotRun[1].Workload != "x, ends" {
		t.Errorf("not run: %v", r.NotRun)
	}
}

// The machine's setting is read and written as the kernel wants it.
func TestBacklog(t *testing.T) {
	file := filepath.Join(t.TempDir(), "netdev_max_backlog")
	if err := os.WriteFile(file, []byte("1000\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if was, err := readBacklog(f); err != nil || was != "1000" {
		t.Errorf("read %q (%v)", was, err)
	}
	if err := writeBacklog(f, "10000"); err != nil {
		t.Fatal(err)
	}
	if now, err := readBacklog(f); err != nil || now != "10000" {
		t.Errorf("read %q (%v)", now, err)
	}
}
