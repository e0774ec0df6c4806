package node

import (
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/netip"

	"golang.org/x/sys/unix"
)

// A published port that is reached by this host's sockets has a listening one,
// or two: one for each family. They are open from when the port is reserved, so
// that what cannot be had is said before anything starts.

// listenLocked opens the sockets of a port of c. Without host sockets as a way
// out there are none.
func (n *Node) listenLocked(c *container, p *publication) error {
	if !c.usesHostLocked(n) || p.open4 || p.open6 {
		return nil
	}
	for _, a := range n.listenAt(p) {
		x := n.inheritedLocked(p, a)
		if x != nil && x.at.Addr() != a {
			continue // the one of IPv6 is of IPv4 too
		}
		err := n.listenOn(p, a, x)
		if errors.Is(err, unix.EAFNOSUPPORT) && !p.hostIP.IsValid() {
			continue // a host without IPv6
		}
		if err != nil {
			n.unlistenLocked(p)
			return n.bindError(c, p, a, err)
		}
		if a.Is4() {
			p.open4 = true
		} else {
			p.open6 = true
		}
	}
	return nil
}

// usesHostLocked reports whether c's published ports are reached by this host's
// sockets: the network they lead to has them as a way out.
func (c *container) usesHostLocked(n *Node) bool {
	a := c.electLocked()
	return a != nil && n.usesHostLocked(a.lan)
}

// listenOn opens one of them, or uses x, which was handed in.
func (n *Node) listenOn(p *publication, a netip.Addr, x *inherited) (err error) {
	if n.listening >= n.budget.Listeners {
		return unix.EMFILE
	}
	at := netip.AddrPortFrom(a, p.hostPort)
	if fd := n.handed.take(thingPublished, p.proto, at.String()); fd >= 0 {
		err = n.hostWay.Sockets().Adopt(protos[p.proto], at, fd)
		n.handed.fail(err)
	} else if x != nil {
		err = n.adoptLocked(p, x)
	} else {
		err = n.hostWay.Sockets().Listen(protos[p.proto], at)
	}
	if err == nil {
		n.listening++
	}
	return err
}

// unlistenLocked closes the sockets of a port.
func (n *Node) unlistenLocked(p *publication) {
	s := n.hostWay.Sockets()
	for _, a := range p.listensAt() {
		s.Unlisten(protos[p.proto], netip.AddrPortFrom(a, p.hostPort))
		n.listening--
		if x := n.inheritedLocked(p, a); x != nil {
			x.rest()
		}
	}
	p.open4, p.open6 = false, false
}

// listenAt are the addresses of this host a port is wanted at: none if the
// address is the gateway's or that of an uplink that is a link.
func (n *Node) listenAt(p *publication) []netip.Addr {
	switch {
	case !p.hostIP.IsValid():
		return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	case n.ownsLocked(p.hostIP):
		return nil
	}
	return []netip.Addr{p.hostIP}
}

// listensAt are the addresses of this host a port is listened at.
func (p *publication) listensAt() (list []netip.Addr) {
	if p.open4 {
		list = append(list, p.boundIP())
	}
	switch {
	case p.open6 && p.hostIP.IsValid():
		list = append(list, p.hostIP)
	case p.open6:
		list = append(list, netip.IPv6Unspecified())
	}
	return list
}

// insideLocked is the address published ports lead to, or will.
func (c *container) insideLocked() netip.Addr {
	if a := c.electLocked(); a != nil {
		return a.addr.Addr()
	}
	return netip.Addr{}
}

// bindError is why a socket cannot be had, in Docker's words and with what
// mends it.
func (n *Node) bindError(c *container, p *publication, a netip.Addr, err error) error {
	mend := ""
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		mend = fmt.Sprintf("; `ss -Hln%cp sport = :%d` says by whom", p.proto[0], p.hostPort)
		err = unix.EADDRINUSE
	case errors.Is(err, unix.EACCES):
		mend = fmt.Sprintf("; ports below 1024 are for everybody after `sudo sysctl net.ipv4.ip_unprivileged_port_start=%d`, "+
			"or systemd hands them to `fairlead up`", p.hostPort)
		err = unix.EACCES
	case errors.Is(err, unix.EADDRNOTAVAIL):
		mend = "; `ip address` lists those this host has"
		err = unix.EADDRNOTAVAIL
	case errors.Is(err, unix.EMFILE):
		mend = fmt.Sprintf(": this node listens on %d already, %d are the most; start it with a higher `ulimit -n`, which is %d", n.listening, n.budget.Listeners, n.budget.Limit)
		err = unix.EMFILE
	}
	return statusError{http.StatusConflict, fmt.Errorf("failed to bind host port for %s:%s:%d/%s: %w%s",
		netip.AddrPortFrom(a, p.hostPort), c.insideLocked(), p.port, p.proto, err, mend)}
}

// syncListenersLocked has all published ports of containers be listened on, or none,
// as host sockets are a way out or not. After an error it is as it was.
func (n *Node) syncListenersLocked(list iter.Seq[*container]) error {
	var opened []*publication
	for c := range list {
		use := c.usesHostLocked(n)
		for i := range c.published {
			p := &c.published[i]
			had := p.open4 || p.open6
			if !use {
				n.unlistenLocked(p)
			} else if err := n.listenLocked(c, p); err != nil {
				for _, p := range opened {
					n.unlistenLocked(p)
				}
				return err
			} else if !had {
				opened = append(opened, p)
			}
		}
	}
	return nil
}
