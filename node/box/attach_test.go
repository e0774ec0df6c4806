package box

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"fairlead/link"
	"fairlead/packet"
	"fairlead/test/lab"
)

// eth1 is an interface for somebody else's namespace.
func eth1() *Interface {
	a := netip.MustParseAddr("172.17.0.9")
	return &Interface{Name: "eth1", MAC: packet.MACFromIPv4(a), MTU: 1400, Addresses: []netip.Prefix{netip.PrefixFrom(a, 16)}}
}

// A stranger is a process in namespaces of its own that shows them on demand.
type stranger struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func newStranger(t *testing.T, flags uintptr) *stranger {
	t.Helper()
	lab.Need(t, "ip")
	s := &stranger{cmd: unshared(flags, sh("echo ready; while read command; do eval $command; echo; done")...)}
	if flags&unix.CLONE_NEWNET == 0 {
		s.cmd.SysProcAttr = nil // no namespaces at all
	}
	var err error
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.out = bufio.NewReader(out)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.kill)
	if line, _ := s.out.ReadString('\n'); line != "ready\n" {
		t.Fatalf("stranger said %q", line)
	}
	return s
}

func (s *stranger) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// ask runs a command there and returns its output, up to an empty line.
func (s *stranger) ask(t *testing.T, command string) string {
	t.Helper()
	fmt.Fprintln(s.in, command)
	var all strings.Builder
	for {
		line, err := s.out.ReadString('\n')
		if err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		if line == "\n" {
			return all.String()
		}
		all.WriteString(line)
	}
}

// attached checks the interface from inside and takes its TAP.
func attached(t *testing.T, s *stranger, f *Foreign) *link.TAP {
	t.Helper()
	tap, err := link.AdoptTAP(f.TAP)
	if err != nil {
		t.Fatal(err)
	}
	f.TAP = -1
	if err := tap.SetCarrier(true); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, 10*time.Second, func() error {
		out := s.ask(t, "ip -o addr show eth1; ip -o link show eth1; ip route")
		for _, want := range []string{
			fmt.Sprintf("%d: eth1 ", f.Index), "inet 172.17.0.9/16 brd 172.17.255.255", "fe80::42:acff:fe11:9/64",
			"<BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1400", "link/ether 02:42:ac:11:00:09",
			"172.17.0.0/16 dev eth1 proto kernel scope link src 172.17.0.9",
		} {
			if !strings.Contains(out, want) {
				return fmt.Errorf("no %q in:\n%s", want, out)
			}
		}
		return nil
	})
	return tap
}

// dead waits for the descriptor to say that its interface is gone.
func dead(t *testing.T, tap *link.TAP) {
	t.Helper()
	poll := []unix.PollFd{{Fd: int32(tap.Fd()), Events: unix.POLLIN}}
	lab.Eventually(t, 10*time.Second, func() error {
		_, err := unix.Poll(poll, 0)
		if err != nil || poll[0].Revents&unix.POLLERR == 0 {
			return fmt.Errorf("events %#x, %w", poll[0].Revents, err)
		}
		return nil
	})
	// POLLERR comes when the interface begins to go; frames may still wait.
	lab.Eventually(t, 10*time.Second, func() error {
		if _, err := unix.Read(tap.Fd(), make([]byte, 2000)); !errors.Is(err, unix.EBADFD) {
			return fmt.Errorf("read: %w, want EBADFD", err)
		}
		return nil
	})
}

// In another user namespace, by process and by path.
func TestAttachForeign(t *testing.T) {
	lab.NoLeaks(t)
	lab.NeedTUN(t)
	for _, by := range []string{"pid", "path"} {
		t.Run(by, func(t *testing.T) {
			s := newStranger(t, unix.CLONE_NEWNET)
			target := Target{PID: s.cmd.Process.Pid}
			if by == "path" {
				target = Target{Path: fmt.Sprintf("/proc/%d/ns/net", s.cmd.Process.Pid)}
			}
			f, err := AttachForeign(target, eth1())
			if err != nil {
				t.Fatal(err)
			}
			tap := attached(t, s, f)
			defer tap.Close()
			if id, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", s.cmd.Process.Pid)); id != fmt.Sprintf("net:[%d]", f.NetNS.Ino) {
				t.Errorf("namespace %v, want %s", f.NetNS, id)
			}
			s.kill()
			dead(t, tap)
		})
	}
}

// Closing the TAP takes the interface away; it can come again, with a route.
func TestAttachForeignAgain(t *testing.T) {
	lab.NoLeaks(t)
	lab.NeedTUN(t)
	s := newStranger(t, unix.CLONE_NEWNET)
	target := Target{PID: s.cmd.Process.Pid}
	for range 3 {
		i := eth1()
		i.Gateways = []netip.Addr{netip.MustParseAddr("172.17.0.1")}
		f, err := AttachForeign(target, i)
		if err != nil {
			t.Fatal(err)
		}
		if out := s.ask(t, "ip route"); !strings.Contains(out, "default via 172.17.0.1 dev eth1") {
			t.Errorf("routes:\n%s", out)
		}
		if _, err := AttachForeign(target, i); err == nil || !strings.Contains(err.Error(), "there is an interface eth1 already: name this one by --ifname") {
			t.Errorf("a second eth1: %v", err)
		}
		f.Close()
		lab.Eventually(t, 10*time.Second, func() error {
			if out := s.ask(t, "ip -o link"); strings.Contains(out, "eth") {
				return errors.New(out)
			}
			return nil
		})
	}
}

// A default route that is there stays the only one, whatever its metric: the
// namespace's owner has decided how it reaches the world.
func TestAttachKeepsDefaultRoute(t *testing.T) {
	lab.NoLeaks(t)
	lab.NeedTUN(t)
	s := newStranger(t, unix.CLONE_NEWNET)
	target := Target{PID: s.cmd.Process.Pid}
	i := eth1()
	i.Gateways = []netip.Addr{netip.MustParseAddr("172.17.0.1")}
	for _, metric := range []string{"0", "100"} {
		s.ask(t, "ip link add out0 type veth peer name out1; ip addr add 10.0.0.2/24 dev out0; ip link set out0 up; ip link set out1 up; ip route add default via 10.0.0.1 metric "+metric)
		f, err := AttachForeign(target, i)
		if err != nil {
			t.Fatalf("metric %s: %v", metric, err)
		}
		out := s.ask(t, "ip route")
		if strings.Count(out, "default") != 1 || !strings.Contains(out, "default via 10.0.0.1 dev out0") || !strings.Contains(out, "172.17.0.0/16 dev eth1") {
			t.Errorf("metric %s: routes:\n%s", metric, out)
		}
		f.Close()
		s.ask(t, "ip link del out0")
		lab.Eventually(t, 10*time.Second, func() error {
			if out := s.ask(t, "ip -o link"); strings.Contains(out, "eth1") {
				return errors.New(out)
			}
			return nil
		})
	}
}

// In a namespace of our own user namespace that has a path and no process, as
// ip-netns makes them: unmounted and removed, it is gone.
func TestAttachNamed(t *testing.T) {
	lab.NoLeaks(t)
	lab.NeedTUN(t)
	if !haveCaps(unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN) {
		lab.NotRun(t, "makes a named network namespace", "make test")
	}
	path := filepath.Join(t.TempDir(), "named")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	err = unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), path, "", unix.MS_BIND, "")
	if err := errors.Join(err, netns.Set(home)); err != nil {
		t.Fatal(err) // and end the thread, which is nowhere
	}
	runtime.UnlockOSThread()
	f, err := AttachForeign(Target{Path: path}, eth1())
	if err != nil {
		_ = unix.Unmount(path, 0)
		t.Fatal(err)
	}
	tap, err := link.AdoptTAP(f.TAP)
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	if err := unix.Unmount(path, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	dead(t, tap)
}

func TestAttachErrors(t *testing.T) {
	lab.NoLeaks(t)
	bad := eth1()
	bad.MTU = 1
	s := newStranger(t, unix.CLONE_NEWNET)
	thread := s.cmd.Process.Pid
	s.kill()
	for _, c := range []struct {
		target Target
		i      *Interface
		want   string
	}{
		{Target{Path: "/no/such/file"}, eth1(), "attach eth1 to netns:/no/such/file: open /no/such/file: no such file or directory"},
		{Target{Path: "/etc/passwd"}, eth1(), "attach eth1 to netns:/etc/passwd: /etc/passwd is not a network namespace (ip netns list shows the named ones)"},
		{Target{Path: "/proc/self/ns/mnt"}, eth1(), "attach eth1 to netns:/proc/self/ns/mnt: /proc/self/ns/mnt is not a network namespace (ip netns list shows the named ones)"},
		{Target{PID: thread}, eth1(), fmt.Sprintf("attach eth1 to pid:%d: process %[1]d: no such process", thread)},
		{Target{PID: -1}, eth1(), "attach eth1 to pid:-1: process -1: no such process"},
		{Target{PID: 1}, bad, "interface eth1: MTU 1 is not between 68 and 65521"},
	} {
		if _, err := AttachForeign(c.target, c.i); err == nil || err.Error() != c.want {
			t.Errorf("%v: got %v, want %s", c.target, err, c.want)
		}
	}
}

// Without the rights of the namespace's owner, the error says whose they are.
func TestAttachWithoutRights(t *testing.T) {
	lab.NoLeaks(t)
	// A process in a user namespace of its own looks up at ours.
	cmd := unshared(0, self("attach", "/proc/self/ns/net")...)
	out, _ := cmd.CombinedOutput()
	if want := "it belongs to a user namespace above ours: run this command where it was made, as root there\n"; !strings.HasSuffix(string(out), want) {
		t.Errorf("got %q, want %q", out, want)
	}
}

// forkInto under pressure: other goroutines allocate, fork and open meanwhile.
func TestForkIntoBusy(t *testing.T) {
	lab.NoLeaks(t)
	s := newStranger(t, unix.CLONE_NEWNET)
	stop := make(chan bool)
	done := make(chan bool)
	go func() {
		defer close(done)
		var keep [][]byte
		for {
			select {
			case <-stop:
				return
			default:
				keep = append(keep[:len(keep)%100], make([]byte, 10_000))
				runtime.GC()
			}
		}
	}()
	pidfd, err := OpenPID(s.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	for range 50 {
		ns, err := openForeignNS(pidfd, unix.CLONE_NEWUSER)
		if err != nil {
			t.Fatal(err)
		}
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		line := self("print", "here")
		pid, err := forkInto([]namespace{ns}, unix.CLONE_NEWNET, line, childEnv(), []uintptr{uintptr(p[0]), uintptr(p[1]), uintptr(p[1])})
		unix.Close(p[1])
		unix.Close(ns.fd)
		if err != nil {
			t.Fatal(err)
		}
		r := os.NewFile(uintptr(p[0]), "pipe")
		out, _ := io.ReadAll(r)
		r.Close()
		var ws syscall.WaitStatus
		_, _ = syscall.Wait4(pid, &ws, 0, nil)
		if string(out) != "here\n" || ws != 0 {
			t.Fatalf("said %q, status %#x", out, ws)
		}
	}
	close(stop)
	<-done
}

// What cannot work says which step failed.
func TestForkIntoErrors(t *testing.T) {
	lab.NoLeaks(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	join := []namespace{{fd: int(null.Fd()), kind: unix.CLONE_NEWNET}}
	if _, err := forkInto(join, 0, []string{"x"}, nil, nil); err == nil || err.Error() != "enter namespace: invalid argument" {
		t.Errorf("a namespace that is none: %v", err)
	}
	if _, err := forkInto(nil, unix.CLONE_VM|unix.CLONE_THREAD, []string{"x"}, nil, nil); err == nil || err.Error() != "make namespaces: invalid argument" {
		t.Errorf("flags that contradict: %v", err)
	}
	big := make([]string, 100)
	for i := range big {
		big[i] = strings.Repeat("x", 100_000)
	}
	if _, err := forkInto(nil, 0, big, nil, nil); err == nil || err.Error() != "execute /proc/self/exe: argument list too long" {
		t.Errorf("arguments that do not fit: %v", err)
	}
}
