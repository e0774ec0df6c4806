package loop

import (
	"container/heap"
	"math"
	"time"
)

// A Timer calls a function on its worker. All its methods are for the worker
// only. Timers fire in the order of their deadlines, equal ones in the order
// they were set, never early and up to a millisecond late: that is epoll's unit.
type Timer struct {
	worker   *Worker
	fn       func(now int64)
	deadline int64
	seq      uint64
	index    int // in the heap, -1 when not pending
}

// AfterFunc calls fn once when d has passed since the start of this turn, in a
// later turn even if d is zero or less. On the worker only. The worker holds as
// many timers as its users set: bounding them is theirs.
func (w *Worker) AfterFunc(d time.Duration, fn func(now int64)) *Timer {
	t := &Timer{worker: w, fn: fn, index: -1}
	t.Reset(d)
	return t
}

// Reset sets the timer anew, whether it is pending, has fired or was stopped.
func (t *Timer) Reset(d time.Duration) {
	h := &t.worker.timers
	// At least a nanosecond away: a timer that resets itself to now would
	// otherwise fire in this turn for ever.
	t.deadline = t.worker.now + max(1, int64(d))
	if t.deadline < 0 {
		t.deadline = math.MaxInt64
	}
	h.lastSeq++
	t.seq = h.lastSeq
	if t.index >= 0 {
		heap.Fix(h, t.index)
	} else {
		heap.Push(h, t)
	}
}

// Stop ends the timer: fn is not called after it returns. It reports whether
// the timer was pending.
func (t *Timer) Stop() bool {
	if t.index < 0 {
		return false
	}
	heap.Remove(&t.worker.timers, t.index)
	return true
}

// A timerHeap is a binary heap by deadline.
type timerHeap struct {
	timers  []*Timer
	lastSeq uint64
}

// fire calls all that is due.
func (h *timerHeap) fire(now int64) {
	for len(h.timers) > 0 && h.timers[0].deadline <= now {
		heap.Pop(h).(*Timer).fn(now)
	}
}

// timeout is how many milliseconds epoll may wait, rounded up, so that the
// worker does not spin through the last one; -1 for ever.
func (h *timerHeap) timeout(now int64) int {
	if len(h.timers) == 0 {
		return -1
	}
	d := h.timers[0].deadline - now
	if d <= 0 {
		return 0
	}
	const ms = int64(time.Millisecond)
	return int(min((d-1)/ms+1, math.MaxInt32))
}

func (h *timerHeap) Len() int { return len(h.timers) }

func (h *timerHeap) Less(i, j int) bool {
	a, b := h.timers[i], h.timers[j]
	if a.deadline != b.deadline {
		return a.deadline < b.deadline
	}
	return a.seq < b.seq
}

func (h *timerHeap) Swap(i, j int) {
	t := h.timers
	t[i], t[j] = t[j], t[i]
	t[i].index, t[j].index = i, j
}

func (h *timerHeap) Push(x any) {
	t := x.(*Timer)
	t.index = len(h.timers)
	h.timers = append(h.timers, t)
}

func (h *timerHeap) Pop() any {
	last := len(h.timers) - 1
	t := h.timers[last]
	h.timers[last] = nil
	h.timers = h.timers[:last]
	t.index = -1
	return t
}
