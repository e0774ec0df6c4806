package policy

import "sync/atomic"

// Hits counts what a rule has done. Each worker has a word of its own, which it
// alone writes, so counting locks no bus and shares no cache line; whoever reads
// adds them up.
type Hits struct{ workers []hits }

type hits struct {
	packets, bytes atomic.Uint64
	_              [48]byte // a cache line for each worker
}

// NewHits returns counters at zero.
func NewHits(workers int) *Hits { return &Hits{make([]hits, workers)} }

// Count counts packets that have so many bytes together. worker is who calls.
func (h *Hits) Count(worker, packets, bytes int) {
	w := &h.workers[worker]
	w.packets.Store(w.packets.Load() + uint64(packets))
	w.bytes.Store(w.bytes.Load() + uint64(bytes))
}

// Sum is what was counted so far. Any goroutine may call it.
func (h *Hits) Sum() (packets, bytes uint64) {
	for i := range h.workers {
		packets += h.workers[i].packets.Load()
		bytes += h.workers[i].bytes.Load()
	}
	return packets, bytes
}
