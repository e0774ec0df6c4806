package node

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"fairlead/node/api"
	"fairlead/node/box"
)

// wireWithin bounds what a running container's init takes to make an interface,
// to see its carrier, to remove it, or to set a route: milliseconds, on a machine
// that swaps seconds.
const wireWithin = 10 * time.Second

// undoWithin is what one has for undoing what it did not finish, for what nobody
// waits for, and for what is done whether it answers or not.
const undoWithin = time.Second

// connect connects a container that runs to a further network.
func (n *Node) connect(ref string, req api.EndpointRequest) error {
	c, err := n.find(ref)
	if err != nil {
		return err
	}
	c.wiring.Lock()
	defer c.wiring.Unlock()
	a, err := n.beginConnect(c, req)
	if err != nil {
		return err
	}
	if err = n.wire(c, a, c.channel); err == nil {
		err = n.reroute(c, wireWithin)
	}
	n.mu.Lock()
	if err == nil && c.ending {
		err = fail(http.StatusConflict, "Container %s has just ended", c.name())
	}
	if err != nil {
		n.mu.Unlock()
		return errors.Join(err, n.takeOff(c, a, undoWithin))
	}
	a.coming = false
	n.settleLocked(c)
	n.renoteLocked(c)
	n.mu.Unlock()
	slog.Info("connected", "container", c.name(), "network", a.lan.name, "address", a.addr, "interface", a.iface)
	return nil
}

// beginConnect reserves the attachment.
func (n *Node) beginConnect(c *container, req api.EndpointRequest) (*attachment, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := c.connectableLocked(); err != nil {
		return nil, err
	}
	if req.Options == nil {
		req.Options = map[string]string{} // not those of its first link
	}
	if err := n.connectLocked(c, req); err != nil {
		return nil, err
	}
	a := c.attachments[len(c.attachments)-1]
	a.coming = true
	return a, nil
}

// connectableLocked refuses, in Docker's words, containers whose networks are
// not to be changed.
func (c *container) connectableLocked() error {
	switch {
	case c.mode == modeShared:
		return fail(http.StatusForbidden, "container sharing network namespace with another container or host cannot be connected to any other network; connect %s: both have its networks", c.share.name())
	case c.mode == modeHost:
		return fail(http.StatusForbidden, "container cannot be disconnected from host network or connected to host network")
	case c.mode == modeNone:
		return fail(http.StatusForbidden, "container cannot be connected to multiple networks with one of the networks in private (none) mode")
	case c.mode == modeForeign:
		return fail(http.StatusConflict, "%s is a namespace of somebody else, who has the right to it: `fairlead network connect NETWORK %s`", c.name(), c.req.Foreign)
	case c.owner != c || c.ending:
		return fail(http.StatusConflict, "Container %s is not running", c.name())
	}
	return nil
}

// wire has the init of a container make the interface of an attachment, and
// makes its other end the attachment's port. After an error there is neither.
func (n *Node) wire(c *container, a *attachment, channel *box.Channel) error {
	n.mu.Lock()
	i, e := a.boxLocked(), &endpoint{netns: c.netns}
	n.mu.Unlock()
	l, err := box.RequestLink(channel, i, wireWithin)
	if err != nil {
		return asked(c, err)
	}
	defer l.Close()
	for _, w := range l.Warnings {
		slog.Warn("interface", "container", c.name(), "interface", i.Name, "warning", w)
	}
	e.index, e.peerNetns = l.Index, l.PeerNetNS
	n.mu.Lock()
	c.kept[a.id] = l.Kept
	n.mu.Unlock()
	if err = n.plug(c, a, e, l.Take()); err == nil {
		n.mu.Lock()
		n.renoteLocked(c) // before its init goes on without us
		n.mu.Unlock()
		if err = l.Await(wireWithin); err == nil {
			n.keepForAll(c, a)
			return nil
		}
		err = asked(c, fmt.Errorf("make interface %s: %w", i.Name, err))
		n.mu.Lock()
		a.endpoint = nil
		n.mu.Unlock()
		n.detach(e, e.port)
	}
	_ = box.RequestUnlink(channel, e.index, undoWithin)
	return err
}

// reroute has a container's default route lead where it should, unless it does.
// c.wiring is held.
func (n *Node) reroute(c *container, within time.Duration) error {
	n.mu.Lock()
	to, from, channel := c.electLocked(), c.route, c.channel
	var r box.DefaultRoute
	if to != nil && to.endpoint != nil {
		r = box.DefaultRoute{Via: to.lan.net.Config().Gateway.Addr(), Index: to.endpoint.index}
	}
	idle := to == from || c.owner != c || c.ending || channel == nil
	n.mu.Unlock()
	if idle {
		return nil
	}
	if err := box.RequestDefaultRoute(channel, r, within); err != nil {
		return asked(c, err)
	}
	n.mu.Lock()
	c.route = to
	n.renoteLocked(c)
	n.mu.Unlock()
	return nil
}

// restoreRoute has a container that has no default route by now have the one it
// should: that which root inside made himself by an interface goes with this.
// c.wiring is held.
func (n *Node) restoreRoute(c *container) {
	n.mu.Lock()
	to, channel := c.route, c.channel
	idle := to == nil || to.endpoint == nil || to.endpoint.gone || c.owner != c || c.ending || channel == nil
	var r box.DefaultRoute
	if !idle {
		r = box.DefaultRoute{Via: to.lan.net.Config().Gateway.Addr(), Index: to.endpoint.index, Missing: true}
	}
	n.mu.Unlock()
	if idle {
		return
	}
	if err := box.RequestDefaultRoute(channel, r, undoWithin); err != nil {
		slog.Warn("default route", "container", c.name(), "err", err)
	}
}

// asked is an error of a container's init, with whose it is.
func asked(c *container, err error) error {
	return fmt.Errorf("container %s: %w", c.name(), err)
}

// rerouteAll does so for many, whose inits are waited for at the same time, and says
// who has the default route of before; again is the command that asks them again.
func (n *Node) rerouteAll(list []*container, again string) (warnings []string) {
	var all sync.WaitGroup
	errs := make([]error, len(list))
	for i, c := range list {
		all.Go(func() {
			c.wiring.Lock()
			defer c.wiring.Unlock()
			errs[i] = n.reroute(c, wireWithin)
		})
	}
	all.Wait()
	for i, err := range errs {
		if err != nil {
			slog.Warn("default route", "container", list[i].name(), "err", err)
			warnings = append(warnings, fmt.Sprintf("%v; it has the default route of before: `%s` asks it again", err, again))
		}
	}
	return warnings
}

// disconnect takes a container that runs off a network. With force it does so
// also when the container does not answer.
func (n *Node) disconnect(l *lan, ref string, force bool) error {
	c, err := n.find(ref)
	if err != nil {
		return err
	}
	if c.mode == modeForeign {
		n.mu.Lock()
		on := c.onLocked(l) != nil
		n.mu.Unlock()
		if !on {
			return notConnected(c, l)
		}
		n.end(c)
		return nil
	}
	c.wiring.Lock()
	defer c.wiring.Unlock()
	a, err := n.beginDisconnect(c, l)
	if err != nil {
		return err
	}
	within := wireWithin
	if force {
		within = undoWithin
	}
	if err := n.reroute(c, within); err != nil && !force {
		n.mu.Lock()
		a.leaving = false
		n.settleLocked(c) // somebody may have published what there was without it
		n.mu.Unlock()
		return err
	}
	if err = n.takeOff(c, a, within); err == nil {
		n.restoreRoute(c)
	}
	slog.Info("disconnected", "container", c.name(), "network", l.name)
	if force {
		return nil
	}
	return err
}

func notConnected(c *container, l *lan) error {
	return fail(http.StatusForbidden, "container %s is not connected to network %s; `fairlead inspect %[1]s` says where it is", c.name(), l.name)
}

// beginDisconnect marks the attachment, so that nothing counts on it any more.
func (n *Node) beginDisconnect(c *container, l *lan) (*attachment, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	a := c.onLocked(l)
	switch {
	case a != nil && c.share != nil && c.share.ending:
		return nil, fail(http.StatusForbidden, "container %s has the networks of container %s, which has ended; `fairlead stop %[1]s` takes it off them", c.name(), c.share.name())
	case a != nil && c.share != nil:
		return nil, fail(http.StatusForbidden, "container %s has the networks of container %s; `fairlead network disconnect %s %[2]s` takes both off", c.name(), c.share.name(), l.name)
	case c.mode != modeBridge || a == nil:
		return nil, notConnected(c, l)
	case c.owner != c || c.ending:
		return nil, fail(http.StatusConflict, "Container %s is not running", c.name())
	}
	a.leaving = true
	return a, nil
}

// takeOff takes an attachment off a container that runs: its port first, so that
// it is in no table any more. The error is about the interface inside.
func (n *Node) takeOff(c *container, a *attachment, within time.Duration) (err error) {
	n.mu.Lock()
	a.leaving = true
	n.dropAddressesLocked(c, a)
	n.settleLocked(c)
	n.renoteLocked(c)
	e, channel := a.endpoint, c.channel
	n.mu.Unlock()
	if e != nil {
		n.detach(e, e.port)
		if !c.isEnding(n) {
			if err = box.RequestUnlink(channel, e.index, within); err != nil {
				err = asked(c, err)
			}
			n.dropKept(c, a, e.index)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.vacateLocked(a, len(c.attachments) > 1)
	c.attachments = slices.DeleteFunc(slices.Clone(c.attachments), func(x *attachment) bool { return x == a })
	if c.route == a {
		c.route = nil
	}
	delete(c.kept, a.id)
	n.publishLocked(c)
	n.renoteLocked(c)
	return err
}

func (c *container) isEnding(n *Node) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return c.ending
}

// joinFurther gives a container that starts its ports on all networks but the
// first.
func (n *Node) joinFurther(c *container, channel *box.Channel) error {
	n.mu.Lock()
	list := slices.Clone(c.attachments)
	n.mu.Unlock()
	for i, a := range list {
		if i == 0 {
			continue
		}
		if c.isEnding(n) {
			return errEnding
		}
		if err := n.wire(c, a, channel); err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) postConnect(w http.ResponseWriter, r *http.Request) (any, error) {
	var req api.ConnectRequest
	if err := body(w, r, &req); err != nil {
		return nil, err
	}
	req.Endpoint.Network = r.PathValue("name")
	return done, n.connectWithLease(req.Container, req.Endpoint)
}

func (n *Node) postDisconnect(w http.ResponseWriter, r *http.Request) (any, error) {
	var req api.DisconnectRequest
	if err := body(w, r, &req); err != nil {
		return nil, err
	}
	l, err := n.lan(r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	if strings.Contains(req.Container, ":") {
		if req.Container, err = n.foreignOn(l, req); err != nil {
			return nil, err
		}
	}
	return done, n.disconnect(l, req.Container, req.Force)
}

// foreignOn is the id of who is on a network by a target somebody else made. A
// namespace may have several names, and a name have been another one's, so it is
// known by its inode.
func (n *Node) foreignOn(l *lan, req api.DisconnectRequest) (id string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var names []string
	for _, c := range n.onNetworkLocked(l) {
		same := c.req.Foreign == req.Container
		if req.Netns != 0 {
			same = c.netns == req.Netns
		}
		if c.mode == modeForeign && same {
			id, names = c.id, append(names, c.name())
		}
	}
	switch len(names) {
	case 0:
		return "", fail(http.StatusForbidden, "%s is not connected to network %s; `fairlead network inspect %[2]s` lists what is", req.Container, l.name)
	case 1:
		return id, nil
	}
	return "", fail(http.StatusConflict, "%s is connected to network %s %d times, as %s: say which, `fairlead network disconnect %[2]s %[5]s`",
		req.Container, l.name, len(names), strings.Join(names, ", "), names[0])
}
