package packet

import "encoding/binary"

const (
	// TCPMinLen is the length of a TCP header without options.
	TCPMinLen = 20
	// TCPChecksumOffset is where its checksum is.
	TCPChecksumOffset = 16
)

// Bits of TCP.Flags (RFC 9293, RFC 3168).
const (
	TCPFin = 1 << iota
	TCPSyn
	TCPRst
	TCPPsh
	TCPAck
	TCPUrg
	TCPEce
	TCPCwr
)

// Kinds of TCP options (RFC 9293).
const (
	TCPOptionEnd = 0
	TCPOptionNop = 1
	TCPOptionMSS = 2
)

// A TCP is a view of a TCP segment (RFC 9293).
//
//	0             2             4          8     12            13      14       16         18       20
//	| source port | destination | sequence | ack | data offset | flags | window | checksum | urgent | options |
type TCP []byte

// Valid reports whether the header is all there, options included.
func (t TCP) Valid() bool {
	return len(t) >= TCPMinLen && t.HeaderLen() >= TCPMinLen && t.HeaderLen() <= len(t)
}

func (t TCP) SrcPort() uint16  { return binary.BigEndian.Uint16(t[0:]) }
func (t TCP) DstPort() uint16  { return binary.BigEndian.Uint16(t[2:]) }
func (t TCP) Seq() uint32      { return binary.BigEndian.Uint32(t[4:]) }
func (t TCP) Ack() uint32      { return binary.BigEndian.Uint32(t[8:]) }
func (t TCP) HeaderLen() int   { return int(t[12]>>4) * 4 }
func (t TCP) Flags() uint8     { return t[13] }
func (t TCP) Window() uint16   { return binary.BigEndian.Uint16(t[14:]) }
func (t TCP) Checksum() uint16 { return binary.BigEndian.Uint16(t[16:]) }

// Payload is what the segment carries. Borrowed.
func (t TCP) Payload() []byte { return t[t.HeaderLen():] }

// Option returns the value bytes of the first option of that kind, nil when
// there is none. A list that lies about its lengths ends there. Borrowed:
// writing to it edits the segment.
func (t TCP) Option(kind uint8) []byte {
	o := t[TCPMinLen:t.HeaderLen()]
	for len(o) > 0 && o[0] != TCPOptionEnd {
		if o[0] == TCPOptionNop {
			o = o[1:]
			continue
		}
		if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
			return nil
		}
		if o[0] == kind {
			return o[2:o[1]]
		}
		o = o[o[1]:]
	}
	return nil
}

// MSS is the maximum segment size a SYN announces; false when it does not.
func (t TCP) MSS() (uint16, bool) {
	v := t.Option(TCPOptionMSS)
	if len(v) != 2 {
		return 0, false
	}
	return binary.BigEndian.Uint16(v), true
}

func (t TCP) SetSrcPort(p uint16)  { binary.BigEndian.PutUint16(t[0:], p) }
func (t TCP) SetDstPort(p uint16)  { binary.BigEndian.PutUint16(t[2:], p) }
func (t TCP) SetSeq(x uint32)      { binary.BigEndian.PutUint32(t[4:], x) }
func (t TCP) SetAck(x uint32)      { binary.BigEndian.PutUint32(t[8:], x) }
func (t TCP) SetHeaderLen(n int)   { t[12] = byte(n/4) << 4 }
func (t TCP) SetFlags(x uint8)     { t[13] = x }
func (t TCP) SetWindow(x uint16)   { binary.BigEndian.PutUint16(t[14:], x) }
func (t TCP) SetChecksum(x uint16) { binary.BigEndian.PutUint16(t[16:], x) }
