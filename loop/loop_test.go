package loop_test

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/loop"
)

// handler is a Handler made of a function.
type handler func(now int64, events uint32) bool

func (h handler) Ready(now int64, events uint32) bool { return h(now, events) }

func newLoop(t testing.TB, workers int) *loop.Loop {
	t.Helper()
	l, err := loop.New(workers)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return l
}

// eventually waits for a condition that another goroutine brings about.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func TestNewNeedsAWorker(t *testing.T) {
	if _, err := loop.New(0); err == nil {
		t.Error("a loop without workers was made")
	}
}

func TestPostKeepsOrder(t *testing.T) {
	w := newLoop(t, 1).Worker(0)
	const goroutines, each = 4, 1000
	var got [goroutines][]int // on the worker
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := range each {
				w.Post(func() { got[g] = append(got[g], i) })
			}
		})
	}
	wg.Wait()
	w.Call(func() {
		for g := range got {
			if len(got[g]) != each || !slices.IsSorted(got[g]) {
				t.Errorf("goroutine %d: %d calls, sorted: %v", g, len(got[g]), slices.IsSorted(got[g]))
			}
		}
	})
}

// TestPostFromTheWorker: a call that posts itself again comes up twice in a turn at
// most, so descriptors and timers have theirs.
func TestPostFromTheWorker(t *testing.T) {
	w := newLoop(t, 1).Worker(0)
	turns := make(map[int64]int)
	done := make(chan struct{})
	var again func()
	again = func() {
		if turns[w.Now()]++; len(turns) < 100 {
			w.Post(again)
		} else {
			close(done)
		}
	}
	w.Post(again)
	<-done
	for at, n := range turns {
		if n > 2 {
			t.Errorf("%d calls ran in the turn at %d", n, at)
		}
	}
}

func TestCallOnAWorkerPanics(t *testing.T) {
	l := newLoop(t, 2)
	l.Worker(0).Call(func() {
		for name, call := range map[string]func(){
			"Call on itself":  func() { l.Worker(0).Call(func() {}) },
			"Call on another": func() { l.Worker(1).Call(func() {}) },
			"Close":           func() { _ = l.Close() },
		} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s did not panic", name)
					}
				}()
				call()
			}()
		}
	})
}

// TestGraceWaitsForAHandler: what a worker was doing when Grace was called is
// over when fn runs, while other workers sleep.
func TestGraceWaitsForAHandler(t *testing.T) {
	l := newLoop(t, 3)
	entered, leave := make(chan struct{}), make(chan struct{})
	var left atomic.Bool
	s := l.Worker(1).AddNotified(handler(func(int64, uint32) bool {
		close(entered)
		<-leave
		left.Store(true)
		return false
	}))
	s.Wake()
	<-entered
	graced := make(chan bool)
	l.Grace(func() { graced <- left.Load() })
	select {
	case <-graced:
		t.Fatal("Grace did not wait for the handler")
	case <-time.After(50 * time.Millisecond):
	}
	close(leave)
	if !<-graced {
		t.Error("Grace ran before the handler returned")
	}
}

// TestGraceComesAfterPosts: calls posted before Grace have run when fn runs,
// also on workers that slept.
func TestGraceComesAfterPosts(t *testing.T) {
	l := newLoop(t, 2)
	for range 200 {
		var ran atomic.Int32
		for i := range l.NumWorkers() {
			l.Worker(i).Post(func() { ran.Add(1) })
		}
		graced := make(chan int32)
		l.Grace(func() { graced <- ran.Load() })
		if n := <-graced; n != 2 {
			t.Fatalf("%d of 2 calls had run", n)
		}
	}
}

// TestGraceFromAWorker: the turn it is called in has to end first.
func TestGraceFromAWorker(t *testing.T) {
	l := newLoop(t, 2)
	var over atomic.Bool
	graced := make(chan bool)
	l.Worker(0).Post(func() {
		l.Grace(func() { graced <- over.Load() })
		time.Sleep(10 * time.Millisecond)
		over.Store(true)
	})
	if !<-graced {
		t.Error("Grace did not wait for the turn it was called in")
	}
}

func TestClose(t *testing.T) {
	goroutines, descriptors := runtime.NumGoroutine(), openDescriptors(t)
	l, err := loop.New(3)
	if err != nil {
		t.Fatal(err)
	}
	w := l.Worker(0)
	var ready, posted, timer atomic.Int32
	busy := w.AddNotified(handler(func(int64, uint32) bool { ready.Add(1); return true }))
	busy.Wake()
	w.Call(func() { w.AfterFunc(time.Millisecond, func(int64) { timer.Add(1) }) })
	eventually(t, "the timer fires", func() bool { return timer.Load() == 1 })
	var graced atomic.Bool
	l.Grace(func() { time.Sleep(10 * time.Millisecond); graced.Store(true) })
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if !graced.Load() {
		t.Error("Close did not wait for Grace")
	}
	n := ready.Load()
	w.Post(func() { posted.Add(1) })
	busy.Wake()
	if w.Call(func() { posted.Add(1) }) {
		t.Error("Call says it ran on a closed loop")
	}
	if _, err := w.Add(0, loop.In, handler(nil)); !errors.Is(err, loop.ErrClosed) {
		t.Errorf("Add: %v, want %v", err, loop.ErrClosed)
	}
	busy.Remove()
	late := make(chan struct{})
	l.Grace(func() { close(late) })
	<-late
	if err := l.Close(); err != nil {
		t.Errorf("Close again: %v", err)
	}
	time.Sleep(5 * time.Millisecond)
	if ready.Load() != n || posted.Load() != 0 {
		t.Errorf("after Close: %d handlers, %d posted calls", ready.Load()-n, posted.Load())
	}
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
	if now := openDescriptors(t); now != descriptors {
		t.Errorf("%d descriptors before, %d after", descriptors, now)
	}
}

// TestCloseAmidEverything has others post, wake, add and remove while the loop
// ends. It is for the race detector and for the descriptor numbers.
func TestCloseAmidEverything(t *testing.T) {
	descriptors := openDescriptors(t)
	for range 20 {
		l, err := loop.New(2)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		var stop atomic.Bool
		for i := range 4 {
			wg.Go(func() {
				w := l.Worker(i % 2)
				r, p := pipe(t)
				defer closeAll(t, r, p)
				for !stop.Load() {
					s, err := w.Add(r, loop.In, handler(func(int64, uint32) bool { return false }))
					if err != nil {
						return
					}
					s.Wake()
					w.Call(func() {})
					s.Remove()
					l.Grace(func() {})
				}
			})
		}
		time.Sleep(2 * time.Millisecond)
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		stop.Store(true)
		wg.Wait()
	}
	eventually(t, "no descriptor is left", func() bool { return openDescriptors(t) == descriptors })
}

func TestStats(t *testing.T) {
	const busy = 100 * time.Millisecond
	w := newLoop(t, 1).Worker(0)
	w.Call(func() { time.Sleep(busy) })
	// The call has run before its turn is over.
	eventually(t, "the longest turn is the one of the call", func() bool { return w.Stats().LongestTurn >= busy })
	eventually(t, "the longest turn is forgotten once it was told", func() bool { return w.Stats().LongestTurn < busy })
	w.Call(func() {})
	if s := w.Stats(); s.Posted != 2 {
		t.Errorf("%d posted calls, want 2", s.Posted)
	}
}

// TestSleepIsNoTurn: the time a worker sleeps does not count as its longest
// turn. A machine that has no processor for it for that long makes such a turn, so
// it tries again.
func TestSleepIsNoTurn(t *testing.T) {
	w := newLoop(t, 1).Worker(0)
	eventually(t, "a longest turn that is shorter than the sleep before", func() bool {
		const sleep = 100 * time.Millisecond
		w.Call(func() {})
		w.Stats()
		time.Sleep(sleep)
		w.Call(func() {})
		w.Call(func() {})
		return w.Stats().LongestTurn < sleep
	})
}

// TestIdleWorkerSleeps: without anything to do a worker does not turn, but for the
// signals the runtime sends its threads, each of which ends a sleep.
func TestIdleWorkerSleeps(t *testing.T) {
	w := newLoop(t, 1).Worker(0)
	eventually(t, "at most 5 turns in 100 ms of idleness", func() bool {
		w.Call(func() {})
		before := w.Stats().Turns
		time.Sleep(100 * time.Millisecond)
		return w.Stats().Turns-before <= 5
	})
}

func TestClockIsMonotonic(t *testing.T) {
	w := newLoop(t, 1).Worker(0)
	before := loop.Clock()
	var now int64
	w.Call(func() { now = w.Now() })
	if after := loop.Clock(); now < before || now > after {
		t.Errorf("a turn between %d and %d began at %d", before, after, now)
	}
}

func openDescriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// pipe returns both ends, non-blocking.
func pipe(t testing.TB) (r, w int) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	return p[0], p[1]
}

func closeAll(t testing.TB, fds ...int) {
	t.Helper()
	for _, fd := range fds {
		if err := unix.Close(fd); err != nil {
			t.Error(err)
		}
	}
}

// TestRest: nothing runs on any worker while they rest, also where several have them
// rest at once.
func TestRest(t *testing.T) {
	l := newLoop(t, 3)
	var ran [3]atomic.Uint64
	for i := range ran {
		var again func()
		again = func() {
			ran[i].Add(1)
			l.Worker(i).Post(again)
		}
		l.Worker(i).Post(again)
	}
	look := func() (n [3]uint64) {
		for i := range ran {
			n[i] = ran[i].Load()
		}
		return n
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				resume, err := l.Rest(time.Hour)
				if err != nil {
					t.Error(err)
					return
				}
				before := look()
				runtime.Gosched()
				if after := look(); after != before {
					t.Errorf("workers at rest went from %v to %v", before, after)
				}
				resume()
			}
		})
	}
	wg.Wait()
	last := look()
	eventually(t, "all go on", func() bool {
		now := look()
		return now[0] > last[0] && now[1] > last[1] && now[2] > last[2]
	})
}

// A worker that is long in one thing has the others rest for no longer than they were
// to, and rests the next time.
func TestRestWithin(t *testing.T) {
	l := newLoop(t, 2)
	busy, let := make(chan struct{}), make(chan struct{})
	l.Worker(0).Post(func() {
		close(busy)
		<-let
	})
	<-busy
	for within := time.Millisecond; ; within *= 10 { // in which the other one may not have had a processor
		_, err := l.Rest(within)
		if err != nil && err.Error() == fmt.Sprintf("1 of 2 workers have not come to rest within %v", within) {
			break
		}
		if err == nil || within > time.Second {
			t.Fatalf("one of two is busy: %v", err)
		}
	}
	l.Worker(1).Call(func() {})
	close(let)
	began := loop.Clock()
	resume, err := l.Rest(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	rested := loop.Clock()
	least := loop.Clock() - rested
	if stood := int64(resume()); stood < least || stood > loop.Clock()-began {
		t.Errorf("they have stood for %d ns, at least for %d", stood, least)
	}
	for i := range l.NumWorkers() {
		l.Worker(i).Call(func() {})
	}
}
