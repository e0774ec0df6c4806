package nat

import (
	"bytes"
	"net/netip"
	"testing"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

// syn is an unsolicited SYN as it comes from outside to one of our ports.
func syn(t testing.TB, src packettest.Station, srcPort, dstPort uint16) packet.Frame {
	f := parsed(t, packettest.TCP(src, host("198.51.100.7"), packettest.Segment{
		SrcPort: srcPort, DstPort: dstPort, Flags: packet.TCPSyn,
		Options: []byte{2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 7},
	}, nil))
	f.Network, f.Port = 9, 1
	return f
}

// due collects what Due answers at that time.
func due(s *SYNs, now int64) (ports []uint16) {
	s.Due(now, func(f *packet.Frame) { ports = append(ports, f.DstPort) })
	return ports
}

// TestSYNSilence is RFC 5382 REQ-4: six seconds of silence, then an answer, to
// the SYN as it was.
func TestSYNSilence(t *testing.T) {
	s := NewSYNs()
	if _, ok := s.Next(); ok {
		t.Error("an empty table has something to do")
	}
	f := syn(t, outside, 5000, 2000)
	was := bytes.Clone(f.B)
	s.Add(&f, second)
	clear(f.B) // the batch is read into again
	if at, ok := s.Next(); !ok || at != 7*second {
		t.Errorf("Next = %d, %v", at, ok)
	}
	if got := due(s, 7*second-1); got != nil {
		t.Errorf("answered too early: %v", got)
	}
	answers := 0
	s.Due(7*second, func(f *packet.Frame) {
		answers++
		if !bytes.Equal(f.B, was) || f.Network != 9 || f.Port != 1 || f.SrcPort != 5000 {
			t.Errorf("frame %+v, want the bytes %x", *f, was)
		}
	})
	if answers != 1 {
		t.Errorf("%d answers", answers)
	}
	if _, ok := s.Next(); ok || due(s, 100*second) != nil {
		t.Error("answered twice")
	}
}

// TestSYNCancelled: a SYN of our own for the same connection makes it one that
// both sides open (RFC 5382 REQ-2a, REQ-4).
func TestSYNCancelled(t *testing.T) {
	s := NewSYNs()
	for port := range uint16(3) {
		f := syn(t, outside, 5000, 2000+port)
		s.Add(&f, second+int64(port))
	}
	f := syn(t, outside, 5000, 2000)
	s.Cancel(8, f.Tuple().Reverse()) // another network's
	s.Cancel(9, f.Tuple())           // another connection's
	s.Cancel(9, f.Tuple().Reverse())
	if at, ok := s.Next(); !ok || at != 7*second+1 {
		t.Errorf("Next = %d, %v, want the one behind the cancelled one", at, ok)
	}
	if got := due(s, 10*second); len(got) != 2 || got[0] != 2001 || got[1] != 2002 {
		t.Errorf("answered %v", got)
	}
}

// TestSYNRepeated: sent again after one and three seconds, as TCP does, it is
// answered once, six seconds after the first.
func TestSYNRepeated(t *testing.T) {
	s := NewSYNs()
	f := syn(t, outside, 5000, 2000)
	for _, at := range []int64{1, 2, 4} {
		s.Add(&f, at*second)
	}
	if got := due(s, 7*second); len(got) != 1 {
		t.Errorf("answered %v", got)
	}
	if _, ok := s.Next(); ok {
		t.Error("it waits a second time")
	}
}

// TestSYNBounds: per source, in all, and in length. The table goes round.
func TestSYNBounds(t *testing.T) {
	s := NewSYNs()
	for round := range int64(3) {
		now := round * 100 * second
		for port := range uint16(100) {
			f := syn(t, outside, 5000, port)
			s.Add(&f, now)
		}
		if s.count != synsPerSource {
			t.Errorf("one source has %d", s.count)
		}
		for i := range 1000 {
			from := outside
			from.IP = netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})
			f := syn(t, from, 5000, 2000)
			s.Add(&f, now)
		}
		if got := len(due(s, now+6*second)); got != maxSYNs {
			t.Errorf("%d answers", got)
		}
	}
	long := parsed(t, packettest.TCP(outside, inside, packettest.Segment{Flags: packet.TCPSyn}, make([]byte, 100)))
	s.Add(&long, 0)
	if s.count != 0 {
		t.Error("a SYN with data is kept")
	}
}

func TestSYNsAllocateNothing(t *testing.T) {
	s := NewSYNs()
	f := syn(t, outside, 5000, 2000)
	now := int64(0)
	answer := func(*packet.Frame) {}
	if n := testing.AllocsPerRun(100, func() {
		s.Add(&f, now)
		s.Cancel(9, f.Tuple())
		now += 6 * second
		s.Due(now, answer)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
