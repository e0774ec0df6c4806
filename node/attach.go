package node

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/node/api"
	"fairlead/node/box"
	"fairlead/node/network"
	vswitch "fairlead/switch"
)

// attach takes the descriptors that make a reserved container a running one.
// They are the node's from here on, whatever becomes of it. When they are not
// those it needs the reservation stays; after any other error it is gone.
func (n *Node) attach(c *container, m api.Attach, fds []int) error {
	given, err := sortOut(c.mode, m.Descriptors, fds)
	if err != nil {
		api.CloseAll(fds)
		return err
	}
	defer given.close() // what is still there when this ends
	n.mu.Lock()
	claimed := !c.running && !c.ending
	if claimed {
		c.running = true
		c.dropClientLocked()
	}
	n.mu.Unlock()
	if !claimed {
		return fail(http.StatusConflict, "container %s has its descriptors already, or is just ending", c.name())
	}
	if err := n.start(c, m, given); err != nil {
		n.end(c)
		return fmt.Errorf("attach container %s: %w", c.name(), err)
	}
	if err := n.openPorts(c); err != nil {
		n.end(c)
		return err // it names the port, as when it is refused before
	}
	slog.Info("container runs", "container", c.name(), "id", c.id[:12], "pid", c.pid)
	return nil
}

// descriptors are those of one Attach, by what they are; -1 is none.
type descriptors struct{ tap, init, channel int }

func (d *descriptors) close() {
	for _, fd := range []int{d.tap, d.init, d.channel} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// sortOut checks that a message brought what its container's mode needs, each
// once and nothing else.
func sortOut(mode string, names []string, fds []int) (*descriptors, error) {
	d := &descriptors{-1, -1, -1}
	if len(names) != len(fds) {
		return nil, fail(http.StatusBadRequest, "the message names %d descriptors and brought %d", len(names), len(fds))
	}
	for i, name := range names {
		at := d.place(mode, name)
		if at == nil || *at >= 0 {
			return nil, fail(http.StatusBadRequest, "descriptor %q is not wanted for a container of mode %s", name, mode)
		}
		*at = fds[i]
	}
	for _, name := range []string{"tap", "init", "channel"} {
		if at := d.place(mode, name); at != nil && *at < 0 {
			return nil, fail(http.StatusBadRequest, "descriptor %q is missing for a container of mode %s", name, mode)
		}
	}
	return d, nil
}

// place is where the descriptor of that name belongs; nil when containers of
// the mode have none.
func (d *descriptors) place(mode, name string) *int {
	switch {
	case name == "tap" && (mode == modeBridge || mode == modeForeign):
		return &d.tap
	case name == "init" && mode != modeForeign:
		return &d.init
	case name == "channel" && mode != modeForeign:
		return &d.channel
	}
	return nil
}

// errEnding is why a container that was told to end does not start.
var errEnding = errors.New("it was told to end")

// start puts the descriptors to use. What it takes over it takes out of d. It has
// ports long before it runs, so whoever ends it waits until start is done: what it
// has reserved is nobody else's before its ports are gone.
func (n *Node) start(c *container, m api.Attach, d *descriptors) error {
	c.wiring.Lock()
	defer c.wiring.Unlock()
	n.mu.Lock()
	if c.ending { // and nobody waits any more
		n.mu.Unlock()
		return errEnding
	}
	c.starting, c.netns = d, m.Netns
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		c.starting = nil
		n.mu.Unlock()
	}()
	var pid int
	var found box.Init
	var channel *box.Channel
	var err error
	if d.init >= 0 {
		if pid, err = box.PIDOf(d.init); err != nil {
			return err
		}
		fd := d.channel
		d.channel = -1 // NewChannel takes it in every case
		if channel, err = box.NewChannel(fd); err != nil {
			return err
		}
		found = findAgain(pid, d.init, channel, m.KeptChannel)
	} else {
		pid = m.Pid
	}
	owner, err := n.joinNetworks(c, m, d)
	if err != nil {
		if channel != nil {
			_ = channel.Close()
		}
		return err
	}
	switch c.mode {
	case modeBridge:
		awaitLink(channel)
		err = n.joinFurther(c, channel)
	case modeShared:
		n.keepAll(c, owner, channel)
	}
	n.mu.Lock()
	if c.ending {
		err = errEnding // whatever came of it
	}
	if err != nil {
		n.mu.Unlock()
		n.undo(c, owner, channel)
		return err
	}
	c.pid, c.pidfd, c.channel, c.owner, c.started = pid, d.init, channel, owner, time.Now()
	c.init = found
	d.init = -1
	if owner == c {
		n.setHomeLocked(c) // networks may have changed since it was made
	}
	n.publishLocked(c)
	if c.pidfd >= 0 { // else its link says when it ends
		c.watch, err = n.loop.Worker(n.lanes.Home(c.number)).Add(c.pidfd, unix.EPOLLIN|unix.EPOLLONESHOT, death{n, c})
	}
	n.mu.Unlock()
	if err != nil {
		return err
	}
	if err := n.reroute(c, wireWithin); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.noteLocked(c)
}

// findAgain is how a node after this one finds an init: by what it keeps of ours.
func findAgain(pid, pidfd int, channel *box.Channel, kept int) box.Init {
	i := box.Init{PID: pid, Kept: kept}
	var err1, err2 error
	i.Start, err1 = box.StartOf(pidfd)
	i.Cookie, err2 = channel.Cookie()
	if err := errors.Join(err1, err2); err != nil {
		slog.Warn("a node after this one may not find the container", "pid", pid, "err", err)
	}
	return i
}

// awaitLink waits until a container's own end of its link is in order, or its
// init has ended. Who came by a published port before would ask in vain for its
// MAC, and wait a second until that is asked for again.
func awaitLink(channel *box.Channel) {
	if channel.SetReadDeadline(time.Now().Add(attachWithin)) != nil {
		return
	}
	_, _ = channel.Hear() // whatever it says, its ports are opened to nobody's harm but its own
}

// undo releases what start took over for a container that does not come to run.
// Its client ends its init.
func (n *Node) undo(c, owner *container, channel *box.Channel) {
	if owner != nil {
		n.mu.Lock()
		x := container{owner: owner}
		links, last := x.leaveLocked()
		n.mu.Unlock()
		for _, e := range links {
			n.detach(e, e.port)
		}
		if last && owner != c { // who has ended before, and left its address to the last
			n.mu.Lock()
			n.router.Forget(owner.number)
			n.giveBackLocked(owner)
			n.publishLocked(owner)
			n.mu.Unlock()
		}
	}
	if channel != nil {
		_ = channel.Close()
	}
}

// joinNetworks gives a container that starts its ports, and returns whose
// attachments it uses: its own, those of the one it shares a namespace with, or
// nobody's.
func (n *Node) joinNetworks(c *container, m api.Attach, d *descriptors) (*container, error) {
	switch c.mode {
	case modeBridge, modeForeign:
		return c, n.joinOwn(c, m, d)
	case modeShared:
		return n.joinShared(c)
	}
	return nil, nil
}

// joinShared has the container use the attachments of the one it shares a
// namespace with; nobody's when that has no network.
func (n *Node) joinShared(c *container) (*container, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	x := c.door
	if x.ending {
		return nil, fmt.Errorf("container %s has just ended", x.name())
	}
	// The client has joined a process by its number, which may have become
	// another's meanwhile.
	if c.netns != x.netns {
		return nil, fmt.Errorf("its network namespace is not that of container %s", x.name())
	}
	c.door = nil
	if x.owner != nil {
		x.owner.members++
	}
	return x.owner, nil
}

// joinOwn makes the TAP a port.
func (n *Node) joinOwn(c *container, m api.Attach, d *descriptors) error {
	e := &endpoint{index: m.Index, netns: m.Netns, peerNetns: m.PeerNetns}
	n.mu.Lock()
	a := c.attachments[0]
	c.kept[a.id] = m.KeptLink
	if m.Interface != "" {
		a.iface = m.Interface
	}
	n.router.SetEgress(c.number, c.egress)
	n.setHomeLocked(c)
	n.mu.Unlock()
	fd := d.tap
	d.tap = -1 // plug takes it in every case
	if err := n.plug(c, a, e, fd); err != nil {
		return err
	}
	n.mu.Lock()
	c.members = 1
	n.mu.Unlock()
	return nil
}

// plug makes a descriptor the attachment's port. It is the port's in every case.
func (n *Node) plug(c *container, a *attachment, e *endpoint, fd int) error {
	queue, err := e.open(a.opts, fd)
	if err != nil {
		api.CloseAll([]int{fd})
		return err
	}
	n.mu.Lock()
	e.net = a.lan.net
	n.mu.Unlock()
	port, err := e.net.Attach(network.Endpoint{
		Name: c.name(), Container: c.number, MAC: a.mac, Addr: a.addr.Addr(),
		Queue: queue, Isolated: a.opts.isolated, VLANs: a.opts.vlans, AnySource: a.opts.plug != "", Limit: &c.limit,
		Lost: func(p *vswitch.Port, err error) { go n.lost(c, a, e, p, err) }, // on a worker
	})
	if err != nil {
		return err // the network has closed the queue
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	e.port, e.fd = port, fd
	a.endpoint = e
	return nil
}

// lost is called when a link has gone: the end of a namespace somebody else
// made, or of an interface root inside removed. It may be before the container
// has its endpoint.
func (n *Node) lost(c *container, a *attachment, e *endpoint, p *vswitch.Port, err error) {
	slog.Info("link is gone", "container", c.name(), "err", err)
	if c.mode == modeForeign {
		n.end(c)
		return
	}
	n.mu.Lock()
	e.gone = true
	n.dropAddressesLocked(c, a)
	n.settleLocked(c)
	n.renoteLocked(c)
	n.mu.Unlock()
	n.detach(e, p)
	c.wiring.Lock()
	defer c.wiring.Unlock()
	if err := n.reroute(c, undoWithin); err != nil {
		slog.Warn("default route", "container", c.name(), "err", err)
		return
	}
	n.restoreRoute(c)
}

// death is told by a pidfd that a container's init has ended.
type death struct {
	node *Node
	c    *container
}

// Ready runs on a worker, so the work is done elsewhere.
func (d death) Ready(int64, uint32) bool {
	go d.node.end(d.c)
	return false
}

// exec hands an exec request and its descriptors on to the container's init.
func (n *Node) exec(c *container, m api.Exec, fds []int) error {
	defer api.CloseAll(fds)
	n.mu.Lock()
	channel := c.channel
	n.mu.Unlock()
	switch {
	case channel == nil && c.pidfd >= 0:
		return fail(http.StatusConflict, "container %s cannot be reached: %w; `fairlead kill %[1]s` ends it all the same", c.name(), c.lost)
	case channel == nil:
		return fail(http.StatusConflict, "Container %s is not running", c.name())
	case len(m.Command) == 0:
		return fail(http.StatusBadRequest, "no command; say what to run: `fairlead exec -it %s sh`", c.name())
	case len(fds) != 4:
		return fail(http.StatusBadRequest, "exec takes four descriptors: standard input, output, error and a session; %d came", len(fds))
	}
	err := channel.Send(&box.Message{Exec: &box.Exec{Args: m.Command, Env: m.Env, Cwd: m.Workdir, TTY: m.TTY}}, fds...)
	if err != nil {
		return fmt.Errorf("exec in container %s: %w", c.name(), err)
	}
	return nil
}
