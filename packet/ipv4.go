package packet

import (
	"encoding/binary"
	"strconv"
)

// A Proto is an IP protocol number, the same for IPv4 and IPv6.
type Proto uint8

const (
	ProtoICMP   Proto = 1
	ProtoTCP    Proto = 6
	ProtoUDP    Proto = 17
	ProtoICMPv6 Proto = 58

	// Extension headers of IPv6 (RFC 8200).
	ProtoHopByHop    Proto = 0
	ProtoRouting     Proto = 43
	ProtoFragment    Proto = 44
	ProtoESP         Proto = 50
	ProtoAH          Proto = 51
	ProtoNoNext      Proto = 59
	ProtoDestOptions Proto = 60
)

var protoNames = map[Proto]string{
	ProtoICMP: "ICMP", 2: "IGMP", 4: "IPv4", ProtoTCP: "TCP", ProtoUDP: "UDP", 41: "IPv6", 47: "GRE", ProtoESP: "ESP",
	ProtoAH: "AH", ProtoICMPv6: "ICMPv6", ProtoNoNext: "no next header", 89: "OSPF", 132: "SCTP",
}

// String names the protocols met most (IANA's protocol numbers).
func (p Proto) String() string {
	if name, ok := protoNames[p]; ok {
		return name
	}
	return "protocol " + strconv.Itoa(int(p))
}

const (
	// IPv4MinLen is the length of an IPv4 header without options.
	IPv4MinLen = 20
	// IPv4MaxLen is the length of one with as many as fit.
	IPv4MaxLen = 60
	// IPv4MinMTU is what every link has to carry in one piece (RFC 791).
	IPv4MinMTU = 68
)

// An IPv4 is a view of an IPv4 datagram (RFC 791).
//
//	0             1     2              4    6               8     9       10         12    16    20
//	| version IHL | TOS | total length | ID | flags, offset | TTL | proto | checksum | src | dst | options |
type IPv4 []byte

// Valid reports whether the header is all there, and header length and total
// length fit each other and the view. Bytes behind the datagram are legal:
// Ethernet pads short frames.
func (ip IPv4) Valid() bool {
	if len(ip) < IPv4MinLen || ip[0]>>4 != 4 {
		return false
	}
	header, total := ip.HeaderLen(), ip.TotalLen()
	return IPv4MinLen <= header && header <= total && total <= len(ip)
}

func (ip IPv4) HeaderLen() int { return int(ip[0]&0xf) * 4 }
func (ip IPv4) TOS() uint8     { return ip[1] }
func (ip IPv4) TotalLen() int  { return int(binary.BigEndian.Uint16(ip[2:])) }
func (ip IPv4) ID() uint16     { return binary.BigEndian.Uint16(ip[4:]) }

// DontFragment and MoreFragments are the two flags in use.
func (ip IPv4) DontFragment() bool  { return ip[6]&0x40 != 0 }
func (ip IPv4) MoreFragments() bool { return ip[6]&0x20 != 0 }

// FragmentOffset is where the payload belongs in the whole one, in bytes.
func (ip IPv4) FragmentOffset() int {
	return int(binary.BigEndian.Uint16(ip[6:])&0x1fff) * 8
}

// IsFragment reports whether the datagram is a fragment, the first included.
func (ip IPv4) IsFragment() bool { return binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 }

func (ip IPv4) TTL() uint8       { return ip[8] }
func (ip IPv4) Proto() Proto     { return Proto(ip[9]) }
func (ip IPv4) Checksum() uint16 { return binary.BigEndian.Uint16(ip[10:]) }
func (ip IPv4) Src() [4]byte     { return [4]byte(ip[12:16]) }
func (ip IPv4) Dst() [4]byte     { return [4]byte(ip[16:20]) }

// Options is the part of the header behind the fixed one. Borrowed.
func (ip IPv4) Options() []byte { return ip[IPv4MinLen:ip.HeaderLen()] }

// Payload is what the datagram carries, without padding. Borrowed.
func (ip IPv4) Payload() []byte { return ip[ip.HeaderLen():ip.TotalLen()] }

// Setters write the field and nothing else: the header checksum is brought up
// to date by UpdateChecksum or by a Delta.

// SetHeaderLen writes version 4 and the header length in bytes, which must be
// a multiple of four.
func (ip IPv4) SetHeaderLen(n int)   { ip[0] = 0x40 | byte(n/4) }
func (ip IPv4) SetTOS(x uint8)       { ip[1] = x }
func (ip IPv4) SetTotalLen(n int)    { binary.BigEndian.PutUint16(ip[2:], uint16(n)) }
func (ip IPv4) SetID(x uint16)       { binary.BigEndian.PutUint16(ip[4:], x) }
func (ip IPv4) SetTTL(x uint8)       { ip[8] = x }
func (ip IPv4) SetProto(p Proto)     { ip[9] = byte(p) }
func (ip IPv4) SetChecksum(x uint16) { binary.BigEndian.PutUint16(ip[10:], x) }
func (ip IPv4) SetSrc(a [4]byte)     { copy(ip[12:16], a[:]) }
func (ip IPv4) SetDst(a [4]byte)     { copy(ip[16:20], a[:]) }

// SetFragment writes flags and offset. The offset is in bytes and must be a
// multiple of eight.
func (ip IPv4) SetFragment(dontFragment, moreFragments bool, offset int) {
	x := uint16(offset / 8)
	if dontFragment {
		x |= 0x4000
	}
	if moreFragments {
		x |= 0x2000
	}
	binary.BigEndian.PutUint16(ip[6:], x)
}
