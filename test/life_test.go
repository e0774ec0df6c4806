package test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// Without a node there is a version all the same, and nothing starts one.
func TestWithoutNode(t *testing.T) {
	n := newNodeDir(t)
	if out := n.run("version"); !strings.HasPrefix(out, "Client:\n Version: ") || !strings.Contains(out, "Node:         none runs in "+n.dir) {
		t.Errorf("version:\n%s", out)
	}
	var v struct {
		Client struct{ Version, Go, Arch string }
		Node   any
	}
	n.json(&v, "version")
	if v.Client.Version == "" || !strings.HasPrefix(v.Client.Go, "go") || v.Node != nil {
		t.Errorf("version --json: %+v", v)
	}
	if rows := table(t, n.run("ps")); len(rows) != 0 {
		t.Errorf("ps: %v", rows)
	}
	if out := n.run("down", "--all"); out != "" {
		t.Errorf("down says %q", out)
	}
	for _, args := range [][]string{{"show", "switch"}, {"logs", "web"}, {"stop", "web"}, {"trace", "web"}, {"mac", "flush"}, {"inspect", "web"}} {
		n.refuses("no node is running in "+n.dir+"; start one with `fairlead up` or `fairlead run`", args...)
	}
	n.refuses("no such file or directory", "run", "--rootfs", "/no/such/tree", "--", "true") // before a node is started
	if _, err := os.Stat(n.dir); !os.IsNotExist(err) {
		t.Errorf("a node directory appeared: %v", err)
	}
}

// Whoever comes first starts the node; whoever comes at the same time finds it.
func TestFirstCommandsAtOnce(t *testing.T) {
	n := newNodeDir(t)
	const many = 6
	var clients []*client
	for i := range many {
		clients = append(clients, n.background("run", "--name", fmt.Sprint("c", i), "--", "sh", "-c", "echo ready; exec sleep 1000"))
	}
	for _, c := range clients {
		c.says("ready")
	}
	n.followLog()
	if got := len(n.containers()); got != many {
		t.Errorf("%d containers on the node, want %d", got, many)
	}
	if nodes := nodesIn(t, n.dir); len(nodes) != 1 || nodes[0] != n.nodePid() {
		t.Errorf("nodes %v, want the one that answers, %d", nodes, n.nodePid())
	}
	for _, c := range clients {
		c.signal(syscall.SIGTERM)
		if code := c.wait(); code != 143 {
			t.Errorf("a container ended with %d: %s", code, c.errors.String())
		}
	}
}

// nodesIn are the processes of nodes in a directory.
func nodesIn(t *testing.T, dir string) (pids []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		line, _ := os.ReadFile(file) // it may have ended
		if string(line) == "fairlead\x00node\x00--dir\x00"+dir+"\x00" {
			var pid int
			if _, err := fmt.Sscanf(file, "/proc/%d/", &pid); err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

// Commands in a row share a node, which ends by itself after the last container
// and leaves nothing.
func TestNodeEndsByItself(t *testing.T) {
	n := newNodeDir(t)
	n.run("run", "--", "true")
	first := n.nodePid()
	n.run("run", "--", "true")
	if second := n.nodePid(); first == 0 || second != first {
		t.Errorf("two commands in a row had nodes %d and %d", first, second)
	}
	n.start("c")
	if out := n.run("version"); !strings.Contains(out, "ends after its last container") {
		t.Errorf("version:\n%s", out)
	}
	n.run("kill", "c")
	n.left()
	// And the next one starts another.
	n.run("run", "--", "true")
	if next := n.nodePid(); next == 0 || next == first {
		t.Errorf("the next node has pid %d, the first had %d", next, first)
	}
	// A node that was asked to stay does, also when it is asked later.
	n.run("up")
	if out := n.run("version"); !strings.Contains(out, "stays until `fairlead down`") {
		t.Errorf("version:\n%s", out)
	}
	n.start("c")
	n.refuses("1 container on this node; `fairlead down --all` stops them too", "down")
	n.run("down", "--all")
	n.left()
}

// Commands that come while the node is just ending get another one, and no
// error.
func TestNodeEndsWhileCommandsCome(t *testing.T) {
	n := newNodeDir(t)
	n.run("run", "--", "true")
	old := n.nodePid()
	log, err := os.Open(filepath.Join(n.dir, "node.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	var said []byte
	for give := time.Now().Add(10 * time.Second); !strings.Contains(string(said), "nothing left to do"); {
		more, err := io.ReadAll(log)
		if said = append(said, more...); err != nil || time.Now().After(give) {
			t.Fatalf("the node does not end (%v):\n%s", err, said)
		}
		time.Sleep(100 * time.Microsecond) // the end takes some milliseconds
	}
	var clients []*client
	for range 5 {
		clients = append(clients, n.background("run", "--", "true"))
	}
	for _, c := range clients {
		if code := c.wait(); code != 0 {
			t.Errorf("run while the node was ending: exit status %d, %s", code, c.errors.String())
		}
	}
	n.followLog()
	if now := n.nodePid(); now == old || now == 0 {
		t.Errorf("the node that was ending had pid %d, now %d runs", old, now)
	}
}

// A node in the foreground logs there and ends with Ctrl-C or its terminal; a second
// one in the same directory is refused. It is locked in before anybody is answered,
// even while the service manager, who is told last, does not listen.
func TestUpForeground(t *testing.T) {
	at := &net.UnixAddr{Net: "unixgram", Name: filepath.Join(t.TempDir(), "notify")}
	manager, err := net.ListenUnixgram("unixgram", at)
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", at.Name)
	for _, end := range []syscall.Signal{interrupt, syscall.SIGHUP} {
		n := newNodeDir(t)
		fill(t, at)
		up := n.background("up", "--foreground")
		var info api.VersionInfo
		lab.Eventually(t, 10*time.Second, func() error { return n.ask("/v1/version", &info) })
		if info.LockIn.Mode != "strict" || info.LockIn.Calls == 0 {
			t.Errorf("the first answer is that of a node that is not locked in: %+v", info.LockIn)
		}
		lockedIn(t, info.Pid)
		n.start("c")
		said := make([]byte, 100)
		for !strings.HasPrefix(string(said), "READY=1\n") {
			if _, err := manager.Read(said); err != nil {
				t.Fatal(err)
			}
		}
		n.refuses("a node is running in "+n.dir+" already; stop it with `fairlead down`", "up", "--foreground")
		up.signal(end)
		if code := up.wait(); code != 0 {
			t.Errorf("%v ends up --foreground with %d:\n%s", end, code, up.errors.String())
		}
		if text := up.errors.String(); trouble.MatchString(text) || !strings.Contains(text, "node is up") {
			t.Errorf("the log:\n%s", text)
		}
		n.left()
	}
}

// fill sends to a socket until it takes no more.
func fill(t *testing.T, at *net.UnixAddr) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for err == nil {
		err = unix.Sendto(fd, []byte("full"), 0, &unix.SockaddrUnix{Name: at.Name})
	}
	if !errors.Is(err, unix.EAGAIN) {
		t.Fatal(err)
	}
}

// A node in the foreground does not outlive the command, whatever ends that; what the
// node ends with the command says.
func TestUpForegroundKilled(t *testing.T) {
	n := newNodeDir(t)
	up := n.background("up", "--foreground")
	lab.Eventually(t, 10*time.Second, func() error { return contains(up.errors.String(), "node is up") })
	n.start("c")
	node := n.nodePid()
	kill(t, up.cmd.Process.Pid, syscall.SIGKILL)
	up.wait()
	lab.Eventually(t, 10*time.Second, func() error {
		if now := n.nodePid(); now == node {
			return fmt.Errorf("node %d goes on", now)
		}
		return nil
	})
	n.exec("c", "true") // by the next one
	n.run("down", "--all")
	n.left()

	for round := range 10 { // the first one when it has been told to stay, the others as soon as it answers
		up = n.background("up", "--foreground")
		var info api.VersionInfo
		for n.ask("/v1/version", &info) != nil || round == 0 && !info.Stays {
			select {
			case <-up.done:
				t.Fatalf("no node is up: %s", up.errors.String())
			case <-time.After(100 * time.Microsecond):
			}
		}
		kill(t, info.Pid, syscall.SIGKILL)
		code, text := up.wait(), up.errors.String()
		early := round > 0 && strings.Contains(text, "fairlead: the node ended as soon as it was started (signal: killed)\n")
		if code != 125 || !early && !strings.Contains(text, "fairlead: up: the node has ended: signal: killed") {
			t.Fatalf("status %d\n%s", code, text)
		}
		if err := n.ask("/v1/version", &info); !errors.Is(err, api.ErrNoNode) {
			t.Fatalf("a node runs that nobody has asked for: %+v, %v", info, err)
		}
	}
	n.run("ps") // by the next one, which takes the files away
	n.run("down")
}

// waiting runs a command that waits while somebody starts or ends a node, as we seem to
// do until goOn is called.
func (n *node) waiting(command string) (c *client, goOn func()) {
	n.t.Helper()
	lock, err := os.OpenFile(filepath.Join(n.dir, "start.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = lock.Close() })
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		n.t.Fatal(err)
	}
	c = n.background(command)
	select {
	case <-c.done:
		n.t.Errorf("%s does not wait", command)
	case <-time.After(100 * time.Millisecond): // it is one look, and then it waits
	}
	return c, func() { _ = lock.Close() }
}

// A node that is still being started is ended, too: who calls down then and takes the
// directory away would find it there again.
func TestDownWhileStarting(t *testing.T) {
	n := newNodeDir(t)
	if err := api.MakeDir(n.dir); err != nil {
		t.Fatal(err)
	}
	down, goOn := n.waiting("down") // for who starts a node
	started := n.background("node", "--dir", n.dir)
	var info api.VersionInfo
	lab.Eventually(t, 10*time.Second, func() error { return n.ask("/v1/version", &info) })
	goOn()
	if code := down.wait(); code != 0 {
		t.Errorf("down ends with %d: %s", code, down.errors.String())
	}
	if code := started.wait(); code != 0 {
		t.Errorf("the node ends with %d: %s", code, started.errors.String())
	}
	n.left()
}

// A command that comes while a node ends starts none for what that one still takes away.
func TestNotRevived(t *testing.T) {
	n := newNode(t)
	n.killNode()
	ps, goOn := n.waiting("ps") // for a node that ends
	if err := os.Remove(filepath.Join(n.dir, "running.json")); err != nil {
		t.Fatal(err)
	}
	goOn()
	if code := ps.wait(); code != 0 {
		t.Errorf("ps ends with %d: %s", code, ps.errors.String())
	}
	if out := n.run("version"); !strings.Contains(out, "none runs") {
		t.Errorf("a node was started:\n%s", out)
	}
	n.run("up")
	n.run("down")
}

// What a node has is gone when down says so.
func TestDownLeavesNothing(t *testing.T) {
	n := newNodeDir(t)
	for range 5 {
		n.run("up")
		n.start("c")
		pid := n.nodePid()
		n.run("down", "--all")
		if _, err := os.Stat(n.dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the directory is still there: %v", err)
		}
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err == nil && !strings.Contains(string(text), "\nState:\tZ") {
			t.Errorf("the process is still there:\n%s", text)
		}
	}
}

// Each thread of a node is locked in, however it was started.
func TestLockedIn(t *testing.T) {
	n := newNode(t)
	lockedIn(t, n.nodePid())
	n.run("up", "--replace")
	lockedIn(t, n.nodePid())
	n.killNode()
	n.run("ps")
	lockedIn(t, n.nodePid())
}

// lockedIn checks what the kernel says of each thread of a process.
func lockedIn(t *testing.T, pid int) {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(threads) == 0 {
		t.Fatalf("threads of %d: %v, %v", pid, threads, err)
	}
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it has ended
		} else if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"\nNoNewPrivs:\t1\n", "\nSeccomp:\t2\n", "\nCapAmb:\t0000000000000000\n", "\nCapInh:\t0000000000000000\n"} {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s lacks %q:\n%s", path, want, text)
			}
		}
		for _, set := range []string{"CapEff", "CapPrm"} {
			_, rest, _ := strings.Cut(string(text), "\n"+set+":\t")
			value, _, _ := strings.Cut(rest, "\n")
			if left, err := strconv.ParseUint(value, 16, 64); err != nil || left&^(1<<unix.CAP_NET_BIND_SERVICE) != 0 {
				t.Errorf("%s: %s %q", path, set, value)
			}
		}
	}
}
