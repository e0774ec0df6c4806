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
	bits    uint64 // of the number in an entry; the rest is of the hash
}

// A bucket has twelve entries: a byte of the hash each in the first two words,
// of which four bytes are spare, then half a word each with more of the hash and
// the number. An entry of 0 is free.
type bucket [8]atomic.Uint64

const bucketEntries = 12

// init makes room for so many entries, of numbers up to most and one bit.
func (x *index) init(entries int, most uint32) {
	x.buckets = make([]bucket, entries*3/2/bucketEntries+4)
	x.bits = uint64(bits.Len32(most<<1 | 1))
}

// pair returns the two buckets of a hash.
func (x *index) pair(h uint64) (a, b uint64) {
	n := uint64(len(x.buckets))
	return (h >> 32) * n >> 32, (h & 0xffffffff) * n >> 32
}

// The buckets are chosen by the high bits of either half of the hash, so the low
// ones of either still tell keys apart: tag and entry have them.

func tag(h uint64) uint64 { return h >> 32 & 0xff }

func (x *index) entry(h uint64, e uint32) uint32 { return uint32(h<<(x.bits&31)) | e }

func (b *bucket) entry(i uint64) uint32 { return uint32(b[2+i/2].Load() >> (i % 2 * 32)) }

// set writes an entry and its tag.
func (b *bucket) set(i uint64, e uint32, tag uint64) {
	put := func(word *atomic.Uint64, shift, mask, v uint64) {
		word.Store(word.Load()&^(mask<<shift) | v<<shift)
	}
	put(&b[2+i/2], i%2*32, 0xffffffff, uint64(e))
	put(&b[i/8], i%8*8, 0xff, tag)
}

// free returns a free entry of the bucket and how many there are.
func (b *bucket) free() (place uint64, n int) {
	for i := uint64(0); i < bucketEntries; i += 2 {
		pair := b[2+i/2].Load()
		if uint32(pair) == 0 {
			place = i
			n++
		}
		if pair>>32 == 0 {
			place = i + 1
			n++
		}
	}
	return place, n
}

// add enters number e under hash h, and reports false when both buckets are
// full.
func (x *index) add(h uint64, e uint32) bool {
	a, b := x.pair(h)
	i, na := x.buckets[a].free()
	j, nb := x.buckets[b].free()
	if nb > na {
		a, i, na = b, j, nb
	}
	if na == 0 {
		return false
	}
	x.buckets[a].set(i, x.entry(h, e), tag(h))
	return true
}

// room reports whether add would find room.
func (x *index) room(h uint64) bool {
	a, b := x.pair(h)
	_, na := x.buckets[a].free()
	_, nb := x.buckets[b].free()
	return na+nb > 0
}

// remove takes number e out, which was added under hash h.
func (x *index) remove(h uint64, e uint32) {
	a, b := x.pair(h)
	want := x.entry(h, e)
	for _, n := range [2]uint64{a, b} {
		for i := range uint64(bucketEntries) {
			if x.buckets[n].entry(i) == want {
				x.buckets[n].set(i, 0, 0)
				return
			}
		}
	}
}

// match compares all tags of a hash's buckets with it: each bit that is set is an
// entry that may be meant. There is no branch in it: which entry fits cannot be
// foretold, and after a wrong guess the processor would wait for the line to
// come from memory before it goes on to the next packet.
func (x *index) match(h uint64) uint64 {
	a, b := x.pair(h)
	one, other := &x.buckets[a], &x.buckets[b]
	want := tag(h) * 0x0101010101010101
	// Tag i of word w is bit 8i+w; of the second words only four tags are used.
	return 0x0505050505050505&(same(one[0].Load()^want)|same(other[0].Load()^want)<<2) |
		0x000000000a0a0a0a&(same(one[1].Load()^want)<<1|same(other[1].Load()^want)<<3)
}

// same has the lowest bit of each byte set that is zero in d, and perhaps of one
// above such a byte, which is found out by number.
func same(d uint64) uint64 {
	const lows = 0x0101010101010101
	return (d - lows) &^ d >> 7
}

// number returns the number of the lowest entry in a match, 0 when the rest of
// the hash is another.
func (x *index) number(h, match uint64) uint32 {
	bit := uint64(bits.TrailingZeros64(match))
	a, b := x.pair(h)
	a ^= (a ^ b) & -(bit >> 1 & 1) // the bucket, without a branch
	entry := x.buckets[a].entry(bit&1*8 + bit/8)
	e := entry & (1<<(x.bits&31) - 1)
	if x.entry(h, e) != entry {
		return 0
	}
	return e
}
