package packet_test

import (
	"bytes"
	"testing"
	"unsafe"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

func TestBatch(t *testing.T) {
	b := packet.NewBatch()
	for round := range 2 { // the second one after Reset
		for i := range packet.BatchFrames {
			if b.Full() {
				t.Fatalf("round %d: full after %d small frames, want %d", round, i, packet.BatchFrames)
			}
			room := b.Room()
			if len(room) != packet.MaxFrame {
				t.Fatalf("room for %d bytes, want %d", len(room), packet.MaxFrame)
			}
			n := 60 + 31*i%1900
			for j := range n {
				room[j] = byte(i)
			}
			b.Add(n)
		}
		if !b.Full() {
			t.Fatalf("not full after %d frames", packet.BatchFrames)
		}
		for i, f := range b.Frames {
			if n := 60 + 31*i%1900; !bytes.Equal(f.B, bytes.Repeat([]byte{byte(i)}, n)) {
				t.Errorf("frame %d was overwritten by another", i)
			}
			if cap(f.B) != len(f.B) {
				t.Errorf("frame %d has room to grow into the next", i)
			}
			if uintptr(unsafe.Pointer(&f.B[0]))%64 != uintptr(unsafe.Pointer(&b.Frames[0].B[0]))%64 {
				t.Errorf("frame %d does not begin on a slot of its own", i)
			}
		}
		b.Reset()
	}
	if len(b.Frames) != 0 || b.Full() {
		t.Error("frames are left after Reset")
	}
}

func TestBatchEndsWithLargeFrame(t *testing.T) {
	b := packet.NewBatch()
	for range packet.BatchFrames - 1 { // small ones first: the worst place
		b.Add(2048)
	}
	if b.Full() {
		t.Fatal("full before the last frame")
	}
	b.Add(len(b.Room()))
	if !b.Full() || len(b.Frames) != packet.BatchFrames {
		t.Errorf("%d frames, full %v", len(b.Frames), b.Full())
	}
	b.Reset()
	b.Add(2049)
	if !b.Full() {
		t.Error("a large frame did not end the batch")
	}
}

func TestSegmentsAndPacketLen(t *testing.T) {
	for _, tt := range []struct {
		name           string
		frame          []byte
		segments, size int
	}{
		{"plain", tcpFrame(alice, bob, 1448), 1, 1500},
		{"tagged", packettest.Tagged(tcpFrame(alice, bob, 1448), 7), 1, 1500},
		{"TSO", packettest.GSO(tcpFrame(alice, bob, 4*1448), 1448), 4, 1500},
		{"TSO with a rest", packettest.GSO(tcpFrame(alice, bob, 4*1448+1), 1448), 5, 1500},
		{"TSO over IPv6, tagged", packettest.Tagged(packettest.GSO(tcpFrame(alice.IPv6(), bob.IPv6(), 5000), 1428), 7, 8), 4, 1500},
		{"USO", packettest.GSO(packettest.UDP(alice, bob, 1, 2, pattern(5000)), 1000), 5, 1028},
		{"ARP", packettest.ARPRequest(alice, bob.IP), 1, 28},
	} {
		f := parse(t, tt.frame)
		check(t, tt.name+": Segments", f.Segments(), tt.segments)
		check(t, tt.name+": PacketLen", f.PacketLen(), tt.size)
		wire := 0
		for _, b := range segments(t, tt.frame) {
			wire += len(b) - packet.VNetLen
		}
		check(t, tt.name+": Len and TrainHeaders", f.Len()+f.TrainHeaders(), wire)
	}
}

func TestClone(t *testing.T) {
	f := parse(t, tcpFrame(alice, bob, 100))
	f.Port, f.Time = 7, 8
	room := make([]byte, 10, packet.MaxFrame)
	c := f.Clone(room)
	if !bytes.Equal(c.B, f.B) || &c.B[0] != &room[0] || c.Port != 7 || c.Time != 8 || c.L4 != f.L4 {
		t.Errorf("clone %+v of %+v", c, f)
	}
	f.B[50] ^= 1
	if c.B[50] == f.B[50] {
		t.Error("the clone shares bytes with the frame")
	}
	if small := f.Clone(nil); !bytes.Equal(small.B, f.B) {
		t.Error("clone without room differs")
	}
}

// TestSizes: a frame's record is one cache line, and keys have no pointers and
// no padding that a comparison would have to skip.
func TestSizes(t *testing.T) {
	check(t, "Frame", unsafe.Sizeof(packet.Frame{}), 64)
	check(t, "Addr", unsafe.Sizeof(packet.Addr{}), 16)
	if n := unsafe.Sizeof(packet.Tuple{}); n > 40 {
		t.Errorf("Tuple is %d bytes", n)
	}
}
