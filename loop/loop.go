package loop

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrClosed is returned for sources added to a loop that was closed.
var ErrClosed = errors.New("loop: closed")

// epoch is where the clock of all workers starts.
var epoch = time.Now()

// Clock is the clock the workers read once per turn, for goroutines that are
// none: monotonic nanoseconds since the start of the process.
func Clock() int64 { return int64(time.Since(epoch)) }

// ThreadClock is the time processors have spent on the calling thread, in
// nanoseconds, what its system calls take included. It is a system call itself, and
// of use on a worker, whose thread stays the same.
func ThreadClock() int64 {
	var t unix.Timespec
	_, _, _ = unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_THREAD_CPUTIME_ID, uintptr(unsafe.Pointer(&t)), 0)
	return t.Nano()
}

// A Loop is a fixed set of workers. All its methods may be called from any
// goroutine that is not a worker; Grace also from a worker.
type Loop struct {
	workers []*Worker

	once sync.Once // Close
	err  error     // of Close

	rest sync.Mutex // held while the workers rest

	mu     sync.Mutex // guards what follows, and graces.Add against Wait
	closed bool
	held   []*Source // added since Hold, and not known to an epoll yet
	holds  bool
	graces sync.WaitGroup
}

// Workers is how many workers a node has on this machine: one for each four processors.
// On two, one beats two (docs/decisions/one-worker.md).
func Workers() int { return max(1, runtime.NumCPU()/4) }

// New starts a loop with n workers.
func New(n int) (*Loop, error) {
	if n < 1 {
		return nil, fmt.Errorf("loop: %d workers: need at least one", n)
	}
	l := &Loop{}
	for id := range n {
		w, err := newWorker(l, id)
		if err != nil {
			err = fmt.Errorf("loop: start worker %d: %w", id, err)
			for _, w := range l.workers {
				err = errors.Join(err, w.closeDescriptors())
			}
			return nil, err
		}
		l.workers = append(l.workers, w)
	}
	for _, w := range l.workers {
		go w.run()
	}
	return l, nil
}

// Worker returns worker i of NumWorkers.
func (l *Loop) Worker(i int) *Worker { return l.workers[i] }

// NumWorkers is the number of workers, fixed when the loop was made.
func (l *Loop) NumWorkers() int { return len(l.workers) }

// Grace calls fn on a goroutine of its own once nothing a worker was doing when
// Grace was called is still going on. Whoever takes a thing out of the tables
// frees it in fn: its descriptor, its memory.
//
// How it works: a call that does nothing is posted to every worker, and fn runs
// after all of them ran. A worker runs posted calls between two handlers and
// takes them in order. So when the call has run, every handler, timer and
// posted call that was running or posted on that worker when Grace was called
// has returned, and whatever runs later began after Grace and finds the tables
// as the caller left them. A sleeping worker has nothing going on, but calls may
// have been posted to it that it has not seen; it is woken like for any other
// call, and the argument stays the same. A worker that was stopped has left its
// last turn and starts no other.
//
// Close waits for fn. After Close there is no worker, and fn is called at once.
func (l *Loop) Grace(fn func()) {
	passed := make([]<-chan struct{}, len(l.workers))
	for i, w := range l.workers {
		passed[i] = w.postDone(func() {})
	}
	l.mu.Lock()
	open := !l.closed
	if open {
		l.graces.Add(1)
	}
	l.mu.Unlock()
	go func() {
		if open {
			defer l.graces.Done()
		}
		for i, w := range l.workers {
			w.await(passed[i])
		}
		fn()
	}()
}

// Hold has descriptors that are added from now on wait until release is called: what
// they have to say is heard then. Workers do everything else meanwhile. It is for a
// loop that takes over what another process reads.
func (l *Loop) Hold() (release func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holds = true
	return func() (err error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, s := range l.held {
			if !s.removed.Load() {
				err = errors.Join(err, s.watch())
			}
			s.held.Store(false)
		}
		l.held, l.holds = nil, false
		return err
	}
}

// hold keeps a source for release, if there is one to come.
func (l *Loop) hold(s *Source) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holds {
		s.held.Store(true)
		l.held = append(l.held, s)
	}
	return l.holds
}

// changeHeld has change made to a source that waits for release; false is one that
// does not, any more.
func (l *Loop) changeHeld(s *Source, change func()) bool {
	if !s.held.Load() { // as nearly always
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	held := s.held.Load()
	if held {
		change()
	}
	return held
}

// Rest has all workers rest between two turns, and returns when they do. They go on
// when resume is called, as if no time had passed but for the clock, and resume returns
// for how long the one who came first has stood. Until then
// another Rest waits, and who called this one may wait for nothing that waits for a
// worker, as Call, Grace and Close do: take no lock that is held meanwhile.
//
// Whoever comes to rest first stands until the last one has come, which may be in a
// write that takes minutes: the kernel runs the receiver's firewall in it. So there is
// an end to that, after which all go on, and Rest returns an error.
func (l *Loop) Rest(within time.Duration) (resume func() (stood time.Duration), err error) {
	l.mustNotBeWorker("Rest")
	l.rest.Lock() // of two, each would have some of the workers
	var left atomic.Int32
	left.Store(int32(len(l.workers)))
	var first atomic.Int64 // by Clock
	all, awake := make(chan struct{}), make(chan struct{})
	resume = sync.OnceValue(func() time.Duration {
		close(awake)
		l.rest.Unlock()
		return time.Duration(Clock() - first.Load())
	})
	for _, w := range l.workers {
		w.Post(func() {
			first.CompareAndSwap(0, Clock())
			if left.Add(-1) == 0 {
				close(all)
			}
			<-awake // open, for who comes late
		})
	}
	select {
	case <-all:
		return resume, nil
	case <-time.After(within):
		resume()
		return nil, fmt.Errorf("%d of %d workers have not come to rest within %v", left.Load(), len(l.workers), within)
	}
}

// Close stops the workers after the turn they are in, waits until they and the
// functions given to Grace have returned, and closes the descriptors of the
// loop; those of the sources belong to whoever added them. No handler, timer
// or posted call runs once Close returns.
func (l *Loop) Close() error {
	l.mustNotBeWorker("Close")
	l.once.Do(func() {
		l.mu.Lock()
		l.closed = true
		l.mu.Unlock()
		for _, w := range l.workers {
			w.stop()
		}
		for _, w := range l.workers {
			<-w.stopped
		}
		l.graces.Wait()
		for _, w := range l.workers {
			l.err = errors.Join(l.err, w.closeDescriptors())
		}
	})
	return l.err
}

// mustNotBeWorker panics when called on a worker, for calls that wait for one:
// they would wait for ever.
func (l *Loop) mustNotBeWorker(call string) {
	tid := gettid()
	for _, w := range l.workers {
		if w.tid.Load() == tid {
			panic("loop: " + call + " called on a worker waits for itself")
		}
	}
}
