package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/node/api"
	"fairlead/node/box"
	"fairlead/packet"
)

// `fairlead up --replace`: the node that runs hands all it has to another one, which
// the command has started. Until that says that everything works, this one can go on
// as if nothing had happened: it has changed nothing, and who comes to the control
// socket waits in the kernel's line. Frames pass while the new one becomes what this
// one is, which is work. Workers rest, between two turns, for what changes with every
// packet alone: connections and flows. See api.Replace for what the two say,
// takeover.go for the other side.

// handVersion is that of what is handed over: the records' and this file's.
const handVersion = 2

// Kinds of descriptors that are handed over; see api.Thing.
const (
	thingNode       = "node"       // a pidfd, of the node that runs
	thingLock       = "lock"       // node.lock, locked
	thingControl    = "control"    // the control socket
	thingInit       = "init"       // a pidfd, of a container
	thingChannel    = "channel"    // to the init of a container
	thingLink       = "link"       // of a container, which is its attachment's id
	thingUplink     = "uplink"     // by its name
	thingHostLink   = "host-link"  // of a network, by its id
	thingPublished  = "published"  // of a protocol, which is where
	thingInherited  = "inherited"  // a socket that was handed in
	thingConnection = "connection" // by this host's sockets, of a flow, by its number
	thingNamesUDP   = "names-udp"  // where this host asks for names, of its address
	thingNamesTCP   = "names-tcp"
)

// Bounds of a handover, whatever the new node does. Requests that came before have to be
// answered, and who has not said all of his has a moment; the new node may be silent for
// so long where it has no work, and has so long to be what the old one is, with more for
// each container and each published port's socket. Traffic stands for what comes then: for
// stillWithin, in which our own workers have to come to rest, and longer by what the new
// node has taken meanwhile, about twice what that took (docs/restart.md). So who hangs has
// it stand for a second, whatever there is to be taken.
const (
	quietWithin    = 8 * time.Second
	sayWithin      = 250 * time.Millisecond
	ackWithin      = time.Second
	workWithin     = 5 * time.Second
	workEach       = 10 * time.Millisecond
	workPort       = 50 * time.Microsecond
	workMost       = 20 * time.Second
	stillWithin    = time.Second
	connectionEach = 50 * time.Microsecond
	flowEach       = 15 * time.Microsecond

	// Of all of it, for who has asked.
	stillMost     = stillWithin + math.MaxUint16/portShare*connectionEach + mostFlows*flowEach
	replaceWithin = quietWithin + workMost + stillMost + goneWithin + startWithin
)

// handTimes are those of the bounds that a test has shorter, or longer.
type handTimes struct{ ack, work, still time.Duration }

// A handing is what descriptors alone do not say.
type handing struct {
	Running  *running                    `json:"running"`
	Records  []*record                   `json:"records"`
	Networks map[string]packet.NetworkID `json:"networks"` // by id, and uplinks by name
}

// parse reads one, of a node that may be of another version.
func (h *handing) parse(text []byte) error {
	if err := json.Unmarshal(text, h); err != nil {
		return err
	}
	if h.Running == nil {
		return errors.New("it says nothing of the node")
	}
	for _, r := range h.Records {
		if err := r.check(); err != nil {
			return fmt.Errorf("a container: %w", err)
		}
	}
	return nil
}

// maxHanded bounds the text of one, and that of connections. Flows come behind, lot by
// lot, and are bounded by their table.
const maxHanded = 512 << 20

// postReplace hands the node over to the client.
func (n *Node) postReplace(w http.ResponseWriter, r *http.Request) (any, error) {
	conn, err := hijack(w, r)
	if conn == nil {
		return nil, err
	}
	defer conn.Close()
	if err := n.handOver(conn); err != nil {
		slog.Warn("not replaced: this node goes on", "err", err)
		_ = conn.SetDeadline(time.Now().Add(ackWithin))
		_ = api.SendMessage(conn.UnixConn, api.Handed{Error: err.Error()}, nil) // it may have gone
	}
	return nil, nil
}

// handOver hands the node over. It returns only with an error, and then as if nothing
// had happened.
func (n *Node) handOver(conn *controlConn) error {
	_ = conn.SetDeadline(time.Now().Add(n.handTimes.ack))
	var hello api.Replace
	fds, err := api.ReceiveNews(conn, &hello)
	api.CloseAll(fds)
	if err != nil {
		return err
	}
	next, err := n.successor(conn)
	if err != nil {
		return err
	}
	defer unix.Close(next)
	if !n.handing.TryLock() {
		return errors.New("it is just ending, or another one takes its place already")
	}
	defer n.handing.Unlock()
	if err := n.failed.allows(); err != nil {
		return err
	}
	slog.Info("another node takes over", "version", hello.Version)
	resume, err := n.standStill(conn.pid)
	if err != nil {
		return err
	}
	if n.isLeaving() { // from here on nobody can tell us to; a signal is passed on
		resume()
		return errLeaving
	}
	n.successorFD = next // it stays, if that comes to something
	began := time.Now()
	stood, err := n.handAll(conn)
	if err != nil {
		n.failed = setback{held: time.Since(began), stood: stood, at: time.Now()}
		resume()
		return err
	}
	n.replaced.Store(true)
	n.goDown()
	n.handing.Unlock()
	select {} // nothing of ours moves any more; Serve returns, and the process ends
}

// A setback is what a replacement that came to nothing, or a look at what does not move,
// has cost everybody else: for how long nothing could be changed, and for how long of that
// traffic stood. Whoever tries again and again may cost them one part of costsLess of the
// time.
type setback struct {
	held, stood time.Duration
	at          time.Time
}

// costsLess is how many times as long as traffic stood the next one has to wait.
const costsLess = 10

// allows waits until the next one may try, if that is soon, or refuses it.
func (s *setback) allows() error {
	left := s.await()
	if left <= 0 {
		return nil
	}
	return fmt.Errorf("the last replacement has failed, traffic stood still for %v and commands for %v meanwhile; try again in %v",
		s.stood.Round(time.Millisecond), s.held.Round(time.Millisecond), left.Round(time.Second))
}

// await waits until the next one may try, if that is soon, or returns how long it is yet.
func (s *setback) await() (left time.Duration) {
	if left = s.left(); left > ackWithin {
		return left
	}
	time.Sleep(left)
	return 0
}

// left is how long it is until the next one may try.
func (s *setback) left() time.Duration {
	return time.Until(s.at.Add(s.held + costsLess*s.stood))
}

// passOn has the node that has taken our place end, if a signal told us to meanwhile.
func (n *Node) passOn(ctx context.Context) {
	slog.Info("another node has taken over")
	if ctx.Err() == nil {
		return
	}
	if err := unix.PidfdSendSignal(n.successorFD, unix.SIGTERM, nil, 0); err != nil {
		slog.Error("this node was told to end, and the one in its place has not heard it: `fairlead down` ends it", "err", err)
	}
}

// successor is a pidfd of the node that comes.
func (n *Node) successor(conn *controlConn) (pidfd int, err error) {
	cerr := onDescriptor(conn.UnixConn, func(fd int) { pidfd, err = box.Peer(fd) })
	return pidfd, errors.Join(cerr, err)
}

// standStill has nothing change until resume is called but what frames change: nobody is
// let in, no container is wired, no address is lent, nothing is written. Requests that came
// before are answered first, and who is being made or ends is waited for: who makes a
// container has come to us twice. Clients that keep a connection for later find it closed.
func (n *Node) standStill(next int) (resume func(), err error) {
	defer func() {
		if err != nil {
			n.server.SetKeepAlivesEnabled(true)
		}
	}()
	for began := time.Now(); time.Since(began) < quietWithin; time.Sleep(time.Millisecond) {
		n.server.SetKeepAlivesEnabled(false) // that closes who is idle by now
		if resume, ok := n.tryStandStill(); ok {
			return func() {
				resume()
				n.server.SetKeepAlivesEnabled(true)
			}, nil
		}
		if n.isLeaving() {
			return nil, errLeaving
		}
	}
	return nil, fmt.Errorf("it has been busy for %v: containers are being made or end, or a client does not say all of his request or does not take his answer (others who are connected are the processes %v); try again",
		quietWithin, n.listener.processes(next))
}

func (n *Node) tryStandStill() (resume func(), ok bool) {
	open, reached := n.listener.pause()
	if !reached || !n.isQuiet() {
		open()
		return nil, false
	}
	n.linking.Lock()
	list := n.list()
	for _, c := range list {
		c.wiring.Lock()
	}
	listen := n.dns.pauseHost()
	n.dhcp.write() // before mu is held: it waits for a disk
	n.mu.Lock()
	lend := n.dhcp.rest()
	resume = func() {
		lend()
		n.mu.Unlock()
		listen()
		for _, c := range list {
			c.wiring.Unlock()
		}
		n.linking.Unlock()
		open()
	}
	if n.isBusyLocked() { // somebody has begun to end
		resume()
		return nil, false
	}
	return resume, true
}

// isQuiet reports whether there is nothing that has to come to its end first. Who is
// connected, and there is nobody new, is given a moment to say what he wants.
func (n *Node) isQuiet() bool {
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		n.mu.Lock()
		busy, unsaid := n.isBusyLocked(), n.listener.places.inUse() > n.watching
		n.mu.Unlock()
		if busy || !unsaid || time.Since(began) > sayWithin {
			return !busy
		}
	}
}

func (n *Node) isBusyLocked() bool {
	if n.requests > n.watching { // ours goes on, too
		return true
	}
	for _, c := range n.containers {
		if c.started.IsZero() || c.ending {
			return true
		}
	}
	return false
}

// processes are those that have connections, but one.
func (l *controlListener) processes(but int) []int {
	return slices.DeleteFunc(l.places.processes(), func(pid int) bool { return pid == but })
}

// handAll sends everything, and returns once the new node has said that it works and is
// told that it may. Then nothing of ours moves any more. After an error workers go on,
// which stood for so long.
func (n *Node) handAll(conn *controlConn) (stood time.Duration, err error) {
	work := min(n.handTimes.work+time.Duration(len(n.containers))*workEach+time.Duration(n.listening)*workPort, workMost)
	s := &sender{conn: conn, program: n.conf.Version, ack: n.handTimes.ack, end: time.Now().Add(work)}
	defer s.close()
	n.handRegistryLocked(s)
	if s.await(work); s.err != nil {
		return 0, s.err
	}
	began := time.Now()
	move, err := n.loop.Rest(n.handTimes.still)
	if err != nil {
		return time.Since(began), fmt.Errorf("traffic cannot be stopped: %w, probably in a write to a container whose firewall takes long; `fairlead show switch` says (slow) behind one", err)
	}
	s.end = began.Add(n.handTimes.still)
	n.handFlows(s, n.handConnections(s))
	s.await(s.ack)
	if s.err == nil { // it believes that we go on, as we do, unless it is told otherwise
		s.within(s.ack)
		s.fail(api.SendMessage(conn.UnixConn, api.Done{}, nil))
	}
	if s.err != nil {
		move()
	}
	return time.Since(began), s.err
}

// handRegistryLocked sends all that no frame changes.
func (n *Node) handRegistryLocked(s *sender) {
	h := &handing{Running: n.runningLocked(), Networks: make(map[string]packet.NetworkID)}
	n.handNodeLocked(s, h)
	written := make(map[*container]bool)
	for _, c := range n.containers {
		n.handContainerLocked(s, h, c)
		if x := c.holder(); x.ending && !written[x] { // others live in its namespace
			written[x] = true
			n.handContainerLocked(s, h, x)
		}
	}
	slices.SortFunc(h.Records, func(a, b *record) int { return a.Created.Compare(b.Created) })
	s.describe(h)
}

// handNodeLocked sends what is no container's.
func (n *Node) handNodeLocked(s *sender, h *handing) {
	own, err := box.OpenPID(os.Getpid())
	if err != nil {
		s.fail(err)
		return
	}
	s.file(os.NewFile(uintptr(own), "node"), nil, thingNode)
	s.copy(n.home.lock, thingLock)
	control, err := n.listener.File()
	s.file(control, err, thingControl)
	for _, l := range n.lans {
		h.Networks[l.id] = l.number()
		if l.hostLink != nil {
			s.send(l.hostLink.fd, api.Thing{Kind: thingHostLink, Of: l.id, Which: fmt.Sprint(l.hostLink.index)})
		}
	}
	h.Networks[api.HostUplink] = n.hostWay.Network()
	for _, u := range n.uplinks {
		if u.lost == nil {
			h.Networks[u.spec.Name] = u.way.Network()
			s.send(u.fd, api.Thing{Kind: thingUplink, Of: u.spec.Name})
		}
	}
	for _, x := range n.inherited {
		s.send(x.fd, api.Thing{Kind: thingInherited})
	}
	for _, p := range n.hostWay.Sockets().Published() {
		s.send(p.FD, api.Thing{Kind: thingPublished, Of: protoWord(p.Proto), Which: p.At.String()})
	}
	if udp, tcp, at := n.dns.stubFiles(); udp != nil {
		s.file(udp, nil, thingNamesUDP, at)
		s.file(tcp, nil, thingNamesTCP, at)
	}
}

// handContainerLocked sends what is a container's.
func (n *Node) handContainerLocked(s *sender, h *handing, c *container) {
	h.Records = append(h.Records, c.recordLocked())
	if c.pidfd >= 0 && !c.ending {
		s.send(c.pidfd, api.Thing{Kind: thingInit, Of: c.id})
	}
	if c.channel != nil && !c.ending {
		fd, err := c.channel.Copy()
		if err != nil {
			s.fail(err)
			return
		}
		s.file(os.NewFile(uintptr(fd), "channel"), nil, thingChannel, c.id)
	}
	for _, a := range c.attachments {
		if a.up() {
			s.send(a.endpoint.fd, api.Thing{Kind: thingLink, Of: c.id, Which: a.id})
		}
	}
}
