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

	"fairlead/loop"
	"fairlead/nat"
	"fairlead/node/api"
	"fairlead/node/box"
	"fairlead/packet"
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
	thingLock      = "lock"      // node.lock, locked
	thingControl   = "control"   // the control socket
	thingInit      = "init"      // a pidfd, of a container
	thingChannel   = "channel"   // to the init of a container
	thingLink      = "link"      // of a container, which is its attachment's id
	thingUplink    = "uplink"    // by its name
	thingHostLink  = "host-link" // of a network, by its id
	thingPublished = "published" // of a protocol, which is where
	thingInherited = "inherited" // a socket that was handed in
	thingNamesUDP  = "names-udp" // where this host asks for names, of its address
	thingNamesTCP  = "names-tcp"
)

// Bounds of a handover: how long requests that came before have to be answered, and
// how long the new node has from the first message to the last. Connections wait for
// up to the latter, some hundred milliseconds mostly.
const (
	quietWithin = 5 * time.Second
	handWithin  = 30 * time.Second
)

// handFile is where the flows and the names of networks are, while they are handed.
const handFile = "handed.json"

// A handing is what is in it.
type handing struct {
	Running  *running                    `json:"running"`
	Records  []*record                   `json:"records"`
	Networks map[string]packet.NetworkID `json:"networks"` // by id, and uplinks by name
	Flows    []nat.Saved                 `json:"flows,omitempty"`
}

// maxHanded bounds it: a flow is some 700 bytes of it, and a usual table has a quarter
// of a million.
const maxHanded = 512 << 20

// postReplace hands the node over to the client.
func (n *Node) postReplace(w http.ResponseWriter, r *http.Request) (any, error) {
	conn, err := hijack(w, r)
	if conn == nil {
		return nil, err
	}
	defer conn.Close()
	if !n.handing.TryLock() {
		_ = api.SendMessage(conn.UnixConn, api.Handed{Error: "it is just ending, or another one takes its place already"}, nil)
		return nil, nil
	}
	defer n.handing.Unlock()
	if err := n.handOver(conn); err != nil {
		slog.Warn("not replaced: this node goes on", "err", err)
		_ = conn.SetDeadline(time.Now().Add(bodyWithin))
		_ = api.SendMessage(conn.UnixConn, api.Handed{Error: err.Error()}, nil) // it may have gone
	}
	return nil, nil
}

func (n *Node) handOver(conn *controlConn) error {
	_ = conn.SetDeadline(time.Now().Add(handWithin))
	var hello api.Replace
	fds, err := api.ReceiveMessage(conn.UnixConn, &hello)
	api.CloseAll(fds)
	if err != nil {
		return err
	}
	var next int
	if next, err = n.successor(conn); err != nil {
		return err
	}
	defer unix.Close(next)
	slog.Info("another node takes over", "version", hello.Version)
	resume, err := n.standStill()
	if err != nil {
		return err
	}
	defer resume()
	if err := n.handAll(conn); err != nil {
		return err
	}
	var done api.Done
	fds, err = api.ReceiveMessage(conn.UnixConn, &done)
	api.CloseAll(fds)
	switch {
	case err != nil:
		// It believes that we go on, as we do, unless it is told otherwise.
		return fmt.Errorf("the new node has not said that it works: %w", err)
	case done.Error != "":
		return errors.New(done.Error)
	}
	if err := api.SendMessage(conn.UnixConn, api.Done{}, nil); err != nil {
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

// quiet has no connection be accepted, once those that were are answered and no
// container is half made: who makes one has come to us twice.
func (n *Node) quiet() (resume func(), err error) {
	for deadline := time.Now().Add(quietWithin); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		resume = n.listener.pause()
		n.mu.Lock()
		busy := len(n.listener.slots) > n.watching+1 // ours is one of them
		for _, c := range n.containers {
			busy = busy || c.started.IsZero() && !c.ending
		}
		n.mu.Unlock()
		if !busy {
			return resume, nil
		}
		resume()
	}
	return nil, fmt.Errorf("it has been busy for %v: containers are being made, or a client keeps a connection without saying anything; try again", quietWithin)
}

// standStill has nothing change until resume is called: nobody is let in, no container
// is wired, no worker moves.
func (n *Node) standStill() (resume func(), err error) {
	open, err := n.quiet()
	if err != nil {
		return nil, err
	}
	n.linking.Lock()
	list := n.list()
	for _, c := range list {
		c.wiring.Lock()
	}
	n.dhcp.call(func() { n.dhcp.save(n.dhcp.snapshot()) })
	move := n.loop.Rest()
	n.mu.Lock()
	return func() {
		n.mu.Unlock()
		move()
		for _, c := range list {
			c.wiring.Unlock()
		}
		n.linking.Unlock()
		open()
	}, nil
}

// handAll sends everything. Nothing moves meanwhile.
func (n *Node) handAll(conn *controlConn) error {
	h := &handing{Running: n.runningLocked(), Networks: make(map[string]packet.NetworkID)}
	s := &sender{conn: conn}
	defer s.close()
	n.handNodeLocked(s, h)
	written := make(map[*container]bool)
	for _, c := range n.containers {
		if !c.started.IsZero() && !c.ending {
			n.handContainerLocked(s, h, c)
			if x := c.holder(); x.ending && !written[x] { // others live in its namespace
				written[x] = true
				n.handContainerLocked(s, h, x)
			}
		}
	}
	slices.SortFunc(h.Records, func(a, b *record) int { return a.Created.Compare(b.Created) })
	now := loop.Clock()
	n.router.Flows(func(t *nat.Table) { t.Save(now, func(f nat.Saved) { h.Flows = append(h.Flows, f) }) })
	if s.err != nil {
		return s.err
	}
	if err := n.writeHanded(h); err != nil {
		return err
	}
	return s.end(n.conf.Version)
}

func (n *Node) writeHanded(h *handing) error {
	text, err := json.Marshal(h)
	if err == nil {
		err = n.home.WriteFile(handFile, text, 0o600)
	}
	return err
}

// handNodeLocked sends what is no container's.
func (n *Node) handNodeLocked(s *sender, h *handing) {
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

// A sender sends descriptors, some in each message, and waits for an answer to each:
// on a stream two messages could be read as one.
type sender struct {
	conn  *controlConn
	items []api.Thing
	fds   []int
	files []*os.File // closed behind the message
	err   error
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
		s.flush(api.Handed{})
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

func (s *sender) flush(m api.Handed) {
	if s.err == nil && !m.Last {
		m.Items = s.items
		s.fail(api.SendMessage(s.conn.UnixConn, m, s.fds))
		var done api.Done
		fds, err := api.ReceiveMessage(s.conn.UnixConn, &done)
		api.CloseAll(fds)
		if s.fail(err); done.Error != "" {
			s.fail(errors.New(done.Error))
		}
	}
	s.items, s.fds = nil, nil
	s.close()
}

func (s *sender) close() {
	for _, f := range s.files {
		_ = f.Close()
	}
	s.files = nil
}

// end says that this was all.
func (s *sender) end(program string) error {
	if len(s.fds) > 0 {
		s.flush(api.Handed{})
	}
	if s.err == nil {
		s.fail(api.SendMessage(s.conn.UnixConn, api.Handed{Last: true, Version: handVersion, Program: program}, nil))
	}
	return s.err
}
