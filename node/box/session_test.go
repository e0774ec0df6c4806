package box

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/test/lab"
)

// An executed is an exec with the test as client and node.
type executed struct {
	*Session
	t   *testing.T
	out output
}

func execute(t *testing.T, r *running, e *Exec) *executed {
	t.Helper()
	x := &executed{t: t}
	w := x.out.collect(t)
	defer w.Close()
	session, end, err := NewSession()
	if err != nil {
		t.Fatal(err)
	}
	x.Session = session
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	err = r.node.Send(&Message{Exec: e}, int(null.Fd()), int(w.Fd()), int(w.Fd()), end)
	unix.Close(end)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(session.Close)
	return x
}

// wait checks that the command starts and what it ends with.
func (x *executed) wait(want int) {
	x.t.Helper()
	if err := x.Started(); err != nil {
		x.t.Errorf("exec: %v", err)
		return
	}
	if code, err := x.Wait(); err != nil || code != want {
		x.t.Errorf("exec ended with %d, %v; want %d", code, err, want)
	}
	<-x.out.done
}

func TestExec(t *testing.T) {
	lab.NoLeaks(t)
	spec := none("sleep", "1000")
	spec.Cwd, spec.Env = "/usr", append(spec.Env, "X=container", "Y=container")
	r := start(t, spec)
	x := execute(t, r, &Exec{Args: sh("pwd; echo $HOSTNAME $X $Y; id -u; ls /proc/self/fd | tr '\\n' ' '; exit 4"), Env: []string{"Y=exec"}})
	x.wait(4)
	if want := "/usr\n0123456789ab container exec\n0\n0 1 2 3 "; x.out.String() != want {
		t.Errorf("got %q, want %q", x.out.String(), want)
	}
	for _, c := range []struct {
		e    Exec
		code int
		text string
	}{
		{Exec{Args: []string{"no-such-program"}}, 127, `exec: "no-such-program": executable file not found in $PATH`},
		{Exec{Args: []string{"/etc/passwd"}}, 126, `exec: "/etc/passwd": permission denied`},
		{Exec{Args: []string{"true"}, Cwd: "/nonexistent"}, 126, `working directory "/nonexistent": no such file or directory`},
		{Exec{}, 125, "no command given"},
	} {
		err := execute(t, r, &c.e).Started()
		var f *Failure
		if !errors.As(err, &f) || f.Code != c.code || f.Text != c.text {
			t.Errorf("%q: %v, want %d %s", c.e.Args, err, c.code, c.text)
		}
	}
}

func TestExecSignal(t *testing.T) {
	lab.NoLeaks(t)
	r := start(t, none("sleep", "1000"))
	x := execute(t, r, &Exec{Args: []string{"sleep", "1000"}})
	if err := x.Started(); err != nil {
		t.Fatal(err)
	}
	if err := x.Signal(syscall.SIGINT); err != nil {
		t.Error(err)
	}
	if code, err := x.Wait(); code != 128+2 || err != nil {
		t.Errorf("ended with %d, %v", code, err)
	}
}

// A client that goes hangs up what it started, the stubborn too, and nothing else.
func TestExecHangsUp(t *testing.T) {
	lab.NoLeaks(t)
	r := start(t, none("sleep", "1000"))
	for _, script := range []string{"echo ready; sleep 3333.5", "trap '' HUP; echo ready; while :; do sleep 3333.5; done"} {
		x := execute(t, r, &Exec{Args: sh(script)})
		if err := x.Started(); err != nil {
			t.Fatal(err)
		}
		lab.Eventually(t, 10*time.Second, func() error {
			if x.out.String() != "ready\n" {
				return fmt.Errorf("output %q", x.out.String())
			}
			return nil
		})
		x.Close()
		gone(t, "sleep\x003333.5")
		<-x.out.done
	}
	if alive, err := PIDFDAlive(r.PIDFD); !alive || err != nil {
		t.Errorf("the container is gone: %v", err)
	}
}

func TestExecContainerEnds(t *testing.T) {
	lab.NoLeaks(t)
	r := start(t, none("sleep", "1000"))
	x := execute(t, r, &Exec{Args: []string{"sleep", "1000"}})
	if err := x.Started(); err != nil {
		t.Fatal(err)
	}
	if err := SignalPIDFD(r.PIDFD, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Wait(); err == nil || !strings.Contains(err.Error(), "the container ended") {
		t.Errorf("got %v", err)
	}
}

func TestExecBound(t *testing.T) {
	lab.NoLeaks(t)
	r := start(t, none("sleep", "1000"))
	for i := range maxSessions + 1 {
		err := execute(t, r, &Exec{Args: []string{"sleep", "1000"}}).Started()
		if full := i == maxSessions; (err != nil) != full {
			t.Fatalf("number %d: %v", i+1, err)
		}
	}
}

// Messages that make no sense end nothing and leak nothing.
func TestMeaningless(t *testing.T) {
	lab.NoLeaks(t)
	r := start(t, none(sh("read x; ls /proc/1/fd | wc -l; exec sleep 1000")...))
	count := func() int {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.PID))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := count()
	for range 10 {
		_ = r.node.Send(&Message{Exec: &Exec{Args: []string{"true"}}}, 0, 1)
		_ = r.node.Send(&Message{Exec: &Exec{Args: []string{"true"}}}, 0, 1, 2, 2) // no session
		_ = r.node.Send(&Message{Started: 1}, 0)
		_ = r.node.Send(&Message{Signal: 12345})
		_ = r.node.Send(&Message{})
	}
	execute(t, r, &Exec{Args: []string{"true"}}).wait(0) // behind them all
	lab.Eventually(t, 10*time.Second, func() error {
		if n := count(); n > before {
			return fmt.Errorf("init has %d descriptors, had %d", n, before)
		}
		return nil
	})
}

// A terminal is a test's hand on the other side of a command's.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, slave, err := OpenPTY()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close(); slave.Close() })
	if err := unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 77}); err != nil {
		t.Fatal(err)
	}
	return master, slave
}

const onTerminal = `test -t 0 && stty size && echo controlled >/dev/tty && read line && echo "got $line" && exec sleep 1000`

func TestTTY(t *testing.T) {
	lab.NoLeaks(t)
	master, slave := terminal(t)
	spec := none(sh(onTerminal)...)
	spec.TTY = true
	b, err := Start(spec, [3]*os.File{slave, slave, slave})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	slave.Close()
	if err := b.Started(); err != nil {
		t.Fatal(err)
	}
	converse(t, master)
	if code, err := b.Wait(); code != 128+2 || err != nil {
		t.Errorf("ended with %d, %v", code, err)
	}
}

// converse is the other side of onTerminal; at the end it types Ctrl-C.
func converse(t *testing.T, master *os.File) {
	t.Helper()
	if err := master.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var got []byte
	expect := func(text string) {
		t.Helper()
		for !bytes.Contains(got, []byte(text)) {
			buf := make([]byte, 1000)
			n, err := master.Read(buf)
			if got = append(got, buf[:n]...); err != nil {
				t.Fatalf("%v; no %q in %q", err, text, got)
			}
		}
	}
	expect("33 77")
	expect("controlled")
	fmt.Fprint(master, "typed\n")
	expect("got typed")
	fmt.Fprint(master, "\x03")
}

func TestExecTTY(t *testing.T) {
	lab.NoLeaks(t)
	r := start(t, none("sleep", "1000"))
	master, slave := terminal(t)
	session, end, err := NewSession()
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	fd := int(slave.Fd())
	err = r.node.Send(&Message{Exec: &Exec{Args: sh(onTerminal), TTY: true}}, fd, fd, fd, end)
	unix.Close(end)
	slave.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Started(); err != nil {
		t.Fatal(err)
	}
	converse(t, master)
	if code, err := session.Wait(); code != 128+2 || err != nil {
		t.Errorf("ended with %d, %v", code, err)
	}
}
