package test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
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

// A node is killed: its containers wait for the next one, which ends them when it is
// told to, what it connected is taken away, and who watched is told.
func TestNodeKilled(t *testing.T) {
	n := newNode(t)
	path, remove := namedNetns(t)
	defer remove()
	n.start("quiet")
	n.start("deaf", "--", "sh", "-c", "trap '' TERM; sleep 1000 & sleep 1000")
	n.start("leaves", "--", "sh", "-c", "nohup setsid sleep 1000 & sleep 1000")
	front := n.background("run", "--name", "front", "--", "sh", "-c", "echo here; sleep 1000")
	front.says("here")
	n.run("network", "connect", "--name", "foreign", "default", "netns:"+path)
	var pids []int
	for _, c := range n.containers() {
		if c.Pid != 0 {
			pids = append(pids, c.Pid)
		}
	}
	tracer := n.background("trace", "quiet") // without a name it would start another node
	tracer.says("quiet")
	n.killNode()
	tracer.wait()
	hasNoInterface(t, openNetns(t, path))
	n.run("down", "--all")
	if code := front.wait(); code != 128+int(syscall.SIGKILL) {
		t.Errorf("a container in the foreground ends with %d: %s", code, front.errors.String())
	}
	for _, pid := range pids {
		awaitEnd(t, pid)
	}
	n.left()

	n.run("up")
	n.killNode()
	n.run("ps") // it was to stay
	if n.nodePid() == 0 {
		t.Error("no node came after one that was to stay")
	}
	n.run("run", "--name", "quiet", "--ip", "172.17.0.2", "--", "true")
}

// A node is killed while it starts, while it serves the first command and while
// it waits for more. The next command always gets a node.
func TestNodeKilledAtAnyMoment(t *testing.T) {
	n := newNodeDir(t)
	rng := newRNG(t)
	killed := 0
	for range 20 {
		c := n.background("run", "--", "true")
		time.Sleep(time.Duration(rng.IntN(60)) * time.Millisecond)
		for _, pid := range n.nodes() {
			if syscall.Kill(pid, syscall.SIGKILL) == nil {
				killed++
			}
		}
		c.wait()
		if r := n.try("run", "--", "true"); r.code != 0 {
			t.Fatal(r)
		}
	}
	t.Logf("killed %d nodes", killed)
	if nodes := n.nodes(); len(nodes) > 1 {
		t.Errorf("several nodes run: %v", nodes)
	}
}

// nodes are the processes that are, or begin to be, nodes of our directory.
func (n *node) nodes() (pids []int) {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, line := range lines {
		text, _ := os.ReadFile(line)
		if strings.Contains(string(text), "\x00node\x00--dir\x00"+n.dir+"\x00") {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(line)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// What lies in the node directory does not keep a node from starting, as long
// as nobody holds it.
func TestStaleFiles(t *testing.T) {
	n := newNodeDir(t)
	in := func(name string) string { return filepath.Join(n.dir, name) }
	for what, leave := range map[string]func() error{
		"locks": func() error {
			return errors.Join(os.WriteFile(in("node.lock"), nil, 0o600), os.WriteFile(in("start.lock"), nil, 0o600))
		},
		"a file for a socket": func() error { return os.WriteFile(in("control.sock"), []byte("x"), 0o600) },
		"a socket of a dead node": func() error {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Bind(fd, &unix.SockaddrUnix{Name: in("control.sock")})
		},
		"a link that leads nowhere": func() error { return os.Symlink("/nowhere/at/all", in("control.sock")) },
		"files of containers":       func() error { return os.MkdirAll(in("containers/0123/log"), 0o700) },
		"a log":                     func() error { return os.WriteFile(in("node.log"), []byte("old words\n"), 0o600) },
	} {
		if err := errors.Join(os.Mkdir(n.dir, 0o700), leave()); err != nil {
			t.Fatal(err)
		}
		if r := n.try("run", "--", "true"); r.code != 0 {
			t.Errorf("%s: %v", what, r)
		}
		n.run("down")
		if _, err := os.Stat(n.dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the directory outlives the node: %s", what, n.listing())
			_ = os.RemoveAll(n.dir)
		}
	}
}

// Somebody else holds a lock and does not let go. A command says so, and can be
// interrupted.
func TestHeldLocks(t *testing.T) {
	n := newNodeDir(t)
	for _, name := range []string{"start.lock", "node.lock"} {
		if err := os.MkdirAll(n.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		lock, err := os.OpenFile(filepath.Join(n.dir, name), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		c := n.background("run", "--", "true")
		time.Sleep(200 * time.Millisecond)
		_ = c.cmd.Process.Signal(os.Interrupt) // or it has given up already
		select {
		case <-c.done:
			t.Logf("%s: %d: %s", name, c.wait(), c.errors.String())
		case <-time.After(5 * time.Second):
			t.Errorf("%s is held: run still waits 5 s after an interrupt", name)
			c.stop()
		}
		lock.Close()
		if r := n.try("run", "--", "true"); r.code != 0 {
			t.Errorf("after %s was let go: %v", name, r)
		}
		n.run("down")
	}
}

// The file system of the node directory is full: commands say what could not be
// written, and work again when there is room.
func TestFullDisk(t *testing.T) {
	lab.Need(t, "pgrep")
	n := newNodeDir(t)
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=256k,mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
	n.dir = filepath.Join(disk, "d")
	t.Cleanup(n.cleanup) // again, before the disk goes
	fill := func() (empty func()) {
		name := filepath.Join(disk, "full")
		f, err := os.Create(name)
		for err == nil {
			_, err = f.Write(make([]byte, 4096))
		}
		f.Close()
		return func() { _ = os.Remove(name) }
	}

	empty := fill()
	n.refuses("no space left on device", "run", "--", "true")
	n.refuses(n.dir, "run", "--", "true")
	empty()
	n.run("up")
	before := n.holdings()
	n.start("a")

	empty = fill()
	r := n.try("run", "--name", "b", "--", "true")
	if r.code != 125 || !strings.Contains(r.stderr, "no space left on device") || !strings.Contains(r.stderr, "make the files of container b: ") {
		t.Errorf("on a full disk: %v", r)
	}
	if out := n.exec("a", "echo", "well"); out != "well\n" {
		t.Errorf("on a full disk exec says %q", out)
	}
	if len(n.containers()) != 1 {
		t.Errorf("containers are left: %+v", n.containers())
	}
	if left, _ := filepath.Glob(filepath.Join(n.dir, "containers", "*")); len(left) != 1 {
		t.Errorf("files are left: %v", left)
	}
	empty()
	n.start("b", "--ip", "172.17.0.3")
	// What cannot be logged is lost; who writes it does not notice.
	n.start("talker", "--", "sh", "-c", "yes | head -c 1000000; echo >&2 done; exec sleep 1000")
	lab.Eventually(t, 10*time.Second, func() error {
		out, err := exec.Command("pgrep", "-f", "-c", "^sleep 1000").Output()
		if strings.TrimSpace(string(out)) != "3" {
			err = fmt.Errorf("%s sleep, want 3: the talker hangs (%w)", out, err)
		}
		return err
	})

	for _, name := range []string{"a", "b", "talker"} {
		n.run("kill", name)
		n.gone(name)
	}
	lab.Eventually(t, 10*time.Second, before.exceeded)
}

// A read-only file system has no room for a node directory.
func TestReadOnlyDisk(t *testing.T) {
	n := newNodeDir(t)
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
	n.dir = filepath.Join(disk, "d")
	n.refuses("make node directory "+n.dir+": mkdir "+n.dir+": read-only file system; set FAIRLEAD_DIR", "run", "--", "true")
}

// A process may not have many descriptors here: the node refuses containers it
// has none for, and keeps enough to be asked and told to end.
func TestFewDescriptors(t *testing.T) {
	n := newNodeDir(t)
	// The bound has to be that of the node, and not ours.
	ctx, cancel := contextWithPatience()
	defer cancel()
	up := n.command(ctx, "up")
	up.Path, up.Args = "/bin/sh", []string{"sh", "-c", `ulimit -n 128 && exec "$0" up`, n.bin}
	if out, err := up.CombinedOutput(); err != nil {
		t.Fatalf("up: %v\n%s", err, out)
	}
	started := 0
	for ; started < 43; started++ {
		if r := n.try("run", "-d", "--name", fmt.Sprintf("c%d", started), "--", "sleep", "1000"); r.code != 0 {
			if r.code != 125 || !strings.Contains(r.stderr, "no descriptors for more: start it with a higher `ulimit -n`, which is 128") {
				t.Error(r)
			}
			break
		}
	}
	t.Logf("%d containers with 128 descriptors", started)
	if started < 5 || started > 40 {
		t.Errorf("%d containers with 128 descriptors", started)
	}
	var idle []*net.UnixConn
	for range 20 {
		idle = append(idle, n.dial())
	}
	if len(n.containers()) != started {
		t.Errorf("%d containers, want %d", len(n.containers()), started)
	}
	n.exec("c0", "true")
	n.run("kill", "c1")
	n.gone("c1")
	n.start("again")
	for _, conn := range idle {
		conn.Close()
	}
}

// A container whose init stands still can be ended, and who waits for it can
// leave.
func TestFrozenInit(t *testing.T) {
	n := newNode(t)
	before := n.holdings()
	for _, end := range []string{"stop -t 1", "kill"} {
		n.start("frozen")
		kill(t, n.pid("frozen"), syscall.SIGSTOP)
		c := n.background("exec", "frozen", "true")
		lab.Eventually(t, 10*time.Second, func() error { // until the node has handed all on, and the session alone is left
			if have := countDescriptors(c.cmd.Process.Pid); have["socket:[N]"] != 1 {
				return fmt.Errorf("it has not begun: %v", have)
			}
			return nil
		})
		c.signal(os.Interrupt)
		awaitEnd(t, c.cmd.Process.Pid)
		n.run(append(strings.Fields(end), "frozen")...)
		n.gone("frozen")
		// Only now: its output may be on the way to the init, and is at an end with that.
		if code := c.wait(); code != 128+int(syscall.SIGINT) {
			t.Errorf("an exec that was interrupted ends with %d: %s", code, c.errors.String())
		}
	}
	lab.Eventually(t, 10*time.Second, before.exceeded)
}

// What is handed over for an exec is not what it should be: the container's init
// puts up with it, and keeps nothing.
func TestWrongExec(t *testing.T) {
	n := newNode(t)
	id := n.start("a")
	n.exec("a", "true")
	before := n.holdings()
	init := holdings{n.pid("a"), countDescriptors(n.pid("a"))}
	file := openFile(t, os.DevNull)
	pipe, _ := unixPipe(t)
	_, session := socketPair(t, unix.SOCK_SEQPACKET)
	dead, end := socketPair(t, unix.SOCK_SEQPACKET)
	_ = unix.Close(dead)
	sleep := sleeper(t)
	command := []string{"true"}
	for _, c := range []struct {
		what string
		exec api.Exec
		fds  []int
		want string // "" is no complaint
	}{
		{"nothing", api.Exec{Command: command}, nil, "0 came"},
		{"no session", api.Exec{Command: command}, []int{file, file, file}, "3 came"},
		{"one too many", api.Exec{Command: command}, repeat(file, 5), "5 came"},
		{"no command", api.Exec{}, repeat(file, 4), "no command"},
		{"a file for a session", api.Exec{Command: command}, repeat(file, 4), ""},
		{"a pidfd for a session", api.Exec{Command: command}, []int{file, file, file, sleep}, ""},
		{"a session nobody listens to", api.Exec{Command: []string{"sleep", "1000"}}, []int{file, file, file, end}, ""},
		{"strange standard input", api.Exec{Command: []string{"cat"}}, []int{sleep, pipe, pipe, session}, ""},
		{"no terminal", api.Exec{Command: command, TTY: true}, []int{file, file, file, session}, ""},
		{"too much", api.Exec{Command: []string{"true", strings.Repeat("x", 200<<10)}}, []int{file, file, file, session}, "at most"},
	} {
		err := api.NewClient(n.dir).Hand(t.Context(), "/v1/containers/"+id+"/exec", c.exec, c.fds)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: error %v, want %q", c.what, err, c.want)
		}
	}
	lab.Eventually(t, 10*time.Second, func() error { return errors.Join(before.exceeded(), init.exceeded()) })
	childOf(t, init.pid) // one
	if out := n.exec("a", "echo", "well"); out != "well\n" {
		t.Errorf("exec says %q", out)
	}
}
