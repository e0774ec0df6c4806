package nat

import (
	"encoding/binary"
	"math"
	"math/bits"
	"sync/atomic"

	"fairlead/packet"
)

// A record is one flow, in one of two sizes: 128 bytes for IPv4, 192 for IPv6,
// without pointers, so the garbage collector never looks inside. Its first cache
// line is what finding and translating read, and hardly ever written; its second
// has the counters. (Lines of its own for each direction would make three of
// them.)
type record4 struct {
	key [2]key4
	body
}

type record6 struct {
	key [2]key6
	body
	_ [16]byte // three cache lines
}

// A key is the tuple of one direction's packets, and the segment they come on.
type key4 struct {
	addrs uint64 // source and destination, as they lie in memory
	rest  rest
}

type key6 struct {
	src, dst packet.Addr
	rest     rest
}

// A rest is protocol, scope, source port and destination port in one word.
// Scopes have 24 bits, which is beyond what a switch has numbers for.
type rest uint64

func makeRest(scope packet.NetworkID, k *packet.Tuple) rest {
	return rest(k.Proto)<<56 | rest(scope)<<32 | rest(k.SrcPort)<<16 | rest(k.DstPort)
}

func (r rest) proto() packet.Proto     { return packet.Proto(r >> 56) }
func (r rest) scope() packet.NetworkID { return packet.NetworkID(r >> 32 & 0xffffff) }
func (r rest) srcPort() uint16         { return uint16(r >> 16) }
func (r rest) dstPort() uint16         { return uint16(r) }

// A body is what a record has besides its keys. Halves are indexed by direction:
// 0 is that of the first packet.
type body struct {
	// The halves: each is written by whoever carries that direction.
	seen [2]atomic.Uint64 // time and state bits

	// These stay as they are while the flow lives.
	container packet.ContainerID
	rule      uint32
	mapping   uint32 // 0 is none
	proto     packet.Proto
	kind      packet.NATKind
	traits    traits
	hidden    packet.Hidden

	packets, bytes [2]atomic.Uint64 // halves as well

	links [numLinks]link // the owner's
	class class          // which list of the holder it is in; the owner's
	live  bool           // until end; the owner's
	slot  uint8          // of the wheel; the owner's
}

// traits say what else is true of a flow.
type traits uint8

const (
	inward    traits = 1 << iota // the first packet came from outside
	toMapping                    // and went to a mapping
	kept                         // it crosses an uplink that keeps flows, see Table.Keep
)

func (b *body) is(t traits) bool { return b.traits&t != 0 }

// A ref names a record: its place in its slab, and in the lowest bit the slab.
// 0 is none.
func refOf(place int, v6 bool) uint32 {
	if v6 {
		return uint32(place)<<1 | 1
	}
	return uint32(place) << 1
}

func isV6(ref uint32) bool { return ref&1 != 0 }

// chunkLen is how many records a slab grows by: 128 KiB of IPv4.
const chunkLen = 1024

// A slab holds records at fixed addresses. It grows by a chunk when it must, up
// to its bound, and never shrinks: a chunk is shared by flows of any age.
type slab[R any] struct {
	chunks []*[chunkLen]R
	used   int // places handed out so far; place 0 stays empty
	bound  int
	free   list // of records recycled, by the link of the wheel
	spare  int  // how many those are
}

func (s *slab[R]) init(bound int) {
	s.bound = bound
	s.used = 1
	s.chunks = make([]*[chunkLen]R, bound/chunkLen+1)
}

func (s *slab[R]) at(place uint32) *R { return &s.chunks[place/chunkLen][place%chunkLen] }

// room reports whether take will succeed.
func (s *slab[R]) room() bool { return s.spare > 0 || s.used <= s.bound }

// grow hands out a place that was never used.
func (s *slab[R]) grow() int {
	place := s.used
	if s.chunks[place/chunkLen] == nil {
		s.chunks[place/chunkLen] = new([chunkLen]R)
	}
	s.used++
	return place
}

// takeRecord returns a record nobody uses. The caller has asked for room.
func (t *Table) takeRecord(v6 bool) uint32 {
	free, spare := &t.v4.free, &t.v4.spare
	if v6 {
		free, spare = &t.v6.free, &t.v6.spare
	}
	if ref := free.head; ref != 0 {
		t.unlink(free, linkWheel, ref)
		*spare--
		return ref
	}
	if v6 {
		return refOf(t.v6.grow(), true)
	}
	return refOf(t.v4.grow(), false)
}

func (t *Table) body(ref uint32) *body {
	if isV6(ref) {
		return &t.v6.at(ref >> 1).body
	}
	return &t.v4.at(ref >> 1).body
}

// key returns one of a record's keys in the form the world uses.
func (t *Table) key(ref uint32, dir int) (packet.NetworkID, packet.Tuple) {
	var k packet.Tuple
	var r rest
	if isV6(ref) {
		record := t.v6.at(ref >> 1)
		k.Src, k.Dst = record.key[dir].src, record.key[dir].dst
		r = record.key[dir].rest
	} else {
		record := t.v4.at(ref >> 1)
		addrs := record.key[dir].addrs
		k.Src, k.Dst = addr4(uint32(addrs)), addr4(uint32(addrs>>32))
		r = record.key[dir].rest
	}
	k.SrcPort, k.DstPort, k.Proto = r.srcPort(), r.dstPort(), r.proto()
	return r.scope(), k
}

func (t *Table) setKey(ref uint32, dir int, scope packet.NetworkID, k *packet.Tuple) {
	if isV6(ref) {
		t.v6.at(ref >> 1).key[dir] = key6{k.Src, k.Dst, makeRest(scope, k)}
	} else {
		t.v4.at(ref >> 1).key[dir] = key4{addrs4(k), makeRest(scope, k)}
	}
}

// forwardPort is the destination port of the flow's first packet.
func (t *Table) forwardPort(ref uint32) uint16 {
	if isV6(ref) {
		return t.v6.at(ref >> 1).key[0].rest.dstPort()
	}
	return t.v4.at(ref >> 1).key[0].rest.dstPort()
}

func addrs4(k *packet.Tuple) uint64 {
	return uint64(binary.LittleEndian.Uint32(k.Src[12:])) | uint64(binary.LittleEndian.Uint32(k.Dst[12:]))<<32
}

func addr4(w uint32) packet.Addr {
	a := packet.Addr{10: 0xff, 11: 0xff}
	binary.LittleEndian.PutUint32(a[12:], w)
	return a
}

// is4 is k.Src.Is4() without a copy: whether the tuple belongs into the slab of
// IPv4. Both of its addresses are of one family, because nothing translates
// between them.
func is4(k *packet.Tuple) bool {
	return binary.LittleEndian.Uint64(k.Src[:8]) == 0 && binary.LittleEndian.Uint32(k.Src[8:12]) == 0xffff0000
}

// mix folds the product of two words: a hash in which every bit of both moves
// every bit of the result, for who does not know the seeds (wyhash).
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

func (t *Table) hash4(k key4) uint64 {
	return mix(mix(k.addrs^t.seed[0], uint64(k.rest)^t.seed[1]), t.seed[2])
}

func (t *Table) hash6(k *packet.Tuple, r rest) uint64 {
	h := mix(binary.LittleEndian.Uint64(k.Src[:])^t.seed[0], binary.LittleEndian.Uint64(k.Src[8:])^t.seed[1])
	h = mix(binary.LittleEndian.Uint64(k.Dst[:])^h, binary.LittleEndian.Uint64(k.Dst[8:])^t.seed[2])
	return mix(h, uint64(r)^t.seed[3])
}

func (t *Table) hash(scope packet.NetworkID, k *packet.Tuple) uint64 {
	if is4(k) {
		return t.hash4(key4{addrs4(k), makeRest(scope, k)})
	}
	return t.hash6(k, makeRest(scope, k))
}

// lookup finds the flow one of whose keys this is, whether its time is up or
// not, and which one; 0 is none.
func (t *Table) lookup(scope packet.NetworkID, k *packet.Tuple) (ref uint32, dir int) {
	f, _ := t.Find(scope, k, math.MinInt64/2, 0)
	return f.ref, f.dir()
}

// search6 is what Find begins with, for IPv6: it returns the number of the key in
// the index, 0 for none, and the body of the record.
func (t *Table) search6(scope packet.NetworkID, k *packet.Tuple) (uint32, *body) {
	r := makeRest(scope, k)
	h := t.hash6(k, r)
	one, other := t.index.pair(h)
	for m := match(one, other, h); m != 0; m &= m - 1 {
		if n := numberAt(one, other, h, m); n-1 < maxNumber && isV6(n>>1) {
			record := t.v6.at(n >> 2)
			if key := &record.key[n&1]; key.rest == r && key.src == k.Src && key.dst == k.Dst {
				return n, &record.body
			}
		}
	}
	return 0, nil
}
