package box

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/test/lab"
)

func TestExitStatus(t *testing.T) {
	lab.NoLeaks(t)
	for _, c := range []struct {
		args []string
		want int
	}{
		{[]string{"true"}, 0},
		{sh("exit 3"), 3},
		{sh("kill -KILL $$"), 128 + 9},
		{sh("kill -TERM $$"), 128 + 15},
		{[]string{"/bin/sh", "-c", "exit 255"}, 255},
	} {
		run(t, none(c.args...), c.want)
	}
}

func TestExitStatusReachesNode(t *testing.T) {
	lab.NoLeaks(t)
	r := start(t, none(sh("exit 7")...))
	m, _, err := r.node.Recv()
	if err != nil || m.Exit == nil || *m.Exit != 7 {
		t.Errorf("the node heard %+v, %v; want exit 7", m, err)
	}
	if _, _, err := r.node.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("then %v, want EOF", err)
	}
	r.wait(7)
}

// The node hears when the container's end of the link is in order: it has a
// carrier, and what it sends gets out.
func TestLinkedReachesNode(t *testing.T) {
	lab.NoLeaks(t)
	r := create(t, own("sleep", "1000"))
	if m, _, err := r.node.Recv(); err != nil || !m.Linked {
		t.Errorf("the node heard %+v, %v", m, err)
	}
}

func TestCannotRun(t *testing.T) {
	lab.NoLeaks(t)
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"denied": 0o644, "garbage": 0o755} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte{1, 2, 3}, mode); err != nil {
			t.Fatal(err)
		}
	}
	denied := none("denied")
	denied.Env = []string{"PATH=" + dir}
	cwd := none("true")
	cwd.Cwd = "/nonexistent"
	notDir := none("true")
	notDir.Cwd = "/etc/passwd"
	for _, c := range []struct {
		spec *Spec
		code int
		text string
	}{
		{none("no-such-program"), 127, `exec: "no-such-program": executable file not found in $PATH`},
		{none("/no/such/program"), 127, `exec: "/no/such/program": no such file or directory`},
		{none("/etc/passwd"), 126, `exec: "/etc/passwd": permission denied`},
		{none("/etc"), 126, `exec: "/etc": is a directory`},
		{none("./etc"), 126, `exec: "./etc": is a directory`},
		{denied, 126, `exec: "denied": permission denied`},
		{none(dir + "/garbage"), 126, `exec: "` + dir + `/garbage": exec format error`},
		{cwd, 126, `working directory "/nonexistent": no such file or directory`},
		{notDir, 126, `working directory "/etc/passwd": not a directory`},
	} {
		r := create(t, c.spec)
		err := r.Started()
		var f *Failure
		if !errors.As(err, &f) || f.Code != c.code || f.Text != c.text {
			t.Errorf("%q: %v, want %d %s", c.spec.Args, err, c.code, c.text)
		}
		r.wait(c.code)
		r.stop()
	}
}

func TestCommandSurroundings(t *testing.T) {
	lab.NoLeaks(t)
	// What a caller may leave to his children.
	signal.Ignore(syscall.SIGHUP, syscall.SIGTSTP, syscall.SIGUSR1)
	defer signal.Reset(syscall.SIGHUP, syscall.SIGTSTP, syscall.SIGUSR1)
	var leak [2]int
	if err := unix.Pipe2(leak[:], 0); err != nil {
		t.Fatal(err)
	}
	defer closeAll(leak[:])

	spec := none(sh("cat /proc/self/status; ls /proc/self/fd | tr '\\n' ' '; echo; pwd; id -u; echo $HOSTNAME-$X-$#; ps -o pid=,sid= -p $$")...)
	spec.Cwd = "/usr"
	spec.Env = append(spec.Env, "X=first", "X=last")
	out := run(t, spec, 0)
	for _, want := range []string{
		"\nSigBlk:\t0000000000000000\n",
		"\n0 1 2 3 \n", // 3 is the folder ls reads
		"\n/usr\n0\n0123456789ab-last-0\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	// Signals 32 and 33 are the C library's own; a caller that starts programs
	// with posix_spawn may have them ignored, and nobody but the library sends them.
	const library = 1<<(32-1) | 1<<(33-1)
	m := regexp.MustCompile(`\nSigIgn:\t([0-9a-f]{16})\n`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("no SigIgn in:\n%s", out)
	}
	if ignored, err := strconv.ParseUint(m[1], 16, 64); err != nil || ignored&^library != 0 {
		t.Errorf("the command starts with signals ignored: %s", m[1])
	}
	if m := regexp.MustCompile(`(\d+) +(\d+)\s+$`).FindStringSubmatch(out); m == nil || m[1] != m[2] {
		t.Errorf("the command does not lead a session:\n%s", out)
	}
}

func TestStdin(t *testing.T) {
	lab.NoLeaks(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(w, "hello")
	w.Close()
	defer r.Close()
	saved := os.Stdin
	os.Stdin = r
	defer func() { os.Stdin = saved }()
	spec := none("cat")
	if out := run(t, spec, 0); out != "" {
		t.Errorf("without Stdin cat read %q", out)
	}
	spec.Stdin = true
	if out := run(t, spec, 0); out != "hello" {
		t.Errorf("with Stdin cat read %q", out)
	}
}

func TestSignals(t *testing.T) {
	lab.NoLeaks(t)
	for name, send := range map[string]func(r *running) error{
		"born channel": func(r *running) error { return r.Signal(syscall.SIGUSR1) },
		"node channel": func(r *running) error { return r.node.Send(&Message{Signal: int(syscall.SIGUSR1)}) },
		"init itself":  func(r *running) error { return SignalPIDFD(r.PIDFD, syscall.SIGUSR1) },
	} {
		r := start(t, none(sh("trap 'exit 42' USR1; echo ready; while :; do sleep 0.05; done")...))
		r.until("ready")
		if err := send(r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		r.wait(42)
		r.stop()
	}
	t.Run("from inside", func(t *testing.T) {
		r := start(t, none(sh("trap 'exit 43' TERM; kill -KILL 1; kill -TERM 1; while :; do sleep 0.05; done")...))
		r.wait(43)
	})
	t.Run("KILL", func(t *testing.T) {
		r := start(t, none("sleep", "1000"))
		if err := r.Signal(syscall.SIGKILL); err != nil {
			t.Error(err)
		}
		r.wait(128 + 9)
	})
	t.Run("before the start", func(t *testing.T) {
		r := createDown(t, own("true"))
		if err := r.Signal(syscall.SIGWINCH); err != nil { // of no consequence
			t.Error(err)
		}
		if err := r.Signal(syscall.SIGINT); err != nil {
			t.Error(err)
		}
		r.wait(128 + 2)
	})
}

func TestReaps(t *testing.T) {
	lab.NoLeaks(t)
	// Orphans become init's children; none may stay as a zombie.
	out := run(t, none(sh(`for i in 1 2 3 4 5; do (sh -c 'sleep 0.02 &' &); done; sleep 0.3; grep -sl '^State:.Z' /proc/[0-9]*/status; echo done`)...), 0)
	if out != "done\n" {
		t.Errorf("zombies:\n%s", out)
	}
}

// What a command leaves behind ends with it, however it tried to get away.
func TestGrandchildrenEnd(t *testing.T) {
	lab.NoLeaks(t)
	const marker = "3333.25"
	run(t, none(sh("(setsid sh -c 'trap \"\" HUP TERM; sleep "+marker+" & sleep "+marker+"' &) ; exit 5")...), 5)
	gone(t, marker)
}

func TestEnds(t *testing.T) {
	lab.NoLeaks(t)
	const stubborn = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
	polite := "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"
	for _, c := range []struct {
		name   string
		script string
		do     func(r *running)
		want   int
		text   string
	}{
		{"client gone", polite, func(r *running) { r.session.Close() }, 9, ""},
		{"client gone, stubborn", stubborn, func(r *running) { r.session.Close() }, 128 + 9, ""},
		{"init killed", stubborn, func(r *running) { _ = SignalPIDFD(r.PIDFD, syscall.SIGKILL) }, 128 + 9, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, none(sh(c.script)...))
			r.until("ready")
			begin := time.Now()
			c.do(r)
			r.wait(c.want)
			if took := time.Since(begin); took > 3*time.Second {
				t.Errorf("took %v", took)
			}
			if !strings.Contains(r.out.String(), c.text) {
				t.Errorf("no %q in:\n%s", c.text, r.out.String())
			}
		})
	}
	t.Run("client gone before the start", func(t *testing.T) {
		r := createDown(t, own("true"))
		r.session.Close()
		r.wait(125)
	})
}

func TestNoCarrier(t *testing.T) {
	lab.NoLeaks(t)
	lab.NeedTUN(t)
	cmd := unshared(unix.CLONE_NEWNET, self("no-carrier")...)
	out, _ := cmd.CombinedOutput()
	if want := "interface eth0 has no carrier after 100ms: the node does not read its link\n"; string(out) != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

func TestManyAtOnce(t *testing.T) {
	lab.NoLeaks(t)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer null.Close()
			b, err := Start(none(sh(fmt.Sprintf("exit %d", i))...), [3]*os.File{null, null, null})
			if err != nil {
				t.Error(err)
				return
			}
			defer b.Close()
			if err := b.Started(); err != nil {
				t.Error(err)
			}
			if code, err := b.Wait(); code != i || err != nil {
				t.Errorf("number %d ended with %d, %v", i, code, err)
			}
		})
	}
	wg.Wait()
}

// Killed at any moment, nothing stays. The client that dies here takes the
// node's part too.
func TestKilledAtAnyMoment(t *testing.T) {
	lab.NoLeaks(t)
	lab.NeedTUN(t)
	for i := range 30 {
		id := fmt.Sprintf("killed-%d-%d", os.Getpid(), i)
		cmd := helperCommand("client", id, "sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i) * 700 * time.Microsecond) // a start takes some 10 ms
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		gone(t, id)
	}
}

func TestInitKilledAtAnyMoment(t *testing.T) {
	lab.NoLeaks(t)
	for i := range 20 {
		spec := own("sleep", "1000")
		spec.ID = fmt.Sprintf("init-killed-%d-%d", os.Getpid(), i)
		r := create(t, spec)
		time.Sleep(time.Duration(i) * 200 * time.Microsecond) // the command starts after some hundred
		if err := SignalPIDFD(r.PIDFD, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := r.Started(); err != nil && !strings.Contains(err.Error(), "init ended with status 137") {
			t.Error(err)
		}
		r.stop()
		gone(t, spec.ID)
	}
}

func TestWhatIsMissing(t *testing.T) {
	lab.NoLeaks(t)
	for _, c := range []struct {
		helper string
		flags  uintptr
		want   string
	}{
		{"forbidden", 0, "start container: make namespaces: no space left on device: user.max_user_namespaces is 0; mend it with: sudo sysctl -w user.max_user_namespaces=15000\n"},
		{"no-tun", unix.CLONE_NEWNS, "modprobe tun"},
	} {
		out, _ := unshared(c.flags, self(c.helper)...).CombinedOutput()
		if !strings.Contains(string(out), c.want) {
			t.Errorf("%s: got %q, want %q", c.helper, out, c.want)
		}
	}
}

func TestValidate(t *testing.T) {
	lab.NoLeaks(t)
	spec := own("true")
	if err := spec.Validate(); err != nil {
		t.Errorf("a good spec: %v", err)
	}
	for want, spoil := range map[string]func(s *Spec){
		"no command given":            func(s *Spec) { s.Args = nil },
		"needs a log":                 func(s *Spec) { s.Detached = true },
		"go together":                 func(s *Spec) { s.Network = NetworkNone },
		"is no name for an interface": func(s *Spec) { s.Interface.Name = "a/b" },
		"not an address of one":       func(s *Spec) { s.Interface.MAC[0] = 1 },
		"MTU 67 is not between":       func(s *Spec) { s.Interface.MTU = 67 },
		"is in none of its subnets":   func(s *Spec) { s.Interface.Addresses = nil },
		"needs to be an absolute":     func(s *Spec) { s.Cwd = "usr" },
		"unknown network mode":        func(s *Spec) { s.Network, s.Interface = "bridge", nil },
		"separate kernel namespace":   func(s *Spec) { s.Sysctls = map[string]string{"kernel.panic": "1"} },
		"is no name of a sysctl":      func(s *Spec) { s.Sysctls = map[string]string{"net/../kernel/panic": "1"} },
		"is not allowed: the network": func(s *Spec) {
			s.Network, s.Interface, s.Sysctls = NetworkHost, nil, map[string]string{"net.ipv4.ip_forward": "1"}
		},
	} {
		spec := own("true")
		spoil(spec)
		if err := spec.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	long := own("true", strings.Repeat("x", MaxMessage))
	if _, err := Start(long, [3]*os.File{os.Stdin, os.Stdout, os.Stderr}); err == nil || !strings.Contains(err.Error(), "put them into a file") {
		t.Errorf("a spec that cannot travel: %v", err)
	}
}
