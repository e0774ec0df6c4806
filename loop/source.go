package loop

import (
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// What Add waits for and Ready reports, as epoll_ctl(2) has them. Err and Hup
// are always reported.
const (
	In   = unix.EPOLLIN
	Out  = unix.EPOLLOUT
	Err  = unix.EPOLLERR
	Hup  = unix.EPOLLHUP
	Edge = unix.EPOLLET // report a change once instead of a state in every turn
)

// A Handler is called by a worker when its source has something to do.
type Handler interface {
	// Ready does it, in bounded work and without blocking. now is the worker's
	// clock. events is what epoll reported, and 0 when Ready was called because
	// of Wake or again. again asks for another call in the next turn, before
	// the worker sleeps.
	Ready(now int64, events uint32) (again bool)
}

// A Source is a handler's registration with a worker.
type Source struct {
	worker  *Worker
	handler Handler
	fd      int // -1 without descriptor
	events  uint32
	index   uint32
	gen     uint32

	removed atomic.Bool
	held    atomic.Bool // since Hold, with Loop.mu; then epoll does not know it, and events may change
	woken   atomic.Bool // wakeup is in the inbox
	wakeup  item

	// Owned by the worker.

	ready   bool   // on the ready list
	pending uint32 // epoll's events for the next call
}

// Add registers a descriptor: h is called while any of events holds, or once
// per change with Edge. It may be called from any goroutine; called elsewhere
// than on the worker, Ready may run before Add returns. The descriptor stays the
// caller's, who calls Remove before closing it: epoll forgets a descriptor only
// when its last copy anywhere is closed.
func (w *Worker) Add(fd int, events uint32, h Handler) (*Source, error) {
	s := w.newSource(fd, h)
	s.events = events
	if w.loop.hold(s) {
		return s, nil
	}
	if err := s.watch(); err != nil {
		w.sources.remove(s)
		return nil, err
	}
	return s, nil
}

// watch has the worker's epoll know the descriptor.
func (s *Source) watch() error {
	w := s.worker
	w.fds.RLock()
	defer w.fds.RUnlock()
	if w.fdsClosed {
		return ErrClosed
	}
	ev := poll{Events: s.events}
	setRef(&ev, s.index, s.gen)
	if err := unix.EpollCtl(w.epfd, unix.EPOLL_CTL_ADD, s.fd, &ev); err != nil {
		return fmt.Errorf("loop: add descriptor %d to worker %d: %w", s.fd, w.id, err)
	}
	return nil
}

// AddNotified registers a source without a descriptor, which is ready when
// somebody says so with Wake. It may be called from any goroutine.
func (w *Worker) AddNotified(h Handler) *Source { return w.newSource(-1, h) }

func (w *Worker) newSource(fd int, h Handler) *Source {
	s := &Source{worker: w, handler: h, fd: fd}
	s.wakeup.source = s
	w.sources.add(s)
	return s
}

// Worker returns the worker the source belongs to.
func (s *Source) Worker() *Worker { return s.worker }

// Wake has Ready called in the worker's next turn. It may be called from any
// goroutine, often and cheaply: until Ready is called, further calls change
// nothing. What was done before Wake is seen by that Ready.
func (s *Source) Wake() {
	if !s.woken.Swap(true) {
		s.worker.put(&s.wakeup)
	}
}

// Watch changes the events a source with a descriptor waits for; zero leaves Err
// and Hup. It may be called on the worker only: elsewhere the descriptor could be
// closed meanwhile, and its number be another's.
func (s *Source) Watch(events uint32) {
	if s.removed.Load() || s.fd < 0 {
		return
	}
	w := s.worker
	if w.loop.changeHeld(s, func() { s.events = events }) {
		return
	}
	w.fds.RLock()
	defer w.fds.RUnlock()
	if w.fdsClosed {
		return
	}
	ev := poll{Events: events}
	setRef(&ev, s.index, s.gen)
	// It fails only for a descriptor that was closed already, which has no events.
	_ = unix.EpollCtl(w.epfd, unix.EPOLL_CTL_MOD, s.fd, &ev)
}

// Remove ends the registration. Called on the worker, Ready is not called any
// more once it returns; called elsewhere, it may be running or about to, and is
// over after the next Grace. Calling it again does nothing.
func (s *Source) Remove() {
	if s.removed.Swap(true) {
		return
	}
	w := s.worker
	if s.fd >= 0 && !w.loop.changeHeld(s, func() {}) { // else release sees that it is removed
		w.fds.RLock()
		if !w.fdsClosed {
			// The one way this fails is that the descriptor was closed
			// already, and then there is nothing to delete.
			_ = unix.EpollCtl(w.epfd, unix.EPOLL_CTL_DEL, s.fd, nil)
		}
		w.fds.RUnlock()
	}
	w.sources.remove(s)
}

// noteEvent takes one event of epoll. An event carries index and generation of
// the source it was registered for. The slot may have got another source since
// epoll_wait returned, and the descriptor's number another descriptor: then the
// generation differs, and the event is nobody's.
func (w *Worker) noteEvent(ev *poll) {
	index, gen := ref(ev)
	if gen == wakerGen {
		return
	}
	w.stats.events.Add(1)
	if s := w.sources.find(index, gen); s != nil {
		s.pending |= ev.Events
		w.setReady(s)
	}
}

// A slab holds the sources of a worker by index. The worker looks up without a
// lock while others add and remove. It grows by doubling and does not shrink;
// descriptors bound it.
type slab struct {
	slots atomic.Pointer[[]atomic.Pointer[Source]]

	mu      sync.Mutex // guards what follows, and writing to slots
	free    []uint32
	lastGen uint32
}

// find returns the source, or nil when it is gone.
func (b *slab) find(index, gen uint32) *Source {
	slots := *b.slots.Load()
	// A removed source may still be in slots if they were read while being
	// copied, hence the second condition and not just the slot.
	if s := slots[index].Load(); s != nil && s.gen == gen && !s.removed.Load() {
		return s
	}
	return nil
}

func (b *slab) add(s *Source) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.free) == 0 {
		b.grow()
	}
	s.index = b.free[len(b.free)-1]
	b.free = b.free[:len(b.free)-1]
	b.lastGen++
	if b.lastGen == wakerGen {
		b.lastGen++
	}
	s.gen = b.lastGen
	(*b.slots.Load())[s.index].Store(s)
}

func (b *slab) remove(s *Source) {
	b.mu.Lock()
	defer b.mu.Unlock()
	(*b.slots.Load())[s.index].Store(nil)
	b.free = append(b.free, s.index)
}

func (b *slab) grow() {
	var old []atomic.Pointer[Source]
	if p := b.slots.Load(); p != nil {
		old = *p
	}
	slots := make([]atomic.Pointer[Source], max(16, 2*len(old)))
	for i := range old {
		slots[i].Store(old[i].Load())
	}
	for i := len(slots) - 1; i >= len(old); i-- {
		b.free = append(b.free, uint32(i))
	}
	b.slots.Store(&slots)
}
