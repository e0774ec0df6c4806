package linktest

import (
	"bytes"
	"testing"

	"fairlead/link"
	"fairlead/packet"
	"fairlead/packet/packettest"
)

// An unfinishedFrame is one a kernel hands over with work left to do.
type unfinishedFrame struct {
	name    string
	frame   func() []byte
	size    int          // payload bytes of a segment, 0 for no GSO
	needs   link.Offload // of the reader, to get it as it is
	payload []byte
}

// seq is the sequence number of the first byte of the TCP frames.
const seq = 0xfffff000 // so that it wraps

var unfinished = []unfinishedFrame{
	{"TSO4", func() []byte { return packettest.GSO(tcp(left, right, 0, 60000), 1448) },
		1448, link.OffloadChecksum | link.OffloadTSO4, content(60000)},
	{"TSO4 64K", func() []byte { return packettest.GSO(tcp(left, right, 0, 65160), 1448) },
		1448, link.OffloadChecksum | link.OffloadTSO4, content(65160)},
	{"TSO4 with CWR", func() []byte { return ecn(packettest.GSO(tcp(left, right, packet.TCPCwr, 5000), 1000)) },
		1000, link.OffloadChecksum | link.OffloadTSO4 | link.OffloadECN, content(5000)},
	{"TSO6", func() []byte { return packettest.GSO(tcp(left.IPv6(), right.IPv6(), 0, 60000), 1428) },
		1428, link.OffloadChecksum | link.OffloadTSO6, content(60000)},
	{"USO4", func() []byte { return packettest.GSO(udp(left, right, 40100), 1000) },
		1000, link.OffloadChecksum | link.OffloadUSO, content(40100)},
	{"USO6", func() []byte { return packettest.GSO(udp(left.IPv6(), right.IPv6(), 40100), 1000) },
		1000, link.OffloadChecksum | link.OffloadUSO, content(40100)},
	{"USO4 with a tag", func() []byte { return packettest.Tagged(packettest.GSO(udp(left, right, 40100), 1000), 7) },
		1000, link.OffloadChecksum | link.OffloadUSO, content(40100)},
	{"TSO4 with a tag", func() []byte { return packettest.Tagged(packettest.GSO(tcp(left, right, 0, 60000), 1448), 7) },
		1448, link.OffloadChecksum | link.OffloadTSO4, content(60000)},
	{"TCP checksum", func() []byte { return packettest.Partial(tcp(left, right, 0, 333)) },
		0, link.OffloadChecksum, content(333)},
	{"UDP checksum", func() []byte { return packettest.Partial(udp(left.IPv6(), right.IPv6(), 333)) },
		0, link.OffloadChecksum, content(333)},
}

// testUnfinished: a queue that can takes large segments and unfinished
// checksums as they are; behind one that cannot they arrive cut and summed.
// The writer's bytes stay as they were either way.
func testUnfinished(t *testing.T, a, b Queue) {
	for _, u := range unfinished {
		t.Run(u.name, func(t *testing.T) {
			sent := u.frame()
			before := bytes.Clone(sent)
			mustWrite(t, a, [][]byte{sent})
			if !bytes.Equal(sent, before) {
				t.Fatal("WriteBatch changed the bytes of its frame")
			}
			got := collect(t, b, u.frames(a, b))
			u.check(t, got, takes(a, b)&u.needs == u.needs)
		})
	}
}

// frames is in how many pieces it arrives.
func (u *unfinishedFrame) frames(a, b Queue) int {
	if u.size == 0 || takes(a, b)&u.needs == u.needs {
		return 1
	}
	return (len(u.payload) + u.size - 1) / u.size
}

// takes is what gets through unfinished: what the reader takes, unless the
// writer is a wire. What may be written to a TAP does not depend on its offload.
func takes(a, b Queue) link.Offload {
	if _, wire := a.(*link.Wire); wire {
		return 0
	}
	if b, ok := b.(interface{ Offload() link.Offload }); ok {
		return b.Offload()
	}
	return link.OffloadAll
}

// check compares what arrived with what was sent.
func (u *unfinishedFrame) check(t *testing.T, got [][]byte, whole bool) {
	t.Helper()
	var payload []byte
	for i, b := range got {
		f := packet.Frame{B: b}
		if r := packet.Parse(&f); r != packet.OK {
			t.Fatalf("frame %d is malformed: %v", i, r)
		}
		if gso := f.Flags.Has(packet.GSO); gso != (whole && u.size > 0) {
			t.Fatalf("frame %d: GSO is %v; %d bytes", i, gso, f.Len())
		}
		if f.Flags.Has(packet.GSO) && int(f.VNet().GSOSize()) != u.size {
			t.Errorf("gso size %d, want %d", f.VNet().GSOSize(), u.size)
		}
		if whole && !f.Flags.Has(packet.NeedsChecksum) {
			t.Errorf("frame %d was summed for nothing", i)
		}
		if !f.Flags.Has(packet.NeedsChecksum) {
			checkSum(t, i, &f)
		}
		payload = append(payload, u.payloadOf(t, &f, len(payload), i == len(got)-1)...)
	}
	if !bytes.Equal(payload, u.payload) {
		t.Errorf("%d bytes of payload arrived that are not the %d sent", len(payload), len(u.payload))
	}
}

// payloadOf checks the transport header of a segment that begins at byte at,
// and returns what is behind it.
func (u *unfinishedFrame) payloadOf(t *testing.T, f *packet.Frame, at int, last bool) []byte {
	t.Helper()
	if f.Proto == packet.ProtoUDP {
		return f.Transport()[packet.UDPLen:]
	}
	h := packet.TCP(f.Transport())
	if want := uint32(seq + uint64(at)); h.Seq() != want {
		t.Errorf("segment at %d has sequence number %d, want %d", at, h.Seq(), want)
	}
	// FIN and PSH are the last segment's, CWR the first's.
	if h.Flags()&packet.TCPFin != 0 != last || h.Flags()&packet.TCPPsh != 0 != last {
		t.Errorf("segment at %d: flags %#x", at, h.Flags())
	}
	if h.Flags()&packet.TCPCwr != 0 && at > 0 {
		t.Errorf("segment at %d carries CWR again", at)
	}
	return f.Transport()[h.HeaderLen():]
}

// checkSum verifies the transport checksum of a finished frame.
func checkSum(t *testing.T, i int, f *packet.Frame) {
	t.Helper()
	tuple, b := f.Tuple(), f.Transport()
	pseudo := packettest.PseudoSum(tuple.Src.Netip(), tuple.Dst.Netip(), f.Proto, len(b))
	if sum := packettest.Sum(b, pseudo); sum != 0xffff {
		t.Errorf("frame %d: the checksum is wrong: sum %#x", i, sum)
	}
}

func tcp(src, dst packettest.Station, flags uint8, n int) []byte {
	s := packettest.Segment{SrcPort: 1000, DstPort: 2000, Seq: seq, Ack: 1,
		Flags:   packet.TCPAck | packet.TCPPsh | packet.TCPFin | flags,
		Options: []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}} // timestamps, as most segments have
	return packettest.TCP(src, dst, s, content(n))
}

func udp(src, dst packettest.Station, n int) []byte {
	return packettest.UDP(src, dst, 1000, 2000, content(n))
}

// ecn marks a GSO frame whose first segment alone carries CWR.
func ecn(frame []byte) []byte {
	v := packet.VNet(frame)
	v.SetGSOType(v.GSOType() | packet.GSOECN)
	return frame
}

func content(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * i >> 3)
	}
	return b
}
