package packet_test

import (
	"testing"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

// TestNoAllocations holds the promise of the package comment.
func TestNoAllocations(t *testing.T) {
	tso := packettest.GSO(tcpFrame(alice, bob, 20000), 1448)
	large := packettest.Partial(packettest.UDP(alice, bob, 1, 2, pattern(5000)))
	small := packettest.Partial(tcpFrame(alice, bob, 100))
	ipv6 := packettest.Partial(tcpFrame(alice.IPv6(), bob.IPv6(), 100))
	icmp := packettest.ICMPError(bob, alice, packet.ICMPUnreachable, packet.ICMPPortUnreachable, 0, tcpFrame(alice, bob, 100), 60)
	dst := make([]byte, packet.MaxFrame)
	var (
		f         packet.Frame
		segmenter packet.Segmenter
		fragments packet.Fragmenter
		sum       uint16
	)
	read := func(b []byte) {
		f.B = b
		if packet.Parse(&f) != packet.OK {
			t.Fatal("not OK")
		}
	}
	for _, tt := range []struct {
		name string
		run  func()
	}{
		{"Parse", func() {
			read(tso)
			read(large)
			read(small)
			read(ipv6)
		}},
		{"Tuple", func() {
			read(small)
			sum += f.Tuple().SrcPort
		}},
		{"Clone and Complete", func() {
			read(small)
			c := f.Clone(dst)
			packet.Complete(&c)
		}},
		{"Segmenter", func() {
			read(tso)
			segmenter.Reset(&f)
			for _, ok := segmenter.Next(dst); ok; _, ok = segmenter.Next(dst) {
			}
		}},
		{"Fragmenter", func() {
			read(large)
			fragments.Reset(&f, 1500)
			for _, ok := fragments.Next(dst); ok; _, ok = fragments.Next(dst) {
			}
		}},
		{"Edit", func() {
			read(small)
			tuple := f.Tuple()
			tr := packet.Translation{Before: tuple, After: tuple.Reverse()}
			tr.Edit(&f)
		}},
		{"Quoted and Edit", func() {
			read(icmp)
			tuple, ok := f.Quoted()
			if !ok {
				t.Fatal("no quote")
			}
			after := tuple
			after.SrcPort++
			tr := packet.Translation{Quoted: true, Before: tuple, After: after}
			tr.Edit(&f)
		}},
		{"Delta", func() {
			tuple := f.Tuple()
			sum += packet.Delta(0).ReplaceAddr(tuple.Src, tuple.Dst).Update(sum)
		}},
	} {
		if n := testing.AllocsPerRun(100, tt.run); n != 0 {
			t.Errorf("%s allocates %v times", tt.name, n)
		}
	}
}
