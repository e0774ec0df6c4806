package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// patience bounds every command that has no deadline of its own.
const patience = 30 * time.Second

func contextWithPatience() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

// A Cmd is an exec.Cmd whose process begins in a host's namespace. It leads a
// process group, and all of that is killed when its context ends.
type Cmd struct {
	*exec.Cmd
	host *Host
}

// Command prepares a command on the host. A process inherits its namespace from
// the thread that forks, so only the methods of Cmd start it in the right one.
//
// /sys is an exception: it shows the interfaces of the world, not the host's.
func (h *Host) Command(ctx context.Context, name string, args ...string) *Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return killGroup(cmd.Process.Pid) }
	cmd.WaitDelay = 10 * time.Second // a grandchild may have kept the pipes
	return &Cmd{Cmd: cmd, host: h}
}

// Start starts the command in the host's namespace.
func (c *Cmd) Start() error { return c.host.Do(c.Cmd.Start) }

// Run starts the command and waits for it.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the command and returns its standard output.
func (c *Cmd) Output() ([]byte, error) {
	var out bytes.Buffer
	c.Stdout = &out
	err := c.Run()
	return out.Bytes(), err
}

// CombinedOutput runs the command and returns all it said.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}

// Run runs a command on the host and returns its standard output. A failure
// fails the test and shows all the command said.
func (h *Host) Run(t T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := contextWithPatience()
	defer cancel()
	cmd := h.Command(ctx, name, args...)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("still running after %v", patience)
		}
		t.Fatalf("host %s: %s: %v\n%s", h.Name, strings.Join(cmd.Args, " "), err, out.String()+complaints.String())
	}
	return out.String()
}

// A Service is a command that goes on in the background, such as a server.
type Service struct {
	cmd  *Cmd
	out  transcript
	stop context.CancelFunc
	done chan struct{}
	err  error // of Wait; valid after done is closed
}

// Serve starts a command on the host that is stopped when the test ends. When
// the test has failed, what the command said is logged.
func (h *Host) Serve(t T, name string, args ...string) *Service {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &Service{cmd: h.Command(ctx, name, args...), stop: cancel, done: make(chan struct{})}
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	if err := s.cmd.Start(); err != nil {
		cancel()
		t.Fatalf("host %s: %s: %v", h.Name, strings.Join(s.cmd.Args, " "), err)
	}
	go func() {
		s.err = s.cmd.Wait()
		close(s.done)
	}()
	t.Cleanup(func() {
		s.Stop()
		if failed, ok := t.(interface{ Failed() bool }); ok && failed.Failed() {
			t.Logf("host %s: %s said:\n%s", h.Name, strings.Join(s.cmd.Args, " "), s.Output())
		}
	})
	return s
}

// Output is what the service has said so far.
func (s *Service) Output() string { return s.out.String() }

// Pid is the process id of the service in the world.
func (s *Service) Pid() int { return s.cmd.Process.Pid }

// Signal sends a signal to the service itself, as for a tcpdump that is to
// finish its file; wait for it with Wait.
func (s *Service) Signal(sig os.Signal) error { return s.cmd.Process.Signal(sig) }

// Wait waits for the service to end by itself.
func (s *Service) Wait(t T) {
	t.Helper()
	select {
	case <-s.done:
		if s.err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(s.cmd.Args, " "), s.err, s.Output())
		}
	case <-time.After(patience):
		t.Fatalf("%s: still running after %v\n%s", strings.Join(s.cmd.Args, " "), patience, s.Output())
	}
}

// Stop kills the service and what it has running, and waits until it is gone.
func (s *Service) Stop() {
	s.stop()
	<-s.done
}

// Listens waits until something on the host listens on a TCP port. It looks
// instead of connecting: some servers serve one connection and end.
func (h *Host) Listens(t T, port int) {
	t.Helper()
	Eventually(t, 5*time.Second, func() error {
		listens := false
		err := h.Do(func() error {
			for _, file := range []string{"tcp", "tcp6"} {
				data, err := os.ReadFile("/proc/thread-self/net/" + file)
				if err != nil && !errors.Is(err, os.ErrNotExist) { // no IPv6
					return err
				}
				listens = listens || listening(string(data), port)
			}
			return nil
		})
		if err == nil && !listens {
			err = fmt.Errorf("nothing on host %s listens on TCP port %d", h.Name, port)
		}
		return err
	})
}

// listening finds a socket in state LISTEN (0A) in the text of /proc/net/tcp,
// whose second and fourth columns are ADDRESS:PORT and the state in hex.
func listening(text string, port int) bool {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) > 3 && f[3] == "0A" && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
			return true
		}
	}
	return false
}

// killGroup kills a process group. That it is gone already is fine.
func killGroup(pid int) error {
	if err := syscall.Kill(-pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// A transcript collects output that is read while it is written.
type transcript struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *transcript) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *transcript) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
