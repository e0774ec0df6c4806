package arp

import (
	"slices"
	"time"

	"fairlead/packet"
)

// A State is what a table can say of an address, in the words of the kernel's
// neighbour table (`ip neighbour`).
type State uint8

const (
	// Reachable was heard lately, or is being asked whether it is still there.
	Reachable State = iota
	// Stale was not heard for a while: to be used, and asked again.
	Stale
	// Permanent was added by hand; nothing on the wire changes it.
	Permanent
	// Incomplete was asked for and has not answered yet.
	Incomplete
	// Failed did not answer. It is not asked for again for a while.
	Failed
	// Unknown was never heard of, or too long ago.
	Unknown

	numStates = iota
)

var stateNames = [numStates]string{"REACHABLE", "STALE", "PERMANENT", "INCOMPLETE", "FAILED", "NONE"}

func (s State) String() string {
	if s >= numStates {
		return "?"
	}
	return stateNames[s]
}

// An Entry is one neighbour. Of one that is Incomplete or Failed only Addr and
// Container are known, the latter being who made us ask.
type Entry struct {
	Addr      [4]byte
	MAC       packet.MAC
	Port      packet.PortID
	Container packet.ContainerID
	Seen      int64 // nanoseconds of the worker's clock
	State     State // as the table tells it; of no concern to Learn and Add
}

// Limits of a Table.
const (
	// PerPort is each port's share on a network of containers: a container has
	// one address, rarely a few, and nothing but its own entries suffers when it
	// claims more.
	PerPort = 16
	// ReachableTime is how long an entry is good without being heard again, of
	// the order of the kernel's base_reachable_time, and MaxAge how long it is
	// better than none (RFC 1122 2.3.2.1).
	ReachableTime = int64(time.Minute)
	MaxAge        = int64(5 * time.Minute)
)

// A Table maps IPv4 addresses to neighbours. Beyond the share of its port an
// entry pushes out the port's own oldest: first of those that made themselves
// known, and only then of those we asked for. So a flood of ARP from a whole
// network behind one port (an uplink) does not reach whom we talk to. Permanent
// entries count in no share; there are as many as were added. What is asked for
// has a share of its own, see Asked.
type Table struct {
	perPort   int
	entries   map[[4]byte]neighbour
	shares    map[packet.PortID]*share
	questions map[[4]byte]question
	asking    map[packet.ContainerID]int // questions each container has made us ask
}

type neighbour struct {
	Entry
	wanted bool // it was asked for
}

// A share is what one port has in the table, the oldest first: those that made
// themselves known, and those we asked for; and beside it those that are permanent.
type share struct{ heard, wanted, permanent [][4]byte }

// list is the one a neighbour is in.
func (s *share) list(n neighbour) *[][4]byte {
	switch {
	case n.State == Permanent:
		return &s.permanent
	case n.wanted:
		return &s.wanted
	}
	return &s.heard
}

// shareOf is the share of a port, which may be new.
func (t *Table) shareOf(port packet.PortID) *share {
	s := t.shares[port]
	if s == nil {
		s = new(share)
		t.shares[port] = s
	}
	return s
}

// NewTable returns an empty table with a share of PerPort for each port.
func NewTable() *Table { return NewTableOf(PerPort) }

// NewTableOf returns an empty table with a share of perPort for each port.
func NewTableOf(perPort int) *Table {
	return &Table{
		perPort:   perPort,
		entries:   make(map[[4]byte]neighbour),
		shares:    make(map[packet.PortID]*share),
		questions: make(map[[4]byte]question),
		asking:    make(map[packet.ContainerID]int),
	}
}

// Lookup finds a neighbour whose MAC is known.
func (t *Table) Lookup(now int64, addr [4]byte) (Entry, bool) {
	e, state := t.Resolve(now, addr)
	return e, state <= Permanent
}

// Resolve says what to do with a packet for addr: Reachable and Permanent: use
// the entry; Stale: use it, and ask; Unknown: wait, and ask; Incomplete: wait;
// Failed: give up.
func (t *Table) Resolve(now int64, addr [4]byte) (Entry, State) {
	n, known := t.entries[addr]
	e := n.Entry
	if e.State == Permanent {
		return e, Permanent
	}
	known = known && now-e.Seen <= MaxAge
	if known && now-e.Seen <= ReachableTime {
		return e, Reachable
	}
	q, asked := t.questions[addr]
	switch {
	case known && asked:
		return e, Reachable
	case known:
		e.State = Stale
		return e, Stale
	case asked && !q.failed:
		return q.entry(addr), Incomplete
	case asked && now < q.due:
		return q.entry(addr), Failed
	}
	return Entry{Addr: addr, State: Unknown}, Unknown
}

// Learn takes what an ARP packet said: a new neighbour, a moved one, or one
// that is still there. It reports whether packets may be waiting for it.
func (t *Table) Learn(e Entry) (waited bool) {
	old, known := t.entries[e.Addr]
	if known && old.State == Permanent {
		return false
	}
	q, asked := t.answered(e.Addr)
	wanted := asked || known && old.wanted
	if known && old.Port == e.Port && old.wanted == wanted {
		e.State = Reachable
		t.entries[e.Addr] = neighbour{e, wanted}
		return asked && !q.failed
	}
	if known {
		t.Remove(e.Addr)
	}
	s := t.shareOf(e.Port)
	switch {
	case len(s.heard)+len(s.wanted) < t.perPort:
	case len(s.heard) > 0:
		t.Remove(s.heard[0])
	default:
		t.Remove(s.wanted[0])
	}
	e.State = Reachable
	t.put(s, neighbour{e, wanted})
	return asked && !q.failed
}

// Add takes an entry down for good, until Remove or FlushPort.
func (t *Table) Add(e Entry) {
	t.Remove(e.Addr)
	e.State = Permanent
	t.put(t.shareOf(e.Port), neighbour{Entry: e})
}

func (t *Table) put(s *share, n neighbour) {
	list := s.list(n)
	*list = append(*list, n.Addr)
	t.entries[n.Addr] = n
}

// Remove forgets an address, and that it was asked for.
func (t *Table) Remove(addr [4]byte) {
	t.answered(addr)
	n, ok := t.entries[addr]
	if !ok {
		return
	}
	delete(t.entries, addr)
	list := t.shares[n.Port].list(n)
	i := slices.Index(*list, addr)
	*list = slices.Delete(*list, i, i+1)
}

// Flush forgets every neighbour for which gone is true and returns how many they
// were. Gone must not use the table.
func (t *Table) Flush(gone func(Entry) bool) (n int) {
	for addr, x := range t.entries {
		if gone(x.Entry) {
			t.Remove(addr)
			n++
		}
	}
	return n
}

// FlushPort forgets everything about a port.
func (t *Table) FlushPort(port packet.PortID) {
	s := t.shares[port]
	if s == nil {
		return
	}
	for _, list := range [][][4]byte{s.heard, s.wanted, s.permanent} {
		for _, addr := range list {
			delete(t.entries, addr)
		}
	}
	delete(t.shares, port)
}

// Entries returns the neighbours whose MAC is known, and those that were asked
// for and are not, in no order: whoever has to serialise the use of the table
// can sort them afterwards.
func (t *Table) Entries(now int64) []Entry {
	var list []Entry
	add := func(addr [4]byte) {
		if e, state := t.Resolve(now, addr); state != Unknown {
			list = append(list, e)
		}
	}
	for addr := range t.entries {
		add(addr)
	}
	for addr := range t.questions {
		if _, known := t.entries[addr]; !known {
			add(addr)
		}
	}
	return list
}
