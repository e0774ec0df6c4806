package node

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/node/api"
	"fairlead/node/box"
	"fairlead/packet"
	"fairlead/policy"
)

// A node that starts adopts the containers of one that was killed. Each is found by
// its record; its init has kept a copy of its channel and of its links, which are
// taken from it (box.Reach): no interface goes, and there is nothing to ask an init,
// which may be stopped. What was in the dead node's memory is lost: flows, learned
// addresses, counters.

// A hold is what there is of a container that is to be adopted.
type hold struct {
	pidfd   int // -1 once it is the container's
	channel *box.Channel
	links   map[string]int // by the place; what is taken is taken out
}

func (h *hold) close() {
	if h.pidfd >= 0 {
		_ = unix.Close(h.pidfd)
	}
	if h.channel != nil {
		_ = h.channel.Close()
	}
	for _, fd := range h.links {
		_ = unix.Close(fd)
	}
}

// A comeback is a container on its way back.
type comeback struct {
	*record
	hold      *hold         // nil once it has ended
	unsettled []*attachment // to be taken off
	lost      error         // why its network is not what it was
	c         *container
}

// reachAll takes hold of the containers whose records are in the node directory.
// That takes rights in their inits, which the node gives up before it goes on.
func (h *home) reachAll() (back []*comeback, err error) {
	list, err := h.readRecords()
	for _, r := range list {
		b := &comeback{record: r}
		b.hold, b.lost = reachInit(r)
		back = append(back, b)
	}
	return back, err
}

// letGo gives back what of them was not taken over.
func letGo(back []*comeback) {
	for _, b := range back {
		if b.hold != nil {
			b.hold.close()
		}
	}
}

// adopt has containers be there again, and takes away what is left of others.
func (n *Node) adopt(back []*comeback) {
	needed := make(map[string]bool) // by others who live in their namespaces
	for _, b := range back {
		if b.hold != nil {
			needed[b.Share] = true
		} else if !b.Ended {
			n.sayEnded(b.record)
		}
	}
	back = slices.DeleteFunc(slices.Clone(back), func(b *comeback) bool { return b.hold == nil && !needed[b.ID] })
	back = n.distinct(back)
	n.rebuild(back)
	for _, b := range back {
		n.plugAgain(b, back)
	}
	n.mu.Lock()
	for _, b := range back {
		n.resumeLocked(b)
	}
	n.publishNetworksLocked()
	n.mu.Unlock()
	for _, b := range back {
		for _, a := range b.unsettled {
			go n.settleAgain(b.c, a)
		}
	}
}

// distinct are those of them that can be there together: of two that say they have one id,
// name or number the first, and of those that live in another's namespace those whose is
// there. No node has written down others, so somebody else has.
func (n *Node) distinct(back []*comeback) (list []*comeback) {
	ids, names, numbers := make(map[string]*comeback), make(map[string]bool), make(map[packet.ContainerID]bool)
	lost := func(b *comeback, why string) {
		slog.Error("a container of the node before is lost", "container", b.Name, "id", b.ID[:12], "err", why)
		n.lose(b, errors.New(why))
	}
	for _, b := range back {
		index := b.Number & 0xffff
		keeps := b.hold != nil || len(b.Places) > 0 // its number, which else may be the next one's
		switch {
		case ids[b.ID] != nil || keeps && numbers[index]:
			lost(b, "another one has its id or its number")
			continue
		case b.hold != nil && names[b.Name]:
			lost(b, "another one has its name")
			continue
		}
		ids[b.ID] = b
		numbers[index] = numbers[index] || keeps
		names[b.Name] = names[b.Name] || b.hold != nil
		list = append(list, b)
	}
	shared := make(map[string]bool)
	list = slices.DeleteFunc(list, func(b *comeback) bool {
		if of := ids[b.Share]; b.Share != "" && (of == nil || of.Share != "") {
			lost(b, "the container whose namespace it lives in is not there")
			return true
		}
		shared[b.Share] = shared[b.Share] || b.hold != nil
		return false
	})
	return slices.DeleteFunc(list, func(b *comeback) bool { return b.hold == nil && !shared[b.ID] })
}

// settleAgain takes a container off a network it was just being connected to, or
// disconnected from.
func (n *Node) settleAgain(c *container, a *attachment) {
	c.wiring.Lock()
	defer c.wiring.Unlock()
	slog.Info("disconnected, as it was half so", "container", c.name(), "network", a.lan.name)
	if c.isEnding(n) {
		return
	}
	n.mu.Lock()
	a.leaving = true
	n.mu.Unlock()
	if err := errors.Join(n.reroute(c, wireWithin), n.takeOff(c, a, wireWithin)); err != nil {
		slog.Warn("an interface may be left inside", "container", c.name(), "interface", a.iface, "err", err)
	}
	n.restoreRoute(c)
}

// writeDown has all that is there be written down for a node after this one, and what
// is left of containers that are not there be taken away.
func (n *Node) writeDown() {
	n.mu.Lock()
	n.handed, n.noted = nil, true
	for _, c := range n.containers {
		n.keepFilesLocked(c)
		n.renoteLocked(c)
		if h := c.holder(); h.ending {
			n.renoteLocked(h)
		}
	}
	n.noteRunningLocked()
	n.mu.Unlock()
	n.sweep()
}

// lose notes what of a container does not come back. A node that takes the place of
// another one then leaves it to that.
func (n *Node) lose(b *comeback, err error) {
	if b.lost == nil {
		b.lost = err
	}
	n.handed.fail(fmt.Errorf("container %s: %w", b.Name, err))
}

// reachInit takes hold of an init, and of what it keeps.
func reachInit(b *record) (*hold, error) {
	if b.Ended || b.Mode == modeForeign {
		return nil, nil
	}
	r, err := box.Reach(b.Init)
	if errors.Is(err, box.ErrGone) { // then it holds nothing
		return nil, nil
	}
	h := &hold{pidfd: r.PIDFD, channel: r.Channel, links: make(map[string]int)}
	if err != nil {
		return h, err
	}
	var lost error
	for place, number := range b.Kept {
		if fd, err := r.Take(number); err != nil {
			lost = err
		} else {
			h.links[place] = fd
		}
	}
	return h, lost
}

// sayEnded tells of a container that is there no more.
func (n *Node) sayEnded(r *record) {
	if r.Mode != modeForeign {
		slog.Info("container ended while no node ran", "container", r.Name, "id", r.ID[:12], "exit", n.home.exitOf(r.ID))
		return
	}
	slog.Warn("a port of the node before is gone, whose other end that node alone had", "container", r.Name,
		"again", fmt.Sprintf("fairlead network connect --name %s %s %s", r.Name, r.Network, r.Request.Foreign))
}

// rebuild has the containers be in the registry, with all that was theirs, and
// without a link.
func (n *Node) rebuild(back []*comeback) {
	n.mu.Lock()
	defer n.mu.Unlock()
	byID := make(map[string]*comeback, len(back))
	for _, b := range back {
		byID[b.ID] = b
	}
	for _, b := range back {
		b.c = n.rebuiltLocked(b)
		if b.hold != nil {
			n.enterLocked(b.c)
		}
	}
	for _, b := range back {
		c := b.c
		if by := byID[b.Share]; by != nil {
			c.share = by.c
			by.c.files.holders++
			c.files.hosts, c.files.resolvConf, c.files.hostname = by.c.files.hosts, by.c.files.resolvConf, by.c.files.hostname
		}
		if h := c.holder(); len(h.attachments) > 0 && b.hold != nil {
			c.owner = h
			h.members++
		}
		if h := c.holder(); h.ending && len(h.attachments) > 0 {
			h.owner = h
		}
	}
}

// rebuiltLocked is a container as its record has it.
func (n *Node) rebuiltLocked(b *comeback) *container {
	r := b.record
	c := &container{
		id: r.ID, hostname: r.Hostname, network: r.Network, number: r.Number, req: r.Request, mode: r.Mode, created: r.Created,
		init: r.Init, kept: r.Kept, started: r.Started, netns: r.Netns, pid: r.Init.PID, pidfd: -1, client: -1, exit: 137,
		running: true, ending: b.hold == nil, done: make(chan struct{}), forget: time.AfterFunc(time.Hour, func() {}),
	}
	c.forget.Stop()
	if c.kept == nil {
		c.kept = make(map[string]int)
	}
	c.named.Store(&r.Name)
	c.files = filesAt(n.conf.Dir, c)
	c.files.holders, c.files.hostLines, c.files.nameserver = 1, r.HostLines, r.Nameserver
	if c.ending {
		c.files.holders = 0
	}
	for _, p := range r.Places {
		if err := n.placeAgainLocked(c, p); err != nil {
			n.lose(b, err)
		}
	}
	n.ids.know(c.number)
	if b.hold != nil || len(c.attachments) > 0 {
		n.ids.claim(c.number)
	}
	// What it asked for was read before, when it was made; who shares a namespace has
	// asked for nothing.
	if c.mode != modeShared {
		for _, err := range []error{c.readPorts(), c.readEgress(), c.readRates()} {
			if err != nil {
				n.lose(b, err)
			}
		}
	}
	if c.mode == modeBridge {
		if err := c.setRates(&r.RateIn, &r.RateOut); err != nil {
			n.lose(b, err)
		}
	}
	for _, p := range r.Ports {
		if c.ending { // it has none any more
			break
		}
		publication := publication{proto: p.Proto, hostIP: p.HostIP, hostPort: p.HostPort, port: p.Port}
		if n.ports.holder(publication) != nil || n.ports.count >= mostPublications {
			n.lose(b, fmt.Errorf("port %s is another one's", publication.bind()))
			continue
		}
		n.ports.take(publication, c)
		c.published = append(c.published, publication)
	}
	return c
}

// placeAgainLocked gives a container an attachment it had.
func (n *Node) placeAgainLocked(c *container, p savedPlace) error {
	i := slices.IndexFunc(n.lans, func(l *lan) bool { return l.id == p.Network })
	if i < 0 {
		return fmt.Errorf("network %s is there no more", p.Network[:min(12, len(p.Network))])
	}
	l := n.lans[i]
	a := &attachment{
		id: p.ID, lan: l, addr: p.Addr, asked: p.Asked, aliases: p.Asked.Aliases, links: p.Links, priority: p.Asked.Priority,
		iface: p.Interface, opts: linkOptions{textbook: p.Textbook, veth: p.Veth, isolated: p.Isolated, plug: p.Plug},
	}
	a.mac, _ = packet.ParseMAC(p.MAC) // checked, or of a plug
	err := checkEndpoint(l, p.Asked)
	if err != nil {
		return err
	}
	if a.opts.vlans, err = policy.ParseVLANs(p.VLANs); err != nil {
		return err
	}
	if a.opts.plug != "" {
		n.occupyLocked(c, a)
		return nil
	}
	if err := n.macFreeLocked(l, a.mac); err != nil {
		return err
	}
	addr, err := l.net.Reserve(p.Addr.Addr())
	if err == nil && addr != p.Addr {
		l.net.Release(addr.Addr())
		err = fmt.Errorf("network %s is another one by now, %s", l.name, addr.Masked())
	}
	if err != nil {
		return err
	}
	n.occupyLocked(c, a)
	if a.asked.DHCP && !n.lendsLocked(l) {
		n.dhcp.resume(borrowerKey{l.number(), a.mac}, l.net, c.hostname, p.Addr)
	}
	return nil
}

// plugAgain gives the links of a container their ports. Those of one that has ended
// others have kept, who live in its namespace.
func (n *Node) plugAgain(b *comeback, back []*comeback) {
	n.mu.Lock()
	places := slices.Clone(b.c.attachments)
	if len(places) > 0 {
		n.router.SetEgress(b.c.number, b.c.egress)
		n.setHomeLocked(b.c)
	}
	n.mu.Unlock()
	for _, a := range places {
		i := slices.IndexFunc(b.Places, func(p savedPlace) bool { return p.ID == a.id })
		fd, ok := linkOf(a.id, b.c, back)
		saved := b.Places[i]
		if saved.Unsettled {
			b.unsettled = append(b.unsettled, a)
		}
		if saved.Index == 0 || saved.Unsettled && !ok {
			continue // it was lost before
		} else if !ok {
			n.lose(b, fmt.Errorf("interface %s: nobody has kept its other end", a.iface))
		} else if err := n.plug(b.c, a, &endpoint{index: saved.Index, netns: b.Netns, peerNetns: saved.PeerNetns}, fd); err != nil {
			n.lose(b, fmt.Errorf("interface %s: %w", a.iface, err))
		} else {
			n.staticsAgain(b.c, a, saved.Statics)
		}
	}
}

// linkOf is the other end of a place's link, as whoever lives in that namespace has
// kept it.
func linkOf(place string, of *container, back []*comeback) (fd int, ok bool) {
	for _, b := range back {
		if b.hold == nil || b.c.holder() != of {
			continue
		}
		if fd, ok = b.hold.links[place]; ok {
			delete(b.hold.links, place)
			return fd, true
		}
	}
	return -1, false
}

// resumeLocked has a container run that has its ports.
func (n *Node) resumeLocked(b *comeback) {
	c := b.c
	if b.hold == nil { // others live in its namespace
		n.setHomeLocked(c)
		n.publishLocked(c)
		return
	}
	c.pidfd, c.channel, c.lost = b.hold.pidfd, b.hold.channel, b.lost
	b.hold.pidfd, b.hold.channel = -1, nil
	for _, a := range c.attachments {
		if a.id == b.Route {
			c.route = a
		}
	}
	if c.pidfd >= 0 { // else its link says when it ends
		var err error
		if c.watch, err = n.loop.Worker(n.lanes.Home(c.number)).Add(c.pidfd, unix.EPOLLIN|unix.EPOLLONESHOT, death{n, c}); err != nil {
			slog.Error("nobody will see it end", "container", c.name(), "err", err)
			n.handed.fail(err)
		}
	}
	if c.owner == c {
		n.setHomeLocked(c)
	}
	n.publishLocked(c)
	n.listenAgainLocked(c)
	if err := n.openPortsLocked(c); err != nil {
		slog.Error("published ports lead nowhere", "container", c.name(), "err", err)
		n.handed.fail(err)
	}
	for _, s := range b.Addresses {
		for _, a := range c.attachments {
			if a.id == s.Place && n.ownerOfLocked(s.Addr) == nil { // it leads there again when its uplink comes back
				c.addresses = append(c.addresses, ownAddress{Addr: s.Addr, at: a})
			}
		}
	}
	if c.lost != nil {
		slog.Warn("container cannot be reached", "container", c.name(), "id", c.id[:12], "err", c.lost)
		return
	}
	slog.Info("container is back", "container", c.name(), "id", c.id[:12], "pid", c.pid)
}

// listenAgainLocked has published ports of a container be listened on, as far as
// that can be had. Sockets that were handed in come later; see inheritLocked.
func (n *Node) listenAgainLocked(c *container) {
	for i := range c.published {
		if err := n.listenLocked(c, &c.published[i]); err != nil {
			slog.Warn("a published port is not listened on", "container", c.name(), "err", err)
		}
	}
}

// sweep removes the files of containers that are not there.
func (n *Node) sweep() {
	dir, err := n.home.Open("containers")
	if err != nil {
		return
	}
	defer dir.Close()
	n.mu.Lock()
	there := maps.Clone(n.containers)
	for _, c := range n.containers {
		there[c.holder().id] = c
	}
	n.mu.Unlock()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		if there[name] == nil {
			_ = n.home.RemoveAll(path.Join("containers", name))
		}
	}
}

// restoreRunning has the node be what the one before was: what `up` said, the
// default network, and how networks lead outside. Uplinks that were handed to it are
// listed as down.
func (n *Node) restoreRunningLocked(r *running) {
	byID := make(map[string]*lan, len(n.lans))
	for _, l := range n.lans {
		byID[l.id] = l
	}
	for _, w := range r.Ways {
		if l := byID[w.Network]; l != nil && w.Host <= hostOff {
			l.hostUse = w.Host
		}
	}
	for _, s := range r.Uplinks {
		l := byID[s.Network]
		if l == nil {
			continue
		}
		if s.Host != "" && n.handed == nil {
			slog.Warn("the host's link went with the node before", "network", l.name, "interface", s.Host,
				"again", fmt.Sprintf("fairlead network set %s --host-link=%s", l.name, s.Host))
		}
		if s.Host != "" {
			continue
		}
		u := &uplink{lan: l, device: s.MTU, mtu: s.MTU, since: time.Now()}
		var err error
		if u.spec, err = api.ParseUplink(s.Spec); err != nil {
			slog.Error("an uplink of the node before is lost", "uplink", s.Spec, "err", err)
			continue
		}
		u.mac, _ = packet.ParseMAC(s.MAC)
		u.lost = fmt.Errorf("the node that had it was killed; `fairlead network set %s --uplink %s` opens it again", l.name, s.Spec)
		n.uplinks = append(n.uplinks, u)
		if n.handed != nil { // it comes yet
			continue
		}
		slog.Warn("an uplink went with the node before", "network", l.name, "uplink", u.spec.Name, "err", u.lost)
	}
}
