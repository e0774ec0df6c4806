package packet

import "encoding/binary"

// A Fragmenter cuts an IPv4 datagram that is larger than an MTU into fragments
// (RFC 791 section 3.2), one finished frame at a time: an empty virtio-net
// header, own lengths, a full transport checksum in the piece that has the
// field. A fragment is cut into smaller ones the same way.
//
// It borrows the frame's bytes from Reset until Next returned false, and does
// not write to them. It allocates nothing. Used by one worker.
type Fragmenter struct {
	f   *Frame
	mtu int

	start, at, end int // the payload and its next byte, from f.Ether()

	options    [IPv4MaxLen - IPv4MinLen]byte // what all but the first repeat
	optionsLen int

	field int // of an unfinished checksum, from f.Ether(); 0 when there is none
	sum   uint16
}

// Reset begins with a parsed frame. It reports false, and Next gives nothing,
// when the frame must not be cut: not IPv4, larger than the MTU with "don't
// fragment", a frame for a Segmenter, an MTU below IPv4MinMTU. A datagram that
// fits gives one frame: itself, finished.
func (s *Fragmenter) Reset(f *Frame, mtu int) bool {
	*s = Fragmenter{mtu: mtu}
	if f.EtherType != EtherTypeIPv4 || f.Segments() > 1 || mtu < IPv4MinMTU {
		return false
	}
	ip := IPv4(f.Packet())
	if len(ip) > mtu && ip.DontFragment() {
		return false
	}
	s.f = f
	s.start = int(f.L3) + ip.HeaderLen()
	s.at, s.end = s.start, f.packetEnd()
	s.optionsLen = copiedOptions(&s.options, ip.Options())
	if f.VNet().Flags()&VNetNeedsCSum != 0 {
		s.field, s.sum = f.finishedChecksum()
	}
	return true
}

// Next writes the next fragment into dst, virtio-net header included, and
// returns its length; false when there is none left. dst must be long enough:
// VNetLen, the Ethernet header with its tags, and the MTU.
func (s *Fragmenter) Next(dst []byte) (n int, ok bool) {
	if s.f == nil {
		return 0, false
	}
	ether, l3 := s.f.Ether(), int(s.f.L3)
	whole := IPv4(ether[l3:])
	header := whole.HeaderLen()
	if s.at > s.start {
		header = IPv4MinLen + s.optionsLen
	}
	size, last := s.end-s.at, true
	if header+size > s.mtu {
		size, last = (s.mtu-header)&^7, false
	}

	dst = dst[:VNetLen+l3+header+size]
	VNet(dst).Clear()
	b := dst[VNetLen:]
	copy(b, ether[:l3+header])
	if s.at > s.start {
		copy(b[l3+IPv4MinLen:], s.options[:s.optionsLen])
	}
	copy(b[l3+header:], ether[s.at:s.at+size])
	if s.at <= s.field && s.field < s.at+size {
		binary.BigEndian.PutUint16(b[l3+header+s.field-s.at:], s.sum)
	}

	ip := IPv4(b[l3:])
	ip.SetHeaderLen(header)
	ip.SetTotalLen(header + size)
	ip.SetFragment(whole.DontFragment(), !last || whole.MoreFragments(),
		whole.FragmentOffset()+s.at-s.start)
	ip.UpdateChecksum()

	s.at += size
	if last {
		s.f = nil
	}
	return len(dst), true
}

// copiedOptions writes to dst the options that every fragment carries (RFC 791
// section 3.1: the copied flag), padded to whole words, and returns their
// length. A list that lies about its lengths ends there.
func copiedOptions(dst *[IPv4MaxLen - IPv4MinLen]byte, options []byte) int {
	const end, nop, copied = 0, 1, 0x80
	n := 0
	for len(options) > 0 && options[0] != end {
		size := 1
		if options[0] != nop {
			if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
				break
			}
			size = int(options[1])
		}
		if options[0]&copied != 0 {
			n += copy(dst[n:], options[:size])
		}
		options = options[size:]
	}
	return (n + 3) &^ 3
}
