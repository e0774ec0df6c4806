package gateway

import (
	"bytes"
	"slices"

	"fairlead/arp"
	"fairlead/packet"
	"fairlead/policy"
)

// quoteMax bounds what an ICMP error quotes so that the error stays within 576
// bytes (RFC 1812 4.3.2.3).
const quoteMax = 576 - packet.IPv4MinLen - packet.ICMPLen

// ttl is what the gateway's own packets start with, as Linux's default.
const ttl = 64

// Apply carries out what Route decided of f: it takes the sender into the
// neighbour table and sends the answer, if one is due.
func (g *Gateway) Apply(f *packet.Frame, d *packet.Decision, out packet.Out) {
	if d.Neighbour {
		a := packet.ARP(f.Ether()[f.L3:])
		g.mu.Lock()
		g.neighbours.Learn(arp.Entry{
			Addr: a.SenderIP(), MAC: a.SenderMAC(), Port: f.Port, Container: f.Container, Seen: f.Time,
		})
		g.mu.Unlock()
	}
	n := 0
	switch d.Originate {
	case packet.OriginARPReply:
		n = g.arpReply(f, out.Room())
	case packet.OriginEchoReply:
		n = g.echoReply(f, out.Room())
	case packet.OriginNetUnreachable:
		n = g.unreachable(f, out.Room(), packet.ICMPNetUnreachable)
	}
	if n > 0 {
		out.Originate(packet.Place{Network: f.Network, Port: f.Port}, n)
	}
}

// Tick does what is due: nothing so far.
func (g *Gateway) Tick(int64, packet.Out) {}

// reply copies the first n bytes of the frame, counted from its Ethernet
// header, behind a virtio-net header that asks for nothing, and turns the
// addresses round. VLAN tags stay, so the answer returns the way it came.
func (g *Gateway) reply(f *packet.Frame, buf []byte, n int) packet.Ethernet {
	clear(buf[:packet.VNetLen])
	ether := packet.Ethernet(buf[packet.VNetLen:][:n])
	copy(ether, f.Ether())
	ether.SetDst(packet.Ethernet(f.Ether()).Src())
	ether.SetSrc(g.mac)
	return ether
}

func (g *Gateway) arpReply(f *packet.Frame, buf []byte) int {
	n := int(f.L3) + packet.ARPLen
	ether := g.reply(f, buf, n)
	a := packet.ARP(ether[f.L3:])
	arp.Answer(a, a, g.mac)
	return packet.VNetLen + n
}

// echoReply answers one packet of a ping, whole or a fragment; ID, flags and
// options stay, so the answers to the fragments are the fragments of the answer.
// The change of type is added to the ICMP checksum and not summed anew, because
// in a first fragment it covers fragments we never see together.
func (g *Gateway) echoReply(f *packet.Frame, buf []byte) int {
	ether := g.reply(f, buf, f.Len())
	ip := packet.IPv4(ether[f.L3:])
	src, dst := ip.Src(), ip.Dst()
	ip.SetSrc(dst)
	ip.SetDst(src)
	ip.SetTTL(ttl)
	ip.UpdateChecksum()
	if !f.Flags.Has(packet.LaterFragment) {
		icmp := packet.ICMP(ether[f.L4:])
		turned := packet.Delta(0).Replace16(packet.ICMPEcho<<8, packet.ICMPEchoReply<<8)
		icmp.SetType(packet.ICMPEchoReply)
		sum := turned.Update(icmp.Checksum())
		if sum == 0 {
			// Of the two zeros of ones' complement this one is right for a
			// message of nothing but zeros as well (RFC 1624 section 3).
			sum = 0xffff
		}
		icmp.SetChecksum(sum)
	}
	return packet.VNetLen + f.Len()
}

// unreachable makes an ICMP destination unreachable about f: the gateway's
// address, the code, and a quote of the packet (RFC 792, RFC 1812 4.3.2).
func (g *Gateway) unreachable(f *packet.Frame, buf []byte, code uint8) int {
	g.mu.Lock()
	rate := g.errors[f.Port]
	if rate == nil {
		r := policy.NewRate(errorsPerSecond, errorsBurst)
		rate = &r
		g.errors[f.Port] = rate
	}
	rate.Take(f.Time, 1)
	g.mu.Unlock()

	about := packet.IPv4(f.Ether()[f.L3:])
	quote := about[:min(about.TotalLen(), quoteMax)]
	head := int(f.L3) + packet.IPv4MinLen + packet.ICMPLen
	ether := g.reply(f, buf, int(f.L3))
	ether = ether[:head+len(quote)]
	copy(ether[head:], quote)

	ip := packet.IPv4(ether[f.L3:])
	clear(ip[:packet.IPv4MinLen+packet.ICMPLen])
	ip.SetHeaderLen(packet.IPv4MinLen)
	ip.SetTOS(0xc0) // internetwork control, RFC 1812 4.3.2.5
	ip.SetTotalLen(len(ip))
	ip.SetTTL(ttl)
	ip.SetProto(packet.ProtoICMP)
	ip.SetSrc(g.addr)
	ip.SetDst(about.Src())
	ip.UpdateChecksum()
	icmp := packet.ICMP(ip[packet.IPv4MinLen:])
	icmp.SetType(packet.ICMPUnreachable)
	icmp.SetCode(code)
	icmp.UpdateChecksum(0)
	return packet.VNetLen + len(ether)
}

// FlushPort forgets the neighbours behind a port that has gone.
func (g *Gateway) FlushPort(port packet.PortID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.neighbours.FlushPort(port)
	delete(g.errors, port)
}

// Neighbours lists the neighbour table at time now, by address.
func (g *Gateway) Neighbours(now int64) []arp.Entry {
	g.mu.Lock()
	list := g.neighbours.Entries(now)
	g.mu.Unlock() // workers may be waiting
	slices.SortFunc(list, func(a, b arp.Entry) int { return bytes.Compare(a.Addr[:], b.Addr[:]) })
	return list
}
