package vswitch

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"fairlead/loop"
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
// Static entries, at most maxStatic, were added by hand: no learning moves them,
// and neither ageing nor eviction takes them out. They go with their port.
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
	statics int
	moves   uint64
	evicted uint64
}

// macSlots is the bound of one switch: as Open vSwitch's default, and with 20
// bytes a slot 160 KiB.
const macSlots = 8192

// maxStatic bounds what is added by hand: an eighth, so that sixteen slots a
// learned station may live in are all static about never.
const maxStatic = macSlots / 8

// static stands for the time a station was heard in entries that were added by
// hand. It is later than any other, so to ageing they are always fresh.
const static = math.MaxInt64

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

// stationKey packs a VLAN and a MAC into one word that is never zero.
func stationKey(vlan uint16, m packet.MAC) uint64 { return 1<<63 | uint64(vlan)<<48 | m.Uint64() }

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
	case seen == static:
		return packet.LearnNothing
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
			if bucket.seen[i].Load() == static {
				return
			}
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
	if bucket, i := t.makeRoom(a, b, now); bucket != nil {
		t.put(bucket, i, key, port, now)
	}
}

// put fills a slot that may be overwritten.
func (t *macTable) put(bucket *macBucket, i int, key uint64, port packet.PortID, seen int64) {
	bucket.keys[i].Store(0) // readers miss until all three words fit together
	bucket.hops[i].Store(hop{port: port}.word())
	bucket.seen[i].Store(seen)
	bucket.keys[i].Store(key)
	t.count(port, +1)
}

// add takes down for good that a station is behind a port.
func (t *macTable) add(key uint64, port packet.PortID, now int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clearLocked(func(k uint64, _ hop, _ int64) bool { return k == key })
	if t.statics == maxStatic {
		return fmt.Errorf("%d static MACs are all there can be; `fairlead mac rm` takes some away", maxStatic)
	}
	a, b := t.pair(key)
	bucket, i := t.makeRoom(a, b, now)
	if bucket == nil {
		return fmt.Errorf("%v falls where the table is full of static MACs; `fairlead mac rm` takes some away", keyMAC(key))
	}
	t.put(bucket, i, key, port, static)
	t.statics++
	return nil
}

// makeRoom returns a slot of either bucket that may be overwritten; what was in
// it is accounted for as gone. It is nil if all are static.
func (t *macTable) makeRoom(a, b *macBucket, now int64) (*macBucket, int) {
	if bucket, i := t.free(a, b, now); bucket != nil {
		return bucket, i
	}
	if now-t.swept >= int64(time.Second) {
		// The shares decide next, so they must not count who is long gone.
		t.swept = now
		t.clearLocked(func(_ uint64, _ hop, seen int64) bool { return now-seen > t.ageing })
	}
	var victim *macBucket
	slot, most, oldest := 0, -1, int64(0)
	for _, bucket := range [2]*macBucket{a, b} {
		for i := range bucket.keys {
			n, seen := t.held[hopFromWord(bucket.hops[i].Load()).port], bucket.seen[i].Load()
			if seen != static && (n > most || n == most && seen < oldest) {
				victim, slot, most, oldest = bucket, i, n, seen
			}
		}
	}
	if victim == nil {
		return nil, 0
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
func (t *macTable) clear(gone func(key uint64, h hop, seen int64) bool) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.clearLocked(gone)
}

func (t *macTable) clearLocked(gone func(key uint64, h hop, seen int64) bool) (n int) {
	for b := range t.buckets {
		bucket := &t.buckets[b]
		for i := range bucket.keys {
			key, h, seen := bucket.keys[i].Load(), hopFromWord(bucket.hops[i].Load()), bucket.seen[i].Load()
			if key == 0 || !gone(key, h, seen) {
				continue
			}
			bucket.keys[i].Store(0)
			t.count(h.port, -1)
			if seen == static {
				t.statics--
			}
			n++
		}
	}
	return n
}

// A MACEntry is one station, for people.
type MACEntry struct {
	VLAN   uint16
	MAC    packet.MAC
	Port   packet.PortID
	Age    time.Duration // since it was heard, exact to a second
	Static bool          // it was added by hand
}

// entries lists the stations heard within the ageing time and those added by hand, by
// VLAN and MAC. It
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
					hopFromWord(word).port, time.Duration(max(now-seen, 0)), seen == static})
			}
		}
	}
	sort.Slice(list, func(i, j int) bool {
		a, b := list[i], list[j]
		return a.VLAN < b.VLAN || a.VLAN == b.VLAN && a.MAC.Uint64() < b.MAC.Uint64()
	})
	return list
}

// MACs lists the stations that were learned or added.
func (s *Switch) MACs(now int64) []MACEntry { return s.macs.entries(now) }

// AddMAC takes down that a station is behind a port, whatever is heard, until
// RemoveMAC, FlushMACs of all, or the port goes.
func (s *Switch) AddMAC(vlan uint16, m packet.MAC, port packet.PortID) error {
	s.mu.Lock() // a port that goes takes with it what is added before
	defer s.mu.Unlock()
	t := s.ports.Load()
	p := t.find(port)
	if p == nil {
		return fmt.Errorf("network %s: its port has gone", s.conf.Name)
	}
	if !t.isIn(vlan, &p.conf.VLANs) {
		return fmt.Errorf("network %s: %w", s.conf.Name, p.notIn(vlan, m))
	}
	if err := s.macs.add(stationKey(vlan, m), port, loop.Clock()); err != nil {
		return fmt.Errorf("network %s: %w", s.conf.Name, err)
	}
	return nil
}

// notIn says that the port is not in a VLAN, where a MAC was to be behind it.
func (p *Port) notIn(vlan uint16, m packet.MAC) error {
	where, has, other := "the untagged VLAN", p.conf.VLANs.String(), "N"
	if vlan != 0 {
		where = fmt.Sprintf("VLAN %d", vlan)
	}
	switch v := &p.conf.VLANs; {
	case !v.Held: // others say they are in it
		return fmt.Errorf("the port of %s has no --opt vlan or trunk, so it is not in %s, which other ports name; `fairlead show switch -v` lists them", p.conf.Name, where)
	case v.Untagged != 0:
		other = strconv.Itoa(int(v.Untagged))
	}
	return fmt.Errorf("the port of %s (%s) is not in %s; try `fairlead mac add --vlan %s %v %s`", p.conf.Name, has, where, other, m, p.conf.Name)
}

// RemoveMAC forgets a station, learned or added, and reports whether it was there.
func (s *Switch) RemoveMAC(vlan uint16, m packet.MAC) bool {
	want := stationKey(vlan, m)
	return s.macs.clear(func(key uint64, _ hop, _ int64) bool { return key == want }) > 0
}

// FlushMACs forgets all learned stations, with all those added by hand too, and
// returns how many they were.
func (s *Switch) FlushMACs(all bool) int {
	return s.macs.clear(func(_ uint64, _ hop, seen int64) bool { return all || seen != static })
}
