package packet

import "encoding/binary"

const (
	// UDPLen is the length of a UDP header.
	UDPLen = 8
	// UDPChecksumOffset is where its checksum is.
	UDPChecksumOffset = 6
)

// A UDP is a view of a UDP datagram (RFC 768).
//
//	0             2             4        6          8
//	| source port | destination | length | checksum | payload |
type UDP []byte

// Valid reports whether the header is all there and its length fits the view.
// Less than the view is legal; a length of zero, which RFC 2675 gives to
// jumbograms, is not: no link here carries one.
func (u UDP) Valid() bool {
	return len(u) >= UDPLen && u.Len() >= UDPLen && u.Len() <= len(u)
}

func (u UDP) SrcPort() uint16 { return binary.BigEndian.Uint16(u[0:]) }
func (u UDP) DstPort() uint16 { return binary.BigEndian.Uint16(u[2:]) }

// Len is the length field: header and payload. On the first fragment of a
// datagram it is more than what is there.
func (u UDP) Len() int         { return int(binary.BigEndian.Uint16(u[4:])) }
func (u UDP) Checksum() uint16 { return binary.BigEndian.Uint16(u[6:]) }

// Payload is what the datagram carries, of a first fragment what is there.
// Borrowed.
func (u UDP) Payload() []byte { return u[UDPLen:min(u.Len(), len(u))] }

func (u UDP) SetSrcPort(p uint16)  { binary.BigEndian.PutUint16(u[0:], p) }
func (u UDP) SetDstPort(p uint16)  { binary.BigEndian.PutUint16(u[2:], p) }
func (u UDP) SetLen(n int)         { binary.BigEndian.PutUint16(u[4:], uint16(n)) }
func (u UDP) SetChecksum(x uint16) { binary.BigEndian.PutUint16(u[6:], x) }
