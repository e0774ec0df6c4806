// Package linktest holds the test that every queue of package link passes, so
// that whoever writes a switch, or another kind of queue, knows what a queue
// does.
package linktest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"fairlead/link"
	"fairlead/packet"
	"fairlead/packet/packettest"

	"golang.org/x/sys/unix"
)

// A Queue is what all kinds of links are, as the switch declares it too.
type Queue interface {
	ReadBatch(b *packet.Batch) (int, error)
	WriteBatch(frames []*packet.Frame) (int, error)
	Close() error
}

// Depth is how many frames the two ends under test must hold between them.
const Depth = 512

var (
	left  = packettest.Station{MAC: packet.MAC{2, 0xfa, 0x1d, 0, 0, 1}, IP: netip.MustParseAddr("10.77.0.1")}
	right = packettest.Station{MAC: packet.MAC{2, 0xfa, 0x1d, 0, 0, 2}, IP: netip.MustParseAddr("10.77.0.2")}
)

// Contract tests a kind of queue. open makes two ends for each part of the
// test: what is written to one is read from the other, in order. It also sees
// to their end. Between the ends other frames may show up, as they do on every
// segment.
func Contract(t *testing.T, open func(t *testing.T) (a, b Queue)) {
	for _, part := range []struct {
		name string
		test func(t *testing.T, a, b Queue)
	}{
		{"order", testOrder},
		{"empty", testEmpty},
		{"readiness", testReadiness},
		{"borrowed", testBorrowed},
		{"limits", testLimits},
		{"refused", testRefused},
		{"unfinished", testUnfinished},
		{"concurrent", testConcurrent},
		{"allocations", testAllocations},
		{"closed", testClosed},
	} {
		t.Run(part.name, func(t *testing.T) {
			a, b := open(t)
			part.test(t, a, b)
		})
	}
}

// testOrder: frames arrive as they were written, in both directions.
func testOrder(t *testing.T, a, b Queue) {
	for range 2 {
		want := numbered(0, 200)
		for part := range slices.Chunk(want, 30) {
			mustWrite(t, a, part)
		}
		expect(t, b, want)
		a, b = b, a
	}
}

// testEmpty: reading where nothing waits says so at once.
func testEmpty(t *testing.T, _, b Queue) {
	batch := packet.NewBatch()
	// Other frames may wait; behind them there is nothing.
	for range 100 {
		n, err := b.ReadBatch(batch)
		if err != nil {
			t.Fatalf("ReadBatch on an idle queue: %v", err)
		}
		if n == 0 {
			return
		}
		batch.Reset()
	}
	t.Fatal("an idle queue does not run dry")
}

// testReadiness: the descriptor is readable, or the function called, when
// frames wait.
func testReadiness(t *testing.T, a, b Queue) {
	for i := range 3 {
		wait := readiness(b)
		want := numbered(i, 1)
		mustWrite(t, a, want)
		if !wait(5 * time.Second) {
			t.Fatalf("frame %d: not ready within 5 s", i)
		}
		expect(t, b, want)
	}
}

// testBorrowed: what was read stays as it is until Reset; what was written may
// be overwritten as soon as WriteBatch returns.
func testBorrowed(t *testing.T, a, b Queue) {
	want := numbered(0, 40)
	wait := readiness(b)
	batch := packet.NewBatch()
	var got []packet.Frame // borrowed, across several ReadBatch
	for i, f := range want {
		sent := bytes.Clone(f)
		mustWrite(t, a, [][]byte{sent})
		clear(sent)
		for deadline := time.Now().Add(5 * time.Second); len(got) <= i; {
			from := len(batch.Frames)
			if _, err := b.ReadBatch(batch); err != nil {
				t.Fatal(err)
			}
			for _, f := range batch.Frames[from:] {
				if ours(f.B) {
					got = append(got, f)
				}
			}
			if time.Now().After(deadline) || batch.Full() {
				t.Fatalf("frame %d of %d did not arrive", i, len(want))
			}
			if len(batch.Frames) == from {
				wait(10 * time.Millisecond)
			}
		}
	}
	for i := range got {
		same(t, i, got[i].B, want[i])
	}
}

// testLimits: a batch takes at most BatchFrames and ends with a large frame;
// what it cannot take stays in the queue.
func testLimits(t *testing.T, a, b Queue) {
	want := numbered(0, packet.BatchFrames+10)
	mustWrite(t, a, want)
	batch := packet.NewBatch()
	for !batch.Full() {
		if _, err := b.ReadBatch(batch); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := b.ReadBatch(batch); n != 0 || err != nil {
		t.Errorf("ReadBatch into a full batch: %d, %v, want 0, nil", n, err)
	}
	if len(batch.Frames) != packet.BatchFrames {
		t.Errorf("a full batch has %d frames, want %d", len(batch.Frames), packet.BatchFrames)
	}
	read := 0
	for _, f := range batch.Frames {
		if ours(f.B) {
			same(t, read, f.B, want[read])
			read++
		}
	}
	expect(t, b, want[read:])
}

// testRefused: a frame that cannot be written is named, and does not stand in
// the way of others.
func testRefused(t *testing.T, a, b Queue) {
	want := numbered(0, 5)
	tooShort := want[2][:packet.VNetLen+packet.EthernetLen-1]
	for _, bad := range [][]byte{nil, tooShort[:packet.VNetLen], tooShort} {
		frames := framesOf(want)
		frames[2] = &packet.Frame{B: bad}
		n, err := a.WriteBatch(frames)
		if n != 2 || !errors.Is(err, link.ErrRefused) {
			t.Fatalf("a frame of %d bytes behind two good ones: %d, %v, want 2, %v", len(bad), n, err, link.ErrRefused)
		}
		if n, err = a.WriteBatch(frames[3:]); n != 2 || err != nil {
			t.Fatalf("going on behind it: %d, %v, want 2, nil", n, err)
		}
		expect(t, b, slices.Concat(want[:2], want[3:]))
	}
	if n, err := a.WriteBatch(nil); n != 0 || err != nil {
		t.Errorf("WriteBatch(nil): %d, %v", n, err)
	}
}

// testConcurrent: any number may write at the same time; frames stay whole and
// those of one writer in order.
func testConcurrent(t *testing.T, a, b Queue) {
	const writers, each = 4, Depth / 4 / 2
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for part := range slices.Chunk(framesOf(numbered(w*1000, each)), 10) {
				if err := writeAll(a, part); err != nil {
					t.Errorf("writer %d: %v", w, err)
				}
			}
		})
	}
	defer wg.Wait()
	var next [writers]int
	for _, f := range collect(t, b, writers*each) {
		i := number(f)
		w := i / 1000
		if i%1000 != next[w] {
			t.Fatalf("writer %d: frame %d arrived when %d was due", w, i%1000, next[w])
		}
		same(t, i, f, numberedFrame(i))
		next[w]++
	}
}

// testAllocations: nothing is allocated once the queues are made.
func testAllocations(t *testing.T, a, b Queue) {
	small := framesOf(numbered(0, 8))
	large := framesOf([][]byte{unfinished[0].frame()})
	batch := packet.NewBatch()
	drain := func() {
		for {
			n, err := b.ReadBatch(batch)
			batch.Reset()
			if n == 0 || err != nil {
				return
			}
		}
	}
	allocs := testing.AllocsPerRun(100, func() {
		if _, err := a.WriteBatch(small); err != nil {
			t.Fatal(err)
		}
		drain()
		if _, err := a.WriteBatch(large); err != nil {
			t.Fatal(err)
		}
		drain()
	})
	if allocs != 0 {
		t.Errorf("%v allocations for writing and reading nine frames, want 0", allocs)
	}
}

// testClosed: a closed queue says that it is gone, and may be closed again.
func testClosed(t *testing.T, _, b Queue) {
	for range 2 {
		if err := b.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
	}
	if n, err := b.ReadBatch(packet.NewBatch()); n != 0 || !errors.Is(err, link.ErrGone) {
		t.Errorf("ReadBatch after Close: %d, %v, want 0, %v", n, err, link.ErrGone)
	}
	if n, err := b.WriteBatch(framesOf(numbered(0, 2))); n != 0 || !errors.Is(err, link.ErrGone) {
		t.Errorf("WriteBatch after Close: %d, %v, want 0, %v", n, err, link.ErrGone)
	}
}

// numberedFrame is frame i of the tests: its number, and a length and content
// that depend on it.
func numberedFrame(i int) []byte {
	payload := make([]byte, 4+i*37%1400)
	binary.BigEndian.PutUint32(payload, uint32(i))
	for j := 4; j < len(payload); j++ {
		payload[j] = byte(i + j)
	}
	return packettest.UDP(left, right, 1000, 2000, payload)
}

func numbered(from, n int) [][]byte {
	frames := make([][]byte, n)
	for i := range frames {
		frames[i] = numberedFrame(from + i)
	}
	return frames
}

func number(frame []byte) int {
	const at = packet.VNetLen + packet.EthernetLen + packet.IPv4MinLen + packet.UDPLen
	return int(binary.BigEndian.Uint32(frame[at:]))
}

// ours tells the test's frames from others, such as the kernel's router
// solicitations.
func ours(frame []byte) bool {
	return len(frame) >= packet.VNetLen+packet.EthernetLen &&
		packet.Ethernet(frame[packet.VNetLen:]).Src() == left.MAC
}

func framesOf(b [][]byte) []*packet.Frame {
	frames := make([]*packet.Frame, len(b))
	for i := range b {
		frames[i] = &packet.Frame{B: b[i]}
	}
	return frames
}

func mustWrite(t *testing.T, q Queue, b [][]byte) {
	t.Helper()
	if err := writeAll(q, framesOf(b)); err != nil {
		t.Fatal(err)
	}
}

// writeAll writes all frames, again where there was no room.
func writeAll(q Queue, frames []*packet.Frame) error {
	for deadline := time.Now().Add(5 * time.Second); ; runtime.Gosched() {
		n, err := q.WriteBatch(frames)
		frames = frames[n:]
		switch {
		case err == nil && len(frames) == 0:
			return nil
		case err == nil:
			return fmt.Errorf("WriteBatch left %d frames and said nothing", len(frames))
		case !errors.Is(err, link.ErrFull) || time.Now().After(deadline):
			return fmt.Errorf("WriteBatch: %w", err)
		}
	}
}

// collect reads n of the test's frames and returns copies.
func collect(t *testing.T, q Queue, n int) [][]byte {
	t.Helper()
	var got [][]byte
	wait := readiness(q)
	batch := packet.NewBatch()
	for deadline := time.Now().Add(10 * time.Second); len(got) < n; {
		read, err := q.ReadBatch(batch)
		if err != nil || read != len(batch.Frames) {
			t.Fatalf("ReadBatch: %d of %d frames, %v", read, len(batch.Frames), err)
		}
		for _, f := range batch.Frames {
			if ours(f.B) {
				got = append(got, bytes.Clone(f.B))
			}
		}
		batch.Reset()
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d frames arrived within 10 s", len(got), n)
		}
		if read == 0 {
			wait(100 * time.Millisecond)
		}
	}
	return got
}

// expect reads exactly these frames.
func expect(t *testing.T, q Queue, want [][]byte) {
	t.Helper()
	for i, got := range collect(t, q, len(want)) {
		same(t, i, got, want[i])
	}
}

// same compares finished frames. Their virtio-net header says nothing, or that
// the checksum was seen to be right.
func same(t *testing.T, i int, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got[packet.VNetLen:], want[packet.VNetLen:]) {
		t.Fatalf("frame %d:\n got %x\nwant %x", i, got, want)
	}
	if v := packet.VNet(got); v.Flags()&packet.VNetNeedsCSum != 0 || v.GSOType() != packet.GSONone {
		t.Fatalf("frame %d: the virtio-net header %x asks for what the frame has", i, got[:packet.VNetLen])
	}
}

// readiness returns a function that waits until a queue has frames.
func readiness(q Queue) func(timeout time.Duration) bool {
	switch q := q.(type) {
	case interface{ Fd() int }:
		return func(timeout time.Duration) bool {
			fds := []unix.PollFd{{Fd: int32(q.Fd()), Events: unix.POLLIN}}
			for deadline := time.Now().Add(timeout); ; {
				n, err := unix.Poll(fds, int(max(0, time.Until(deadline).Milliseconds())))
				if !errors.Is(err, unix.EINTR) {
					return n > 0
				}
			}
		}
	case interface{ Notify(fn func()) }:
		ready := make(chan struct{}, 1)
		q.Notify(func() {
			select {
			case ready <- struct{}{}:
			default:
			}
		})
		return func(timeout time.Duration) bool {
			select {
			case <-ready:
				return true
			case <-time.After(timeout):
				return false
			}
		}
	}
	panic(fmt.Sprintf("linktest: a %T has neither Fd nor Notify", q))
}
