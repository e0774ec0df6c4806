package packet

import "encoding/binary"

// Complete finishes the checksum of a parsed frame in place and clears its
// virtio-net header, so that the frame can leave by a way that has none.
//
// It writes to f.B: who shares the bytes clones the frame first, or uses a
// Segmenter. A frame that stands for several packets has no checksum that
// could be finished and is left alone: it is for a Segmenter too.
func Complete(f *Frame) {
	if f.Segments() > 1 {
		return
	}
	if f.VNet().Flags()&VNetNeedsCSum != 0 {
		field, sum := f.finishedChecksum()
		binary.BigEndian.PutUint16(f.Ether()[field:], sum)
	}
	f.VNet().Clear()
	f.Flags &^= NeedsChecksum | GSO
}

// finishedChecksum returns what a NEEDS_CSUM frame wants written, and where,
// counted from the Ethernet header.
func (f *Frame) finishedChecksum() (field int, sum uint16) {
	start := int(f.VNet().CSumStart())
	end := f.packetEnd()
	if f.Flags.Has(NeedsChecksum) && f.Proto == ProtoUDP {
		end = start + UDP(f.Ether()[start:]).Len() // may be shorter
	}
	// The field holds the pseudo-header sum, so the sum includes it. Like the
	// kernel's skb_checksum_help this gives 0xffff for zero whatever the
	// protocol: UDP needs it, the others do not mind.
	sum = neverZero(^Sum(f.Ether()[start:end], 0))
	return start + int(f.VNet().CSumOffset()), sum
}

// A Segmenter cuts a frame into what it stands for on a wire, one finished
// frame at a time: own lengths, full checksums, an empty virtio-net header. It
// is tcp_gso_segment and __udp_gso_segment of the kernel in software.
//
// It borrows the frame's bytes from Reset until Next returned false, and does
// not write to them. It allocates nothing. Used by one worker.
type Segmenter struct {
	f     *Frame
	count int // segments there are
	next  int // the one Next writes
}

// Reset begins with a parsed frame. A frame that stands for one packet gives
// one segment: itself, finished.
func (s *Segmenter) Reset(f *Frame) { *s = Segmenter{f: f, count: f.Segments()} }

// Next writes the next segment into dst, virtio-net header included, and
// returns its length; false when there is none left. dst must be long enough,
// which MaxFrame bytes always are.
func (s *Segmenter) Next(dst []byte) (n int, ok bool) {
	if s.next == s.count {
		s.f = nil
		return 0, false
	}
	i := s.next
	s.next++
	seg := *s.f // the record fits the segment too: its headers are as long
	if s.count == 1 {
		seg.B = dst[:copy(dst[:len(s.f.B)], s.f.B)]
	} else {
		seg.B = s.cut(dst, i)
		seg.Flags &^= GSO
		s.setNetwork(&seg, i)
		s.setTransport(&seg, i)
	}
	Complete(&seg)
	return len(seg.B), true
}

// cut copies headers and the payload of segment i.
func (s *Segmenter) cut(dst []byte, i int) []byte {
	headers, size := VNetLen+s.f.headersLen(), int(s.f.VNet().GSOSize())
	from := headers + i*size
	to := min(from+size, len(s.f.B))
	dst = dst[:headers+to-from]
	copy(dst, s.f.B[:headers])
	copy(dst[headers:], s.f.B[from:to])
	return dst
}

// setNetwork gives segment i its length and, in IPv4, its identification.
func (s *Segmenter) setNetwork(seg *Frame, i int) {
	b := seg.Ether()[seg.L3:]
	if seg.EtherType == EtherTypeIPv6 {
		IPv6(b).SetPayloadLen(len(b) - IPv6Len)
		return
	}
	ip := IPv4(b)
	ip.SetTotalLen(len(b))
	ip.SetID(ip.ID() + uint16(i))
	ip.UpdateChecksum()
}

// setTransport gives segment i its place in the stream (TCP) or its length
// (UDP), and brings the pseudo-header sum to the length.
func (s *Segmenter) setTransport(seg *Frame, i int) {
	b := seg.Ether()[seg.L4:]
	length := Delta(0).Replace16(uint16(s.f.Len()-int(seg.L4)), uint16(len(b)))
	if seg.Proto == ProtoUDP {
		u := UDP(b)
		u.SetLen(len(b))
		u.SetChecksum(length.UpdatePartial(u.Checksum()))
		return
	}
	t := TCP(b)
	t.SetSeq(t.Seq() + uint32(i)*uint32(s.f.VNet().GSOSize()))
	flags := t.Flags()
	if i > 0 {
		flags &^= TCPCwr // the answer to one ECE, once: RFC 3168 section 6.1.2
	}
	if i < s.count-1 {
		flags &^= TCPFin | TCPPsh // they belong behind the last byte
	}
	t.SetFlags(flags)
	t.SetChecksum(length.UpdatePartial(t.Checksum()))
}
