package packet_test

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"fairlead/packet"
)

// unhex reads bytes written in groups.
func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return b
}

func addr(s string) packet.Addr { return packet.AddrFromNetip(netip.MustParseAddr(s)) }

var (
	macA = packet.MAC{0x02, 0x42, 0x0a, 0x00, 0x00, 0x02}
	macB = packet.MAC{0x02, 0x42, 0x0a, 0x00, 0x00, 0x03}
)

// TestSetters fills every view and compares with bytes written by hand from
// the RFC. Reading is the business of TestGetters.
func TestSetters(t *testing.T) {
	tests := []struct {
		name string
		fill func(b []byte)
		want string
	}{
		{"vnet", func(b []byte) {
			v := packet.VNet(b)
			v.SetFlags(packet.VNetNeedsCSum)
			v.SetGSOType(packet.GSOTCPv4 | packet.GSOECN)
			v.SetHdrLen(66)
			v.SetGSOSize(1448)
			v.SetCSumStart(34)
			v.SetCSumOffset(16)
		}, "01 81 4200 a805 2200 1000"},
		{"Ethernet", func(b []byte) {
			e := packet.Ethernet(b)
			e.SetDst(macA)
			e.SetSrc(macB)
			e.SetType(packet.EtherTypeIPv6)
		}, "02420a000002 02420a000003 86dd"},
		{"ARP", func(b []byte) {
			a := packet.ARP(b)
			a.SetOp(packet.ARPReply)
			a.Init()
			a.SetSenderMAC(macA)
			a.SetSenderIP([4]byte{10, 0, 0, 2})
			a.SetTargetMAC(macB)
			a.SetTargetIP([4]byte{10, 0, 0, 3})
		}, "0001 0800 06 04 0002 02420a000002 0a000002 02420a000003 0a000003"},
		{"IPv4", func(b []byte) {
			ip := packet.IPv4(b)
			ip.SetHeaderLen(24)
			ip.SetTOS(0xb8)
			ip.SetTotalLen(1500)
			ip.SetID(0xbeef)
			ip.SetFragment(true, true, 1480)
			ip.SetTTL(63)
			ip.SetProto(packet.ProtoUDP)
			ip.SetChecksum(0x1234)
			ip.SetSrc([4]byte{10, 0, 0, 2})
			ip.SetDst([4]byte{10, 0, 0, 3})
		}, "46 b8 05dc beef 60b9 3f 11 1234 0a000002 0a000003"},
		{"IPv6", func(b []byte) {
			ip := packet.IPv6(b)
			ip.SetVersion(0xb8, 0x12345)
			ip.SetPayloadLen(1460)
			ip.SetNextHeader(packet.ProtoTCP)
			ip.SetHopLimit(63)
			ip.SetSrc(addr("fe80::1"))
			ip.SetDst(addr("2001:db8::2"))
		}, "6b812345 05b4 06 3f fe800000000000000000000000000001 20010db8000000000000000000000002"},
		{"ICMP", func(b []byte) {
			m := packet.ICMP(b)
			m.SetType(packet.ICMPEcho)
			m.SetCode(1)
			m.SetChecksum(0x1234)
			m.SetID(0xabcd)
			m.SetSeq(7)
		}, "08 01 1234 abcd 0007"},
		{"ICMP with an MTU", func(b []byte) {
			m := packet.ICMP(b)
			m.SetType(packet.ICMPUnreachable)
			m.SetCode(packet.ICMPFragNeeded)
			m.SetMTU(1400)
		}, "03 04 0000 00000578"},
		{"UDP", func(b []byte) {
			u := packet.UDP(b)
			u.SetSrcPort(53)
			u.SetDstPort(40000)
			u.SetLen(100)
			u.SetChecksum(0x1234)
		}, "0035 9c40 0064 1234"},
		{"TCP", func(b []byte) {
			s := packet.TCP(b)
			s.SetSrcPort(80)
			s.SetDstPort(40000)
			s.SetSeq(0x01020304)
			s.SetAck(0x05060708)
			s.SetHeaderLen(32)
			s.SetFlags(packet.TCPSyn | packet.TCPAck)
			s.SetWindow(502)
			s.SetChecksum(0x1234)
		}, "0050 9c40 01020304 05060708 80 12 01f6 1234 0000"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := unhex(tt.want)
			got := make([]byte, len(want))
			tt.fill(got)
			if !bytes.Equal(got, want) {
				t.Errorf("got  %x\nwant %x", got, want)
			}
		})
	}
}

// check compares one getter.
func check[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s = %v, want %v", what, got, want)
	}
}

func TestGetters(t *testing.T) {
	v := packet.VNet(unhex("01 81 4200 a805 2200 1000"))
	check(t, "vnet valid", v.Valid(), true)
	check(t, "vnet zero", v.IsZero(), false)
	check(t, "vnet flags", v.Flags(), packet.VNetNeedsCSum)
	check(t, "vnet GSO type", v.GSOType(), packet.GSOTCPv4|packet.GSOECN)
	check(t, "vnet header length", v.HdrLen(), 66)
	check(t, "vnet GSO size", v.GSOSize(), 1448)
	check(t, "vnet checksum start", v.CSumStart(), 34)
	check(t, "vnet checksum offset", v.CSumOffset(), 16)
	v.Clear()
	check(t, "vnet zero", v.IsZero(), true)
	v[9] = 1
	check(t, "vnet zero", v.IsZero(), false)

	e := packet.Ethernet(unhex("02420a000002 02420a000003 86dd"))
	check(t, "Ethernet destination", e.Dst(), macA)
	check(t, "Ethernet source", e.Src(), macB)
	check(t, "Ethernet type", e.Type(), packet.EtherTypeIPv6)

	a := packet.ARP(unhex("0001 0800 06 04 0002 02420a000002 0a000002 02420a000003 0a000003"))
	check(t, "ARP op", a.Op(), packet.ARPReply)
	check(t, "ARP sender MAC", a.SenderMAC(), macA)
	check(t, "ARP sender IP", a.SenderIP(), [4]byte{10, 0, 0, 2})
	check(t, "ARP target MAC", a.TargetMAC(), macB)
	check(t, "ARP target IP", a.TargetIP(), [4]byte{10, 0, 0, 3})

	ip := packet.IPv4(unhex("46 b8 001c beef 60b9 3f 11 1234 0a000002 0a000003 94040000 cafebabe ffff"))
	check(t, "IPv4 valid", ip.Valid(), true)
	check(t, "IPv4 header length", ip.HeaderLen(), 24)
	check(t, "IPv4 TOS", ip.TOS(), 0xb8)
	check(t, "IPv4 total length", ip.TotalLen(), 28)
	check(t, "IPv4 ID", ip.ID(), 0xbeef)
	check(t, "IPv4 DF", ip.DontFragment(), true)
	check(t, "IPv4 MF", ip.MoreFragments(), true)
	check(t, "IPv4 fragment offset", ip.FragmentOffset(), 1480)
	check(t, "IPv4 fragment", ip.IsFragment(), true)
	check(t, "IPv4 TTL", ip.TTL(), 63)
	check(t, "IPv4 protocol", ip.Proto(), packet.ProtoUDP)
	check(t, "IPv4 checksum", ip.Checksum(), 0x1234)
	check(t, "IPv4 source", ip.Src(), [4]byte{10, 0, 0, 2})
	check(t, "IPv4 destination", ip.Dst(), [4]byte{10, 0, 0, 3})
	check(t, "IPv4 options", string(ip.Options()), "\x94\x04\x00\x00")
	check(t, "IPv4 payload", string(ip.Payload()), "\xca\xfe\xba\xbe")
	ip.SetFragment(true, false, 0)
	check(t, "IPv4 fragment with DF only", ip.IsFragment(), false)

	ip6 := packet.IPv6(unhex("6b812345 0004 06 3f fe800000000000000000000000000001 20010db8000000000000000000000002 cafebabe ffff"))
	check(t, "IPv6 valid", ip6.Valid(), true)
	check(t, "IPv6 class", ip6.TrafficClass(), 0xb8)
	check(t, "IPv6 flow label", ip6.FlowLabel(), 0x12345)
	check(t, "IPv6 payload length", ip6.PayloadLen(), 4)
	check(t, "IPv6 next header", ip6.NextHeader(), packet.ProtoTCP)
	check(t, "IPv6 hop limit", ip6.HopLimit(), 63)
	check(t, "IPv6 source", ip6.Src(), addr("fe80::1"))
	check(t, "IPv6 destination", ip6.Dst(), addr("2001:db8::2"))
	check(t, "IPv6 payload", string(ip6.Payload()), "\xca\xfe\xba\xbe")

	m := packet.ICMP(unhex("08 01 1234 abcd 0007 cafe"))
	check(t, "ICMP type", m.Type(), packet.ICMPEcho)
	check(t, "ICMP code", m.Code(), 1)
	check(t, "ICMP checksum", m.Checksum(), 0x1234)
	check(t, "ICMP ID", m.ID(), 0xabcd)
	check(t, "ICMP sequence", m.Seq(), 7)
	check(t, "ICMP data", string(m.Data()), "\xca\xfe")
	check(t, "ICMP MTU", packet.ICMP(unhex("03 04 0000 00000578")).MTU(), 1400)

	u := packet.UDP(unhex("0035 9c40 000a 1234 cafe ffff"))
	check(t, "UDP source", u.SrcPort(), 53)
	check(t, "UDP destination", u.DstPort(), 40000)
	check(t, "UDP length", u.Len(), 10)
	check(t, "UDP checksum", u.Checksum(), 0x1234)
	check(t, "UDP payload", string(u.Payload()), "\xca\xfe")
	u.SetLen(3000)
	check(t, "payload of a first fragment", string(u.Payload()), "\xca\xfe\xff\xff")

	s := packet.TCP(unhex("0050 9c40 01020304 05060708 60 12 01f6 1234 0000 020405b4 cafe"))
	check(t, "TCP source", s.SrcPort(), 80)
	check(t, "TCP destination", s.DstPort(), 40000)
	check(t, "TCP sequence", s.Seq(), 0x01020304)
	check(t, "TCP acknowledgement", s.Ack(), 0x05060708)
	check(t, "TCP header length", s.HeaderLen(), 24)
	check(t, "TCP flags", s.Flags(), packet.TCPSyn|packet.TCPAck)
	check(t, "TCP window", s.Window(), 502)
	check(t, "TCP checksum", s.Checksum(), 0x1234)
	check(t, "TCP payload", string(s.Payload()), "\xca\xfe")
}

// TestValid asks every view about the least it accepts, and what is just less.
func TestValid(t *testing.T) {
	const (
		arp  = "0001 0800 06 04 0001 020000000001 0a000001 000000000000 0a000002"
		ipv4 = "45 00 0014 0000 0000 40 11 0000 0a000002 0a000003"
		ipv6 = "60000000 0000 3b 40 00000000000000000000000000000001 00000000000000000000000000000001"
		tcp  = "0050 9c40 00000000 00000000 50 02 0000 0000 0000"
	)
	type view interface{ Valid() bool }
	tests := []struct {
		name string
		view view
		want bool
	}{
		{"vnet", packet.VNet(make([]byte, 10)), true},
		{"vnet cut", packet.VNet(make([]byte, 9)), false},
		{"Ethernet", packet.Ethernet(make([]byte, 14)), true},
		{"Ethernet cut", packet.Ethernet(make([]byte, 13)), false},
		{"ARP", packet.ARP(unhex(arp)), true},
		{"ARP padded", packet.ARP(unhex(arp + "0000")), true},
		{"ARP cut", packet.ARP(unhex(arp)[:27]), false},
		{"ARP for Token Ring", packet.ARP(unhex("0006" + arp[4:])), false},
		{"ARP for IPv6", packet.ARP(unhex("0001 86dd" + arp[9:])), false},
		{"ARP with long addresses", packet.ARP(unhex("0001 0800 08 10" + arp[15:])), false},
		{"IPv4", packet.IPv4(unhex(ipv4)), true},
		{"IPv4 padded", packet.IPv4(unhex(ipv4 + "0000")), true},
		{"IPv4 empty", packet.IPv4(nil), false},
		{"IPv4 cut", packet.IPv4(unhex(ipv4)[:19]), false},
		{"IPv4 version 6", packet.IPv4(unhex("65" + ipv4[2:])), false},
		{"IPv4 IHL 4", packet.IPv4(unhex("44" + ipv4[2:])), false},
		{"IPv4 IHL beyond the datagram", packet.IPv4(unhex("46" + ipv4[2:])), false},
		{"IPv4 longer than the view", packet.IPv4(unhex("45 00 0015" + ipv4[10:])), false},
		{"IPv4 shorter than its header", packet.IPv4(unhex("45 00 0013" + ipv4[10:])), false},
		{"IPv6", packet.IPv6(unhex(ipv6)), true},
		{"IPv6 cut", packet.IPv6(unhex(ipv6)[:39]), false},
		{"IPv6 version 4", packet.IPv6(unhex("40" + ipv6[2:])), false},
		{"IPv6 longer than the view", packet.IPv6(unhex("60000000 0001" + ipv6[13:])), false},
		{"ICMP", packet.ICMP(make([]byte, 8)), true},
		{"ICMP cut", packet.ICMP(make([]byte, 7)), false},
		{"UDP", packet.UDP(unhex("0001 0002 0008 0000")), true},
		{"UDP with less than is there", packet.UDP(unhex("0001 0002 0008 0000 00")), true},
		{"UDP cut", packet.UDP(unhex("0001 0002 0008 00")), false},
		{"UDP length 7", packet.UDP(unhex("0001 0002 0007 0000")), false},
		{"UDP length 9", packet.UDP(unhex("0001 0002 0009 0000")), false},
		{"TCP", packet.TCP(unhex(tcp)), true},
		{"TCP cut", packet.TCP(unhex(tcp)[:19]), false},
		{"TCP offset 4", packet.TCP(unhex(strings.Replace(tcp, "50 02", "40 02", 1))), false},
		{"TCP offset 6", packet.TCP(unhex(strings.Replace(tcp, "50 02", "60 02", 1))), false},
	}
	for _, tt := range tests {
		if got := tt.view.Valid(); got != tt.want {
			t.Errorf("%s: Valid = %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestTCPOptions(t *testing.T) {
	tests := []struct {
		name, options string
		mss           uint16
		ok            bool
	}{
		{"none", "", 0, false},
		{"alone", "020405b4", 1460, true},
		{"behind others", "01 030307 0402 0101 020405b4", 1460, true},
		{"behind no-ops", "0101 0402 020405b4", 1460, true},
		{"behind the end", "00000000 020405b4", 0, false},
		{"wrong length", "02030500", 0, false},
		{"length zero", "03000000 020405b4", 0, false},
		{"length one", "03010000 020405b4", 0, false},
		{"cut off", "01010102", 0, false},
		{"beyond the header", "020505b4", 0, false},
	}
	for _, tt := range tests {
		o := unhex(tt.options)
		s := packet.TCP(append(make([]byte, packet.TCPMinLen), o...))
		s.SetHeaderLen(len(s) &^ 3)
		mss, ok := s.MSS()
		if mss != tt.mss || ok != tt.ok {
			t.Errorf("%s: MSS = %d, %v, want %d, %v", tt.name, mss, ok, tt.mss, tt.ok)
		}
	}

	s := packet.TCP(append(make([]byte, packet.TCPMinLen), 2, 4, 5, 0xb4))
	s.SetHeaderLen(24)
	copy(s.Option(packet.TCPOptionMSS), []byte{1, 2})
	if mss, _ := s.MSS(); mss != 0x0102 {
		t.Errorf("after writing to the option MSS = %#x, want 0x102: Option must be a view", mss)
	}
}

func TestNames(t *testing.T) {
	for want, got := range map[string]string{
		"IPv4": packet.EtherTypeIPv4.String(), "IPv6": packet.EtherTypeIPv6.String(),
		"ARP": packet.EtherTypeARP.String(), "802.3": packet.EtherType(0).String(),
		"VLAN": packet.EtherTypeVLAN.String(), "QinQ": packet.EtherTypeQinQ.String(),
		"0x88b5": packet.EtherType(0x88b5).String(),
		"TCP":    packet.ProtoTCP.String(), "UDP": packet.ProtoUDP.String(),
		"ICMP": packet.ProtoICMP.String(), "ICMPv6": packet.ProtoICMPv6.String(),
		"GRE": packet.Proto(47).String(), "protocol 253": packet.Proto(253).String(),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
