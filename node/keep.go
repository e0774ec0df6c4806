package node

import (
	"log/slog"

	"golang.org/x/sys/unix"

	"fairlead/node/box"
)

// Who shares a namespace keeps copies of its links for a node after this one, as
// who made it does: either may end first.

// keepAll has the init of c keep the links of the namespace it shares.
func (n *Node) keepAll(c, owner *container, channel *box.Channel) {
	if owner == nil {
		return
	}
	n.mu.Lock()
	list := owner.liveLocked()
	n.mu.Unlock()
	for _, a := range list {
		n.keepOne(c, a, channel)
	}
}

// keepForAll has those who share a namespace keep a link that has come.
func (n *Node) keepForAll(owner *container, a *attachment) {
	for _, c := range n.sharers(owner) {
		n.keepOne(c, a, c.channel)
	}
}

// sharers are who lives in the namespace of another and runs.
func (n *Node) sharers(owner *container) (list []*container) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.containers {
		if c.share == owner && c.channel != nil && !c.ending {
			list = append(list, c)
		}
	}
	return list
}

// keepOne has c's init keep a copy of a link's other end. Without it the link goes
// with whoever has made it and the node.
func (n *Node) keepOne(c *container, a *attachment, channel *box.Channel) {
	n.mu.Lock()
	fd, index := -1, 0
	if a.up() && a.endpoint.index > 0 { // a port that goes is marked first, and closed afterwards
		fd, _ = unix.FcntlInt(uintptr(a.endpoint.fd), unix.F_DUPFD_CLOEXEC, 0)
		index = a.endpoint.index
	}
	n.mu.Unlock()
	if fd < 0 {
		return
	}
	defer unix.Close(fd)
	kept, err := box.RequestKeep(channel, index, fd, undoWithin)
	if err != nil {
		slog.Warn("a link is not kept", "container", c.name(), "interface", a.iface, "err", err)
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	c.kept[a.id] = kept
	n.renoteLocked(c)
}

// dropKept has those who share a namespace forget a link that goes.
func (n *Node) dropKept(owner *container, a *attachment, index int) {
	for _, c := range n.sharers(owner) {
		n.mu.Lock()
		_, has := c.kept[a.id]
		delete(c.kept, a.id)
		n.renoteLocked(c)
		n.mu.Unlock()
		if has {
			go func() { _ = box.RequestUnlink(c.channel, index, undoWithin) }()
		}
	}
}
