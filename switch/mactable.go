package vswitch

import (
	"math/rand/v2"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"fairlead/packet"
)

// A macTable maps {vlan, mac} to the next hop behind which that station was
// heard last: the bridge's forwarding database (FDB).
//
// Ageing. A station not heard for the ageing time counts as absent at once; its
// slot is reclaimed when somebody needs it.
//
// Bound and shares. The table has a fixed number of slots (macSlots), in
// buckets of eight; a key may live in either of two buckets. When both are
// full of stations that are alive, the oldest entry of the port that holds most
// of the table goes: a port that floods the table with addresses evicts its
// own. This is the fair eviction of Open vSwitch's lib/mac-learning.h, seen
// from sixteen slots.
//
// Moves are followed at once: learning a known key behind another port
// overwrites the hop.
//
// Concurrency. Readers (judge, lookup) take no lock: key, hop and age are
// atomic words, and a reader looks at the key again after it read the hop, so
// a slot that changes hands under it counts as a miss. Writers hold mu.
// Refreshing an age, the common write, happens at most once a second for a
// station.
type macTable struct {
	ageing  int64 // nanoseconds
	seed    uint64
	buckets []macBucket

	mu      sync.Mutex
	held    map[packet.PortID]int // live entries of each port, for fairness
	swept   int64                 // when aged entries were last taken out
	moves   uint64
	evicted uint64
}

// macSlots is the bound of one switch: as Open vSwitch's default, and with 20
// bytes a slot 160 KiB.
const macSlots = 8192

// DefaultAgeing is the bridge's default (IEEE 802.1D table 7-5, kernel
// br_device.c).
const DefaultAgeing = 300 * time.Second

// macBucket keeps the keys of its slots on one cache line.
type macBucket struct {
	keys [8]atomic.Uint64 // 0 is free
	hops [8]atomic.Uint64
	seen [8]atomic.Int64 // nanoseconds, exact to a second
}

// A hop is where a station is: a port, and behind a port that is a tunnel the
// remote end. The remote is always zero so far.
type hop struct {
	port   packet.PortID
	remote uint32
}

func (h hop) word() uint64       { return uint64(h.port)<<32 | uint64(h.remote) }
func hopFromWord(w uint64) hop   { return hop{packet.PortID(w >> 32), uint32(w)} }
func keyMAC(k uint64) packet.MAC { return packet.MACFromUint64(k & (1<<48 - 1)) }
func keyVLAN(k uint64) uint16    { return uint16(k>>48) & 0xfff }

// macKey packs the frame's VLAN and a MAC into one word that is never zero.
func macKey(f *packet.Frame, m packet.MAC) uint64 {
	k := 1<<63 | m.Uint64()
	if f.Tags > 0 {
		k |= uint64(f.VLAN[0]&0xfff) << 48
	}
	return k
}

func newMACTable(ageing time.Duration, slots int) *macTable {
	return &macTable{
		ageing:  int64(ageing),
		seed:    rand.Uint64(),
		buckets: make([]macBucket, slots/8),
		held:    make(map[packet.PortID]int),
	}
}

// pair returns the two buckets a key may live in. The seed is secret, so a
// container cannot aim at a bucket.
func (t *macTable) pair(key uint64) (a, b *macBucket) {
	h := key ^ t.seed
	h = (h ^ h>>33) * 0xff51afd7ed558ccd // the finalizer of MurmurHash3
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	n := uint64(len(t.buckets))
	return &t.buckets[(h>>32)*n>>32], &t.buckets[(h&0xffffffff)*n>>32]
}

// find returns the slot of a key in a bucket, or -1.
func (b *macBucket) find(key uint64) int {
	for i := range b.keys {
		if b.keys[i].Load() == key {
			return i
		}
	}
	return -1
}

// get reads a key's slot without a lock.
func (t *macTable) get(key uint64) (h hop, seen int64, ok bool) {
	a, b := t.pair(key)
	for _, bucket := range [2]*macBucket{a, b} {
		if i := bucket.find(key); i >= 0 {
			word, seen := bucket.hops[i].Load(), bucket.seen[i].Load()
			if bucket.keys[i].Load() == key {
				return hopFromWord(word), seen, true
			}
		}
	}
	return hop{}, 0, false
}

// lookup finds the hop of a station heard within the ageing time.
func (t *macTable) lookup(key uint64, now int64) (hop, bool) {
	h, seen, ok := t.get(key)
	return h, ok && now-seen <= t.ageing
}

// judge says what the table would have to take from a frame of this source.
func (t *macTable) judge(key uint64, port packet.PortID, now int64) packet.Learning {
	h, seen, ok := t.get(key)
	switch {
	case !ok || now-seen > t.ageing:
		return packet.LearnNew
	case h.port != port:
		return packet.LearnMoved
	case now-seen >= int64(time.Second):
		return packet.LearnRefresh
	}
	return packet.LearnNothing
}

// learn takes in that a station was heard behind a port.
func (t *macTable) learn(key uint64, port packet.PortID, now int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, b := t.pair(key)
	for _, bucket := range [2]*macBucket{a, b} {
		if i := bucket.find(key); i >= 0 {
			if old := hopFromWord(bucket.hops[i].Load()).port; old != port {
				t.moves++
				t.count(old, -1)
				t.count(port, +1)
				bucket.hops[i].Store(hop{port: port}.word())
			}
			bucket.seen[i].Store(now)
			return
		}
	}
	bucket, i := t.makeRoom(a, b, now)
	bucket.keys[i].Store(0) // readers miss until all three words fit together
	bucket.hops[i].Store(hop{port: port}.word())
	bucket.seen[i].Store(now)
	bucket.keys[i].Store(key)
	t.count(port, +1)
}

// makeRoom returns a slot of either bucket that may be overwritten; what was in
// it is accounted for as gone.
func (t *macTable) makeRoom(a, b *macBucket, now int64) (*macBucket, int) {
	if bucket, i := t.free(a, b, now); bucket != nil {
		return bucket, i
	}
	if now-t.swept >= int64(time.Second) {
		// The shares decide next, so they must not count who is long gone.
		t.swept = now
		t.clearLocked(func(_ hop, seen int64) bool { return now-seen > t.ageing })
	}
	victim, slot, most, oldest := a, 0, -1, int64(0)
	for _, bucket := range [2]*macBucket{a, b} {
		for i := range bucket.keys {
			n := t.held[hopFromWord(bucket.hops[i].Load()).port]
			if seen := bucket.seen[i].Load(); n > most || n == most && seen < oldest {
				victim, slot, most, oldest = bucket, i, n, seen
			}
		}
	}
	t.evicted++
	t.count(hopFromWord(victim.hops[slot].Load()).port, -1)
	return victim, slot
}

// free finds an empty or aged slot, in the emptier of the two buckets.
func (t *macTable) free(a, b *macBucket, now int64) (found *macBucket, slot int) {
	most := 0
	for _, bucket := range [2]*macBucket{a, b} {
		n, last := 0, 0
		for i := range bucket.keys {
			if bucket.keys[i].Load() == 0 || now-bucket.seen[i].Load() > t.ageing {
				n, last = n+1, i
			}
		}
		if n > most {
			found, slot, most = bucket, last, n
		}
	}
	if found != nil && found.keys[slot].Load() != 0 {
		t.count(hopFromWord(found.hops[slot].Load()).port, -1)
	}
	return found, slot
}

func (t *macTable) count(port packet.PortID, d int) {
	if n := t.held[port] + d; n > 0 {
		t.held[port] = n
	} else {
		delete(t.held, port)
	}
}

// clear takes out every entry for which gone is true and returns how many.
func (t *macTable) clear(gone func(h hop, seen int64) bool) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.clearLocked(gone)
}

func (t *macTable) clearLocked(gone func(h hop, seen int64) bool) (n int) {
	for b := range t.buckets {
		bucket := &t.buckets[b]
		for i := range bucket.keys {
			if bucket.keys[i].Load() == 0 {
				continue
			}
			if h := hopFromWord(bucket.hops[i].Load()); gone(h, bucket.seen[i].Load()) {
				bucket.keys[i].Store(0)
				t.count(h.port, -1)
				n++
			}
		}
	}
	return n
}

// A MACEntry is one learned station, for people.
type MACEntry struct {
	VLAN uint16
	MAC  packet.MAC
	Port packet.PortID
	Age  time.Duration // since it was heard, exact to a second
}

// entries lists the stations heard within the ageing time, by VLAN and MAC. It
// reads as lookup does, so no worker waits for it.
func (t *macTable) entries(now int64) []MACEntry {
	var list []MACEntry
	for b := range t.buckets {
		bucket := &t.buckets[b]
		for i := range bucket.keys {
			key := bucket.keys[i].Load()
			word, seen := bucket.hops[i].Load(), bucket.seen[i].Load()
			if key != 0 && bucket.keys[i].Load() == key && now-seen <= t.ageing {
				list = append(list, MACEntry{keyVLAN(key), keyMAC(key),
					hopFromWord(word).port, time.Duration(max(now-seen, 0))})
			}
		}
	}
	sort.Slice(list, func(i, j int) bool {
		a, b := list[i], list[j]
		return a.VLAN < b.VLAN || a.VLAN == b.VLAN && a.MAC.Uint64() < b.MAC.Uint64()
	})
	return list
}
