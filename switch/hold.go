package vswitch

import (
	"slices"
	"sync"
	"time"

	"fairlead/packet"
)

// Bounds of what is held on a node. A packet waits for an ARP reply, or a
// fragment for the first one of its datagram; neither takes long, and a sender
// repeats what got lost, so there is room for few. In a full queue the oldest
// has to go: of the same port when that has its share, else of the port that has
// most. Who waits in vain then makes room for who does not, and a flood costs
// others nothing that is answered before as many frames have come.
const (
	maxHeld        = 256
	maxHeldPerPort = 64
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

// accepts reports whether the frame may be held: once, and if it is small.
func (q *holdQueue) accepts(f *packet.Frame) bool {
	return !f.Flags.Has(packet.Resumed) && len(f.B) <= maxHeldLen
}

// put copies an acceptable frame into the queue.
func (q *holdQueue) put(in *Port, f *packet.Frame, key uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.makeRoomLocked(in, f.Time)
	var h *heldFrame
	if n := len(q.free); n > 0 {
		h, q.free = q.free[n-1], q.free[:n-1]
	} else {
		h = new(heldFrame)
	}
	h.key, h.port, h.until = key, in, f.Time+int64(holdTime)
	h.n = copy(h.bytes[:], f.B)
	q.held = append(q.held, h)
	in.held.Add(1)
	in.ln.watchHolds(in, holdTime)
}

// makeRoomLocked ends the waiting of the oldest frame when another one of port
// in would be too many.
func (q *holdQueue) makeRoomLocked(in *Port, now int64) {
	from := in
	if in.held.Load() < maxHeldPerPort {
		if len(q.held) < maxHeld {
			return
		}
		for _, h := range q.held {
			if h.port.held.Load() > from.held.Load() {
				from = h.port
			}
		}
	}
	for i, h := range q.held {
		if h.port == from {
			q.held = slices.Delete(q.held, i, i+1)
			q.endLocked(h, packet.HoldFull, now)
			return
		}
	}
}

// endLocked ends a frame's waiting with a drop, and takes its memory back.
func (q *holdQueue) endLocked(h *heldFrame, r packet.Reason, now int64) {
	h.port.held.Add(-1)
	h.port.n.resumed.Add(1)
	h.port.n.drop(r, now)
	h.port = nil
	q.free = append(q.free, h)
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
			h.port.held.Add(-1)
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
		q.endLocked(h, packet.EgressGone, now)
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
		f := packet.Frame{B: h.bytes[:h.n], Time: now, Flags: packet.Resumed}
		p.n.resumed.Add(1)
		turn := ln.turn
		ln.turn = p // whatever it waited for, it is his
		p.sw.one(p, &f)
		ln.flush()
		ln.turn = turn
		ln.lanes.holds.give(h)
	}
}
