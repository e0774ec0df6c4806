package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A node's log that is full becomes the one before, and what is written afterwards
// is in a new one.
func TestNodeLogIsBounded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	h, err := claim(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer h.leave(nodeLog, nodeLogBefore, nodeLogNext, nodeLock)
	log, err := os.OpenFile(filepath.Join(dir, nodeLog), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	say := func(text string) {
		t.Helper()
		if _, err := log.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if err := h.turnLog(log, 100); err != nil {
			t.Fatal(err)
		}
	}
	holds := func(name, want string) {
		t.Helper()
		if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(text) != want {
			t.Errorf("%s holds %q (%v), want %q", name, text, err, want)
		}
	}
	long := strings.Repeat("x", 101)
	say("short")
	holds(nodeLog, "short")
	say(long)
	say("new")
	holds(nodeLog, "new")
	holds(nodeLogBefore, "short"+long)
	say(long)
	say("newer")
	holds(nodeLog, "newer")
	holds(nodeLogBefore, "new"+long)

	// Where there is no descriptor for a new one, all goes on in the old one.
	if _, err := log.WriteString(long); err != nil {
		t.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	err = h.turnLog(log, 100)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, unix.EMFILE) {
		t.Errorf("a new log without a descriptor: %v", err)
	}
	holds(nodeLog, "newer"+long)
	holds(nodeLogBefore, "new"+long)

	// What is somebody else's stays as it is.
	other, err := os.Create(filepath.Join(t.TempDir(), "theirs"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.WriteString(long); err != nil {
		t.Fatal(err)
	}
	if err := h.turnLog(other, 100); err != nil {
		t.Fatal(err)
	}
	holds(nodeLogBefore, "new"+long)
}
