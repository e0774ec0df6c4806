package loop_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"fairlead/loop"
)

func TestTimersFireInOrder(t *testing.T) {
	w := newLoop(t, 1).Worker(0)
	rng := rand.New(rand.NewPCG(1, 2))
	const n = 200
	var fired []time.Duration
	done := make(chan struct{})
	w.Call(func() {
		for range n {
			d := time.Duration(rng.IntN(20)) * time.Millisecond
			set := w.Now()
			w.AfterFunc(d, func(now int64) {
				if now < set+int64(d) {
					t.Errorf("a timer of %v fired after %v", d, time.Duration(now-set))
				}
				fired = append(fired, d)
				if len(fired) == n {
					close(done)
				}
			})
		}
	})
	<-done
	if !slices.IsSorted(fired) {
		t.Errorf("order %v", fired)
	}
}

// TestEqualTimers fire in the order they were set.
func TestEqualTimers(t *testing.T) {
	w := newLoop(t, 1).Worker(0)
	var fired []int
	done := make(chan struct{})
	w.Call(func() {
		for i := range 50 {
			w.AfterFunc(time.Millisecond, func(int64) { fired = append(fired, i) })
		}
		w.AfterFunc(2*time.Millisecond, func(int64) { close(done) })
	})
	<-done
	if len(fired) != 50 || !slices.IsSorted(fired) {
		t.Errorf("order %v", fired)
	}
}

// TestTimerInItsOwnHandler: a timer may reset itself, or stop others that are
// due in the same turn.
func TestTimerInItsOwnHandler(t *testing.T) {
	w := newLoop(t, 1).Worker(0)
	done := make(chan struct{})
	turns := map[int64]int{}
	var tick *loop.Timer
	w.Call(func() {
		count := 0
		tick = w.AfterFunc(0, func(now int64) {
			turns[now]++
			if count++; count < 10 {
				tick.Reset(-time.Second) // at once, which is the next turn
				return
			}
			if tick.Stop() {
				t.Error("a timer that fires says it was pending")
			}
			close(done)
		})
	})
	<-done
	if len(turns) != 10 {
		t.Errorf("10 times in %d turns", len(turns))
	}

	stopped := make(chan bool, 1)
	w.Call(func() {
		var second *loop.Timer
		w.AfterFunc(time.Millisecond, func(int64) { stopped <- second.Stop() })
		second = w.AfterFunc(time.Millisecond, func(int64) { t.Error("a stopped timer fired") })
	})
	if !<-stopped {
		t.Error("Stop says the timer was not pending")
	}
	w.Call(func() {})
}

func TestTimerStopAndReset(t *testing.T) {
	w := newLoop(t, 1).Worker(0)
	fired := make(chan struct{})
	w.Call(func() {
		timer := w.AfterFunc(math.MaxInt64, func(int64) { close(fired) })
		if !timer.Stop() || timer.Stop() {
			t.Error("Stop reports whether the timer was pending: true, then false")
		}
		timer.Reset(time.Hour)
		timer.Reset(time.Millisecond)
	})
	<-fired
}

// TestTimerWakesTheWorker: a sleeping worker wakes up for a timer, not long
// after it is due, and sleeps until then. A machine that has no processor for it
// makes it late, so it tries again.
func TestTimerWakesTheWorker(t *testing.T) {
	w := newLoop(t, 1).Worker(0)
	fired := make(chan time.Duration)
	eventually(t, "a timer of 50 ms fires within 40 ms of that, after 10 turns at most", func() bool {
		w.Call(func() {
			due := w.Now() + int64(50*time.Millisecond)
			w.AfterFunc(50*time.Millisecond, func(now int64) { fired <- time.Duration(now - due) })
		})
		before := w.Stats().Turns
		late := <-fired
		if late < 0 {
			t.Fatalf("the timer fired %v before it was due", -late)
		}
		return late <= 40*time.Millisecond && w.Stats().Turns-before <= 10
	})
}
