package packettest

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"

	"fairlead/packet"
)

// Stations are those Random takes when it is given none.
var Stations = []Station{
	station(2), station(3), station(4), station(5),
}

func station(n byte) Station {
	ip := netip.AddrFrom4([4]byte{10, 88, 0, n})
	return Station{packet.MACFromIPv4(ip), ip}
}

// ParseReasons are what Parse may return: OK, and every way to be malformed.
var ParseReasons = []packet.Reason{
	packet.OK, packet.Truncated, packet.BadVNet, packet.TooManyTags, packet.BadARP,
	packet.BadIPv4, packet.BadIPv6, packet.BadFragment, packet.BadTransport,
}

// Random builds a frame between two of the stations. About every second one is
// well-formed; the others are broken, each way that Parse knows as often as the
// others. The same rng gives the same frames.
func Random(rng *rand.Rand, stations ...Station) []byte {
	if rng.IntN(2) == 0 {
		return Good(rng, stations...)
	}
	return Broken(rng, ParseReasons[1+rng.IntN(len(ParseReasons)-1)], stations...)
}

// Good builds a well-formed frame between two of the stations, of any kind a
// container may send: any protocol, tagged, padded, fragmented, unfinished.
func Good(rng *rand.Rand, stations ...Station) []byte {
	src, dst := pair(rng, stations)
	return dress(rng, pick(rng, good)(rng, src, dst))
}

// Broken builds a frame that Parse refuses for that reason. For OK it is Good.
func Broken(rng *rand.Rand, r packet.Reason, stations ...Station) []byte {
	ways := broken[r]
	if len(ways) == 0 {
		return Good(rng, stations...)
	}
	src, dst := pair(rng, stations)
	return pick(rng, ways)(rng, src, dst)
}

// A maker builds one kind of frame.
type maker func(rng *rand.Rand, src, dst Station) []byte

func pick[T any](rng *rand.Rand, from []T) T { return from[rng.IntN(len(from))] }

func pair(rng *rand.Rand, stations []Station) (src, dst Station) {
	if len(stations) == 0 {
		stations = Stations
	}
	return pick(rng, stations), pick(rng, stations)
}

// dress varies what is around a network packet.
func dress(rng *rand.Rand, b []byte) []byte {
	switch rng.IntN(8) {
	case 0:
		b = Tagged(b, uint16(rng.IntN(65536)))
	case 1:
		b = Tagged(b, uint16(rng.IntN(65536)), uint16(rng.IntN(65536)))
	case 2:
		if packet.VNet(b).GSOType() == packet.GSONone {
			b = append(b, make([]byte, rng.IntN(46))...) // as Ethernet pads
		}
	case 3:
		if packet.VNet(b).IsZero() {
			packet.VNet(b).SetFlags(packet.VNetDataValid)
		}
	}
	e := packet.Ethernet(b[packet.VNetLen:])
	switch rng.IntN(12) {
	case 0:
		e.SetDst(packet.BroadcastMAC)
	case 1:
		e.SetDst(packet.MAC{0x01, 0x00, 0x5e, 0, 0, byte(rng.IntN(256))})
	case 2:
		e.SetDst(packet.MAC{0x02, 0xff, 0, 0, 0, byte(rng.IntN(256))}) // nobody's
	}
	return b
}

// bytes returns n bytes or up to as many that do not all look alike.
func bytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	x := rng.Uint64()
	for i := range b {
		b[i] = byte(x >> (i % 8 * 8) * uint64(i+1))
	}
	return b
}

func payload(rng *rand.Rand) []byte { return bytes(rng, rng.IntN(1400)) }

func port(rng *rand.Rand) uint16 { return uint16(1 + rng.IntN(65535)) }

// family turns both stations to IPv6 every second time.
func family(rng *rand.Rand, src, dst Station) (Station, Station) {
	if rng.IntN(2) == 0 {
		return src, dst
	}
	return src.IPv6(), dst.IPv6()
}

func tcp(rng *rand.Rand, src, dst Station, payload []byte) []byte {
	s := Segment{SrcPort: port(rng), DstPort: port(rng), Seq: rng.Uint32(), Ack: rng.Uint32(),
		Flags: uint8(rng.IntN(256))}
	if rng.IntN(2) == 0 {
		s.Options = []byte{packet.TCPOptionMSS, 4, 5, 0xb4, packet.TCPOptionNop, 3, 3, 7}
	}
	return TCP(src, dst, s, payload)
}

func udp(rng *rand.Rand, src, dst Station, payload []byte) []byte {
	return UDP(src, dst, port(rng), port(rng), payload)
}

// good are the kinds of well-formed frames.
var good = []maker{
	func(rng *rand.Rand, src, dst Station) []byte {
		src, dst = family(rng, src, dst)
		return tcp(rng, src, dst, payload(rng))
	},
	func(rng *rand.Rand, src, dst Station) []byte {
		src, dst = family(rng, src, dst)
		return Partial(tcp(rng, src, dst, payload(rng)))
	},
	func(rng *rand.Rand, src, dst Station) []byte {
		src, dst = family(rng, src, dst)
		return udp(rng, src, dst, payload(rng))
	},
	func(rng *rand.Rand, src, dst Station) []byte {
		src, dst = family(rng, src, dst)
		return Partial(udp(rng, src, dst, payload(rng)))
	},
	func(rng *rand.Rand, src, dst Station) []byte {
		src, dst = family(rng, src, dst)
		return GSO(tcp(rng, src, dst, bytes(rng, rng.IntN(20000))), 536+rng.IntN(1000))
	},
	func(rng *rand.Rand, src, dst Station) []byte {
		src, dst = family(rng, src, dst)
		size := 1 + rng.IntN(1400)
		return GSO(udp(rng, src, dst, bytes(rng, rng.IntN(size*20))), size)
	},
	func(rng *rand.Rand, src, dst Station) []byte {
		src, dst = family(rng, src, dst)
		return ICMPEcho(src, dst, port(rng), port(rng), payload(rng))
	},
	func(rng *rand.Rand, src, dst Station) []byte {
		src, dst = family(rng, src, dst)
		return ICMPEchoReply(src, dst, port(rng), port(rng), payload(rng))
	},
	func(rng *rand.Rand, src, dst Station) []byte { return ARPRequest(src, dst.IP) },
	func(rng *rand.Rand, src, dst Station) []byte { return ARPReply(src, dst) },
	func(rng *rand.Rand, src, dst Station) []byte {
		src, dst = src.IPv6(), dst.IPv6()
		return Discovery(src, dst, packet.ICMPv6NeighborSolicit, dst.IP, src.MAC)
	},
	func(rng *rand.Rand, src, dst Station) []byte {
		src, dst = src.IPv6(), dst.IPv6()
		return Discovery(src, dst, packet.ICMPv6NeighborAdvert, src.IP, src.MAC)
	},
	fragment4,
	fragment6,
	extensions6,
	tunnel,
	func(rng *rand.Rand, src, dst Station) []byte { // IP options: router alert
		return IPv4(src, dst, packet.ProtoUDP, []byte{0x94, 4, 0, 0},
			udp(rng, src, dst, payload(rng))[packet.VNetLen+packet.EthernetLen+packet.IPv4MinLen:])
	},
	func(rng *rand.Rand, src, dst Station) []byte { // protocols Parse does not read
		src, dst = family(rng, src, dst)
		return IP(src, dst, pick(rng, []packet.Proto{packet.ProtoESP, packet.ProtoNoNext, 2, 47, 132}), payload(rng))
	},
	func(rng *rand.Rand, src, dst Station) []byte { // MPLS, LLDP, ours
		t := pick(rng, []packet.EtherType{0x8847, 0x88cc, 0x88b5})
		return Ethernet(src.MAC, dst.MAC, t, payload(rng))
	},
	func(rng *rand.Rand, src, dst Station) []byte { // IEEE 802.3: spanning tree
		p := append([]byte{0x42, 0x42, 3}, bytes(rng, 35)...)
		return Ethernet(src.MAC, packet.MAC{1, 0x80, 0xc2}, packet.EtherType(len(p)), p)
	},
}

// datagram is a UDP datagram of size bytes without its IP header.
func datagram(rng *rand.Rand, src, dst Station, size int) []byte {
	f := parsed(udp(rng, src, dst, bytes(rng, size-packet.UDPLen)))
	return f.Transport()
}

// fragment4 is one piece of an IPv4 datagram.
func fragment4(rng *rand.Rand, src, dst Station) []byte {
	whole := datagram(rng, src, dst, 3000)
	offset := pick(rng, []int{0, 1400, 2800})
	more := offset < 2800
	return setFragment4(IP(src, dst, packet.ProtoUDP, whole[offset:min(offset+1400, 3000)]), more, offset)
}

func setFragment4(b []byte, more bool, offset int) []byte {
	ip := packet.IPv4(b[packet.VNetLen+packet.EthernetLen:])
	ip.SetFragment(false, more, offset)
	ip.SetChecksum(0)
	ip.SetChecksum(^Sum(ip[:ip.HeaderLen()], 0))
	return b
}

// fragment6 is one piece of an IPv6 packet.
func fragment6(rng *rand.Rand, src, dst Station) []byte {
	src, dst = src.IPv6(), dst.IPv6()
	whole := datagram(rng, src, dst, 3000)
	offset := pick(rng, []int{0, 1400, 2800})
	h := fragmentHeader(packet.ProtoUDP, offset, offset < 2800)
	return IP(src, dst, packet.ProtoFragment, append(h, whole[offset:min(offset+1400, 3000)]...))
}

func fragmentHeader(next packet.Proto, offset int, more bool) []byte {
	h := []byte{byte(next), 0, 0, 0, 0xca, 0xfe, 0xba, 0xbe}
	binary.BigEndian.PutUint16(h[2:], uint16(offset))
	if more {
		h[3] |= 1
	}
	return h
}

// extensions6 is an IPv6 datagram behind up to eight extension headers, an
// atomic fragment header possibly among them.
func extensions6(rng *rand.Rand, src, dst Station) []byte {
	src, dst = src.IPv6(), dst.IPv6()
	next, b := packet.ProtoUDP, datagram(rng, src, dst, packet.UDPLen+rng.IntN(100))
	if rng.IntN(3) == 0 {
		b = append(fragmentHeader(next, 0, false), b...)
		next = packet.ProtoFragment
	}
	for range rng.IntN(6) {
		var h []byte
		if pick := rng.IntN(3); pick == 0 {
			h = append([]byte{byte(next), 4}, make([]byte, 22)...)
			next = packet.ProtoAH
		} else {
			words := rng.IntN(3)
			h = append([]byte{byte(next), byte(words), 1, byte(words*8 + 4)}, make([]byte, words*8+4)...)
			next = packet.ProtoDestOptions
		}
		b = append(h, b...)
	}
	if rng.IntN(2) == 0 {
		b = append([]byte{byte(next), 0, 5, 2, 0, 0, 1, 0}, b...) // router alert
		next = packet.ProtoHopByHop
	}
	return IP(src, dst, next, b)
}

// tunnel is a VXLAN packet as a container's kernel hands it over: the inner
// checksum is unfinished, the outer one absent.
func tunnel(rng *rand.Rand, src, dst Station) []byte {
	inner := Partial(tcp(rng, station(200), station(201), bytes(rng, 100)))
	vxlan := append([]byte{8, 0, 0, 0, 0, 0, 42, 0}, inner[packet.VNetLen:]...)
	b := UDP(src, dst, port(rng), 4789, vxlan)
	f := parsed(b)
	packet.UDP(f.Transport()).SetChecksum(0)
	v := f.VNet()
	v.SetFlags(packet.VNetNeedsCSum)
	v.SetCSumStart(f.L4 + packet.UDPLen + 8 + packet.VNet(inner).CSumStart())
	v.SetCSumOffset(packet.TCPChecksumOffset)
	return f.B
}
