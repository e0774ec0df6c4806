package box

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// HostAddrs are the addresses of this host at one moment.
type HostAddrs struct {
	Primary netip.Addr   // IPv4, that of the default route; the zero Addr when there is none at all
	All     []netip.Addr // of both families, without loopback and link-local ones
	Problem error        // what keeps the host from the world; nil when nothing does
}

// A HostWatch follows the addresses of this host. The kernel says when they
// change, so it costs nothing while they do not.
type HostWatch struct {
	// Both are of the network namespace the watch began in.
	handle *netlink.Handle
	socket *nl.NetlinkSocket

	broken error // why they are not followed
	told   func(*HostAddrs)
	stop   chan struct{}
	ended  chan struct{}

	mu   sync.Mutex
	last *HostAddrs
}

// settleFor is how long the watch waits for more: an interface that comes up
// brings several changes.
const settleFor = 50 * time.Millisecond

// WatchHost looks at the addresses, and again whenever they change. It calls
// told with what is new, the first time before it returns.
func WatchHost(told func(*HostAddrs)) *HostWatch {
	w := &HostWatch{told: told, stop: make(chan struct{}), ended: make(chan struct{})}
	w.socket, w.broken = nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE)
	if w.broken == nil {
		w.handle, w.broken = netlink.NewHandle(unix.NETLINK_ROUTE)
	}
	w.look()
	if w.broken == nil {
		go w.run()
	} else {
		close(w.ended)
	}
	return w
}

func (w *HostWatch) run() {
	defer close(w.ended)
	for w.broken == nil {
		// What has changed does not matter, nor that some of it was lost.
		_, _, err := w.socket.Receive()
		select {
		case <-w.stop: // it was closed
			return
		case <-time.After(settleFor):
		}
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			w.broken = err
		}
		w.look()
	}
}

// Close ends the watch; told is not called any more.
func (w *HostWatch) Close() {
	close(w.stop)
	if w.socket != nil {
		w.socket.Close()
	}
	<-w.ended
	if w.handle != nil {
		w.handle.Close()
	}
}

// Seen are the addresses as they were when they last changed.
func (w *HostWatch) Seen() *HostAddrs {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// look looks at the addresses once, and tells what is new.
func (w *HostWatch) look() {
	h := &HostAddrs{}
	if w.handle != nil {
		h.Problem = h.read(w.handle)
	}
	if w.broken != nil {
		h.Problem = fmt.Errorf("this host's addresses are not followed: %w", w.broken)
	}
	w.mu.Lock()
	same := w.last != nil && h.equals(w.last)
	w.last = h
	w.mu.Unlock()
	if !same {
		w.told(h)
	}
}

func (h *HostAddrs) equals(x *HostAddrs) bool {
	return h.Primary == x.Primary && slices.Equal(h.All, x.All) && (h.Problem == nil) == (x.Problem == nil)
}

// somewhere is an address that no network has (RFC 7600), so the way to it is
// the default route.
var somewhere = net.IPv4(192, 0, 0, 8)

// read fills in the addresses and returns the problem.
func (h *HostAddrs) read(handle *netlink.Handle) error {
	list, err := handle.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list this host's addresses: %w", err)
	}
	for _, x := range list {
		a, ok := netip.AddrFromSlice(x.IP)
		if a = a.Unmap(); ok && !a.IsLoopback() && !a.IsLinkLocalUnicast() {
			h.All = append(h.All, a)
			if a.Is4() && !h.Primary.IsValid() {
				h.Primary = a
			}
		}
	}
	slices.SortFunc(h.All, netip.Addr.Compare)
	routes, err := handle.RouteGet(somewhere)
	if err != nil || len(routes) == 0 {
		return errors.New("this host has no default route; `ip route` lists those it has")
	}
	switch a, ok := netip.AddrFromSlice(routes[0].Src); {
	case ok && a.Unmap().IsLoopback():
		return errors.New("this host's default route leads to its loopback; `ip route` lists those it has")
	case ok:
		h.Primary = a.Unmap()
	}
	return nil
}
