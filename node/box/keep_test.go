package box

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fairlead/test/lab"
)

// Where nothing but the channel could say that a process is the init of before, as
// when it is not known when that began, whoever has its number is left alone: a node
// that held a pidfd of it would kill it in the other's place.
func TestReachStranger(t *testing.T) {
	lab.NoLeaks(t)
	r := start(t, none("sleep", "1000"))
	pid, err := PIDOf(r.PIDFD)
	if err != nil {
		t.Fatal(err)
	}
	begun, err := StartOf(r.PIDFD)
	if err != nil {
		t.Fatal(err)
	}
	for name, i := range map[string]Init{
		"its beginning is not known": {PID: pid},
		"it is another one":          {PID: pid, Start: begun + 1},
	} {
		if got, err := Reach(i); !errors.Is(err, ErrGone) {
			t.Errorf("%s: %v", name, err)
			got.Close()
		}
	}
	got, err := Reach(Init{PID: pid, Start: begun})
	if err == nil || errors.Is(err, ErrGone) || got.PIDFD < 0 {
		t.Errorf("one that keeps nothing is taken for gone: %v", err)
	}
	got.Close()
}

// What a process keeps is taken only if it is what an init keeps: the file of a file
// system that is served inside could never be given back.
func TestReach(t *testing.T) {
	lab.NoLeaks(t)
	near, far, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	channel, err := NewChannel(near)
	if err != nil {
		t.Fatal(err)
	}
	defer channel.Close()
	kept := os.NewFile(uintptr(far), "kept")
	defer kept.Close()
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := exec.Command("sleep", "1000")
	cmd.ExtraFiles = []*os.File{kept, file}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	pidfd, err := OpenPID(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	begun, err := StartOf(pidfd)
	if err != nil {
		t.Fatal(err)
	}
	cookie, err := unix.GetsockoptUint64(far, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		kept   int
		cookie uint64
		want   string
	}{
		{3, cookie, ""},
		{3, cookie + 1, "not the channel it was born with"},
		{4, cookie, "neither a socket nor a TAP"},
		{9, cookie, "given up what it kept"}, // not 5, by which its loader reads its libraries
		{1, cookie, "keeps nothing"},
	} {
		r, err := Reach(Init{PID: cmd.Process.Pid, Start: begun, Kept: c.kept, Cookie: c.cookie})
		if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%d: %v, want %q", c.kept, err, c.want)
		}
		if r.PIDFD < 0 || (r.Channel == nil) != (c.want != "") {
			t.Errorf("%d: %+v", c.kept, r)
		}
		for _, link := range []int{3, 4} {
			if fd, err := r.Take(link); err == nil {
				t.Errorf("descriptor %d is taken for a link: %d", link, fd)
			}
		}
		r.Close()
	}
}
