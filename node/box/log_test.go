package box

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairlead/test/lab"
)

func TestLogRotates(t *testing.T) {
	lab.NoLeaks(t)
	path := filepath.Join(t.TempDir(), "log")
	g, err := openLog(&Log{Path: path, Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	defer g.dir.Close()
	for i := range 1000 {
		g.Write([]byte(fmt.Sprintf("line %4d\n", i)))
	}
	g.file.Close()
	old, err1 := os.ReadFile(path + ".1")
	now, err2 := os.ReadFile(path)
	if err1 != nil || err2 != nil || len(old) > 100 || len(now) > 100 {
		t.Fatalf("sizes %d and %d, %v %v", len(old), len(now), err1, err2)
	}
	want := ""
	for i := 980; i < 1000; i++ {
		want += fmt.Sprintf("line %4d\n", i)
	}
	if got := string(old) + string(now); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What cannot be written is dropped, and writing goes on when it can again.
func TestLogCannotBeWritten(t *testing.T) {
	lab.NoLeaks(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	g, err := openLog(&Log{Path: path, Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	defer g.dir.Close()
	g.Write([]byte("123456789\n"))
	if err := os.Rename(path, path+".0"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil { // nothing can be opened under its name
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".1", nil, 0o600); err != nil { // and it cannot be moved away
		t.Fatal(err)
	}
	g.Write([]byte("dropped\n"))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	g.Write([]byte("written\n"))
	g.file.Close()
	if text, err := os.ReadFile(path); string(text) != "written\n" {
		t.Errorf("got %q, %v", text, err)
	}
}

func detached(t *testing.T, args ...string) (*Spec, string) {
	t.Helper()
	spec := none(args...)
	spec.Detached = true
	spec.Log = &Log{Path: filepath.Join(t.TempDir(), "log")}
	return spec, spec.Log.Path
}

// logged waits for text in a log.
func logged(t *testing.T, path, text string) {
	t.Helper()
	lab.Eventually(t, 10*time.Second, func() error {
		if log, err := os.ReadFile(path); !strings.Contains(string(log), text) {
			return fmt.Errorf("no %q in %q, %w", text, log, err)
		}
		return nil
	})
}

func TestDetached(t *testing.T) {
	lab.NoLeaks(t)
	spec, path := detached(t, sh("echo out; echo err >&2; read x || echo no stdin; trap 'echo bye; exit 8' TERM; echo ready; while :; do sleep 0.05; done")...)
	r := start(t, spec)
	r.session.Close() // the client leaves
	logged(t, path, "out\nerr\nno stdin\nready\n")
	if err := SignalPIDFD(r.PIDFD, syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	r.wait(8)
	logged(t, path, "ready\nbye\n")
	if out := r.out.String(); out != "" {
		t.Errorf("the client's terminal got %q", out)
	}
}

// Everything that was written before the end is in the log, within its bound.
func TestDetachedBigLog(t *testing.T) {
	lab.NoLeaks(t)
	spec, path := detached(t, sh("seq 1 100000; (trap '' TERM HUP; sleep 1000) & echo the end")...)
	spec.Log.Limit = 100_000
	run(t, spec, 0)
	old, err1 := os.ReadFile(path + ".1")
	now, err2 := os.ReadFile(path)
	if err1 != nil || err2 != nil || len(old) > 100_000 || len(now) > 100_000 {
		t.Fatalf("sizes %d and %d, %v %v", len(old), len(now), err1, err2)
	}
	if all := append(old, now...); !bytes.HasSuffix(all, []byte("\n99999\n100000\nthe end\n")) {
		t.Errorf("ends with %q", all[len(all)-60:])
	}
}

func TestDetachedStdin(t *testing.T) {
	lab.NoLeaks(t)
	spec, _ := detached(t, "cat") // would end at once with /dev/null
	spec.Stdin = true
	r := start(t, spec)
	time.Sleep(100 * time.Millisecond)
	if err := r.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	r.wait(128 + 15)
}

func TestDetachedTTY(t *testing.T) {
	lab.NoLeaks(t)
	spec, path := detached(t, sh("test -t 0 && test -t 1 && echo controlled >/dev/tty; echo end")...)
	spec.TTY = true
	run(t, spec, 0)
	logged(t, path, "controlled\r\nend\r\n")
}
