package vswitch

import (
	"sync"
	"time"

	"fairlead/packet"
)

// Bounds of what is held on a node. A packet waits for an ARP reply, or a
// fragment for the first one of its datagram; neither takes long, and a sender
// repeats what got lost, so there is room for few.
const (
	maxHeld        = 256
	maxHeldPerPort = 64
	maxHeldPerKey  = 16
	maxHeldLen     = 2048 // larger frames are not copied
	holdTime       = 5 * time.Second
)

// A holdQueue keeps copies of frames that wait for something, on the whole
// node. Any worker may use it.
type holdQueue struct {
	mu   sync.Mutex
	held []*heldFrame // oldest first
	free []*heldFrame
}

// A heldFrame is a copy of a frame that waits. It is given back with its
// bytes, so that holding allocates no more than maxHeld of them.
type heldFrame struct {
	key   uint64
	port  *Port // where it came in
	until int64
	n     int
	bytes [maxHeldLen]byte
}

// accepts reports whether the frame could be held.
func (q *holdQueue) accepts(f *packet.Frame, key uint64) bool {
	if f.Resumed || len(f.B) > maxHeldLen {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.acceptsLocked(f, key)
}

func (q *holdQueue) acceptsLocked(f *packet.Frame, key uint64) bool {
	if len(q.held) == maxHeld {
		return false
	}
	ofPort, ofKey := 0, 0
	for _, h := range q.held {
		if h.port.id == f.Port && h.port.sw.conf.ID == f.Network {
			ofPort++
		}
		if h.key == key {
			ofKey++
		}
	}
	return ofPort < maxHeldPerPort && ofKey < maxHeldPerKey
}

// put copies a frame into the queue; false when there is no room.
func (q *holdQueue) put(in *Port, f *packet.Frame, key uint64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if f.Resumed || len(f.B) > maxHeldLen || !q.acceptsLocked(f, key) {
		return false
	}
	var h *heldFrame
	if n := len(q.free); n > 0 {
		h, q.free = q.free[n-1], q.free[:n-1]
	} else {
		h = new(heldFrame)
	}
	h.key, h.port, h.until = key, in, f.Time+int64(holdTime)
	h.n = copy(h.bytes[:], f.B)
	q.held = append(q.held, h)
	in.ln.watchHolds(in, holdTime)
	return true
}

// take moves frames of ports of one worker for which want is true to the end
// of dst, and tells of one of another worker that waits for the same.
func (q *holdQueue) take(dst []*heldFrame, worker int, want func(*heldFrame) bool) (taken []*heldFrame, other *Port) {
	q.mu.Lock()
	defer q.mu.Unlock()
	stay := q.held[:0]
	for _, h := range q.held {
		switch {
		case !want(h):
			stay = append(stay, h)
		case h.port.ln.id != worker:
			other = h.port
			stay = append(stay, h)
		default:
			dst = append(dst, h)
		}
	}
	clear(q.held[len(stay):])
	q.held = stay
	return dst, other
}

// give takes a frame's memory back.
func (q *holdQueue) give(h *heldFrame) {
	h.port = nil
	q.mu.Lock()
	q.free = append(q.free, h)
	q.mu.Unlock()
}

// forget ends the waiting of a port that has gone.
func (q *holdQueue) forget(p *Port, now int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	stay := q.held[:0]
	for _, h := range q.held {
		if h.port != p {
			stay = append(stay, h)
			continue
		}
		p.n.resumed.Add(1)
		p.n.drop(packet.EgressGone, now)
		h.port = nil
		q.free = append(q.free, h)
	}
	clear(q.held[len(stay):])
	q.held = stay
}

// holding is how many frames wait.
func (q *holdQueue) holding() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.held)
}

// watchHolds has the frames of this lane's ports go on at their deadline, if
// nothing else has them go on before. Called on the port's own worker.
func (ln *lane) watchHolds(in *Port, d time.Duration) {
	if ln.watching {
		return
	}
	ln.watching = true
	in.worker.AfterFunc(d, func(now int64) {
		ln.watching = false
		ln.resume(now, func(h *heldFrame) bool { return h.until <= now })
		if ln.lanes.holds.holding() > 0 {
			ln.watchHolds(in, holdTime/4)
		}
	})
}

// resumeKeys sends the frames on that Resume was called for. Their going on
// may resume others, but none of them is held again, so this ends.
func (ln *lane) resumeKeys(now int64) {
	for len(ln.resumes) > 0 {
		n := len(ln.resumes) - 1
		key := ln.resumes[n]
		ln.resumes = ln.resumes[:n]
		ln.resume(now, func(h *heldFrame) bool { return h.key == key })
	}
}

// resume sends the held frames for which want is true through the path again,
// each on the worker its port is read by.
func (ln *lane) resume(now int64, want func(*heldFrame) bool) {
	list, other := ln.lanes.holds.take(ln.resumed[:0], ln.id, want)
	if other != nil {
		there := other.ln
		other.worker.Post(func() { there.resume(other.worker.Now(), want); there.resumeKeys(other.worker.Now()) })
	}
	for _, h := range list {
		p := h.port
		f := packet.Frame{B: h.bytes[:h.n], Time: now, Resumed: true}
		p.n.resumed.Add(1)
		p.sw.one(p, &f)
		ln.flush()
		ln.lanes.holds.give(h)
	}
}
