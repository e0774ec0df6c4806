package node

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"fairlead/link"
	"fairlead/node/api"
	"fairlead/node/network"
	"fairlead/packet"
	"fairlead/packet/packettest"
	vswitch "fairlead/switch"
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
	return h.joinAs(t, api.CreateRequest{Name: name}, 4*packet.BatchFrames)
}

// joinAs is join for other requests. There is room for so many frames on their way.
func (h *handlers) joinAs(t testing.TB, req api.CreateRequest, depth int) *member {
	t.Helper()
	req.Command = []string{"sh"}
	c, err := h.create(req)
	if err != nil {
		t.Fatal(err)
	}
	near, far := link.NewPair(depth)
	return h.plugIn(t, c, near, far)
}

// plugIn gives a container one end of a pair for a link.
func (h *handlers) plugIn(t testing.TB, c *container, near vswitch.Queue, far *link.Mem) *member {
	t.Helper()
	var err error
	a := c.attachments[0]
	e := &endpoint{net: a.lan.net, kind: "tap", index: 2}
	if e.port, err = e.net.Attach(network.Endpoint{
		Name: c.name(), Container: c.number, MAC: a.mac, Addr: a.addr.Addr(), Queue: near,
	}); err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	a.endpoint = e
	c.running, c.owner, c.members, c.started = true, c, 1, time.Now()
	h.mu.Unlock()
	return &member{c, packettest.Station{MAC: a.mac, IP: a.addr.Addr()}, far}
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
		w := h.tracing.watch()
		web.send(t, packettest.ICMPEcho(web.Station, db.Station, 1, uint16(i), nil))
		select {
		case <-w.came:
			if all := w.take(); len(all) != 1 || len(all[0].records) == 0 {
				t.Fatalf("%d batches, or an empty one", len(all))
			}
		case <-time.After(2 * time.Second):
			t.Fatalf("watcher %d was told nothing", i)
		}
		h.tracing.leave(w)
	}
	if h.networks()[0].Switch() == nil || len(h.tracing.watchers) != 0 {
		t.Error("somebody still watches")
	}
}

// TestTraceFollowsTheNetwork: who watches while `up` sets the network up anew
// sees what happens on the new one.
func TestTraceFollowsTheNetwork(t *testing.T) {
	h := newHandlers(t)
	w := h.tracing.watch()
	defer h.tracing.leave(w)
	if code, text := h.call("POST", "/v1/up", `{"bip":"10.0.0.1/24"}`); code != 200 {
		t.Fatal(text)
	}
	web := h.join(t, "web")
	web.send(t, packettest.ARPRequest(web.Station, web.IP))
	select {
	case <-w.came:
		b := w.take()[0]
		if line := b.seen.traceLine(&b.records[0], h.names(b.seen)); line.In != "web" {
			t.Errorf("%+v", line)
		}
	case <-time.After(5 * time.Second):
		t.Error("nothing is seen of the new network")
	}
}

// TestTraceLosesNothing: what was recorded before the network changed is told with what
// comes after.
func TestTraceLosesNothing(t *testing.T) {
	h := newHandlers(t)
	web := h.join(t, "web")
	w := h.tracing.watch()
	defer h.tracing.leave(w)
	const frames = 3 * packet.BatchFrames
	for range frames {
		web.send(t, packettest.ARPRequest(web.Station, web.IP))
		h.tracing.follow()
	}
	lab.Eventually(t, 10*time.Second, func() error {
		if w.mu.Lock(); w.behind < frames {
			defer w.mu.Unlock()
			return fmt.Errorf("%d of %d frames are told", w.behind, frames)
		}
		w.mu.Unlock()
		return nil
	})
}

// TestTracesArePaid: who traces pays for the beginning and the end, and for the names in
// what it is told, however many containers there are and however little is told at a time.
func TestTracesArePaid(t *testing.T) {
	h := newHandlers(t)
	traces := func(flushed func(hangUp func())) {
		t.Helper()
		ctx, hangUp := context.WithCancel(t.Context())
		w, r := &listened{ResponseRecorder: httptest.NewRecorder(), flushed: func() { flushed(hangUp) }}, httptest.NewRequest("GET", "/v1/trace", nil).WithContext(ctx)
		h.pace = newPace()
		paid := meter(h.pace, paceBurst/2)
		took := compute(func() { _, _ = h.getTrace(w, by(h.conn, r)) })
		if paid := paid(); paid < took/4 {
			t.Errorf("%v are paid of %v", paid, took)
		}
	}
	traces(func(hangUp func()) { hangUp() })

	const many = 2000
	fake := make([]string, many)
	h.mu.Lock()
	for i := range fake {
		fake[i] = fmt.Sprint("fake", i)
		h.containers[fake[i]] = &container{number: packet.ContainerID(1000 + i)}
	}
	h.mu.Unlock()
	batches := 1000
	traces(func(hangUp func()) {
		if batches == 0 {
			hangUp()
			return
		}
		seen := h.segments()
		h.tracing.mu.Lock()
		defer h.tracing.mu.Unlock()
		for w := range h.tracing.watchers {
			for ; batches > 0; batches-- {
				w.offer(batch{seen: seen, records: make([]trace.Record, 1)})
			}
		}
	})
	h.mu.Lock()
	for _, id := range fake {
		delete(h.containers, id)
	}
	h.mu.Unlock()
}

// TestTraceWatchersAreBounded in number.
func TestTraceWatchersAreBounded(t *testing.T) {
	h := newHandlers(t)
	for pid := range maxWatchers {
		h.tracers.take(-1 - pid)
	}
	code, text := h.call("GET", "/v1/trace", "")
	if code != 429 || !strings.Contains(text, "has 0 traces, which is all it may have: 16 of 16 are taken") {
		t.Errorf("%d %s", code, text)
	}
}

// However little at a time the workers have to tell, what counts is how many frames that are.
func TestSlowWatcherIsToldItsLosses(t *testing.T) {
	w, one := newWatcher(), make([]trace.Record, 1)
	for range maxBehind {
		w.offer(batch{records: one})
	}
	for range 3 {
		w.offer(batch{records: make([]trace.Record, 2), lost: 1})
	}
	all := w.take()
	if len(all) != maxBehind || all[0].lost != 0 {
		t.Fatalf("%d batches of one frame, the first after %d lost", len(all), all[0].lost)
	}
	if w.offer(batch{records: one}); w.take() != nil {
		t.Error("there is room before he was told")
	}
	if w.offer(batch{}); w.take() != nil {
		t.Error("there is something to be told of nothing")
	}
	w.told(maxBehind)
	w.offer(batch{records: one})
	w.offer(batch{records: one})
	if all := w.take(); len(all) != 2 || all[0].lost != 10 || all[1].lost != 0 {
		t.Errorf("told of %d and %d lost in %d batches, want 10 and none", all[0].lost, all[1].lost, len(all))
	}
	if most := maxBehind * int(unsafe.Sizeof(trace.Record{})); most > 5<<20 {
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
			if d := time.Since(start); d > leaveWithin*3/4 {
				t.Errorf("the node took %v to end, as if it had waited for the stream", d)
			}
		})
	}
}

// TestTraceStream is what a client of GET /v1/trace reads.
func TestTraceStream(t *testing.T) {
	h := newHandlers(t)
	web, db, cache := h.join(t, "web"), h.join(t, "db"), h.join(t, "cache")
	if _, err := h.create(api.CreateRequest{Name: "none", Network: "none", Command: []string{"sh"}}); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	defer server.Close()
	stream := func(query string) (*json.Decoder, func()) {
		t.Helper()
		resp, err := http.Get(server.URL + "/v1/trace" + query)
		if err != nil || resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/x-ndjson" {
			t.Fatalf("%v, %v", resp, err)
		}
		return json.NewDecoder(resp.Body), func() { _ = resp.Body.Close() }
	}
	all, stopAll := stream("")
	defer stopAll()
	ofCache, stopCache := stream("?container=cache")
	defer stopCache()

	web.send(t, packettest.ICMPEcho(web.Station, db.Station, 1, 1, nil)) // flooded
	db.send(t, packettest.ICMPEcho(db.Station, web.Station, 1, 2, nil))  // not cache's
	gw := packettest.Station{MAC: h.networks()[0].GatewayMAC(), IP: h.networks()[0].Config().Gateway.Addr()}
	cache.send(t, packettest.ICMPEcho(cache.Station, gw, 1, 3, nil))

	read := func(d *json.Decoder) (l api.TraceLine) {
		t.Helper()
		if err := d.Decode(&l); err != nil {
			t.Fatal(err)
		}
		return l
	}
	lines := map[string]api.TraceLine{}
	for range 3 {
		l := read(all)
		lines[l.In] = l
	}
	if l := lines["web"]; l.Network != "default" || l.Copies != 2 || !slices.Equal(l.Out, []string{"db", "cache"}) || l.Verdict != "flood" ||
		l.Reason != "unknown-mac" || l.Bytes != 42 || l.Segments != 1 || l.Summary != "172.17.0.2 > 172.17.0.3 ICMP echo request" ||
		len(l.Walk) != 6 || !strings.Contains(l.Line, "web → db, cache") || time.Since(l.Time) > time.Minute {
		t.Errorf("%+v", l)
	}
	if l := lines["db"]; l.Verdict != "unicast" || !slices.Equal(l.Out, []string{"web"}) {
		t.Errorf("%+v", l)
	}
	if l := lines["cache"]; l.Verdict != "gateway" || l.Answer != "echo reply" || l.Out == nil || len(l.Out) != 0 {
		t.Errorf("%+v", l)
	}
	seen := map[string]bool{}
	for range 2 {
		seen[read(ofCache).In] = true
	}
	if !seen["web"] || !seen["cache"] {
		t.Errorf("cache's trace has frames of %v", seen)
	}

	for query, want := range map[string]string{
		"?container=nobody": "No such container: nobody; `fairlead ps` lists those that run",
		"?container=none":   "container none has no port: its network is none",
	} {
		if code, text := h.call("GET", "/v1/trace"+query, ""); code/100 != 4 || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s", query, code, text)
		}
	}
	// A port that goes while it is traced is still named.
	segments := h.segments()
	l := segments.traceLine(&trace.Record{Port: 77, Decision: packet.Decision{Verdict: packet.Unicast}}, h.names(segments))
	if l.In != "port 77 (gone)" {
		t.Errorf("%+v", l)
	}
}

// TestFloodConcernsEverybody: of a flood to more ports than are named it is not
// known who is not among them.
func TestFloodConcernsEverybody(t *testing.T) {
	h := newHandlers(t)
	web, db, cache := h.join(t, "web"), h.join(t, "db"), h.join(t, "cache")
	r := &trace.Record{Network: h.networks()[0].Config().ID, Port: web.attachments[0].endpoint.port.ID(), Decision: packet.Decision{Verdict: packet.Flood}}
	r.AddEgress(db.attachments[0].endpoint.port.ID())
	concerned := func(m *member) bool { return h.segments().concerns(r, m.number) }
	if !concerned(web) || !concerned(db) || concerned(cache) {
		t.Error("a frame concerns who sent it and who gets it")
	}
	r.Copies = len(r.Egress) + 1
	if !concerned(cache) {
		t.Error("a flood to more ports than are named passes cache by")
	}
}

// TestNamesake: the port of a container that has ended, and whose namespace
// another one shares, is that one's, and nobody's who has got the name since.
func TestNamesake(t *testing.T) {
	h := newHandlers(t)
	x, db := h.join(t, "x"), h.join(t, "db")
	y, err := h.create(api.CreateRequest{Name: "y", Network: "none", Command: []string{"sh"}})
	if err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	y.owner, y.share, y.running, y.pid = x.container, x.container, true, 4711
	x.members++
	h.mu.Unlock()
	h.end(x.container)
	fresh := h.join(t, "x")
	ports := map[string]api.Port{}
	for _, p := range get[[]api.Switch](t, h, "/v1/switches")[0].Ports {
		ports[p.Container] = p
	}
	if p := ports["y"]; len(ports) != 3 || p.ID != y.id || p.Pid != 4711 || p.IP != x.IP.String() {
		t.Errorf("ports %+v", ports)
	}

	gw := packettest.Station{MAC: h.networks()[0].GatewayMAC(), IP: h.networks()[0].Config().Gateway.Addr()}
	db.send(t, packettest.ICMPEcho(db.Station, gw, 1, 1, nil))
	lab.Eventually(t, 10*time.Second, func() error { // so that nothing is flooded to all
		if macs := get[[]api.MAC](t, h, "/v1/macs"); len(macs) != 2 {
			return fmt.Errorf("learned %+v", macs)
		}
		return nil
	})
	server := httptest.NewServer(h)
	defer server.Close()
	lines := map[string]*json.Decoder{}
	for _, name := range []string{"x", "y"} {
		resp, err := http.Get(server.URL + "/v1/trace?container=" + name)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%v, %v", resp, err)
		}
		defer resp.Body.Close()
		lines[name] = json.NewDecoder(resp.Body)
	}
	for range 2 {
		x.send(t, packettest.ICMPEcho(x.Station, db.Station, 1, 1, nil))
		fresh.send(t, packettest.ICMPEcho(fresh.Station, db.Station, 1, 1, nil))
	}
	for name, d := range lines {
		for range 2 {
			var l api.TraceLine
			if err := d.Decode(&l); err != nil {
				t.Fatal(err)
			}
			if l.In != name || !slices.Equal(l.Out, []string{"db"}) {
				t.Errorf("trace of %s: %s", name, l.Line)
			}
		}
	}
	h.end(y)
}
