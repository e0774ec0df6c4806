package node

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"

	"fairlead/nat"
	"fairlead/node/api"
	"fairlead/packet"
)

// readPorts reads what a new container wants published and exposed. What its
// mode cannot have is refused, in Docker's words where it has them.
func (c *container) readPorts() (err error) {
	if c.specs, err = parsePublish(c.req.Publish); err != nil {
		return err
	}
	if c.exposed, err = parseExpose(c.req.Expose); err != nil {
		return err
	}
	publishes := len(c.specs) > 0 || c.req.PublishAll
	switch {
	case c.mode == modeShared && publishes:
		return fail(http.StatusBadRequest, "conflicting options: port publishing and the container type network mode; leave out -p: the ports of %s reach both", c.share.name())
	case c.mode == modeShared && len(c.exposed) > 0:
		return fail(http.StatusBadRequest, "conflicting options: port exposing and the container type network mode; leave out --expose: the ports of %s reach both", c.share.name())
	case (c.mode == modeNone || c.mode == modeHost) && publishes:
		return fail(http.StatusBadRequest, "conflicting options: port publishing and the network mode; leave out -p, or --network %s", c.req.Network)
	}
	return nil
}

// reserveLocked takes the outside ports a new container wants, before anything
// of it starts.
func (n *Node) reserveLocked(c *container) (err error) {
	specs := slices.Clone(c.specs)
	if c.req.PublishAll {
		for _, e := range c.exposed {
			if !c.publishes(e) {
				specs = append(specs, api.PortSpec{Container: api.PortRange{First: e.port, Last: e.port}, Proto: e.proto})
			}
		}
	}
	if err := n.checkBindLocked(c, specs); err != nil {
		return err
	}
	c.published, err = n.ports.reserve(c, specs)
	return err
}

// publishes reports whether a -p names an exposed port.
func (c *container) publishes(e exposed) bool {
	return slices.ContainsFunc(c.specs, func(s api.PortSpec) bool {
		return s.Proto == e.proto && s.Container.First <= e.port && e.port <= s.Container.Last
	})
}

// checkBindLocked refuses to publish at an address nobody would reach us by, or
// at another container's own. The host's own loopback is taken: who publishes
// there wants nobody to come from outside.
func (n *Node) checkBindLocked(c *container, specs []api.PortSpec) error {
	for _, s := range specs {
		a := s.HostIP
		if !a.IsValid() || a.IsLoopback() || a.IsUnspecified() {
			continue
		}
		at := netip.AddrPortFrom(a, s.Host.First)
		if !n.ownsLocked(a) && !c.usesHostLocked(n) { // else the host says what it has
			return fail(http.StatusConflict, "Bind for %s failed: cannot assign requested address: no uplink has it; `fairlead network ls` lists what they have", at)
		}
		if owner := n.ownerOfLocked(a); owner != nil && owner != c {
			return allocated(at, a, owner)
		}
	}
	return nil
}

// ownerOfLocked is the container whose own an address is, nil if it is nobody's.
func (n *Node) ownerOfLocked(a netip.Addr) *container {
	for _, c := range n.containers {
		if c.ownsAddress(a) >= 0 {
			return c
		}
	}
	return nil
}

// allocated is why something cannot be had at an address that is a container's
// own.
func allocated(what fmt.Stringer, a netip.Addr, owner *container) error {
	return fail(http.StatusConflict, "Bind for %s failed: address is already allocated: container %s has it; `fairlead unpublish --address %s %[2]s` frees it", what, owner.name(), a)
}

// ownsLocked reports whether an address is ours on some network.
func (n *Node) ownsLocked(a netip.Addr) bool {
	return slices.Contains(n.outsideLocked(), a) ||
		slices.ContainsFunc(n.lans, func(l *lan) bool { return l.net.Config().Gateway.Addr() == a })
}

// openPorts lets the world in, once the container can be reached.
func (n *Node) openPorts(c *container) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.openPortsLocked(c)
}

func (n *Node) openPortsLocked(c *container) error {
	if c.ending || c.owner != c {
		return nil
	}
	if c.entry = c.electLocked(); c.entry == nil {
		return nil
	}
	if err := n.routePorts(c, c.published); err != nil {
		c.entry = nil
		return err
	}
	return nil
}

// moveEntryLocked has published ports of a container that runs lead where its
// default route does, unless they do. Connections that came the other way end.
func (n *Node) moveEntryLocked(c *container) {
	to := c.electLocked()
	if c.owner != c || c.ending || to == c.entry {
		return
	}
	if c.entry != nil {
		n.unroutePorts(c.published)
		c.entry = nil
	}
	err := n.openPortsLocked(c)
	if err == nil {
		err = n.syncListenersLocked(slices.Values([]*container{c}))
	}
	if err != nil {
		slog.Warn("published ports lead nowhere", "container", c.name(), "err", err)
	}
}

// dropAddressesLocked withdraws the addresses that lead to an attachment.
func (n *Node) dropAddressesLocked(c *container, a *attachment) {
	c.addresses = slices.DeleteFunc(c.addresses, func(own ownAddress) bool {
		if own.at == a && own.rule != 0 {
			n.unroute(own.rule)
		}
		return own.at == a
	})
}

// closePortsLocked takes the rules of a container away, and has nobody listen for
// it: nothing is behind them any more. Its ports stay reserved.
func (n *Node) closePortsLocked(c *container) {
	for i := range c.published {
		n.unlistenLocked(&c.published[i])
	}
	if c.entry == nil {
		return
	}
	c.entry = nil
	rules := rulesOf(c.published)
	for _, a := range c.addresses {
		rules = append(rules, a.rule)
	}
	n.unroute(rules...)
	c.addresses = nil
}

// routePorts makes publications rules of the router, all or none.
func (n *Node) routePorts(c *container, ports []publication) (err error) {
	done := 0
	n.router.Flows(func(t *nat.Table) {
		for ; done < len(ports) && err == nil; done++ {
			err = n.routePort(t, c, &ports[done])
		}
	})
	if err != nil {
		n.unroutePorts(ports[:done-1])
		return statusError{http.StatusConflict, err}
	}
	return nil
}

func (n *Node) unroutePorts(ports []publication) { n.unroute(rulesOf(ports)...) }

func rulesOf(ports []publication) (rules []uint32) {
	for _, p := range ports {
		rules = append(rules, p.rule)
	}
	return rules
}

// publish publishes ports, and an address, of a container that runs: all or
// nothing.
func (n *Node) publish(c *container, req api.PublishRequest) (ports []publication, addresses []netip.Addr, err error) {
	specs, address, err := readPublish(req.Publish, req.Address)
	if err != nil {
		return nil, nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := c.publishableLocked(); err != nil {
		return nil, nil, err
	}
	if err := n.checkBindLocked(c, specs); err != nil {
		return nil, nil, err
	}
	if ports, err = n.ports.reserve(c, specs); err != nil {
		return nil, nil, err
	}
	if err = n.routePorts(c, ports); err == nil && address.IsValid() {
		addresses = []netip.Addr{address}
		if err = n.assignLocked(c, address); err != nil {
			n.unroutePorts(ports)
		}
	}
	if err != nil {
		n.ports.release(ports)
		return nil, nil, err
	}
	c.published = append(c.published, ports...)
	n.renoteLocked(c)
	slog.Info("published", "container", c.name(), "ports", req.Publish, "address", req.Address)
	return ports, addresses, nil
}

// readPublish reads what publish and unpublish are told.
func readPublish(args []string, address string) (specs []api.PortSpec, a netip.Addr, err error) {
	if specs, err = parsePublish(args); err != nil {
		return nil, a, err
	}
	if address != "" {
		if a, err = netip.ParseAddr(address); err != nil || !a.Is4() {
			return nil, a, fail(http.StatusBadRequest, "invalid IPv4 address: %s", address)
		}
	}
	if len(specs) == 0 && address == "" {
		return nil, a, fail(http.StatusBadRequest, "there is neither a port nor an address; say one, such as 8080:80")
	}
	return specs, a, nil
}

// publishableLocked refuses containers that nobody could come to.
func (c *container) publishableLocked() error {
	switch {
	case c.share != nil:
		return fail(http.StatusConflict, "container %s has the network of container %s; publish there: `fairlead publish %[2]s HOST:CONTAINER`", c.name(), c.share.name())
	case c.mode != modeBridge && c.mode != modeForeign:
		return fail(http.StatusConflict, "container %s has no port on a network: its network is %s", c.name(), c.networkName())
	case c.entry == nil:
		return fail(http.StatusConflict, "Container %s is not running, or its interface was removed from inside", c.name())
	}
	return nil
}

// assignLocked makes a further address of an uplink a container's own (1:1 NAT).
func (n *Node) assignLocked(c *container, a netip.Addr) error {
	u := n.uplinkOfLocked(a)
	if u == nil {
		return fail(http.StatusConflict, "Bind for %s failed: cannot assign requested address: no uplink has it as a further address (addr=%[1]s); `fairlead network ls` lists what they have", a)
	}
	if owner := n.ownerOfLocked(a); owner != nil {
		return allocated(a, a, owner)
	}
	for _, other := range n.containers {
		for _, p := range other.published {
			if p.hostIP == a {
				return fail(http.StatusConflict, "Bind for %s failed: its port %d is already allocated: container %s has it", a, p.hostPort, other.name())
			}
		}
	}
	at := c.onLocked(u.lan)
	if at == nil {
		return fail(http.StatusConflict, "Bind for %s failed: it is an address of uplink %s, which is network %s's; `fairlead network connect %[3]s %[4]s` takes the container there", a, u.spec.Name, u.lan.name, c.name())
	}
	rule, err := n.routeAddress(c, at, u, a)
	if err != nil {
		return fail(http.StatusConflict, "Bind for %s failed: %w", a, err)
	}
	c.addresses = append(c.addresses, ownAddress{a, at, rule})
	return nil
}

// An ownAddress is an uplink's that is a container's own. It stays that when the
// uplink goes, and leads there again when one that has it comes back.
type ownAddress struct {
	netip.Addr
	at   *attachment // where it leads
	rule uint32      // 0 while no uplink has it
}

// ownsAddress is where in addresses one is, -1 when it is not the container's.
func (c *container) ownsAddress(a netip.Addr) int {
	return slices.IndexFunc(c.addresses, func(have ownAddress) bool { return have.Addr == a })
}

// uplinkOfLocked is the uplink that has an address as a further one, nil when
// none has.
func (n *Node) uplinkOfLocked(a netip.Addr) *uplink {
	for _, u := range n.uplinks {
		if u.lost == nil && slices.Contains(u.spec.Addrs, a) {
			return u
		}
	}
	return nil
}

// unpublish withdraws what the arguments name: a port inside wherever it is
// published (80, 53/udp), one at a place outside (8080:80, 127.0.0.1::80), an
// address. When there is nothing of that name, nothing is withdrawn.
func (n *Node) unpublish(c *container, args []string, address string) (gone []publication, addresses []netip.Addr, err error) {
	specs, a, err := readPublish(args, address)
	if err != nil {
		return nil, nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	named := make(map[publication]bool)
	for i, s := range specs {
		have := len(gone)
		for _, p := range c.published {
			if p.isOf(s) && !named[p] {
				gone, named[p] = append(gone, p), true
			}
		}
		if len(gone) == have {
			return nil, nil, fail(http.StatusNotFound, "No public port '%s' published for %s; `fairlead port %[2]s` lists those that are", args[i], c.name())
		}
	}
	if a.IsValid() {
		i := c.ownsAddress(a)
		if i < 0 {
			return nil, nil, fail(http.StatusNotFound, "No address %s published for %s; `fairlead port %[2]s` lists those that are", a, c.name())
		}
		n.unroute(c.addresses[i].rule)
		c.addresses = slices.Delete(c.addresses, i, i+1)
		addresses = []netip.Addr{a}
	}
	if c.entry != nil {
		n.unroutePorts(gone)
	}
	n.ports.release(gone)
	c.published = slices.DeleteFunc(c.published, func(p publication) bool { return named[p] })
	n.renoteLocked(c)
	slog.Info("withdrawn", "container", c.name(), "ports", args, "address", address)
	return gone, addresses, nil
}

// isOf reports whether a publication is one that a specification names.
func (p publication) isOf(s api.PortSpec) bool {
	return p.proto == s.Proto && s.Container.First <= p.port && p.port <= s.Container.Last &&
		(!s.HostIP.IsValid() || s.HostIP == p.hostIP || s.HostIP == p.boundIP()) &&
		(s.Host.Len() == 0 || s.Host.First <= p.hostPort && p.hostPort <= s.Host.Last)
}

// protos are the protocols whose ports can be published.
var protos = map[string]packet.Proto{"tcp": packet.ProtoTCP, "udp": packet.ProtoUDP}

// routePort has the router let a publication in, and notes its rule in it.
func (n *Node) routePort(t *nat.Table, c *container, p *publication) error {
	outside := packet.AddrFromNetip(p.boundIP())
	if p.boundIP().Is6() {
		outside = packet.HostIPv6 // whatever address it was, that is what sockets show
	}
	r, err := t.Publish(nat.Rule{
		Network: c.entry.lan.number(), Container: c.number, Proto: protos[p.proto],
		Outside: outside, OutsidePort: p.hostPort,
		Inside: packet.AddrFromNetip(c.entry.addr.Addr()), InsidePort: p.port,
	})
	p.rule = r.Number
	return err
}

// routeAddress gives a container an address of an uplink, in both directions,
// and returns the number of the rule.
func (n *Node) routeAddress(c *container, at *attachment, u *uplink, a netip.Addr) (rule uint32, err error) {
	n.router.Flows(func(t *nat.Table) {
		var r nat.Rule
		r, err = t.OneToOne(nat.Rule{
			Network: at.lan.number(), Container: c.number, Uplink: u.way.Network(),
			Outside: packet.AddrFromNetip(a), Inside: packet.AddrFromNetip(at.addr.Addr()),
		})
		rule = r.Number
	})
	return rule, err
}

// unroute takes rules away, and ends the connections made by them. All flows are
// looked at, and new ones wait meanwhile: many rules go together.
func (n *Node) unroute(rules ...uint32) {
	if len(rules) == 0 {
		return
	}
	n.router.Flows(func(t *nat.Table) { t.Unpublish(rules...) })
}
