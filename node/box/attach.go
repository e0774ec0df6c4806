package box

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A Target is a network namespace that somebody else made: that of a process,
// or the one a path leads to (as /run/netns/NAME of ip-netns does).
type Target struct {
	PID  int
	Path string
}

func (t Target) String() string {
	if t.Path != "" {
		return "netns:" + t.Path
	}
	return fmt.Sprintf("pid:%d", t.PID)
}

// A Foreign is an interface in a namespace of somebody else.
type Foreign struct {
	// TAP is the other end, or a packet socket on it if the link is a veth, the
	// Foreign's until Close. It pins an empty namespace only: when the target
	// goes, so does the interface, and a TAP says EPOLLERR and EBADFD. Closed, it
	// takes the interface away.
	TAP   int
	Index int  // of the interface, in the target
	NetNS NSID // the target
	// PeerNetNS is what the kernel there calls the namespace of a veth's other
	// end, link-netnsid; -1 of a TAP.
	PeerNetNS int
	Warnings  []string // what is less than asked for
}

// Close closes our copy of TAP.
func (f *Foreign) Close() { closeAll([]int{f.TAP}); f.TAP = -1 }

// AttachForeign hangs a new interface into a namespace that somebody else
// made. It needs the rights of root in the user namespace that owns it, which
// whoever made that has.
func AttachForeign(t Target, i *Interface) (*Foreign, error) {
	if err := i.validate(); err != nil {
		return nil, err
	}
	f, err := attachForeign(t, i)
	if err != nil {
		return nil, fmt.Errorf("attach %s to %v: %w", i.Name, t, err)
	}
	return f, nil
}

func attachForeign(t Target, i *Interface) (f *Foreign, err error) {
	err = withHelper(t, func(channel *Channel, target int) error {
		if f, err = askHelper(channel, i, target); err != nil {
			return err
		}
		if f.NetNS, err = nsID(target); err != nil {
			f.Close()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// withHelper calls ask with a channel to a join helper, and the target to send it.
func withHelper(t Target, ask func(channel *Channel, target int) error) error {
	target, err := openTarget(t)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	join, err := ownerOf(target)
	if err != nil {
		return err
	}
	for _, ns := range join {
		defer unix.Close(ns.fd)
	}
	near, far, err := Pair()
	if err != nil {
		return err
	}
	channel, err := NewChannel(near)
	if err != nil {
		closeAll([]int{far})
		return err
	}
	defer channel.Close()
	pid, err := startHelper(join, t, far)
	closeAll([]int{far})
	if err != nil {
		return err
	}
	err = ask(channel, target)
	if process, perr := os.FindProcess(pid); perr == nil {
		_ = process.Kill() // it has answered, or never will
		_, _ = process.Wait()
	}
	return err
}

// openTarget opens the namespace and makes sure that it is one.
func openTarget(t Target) (fd int, err error) {
	if t.Path == "" {
		pidfd, err := OpenPID(t.PID)
		if err != nil {
			return -1, err
		}
		defer unix.Close(pidfd)
		return openNS(pidfd, unix.CLONE_NEWNET)
	}
	if fd, err = unix.Open(t.Path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
		return -1, &os.PathError{Op: "open", Path: t.Path, Err: err}
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err == nil && fs.Type == unix.NSFS_MAGIC {
		if kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE); err == nil && kind == unix.CLONE_NEWNET {
			return fd, nil
		}
	}
	unix.Close(fd)
	return -1, fmt.Errorf("%s is not a network namespace (ip netns list shows the named ones)", t.Path)
}

// ownerOf returns the user namespace to join before target: its owner, or none
// where that is ours.
func ownerOf(target int) ([]namespace, error) {
	owner, err := unix.IoctlRetInt(target, unix.NS_GET_USERNS)
	if errors.Is(err, unix.EPERM) { // the owner is no descendant of our user namespace
		return nil, fmt.Errorf("it belongs to a user namespace above ours: run this command where it was made, as root there")
	} else if err != nil {
		return nil, fmt.Errorf("find the user namespace that owns it: %w", err)
	}
	same, err := isOurNS(owner, unix.CLONE_NEWUSER)
	if err != nil || same {
		unix.Close(owner)
		return nil, err
	}
	return []namespace{{fd: owner, kind: unix.CLONE_NEWUSER}}, nil
}

// startHelper starts the helper in an empty network namespace, the nursery,
// that belongs to the owner of the target.
func startHelper(join []namespace, t Target, channel int) (pid int, err error) {
	if err := markCloseOnExec(); err != nil {
		return 0, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	n := null.Fd()
	pid, err = forkInto(join, unix.CLONE_NEWNET, []string{joinName, t.String()}, childEnv(), []uintptr{n, n, n, uintptr(channel)})
	if errors.Is(err, unix.EPERM) {
		return 0, fmt.Errorf("%w: it takes root of the user namespace that owns it (sudo, or whoever made it)", err)
	}
	return pid, err
}

// askHelper sends the order and takes the TAP.
func askHelper(channel *Channel, i *Interface, target int) (*Foreign, error) {
	if err := channel.SetReadDeadline(time.Now().Add(readyTimeout)); err != nil {
		return nil, err
	}
	if err := channel.Send(&Message{Attach: i}, target); err != nil {
		return nil, err
	}
	m, fds, err := channel.Recv()
	switch {
	case errors.Is(err, io.EOF):
		return nil, errors.New("the join helper ended without an answer")
	case err != nil:
		return nil, err
	case m.Ready != nil && len(fds) == 1:
		return &Foreign{TAP: fds[0], Index: m.Ready.Index, PeerNetNS: m.Ready.PeerNetNS, Warnings: printableAll(m.Ready.Warnings)}, nil
	}
	discard(fds...)
	if m.Failure != nil {
		return nil, m.Failure
	}
	return nil, errors.New("the join helper gave no TAP")
}

// joinMain is the helper. Its descriptors are /dev/null and the channel: root
// of the namespace it works in could take hold of whatever else it had.
func joinMain() int {
	// One thread of it will be in the target, and the address of a nursery
	// TAP is that of the thread that opened it.
	runtime.LockOSThread()
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	channel, err := NewChannel(channelFD)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: to be started by a client only: %v\n", joinName, err)
		return 125
	}
	m, fds, err := channel.Recv()
	if err != nil || m.Attach == nil && m.Await == nil || len(fds) != 1 {
		return 125
	}
	if m.Await != nil {
		go func() {
			_, _ = channel.Hear() // who asked has gone
			os.Exit(125)
		}()
		if err = m.Await.in(fds[0]); err != nil {
			err = channel.Send(&Message{Failure: asFailure(err)})
		} else {
			err = channel.Send(&Message{Done: true})
		}
		if err != nil {
			return 125
		}
		return 0
	}
	tap, ready, err := bear(m.Attach, fds[0])
	if err != nil {
		_ = channel.Send(&Message{Failure: asFailure(explainInside(err))})
		return 125
	}
	if err := channel.Send(&Message{Ready: ready}, tap); err != nil {
		return 125
	}
	return 0
}

// bear makes the link here, in the nursery, moves the interface into target and
// sets it up there.
func bear(i *Interface, target int) (tap int, ready *Ready, err error) {
	ready = &Ready{PeerNetNS: -1}
	if i.Veth {
		tap, err = createVeth(i, target)
	} else if tap, _, err = createTAP(i); err == nil {
		err = moveLink(i.Name, target)
	}
	if err != nil {
		return -1, nil, err
	}
	if err := unix.Setns(target, unix.CLONE_NEWNET); err != nil {
		return -1, nil, fmt.Errorf("enter the namespace: %w", err)
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return -1, nil, fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	linkLocalAtOnce(i.Name, func(string, ...any) {}) // where it cannot, the address takes a second
	askByOwnAddress(i.Name, func(string, ...any) {})
	if i.Resolver.IsValid() && resolverTaken() {
		i.Resolver = netip.Addr{}
	}
	if err := setupInterface(h, i, ready.warn); err != nil {
		return -1, nil, err
	}
	if err := awaitPort(i, tap); err != nil {
		return -1, nil, err
	}
	if i.Veth {
		return tap, ready, ready.veth(i.Name)
	}
	ifi, err := net.InterfaceByName(i.Name)
	if err != nil {
		return -1, nil, fmt.Errorf("find interface %s: %w", i.Name, err)
	}
	ready.Index = ifi.Index
	return tap, ready, nil
}

// resolverTaken reports whether somebody answers at resolverAddr in the
// namespace of the calling thread already: dockerd does in its containers, on a
// port that rules lead port 53 to.
func resolverTaken() bool {
	a := resolverAddr.As4()
	local := fmt.Sprintf(": %08X:", binary.NativeEndian.Uint32(a[:])) // tcp4_seq_show in net/ipv4/tcp_ipv4.c
	for _, name := range []string{"udp", "tcp"} {
		if text, err := os.ReadFile("/proc/thread-self/net/" + name); err == nil && strings.Contains(string(text), local) {
			return true
		}
	}
	return false
}

func moveLink(name string, target int) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	l, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", name, err)
	}
	err = h.LinkSetNsFd(l, target)
	if errors.Is(err, unix.EEXIST) {
		return errTaken(name)
	} else if err != nil {
		return fmt.Errorf("move the interface: %w", err)
	}
	return nil
}

func errTaken(name string) error {
	return fmt.Errorf("there is an interface %s already: name this one by --ifname", name)
}
