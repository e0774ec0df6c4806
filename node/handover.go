package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/node/api"
	"fairlead/node/box"
	"fairlead/packet"
	"fairlead/uplink/sockets"
)

// `fairlead up --replace`: the node that runs hands all it has to another one, which
// the command has started. Until that says that everything works, this one can go on
// as if nothing had happened: it has changed nothing, its workers rest between two
// turns, and who comes to the control socket waits in the kernel's line. See
// api.Replace for what the two say, takeover.go for the other side.

// handVersion is that of what is handed over: the records' and this file's.
const handVersion = 1

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

// Bounds of a handover. Requests that came before have to be answered; of what the new
// node says all that takes no work; what it takes to be what the old one is, and more
// for each container; and all of it from the first descriptor to the last word, with
// more for each flow: four times what one took (docs/restart.md). Connections wait for up
// to the latter, some ten milliseconds mostly; one that is silent is given up long before.
const (
	quietWithin   = 8 * time.Second
	ackWithin     = time.Second
	workWithin    = 5 * time.Second
	workEach      = 10 * time.Millisecond
	handWithin    = 20 * time.Second
	flowEach      = 20 * time.Microsecond
	flowsWithin   = mostFlows * flowEach
	replaceWithin = quietWithin + handWithin + flowsWithin + goneWithin + startWithin // for who has asked for it
)

// A handing is what descriptors alone do not say.
type handing struct {
	Running  *running                    `json:"running"`
	Records  []*record                   `json:"records"`
	Networks map[string]packet.NetworkID `json:"networks"` // by id, and uplinks by name
	// Connections are those by this host's sockets, by their flows' numbers.
	Connections []sockets.Moving `json:"connections,omitempty"`
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

// maxHanded bounds the text of one. Flows come behind it, lot by lot, and are bounded by
// their table.
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
	_ = conn.SetDeadline(time.Now().Add(ackWithin))
	var hello api.Replace
	fds, err := api.ReceiveNews(conn.UnixConn, &hello)
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
	slog.Info("another node takes over", "version", hello.Version)
	resume, err := n.standStill()
	if err != nil {
		return err
	}
	defer resume()
	if err := n.handAll(conn); err != nil {
		return err
	}
	n.successorFD, _ = unix.FcntlInt(uintptr(next), unix.F_DUPFD_CLOEXEC, 0)
	n.replaced.Store(true)
	n.goDown()
	n.handing.Unlock()
	select {} // nothing of ours moves any more; Serve returns, and the process ends
}

// passOn has the node that has taken our place end, if we were told to meanwhile.
func (n *Node) passOn(ctx context.Context) {
	slog.Info("another node has taken over")
	if ctx.Err() != nil {
		_ = unix.PidfdSendSignal(n.successorFD, unix.SIGTERM, nil, 0)
	}
}

// successor is a pidfd of the node that comes.
func (n *Node) successor(conn *controlConn) (pidfd int, err error) {
	cerr := onDescriptor(conn.UnixConn, func(fd int) { pidfd, err = box.Peer(fd) })
	return pidfd, errors.Join(cerr, err)
}

// standStill has nothing change until resume is called: nobody is let in, no container
// is wired, no worker moves, nothing is written. Requests that came before are answered
// first, and who is being made or ends is waited for: who makes a container has come
// to us twice. Clients that keep a connection for later find it closed.
func (n *Node) standStill() (resume func(), err error) {
	defer func() {
		if err != nil {
			n.server.SetKeepAlivesEnabled(true)
		}
	}()
	for deadline := time.Now().Add(quietWithin); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		n.server.SetKeepAlivesEnabled(false) // that closes who is idle by now
		if resume, ok := n.tryStandStill(); ok {
			return func() {
				resume()
				n.server.SetKeepAlivesEnabled(true)
			}, nil
		}
	}
	return nil, fmt.Errorf("it has been busy for %v: containers are being made or end, or a client does not take its answer; try again", quietWithin)
}

func (n *Node) tryStandStill() (resume func(), ok bool) {
	open, reached := n.listener.pause()
	if !reached || n.isBusy() {
		open()
		return nil, false
	}
	n.linking.Lock()
	list := n.list()
	for _, c := range list {
		c.wiring.Lock()
	}
	listen := n.dns.pauseHost()
	n.dhcp.write() // while frames still pass
	move := n.loop.Rest()
	n.mu.Lock()
	lend := n.dhcp.rest()
	resume = func() {
		lend()
		n.mu.Unlock()
		move()
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

// isBusy reports whether there is something that has to come to its end first.
func (n *Node) isBusy() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.isBusyLocked()
}

func (n *Node) isBusyLocked() bool {
	if len(n.listener.slots) > n.watching+1 { // ours is one of them
		return true
	}
	for _, c := range n.containers {
		if c.started.IsZero() || c.ending {
			return true
		}
	}
	return false
}

// handAll sends everything, and returns once the new node has said that it works and
// is told that it may. Nothing moves meanwhile.
func (n *Node) handAll(conn *controlConn) error {
	h := &handing{Running: n.runningLocked(), Networks: make(map[string]packet.NetworkID)}
	s := &sender{conn: conn, program: n.conf.Version, end: time.Now().Add(handWithin)}
	defer s.close()
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
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	s.ask(api.Handed{Last: true, Text: len(text), Flow: flowBytes})
	s.write(text)
	work := workWithin + time.Duration(len(h.Records))*workEach
	s.await(work)
	n.handFlows(s, h.Connections)
	s.await(work)
	if s.err == nil { // it believes that we go on, as we do, unless it is told otherwise
		s.within(ackWithin)
		s.fail(api.SendMessage(conn.UnixConn, api.Done{}, nil))
	}
	return s.err
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
	h.Connections = n.hostWay.Sockets().Connections()
	for _, c := range h.Connections {
		s.send(c.FD, api.Thing{Kind: thingConnection, Of: fmt.Sprint(c.Flow)})
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

// A sender sends descriptors, some in each message, and waits for an answer to each:
// on a stream two messages could be read as one. After an error it does nothing more.
type sender struct {
	conn    *controlConn
	program string    // what it was sent by
	end     time.Time // of all of it
	items   []api.Thing
	fds     []int
	files   []*os.File // closed behind the message
	err     error
}

// handAtOnce is how many descriptors a message brings.
const handAtOnce = 8

func (s *sender) fail(err error) {
	if s.err == nil {
		s.err = err
	}
}

func (s *sender) send(fd int, t api.Thing) {
	s.items, s.fds = append(s.items, t), append(s.fds, fd)
	if len(s.fds) == handAtOnce {
		s.ask(api.Handed{})
	}
}

// file sends one that is closed afterwards.
func (s *sender) file(f *os.File, err error, kind string, of ...string) {
	if err != nil {
		s.fail(err)
		return
	}
	s.files = append(s.files, f)
	t := api.Thing{Kind: kind}
	if len(of) > 0 {
		t.Of = of[0]
	}
	fd := int(f.Fd())
	// Fd has made the open file one that waits, for us as well, who may go on with it.
	if err := unix.SetNonblock(fd, true); err != nil {
		s.fail(err)
	}
	s.send(fd, t)
}

// copy sends one that stays.
func (s *sender) copy(f *os.File, kind string) { s.send(int(f.Fd()), api.Thing{Kind: kind}) }

// ask sends a message with the descriptors there are by now, and waits for the answer.
// The last message comes behind one with all that are left.
func (s *sender) ask(m api.Handed) {
	if m.Last && len(s.fds) > 0 {
		s.ask(api.Handed{})
	}
	if s.err == nil {
		s.within(ackWithin)
		m.Version, m.Program, m.Items = handVersion, s.program, s.items
		s.fail(api.SendMessage(s.conn.UnixConn, m, s.fds))
		s.await(ackWithin)
	}
	s.items, s.fds = nil, nil
	s.close()
}

// await waits for the new node to have done what it was asked for.
func (s *sender) await(within time.Duration) {
	if s.err != nil {
		return
	}
	s.within(within)
	var done api.Done
	fds, err := api.ReceiveNews(s.conn.UnixConn, &done)
	api.CloseAll(fds)
	if err != nil {
		s.fail(fmt.Errorf("the new node has not said that it works: %w", err))
	} else if done.Error != "" {
		s.fail(errors.New(done.Error))
	}
}

// write sends bytes as they are.
func (s *sender) write(b []byte) {
	for len(b) > 0 && s.err == nil {
		s.within(ackWithin)
		n, err := s.conn.Write(b[:min(len(b), 64<<10)])
		if b = b[n:]; err != nil {
			s.fail(fmt.Errorf("the new node takes nothing: %w", err))
		}
	}
}

// within bounds what comes next.
func (s *sender) within(d time.Duration) {
	deadline := time.Now().Add(d)
	if deadline.After(s.end) {
		deadline = s.end
	}
	_ = s.conn.SetDeadline(deadline)
}

func (s *sender) close() {
	for _, f := range s.files {
		_ = f.Close()
	}
	s.files = nil
}
