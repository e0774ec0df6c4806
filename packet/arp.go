package packet

import "encoding/binary"

// ARPLen is the length of an ARP packet between Ethernet stations about IPv4.
const ARPLen = 28

// Values of ARP.Op.
const (
	ARPRequest = 1
	ARPReply   = 2
)

// An ARP is a view of an ARP packet (RFC 826) for Ethernet and IPv4.
//
//	0       2       4      5      6    8            14          18           24          28
//	| htype | ptype | hlen | plen | op | sender MAC | sender IP | target MAC | target IP |
type ARP []byte

// Valid reports whether the packet is all there and its four type and length
// fields say Ethernet and IPv4.
func (a ARP) Valid() bool {
	return len(a) >= ARPLen && binary.BigEndian.Uint64(a)>>16 == arpEthernetIPv4
}

// arpEthernetIPv4 is htype 1, ptype 0x0800, hlen 6, plen 4.
const arpEthernetIPv4 = 0x0001_0800_06_04

// Init writes the type and length fields.
func (a ARP) Init() {
	binary.BigEndian.PutUint32(a, arpEthernetIPv4>>16)
	binary.BigEndian.PutUint16(a[4:], arpEthernetIPv4&0xffff)
}

func (a ARP) Op() uint16        { return binary.BigEndian.Uint16(a[6:]) }
func (a ARP) SenderMAC() MAC    { return MAC(a[8:14]) }
func (a ARP) SenderIP() [4]byte { return [4]byte(a[14:18]) }
func (a ARP) TargetMAC() MAC    { return MAC(a[18:24]) }
func (a ARP) TargetIP() [4]byte { return [4]byte(a[24:28]) }

func (a ARP) SetOp(op uint16)        { binary.BigEndian.PutUint16(a[6:], op) }
func (a ARP) SetSenderMAC(m MAC)     { copy(a[8:14], m[:]) }
func (a ARP) SetSenderIP(ip [4]byte) { copy(a[14:18], ip[:]) }
func (a ARP) SetTargetMAC(m MAC)     { copy(a[18:24], m[:]) }
func (a ARP) SetTargetIP(ip [4]byte) { copy(a[24:28], ip[:]) }
