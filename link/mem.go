package link

import (
	"sync"

	"fairlead/packet"
)

// A Mem is one end of a pair in memory: what is written to one end is read from
// the other, virtio-net header included. It does what it is told at once and in
// order, so tests on it are repeatable, and allocates nothing once made.
//
// ReadBatch is for one goroutine, WriteBatch for any number, and both may run
// beside Close.
type Mem struct{ in, out *ring }

// NewPair makes two connected ends, each of which holds up to depth frames that
// the other wrote.
func NewPair(depth int) (a, b *Mem) {
	ab, ba := newRing(depth), newRing(depth)
	return &Mem{in: ba, out: ab}, &Mem{in: ab, out: ba}
}

// ReadBatch appends the frames that wait to b, until none does or b is full,
// and returns how many. They borrow the bytes of b. Frames the other end wrote
// before it was closed are still read.
func (m *Mem) ReadBatch(b *packet.Batch) (int, error) {
	r := m.in
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for !b.Full() && r.waiting() {
		b.Add(copy(b.Room(), r.pop()))
		n++
	}
	if n == 0 && r.closed {
		return 0, ErrGone
	}
	return n, nil
}

// WriteBatch writes copies of the frames and returns how many; with an error,
// frame n was not written and those behind it were not tried.
func (m *Mem) WriteBatch(frames []*packet.Frame) (int, error) {
	n, notify, err := m.out.write(frames)
	if n > 0 && notify != nil {
		notify()
	}
	return n, err
}

// Notify has fn called whenever frames were written or the other end was
// closed, by the goroutine that did so, and at once when there is something to
// read already. It must not read.
func (m *Mem) Notify(fn func()) {
	r := m.in
	r.mu.Lock()
	r.notify = fn
	due := r.waiting() || r.closed
	r.mu.Unlock()
	if due && fn != nil {
		fn()
	}
}

// Close closes this end. The other reads what is on its way and then ErrGone.
func (m *Mem) Close() error {
	m.in.close(true)
	if notify := m.out.close(false); notify != nil {
		notify()
	}
	return nil
}

// A ring is one direction of a pair.
type ring struct {
	mu     sync.Mutex // guards all; not held while notify runs
	slots  [][]byte   // one frame each; capacity MaxFrame, from one arena
	head   uint64     // frames read so far
	tail   uint64     // frames written so far
	closed bool
	notify func()
}

func newRing(depth int) *ring {
	arena := make([]byte, depth*packet.MaxFrame)
	r := &ring{slots: make([][]byte, depth)}
	for i := range r.slots {
		slot := arena[i*packet.MaxFrame:]
		r.slots[i] = slot[:0:packet.MaxFrame]
	}
	return r
}

func (r *ring) waiting() bool { return r.head != r.tail }

// pop takes the oldest frame; its bytes are the ring's, until mu is released.
func (r *ring) pop() []byte {
	f := r.slots[r.head%uint64(len(r.slots))]
	r.head++
	return f
}

func (r *ring) write(frames []*packet.Frame) (int, func(), error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, f := range frames {
		switch {
		case r.closed:
			return i, r.notify, ErrGone
		case len(f.B) < runt || len(f.B) > packet.MaxFrame:
			return i, r.notify, ErrRefused
		case r.tail-r.head == uint64(len(r.slots)):
			return i, r.notify, ErrFull
		}
		slot := &r.slots[r.tail%uint64(len(r.slots))]
		*slot = append((*slot)[:0], f.B...)
		r.tail++
	}
	return len(frames), r.notify, nil
}

// close ends the ring and returns whom to tell; drop throws away what waits.
func (r *ring) close(drop bool) func() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if drop {
		r.head = r.tail
	}
	return r.notify
}
