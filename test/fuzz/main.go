// Command fuzz fuzzes every target of the packages given, several side by side,
// each on one processor:
//
//	bin/fuzz -time 10m -corpus .cache/fuzz ./...
//
// What a target found interesting stays in the corpus and is where it begins the
// next time; what breaks one is kept in testdata/fuzz of its package, as go test
// does. A campaign that was interrupted, also by a crash of the machine, goes on
// with what is left of each target's time; one that is done begins anew. How far
// it is stands in fuzz.json of the corpus, and for people in fuzz.md.
//
// One goroutine for each target that runs; what they share, type report locks.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	share := flag.String("time", "30s", "fuzz each target for this `TIME`, or a count such as 10000x")
	corpus := flag.String("corpus", ".cache/fuzz", "keep what is found interesting, and the report, in `DIR`")
	jobs := flag.Int("jobs", runtime.NumCPU(), "fuzz `N` targets side by side")
	version := flag.String("version", "", "what is fuzzed, for the report")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c := campaign{share: *share, corpus: *corpus, jobs: max(*jobs, 1), version: *version}
	if err := c.run(ctx, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// A campaign is one call of this command.
type campaign struct {
	share   string // of each target, a time or a count
	corpus  string
	jobs    int
	version string
}

func (c campaign) run(ctx context.Context, packages []string) error {
	targets, err := list(packages)
	if err != nil || len(targets) == 0 {
		return err
	}
	r, err := openReport(c.corpus, c.version)
	if err != nil {
		return err
	}
	todo := r.begin(targets, c.share)
	if done := len(targets) - len(todo); done > 0 {
		fmt.Printf("of %d targets %d are done; to begin anew remove %s\n", len(targets), done, r.path(reportFile))
	}
	var wait sync.WaitGroup
	places := make(chan struct{}, c.jobs)
	for _, t := range todo {
		places <- struct{}{}
		wait.Go(func() {
			defer func() { <-places }()
			if ctx.Err() == nil {
				c.fuzz(ctx, r, t)
			}
		})
	}
	wait.Wait()
	switch found := r.found(targets); {
	case r.failed != nil:
		return r.failed
	case ctx.Err() != nil:
		return fmt.Errorf("interrupted; the same command goes on here, and %s has what there is so far", r.path(pageFile))
	case found > 0:
		return fmt.Errorf("%d targets found something; what breaks one is in testdata/fuzz of its package, and go test runs it from now on", found)
	}
	return nil
}

// A target is a fuzz test: the import path and the folder of its package, and
// its name.
type target struct{ pkg, folder, name string }

var declared = regexp.MustCompile(`(?m)^func (Fuzz\w*)\(`)

// list finds the targets of packages, by path and name.
func list(packages []string) (all []target, err error) {
	const format = `{{$p := .ImportPath}}{{$d := .Dir}}{{range .TestGoFiles}}{{$p}} {{$d}} {{.}}{{"\n"}}{{end}}{{range .XTestGoFiles}}{{$p}} {{$d}} {{.}}{{"\n"}}{{end}}`
	cmd := exec.Command("go", append([]string{"list", "-f", format}, packages...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue // between packages
		}
		text, err := os.ReadFile(filepath.Join(f[1], f[2]))
		if err != nil {
			return nil, err
		}
		for _, m := range declared.FindAllSubmatch(text, -1) {
			all = append(all, target{f[0], f[1], string(m[1])})
		}
	}
	slices.SortFunc(all, func(a, b target) int { return strings.Compare(a.pkg+" "+a.name, b.pkg+" "+b.name) })
	return all, nil
}

// most bounds a target's memory, that of one execution and what all those in one
// process leave behind. The kernel gives no more, at which Go ends the process, and
// the input it had is what breaks the target.
const most = "prlimit --data=1073741824"

// patience is how much longer than it should a target may take: one that goes round
// in circles would hang for good.
const patience = 5 * time.Minute

// fuzz gives a target what it has left of its share.
func (c campaign) fuzz(ctx context.Context, r *report, t target) {
	share := r.left(t)
	limit := patience
	if d, err := time.ParseDuration(share); err == nil {
		limit += d
	}
	// What compiling it takes is not its time. If that fails, so does the next command.
	compile := exec.CommandContext(ctx, "go", "test", "-c", "-o", os.DevNull, "-fuzz", "^"+t.name+"$", ".")
	compile.Dir = t.folder
	_ = compile.Run()
	mine, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	// By default making one input smaller may take a minute, however short the
	// rest is.
	cmd := exec.CommandContext(mine, "go", "test", "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", share,
		"-exec", most, "-fuzzminimizetime", "1000x", "-parallel", "1", ".", "-args", "-test.fuzzcachedir="+r.path(filepath.FromSlash(t.pkg)))
	cmd.Dir = t.folder
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	// A group of its own: its workers end with it, and an interrupt at the terminal
	// comes from us, so that the report is written.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 5 * time.Second
	said := &listener{heard: func(p progress) { r.heard(t, p) }}
	cmd.Stdout, cmd.Stderr = said, said
	err := cmd.Run()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // who goes round in circles hears no interrupt
	}
	switch {
	case ctx.Err() != nil: // it goes on another time
		r.pause(t)
	case mine.Err() != nil:
		r.end(t, "it did not end: an input makes it go round in circles")
	case err != nil && said.late():
		r.end(t, "")
	case err != nil:
		r.end(t, said.text.String())
	default:
		r.end(t, "")
	}
}

// A listener hears what go test says. It is of one goroutine, that of cmd.
type listener struct {
	heard func(progress)
	text  bytes.Buffer
	line  int // where the line begins that is not whole yet
}

func (l *listener) Write(p []byte) (int, error) {
	l.text.Write(p)
	for {
		line, _, whole := bytes.Cut(l.text.Bytes()[l.line:], []byte("\n"))
		if !whole {
			return len(p), nil
		}
		l.line += len(line) + 1
		if p, ok := parseProgress(string(line)); ok {
			l.heard(p)
		}
	}
}

// late is whether a target failed for nothing but the end of its time, which go
// test takes for a failure now and then on a busy machine (go.dev/issue/75804).
func (l *listener) late() bool {
	text := l.text.String()
	return strings.Contains(text, "context deadline exceeded") && !strings.Contains(text, "Failing input written")
}
