package node

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"

	"fairlead/node/api"
	"fairlead/node/network"
	"fairlead/packet"
	"fairlead/trace"
)

// tracing shares one recorder among all who watch. While nobody does, the
// switch has none.
type tracing struct {
	node     *Node
	mu       sync.Mutex
	watchers map[*watcher]bool
	stop     chan struct{}
}

// maxWatchers bounds who watches at once.
const maxWatchers = 16

// A watcher is one client's share: a bounded queue of batches; what does not
// fit is counted as lost.
type watcher struct {
	batches chan batch
	mu      sync.Mutex
	lost    uint64
}

type batch struct {
	net     *network.Network
	records []trace.Record
	lost    uint64
}

func (t *tracing) watch() (*watcher, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.watchers) >= maxWatchers {
		return nil, fail(http.StatusConflict, "%d clients are tracing already, which is all this node serves", maxWatchers)
	}
	w := &watcher{batches: make(chan batch, 64)}
	if t.watchers == nil {
		t.watchers = make(map[*watcher]bool)
	}
	t.watchers[w] = true
	if len(t.watchers) == 1 {
		t.stop = make(chan struct{})
		go t.run(t.node.network(), trace.NewRecorder(), t.stop)
	}
	return w, nil
}

func (t *tracing) leave(w *watcher) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.watchers, w)
	if len(t.watchers) == 0 {
		close(t.stop)
	}
}

// run passes records on to the watchers until the last one has left.
func (t *tracing) run(net *network.Network, r *trace.Recorder, stop chan struct{}) {
	net.Switch().SetRecorder(r)
	defer net.Switch().SetRecorder(nil)
	for {
		select {
		case <-stop:
			return
		case <-r.Wake():
		}
		records, lost := r.Take(nil)
		t.mu.Lock()
		for w := range t.watchers {
			w.offer(batch{net, records, lost})
		}
		t.mu.Unlock()
	}
}

func (w *watcher) offer(b batch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b.lost += w.lost
	select {
	case w.batches <- b:
		w.lost = 0
	default:
		w.lost += uint64(len(b.records)) + b.lost - w.lost
	}
}

// getTrace streams decisions as JSON lines until the client leaves.
func (n *Node) getTrace(rw http.ResponseWriter, r *http.Request) (any, error) {
	only := r.URL.Query().Get("container")
	if only != "" {
		c, err := n.find(only)
		if err != nil {
			return nil, err
		}
		if c.addressOwner() == nil {
			return nil, fail(http.StatusConflict, "container %s has no port: its network is %s", c.name, c.networkName())
		}
		only = c.addressOwner().name
	}
	w, err := n.tracing.watch()
	if err != nil {
		return nil, err
	}
	defer n.tracing.leave(w)
	rw.Header().Set("Content-Type", "application/x-ndjson")
	rw.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(rw).Flush
	_ = flush() // the client knows now that recording has begun
	lines := json.NewEncoder(rw)
	for {
		select {
		case <-r.Context().Done():
			return nil, nil
		case <-n.down:
			return nil, nil
		case b := <-w.batches:
			for i := range b.records {
				line := traceLine(b.net, &b.records[i])
				if only != "" && !line.concerns(only) {
					continue
				}
				line.Lost, b.lost = b.lost, 0
				if lines.Encode(line.TraceLine) != nil {
					return nil, nil
				}
			}
			if flush() != nil {
				return nil, nil
			}
		}
	}
}

// A wireLine is a line on its way out.
type wireLine struct{ api.TraceLine }

func (l *wireLine) concerns(name string) bool {
	if l.In == name {
		return true
	}
	for _, out := range l.Out {
		if out == name {
			return true
		}
	}
	return false
}

func traceLine(net *network.Network, r *trace.Record) wireLine {
	names := func(_ packet.NetworkID, p packet.PortID) string {
		if name := portName(net, p); name != "" {
			return name
		}
		return fmt.Sprintf("port %d (gone)", portNumber(p))
	}
	l := api.TraceLine{
		Time: r.Wall, Network: net.Config().Name, In: names(r.Network, r.Port), Out: []string{}, Copies: r.Copies,
		Bytes: r.Len, Segments: r.Segments, Summary: r.Summary(),
		Verdict: r.Decision.Verdict.String(), Reason: r.Decision.Reason.String(), Answer: r.Decision.Originate.String(),
		Line: r.Line(names), Walk: r.Walk(names),
	}
	for _, p := range r.Named() {
		l.Out = append(l.Out, names(r.Network, p))
	}
	return wireLine{l}
}
