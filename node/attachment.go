package node

import (
	"net/netip"
	"slices"
	"strings"

	"fairlead/gateway"
	"fairlead/node/network"
	"fairlead/packet"
	vswitch "fairlead/switch"
)

// An attachment is a container's place on one network. A container has them in
// the order it was connected, and one number on all of them. What is not marked
// otherwise never changes.
type attachment struct {
	lan      *lan
	addr     netip.Prefix
	mac      packet.MAC
	aliases  []string // further names on this network
	opts     linkOptions
	links    []string // NAME:ALIAS of --link, on this network
	priority int      // for the default route: the highest has it

	// Guarded by Node.mu.
	iface    string    // inside: eth0, eth1, …
	endpoint *endpoint // nil while it has no port
}

// An endpoint is an attachment's link to the switch.
type endpoint struct {
	net     *network.Network
	port    *vswitch.Port
	kind    string // tap, wire, veth
	offload string
	index   int    // of the interface, inside
	netns   uint64 // inode
	// Of a veth: the index of the other end, and what the kernel inside calls its
	// namespace, link-netnsid.
	peer, peerNetns int
	gone            bool // the interface was removed from inside; guarded by Node.mu
}

// up reports whether frames come and go by the attachment.
func (a *attachment) up() bool { return a.endpoint != nil && !a.endpoint.gone }

// onLocked is the attachment of c's namespace to a network, nil if there is none.
func (c *container) onLocked(l *lan) *attachment {
	for _, a := range c.placesLocked() {
		if a.lan == l {
			return a
		}
	}
	return nil
}

// placesLocked are the attachments of the namespace c lives in: its own, or those
// of the one it shares it with.
func (c *container) placesLocked() []*attachment {
	if c.share != nil {
		c = c.share
	}
	return c.attachments
}

// places is placesLocked for who does not hold the lock.
func (n *Node) places(c *container) []*attachment {
	n.mu.Lock()
	defer n.mu.Unlock()
	return c.placesLocked()
}

// firstLocked is where people look for a container: on the network it joined
// first, of which its link is still there. nil is nowhere.
func (c *container) firstLocked() *attachment {
	places := c.placesLocked()
	if i := slices.IndexFunc(places, func(a *attachment) bool { return a.endpoint == nil || !a.endpoint.gone }); i >= 0 {
		return places[i]
	}
	return nil
}

// electLocked is the attachment the default route leads by: that of the highest
// priority, and of equal ones the first by the name of the network, as Docker
// has it. nil is none: no network of c's leads outside.
func (c *container) electLocked() *attachment {
	var best *attachment
	for _, a := range c.placesLocked() {
		if a.endpoint != nil && a.endpoint.gone {
			continue
		}
		if best == nil || a.priority > best.priority || a.priority == best.priority && strings.Compare(a.lan.name, best.lan.name) < 0 {
			best = a
		}
	}
	return best
}

// setHomeLocked tells the router where c's answers go.
func (n *Node) setHomeLocked(c *container) {
	var h gateway.Home
	for _, a := range c.attachments {
		h.Subnets = append(h.Subnets, a.addr.Masked())
	}
	if a := c.electLocked(); a != nil {
		h.Default = a.lan.number()
	}
	n.router.SetHome(c.number, h)
}
