package node

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// bound is a socket that somebody has bound for us, and its port. The port was
// asked for by number: the kernel takes one of its own choosing back.
func bound(t *testing.T, kind int, at string) (fd int, port uint16) {
	t.Helper()
	a := netip.MustParseAddr(at)
	try := func(port uint16) (fd int, err error) {
		family, addr := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: a.As16(), Port: int(port)})
		if a.Is4() {
			family, addr = unix.AF_INET, &unix.SockaddrInet4{Addr: a.As4(), Port: int(port)}
		}
		if fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0); err != nil {
			t.Fatal(err)
		}
		if err = unix.Bind(fd, addr); err != nil {
			_ = unix.Close(fd)
		}
		return fd, err
	}
	for {
		fd, err := try(0)
		if err != nil {
			t.Fatal(err)
		}
		x, err := identify(fd)
		if err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(fd)
		if fd, err = try(x.at.Port()); err == nil {
			return fd, x.at.Port()
		} else if !errors.Is(err, unix.EADDRINUSE) { // else somebody was faster
			t.Fatal(err)
		}
	}
}

// A socket that was handed in is used whenever its port is published, and nobody
// connects to it otherwise.
func TestInheritedSockets(t *testing.T) {
	h := newHandlersOut(t)
	one, port := bound(t, unix.SOCK_STREAM, "127.0.0.1")
	if err := unix.Listen(one, 1); err != nil { // as systemd does
		t.Fatal(err)
	}
	both, any := bound(t, unix.SOCK_STREAM, "::")
	datagrams, udp := bound(t, unix.SOCK_DGRAM, "127.0.0.1")
	for _, fd := range []int{one, both, datagrams} {
		if err := h.inherit([]int{fd}); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if got := listens(port) + listens(any); got != "" {
			t.Errorf("nobody has published them, and they are listened on at %q", got)
		}
		c, err := h.reserve(fmt.Sprintf("127.0.0.1:%d:80", port), fmt.Sprintf("%d:81", any), fmt.Sprintf("127.0.0.1:%d:53/udp", udp))
		if err != nil {
			t.Fatal(err)
		}
		if got := listens(port); got != "127.0.0.1" {
			t.Errorf("listened on at %q", got)
		}
		if got := listens(any); got != "127.0.0.1[::1]" {
			t.Errorf("one of both families is listened on at %q", got)
		}
		h.end(c)
	}

	// What is none is refused by name, and closed.
	again, err := unix.FcntlInt(uintptr(one), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	refused(t, h.inherit([]int{again}), fmt.Sprintf("the node has a socket of 127.0.0.1:%d/tcp already", port))
	if unix.Close(again) == nil {
		t.Error("a socket that was refused is still open")
	}
	free, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	refused(t, h.inherit([]int{free}), "it takes a socket of TCP or UDP that is bound to a port, as a systemd socket unit makes it")
	pipe := make([]int, 2)
	if err := unix.Pipe2(pipe, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if err := h.inherit(pipe[:1]); err == nil || !strings.HasPrefix(err.Error(), "the descriptor is no socket: ") {
		t.Error(err)
	}
	_ = unix.Close(pipe[1])
	refused(t, h.inherit(nil), "it takes one descriptor, of a socket; 0 came")
}
