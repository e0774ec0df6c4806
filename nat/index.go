package nat

import (
	"math/bits"
	"sync/atomic"
)

// An index finds numbers by the hash of their key. It does not have the keys:
// an entry is a number and as many bits of the hash as fit beside it, and the
// reader compares the key in the record it leads to.
//
// A key may be in either of two buckets of one cache line each, in the emptier
// when it was added; nothing ever moves. With two choices, buckets of sixteen
// hardly overflow at three quarters of their capacity (the most loaded of n has
// log log n more than the average: Azar and others 1994), so the index has a
// fixed size and never grows. The hash is keyed, so nobody can aim at a bucket.
//
// Readers take no lock: entries are atomic words. Writers are one at a time.
type index struct {
	buckets []bucket
	bits    int // of the number in an entry; the rest is of the hash
}

type bucket [16]atomic.Uint32 // 0 is free

// init makes room for so many entries, of numbers up to most and one bit.
func (x *index) init(entries int, most uint32) {
	x.buckets = make([]bucket, max(entries*4/3/len(bucket{}), 2)+1)
	x.bits = bits.Len32(most<<1 | 1)
}

// pair returns the two buckets of a hash.
func (x *index) pair(h uint64) (a, b *bucket) {
	n := uint64(len(x.buckets))
	return &x.buckets[(h>>32)*n>>32], &x.buckets[(h&0xffffffff)*n>>32]
}

// entry is what stands for number e under hash h. The buckets are chosen by the
// high bits of either half, so the low ones still tell keys apart.
func (x *index) entry(h uint64, e uint32) uint32 { return uint32(h)<<x.bits | e }

// add enters number e under hash h, and reports false when both buckets are
// full.
func (x *index) add(h uint64, e uint32) bool {
	a, b := x.pair(h)
	i, na := a.free()
	j, nb := b.free()
	if nb > na {
		a, i, na = b, j, nb
	}
	if na == 0 {
		return false
	}
	a[i].Store(x.entry(h, e))
	return true
}

// room reports whether add would find room.
func (x *index) room(h uint64) bool {
	a, b := x.pair(h)
	_, na := a.free()
	_, nb := b.free()
	return na+nb > 0
}

// free returns a free place of the bucket and how many there are.
func (b *bucket) free() (place, n int) {
	for i := range b {
		if b[i].Load() == 0 {
			place = i
			n++
		}
	}
	return place, n
}

// remove takes number e out, which was added under hash h.
func (x *index) remove(h uint64, e uint32) {
	a, b := x.pair(h)
	want := x.entry(h, e)
	for _, bucket := range [2]*bucket{a, b} {
		for i := range bucket {
			if bucket[i].Load() == want {
				bucket[i].Store(0)
				return
			}
		}
	}
}

// candidates walks over the numbers that may be meant by a hash.
type candidates struct {
	a, b *bucket
	want uint32
	bits int
	i    int
}

func (x *index) candidates(h uint64) candidates {
	a, b := x.pair(h)
	// Both lines are on their way before the first is compared.
	a[0].Load()
	b[0].Load()
	return candidates{a: a, b: b, want: uint32(h) << x.bits >> x.bits, bits: x.bits}
}

func (c *candidates) next() (uint32, bool) {
	for c.i < 2*len(bucket{}) {
		bucket := c.a
		if c.i >= len(bucket) {
			bucket = c.b
		}
		e := bucket[c.i%len(bucket)].Load()
		c.i++
		if e>>c.bits == c.want && e != 0 {
			return e & (1<<c.bits - 1), true
		}
	}
	return 0, false
}
