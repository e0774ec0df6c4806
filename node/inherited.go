package node

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"fairlead/node/api"
)

// Ports below 1024 take a right that the node does not have. Whoever has it may
// bind a socket and hand it to the node, as systemd does with LISTEN_FDS; it is
// used whenever a container publishes that port at that address.

// maxInherited bounds them: there are no more than ports that take a right.
const maxInherited = 2 * 1024

// An inherited is a bound socket the node was handed. Listeners are duplicates of
// it, so it can be used again and again.
type inherited struct {
	fd    int
	proto string
	at    netip.AddrPort
	both  bool // of IPv6, and of IPv4 too
}

// inherit takes a socket. It is the node's from here on, whatever becomes of it.
func (n *Node) inherit(fds []int) error {
	if len(fds) != 1 {
		api.CloseAll(fds)
		return fail(http.StatusBadRequest, "it takes one descriptor, of a socket; %d came", len(fds))
	}
	x, err := identify(fds[0])
	if err == nil {
		n.mu.Lock()
		defer n.mu.Unlock()
		err = n.inheritLocked(x)
	}
	if err != nil {
		api.CloseAll(fds)
		return err
	}
	slog.Info("a socket was handed in", "proto", x.proto, "at", x.at)
	return nil
}

func (n *Node) inheritLocked(x inherited) error {
	switch {
	case n.isLeaving():
		return errLeaving
	case slices.ContainsFunc(n.inherited, func(o inherited) bool { return o.proto == x.proto && o.at == x.at }):
		return fail(http.StatusConflict, "the node has a socket of %s/%s already", x.at, x.proto)
	case len(n.inherited) >= maxInherited:
		return fail(http.StatusConflict, "the node has been handed %d sockets, which is all it takes", len(n.inherited))
	}
	if err := unix.SetNonblock(x.fd, true); err != nil {
		return fmt.Errorf("socket of %s: %w", x.at, err)
	}
	x.rest()
	n.inherited = append(n.inherited, x)
	return nil
}

// identify finds out what a descriptor is: a socket of a port that nobody has
// connected.
func identify(fd int) (x inherited, err error) {
	proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return x, fail(http.StatusBadRequest, "the descriptor is no socket: %w", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return x, fail(http.StatusBadRequest, "the socket has no address: %w", err)
	}
	x = inherited{fd: fd, proto: map[int]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[proto]}
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		x.at = netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		x.at = netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
		only, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		x.both = err == nil && only == 0 && x.at.Addr().IsUnspecified()
	}
	if x.proto == "" || x.at.Port() == 0 {
		return x, fail(http.StatusBadRequest, "it takes a socket of TCP or UDP that is bound to a port, as a systemd socket unit makes it")
	}
	if _, err := unix.Getpeername(fd); err == nil {
		return x, fail(http.StatusBadRequest, "the socket of %s is connected; it takes one that is bound only", x.at)
	}
	return x, nil
}

// rest has nobody connect while no container has the port.
func (x *inherited) rest() {
	if x.proto == "tcp" {
		_ = unix.Shutdown(x.fd, unix.SHUT_RD) // fails where it has not listened yet
	}
}

// inheritedLocked is the socket of a port at an address, nil if there is none.
func (n *Node) inheritedLocked(p *publication, a netip.Addr) *inherited {
	for i := range n.inherited {
		x := &n.inherited[i]
		if x.proto == p.proto && x.at.Port() == p.hostPort && (x.at.Addr() == a || x.both && a == netip.IPv4Unspecified()) {
			return x
		}
	}
	return nil
}

// adoptLocked has a port be listened on by a socket that was handed in.
func (n *Node) adoptLocked(p *publication, x *inherited) error {
	fd, err := unix.FcntlInt(uintptr(x.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return n.hostWay.Sockets().Adopt(protos[p.proto], x.at, fd)
}

// dropInherited closes them.
func (n *Node) dropInherited() {
	for _, x := range n.inherited {
		_ = unix.Close(x.fd)
	}
}

func (n *Node) postListeners(w http.ResponseWriter, r *http.Request) (any, error) {
	var m api.ListenerRequest
	return upgrade(w, r, &m, func(fds []int) error { return n.inherit(fds) })
}
