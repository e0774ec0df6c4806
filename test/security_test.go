package test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// refusal is what a process of a container hears at the control socket.
var refusal = regexp.MustCompile(`refused: peer is process \d+ of another pid or user namespace \(a container\?\), this node serves its own only`)

// A process of a container has the node's uid and may see the control socket.
// It is refused, and told so, whatever it asks and in whatever kind of
// container.
func TestControlSocketRefusesContainers(t *testing.T) {
	lab.Need(t, "curl", "unshare")
	n := newNode(t)
	n.start("bridge")
	n.start("host", "--network", "host")
	n.start("shared", "--network", "container:bridge")
	before := n.holdings()
	socket := api.Socket(n.dir)
	for _, name := range []string{"bridge", "host", "shared"} {
		for _, nested := range []string{"", "unshare -Ur ", "unshare -Urmpf "} {
			out := n.sh(name, nested+"curl -sSi --max-time 5 --unix-socket "+socket+" http://node/v1/version")
			if !strings.HasPrefix(out, "HTTP/1.1 403 ") || !refusal.MatchString(out) {
				t.Errorf("%scurl in %s got:\n%s", nested, name, out)
			}
		}
		// Several, because the node might hang up before it hears the request.
		for _, command := range []string{"ps", "run -- true", "down --all", "exec bridge true", "kill bridge", "up", "show switch", "trace"} {
			r := n.try(append([]string{"exec", name, "fairlead"}, strings.Fields(command)...)...)
			if r.code != 125 || !refusal.MatchString(r.stderr) {
				t.Errorf("in %s: %v", name, r)
			}
		}
		if out := n.exec(name, play(t, "upgrade", socket)...); !strings.Contains(out, "HTTP/1.1 403 ") || strings.Contains(out, "HTTP/1.1 101 ") {
			t.Errorf("an upgrade from %s was answered:\n%s", name, out)
		}
	}
	if len(n.containers()) != 3 {
		t.Errorf("there are %d containers, want 3", len(n.containers()))
	}
	lab.Eventually(t, 10*time.Second, before.exceeded)
}

// upgrade asks for every route that takes descriptors and sends some without
// waiting for the answer, and prints the answers.
func upgrade(args []string) error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	for _, path := range []string{"/v1/containers/bridge/exec", "/v1/containers/bridge/attach"} {
		conn, err := net.Dial("unix", args[0])
		if err != nil {
			return err
		}
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", path, api.Protocol)
		fd := int(null.Fd())
		_ = api.SendMessage(conn.(*net.UnixConn), api.Exec{Command: []string{"true"}}, []int{fd, fd, fd, fd}) // it may have hung up
		answer := make([]byte, 4096)
		size, err := conn.Read(answer)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		fmt.Printf("%s: %s\n", path, answer[:size])
		conn.Close()
	}
	return nil
}

// A container that connects as often as it can keeps nobody else from the node,
// and neither the node's memory nor its log grows with it.
func TestControlSocketHammered(t *testing.T) {
	n := newNode(t)
	n.start("hammer")
	before := n.holdings()
	memory := residentKB(t, before.pid)
	c := n.background(append([]string{"exec", "-i", "hammer"}, play(t, "hammer", api.Socket(n.dir))...)...)
	c.says("hammering")
	var worst time.Duration
	for range 8 {
		start := time.Now()
		n.run("ps")
		worst = max(worst, time.Since(start))
		time.Sleep(20 * time.Millisecond)
	}
	c.in.Close()
	if code := c.wait(); code != 0 {
		t.Fatalf("hammer ended with %d: %s", code, c.errors.String())
	}
	log, err := os.Stat(filepath.Join(n.dir, "node.log"))
	if err != nil {
		t.Fatal(err)
	}
	grown := residentKB(t, before.pid) - memory
	t.Logf("%s; the slowest `ps` beside it took %v; the node grew by %d KiB, its log has %d bytes",
		strings.TrimSpace(c.out.String()), worst, grown, log.Size())
	if worst > 5*time.Second {
		t.Errorf("ps took %v beside a container that hammers the control socket", worst)
	}
	if log.Size() > 64<<10 {
		t.Errorf("the node's log has %d bytes", log.Size())
	}
	n.grewAtMost(grown, 32<<10)
	lab.Eventually(t, 10*time.Second, before.exceeded)
}

// hammer connects to a socket until its standard input ends, from several
// goroutines; some connections stay for a while, some say something.
func hammer(args []string) error {
	var connected, failed atomic.Int64
	var wg sync.WaitGroup
	stop := make(chan struct{})
	fmt.Println("hammering")
	for g := range 8 {
		wg.Go(func() {
			held := make([]net.Conn, 256)
			for i := 0; ; i++ {
				select {
				case <-stop:
					for _, c := range held {
						if c != nil {
							c.Close()
						}
					}
					return
				default:
				}
				conn, err := net.Dial("unix", args[0])
				if err != nil {
					failed.Add(1)
					continue
				}
				connected.Add(1)
				if (i+g)%3 == 0 {
					_, _ = conn.Write([]byte("GET /v1/version HTTP/1.1\r\nHost: x\r\n"))
				}
				if old := held[i%len(held)]; old != nil {
					old.Close()
				}
				held[i%len(held)] = conn
			}
		})
	}
	_, _ = os.Stdin.Read(make([]byte, 1))
	close(stop)
	wg.Wait()
	fmt.Printf("%d connections, %d failed\n", connected.Load(), failed.Load())
	return nil
}

// grewAtMost fails a test whose node took that many KiB where so many are
// allowed by itself. With the race detector that is ten times as much: "memory
// usage may increase by 5-10x" (go.dev/doc/articles/race_detector).
func (n *node) grewAtMost(kb, allowed int) {
	n.t.Helper()
	if raced(n.t, n.bin) {
		allowed *= 10
	}
	if kb > allowed {
		n.t.Errorf("the node grew by %d KiB, which may be %d", kb, allowed)
	}
}

func residentKB(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(text)
	if m == nil {
		t.Fatalf("no VmRSS in\n%s", text)
	}
	kb, _ := strconv.Atoi(string(m[1]))
	return kb
}

// Another user of the machine is refused, even where the files would let him.
func TestControlSocketRefusesOtherUsers(t *testing.T) {
	lab.NeedRoot(t)
	lab.Need(t, "curl")
	n := newNode(t)
	const other = 12345
	curl := func() string {
		cmd := exec.Command("curl", "-sSi", "--max-time", "5", "--unix-socket", api.Socket(n.dir), "http://node/v1/version")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: other, Gid: other, NoSetGroups: true}}
		out, _ := cmd.CombinedOutput() // curl fails at the directory
		return string(out)
	}
	modes := func(parent, dir, socket os.FileMode) {
		t.Helper()
		if err := errors.Join(os.Chmod(filepath.Dir(n.dir), parent), os.Chmod(n.dir, dir), os.Chmod(api.Socket(n.dir), socket)); err != nil {
			t.Fatal(err)
		}
	}
	modes(0o755, 0o700, 0o666)
	if out := curl(); !strings.Contains(out, "Failed to connect") && !strings.Contains(out, "Couldn't connect") {
		t.Errorf("the node directory let uid %d pass:\n%s", other, out)
	}
	modes(0o755, 0o755, 0o666)
	if out := curl(); !strings.HasPrefix(out, "HTTP/1.1 403 ") || !strings.Contains(out, "of uid 12345, this node serves uid 0 only") {
		t.Errorf("curl of uid %d got:\n%s", other, out)
	}
	modes(0o700, 0o700, 0o600)
}

// A process of a container sees its container's processes, and can neither
// signal nor look into the node.
func TestContainersCannotReachTheNode(t *testing.T) {
	lab.Need(t, "ps", "unshare")
	n := newNode(t)
	n.start("bridge")
	n.start("host", "--network", "host")
	n.start("other")
	before := n.holdings()
	for _, name := range []string{"bridge", "host"} {
		// Five: init, the first command, and what looks.
		seen := strings.Fields(n.exec(name, "ps", "-eo", "pid="))
		if len(seen) > 5 {
			t.Errorf("%s sees %d processes: %v", name, len(seen), seen)
		}
		if comm := n.exec(name, "cat", "/proc/1/comm"); comm != "fairlead-init\n" {
			t.Errorf("process 1 of %s is %q", name, comm)
		}
		// All processes there are, from inside: the container's own.
		n.try("exec", name, "kill", "-KILL", "-1")
		n.gone(name)
	}
	for _, proc := range []string{"its own", "outside's"} {
		if out := n.exec("other", play(t, "reach", strconv.Itoa(before.pid), proc)...); out != "nothing\n" {
			t.Errorf("with %s /proc a container can reach the node by:\n%s", proc, out)
		}
	}
	if out := n.exec("other", "echo", "well"); out != "well\n" {
		t.Errorf("another container says %q", out)
	}
}

// reach tries all ways to a process of another pid namespace by its number out
// there, and prints those that work. Root inside may take the container's /proc
// away from over the outside's, where he sees names and no more.
func reach(args []string) error {
	pid, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	if args[1] == "outside's" {
		if err := unix.Unmount("/proc", 0); err != nil {
			return err
		}
		if _, err := os.Stat("/proc/" + args[0]); err != nil {
			return err
		}
	}
	dir := fmt.Sprintf("/proc/%d", pid)
	procFD, _ := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	read := func(name string) error {
		_, err := os.ReadFile(filepath.Join(dir, name))
		return err
	}
	link := func(name string) error {
		_, err := os.Readlink(filepath.Join(dir, name))
		return err
	}
	ways := []struct {
		name string
		try  func() error
	}{
		{"kill", func() error { return unix.Kill(pid, 0) }},
		{"pidfd_open", func() error { _, err := unix.PidfdOpen(pid, 0); return err }},
		{"pidfd_send_signal", func() error { return unix.PidfdSendSignal(procFD, 0, nil, 0) }},
		{"pidfd_getfd", func() error { _, err := unix.PidfdGetfd(procFD, 0, 0); return err }},
		{"ptrace", func() error { return unix.PtraceSeize(pid) }},
		{"process_vm_readv", func() error {
			b := make([]byte, 8)
			local := []unix.Iovec{{Base: &b[0], Len: 8}}
			_, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: 0x400000, Len: 8}}, 0)
			return err
		}},
		{"setpriority", func() error { return unix.Setpriority(unix.PRIO_PROCESS, pid, 10) }},
		{"prlimit", func() error { return unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 8, Max: 8}, nil) }},
		{"setns", func() error { return unix.Setns(procFD, unix.CLONE_NEWNET) }},
		{"its memory", func() error { return read("mem") }},
		{"its environment", func() error { return read("environ") }},
		{"its root", func() error { return link("root") }},
		{"its directory", func() error { return link("cwd") }},
		{"its descriptors", func() error { return link("fd/0") }},
		{"its network namespace", func() error { return link("ns/net") }},
	}
	found := false
	for _, w := range ways {
		if w.try() == nil {
			fmt.Println(w.name)
			found = true
		}
	}
	if !found {
		fmt.Println("nothing")
	}
	return nil
}

// What runs in a container gets three descriptors and no others, whatever its
// client has open.
func TestNoDescriptorsLeakIntoContainers(t *testing.T) {
	n := newNode(t)
	n.start("detached", "--", "sh", "-c", "ls -l /proc/self/fd; sleep 1000")
	n.logSays("detached", "3 ->") // the folder itself
	leaky, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer leaky.Close()
	list := []string{"ls", "-l", "/proc/self/fd"}
	outputs := map[string]string{"run -d": n.run("logs", "detached")}
	for _, options := range []string{"run", "run -i", "run -t", "run --network none", "run --network host",
		"run --network container:detached", "exec detached", "exec -i detached", "exec -t detached"} {
		ctx, cancel := contextWithPatience()
		args := strings.Fields(options)
		cmd := n.command(ctx, append(args, list...)...)
		cmd.ExtraFiles = []*os.File{leaky, leaky, nil, leaky}
		out, err := cmd.CombinedOutput()
		cancel()
		if err != nil {
			t.Fatalf("fairlead %s: %v\n%s", options, err, out)
		}
		outputs[options] = string(out)
	}
	for options, out := range outputs {
		var fds []string
		for _, m := range regexp.MustCompile(`(\d+) -> \S+`).FindAllStringSubmatch(out, -1) {
			fds = append(fds, m[1])
		}
		if got := strings.Join(fds, " "); got != "0 1 2 3" {
			t.Errorf("%s: descriptors %s, want 0 1 2 and 3, the folder:\n%s", options, got, out)
		}
	}
}

// Sixteen clients follow the packets and read none of what they are told. That
// costs a bounded amount of memory, and no traffic.
func TestTracesNobodyReads(t *testing.T) {
	lab.Need(t, "ethtool")
	n := newNode(t)
	n.start("client")
	n.start("server", append([]string{"--"}, play(t, "sink", ":5001")...)...)
	n.logSays("server", "listening")
	for _, name := range []string{"client", "server"} { // many frames
		n.exec(name, "ethtool", "-K", "eth0", "tx", "off")
	}
	before := n.holdings()
	var idle []*net.UnixConn
	begin := func() (status string) {
		conn := n.dial()
		send(conn, "GET /v1/trace HTTP/1.1\r\nHost: node\r\n\r\n", nil)
		idle = append(idle, conn)
		status, _ = heard(conn)
		return status
	}
	for range 4 { // a quarter of all
		if status := begin(); status != "200 OK" {
			t.Fatalf("trace is answered %s", status)
		}
	}
	if status := begin(); status != "429 Too Many Requests" {
		t.Errorf("one more of the same process is answered %s", status)
	}
	memory := residentKB(t, before.pid)
	var grown int
	to := n.containers()["server"].IP + ":5001"
	for range 3 {
		t.Log(n.exec("client", play(t, "transfer", to, "50000000")...))
		grown = max(grown, residentKB(t, before.pid)-memory)
	}
	t.Logf("the node grew by %d KiB", grown)
	n.grewAtMost(grown, 32<<10)
	for _, conn := range idle {
		conn.Close()
	}
	lab.Eventually(t, 10*time.Second, before.exceeded)
}
