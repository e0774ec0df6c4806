package packet

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
)

// A MAC is an Ethernet address: fixed-size and comparable, so it can be a key.
type MAC [6]byte

// BroadcastMAC is the address of everybody.
var BroadcastMAC = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// ParseMAC reads the usual notations of a 48-bit MAC.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 {
		return MAC{}, fmt.Errorf("%q is not a MAC address such as 02:42:ac:11:00:02", s)
	}
	return MAC(hw), nil
}

// MACFromIPv4 forms the MAC Docker gave its containers up to version 27:
// 02:42 and the four bytes of the address. Readable in every trace.
func MACFromIPv4(a netip.Addr) MAC {
	b := a.As4()
	return MAC{0x02, 0x42, b[0], b[1], b[2], b[3]}
}

func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// MarshalText and UnmarshalText have a MAC written as people write it, in JSON
// too.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

func (m *MAC) UnmarshalText(text []byte) (err error) {
	*m, err = ParseMAC(string(text))
	return err
}

// IsGroup reports whether the group bit is set (multicast and broadcast).
func (m MAC) IsGroup() bool { return m[0]&1 != 0 }

// IsZero reports whether the MAC is 00:00:00:00:00:00.
func (m MAC) IsZero() bool { return m == MAC{} }

// Uint64 returns the address in the low 48 bits, for packing into table keys.
func (m MAC) Uint64() uint64 {
	return uint64(m[0])<<40 | uint64(m[1])<<32 | uint64(m[2])<<24 |
		uint64(m[3])<<16 | uint64(m[4])<<8 | uint64(m[5])
}

// MACFromUint64 is the inverse of MAC.Uint64.
func MACFromUint64(v uint64) MAC {
	return MAC{byte(v >> 40), byte(v >> 32), byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}
}

// LinkLocal is the IPv6 link-local address a kernel forms from the MAC by
// EUI-64 (RFC 4291 appendix A).
func (m MAC) LinkLocal() netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 0, 0, 0, 0, 0, 0,
		m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
}

// An Addr is an IPv4 or IPv6 address as a key: sixteen bytes, no pointers (a
// netip.Addr has one, for the zone). IPv4 is held as ::ffff:a.b.c.d.
type Addr [16]byte

// AddrFrom4 maps four bytes of IPv4.
func AddrFrom4(b [4]byte) Addr {
	return Addr{10: 0xff, 11: 0xff, 12: b[0], 13: b[1], 14: b[2], 15: b[3]}
}

// AddrFromNetip converts, dropping a zone. The zero netip.Addr gives the zero Addr.
func AddrFromNetip(a netip.Addr) Addr {
	if !a.IsValid() {
		return Addr{}
	}
	return a.As16()
}

// FormedFrom is the MAC an IPv6 address says it was formed from, as LinkLocal does.
func (a Addr) FormedFrom() (MAC, bool) {
	return MAC{a[8] ^ 2, a[9], a[10], a[13], a[14], a[15]}, a[11] == 0xff && a[12] == 0xfe
}

// Netip converts back; IPv4-mapped addresses come out as IPv4.
func (a Addr) Netip() netip.Addr { return netip.AddrFrom16(a).Unmap() }

// Is4 reports whether the address is IPv4.
func (a Addr) Is4() bool {
	return binary.BigEndian.Uint64(a[:8]) == 0 && binary.BigEndian.Uint32(a[8:]) == 0xffff
}

func (a Addr) String() string { return a.Netip().String() }

// A Tuple is what identifies one direction of a connection: addresses of
// either family, ports (of ICMP echo the identifier, for who asks) and protocol.
// Comparable and without pointers.
type Tuple struct {
	Src, Dst         Addr
	SrcPort, DstPort uint16
	Proto            Proto
}

// Reverse is the tuple of the answers.
func (t Tuple) Reverse() Tuple {
	return Tuple{Src: t.Dst, Dst: t.Src, SrcPort: t.DstPort, DstPort: t.SrcPort, Proto: t.Proto}
}

// Tuple reads the frame's tuple. Valid after Parse returned OK for IPv4 and
// IPv6 frames; ports are zero where there are none.
func (f *Frame) Tuple() Tuple {
	t := Tuple{SrcPort: f.SrcPort, DstPort: f.DstPort, Proto: f.Proto}
	switch f.EtherType {
	case EtherTypeIPv4:
		ip := IPv4(f.Ether()[f.L3:])
		t.Src, t.Dst = AddrFrom4(ip.Src()), AddrFrom4(ip.Dst())
	case EtherTypeIPv6:
		ip := IPv6(f.Ether()[f.L3:])
		t.Src, t.Dst = ip.Src(), ip.Dst()
	}
	return t
}
