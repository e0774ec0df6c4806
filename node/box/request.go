package box

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The other side of ask.go: what init does for its node.

// serve answers one request. fds is the session it is answered by.
func (c *container) serve(m *Message, fds []int) {
	want := 1
	if m.Keep != 0 {
		want = 2
	}
	if len(fds) != want {
		closeAll(fds)
		return
	}
	session, err := NewChannel(fds[want-1])
	if err != nil {
		closeAll(fds[:want-1])
		return // nobody to tell
	}
	defer session.Close()
	if m.Keep != 0 {
		c.keepFor(m.Keep, fds[0], session)
		return
	}
	// Sending fails when the node has given up; then the interface goes with the
	// descriptor nobody has.
	if err := c.answer(m, session); err != nil {
		_ = session.Send(&Message{Failure: asFailure(explainInside(err))})
	}
}

func (c *container) answer(m *Message, session *Channel) error {
	if c.spec.Network == NetworkHost {
		return errors.New("the network namespace is not the container's own")
	}
	if m.Link != nil {
		index, err := c.link(m.Link, session)
		if err != nil {
			return err
		}
		keepIf := c.dropUnless(index, session)
		err = waitCarrier(m.Link.Name, carrierTimeout, func(string, ...any) {})
		if keepIf(err == nil); err != nil {
			return err
		}
		return session.Send(&Message{Linked: true})
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	c.network.Lock()
	defer c.network.Unlock()
	if m.Unlink != 0 {
		c.dropKept(m.Unlink)
		err = removeLink(h, m.Unlink)
	} else {
		err = setDefaultRoute(h, m.Default)
	}
	if err != nil {
		return err
	}
	return session.Send(&Message{Done: true})
}

// link makes an interface and sends its other end, of which it keeps a copy.
func (c *container) link(i *Interface, session *Channel) (index int, err error) {
	if err := i.validate(); err != nil {
		return 0, err
	}
	c.network.Lock()
	defer c.network.Unlock()
	if _, err := net.InterfaceByName(i.Name); err == nil {
		return 0, errTaken(i.Name)
	}
	fd, ready, err := createLink(i)
	if err != nil {
		return 0, err
	}
	ready.KeptLink = c.keep(ready.Index, fd)
	defer func() {
		if ready.KeptLink == 0 {
			unix.Close(fd)
		} else if err != nil {
			c.dropKept(ready.Index)
		}
	}()
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return 0, fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	linkLocalAtOnce(i.Name, ready.warn)
	ignoreRouters(i.Name, ready.warn)
	askByOwnAddress(i.Name, ready.warn)
	if err := setupInterface(h, i, ready.warn); err != nil {
		return 0, err
	}
	if err := awaitPort(i, fd); err != nil {
		return 0, err
	}
	return ready.Index, session.Send(&Message{Ready: ready}, fd)
}

// removeLink removes an interface that may have gone by itself.
func removeLink(h *netlink.Handle, index int) error {
	l, err := h.LinkByIndex(index)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	} else if err != nil {
		return fmt.Errorf("find interface %d: %w", index, err)
	}
	if err := h.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove interface %s: %w", l.Attrs().Name, err)
	}
	return nil
}

// setDefaultRoute replaces the default route that has no metric, or takes it
// away. Those with one are the container's own affair.
func setDefaultRoute(h *netlink.Handle, r *DefaultRoute) error {
	if err := r.validate(); err != nil {
		return err
	}
	if r.Via.IsValid() {
		set := replaceDefaultRoute
		if r.Missing {
			set = addDefaultRoute
		}
		if err := set(h, r.Index, r.Via); err != nil {
			return fmt.Errorf("default route via %v: %w", r.Via, err)
		}
		return nil
	}
	routes, err := h.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, route := range routes {
		if !isDefault(route) || route.Priority != 0 {
			continue
		}
		if err := h.RouteDel(&route); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove the default route: %w", err)
		}
	}
	return nil
}
