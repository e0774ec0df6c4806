package arp

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

const second = int64(1e9)

func addr(n int) [4]byte { return [4]byte{10, 0, byte(n >> 8), byte(n)} }

func station(n int) packet.MAC { return packet.MAC{2, 0, 0, 0, byte(n >> 8), byte(n)} }

// entry is neighbour n, heard at a port at a time.
func entry(n int, port packet.PortID, seen int64) Entry {
	return Entry{Addr: addr(n), MAC: station(n), Port: port, Container: packet.ContainerID(port), Seen: seen}
}

// in is an entry as a table tells it that has it in a state.
func in(state State, e Entry) Entry {
	e.State = state
	return e
}

// entries lists a table's neighbours by address.
func entries(table *Table, now int64) []Entry {
	list := table.Entries(now)
	slices.SortFunc(list, func(a, b Entry) int { return bytes.Compare(a.Addr[:], b.Addr[:]) })
	return list
}

// expect compares a table's neighbours, and then its maps with each other.
func expect(t *testing.T, table *Table, now int64, want ...Entry) {
	t.Helper()
	if got := entries(table, now); !slices.Equal(got, want) {
		t.Errorf("at %d\n got %v\nwant %v", now, got, want)
	}
	for _, e := range want {
		if got, state := table.Resolve(now, e.Addr); got != e || state != e.State {
			t.Errorf("Resolve(%v) = %v, %v, want %v", e.Addr, got, state, e)
		}
		known := e.State != Incomplete && e.State != Failed
		if got, ok := table.Lookup(now, e.Addr); ok != known || ok && got != e {
			t.Errorf("Lookup(%v) = %v, %v, want %v", e.Addr, got, ok, e)
		}
	}
	check(t, table)
}

// check wants every entry in its port's share, once, and nothing else, and the
// questions counted.
func check(t *testing.T, table *Table) {
	t.Helper()
	held := 0
	for port, s := range table.shares {
		held += len(s.heard) + len(s.wanted) + len(s.permanent)
		if len(s.heard)+len(s.wanted) > table.perPort {
			t.Fatalf("port %v holds %d and %d, its share is %d", port, len(s.heard), len(s.wanted), table.perPort)
		}
		for _, list := range []*[][4]byte{&s.heard, &s.wanted, &s.permanent} {
			for i, a := range *list {
				if n, ok := table.entries[a]; !ok || n.Port != port || s.list(n) != list || slices.Contains((*list)[:i], a) {
					t.Fatalf("port %v lists %v, the entry is %v, %v", port, a, n, ok)
				}
			}
		}
	}
	if held != len(table.entries) {
		t.Fatalf("the shares hold %d addresses, the table holds %d", held, len(table.entries))
	}
	asking := map[packet.ContainerID]int{}
	for _, q := range table.questions {
		asking[q.by]++
	}
	for by, n := range asking {
		if n > MaxAsking || table.asking[by] != n {
			t.Fatalf("container %v has %d questions, counted are %d", by, n, table.asking[by])
		}
	}
	if len(asking) != len(table.asking) {
		t.Fatalf("%d containers ask, counted are %d", len(asking), len(table.asking))
	}
}

func TestLearn(t *testing.T) {
	table := NewTable()
	expect(t, table, 0)
	if _, ok := table.Lookup(0, addr(2)); ok {
		t.Error("an empty table knows somebody")
	}

	if table.Learn(entry(2, 1, 100)) {
		t.Error("nobody waited")
	}
	expect(t, table, 100, entry(2, 1, 100))

	table.Learn(entry(2, 1, 200)) // heard again
	expect(t, table, 200, entry(2, 1, 200))

	other := entry(2, 1, 300) // another station at the same port
	other.MAC = station(99)
	table.Learn(other)
	expect(t, table, 300, other)

	table.Learn(entry(2, 7, 400)) // moved
	expect(t, table, 400, entry(2, 7, 400))
	if n := len(table.shares[1].heard); n != 0 {
		t.Errorf("port 1 holds %d entries after its only one has moved", n)
	}

	table.Remove(addr(2))
	table.Remove(addr(2))
	expect(t, table, 400)
}

func TestAge(t *testing.T) {
	table := NewTable()
	table.Learn(entry(2, 1, 100))
	table.Learn(entry(3, 1, 200))
	expect(t, table, 100+ReachableTime, entry(2, 1, 100), entry(3, 1, 200))
	expect(t, table, 101+ReachableTime, in(Stale, entry(2, 1, 100)), entry(3, 1, 200))
	expect(t, table, 100+MaxAge, in(Stale, entry(2, 1, 100)), in(Stale, entry(3, 1, 200)))
	expect(t, table, 101+MaxAge, in(Stale, entry(3, 1, 200)))
	if _, state := table.Resolve(101+MaxAge, addr(2)); state != Unknown {
		t.Errorf("%v after MaxAge", state)
	}
	table.Learn(entry(2, 1, 101+MaxAge)) // back again
	expect(t, table, 101+MaxAge, entry(2, 1, 101+MaxAge), in(Stale, entry(3, 1, 200)))
}

func TestPermanent(t *testing.T) {
	table := NewTable()
	table.Learn(entry(2, 9, 0))
	table.Add(entry(2, 1, 0))
	for n := range PerPort {
		table.Add(entry(10+n, 1, 0))
		table.Learn(entry(100+n, 1, 0))
	}
	forged := entry(2, 3, second)
	forged.MAC = station(66)
	table.Learn(forged)
	if e, state := table.Resolve(10*MaxAge, addr(2)); state != Permanent || e != in(Permanent, entry(2, 1, 0)) {
		t.Errorf("%v, %v", e, state)
	}
	if n := len(table.Entries(0)); n != 1+2*PerPort {
		t.Errorf("%d entries: the permanent ones have taken from the port's share", n)
	}
	check(t, table)

	table.Remove(addr(2))
	table.Learn(forged)
	if e, _ := table.Resolve(second, addr(2)); e.MAC != station(66) {
		t.Errorf("%v is not permanent any more", e)
	}
	table.FlushPort(1)
	expect(t, table, second, in(Reachable, forged))
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
	if len(table.shares) != 1 {
		t.Errorf("%d ports are remembered, one is left", len(table.shares))
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
	check(t, table)
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
	check(t, table)
}

// TestWhoWasAskedForStays: on an uplink all neighbours are behind one port, and
// those that flood it do not push out those we talk to.
func TestWhoWasAskedForStays(t *testing.T) {
	const share = 64
	table := NewTableOf(share)
	for n := range 8 {
		table.Asked(0, addr(n), 1)
		if !table.Learn(entry(n, 1, 0)) {
			t.Errorf("%d was waited for", n)
		}
	}
	table.Learn(entry(8, 1, 0)) // made itself known, and is asked for later
	table.Asked(0, addr(8), 1)
	table.Learn(entry(8, 1, 0))
	for n := range 10_000 {
		table.Learn(entry(10+n, 1, 1))
	}
	if len(table.entries) != share {
		t.Errorf("%d entries, the share is %d", len(table.entries), share)
	}
	for n := range 9 {
		if _, ok := table.Lookup(1, addr(n)); !ok {
			t.Errorf("neighbour %d was pushed out", n)
		}
	}
	check(t, table)
	for n := range 10_000 { // now each is asked for, so the oldest goes
		table.Asked(1, addr(20_000+n), 1)
		table.Learn(entry(20_000+n, 1, 1))
	}
	if len(table.entries) != share {
		t.Errorf("%d entries, the share is %d", len(table.entries), share)
	}
	check(t, table)
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

func TestRequest(t *testing.T) {
	asker := packettest.Station{MAC: packet.MAC{2, 0x42, 10, 0, 0, 1}, IP: netip.MustParseAddr("10.0.0.1")}
	target := netip.MustParseAddr("10.0.0.9")
	buf := bytes.Repeat([]byte{0xee}, FrameLen+8)
	n := Request(buf, asker.MAC, asker.IP.As4(), target.As4())
	if want := packettest.ARPRequest(asker, target); !bytes.Equal(buf[:n], want) {
		t.Errorf("got  % x\nwant % x", buf[:n], want)
	}
	if !bytes.Equal(buf[n:], bytes.Repeat([]byte{0xee}, 8)) {
		t.Error("it wrote behind the frame")
	}
	if n := testing.AllocsPerRun(100, func() { Request(buf, asker.MAC, addr(1), addr(2)) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestStateNames(t *testing.T) {
	for state := range State(numStates) {
		if state.String() == "" || state.String() == "?" {
			t.Errorf("state %d has no name", state)
		}
	}
	if State(numStates).String() != "?" || ClaimState(99).String() != "?" {
		t.Error("states that do not exist have names")
	}
}

// Flush forgets what it is told to, and nothing of the shares or the questions of
// others.
func TestTableFlush(t *testing.T) {
	table := NewTable()
	for n := 1; n <= 4; n++ {
		table.Learn(entry(n, packet.PortID(n%2+1), second))
	}
	table.Add(entry(5, 1, second))
	table.Asked(second, addr(6), 3)
	if n := table.Flush(func(e Entry) bool { return e.State != Permanent && e.Port == 1 }); n != 2 {
		t.Errorf("%d forgotten, want 2", n)
	}
	expect(t, table, second, in(Reachable, entry(1, 2, second)), in(Reachable, entry(3, 2, second)), in(Permanent, entry(5, 1, second)),
		Entry{Addr: addr(6), Container: 3, State: Incomplete})
	if n := table.Flush(func(Entry) bool { return true }); n != 3 {
		t.Errorf("%d forgotten, want 3", n)
	}
	expect(t, table, second, Entry{Addr: addr(6), Container: 3, State: Incomplete})
}
