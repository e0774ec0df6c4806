package loop_test

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/loop"
)

func write(t testing.TB, fd int) {
	t.Helper()
	if _, err := unix.Write(fd, []byte{1}); err != nil {
		t.Fatal(err)
	}
}

func add(t testing.TB, w *loop.Worker, fd int, events uint32, h handler) *loop.Source {
	t.Helper()
	s, err := w.Add(fd, events, h)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestLevelTriggered: a handler is called until it has read everything, and not
// after that; with Edge once per change.
func TestLevelTriggered(t *testing.T) {
	w := newLoop(t, 1).Worker(0)
	r, p := pipe(t)
	defer closeAll(t, r, p)
	var calls, edges atomic.Int32
	s := add(t, w, r, loop.In, func(_ int64, events uint32) bool {
		if events != loop.In {
			t.Errorf("events %#x, want %#x", events, loop.In)
		}
		if calls.Add(1) == 3 {
			_, _ = unix.Read(r, make([]byte, 10))
		}
		return false
	})
	write(t, p)
	eventually(t, "three calls", func() bool { return calls.Load() == 3 })
	time.Sleep(10 * time.Millisecond)
	if n := calls.Load(); n != 3 {
		t.Errorf("%d calls, want 3", n)
	}
	s.Remove()
	s = add(t, w, r, loop.In|loop.Edge, func(int64, uint32) bool { edges.Add(1); return false })
	defer s.Remove()
	write(t, p)
	eventually(t, "an edge", func() bool { return edges.Load() == 1 })
	time.Sleep(10 * time.Millisecond)
	if n := edges.Load(); n != 1 {
		t.Errorf("%d calls for one edge", n)
	}
}

// TestWatch: a source that waits for nothing is left alone, and told again of
// what is there when it waits again.
func TestWatch(t *testing.T) {
	w := newLoop(t, 1).Worker(0)
	r, p := pipe(t)
	defer closeAll(t, r, p)
	var calls, more atomic.Int32
	var s *loop.Source
	w.Call(func() { // so that it does not run before s is set
		s = add(t, w, r, loop.In, func(int64, uint32) bool {
			calls.Add(1)
			s.Watch(0)
			return false
		})
	})
	other, q := pipe(t)
	defer closeAll(t, other, q)
	defer add(t, w, other, loop.In, func(int64, uint32) bool {
		_, _ = unix.Read(other, make([]byte, 1))
		more.Add(1)
		return false
	}).Remove()
	for i := range int32(3) {
		if i == 0 {
			write(t, p)
		} else {
			w.Call(func() { s.Watch(loop.In) })
		}
		eventually(t, "a call", func() bool { return calls.Load() == i+1 })
		write(t, q)
		eventually(t, "turns for another", func() bool { return more.Load() == i+1 })
		if n := calls.Load(); n != i+1 {
			t.Fatalf("%d calls, want %d", n, i+1)
		}
	}
	s.Remove()
	w.Call(func() { s.Watch(loop.In) }) // changes nothing
	write(t, q)
	eventually(t, "another turn", func() bool { return more.Load() == 4 })
	if n := calls.Load(); n != 3 {
		t.Errorf("%d calls, want 3", n)
	}
}

// TestHeldSource: what a source waits for may change, and it may go, before its
// descriptor is watched.
func TestHeldSource(t *testing.T) {
	l := newLoop(t, 1)
	w := l.Worker(0)
	r, p := pipe(t)
	defer closeAll(t, r, p)
	release := l.Hold()
	var calls, gone atomic.Int32
	s := add(t, w, r, loop.In, func(int64, uint32) bool { calls.Add(1); return false })
	other := add(t, w, p, loop.Out, func(int64, uint32) bool { gone.Add(1); return false })
	w.Call(func() { s.Watch(0) })
	other.Remove()
	write(t, p)
	if err := release(); err != nil {
		t.Fatal(err)
	}
	w.Call(func() {})
	w.Call(func() {})
	if calls.Load() != 0 || gone.Load() != 0 {
		t.Errorf("%d calls of one that waits for nothing, %d of one that has gone", calls.Load(), gone.Load())
	}
	w.Call(func() { s.Watch(loop.In) })
	eventually(t, "a call", func() bool { return calls.Load() > 0 })
	s.Remove()
}

// TestFairness: however much one source has to do, all ready sources are called
// once per turn, more of them than epoll reports at once included.
func TestFairness(t *testing.T) {
	w := newLoop(t, 1).Worker(0)
	const n = 300
	calls := make([]int, n) // on the worker
	var sources []*loop.Source
	w.Call(func() { // the worker is held while all become ready
		for i := range n {
			r, p := pipe(t)
			t.Cleanup(func() { closeAll(t, r, p) })
			write(t, p)
			sources = append(sources, add(t, w, r, loop.In, func(int64, uint32) bool {
				calls[i]++
				return i%2 == 0 // half of them ask for more, on top of epoll
			}))
		}
	})
	eventually(t, "everybody had a turn", func() (all bool) {
		w.Call(func() { all = slices.Min(calls) >= 20 })
		return all
	})
	w.Call(func() {
		for _, s := range sources {
			s.Remove()
		}
		// Those that ask are called every turn, the others in every third or
		// so, because epoll reports 128 at a time.
		if low, high := slices.Min(calls), slices.Max(calls); high > 5*low {
			t.Errorf("one source had %d turns, another %d", low, high)
		}
	})
}

// TestAgain: a source that asks is called in the next turn, behind the others,
// without an event.
func TestAgain(t *testing.T) {
	w := newLoop(t, 1).Worker(0)
	var order []string
	var events []uint32
	done := make(chan struct{})
	var a, b *loop.Source
	w.Call(func() {
		a = w.AddNotified(handler(func(_ int64, ev uint32) bool {
			order, events = append(order, "a"), append(events, ev)
			return len(order) < 5
		}))
		b = w.AddNotified(handler(func(int64, uint32) bool {
			order = append(order, "b")
			if len(order) < 5 {
				return true
			}
			close(done)
			return false
		}))
		a.Wake()
		b.Wake()
	})
	<-done
	if !slices.Equal(order, []string{"a", "b", "a", "b", "a", "b"}) {
		t.Errorf("order %v", order)
	}
	if slices.Max(events) != 0 {
		t.Errorf("events %v, want none", events)
	}
}

// TestWakeIsCoalesced: many calls of Wake are one call of Ready, and the last
// of them is never lost.
func TestWakeIsCoalesced(t *testing.T) {
	w := newLoop(t, 1).Worker(0)
	var counter, seen, calls atomic.Int64
	s := w.AddNotified(handler(func(int64, uint32) bool {
		calls.Add(1)
		seen.Store(counter.Load())
		return false
	}))
	w.Call(func() { // held, so that all of these come before the call
		for range 1000 {
			s.Wake()
		}
	})
	w.Call(func() {})
	w.Call(func() {})
	if n := calls.Load(); n != 1 {
		t.Errorf("%d calls for 1000 Wake in one turn", n)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5000 {
				counter.Add(1)
				s.Wake()
			}
		})
	}
	wg.Wait()
	eventually(t, "the last Wake is seen", func() bool { return seen.Load() == 20000 })
}

// TestRemoveOnTheWorker: Ready is not called any more, whatever is queued: an
// event of this turn, a Wake, or another turn it asked for.
func TestRemoveOnTheWorker(t *testing.T) {
	w := newLoop(t, 1).Worker(0)
	r, p := pipe(t)
	defer closeAll(t, r, p)
	var removed bool
	var ready, woken *loop.Source
	check := func(int64, uint32) bool {
		if removed {
			t.Error("Ready was called after Remove")
		}
		return true
	}
	w.Call(func() {
		ready = add(t, w, r, loop.In, check)
		woken = w.AddNotified(handler(check))
		write(t, p)
		woken.Wake()
	})
	w.Call(func() {
		// Both are in the queue of this turn already.
		ready.Remove()
		woken.Remove()
		removed = true
		woken.Wake()
		ready.Remove()
	})
	for range 10 {
		w.Call(func() {})
	}
}

// TestRemoveElsewhere: Ready is not called after the next Grace.
func TestRemoveElsewhere(t *testing.T) {
	l := newLoop(t, 2)
	var gone atomic.Bool
	s := l.Worker(1).AddNotified(handler(func(int64, uint32) bool {
		if gone.Load() {
			t.Error("Ready was called after Grace")
		}
		return true
	}))
	s.Wake()
	graced := make(chan struct{})
	s.Remove()
	l.Grace(func() { gone.Store(true); close(graced) })
	<-graced
	l.Worker(1).Call(func() {})
}

// TestStaleEvent: two descriptors are ready in one turn; the handler of one
// removes and closes the other, opens a new one that gets its number, and
// registers that in the same place. The event of the old must not reach the
// new.
func TestStaleEvent(t *testing.T) {
	w := newLoop(t, 1).Worker(0)
	type end struct {
		r, p int
		s    *loop.Source
	}
	var ends [2]end
	var fired, strange int
	var fresh *loop.Source
	var keep int
	onEvent := func(i int) handler {
		return func(int64, uint32) bool {
			fired++
			_, _ = unix.Read(ends[i].r, make([]byte, 1))
			other := &ends[1-i]
			other.s.Remove()
			closeAll(t, other.r)
			r, p := pipe(t)
			if r != other.r && p != other.r {
				t.Errorf("the number %d was not used again: %d, %d", other.r, r, p)
			}
			other.r, keep = r, p
			fresh = add(t, w, r, loop.In, func(int64, uint32) bool { strange++; return false })
			return false
		}
	}
	w.Call(func() {
		for i := range ends {
			r, p := pipe(t)
			ends[i] = end{r, p, nil}
			write(t, p)
		}
		for i := range ends {
			ends[i].s = add(t, w, ends[i].r, loop.In, onEvent(i))
		}
	})
	eventually(t, "an event", func() (ok bool) { w.Call(func() { ok = fired > 0 }); return ok })
	for range 10 {
		w.Call(func() {})
	}
	w.Call(func() {
		if fired != 1 || strange != 0 {
			t.Errorf("%d events, want 1; the new source got %d of the old", fired, strange)
		}
		fresh.Remove()
		for i := range ends {
			ends[i].s.Remove()
		}
	})
	closeAll(t, ends[0].r, ends[0].p, ends[1].r, ends[1].p, keep)
}

// TestManySources: the slab grows while the worker uses it, and its places are
// used again.
func TestManySources(t *testing.T) {
	l := newLoop(t, 1)
	w := l.Worker(0)
	var calls atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5 {
				var sources []*loop.Source
				before := calls.Load()
				for range 40 {
					r, p := pipe(t)
					defer closeAll(t, r, p)
					write(t, p)
					sources = append(sources, add(t, w, r, loop.In|loop.Edge, func(int64, uint32) bool {
						calls.Add(1)
						return false
					}))
				}
				for calls.Load() == before { // with its own it is called at least once
					time.Sleep(time.Millisecond)
				}
				for _, s := range sources {
					s.Remove()
				}
			}
		})
	}
	wg.Wait()
}

func TestAddError(t *testing.T) {
	w := newLoop(t, 1).Worker(0)
	if _, err := w.Add(-1, loop.In, handler(nil)); err == nil {
		t.Error("descriptor -1 was added")
	}
	// The place is free again.
	s := w.AddNotified(handler(func(int64, uint32) bool { return false }))
	s.Wake()
	w.Call(func() {})
	if s.Worker() != w || w.ID() != 0 {
		t.Error("the source does not know its worker")
	}
}

// TestNoAllocations: a turn allocates nothing, with an event, a Wake, a timer
// and a source that asks again.
func TestNoAllocations(t *testing.T) {
	w := newLoop(t, 1).Worker(0)
	r, p := pipe(t)
	defer closeAll(t, r, p)
	done := make(chan struct{}, 1)
	buf, one := make([]byte, 1), []byte{1}
	var timer *loop.Timer
	var notified *loop.Source
	s := add(t, w, r, loop.In, func(int64, uint32) bool {
		_, _ = unix.Read(r, buf)
		notified.Wake()
		return false
	})
	defer s.Remove()
	again := false
	notified = w.AddNotified(handler(func(int64, uint32) bool {
		again = !again
		timer.Reset(time.Microsecond)
		return again
	}))
	w.Call(func() {
		timer = w.AfterFunc(time.Hour, func(int64) {
			select { // it may fire once or twice per round
			case done <- struct{}{}:
			default:
			}
		})
	})
	allocs := testing.AllocsPerRun(200, func() {
		_, _ = unix.Write(p, one)
		<-done
	})
	if allocs != 0 {
		t.Errorf("%v allocations per event, Wake, again and timer", allocs)
	}
}

func BenchmarkTurn(b *testing.B) {
	w := newLoop(b, 1).Worker(0)
	done := make(chan struct{})
	n := 0
	s := w.AddNotified(handler(func(int64, uint32) bool {
		n++
		if n < b.N {
			return true
		}
		close(done)
		return false
	}))
	b.ResetTimer()
	s.Wake()
	<-done
}

// BenchmarkWake measures the way from another goroutine to a sleeping worker
// and back.
func BenchmarkWake(b *testing.B) {
	w := newLoop(b, 1).Worker(0)
	done := make(chan struct{})
	s := w.AddNotified(handler(func(int64, uint32) bool { done <- struct{}{}; return false }))
	for b.Loop() {
		s.Wake()
		<-done
	}
}
