package test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// A process dies, in every way one can, and its container is in no table any
// more; nothing of it is left, while the node and other containers go on.
func TestS28_ProcessKilled(t *testing.T) {
	lab.Need(t, "ping")
	n := newNode(t)
	heart := n.beating("a", "b")
	deaths := []struct {
		name string
		kill func(pid int) // of init
	}{
		{"its command is killed", func(pid int) { kill(t, childOf(t, pid), syscall.SIGKILL) }},
		{"its init is killed", func(pid int) { kill(t, pid, syscall.SIGKILL) }},
		{"fairlead kill", func(int) { n.run("kill", "victim") }},
		{"fairlead stop", func(int) { n.run("stop", "victim") }},
		{"its command ends", func(pid int) { kill(t, sleeping(t, childOf(t, pid)), syscall.SIGTERM) }},
	}
	for _, d := range deaths {
		var took []time.Duration
		for range 3 {
			before := n.holdings()
			c := n.talkative("victim")
			d.kill(c.Pid)
			start := time.Now()
			took = append(took, n.leavesTables(c, start))
			n.nothingLeft(c, before)
		}
		slices.Sort(took)
		median := took[len(took)/2] // a single one may be late on a busy machine
		t.Logf("%s: in no table after %v (median of %d), %v at most", d.name, median, len(took), took[len(took)-1])
		if median > time.Second {
			t.Errorf("%s: only after %v it is in no table", d.name, median)
		}
	}
	heart.stop()
}

// Many containers die at the same moment.
func TestS28_ManyKilled(t *testing.T) {
	n := newNode(t)
	heart := n.beating("a", "b")
	before := n.holdings()
	const many = 25
	for i := range many {
		n.start(fmt.Sprintf("c%d", i))
	}
	victims := n.containers()
	delete(victims, "a")
	delete(victims, "b")
	start := time.Now()
	for _, c := range victims {
		kill(t, c.Pid, syscall.SIGKILL)
	}
	for _, c := range victims {
		n.leavesTables(c, start)
	}
	t.Logf("%d at once: in no table after %v", len(victims), time.Since(start))
	for _, c := range victims {
		n.nothingLeft(c, before)
	}
	heart.stop()
}

// The client of a container in the foreground dies, and the container with it.
func TestS28_ClientKilled(t *testing.T) {
	lab.Need(t, "ping")
	n := newNode(t)
	heart := n.beating("a", "b")
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT} {
		before := n.holdings()
		client := n.background("run", "--name", "victim", "--", "sh", "-c", "ping -c1 172.17.0.1; exec sleep 1000")
		client.says("1 received")
		c := n.learned("victim")
		start := time.Now()
		client.signal(sig)
		t.Logf("%v to its client: in no table after %v", sig, n.leavesTables(c, start))
		if code := client.wait(); sig != syscall.SIGKILL && code != 128+int(sig) {
			t.Errorf("after %v run ends with %d, want %d", sig, code, 128+int(sig))
		}
		n.nothingLeft(c, before)
	}
	heart.stop()
}

// Somebody holds the namespace of a container that dies. The container is gone
// all the same, and so is the interface in that namespace.
func TestS28_NamespaceHeld(t *testing.T) {
	lab.Need(t, "ping")
	n := newNode(t)
	before := n.holdings()
	c := n.talkative("victim")
	ns := openNetns(t, fmt.Sprintf("/proc/%d/ns/net", c.Pid))
	start := time.Now()
	kill(t, c.Pid, syscall.SIGKILL)
	n.leavesTables(c, start)
	n.nothingLeft(c, before)
	hasNoInterface(t, ns)
	n.run("run", "--ip", c.IP, "--mac", c.MAC, "--name", c.Name, "--", "ping", "-c1", "-W5", "172.17.0.1")
}

// Root inside takes its own interface away: the port goes, the container stays
// and can be ended as any other.
func TestS28_InterfaceDeleted(t *testing.T) {
	lab.Need(t, "ping", "ip")
	n := newNode(t)
	heart := n.beating("a", "b")
	before := n.holdings()
	c := n.talkative("victim")
	n.exec("victim", "ip", "link", "delete", "eth0")
	lab.Eventually(t, 10*time.Second, func() error { return n.absent(c, "/v1/switches", "/v1/macs", "/v1/arp") })
	if out := n.exec("victim", "echo", "still here"); out != "still here\n" {
		t.Errorf("exec in a container without its interface: %q", out)
	}
	n.run("kill", "victim")
	n.leavesTables(c, time.Now())
	n.nothingLeft(c, before)
	heart.stop()
}

// A namespace that somebody else made and named by a path ends when the path is
// deleted, and what was connected to it leaves the network by itself.
func TestS28_NamespaceDeleted(t *testing.T) {
	lab.Need(t, "ping")
	n := newNode(t)
	heart := n.beating("a", "b")
	for _, copied := range []bool{false, true} {
		path, remove := namedNetns(t)
		if copied {
			// A container begins with a copy of the mounts there are, the path's
			// among them. That must not keep the namespace.
			n.start("copier")
		}
		before := n.holdings()
		c := n.connected("netns:"+path, path)
		tap := copyOfTAP(t, before.pid)
		start := time.Now()
		remove()
		removed := tap.removed(t)
		t.Logf("its path is deleted: the kernel removed the device after %v; it was in no table %v later",
			removed.Sub(start), n.leavesTables(c, removed))
		n.nothingLeft(c, before)
	}
	heart.stop()
}

// A process somebody else started, connected by its number, dies.
func TestS28_ForeignProcessKilled(t *testing.T) {
	lab.Need(t, "ping", "unshare")
	n := newNode(t)
	heart := n.beating("a", "b")
	before := n.holdings()
	foreign := exec.Command("unshare", "--net", "sleep", "1000")
	if err := foreign.Start(); err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("/proc/%d/ns/net", foreign.Process.Pid)
	lab.Eventually(t, 10*time.Second, func() error { return isAnotherNetns(path) })
	c := n.connected(fmt.Sprintf("pid:%d", foreign.Process.Pid), path)
	tap := copyOfTAP(t, before.pid)
	start := time.Now()
	kill(t, foreign.Process.Pid, syscall.SIGKILL)
	_ = foreign.Wait()
	removed := tap.removed(t)
	t.Logf("it is killed: the kernel removed the device after %v; it was in no table %v later",
		removed.Sub(start), n.leavesTables(c, removed))
	n.nothingLeft(c, before)
	heart.stop()
}

// What was connected is taken away again, and the namespace goes on.
func TestNetworkDisconnect(t *testing.T) {
	lab.Need(t, "ping")
	n := newNode(t)
	path, remove := namedNetns(t)
	defer remove()
	before := n.holdings()
	for range 2 { // and can come back
		c := n.connected("netns:"+path, path)
		start := time.Now()
		n.run("network", "disconnect", "default", "victim")
		n.leavesTables(c, start)
		n.nothingLeft(c, before)
		ns := openNetns(t, path)
		hasNoInterface(t, ns)
	}
}

// talkative starts a container and waits until every table has it.
func (n *node) talkative(name string) api.Container {
	n.t.Helper()
	n.start(name, "--", "sh", "-c", "ping -c1 172.17.0.1; sleep 1000; true")
	return n.learned(name)
}

// foreignInterface is the name of what connected makes, which no other has.
const foreignInterface = "victim0"

// connected connects a namespace, as "victim", and waits until every table has
// it.
func (n *node) connected(target, path string) api.Container {
	n.t.Helper()
	n.run("network", "connect", "--name", "victim", "--ifname", foreignInterface, "default", target)
	inNetns(n.t, path, func() error {
		out, err := exec.Command("ping", "-c1", "-W5", "172.17.0.1").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	return n.learned("victim")
}

// learned waits until a container's MAC and address are in the tables.
func (n *node) learned(name string) api.Container {
	n.t.Helper()
	c := n.containers()[name]
	lab.Eventually(n.t, 10*time.Second, func() error {
		for _, path := range []string{"/v1/switches", "/v1/macs", "/v1/arp"} {
			if n.absent(c, path) == nil {
				return fmt.Errorf("%s does not know container %s", path, name)
			}
		}
		return nil
	})
	return c
}

// absent is an error while the node speaks of a container at one of the paths.
func (n *node) absent(c api.Container, paths ...string) error {
	for _, path := range paths {
		var list []any
		if err := n.ask(path, &list); err != nil {
			return err
		}
		text := fmt.Sprint(list)
		for _, word := range []string{c.ID, c.MAC, c.IP} {
			if regexp.MustCompile(`\b` + regexp.QuoteMeta(word) + `\b`).MatchString(text) {
				return fmt.Errorf("%s still holds %s: %s", path, word, text)
			}
		}
	}
	return nil
}

// leavesTables waits until no table has a container any more, at most until a
// second after start, and returns how long after start that was.
func (n *node) leavesTables(c api.Container, start time.Time) time.Duration {
	n.t.Helper()
	lab.Eventually(n.t, 10*time.Second, func() error {
		return n.absent(c, "/v1/switches", "/v1/macs", "/v1/arp", "/v1/containers")
	})
	return time.Since(start)
}

// nothingLeft waits until the node holds the descriptors it held before the
// container, and the container's files and its init are gone.
func (n *node) nothingLeft(c api.Container, before holdings) {
	n.t.Helper()
	lab.Eventually(n.t, 10*time.Second, func() error {
		if _, err := os.Lstat(filepath.Join(n.dir, "containers", c.ID)); !errors.Is(err, os.ErrNotExist) {
			return errors.New("the container's files are still there")
		}
		if c.Foreign == "" {
			if err := syscall.Kill(c.Pid, 0); !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("its init %d is still there", c.Pid)
			}
		}
		return before.exceeded()
	})
}

// holdings are how many descriptors a node has, by what they are.
type holdings struct {
	pid   int // of the node
	count map[string]int
}

// holdings counts them at rest: the connection by which we learned the node's
// process id is closed.
func (n *node) holdings() holdings {
	n.t.Helper()
	pid := n.nodePid()
	now := countDescriptors(pid)
	for {
		time.Sleep(5 * time.Millisecond)
		last := now
		if now = countDescriptors(pid); maps.Equal(now, last) && len(now) > 0 {
			return holdings{pid, now}
		}
	}
}

// exceeded is an error that lists what the node has more of now.
func (h holdings) exceeded() error {
	now := countDescriptors(h.pid)
	if len(now) == 0 {
		return fmt.Errorf("node %d is gone", h.pid)
	}
	var more []string
	for what, count := range now {
		if count > h.count[what] {
			more = append(more, fmt.Sprintf("%d %s, before %d", count, what, h.count[what]))
		}
	}
	if more == nil {
		return nil
	}
	slices.Sort(more)
	return errors.New("the node holds more descriptors: " + strings.Join(more, "; "))
}

var inodes = regexp.MustCompile(`\d+`)

func countDescriptors(pid int) map[string]int {
	m := map[string]int{}
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil { // else it was just closed
			m[inodes.ReplaceAllString(to, "N")]++
		}
	}
	return m
}

func kill(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatalf("%v to process %d: %v", sig, pid, err)
	}
}

// childOf waits until a process has one child.
func childOf(t *testing.T, pid int) (child int) {
	t.Helper()
	lab.Eventually(t, 10*time.Second, func() error {
		child = 0
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
		for _, task := range tasks {
			text, err := os.ReadFile(task)
			if err != nil {
				return err
			}
			for _, f := range strings.Fields(string(text)) {
				if child != 0 {
					return fmt.Errorf("process %d has several children", pid)
				}
				child, _ = strconv.Atoi(f)
			}
		}
		if child == 0 {
			return fmt.Errorf("process %d has no child", pid)
		}
		return nil
	})
	return child
}

// sleeping waits until a shell has come to its sleep.
func sleeping(t *testing.T, shell int) (pid int) {
	t.Helper()
	lab.Eventually(t, 10*time.Second, func() error {
		pid = childOf(t, shell)
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err == nil && string(comm) != "sleep\n" {
			err = fmt.Errorf("process %d still runs %s", shell, comm)
		}
		return err
	})
	return pid
}

// A heldTAP is a copy of the node's descriptor of a TAP.
type heldTAP int

// copyOfTAP copies the node's of what connected made: it tells when the kernel
// removes the device, which nothing else does once its namespace has gone. It
// pins no namespace.
func copyOfTAP(t *testing.T, node int) heldTAP {
	t.Helper()
	pidfd, err := unix.PidfdOpen(node, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	infos, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", node))
	for _, info := range infos {
		text, _ := os.ReadFile(info)
		if !strings.Contains(string(text), "iff:\t"+foreignInterface+"\n") {
			continue
		}
		number, _ := strconv.Atoi(filepath.Base(info))
		fd, err := unix.PidfdGetfd(pidfd, number, 0)
		if err != nil {
			t.Fatalf("copy descriptor %d of the node: %v", number, err)
		}
		return heldTAP(fd)
	}
	t.Fatalf("node %d has no TAP %s", node, foreignInterface)
	return -1
}

// removed waits until the device is gone, and lets go of it.
func (h heldTAP) removed(t *testing.T) time.Time {
	t.Helper()
	defer unix.Close(int(h))
	lab.Eventually(t, 10*time.Second, func() error {
		var ifr unix.Ifreq
		if err := unix.IoctlIfreq(int(h), unix.TUNGETIFF, &ifr); !errors.Is(err, unix.EBADFD) {
			return errors.New("the device is still there")
		}
		return nil
	})
	return time.Now()
}

// namedNetns makes a network namespace that lives as long as a path to it, as
// those of ip-netns do.
func namedNetns(t *testing.T) (path string, remove func()) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "ns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	onThread(t, func() error {
		ns, err := netns.New()
		if err != nil {
			return err
		}
		defer ns.Close()
		return unix.Mount(fmt.Sprintf("/proc/self/fd/%d", int(ns)), path, "", unix.MS_BIND, "")
	})
	return path, func() {
		if err := errors.Join(unix.Unmount(path, unix.MNT_DETACH), os.Remove(path)); err != nil {
			t.Fatal(err)
		}
	}
}

// inNetns calls fn on a thread in the namespace of a path.
func inNetns(t *testing.T, path string, fn func() error) {
	t.Helper()
	ns := openNetns(t, path)
	defer ns.Close()
	onThread(t, func() error {
		if err := netns.Set(netns.NsHandle(ns.Fd())); err != nil {
			return err
		}
		return fn()
	})
}

// onThread calls fn on a thread of its own, which returns to the namespace it
// came from.
func onThread(t *testing.T, fn func() error) {
	t.Helper()
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			result <- err
			return
		}
		defer home.Close()
		if err = fn(); netns.Set(home) == nil {
			runtime.UnlockOSThread() // else the thread ends with this goroutine
		}
		result <- err
	}()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
}

func openNetns(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func isAnotherNetns(path string) error {
	there, err1 := os.Stat(path)
	here, err2 := os.Stat("/proc/self/ns/net")
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if os.SameFile(there, here) {
		return errors.New("the process has not left our network namespace yet")
	}
	return nil
}

// hasNoInterface waits until a namespace has nothing but lo.
func hasNoInterface(t *testing.T, ns *os.File) {
	t.Helper()
	h, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	lab.Eventually(t, 10*time.Second, func() error {
		links, err := h.LinkList()
		if err == nil && len(links) != 1 {
			err = fmt.Errorf("the namespace has %d interfaces, want lo only", len(links))
		}
		return err
	})
}
