package nat

import (
	"hash/maphash"
	"time"

	"fairlead/packet"
)

const (
	// fragmentAge is how long the first fragment of a datagram speaks for the
	// others: as long as a Linux receiver waits for them (RFC 791 section 3.2
	// wants 15 s at least).
	fragmentAge = int64(30 * time.Second)

	// A source has its datagrams in one set of the table, which others may share.
	// 64 datagrams of 8 KB are 4 ms at 1 Gbit/s: fragments of one that are
	// further apart than that lost their way.
	fragmentSets = 128
	fragmentWays = 64

	// fragmentShare is what a source keeps of its set whatever another one
	// does. What is free it has as well.
	fragmentShare = fragmentWays / 2
)

// Fragments remembers the ports of first fragments, so that the others of a
// datagram, which have none, find their flow in whatever order they come
// (RFC 4787 REQ-14). Nothing is put together: each fragment is translated by
// itself.
//
// A later fragment that comes before the first one waits under Key, in the
// hold queue of the switch and by its bounds. That parse refuses a first
// fragment whose transport header is cut off, and a second one that would
// overwrite it (RFC 1858, RFC 3128), is why the ports of a first one are those
// its receiver will see.
//
// The table is bounded: 8,192 datagrams of at most 64 per source, 30 seconds
// each, in about 0.5 MB. A source that has half of its set pays for the next
// datagram with its own oldest one; else the oldest one of the set goes. Which
// sources share a set is secret. So a flood of fragments from one source or
// from all costs others the datagrams that are under way for the longest time,
// and nothing to those whose fragments come in order.
//
// The owner serialises all calls. Nothing is allocated.
type Fragments struct {
	seed    maphash.Seed
	learned uint64 // how many, ever
	sets    [fragmentSets][fragmentWays]datagram
}

// A datagram is what its fragments have in common. The place is free when it
// has expired.
type datagram struct {
	key              fragmentKey
	srcPort, dstPort uint16
	expires          int64
	number           uint64 // which one it is of those learned: the clock is too coarse to tell
}

// A fragmentKey says which datagram a fragment is part of (RFC 791, RFC 8200
// section 4.5: without the protocol, which later fragments of IPv6 may not know),
// and on which network that is so.
type fragmentKey struct {
	source fragmentSource
	dst    packet.Addr
	id     uint32
	proto  packet.Proto
}

type fragmentSource struct {
	scope packet.NetworkID
	addr  packet.Addr
}

// NewFragments makes an empty table.
func NewFragments() *Fragments { return &Fragments{seed: maphash.MakeSeed()} }

// Learn takes the ports of a first fragment, as it was seen on network scope:
// before it is translated. Any other frame is ignored. The first fragment of
// another datagram with the same key, after 65,536 of them, takes the place of
// the old one.
func (t *Fragments) Learn(scope packet.NetworkID, f *packet.Frame, now int64) {
	if !f.Flags.Has(packet.Fragment) || f.L4 == 0 {
		return
	}
	t.learned++
	key := keyOf(scope, f)
	*t.place(key, now) = datagram{
		key: key, srcPort: f.SrcPort, dstPort: f.DstPort, expires: now + fragmentAge, number: t.learned,
	}
}

// Ports returns the ports of the datagram that f is a fragment of, false when
// its first fragment was not seen. It changes nothing.
func (t *Fragments) Ports(scope packet.NetworkID, f *packet.Frame, now int64) (src, dst uint16, ok bool) {
	key := keyOf(scope, f)
	set := t.set(key.source)
	for i := range set {
		if e := &set[i]; e.key.id == key.id && e.expires > now && e.key == key {
			return e.srcPort, e.dstPort, true
		}
	}
	return 0, 0, false
}

// Key is the Decision.HoldKey of fragments that wait for the first one of their
// datagram, and so the key to resume when that one was learned. Its top bit
// tells it from every packet.ARPKey: networks are numbered from one.
func (t *Fragments) Key(scope packet.NetworkID, f *packet.Frame) uint64 {
	return maphash.Comparable(t.seed, keyOf(scope, f)) | 1<<63
}

// place finds where a datagram goes: its own place, a free one, or that of the
// one that has to go.
func (t *Fragments) place(key fragmentKey, now int64) *datagram {
	set := t.set(key.source)
	var free, oldest, own *datagram
	held := 0
	for i := range set {
		e := &set[i]
		if e.expires <= now {
			free = e
			continue
		}
		if e.key == key {
			return e
		}
		if oldest == nil || e.number < oldest.number {
			oldest = e
		}
		if e.key.source == key.source {
			held++
			if own == nil || e.number < own.number {
				own = e
			}
		}
	}
	switch {
	case free != nil:
		return free
	case held >= fragmentShare:
		return own
	}
	return oldest
}

func (t *Fragments) set(s fragmentSource) *[fragmentWays]datagram {
	return &t.sets[maphash.Comparable(t.seed, s)%fragmentSets]
}

func keyOf(scope packet.NetworkID, f *packet.Frame) fragmentKey {
	tuple := f.Tuple()
	key := fragmentKey{source: fragmentSource{scope, tuple.Src}, dst: tuple.Dst, id: f.FragmentID()}
	if f.EtherType == packet.EtherTypeIPv4 {
		key.proto = f.Proto
	}
	return key
}
