package link_test

import (
	"errors"
	"testing"

	"fairlead/link"
	"fairlead/packet"
)

// TestMemFull: an end that nobody reads takes as many frames as it is deep, and
// the next when one was read.
func TestMemFull(t *testing.T) {
	a, b := link.NewPair(3)
	frames := []*packet.Frame{aFrame(), aFrame(), aFrame(), aFrame(), aFrame()}
	if n, err := a.WriteBatch(frames); n != 3 || !errors.Is(err, link.ErrFull) {
		t.Fatalf("five frames into three places: %d, %v, want 3, %v", n, err, link.ErrFull)
	}
	batch := packet.NewBatch()
	for round := range 5 { // around the ring
		if n, err := b.ReadBatch(batch); n != 3 || err != nil {
			t.Fatalf("round %d: ReadBatch: %d, %v, want 3", round, n, err)
		}
		batch.Reset()
		if n, err := a.WriteBatch(frames[:3]); n != 3 || err != nil {
			t.Fatalf("round %d: WriteBatch: %d, %v, want 3", round, n, err)
		}
	}
}

// TestMemNotify: the reader is told of frames, of what waits already, and of
// the end.
func TestMemNotify(t *testing.T) {
	a, b := link.NewPair(10)
	calls := 0
	b.Notify(func() { calls++ })
	want := func(n int) {
		t.Helper()
		if calls != n {
			t.Errorf("%d calls, want %d", calls, n)
		}
	}
	write := func() {
		t.Helper()
		if _, err := a.WriteBatch([]*packet.Frame{aFrame(), aFrame()}); err != nil {
			t.Fatal(err)
		}
	}
	want(0)
	write()
	want(1)
	if n, err := a.WriteBatch(nil); n != 0 || err != nil {
		t.Errorf("WriteBatch(nil): %d, %v", n, err)
	}
	want(1)
	b.Notify(func() { calls += 10 }) // two frames wait
	want(11)
	must(t, a.Close())
	want(21)
	b.Notify(nil)
	must(t, b.Close())
}

// TestMemPeerCloses: what was written before the end is still read; writing to
// an end that is closed fails.
func TestMemPeerCloses(t *testing.T) {
	a, b := link.NewPair(10)
	if _, err := a.WriteBatch([]*packet.Frame{aFrame(), aFrame()}); err != nil {
		t.Fatal(err)
	}
	must(t, a.Close())
	batch := packet.NewBatch()
	if n, err := b.ReadBatch(batch); n != 2 || err != nil {
		t.Errorf("ReadBatch: %d, %v, want 2", n, err)
	}
	if n, err := b.ReadBatch(batch); n != 0 || !errors.Is(err, link.ErrGone) {
		t.Errorf("ReadBatch: %d, %v, want %v", n, err, link.ErrGone)
	}
	if n, err := b.WriteBatch([]*packet.Frame{aFrame()}); n != 0 || !errors.Is(err, link.ErrGone) {
		t.Errorf("WriteBatch: %d, %v, want %v", n, err, link.ErrGone)
	}
}

// TestMemTooLarge: what would not fit a batch is refused.
func TestMemTooLarge(t *testing.T) {
	a, b := link.NewPair(1)
	if n, err := a.WriteBatch([]*packet.Frame{{B: make([]byte, packet.MaxFrame+1)}}); n != 0 || !errors.Is(err, link.ErrRefused) {
		t.Errorf("WriteBatch: %d, %v, want %v", n, err, link.ErrRefused)
	}
	if _, err := a.WriteBatch([]*packet.Frame{{B: make([]byte, packet.MaxFrame)}}); err != nil {
		t.Error(err)
	}
	batch := packet.NewBatch()
	if n, err := b.ReadBatch(batch); n != 1 || err != nil || len(batch.Frames[0].B) != packet.MaxFrame {
		t.Errorf("ReadBatch: %d, %v", n, err)
	}
}

func BenchmarkMem(b *testing.B) {
	left, right := link.NewPair(packet.BatchFrames)
	frames := make([]*packet.Frame, packet.BatchFrames)
	for i := range frames {
		frames[i] = aFrame()
	}
	batch := packet.NewBatch()
	b.ReportAllocs()
	for b.Loop() {
		if n, err := left.WriteBatch(frames); n != len(frames) {
			b.Fatal(n, err)
		}
		if n, err := right.ReadBatch(batch); n != len(frames) {
			b.Fatal(n, err)
		}
		batch.Reset()
	}
}
