package trace

import (
	"bytes"
	"sync"
	"testing"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

// numbered is a record that can be told from others.
func numbered(n int) Record { return Record{Len: n} }

func take(t *testing.T, r *Recorder, first, n int, lost uint64) {
	t.Helper()
	records, gotLost := r.Take(nil)
	if len(records) != n || gotLost != lost {
		t.Fatalf("took %d records, %d lost, want %d and %d", len(records), gotLost, n, lost)
	}
	for i := range records {
		if records[i].Len != first+i {
			t.Fatalf("record %d is number %d, want %d", i, records[i].Len, first+i)
		}
	}
}

func TestRing(t *testing.T) {
	r := NewRecorder()
	take(t, r, 0, 0, 0)
	next := 0
	add := func(n int) {
		for range n {
			r.Add(numbered(next))
			next++
		}
	}
	add(3)
	take(t, r, 0, 3, 0)
	add(ringLen) // around the end
	take(t, r, 3, ringLen, 0)
	add(ringLen + 1)
	take(t, r, next-ringLen, ringLen, 1)
	take(t, r, 0, 0, 0) // told once
	add(3 * ringLen)
	take(t, r, next-ringLen, ringLen, 2*ringLen)
	add(1)
	take(t, r, next-1, 1, 0)
	if n := len(r.ring.records) + len(r.read.records); n != 2*ringLen {
		t.Errorf("the rings have grown to %d", n)
	}
}

func TestTakeAppends(t *testing.T) {
	r := NewRecorder()
	r.Add(numbered(2))
	records, _ := r.Take([]Record{numbered(1)})
	if len(records) != 2 || records[0].Len != 1 || records[1].Len != 2 {
		t.Errorf("took %d records", len(records))
	}
}

func TestWake(t *testing.T) {
	r := NewRecorder()
	select {
	case <-r.Wake():
		t.Error("woken for nothing")
	default:
	}
	r.Add(numbered(1))
	r.Add(numbered(2))
	<-r.Wake()
	take(t, r, 1, 2, 0)
	select {
	case <-r.Wake():
		t.Error("woken twice")
	default:
	}
	r.Add(numbered(3))
	<-r.Wake()
}

// TestRecordHoldsCopies: nothing of a record changes with the frame it is of.
func TestRecordHoldsCopies(t *testing.T) {
	b := packettest.UDP(web, db, 1, 2, make([]byte, 1000))
	f := packet.Frame{B: bytes.Clone(b), Port: 1, Container: 7, Network: 3}
	_ = packet.Parse(&f)
	d := packet.Decision{Verdict: packet.Unicast, Reason: packet.KnownMAC, Egress: packet.Place{Port: 2}}
	r := NewRecord(&f, &d)
	clear(f.B)
	d = packet.Decision{}
	if !bytes.Equal(r.ether(), b[packet.VNetLen:][:headLen]) {
		t.Error("the head has changed with the frame")
	}
	if r.Decision.Egress.Port != 2 || r.Port != 1 || r.Container != 7 || r.Network != 3 || r.Len != len(b)-packet.VNetLen || r.Segments != 1 {
		t.Errorf("%+v", r)
	}
}

// TestManyAtOnce: several workers write while one reader takes; none is taken
// twice, and what was not taken was counted as lost.
func TestManyAtOnce(t *testing.T) {
	r := NewRecorder()
	const workers, each = 4, 3000
	var writing sync.WaitGroup
	for w := range workers {
		writing.Add(1)
		go func() {
			defer writing.Done()
			for i := range each {
				r.Add(numbered(w*each + i))
			}
		}()
	}
	done := make(chan struct{})
	go func() {
		writing.Wait()
		close(done)
	}()
	seen := make(map[int]bool)
	last := [workers]int{-1, -1, -1, -1}
	var lost uint64
	collect := func() {
		records, more := r.Take(nil)
		lost += more
		for i := range records {
			n := records[i].Len
			if seen[n] {
				t.Errorf("record %d was taken twice", n)
			}
			seen[n] = true
			if n%each <= last[n/each] {
				t.Errorf("worker %d: record %d after %d", n/each, n%each, last[n/each])
			}
			last[n/each] = n % each
		}
	}
	for running := true; running; {
		select {
		case <-r.Wake():
			collect()
		case <-done:
			running = false
		}
	}
	collect()
	if len(seen)+int(lost) != workers*each {
		t.Errorf("%d taken and %d lost of %d", len(seen), lost, workers*each)
	}
}

func BenchmarkRecord(b *testing.B) {
	f := packet.Frame{B: packettest.UDP(web, db, 1, 2, make([]byte, 100))}
	_ = packet.Parse(&f)
	d := packet.Decision{Verdict: packet.Unicast, Reason: packet.KnownMAC, Egress: packet.Place{Port: 2}}
	r := NewRecorder()
	b.ReportAllocs()
	for b.Loop() {
		r.Add(NewRecord(&f, &d))
	}
}
