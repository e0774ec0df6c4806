package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"fairlead/node/api"
)

// Counters of an attacker's ports besides reasons, and tables he fills.
const (
	countRead      = "frames of the attacker read"
	countWritten   = "frames written to the attacker"
	countFlooded   = "flooded"
	haveMACs       = "MACs in the table"
	haveNeighbours = "ARP entries"
	haveLeases     = "DHCP leases"
)

// moreMemory is what a node may need more than before an attack: none of its tables
// is larger (docs/limits.md).
const moreMemory = 32e6

// begin notes how the node is before the attack, and has as much of it come as has to
// before anything is measured. Nobody else wants the worker then, so that all is read.
func (b *battle) begin(l *lab) {
	var err error
	b.memory, err = resident(b.n.pid(l))
	l.check(err, "ask for the node's memory")
	if b.api {
		_, err := b.attacker.do(job{Do: b.kind, Dev: b.dev, For: wholeBurst})
		l.check(err, "attack")
	}
	const patience = 5 * time.Minute // of a machine that others use: alone it takes ten to forty seconds
	for end := time.Now().Add(patience); b.moved[countRead] < b.first; {
		if time.Now().After(end) {
			l.Fatalf("%s: in %v %d frames of the attacker were read, and %d were to be", b.name, patience, b.moved[countRead], b.first)
		}
		before := b.counted(l)
		did, err := b.attacker.do(job{Do: b.kind, Dev: b.dev, For: time.Second})
		l.check(err, "attack")
		b.note(l, did, before)
		progress("%s  %d of %d frames of the attacker read", b.name, b.moved[countRead], b.first)
	}
}

// note adds what was counted during a part of the attack to the rest. A part of which
// the switch has seen nothing was none.
func (b *battle) note(l *lab, did outcome, before map[string]uint64) {
	after := b.counted(l)
	for name, n := range after {
		b.moved[name] += n - before[name]
	}
	for name, n := range b.filled(l) { // what has a time may be gone when all is over
		b.tables[name] = max(b.tables[name], n)
	}
	if b.kind == "interface" || b.api {
		b.done += did.Count // each of which the kernel has accepted, or the node answered
	} else if after[countRead] == before[countRead] {
		l.Fatalf("%s: the attacker has done %d things, and nothing of that has reached the switch", b.name, did.Count)
	}
}

// counted is what has been counted at the attacker's ports so far.
func (b *battle) counted(l *lab) map[string]uint64 {
	var switches []api.Switch
	b.ask(l, "/v1/switches", &switches)
	counted := map[string]uint64{}
	for _, s := range switches {
		for _, p := range s.Ports {
			if !slices.Contains(b.names, p.Container) {
				continue
			}
			counted[countRead] += p.Counts.Read
			counted[countWritten] += p.Counts.Written
			counted[countFlooded] += p.Counts.Flooded
			for _, reasons := range []map[string]uint64{p.Counts.Dropped, p.Counts.Failed} {
				for reason, n := range reasons {
					counted[reason] += n
				}
			}
		}
	}
	return counted
}

// ask asks the node for a table. Who has attacked its API goes on paying for that, and
// others wait for their places meanwhile.
func (b *battle) ask(l *lab, path string, table any) {
	err := b.n.get(l, path, table)
	for end := time.Now().Add(time.Minute); err != nil && l.ctx.Err() == nil && time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond)
		err = b.n.get(l, path, table)
	}
	l.check(err, "ask for %s", path)
}

// filled is how many entries the attacker has in the node's tables.
func (b *battle) filled(l *lab) map[string]uint64 {
	var macTable []api.MAC
	var arpTable []api.Neighbour
	var leased []api.Lease
	b.ask(l, "/v1/macs", &macTable)
	b.ask(l, "/v1/arp", &arpTable)
	b.ask(l, "/v1/leases", &leased)
	his := func(container string) bool { return slices.Contains(b.names, container) }
	return map[string]uint64{
		haveMACs:       count(macTable, func(m api.MAC) bool { return his(m.Container) }),
		haveNeighbours: count(arpTable, func(n api.Neighbour) bool { return his(n.Container) }),
		haveLeases:     count(leased, func(x api.Lease) bool { return his(x.Container) }),
	}
}

func count[T any](list []T, is func(T) bool) (n uint64) {
	for _, e := range list {
		if is(e) {
			n++
		}
	}
	return n
}

// proof says what the attack had counted, and breaks off where it was none, or where a
// table or the node is larger than it may be.
func (b *battle) proof(l *lab) string {
	for name, n := range b.tables {
		if most, bounded := b.bounded[name]; bounded && n > most {
			l.Fatalf("%s: the attacker has %d %s, and may have %d", b.name, n, name, most)
		}
	}
	for _, name := range b.moves {
		if b.moved[name]+b.tables[name] == 0 {
			l.Fatalf("%s: nothing was counted as %s", b.name, name)
		}
	}
	now, err := resident(b.n.pid(l))
	l.check(err, "ask for the node's memory")
	if now > b.memory+moreMemory+b.more {
		l.Fatalf("%s: the node has %.0f MB, and had %.0f before", b.name, now/1e6, b.memory/1e6)
	}
	return b.said(now)
}

// said is all that as a note.
func (b *battle) said(memory float64) string {
	var words []string
	switch {
	case b.api:
		words = append(words, counted(int(b.done), "answer")+" to his requests")
	case b.done > 0:
		words = append(words, counted(int(b.done), "change")+" of his interface")
	}
	for _, list := range []map[string]uint64{b.moved, b.tables} {
		for _, name := range slices.Sorted(maps.Keys(list)) {
			_, bounded := b.bounded[name]
			if n := list[name]; n > 0 && (bounded || !slices.Contains([]string{haveMACs, haveNeighbours, haveLeases}, name)) {
				words = append(words, fmt.Sprintf("%s %d", name, n))
			}
		}
	}
	words = append(words, fmt.Sprintf("the node has %.1f MB, before %.1f", memory/1e6, b.memory/1e6))
	if len(b.starved) > 0 {
		words = append(words, fmt.Sprintf("%s came to nothing: %v", counted(len(b.starved), "measurement"), b.starved[0]))
	}
	return strings.Join(words, ", ")
}
