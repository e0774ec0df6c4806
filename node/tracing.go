package node

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"fairlead/gateway"
	"fairlead/node/api"
	"fairlead/node/network"
	"fairlead/packet"
	vswitch "fairlead/switch"
	"fairlead/trace"
)

// tracing shares one recorder among all who watch. While nobody does, the
// switch has none.
type tracing struct {
	node     *Node
	mu       sync.Mutex
	watchers map[*watcher]bool
	recorder *trace.Recorder // nil while nobody watches
	seen     *segments       // record into it
	stop     chan struct{}   // closed once nobody watches
}

// Bounds: how many watch at once, and how many frames one may be behind: two of a
// recorder's rings, which are 5 MB. A client is told of traceSlice frames at once, which
// takes a millisecond.
const (
	maxWatchers = 16
	maxBehind   = 8192
	traceSlice  = 64
)

// A watcher is one client's share: what he has not been told of yet. What does not fit
// is counted as lost.
type watcher struct {
	came chan struct{} // holds one token while there is something to take

	mu      sync.Mutex
	batches []batch // each has frames
	behind  int     // frames in them, and in those he is being told of
	lost    uint64  // after those
}

// A batch is what was recorded between two looks of run.
type batch struct {
	seen    *segments
	records []trace.Record
	lost    uint64 // before them
}

func newWatcher() *watcher { return &watcher{came: make(chan struct{}, 1)} }

// watch has the switch record from now on.
func (t *tracing) watch() *watcher {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.watchers) == 0 {
		t.watchers = make(map[*watcher]bool)
		t.beginLocked()
	}
	w := newWatcher()
	t.watchers[w] = true
	return w
}

// beginLocked and endLocked set the recorder with mu held, so that the end of one trace
// cannot take the recorder of the next one away.
func (t *tracing) beginLocked() {
	t.recorder, t.stop, t.seen = trace.NewRecorder(), make(chan struct{}), t.node.segments()
	t.seen.record(t.recorder)
	go t.run(t.recorder, t.stop)
}

func (t *tracing) endLocked() {
	t.seen.record(nil)
	close(t.stop)
	t.recorder, t.seen = nil, nil
}

// follow goes on with the network and the uplinks there are now, if anybody
// watches. What was recorded before is told with those there were.
func (t *tracing) follow() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.recorder != nil {
		t.passOnLocked()
		t.seen = t.node.segments()
		t.seen.record(t.recorder)
	}
}

func (t *tracing) leave(w *watcher) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.watchers, w)
	if len(t.watchers) == 0 {
		t.endLocked()
	}
}

// traceEvery is how long records are collected before they are passed on. A worker that
// had somebody wake for each frame would carry half as many.
const traceEvery = time.Millisecond

// run passes records on to the watchers until the last one has left.
func (t *tracing) run(r *trace.Recorder, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-r.Wake():
		}
		time.Sleep(traceEvery)
		t.mu.Lock()
		if t.recorder == r { // else who watches now has another one
			t.passOnLocked()
		}
		t.mu.Unlock()
	}
}

// passOnLocked never waits for a client.
func (t *tracing) passOnLocked() {
	records, lost := t.recorder.Take(nil)
	for w := range t.watchers {
		w.offer(batch{t.seen, records, lost})
	}
}

// offer never waits for a client. The records stay as they are: all who watch have the
// same ones.
func (w *watcher) offer(b batch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b.lost += w.lost
	if len(b.records) == 0 || w.behind+len(b.records) > maxBehind {
		w.lost = b.lost + uint64(len(b.records))
		return
	}
	w.batches, w.lost = append(w.batches, b), 0
	w.behind += len(b.records)
	select {
	case w.came <- struct{}{}:
	default: // the last token has not been taken yet
	}
}

// take returns what there is to tell; told says of how many frames that was done.
func (w *watcher) take() []batch {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.batches
	w.batches = nil
	return all
}

func (w *watcher) told(frames int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.behind -= frames
}

// getTrace streams decisions as JSON lines until the client leaves.
func (n *Node) getTrace(rw http.ResponseWriter, r *http.Request) (any, error) {
	var only packet.ContainerID // 0 is all
	if ref := r.URL.Query().Get("container"); ref != "" {
		c, err := n.find(ref)
		if err != nil {
			return nil, err
		}
		if len(n.places(c)) == 0 {
			return nil, fail(http.StatusConflict, "container %s has no port: its network is %s", c.name(), c.networkName())
		}
		if n.describe(c).IP == "" {
			return nil, fail(http.StatusConflict, "container %s has no port any more: its interface was removed from inside", c.name())
		}
		only = c.holder().number
	}
	leave, err := n.tracers.enter(r, "traces")
	if err != nil {
		return nil, err
	}
	defer leave()
	var w *watcher
	owed := compute(func() { w = n.tracing.watch() })
	defer func() {
		owed += compute(func() { n.tracing.leave(w) })
		n.charge(r, owed)
	}()
	rw.Header().Set("Content-Type", "application/x-ndjson")
	rw.WriteHeader(http.StatusOK)
	giveTime(rw)
	flush := http.NewResponseController(rw).Flush
	_ = flush() // the client knows now that recording has begun
	t := telling{n: n, only: only}
	for {
		select {
		case <-r.Context().Done():
			return nil, nil
		case <-n.down:
			return nil, nil
		case <-w.came:
		}
		t.seen = nil // names may be others' by now
		for _, b := range w.take() {
			t.lost += b.lost
			for some := range slices.Chunk(b.records, traceSlice) {
				var text bytes.Buffer
				owed += compute(func() { t.tell(&text, b.seen, some) })
				giveTime(rw)
				_, err := rw.Write(text.Bytes())
				// Whoever waits for a turn may miss what comes later.
				if err != nil || !n.pace.pay(r.Context(), clientNumber(r), owed) {
					return nil, nil //nolint:nilerr // the client has left, nobody hears the error
				}
				owed = 0
				w.told(len(some))
			}
		}
		if flush() != nil {
			return nil, nil
		}
	}
}

// A telling is what one client is being told.
type telling struct {
	n    *Node
	only packet.ContainerID // 0 is all
	lost uint64             // frames, not yet told of

	seen  *segments // whose names are known; nil is none
	names trace.Names
}

// tell writes a line for each record that is about the container, and with the first of
// them how many were lost before.
func (t *telling) tell(text *bytes.Buffer, seen *segments, records []trace.Record) {
	if t.seen != seen {
		t.seen, t.names = seen, t.n.names(seen)
	}
	lines := json.NewEncoder(text)
	for i := range records {
		if t.only != 0 && !seen.concerns(&records[i], t.only) {
			continue
		}
		line := seen.traceLine(&records[i], t.names)
		line.Lost, t.lost = t.lost, 0
		_ = lines.Encode(line) // into memory, and of words and numbers
	}
}

// segments are the networks and the uplinks there are: what is traced and
// counted together.
type segments struct {
	nets    []*network.Network
	uplinks []*network.Uplink
}

func (n *Node) segments() *segments { return &segments{n.networks(), n.theRouter().Uplinks()} }

// each calls fn with each segment and its name.
func (s *segments) each(fn func(name string, sw *vswitch.Switch)) {
	for _, net := range s.nets {
		fn(net.Config().Name, net.Switch())
	}
	for _, u := range s.uplinks {
		fn(u.Name(), u.Switch())
	}
}

// record has all segments record into r, or with nil no longer.
func (s *segments) record(r *trace.Recorder) {
	s.each(func(_ string, sw *vswitch.Switch) { sw.SetRecorder(r) })
}

// net is the network with a number, nil for an uplink and one that has come
// since.
func (s *segments) net(id packet.NetworkID) *network.Network {
	for _, net := range s.nets {
		if net.Config().ID == id {
			return net
		}
	}
	return nil
}

// uplink is the one with a number, nil for a network.
func (s *segments) uplink(id packet.NetworkID) *network.Uplink {
	for _, u := range s.uplinks {
		if u.Network() == id {
			return u
		}
	}
	return nil
}

// name is that of a network or uplink.
func (s *segments) name(id packet.NetworkID) string {
	if u := s.uplink(id); u != nil {
		return u.Name()
	}
	if net := s.net(id); net != nil {
		return net.Config().Name
	}
	return ""
}

// concerns reports whether a container sent the frame, gets a copy or has the
// flow it belongs to: an answer from outside that waits or was dropped is its
// affair as well. Of a flood not every port is named; then it is everybody's. A
// name would not do: a container may have that of one which has ended and left
// its port to another.
func (s *segments) concerns(r *trace.Record, c packet.ContainerID) bool {
	is := func(at packet.Place) bool {
		net := s.net(at.Network)
		if net == nil {
			return false // an uplink's
		}
		p := net.Switch().Port(at.Port)
		return p != nil && p.Config().Container == c
	}
	out, more := r.Out()
	return is(packet.Place{Network: r.Network, Port: r.Port}) || more > 0 || slices.ContainsFunc(out, is) ||
		r.Decision.NAT.Container == c
}

// names gives what is in records its names, as they are now.
func (n *Node) names(s *segments) trace.Names {
	at, routes := n.residents(), make(map[packet.NetworkID][]gateway.Route, len(s.nets))
	for _, net := range s.nets {
		routes[net.Config().ID] = net.Routes()
	}
	return trace.Names{
		Port: func(p packet.Place) string {
			if u := s.uplink(p.Network); u != nil {
				return u.Name()
			}
			net := s.net(p.Network)
			if p.Port == 0 {
				return "network " + s.name(p.Network)
			}
			if net != nil && at.nameOf(net, p.Port) != "" {
				return at.nameOf(net, p.Port)
			}
			return fmt.Sprintf("port %d (gone)", portNumber(p.Port))
		},
		Route: func(from, to packet.NetworkID, dst packet.Addr) string {
			if routes[from] == nil { // it comes in by an uplink
				from = to
			}
			for i := range routes[from] { // most specific first
				if r := &routes[from][i]; r.Network == to && r.Prefix.Contains(dst.Netip()) {
					return routeWords(r)
				}
			}
			return ""
		},
		Rule: n.openingWords,
	}
}

func (s *segments) traceLine(r *trace.Record, names trace.Names) api.TraceLine {
	out, more := r.Out()
	l := api.TraceLine{
		Time: r.Wall, Network: s.name(r.Network), In: names.Port(packet.Place{Network: r.Network, Port: r.Port}), Out: []string{}, Copies: len(out) + more,
		Bytes: r.Len, Segments: r.Segments, Summary: r.Summary(),
		Verdict: r.Decision.Verdict.String(), Reason: r.Decision.Reason.String(), Answer: r.Decision.Originate.String(),
		Line: r.Line(names), Walk: r.Walk(names),
	}
	for _, p := range out {
		l.Out = append(l.Out, names.Port(p))
	}
	return l
}
