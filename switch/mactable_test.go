package vswitch

import (
	"sync"
	"testing"
	"time"

	"fairlead/packet"
)

func keyOf(n uint64) uint64 { return stationKey(0, packet.MACFromUint64(0x020000000000|n)) }

func TestMACTableIsBoundedAndFair(t *testing.T) {
	m := newMACTable(DefaultAgeing, 1024)
	const quiet, loud = packet.PortID(1), packet.PortID(2)
	now := int64(1e9)
	for n := range uint64(100) {
		m.learn(keyOf(n), quiet, now)
	}
	for n := range uint64(100_000) { // a flood of addresses
		now += 1000
		m.learn(keyOf(1000+n), loud, now)
	}
	if n := len(m.entries(now)); n > 1024 {
		t.Errorf("%d entries, the bound is 1024", n)
	}
	if m.held[quiet] != 100 {
		t.Errorf("the quiet port has %d of its 100 addresses left", m.held[quiet])
	}
	if m.evicted == 0 || m.held[loud] < 800 {
		t.Errorf("the loud port holds %d, %d were evicted", m.held[loud], m.evicted)
	}
	// A newcomer finds room at the expense of who holds most.
	m.learn(keyOf(500_000), 3, now)
	if _, ok := m.lookup(keyOf(500_000), now); !ok {
		t.Error("no room for a newcomer")
	}
}

// The seed decides who shares buckets, so one table in a few evicts somebody a
// little early: what is promised is the average, over seeds that stay.
func TestMACTableFillsUpBeforeItEvicts(t *testing.T) {
	const tables = 100
	held, evicted := 0, uint64(0)
	for seed := range uint64(tables) {
		m := newMACTable(DefaultAgeing, 1024)
		m.seed = seed * 0x9e3779b97f4a7c15
		for n := range uint64(800) {
			m.learn(keyOf(n), packet.PortID(n%10+1), 1e9)
		}
		held += len(m.entries(1e9))
		evicted += uint64(m.evicted)
	}
	if evicted > tables || held < 799*tables {
		t.Errorf("%d entries and %d evicted in %d tables filled with 800 of 1024", held, evicted, tables)
	}
}

func TestMACTableAgesAndRefreshes(t *testing.T) {
	m := newMACTable(10*time.Second, 64)
	k := keyOf(1)
	m.learn(k, 1, 0)
	if l := m.judge(k, 1, int64(999*time.Millisecond)); l != packet.LearnNothing {
		t.Errorf("after less than a second: %v", l)
	}
	if l := m.judge(k, 1, int64(time.Second)); l != packet.LearnRefresh {
		t.Errorf("after a second: %v", l)
	}
	if l := m.judge(k, 2, 0); l != packet.LearnMoved {
		t.Errorf("behind another port: %v", l)
	}
	if _, ok := m.lookup(k, int64(10*time.Second)); !ok {
		t.Error("gone at its ageing time")
	}
	if _, ok := m.lookup(k, int64(10*time.Second)+1); ok {
		t.Error("still there after its ageing time")
	}
	if l := m.judge(k, 1, int64(11*time.Second)); l != packet.LearnNew {
		t.Errorf("aged: %v", l)
	}
	m.learn(k, 2, int64(11*time.Second))
	if h, ok := m.lookup(k, int64(11*time.Second)); !ok || h.port != 2 {
		t.Errorf("learned anew: %v %v", h, ok)
	}
	if m.held[1] != 0 || m.held[2] != 1 {
		t.Errorf("shares: %v", m.held)
	}
}

// What was added by hand stays, whatever is heard, until it is removed or its port
// goes.
func TestMACTableStatic(t *testing.T) {
	m := newMACTable(10*time.Second, 64)
	k, now := keyOf(1), int64(1e9)
	m.learn(k, 1, now)
	if err := m.add(k, 2, now); err != nil {
		t.Fatal(err)
	}
	at := func(when int64) packet.PortID { h, _ := m.lookup(k, when); return h.port }
	if l := m.judge(k, 1, now); l != packet.LearnNothing {
		t.Errorf("heard behind another port: %v", l)
	}
	m.learn(k, 1, now) // by a worker that judged before it was added
	for n := range uint64(10_000) {
		m.learn(keyOf(100+n), 3, now)
	}
	if late := now + int64(time.Hour); at(now) != 2 || at(late) != 2 || len(m.entries(late)) != 1 || !m.entries(late)[0].Static {
		t.Errorf("behind %v, and later %v: %v", at(now), at(late), m.entries(late))
	}
	if m.held[1] != 0 || m.held[2] != 1 || m.statics != 1 {
		t.Errorf("shares %v, %d static", m.held, m.statics)
	}
	if err := m.add(k, 3, now); err != nil || at(now) != 3 || m.statics != 1 {
		t.Errorf("added again: %v, behind %v, %d static", err, at(now), m.statics)
	}
	m.clear(func(_ uint64, h hop, _ int64) bool { return h.port == 3 })
	if at(now) != 0 || m.statics != 0 || len(m.held) != 0 {
		t.Errorf("its port has gone: behind %v, %d static, shares %v", at(now), m.statics, m.held)
	}
}

// There may be so many of them and no more, and where they fill all slots a station
// has nobody else is learned.
func TestMACTableStaticIsBounded(t *testing.T) {
	m := newMACTable(DefaultAgeing, macSlots)
	for n := range uint64(maxStatic) {
		if err := m.add(keyOf(n), 1, 1e9); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.add(keyOf(maxStatic), 1, 1e9); err == nil || m.statics != maxStatic {
		t.Errorf("%v with %d static", err, m.statics)
	}
	small, refused := newMACTable(DefaultAgeing, 16), 0
	for n := range uint64(100) {
		if small.add(keyOf(n), 1, 1e9) != nil {
			refused++
		}
	}
	small.learn(keyOf(1000), 2, 1e9)
	if list := small.entries(1e9); refused < 84 || len(list) != 100-refused || small.statics != len(list) {
		t.Errorf("%d of 100 refused in 16 slots, %d there, %d static", refused, len(list), small.statics)
	}
}

// TestMACTableReadersNeverSeeAnotherStation has readers look while a writer
// has slots change hands all the time: what a reader finds under a key is a hop
// of that key.
func TestMACTableReadersNeverSeeAnotherStation(t *testing.T) {
	m := newMACTable(DefaultAgeing, 64)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Add(1)
		go func() {
			defer readers.Done()
			for {
				select {
				case <-done:
					return
				default:
				}
				for n := range uint64(256) {
					if h, ok := m.lookup(keyOf(n), 1); ok && uint64(h.port) != n+1 {
						t.Errorf("station %d is behind port %d", n, h.port)
						return
					}
				}
			}
		}()
	}
	for i := range uint64(200_000) {
		m.learn(keyOf(i%256), packet.PortID(i%256+1), 1)
	}
	close(done)
	readers.Wait()
}

func BenchmarkMACTable(b *testing.B) {
	m := newMACTable(DefaultAgeing, macSlots)
	for n := range uint64(1000) {
		m.learn(keyOf(n), 1, 1e9)
	}
	b.Run("hit", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			m.lookup(keyOf(uint64(i)%1000), 1e9)
		}
	})
	b.Run("miss", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			m.lookup(keyOf(1000+uint64(i)%1000), 1e9)
		}
	})
	b.Run("judge", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			m.judge(keyOf(uint64(i)%1000), 1, 1e9)
		}
	})
	b.Run("flooded", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			m.learn(keyOf(uint64(i)), 2, 1e9+int64(i))
		}
	})
}
