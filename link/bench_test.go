package link_test

import (
	"testing"
	"time"

	"fairlead/link"
	"fairlead/packet"
	"fairlead/packet/packettest"
)

// BenchmarkTAP measures what the kernel's half of a frame costs: write into a
// TAP, across a bridge of the kernel into the ring of another, and read there.
// No protocol stack runs, so writing to a container costs more than this.
func BenchmarkTAP(b *testing.B) {
	segment := packettest.Segment{Flags: packet.TCPAck, Options: make([]byte, 12)}
	for _, bm := range []struct {
		name  string
		frame []byte
	}{
		{"60B", packettest.UDP(alice, bob, 1, 2, make([]byte, 18))},
		{"64KB", packettest.GSO(packettest.TCP(alice, bob, segment, make([]byte, 65160)), 1448)},
	} {
		for mode, nowait := range map[string]bool{"RWF_NOWAIT": true, "O_NONBLOCK": false} {
			b.Run(bm.name+"/"+mode, func(b *testing.B) {
				needTAP(b)
				ns := newNamespace(b)
				from, to := ns.tap("a"), ns.tap("b")
				ns.bridged(from, to, "a", "b")
				if !nowait {
					link.WithoutNowait(from)
					link.WithoutNowait(to)
				}
				benchmark(b, from, to, bm.frame)
			})
		}
	}
}

func benchmark(b *testing.B, from, to *link.TAP, frame []byte) {
	frames := make([]*packet.Frame, 8)
	for i := range frames {
		frames[i] = &packet.Frame{B: frame}
	}
	batch := packet.NewBatch()
	var reading time.Duration
	b.ReportAllocs()
	b.SetBytes(int64(len(frames) * len(frame)))
	read := 0
	for b.Loop() {
		if n, err := from.WriteBatch(frames); n != len(frames) {
			b.Fatal(n, err)
		}
		start := time.Now()
		for {
			n, err := to.ReadBatch(batch)
			if err != nil {
				b.Fatal(err)
			}
			read += n
			batch.Reset()
			if n == 0 {
				break
			}
		}
		reading += time.Since(start)
	}
	per := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / float64(b.N*len(frames)) }
	b.ReportMetric(per(reading), "read-ns/frame")
	b.ReportMetric(per(b.Elapsed()-reading), "write-ns/frame")
	if read < b.N*len(frames) {
		b.Errorf("%d frames written, %d read", b.N*len(frames), read)
	}
}
