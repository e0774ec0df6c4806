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
		name   string
		points int
		turn   int64 // how long the turn before took
		event  bool
		awake  uint64
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
			w.busy, w.points = true, c.points
			w.now = Clock() - c.turn
			if n := w.wait(); (n == 1) != c.event {
				t.Errorf("%s: %d events", c.name, n)
			}
			awake = w.Stats().Awake
		}
		if awake != c.awake {
			t.Errorf("%s: %d events found it awake, want %d", c.name, awake, c.awake)
		}
		if !c.event && w.points != 0 {
			t.Errorf("%s: %d points after a wait of a while", c.name, w.points)
		}
	}
}

// One wait that took a little longer among many short ones changes nothing; a stream
// that waits a little longer each time has nothing to win.
func TestPointsForStayingAwake(t *testing.T) {
	const short, long, much = shortWait / 2, shortWait + shortWait/8, -1 // which is no wait
	for name, c := range map[string]struct {
		waits []int64
		most  bool // it stays awake at the end, or at no time
	}{
		"short waits":                     {[]int64{short}, true},
		"a longer one among many":         {[]int64{short, short, short, long}, true},
		"none of them short":              {[]int64{long}, false},
		"as many longer as short":         {[]int64{short, long}, false},
		"bulk and its acknowledgements":   {[]int64{short, much, short}, false},
		"questions beside bulk":           {[]int64{short, short, short, short, much}, true},
		"a pause, then short for a while": {[]int64{short, short, short, short, short, short, short, 1e9}, false},
	} {
		var w Worker
		awake := 0
		for range 100 {
			for _, lasted := range c.waits {
				if lasted == much {
					w.Bulk()
				} else {
					w.noteWait(true, lasted)
				}
				if w.points >= spinAfter {
					awake++
				}
			}
		}
		if all := 100 * len(c.waits); c.most && awake < all*3/4 || !c.most && awake > 0 {
			t.Errorf("%s: awake behind %d of %d waits", name, awake, all)
		}
	}
}
