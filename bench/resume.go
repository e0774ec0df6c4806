package main

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// formatVersion is that of the JSON. It changes when a reader of the one before
// would misunderstand it.
const formatVersion = 2

// machine is where it was measured.
type machine struct {
	Time   time.Time `json:"time"`
	Kernel string    `json:"kernel"`
	CPU    string    `json:"cpu"`
	CPUs   int       `json:"cpus"`
	Go     string    `json:"go"`
	User   string    `json:"user"` // root, or user in a user namespace
	Load   string    `json:"load"` // the load average at the start
}

func thisMachine() machine {
	var u unix.Utsname
	_ = unix.Uname(&u)
	m := machine{
		Time: time.Now().UTC().Truncate(time.Second), Kernel: unix.ByteSliceToString(u.Release[:]),
		CPUs: runtime.NumCPU(), Go: runtime.Version(), User: os.Getenv("FAIRLEAD_WORLD"),
	}
	load, _ := os.ReadFile("/proc/loadavg")
	if f := strings.Fields(string(load)); len(f) > 0 {
		m.Load = f[0]
	}
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	return m
}

// version is the commit this program was built from. The Makefile sets it by
// -ldflags -X.
var version = "unknown"

// thisCommit is the commit, and a few digits of what was built from it: what is
// measured is two programs, this one and fairlead, wherever they are called from.
func thisCommit() string {
	sum := sha256.New()
	for _, name := range []string{"/proc/self/exe", os.Getenv(binaryVariable)} {
		if f, err := os.Open(name); err == nil { // whoever misses one will say so
			_, _ = io.Copy(sum, f)
			f.Close()
		}
	}
	return fmt.Sprintf("%s+%x", version, sum.Sum(nil)[:4])
}

// readResults reads what writeJSON wrote.
func readResults(name string) (*results, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	r := &results{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if r.Format != formatVersion {
		return nil, fmt.Errorf("%s has format %d, and this bench reads %d", name, r.Format, formatVersion)
	}
	return r, nil
}

// resume takes over the workloads that a file has complete. A file that is not
// there has none. One of another machine, commit or set of options is refused:
// its figures do not stand beside those to come.
func (r *results) resume(name string) error {
	old, err := readResults(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	if err := r.sameAs(old); err != nil {
		return fmt.Errorf("resume: %s %w; give another file to begin anew", name, err)
	}
	r.Machine.Time, r.Machine.Load = old.Machine.Time, old.Machine.Load
	for _, f := range old.NotRun {
		if !strings.Contains(f.Workload, ", ") && !slices.Contains(r.NotRun, f) && !hasCome(f.Workload) {
			r.NotRun = append(r.NotRun, f) // of all workloads; see skipPaths
		}
	}
	for _, run := range old.Complete {
		if !r.has(run) {
			r.take(old, run)
		}
	}
	for _, f := range old.Failures { // what is measured again may do better
		if !slices.ContainsFunc(r.asked.chosen(), func(w *workload) bool { return w.name == f.Workload }) {
			r.Failures = append(r.Failures, f)
			r.took(old, f.Workload)
		}
	}
	return nil
}

// hasCome reports whether a path can be measured now.
func hasCome(name string) bool {
	return slices.ContainsFunc(paths, func(p *path) bool { return p.name == name && p.missing() == nil })
}

// sameAs says in what the conditions of old differ.
func (r *results) sameAs(old *results) error {
	for _, c := range []struct{ what, old, now string }{
		{"commit", old.Commit, r.Commit},
		{"kernel", old.Machine.Kernel, r.Machine.Kernel},
		{"processor", old.Machine.CPU, r.Machine.CPU},
		{"number of processors", fmt.Sprint(old.Machine.CPUs), fmt.Sprint(r.Machine.CPUs)},
		{"Go", old.Machine.Go, r.Machine.Go},
		{"user", old.Machine.User, r.Machine.User},
		{"number of pairs", fmt.Sprint(old.Pairs), fmt.Sprint(r.Pairs)},
		{"number of pairs where there is no bar", fmt.Sprint(old.Few), fmt.Sprint(r.Few)},
		{"seconds", fmt.Sprint(old.Seconds), fmt.Sprint(r.Seconds)},
		{"--quick", fmt.Sprint(old.Quick), fmt.Sprint(r.Quick)},
		{"--paths", fmt.Sprintf("%q", old.Paths), fmt.Sprintf("%q", r.Paths)},
	} {
		if c.old != c.now {
			return fmt.Errorf("was measured with another %s: %s, and this is %s", c.what, c.old, c.now)
		}
	}
	return nil
}

// take takes over all that came of one run.
func (r *results) take(old *results, run string) {
	for _, f := range old.Figures {
		if f.Run == run {
			r.Figures = append(r.Figures, f)
		}
	}
	for _, b := range old.Bars {
		if b.Run == run {
			r.Bars = append(r.Bars, b)
		}
	}
	for _, f := range old.NotRun {
		if workload, _, _ := strings.Cut(f.Workload, ", "); workload == run {
			r.NotRun = append(r.NotRun, f)
		}
	}
	r.Complete = append(r.Complete, run)
	r.took(old, run)
}

// took takes over how long one run took, which files of older versions do not say.
func (r *results) took(old *results, run string) {
	if seconds, known := old.Took[run]; known {
		r.Took[run] = seconds
	}
}

// has reports whether a workload has been measured to its end.
func (r *results) has(run string) bool { return slices.Contains(r.Complete, run) }

// sort puts figures and bars into the order of the workloads, whatever was
// measured first.
func (r *results) sort() {
	order := map[string]int{}
	for i, w := range workloads {
		order[w.name] = i
	}
	slices.SortStableFunc(r.Figures, func(a, b *figure) int { return order[a.Run] - order[b.Run] })
	slices.SortStableFunc(r.Bars, func(a, b bar) int { return order[a.Run] - order[b.Run] })
}

// writeJSON writes all figures. Whoever interrupts it leaves the file as it was.
func (r *results) writeJSON(name string) error {
	r.sort()
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return replaceFile(name, append(b, '\n'))
}

// replaceFile writes a file anew, or leaves it as it was.
func replaceFile(name string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // no more there when all went well
	_, err = f.Write(text)
	if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return os.Rename(f.Name(), name)
}
