package packet

import "encoding/binary"

// ICMPLen is the least length of a message. RFC 792 gives every type eight
// bytes; RFC 4443 promises only four but defines no message shorter than
// eight, and Linux drops shorter ones of both families.
const ICMPLen = 8

// Types of ICMP (RFC 792).
const (
	ICMPEchoReply    = 0
	ICMPUnreachable  = 3
	ICMPSourceQuench = 4 // deprecated by RFC 6633, still an error
	ICMPRedirect     = 5
	ICMPEcho         = 8
	ICMPRouterAdvert = 9 // RFC 1256
	ICMPTimeExceeded = 11
	ICMPParameter    = 12
)

// Codes of ICMPUnreachable (RFC 792, RFC 1812).
const (
	ICMPNetUnreachable   = 0
	ICMPHostUnreachable  = 1
	ICMPProtoUnreachable = 2
	ICMPPortUnreachable  = 3
	ICMPFragNeeded       = 4 // carries the next hop's MTU (RFC 1191)
	ICMPAdminProhibited  = 13
)

// Codes of ICMPTimeExceeded and ICMPv6TimeExceeded.
const (
	ICMPTTLExceeded        = 0
	ICMPReassemblyExceeded = 1
)

// Types of ICMPv6 (RFC 4443, RFC 4861, RFC 3810).
const (
	ICMPv6Unreachable     = 1
	ICMPv6PacketTooBig    = 2 // carries the next hop's MTU
	ICMPv6TimeExceeded    = 3
	ICMPv6Parameter       = 4
	ICMPv6Echo            = 128
	ICMPv6EchoReply       = 129
	ICMPv6RouterSolicit   = 133
	ICMPv6RouterAdvert    = 134
	ICMPv6NeighborSolicit = 135
	ICMPv6NeighborAdvert  = 136
	ICMPv6Redirect        = 137
	ICMPv6MLDv2Report     = 143
)

// Codes of ICMPv6Unreachable (RFC 4443).
const (
	ICMPv6NoRoute         = 0
	ICMPv6AdminProhibited = 1
	ICMPv6AddrUnreachable = 3
	ICMPv6PortUnreachable = 4
)

// An ICMP is a view of an ICMP or ICMPv6 message; the two share their layout
// and differ in types and in the pseudo-header of the checksum, which only
// ICMPv6 has.
//
//	0      1      2          4          6             8
//	| type | code | checksum | echo: ID | echo: seq   | data, or the packet an error is about |
//	                         | error: unused and MTU  |
type ICMP []byte

// Valid reports whether the header is all there.
func (m ICMP) Valid() bool { return len(m) >= ICMPLen }

func (m ICMP) Type() uint8      { return m[0] }
func (m ICMP) Code() uint8      { return m[1] }
func (m ICMP) Checksum() uint16 { return binary.BigEndian.Uint16(m[2:]) }

// ID and Seq are those of echo and echo reply.
func (m ICMP) ID() uint16  { return binary.BigEndian.Uint16(m[4:]) }
func (m ICMP) Seq() uint16 { return binary.BigEndian.Uint16(m[6:]) }

// MTU is that of ICMPFragNeeded (RFC 1191: sixteen bits behind sixteen that
// are zero) and of ICMPv6PacketTooBig (thirty-two bits).
func (m ICMP) MTU() uint32 { return binary.BigEndian.Uint32(m[4:]) }

// isEcho reports whether ID and Seq mean something; p tells the family.
func (m ICMP) isEcho(p Proto) bool {
	if p == ProtoICMPv6 {
		return m.Type() == ICMPv6Echo || m.Type() == ICMPv6EchoReply
	}
	return m.Type() == ICMPEcho || m.Type() == ICMPEchoReply
}

// ports gives echo a tuple as TCP and UDP have one: the identifier is the port
// of who asks, 0 that of who answers. So a request is not taken for an answer.
func (m ICMP) ports(p Proto) (src, dst uint16) {
	switch {
	case !m.isEcho(p):
		return 0, 0
	case m.Type() == ICMPEcho || m.Type() == ICMPv6Echo:
		return m.ID(), 0
	}
	return 0, m.ID()
}

// Data is echo data, or the packet an error is about. Borrowed.
func (m ICMP) Data() []byte { return m[ICMPLen:] }

func (m ICMP) SetType(x uint8)      { m[0] = x }
func (m ICMP) SetCode(x uint8)      { m[1] = x }
func (m ICMP) SetChecksum(x uint16) { binary.BigEndian.PutUint16(m[2:], x) }
func (m ICMP) SetID(x uint16)       { binary.BigEndian.PutUint16(m[4:], x) }
func (m ICMP) SetSeq(x uint16)      { binary.BigEndian.PutUint16(m[6:], x) }
func (m ICMP) SetMTU(x uint32)      { binary.BigEndian.PutUint32(m[4:], x) }

// IsError4 reports whether an ICMP message of IPv4 is an error, about which no
// other error may be sent (RFC 1122 3.2.2). Redirect counts.
func (m ICMP) IsError4() bool {
	switch m.Type() {
	case ICMPUnreachable, ICMPSourceQuench, ICMPRedirect, ICMPTimeExceeded, ICMPParameter:
		return true
	}
	return false
}
