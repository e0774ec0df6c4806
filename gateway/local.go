package gateway

import (
	"bytes"
	"net/netip"
	"slices"
	"sync"

	"fairlead/packet"
)

// Services of the gateway's own, by UDP port: stations ask, and somebody else on
// this node has the answer.

// Ports of the services.
const (
	dnsPort    = 53 // by TCP too: see services.go
	dhcpServer = 67
	dhcpClient = 68 // where its answers go
)

// Nameserver is where containers ask for names beside the gateway's own address:
// one of their loopback, which a route of theirs leads here.
var Nameserver = netip.AddrFrom4(nameserver)

var (
	nameserver = [4]byte{127, 0, 0, 11}
	everybody  = [4]byte{255, 255, 255, 255}
)

// A Question is a datagram that a station has sent to a service of its gateway.
type Question struct {
	Network   packet.NetworkID
	Container packet.ContainerID
	Port      packet.PortID // where it came in
	MAC       packet.MAC    // who sent its frame
	From      packet.Tuple  // of its packet
	Payload   []byte        // the message; it is the receiver's
}

// A DNS answers questions for names.
type DNS interface {
	// Query takes a question, or reports false when it has no room for it. It does
	// not block. The answer, if there is one, is given to reply, once, at any time
	// and by any goroutine; it is copied. What is longer than the network's MTU
	// takes does not arrive.
	Query(q Question, reply func(answer []byte)) bool
}

// A DHCP has addresses for stations, which ask by broadcast, and the gateway's
// address too once they have one. A question that came by broadcast is for
// everybody; other stations hear it as well.
type DHCP interface {
	// Message is as DNS's Query.
	Message(q Question, reply func(Offer)) bool
}

// An Offer is a DHCP server's message to a station, which has perhaps no address
// yet (RFC 2131 4.1). It leaves where the question came in.
type Offer struct {
	Payload []byte
	MAC     packet.MAC // of the station, or everybody's
	Addr    netip.Addr // what it is going to have, or everybody's
}

// SetDHCPClient has fn hear what DHCP servers on the network say to everybody, on a
// worker; nil is nobody.
func (g *Gateway) SetDHCPClient(fn func(message []byte)) {
	if fn == nil {
		g.dhcpHeard.Store(nil)
		return
	}
	g.dhcpHeard.Store(&service{full: packet.DHCPBusy, ask: func(q Question, _ *asker) bool {
		fn(q.Payload)
		return true
	}})
}

// SayDHCP has the next Tick send a message to the DHCP servers on the network, from
// a station without an address. The message is copied.
func (g *Gateway) SayDHCP(from packet.MAC, message []byte) {
	by := &asker{from: packet.Tuple{DstPort: dhcpClient}, l3: packet.EthernetLen}
	packet.Ethernet(by.ether[:]).SetType(packet.EtherTypeIPv4)
	g.answers.add(answer{by: by, from: from, mac: packet.BroadcastMAC, to: netip.AddrPortFrom(netip.AddrFrom4(everybody), dhcpServer), message: message}, func() {})
}

const (
	// maxQuestion bounds a question: that of a server that takes EDNS (RFC 6891 6.2.5).
	maxQuestion = 4096
	// maxAnswers bounds the answers that wait to be sent, for a turn of the worker,
	// and answersPerContainer those to one container. Who gets none asks again.
	maxAnswers          = 512
	answersPerContainer = 64
)

// A service answers at one port.
type service struct {
	ask  func(q Question, by *asker) bool
	full packet.Reason // of a question it has no room for
}

// An asker is where a question came from.
type asker struct {
	port      packet.PortID
	container packet.ContainerID
	from      packet.Tuple
	ether     [packet.EthernetLen + packet.MaxVLANTags*packet.VLANLen]byte // its header, tags included
	l3        int                                                          // as long as that is
}

// An answer is what goes back by the way a question came.
type answer struct {
	by      *asker
	from    packet.MAC // zero: the gateway
	mac     packet.MAC
	to      netip.AddrPort
	message []byte
}

// answers are those that wait to be sent.
type answers struct {
	mu   sync.Mutex
	list []answer
	of   map[packet.ContainerID]int // how many are whose
}

// SetDNS has questions to port 53 of the gateway answered, for which wake has to
// have Tick called, from any goroutine. Without one, which is nil, there is nobody
// at that port.
func (g *Gateway) SetDNS(dns DNS, wake func()) {
	if dns == nil {
		g.dns.Store(nil)
		return
	}
	g.dns.Store(&service{full: packet.DNSBusy, ask: func(q Question, by *asker) bool {
		return dns.Query(q, func(message []byte) {
			to := netip.AddrPortFrom(by.from.Src.Netip(), by.from.SrcPort)
			g.answers.add(answer{by: by, mac: packet.Ethernet(by.ether[:]).Src(), to: to, message: message}, wake)
		})
	}})
}

// SetDHCP has messages to port 67 answered, as SetDNS has questions to port 53.
func (g *Gateway) SetDHCP(dhcp DHCP, wake func()) {
	if dhcp == nil {
		g.dhcp.Store(nil)
		return
	}
	g.dhcp.Store(&service{full: packet.DHCPBusy, ask: func(q Question, by *asker) bool {
		return dhcp.Message(q, func(o Offer) {
			g.answers.add(answer{by: by, mac: o.MAC, to: netip.AddrPortFrom(o.Addr, dhcpClient), message: o.Payload}, wake)
		})
	}})
}

// service is whom a datagram to the gateway is for, nil when it is nobody.
func (g *Gateway) service(f *packet.Frame) *service {
	if f.Proto != packet.ProtoUDP || f.L4 == 0 {
		return nil
	}
	switch f.DstPort {
	case dnsPort:
		return g.dns.Load()
	case dhcpServer:
		return g.dhcp.Load()
	case dhcpClient:
		if f.SrcPort == dhcpServer { // which the guard lets no container be
			return g.dhcpHeard.Load()
		}
	}
	return nil
}

// asksNameserver reports whether a packet is for the containers' nameserver, an
// address nothing else goes to. What asks by TCP goes on as if it were for the
// gateway's own address.
func (g *Gateway) asksNameserver(f *packet.Frame, ip packet.IPv4) bool {
	src := ip.Src()
	if ip.Dst() != nameserver || !isStation(src) || src[0] == 127 || !headerIntact(ip) || f.L4 == 0 || f.DstPort != dnsPort {
		return false
	}
	switch f.Proto {
	case packet.ProtoUDP:
		return g.dns.Load() != nil
	case packet.ProtoTCP:
		return !f.Flags.Has(packet.Fragment) && g.router.dnsTCP.Load() != 0
	}
	return false
}

// routeQuestion decides on a packet to the gateway: true when it is one for a
// service.
func (g *Gateway) routeQuestion(f *packet.Frame, d *packet.Decision) bool {
	if g.service(f) == nil {
		return false
	}
	if f.Flags.Has(packet.Fragment) || f.Len() > maxQuestion || !intact(f) {
		d.RefuseCopy(packet.NotUnderstood)
		return true
	}
	d.EndAtGateway()
	d.Query = true
	return true
}

// routeBroadcast decides on what everybody hears: the gateway does for DHCP.
func (g *Gateway) routeBroadcast(f *packet.Frame, d *packet.Decision) {
	if !f.Flags.Has(packet.Broadcast) || f.EtherType != packet.EtherTypeIPv4 ||
		f.DstPort != dhcpServer && (f.DstPort != dhcpClient || f.SrcPort != dhcpServer) {
		return
	}
	if ip := packet.IPv4(f.Packet()); ip.Dst() == everybody && headerIntact(ip) {
		g.routeQuestion(f, d)
	}
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

// askService passes a question on.
func (g *Gateway) askService(f *packet.Frame, d *packet.Decision) {
	s := g.service(f)
	if s == nil {
		return // taken away since
	}
	by := &asker{port: f.Port, container: f.Container, from: f.Tuple(), l3: int(f.L3)}
	copy(by.ether[:], f.Ether()[:f.L3])
	payload := packet.UDP(f.Transport()).Payload()
	each := len(payload)
	if f.Flags.Has(packet.GSO) {
		each = int(f.VNet().GSOSize())
	}
	for message := range slices.Chunk(payload, max(each, 1)) {
		if !s.ask(Question{
			Network: g.network, Container: f.Container, Port: f.Port, MAC: packet.Ethernet(f.Ether()).Src(),
			From: by.from, Payload: bytes.Clone(message),
		}, by) {
			d.RefuseCopy(s.full)
		}
	}
}

// add has an answer sent soon, if there is room for it. The message is copied.
func (l *answers) add(a answer, wake func()) {
	l.mu.Lock()
	first := len(l.list) == 0
	if c := a.by.container; len(l.list) < maxAnswers && l.of[c] < answersPerContainer {
		if l.of == nil {
			l.of = make(map[packet.ContainerID]int)
		}
		l.of[c]++
		a.message = bytes.Clone(a.message)
		l.list = append(l.list, a)
	}
	l.mu.Unlock()
	if first {
		wake()
	}
}

// take returns the answers there are.
func (l *answers) take() (list []answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	list, l.list = l.list, nil
	clear(l.of)
	return list
}

// sendAnswers sends the answers there are.
func (g *Gateway) sendAnswers(out packet.Out) {
	list := g.answers.take()
	for i := range list {
		if packet.IPv4MinLen+packet.UDPLen+len(list[i].message) <= g.mtu {
			out.Originate(packet.Place{Network: g.network, Port: list[i].by.port}, g.datagram(out.Room(), &list[i]))
		}
	}
}

// datagram writes an answer into buf, and returns its length with the virtio-net
// header. It is from the address that was asked.
func (g *Gateway) datagram(buf []byte, a *answer) int {
	by := a.by
	n := by.l3 + packet.IPv4MinLen + packet.UDPLen + len(a.message)
	clear(buf[:packet.VNetLen])
	ether := packet.Ethernet(buf[packet.VNetLen:][:n])
	copy(ether, by.ether[:by.l3])
	ether.SetDst(a.mac)
	ether.SetSrc(g.mac)

	ip := packet.IPv4(ether[by.l3:])
	clear(ip[:packet.IPv4MinLen+packet.UDPLen])
	ip.SetHeaderLen(packet.IPv4MinLen)
	ip.SetTotalLen(len(ip))
	ip.SetTTL(ttl)
	ip.SetProto(packet.ProtoUDP)
	ip.SetSrc(g.addr)
	if by.from.Dst == packet.AddrFrom4(nameserver) {
		ip.SetSrc(nameserver)
	}
	if !a.from.IsZero() {
		ether.SetSrc(a.from)
		ip.SetSrc([4]byte{})
	}
	ip.SetDst(a.to.Addr().As4())
	ip.UpdateChecksum()

	u := packet.UDP(ip[packet.IPv4MinLen:])
	u.SetSrcPort(by.from.DstPort)
	u.SetDstPort(a.to.Port())
	u.SetLen(len(u))
	copy(u[packet.UDPLen:], a.message)
	sum := ^packet.Sum(u, packet.PseudoSum4(ip.Src(), ip.Dst(), packet.ProtoUDP, len(u)))
	if sum == 0 {
		sum = 0xffff // 0 stands for none (RFC 768)
	}
	u.SetChecksum(sum)
	return packet.VNetLen + n
}
