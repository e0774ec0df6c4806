package nat

import "fairlead/packet"

// A Prefetch is the packets of a batch whose flows are about to be looked up. With
// many flows each lookup waits for memory twice, for the index and then for the
// record; for all of a batch the waits can pass together.
type Prefetch struct {
	hashes [packet.BatchFrames]uint64
	n      int
}

// prefetchFrom is how many flows a table has from which on prefetching pays: their
// records and index are more than a processor's second cache holds.
const prefetchFrom = 8 << 10

// Prefetches reports whether the table is so large that prefetching pays.
func (t *Table) Prefetches() bool { return t.live.Load() >= prefetchFrom }

// Expect adds a packet to p, as Find will be asked for it; what is more than a
// batch it leaves out.
func (t *Table) Expect(p *Prefetch, scope packet.NetworkID, k *packet.Tuple) {
	if p.n < len(p.hashes) {
		p.hashes[p.n] = t.hash(scope, k)
		p.n++
	}
}

// Prefetch has the processor bring what Find, Translation and Seen will touch. It
// changes nothing, and any worker may call it.
//
// Loads that do not wait for one another go on while others wait, so there is one
// loop for each step, with little in it. They are atomic so that the compiler leaves
// them in.
func (t *Table) Prefetch(p *Prefetch) {
	for _, h := range p.hashes[:p.n] {
		one, other := t.index.pair(h)
		one.tags[0].Load()
		other.tags[0].Load()
	}
	for _, h := range p.hashes[:p.n] {
		one, other := t.index.pair(h)
		// The first that may be it: nearly always it is.
		if n := numberAt(one, other, h, match(one, other, h)); n-1 < maxNumber {
			b := t.body(n >> 1)
			b.seen[0].Load()
			b.packets[0].Load()
		}
	}
}
