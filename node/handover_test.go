package node

import (
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fairlead/nat"
	"fairlead/node/api"
	"fairlead/packet"
	"fairlead/packet/packettest"
)

// A successor is a program that says what a new node does, and no more than so many
// answers of it.
type successor struct {
	conn    *net.UnixConn
	answers int
	given   int
	ready   int // that were given before the one that has traffic stand still
}

var errSilent = errors.New("it has nothing more to say")

// succeed says all but the last word, which is a refusal: the test goes on.
func (s *successor) succeed() error {
	err := s.answer(api.Replace{Version: "0"})
	if err == nil {
		err = s.receive()
	}
	s.ready = s.given
	if err == nil {
		err = s.answer(api.Done{})
	}
	if err == nil {
		err = s.receive()
	}
	if err == nil {
		err = readFlows(s.conn, func(*nat.Saved) {})
	}
	if err == nil {
		err = s.answer(api.Done{Error: "no"})
	}
	return err
}

func (s *successor) answer(m any) error {
	if s.given == s.answers {
		return errSilent
	}
	s.given++
	return api.SendMessage(s.conn, m, nil)
}

// receive takes descriptors and what they are of.
func (s *successor) receive() error {
	for {
		var m api.Handed
		fds, err := api.ReceiveNews(s.conn, &m)
		api.CloseAll(fds)
		if m.Error != "" {
			err = errors.New(m.Error)
		}
		if err == nil {
			err = s.answer(api.Done{})
		}
		if err == nil && m.Last {
			_, err = io.ReadFull(s.conn, make([]byte, m.Text))
		}
		if err != nil || m.Last {
			return err
		}
	}
}

// A replaceable is a node that can be asked to hand over, and two containers.
type replaceable struct {
	*handlers
	web, db *member
	pings   uint16
}

func newReplaceable(t *testing.T) *replaceable {
	t.Helper()
	h := newHandlers(t)
	h.server = h.newServer()
	var err error
	if h.listener, err = listenAt(filepath.Join(t.TempDir(), "s")); err != nil {
		t.Fatal(err)
	}
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		for err := error(nil); err == nil; {
			_, err = h.listener.Accept()
		}
	}()
	t.Cleanup(func() {
		_ = h.listener.Close()
		<-accepting
	})
	return &replaceable{handlers: h, web: h.join(t, "web"), db: h.join(t, "db")}
}

// replace has somebody take the node's place who gives so many answers, and returns him
// when he has no more. failed has what the node says to that, which is once it has given
// him up.
func (r *replaceable) replace(t *testing.T, answers int) (s *successor, failed <-chan error) {
	t.Helper()
	ours, theirs := conns(t)
	err := make(chan error, 1)
	go func() {
		err <- r.handOver(&controlConn{UnixConn: theirs})
		_ = theirs.Close()
	}()
	s = &successor{conn: ours, answers: answers}
	_ = s.succeed() // the node says how it ended
	return s, err
}

// passes sends a frame from one container to the other, and waits for it there.
func (r *replaceable) passes(t *testing.T) {
	t.Helper()
	r.pings++
	want := fmt.Sprintf("ping %d", r.pings)
	r.web.send(t, packettest.ICMPEcho(r.web.Station, r.db.Station, 1, r.pings, []byte(want)))
	receives(t, r.db.far, want, func(f *packet.Frame) bool { return strings.HasSuffix(string(f.B), want) })
}

// A client that asks for the node's place and says nothing more, at whatever step: frames
// pass until he has said that he is ready, and then stand for the time that is given to all
// of it, however long he may take for each answer. Afterwards they pass again.
func TestHandOverToSilent(t *testing.T) {
	r := newReplaceable(t)
	const ever, soon = time.Hour, 20 * time.Millisecond
	r.handTimes = handTimes{ever, ever, ever}
	all, failed := r.replace(t, 1000)
	refused(t, <-failed, "no")
	r.passes(t)
	for k := range all.given {
		r.failed = setback{}
		switch {
		case k == 0:
			r.handTimes = handTimes{soon, ever, ever}
		case k <= all.ready:
			r.handTimes = handTimes{ever, ever, ever}
		default:
			r.handTimes = handTimes{ever, ever, soon}
		}
		s, failed := r.replace(t, k)
		if k > 0 && k <= all.ready { // he is waited for, for as long as the test likes
			r.passes(t)
			_ = s.conn.Close()
		}
		if err := <-failed; err == nil || err.Error() == "no" {
			t.Errorf("silent after %d of %d answers: %v", k, all.given, err)
		}
		r.passes(t)
		if stood := r.failed.stood > 0; stood != (k > all.ready) {
			t.Errorf("silent after %d of %d answers, and ready after %d: traffic stood for %v", k, all.given, all.ready, r.failed.stood)
		}
	}
}

// A node that was told to go down, by a client who has his answer, hands nothing over.
func TestHandOverAfterDown(t *testing.T) {
	r := newReplaceable(t)
	r.goDown()
	_, failed := r.replace(t, 1000)
	refused(t, <-failed, errLeaving.Error())
	r.passes(t)
}

// The registry's part has its bound, too, in which nobody is wired.
func TestHandOverToSlow(t *testing.T) {
	r := newReplaceable(t)
	r.handTimes = handTimes{time.Hour, 20 * time.Millisecond, time.Hour}
	_, failed := r.replace(t, 1)
	if err := <-failed; err == nil || r.failed.held == 0 || r.failed.stood != 0 {
		t.Errorf("%v, %+v", err, r.failed)
	}
	r.passes(t)
}

// A worker that is long in one thing, as in a write to a container whose firewall takes
// long, has the others stand for no longer than everything else may.
func TestHandOverBesideBusyWorker(t *testing.T) {
	r := newReplaceable(t)
	r.handTimes = handTimes{time.Hour, time.Hour, time.Millisecond}
	busy, let := make(chan struct{}), make(chan struct{})
	r.loop.Worker(0).Post(func() {
		close(busy)
		<-let
	})
	<-busy
	_, failed := r.replace(t, 1000)
	if err := <-failed; err == nil || !strings.HasPrefix(err.Error(), "traffic cannot be stopped: 1 of ") || r.failed.stood == 0 {
		t.Errorf("%v, %+v", err, r.failed)
	}
	close(let)
	r.passes(t)
}

// After one that has failed another one is refused, or waits if that is not for long, and
// nobody notices.
func TestHandOverRefusedForAWhile(t *testing.T) {
	r := newReplaceable(t)
	r.failed = setback{stood: time.Hour, at: time.Now()}
	ours, theirs := conns(t)
	if err := api.SendMessage(ours, api.Replace{}, nil); err != nil {
		t.Fatal(err)
	}
	err := r.handOver(&controlConn{UnixConn: theirs})
	if want := "the last replacement has failed, traffic stood still for 1h0m0s and commands for 0s meanwhile; try again in "; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v", err)
	}
	r.failed = setback{stood: time.Millisecond, held: time.Millisecond, at: time.Now()}
	_, failed := r.replace(t, 1000)
	refused(t, <-failed, "no")
}

// A new node that takes each message just before it would be given up has no more time in
// all than the one that takes none, but for what it has taken.
func TestSenderGivesUpSlow(t *testing.T) {
	ours, theirs := conns(t)
	heard := make(chan int)
	go func() {
		count := 0
		for ; ; count++ {
			var m api.Handed
			if _, err := api.ReceiveNews(ours, &m); err != nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
			if api.SendMessage(ours, api.Done{}, nil) != nil {
				break
			}
		}
		heard <- count
	}()
	s := &sender{conn: &controlConn{UnixConn: theirs}, ack: time.Hour, end: time.Now().Add(100 * time.Millisecond)}
	const messages = 1000
	for range messages {
		s.ask(api.Handed{})
		s.took(1, time.Millisecond)
	}
	_ = theirs.Close()
	// It gains a millisecond by each ten it takes.
	if count := <-heard; s.err == nil || count > 20 {
		t.Errorf("%d of %d messages were taken, %v", count, messages, s.err)
	}
}

// So has one that reads flows a few at a time.
func TestHandFlowsGivesUpSlow(t *testing.T) {
	const flows = 20_000 // more than wait in a socket
	old := withFlows(t, flows)
	ours, theirs := conns(t)
	go func() {
		b := make([]byte, 4<<10)
		for err := error(nil); err == nil; _, err = ours.Read(b) {
			time.Sleep(20 * time.Millisecond)
		}
	}()
	s := &sender{conn: &controlConn{UnixConn: theirs}, ack: time.Hour, end: time.Now().Add(10 * time.Millisecond)}
	if old.handFlows(s, nil); s.err == nil {
		t.Error("all of them were taken")
	}
	_ = theirs.Close()
}

// When the new node has gone, the flows behind those it was sent are not looked at.
func TestHandFlowsStops(t *testing.T) {
	old := withFlows(t, 3*flowsAtOnce)
	ours, theirs := conns(t)
	_ = ours.Close()
	end := time.Now().Add(time.Hour)
	s := &sender{conn: &controlConn{UnixConn: theirs}, ack: time.Hour, end: end}
	if old.handFlows(s, nil); s.err == nil || s.end != end.Add(flowsAtOnce*flowEach) {
		t.Errorf("%v, and %v for flows", s.err, s.end.Sub(end))
	}
}
