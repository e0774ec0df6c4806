package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// patience bounds every command of a test; most take milliseconds. The longest
// carries a gigabyte by a textbook wire, on a machine that does more than that.
const patience = time.Minute

// A node is a node directory of the test's own, and the fairlead program called
// with it. When the test ends every frame is accounted for, the node goes down,
// and nothing of it may be left; see cleanup. It belongs to the test's goroutine.
type node struct {
	t         *testing.T
	bin       string
	dir       string   // FAIRLEAD_DIR
	logs      []string // of all nodes there were; see followLog
	log       *os.File // of the one that runs, or ran last
	clients   []*client
	taps      map[string]tap // the other ends of uplinks
	restarted bool           // the node began to count later than the kernel; see compareWithKernel
	blinks    bool           // interfaces inside are set down; see compareWithKernel
}

// newNode starts a node that stays until the test ends: `fairlead up ARGS`.
func newNode(t *testing.T, upArgs ...string) *node {
	t.Helper()
	n := newNodeDir(t)
	n.record()
	n.run(append([]string{"up"}, upArgs...)...)
	return n
}

// record starts the node under strace, if somebody wants to know the system calls
// it makes (make syscalls).
func (n *node) record() {
	n.t.Helper()
	folder := os.Getenv("FAIRLEAD_RECORD")
	if folder == "" {
		return
	}
	lab.Need(n.t, "strace")
	file, err := os.CreateTemp(folder, "")
	if err != nil {
		n.t.Fatal(err)
	}
	file.Close()
	script, err := filepath.Abs("syscalls.awk")
	if err != nil {
		n.t.Fatal(err)
	}
	cmd := n.command(context.Background(), "node", "--dir", n.dir)
	cmd.Env = append(cmd.Env, "FAIRLEAD_LOCK_IN=on") // what is refused is recorded, too
	cmd.Args = append([]string{"strace", "-f", "-qq", "-e", "signal=none", "-o", "|awk -v file=" + file.Name() + " -f " + script, n.bin}, cmd.Args[1:]...)
	if cmd.Path, err = exec.LookPath("strace"); err == nil {
		err = cmd.Start()
	}
	if err != nil {
		n.t.Fatal(err)
	}
	go func() { _ = cmd.Wait() }()
	lab.Eventually(n.t, patience, func() error {
		return api.NewClient(n.dir).Get(n.t.Context(), "/v1/version", new(api.VersionInfo))
	})
}

// newNodeDir makes a node directory without a node, for tests of how one
// starts and ends by itself.
func newNodeDir(t *testing.T) *node {
	t.Helper()
	lab.NoLeaks(t)
	lab.NeedTUN(t)
	// Not t.TempDir: with the test's name it would be too long for the path of
	// a socket.
	parent, err := os.MkdirTemp("", "n")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(parent) })
	n := &node{t: t, bin: lab.Binary(t), dir: filepath.Join(parent, "d"), taps: map[string]tap{}}
	t.Cleanup(n.cleanup)
	return n
}

// command prepares a call of fairlead. It leads a process group, all of which
// is killed when ctx ends.
func (n *node) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, n.bin, args...)
	// Containers run fairlead's own small clients and servers by its name.
	// A call that a node should not make ends it, and the test; see judgeLogs.
	cmd.Env = append(os.Environ(), "FAIRLEAD_DIR="+n.dir, "FAIRLEAD_LOCK_IN=strict", "PATH="+filepath.Dir(n.bin)+":"+os.Getenv("PATH"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second // a grandchild may have kept the pipes
	return cmd
}

// A result is what a command said and how it ended.
type result struct {
	args           []string
	stdout, stderr string
	code           int
}

func (r result) String() string {
	return fmt.Sprintf("fairlead %s: exit status %d\n%s%s", strings.Join(r.args, " "), r.code, r.stdout, r.stderr)
}

// try calls fairlead, however it ends.
func (n *node) try(args ...string) result {
	n.t.Helper()
	return n.tryWith(nil, args...)
}

// tryWith is try with standard input.
func (n *node) tryWith(stdin io.Reader, args ...string) result {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	cmd := n.command(ctx, args...)
	var out, complaints bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &complaints
	err := cmd.Run()
	n.followLog()
	r := result{args, out.String(), complaints.String(), cmd.ProcessState.ExitCode()}
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
		n.t.Fatalf("%v: %v", r, errors.Join(err, ctx.Err()))
	}
	return r
}

// run calls fairlead and returns its standard output; a failure ends the test.
func (n *node) run(args ...string) string {
	n.t.Helper()
	r := n.try(args...)
	if r.code != 0 {
		n.t.Fatal(r)
	}
	return r.stdout
}

// iperf3 has a container be a client of iperf3. A server that is not yet done with the
// client before sends it away.
func (n *node) iperf3(name string, args ...string) string {
	n.t.Helper()
	command := append([]string{"exec", name, "iperf3"}, args...)
	r := n.try(command...)
	for end := time.Now().Add(patience); strings.Contains(r.stdout+r.stderr, "the server is busy") && time.Now().Before(end); r = n.try(command...) {
		time.Sleep(10 * time.Millisecond)
	}
	if r.code != 0 {
		n.t.Fatal(r)
	}
	return r.stdout
}

// refuses calls fairlead, which must fail with exit status 125 and this text.
func (n *node) refuses(text string, args ...string) {
	n.t.Helper()
	if r := n.try(args...); r.code != 125 || !strings.Contains(r.stderr, text) {
		n.t.Errorf("%v\nwant exit status 125 and %q", r, text)
	}
}

// gone waits until a container is in no table any more.
func (n *node) gone(name string) {
	n.t.Helper()
	lab.Eventually(n.t, 10*time.Second, func() error {
		if c, ok := n.containers()[name]; ok {
			return fmt.Errorf("container %s is still there: %+v", name, c)
		}
		return nil
	})
}

// start runs a container in the background and returns its id. Args are options
// of `run` and, behind "--", its command; without one it sleeps.
func (n *node) start(name string, args ...string) string {
	n.t.Helper()
	if !slices.Contains(args, "--") {
		args = append(slices.Clone(args), "--", "sleep", "1000")
	}
	return strings.TrimSpace(n.run(append([]string{"run", "-d", "--name", name}, args...)...))
}

// serve runs a container with fairlead's HTTP server on port 80, and waits until
// it serves.
func (n *node) serve(name string, options ...string) string {
	n.t.Helper()
	id := n.start(name, append(options, "--", "fairlead", "probe", "http-server")...)
	n.logSays(name, "serving on")
	return id
}

// logSays waits until a container in the background has written a text.
func (n *node) logSays(name, text string) {
	n.t.Helper()
	lab.Eventually(n.t, 10*time.Second, func() error {
		if log := n.run("logs", name); !strings.Contains(log, text) {
			return fmt.Errorf("the log of %s does not hold %q:\n%s", name, text, log)
		}
		return nil
	})
}

// exec runs a command in a container and returns its standard output.
func (n *node) exec(name string, command ...string) string {
	n.t.Helper()
	return n.run(append([]string{"exec", name}, command...)...)
}

// sh runs a shell script in a container.
func (n *node) sh(name, script string) string {
	n.t.Helper()
	return n.exec(name, "sh", "-ec", script)
}

// json decodes what `fairlead ARGS --json` prints.
func (n *node) json(into any, args ...string) {
	n.t.Helper()
	out := n.run(append(slices.Clone(args), "--json")...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		n.t.Fatalf("fairlead %s --json: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// switches are those of all networks.
func (n *node) switches() (list []api.Switch) {
	n.t.Helper()
	n.json(&list, "show", "switch")
	return list
}

// theSwitch is that of the default network.
func (n *node) theSwitch() api.Switch {
	n.t.Helper()
	list := n.switches()
	i := slices.IndexFunc(list, func(s api.Switch) bool { return s.Network == "default" })
	if i < 0 {
		n.t.Fatalf("no switch of the default network in %+v", list)
	}
	return list[i]
}

// port is that of a container, on the first network it has one.
func (n *node) port(name string) api.Port {
	n.t.Helper()
	list := n.switches()
	for _, s := range list {
		if i := slices.IndexFunc(s.Ports, func(p api.Port) bool { return p.Container == name }); i >= 0 {
			return s.Ports[i]
		}
	}
	n.t.Fatalf("%s has no port in %+v", name, list)
	return api.Port{}
}

// containers are those of `ps`, by name.
func (n *node) containers() map[string]api.Container {
	n.t.Helper()
	var list []api.Container
	n.json(&list, "ps")
	m := make(map[string]api.Container, len(list))
	for _, c := range list {
		m[c.Name] = c
	}
	return m
}

// pid is that of a container's init, in this world.
func (n *node) pid(name string) int {
	n.t.Helper()
	c, ok := n.containers()[name]
	if !ok {
		n.t.Fatalf("container %s does not run", name)
	}
	return c.Pid
}

// dropped is how many frames of a container were dropped for a reason.
func (n *node) dropped(name, reason string) uint64 {
	n.t.Helper()
	return n.port(name).Counts.Dropped[reason]
}

// nodePid is the process id of the node, 0 when none runs.
func (n *node) nodePid() int {
	n.t.Helper()
	var v struct{ Node *api.VersionInfo }
	n.json(&v, "version")
	if v.Node == nil {
		return 0
	}
	return v.Node.Pid
}

// table takes what people are shown apart: a map from heading to cell for each
// row. Columns begin where their headings do, so that cells may be empty.
func table(t *testing.T, text string) []map[string]string {
	t.Helper()
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	head := regexp.MustCompile(`\S+( \S+)*`).FindAllStringIndex(lines[0], -1)
	var rows []map[string]string
	for _, line := range lines[1:] {
		cells, row := []rune(line), map[string]string{}
		for i, at := range head {
			end := len(cells)
			if i+1 < len(head) {
				end = min(end, head[i+1][0])
			}
			row[lines[0][at[0]:at[1]]] = strings.TrimSpace(string(cells[min(at[0], end):end]))
		}
		rows = append(rows, row)
	}
	return rows
}

// interrupt is what Ctrl-C sends.
const interrupt = syscall.SIGINT

// contains is an error unless text holds all of parts.
func contains(text string, parts ...string) error {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return fmt.Errorf("no %q in\n%s", part, text)
		}
	}
	return nil
}

// A client is a call of fairlead that goes on in the background: a container
// in the foreground, a trace, a log that is followed. It is killed when the test
// ends, after its frames were accounted for.
type client struct {
	t      *testing.T
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    transcript // of standard output
	errors transcript
	done   chan struct{}
}

// background calls fairlead in the background, with a pipe for standard input.
func (n *node) background(args ...string) *client {
	n.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := &client{t: n.t, cmd: n.command(ctx, args...), done: make(chan struct{})}
	c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.errors
	var err error
	if c.in, err = c.cmd.StdinPipe(); err == nil {
		err = c.cmd.Start()
	}
	if err != nil {
		cancel()
		n.t.Fatalf("fairlead %s: %v", strings.Join(args, " "), err)
	}
	go func() {
		defer close(c.done)
		defer cancel()
		_ = c.cmd.Wait() // its exit code is in ProcessState
	}()
	n.clients = append(n.clients, c)
	return c
}

func (c *client) signal(sig os.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(sig); err != nil {
		c.t.Fatalf("%v to %q: %v", sig, c.cmd.Args[1:], err)
	}
}

// wait waits for the end and returns the exit status, -1 after a signal.
func (c *client) wait() int {
	c.t.Helper()
	select {
	case <-c.done:
	case <-time.After(patience):
		c.t.Fatalf("%q still runs after %v\n%s%s", c.cmd.Args[1:], patience, c.out.String(), c.errors.String())
	}
	return c.cmd.ProcessState.ExitCode()
}

// says waits until standard output holds a text.
func (c *client) says(text string) {
	c.t.Helper()
	lab.Eventually(c.t, 10*time.Second, func() error {
		if !strings.Contains(c.out.String(), text) {
			return fmt.Errorf("%q does not say %q:\n%s%s", c.cmd.Args[1:], text, c.out.String(), c.errors.String())
		}
		return nil
	})
}

// traceLines are those a `trace --json` has printed so far.
func traceLines(t *testing.T, c *client) (lines []api.TraceLine) {
	t.Helper()
	text := c.out.String()
	for line := range strings.Lines(text[:strings.LastIndexByte(text, '\n')+1]) {
		var l api.TraceLine
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("trace --json: %v\n%s", err, line)
		}
		lines = append(lines, l)
	}
	return lines
}

// stop kills the client, if it still runs.
func (c *client) stop() {
	_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL) // it may have ended
	<-c.done
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
