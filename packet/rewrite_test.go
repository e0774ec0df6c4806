package packet_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

// A conversation is two ends with ports, as one side of a NAT sees them.
type conversation struct {
	src, dst         packettest.Station
	srcPort, dstPort uint16
}

func (c conversation) tuple(p packet.Proto) packet.Tuple {
	return packet.Tuple{
		Src: packet.AddrFromNetip(c.src.IP), Dst: packet.AddrFromNetip(c.dst.IP),
		SrcPort: c.srcPort, DstPort: c.dstPort, Proto: p,
	}
}

// randomConversation is between the two Ethernet stations of a switch; MACs are
// not what is translated.
func randomConversation(rng *rand.Rand, v6 bool) conversation {
	c := conversation{alice, bob, uint16(rng.IntN(65536)), uint16(rng.IntN(65536))}
	c.src.IP, c.dst.IP = randomAddr(rng, v6), randomAddr(rng, v6)
	return c
}

func randomAddr(rng *rand.Rand, v6 bool) netip.Addr {
	var b [16]byte
	for i := range b {
		b[i] = byte(rng.Uint32())
		if rng.IntN(4) == 0 {
			b[i] = byte(-rng.IntN(2)) // sums that carry, and zeros
		}
	}
	if v6 {
		return netip.AddrFrom16(b)
	}
	return netip.AddrFrom4([4]byte(b[:4]))
}

// packets are what a NAT translates: each builds the same packet for any
// conversation, so what Edit makes of one is what the other one gives.
var packets = []struct {
	name  string
	v6    bool // possible with IPv6, too
	build func(c conversation) []byte
}{
	{"TCP", true, func(c conversation) []byte { return tcpOf(c, 1001) }},
	{"TCP unfinished", true, func(c conversation) []byte { return packettest.Partial(tcpOf(c, 1000)) }},
	{"TCP segments", true, func(c conversation) []byte { return packettest.GSO(tcpOf(c, 9999), 1448) }},
	{"TCP tagged", true, func(c conversation) []byte { return packettest.Tagged(tcpOf(c, 10), 7, 8) }},
	{"TCP padded", true, func(c conversation) []byte { return append(tcpOf(c, 0), "padding"...) }},
	{"UDP", true, func(c conversation) []byte { return udpOf(c, 999) }},
	{"UDP empty", true, func(c conversation) []byte { return udpOf(c, 0) }},
	{"UDP unfinished", true, func(c conversation) []byte { return packettest.Partial(udpOf(c, 99)) }},
	{"UDP train", true, func(c conversation) []byte { return packettest.GSO(udpOf(c, 9999), 1200) }},
	{"UDP without checksum", false, func(c conversation) []byte { return withoutChecksum(udpOf(c, 99)) }},
	{"UDP with IP options", false, func(c conversation) []byte {
		return packettest.IPv4(c.src, c.dst, packet.ProtoUDP, []byte{0x94, 4, 0, 0}, payload(udpOf(c, 9))[packet.IPv4MinLen:])
	}},
	{"echo", true, func(c conversation) []byte {
		return packettest.ICMPEcho(c.src, c.dst, c.srcPort, 7, pattern(56))
	}},
	{"echo reply", true, func(c conversation) []byte {
		return packettest.ICMPEchoReply(c.src, c.dst, c.srcPort, 7, pattern(57))
	}},
	{"no ports", true, func(c conversation) []byte { return packettest.IP(c.src, c.dst, 47, pattern(40)) }},
}

func tcpOf(c conversation, size int) []byte {
	return packettest.TCP(c.src, c.dst, packettest.Segment{
		SrcPort: c.srcPort, DstPort: c.dstPort, Seq: 0xfffff000, Ack: 7, Flags: packet.TCPAck | packet.TCPPsh,
		Options: []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8},
	}, pattern(size))
}

func udpOf(c conversation, size int) []byte {
	return packettest.UDP(c.src, c.dst, c.srcPort, c.dstPort, pattern(size))
}

func withoutChecksum(b []byte) []byte {
	packet.UDP(payload(b)[packet.IPv4MinLen:]).SetChecksum(0)
	return b
}

// eachPacket calls check for every kind of packet and many translations of it.
func eachPacket(t *testing.T, check func(t *testing.T, build func(conversation) []byte, from, to conversation)) {
	rng := rand.New(rand.NewPCG(21, 22))
	for _, p := range packets {
		for _, v6 := range []bool{false, true}[:1+btoi(p.v6)] {
			t.Run(fmt.Sprintf("%s v6=%v", p.name, v6), func(t *testing.T) {
				for range 200 {
					from, to := randomConversation(rng, v6), randomConversation(rng, v6)
					switch rng.IntN(3) { // masquerade, publish, both
					case 0:
						to.dst, to.dstPort = from.dst, from.dstPort
					case 1:
						to.src, to.srcPort = from.src, from.srcPort
					}
					check(t, p.build, from, to)
					if t.Failed() {
						t.Fatalf("from %+v to %+v", from, to)
					}
				}
			})
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestEdit compares a translated packet with one that was built as such, sums
// and unfinished sums included, and has it finished and summed independently.
func TestEdit(t *testing.T) {
	eachPacket(t, func(t *testing.T, build func(conversation) []byte, from, to conversation) {
		f, want := parse(t, build(from)), parse(t, build(to))
		tr := packet.Translation{Before: f.Tuple(), After: want.Tuple()}
		tr.Edit(&f)
		if !bytes.Equal(f.B, want.B) {
			t.Errorf("got  %x\nwant %x", f.B[:min(len(f.B), 100)], want.B[:min(len(f.B), 100)])
		}
		check(t, "tuple", f.Tuple(), tr.After)
		if f.Proto == packet.ProtoUDP && !f.Flags.Has(packet.NeedsChecksum) && packet.UDP(f.Transport()).Checksum() == 0 {
			return // which has no sum to check
		}
		for _, piece := range segments(t, f.B) {
			checkFinished(t, piece)
		}
	})
}

// TestEditZeroSum has both zeros of ones' complement as the result: a UDP
// checksum of zero would mean none.
func TestEditZeroSum(t *testing.T) {
	from, to := conversation{alice, bob, 1, 2}, conversation{alice, bob, 0, 2}
	for port := range 65536 {
		to.srcPort = uint16(port)
		f := parse(t, udpOf(from, 4))
		tr := packet.Translation{Before: from.tuple(packet.ProtoUDP), After: to.tuple(packet.ProtoUDP)}
		tr.Edit(&f)
		if want := udpOf(to, 4); !bytes.Equal(f.B, want) {
			t.Fatalf("port %d: got %x, want %x", port, f.B, want)
		}
	}
}

// TestEditFragments has every fragment edited by itself: the first one has the
// ports and a checksum over all of them, later ones have addresses only.
func TestEditFragments(t *testing.T) {
	eachPacket(t, func(t *testing.T, build func(conversation) []byte, from, to conversation) {
		whole := parse(t, build(from))
		if whole.EtherType != packet.EtherTypeIPv4 || whole.Segments() > 1 || whole.L4 == 0 || len(whole.Packet()) < 100 {
			return
		}
		b := build(to)
		translated := parse(t, b)
		want := fragments(t, b, 68)
		for i, piece := range fragments(t, whole.B, 68) {
			f := parse(t, piece)
			tr := packet.Translation{Before: whole.Tuple(), After: translated.Tuple()}
			tr.Edit(&f)
			if !bytes.Equal(f.B, want[i]) {
				t.Errorf("fragment %d:\ngot  %x\nwant %x", i, f.B, want[i])
			}
		}
	})
}

// TestEditThenFragment is the order of the router: translated, then cut.
func TestEditThenFragment(t *testing.T) {
	from, to := conversation{alice, bob, 1000, 53}, conversation{station("198.51.100.7"), bob, 2000, 53}
	to.src.MAC = alice.MAC
	f := parse(t, packettest.Partial(udpOf(from, 4000)))
	tr := packet.Translation{Before: from.tuple(packet.ProtoUDP), After: to.tuple(packet.ProtoUDP)}
	tr.Edit(&f)
	got := reassemble(t, fragments(t, f.B, 1500), 1500, 0, false)
	if want := payload(udpOf(to, 4000))[packet.IPv4MinLen:]; !bytes.Equal(got, want) {
		t.Error("what is put together again is not the translated datagram")
	}
}

// TestEditTunnel: where the unfinished checksum is that of the packet inside a
// container's own tunnel, the outer one is final and counts ports, too.
func TestEditTunnel(t *testing.T) {
	build := func(c conversation) (unfinished, finished []byte) {
		inner := tcpFrame(station("10.9.0.1"), station("10.9.0.2"), 100)
		vxlan := func(inner []byte) []byte {
			return packettest.UDP(c.src, c.dst, c.srcPort, c.dstPort, append(unhex("0800000000002a00"), inner[packet.VNetLen:]...))
		}
		finished = vxlan(inner)
		unfinished = vxlan(packettest.Partial(inner))
		const at = packet.IPv4MinLen + packet.UDPChecksumOffset // "local checksum offload": that of the finished packet
		copy(payload(unfinished)[at:at+2], payload(finished)[at:at+2])
		v := packet.VNet(unfinished)
		v.SetFlags(packet.VNetNeedsCSum)
		v.SetCSumStart(14 + 20 + 8 + 8 + 14 + 20)
		v.SetCSumOffset(packet.TCPChecksumOffset)
		return unfinished, finished
	}
	rng := rand.New(rand.NewPCG(23, 24))
	for range 100 {
		from, to := randomConversation(rng, false), randomConversation(rng, false)
		b, _ := build(from)
		f := parse(t, b)
		tr := packet.Translation{Before: from.tuple(packet.ProtoUDP), After: to.tuple(packet.ProtoUDP)}
		tr.Edit(&f)
		packet.Complete(&f)
		if _, want := build(to); !bytes.Equal(f.B, want) {
			t.Fatalf("got  %x\nwant %x", f.B, want)
		}
	}
}

// TestEditKeepsDamage: an incremental update leaves a wrong checksum wrong.
func TestEditKeepsDamage(t *testing.T) {
	from, to := conversation{alice, bob, 1, 2}, conversation{station("198.51.100.7"), bob, 3, 2}
	f := parse(t, tcpOf(from, 100))
	f.B[len(f.B)-1] ^= 1
	tr := packet.Translation{Before: from.tuple(packet.ProtoTCP), After: to.tuple(packet.ProtoTCP)}
	tr.Edit(&f)
	if packettest.Sum(f.Transport(), pseudo(&f)) == 0xffff {
		t.Error("a damaged segment came out with a right checksum")
	}
}

// TestEditTracked leaves a packet alone that is tracked and not translated.
func TestEditTracked(t *testing.T) {
	c := conversation{alice, bob, 1, 2}
	b := withoutChecksum(udpOf(c, 10))
	f := parse(t, bytes.Clone(b))
	tr := packet.Translation{Before: c.tuple(packet.ProtoUDP), After: c.tuple(packet.ProtoUDP)}
	tr.Edit(&f)
	if !bytes.Equal(f.B, b) {
		t.Error("the packet changed")
	}
}

func TestDecrementTTL(t *testing.T) {
	rng := rand.New(rand.NewPCG(25, 26))
	for ttl := 1; ttl < 256; ttl++ {
		for range 50 {
			ip := packet.IPv4(payload(udpOf(randomConversation(rng, false), 0)))
			ip.SetTTL(uint8(ttl))
			ip.SetID(uint16(rng.Uint32()))
			ip.UpdateChecksum()
			ip.DecrementTTL()
			check(t, "TTL", ip.TTL(), uint8(ttl-1))
			if packettest.Sum(ip[:packet.IPv4MinLen], 0) != 0xffff {
				t.Fatalf("checksum of %x is wrong", []byte(ip))
			}
		}
	}
}

// BenchmarkEdit translates a frame and translates it back: two rewrites.
func BenchmarkEdit(b *testing.B) {
	from, to := conversation{alice, bob, 1000, 80}, conversation{station("198.51.100.7"), bob, 2000, 80}
	for name, bm := range map[string]struct {
		proto packet.Proto
		frame []byte
	}{
		"TCP4 GSO": {packet.ProtoTCP, packettest.GSO(tcpOf(from, 60_000), 1448)}, // its sum is unfinished
		"TCP4":     {packet.ProtoTCP, tcpOf(from, 1448)},
		"UDP4":     {packet.ProtoUDP, udpOf(from, 18)},
	} {
		b.Run(name, func(b *testing.B) {
			out := packet.Translation{Before: from.tuple(bm.proto), After: to.tuple(bm.proto)}
			back := packet.Translation{Before: out.After, After: out.Before}
			f := parse(b, bm.frame)
			for b.Loop() {
				out.Edit(&f)
				back.Edit(&f)
			}
		})
	}
}
