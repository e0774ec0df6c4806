package box

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"fairlead/test/lab"
)

// accept returns what SamePeer says of the next one to connect.
func accept(t *testing.T, l *net.UnixListener) error {
	t.Helper()
	c, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var answer error
	if err := raw.Control(func(fd uintptr) { _, answer = SamePeer(int(fd)) }); err != nil {
		t.Fatal(err)
	}
	return answer
}

func listen(t *testing.T) (*net.UnixListener, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "box") // the name t.TempDir makes is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, path
}

func TestSamePeer(t *testing.T) {
	lab.NoLeaks(t)
	l, path := listen(t)
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := accept(t, l); err != nil {
		t.Errorf("ourselves: %v", err)
	}
	c.Close()

	cmd := helperCommand("connect", path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := accept(t, l); err != nil {
		t.Errorf("a child: %v", err)
	}
	_ = cmd.Wait()
}

// A container of ours has our uid, our files and the socket's path.
func TestSamePeerContainer(t *testing.T) {
	lab.NoLeaks(t)
	l, path := listen(t)
	for _, network := range []Network{NetworkNone, NetworkHost} {
		spec := none(self("connect", path)...)
		spec.Network = network
		r := start(t, spec)
		if err := accept(t, l); err == nil || !strings.Contains(err.Error(), "of another pid or user namespace (a container?)") {
			t.Errorf("a container: %v", err)
		}
		r.wait(0)
	}
}

func TestSamePeerEnded(t *testing.T) {
	lab.NoLeaks(t)
	l, path := listen(t)
	// The child connects, and its descriptor outlives it in the listener's queue.
	cmd := exec.Command("sh", "-c", `exec "$@" & sleep 0.3; kill $!; wait $! || true`, "sh")
	cmd.Args = append(cmd.Args, self("connect", path)...)
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if err := accept(t, l); err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("a dead one: %v", err)
	}
}

func TestSamePeerOtherUser(t *testing.T) {
	lab.NoLeaks(t)
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(p[:])
	uid := os.Geteuid()
	want := fmt.Sprintf("refused: peer is process %d of uid %d, this node serves uid %d only", os.Getpid(), uid, uid+1)
	if _, err := samePeer(p[0], uid+1); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// Without the calls newer kernels have.
func TestNamespaceByProc(t *testing.T) {
	lab.NoLeaks(t)
	r := start(t, none("sleep", "1000"))
	for kind, k := range nsKinds {
		fd, err := openNSByProc(r.PIDFD, k.file)
		if err != nil {
			t.Fatal(err)
		}
		a, err1 := nsID(fd)
		unix.Close(fd)
		b, err2 := nsOf(r.PIDFD, kind)
		if a != b || err1 != nil || err2 != nil {
			t.Errorf("%s: %v and %v, %v %v", k.file, a, b, err1, err2)
		}
	}
	_ = SignalPIDFD(r.PIDFD, syscall.SIGKILL)
	_, _ = r.Box.Wait()
	if _, err := openNSByProc(r.PIDFD, "user"); err == nil {
		t.Error("a dead process has a namespace")
	}
	if _, err := UserNS(r.PIDFD); err == nil {
		t.Error("a dead process has a user namespace")
	}
}

func TestPIDFD(t *testing.T) {
	lab.NoLeaks(t)
	self, err := OpenPID(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(self)
	if alive, err := PIDFDAlive(self); !alive || err != nil {
		t.Errorf("we are %v, %v", alive, err)
	}
	if pid, err := PIDOf(self); pid != os.Getpid() || err != nil {
		t.Errorf("we are %d, %v", pid, err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if _, err := PIDFDAlive(int(null.Fd())); err == nil {
		t.Error("/dev/null taken for a pidfd")
	}
	if _, err := PIDOf(int(null.Fd())); err == nil {
		t.Error("/dev/null taken for a pidfd")
	}
	r := start(t, none("true"))
	r.wait(0)
	if alive, err := PIDFDAlive(r.PIDFD); alive || err != nil {
		t.Errorf("a dead one is alive %v, %v", alive, err)
	}
}
