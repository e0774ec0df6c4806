package loop

import "sync/atomic"

// An inbox is where others leave posted calls and woken sources for a worker: a
// stack that any goroutine pushes onto and the worker takes as a whole, so that
// neither ever waits for the other. A lock would let a goroutine that is
// descheduled while holding it stop the forwarding.
type inbox struct{ top atomic.Pointer[item] }

// An item is a posted call or a woken source; the latter's is part of the
// source, so that waking allocates nothing.
type item struct {
	next   *item
	fn     func()
	source *Source
}

func (b *inbox) empty() bool { return b.top.Load() == nil }

func (b *inbox) put(it *item) {
	for {
		top := b.top.Load()
		it.next = top
		if b.top.CompareAndSwap(top, it) {
			return
		}
	}
}

// take empties the inbox and returns its items in the order they were put.
func (b *inbox) take() (first *item) {
	if b.empty() {
		return nil
	}
	for it := b.top.Swap(nil); it != nil; {
		next := it.next
		it.next = first
		first, it = it, next
	}
	return first
}
