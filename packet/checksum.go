package packet

import (
	"encoding/binary"
	"math/bits"
)

// Sum adds the 16-bit words of b to initial in ones' complement (RFC 1071). An
// odd last byte counts as if a zero followed. Over a finished packet, checksum
// field and pseudo-header included, it gives 0xffff.
func Sum(b []byte, initial uint16) uint16 {
	// Ones' complement does not care about byte order as long as it is kept:
	// whole words are loaded little-endian, eight bytes at a time, and the
	// result is swapped once.
	sum := uint64(bits.ReverseBytes16(initial))
	var carry uint64
	for len(b) >= 64 {
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[0:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[8:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[16:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[24:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[32:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[40:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[48:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[56:]), carry)
		b = b[64:]
	}
	for len(b) >= 8 {
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b), carry)
		b = b[8:]
	}
	var rest uint64
	for i, c := range b { // up to seven bytes
		rest |= uint64(c) << (8 * i)
	}
	sum, carry = bits.Add64(sum, rest, carry)
	sum, carry = bits.Add64(sum, 0, carry)
	return bits.ReverseBytes16(fold(sum + carry))
}

// fold adds the four 16-bit words of sum in ones' complement.
func fold(sum uint64) uint16 {
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>16 + sum&0xffff
	return uint16(sum>>16 + sum&0xffff)
}

// PseudoSum4 is the sum of the IPv4 pseudo-header (RFC 793, RFC 768) of a
// transport packet of length bytes.
func PseudoSum4(src, dst [4]byte, p Proto, length int) uint16 {
	return fold(uint64(binary.BigEndian.Uint32(src[:])) + uint64(binary.BigEndian.Uint32(dst[:])) +
		uint64(p) + uint64(length))
}

// PseudoSum6 is the sum of the IPv6 pseudo-header (RFC 8200 section 8.1).
func PseudoSum6(src, dst Addr, p Proto, length int) uint16 {
	return fold(uint64(Sum(src[:], 0)) + uint64(Sum(dst[:], 0)) + uint64(p) + uint64(length))
}

// UpdateChecksum computes the header checksum anew.
func (ip IPv4) UpdateChecksum() {
	ip.SetChecksum(0)
	ip.SetChecksum(^Sum(ip[:ip.HeaderLen()], 0))
}

// UpdateChecksum computes the checksum of the whole view, which must end with
// the segment.
func (t TCP) UpdateChecksum(pseudo uint16) {
	t.SetChecksum(0)
	t.SetChecksum(^Sum(t, pseudo))
}

// UpdateChecksum computes the checksum of the datagram. A computed zero is
// sent as 0xffff, because zero means none (RFC 768).
func (u UDP) UpdateChecksum(pseudo uint16) {
	u.SetChecksum(0)
	u.SetChecksum(neverZero(^Sum(u[:u.Len()], pseudo)))
}

// UpdateChecksum computes the checksum of the whole view, which must end with
// the message. ICMP has no pseudo-header: there it is zero.
func (m ICMP) UpdateChecksum(pseudo uint16) {
	m.SetChecksum(0)
	m.SetChecksum(^Sum(m, pseudo))
}

// neverZero gives the other zero of ones' complement for zero.
func neverZero(checksum uint16) uint16 {
	if checksum == 0 {
		return 0xffff
	}
	return checksum
}

// A Delta is what a rewrite of fields adds to the sum over them: the total of
// ~old + new, equation 3 of RFC 1624. The rewrite of a flow is the same for
// all its packets, so its deltas can be computed once.
//
// There are two kinds of field to apply it to. A finished checksum covers
// addresses and ports. An unfinished one (NEEDS_CSUM) holds the pseudo-header
// sum: addresses only, the ports are summed later. So a flow that rewrites
// both has two deltas.
type Delta uint16

// Replace16 adds the rewrite of a 16-bit field that begins at an even offset.
func (d Delta) Replace16(old, new uint16) Delta {
	return Delta(fold(uint64(d) + uint64(^old) + uint64(new)))
}

// Replace32 adds the rewrite of a 32-bit field that begins at an even offset.
func (d Delta) Replace32(old, new uint32) Delta {
	return Delta(fold(uint64(d) + uint64(^old) + uint64(new)))
}

// ReplaceAddr adds the rewrite of an address by another of its family.
func (d Delta) ReplaceAddr(old, new Addr) Delta {
	return Delta(fold(uint64(d) + uint64(^Sum(old[:], 0)) + uint64(Sum(new[:], 0))))
}

// plus is both rewrites together.
func (d Delta) plus(x Delta) Delta { return Delta(fold(uint64(d) + uint64(x))) }

// Update brings a finished checksum up to date.
func (d Delta) Update(checksum uint16) uint16 {
	return ^fold(uint64(^checksum) + uint64(d))
}

// UpdateUDP brings a finished checksum of UDP up to date: zero means none and
// stays, a computed zero becomes 0xffff.
func (d Delta) UpdateUDP(checksum uint16) uint16 {
	if checksum == 0 {
		return 0
	}
	return neverZero(d.Update(checksum))
}

// UpdatePartial brings an unfinished checksum, a pseudo-header sum, up to date.
func (d Delta) UpdatePartial(sum uint16) uint16 {
	return fold(uint64(sum) + uint64(d))
}
