package packet_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

// seed adds every kind of frame packettest makes, good and broken.
func seed(f *testing.F, add func(b []byte)) {
	rng := rand.New(rand.NewPCG(13, 14))
	for range 20 {
		for _, r := range packettest.ParseReasons {
			add(packettest.Broken(rng, r))
		}
	}
}

// FuzzParse feeds anything to Parse. What it calls OK must be safe to read
// through every view and to finish, segment and fragment.
func FuzzParse(f *testing.F) {
	seed(f, func(b []byte) { f.Add(b, uint16(576)) })
	f.Fuzz(func(t *testing.T, b []byte, mtu uint16) {
		if len(b) > packet.MaxFrame {
			return // no queue reads more
		}
		frame := packet.Frame{B: bytes.Clone(b)}
		r := packet.Parse(&frame)
		if !bytes.Equal(frame.B, b) {
			t.Fatal("Parse wrote to the frame")
		}
		if r != packet.OK {
			if r > packet.BadTransport {
				t.Fatalf("Parse = %v, which is no reason of its", r)
			}
			return
		}
		touch(t, &frame)
		dst := make([]byte, packet.MaxFrame)
		cutSegments(t, &frame, dst)
		cutFragments(t, &frame, int(mtu), dst)
		if !bytes.Equal(frame.B, b) {
			t.Fatal("segmenter or fragmenter wrote to the frame")
		}
		complete(t, &frame)
	})
}

// touch calls every getter of every view that applies.
func touch(t *testing.T, f *packet.Frame) {
	e := packet.Ethernet(f.Ether())
	if !e.Valid() || !f.VNet().Valid() {
		t.Error("Ethernet or virtio-net header is not Valid")
	}
	_, _, _ = e.Dst(), e.Src(), e.Type()
	_, _, _ = f.Tuple(), f.PacketLen(), f.Segments()
	if int(f.L3)+len(f.Packet()) > f.Len() || f.Tags > packet.MaxVLANTags {
		t.Error("offsets beyond the frame")
	}
	switch f.EtherType {
	case packet.EtherTypeARP:
		a := packet.ARP(f.Packet())
		_, _, _, _, _ = a.Op(), a.SenderMAC(), a.SenderIP(), a.TargetMAC(), a.TargetIP()
	case packet.EtherTypeIPv4:
		ip := packet.IPv4(f.Packet())
		_, _, _ = ip.Valid(), ip.Options(), ip.Payload()
		_, _, _, _ = ip.TOS(), ip.ID(), ip.TTL(), ip.Checksum()
	case packet.EtherTypeIPv6:
		ip := packet.IPv6(f.Packet())
		_, _, _, _ = ip.Payload(), ip.TrafficClass(), ip.FlowLabel(), ip.HopLimit()
	}
	if f.L4 == 0 {
		return
	}
	switch b := f.Transport(); f.Proto {
	case packet.ProtoTCP:
		s := packet.TCP(b)
		_, _ = s.MSS()
		_, _, _, _, _ = s.Seq(), s.Ack(), s.Window(), s.Payload(), s.Option(8)
		if !s.Valid() || s.SrcPort() != f.SrcPort {
			t.Error("TCP view and record differ")
		}
	case packet.ProtoUDP:
		u := packet.UDP(b)
		_ = u.Payload()
		if u.DstPort() != f.DstPort {
			t.Error("UDP view and record differ")
		}
	case packet.ProtoICMP, packet.ProtoICMPv6:
		m := packet.ICMP(b)
		_, _, _, _, _ = m.Type(), m.Code(), m.Seq(), m.MTU(), m.Data()
	default:
		t.Errorf("a transport header of %v", f.Proto)
	}
}

// cutSegments wants segments that are well-formed, finished and as many as
// announced.
func cutSegments(t *testing.T, f *packet.Frame, dst []byte) {
	var s packet.Segmenter
	count := 0
	s.Reset(f)
	for n, ok := s.Next(dst); ok; n, ok = s.Next(dst) {
		seg := packet.Frame{B: dst[:n]}
		if r := packet.Parse(&seg); r != packet.OK {
			t.Fatalf("segment %d: %v: %x", count, r, dst[:n])
		}
		if !seg.VNet().IsZero() || seg.L4 != f.L4 || seg.DstPort != f.DstPort {
			t.Fatalf("segment %d is not finished or not the frame's", count)
		}
		count++
	}
	if count != f.Segments() {
		t.Fatalf("%d segments, Segments said %d", count, f.Segments())
	}
}

// cutFragments wants fragments that fit and hold the payload once. They need
// not be OK: TCP cut at offset 8 is what RFC 1858 warns of.
func cutFragments(t *testing.T, f *packet.Frame, mtu int, dst []byte) {
	var s packet.Fragmenter
	if !s.Reset(f, mtu) {
		return
	}
	whole := packet.IPv4(f.Packet())
	offset := whole.FragmentOffset()
	for n, ok := s.Next(dst); ok; n, ok = s.Next(dst) {
		ip := packet.IPv4(dst[packet.VNetLen+f.L3 : n])
		if !ip.Valid() || len(ip) > mtu || ip.TotalLen() != len(ip) {
			t.Fatalf("fragment of %d bytes in an MTU of %d: %x", len(ip), mtu, []byte(ip))
		}
		if ip.FragmentOffset() != offset {
			t.Fatalf("fragment at %d, want %d", ip.FragmentOffset(), offset)
		}
		offset += len(ip.Payload())
	}
	if offset != whole.FragmentOffset()+len(whole.Payload()) {
		t.Fatalf("fragments end at %d", offset)
	}
}

// complete wants an OK frame again, finished unless it stands for several.
func complete(t *testing.T, f *packet.Frame) {
	packet.Complete(f)
	before := *f
	if r := packet.Parse(f); r != packet.OK {
		t.Fatalf("completed frame: %v", r)
	}
	if f.Flags != before.Flags || f.L4 != before.L4 {
		t.Fatal("Complete left another record than Parse finds")
	}
	if f.Segments() == 1 && !f.VNet().IsZero() {
		t.Fatal("Complete left the frame unfinished")
	}
}

// FuzzSegment cuts TCP streams and checks what comes out against the whole.
func FuzzSegment(f *testing.F) {
	f.Add(uint16(5000), uint16(1448), uint8(0), uint32(1), uint8(0xff), []byte("\x01\x01\x08\x0a12345678"))
	f.Add(uint16(3000), uint16(1428), uint8(1), uint32(0xffffff00), uint8(0x10), []byte(nil))
	f.Add(uint16(200), uint16(1), uint8(2), uint32(0), uint8(0), []byte("\x02\x04\x05\xb4"))
	f.Fuzz(func(t *testing.T, length, size uint16, kind uint8, seq uint32, flags uint8, options []byte) {
		length %= 60_000
		if size == 0 || size == 0xffff || int(length)/int(size) > 2000 {
			return
		}
		src, dst := alice, bob
		if kind&1 != 0 {
			src, dst = alice.IPv6(), bob.IPv6()
		}
		options = options[:min(len(options), 40)&^3]
		whole := packettest.TCP(src, dst, packettest.Segment{Seq: seq, Flags: flags, Options: options}, pattern(int(length)))
		whole = packettest.Tagged(whole, []uint16{7, 8}[:kind>>1%3]...)
		checkSegmentsTCP(t, whole, segments(t, packettest.GSO(whole, int(size))), int(size))
	})
}

// FuzzFragment cuts datagrams with any options and puts them together again.
func FuzzFragment(f *testing.F) {
	f.Add([]byte("payload"), []byte{0x94, 4, 0, 0}, uint16(68), uint16(0))
	f.Add(pattern(4000), []byte{7, 7, 4, 0, 0, 0, 0, 0}, uint16(1500), uint16(0x2000))
	f.Add(pattern(99), []byte{0x83, 200, 4}, uint16(77), uint16(0x2010))
	f.Fuzz(func(t *testing.T, data, options []byte, mtu, flags uint16) {
		if mtu < packet.IPv4MinMTU || len(data) > 60_000 {
			return
		}
		b := packettest.IPv4(alice, bob, 47, options[:min(len(options), 40)&^3], data)
		ip := packet.IPv4(payload(b))
		ip.SetFragment(false, flags&0x2000 != 0, int(flags&0x1fff)*8)
		frame := packet.Frame{B: bytes.Clone(b)}
		if packet.Parse(&frame) != packet.OK {
			return
		}
		pieces := fragments(t, b, int(mtu))
		got := reassemble(t, pieces, int(mtu), ip.FragmentOffset(), ip.MoreFragments())
		if !bytes.Equal(got, ip.Payload()) {
			t.Error("reassembled payload differs")
		}
	})
}

// FuzzChecksumIncremental rewrites a field anywhere in any bytes and compares
// the checksum brought up to date with one summed anew.
func FuzzChecksumIncremental(f *testing.F) {
	f.Add([]byte("\x45\x00\x00\x14"), uint8(0), uint64(0), uint64(0))
	f.Add(bytes.Repeat([]byte{0xff}, 40), uint8(3), uint64(0), ^uint64(0))
	f.Add(pattern(60), uint8(7), uint64(0xffff), uint64(0xffff0000ffff0000))
	f.Fuzz(func(t *testing.T, data []byte, at uint8, hi, lo uint64) {
		if len(data) < 18 {
			return
		}
		data[0] |= 1 // a packet is never all zero
		field := data[2+int(at)*2%(len(data)-17)&^1:][:16]
		before := packettest.Sum(data, 0)
		var addr packet.Addr
		binary.BigEndian.PutUint64(addr[:], hi)
		binary.BigEndian.PutUint64(addr[8:], lo)

		var d packet.Delta
		switch hi % 3 {
		case 0:
			d = d.ReplaceAddr(packet.Addr(field), addr)
			copy(field, addr[:])
		case 1:
			d = d.Replace32(binary.BigEndian.Uint32(field), uint32(lo))
			binary.BigEndian.PutUint32(field, uint32(lo))
		case 2:
			d = d.Replace16(binary.BigEndian.Uint16(field), uint16(lo))
			binary.BigEndian.PutUint16(field, uint16(lo))
		}
		after := packettest.Sum(data, 0)
		if got := d.Update(^before); got != ^after {
			t.Errorf("Update = %#x, want %#x", got, ^after)
		}
		if got := d.UpdatePartial(before); got != after {
			t.Errorf("UpdatePartial = %#x, want %#x", got, after)
		}
		if got := packet.Sum(data, 0); got != after {
			t.Errorf("Sum = %#x, want %#x", got, after)
		}
	})
}
