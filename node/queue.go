package node

import (
	"sync"

	"fairlead/packet"
)

// A queue holds what waits for one goroutine, which takes it in order. A container
// has a bounded share, so nobody fills it alone.
type queue[T any] struct {
	items chan T // where the goroutine takes them from; took follows each
	share int

	mu    sync.Mutex // guards what follows
	of    map[packet.ContainerID]int
	total int
}

// newQueue makes a queue of so many items, and so many of one container.
func newQueue[T any](most, share int) *queue[T] {
	return &queue[T]{items: make(chan T, most), share: share, of: make(map[packet.ContainerID]int)}
}

// put has x wait, unless too many do.
func (q *queue[T]) put(c packet.ContainerID, x T) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.of[c] >= q.share || q.total >= cap(q.items) {
		return false
	}
	q.of[c]++
	q.total++
	q.items <- x // has room for all that are counted
	return true
}

// took gives up the place of an item that was taken.
func (q *queue[T]) took(c packet.ContainerID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.total--
	if q.of[c]--; q.of[c] == 0 {
		delete(q.of, c)
	}
}

// waiting is how many places are taken, and how many containers have some.
func (q *queue[T]) waiting() (items, containers int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.total, len(q.of)
}
