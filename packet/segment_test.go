package packet_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/gopacket/layers"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

// checkFinished wants an empty virtio-net header and right checksums, summed
// word by word.
func checkFinished(t testing.TB, b []byte) {
	t.Helper()
	f := parse(t, b)
	if !f.VNet().IsZero() {
		t.Errorf("virtio-net header %x is not empty", []byte(f.VNet()))
	}
	if ip := packet.IPv4(f.Packet()); f.EtherType == packet.EtherTypeIPv4 &&
		packettest.Sum(ip[:ip.HeaderLen()], 0) != 0xffff {
		t.Errorf("IPv4 header checksum %#x is wrong", ip.Checksum())
	}
	if f.L4 != 0 && f.Flags&packet.Fragment == 0 && f.Proto != packet.ProtoICMP &&
		packettest.Sum(f.Transport(), pseudo(&f)) != 0xffff {
		t.Errorf("transport checksum is wrong")
	}
}

func TestComplete(t *testing.T) {
	for _, want := range [][]byte{
		tcpFrame(alice, bob, 0), tcpFrame(alice, bob, 1447), tcpFrame(alice.IPv6(), bob.IPv6(), 100),
		packettest.UDP(alice, bob, 1, 2, pattern(77)), packettest.UDP(alice.IPv6(), bob.IPv6(), 1, 2, nil),
		packettest.Tagged(tcpFrame(alice, bob, 9), 7, 8),
		append(packettest.UDP(alice, bob, 1, 2, pattern(3)), "padding"...), // not to be summed
	} {
		for _, unfinished := range [][]byte{want, packettest.Partial(want)} {
			f := parse(t, bytes.Clone(unfinished))
			packet.Complete(&f)
			if !bytes.Equal(f.B, want) {
				t.Errorf("got  %x\nwant %x", f.B, want)
			}
			check(t, "flags", f.Flags, 0)
			checkFinished(t, f.B)
		}
	}
}

// TestCompleteShortDatagram sums what UDP's length says, not what is there.
func TestCompleteShortDatagram(t *testing.T) {
	u := payload(packettest.UDP(alice, bob, 1, 2, pattern(9)))[packet.IPv4MinLen:]
	want := packettest.IP(alice, bob, packet.ProtoUDP, append(bytes.Clone(u), "behind it"...))
	b := bytes.Clone(want)
	packet.UDP(payload(b)[packet.IPv4MinLen:]).SetChecksum(packettest.PseudoSum(alice.IP, bob.IP, packet.ProtoUDP, len(u)))
	f := parse(t, vnet("01 00 0000 0000 2200 0600", b))
	packet.Complete(&f)
	if !bytes.Equal(f.B, want) {
		t.Errorf("got  %x\nwant %x", f.B, want)
	}
}

// TestCompleteTunnel finishes the inner checksum of a container's own VXLAN.
func TestCompleteTunnel(t *testing.T) {
	carol, dave := station("10.9.0.1"), station("10.9.0.2")
	inner := tcpFrame(carol, dave, 100)
	header := unhex("08000000 00002a00")
	want := packettest.UDP(alice, bob, 1, 4789, append(bytes.Clone(header), inner[packet.VNetLen:]...))
	unfinished := packettest.Partial(inner)
	b := packettest.UDP(alice, bob, 1, 4789, append(bytes.Clone(header), unfinished[packet.VNetLen:]...))
	// The outer checksum is that of the finished packet ("local checksum
	// offload"): the kernel derives it before the inner one is known.
	const at = packet.IPv4MinLen + packet.UDPChecksumOffset
	copy(payload(b)[at:at+2], payload(want)[at:at+2])
	v := packet.VNet(b)
	v.SetFlags(packet.VNetNeedsCSum)
	v.SetCSumStart(14 + 20 + 8 + 8 + 14 + 20)
	v.SetCSumOffset(16)

	f := parse(t, b)
	check(t, "own checksum unfinished", f.Flags.Has(packet.NeedsChecksum), false)
	packet.Complete(&f)
	if !bytes.Equal(f.B, want) {
		t.Errorf("got  %x\nwant %x", f.B, want)
	}
	checkFinished(t, f.B)
}

func TestCompleteLeavesSuperFrames(t *testing.T) {
	b := packettest.GSO(tcpFrame(alice, bob, 5000), 1448)
	f := parse(t, bytes.Clone(b))
	packet.Complete(&f)
	if !bytes.Equal(f.B, b) || !f.Flags.Has(packet.GSO) {
		t.Error("Complete changed a frame that stands for several")
	}
	// One that stands for a single packet is one.
	f = parse(t, packettest.GSO(tcpFrame(alice, bob, 1448), 1448))
	packet.Complete(&f)
	checkFinished(t, f.B)
}

// segments cuts a frame and copies every piece.
func segments(t testing.TB, b []byte) (all [][]byte) {
	t.Helper()
	f := parse(t, bytes.Clone(b))
	var s packet.Segmenter
	s.Reset(&f)
	dst := bytes.Repeat([]byte{0xee}, packet.MaxFrame)
	for n, ok := s.Next(dst); ok; n, ok = s.Next(dst) {
		all = append(all, bytes.Clone(dst[:n]))
	}
	if _, ok := s.Next(dst); ok {
		t.Error("Next gives more after the last segment")
	}
	if !bytes.Equal(f.B, b) {
		t.Error("the segmenter wrote to the frame")
	}
	if len(all) != f.Segments() {
		t.Errorf("%d segments, Segments said %d", len(all), f.Segments())
	}
	return all
}

func TestSegmenterTCP(t *testing.T) {
	for _, s := range [][2]packettest.Station{{alice, bob}, {alice.IPv6(), bob.IPv6()}} {
		for _, tt := range []struct{ payload, size, tags int }{
			{5000, 1448, 0}, {2896, 1448, 1}, {1449, 1448, 2}, {1448, 1448, 0}, {10, 1448, 0}, {0, 1448, 0},
			{64000, 1448, 0}, {65483 - 20, 536, 2}, {100, 1, 0},
		} {
			t.Run(fmt.Sprintf("%v, %d by %d", s[0].IP, tt.payload, tt.size), func(t *testing.T) {
				whole := packettest.Tagged(tcpFrame(s[0], s[1], tt.payload), []uint16{7, 8}[:tt.tags]...)
				pieces := segments(t, packettest.GSO(whole, tt.size))
				checkSegmentsTCP(t, whole, pieces, tt.size)
			})
		}
	}
}

// checkSegmentsTCP puts the stream together again and compares with the whole,
// in the words of an independent decoder.
func checkSegmentsTCP(t *testing.T, whole []byte, pieces [][]byte, size int) {
	t.Helper()
	w := decode(whole)
	wt := w.Layer(layers.LayerTypeTCP).(*layers.TCP)
	var stream []byte
	for i, b := range pieces {
		checkFinished(t, b)
		first, last := i == 0, i == len(pieces)-1
		p := decode(b)
		seg := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
		check(t, "sequence", seg.Seq, wt.Seq+uint32(i*size))
		check(t, "acknowledgement", seg.Ack, wt.Ack)
		check(t, "FIN", seg.FIN, wt.FIN && last)
		check(t, "PSH", seg.PSH, wt.PSH && last)
		check(t, "CWR", seg.CWR, wt.CWR && first)
		check(t, "ACK", seg.ACK, wt.ACK)
		check(t, "header length", seg.DataOffset, wt.DataOffset)
		check(t, "options", string(seg.Contents[20:]), string(wt.Contents[20:]))
		if !last {
			check(t, "payload", len(seg.Payload), size)
		}
		check(t, "link layer", string(p.LinkLayer().LayerContents()), string(w.LinkLayer().LayerContents()))
		if ip, ok := p.NetworkLayer().(*layers.IPv4); ok {
			check(t, "total length", int(ip.Length), len(ip.Contents)+len(seg.Contents)+len(seg.Payload))
			check(t, "ID", ip.Id, w.NetworkLayer().(*layers.IPv4).Id+uint16(i))
		}
		stream = append(stream, seg.Payload...)
		if t.Failed() {
			t.Fatalf("segment %d of %d: %x", i, len(pieces), b[:min(len(b), 100)])
		}
	}
	if !bytes.Equal(stream, wt.Payload) {
		t.Error("the segments' payload is not the whole one's")
	}
}

func TestSegmenterUDP(t *testing.T) {
	for _, s := range [][2]packettest.Station{{alice, bob}, {alice.IPv6(), bob.IPv6()}} {
		for _, tt := range []struct{ payload, size int }{{5000, 1000}, {1001, 1000}, {128, 1}, {999, 1000}, {0, 1000}, {65000, 1472}} {
			whole := packettest.UDP(s[0], s[1], 1, 2, pattern(tt.payload))
			var all []byte
			for i, b := range segments(t, packettest.GSO(whole, tt.size)) {
				checkFinished(t, b)
				u := decode(b).Layer(layers.LayerTypeUDP).(*layers.UDP)
				check(t, "length", int(u.Length), packet.UDPLen+min(tt.size, tt.payload-i*tt.size))
				check(t, "source port", u.SrcPort, 1)
				all = append(all, u.Payload...)
			}
			if !bytes.Equal(all, pattern(tt.payload)) {
				t.Errorf("%d bytes by %d: payload differs", tt.payload, tt.size)
			}
		}
	}
}

// TestSegmenterPlain: what stands for one packet comes out as that, finished.
func TestSegmenterPlain(t *testing.T) {
	for _, want := range [][]byte{
		tcpFrame(alice, bob, 1448), packettest.ARPRequest(alice, bob.IP),
		append(packettest.UDP(alice, bob, 1, 2, nil), "padding"...),
	} {
		unfinished := want
		if f := parse(t, want); f.L4 != 0 {
			unfinished = packettest.Partial(want)
		}
		got := segments(t, unfinished)
		if len(got) != 1 || !bytes.Equal(got[0], want) {
			t.Errorf("got  %x\nwant %x", got, want)
		}
	}
}

// TestSegmenterRoutingHeader: the pseudo-header has the final destination, not
// the one in the header (RFC 8200 section 8.1), so the sum in the field counts.
func TestSegmenterRoutingHeader(t *testing.T) {
	a, b, final := alice.IPv6(), bob.IPv6(), station("10.88.0.9").IPv6()
	s := parse(t, packettest.Partial(tcpFrame(a, final, 3000)))
	routing := append(unhex("06 02 0401 00000000"), final.IP.AsSlice()...)
	f := parse(t, packettest.IP(a, b, packet.ProtoRouting, append(routing, s.Transport()...)))
	v := f.VNet()
	v.SetFlags(packet.VNetNeedsCSum)
	v.SetCSumStart(f.L4)
	v.SetCSumOffset(packet.TCPChecksumOffset)
	v.SetGSOType(packet.GSOTCPv6)
	v.SetGSOSize(1000)
	got := segments(t, f.B)
	check(t, "segments", len(got), 3)
	for _, p := range got {
		seg := parse(t, p)
		sum := packettest.PseudoSum(a.IP, final.IP, packet.ProtoTCP, len(seg.Transport()))
		check(t, "sum", packettest.Sum(seg.Transport(), sum), 0xffff)
	}
}
