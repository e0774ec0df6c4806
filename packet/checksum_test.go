package packet_test

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

func TestSum(t *testing.T) {
	// The example of RFC 1071 section 3.
	check(t, "RFC 1071", packet.Sum(unhex("0001 f203 f4f5 f6f7"), 0), 0xddf2)

	rng := rand.New(rand.NewPCG(7, 8))
	buf := make([]byte, 70_000)
	fill := map[string]func(){
		"zeros":  func() { clear(buf) },
		"ones":   func() { copy(buf, bytes.Repeat([]byte{0xff}, len(buf))) },
		"random": func() { copy(buf, random(rng, len(buf))) },
	}
	for name, fill := range fill {
		fill()
		for n := range 400 {
			if n > 300 {
				n = rng.IntN(65536)
			}
			from := rng.IntN(9) // any alignment
			for _, initial := range []uint16{0, 1, 0xff00, 0xffff, uint16(rng.Uint32())} {
				b := buf[from : from+n]
				if got, want := packet.Sum(b, initial), packettest.Sum(b, initial); got != want {
					t.Fatalf("%s: Sum of %d bytes from %#x on = %#x, want %#x", name, n, initial, got, want)
				}
			}
		}
	}
}

func random(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func TestPseudoSum(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	for range 1000 {
		a, b := [16]byte(random(rng, 16)), [16]byte(random(rng, 16))
		p, n := packet.Proto(rng.IntN(256)), rng.IntN(65536)
		check(t, "PseudoSum6", packet.PseudoSum6(a, b, p, n),
			packettest.PseudoSum(netip.AddrFrom16(a), netip.AddrFrom16(b), p, n))
		a4, b4 := [4]byte(a[:4]), [4]byte(b[:4])
		check(t, "PseudoSum4", packet.PseudoSum4(a4, b4, p, n),
			packettest.PseudoSum(netip.AddrFrom4(a4), netip.AddrFrom4(b4), p, n))
	}
}

// TestUpdateChecksum recomputes what packettest has summed word by word.
func TestUpdateChecksum(t *testing.T) {
	for _, s := range [][2]packettest.Station{{alice, bob}, {alice.IPv6(), bob.IPv6()}} {
		for n := range 70 {
			for _, want := range [][]byte{
				tcpFrame(s[0], s[1], n), packettest.UDP(s[0], s[1], 1, 2, pattern(n)),
				packettest.ICMPEcho(s[0], s[1], 1, 2, pattern(n)),
			} {
				f := parse(t, bytes.Clone(want))
				b := f.Transport()
				sum := pseudo(&f)
				switch f.Proto {
				case packet.ProtoTCP:
					packet.TCP(b).UpdateChecksum(sum)
				case packet.ProtoUDP:
					packet.UDP(b).UpdateChecksum(sum)
				case packet.ProtoICMP:
					packet.ICMP(b).UpdateChecksum(0)
				case packet.ProtoICMPv6:
					packet.ICMP(b).UpdateChecksum(sum)
				}
				if f.EtherType == packet.EtherTypeIPv4 {
					packet.IPv4(f.Packet()).UpdateChecksum()
				}
				if !bytes.Equal(f.B, want) {
					t.Fatalf("%v with %d bytes\ngot  %x\nwant %x", f.Proto, n, f.B, want)
				}
			}
		}
	}
}

// pseudo is the pseudo-header sum of a frame's transport packet.
func pseudo(f *packet.Frame) uint16 {
	tuple := f.Tuple()
	return packettest.PseudoSum(tuple.Src.Netip(), tuple.Dst.Netip(), f.Proto, len(f.Transport()))
}

func TestDeltaRFC1624(t *testing.T) {
	// The example of RFC 1624 section 4, where equation 4 of RFC 1141 fails.
	check(t, "equation 3", packet.Delta(0).Replace16(0x5555, 0x3285).Update(0xdd2f), 0)
}

// rewrite changes addresses and ports of a frame as a NAT does, and its
// checksums by deltas.
func rewrite(f *packet.Frame, src, dst packettest.Station, srcPort, dstPort uint16) {
	old := f.Tuple()
	addrs := packet.Delta(0).
		ReplaceAddr(old.Src, packet.AddrFromNetip(src.IP)).
		ReplaceAddr(old.Dst, packet.AddrFromNetip(dst.IP))
	all := addrs.Replace16(old.SrcPort, srcPort).Replace16(old.DstPort, dstPort)

	if ip := packet.IPv4(f.Packet()); f.EtherType == packet.EtherTypeIPv4 {
		ip.SetSrc(src.IP.As4())
		ip.SetDst(dst.IP.As4())
		ip.SetChecksum(addrs.Update(ip.Checksum()))
	} else {
		packet.IPv6(ip).SetSrc(packet.AddrFromNetip(src.IP))
		packet.IPv6(ip).SetDst(packet.AddrFromNetip(dst.IP))
	}
	partial := f.Flags.Has(packet.NeedsChecksum)
	if f.Proto == packet.ProtoUDP {
		u := packet.UDP(f.Transport())
		u.SetSrcPort(srcPort)
		u.SetDstPort(dstPort)
		if partial {
			u.SetChecksum(addrs.UpdatePartial(u.Checksum()))
		} else {
			u.SetChecksum(all.UpdateUDP(u.Checksum()))
		}
		return
	}
	s := packet.TCP(f.Transport())
	s.SetSrcPort(srcPort)
	s.SetDstPort(dstPort)
	if partial {
		s.SetChecksum(addrs.UpdatePartial(s.Checksum()))
	} else {
		s.SetChecksum(all.Update(s.Checksum()))
	}
}

// TestDelta rewrites frames and compares with frames built for the new
// addresses, finished and unfinished.
func TestDelta(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	for range 3000 {
		a, b, c, d := randomStation(rng), randomStation(rng), randomStation(rng), randomStation(rng)
		if rng.IntN(2) == 0 {
			a, b, c, d = a.IPv6(), b.IPv6(), c.IPv6(), d.IPv6()
		}
		ports := [4]uint16{uint16(rng.Uint32()), uint16(rng.Uint32()), uint16(rng.Uint32()), uint16(rng.Uint32())}
		data := random(rng, rng.IntN(50))
		build := func(src, dst packettest.Station, srcPort, dstPort uint16) []byte {
			src.MAC, dst.MAC = macA, macB
			return packettest.UDP(src, dst, srcPort, dstPort, data)
		}
		if rng.IntN(2) == 0 {
			build = func(src, dst packettest.Station, srcPort, dstPort uint16) []byte {
				src.MAC, dst.MAC = macA, macB
				return packettest.TCP(src, dst, packettest.Segment{SrcPort: srcPort, DstPort: dstPort}, data)
			}
		}
		before, after := build(a, b, ports[0], ports[1]), build(c, d, ports[2], ports[3])
		if rng.IntN(2) == 0 {
			before, after = packettest.Partial(before), packettest.Partial(after)
		}
		f := parse(t, before)
		rewrite(&f, c, d, ports[2], ports[3])
		if !bytes.Equal(f.B, after) {
			t.Fatalf("rewritten\ngot  %x\nwant %x", f.B, after)
		}
	}
}

func randomStation(rng *rand.Rand) packettest.Station {
	return packettest.Station{MAC: packet.MAC(random(rng, 6)), IP: netip.AddrFrom4([4]byte(random(rng, 4)))}
}

func TestUDPZeroChecksum(t *testing.T) {
	check(t, "no checksum stays none", packet.Delta(0).Replace16(1, 2).UpdateUDP(0), 0)

	// A word that makes the sum 0xffff, so that its complement is zero.
	b := packettest.UDP(alice, bob, 1, 2, []byte{0, 0})
	f := parse(t, b)
	u := packet.UDP(f.Transport())
	word := u.Checksum()
	copy(u.Payload(), []byte{byte(word >> 8), byte(word)})
	u.UpdateChecksum(pseudo(&f))
	check(t, "computed zero", u.Checksum(), 0xffff)
	check(t, "updated to zero", packet.Delta(0).Replace16(0, word).UpdateUDP(word), 0xffff)
	check(t, "updated from there", packet.Delta(0).Replace16(word, 0).UpdateUDP(0xffff), word)

	g := parse(t, packettest.Partial(f.B))
	packet.Complete(&g)
	check(t, "completed zero", packet.UDP(g.Transport()).Checksum(), 0xffff)
}
