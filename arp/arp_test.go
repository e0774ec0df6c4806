package arp

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

func addr(n int) [4]byte { return [4]byte{10, 0, byte(n >> 8), byte(n)} }

func station(n int) packet.MAC { return packet.MAC{2, 0, 0, 0, byte(n >> 8), byte(n)} }

// entry is neighbour n, heard at a port at a time.
func entry(n int, port packet.PortID, seen int64) Entry {
	return Entry{Addr: addr(n), MAC: station(n), Port: port, Container: packet.ContainerID(port), Seen: seen}
}

// entries lists a table's neighbours by address.
func entries(table *Table, now int64) []Entry {
	list := table.Entries(now)
	slices.SortFunc(list, func(a, b Entry) int { return bytes.Compare(a.Addr[:], b.Addr[:]) })
	return list
}

// expect compares a table's neighbours, and then its two maps with each other.
func expect(t *testing.T, table *Table, now int64, want ...Entry) {
	t.Helper()
	if got := entries(table, now); !slices.Equal(got, want) {
		t.Errorf("at %d\n got %v\nwant %v", now, got, want)
	}
	for _, e := range want {
		if got, ok := table.Lookup(now, e.Addr); !ok || got != e {
			t.Errorf("Lookup(%v) = %v, %v, want %v", e.Addr, got, ok, e)
		}
	}
	checkShares(t, table)
}

// checkShares wants every entry in its port's share, once, and nothing else.
func checkShares(t *testing.T, table *Table) {
	t.Helper()
	held := 0
	for port, s := range table.byPort {
		held += s.n
		if s.n > PerPort {
			t.Fatalf("port %v holds %d, its share is %d", port, s.n, PerPort)
		}
		for i, a := range s.addrs[:s.n] {
			if e, ok := table.entries[a]; !ok || e.Port != port || slices.Contains(s.addrs[:i], a) {
				t.Fatalf("port %v lists %v, the entry is %v, %v", port, a, e, ok)
			}
		}
	}
	if held != len(table.entries) {
		t.Fatalf("the shares hold %d addresses, the table %d", held, len(table.entries))
	}
}

func TestLearn(t *testing.T) {
	table := NewTable()
	expect(t, table, 0)
	if _, ok := table.Lookup(0, addr(2)); ok {
		t.Error("an empty table knows somebody")
	}

	table.Learn(entry(2, 1, 100))
	expect(t, table, 100, entry(2, 1, 100))

	table.Learn(entry(2, 1, 200)) // heard again
	expect(t, table, 200, entry(2, 1, 200))

	other := entry(2, 1, 300) // another station at the same port
	other.MAC = station(99)
	table.Learn(other)
	expect(t, table, 300, other)

	table.Learn(entry(2, 7, 400)) // moved
	expect(t, table, 400, entry(2, 7, 400))
	if table.byPort[1].n != 0 {
		t.Errorf("port 1 holds %d entries after its only one has moved", table.byPort[1].n)
	}
}

func TestAge(t *testing.T) {
	table := NewTable()
	table.Learn(entry(2, 1, 100))
	table.Learn(entry(3, 1, 200))
	expect(t, table, 100+MaxAge, entry(2, 1, 100), entry(3, 1, 200))
	expect(t, table, 101+MaxAge, entry(3, 1, 200))
	if _, ok := table.Lookup(101+MaxAge, addr(2)); ok {
		t.Error("still there after MaxAge")
	}
	table.Learn(entry(2, 1, 101+MaxAge)) // back again
	expect(t, table, 101+MaxAge, entry(2, 1, 101+MaxAge), entry(3, 1, 200))
}

func TestFlushPort(t *testing.T) {
	table := NewTable()
	table.Learn(entry(2, 1, 0))
	table.Learn(entry(3, 2, 0))
	table.Learn(entry(4, 1, 0))
	table.FlushPort(9) // has said nothing
	table.FlushPort(1)
	expect(t, table, 0, entry(3, 2, 0))
	table.FlushPort(1)
	expect(t, table, 0, entry(3, 2, 0))
	if len(table.byPort) != 1 {
		t.Errorf("%d ports are remembered, one is left", len(table.byPort))
	}
}

// TestOwnOldestGoes fills a port's share: what was learned first goes first,
// hearing it again does not help.
func TestOwnOldestGoes(t *testing.T) {
	table := NewTable()
	for n := range PerPort {
		table.Learn(entry(n, 1, int64(n)))
	}
	table.Learn(entry(0, 1, 50)) // heard again, still the first
	table.Learn(entry(100, 1, 51))
	if _, ok := table.Lookup(51, addr(0)); ok {
		t.Error("the first learned is still there")
	}
	for _, n := range []int{1, 2, PerPort - 1, 100} {
		if _, ok := table.Lookup(51, addr(n)); !ok {
			t.Errorf("neighbour %d is gone", n)
		}
	}
	table.Learn(entry(5, 2, 52)) // one from the middle moves
	table.Learn(entry(101, 1, 53))
	if _, ok := table.Lookup(53, addr(1)); !ok {
		t.Error("an entry went although another had left room")
	}
	checkShares(t, table)
}

// TestHostilePortFillsItsShareOnly: a port that claims every address it can
// think of costs the others nothing but what it takes over.
func TestHostilePortFillsItsShareOnly(t *testing.T) {
	table := NewTable()
	const quiet, hostile = packet.PortID(1), packet.PortID(2)
	for n := range 10 {
		table.Learn(entry(n, quiet, 0))
	}
	for n := range 100_000 {
		table.Learn(entry(10+n%60_000, hostile, int64(n)))
	}
	if len(table.entries) != 10+PerPort {
		t.Errorf("%d entries, want %d", len(table.entries), 10+PerPort)
	}
	for n := range 10 {
		if e, ok := table.Lookup(0, addr(n)); !ok || e.Port != quiet {
			t.Errorf("quiet neighbour %d: %v, %v", n, e, ok)
		}
	}
	checkShares(t, table)
}

// A model is the table as slowly as it can be had: one list in the order in
// which addresses were first heard at their port.
type model []Entry

func (m *model) learn(e Entry) {
	at := slices.IndexFunc(*m, func(o Entry) bool { return o.Addr == e.Addr })
	switch {
	case at >= 0 && (*m)[at].Port == e.Port:
		(*m)[at] = e
		return
	case at >= 0:
		*m = slices.Delete(*m, at, at+1)
	}
	n, oldest := 0, 0
	for i, o := range *m {
		if o.Port == e.Port {
			if n == 0 {
				oldest = i
			}
			n++
		}
	}
	if n == PerPort {
		*m = slices.Delete(*m, oldest, oldest+1)
	}
	*m = append(*m, e)
}

func (m model) entries(now int64) []Entry {
	list := slices.DeleteFunc(slices.Clone(m), func(e Entry) bool { return now-e.Seen > MaxAge })
	slices.SortFunc(list, func(a, b Entry) int { return bytes.Compare(a.Addr[:], b.Addr[:]) })
	return list
}

func TestTableAgainstModel(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			table, m, now := NewTable(), model{}, int64(0)
			for range 1000 {
				now += rng.Int64N(MaxAge / 20)
				switch rng.IntN(40) {
				case 0:
					port := packet.PortID(1 + rng.IntN(4))
					table.FlushPort(port)
					m = slices.DeleteFunc(m, func(e Entry) bool { return e.Port == port })
				case 1:
					now += MaxAge
				default:
					e := entry(rng.IntN(120), packet.PortID(1+rng.IntN(4)), now)
					e.MAC = station(rng.IntN(1000))
					table.Learn(e)
					m.learn(e)
				}
				expect(t, table, now, m.entries(now)...)
				if t.Failed() {
					return
				}
			}
		})
	}
}

func TestAnswer(t *testing.T) {
	asker := packettest.Station{MAC: packet.MAC{2, 0x42, 10, 0, 0, 2}, IP: netip.MustParseAddr("10.0.0.2")}
	request := packettest.ARPRequest(asker, netip.MustParseAddr("10.0.0.1"))
	a := packet.ARP(request[packet.VNetLen+packet.EthernetLen:])
	before := bytes.Clone(a)
	want := []byte{0, 1, 8, 0, 6, 4, 0, 2,
		2, 0x42, 10, 0, 0, 1, 10, 0, 0, 1,
		2, 0x42, 10, 0, 0, 2, 10, 0, 0, 2}
	mac := packet.MAC{2, 0x42, 10, 0, 0, 1}

	dst := make(packet.ARP, packet.ARPLen)
	Answer(dst, a, mac)
	if !bytes.Equal(dst, want) {
		t.Errorf("got  % x\nwant % x", []byte(dst), want)
	}
	if !bytes.Equal(a, before) {
		t.Error("the request was changed")
	}
	Answer(a, a, mac) // in place
	if !bytes.Equal(a, want) {
		t.Errorf("in place: got % x", []byte(a))
	}
}
