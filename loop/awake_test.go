//go:build !plain

package loop

import "testing"

// A worker that answers something again and again stays awake for the next; one
// that waited in vain, or had much to do, sleeps.
func TestStaysAwakeWhereThatPays(t *testing.T) {
	w, err := newWorker(nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := w.closeDescriptors(); err != nil {
			t.Error(err)
		}
	}()
	for _, c := range []struct {
		name  string
		short int
		turn  int64 // how long the turn before took
		event bool
		awake uint64
	}{
		{"something comes", spinAfter, 0, true, 1},
		{"nothing comes", spinAfter, 0, false, 0},
		{"too few before", spinAfter - 1, 0, true, 0},
		{"a long turn before", spinAfter, 2 * shortTurn, true, 0},
	} {
		awake := uint64(0)
		// Between two looks at the clock the machine may be busy with others for
		// longer than any of this takes, so who should stay awake tries again.
		for tries := 0; tries == 0 || awake < c.awake && tries < 100; tries++ {
			if c.event {
				writeWaker(w.waker)
			}
			w.stats.awake.Store(0)
			w.busy, w.short = true, c.short
			w.now = Clock() - c.turn
			if n := w.wait(); (n == 1) != c.event {
				t.Errorf("%s: %d events", c.name, n)
			}
			awake = w.Stats().Awake
		}
		if awake != c.awake {
			t.Errorf("%s: %d events found it awake, want %d", c.name, awake, c.awake)
		}
		if !c.event && w.short != 0 {
			t.Errorf("%s: %d short waits in a row after a long one", c.name, w.short)
		}
	}
}
