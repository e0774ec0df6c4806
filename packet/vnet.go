package packet

import "encoding/binary"

// VNetLen is the length of the virtio-net header in front of every frame: the
// classic form, without num_buffers, which a TAP speaks by default.
const VNetLen = 10

// Bits of VNet.Flags.
const (
	// VNetNeedsCSum says that the checksum at CSumStart+CSumOffset is
	// unfinished: the field holds the folded pseudo-header sum.
	VNetNeedsCSum = 1
	// VNetDataValid says that a device has verified the checksum. A TAP
	// ignores it on write.
	VNetDataValid = 2
)

// Values of VNet.GSOType. The gap at 2 is the specification's.
const (
	GSONone  = 0
	GSOTCPv4 = 1
	GSOUDP   = 3 // UFO: one datagram to be fragmented; obsolete
	GSOTCPv6 = 4
	GSOUDPL4 = 5 // USO: a train of datagrams
	// GSOECN is a bit beside a TCP type: the segments carry CWR.
	GSOECN = 0x80
)

// USOMaxSegments is the most datagrams the kernel takes as one GSOUDPL4 frame
// (UDP_MAX_SEGMENTS; 64 before Linux 6.9).
const USOMaxSegments = 128

// A VNet is a view of a virtio-net header: struct virtio_net_hdr of
// include/uapi/linux/virtio_net.h, little-endian. Offsets in it count from the
// Ethernet header.
//
//	0      1        2        4         6           8             10
//	| flags | gso type | hdr len | gso size | csum start | csum offset |
type VNet []byte

// Valid reports whether the view is long enough to be read.
func (v VNet) Valid() bool { return len(v) >= VNetLen }

// IsZero reports whether the header says nothing: a plain, finished frame.
func (v VNet) IsZero() bool {
	return binary.LittleEndian.Uint64(v)|uint64(binary.LittleEndian.Uint16(v[8:])) == 0
}

// Clear makes the header say nothing.
func (v VNet) Clear() { clear(v[:VNetLen]) }

func (v VNet) Flags() uint8   { return v[0] }
func (v VNet) GSOType() uint8 { return v[1] }

// HdrLen is a hint how many bytes are headers. For forwarded frames the kernel
// puts its whole first chunk there, so do not rely on it.
func (v VNet) HdrLen() uint16 { return binary.LittleEndian.Uint16(v[2:]) }

// GSOSize is the transport payload of one segment.
func (v VNet) GSOSize() uint16 { return binary.LittleEndian.Uint16(v[4:]) }

// CSumStart is where the sum begins.
func (v VNet) CSumStart() uint16 { return binary.LittleEndian.Uint16(v[6:]) }

// CSumOffset is the checksum field, counted from CSumStart.
func (v VNet) CSumOffset() uint16 { return binary.LittleEndian.Uint16(v[8:]) }

func (v VNet) SetFlags(x uint8)       { v[0] = x }
func (v VNet) SetGSOType(x uint8)     { v[1] = x }
func (v VNet) SetHdrLen(x uint16)     { binary.LittleEndian.PutUint16(v[2:], x) }
func (v VNet) SetGSOSize(x uint16)    { binary.LittleEndian.PutUint16(v[4:], x) }
func (v VNet) SetCSumStart(x uint16)  { binary.LittleEndian.PutUint16(v[6:], x) }
func (v VNet) SetCSumOffset(x uint16) { binary.LittleEndian.PutUint16(v[8:], x) }
