package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/node/api"
	"fairlead/node/box"
	"fairlead/uplink/sockets"
)

// The other side of handover.go: a node that takes the place of one that runs. Until
// the old one is told that everything works it may go on, so nothing is changed that
// it would miss.

// A takeover is what was handed over, nil for a node that takes nobody's place.
type takeover struct {
	conn   *net.UnixConn
	things map[api.Thing]int // by what they are; what is taken is taken out
	list   []int             // sockets that were handed in
	old    int               // a pidfd of the node that runs, -1 before
	handing
	connections []sockets.Moving // by this host's sockets, by their flows' numbers there
	text        int              // bytes of the handing, and then of connections
	resume      func() error     // has our workers read
	moved       []sockets.Moving // connections that have their flows here
	names       *stub            // where this host asks, until that is answered here
	lost        error            // why not all can be what it was
}

// fail says that something cannot be what it was.
func (t *takeover) fail(err error) {
	if t != nil && t.lost == nil {
		t.lost = err
	}
}

// whole is an error if something cannot.
func (t *takeover) whole() error {
	if t.lost != nil {
		return fmt.Errorf("not all would be as it is: %w", t.lost)
	}
	return nil
}

// take takes a descriptor, -1 if there is none.
func (t *takeover) take(kind, of, which string) int {
	if t == nil {
		return -1
	}
	key := api.Thing{Kind: kind, Of: of, Which: which}
	fd, ok := t.things[key]
	if !ok {
		return -1
	}
	delete(t.things, key)
	return fd
}

// close lets go of what nobody has taken.
func (t *takeover) close() {
	if t == nil {
		return
	}
	for _, fd := range t.things {
		_ = unix.Close(fd)
	}
	api.CloseAll(append(t.list, t.old))
	_ = t.conn.Close()
}

// takeOver asks the node in dir for all it has.
func takeOver(ctx context.Context, conf Config) (t *takeover, h *home, err error) {
	conn, err := api.NewClient(conf.Dir).Upgrade(ctx, "/v1/replace")
	if e := new(api.Error); errors.As(err, &e) && e.Status == http.StatusNotFound {
		return nil, nil, fmt.Errorf("the node in %s is of a version that hands nothing over; `fairlead down --all` ends it", conf.Dir)
	} else if err != nil {
		return nil, nil, err
	}
	t = &takeover{conn: conn, things: make(map[api.Thing]int), old: -1}
	_ = conn.SetDeadline(time.Now().Add(ackWithin + quietWithin + workMost))
	if err = api.SendMessage(conn, api.Replace{Version: conf.Version}, nil); err == nil {
		err = t.receive(conf.Version)
	}
	if err == nil {
		err = t.read()
	}
	if err == nil {
		h, err = t.home(conf.Dir)
	}
	if err != nil {
		t.refuse(err)
		return nil, nil, err
	}
	return t, h, nil
}

// receive takes descriptors, up to the last for now.
func (t *takeover) receive(version string) error {
	for {
		var m api.Handed
		fds, err := api.ReceiveNews(t.conn, &m)
		switch {
		case m.Version > handVersion: // whatever else there is, it may have another meaning
			api.CloseAll(fds)
			return fmt.Errorf("the node that runs is of version %s, which hands over more than this one, %s, can read: `fairlead up --replace` of that version or a later one does", m.Program, version)
		case err != nil:
			return fmt.Errorf("the node that runs: %w", err)
		case m.Error != "":
			return fmt.Errorf("the node that runs: %s", m.Error)
		case m.Last && (m.Version < handVersion || m.Flow != flowBytes || m.Text > maxHanded):
			return fmt.Errorf("the node that runs is of version %s, which hands over in another form than this one, %s, reads; `fairlead down --all` ends it", m.Program, version)
		case m.Last:
			t.text = m.Text
			return api.SendMessage(t.conn, api.Done{}, nil)
		case len(fds) != len(m.Items):
			api.CloseAll(fds)
			return fmt.Errorf("the node that runs sent %d descriptors and named %d", len(fds), len(m.Items))
		}
		for i, item := range m.Items {
			if item.Kind == thingInherited {
				t.list = append(t.list, fds[i])
			} else if _, twice := t.things[item]; twice {
				_ = unix.Close(fds[i])
			} else {
				t.things[item] = fds[i]
			}
		}
		if err := api.SendMessage(t.conn, api.Done{}, nil); err != nil {
			return err
		}
	}
}

// described reads what descriptors alone do not say.
func (t *takeover) described(parse func(text []byte) error) error {
	text := make([]byte, t.text)
	n, err := io.ReadFull(t.conn, text)
	if err == nil {
		err = parse(text)
	}
	if err == nil {
		return nil
	}
	if n < len(text) || errors.As(err, new(*json.SyntaxError)) { // else it waits for what we say
		if err := whyItGoesOn(text[:n], t.conn); err != nil {
			return err
		}
	}
	return fmt.Errorf("read what was handed over: %w", err)
}

// whyItGoesOn is why the old node goes on, if it says so behind what was read, or amid that,
// where it has handed something over before, and closes the connection. If it says nothing
// of the kind that is nil.
func whyItGoesOn(read []byte, from io.Reader) error {
	rest, _ := io.ReadAll(io.LimitReader(from, 4096)) // what there is
	read = append(slices.Clip(read), rest...)
	var m api.Handed
	if i := bytes.LastIndex(read, []byte(`{"error":`)); i < 0 || json.Unmarshal(read[i:], &m) != nil {
		return nil
	}
	return fmt.Errorf("the node that runs: %s", m.Error)
}

// read takes that of all but connections.
func (t *takeover) read() error {
	if err := t.described(t.parse); err != nil {
		return err
	}
	if t.old = t.take(thingNode, "", ""); t.old < 0 {
		return errors.New("the node that runs has not said who it is")
	}
	return nil
}

// home is the node directory, with the lock the old node has: it is one open file.
func (t *takeover) home(dir string) (*home, error) {
	lock := t.take(thingLock, "", "")
	if lock < 0 {
		return nil, errors.New("the node that runs has handed no lock over")
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		_ = unix.Close(lock)
		return nil, fmt.Errorf("node directory: %w", err)
	}
	return &home{root, os.NewFile(uintptr(lock), nodeLock)}, nil
}

// refuse tells the old node to go on.
func (t *takeover) refuse(err error) {
	_ = t.conn.SetDeadline(time.Now().Add(bodyWithin))
	_ = api.SendMessage(t.conn, api.Done{Error: err.Error()}, nil) // or it finds out by our end
	t.close()
}

// reachAll is that of home of what was handed over.
func (t *takeover) reachAll() (back []*comeback) {
	for _, r := range t.Records {
		b := &comeback{record: r}
		b.hold, b.lost = t.reach(r)
		back = append(back, b)
	}
	return back
}

// reach is reachInit of one that was handed over.
func (t *takeover) reach(r *record) (*hold, error) {
	if r.Ended {
		return nil, nil
	}
	h := &hold{pidfd: t.take(thingInit, r.ID, ""), links: make(map[string]int)}
	for _, of := range t.Records {
		if of.ID != r.ID && !(of.ID == r.Share && of.Ended) {
			continue
		}
		for _, p := range of.Places {
			if fd := t.take(thingLink, of.ID, p.ID); fd >= 0 {
				h.links[p.ID] = fd
			}
		}
	}
	fd := t.take(thingChannel, r.ID, "")
	switch {
	case fd < 0 && h.pidfd >= 0:
		return h, errors.New("the node before could not reach it either")
	case fd < 0:
		return h, nil
	}
	var err error
	h.channel, err = box.NewChannel(fd)
	return h, err
}

// takePlace has the node be what the old one is, and then that let go. Its workers
// read nothing until then: both would read the same queues, and a packet of a flow that
// is not there yet would be answered by RST. Nothing is written down, either: after an
// error the old one goes on. Frames pass there until all is done here that takes time.
func (n *Node) takePlace(t *takeover) (err error) {
	t.resume = n.loop.Hold()
	for _, fd := range t.list {
		x, err := identify(fd)
		if err != nil {
			return err
		}
		n.inherited = append(n.inherited, x)
	}
	t.list = nil
	back := t.reachAll()
	defer letGo(back)
	n.adopt(back)
	if t.names, err = t.stub(); err != nil {
		return err
	}
	if n.listener, err = t.control(); err != nil {
		return err
	}
	if err = t.whole(); err == nil {
		err = n.takeTraffic(t)
	}
	if err == nil {
		err = t.whole()
	}
	if err != nil {
		return err
	}
	return t.commit()
}

// takeTraffic has the old node's workers rest, and takes what frames change. Uplinks come
// then: what one says when it begins, to the LAN or to a DHCP server, has an answer, which
// the old node would read.
func (n *Node) takeTraffic(t *takeover) error {
	_ = t.conn.SetDeadline(time.Now().Add(ackWithin + stillMost))
	if err := api.SendMessage(t.conn, api.Done{}, nil); err != nil {
		return fmt.Errorf("the node that runs: %w", err)
	}
	if err := n.takeUp(t); err != nil {
		return err
	}
	if err := t.receive(n.conf.Version); err != nil {
		return err
	}
	if err := t.described(func(text []byte) error { return json.Unmarshal(text, &t.connections) }); err != nil {
		return err
	}
	return n.restoreFlows(t)
}

// moveIn is what is left to be done where nobody else is any more. The old node goes
// on no more, so whatever fails, we do.
func (n *Node) moveIn(t *takeover) {
	for i := range t.moved {
		n.hostWay.Sockets().Take(&t.moved[i])
	}
	if err := t.resume(); err != nil {
		slog.Error("not all is read", "err", err)
	}
	if !box.AwaitEnd(t.old, goneWithin) { // it may be writing a last line
		slog.Warn("the node before has not ended yet")
	}
	if t.names != nil {
		n.dns.answerHost(t.names)
	}
	n.dhcp.speak()
	n.writeDown()
	t.close()
}

// takeUp has the node have the ways out there were.
func (n *Node) takeUp(t *takeover) error {
	for _, l := range n.listLans() {
		for _, s := range t.Running.Uplinks {
			if s.Network != l.id {
				continue
			}
			if err := n.takeOutside(t, l, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// takeOutside takes an uplink, or a host link.
func (n *Node) takeOutside(t *takeover, l *lan, s savedOuter) error {
	if s.Host != "" {
		for item := range t.things {
			if item.Kind == thingHostLink && item.Of == l.id {
				index, _ := strconv.Atoi(item.Which)
				return n.addHostLink(l.name, api.HostLinkRequest{Interface: s.Host, Index: index}, []int{t.take(item.Kind, item.Of, item.Which)})
			}
		}
		return nil
	}
	spec, err := api.ParseUplink(s.Spec)
	if err != nil {
		return err
	}
	fd := t.take(thingUplink, spec.Name, "")
	if fd < 0 {
		return nil // it was lost before, and is listed so
	}
	return n.addUplinkAs(api.UplinkRequest{Network: l.name, Spec: s.Spec, MAC: s.MAC, MTU: s.MTU}, []int{fd}, true)
}

// goneWithin is how long a node may take from its last word to its end, which is a
// matter of milliseconds, but that the kernel closes all it has.
const goneWithin = 5 * time.Second

// commit tells the old node that everything works, and returns once that has let go.
// One that was killed meanwhile has, too, and nobody else has what we have.
func (t *takeover) commit() error {
	err := api.SendMessage(t.conn, api.Done{}, nil)
	if err == nil {
		var done api.Handed
		var fds []int
		fds, err = api.ReceiveNews(t.conn, &done)
		api.CloseAll(fds)
		if err == nil && done.Error != "" {
			err = errors.New(done.Error)
		}
	}
	// Its descriptors go before it is seen to be dead.
	if err != nil && !box.AwaitEnd(t.old, ackWithin) {
		return fmt.Errorf("the node that runs: %w", err)
	}
	return nil
}

// control is the control socket.
func (t *takeover) control() (*controlListener, error) {
	fd := t.take(thingControl, "", "")
	if fd < 0 {
		return nil, errors.New("the node that runs has handed no control socket over")
	}
	f := os.NewFile(uintptr(fd), "control socket")
	defer f.Close()
	return listenerOf(f)
}

// stub is where this host asks for names, nil if it does not.
func (t *takeover) stub() (*stub, error) {
	if t.Running.Names == "" {
		return nil, nil
	}
	at, err := netip.ParseAddrPort(t.Running.Names)
	if err != nil {
		return nil, err
	}
	udp, tcp := t.take(thingNamesUDP, t.Running.Names, ""), t.take(thingNamesTCP, t.Running.Names, "")
	if udp < 0 || tcp < 0 {
		return nil, errors.New("the sockets this host asks by for names were not handed over")
	}
	fu, ft := os.NewFile(uintptr(udp), "names"), os.NewFile(uintptr(tcp), "names")
	defer fu.Close()
	defer ft.Close()
	u, err1 := net.FilePacketConn(fu)
	l, err2 := net.FileListener(ft)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	conn, ok1 := u.(*net.UDPConn)
	listener, ok2 := l.(*net.TCPListener)
	if !ok1 || !ok2 {
		return nil, errors.New("what this host asks by for names is no socket of that kind")
	}
	return &stub{at, conn, listener}, nil
}
