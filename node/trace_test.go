package node

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"testing"
	"time"

	"fairlead/link"
	"fairlead/node/api"
	"fairlead/node/network"
	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/test/lab"
	"fairlead/trace"
)

// A member is a container on the switch of a node, without init and TAP: what
// tests of the tables need.
type member struct {
	*container
	packettest.Station
	far *link.Mem
}

func (h *handlers) join(t testing.TB, name string) *member {
	t.Helper()
	c, err := h.create(api.CreateRequest{Name: name, Command: []string{"sh"}})
	if err != nil {
		t.Fatal(err)
	}
	near, far := link.NewPair(4 * packet.BatchFrames)
	e := &endpoint{owner: c, kind: "tap", iface: "eth0", members: 1}
	if e.port, err = h.net.Attach(network.Endpoint{
		Name: c.name, Container: c.number, MAC: c.mac, Addr: c.addr.Addr(), Queue: near,
	}); err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	c.running, c.endpoint, c.started = true, e, time.Now()
	h.mu.Unlock()
	return &member{c, packettest.Station{MAC: c.mac, IP: c.addr.Addr()}, far}
}

func (m *member) send(t testing.TB, frames ...[]byte) {
	t.Helper()
	for _, b := range frames {
		if _, err := m.far.WriteBatch([]*packet.Frame{{B: b}}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTraceAfterTrace: a client that comes as the last one leaves gets what is
// recorded from its first moment on.
func TestTraceAfterTrace(t *testing.T) {
	h := newHandlers(t)
	web, db := h.join(t, "web"), h.join(t, "db")
	for i := range 200 {
		w, err := h.tracing.watch()
		if err != nil {
			t.Fatal(err)
		}
		web.send(t, packettest.ICMPEcho(web.Station, db.Station, 1, uint16(i), nil))
		select {
		case b := <-w.batches:
			if len(b.records) == 0 {
				t.Fatal("an empty batch")
			}
		case <-time.After(2 * time.Second):
			t.Fatalf("watcher %d was told nothing", i)
		}
		h.tracing.leave(w)
	}
	if h.net.Switch() == nil || len(h.tracing.watchers) != 0 {
		t.Error("somebody still watches")
	}
}

// TestTraceWatchersAreBounded in number, and each in what it may owe.
func TestTraceWatchersAreBounded(t *testing.T) {
	h := newHandlers(t)
	var all []*watcher
	for range maxWatchers {
		w, err := h.tracing.watch()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, w)
	}
	_, err := h.tracing.watch()
	refused(t, err, "16 clients are tracing already, which is all this node serves")
	for _, w := range all {
		h.tracing.leave(w)
	}
	if w, err := h.tracing.watch(); err != nil {
		t.Error(err)
	} else {
		h.tracing.leave(w)
	}
}

func TestSlowWatcherIsToldItsLosses(t *testing.T) {
	w := newWatcher()
	want, sent := uint64(0), 0
	for i := range cap(w.batches) + 3 {
		w.offer(batch{records: make([]trace.Record, 2), lost: 1})
		if i >= cap(w.batches) {
			want += 3
		}
		sent++
	}
	for range cap(w.batches) {
		if b := <-w.batches; b.lost != 1 {
			t.Errorf("%d lost before a batch that had room", b.lost)
		}
	}
	w.offer(batch{records: make([]trace.Record, 1)})
	if b := <-w.batches; b.lost != want {
		t.Errorf("told of %d lost, want %d", b.lost, want)
	}
	w.offer(batch{records: make([]trace.Record, 1)})
	if b := <-w.batches; b.lost != 0 {
		t.Errorf("told again of %d lost", b.lost)
	}
	if most := cap(w.batches) * 4096 * 400; most > 16<<20 {
		t.Errorf("a client that does not read costs up to %d bytes", most)
	}
}

// follow streams a trace and returns a function that reads its next line.
func (r *rig) follow(t *testing.T, query string) (next func() (api.TraceLine, error), stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(r.ctx)
	body, err := r.Stream(ctx, "/v1/trace"+query)
	if err != nil {
		t.Fatal(err)
	}
	lines := json.NewDecoder(bufio.NewReader(body))
	return func() (l api.TraceLine, err error) {
			err = lines.Decode(&l)
			return l, err
		}, func() {
			cancel()
			_ = body.Close()
		}
}

func TestTraceEndsWithTheNode(t *testing.T) {
	for name, end := range map[string]func(r *rig){
		"down": func(r *rig) {
			if err := r.Post(r.ctx, "/v1/down", api.DownRequest{}, nil); err != nil {
				t.Error(err)
			}
		},
		"signal": func(r *rig) { r.cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			lab.NoLeaks(t)
			r := serve(t)
			r.ctx = context.Background()
			next, stop := r.follow(t, "")
			defer stop()
			start := time.Now()
			end(r)
			if _, err := next(); !errors.Is(err, io.EOF) {
				t.Errorf("the stream ended with %v", err)
			}
			r.ended(5 * time.Second)
			if d := time.Since(start); d > 700*time.Millisecond {
				t.Errorf("the node took %v to end, as if it had waited for the stream", d)
			}
		})
	}
}
