package node

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

// TestPlaces: one process alone gets a quarter, each further one less, and however many
// take what they can, one that comes anew finds a place; what is given back is there for
// others.
func TestPlaces(t *testing.T) {
	p := newPlaces(1024)
	greedy := func(pid int) int {
		for p.take(pid) {
		}
		return p.had(pid)
	}
	if n := greedy(1); n != 256 {
		t.Errorf("one alone gets %d", n)
	}
	for pid, before := 2, 256; pid <= 50; pid++ {
		n := greedy(pid)
		if n > before || n < fewPlaces {
			t.Errorf("process %d gets %d, and the one before %d", pid, n, before)
		}
		before = n
	}
	if left := p.most - p.inUse(); left < p.most/32 {
		t.Errorf("50 processes leave %d", left)
	}
	p.leave(1)
	if p.take(1) {
		t.Error("who has much gets more, although little is free")
	}
	for pid := range 51 {
		for p.had(pid) > 0 {
			p.leave(pid)
		}
	}
	if len(p.of) != 0 || p.inUse() != 0 {
		t.Errorf("at the end %v and %d places are taken", p.of, p.inUse())
	}
	if few := newPlaces(1); !few.take(1) || few.take(1) || few.take(2) {
		t.Error("there is one place for one")
	}
}

// TestPlacesAwaited: who waits gets a place as soon as one is given back that he may have.
func TestPlacesAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlaces(16)
		for p.take(1) {
		}
		got := make(chan error, 2)
		go func() { got <- p.await(t.Context(), 1) }()
		synctest.Wait()
		if err := p.await(t.Context(), 2); err != nil || len(got) > 0 {
			t.Errorf("another one: %v, and the first is told %d times", err, len(got))
		}
		p.leave(1)
		p.leave(2)
		if err := <-got; err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { got <- p.await(ctx, 1) }()
		synctest.Wait()
		cancel()
		if err := <-got; !errors.Is(err, context.Canceled) {
			t.Errorf("who has left: %v", err)
		}
	})
}
