package packet_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

// errorsAbout are the errors that a NAT carries through, of both families.
var errorsAbout = []struct {
	type4, code4, type6, code6 uint8
	rest                       uint32
}{
	{packet.ICMPUnreachable, packet.ICMPPortUnreachable, packet.ICMPv6Unreachable, packet.ICMPv6PortUnreachable, 0},
	{packet.ICMPUnreachable, packet.ICMPFragNeeded, packet.ICMPv6PacketTooBig, 0, 1280},
	{packet.ICMPTimeExceeded, packet.ICMPTTLExceeded, packet.ICMPv6TimeExceeded, 0, 0},
	{packet.ICMPParameter, 0, packet.ICMPv6Parameter, 0, 8 << 24},
}

// icmpError is one of them, of src about a packet, sent to who that is from.
func icmpError(kind int, src packettest.Station, c conversation, about []byte, limit int) []byte {
	e := errorsAbout[kind]
	if src.IP.Is6() {
		return packettest.ICMPError(src, c.src, e.type6, e.code6, e.rest, about, limit)
	}
	return packettest.ICMPError(src, c.src, e.type4, e.code4, e.rest, about, limit)
}

// TestEditQuoted compares a translated error about every kind of packet, cut
// off everywhere within its headers, with one that was built as such.
func TestEditQuoted(t *testing.T) {
	rng := rand.New(rand.NewPCG(31, 32))
	eachPacket(t, func(t *testing.T, build func(conversation) []byte, from, to conversation) {
		if rng.IntN(4) != 0 {
			return // the cuts make up for it
		}
		about, wanted := build(from), build(to)
		whole, translated := parse(t, about), parse(t, wanted)
		if whole.L4 == 0 || whole.Flags.Has(packet.NeedsChecksum) {
			return // see below
		}
		before, after := whole.Tuple(), translated.Tuple()
		kind := rng.IntN(len(errorsAbout))
		router := packettest.Station{MAC: bob.MAC, IP: randomAddr(rng, whole.EtherType == packet.EtherTypeIPv6)}
		// Who sends the error when the destination is translated: whom the
		// receiver knows as such.
		sender := router
		if after.Dst != before.Dst {
			sender.IP = to.dst.IP
		}
		for cut := 8; cut < 40; cut++ {
			limit := int(whole.L4-uint16(whole.L3)) + cut
			f := parse(t, icmpError(kind, router, from, about, limit))
			want := icmpError(kind, sender, to, wanted, limit)
			if whole.Proto == packet.ProtoTCP && cut == packet.TCPChecksumOffset+1 {
				// Half a checksum is not brought up to date.
				want = icmpError(kind, sender, to, checksumOf(t, about, wanted), limit)
			}
			got, ok := f.Quoted()
			if !ok || got != before {
				t.Fatalf("Quoted = %v, %v, want %v", got, ok, before)
			}
			tr := packet.Translation{Quoted: true, Before: before, After: after}
			tr.Edit(&f)
			if !bytes.Equal(f.B, want) {
				t.Fatalf("%d bytes of transport header:\ngot  %x\nwant %x", cut, f.B, want)
			}
			if back, ok := f.Quoted(); !ok || back != after {
				t.Fatalf("afterwards Quoted = %v, %v, want %v", back, ok, after)
			}
		}
	})
}

// checksumOf is a TCP frame with the checksum of another one.
func checksumOf(t *testing.T, other, b []byte) []byte {
	f, o := parse(t, bytes.Clone(b)), parse(t, other)
	packet.TCP(f.Transport()).SetChecksum(packet.TCP(o.Transport()).Checksum())
	return f.B
}

// TestEditQuotedUnfinished: the quoted packet was never on a wire, so its
// checksum is no sum over anything. The error's own must be right.
func TestEditQuotedUnfinished(t *testing.T) {
	from, to := conversation{alice, bob, 1000, 80}, conversation{station("198.51.100.7"), station("198.51.100.8"), 2000, 8080}
	for _, about := range [][]byte{
		packettest.GSO(tcpOf(from, 5000), 1448), packettest.Partial(udpOf(from, 10)),
		packettest.IP(alice, bob, 47, pattern(40)),
	} {
		f := parse(t, icmpError(0, bob, from, about, 576))
		tuple, ok := f.Quoted()
		if !ok {
			t.Fatal("not understood")
		}
		after := to.tuple(tuple.Proto)
		if tuple.Proto == 47 {
			after.SrcPort, after.DstPort = 0, 0
		}
		tr := packet.Translation{Quoted: true, Before: tuple, After: after}
		tr.Edit(&f)
		if packettest.Sum(f.Transport(), 0) != 0xffff {
			t.Errorf("the checksum of the error is wrong")
		}
		if got, ok := f.Quoted(); !ok || got != after {
			t.Errorf("Quoted = %v, %v, want %v", got, ok, after)
		}
		checkFinished(t, f.B)
	}
}

// TestEditQuotedExtensions: behind the quoted packet come zeros and extensions
// (RFC 4884), which stay; so do type, code and MTU, and UDP without a checksum.
func TestEditQuotedExtensions(t *testing.T) {
	from, to := conversation{alice, bob, 1000, 53}, conversation{station("198.51.100.7"), bob, 2000, 53}
	to.src.MAC = alice.MAC
	extended := func(c conversation) []byte {
		b := withoutChecksum(udpOf(c, 4))
		quoted := append(payload(b), make([]byte, 128-32)...)
		quoted = append(quoted, unhex("2000beef 00080101 00012301")...)
		m := packet.ICMP(append(make([]byte, packet.ICMPLen), quoted...))
		m.SetType(packet.ICMPUnreachable)
		m.SetCode(packet.ICMPFragNeeded)
		m.SetMTU(32<<16 | 1400)
		m.SetChecksum(^packettest.Sum(m, 0))
		return packettest.IP(bob, c.src, packet.ProtoICMP, m)
	}
	f := parse(t, extended(from))
	tr := packet.Translation{Quoted: true, Before: from.tuple(packet.ProtoUDP), After: to.tuple(packet.ProtoUDP)}
	tr.Edit(&f)
	if want := extended(to); !bytes.Equal(f.B, want) {
		t.Errorf("got  %x\nwant %x", f.B, want)
	}
}

// TestEditQuotedIPOptions finds ports behind the options of the quoted packet.
func TestEditQuotedIPOptions(t *testing.T) {
	from, to := conversation{alice, bob, 1000, 53}, conversation{station("198.51.100.7"), bob, 2000, 53}
	build := func(c conversation) []byte {
		about := packettest.IPv4(c.src, c.dst, packet.ProtoUDP, unhex("94040000 01010101"), payload(udpOf(c, 9))[packet.IPv4MinLen:])
		return packettest.ICMPError(bob, packettest.Station{MAC: alice.MAC, IP: c.src.IP}, packet.ICMPTimeExceeded, 0, 0, about, 36)
	}
	f := parse(t, build(from))
	got, ok := f.Quoted()
	if !ok || got != from.tuple(packet.ProtoUDP) {
		t.Fatalf("Quoted = %v, %v", got, ok)
	}
	tr := packet.Translation{Quoted: true, Before: got, After: to.tuple(packet.ProtoUDP)}
	tr.Edit(&f)
	if want := build(to); !bytes.Equal(f.B, want) {
		t.Errorf("got  %x\nwant %x", f.B, want)
	}
}

// TestQuotedRefused: what is no error about a packet of its receiver's, or is
// damaged.
func TestQuotedRefused(t *testing.T) {
	c := conversation{alice, bob, 1000, 80}
	const quoted = packet.IPv4MinLen + packet.ICMPLen // in the packet
	// resum spoils an error and sums it again.
	resum := func(b []byte, edit func(quoted []byte)) []byte {
		b = bytes.Clone(b)
		edit(payload(b)[quoted:])
		packet.ICMP(payload(b)[packet.IPv4MinLen:]).UpdateChecksum(0)
		return b
	}
	header := func(edit func(ip packet.IPv4)) func(b []byte) {
		return func(b []byte) {
			edit(packet.IPv4(b))
			packet.IPv4(b).UpdateChecksum()
		}
	}
	good := icmpError(0, bob, c, tcpOf(c, 100), 60)
	if f := parse(t, good); true {
		if _, ok := f.Quoted(); !ok {
			t.Fatal("the good one is refused")
		}
	}
	for name, b := range map[string][]byte{
		"no ICMP":             tcpOf(c, 10),
		"ARP":                 packettest.ARPRequest(alice, bob.IP),
		"echo":                packettest.ICMPEcho(alice, bob, 1, 2, pattern(60)),
		"redirect":            packettest.ICMPError(bob, alice, packet.ICMPRedirect, 1, 0, tcpOf(c, 9), 60),
		"source quench":       packettest.ICMPError(bob, alice, packet.ICMPSourceQuench, 0, 0, tcpOf(c, 9), 60),
		"seven bytes":         icmpError(0, bob, c, tcpOf(c, 0), 27),
		"no transport header": icmpError(0, bob, c, tcpOf(c, 0), 20),
		"half an IP header":   icmpError(0, bob, c, tcpOf(c, 0), 10),
		"nothing":             icmpError(0, bob, c, tcpOf(c, 0), 0),
		"another's packet":    packettest.ICMPError(bob, station("10.88.0.9"), 3, 3, 0, tcpOf(c, 9), 60),
		"about an error":      icmpError(0, bob, c, packettest.ICMPError(alice, bob, 3, 3, 0, tcpOf(c, 9), 60), 576),
		"about a timestamp": resum(icmpError(0, bob, c, packettest.ICMPEcho(alice, bob, 1, 1, nil), 60),
			func(b []byte) { b[packet.IPv4MinLen] = 13 }),
		"about ICMPv6 in IPv4": icmpError(0, bob, c, packettest.IP(alice, bob, packet.ProtoICMPv6, pattern(16)), 60),
		"wrong checksum":       with(good, func(b []byte) { b[len(b)-1] ^= 1 }),
		"wrong IP checksum":    resum(good, func(b []byte) { b[8]-- }),
		"IPv6 within":          resum(good, func(b []byte) { b[0] = 0x65 }),
		"IP header too short":  resum(good, header(func(ip packet.IPv4) { ip[0] = 0x44 })),
		"IP header too long":   resum(icmpError(0, bob, c, tcpOf(c, 0), 30), func(b []byte) { b[0] = 0x4f }),
		"total length too short": resum(good, header(func(ip packet.IPv4) {
			ip.SetTotalLen(packet.IPv4MinLen + 7)
		})),
		"about a later fragment": resum(good, header(func(ip packet.IPv4) { ip.SetFragment(false, false, 64) })),
		"a fragment itself":      fragments(t, icmpError(0, bob, c, tcpOf(c, 100), 200), 68)[0],
		"v6: destroyed chain": icmpError(0, bob.IPv6(), conversation{src: alice.IPv6()},
			packettest.IP(alice.IPv6(), bob.IPv6(), packet.ProtoDestOptions, append(unhex("3b01 0104 00000000 0000000000000000"), pattern(20)...)), 50),
		"v6: half a header": icmpError(0, bob.IPv6(), conversation{src: alice.IPv6()}, tcpFrame(alice.IPv6(), bob.IPv6(), 9), 39),
		"v6: later fragment": icmpError(0, bob.IPv6(), conversation{src: alice.IPv6()},
			packettest.IP(alice.IPv6(), bob.IPv6(), packet.ProtoFragment, append(unhex("1100 0010 00000001"), pattern(20)...)), 100),
		"v6: redirect": packettest.ICMPError(bob.IPv6(), alice.IPv6(), packet.ICMPv6Redirect, 0, 0, tcpFrame(alice.IPv6(), bob.IPv6(), 9), 60),
	} {
		f := parse(t, bytes.Clone(b))
		if got, ok := f.Quoted(); ok {
			t.Errorf("%s: Quoted = %v", name, got)
		}
	}
}

// FuzzTranslate translates any frame, and any error about any packet, and back.
func FuzzTranslate(f *testing.F) {
	seed(f, func(b []byte) { f.Add(b, false, []byte("0123456789abcdef"), uint16(1), uint16(2)) })
	c := conversation{alice, bob, 1000, 80}
	for kind := range errorsAbout {
		for _, limit := range []int{0, 20, 27, 28, 38, 60, 1000} {
			f.Add(icmpError(kind, bob, c, tcpOf(c, 1000), limit), false, []byte{198, 51, 100, 7}, uint16(2000), uint16(80))
		}
		f.Add(icmpError(kind, bob, c, udpOf(c, 1000), 60), true, []byte{198, 51, 100, 7}, uint16(2000), uint16(80))
		f.Add(icmpError(kind, bob, c, packettest.ICMPEcho(alice, bob, 9, 1, pattern(40)), 60), false, []byte{1}, uint16(9), uint16(9))
		six := conversation{alice.IPv6(), bob.IPv6(), 1000, 80}
		f.Add(icmpError(kind, bob.IPv6(), six, udpOf(six, 10), 1000), false, bytes.Repeat([]byte{0xfd}, 32), uint16(2000), uint16(80))
	}
	f.Fuzz(func(t *testing.T, b []byte, plain bool, addrs []byte, srcPort, dstPort uint16) {
		frame := packet.Frame{B: bytes.Clone(b)}
		if len(b) > packet.MaxFrame || packet.Parse(&frame) != packet.OK ||
			frame.EtherType != packet.EtherTypeIPv4 && frame.EtherType != packet.EtherTypeIPv6 {
			return
		}
		before, quoted := frame.Quoted()
		if quoted = quoted && !plain; !quoted {
			before = frame.Tuple()
		}
		if !bytes.Equal(frame.B, b) {
			t.Fatal("Quoted wrote to the frame")
		}
		tr := packet.Translation{Quoted: quoted, Before: before, After: fuzzTuple(before, addrs, srcPort, dstPort)}
		translate(t, &frame, tr)
	})
}

// fuzzTuple is a tuple of the same family and protocol. A protocol without
// ports keeps none.
func fuzzTuple(t packet.Tuple, addrs []byte, srcPort, dstPort uint16) packet.Tuple {
	var b [32]byte
	copy(b[:], addrs)
	if t.Src.Is4() {
		t.Src, t.Dst = packet.AddrFrom4([4]byte(b[:4])), packet.AddrFrom4([4]byte(b[16:20]))
	} else {
		t.Src, t.Dst = packet.Addr(b[:16]), packet.Addr(b[16:])
	}
	switch t.Proto {
	case packet.ProtoTCP, packet.ProtoUDP:
		t.SrcPort, t.DstPort = srcPort, dstPort
	case packet.ProtoICMP, packet.ProtoICMPv6:
		// The port of who answers is 0, and of what is no echo both.
		if t.SrcPort != 0 {
			t.SrcPort = srcPort
		} else if t.DstPort != 0 {
			t.DstPort = dstPort
		}
	}
	return t
}

// translate edits the frame forth and back, and holds what must not change
// against what it was.
func translate(t *testing.T, f *packet.Frame, tr packet.Translation) {
	was := f.Clone(nil)
	tr.Edit(f)
	now := *f
	if r := packet.Parse(&now); r != packet.OK {
		t.Fatalf("the translated frame is %v", r)
	}
	if now.L4 != was.L4 || now.Flags != was.Flags || now.Proto != was.Proto || now.SrcPort != f.SrcPort || now.DstPort != f.DstPort {
		t.Fatalf("the record %+v does not fit the bytes: %+v", *f, now)
	}
	if tr.Quoted && tr.Before != tr.After {
		checkTranslatedError(t, f, &was, tr.After)
	}

	back := tr
	back.Before, back.After = tr.After, tr.Before
	back.Edit(f)
	l3, from := int(was.L3), int(was.L3)
	if tr.Quoted {
		// The sender is lost where it took the place of the destination.
		from = int(was.L4) + 4
	}
	got, want := f.Ether(), was.Ether()
	for i := from; i < len(got); i++ {
		word := l3 + (i-l3)&^1
		if got[i] != want[i] && !bothZeros(got[word:], want[word:]) {
			t.Fatalf("there and back differs at %d:\ngot  %x\nwant %x", i, got, want)
		}
	}
}

// bothZeros reports whether two checksums are the two zeros of ones' complement.
func bothZeros(a, b []byte) bool {
	zeros := [2]string{"\x00\x00", "\xff\xff"}
	x, y := string(a[:min(2, len(a))]), string(b[:min(2, len(b))])
	return x == zeros[0] && y == zeros[1] || x == zeros[1] && y == zeros[0]
}

// checkTranslatedError wants an error whose checksums are right and that says
// what it said, of another packet.
func checkTranslatedError(t *testing.T, f, was *packet.Frame, after packet.Tuple) {
	if got, ok := f.Quoted(); !ok || got != after {
		t.Fatalf("Quoted = %v, %v, want %v", got, ok, after)
	}
	m, w := packet.ICMP(f.Transport()), packet.ICMP(was.Transport())
	if m.Type() != w.Type() || m.Code() != w.Code() || m.MTU() != w.MTU() {
		t.Error("type, code or MTU changed")
	}
	if f.EtherType == packet.EtherTypeIPv4 {
		now, then := packet.IPv4(f.Packet()), packet.IPv4(was.Packet())
		header := now.HeaderLen()
		check(t, "sum over the IP header", packettest.Sum(now[:header], 0)%0xffff, packettest.Sum(then[:header], 0)%0xffff)
	}
}
