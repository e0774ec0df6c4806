package nat

import (
	"math/bits"
	"sync/atomic"
)

// An index finds numbers by the hash of their key. It does not have the keys:
// with a number it keeps some bits of the hash, and the reader compares the key
// in the record it is led to.
//
// A key may be in either of two buckets of one cache line each, in the emptier
// when it was added; nothing ever moves. With two choices no bucket gets much
// fuller than the average (Azar and others 1994), so the index has a fixed size
// and never grows: it is two thirds full at most, and then one key in a million
// finds both its buckets full. The hash is keyed, so nobody can aim at a bucket.
//
// Readers take no lock: all words are atomic. Writers are one at a time.
type index struct {
	buckets []bucket
}

// A bucket has twelve entries: a byte of the key's hash each in tags, of which
// four are spare, and a word each with more of the hash above the number. An
// entry of 0 is free.
type bucket struct {
	tags    [2]atomic.Uint64
	entries [bucketEntries]atomic.Uint32
}

const (
	bucketEntries = 12

	// numberBits is how long a number may be; the rest of an entry is of the hash.
	numberBits = 25
	maxNumber  = 1<<numberBits - 1
)

// init makes room for so many entries, which fill it to between a third and two:
// a power of two of buckets is chosen from with the fewest instructions.
func (x *index) init(entries int) {
	n := max(entries*3/2/bucketEntries, 4)
	x.buckets = make([]bucket, 1<<bits.Len(uint(n-1)))
}

// The low bits of either half of the hash choose the buckets, so the high ones of
// either still tell keys apart: tag and entry have them.

// pair returns the two buckets of a hash.
func (x *index) pair(h uint64) (a, b *bucket) {
	n := uint64(len(x.buckets))
	return &x.buckets[h&(n-1)], &x.buckets[h>>32&(n-1)]
}

func tag(h uint64) uint64 { return h >> 56 }

func entry(h uint64, number uint32) uint32 { return uint32(h)&^maxNumber | number }

// set writes an entry and its tag.
func (b *bucket) set(i int, entry uint32, tag uint64) {
	b.entries[i].Store(entry)
	word, shift := &b.tags[i/8], i%8*8
	word.Store(word.Load()&^(0xff<<shift) | tag<<shift)
}

// free returns a free entry of the bucket and how many there are.
func (b *bucket) free() (place, n int) {
	for i := range b.entries {
		if b.entries[i].Load() == 0 {
			place = i
			n++
		}
	}
	return place, n
}

// emptier returns the bucket a key is added to, a free entry of it, and how many
// there are.
func (x *index) emptier(h uint64) (b *bucket, place, n int) {
	b, other := x.pair(h)
	place, n = b.free()
	if i, more := other.free(); more > n {
		return other, i, more
	}
	return b, place, n
}

// add enters a number under hash h, and reports false when both buckets are
// full.
func (x *index) add(h uint64, number uint32) bool {
	b, place, n := x.emptier(h)
	if n == 0 {
		return false
	}
	b.set(place, entry(h, number), tag(h))
	return true
}

// room reports whether add would find room under two hashes, one after the
// other.
func (x *index) room(first, second uint64) bool {
	one, _, n := x.emptier(first)
	other, _, left := x.emptier(second)
	if one != other || left > 1 {
		return n > 0 && left > 0
	}
	// The first one takes the last entry of the bucket; the second may have
	// another bucket with as many.
	a, b := x.pair(second)
	_, na := a.free()
	_, nb := b.free()
	return a != b && na+nb > 1
}

// remove takes out a number that was added under hash h.
func (x *index) remove(h uint64, number uint32) {
	a, b := x.pair(h)
	for _, b := range [2]*bucket{a, b} {
		for i := range b.entries {
			if b.entries[i].Load() == entry(h, number) {
				b.set(i, 0, 0)
				return
			}
		}
	}
}

// match compares all tags of two buckets with that of a hash. Of each byte i of
// the result bits 4 and 5 say that entry i of bucket a or b may be meant, bits 6
// and 7 that entry 8+i may.
//
// A lookup in a table of a million flows waits for memory, and what it costs is
// how many more lookups the processor can begin meanwhile. So there are few
// instructions here, in pieces that are inlined (match itself is not: Find has
// it written out), and no branch depends on which entry fits: that cannot be
// foretold, and after a wrong guess the processor would wait before it goes on.
func match(a, b *bucket, h uint64) uint64 {
	return same(&a.tags[0], &b.tags[0], h)>>2 | uint64(uint32(same(&a.tags[1], &b.tags[1], h)))
}

// same has bits 6 or 7 of each byte set where that byte of a or b is the tag of a
// hash, and perhaps of one above such a byte: numberAt finds out.
func same(a, b *atomic.Uint64, h uint64) uint64 {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	x, y := a.Load()^tag(h)*ones, b.Load()^tag(h)*ones
	return (x-ones)&^x&tops>>1 | (y-ones)&^y&tops
}

// numberAt returns the number in the lowest entry of a match. It is 0, or none
// that fits into numberBits, when the entry is free or the rest of the hash is
// another.
func numberAt(a, b *bucket, h, match uint64) uint32 {
	bit := bits.TrailingZeros64(match)
	return [2]*bucket{a, b}[bit&1].entries[bit>>3|bit&2<<2].Load() ^ entry(h, 0)
}
