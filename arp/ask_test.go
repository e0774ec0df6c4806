package arp

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"fairlead/packet"
)

// tick collects what Tick wants done.
func tick(table *Table, now int64) (ask, failed [][4]byte, next int64) {
	next = table.Tick(now,
		func(a [4]byte) { ask = append(ask, a) },
		func(a [4]byte) { failed = append(failed, a) })
	return ask, failed, next
}

// TestAsk follows questions through time: three requests a second apart, and
// three seconds of silence when nobody answered.
func TestAsk(t *testing.T) {
	table := NewTable()
	unresolved := func(state State) Entry { return Entry{Addr: addr(2), Container: 7, State: state} }
	if next, ok := table.Asked(0, addr(2), 7); !ok || next != second {
		t.Fatalf("Asked = %d, %v", next, ok)
	}
	if _, ok := table.Asked(1, addr(2), 7); ok {
		t.Error("asked twice")
	}
	expect(t, table, 1, unresolved(Incomplete))

	for _, step := range []struct {
		now         int64
		ask, failed bool
		next        int64
		state       State
	}{
		{second / 2, false, false, second, Incomplete},
		{second, true, false, 2 * second, Incomplete},
		{2*second + 5, true, false, 3*second + 5, Incomplete},
		{3*second + 4, false, false, 3*second + 5, Incomplete},
		{3*second + 5, false, true, 6*second + 5, Failed},
		{4 * second, false, false, 6*second + 5, Failed},
		{6*second + 5, false, false, 0, Unknown},
	} {
		ask, failed, next := tick(table, step.now)
		if (len(ask) == 1) != step.ask || (len(failed) == 1) != step.failed || next != step.next {
			t.Errorf("at %d: asked %v, failed %v, next %d", step.now, ask, failed, next)
		}
		if step.state == Unknown {
			expect(t, table, step.now)
		} else {
			expect(t, table, step.now, unresolved(step.state))
		}
	}
	if _, ok := table.Asked(7*second, addr(2), 7); !ok {
		t.Error("not asked again after it was forgotten")
	}
}

// A failed one is asked for again when its time is over, whether or not Tick was
// called in between, and a sign of life ends the silence.
func TestFailed(t *testing.T) {
	table := NewTable()
	table.Asked(0, addr(2), 7)
	for now := second; now <= 3*second; now += second {
		tick(table, now)
	}
	if _, ok := table.Asked(4*second, addr(2), 7); ok {
		t.Error("asked for what has just failed")
	}
	if _, state := table.Resolve(6*second, addr(2)); state != Unknown {
		t.Errorf("%v when the time is over", state)
	}
	if next, ok := table.Asked(6*second, addr(2), 8); !ok || next != 7*second {
		t.Errorf("Asked = %d, %v", next, ok)
	}
	expect(t, table, 6*second, Entry{Addr: addr(2), Container: 8, State: Incomplete})

	for now := 7 * second; now <= 9*second; now += second {
		tick(table, now)
	}
	if table.Learn(entry(2, 1, 9*second)) {
		t.Error("nothing waits for what has failed")
	}
	expect(t, table, 9*second, entry(2, 1, 9*second))
}

func TestAnswered(t *testing.T) {
	table := NewTable()
	table.Asked(0, addr(2), 7)
	if !table.Learn(entry(2, 1, 10)) {
		t.Error("somebody waited")
	}
	expect(t, table, 10, entry(2, 1, 10))
	if ask, failed, next := tick(table, second); ask != nil || failed != nil || next != 0 {
		t.Errorf("answered, and still: ask %v, failed %v, next %d", ask, failed, next)
	}
}

// A stale neighbour is used while it is asked again, and lost when it has not
// answered: somebody else may have its address at another MAC.
func TestStaleIsAskedAgain(t *testing.T) {
	now := ReachableTime + 1
	for _, answers := range []bool{true, false} {
		table := NewTable()
		table.Learn(entry(2, 1, 0))
		expect(t, table, now, in(Stale, entry(2, 1, 0)))
		if _, ok := table.Asked(now, addr(2), 7); !ok {
			t.Fatal("not asked")
		}
		expect(t, table, now, entry(2, 1, 0))
		if answers {
			table.Learn(entry(2, 1, now+10))
			expect(t, table, now+10, entry(2, 1, now+10))
			continue
		}
		for i := range int64(maxAsks) {
			_, failed, _ := tick(table, now+(i+1)*second)
			if (i == maxAsks-1) != (len(failed) == 1) {
				t.Errorf("failed %v in step %d", failed, i)
			}
		}
		expect(t, table, now+maxAsks*second, Entry{Addr: addr(2), Container: 7, State: Failed})
	}
}

// TestScanIsBounded: who scans a subnet through us is told soon that nobody is
// there, and hinders nobody else.
func TestScanIsBounded(t *testing.T) {
	table := NewTable()
	asked, failed := 0, 0
	for now := int64(0); now < 60*second; now += second / 100 {
		a, f, _ := tick(table, now)
		asked += len(a)
		failed += len(f)
		if _, ok := table.Asked(now, addr(int(now/(second/100))), 66); ok {
			asked++
		}
		if table.asking[66] > MaxAsking {
			t.Fatalf("%d at once", table.asking[66])
		}
		if now%second == 0 {
			if _, ok := table.Asked(now, addr(50_000+int(now/second)), 1); !ok {
				t.Fatal("another container may not ask")
			}
		}
	}
	// 64 addresses, three requests each, take six seconds to be forgotten.
	if asked > 12*3*MaxAsking+3*60 || failed < 5*MaxAsking {
		t.Errorf("%d requests in a minute, %d failed", asked, failed)
	}
	check(t, table)
}

// A model is the table as slowly as it can be had: a list of neighbours in the
// order in which they came to their port's list, and a list of questions.
type model struct {
	share     int
	entries   []neighbour
	questions []asked
}

type asked struct {
	addr [4]byte
	question
}

func (m *model) known(a [4]byte) int {
	return slices.IndexFunc(m.entries, func(n neighbour) bool { return n.Addr == a })
}

func (m *model) asked(a [4]byte) int {
	return slices.IndexFunc(m.questions, func(q asked) bool { return q.addr == a })
}

func (m *model) remove(a [4]byte) {
	m.entries = slices.DeleteFunc(m.entries, func(n neighbour) bool { return n.Addr == a })
	m.questions = slices.DeleteFunc(m.questions, func(q asked) bool { return q.addr == a })
}

func (m *model) learn(e Entry) (waited bool) {
	i, j := m.known(e.Addr), m.asked(e.Addr)
	if i >= 0 && m.entries[i].State == Permanent {
		return false
	}
	n := neighbour{e, j >= 0 || i >= 0 && m.entries[i].wanted}
	waited = j >= 0 && !m.questions[j].failed
	if i >= 0 && m.entries[i].Port == e.Port && m.entries[i].wanted == n.wanted {
		m.questions = slices.DeleteFunc(m.questions, func(q asked) bool { return q.addr == e.Addr })
		m.entries[i] = n
		return waited
	}
	m.remove(e.Addr)
	count, victim := 0, -1
	for i, o := range m.entries {
		if o.Port != e.Port || o.State == Permanent {
			continue
		}
		count++
		if victim < 0 || m.entries[victim].wanted && !o.wanted {
			victim = i
		}
	}
	if count == m.share {
		m.remove(m.entries[victim].Addr)
	}
	m.entries = append(m.entries, n)
	return waited
}

func (m *model) ask(now int64, a [4]byte, by packet.ContainerID) bool {
	i := m.asked(a)
	if i >= 0 && !(m.questions[i].failed && now >= m.questions[i].due) {
		return false
	}
	if i >= 0 {
		m.questions = slices.Delete(m.questions, i, i+1)
	}
	n := 0
	for _, q := range m.questions {
		if q.by == by {
			n++
		}
	}
	if n == MaxAsking {
		return false
	}
	m.questions = append(m.questions, asked{a, question{by: by, asks: 1, due: now + second}})
	return true
}

func (m *model) tick(now int64) (ask, failed [][4]byte, next int64) {
	slices.SortFunc(m.questions, func(a, b asked) int { return slices.Compare(a.addr[:], b.addr[:]) })
	var stay []asked
	for _, q := range m.questions {
		switch {
		case q.due > now:
		case q.failed:
			continue
		case q.asks == 3:
			q.failed, q.due = true, now+3*second
			failed = append(failed, q.addr)
			m.entries = slices.DeleteFunc(m.entries, func(n neighbour) bool { return n.Addr == q.addr })
		default:
			q.asks, q.due = q.asks+1, now+second
			ask = append(ask, q.addr)
		}
		stay = append(stay, q)
		if next == 0 || q.due < next {
			next = q.due
		}
	}
	m.questions = stay
	return ask, failed, next
}

func (m *model) list(now int64) []Entry {
	var list []Entry
	for _, n := range m.entries {
		age, e := now-n.Seen, n.Entry
		switch {
		case e.State == Permanent:
		case age > MaxAge:
			continue
		case age > ReachableTime && m.asked(e.Addr) < 0:
			e.State = Stale
		}
		list = append(list, e)
	}
	for _, q := range m.questions {
		state := Incomplete
		if q.failed {
			state = Failed
		}
		if q.failed && now >= q.due || slices.ContainsFunc(list, func(e Entry) bool { return e.Addr == q.addr }) {
			continue
		}
		list = append(list, Entry{Addr: q.addr, Container: q.by, State: state})
	}
	slices.SortFunc(list, func(a, b Entry) int { return slices.Compare(a.Addr[:], b.Addr[:]) })
	return list
}

func TestTableAgainstModel(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			m := model{share: 4 + int(seed)}
			table, now := NewTableOf(m.share), int64(1)
			seen := map[State]int{}
			for step := range 3000 {
				now += rng.Int64N(2 * second)
				a := addr(rng.IntN(100))
				e := Entry{Addr: a, MAC: station(rng.IntN(1000)), Port: packet.PortID(1 + rng.IntN(4)), Container: 5, Seen: now}
				switch rng.IntN(100) {
				case 0:
					table.FlushPort(e.Port)
					m.entries = slices.DeleteFunc(m.entries, func(n neighbour) bool { return n.Port == e.Port })
				case 1:
					now += rng.Int64N(MaxAge)
				case 2, 3:
					table.Remove(a)
					m.remove(a)
				case 4:
					table.Add(e)
					m.remove(a)
					m.entries = append(m.entries, neighbour{Entry: in(Permanent, e)})
				default:
					switch rng.IntN(3) {
					case 0:
						if got, want := table.Learn(e), m.learn(e); got != want {
							t.Fatalf("step %d: Learn(%v) = %v, want %v", step, e, got, want)
						}
					case 1:
						by := packet.ContainerID(rng.IntN(2))
						if _, got := table.Asked(now, a, by); got != m.ask(now, a, by) {
							t.Fatalf("step %d: Asked(%v) = %v", step, a, got)
						}
					case 2:
						ask, failed, next := tick(table, now)
						ask2, failed2, next2 := m.tick(now)
						if !slices.Equal(ask, ask2) || !slices.Equal(failed, failed2) || next != next2 {
							t.Fatalf("step %d: Tick = %v, %v, %d, want %v, %v, %d", step, ask, failed, next, ask2, failed2, next2)
						}
					}
				}
				want := m.list(now)
				for _, e := range want {
					seen[e.State]++
				}
				expect(t, table, now, want...)
				if t.Failed() {
					t.Fatalf("step %d", step)
				}
			}
			for _, state := range []State{Reachable, Stale, Permanent, Incomplete, Failed} {
				if seen[state] < 100 {
					t.Errorf("%v was met %d times only", state, seen[state])
				}
			}
		})
	}
}

// TestAllocations: what is asked for each packet costs no memory.
func TestAllocations(t *testing.T) {
	table := NewTableOf(1024)
	for n := range 1000 {
		table.Learn(entry(n, 1, 0))
	}
	table.Asked(0, addr(2000), 1)
	var e Entry
	if n := testing.AllocsPerRun(100, func() {
		e, _ = table.Resolve(0, addr(3))
		e, _ = table.Resolve(0, addr(2000))
		e, _ = table.Resolve(2*MaxAge, addr(4000))
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if n := testing.AllocsPerRun(100, func() { table.Learn(entry(3, 1, 1)) }); n != 0 {
		t.Errorf("%v allocations to hear one again", n)
	}
	_ = e
}

func BenchmarkResolve(b *testing.B) {
	table := NewTableOf(1024)
	for n := range 1000 {
		table.Learn(entry(n, 1, 0))
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		table.Resolve(1, addr(n%1000))
		n++
	}
}

// BenchmarkFlood is what a station costs that makes up addresses.
func BenchmarkFlood(b *testing.B) {
	table := NewTableOf(1024)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		table.Learn(entry(n%60_000, 1, 0))
		n++
	}
}
