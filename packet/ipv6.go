package packet

import "encoding/binary"

// IPv6Len is the length of the IPv6 header without extension headers.
const IPv6Len = 40

// An IPv6 is a view of an IPv6 packet (RFC 8200).
//
//	0                     4                6             7           8     24    40
//	| version class flow  | payload length | next header | hop limit | src | dst | extension headers |
type IPv6 []byte

// Valid reports whether the header is all there and the payload fits the view.
// Bytes behind the packet are legal: Ethernet pads short frames.
func (ip IPv6) Valid() bool {
	return len(ip) >= IPv6Len && ip[0]>>4 == 6 && IPv6Len+ip.PayloadLen() <= len(ip)
}

func (ip IPv6) TrafficClass() uint8 { return ip[0]<<4 | ip[1]>>4 }
func (ip IPv6) FlowLabel() uint32   { return binary.BigEndian.Uint32(ip) & 0xfffff }

// PayloadLen counts from behind the fixed header, extension headers included.
func (ip IPv6) PayloadLen() int { return int(binary.BigEndian.Uint16(ip[4:])) }

// NextHeader is the first extension header or the transport protocol.
func (ip IPv6) NextHeader() Proto { return Proto(ip[6]) }
func (ip IPv6) HopLimit() uint8   { return ip[7] }
func (ip IPv6) Src() Addr         { return Addr(ip[8:24]) }
func (ip IPv6) Dst() Addr         { return Addr(ip[24:40]) }

// Payload is what follows the fixed header, without padding. Borrowed.
func (ip IPv6) Payload() []byte { return ip[IPv6Len : IPv6Len+ip.PayloadLen()] }

// SetVersion writes version 6, traffic class and flow label.
func (ip IPv6) SetVersion(class uint8, flow uint32) {
	binary.BigEndian.PutUint32(ip, 6<<28|uint32(class)<<20|flow&0xfffff)
}
func (ip IPv6) SetPayloadLen(n int)   { binary.BigEndian.PutUint16(ip[4:], uint16(n)) }
func (ip IPv6) SetNextHeader(p Proto) { ip[6] = byte(p) }
func (ip IPv6) SetHopLimit(x uint8)   { ip[7] = x }
func (ip IPv6) SetSrc(a Addr)         { copy(ip[8:24], a[:]) }
func (ip IPv6) SetDst(a Addr)         { copy(ip[24:40], a[:]) }

const (
	// maxExtensionHeaders bounds the walk. RFC 8200 section 4.1 recommends an
	// order in which there are seven at most.
	maxExtensionHeaders = 8
	// fragmentHeaderLen is the length of a fragment header, and the least of
	// any extension header.
	fragmentHeaderLen = 8
)

// An upperLayer says what follows the extension headers of an IPv6 packet.
// Offsets count from the fixed header.
type upperLayer struct {
	proto    Proto
	offset   int
	fragment int // offset of the fragment header, 0 when there is none
}

// upperLayer walks the extension headers of a packet whose fixed header is
// there, as far as end. It stops at whatever cannot be walked over (a transport
// header, ESP, no next header, an unknown one) and behind the fragment header
// of a later fragment.
func (ip IPv6) upperLayer(end int) (upperLayer, Reason) {
	u := upperLayer{proto: ip.NextHeader(), offset: IPv6Len}
	for n := 0; ; n++ {
		h := ip[u.offset:end]
		switch u.proto {
		case ProtoHopByHop, ProtoRouting, ProtoFragment, ProtoDestOptions, ProtoAH:
		default:
			return u, OK
		}
		if n == maxExtensionHeaders || len(h) < fragmentHeaderLen {
			return u, BadIPv6
		}
		size := (int(h[1]) + 1) * 8
		switch u.proto {
		case ProtoHopByHop:
			if n > 0 {
				return u, BadIPv6 // first or not at all, RFC 8200 section 4.1
			}
		case ProtoAH:
			size = (int(h[1]) + 2) * 4 // RFC 4302 section 2.2
		case ProtoFragment:
			if u.fragment != 0 {
				return u, BadFragment // a fragment of a fragment
			}
			u.fragment, size = u.offset, fragmentHeaderLen
		}
		if size > len(h) {
			return u, BadIPv6
		}
		later := u.proto == ProtoFragment && fragmentHeader(h).offset() != 0
		u.proto, u.offset = Proto(h[0]), u.offset+size
		if later {
			return u, OK
		}
	}
}

// A fragmentHeader is a view of an IPv6 fragment header (RFC 8200 section 4.5).
//
//	0             1          2                          4                8
//	| next header | reserved | offset, reserved, M flag | identification |
type fragmentHeader []byte

// offset is where the payload belongs in the whole one, in bytes.
func (h fragmentHeader) offset() int { return int(binary.BigEndian.Uint16(h[2:]) &^ 7) }
func (h fragmentHeader) more() bool  { return h[3]&1 != 0 }
func (h fragmentHeader) id() uint32  { return binary.BigEndian.Uint32(h[4:]) }
