package node

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"fairlead/node/api"
)

// What one client's requests may cost the others: all of them come in turns of the
// processes that ask (pace.go), and those that go on or tell a whole table have places
// besides, of which each process has a share (places.go).

// maxTables bounds the answers as long as a table that are made or read at the same
// time. The longest are some megabytes; flows, which may be more, are told in slices.
const maxTables = 16

// maxMoves bounds the changes of published ports, which may be as much work, and may wait
// for containers.
const maxMoves = 16

// client is the connection that a request has come by, one of process 0 where that is not
// the control socket's.
func client(r *http.Request) *controlConn {
	if conn, ok := r.Context().Value(connKey{}).(*controlConn); ok {
		return conn
	}
	return new(controlConn)
}

// clientNumber is the number of the process that asks.
func clientNumber(r *http.Request) int { return client(r).pid }

// A bill is what a request owes in the end: what it took, unless it has settled that.
type bill struct{ settled bool }

// billKey is where the context of a request has its bill.
type billKey struct{}

// settle says that a request pays by itself, or does nothing but wait.
func settle(r *http.Request) {
	if b, ok := r.Context().Value(billKey{}).(*bill); ok {
		b.settled = true
	}
}

// inPace has requests come no faster than they may. They count as use of the node from
// before they wait, so that a node is not replaced meanwhile. A process that has more of
// them than that waits for its turns with the next one on the same connection.
func (n *Node) inPace(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.use(1)
		defer n.use(-1)
		c := client(r)
		if !c.pay(r.Context(), n.pace, paceLeast) {
			answerError(w, fail(http.StatusServiceUnavailable, "you have hung up before it was your turn"))
			return
		}
		c.body.Store(true)
		defer c.body.Store(false)
		b, began := new(bill), time.Now()
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), billKey{}, b)))
		if !b.settled {
			n.pay(w, r, min(time.Since(began), paceMost))
		}
	})
}

// pay waits until the process that asked has paid what its request took, be the client
// there or not, without it waiting for its answer any longer. The end of the answer has
// left us by then, while the request still counts as one that runs.
func (n *Node) pay(w http.ResponseWriter, r *http.Request, took time.Duration) {
	_ = http.NewResponseController(w).Flush() // fails only when the client has left
	if took <= paceLeast {
		return
	}
	defer n.goesOn()()
	n.charge(r, took-paceLeast)
}

// charge has the process that asks pay, whether it still waits for the answer or not.
func (n *Node) charge(r *http.Request, took time.Duration) {
	n.pace.pay(context.WithoutCancel(r.Context()), clientNumber(r), took)
}

// long marks a handler that goes on until somebody ends it.
func (n *Node) long(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) (any, error) {
		leave, err := n.goingOn.enter(r, "requests that go on")
		if err != nil {
			return nil, err
		}
		defer leave()
		defer n.goesOn()()
		settle(r)
		return h(w, r)
	}
}

// goesOn has a node that is replaced not wait for a request until over is called.
func (n *Node) goesOn() (over func()) {
	count := func(change int) {
		n.mu.Lock()
		n.watching += change
		n.mu.Unlock()
	}
	count(1)
	return func() { count(-1) }
}

// enter takes one of the places for a request, at once or not at all.
func (p *places) enter(r *http.Request, what string) (leave func(), err error) {
	pid := clientNumber(r)
	if !p.take(pid) {
		return nil, fail(http.StatusTooManyRequests, "process %d has %d %s, which is all it may have: %d of %d are taken; try again when some have ended",
			pid, p.had(pid), what, p.inUse(), p.most)
	}
	return func() { p.leave(pid) }, nil
}

// awaitPlace takes one of the places for what is as long as a table.
func (n *Node) awaitPlace(p *places, r *http.Request) (leave func(), err error) {
	ctx, cancel := context.WithTimeout(r.Context(), bodyWithin)
	defer cancel()
	pid := clientNumber(r)
	if p.take(pid) {
		return func() { p.leave(pid) }, nil
	}
	if p.await(ctx, pid) != nil {
		return nil, fail(http.StatusTooManyRequests, "others who ask for as much as %s are still in turn, or process %d has asked too often; try again", r.URL.Path, pid)
	}
	n.pace.begin(r.Context(), pid) // its turn was long ago
	return func() { p.leave(pid) }, nil
}

// inTurn is for what is as long as a table is, the answer or the work, and waits for
// nobody meanwhile. All of the work is paid for, be the client there or not, and the
// place is kept until then.
func (n *Node) inTurn(h handler) handler { return n.inTurns(n.tables, 1, h) }

// inTurns is inTurn for what is paid for several times, and has other places.
func (n *Node) inTurns(p *places, times time.Duration, h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) (any, error) {
		leave, err := n.awaitPlace(p, r)
		if err != nil {
			return nil, err
		}
		defer leave()
		settle(r)
		if err := readAhead(w, r); err != nil {
			return nil, err
		}
		var text []byte
		took := compute(func() {
			var out any
			if out, err = h(w, r); err == nil {
				text, err = json.Marshal(out)
			}
		})
		if err != nil {
			answerError(w, err)
		} else {
			answerText(w, http.StatusOK, text)
		}
		n.pay(w, r, times*took)
		return nil, nil
	}
}

// manyPorts is how many published ports, of two sockets each, are opened or closed in about
// the time that short requests pay for.
const manyPorts = 500

// movesPorts is for what may open all published ports that are there, or close them: where
// they are many that is as much work as making them, and paid for as that is. It may wait
// for containers' inits, and keeps its place meanwhile.
func (n *Node) movesPorts(h handler) handler {
	long := n.inTurns(n.moves, 2, h)
	return func(w http.ResponseWriter, r *http.Request) (any, error) {
		n.mu.Lock()
		many := n.ports.count > manyPorts
		n.mu.Unlock()
		if many {
			return long(w, r)
		}
		return h(w, r)
	}
}

// readAhead has the body of a request be there.
func readAhead(w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength == 0 {
		return nil
	}
	conn := http.NewResponseController(w)
	_ = conn.SetReadDeadline(time.Now().Add(bodyWithin)) // fails only for a connection that has none
	text, err := io.ReadAll(io.LimitReader(r.Body, api.MaxMessage+1))
	if err != nil {
		return statusError{http.StatusBadRequest, err} // the rest has what is left of the time
	}
	_ = conn.SetReadDeadline(time.Time{})
	r.Body = io.NopCloser(bytes.NewReader(text))
	return nil
}
