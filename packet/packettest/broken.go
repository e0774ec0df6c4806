package packettest

import (
	"math/rand/v2"

	"fairlead/packet"
)

const (
	l3 = packet.VNetLen + packet.EthernetLen // of an untagged frame
	l4 = l3 + packet.IPv4MinLen              // of one without IP options
)

// edited builds a frame and lets edit spoil it.
func edited(make maker, edit func(rng *rand.Rand, b []byte)) maker {
	return func(rng *rand.Rand, src, dst Station) []byte {
		b := make(rng, src, dst)
		edit(rng, b)
		return b
	}
}

// cut builds a frame and keeps from least bytes to one less than most.
func cut(make maker, least, most int) maker {
	return func(rng *rand.Rand, src, dst Station) []byte {
		return make(rng, src, dst)[:least+rng.IntN(most-least)]
	}
}

func tcp4(rng *rand.Rand, src, dst Station) []byte { return tcp(rng, src, dst, bytes(rng, 100)) }
func udp4(rng *rand.Rand, src, dst Station) []byte { return udp(rng, src, dst, bytes(rng, 100)) }
func udp6(rng *rand.Rand, src, dst Station) []byte { return udp4(rng, src.IPv6(), dst.IPv6()) }
func echo4(rng *rand.Rand, src, dst Station) []byte {
	return ICMPEcho(src, dst, port(rng), 1, bytes(rng, 56))
}
func ask(rng *rand.Rand, src, dst Station) []byte { return ARPRequest(src, dst.IP) }
func partial4(rng *rand.Rand, src, dst Station) []byte {
	return Partial(tcp4(rng, src, dst))
}
func tso4(rng *rand.Rand, src, dst Station) []byte {
	return GSO(tcp(rng, src, dst, bytes(rng, 5000)), 1448)
}
func uso4(rng *rand.Rand, src, dst Station) []byte {
	return GSO(udp(rng, src, dst, bytes(rng, 5000)), 1000)
}

// broken are the ways to be malformed, by what Parse calls them.
var broken = map[packet.Reason][]maker{
	packet.Truncated: {
		cut(tcp4, 0, l3),
		cut(tcp4, l3, l3+packet.IPv4MinLen),
		cut(udp6, l3, l3+packet.IPv6Len),
		cut(func(rng *rand.Rand, src, dst Station) []byte {
			return Tagged(tcp4(rng, src, dst), 7)
		}, l3, l3+packet.VLANLen),
	},
	packet.BadVNet: {
		edited(tcp4, func(rng *rand.Rand, b []byte) { packet.VNet(b).SetFlags(4 << rng.IntN(6)) }),
		edited(tcp4, func(_ *rand.Rand, b []byte) { packet.VNet(b).SetHdrLen(uint16(len(b))) }),
		edited(tcp4, func(rng *rand.Rand, b []byte) { packet.VNet(b).SetHdrLen(uint16(1 + rng.IntN(13))) }),
		edited(partial4, func(_ *rand.Rand, b []byte) { packet.VNet(b).SetHdrLen(uint16(len(b))) }),
		edited(partial4, func(rng *rand.Rand, b []byte) { packet.VNet(b).SetCSumStart(uint16(rng.IntN(34))) }),
		edited(partial4, func(rng *rand.Rand, b []byte) { packet.VNet(b).SetCSumStart(uint16(35 + rng.IntN(200))) }),
		edited(partial4, func(rng *rand.Rand, b []byte) { packet.VNet(b).SetCSumOffset(uint16(17 + rng.IntN(65000))) }),
		edited(tunnel, func(_ *rand.Rand, b []byte) { packet.VNet(b).SetCSumStart(uint16(len(b))) }),
		edited(echo4, needsCSum), edited(ask, needsCSum), edited(fragment4, needsCSum), edited(fragment6, needsCSum),
		edited(tso4, func(_ *rand.Rand, b []byte) { packet.VNet(b).SetFlags(0) }),
		edited(tso4, func(_ *rand.Rand, b []byte) { packet.VNet(b).SetGSOSize(0) }),
		edited(tso4, func(_ *rand.Rand, b []byte) { packet.VNet(b).SetGSOSize(0xffff) }),
		edited(tso4, func(rng *rand.Rand, b []byte) {
			packet.VNet(b).SetGSOType(pick(rng, []uint8{2, packet.GSOUDP, packet.GSOTCPv6, packet.GSOUDPL4, 6, 0x20, packet.GSOECN}))
		}),
		edited(uso4, func(rng *rand.Rand, b []byte) {
			packet.VNet(b).SetGSOType(pick(rng, []uint8{packet.GSOTCPv4, packet.GSOUDP, packet.GSOUDPL4 | packet.GSOECN}))
		}),
		edited(uso4, func(rng *rand.Rand, b []byte) { packet.VNet(b).SetGSOSize(uint16(1 + rng.IntN(39))) }), // > 128 segments
		edited(uso4, func(_ *rand.Rand, b []byte) { packet.UDP(b[l4:]).SetLen(1000) }),
		func(rng *rand.Rand, src, dst Station) []byte { return append(tso4(rng, src, dst), 0) },
	},
	packet.TooManyTags: {
		func(rng *rand.Rand, src, dst Station) []byte { return Tagged(tcp4(rng, src, dst), 1, 2, 3) },
		func(rng *rand.Rand, src, dst Station) []byte { return Tagged(ask(rng, src, dst), 1, 2, 3, 4) },
	},
	packet.BadARP: {
		cut(ask, l3, l3+packet.ARPLen),
		edited(ask, func(rng *rand.Rand, b []byte) { b[l3+rng.IntN(6)] ^= byte(1 + rng.IntN(255)) }),
	},
	packet.BadIPv4: {
		edited(tcp4, func(rng *rand.Rand, b []byte) { b[l3] ^= byte(1+rng.IntN(15)) << 4 }),
		edited(tcp4, func(rng *rand.Rand, b []byte) { b[l3] = 0x40 | byte(rng.IntN(5)) }),
		edited(udp4, func(rng *rand.Rand, b []byte) { packet.IPv4(b[l3:]).SetTotalLen(rng.IntN(packet.IPv4MinLen)) }),
		edited(udp4, func(rng *rand.Rand, b []byte) { packet.IPv4(b[l3:]).SetTotalLen(len(b) - l3 + 1 + rng.IntN(1000)) }),
	},
	packet.BadIPv6: {
		edited(udp6, func(rng *rand.Rand, b []byte) { b[l3] ^= byte(1+rng.IntN(15)) << 4 }),
		edited(udp6, func(rng *rand.Rand, b []byte) {
			packet.IPv6(b[l3:]).SetPayloadLen(len(b) - l3 - packet.IPv6Len + 1 + rng.IntN(1000))
		}),
		chain(func(rng *rand.Rand) []byte { return []byte{59, 200, 0, 0, 0, 0, 0, 0} }),                       // longer than the packet
		chain(func(rng *rand.Rand) []byte { return []byte{60, 0, 1, 4}[:1+rng.IntN(4)] }),                     // cut off
		chain(func(rng *rand.Rand) []byte { return []byte{0, 0, 1, 4, 0, 0, 0, 0, 59, 0, 1, 4, 0, 0, 0, 0} }), // hop-by-hop behind another
		chain(func(rng *rand.Rand) []byte { // too many
			var b []byte
			for range 9 + rng.IntN(40) {
				b = append(b, byte(packet.ProtoDestOptions), 0, 1, 4, 0, 0, 0, 0)
			}
			return append(b, byte(packet.ProtoNoNext), 0, 1, 4, 0, 0, 0, 0)
		}),
	},
	packet.BadFragment: {
		edited(udp4, func(rng *rand.Rand, b []byte) { setFragment4(b, rng.IntN(2) == 0, 65528) }), // ping of death
		edited(udp4, func(_ *rand.Rand, b []byte) { // no multiple of eight, and more to come
			packet.IPv4(b[l3:]).SetTotalLen(packet.IPv4(b[l3:]).TotalLen() - 1)
			setFragment4(b, true, 64)
		}),
		edited(udp4, func(_ *rand.Rand, b []byte) { // empty
			packet.IPv4(b[l3:]).SetTotalLen(packet.IPv4MinLen)
			setFragment4(b, true, 64)
		}),
		edited(tcp4, func(_ *rand.Rand, b []byte) { setFragment4(b, false, 8) }), // RFC 1858
		fragmentChain(65528, false, 128),
		fragmentChain(0, true, 127),
		fragmentChain(1400, false, 0),
		chain(func(*rand.Rand) []byte { // a fragment of a fragment
			inner := fragmentHeader(packet.ProtoUDP, 8, false)
			return append(append(fragmentHeader(packet.ProtoFragment, 0, true), inner...), make([]byte, 8)...)
		}, packet.ProtoFragment),
	},
	packet.BadTransport: {
		edited(tcp4, func(rng *rand.Rand, b []byte) { packet.TCP(b[l4:]).SetHeaderLen(4 * rng.IntN(5)) }),
		func(rng *rand.Rand, src, dst Station) []byte { // options beyond the segment
			b := TCP(src, dst, Segment{}, nil)
			packet.TCP(b[l4:]).SetHeaderLen(24 + 4*rng.IntN(10))
			return b
		},
		short(packet.ProtoTCP, packet.TCPMinLen), short(packet.ProtoUDP, packet.UDPLen),
		short(packet.ProtoICMP, packet.ICMPLen), short(packet.ProtoICMPv6, packet.ICMPLen),
		edited(udp4, func(rng *rand.Rand, b []byte) { packet.UDP(b[l4:]).SetLen(rng.IntN(packet.UDPLen)) }),
		edited(udp4, func(rng *rand.Rand, b []byte) { packet.UDP(b[l4:]).SetLen(109 + rng.IntN(60000)) }),
		func(rng *rand.Rand, src, dst Station) []byte { // the first fragment ends within the header
			return setFragment4(IP(src, dst, packet.ProtoTCP, bytes(rng, 16)), true, 0)
		},
	},
}

// needsCSum asks for a checksum where no kernel leaves one unfinished.
func needsCSum(_ *rand.Rand, b []byte) {
	v := packet.VNet(b)
	v.SetFlags(packet.VNetNeedsCSum)
	v.SetCSumStart(l4 - packet.VNetLen)
	v.SetCSumOffset(2)
}

// chain is an IPv6 packet that begins with the extension header first, or
// destination options, and consists of what build makes.
func chain(build func(rng *rand.Rand) []byte, first ...packet.Proto) maker {
	return func(rng *rand.Rand, src, dst Station) []byte {
		proto := packet.ProtoDestOptions
		if len(first) > 0 {
			proto = first[0]
		}
		return IP(src.IPv6(), dst.IPv6(), proto, build(rng))
	}
}

// fragmentChain is an IPv6 fragment of size bytes.
func fragmentChain(offset int, more bool, size int) maker {
	return chain(func(*rand.Rand) []byte {
		return append(fragmentHeader(packet.ProtoUDP, offset, more), make([]byte, size)...)
	}, packet.ProtoFragment)
}

// short is a transport header that ends early.
func short(proto packet.Proto, length int) maker {
	return func(rng *rand.Rand, src, dst Station) []byte {
		if proto == packet.ProtoICMPv6 {
			src, dst = src.IPv6(), dst.IPv6()
		}
		return IP(src, dst, proto, make([]byte, rng.IntN(length)))
	}
}
