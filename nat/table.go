package nat

import (
	"math/rand/v2"
	"sync/atomic"

	"fairlead/packet"
)

// A Config bounds a table. What is zero gets its default.
type Config struct {
	// Flows bounds the flows of the node. Default 262144, as Linux has it on a
	// machine with 4 GB or more (nf_conntrack_max).
	Flows int
	// PerContainer bounds those of one container. Default an eighth of Flows.
	PerContainer int
	// MaxContainers is among how many the guaranteed halves of the flows and of
	// the outside ports are divided. Default 126: 1040 flows and 256 ports for
	// each.
	MaxContainers int
	// Seed makes hashes and ports unpredictable, and tests repeatable. Default
	// random.
	Seed uint64
	// Timeouts; each that is zero gets its default.
	Timeouts Timeouts
}

// A Table is the flows, mappings and rules of a node. See the package comment
// for who may call what.
type Table struct {
	config   Config
	seed     [4]uint64
	shortest int64 // of the timeouts

	// Flows, read without a lock.
	index index
	v4    slab[record4]
	v6    slab[record6]
	rules rules

	// What follows is the owner's.
	now        int64        // the last that Commit or Expire was told
	live       atomic.Int64 // read by anybody
	retired    list
	numRetired int
	waiting    int      // of them that are set aside for each container
	share      int      // flows guaranteed to each container
	common     int      // for whoever comes first
	borrowed   int      // records that containers have beyond their shares
	holders    []holder // by the dense index of a container
	wheel      wheel
	maps       mappings
	owner      Owner
	keeps      map[packet.NetworkID]bool // uplinks, see Keep
	stats      Stats
}

// New returns an empty table. Memory for flows is taken as they come; the index
// is there from the beginning, and touched as it fills.
func New(c Config) *Table {
	if c.Flows <= 0 {
		c.Flows = defaultFlows
	}
	c.Flows = min(c.Flows, maxFlows)
	if c.PerContainer <= 0 {
		c.PerContainer = max(c.Flows/8, 1)
	}
	if c.MaxContainers <= 0 {
		c.MaxContainers = defaultContainers
	}
	if c.Seed == 0 {
		c.Seed = rand.Uint64()
	}
	c.Timeouts.defaults()
	t := &Table{config: c, owner: nobody{}, keeps: make(map[packet.NetworkID]bool), shortest: int64(c.Timeouts.shortest())}
	for i := range t.seed {
		t.seed[i] = mix(c.Seed+uint64(i+1)*0x9e3779b97f4a7c15, 0xd6e8feb86659fd93)
	}
	t.share = c.Flows / 2 / c.MaxContainers
	t.common = c.Flows - t.share*c.MaxContainers
	// Ended flows keep their records until they are recycled: some more for each
	// container, so that one that ends many does not use up another's.
	t.waiting = c.Flows/256 + 128
	records := c.Flows + min(c.MaxContainers, defaultContainers)*t.waiting
	t.v4.init(records)
	t.v6.init(records)
	t.rules.init()
	t.maps.init(c.Flows)
	// The largest last: a collection begins with it, and a table allocated meanwhile
	// may get addresses that were used, which are cleared: 2 MB resident for no flow.
	t.index.init(2 * c.Flows)
	return t
}

// A table is as large as this when Config does not say otherwise: half a million
// index entries of 8 bytes, and shares of a thousand flows for as many containers
// as a machine of this size runs at once.
const (
	defaultFlows      = 1 << 18
	defaultContainers = 126
)

// maxFlows has numbers of keys fit into numberBits, those of ended flows included.
const maxFlows = 1 << 22

// A Flow names a flow and one of its directions. It is good until the next
// turn of the worker that found it.
type Flow struct {
	ref   uint32
	reply bool
}

// FlowOf names the flow with a number, and the direction.
func FlowOf(number uint32, reply bool) Flow { return Flow{number, reply} }

// Number is the flow's number in lists and traces.
func (f Flow) Number() uint32 { return f.ref }

// Reply reports whether the packet goes in the direction of the answers.
func (f Flow) Reply() bool { return f.reply }

// dir is the index of the direction: 0 is that of the first packet.
func (f Flow) dir() int {
	if f.reply {
		return 1
	}
	return 0
}

// Find looks up the flow that a packet with tuple k, seen on the segment scope,
// belongs to; tcpFlags are its flags if it is TCP. A flow whose time is up does
// not count, nor for a SYN one that is over: the port is used again, and Commit
// replaces the flow.
//
// It is written out for IPv4, and takes a pointer, because each instruction
// counts (see match): a copy alone cost a third of it.
func (t *Table) Find(scope packet.NetworkID, k *packet.Tuple, now int64, tcpFlags uint8) (Flow, bool) {
	var n uint32
	var b *body
	if is4(k) {
		key := key4{addrs4(k), makeRest(scope, k)}
		h := t.hash4(key)
		one, other := t.index.pair(h)
		m := same(&one.tags[0], &other.tags[0], h)>>2 | uint64(uint32(same(&one.tags[1], &other.tags[1], h)))
		for ; m != 0; m &= m - 1 {
			if n = numberAt(one, other, h, m); n-1 < maxNumber && !isV6(n>>1) {
				if record := t.v4.at(n >> 2); record.key[n&1] == key {
					b = &record.body
					break
				}
			}
		}
	} else {
		n, b = t.search6(scope, k)
	}
	if b == nil {
		return Flow{}, false
	}
	if beginsTCP(tcpFlags) && k.Proto == packet.ProtoTCP && b.over(int(n&1)) {
		return Flow{}, false
	}
	// Mostly the last packet of this direction was not long ago, and that is all
	// there is to know.
	if now-since(b.seen[n&1].Load()) > t.shortest && t.expired(b, t.forwardPort(n>>1), now) {
		return Flow{}, false
	}
	return Flow{n >> 1, n&1 == 1}, true
}

// beginsTCP reports whether the segment asks for a connection.
func beginsTCP(flags uint8) bool {
	return flags&(packet.TCPSyn|packet.TCPAck|packet.TCPRst|packet.TCPFin) == packet.TCPSyn
}

// Translation says what becomes of the tuple of a packet in this direction.
func (t *Table) Translation(f Flow) packet.Translation {
	b := t.body(f.ref)
	in, before := t.key(f.ref, f.dir())
	out, after := t.key(f.ref, 1-f.dir())
	return packet.Translation{
		Kind: b.kind, Reply: f.reply, ToMapping: b.is(toMapping), Hidden: b.hidden, Flow: f.ref, Rule: b.rule, Container: b.container,
		In: in, Out: out, Before: before, After: after.Reverse(),
	}
}

// Seen takes in that packets of the flow passed, several if they came as one train:
// its half of the record learns the time, the TCP flags, how many they were and how
// many bytes they had together, and so does the rule.
func (t *Table) Seen(f Flow, now int64, packets, bytes int, tcpFlags uint8) {
	b := t.body(f.ref)
	dir := f.dir()
	b.packets[dir].Add(uint64(packets))
	b.bytes[dir].Add(uint64(bytes))
	if b.rule != 0 {
		t.rules.count(b.rule, packets, bytes)
	}
	word := &b.seen[dir]
	for {
		old := word.Load()
		next := b.heard(old, now, tcpFlags)
		if next == old || word.CompareAndSwap(old, next) {
			return
		}
	}
}
