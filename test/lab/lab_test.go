package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

func TestTwoHostsOnACable(t *testing.T) {
	NoLeaks(t)
	Need(t, "ping")
	a, b := NewHost(t, "a"), NewHost(t, "b")
	Join(t, a, "eth0", b, "eth0")
	for _, addr := range []string{"10.0.0.%d/24", "fd00::%d/64"} {
		a.Addr(t, "eth0", fmt.Sprintf(addr, 1))
		b.Addr(t, "eth0", fmt.Sprintf(addr, 2))
	}
	a.Run(t, "ping", "-c1", "-W5", "10.0.0.2")
	b.Run(t, "ping", "-c1", "-W5", "fd00::1")
}

func TestThreeHostsOnABridge(t *testing.T) {
	NoLeaks(t)
	Need(t, "ping")
	hosts := []*Host{NewHost(t, "a"), NewHost(t, "b"), NewHost(t, "c")}
	Bridge(t, "sw", hosts...)
	for i, h := range hosts {
		h.Addr(t, "eth0", fmt.Sprintf("10.0.0.%d/24", i+1))
	}
	hosts[0].Run(t, "ping", "-c1", "-W5", "10.0.0.2")
	hosts[2].Run(t, "ping", "-c1", "-W5", "10.0.0.1")
}

func TestARouterBetween(t *testing.T) {
	NoLeaks(t)
	Need(t, "ping")
	a, r, b := NewHost(t, "a"), NewHost(t, "r"), NewHost(t, "b")
	Join(t, a, "eth0", r, "left")
	Join(t, r, "right", b, "eth0")
	a.Addr(t, "eth0", "10.0.1.2/24")
	r.Addr(t, "left", "10.0.1.1/24")
	r.Addr(t, "right", "10.0.2.1/24")
	b.Addr(t, "eth0", "10.0.2.2/24")
	a.Route(t, "default", "10.0.1.1")
	b.Route(t, "10.0.1.0/24", "10.0.2.1")
	r.Sysctl(t, "net.ipv4.ip_forward", "1")
	if out := a.Run(t, "ping", "-c1", "-W5", "10.0.2.2"); !strings.Contains(out, "ttl=63") {
		t.Errorf("the router did not count down the TTL:\n%s", out)
	}
}

// What a function opens on a host belongs to that host; what the test does
// beside it does not.
func TestDoIsInTheHost(t *testing.T) {
	NoLeaks(t)
	a, b := NewHost(t, "a"), NewHost(t, "b")
	Join(t, a, "eth0", b, "eth0")
	a.Addr(t, "eth0", "10.0.0.1/24")
	b.Addr(t, "eth0", "10.0.0.2/24")
	listen := func() (net.Listener, error) { return net.Listen("tcp", "10.0.0.1:80") }
	server := In(t, a, listen)
	defer server.Close()
	a.Listens(t, 80)
	client := In(t, b, func() (net.Conn, error) { return net.Dial("tcp", "10.0.0.1:80") })
	client.Close()
	if l, err := listen(); err == nil {
		l.Close()
		t.Error("the test itself is on host a")
	}
}

func TestCommands(t *testing.T) {
	NoLeaks(t)
	h := NewHost(t, "h")
	if out := h.Run(t, "sh", "-c", "echo yes; echo no >&2"); out != "yes\n" {
		t.Errorf("Run returned %q", out)
	}
	said := outcome(func(ft T) { h.Run(ft, "sh", "-c", "echo a; echo b >&2; exit 3") })
	if want := "host h: sh -c echo a; echo b >&2; exit 3: exit status 3\na\nb\n"; said != "fatal: "+want {
		t.Errorf("a failing command says %q, not %q", said, want)
	}
	// A deadline ends the children of a shell too.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := h.Command(ctx, "sh", "-c", "sleep 20 & sleep 20").CombinedOutput(); err == nil {
		t.Error("a command outlived its deadline")
	}
	if took := time.Since(start); took > patience/2 {
		t.Errorf("killing a command took %v", took)
	}
	s := h.Serve(t, "sh", "-c", "echo ready; sleep 20")
	Eventually(t, 10*time.Second, func() error {
		if s.Output() != "ready\n" {
			return fmt.Errorf("the service said %q", s.Output())
		}
		return nil
	})
}

func TestEventually(t *testing.T) {
	calls := 0
	Eventually(t, 10*time.Second, func() error {
		if calls++; calls < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	never := func() error { return errors.New("never") }
	got := outcome(func(ft T) { Eventually(ft, time.Millisecond, never) })
	if want := "fatal: not within 1ms: never"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What cannot run is listed with its reason; under CI it fails.
func TestNotRun(t *testing.T) {
	NoLeaks(t)
	list := filepath.Join(t.TempDir(), "list")
	t.Setenv("FAIRLEAD_NOTRUN", list)
	t.Setenv("PATH", t.TempDir())
	t.Setenv("CI", "")
	need := func(ft T) { Need(ft, "iperf3") }
	const why = "needs the program iperf3"
	const try = "sudo apt-get install iperf3"
	if got, want := outcome(need), "skip: "+why+"; try: "+try; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	data, err := os.ReadFile(list)
	if want := "TestFake: " + why + "\t" + try + "\n"; err != nil || string(data) != want {
		t.Errorf("the list holds %q (%v), want %q", data, err, want)
	}
	t.Setenv("CI", "true")
	if got, want := outcome(need), "fatal: "+why+"; try: "+try; got != want {
		t.Errorf("under CI: got %q, want %q", got, want)
	}
	got := outcome(func(ft T) { Need(ft, "no-such-program") })
	if want := "fatal: lab: name the package that has no-such-program in test/packages.txt"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	got = outcome(NeedRoot)
	if want := "fatal: lab: say in test/needs-root.txt why TestFake needs root"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNeedTUN(t *testing.T) {
	NoLeaks(t)
	NeedTUN(t)
	needWorld(t)
	t.Setenv("CI", "")
	t.Setenv("FAIRLEAD_NOTRUN", "")
	must(t, unix.Mount("tmpfs", "/dev/net", "tmpfs", 0, ""), "hide /dev/net/tun")
	got := outcome(func(ft T) { NeedTUN(ft) })
	must(t, unix.Unmount("/dev/net", 0), "show /dev/net/tun")
	if want := "skip: finds no /dev/net/tun; try: sudo modprobe tun"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Each thing a test can leave behind is seen, and seen to be gone.
func TestLeaksAreSeen(t *testing.T) {
	NoLeaks(t)
	needWorld(t)
	for _, leak := range []struct {
		name, want string
		leave      func() (undo func())
	}{
		{"goroutine", "lab.TestLeaksAreSeen", func() func() {
			stop, ended := make(chan struct{}), make(chan struct{})
			go func() { <-stop; close(ended) }()
			return func() { close(stop); <-ended }
		}},
		{"descriptor", "descriptor of /dev/null", func() func() {
			f, err := os.Open("/dev/null")
			must(t, err, "open /dev/null")
			return func() { f.Close() }
		}},
		{"process", "sleep 30", func() func() {
			h := NewHost(t, "h")
			s := h.Serve(t, "sleep", "30")
			return s.Stop
		}},
		{"orphan", "sleep 31", func() func() {
			h := NewHost(t, "h")
			h.Run(t, "setsid", "--fork", "sh", "-c", "exec sleep 31 >/dev/null 2>&1")
			return func() { h.Run(t, "sh", "-c", "kill $(pidof sleep)") }
		}},
		{"network namespace", "network namespace net:[", func() func() {
			stop, ended := make(chan struct{}), make(chan error)
			go func() {
				ended <- onThread(func() error {
					ns, err := netns.New()
					if err == nil {
						err = ns.Close()
					}
					<-stop
					return err
				})
			}()
			return func() { close(stop); must(t, <-ended, "make a namespace") }
		}},
		{"file", "file /run/left", func() func() {
			must(t, os.WriteFile("/run/left", nil, 0o600), "write a file")
			return func() { os.Remove("/run/left") }
		}},
	} {
		t.Run(leak.name, func(t *testing.T) {
			before, err := inventory()
			must(t, err, "look")
			undo := leak.leave()
			Eventually(t, 10*time.Second, func() error {
				after, err := inventory()
				must(t, err, "look")
				if err = after.beyond(before); err == nil {
					return errors.New("the guard saw nothing")
				}
				if !strings.Contains(err.Error(), leak.want) {
					return fmt.Errorf("the guard saw %w", err)
				}
				return nil
			})
			undo()
		})
	}
}

// The guard waits for what is on its way out and reports what stays.
func TestNoLeaks(t *testing.T) {
	NoLeaks(t)
	stay, leave := make(chan struct{}), time.After(100*time.Millisecond)
	defer close(stay)
	got := guarded(t, func() { go func() { <-leave }() })
	if got != "" {
		t.Errorf("a goroutine that ended in time was reported: %s", got)
	}
	got = guarded(t, func() { go func() { <-stay }() })
	if !strings.Contains(got, "left behind after 5s") || !strings.Contains(got, "lab.TestNoLeaks") {
		t.Errorf("a goroutine that stays was reported as %q", got)
	}
}

// guarded is what the guard says of fn.
func guarded(t *testing.T, fn func()) string {
	f := &fake{TB: t}
	NoLeaks(f)
	fn()
	for _, c := range f.cleanups {
		c()
	}
	return f.said
}

// outcome is how a test ends in which fn is called: "", "skip: …", "fatal: …".
func outcome(fn func(T)) string {
	f := &fake{}
	done := make(chan struct{})
	go func() { // Fatalf and Skipf end their goroutine
		defer close(done)
		fn(f)
	}()
	<-done
	return f.said
}

// A fake is a test whose end can be looked at.
type fake struct {
	testing.TB
	said     string
	cleanups []func()
}

func (f *fake) Helper()            {}
func (f *fake) Name() string       { return "TestFake" }
func (f *fake) Failed() bool       { return f.said != "" }
func (f *fake) Setenv(_, _ string) {}
func (f *fake) Cleanup(c func())   { f.cleanups = append(f.cleanups, c) }
func (f *fake) Errorf(format string, args ...any) {
	f.said += fmt.Sprintf(format, args...)
}

func (f *fake) Fatalf(format string, args ...any) {
	f.said = "fatal: " + fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (f *fake) Skipf(format string, args ...any) {
	f.said = "skip: " + fmt.Sprintf(format, args...)
	runtime.Goexit()
}
