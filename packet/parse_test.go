package packet_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

// payload returns the network packet of a frame that has no tags.
func payload(b []byte) []byte { return b[packet.VNetLen+packet.EthernetLen:] }

// with returns b after edit.
func with(b []byte, edit func(b []byte)) []byte {
	edit(b)
	return b
}

// vnet returns b with another virtio-net header.
func vnet(header string, b []byte) []byte {
	return with(b, func(b []byte) { copy(b, unhex(header)) })
}

// ip4 and ip6 wrap bytes written in hexadecimal.
func ip4(proto packet.Proto, s string) []byte { return packettest.IP(alice, bob, proto, unhex(s)) }
func ip6(proto packet.Proto, s string) []byte {
	return packettest.IP(alice.IPv6(), bob.IPv6(), proto, unhex(s))
}

// fragment4 sets flags and offset of an IPv4 frame.
func fragment4(b []byte, more bool, offset int) []byte {
	return with(b, func(b []byte) { packet.IPv4(payload(b)).SetFragment(false, more, offset) })
}

const (
	udpHeader = "1111 2222 0008 0000" // ports 4369 and 8738
	tcpHeader = "1111 2222 00000000 00000000 50 10 0000 0000 0000"
)

func TestParseOK(t *testing.T) {
	const (
		ipv4, ipv6, arp = packet.EtherTypeIPv4, packet.EtherTypeIPv6, packet.EtherTypeARP
		tcp, udp        = packet.ProtoTCP, packet.ProtoUDP
		icmp, icmp6     = packet.ProtoICMP, packet.ProtoICMPv6
	)
	type record = packet.Frame // B stays nil
	tests := []struct {
		name  string
		frame []byte
		want  record
	}{
		{"TCP", tcpFrame(alice, bob, 10),
			record{L3: 14, L4: 34, SrcPort: 40000, DstPort: 80, EtherType: ipv4, Proto: tcp}},
		{"TCP unfinished", packettest.Partial(tcpFrame(alice, bob, 10)),
			record{L3: 14, L4: 34, SrcPort: 40000, DstPort: 80, EtherType: ipv4, Proto: tcp, Flags: packet.NeedsChecksum}},
		{"TCP over IPv6", tcpFrame(alice.IPv6(), bob.IPv6(), 10),
			record{L3: 14, L4: 54, SrcPort: 40000, DstPort: 80, EtherType: ipv6, Proto: tcp}},
		{"TSO", packettest.GSO(tcpFrame(alice, bob, 5000), 1448),
			record{L3: 14, L4: 34, SrcPort: 40000, DstPort: 80, EtherType: ipv4, Proto: tcp, Flags: packet.NeedsChecksum | packet.GSO}},
		{"TSO with ECN", with(packettest.GSO(tcpFrame(alice.IPv6(), bob.IPv6(), 5000), 1448), func(b []byte) {
			packet.VNet(b).SetGSOType(packet.GSOTCPv6 | packet.GSOECN)
		}), record{L3: 14, L4: 54, SrcPort: 40000, DstPort: 80, EtherType: ipv6, Proto: tcp, Flags: packet.NeedsChecksum | packet.GSO}},
		{"USO", packettest.GSO(packettest.UDP(alice, bob, 1, 2, pattern(128*9)), 9),
			record{L3: 14, L4: 34, SrcPort: 1, DstPort: 2, EtherType: ipv4, Proto: udp, Flags: packet.NeedsChecksum | packet.GSO}},
		{"one tag", packettest.Tagged(packettest.Partial(tcpFrame(alice, bob, 10)), 0x2007),
			record{L3: 18, L4: 38, SrcPort: 40000, DstPort: 80, EtherType: ipv4, Proto: tcp, Tags: 1, VLAN: [2]uint16{0x2007}, Flags: packet.NeedsChecksum}},
		{"two tags", packettest.Tagged(packettest.ICMPEcho(alice, bob, 9, 1, nil), 7, 8),
			record{L3: 22, L4: 42, SrcPort: 9, EtherType: ipv4, Proto: icmp, Tags: 2, VLAN: [2]uint16{7, 8}}},
		{"old QinQ", with(packettest.Tagged(packettest.ARPRequest(alice, bob.IP), 7), func(b []byte) { copy(b[22:], "\x91\x00") }),
			record{L3: 18, EtherType: arp, Tags: 1, VLAN: [2]uint16{7}, Flags: packet.Multicast | packet.Broadcast}},
		{"padded", append(packettest.UDP(alice, bob, 1, 2, nil), make([]byte, 18)...),
			record{L3: 14, L4: 34, SrcPort: 1, DstPort: 2, EtherType: ipv4, Proto: udp}},
		{"UDP shorter than its packet", ip4(udp, udpHeader+"00"),
			record{L3: 14, L4: 34, SrcPort: 0x1111, DstPort: 0x2222, EtherType: ipv4, Proto: udp}},
		{"IP options", packettest.IPv4(alice, bob, udp, make([]byte, 40), unhex(udpHeader)),
			record{L3: 14, L4: 74, SrcPort: 0x1111, DstPort: 0x2222, EtherType: ipv4, Proto: udp}},
		{"echo reply", packettest.ICMPEchoReply(alice.IPv6(), bob.IPv6(), 9, 1, nil),
			record{L3: 14, L4: 54, DstPort: 9, EtherType: ipv6, Proto: icmp6}},
		{"unreachable", ip4(icmp, "03 01 0000 12345678"),
			record{L3: 14, L4: 34, EtherType: ipv4, Proto: icmp}},
		{"neighbor solicitation", ip6(icmp6, "87 00 0000 00000000 00000000000000000000000000000001"),
			record{L3: 14, L4: 54, EtherType: ipv6, Proto: icmp6}},
		{"ICMP in IPv6", ip6(icmp, "08"), record{L3: 14, EtherType: ipv6, Proto: icmp}},
		{"ICMPv6 in IPv4", ip4(icmp6, "80"), record{L3: 14, EtherType: ipv4, Proto: icmp6}},
		{"other protocol", ip4(47, ""), record{L3: 14, EtherType: ipv4, Proto: 47}},
		{"other EtherType", packettest.Ethernet(macA, macB, 0x88b5, nil), record{L3: 14, EtherType: 0x88b5}},
		{"spanning tree", packettest.Ethernet(macA, packet.MAC{1, 0x80, 0xc2}, 38, make([]byte, 38)),
			record{L3: 14, Flags: packet.Multicast}},
		{"first fragment", fragment4(ip4(udp, "1111 2222 4000 0000"), true, 0),
			record{L3: 14, L4: 34, SrcPort: 0x1111, DstPort: 0x2222, EtherType: ipv4, Proto: udp, Flags: packet.Fragment}},
		{"later fragment", fragment4(ip4(tcp, "0102"), false, 1480),
			record{L3: 14, EtherType: ipv4, Proto: tcp, Flags: packet.Fragment | packet.LaterFragment}},
		{"last fragment there can be", fragment4(ip4(udp, repeat("00", 11)), false, 65504),
			record{L3: 14, EtherType: ipv4, Proto: udp, Flags: packet.Fragment | packet.LaterFragment}},
		{"first fragment of IPv6", ip6(packet.ProtoFragment, "11 00 0001 00000001 1111 2222 4000 0000"),
			record{L3: 14, L4: 62, SrcPort: 0x1111, DstPort: 0x2222, EtherType: ipv6, Proto: udp, Flags: packet.Fragment}},
		{"later fragment of IPv6", ip6(packet.ProtoFragment, "3c 00 0100 00000001 01"),
			record{L3: 14, EtherType: ipv6, Proto: packet.ProtoDestOptions, Flags: packet.Fragment | packet.LaterFragment}},
		{"last IPv6 fragment there can be", ip6(packet.ProtoFragment, "11 00 fff8 00000001"+repeat("00", 7)),
			record{L3: 14, EtherType: ipv6, Proto: udp, Flags: packet.Fragment | packet.LaterFragment}},
		{"atomic fragment", ip6(packet.ProtoFragment, "11 00 0000 00000001"+udpHeader),
			record{L3: 14, L4: 62, SrcPort: 0x1111, DstPort: 0x2222, EtherType: ipv6, Proto: udp}},
		{"extension headers", ip6(packet.ProtoHopByHop,
			"3c 00 0502 0000 0100"+ // hop-by-hop: router alert
				"2b 01 010c 00000000 0000000000000000"+ // destination options
				"33 00 0000 00000000"+ // routing
				"3c 04 0000 00000001 00000002 000000000000000000000000"+ // authentication, 24 bytes
				"11 00 0104 00000000"+ // destination options
				udpHeader),
			record{L3: 14, L4: 54 + 8 + 16 + 8 + 24 + 8, SrcPort: 0x1111, DstPort: 0x2222, EtherType: ipv6, Proto: udp}},
		{"ESP behind an extension header", ip6(packet.ProtoDestOptions, "32 00 010400000000 00"),
			record{L3: 14, EtherType: ipv6, Proto: packet.ProtoESP}},
		{"no next header", ip6(packet.ProtoNoNext, ""), record{L3: 14, EtherType: ipv6, Proto: packet.ProtoNoNext}},

		// What a container's own tunnels leave unfinished lies deeper.
		{"VXLAN, inner checksum unfinished", vnet("01 00 0000 0000 5400 1000",
			packettest.UDP(alice, bob, 1, 4789, make([]byte, 90))),
			record{L3: 14, L4: 34, SrcPort: 1, DstPort: 4789, EtherType: ipv4, Proto: udp}},
		{"GRE, own checksum unfinished", vnet("01 00 0000 0000 2200 0400", ip4(47, "8000 0800 0000 0000 01")),
			record{L3: 14, EtherType: ipv4, Proto: 47}},
		{"PPPoE, inner checksum unfinished", vnet("01 00 0000 0000 3000 0600",
			packettest.Ethernet(macA, macB, 0x8864, make([]byte, 60))),
			record{L3: 14, EtherType: 0x8864}},

		{"verified", vnet("02 00 0000 0000 0000 0000", ip4(47, "")), record{L3: 14, EtherType: ipv4, Proto: 47}},
		{"header length says more than headers", vnet("00 00 2400 0000 0000 0000", ip4(47, "0000")),
			record{L3: 14, EtherType: ipv4, Proto: 47}},
		{"header length too short for the kernel, but raised", vnet("01 00 0100 0000 2200 1000", packettest.Partial(tcpFrame(alice, bob, 0))),
			record{L3: 14, L4: 34, SrcPort: 40000, DstPort: 80, EtherType: ipv4, Proto: tcp, Flags: packet.NeedsChecksum}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// What an earlier frame left in the record must not shine through. That
			// a frame goes through the path again is not Parse's to say.
			f := packet.Frame{B: bytes.Clone(tt.frame), L3: 9, L4: 9, SrcPort: 9, DstPort: 9, EtherType: 9,
				VLAN: [2]uint16{9, 9}, Tags: 9, Proto: 9, Flags: 0xff}
			tt.want.Flags |= packet.Resumed
			if r := packet.Parse(&f); r != packet.OK {
				t.Fatalf("%v: %s", r, r.Why())
			}
			if !bytes.Equal(f.B, tt.frame) {
				t.Error("Parse wrote to the frame")
			}
			f.B = nil
			if got, want := fmt.Sprintf("%+v", f), fmt.Sprintf("%+v", tt.want); got != want {
				t.Errorf("\ngot  %s\nwant %s", got, want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	const tcp, udp = packet.ProtoTCP, packet.ProtoUDP
	partial := func() []byte { return packettest.Partial(tcpFrame(alice, bob, 100)) }
	tso := func() []byte { return packettest.GSO(tcpFrame(alice, bob, 5000), 1448) }
	uso := func() []byte { return packettest.GSO(packettest.UDP(alice, bob, 1, 2, pattern(5000)), 1000) }
	tests := []struct {
		name  string
		want  packet.Reason
		frame []byte
	}{
		{"nothing", packet.Truncated, nil},
		{"vnet header only", packet.Truncated, make([]byte, 10)},
		{"Ethernet header cut", packet.Truncated, make([]byte, 23)},
		{"tag cut", packet.Truncated, packettest.Tagged(ip4(47, ""), 7)[:27]},
		{"second tag cut", packet.Truncated, packettest.Tagged(ip4(47, ""), 7, 8)[:31]},
		{"IPv4 header cut", packet.Truncated, ip4(47, "")[:43]},
		{"IPv6 header cut", packet.Truncated, ip6(59, "")[:63]},

		{"three tags", packet.TooManyTags, packettest.Tagged(ip4(47, ""), 1, 2, 3)},
		{"ARP cut", packet.BadARP, packettest.ARPRequest(alice, bob.IP)[:51]},
		{"ARP for Token Ring", packet.BadARP, with(packettest.ARPRequest(alice, bob.IP), func(b []byte) { b[25] = 6 })},

		{"version 6 in IPv4", packet.BadIPv4, with(ip4(47, ""), func(b []byte) { b[24] = 0x65 })},
		{"IHL 4", packet.BadIPv4, with(ip4(47, ""), func(b []byte) { b[24] = 0x44 })},
		{"IHL beyond the datagram", packet.BadIPv4, with(ip4(47, ""), func(b []byte) { b[24] = 0x46 })},
		{"total length beyond the frame", packet.BadIPv4, with(ip4(47, ""), func(b []byte) { b[27]++ })},
		{"total length below the header", packet.BadIPv4, with(ip4(47, ""), func(b []byte) { b[27]-- })},

		{"version 4 in IPv6", packet.BadIPv6, with(ip6(59, ""), func(b []byte) { b[24] = 0x40 })},
		{"payload beyond the frame", packet.BadIPv6, with(ip6(59, ""), func(b []byte) { b[29]++ })},
		{"extension header beyond the packet", packet.BadIPv6, ip6(60, "3b 01 0000 00000000")},
		{"authentication header beyond the packet", packet.BadIPv6, ip6(51, "3b 04 0000 00000000")},
		{"extension header cut", packet.BadIPv6, ip6(60, "3b 00 0000 000000")},
		{"fragment header cut", packet.BadIPv6, ip6(44, "3b 00 0000 000000")},
		{"hop-by-hop behind another", packet.BadIPv6, ip6(60, "00 00 0104 00000000 3b 00 0104 00000000")},
		{"nine extension headers", packet.BadIPv6, ip6(60, repeat("3c 00 0104 00000000", 8)+"3b 00 0104 00000000")},

		{"ping of death", packet.BadFragment, fragment4(ip4(1, "0102030405060708"), false, 65512)},
		{"beyond 65,535 by one byte", packet.BadFragment, fragment4(ip4(udp, repeat("00", 12)), false, 65504)},
		{"empty last fragment", packet.BadFragment, fragment4(ip4(udp, ""), false, 8)},
		{"empty first fragment", packet.BadFragment, fragment4(ip4(udp, ""), true, 0)},
		{"seven bytes and more to come", packet.BadFragment, fragment4(ip4(udp, "01020304050607"), true, 8)},
		{"TCP fragment at offset 8", packet.BadFragment, fragment4(ip4(tcp, tcpHeader), false, 8)},
		{"IPv6 beyond 65,535 by one byte", packet.BadFragment, ip6(44, "11 00 fff8 00000001 0102030405060708")},
		{"IPv6 empty fragment", packet.BadFragment, ip6(44, "11 00 0009 00000001")},
		{"IPv6 seven bytes and more to come", packet.BadFragment, ip6(44, "11 00 0009 00000001 01020304050607")},
		{"IPv6 TCP fragment at offset 8", packet.BadFragment, ip6(44, "06 00 0008 00000001"+tcpHeader)},
		{"fragment of a fragment", packet.BadFragment, ip6(44, "2c 00 0001 00000001 11 00 0001 00000002"+udpHeader)},
		{"atomic fragment of an atomic fragment", packet.BadFragment, ip6(44, "2c 00 0000 00000001 11 00 0000 00000002"+udpHeader)},

		{"TCP header cut", packet.BadTransport, ip4(tcp, tcpHeader[:len(tcpHeader)-2])},
		{"TCP data offset 4", packet.BadTransport, with(ip4(tcp, tcpHeader), func(b []byte) { b[56] = 0x40 })},
		{"TCP options beyond the segment", packet.BadTransport, with(ip4(tcp, tcpHeader), func(b []byte) { b[56] = 0x60 })},
		{"TCP options in the padding", packet.BadTransport,
			append(with(ip4(tcp, tcpHeader), func(b []byte) { b[56] = 0x60 }), 0, 0, 0, 0)},
		{"TCP header cut in the first fragment", packet.BadTransport, fragment4(ip4(tcp, tcpHeader[:19]), true, 0)},
		{"UDP header cut", packet.BadTransport, ip4(udp, udpHeader[:len(udpHeader)-2])},
		{"UDP length 7", packet.BadTransport, ip4(udp, "1111 2222 0007 0000")},
		{"UDP length beyond the packet", packet.BadTransport, ip4(udp, "1111 2222 0009 0000")},
		{"UDP length into the padding", packet.BadTransport, append(ip4(udp, "1111 2222 0009 0000"), 0)},
		{"UDP length beyond an atomic fragment", packet.BadTransport, ip6(44, "11 00 0000 00000001 1111 2222 0009 0000")},
		{"UDP length 7 in the first fragment", packet.BadTransport, fragment4(ip4(udp, "1111 2222 0007 0000"), true, 0)},
		{"ICMP cut", packet.BadTransport, ip4(1, "08 00 0000 000000")},
		{"ICMPv6 cut", packet.BadTransport, ip6(58, "80 00 0000 000000")},

		{"unknown flag", packet.BadVNet, vnet("04 00 0000 0000 0000 0000", ip4(47, ""))},
		{"header length beyond the frame", packet.BadVNet, vnet("00 00 2300 0000 0000 0000", ip4(47, ""))},
		{"header length within Ethernet", packet.BadVNet, vnet("00 00 0d00 0000 0000 0000", ip4(47, ""))},
		{"checksum not of the transport header", packet.BadVNet, with(partial(), func(b []byte) { packet.VNet(b).SetCSumStart(35) })},
		{"checksum of the network header", packet.BadVNet, with(partial(), func(b []byte) { packet.VNet(b).SetCSumStart(14) })},
		{"UDP's checksum in TCP", packet.BadVNet, with(partial(), func(b []byte) { packet.VNet(b).SetCSumOffset(6) })},
		{"checksum beyond the frame", packet.BadVNet, vnet("01 00 0000 0000 2a00 ffff", packettest.UDP(alice, bob, 1, 2, nil))},
		{"checksum in the padding", packet.BadVNet, append(vnet("01 00 0000 0000 2a00 0000", packettest.UDP(alice, bob, 1, 2, nil)), 0, 0)},
		{"checksum within UDP's header", packet.BadVNet, vnet("01 00 0000 0000 2300 0600", packettest.UDP(alice, bob, 1, 2, pattern(20)))},
		{"checksum within IPv4's header", packet.BadVNet, vnet("01 00 0000 0000 2000 0000", ip4(47, "00000000"))},
		{"checksum within IPv6's header", packet.BadVNet, vnet("01 00 0000 0000 2200 0000", ip6(59, "00000000"))},
		{"unfinished ICMP", packet.BadVNet, vnet("01 00 0000 0000 2200 0200", packettest.ICMPEcho(alice, bob, 1, 1, nil))},
		{"unfinished ARP", packet.BadVNet, vnet("01 00 0000 0000 2200 0200", packettest.ARPRequest(alice, bob.IP))},
		{"unfinished fragment", packet.BadVNet, vnet("01 00 0000 0000 2200 0600", fragment4(ip4(udp, "1111 2222 4000 0000"), true, 0))},
		{"GSO without NEEDS_CSUM", packet.BadVNet, with(tso(), func(b []byte) { packet.VNet(b).SetFlags(0) })},
		{"GSO of a tunnel", packet.BadVNet, vnet("01 01 0000 1000 5400 1000", packettest.UDP(alice, bob, 1, 4789, make([]byte, 90)))},
		{"GSO size 0", packet.BadVNet, with(tso(), func(b []byte) { packet.VNet(b).SetGSOSize(0) })},
		{"GSO_BY_FRAGS", packet.BadVNet, with(tso(), func(b []byte) { packet.VNet(b).SetGSOSize(0xffff) })},
		{"GSO with padding", packet.BadVNet, append(tso(), 0)},
		{"TCPv6 in IPv4", packet.BadVNet, with(tso(), func(b []byte) { packet.VNet(b).SetGSOType(packet.GSOTCPv6) })},
		{"TCPv4 in IPv6", packet.BadVNet, with(packettest.GSO(tcpFrame(alice.IPv6(), bob.IPv6(), 5000), 1000),
			func(b []byte) { packet.VNet(b).SetGSOType(packet.GSOTCPv4) })},
		{"USO in TCP", packet.BadVNet, with(tso(), func(b []byte) { packet.VNet(b).SetGSOType(packet.GSOUDPL4) })},
		{"TSO in UDP", packet.BadVNet, with(uso(), func(b []byte) { packet.VNet(b).SetGSOType(packet.GSOTCPv4) })},
		{"UFO", packet.BadVNet, with(uso(), func(b []byte) { packet.VNet(b).SetGSOType(packet.GSOUDP) })},
		{"ECN alone", packet.BadVNet, with(tso(), func(b []byte) { packet.VNet(b).SetGSOType(packet.GSOECN) })},
		{"ECN in UDP", packet.BadVNet, with(uso(), func(b []byte) { packet.VNet(b).SetGSOType(packet.GSOUDPL4 | packet.GSOECN) })},
		{"USO of 129 datagrams", packet.BadVNet, with(uso(), func(b []byte) { packet.VNet(b).SetGSOSize(38) })},
		{"USO shorter than its packet", packet.BadVNet, with(uso(), func(b []byte) { packet.UDP(payload(b)[20:]).SetLen(5007) })},
		{"GSO type 2", packet.BadVNet, with(tso(), func(b []byte) { packet.VNet(b).SetGSOType(2) })},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := packet.Frame{B: tt.frame}
			if got := packet.Parse(&f); got != tt.want {
				t.Errorf("Parse = %v, want %v", got, tt.want)
			}
		})
	}
}

func repeat(s string, n int) string {
	all := ""
	for range n {
		all += s
	}
	return all
}

// TestParseMix checks that the generator other packages' random tests draw from
// reaches every reason, and prints what it drew.
func TestParseMix(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var histogram [packet.NumReasons]int
	for range 10_000 {
		f := packet.Frame{B: packettest.Random(rng)}
		histogram[packet.Parse(&f)]++
	}
	for _, r := range packettest.ParseReasons {
		t.Logf("%6d %v", histogram[r], r)
		if histogram[r] < 100 {
			t.Errorf("%v was reached %d times in 10,000 frames, want at least 100", r, histogram[r])
		}
	}
}

func TestParseBroken(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, want := range packettest.ParseReasons {
		for range 2000 {
			b := packettest.Broken(rng, want)
			f := packet.Frame{B: b}
			if got := packet.Parse(&f); got != want {
				t.Fatalf("a frame made to be %v is %v\n%x", want, got, b)
			}
		}
	}
}

func TestPacketAndTransport(t *testing.T) {
	whole := packettest.UDP(alice, bob, 1, 2, []byte("payload"))
	f := parse(t, packettest.Tagged(append(bytes.Clone(whole), make([]byte, 11)...), 7))
	if got, want := f.Packet(), payload(whole); !bytes.Equal(got, want) {
		t.Errorf("Packet = %x, want %x", got, want)
	}
	if got := packet.UDP(f.Transport()); len(got) != 15 || string(got.Payload()) != "payload" {
		t.Errorf("Transport = %q", got)
	}
	f = parse(t, packettest.Ethernet(macA, macB, 0x88b5, []byte("anything")))
	if got := f.Packet(); string(got) != "anything" {
		t.Errorf("Packet = %q", got)
	}
}

func TestTuple(t *testing.T) {
	tests := []struct {
		frame []byte
		want  packet.Tuple
	}{
		{tcpFrame(alice, bob, 1), packet.Tuple{Src: addr("10.88.0.2"), Dst: addr("10.88.0.3"), SrcPort: 40000, DstPort: 80, Proto: packet.ProtoTCP}},
		{packettest.UDP(alice.IPv6(), bob.IPv6(), 1, 2, nil),
			packet.Tuple{Src: addr("fe80::42:aff:fe58:2"), Dst: addr("fe80::42:aff:fe58:3"), SrcPort: 1, DstPort: 2, Proto: packet.ProtoUDP}},
		{packettest.ICMPEcho(alice, bob, 9, 1, nil), packet.Tuple{Src: addr("10.88.0.2"), Dst: addr("10.88.0.3"), SrcPort: 9, Proto: packet.ProtoICMP}},
		{ip4(47, ""), packet.Tuple{Src: addr("10.88.0.2"), Dst: addr("10.88.0.3"), Proto: 47}},
	}
	for _, tt := range tests {
		f := parse(t, tt.frame)
		if got := f.Tuple(); got != tt.want {
			t.Errorf("Tuple = %+v, want %+v", got, tt.want)
		}
	}
}
