package lab

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// settle is how long things may take to go away.
const settle = 5 * time.Second

// NoLeaks fails the test when, within five seconds after it has cleaned up,
// there is more than there was at this call: goroutines and descriptors of the
// test process, and in a world also processes, network namespaces, and files
// in /tmp and /run. Call it first, so that it looks last. What it counts
// belongs to the process, so a test that calls it cannot be parallel.
func NoLeaks(t testing.TB) {
	t.Helper()
	t.Setenv("FAIRLEAD_NOLEAKS", t.Name()) // panics in a parallel test
	warmUp(t)
	before, err := inventory()
	must(t, err, "look for leaks")
	t.Cleanup(func() {
		if t.Failed() {
			return // a test that broke off leaves things, and has said why
		}
		err := eventually(settle, func() error {
			after, err := inventory()
			if err != nil {
				return err
			}
			return after.beyond(before)
		})
		if err != nil {
			t.Errorf("left behind after %v:%v", settle, err)
		}
	})
}

// warmUp makes the runtime open what it opens once and keeps: its epoll.
func warmUp(t testing.TB) {
	r, w, err := os.Pipe()
	must(t, err, "open a pipe")
	r.Close()
	w.Close()
}

// A stock is what there is: how many of each thing, by a name that says what it
// is, and for some things details worth showing.
type stock struct {
	count   map[string]int
	details map[string]string
}

func (s stock) add(thing, details string) {
	s.count[thing]++
	if details != "" {
		s.details[thing] = details
	}
}

// beyond is an error that lists what s has more of than before.
func (s stock) beyond(before stock) error {
	var more []string
	for thing, n := range s.count {
		if extra := n - before.count[thing]; extra > 0 {
			line := "\n" + thing
			if extra > 1 {
				line += fmt.Sprintf(" (%d times)", extra)
			}
			if d := s.details[thing]; d != "" {
				line += "\n\t" + strings.ReplaceAll(d, "\n", "\n\t")
			}
			more = append(more, line)
		}
	}
	if more == nil {
		return nil
	}
	slices.Sort(more)
	return fmt.Errorf("%s", strings.Join(more, ""))
}

func inventory() (stock, error) {
	s := stock{count: map[string]int{}, details: map[string]string{}}
	s.goroutines()
	if err := s.descriptors(); err != nil {
		return s, err
	}
	if os.Getenv("FAIRLEAD_WORLD") == "" {
		return s, nil // the rest of the machine is not ours to judge
	}
	if err := s.processes(); err != nil {
		return s, err
	}
	s.files("/tmp")
	s.files("/run")
	return s, nil
}

// goroutines counts them by number, which is never used again.
func (s stock) goroutines() {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	for g := range strings.SplitSeq(string(buf), "\n\n") {
		// signal.Notify starts one that stays for good.
		if strings.Contains(g, "os/signal.loop") {
			continue
		}
		head, _, _ := strings.Cut(g, " [")
		s.add(head, g)
	}
}

// descriptors counts those of this process by what they point to.
func (s stock) descriptors() error {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		// The one that read the folder is closed by now.
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			s.add("descriptor of "+to, "")
		}
	}
	return err
}

// processes counts the world's processes other than its first and this one, and
// the network namespaces that threads, descriptors and mounts hold.
func (s stock) processes() error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	namespaces := map[string]string{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		s.process(pid)
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/ns/net", pid))
		descriptors, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, path := range append(threads, descriptors...) {
			if to, err := os.Readlink(path); err == nil && strings.HasPrefix(to, "net:[") {
				namespaces[to] = "seen as " + path
			}
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		// 36 35 0:4 net:[4026532281] /run/netns/a rw - nsfs nsfs rw
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[3], "net:[") {
			namespaces[f[3]] = "mounted on " + f[4]
		}
	}
	for ns, where := range namespaces {
		s.add("network namespace "+ns, where)
	}
	return nil
}

func (s stock) process(pid int) {
	if pid == 1 || pid == os.Getpid() {
		return
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return // it has just ended
	}
	line := strings.TrimSpace(strings.ReplaceAll(string(cmdline), "\x00", " "))
	if line == "" {
		line = "a zombie: nobody waited for it"
	}
	s.add(fmt.Sprintf("process %d", pid), line)
}

// files counts what lies below dir. What vanishes meanwhile is no leak, and what
// is mounted there, such as the checkout, is not the world's own.
func (s stock) files(dir string) {
	own := device(os.Lstat(dir))
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		s.add("file "+path, "")
		if entry.IsDir() && device(entry.Info()) != own {
			return fs.SkipDir
		}
		return nil
	})
}

// device is the file system a file is on, 0 when there is no such file.
func device(info fs.FileInfo, err error) uint64 {
	if err != nil {
		return 0
	}
	return info.Sys().(*syscall.Stat_t).Dev
}
