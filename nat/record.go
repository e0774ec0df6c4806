package nat

import (
	"math/bits"
	"sync/atomic"

	"encoding/binary"

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
// The protocol is in the body.
type key4 struct {
	scope            packet.NetworkID
	src, dst         uint32
	srcPort, dstPort uint16
}

type key6 struct {
	scope            packet.NetworkID
	src, dst         packet.Addr
	srcPort, dstPort uint16
}

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
	inward    bool // the first packet came from outside

	slot uint8 // of the wheel; the owner's

	packets, bytes [2]atomic.Uint64 // halves as well

	links  [numLinks]link // the owner's
	proven bool           // which list of the holder it is in; the owner's
}

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
	if isV6(ref) {
		r := t.v6.at(ref >> 1)
		k := &r.key[dir]
		return k.scope, packet.Tuple{Src: k.src, Dst: k.dst, SrcPort: k.srcPort, DstPort: k.dstPort, Proto: r.proto}
	}
	r := t.v4.at(ref >> 1)
	k := &r.key[dir]
	return k.scope, packet.Tuple{Src: addr4(k.src), Dst: addr4(k.dst), SrcPort: k.srcPort, DstPort: k.dstPort, Proto: r.proto}
}

func (t *Table) setKey(ref uint32, dir int, scope packet.NetworkID, k *packet.Tuple) {
	if isV6(ref) {
		t.v6.at(ref >> 1).key[dir] = makeKey6(scope, k)
	} else {
		t.v4.at(ref >> 1).key[dir] = makeKey4(scope, k)
	}
}

func (t *Table) scope(ref uint32, dir int) packet.NetworkID {
	if isV6(ref) {
		return t.v6.at(ref >> 1).key[dir].scope
	}
	return t.v4.at(ref >> 1).key[dir].scope
}

// forwardPort is the destination port of the flow's first packet.
func (t *Table) forwardPort(ref uint32) uint16 {
	if isV6(ref) {
		return t.v6.at(ref >> 1).key[0].dstPort
	}
	return t.v4.at(ref >> 1).key[0].dstPort
}

func makeKey4(scope packet.NetworkID, k *packet.Tuple) key4 {
	return key4{scope, word4(&k.Src), word4(&k.Dst), k.SrcPort, k.DstPort}
}

func makeKey6(scope packet.NetworkID, k *packet.Tuple) key6 {
	return key6{scope, k.Src, k.Dst, k.SrcPort, k.DstPort}
}

func word4(a *packet.Addr) uint32 { return binary.BigEndian.Uint32(a[12:]) }

func addr4(w uint32) packet.Addr {
	a := packet.Addr{10: 0xff, 11: 0xff}
	binary.BigEndian.PutUint32(a[12:], w)
	return a
}

// is4 reports whether the tuple belongs into the slab of IPv4. One of mixed
// families is nobody's, and kept as IPv6.
func is4(k *packet.Tuple) bool { return k.Src.Is4() && k.Dst.Is4() }

// mix folds the product of two words: a hash in which every bit of both moves
// every bit of the result, for who does not know the seeds (wyhash).
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

func (t *Table) hash(scope packet.NetworkID, k *packet.Tuple) uint64 {
	ports := uint64(scope)<<32 | uint64(k.SrcPort)<<16 | uint64(k.DstPort)
	h := t.seed[0] ^ uint64(k.Proto)
	if !is4(k) {
		h = mix(h^binary.BigEndian.Uint64(k.Src[:]), t.seed[1]^binary.BigEndian.Uint64(k.Dst[:]))
		h ^= t.seed[2]
	}
	h = mix(h^binary.BigEndian.Uint64(k.Src[8:]), t.seed[1]^binary.BigEndian.Uint64(k.Dst[8:]))
	return mix(h^t.seed[2], ports^t.seed[3])
}

// lookup finds the flow one of whose keys this is, and which one. Lock-free.
func (t *Table) lookup(scope packet.NetworkID, k *packet.Tuple) (ref uint32, dir int) {
	h := t.hash(scope, k)
	if is4(k) {
		key := makeKey4(scope, k)
		for c := t.index.candidates(h); ; {
			e, ok := c.next()
			if !ok {
				return 0, 0
			}
			if ref := e >> 1; !isV6(ref) {
				if r := t.v4.at(ref >> 1); r.key[e&1] == key && r.proto == k.Proto {
					return ref, int(e & 1)
				}
			}
		}
	}
	key := makeKey6(scope, k)
	for c := t.index.candidates(h); ; {
		e, ok := c.next()
		if !ok {
			return 0, 0
		}
		if ref := e >> 1; isV6(ref) {
			if r := t.v6.at(ref >> 1); r.key[e&1] == key && r.proto == k.Proto {
				return ref, int(e & 1)
			}
		}
	}
}
