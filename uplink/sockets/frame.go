package sockets

import (
	"encoding/binary"

	"fairlead/packet"
)

// headRoom is where the network packet of a frame begins.
const headRoom = packet.VNetLen + packet.EthernetLen

// tcpHeaders is room for the headers of a segment without options.
const tcpHeaders = headRoom + packet.IPv4MinLen + packet.TCPMinLen

// An ipv4 says what the header of a frame has. Its tuple is from outside to the
// router: Src is who speaks. DF is never set: no socket tells whether the packet had
// it, and whoever were told that a packet was too large is not there to hear it. So
// each packet has an identification of its own, those of a train as well.
type ipv4 struct {
	tuple  packet.Tuple
	length int // of the transport header and payload
	tos    uint8
	ttl    uint8
	id     uint16
}

// headers writes the virtio-net header (saying nothing), the Ethernet and the
// IPv4 header into buf, which is the Room of a batch, and returns what follows
// them: length bytes of transport header and payload.
func headers(buf []byte, h *ipv4) (transport []byte) {
	clear(buf[:packet.VNetLen])
	ether := packet.Ethernet(buf[packet.VNetLen:])
	ether.SetDst(routerMAC)
	ether.SetSrc(outsideMAC)
	ether.SetType(packet.EtherTypeIPv4)
	ip := packet.IPv4(buf[headRoom:])
	ip.SetHeaderLen(packet.IPv4MinLen)
	ip.SetTOS(h.tos)
	ip.SetTotalLen(packet.IPv4MinLen + h.length)
	ip.SetID(h.id)
	ip.SetFragment(false, false, 0)
	ip.SetTTL(h.ttl)
	ip.SetProto(h.tuple.Proto)
	ip.SetChecksum(0)
	ip.SetSrc([4]byte(h.tuple.Src[12:]))
	ip.SetDst([4]byte(h.tuple.Dst[12:]))
	ip.SetChecksum(^packet.Sum(ip[:packet.IPv4MinLen], 0))
	return buf[headRoom+packet.IPv4MinLen : headRoom+packet.IPv4MinLen+h.length]
}

// unfinished has the receiver's kernel sum the transport header and payload: the
// checksum field gets the sum of the pseudo header, the virtio-net header says
// the rest. With size the frame is a train of segments of that much payload.
func unfinished(buf []byte, h *ipv4, headerLen, checksumAt int, gsoType uint8, size int) {
	const l4 = packet.EthernetLen + packet.IPv4MinLen
	v := packet.VNet(buf[:packet.VNetLen])
	v.SetFlags(packet.VNetNeedsCSum)
	v.SetCSumStart(l4)
	v.SetCSumOffset(uint16(checksumAt))
	if size > 0 {
		v.SetGSOType(gsoType)
		v.SetGSOSize(uint16(size))
		v.SetHdrLen(uint16(l4 + headerLen))
	}
	sum := packet.PseudoSum4([4]byte(h.tuple.Src[12:]), [4]byte(h.tuple.Dst[12:]), h.tuple.Proto, h.length)
	binary.BigEndian.PutUint16(buf[headRoom+packet.IPv4MinLen+checksumAt:], sum)
}
