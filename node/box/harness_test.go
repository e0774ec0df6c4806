package box

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fairlead/link"
	"fairlead/packet"
	"fairlead/test/lab"
)

func TestMain(m *testing.M) {
	// The race detector makes every process wait a second at its end, for
	// what its threads might still find.
	if os.Getenv("GORACE") == "" {
		os.Setenv("GORACE", "atexit_sleep_ms=0")
	}
	Main()
	if len(os.Args) > 1 && os.Args[1] == helperArg {
		os.Exit(helper(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// helperArg makes this binary a program for containers; see helper.
const helperArg = "box-test-helper"

// self is a command that runs this binary as one of the helpers.
func self(name string, args ...string) []string {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return append([]string{exe, helperArg, name}, args...)
}

// eth0 is the interface of scenario S01.
func eth0() *Interface {
	a := netip.MustParseAddr("172.17.0.2")
	return &Interface{
		Name: "eth0", MAC: packet.MACFromIPv4(a), MTU: 1500,
		Addresses: []netip.Prefix{netip.PrefixFrom(a, 16)},
		Gateways:  []netip.Addr{netip.MustParseAddr("172.17.0.1")},
	}
}

// own is a container with an interface, none one without.
func own(args ...string) *Spec {
	return &Spec{ID: "0123456789abcdef", Hostname: "0123456789ab", Args: args, Env: os.Environ(),
		Network: NetworkOwn, Interface: eth0()}
}

func none(args ...string) *Spec {
	s := own(args...)
	s.Network, s.Interface = NetworkNone, nil
	return s
}

func sh(script string) []string { return []string{"sh", "-c", script} }

// A queue is the other end of a link.
type queue interface {
	ReadBatch(b *packet.Batch) (int, error)
	WriteBatch(frames []*packet.Frame) (int, error)
	Close() error
}

// adopt makes the other end of an interface a queue.
func adopt(t *testing.T, i *Interface, fd int) (q queue) {
	t.Helper()
	var err error
	switch {
	case i.Plain:
		q, err = link.AdoptWire(fd)
	case i.Veth:
		q, err = link.AdoptPacket(fd)
	default:
		q, err = link.AdoptTAP(fd)
	}
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// raise says that somebody reads, where that can be said.
func raise(t *testing.T, q queue) {
	t.Helper()
	if c, ok := q.(interface{ SetCarrier(up bool) error }); ok {
		if err := c.SetCarrier(true); err != nil {
			t.Fatal(err)
		}
	}
}

// A running is a container with a test in the node's place.
type running struct {
	*Box
	t    *testing.T
	node *Channel
	tap  queue
	far  farEnd // of the veth pair that came last
	out  output
	end  sync.Once
}

// An output collects what a container writes.
type output struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	done chan struct{}
}

// adopt makes the other end of an interface a queue.
func (r *running) adopt(i *Interface, fd int) queue {
	r.t.Helper()
	if i.Veth {
		r.far = lookAtFar(r.t, fd)
	}
	return adopt(r.t, i, fd)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// collect returns the end to write to, for the container, and reads the other.
func (o *output) collect(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	o.done = make(chan struct{})
	go func() {
		defer close(o.done)
		defer r.Close()
		buf := make([]byte, 4096)
		for {
			n, err := r.Read(buf)
			o.mu.Lock()
			o.buf.Write(buf[:n])
			o.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return w
}

// createDown starts init and takes the node's part, but for the carrier.
func createDown(t *testing.T, spec *Spec) *running {
	t.Helper()
	if spec.Network == NetworkOwn && !spec.Interface.Veth {
		lab.NeedTUN(t)
	}
	r := &running{t: t}
	w := r.out.collect(t)
	defer w.Close()
	var err error
	if r.Box, err = Start(spec, [3]*os.File{os.Stdin, w, w}); err != nil {
		t.Fatal(err)
	}
	r.node, err = NewChannel(r.Node)
	if err != nil {
		t.Fatal(err)
	}
	r.Box.Node = -1
	t.Cleanup(r.stop)
	if spec.Network == NetworkOwn {
		r.tap, r.TAP = r.adopt(spec.Interface, r.TAP), -1
	}
	return r
}

// create starts init and takes the node's part.
func create(t *testing.T, spec *Spec) *running {
	t.Helper()
	r := createDown(t, spec)
	if r.tap != nil {
		raise(t, r.tap)
	}
	return r
}

// stop ends the container as a node would and gives everything back.
func (r *running) stop() {
	r.end.Do(func() {
		_ = SignalPIDFD(r.PIDFD, syscall.SIGKILL)
		_, _ = r.Box.Wait()
		r.Close()
		r.node.Close()
		if r.tap != nil {
			r.tap.Close()
		}
		<-r.out.done
	})
}

// start is create, and waits for the command.
func start(t *testing.T, spec *Spec) *running {
	t.Helper()
	r := create(t, spec)
	if err := r.Started(); err != nil {
		t.Fatalf("start %q: %v", spec.Args, err)
	}
	for _, w := range r.Warnings {
		t.Errorf("warning: %s", w)
	}
	return r
}

// wait waits for the end and checks the status.
func (r *running) wait(want int) {
	r.t.Helper()
	code, err := r.Box.Wait()
	if err != nil || code != want {
		r.t.Errorf("ended with %d, %v; want %d\n%s", code, err, want, r.out.String())
	}
	<-r.out.done
}

// until waits for text in the output.
func (r *running) until(text string) {
	r.t.Helper()
	lab.Eventually(r.t, 10*time.Second, func() error {
		if out := r.out.String(); !strings.Contains(out, text) {
			return fmt.Errorf("no %q in the output:\n%s", text, out)
		}
		return nil
	})
}

// run runs a container to its end and returns what it wrote.
func run(t *testing.T, spec *Spec, want int) string {
	t.Helper()
	r := start(t, spec)
	r.wait(want)
	r.stop()
	return r.out.String()
}

// leftovers lists the processes with marker in their command line.
func leftovers(marker string) error {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		line, _ := os.ReadFile(file)
		if bytes.Contains(line, []byte(marker)) && !bytes.HasPrefix(line, []byte(os.Args[0])) {
			return fmt.Errorf("%s: %q", file, line)
		}
	}
	return nil
}

// gone fails unless every process with marker ends soon.
func gone(t *testing.T, marker string) {
	t.Helper()
	lab.Eventually(t, 10*time.Second, func() error { return leftovers(marker) })
}

// helperCommand prepares one of the helpers as a process of its own.
func helperCommand(name string, args ...string) *exec.Cmd {
	line := self(name, args...)
	return exec.Command(line[0], line[1:]...)
}

// helper are programs for containers and for clients of their own.
func helper(args []string) int {
	err := fmt.Errorf("no helper %q", args)
	switch args[0] {
	case "client": // a whole client, and the node: client ID COMMAND...
		err = helperClient(args[1], args[2:])
	case "connect": // to a unix socket, and stay until it is closed
		var c net.Conn
		if c, err = net.Dial("unix", args[1]); err == nil {
			fmt.Println("connected")
			_, _ = c.Read(make([]byte, 1))
		}
	case "listen": // on a TCP address, and greet one client
		var l net.Listener
		var c net.Conn
		if l, err = net.Listen("tcp", args[1]); err == nil {
			fmt.Println("listening")
			if c, err = l.Accept(); err == nil {
				_, err = c.Write([]byte("greetings"))
				c.Close()
			}
		}
	case "dial": // a TCP address and print what it says
		var c net.Conn
		if c, err = net.Dial("tcp", args[1]); err == nil {
			buf := make([]byte, 100)
			n, _ := c.Read(buf)
			fmt.Printf("%s\n", buf[:n])
		}
	case "query": // a UDP service, and print who answers what
		err = helperQuery(args[1])
	case "hold": // a port, as long as whoever started us lives
		err = helperHold(args[1], args[2])
	case "no-carrier": // an interface nobody reads
		err = helperNoCarrier()
	case "serve": // on a TCP address, and print how many bytes came from one client
		err = helperServe(args[1])
	case "send": // so many bytes to a TCP address
		err = helperSend(args[1], args[2])
	case "print":
		fmt.Println(args[1])
		err = nil
	case "attach": // an interface to the namespace of a path
		_, err = AttachForeign(Target{Path: args[1]}, eth1())
	case "forbidden": // a container where no user namespace may be made
		if err = setSysctl("user.max_user_namespaces", "0"); err == nil {
			_, err = Start(none("true"), [3]*os.File{os.Stdin, os.Stdout, os.Stderr})
		}
	case "masked": // a container under what container runtimes do to /proc and /sys
		err = helperMasked()
	case "no-tun": // a container where there is no /dev/net/tun
		if err = unix.Mount("tmpfs", "/dev/net", "tmpfs", 0, ""); err == nil {
			_, err = Start(own("true"), [3]*os.File{os.Stdin, os.Stdout, os.Stderr})
		}
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func helperQuery(to string) error {
	c, err := net.Dial("udp", to)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("who is web?")); err != nil {
		return err
	}
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	fmt.Printf("from %v: %s\n", c.RemoteAddr(), buf[:n])
	return err
}

func helperHold(network, addr string) (err error) {
	if network == "udp" {
		_, err = net.ListenPacket(network, addr)
	} else {
		_, err = net.Listen(network, addr)
	}
	for parent := os.Getppid(); err == nil && os.Getppid() == parent; {
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

func helperServe(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Println("serving")
	c, err := l.Accept()
	if err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, c)
	fmt.Printf("%d bytes came\n", n)
	return err
}

func helperSend(addr, bytes string) error {
	n, err := strconv.Atoi(bytes)
	if err != nil {
		return err
	}
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return err
	}
	if _, err := c.Write(make([]byte, n)); err != nil {
		return err
	}
	return c.Close()
}

func helperMasked() error {
	err := errors.Join(
		unix.Mount("tmpfs", "/proc/sys", "tmpfs", unix.MS_RDONLY, ""),
		unix.Mount("/sys", "/sys", "", unix.MS_BIND|unix.MS_REC, ""),
		unix.Mount("", "/sys", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""))
	if err != nil {
		return err
	}
	b, err := Start(none(sh("ls /sys/class/net; hostname; touch /sys/x")...), [3]*os.File{os.Stdin, os.Stdout, os.Stdout})
	if err != nil {
		return err
	}
	if err := b.Started(); err != nil {
		return err
	}
	_, err = b.Wait()
	fmt.Println(b.Warnings)
	return err
}

func helperNoCarrier() error {
	tap, _, err := createTAP(eth0())
	if err != nil {
		return err
	}
	defer unix.Close(tap)
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	if err := setupInterface(h, eth0(), func(string, ...any) {}); err != nil {
		return err
	}
	return waitCarrier("eth0", 100*time.Millisecond, func(string, ...any) {})
}

func helperClient(id string, args []string) error {
	spec := own(args...)
	spec.ID = id
	b, err := Start(spec, [3]*os.File{os.Stdin, os.Stdout, os.Stderr})
	if err != nil {
		return err
	}
	tap, err := link.AdoptTAP(b.TAP)
	if err != nil {
		return err
	}
	if err := tap.SetCarrier(true); err != nil {
		return err
	}
	if err := b.Started(); err != nil {
		return err
	}
	_, err = b.Wait()
	return err
}

// unshared prepares a command as root of namespaces of its own, flags.
func unshared(flags uintptr, args ...string) *exec.Cmd {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  flags | syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	return cmd
}
