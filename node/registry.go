package node

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/loop"
	"fairlead/node/api"
	"fairlead/node/box"
	"fairlead/packet"
	"fairlead/policy"
	vswitch "fairlead/switch"
)

// Modes of a container's network.
const (
	modeBridge  = "bridge"  // a port on a network
	modeNone    = "none"    // lo only
	modeHost    = "host"    // the caller's namespace
	modeShared  = "shared"  // another container's namespace
	modeForeign = "foreign" // a namespace somebody else made
)

// attachWithin is how long a reservation lives without its descriptors: init
// needs some ten milliseconds, on a machine that swaps seconds. It does not
// outlive its client, after whom the node looks every lookEvery.
const (
	attachWithin = 10 * time.Second
	lookEvery    = time.Second
)

// maxContainers bounds the registry; where a process may not have as many
// descriptors as that takes, share says the bound.
const maxContainers = 16384

// A container costs a TAP for its first network and one for each more, a pidfd
// and a channel. ownDescriptors are what the
// node needs besides: its workers, its files, and to look at who asks. So many as
// soonClosed of them are for what is gone and not closed yet, mostly for a moment.
const (
	containerDescriptors = 3
	ownDescriptors       = 64
	soonClosed           = ownDescriptors / 2
)

// share divides the descriptors a process may have (ulimit -n) among containers
// and connections: a node without any could not even be told to end.
func share() (containers, connections, limit int) {
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) != nil {
		r.Cur = math.MaxInt32
	}
	limit = int(min(r.Cur, math.MaxInt32))
	connections = min(maxConnections, limit/4)
	containers = min(maxContainers, max(0, limit-connections-ownDescriptors)/containerDescriptors)
	return containers, connections, limit
}

// A container is one on this node. What is not marked otherwise never changes
// after create.
type container struct {
	id, hostname string
	named        atomic.Pointer[string] // what name returns; Node.mu is held by who changes it
	network      string                 // what it asked for, mode bridge and foreign
	number       packet.ContainerID
	req          api.CreateRequest
	mode         string
	created      time.Time
	files        files
	share        *container // mode shared: who made the namespace; it may have ended
	specs        []api.PortSpec
	exposed      []exposed
	egress       *policy.Egress // its own; nil is none
	limit        vswitch.Limit  // its rates
	forget       *time.Timer

	// Guarded by Node.mu.
	attachments []*attachment                     // to networks, in the order it was connected; see occupyLocked
	fixed       map[packet.NetworkID]fixedStation // what DHCP servers were told of them
	owner       *container                        // whose attachments it uses while it runs: its own or those of share; nil is none
	members     int                               // containers that use its attachments and run; it may have ended itself
	door        *container                        // mode shared: whose namespace it is going to join; nil once it has
	client      int                               // pidfd of whoever reserved it; -1 unknown, or it runs or ends
	running     bool
	started     time.Time
	ending      bool
	pid         int
	netns       uint64       // inode of its network namespace, as its client said
	pidfd       int          // -1 without
	starting    *descriptors // while start puts them to use, else nil
	channel     *box.Channel
	init        box.Init       // how a node after this one finds it
	kept        map[string]int // its copies of links' ends, by the attachment's id
	lost        error          // why a node after another cannot reach it, or its links; nil is none
	watch       *loop.Source
	exit        int
	route       *attachment // its default route leads by; nil is none

	published []publication // and reserved, also while nothing leads here
	addresses []ownAddress  // of uplinks, by 1:1 NAT
	entry     *attachment   // where published ports lead; nil while they lead nowhere

	// wiring is held, before mu, by whoever starts it, or connects or disconnects
	// it while it runs: that waits for its init.
	wiring sync.Mutex

	done chan struct{} // closed when it is gone; exit is valid then
}

// name is what people call it; rename changes it.
func (c *container) name() string { return *c.named.Load() }

// A statusError is an error with the HTTP status it is answered with.
type statusError struct {
	status int
	error
}

func (e statusError) Unwrap() error { return e.error }

// errLeaving refuses what a node on its way out will not do any more.
var errLeaving = statusError{http.StatusServiceUnavailable, api.ErrLeaving}

func fail(status int, format string, args ...any) error {
	return statusError{status, fmt.Errorf(format, args...)}
}

// reconsider takes a reservation back when nothing will come of it any more.
func (n *Node) reconsider(c *container) {
	n.mu.Lock()
	waits := !c.running && !c.ending
	forgotten := waits && (time.Since(c.created) >= attachWithin || !c.hasClientLocked())
	if waits && !forgotten {
		c.forget.Reset(lookEvery)
	}
	n.mu.Unlock()
	if forgotten {
		slog.Warn("container never started", "container", c.name())
		n.end(c)
	}
}

// follow ends a reservation with its client, whose pidfd becomes the
// container's.
func (n *Node) follow(c *container, client int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c.client = client
	if c.running || c.ending {
		c.dropClientLocked()
	}
}

func (c *container) hasClientLocked() bool {
	if c.client < 0 {
		return true // for all we know
	}
	alive, err := box.PIDFDAlive(c.client)
	return err == nil && alive
}

// dropClientLocked lets go of the client: what becomes of the container does
// not depend on it any more.
func (c *container) dropClientLocked() {
	if c.client >= 0 {
		_ = unix.Close(c.client)
		c.client = -1
	}
}

// giveBackLocked returns what a container reserved beside its name.
func (n *Node) giveBackLocked(c *container) {
	n.ids.give(c.number)
	n.vacateAllLocked(c)
}

// enterLocked takes a container into the registry, strikeLocked takes it out.
func (n *Node) enterLocked(c *container) {
	n.containers[c.id], n.named[c.name()] = c, c
}

func (n *Node) strikeLocked(c *container) {
	delete(n.containers, c.id)
	delete(n.named, c.name())
}

// find looks a container up by name, id or unique beginning of the id.
func (n *Node) find(ref string) (*container, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.findLocked(ref)
}

func (n *Node) findLocked(ref string) (*container, error) {
	if c := cmp.Or(n.containers[ref], n.named[ref]); c != nil {
		return c, nil // also when ids begin like this name
	}
	var found []*container
	for id, c := range n.containers {
		if ref != "" && strings.HasPrefix(id, ref) {
			found = append(found, c)
		}
	}
	switch len(found) {
	case 0:
		return nil, fail(http.StatusNotFound, "No such container: %s; `fairlead ps` lists those that run", ref)
	case 1:
		return found[0], nil
	}
	return nil, fail(http.StatusConflict, "Multiple IDs found with provided prefix: %s", ref)
}

// list returns the containers, newest first as docker ps does.
func (n *Node) list() []*container {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := make([]*container, 0, len(n.containers))
	for _, c := range n.containers {
		list = append(list, c)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].created.After(list[j].created) })
	return list
}

// end takes a container off the node: its port first, so that it is in no
// table any more, then the rest. It may be called at any time and often.
func (n *Node) end(c *container) {
	n.mu.Lock()
	if c.ending {
		n.mu.Unlock()
		return
	}
	c.ending = true
	c.forget.Stop()
	c.dropClientLocked()
	if c.starting != nil && c.starting.init >= 0 { // start waits for this init no longer
		_ = unix.PidfdSendSignal(c.starting.init, unix.SIGKILL, nil, 0)
	}
	n.mu.Unlock()

	c.wiring.Lock() // until whoever is starting or connecting it has seen that
	defer c.wiring.Unlock()
	n.mu.Lock()
	n.closePortsLocked(c)
	links, last := c.leaveLocked()
	if c.files.holders > 1 { // others live in its namespace, and have its files
		n.renoteLocked(c)
	}
	n.mu.Unlock()

	for _, e := range links {
		n.detach(e, e.port)
	}
	if c.watch != nil {
		c.watch.Remove()
	}
	if c.channel != nil {
		c.awaitExit()
		_ = c.channel.Close()
	}
	if c.pidfd >= 0 {
		_ = unix.PidfdSendSignal(c.pidfd, unix.SIGKILL, nil, 0) // it has ended, or is to
		n.closing.Add(1)
		n.loop.Grace(func() {
			_ = unix.Close(c.pidfd)
			n.closing.Add(-1)
		})
	}
	n.releaseFiles(c)
	if c.share != nil {
		n.releaseFiles(c.share)
	}

	n.mu.Lock()
	n.strikeLocked(c)
	n.ports.release(c.published)
	if c.owner != c {
		if len(c.attachments) > 0 {
			n.router.Forget(c.number) // what it was told of a start that failed
		}
		n.giveBackLocked(c)
	}
	if last {
		n.router.Forget(c.owner.number)
		n.giveBackLocked(c.owner)
	}
	n.publishLocked(c)
	n.lastUse = time.Now()
	n.mu.Unlock()
	close(c.done)
	slog.Info("container is gone", "container", c.name(), "id", c.id[:12], "exit", c.exit)
}

// detach takes a link off its network.
func (n *Node) detach(e *endpoint, p *vswitch.Port) {
	n.closing.Add(1)
	e.net.Detach(p, func() { n.closing.Add(-1) })
}

// leaveLocked takes the container off the attachments it uses. When nobody else
// is in that namespace they go with it: last is true, and links are those that
// have to be taken off.
func (c *container) leaveLocked() (links []*endpoint, last bool) {
	if c.owner == nil {
		return nil, false
	}
	if c.owner.members--; c.owner.members > 0 {
		return nil, false
	}
	for _, a := range c.owner.attachments {
		if a.endpoint != nil {
			links = append(links, a.endpoint)
		}
	}
	return links, true
}

// awaitExit reads the last word of an init that is dead: the exit status is in
// the channel already, if there is one.
func (c *container) awaitExit() {
	_ = c.channel.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	for {
		m, err := c.channel.Hear()
		if err != nil {
			return
		}
		if m.Exit != nil {
			c.exit = *m.Exit
			return
		}
	}
}

// kill ends a container at once, whatever it does.
func (n *Node) kill(c *container) {
	if err := n.signal(c, unix.SIGKILL); err != nil {
		n.end(c) // it has no process of ours, or none any more
	}
}

// signal sends a signal to the container's command; SIGKILL goes to its init,
// with which everything in it dies.
func (n *Node) signal(c *container, sig unix.Signal) error {
	n.mu.Lock()
	defer n.mu.Unlock() // or end closes the pidfd meanwhile, and its number is another's
	switch {
	case c.ending:
		return errors.New("it is just ending")
	case c.pidfd < 0:
		return errors.New("it has no process of ours")
	case sig == unix.SIGKILL:
		return unix.PidfdSendSignal(c.pidfd, sig, nil, 0)
	case c.channel == nil:
		return fmt.Errorf("it cannot be reached: %w; `fairlead kill %s` ends it all the same", c.lost, c.name())
	}
	return c.channel.Send(&box.Message{Signal: int(sig)})
}

// An idSpace hands out container numbers: a dense index and a generation.
type idSpace struct {
	used        []bool // by index; index 0 names no container
	generations []uint16
	next        int // no index below it is free
}

func (s *idSpace) take() packet.ContainerID {
	i := max(1, s.next)
	for i < len(s.used) && s.used[i] {
		i++
	}
	s.next = i + 1
	for len(s.used) <= i {
		s.used, s.generations = append(s.used, false), append(s.generations, 0)
	}
	s.used[i] = true
	s.generations[i]++
	return packet.ContainerID(s.generations[i])<<16 | packet.ContainerID(i)
}

func (s *idSpace) give(id packet.ContainerID) {
	i := int(id & 0xffff)
	s.used[i] = false
	s.next = min(s.next, i)
}

// claim takes a number that was given by another node.
func (s *idSpace) claim(id packet.ContainerID) {
	s.know(id)
	s.used[id&0xffff] = true
}

// know has a number that was given by another node not be given again.
func (s *idSpace) know(id packet.ContainerID) {
	i := int(id & 0xffff)
	for len(s.used) <= i {
		s.used, s.generations = append(s.used, false), append(s.generations, 0)
	}
	s.generations[i] = max(s.generations[i], uint16(id>>16))
}
