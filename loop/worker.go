package loop

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// maxEvents is how many descriptors one turn takes from epoll. More wait for
// the next turn: epoll puts level-triggered descriptors it reported behind the
// others, so none is passed over.
const maxEvents = 128

// A Worker is a thread with one epoll. See the package comment for its turn.
type Worker struct {
	loop *Loop
	id   int

	// Owned by the worker.

	now     int64           // the clock, read once per turn
	busy    bool            // the last turn had something to do
	slept   bool            // there was nothing to do before this turn
	took    int64           // how long the last turn lasted
	points  int             // how much there is for staying awake; see awake.go
	ready   []*Source       // to be called in this turn or, from it, in the next
	running []*Source       // being called; the two swap every turn
	timers  timerHeap       // pending timers, the next first
	events  [maxEvents]poll // what epoll reported

	// For others.

	tid     atomic.Int64 // thread id, 0 before run
	inbox   inbox        // posted calls and woken sources
	idle    atomic.Bool  // about to sleep or asleep: the next to put something into inbox wakes it
	closing atomic.Bool
	stopped chan struct{} // closed after the last turn
	sources slab
	stats   stats

	// fds is held for reading while the descriptors are used by others than
	// the worker, and for writing while they are closed, so that nobody writes
	// into a descriptor that has their number next. The worker never waits for
	// it.
	fds         sync.RWMutex
	fdsClosed   bool
	epfd, waker int
}

// Stats are the counters of a worker.
type Stats struct {
	Turns  uint64 // how often it went around
	Events uint64 // descriptors epoll reported ready
	Posted uint64 // posted calls it ran
	Awake  uint64 // waits that ended before it fell asleep, see awake.go

	// LongestTurn is the longest time between two looks at epoll since Stats
	// was called last, sleep excluded.
	LongestTurn time.Duration
}

type stats struct {
	turns, events, posted, awake atomic.Uint64
	longest                      atomic.Int64
}

func newWorker(l *Loop, id int) (*Worker, error) {
	w := &Worker{loop: l, id: id, stopped: make(chan struct{})}
	var err error
	w.epfd, w.waker, err = openDescriptors()
	return w, err
}

// ID is the worker's number in its loop.
func (w *Worker) ID() int { return w.id }

// Now is the clock as of the start of this turn, in nanoseconds; see Clock.
// On the worker only.
func (w *Worker) Now() int64 { return w.now }

// shortestSleep is longer than epoll_pwait takes when something is ready, and
// shorter than a thread needs to go to sleep and come back.
const shortestSleep = int64(2 * time.Microsecond)

// Post has fn called on the worker in its next turn or at the end of this one,
// behind all that was posted before. It may be called from any goroutine, workers included, and never
// blocks. The queue has no bound, because a control plane that is refused a
// change could do nothing but try again: never post once per frame. On a closed
// loop fn is not called.
func (w *Worker) Post(fn func()) { w.put(&item{fn: fn}) }

// Call posts fn, waits until it has run, and reports whether it has: false when
// the loop was closed before. It panics on a worker, which would wait for
// itself or for one that may be waiting for it.
func (w *Worker) Call(fn func()) bool {
	w.loop.mustNotBeWorker("Call")
	return w.await(w.postDone(fn))
}

// Stats returns the counters. It may be called from any goroutine.
func (w *Worker) Stats() Stats {
	return Stats{
		Turns:       w.stats.turns.Load(),
		Events:      w.stats.events.Load(),
		Posted:      w.stats.posted.Load(),
		Awake:       w.stats.awake.Load(),
		LongestTurn: time.Duration(w.stats.longest.Swap(0)),
	}
}

// postDone posts fn and returns a channel that is closed when fn has run.
func (w *Worker) postDone(fn func()) <-chan struct{} {
	done := make(chan struct{})
	w.Post(func() {
		fn()
		close(done)
	})
	return done
}

// await waits for a channel of postDone, or for the end of the worker, and
// reports whether the call has run.
func (w *Worker) await(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-w.stopped:
	}
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// put hands something to the worker and wakes it if it sleeps.
func (w *Worker) put(it *item) {
	w.inbox.put(it)
	w.wake()
}

// wake ends the worker's sleep, if it sleeps. The first to see it idle writes
// to the eventfd, all others need not.
//
// No wake-up is lost: the worker sets idle and then looks into the inbox, the
// sender fills the inbox and then looks at idle, and Go's atomics have one
// order. So at least one of the two sees what the other did.
func (w *Worker) wake() {
	if w.idle.Load() && w.idle.CompareAndSwap(true, false) {
		w.fds.RLock()
		if !w.fdsClosed {
			writeWaker(w.waker)
		}
		w.fds.RUnlock()
	}
}

func (w *Worker) stop() {
	w.closing.Store(true)
	w.wake()
}

func (w *Worker) closeDescriptors() error {
	w.fds.Lock()
	defer w.fds.Unlock()
	w.fdsClosed = true
	return closeDescriptors(w.epfd, w.waker)
}

func (w *Worker) run() {
	defer close(w.stopped) // also for a test that fails in a call
	// Handlers read and write without telling the scheduler, and an epoll is
	// cheapest on one thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	w.tid.Store(gettid())
	for !w.closing.Load() {
		w.turn()
	}
	w.tid.Store(0) // the thread goes on to run other goroutines
}

// turn is one round: wait, inbox, timers, sources, and once more inbox and sources.
func (w *Worker) turn() {
	n := w.wait()
	w.busy = n > 0
	w.stats.turns.Add(1)
	for i := range w.events[:n] {
		w.noteEvent(&w.events[i])
	}
	w.takeInbox()
	w.timers.fire(w.now)
	w.callReady()
	w.callWoken()
}

// wait asks epoll what is ready, sleeping only if there is nothing left to do,
// and reads the clock.
func (w *Worker) wait() (n int) {
	w.slept = false
	if len(w.ready) > 0 || !w.inbox.empty() {
		n = epollPoll(w.epfd, &w.events)
		w.endTurn(Clock())
		return n
	}
	w.endTurn(Clock())
	timeout := w.timers.timeout(w.now)
	if timeout != 0 {
		w.idle.Store(true)
		if w.inbox.empty() && !w.closing.Load() {
			if w.busy {
				n = w.rest(timeout)
			} else {
				n = epollWait(w.epfd, &w.events, timeout)
			}
			w.idle.Store(false)
			began := w.now
			w.now = Clock()
			w.slept = w.now-began > shortestSleep
			w.noteWait(n > 0, w.now-began)
			return n
		}
		w.idle.Store(false)
	}
	return epollPoll(w.epfd, &w.events)
}

// endTurn takes the time the last turn ended, which is when the next begins
// unless the worker sleeps.
func (w *Worker) endTurn(now int64) {
	w.took = now - w.now
	if w.now != 0 && w.took > w.stats.longest.Load() {
		w.stats.longest.Store(w.took)
	}
	w.now = now
}

// takeInbox runs the posted calls and puts the woken sources on the ready list.
func (w *Worker) takeInbox() {
	for it := w.inbox.take(); it != nil; {
		next := it.next
		it.next = nil
		if it.source != nil {
			// Cleared before Ready: a Wake from now on is another one.
			it.source.woken.Store(false)
			w.setReady(it.source)
		} else {
			w.stats.posted.Add(1)
			it.fn()
		}
		it = next
	}
}

// callReady calls each ready source once.
func (w *Worker) callReady() {
	w.ready, w.running = w.running[:0], w.ready
	for i, s := range w.running {
		w.running[i] = nil
		events := s.pending
		s.ready, s.pending = false, 0
		if s.removed.Load() {
			continue
		}
		if s.handler.Ready(w.now, events) {
			w.setReady(s)
		}
	}
}

// setReady puts a source on the ready list, once.
func (w *Worker) setReady(s *Source) {
	if !s.ready {
		s.ready = true
		w.ready = append(w.ready, s)
	}
}
