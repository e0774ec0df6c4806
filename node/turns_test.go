package node

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fairlead/node/api"
	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/test/lab"
)

// as is a request of a process.
func as(pid int, r *http.Request) *http.Request { return by(&controlConn{pid: pid}, r) }

// by is one that has come by a connection.
func by(conn *controlConn, r *http.Request) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), connKey{}, conn))
}

// TestTablesInTurn: few answers as long as a table are made at a time. A process that
// does not read its own waits for itself, and another one is told at once.
func TestTablesInTurn(t *testing.T) {
	n := &Node{tables: newPlaces(maxTables), pace: newPace()}
	ask := func(h handler, ctx context.Context, pid int) error {
		_, err := n.inTurn(h)(httptest.NewRecorder(), as(pid, httptest.NewRequest("GET", "/v1/macs", nil).WithContext(ctx)))
		return err
	}
	entered, leave := make(chan struct{}), make(chan struct{})
	slow := func(http.ResponseWriter, *http.Request) (any, error) {
		entered <- struct{}{}
		<-leave
		return done, nil
	}
	quick := func(http.ResponseWriter, *http.Request) (any, error) { return done, nil }
	told := make(chan error, maxTables)
	const each = maxTables / 4
	for range each {
		go func() { told <- ask(slow, t.Context(), 1) }()
		<-entered
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := ask(quick, gone, 1); err == nil || !strings.Contains(err.Error(), "try again") {
		t.Errorf("one more of the same process: %v", err)
	}
	if err := ask(quick, t.Context(), 2); err != nil {
		t.Errorf("another process: %v", err)
	}
	close(leave)
	for range each {
		if err := <-told; err != nil {
			t.Error(err)
		}
	}
	if n.tables.inUse() != 0 {
		t.Errorf("at the end %d places are taken", n.tables.inUse())
	}
}

// TestRequestsThatGoOn: one process that waits for much keeps no other from waiting, nor
// itself from short requests.
func TestRequestsThatGoOn(t *testing.T) {
	h := newHandlers(t)
	const pid = 4711
	for h.goingOn.take(pid) {
	}
	wait := func(pid int) (int, string) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		w := httptest.NewRecorder()
		h.serve(h.long(func(http.ResponseWriter, *http.Request) (any, error) { return done, nil })).
			ServeHTTP(w, as(pid, httptest.NewRequest("GET", "/v1/containers/web/wait", nil).WithContext(ctx)))
		return w.Code, w.Body.String()
	}
	if code, text := wait(pid); code != 429 || !strings.Contains(text, "process 4711 has ") || !strings.Contains(text, " requests that go on, which is all it may have") {
		t.Errorf("%d %s", code, text)
	}
	if code, text := wait(pid + 1); code != 200 {
		t.Errorf("another process: %d %s", code, text)
	}
	if h.watching != 0 {
		t.Errorf("%d go on", h.watching)
	}
}

// pipes is a listener for connections in memory, whose time is that of a bubble.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	conn, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}

func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

// served serves connections until the test ends.
func (h *handlers) served(t *testing.T, conns ...net.Conn) {
	server, l := h.newServer(), make(pipes, len(conns))
	for _, conn := range conns {
		l <- conn
	}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() {
		close(l)
		_ = server.Close()
	})
}

// TestAnswersNobodyReads: whatever is answered, who does not read it is cut off.
func TestAnswersNobodyReads(t *testing.T) {
	h := newHandlers(t)
	code, text := h.call("POST", "/v1/containers", `{"name":"web","command":["sh"],"network":"none","detached":true}`)
	var c api.Created
	if err := json.Unmarshal([]byte(text), &c); err != nil || code != 201 && code != 200 {
		t.Fatalf("%d %s", code, text)
	}
	if err := os.WriteFile(c.Log, []byte("a line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, request := range map[string]string{
		"a table":      "GET /v1/macs HTTP/1.1\r\nHost: node\r\n\r\n",
		"flows":        "GET /v1/flows HTTP/1.1\r\nHost: node\r\n\r\n",
		"one thing":    "GET /v1/containers/web HTTP/1.1\r\nHost: node\r\n\r\n",
		"an error":     "GET /v1/containers/nobody HTTP/1.1\r\nHost: node\r\n\r\n",
		"no route":     "GET /v2 HTTP/1.1\r\nHost: node\r\n\r\n",
		"a log":        "GET /v1/containers/web/logs HTTP/1.1\r\nHost: node\r\n\r\n",
		"what follows": "GET /v1/containers/web/logs?follow=1 HTTP/1.1\r\nHost: node\r\n\r\n",
		"a trace":      "GET /v1/trace HTTP/1.1\r\nHost: node\r\n\r\n",
		"no HTTP":      "SSH-2.0\r\n\r\n",
	} {
		synctest.Test(t, func(t *testing.T) {
			h.pace = newPace() // by the clock of the bubble
			ours, theirs := net.Pipe()
			h.served(t, theirs)
			if _, err := io.WriteString(ours, request); err != nil {
				t.Error(err)
			}
			time.Sleep(answerWithin + time.Second)
			if size, err := ours.Read(make([]byte, 4096)); !errors.Is(err, io.EOF) {
				t.Errorf("%s: after %v there are still %d bytes (%v)", what, answerWithin, size, err)
			}
			_ = ours.Close()
		})
	}
	h.pace = newPace()
	if h.goingOn.inUse()+h.tables.inUse()+h.tracers.inUse() != 0 {
		t.Error("somebody still has a place")
	}
}

// TestFlowsInSlices: flows are told in slices and are one list, in the order of their
// numbers, and what no rule counts is the sum of all slices.
func TestFlowsInSlices(t *testing.T) {
	h := newHandlers(t)
	web := h.join(t, "web")
	up := h.uplink(t, "up0")
	gw := packettest.Station{MAC: h.lans[0].net.GatewayMAC(), IP: host.IP}
	web.send(t, packettest.ARPRequest(web.Station, h.lans[0].net.Config().Gateway.Addr()))
	web.settled(t, 1)
	web.send(t, packettest.UDP(web.Station, gw, 1000, 53, nil))
	receives(t, up.far, "question for the router", func(f *packet.Frame) bool {
		return f.EtherType == packet.EtherTypeARP && packet.ARP(f.Packet()).TargetIP() == up.router.IP.As4()
	})
	up.send(t, packettest.ARPReply(up.router, up.us))
	const many = 2*slice + 100
	for i := range many - 1 {
		web.send(t, packettest.UDP(web.Station, gw, uint16(2000+i), 53, nil))
		if i%packet.BatchFrames == 0 { // no more than there is room for on the way
			web.settled(t, uint64(i+3))
		}
	}
	web.settled(t, many+1)
	drained := packet.NewBatch()
	lab.Eventually(t, 10*time.Second, func() error {
		drained.Reset()
		_, _ = up.far.ReadBatch(drained)
		if flows := get[[]api.Flow](t, h, "/v1/flows"); len(flows) != many {
			return fmt.Errorf("%d flows", len(flows))
		}
		return nil
	})
	last := uint32(0)
	for _, f := range get[[]api.Flow](t, h, "/v1/flows") {
		if f.Number <= last {
			t.Fatalf("%d follows %d", f.Number, last)
		}
		last = f.Number
	}

	ctx, hangUp := context.WithCancel(t.Context())
	w, r := &listened{ResponseRecorder: httptest.NewRecorder(), wrote: hangUp}, httptest.NewRequest("GET", "/v1/flows", nil).WithContext(ctx)
	paid := meter(h.pace, paceBurst+5*time.Millisecond)
	took := compute(func() { _, _ = h.getFlows(w, by(h.conn, r)) })
	if paid := paid(); paid < (took-paceLeast)/2 {
		t.Errorf("who hangs up pays %v of %v", paid, took)
	}
}

// listened is an answer of which the test hears as it is written and flushed.
type listened struct {
	*httptest.ResponseRecorder
	wrote, flushed func() // nil is nothing
}

func (l *listened) Write(b []byte) (int, error) {
	if l.wrote != nil {
		l.wrote()
	}
	return l.ResponseRecorder.Write(b)
}

func (l *listened) Flush() {
	if l.flushed != nil {
		l.flushed()
	}
}

// inDebt has five processes owe more than they can ever pay, until the test ends.
func inDebt(t *testing.T, p *pace) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for pid := range 5 {
		wg.Go(func() { p.pay(ctx, 100+pid, time.Hour) })
	}
	time.Sleep(time.Minute)
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}

// round is how long each of them has one turn.
const round = 5 * paceMost * paceShare

// TestTurnsOfARequest: of each other process a client waits for one turn, for all it takes
// to say a request: the connection, the header and the body.
func TestTurnsOfARequest(t *testing.T) {
	ours, theirs := conns(t)
	synctest.Test(t, func(t *testing.T) {
		n := &Node{pace: newPace()}
		inDebt(t, n.pace)
		conn := &controlConn{UnixConn: ours, pid: 1}
		conn.inPace(n.pace)
		began := time.Now()
		said := func(size int) {
			if _, err := theirs.Write(make([]byte, size)); err != nil {
				t.Error(err)
			}
			if _, err := io.ReadFull(conn, make([]byte, size)); err != nil {
				t.Error(err)
			}
		}
		said(200)
		n.inPace(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			for range 25 { // reads of a body
				said(8 << 10)
			}
		})).ServeHTTP(httptest.NewRecorder(), by(conn, httptest.NewRequest("POST", "/v1/containers", nil)))
		if d := time.Since(began); d > round+paceMost*paceShare {
			t.Errorf("it took %v, and one turn of each of the others is %v", d, round)
		}
		if conn.owed.Load() != int64(25*paceRead) {
			t.Errorf("it owes %v", time.Duration(conn.owed.Load()))
		}
	})
}

// TestHangsUp: what was done for who hangs up before he is charged is paid for.
func TestHangsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &Node{pace: newPace()}
		inDebt(t, n.pace)
		ctx, hangUp := context.WithCancel(t.Context())
		began := time.Now()
		n.inPace(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			time.Sleep(paceMost)
			hangUp()
		})).ServeHTTP(httptest.NewRecorder(), as(1, httptest.NewRequest("POST", "/v1/containers", nil).WithContext(ctx)))
		if d := time.Since(began); d < 2*round {
			t.Errorf("it was paid for within %v, and two turns take %v", d, 2*round)
		}
	})
}

// TestReadsArePaid: who sends a request byte by byte waits for his turns meanwhile.
func TestReadsArePaid(t *testing.T) {
	ours, theirs := conns(t)
	synctest.Test(t, func(t *testing.T) {
		p := newPace()
		inDebt(t, p)
		conn, began := &controlConn{UnixConn: ours, pid: 1}, time.Now()
		conn.inPace(p)
		const bytes = 100
		for i := range bytes {
			if _, err := theirs.Write([]byte("G")); err != nil {
				t.Fatal(err)
			}
			size, err := 0, error(nil)
			if b := make([]byte, 2); i%2 == 0 {
				size, err = conn.Read(b)
			} else { // of a message
				size, _, _, _, err = conn.ReadMsgUnix(b, nil)
			}
			if size != 1 || err != nil {
				t.Fatalf("%d bytes, %v", size, err)
			}
		}
		const turns = (paceLeast + bytes*paceRead) / oweMost
		if d := time.Since(began); d < (turns-1)*round {
			t.Errorf("%d bytes took %v, and %d turns take %v", bytes, d, turns, turns*round)
		}
	})
}

// TestLeavesUnasked: who connects and leaves pays for that before his place is another's,
// whatever he has said, and who has hung up does not wait.
func TestLeavesUnasked(t *testing.T) {
	one, two := conns(t)
	synctest.Test(t, func(t *testing.T) {
		n, l := &Node{pace: newPace()}, &controlListener{places: newPlaces(16)}
		inDebt(t, n.pace)
		leaves := func(conn *controlConn) {
			l.places.take(1)
			began := time.Now()
			if err := errors.Join(conn.Close(), conn.Close()); !errors.Is(err, net.ErrClosed) || time.Since(began) > 0 {
				t.Errorf("to hang up took %v, %v", time.Since(began), err)
			}
			if l.places.inUse() != 1 {
				t.Error("the place is free at once")
			}
			time.Sleep(2 * round)
			if l.places.inUse() != 0 {
				t.Error("the place is not given back")
			}
		}
		silent := &controlConn{UnixConn: one, listener: l, pid: 1}
		silent.inPace(n.pace)
		leaves(silent)

		impatient := &controlConn{UnixConn: two, listener: l, pid: 1}
		impatient.inPace(n.pace)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		w := httptest.NewRecorder()
		n.inPace(http.NotFoundHandler()).ServeHTTP(w, by(impatient, httptest.NewRequest("GET", "/v1/version", nil).WithContext(gone)))
		if w.Code != http.StatusServiceUnavailable {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		leaves(impatient)
	})
}

// TestAnsweredWhileItRuns: a request runs until all of its answer has been taken, but for what
// ends it. So a node is not replaced before that.
func TestAnsweredWhileItRuns(t *testing.T) {
	h := newHandlers(t)
	ours, theirs := net.Pipe()
	defer ours.Close()
	h.served(t, theirs)
	for _, path := range []string{"/v1/version", "/v1/flows", "/v1/macs"} {
		if _, err := io.WriteString(ours, "GET "+path+" HTTP/1.1\r\nHost: node\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReaderSize(ours, 16) // of the pipe, which has room for nothing
		if _, err := in.Peek(1); err != nil {
			t.Fatal(err)
		}
		h.Node.mu.Lock()
		if h.requests != 1 {
			t.Errorf("GET %s: %d requests run while the answer is read", path, h.requests)
		}
		h.Node.mu.Unlock()
		resp, err := http.ReadResponse(in, nil)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
		}
		if err != nil {
			t.Errorf("GET %s: %v", path, err)
		}
	}
}

// TestPublishedPortsArePaid: a container with published ports pays for all of them, and
// for their end, in its turn among such; one without does not wait for those. Likewise
// who has them closed and opened again.
func TestPublishedPortsArePaid(t *testing.T) {
	h := newHandlersOut(t)
	began := int64(time.Since(h.pace.start))
	left := func() (left time.Duration) { // of what may be taken at once, as it began
		const step = 10 * time.Microsecond
		for rate := h.pace.rate; rate.Allows(began); left += step {
			rate.Take(began, int(step.Microseconds()))
		}
		return left
	}
	h.pace.rate.Take(began, int(paceBurst.Microseconds()/2)) // or what is paid is there again meanwhile
	before := left()
	if code, text := h.call("POST", "/v1/containers", `{"name":"web","command":["sh"],"publish":["1-3000"]}`); code != http.StatusOK {
		t.Fatalf("%d %s", code, text)
	}
	const sockets, least = 6000, time.Microsecond // for three system calls
	if paid := before - left(); paid < 2*sockets*least {
		t.Errorf("for 3000 ports are paid %v", paid)
	}
	before = left()
	for _, method := range []string{"DELETE", "POST"} {
		if code, text := h.call(method, "/v1/uplinks/host", ""); code != http.StatusOK {
			t.Errorf("%s: %d %s", method, code, text)
		}
	}
	if paid := before - left(); paid < 2*2*sockets*least {
		t.Errorf("to close and open 3000 ports are paid %v", paid)
	}
	if code, text := h.call("DELETE", "/v1/containers/web", ""); code != http.StatusOK {
		t.Errorf("%d %s", code, text)
	}
	for h.moves.take(0) {
	}
	soon, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	for _, c := range []struct {
		code int
		body string
	}{
		{http.StatusTooManyRequests, `{"command":["sh"],"publish":["80"]}`},
		{http.StatusTooManyRequests, `{"command":["sh"],"expose":["80"],"publish_all":true}`},
		{http.StatusOK, `{"command":["sh"],"expose":["80"]}`},
	} {
		w := httptest.NewRecorder()
		h.serve(h.postContainers).ServeHTTP(w, by(h.conn, httptest.NewRequest("POST", "/v1/containers", strings.NewReader(c.body)).WithContext(soon)))
		if w.Code != c.code {
			t.Errorf("%s: %d %s", c.body, w.Code, w.Body)
		}
	}
	if code, text := h.call("DELETE", "/v1/uplinks/host", ""); code != http.StatusOK { // it moves nothing any more
		t.Errorf("%d %s", code, text)
	}
}

// TestOptionsArePaid: there is no request that net/http answers by itself.
func TestOptionsArePaid(t *testing.T) {
	h := newHandlers(t)
	ours, theirs := net.Pipe()
	defer ours.Close()
	h.served(t, theirs)
	if code, text := askBy(ours, "OPTIONS * HTTP/1.1\r\nHost: node\r\n\r\n"); code != http.StatusBadRequest {
		t.Errorf("%d %s", code, text)
	}
}
