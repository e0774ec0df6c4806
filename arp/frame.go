package arp

import "fairlead/packet"

// FrameLen is the length of a frame Request writes.
const FrameLen = packet.VNetLen + packet.EthernetLen + packet.ARPLen

// Request writes into buf, of at least FrameLen bytes, the frame that asks
// everybody who has target, virtio-net header included, and returns its length.
// A sender of zero makes it a probe, one that equals target an announcement
// (RFC 5227 1.1).
func Request(buf []byte, mac packet.MAC, sender, target [4]byte) int {
	clear(buf[:FrameLen])
	ether := packet.Ethernet(buf[packet.VNetLen:])
	ether.SetDst(packet.BroadcastMAC)
	ether.SetSrc(mac)
	ether.SetType(packet.EtherTypeARP)
	a := packet.ARP(ether[packet.EthernetLen:])
	a.Init()
	a.SetOp(packet.ARPRequest)
	a.SetSenderMAC(mac)
	a.SetSenderIP(sender)
	a.SetTargetIP(target)
	return FrameLen
}

// Answer writes into dst the reply to a request for the address it asks for:
// "that is at mac". dst must be the length of a and may be a itself.
func Answer(dst, a packet.ARP, mac packet.MAC) {
	asker, askerIP, ip := a.SenderMAC(), a.SenderIP(), a.TargetIP()
	copy(dst, a[:8]) // hardware and protocol type and length stay
	dst.SetOp(packet.ARPReply)
	dst.SetSenderMAC(mac)
	dst.SetSenderIP(ip)
	dst.SetTargetMAC(asker)
	dst.SetTargetIP(askerIP)
}
