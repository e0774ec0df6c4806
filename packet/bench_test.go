package packet_test

import (
	"bytes"
	"testing"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

func BenchmarkParse(b *testing.B) {
	for name, frame := range map[string][]byte{
		"TCP4":     packettest.Partial(tcpFrame(alice, bob, 1448)),
		"TCP4 GSO": packettest.GSO(tcpFrame(alice, bob, 64000), 1448),
		"TCP6":     packettest.Partial(tcpFrame(alice.IPv6(), bob.IPv6(), 1428)),
		"UDP4":     packettest.Partial(packettest.UDP(alice, bob, 1, 2, make([]byte, 18))),
		"VLAN":     packettest.Tagged(packettest.Partial(tcpFrame(alice, bob, 1448)), 7),
		"ARP":      packettest.ARPRequest(alice, bob.IP),
		"plain":    tcpFrame(alice, bob, 0),
	} {
		b.Run(name, func(b *testing.B) {
			f := packet.Frame{B: frame}
			for b.Loop() {
				if packet.Parse(&f) != packet.OK {
					b.Fatal("not OK")
				}
			}
		})
	}
}

func BenchmarkTuple(b *testing.B) {
	f := parse(b, tcpFrame(alice, bob, 1448))
	var t packet.Tuple
	for b.Loop() {
		t = f.Tuple()
	}
	_ = t
}

func BenchmarkSum(b *testing.B) {
	for _, n := range []struct {
		name string
		n    int
	}{{"20", 20}, {"1500", 1500}, {"64K", 65535}} {
		b.Run(n.name, func(b *testing.B) {
			buf := make([]byte, n.n)
			b.SetBytes(int64(n.n))
			var s uint16
			for b.Loop() {
				s += packet.Sum(buf, s)
			}
		})
	}
}

// BenchmarkComplete finishes the checksum of a frame whose sender left that to
// others.
func BenchmarkComplete(b *testing.B) {
	for name, frame := range map[string][]byte{
		"TCP4": packettest.Partial(tcpFrame(alice, bob, 1448)),
		"TCP6": packettest.Partial(tcpFrame(alice.IPv6(), bob.IPv6(), 1428)),
		"UDP4": packettest.Partial(packettest.UDP(alice, bob, 1, 2, make([]byte, 18))),
	} {
		b.Run(name, func(b *testing.B) {
			f := parse(b, bytes.Clone(frame))
			b.SetBytes(int64(len(frame)))
			for b.Loop() {
				copy(f.B, frame)
				packet.Complete(&f)
			}
		})
	}
}

func BenchmarkSegmenter(b *testing.B) {
	f := parse(b, packettest.GSO(tcpFrame(alice, bob, 64000), 1448))
	dst := make([]byte, packet.MaxFrame)
	b.SetBytes(64000)
	var s packet.Segmenter
	for b.Loop() {
		s.Reset(&f)
		for _, ok := s.Next(dst); ok; _, ok = s.Next(dst) {
		}
	}
}

// BenchmarkTag gives every frame of a full batch a tag and takes it off again.
func BenchmarkTag(b *testing.B) {
	batch, raw := packet.NewBatch(), packettest.UDP(alice, bob, 1, 2, make([]byte, 100))
	for !batch.Full() {
		batch.Add(copy(batch.Room(), raw))
	}
	for i := range batch.Frames {
		if r := packet.Parse(&batch.Frames[i]); r != packet.OK {
			b.Fatal(r)
		}
	}
	for b.Loop() {
		for i := range batch.Frames {
			if f := &batch.Frames[i]; batch.PushTag(f, 10) {
				f.PopTag()
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(batch.Frames)), "ns/frame")
}
