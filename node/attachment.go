package node

import (
	"net/netip"
	"slices"

	"fairlead/gateway"
	"fairlead/node/api"
	"fairlead/node/box"
	"fairlead/node/network"
	"fairlead/packet"
	vswitch "fairlead/switch"
)

// An attachment is a container's place on one network. A container has them in
// the order it was connected, and one number on all of them. What is not marked
// otherwise never changes.
type attachment struct {
	id       string // 64 hexadecimal digits: Docker's EndpointID
	lan      *lan
	addr     netip.Prefix
	mac      packet.MAC
	aliases  []string // further names on this network
	opts     linkOptions
	links    []string            // NAME:ALIAS of --link, on this network
	priority int                 // for the default route: the highest has it
	asked    api.EndpointRequest // as it was asked for

	// Guarded by Node.mu.
	iface    string    // inside: eth0, eth1, …
	endpoint *endpoint // nil while it has no port
	leaving  bool      // it is about to be taken off
	coming   bool      // a container that runs is being connected: nobody has been told that it is
	statics  []static  // added by hand behind it
}

// An endpoint is an attachment's link to the switch.
type endpoint struct {
	net     *network.Network
	port    *vswitch.Port
	kind    string // tap, wire, veth
	offload string
	index   int    // of the interface, inside
	netns   uint64 // inode
	fd      int    // the port's; valid while it is up and Node.mu is held
	// Of a veth: the index of the other end, and what the kernel inside calls its
	// namespace, link-netnsid.
	peer, peerNetns int
	gone            bool // the interface was removed from inside; guarded by Node.mu
}

// up reports whether frames come and go by the attachment.
func (a *attachment) up() bool { return a.endpoint != nil && !a.endpoint.gone && !a.leaving }

// placesLocked are the attachments of the namespace c lives in: its own, or those
// of the one it shares it with.
func (c *container) placesLocked() []*attachment { return c.holder().attachments }

// liveLocked are those of them by which frames come and go, or will once it
// starts.
func (c *container) liveLocked() (list []*attachment) {
	h := c.holder()
	for _, a := range h.attachments {
		switch e := a.endpoint; {
		case a.leaving || e != nil && e.gone:
		case e == nil && h.owner != nil: // it is just coming
		default:
			list = append(list, a)
		}
	}
	return list
}

// places is placesLocked for who does not hold the lock.
func (n *Node) places(c *container) []*attachment {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(c.placesLocked())
}

// onLocked is the attachment of c's namespace to a network, nil if there is none.
func (c *container) onLocked(l *lan) *attachment {
	for _, a := range c.placesLocked() {
		if a.lan == l {
			return a
		}
	}
	return nil
}

// electLocked is the attachment the default route leads by: that of the highest
// priority, and of equal ones the first by the name of the network, as Docker
// has it. nil is none: no network of c's leads outside.
func (c *container) electLocked() (best *attachment) {
	for _, a := range c.liveLocked() {
		switch {
		case a.lan.conf.Internal:
		case best == nil || a.priority > best.priority || a.priority == best.priority && a.lan.name < best.lan.name:
			best = a
		}
	}
	return best
}

// setHomeLocked tells the router where c's answers go, as long as it has ports: its
// number may be another's soon.
func (n *Node) setHomeLocked(c *container) {
	if c.ending && c.members == 0 {
		return
	}
	var h gateway.Home
	for _, a := range c.liveLocked() {
		h.Subnets = append(h.Subnets, a.lan.net.Config().Gateway.Masked())
	}
	if a := c.electLocked(); a != nil {
		h.Default = a.lan.number()
	}
	n.router.SetHome(c.number, h)
}

// publishLocked has names, and what may pass between containers, follow what has
// become of c. Before is what it was called, if that has changed.
func (n *Node) publishLocked(c *container, before ...string) {
	n.publishNamesLocked(c)
	named := slices.ContainsFunc(c.placesLocked(), func(a *attachment) bool { return len(a.links) > 0 })
	for _, name := range append(before, c.name()) {
		for _, from := range n.linked[name] {
			n.keepFilesLocked(from)
		}
		named = named || len(n.linked[name]) > 0 ||
			slices.ContainsFunc(n.rules, func(r *rule) bool { return r.spec.From == name || r.spec.To == name })
	}
	if named {
		n.publishAdmitLocked()
	}
}

// settleLocked has all that depends on where c is follow: the way of its answers,
// published ports, names, and what may pass.
func (n *Node) settleLocked(c *container) {
	n.setHomeLocked(c)
	n.moveEntryLocked(c)
	n.publishLocked(c)
}

// apiLocked is how an attachment of c has to look from inside, for the client
// that makes the interface.
func (c *container) apiLocked(a *attachment) *api.Interface {
	i := &api.Interface{
		Name: a.iface, MAC: a.mac.String(), Address: a.addr.String(), MTU: a.lan.net.Config().Options.MTU,
		Routes: a.asked.Routes, Textbook: a.opts.textbook, Veth: a.opts.veth,
	}
	gateway := a.lan.net.Config().Gateway.Addr().String()
	if c.electLocked() == a {
		i.Gateway = gateway
	}
	if a.lan.custom() {
		i.Resolver = gateway
	}
	return i
}

// boxLocked is the same for the init that makes it. Its default route comes
// separately.
func (a *attachment) boxLocked() *box.Interface {
	i := &box.Interface{
		Name: a.iface, MAC: a.mac, MTU: a.lan.net.Config().Options.MTU, Addresses: []netip.Prefix{a.addr},
		Plain: a.opts.textbook, Veth: a.opts.veth,
	}
	for _, r := range a.asked.Routes {
		to, via, _ := api.ParseRoute(r) // it was checked before
		i.Routes = append(i.Routes, box.Route{To: to, Via: via})
	}
	if a.lan.custom() {
		i.Resolver = a.lan.net.Config().Gateway.Addr()
	}
	return i
}
