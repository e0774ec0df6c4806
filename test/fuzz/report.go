package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A row is how far a target is with its share.
type row struct {
	Package string    `json:"package"`
	Target  string    `json:"target"`
	Share   string    `json:"share"`  // a time or a count
	Fuzzed  []stretch `json:"fuzzed"` // earlier versions first
	Corpus  int       `json:"corpus"` // interesting inputs in all
	Done    bool      `json:"done"`
	Found   string    `json:"found,omitempty"` // what go test said, if an input broke the target
	Updated time.Time `json:"updated,omitzero"`

	now progress // of the run that goes on, not yet in the above
}

// A stretch is what was done of a target's share at one version of the code.
type stretch struct {
	Version     string  `json:"version"`
	Seconds     float64 `json:"seconds"`
	Executions  uint64  `json:"executions"`
	Interesting int     `json:"new_interesting"`
}

// Names of the report's files in the corpus.
const (
	reportFile = "fuzz.json"
	pageFile   = "fuzz.md"
)

// A report is the state of a campaign, on disk whenever a target has said how
// far it is. Its methods may be called by several goroutines.
type report struct {
	dir     string
	version string // of what is fuzzed now
	mu      sync.Mutex
	rows    []*row
	failed  error // to write it
}

// openReport reads the report in dir, and goes on with it at a version.
func openReport(dir, version string) (*report, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	r := &report{dir: dir, version: version}
	text, err := os.ReadFile(r.path(reportFile))
	if err == nil {
		err = json.Unmarshal(text, &r.rows)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w; remove it to begin anew", r.path(reportFile), err)
	}
	return r, os.MkdirAll(dir, 0o777)
}

func (r *report) path(name string) string { return filepath.Join(r.dir, name) }

// begin returns the targets that are not done yet with their share. If all are,
// or it was another share, all begin anew.
func (r *report) begin(targets []target, share string) (todo []target) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range targets {
		if have := r.rowLocked(t); have.Share != share || !have.Done {
			todo = append(todo, t)
		}
	}
	if len(todo) == 0 {
		todo = targets
	}
	for _, t := range todo {
		have := r.rowLocked(t)
		if have.Share != share || have.Done || count(share) {
			*have = row{Package: t.pkg, Target: t.name, Share: share}
		}
	}
	return todo
}

// rowLocked is that of a target, a new one if there is none.
func (r *report) rowLocked(t target) *row {
	for _, have := range r.rows {
		if have.Package == t.pkg && have.Target == t.name {
			return have
		}
	}
	have := &row{Package: t.pkg, Target: t.name}
	r.rows = append(r.rows, have)
	slices.SortFunc(r.rows, func(a, b *row) int { return strings.Compare(a.Package+" "+a.Target, b.Package+" "+b.Target) })
	return have
}

// count is whether a share is a number of executions.
func count(share string) bool { return strings.HasSuffix(share, "x") }

// left is what a target has left of its share, for -fuzztime.
func (r *report) left(t target) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	have := r.rowLocked(t)
	d, err := time.ParseDuration(have.Share)
	if err != nil {
		return have.Share
	}
	return max(d-time.Duration(have.total().Seconds*float64(time.Second)), time.Second).String()
}

// heard takes down how far the run of a target is.
func (r *report) heard(t target, p progress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	have := r.rowLocked(t)
	have.now.merge(p)
	r.saveLocked()
}

// pause ends the run of a target that is interrupted.
func (r *report) pause(t target) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rowLocked(t).settle(r.version)
	r.saveLocked()
}

// end ends the run of a target for good; found is what it said if it failed.
func (r *report) end(t target, found string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	have := r.rowLocked(t)
	have.settle(r.version)
	have.Done, have.Found = true, found
	r.saveLocked()
	fmt.Print(found)
	total := have.total()
	fmt.Printf("fuzz %s %s: %s, %d executions, %d new interesting (total: %d)\n", path.Base(t.pkg), t.name,
		total.time(), total.Executions, total.Interesting, have.Corpus)
}

// found is how many of these targets found what breaks them.
func (r *report) found(targets []target) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range targets {
		if r.rowLocked(t).Found != "" {
			n++
		}
	}
	return n
}

// settle takes what the run has done at a version into the row.
func (w *row) settle(version string) { *w = w.settled(version) }

// settled is the row with what its run has done so far.
func (w *row) settled(version string) row {
	s := *w
	if w.now == (progress{}) {
		return s
	}
	s.Fuzzed = slices.Clone(w.Fuzzed)
	if n := len(s.Fuzzed); n == 0 || s.Fuzzed[n-1].Version != version {
		s.Fuzzed = append(s.Fuzzed, stretch{Version: version})
	}
	s.Fuzzed[len(s.Fuzzed)-1].add(stretch{Seconds: w.now.elapsed.Seconds(), Executions: w.now.executions, Interesting: w.now.interesting})
	s.Corpus = max(w.Corpus, w.now.corpus)
	s.now = progress{}
	return s
}

// total is what was done at all versions together.
func (w *row) total() (sum stretch) {
	for _, s := range w.Fuzzed {
		sum.add(s)
	}
	return sum
}

func (s *stretch) add(o stretch) {
	s.Seconds += o.Seconds
	s.Executions += o.Executions
	s.Interesting += o.Interesting
}

func (s stretch) time() time.Duration { return time.Duration(s.Seconds) * time.Second }

// saveLocked writes both files, each as a whole or not at all.
func (r *report) saveLocked() {
	rows := make([]row, len(r.rows))
	for i, w := range r.rows {
		rows[i] = w.settled(r.version)
		rows[i].Updated = time.Now().UTC().Truncate(time.Second)
	}
	text, err := json.MarshalIndent(rows, "", "  ")
	if err == nil {
		err = replace(r.path(reportFile), append(text, '\n'))
	}
	if err == nil {
		err = replace(r.path(pageFile), page(rows))
	}
	r.failed = errors.Join(r.failed, err)
}

func replace(name string, text []byte) error {
	if err := os.WriteFile(name+".new", text, 0o666); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// page is the report for people. A target that was fuzzed at several versions has
// the time of each.
func page(rows []row) []byte {
	var b bytes.Buffer
	fmt.Fprint(&b, "| target | version | time | of | executions | new interesting | corpus | found |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n")
	var all stretch
	corpus := 0
	for _, w := range rows {
		found := "nothing"
		switch {
		case w.Found != "":
			found = "**yes**"
		case !w.Done:
			found = "not done"
		}
		_, pkg, _ := strings.Cut(w.Package, "/")
		total := w.total()
		fmt.Fprintf(&b, "| %s %s | %s | %s | %s | %d | %d | %d | %s |\n", pkg, w.Target, w.versions(),
			total.time(), w.Share, total.Executions, total.Interesting, w.Corpus, found)
		all.add(total)
		corpus += w.Corpus
	}
	fmt.Fprintf(&b, "| %d targets | | %s | | %d | %d | %d | |\n", len(rows), all.time(), all.Executions, all.Interesting, corpus)
	return b.Bytes()
}

// versions are those the target was fuzzed at, for page.
func (w *row) versions() string {
	if len(w.Fuzzed) == 1 {
		return w.Fuzzed[0].Version
	}
	var list []string
	for _, s := range w.Fuzzed {
		list = append(list, fmt.Sprintf("%s %s", s.Version, s.time()))
	}
	return strings.Join(list, ", ")
}

// progress is a line of go test about a target.
type progress struct {
	elapsed     time.Duration
	executions  uint64
	interesting int
	corpus      int
}

// merge takes what is new of a later line; some say the time only.
func (p *progress) merge(o progress) {
	p.elapsed = max(p.elapsed, o.elapsed)
	p.executions = max(p.executions, o.executions)
	p.interesting = max(p.interesting, o.interesting)
	p.corpus = max(p.corpus, o.corpus)
}

var (
	elapsedLine = regexp.MustCompile(`^fuzz: elapsed: ([0-9hms.]+),`)
	figures     = regexp.MustCompile(`execs: (\d+) .*?(?:new interesting: (\d+) \(total: (\d+)\))?$`)
)

// parseProgress reads a line such as
//
//	fuzz: elapsed: 1m3s, execs: 325017 (108336/sec), new interesting: 11 (total: 202)
func parseProgress(line string) (p progress, ok bool) {
	m := elapsedLine.FindStringSubmatch(line)
	if m == nil {
		return p, false
	}
	var err error
	if p.elapsed, err = time.ParseDuration(m[1]); err != nil {
		return p, false
	}
	if m = figures.FindStringSubmatch(line); m != nil {
		// What is no number counts nothing.
		p.executions, _ = strconv.ParseUint(m[1], 10, 64)
		p.interesting, _ = strconv.Atoi(m[2])
		p.corpus, _ = strconv.Atoi(m[3])
	}
	return p, true
}
