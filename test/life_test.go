package test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

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

// A node in the foreground logs there and ends with Ctrl-C; a second one in the
// same directory is refused.
func TestUpForeground(t *testing.T) {
	n := newNodeDir(t)
	up := n.background("up", "--foreground")
	lab.Eventually(t, 10*time.Second, func() error { return contains(up.errors.String(), "node is up") })
	n.start("c")
	n.refuses("a node is running in "+n.dir+" already; stop it with `fairlead down`", "up", "--foreground")
	up.signal(interrupt)
	if code := up.wait(); code != 0 {
		t.Errorf("Ctrl-C ends up --foreground with %d:\n%s", code, up.errors.String())
	}
	if trouble.MatchString(up.errors.String()) {
		t.Errorf("the log:\n%s", up.errors.String())
	}
	n.left()
}
