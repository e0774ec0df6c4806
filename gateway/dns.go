package gateway

import (
	"bytes"
	"slices"
	"sync"

	"fairlead/packet"
)

// A Question is a DNS message that a container has sent to its gateway.
type Question struct {
	Network   packet.NetworkID
	Container packet.ContainerID
	From      packet.Tuple // of its packet
	Payload   []byte       // the message; it is the receiver's
}

// A DNS answers questions.
type DNS interface {
	// Query takes a question, or reports false when it has no room for it. It does
	// not block. The answer, if there is one, is given to reply, once, at any time
	// and by any goroutine; it is copied. What is longer than the network's MTU
	// takes does not arrive.
	Query(q Question, reply func(answer []byte)) bool
}

const (
	// maxQuery bounds a question: that of a server that takes EDNS (RFC 6891 6.2.5).
	maxQuery = 4096
	// maxAnswers bounds the answers that wait to be sent, for a turn of the worker.
	// Who gets none asks again.
	maxAnswers = 256
)

// A names is where the questions of a network go, and the answers to them.
type names struct {
	dns  DNS
	wake func() // has Tick called soon

	mu      sync.Mutex
	answers []answer
}

// An answer is what goes back to who asked.
type answer struct {
	to      *asker
	message []byte
}

// An asker is where a question came from.
type asker struct {
	port  packet.PortID
	from  packet.Tuple
	ether [packet.EthernetLen + packet.MaxVLANTags*packet.VLANLen]byte // its header, tags included
	l3    int                                                          // as long as that is
}

// SetDNS has questions to port 53 of the gateway answered, for which wake has to
// have Tick called, from any goroutine. Without one, which is nil, there is nobody
// at that port.
func (g *Gateway) SetDNS(dns DNS, wake func()) {
	if dns == nil {
		g.names.Store(nil)
		return
	}
	g.names.Store(&names{dns: dns, wake: wake})
}

// routeQuery decides on a datagram to port 53 of the gateway: true when it is one
// for names.
func (g *Gateway) routeQuery(f *packet.Frame, d *packet.Decision) bool {
	if f.Proto != packet.ProtoUDP || f.L4 == 0 || f.DstPort != dnsPort || g.names.Load() == nil {
		return false
	}
	if f.Flags.Has(packet.Fragment) || f.Len() > maxQuery || !intact(f) {
		d.RefuseCopy(packet.NotUnderstood)
		return true
	}
	d.EndAtGateway()
	d.Query = true
	return true
}

// intact reports whether the checksum of a datagram is right, as far as it has
// one yet.
func intact(f *packet.Frame) bool {
	u, ip := packet.UDP(f.Transport()), packet.IPv4(f.Packet())
	if f.Flags.Has(packet.NeedsChecksum) || u.Checksum() == 0 {
		return true
	}
	u = u[:u.Len()]
	return packet.Sum(u, packet.PseudoSum4(ip.Src(), ip.Dst(), packet.ProtoUDP, len(u))) == 0xffff
}

// query passes a question on.
func (g *Gateway) query(f *packet.Frame, d *packet.Decision) {
	n := g.names.Load()
	if n == nil {
		return // taken away since
	}
	to := asker{port: f.Port, from: f.Tuple(), l3: int(f.L3)}
	copy(to.ether[:], f.Ether()[:f.L3])
	payload := packet.UDP(f.Transport()).Payload()
	each := len(payload)
	if f.Flags.Has(packet.GSO) {
		each = int(f.VNet().GSOSize())
	}
	for message := range slices.Chunk(payload, max(each, 1)) {
		q := Question{Network: g.network, Container: f.Container, From: to.from, Payload: bytes.Clone(message)}
		if !n.dns.Query(q, func(answer []byte) { n.add(&to, answer) }) {
			d.RefuseCopy(packet.DNSBusy)
		}
	}
}

// add has an answer sent soon.
func (n *names) add(to *asker, message []byte) {
	n.mu.Lock()
	first := len(n.answers) == 0
	if len(n.answers) < maxAnswers {
		n.answers = append(n.answers, answer{to, bytes.Clone(message)})
	}
	n.mu.Unlock()
	if first {
		n.wake()
	}
}

// sendAnswers sends the answers there are.
func (g *Gateway) sendAnswers(out packet.Out) {
	n := g.names.Load()
	if n == nil {
		return
	}
	n.mu.Lock()
	list := n.answers
	n.answers = nil
	n.mu.Unlock()
	for i := range list {
		if packet.IPv4MinLen+packet.UDPLen+len(list[i].message) <= g.mtu {
			out.Originate(packet.Place{Network: g.network, Port: list[i].to.port}, g.datagram(out.Room(), list[i].to, list[i].message))
		}
	}
}

// datagram writes an answer into buf, and returns its length with the virtio-net
// header.
func (g *Gateway) datagram(buf []byte, to *asker, message []byte) int {
	n := to.l3 + packet.IPv4MinLen + packet.UDPLen + len(message)
	clear(buf[:packet.VNetLen])
	ether := packet.Ethernet(buf[packet.VNetLen:][:n])
	copy(ether, to.ether[:to.l3])
	ether.SetDst(packet.Ethernet(to.ether[:]).Src())
	ether.SetSrc(g.mac)

	ip := packet.IPv4(ether[to.l3:])
	clear(ip[:packet.IPv4MinLen+packet.UDPLen])
	ip.SetHeaderLen(packet.IPv4MinLen)
	ip.SetTotalLen(len(ip))
	ip.SetTTL(ttl)
	ip.SetProto(packet.ProtoUDP)
	ip.SetSrc(g.addr)
	ip.SetDst([4]byte(to.from.Src[12:]))
	ip.UpdateChecksum()

	u := packet.UDP(ip[packet.IPv4MinLen:])
	u.SetSrcPort(dnsPort)
	u.SetDstPort(to.from.SrcPort)
	u.SetLen(len(u))
	copy(u[packet.UDPLen:], message)
	sum := ^packet.Sum(u, packet.PseudoSum4(ip.Src(), ip.Dst(), packet.ProtoUDP, len(u)))
	if sum == 0 {
		sum = 0xffff // 0 stands for none (RFC 768)
	}
	u.SetChecksum(sum)
	return packet.VNetLen + n
}
