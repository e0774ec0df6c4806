package vswitch

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// An fdb is what a table of MACs does for a frame; age is judged by who calls.
type fdb interface {
	find(key uint64) (hop uint64, ok bool)
	learn(key, hop uint64)
}

// Forms a table could have, of Go's own parts. None is bounded, and none shares fairly:
// that would come on top.
type (
	ourForm    struct{ m *macTable }
	lockedForm struct {
		mu sync.RWMutex
		m  map[uint64]uint64
	}
	snapshotForm struct {
		m atomic.Pointer[map[uint64]uint64]
	}
	syncForm struct{ m sync.Map }
)

func (f ourForm) find(key uint64) (uint64, bool) {
	h, ok := f.m.lookup(key, 1e9)
	return h.word(), ok
}
func (f ourForm) learn(key, to uint64) { f.m.learn(key, hopFromWord(to).port, 1e9) }

func (f *lockedForm) find(key uint64) (uint64, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	h, ok := f.m[key]
	return h, ok
}

func (f *lockedForm) learn(key, to uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.m[key] = to
}

func (f *snapshotForm) find(key uint64) (uint64, bool) {
	h, ok := (*f.m.Load())[key]
	return h, ok
}

func (f *snapshotForm) learn(key, to uint64) {
	m := maps.Clone(*f.m.Load())
	m[key] = to
	f.m.Store(&m)
}

func (f *syncForm) find(key uint64) (uint64, bool) {
	h, ok := f.m.Load(key)
	if !ok {
		return 0, false
	}
	return h.(uint64), true
}
func (f *syncForm) learn(key, to uint64) { f.m.Store(key, to) }

// BenchmarkMACTableForms is why the table has the form it has
// (docs/decisions/mac-table.md).
func BenchmarkMACTableForms(b *testing.B) {
	for _, form := range []struct {
		name string
		make func() fdb
	}{
		{"ours", func() fdb { return ourForm{newMACTable(DefaultAgeing, macSlots)} }},
		{"locked", func() fdb { return &lockedForm{m: map[uint64]uint64{}} }},
		{"snapshot", func() fdb {
			f := new(snapshotForm)
			f.m.Store(&map[uint64]uint64{})
			return f
		}},
		{"sync", func() fdb { return new(syncForm) }},
	} {
		for _, stations := range []int{16, 1000, 4000} {
			f, order := form.make(), make([]uint64, 1<<14)
			for n := range stations {
				f.learn(keyOf(uint64(n)), hop{port: 1}.word())
			}
			for i := range order {
				order[i] = keyOf(rand.Uint64N(uint64(stations)))
			}
			b.Run(fmt.Sprintf("%s/find/%d", form.name, stations), func(b *testing.B) {
				for i := 0; b.Loop(); i++ {
					if _, ok := f.find(order[i%len(order)]); !ok {
						b.Fatal("a station is missing")
					}
				}
			})
			b.Run(fmt.Sprintf("%s/move/%d", form.name, stations), func(b *testing.B) {
				for i := 0; b.Loop(); i++ {
					f.learn(order[i%len(order)], hop{port: 1 + 1<<(i&1)}.word())
				}
			})
		}
	}
}
