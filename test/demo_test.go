package test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairlead/test/lab"
)

// A demo is a run of docs/demo.sh, in a process group of its own as a shell
// would start it.
type demo struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  transcript
	done chan struct{}
}

func startDemo(t *testing.T) *demo {
	t.Helper()
	d := &demo{t: t, cmd: exec.Command("../docs/demo.sh", lab.Binary(t)), done: make(chan struct{})}
	d.cmd.Stdout, d.cmd.Stderr = &d.out, &d.out
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	d.cmd.WaitDelay = time.Second
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(d.done)
		_ = d.cmd.Wait() // its exit code is in ProcessState
	}()
	return d
}

func (d *demo) wait() int {
	d.t.Helper()
	select {
	case <-d.done:
	case <-time.After(patience):
		_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL)
		d.t.Fatalf("the demo still runs after %v:\n%s", patience, d.out.String())
	}
	return d.cmd.ProcessState.ExitCode()
}

// The demo shows the main job and leaves nothing behind. It takes two seconds,
// and is to take no ten; but how busy the machine is, is no test's business.
func TestDemo(t *testing.T) {
	lab.NoLeaks(t)
	lab.NeedTUN(t)
	start := time.Now()
	d := startDemo(t)
	if code := d.wait(); code != 0 {
		t.Errorf("the demo ended with %d:\n%s", code, d.out.String())
	}
	t.Logf("it took %v", time.Since(start))
	if err := contains(d.out.String(), "2 packets transmitted, 2 received", "Hello 172.17.0.3:", "8000.0242ac110001",
		"02:42:ac:11:00:02", "is local?", "HWaddress", "1 parse", "3 look up", "no host interface",
		// The outside sees this machine's address, the container that of who asks, or
		// its gateway's.
		"Hello 198.51.100.1:", "Hello 198.51.100.2:", "Hello 172.17.0.1:", "at 172.17.0.2:80.", "from 198.51.100.1", "default dev host",
		"5.4 NAT      masquerade by rule", "5.4 NAT      publish by rule", "5.7 uplink", "answer, flow"); err != nil {
		t.Error(err)
	}
	noDemoFiles(t)
}

// So it does when Ctrl-C ends it, whenever that comes.
func TestDemoInterrupted(t *testing.T) {
	lab.NoLeaks(t)
	lab.NeedTUN(t)
	for _, moment := range []string{
		"",                 // the first lines of the script
		"# Two containers", // while the node starts
		"--name client",
		"$ fairlead ps",
		"bytes from", // between two pings
		"# The switch",
		"trace --words",
		"# A way out",
		"show routes",
		"# A way in",
		"publish by rule",
		"# All gone",
	} {
		d := startDemo(t)
		lab.Eventually(t, 15*time.Second, func() error { return contains(d.out.String(), moment) })
		// At the end it may have been faster than we are.
		err := syscall.Kill(-d.cmd.Process.Pid, syscall.SIGINT)
		if err != nil && (moment != "# All gone" || !errors.Is(err, syscall.ESRCH)) {
			t.Fatal(err)
		}
		code := d.wait()
		// Right at the start sh has not set its trap, and at the end there is
		// nothing to interrupt.
		if code != 130 && (moment != "" || code != -1) && (moment != "# All gone" || code != 0) {
			t.Errorf("Ctrl-C at %q ends the demo with %d:\n%s", moment, code, d.out.String())
		}
		noDemoFiles(t)
	}
}

func noDemoFiles(t *testing.T) {
	t.Helper()
	if left, err := filepath.Glob(os.TempDir() + "/fairlead-demo*"); err != nil || len(left) > 0 {
		t.Errorf("the demo left %s (%v)", strings.Join(left, " "), err)
	}
}
