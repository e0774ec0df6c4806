package node

import (
	"context"
	"maps"
	"slices"
	"sync"
)

// Places bound what clients hold at once of one kind: connections, requests that go on,
// traces, tables that are being told. Any goroutine may use them.
//
// They are shared out among processes as switches share out their memory among ports
// (dynamic thresholds, Choudhury and Hahne, IEEE/ACM Transactions on Networking 6, 1998):
// a process may have one more while it has less than a third of what is free. One alone
// gets a quarter of all; each further one that takes what it can gets less than the one
// before. The last eighth of all is for processes that have fewer than fewPlaces.
type places struct {
	most int

	mu    sync.Mutex
	taken int
	of    map[int]int   // how many each process has, by its number
	freed chan struct{} // closed when one is given back; nil while nobody waits
}

// fewPlaces is what a command of ours has at once, at most.
const fewPlaces = 2

func newPlaces(most int) *places { return &places{most: most, of: make(map[int]int)} }

// take takes a place for a process, if it may have one.
func (p *places) take(pid int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.takeLocked(pid)
}

func (p *places) takeLocked(pid int) bool {
	free, have := p.most-p.taken, p.of[pid]
	if free <= 0 || have >= fewPlaces && (free <= p.most/8 || 3*have >= free) {
		return false
	}
	p.taken++
	p.of[pid]++
	return true
}

// await takes a place for a process as soon as it may have one.
func (p *places) await(ctx context.Context, pid int) error {
	for {
		p.mu.Lock()
		if p.takeLocked(pid) {
			p.mu.Unlock()
			return nil
		}
		if p.freed == nil {
			p.freed = make(chan struct{})
		}
		freed := p.freed
		p.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// leave gives a place of a process back.
func (p *places) leave(pid int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	if p.of[pid]--; p.of[pid] == 0 {
		delete(p.of, pid)
	}
	if p.freed != nil {
		close(p.freed)
		p.freed = nil
	}
}

// had is how many a process has.
func (p *places) had(pid int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.of[pid]
}

// processes are those that have some, in the order of their numbers.
func (p *places) processes() []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.of))
}

// inUse is how many all have.
func (p *places) inUse() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}
