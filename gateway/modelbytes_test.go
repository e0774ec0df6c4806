package gateway

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

// dissected is a frame as gopacket reads it.
type dissected struct {
	in    *end
	link  *modelLink
	frame []byte // as it came
	bare  []byte // without tags
	tags  []uint16

	eth  *layers.Ethernet
	ip   *layers.IPv4
	icmp *layers.ICMPv4
	tcp  *layers.TCP
	udp  *layers.UDP

	tuple packet.Tuple
	later bool
	first bool // of several fragments
	again bool // it has waited
}

// withoutPriority takes a single tag without a VLAN off, as the switch does.
func withoutPriority(b []byte) []byte {
	const at = packet.VNetLen + 12
	p := gopacket.NewPacket(b[packet.VNetLen:], layers.LayerTypeEthernet, gopacket.NoCopy)
	tag, ok := p.Layers()[1].(*layers.Dot1Q)
	if !ok || tag.VLANIdentifier != 0 || tag.Type == layers.EthernetTypeDot1Q || tag.Type == layers.EthernetTypeQinQ {
		return b
	}
	b = slices.Concat(b[:at], b[at+packet.VLANLen:])
	v := packet.VNet(b)
	if v.Flags()&packet.VNetNeedsCSum != 0 {
		v.SetCSumStart(v.CSumStart() - packet.VLANLen)
	}
	if v.HdrLen() != 0 {
		v.SetHdrLen(v.HdrLen() - packet.VLANLen)
	}
	return b
}

func (m *model) dissect(in *end, b []byte) *dissected {
	b = withoutPriority(b)
	d := &dissected{in: in, link: m.links[in.side.network], frame: b, bare: b}
	p := gopacket.NewPacket(b[packet.VNetLen:], layers.LayerTypeEthernet, gopacket.NoCopy)
	for _, l := range p.Layers()[1:] {
		tag, ok := l.(*layers.Dot1Q)
		if !ok {
			break // what is in a tunnel is payload
		}
		d.tags = append(d.tags, tag.VLANIdentifier)
		at := packet.VNetLen + 12
		d.bare = slices.Concat(d.bare[:at], d.bare[at+4:])
	}
	p = gopacket.NewPacket(d.bare[packet.VNetLen:], layers.LayerTypeEthernet, gopacket.NoCopy)
	d.eth = p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
	var ok bool
	if d.ip, ok = p.Layer(layers.LayerTypeIPv4).(*layers.IPv4); !ok {
		return d
	}
	d.later = d.ip.FragOffset > 0
	d.first = !d.later && d.ip.Flags&layers.IPv4MoreFragments != 0
	d.tuple = packet.Tuple{Src: packet.AddrFrom4([4]byte(d.ip.SrcIP.To4())), Dst: packet.AddrFrom4([4]byte(d.ip.DstIP.To4())), Proto: packet.Proto(d.ip.Protocol)}
	if d.later {
		return d
	}
	t := d.ip.Payload // gopacket does not go on behind the header of a first fragment
	switch d.ip.Protocol {
	case layers.IPProtocolTCP:
		d.tcp = new(layers.TCP)
		_ = d.tcp.DecodeFromBytes(t, gopacket.NilDecodeFeedback)
		d.tuple.SrcPort, d.tuple.DstPort = uint16(d.tcp.SrcPort), uint16(d.tcp.DstPort)
	case layers.IPProtocolUDP:
		d.udp = new(layers.UDP)
		_ = d.udp.DecodeFromBytes(t, gopacket.NilDecodeFeedback)
		d.tuple.SrcPort, d.tuple.DstPort = uint16(d.udp.SrcPort), uint16(d.udp.DstPort)
	case layers.IPProtocolICMPv4:
		d.icmp = new(layers.ICMPv4)
		_ = d.icmp.DecodeFromBytes(t, gopacket.NilDecodeFeedback)
		switch d.icmp.TypeCode.Type() {
		case layers.ICMPv4TypeEchoRequest:
			d.tuple.SrcPort = d.icmp.Id
		case layers.ICMPv4TypeEchoReply:
			d.tuple.DstPort = d.icmp.Id
		}
	}
	return d
}

func (d *dissected) isError() bool {
	if d.icmp == nil {
		return false
	}
	switch d.icmp.TypeCode.Type() {
	case layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv4TypeSourceQuench, layers.ICMPv4TypeRedirect,
		layers.ICMPv4TypeTimeExceeded, layers.ICMPv4TypeParameterProblem:
		return true
	}
	return false
}

func (d *dissected) isEcho() bool {
	return d.icmp != nil && d.icmp.TypeCode.Type() == layers.ICMPv4TypeEchoRequest
}

func (d *dissected) otherICMP() bool {
	return d.icmp != nil && !d.isEcho() && d.icmp.TypeCode.Type() != layers.ICMPv4TypeEchoReply
}

func (d *dissected) begins() bool {
	return d.tcp != nil && d.tcp.SYN && !d.tcp.ACK && !d.tcp.RST && !d.tcp.FIN
}

func (d *dissected) dst() netip.Addr { return d.tuple.Dst.Netip() }
func (d *dissected) src() netip.Addr { return d.tuple.Src.Netip() }

// size is what an MTU is compared with.
func (d *dissected) size() int {
	if v := packet.VNet(d.bare); v.GSOType() != packet.GSONone {
		return int(d.ip.IHL)*4 + int(d.tcp.DataOffset)*4 + int(v.GSOSize())
	}
	return int(d.ip.Length)
}

// What the model has the router say, and what packets look like behind it.

// refuse drops a packet and tells its sender, as far as that is allowed.
func (m *model) refuse(d *dissected, reason packet.Reason) {
	answers := map[packet.Reason]packet.Origin{
		packet.TTLExceeded: packet.OriginTimeExceeded, packet.NoRoute: packet.OriginNetUnreachable, packet.NoFlow: packet.OriginReset,
		packet.PortsExhausted: packet.OriginProhibited, packet.EgressDenied: packet.OriginProhibited,
		packet.NotCarried: packet.OriginProtoUnreachable, packet.PingForbidden: packet.OriginProhibited, packet.SocketBudget: packet.OriginProhibited,
		packet.HostUnreachable: packet.OriginHostUnreachable, packet.NotTranslatable: packet.OriginProtoUnreachable,
	}
	if reason == packet.SocketBudget && d.tuple.Proto == packet.ProtoTCP {
		answers[reason] = packet.OriginReset
	}
	if reason == packet.Refused {
		switch d.tuple.Proto {
		case packet.ProtoTCP:
			answers[reason] = packet.OriginReset
		case packet.ProtoUDP:
			answers[reason] = packet.OriginPortUnreachable
		default:
			answers[reason] = packet.OriginProtoUnreachable
		}
	}
	m.answer(d, reason, answers[reason], 0)
}

func (m *model) refuseMTU(d *dissected, mtu int) {
	m.answer(d, packet.FragNeeded, packet.OriginFragNeeded, mtu)
}

func (m *model) answer(d *dissected, reason packet.Reason, o packet.Origin, mtu int) {
	at := packet.Place{Network: d.link.network(), Port: d.in.port.ID()}
	rate := m.rates[at]
	if rate == nil {
		rate = &bucket{level: 1 << 62}
		m.rates[at] = rate
	}
	if o == 0 || d.later || d.isError() || o == packet.OriginReset && (d.tcp == nil || d.tcp.RST) || !rate.allows(m.w.now) && !d.link.keeps {
		m.says(packet.Drop, reason, 0)
		return
	}
	rate.level -= 1e9 / errorsPerSecond
	m.says(packet.Drop, reason, o)
	switch o {
	case packet.OriginReset:
		m.expect(d.in, expected{b: m.reset(d)})
	case packet.OriginTimeExceeded:
		m.expect(d.in, expected{b: m.icmpError(d, 11, 0, mtu)})
	default:
		code := map[packet.Origin]byte{packet.OriginHostUnreachable: 1, packet.OriginProtoUnreachable: 2,
			packet.OriginPortUnreachable: 3, packet.OriginFragNeeded: 4, packet.OriginProhibited: 13}[o]
		m.expect(d.in, expected{b: m.icmpError(d, 3, code, mtu)})
	}
}

// back is who answers d, and to whom.
func (d *dissected) back(from netip.Addr) (src, dst packettest.Station) {
	return d.link.station(from), packettest.Station{MAC: packet.MAC(d.eth.SrcMAC), IP: d.src()}
}

// framed finishes a packet of the router's own: header fields, and the tags.
func framed(b []byte, tos uint8, flags bool, tags []uint16) []byte {
	ip := packet.IPv4(payload(b))
	ip.SetTOS(tos)
	ip.SetID(0)
	if flags {
		ip.SetFragment(true, false, 0)
	}
	resum(b)
	if len(tags) > 0 {
		return packettest.Tagged(b, tags...)
	}
	return b
}

func (m *model) icmpError(d *dissected, kind, code byte, mtu int) []byte {
	from := d.link.addr
	passing := kind == 11 || code == 1 || code == 4 // it was on its way to a container
	if d.link.uplink && d.link.owns(d.dst()) && !passing {
		from = d.dst()
	}
	src, dst := d.back(from)
	message := append([]byte{kind, code, 0, 0, 0, 0, byte(mtu >> 8), byte(mtu)}, payload(d.bare)[:min(int(d.ip.Length), 548)]...)
	binary.BigEndian.PutUint16(message[2:], ^packettest.Sum(message, 0))
	return framed(packettest.IP(src, dst, packet.ProtoICMP, message), 0xc0, false, d.tags)
}

func (m *model) reset(d *dissected) []byte {
	src, dst := d.back(d.dst())
	s := packettest.Segment{SrcPort: d.tuple.DstPort, DstPort: d.tuple.SrcPort, Flags: packet.TCPRst}
	if d.tcp.ACK {
		s.Seq = d.tcp.Ack
	} else {
		s.Flags |= packet.TCPAck
		s.Ack = d.tcp.Seq + uint32(len(d.tcp.Payload))
		for _, set := range []bool{d.tcp.SYN, d.tcp.FIN} {
			if set {
				s.Ack++
			}
		}
	}
	b := packettest.TCP(src, dst, s, nil)
	t := packet.TCP(payload(b)[20:])
	t.SetWindow(0)
	t.SetChecksum(0)
	t.SetChecksum(^packettest.Sum(t, packettest.PseudoSum(src.IP, dst.IP, packet.ProtoTCP, len(t))))
	return framed(b, 0, true, d.tags)
}

// echo answers a ping, or a fragment of one.
func (m *model) echo(d *dissected) {
	m.says(packet.Gateway, packet.ForGateway, packet.OriginEchoReply)
	if d.first {
		m.learnPiece(d)
	}
	src, dst := d.back(d.dst())
	b := bytes.Clone(d.bare)
	e := packet.Ethernet(b[packet.VNetLen:])
	e.SetSrc(src.MAC)
	e.SetDst(dst.MAC)
	ip := packet.IPv4(payload(b))
	ip.SetSrc(src.IP.As4())
	ip.SetDst(dst.IP.As4())
	ip.SetTTL(64)
	resum(b)
	if !d.later {
		icmp := packet.ICMP(ip[20:])
		icmp.SetType(packet.ICMPEchoReply)
		icmp.SetChecksum(0)
		icmp.SetChecksum(^packettest.Sum(icmp, 0))
	}
	if len(d.tags) > 0 {
		b = packettest.Tagged(b, d.tags...)
	}
	m.expect(d.in, expected{b: b})
}

// rewritten is a frame as it leaves by the next link, all sums computed anew.
func rewritten(d *dissected, after packet.Tuple, about *packet.Tuple, src, dst packet.MAC) []byte {
	b := finished(d.bare)
	e := packet.Ethernet(b[packet.VNetLen:])
	e.SetSrc(src)
	e.SetDst(dst)
	packet.IPv4(payload(b)).SetTTL(d.ip.TTL - 1)
	translated(b, d, after, about)
	return b
}

// translated gives a packet other addresses and ports.
func translated(b []byte, d *dissected, after packet.Tuple, about *packet.Tuple) {
	ip := packet.IPv4(payload(b))
	t := ip[ip.HeaderLen():]
	if about == nil {
		ip.SetSrc([4]byte(after.Src[12:]))
		ip.SetDst([4]byte(after.Dst[12:]))
		if !d.later {
			setPorts(t, after)
		}
	} else {
		if after.Src != about.Src {
			ip.SetDst([4]byte(after.Src[12:]))
		}
		if after.Dst != about.Dst {
			ip.SetSrc([4]byte(after.Dst[12:]))
		}
		inner := packet.IPv4(t[8:])
		inner.SetSrc([4]byte(after.Src[12:]))
		inner.SetDst([4]byte(after.Dst[12:]))
		setPorts(quote(inner), after)
		sumUp(inner[:inner.TotalLen()])
	}
	sumUp(ip[:ip.TotalLen()])
}

func setPorts(t []byte, k packet.Tuple) {
	switch k.Proto {
	case packet.ProtoTCP, packet.ProtoUDP:
		binary.BigEndian.PutUint16(t, k.SrcPort)
		binary.BigEndian.PutUint16(t[2:], k.DstPort)
	case packet.ProtoICMP:
		if t[0] == packet.ICMPEcho || t[0] == packet.ICMPEchoReply {
			binary.BigEndian.PutUint16(t[4:], k.SrcPort|k.DstPort)
		}
	}
}

// sumUp computes the sums of an IPv4 packet. That of a first fragment covers
// what is not there: it is left zero, see canonical.
func sumUp(ip packet.IPv4) {
	ip.SetChecksum(0)
	ip.SetChecksum(^packettest.Sum(ip[:ip.HeaderLen()], 0))
	if ip.FragmentOffset() > 0 {
		return
	}
	t := ip[ip.HeaderLen():]
	at := map[packet.Proto]int{packet.ProtoTCP: 16, packet.ProtoUDP: 6, packet.ProtoICMP: 2}[ip.Proto()]
	if at == 0 || ip.Proto() == packet.ProtoUDP && binary.BigEndian.Uint16(t[at:]) == 0 {
		return
	}
	binary.BigEndian.PutUint16(t[at:], 0)
	if ip.MoreFragments() {
		return
	}
	pseudo := uint16(0)
	if ip.Proto() != packet.ProtoICMP {
		pseudo = packettest.PseudoSum(netip.AddrFrom4(ip.Src()), netip.AddrFrom4(ip.Dst()), ip.Proto(), len(t))
	}
	sum := ^packettest.Sum(t, pseudo)
	if sum == 0 && ip.Proto() == packet.ProtoUDP {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(t[at:], sum)
}

// finished is a copy of a frame whose sum is no longer left to a device. What
// its virtio-net header says besides is for the caller to look at.
func finished(b []byte) []byte {
	c := bytes.Clone(b)
	v := packet.VNet(c)
	if v.Flags()&packet.VNetNeedsCSum != 0 {
		ether := c[packet.VNetLen:]
		sum := ^packettest.Sum(ether[v.CSumStart():], 0)
		if sum == 0 && v.CSumOffset() == packet.UDPChecksumOffset {
			sum = 0xffff
		}
		binary.BigEndian.PutUint16(ether[v.CSumStart()+v.CSumOffset():], sum)
	}
	v.Clear()
	return c
}

// canonical is a frame in the form in which two of them are compared.
func canonical(b []byte) []byte {
	c := finished(b)
	if packet.Ethernet(c[packet.VNetLen:]).Type() != packet.EtherTypeIPv4 {
		return c
	}
	ip := packet.IPv4(payload(c))
	at := map[packet.Proto]int{packet.ProtoTCP: 16, packet.ProtoUDP: 6, packet.ProtoICMP: 2}[ip.Proto()]
	if at == 0 || ip.FragmentOffset() != 0 || len(ip) < ip.HeaderLen()+at+2 {
		return c
	}
	sum := ip[ip.HeaderLen()+at:][:2]
	// Of a first fragment the sum covers what is not there. And a sum that is
	// brought up to date may be the other zero of ones' complement (RFC 1624).
	if ip.MoreFragments() || ip.Proto() != packet.ProtoUDP && binary.BigEndian.Uint16(sum) == 0xffff {
		binary.BigEndian.PutUint16(sum, 0)
	}
	return c
}

// compare holds what arrived at an end against what had to.
func (m *model) compare(e *end, got [][]byte) string {
	for _, want := range m.sent[e] {
		n, why := want.matches(got)
		if why != "" {
			return why
		}
		got = got[n:]
	}
	if len(got) > 0 {
		return "more arrived than should have"
	}
	return ""
}

// matches compares the first frames with what is expected, and returns how many
// those are.
func (x expected) matches(got [][]byte) (n int, why string) {
	if len(got) == 0 {
		return 0, "less arrived than should have"
	}
	if x.mtu == 0 {
		if size := int(packet.VNet(got[0]).GSOSize()); x.gso != 0 && size != x.gso {
			return 0, "segments of the wrong size"
		}
		if !bytes.Equal(canonical(got[0]), canonical(x.b)) {
			return 0, "other bytes than should have"
		}
		return 1, ""
	}
	whole := packet.IPv4(payload(x.b))
	var data []byte
	for more := true; more; n++ {
		if n == len(got) {
			return 0, "the last fragment is missing"
		}
		ip := packet.IPv4(payload(got[n]))
		if ip.TotalLen() > x.mtu || ip.FragmentOffset() != whole.FragmentOffset()+len(data) || ip.ID() != whole.ID() || ip.TTL() != whole.TTL() ||
			ip.Src() != whole.Src() || ip.Dst() != whole.Dst() || packettest.Sum(ip[:ip.HeaderLen()], 0) != 0xffff ||
			!bytes.Equal(got[n][packet.VNetLen:][:12], x.b[packet.VNetLen:][:12]) {
			return 0, "a fragment is wrong"
		}
		data = append(data, ip.Payload()...)
		more = ip.MoreFragments() && len(data) < len(whole.Payload())
	}
	joined := slices.Concat(x.b[:packet.VNetLen+packet.EthernetLen+whole.HeaderLen()], data)
	if !bytes.Equal(canonical(joined), canonical(x.b)) {
		return 0, "fragments of something else"
	}
	return n, ""
}
