package vswitch

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"fairlead/packet"
	"fairlead/policy"
)

// The model is the switch as a textbook has it: maps, gopacket, no care for
// speed. It says what has to become of a frame; the differential test compares
// verdict, reason, who got which bytes, and what the gateway answered.
type model struct {
	hub    bool
	ageing int64
	gwMAC  net.HardwareAddr
	gwIP   netip.Addr
	macs   map[string]modelEntry
	ports  map[packet.PortID]*modelPort

	// What containers may send one another; nil is everything.
	rules  []policy.AdmitRule
	closed bool

	blocked int64                                                       // when a port was, last
	isProbe func(b []byte, now int64) (left packet.PortID, vlan uint16) // where a probe of the loop guard had left by and in, else 0
}

type modelEntry struct {
	port   packet.PortID
	seen   int64
	static bool
}

type modelPort struct {
	station
	container         packet.ContainerID
	guarded, isolated bool
	macOnly           bool // held to its MAC, and no address
	outside           bool // a LAN is behind it, which it is shared by
	host              bool // the host's own link
	flood, errors     bucket

	linkLocals []string // it has sent from, the last ones
	addresses  bucket   // of new ones

	vlan   uint16   // of what has no tag; 0 is the network's own
	trunk  []uint16 // what comes and goes with a tag
	inVLAN bool     // it is in these only

	signs                  int // of a loop, since
	since                  int64
	blockedUntil, blockFor int64
}

// A bucket counts tokens in nanoseconds of its own refilling.
type bucket struct {
	cost, depth, level, last int64
}

func newBucket(perSecond, burst int64) bucket {
	cost := int64(1e9) / perSecond
	return bucket{cost: cost, depth: cost * burst, level: cost * burst}
}

func (b *bucket) allows(now int64) bool {
	b.level, b.last = min(b.depth, b.level+now-b.last), now
	return b.level >= b.cost
}

func (b *bucket) take(now int64) bool {
	if !b.allows(now) {
		return false
	}
	b.level -= b.cost
	return true
}

// An outcome is what the model expects of one frame.
type outcome struct {
	verdict packet.Verdict
	reason  packet.Reason
	egress  []packet.PortID
	answer  packet.Origin
	probed  bool // and a probe of the loop guard goes to the port it came from
}

func (o outcome) String() string {
	return fmt.Sprintf("%v %v to %#x, answered with %q", o.verdict, o.reason, o.egress, o.answer.String())
}

func (m *model) drop(r packet.Reason) outcome { return outcome{verdict: packet.Drop, reason: r} }

// frame says what becomes of a frame, whose parse reason the generator knows.
func (m *model) frame(in packet.PortID, b []byte, broken packet.Reason, now int64) outcome {
	if broken != packet.OK {
		return m.drop(broken)
	}
	if now < m.ports[in].blockedUntil {
		return m.drop(packet.Loop)
	}
	b, p := prioritized(b)
	id, r := m.vlanOf(m.ports[in], p)
	if r != packet.OK {
		return m.drop(r)
	}
	left, at := m.isProbe(b, now)
	if left != 0 && at == id {
		m.block(in, left, now)
		return m.drop(packet.Loop)
	}
	eth := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
	if r := m.guard(m.ports[in], p, eth); r != packet.OK && left == 0 {
		return m.drop(r)
	}
	address, r := m.ports[in].newLinkLocal(p, now)
	if r != packet.OK && left == 0 {
		return m.drop(r)
	}
	if strings.HasPrefix(eth.DstMAC.String(), "01:80:c2:00:00:0") {
		return m.drop(packet.ReservedGroup)
	}
	vlan := ""
	if id != 0 {
		vlan = fmt.Sprint(id)
	}
	o := m.lookUp(in, b, p, eth, vlan, now)
	if o.verdict == packet.Drop && o.reason != packet.NoRoute && o.reason != packet.NotUnderstood && o.reason != packet.Martian && o.reason != packet.Isolated && o.reason != packet.WrongVLAN && o.reason != packet.ICC &&
		o.reason != packet.SamePort && o.reason != packet.FloodLimit && o.reason != packet.Oversize {
		return o
	}
	if address != "" && o.verdict != packet.Drop {
		m.ports[in].sentFrom(address, now)
	}
	sign := o.verdict == packet.Flood
	if key := vlan + eth.SrcMAC.String(); left == 0 && !m.hub && !m.ports[in].host && !m.macs[key].static {
		was, known := m.macs[key]
		sign = sign || known && was.port != in && now-was.seen <= m.ageing
		m.macs[key] = modelEntry{port: in, seen: now}
	}
	o.probed = sign && m.ports[in].signed(now)
	return o
}

// tags are the VLAN tags right behind Ethernet, and network is the layer behind
// them. What is inside MPLS or a tunnel is payload, which gopacket decodes and a
// switch does not.
func tags(p gopacket.Packet) (list []*layers.Dot1Q) {
	for _, l := range p.Layers()[1:] {
		tag, ok := l.(*layers.Dot1Q)
		if !ok {
			break
		}
		list = append(list, tag)
	}
	return list
}

// asksForNames reports whether a packet is for the containers' nameserver.
func (m *model) asksForNames(eth *layers.Ethernet, ip *layers.IPv4) bool {
	if ip.DstIP.String() != "127.0.0.11" || eth.DstMAC.String() != m.gwMAC.String() || ip.FragOffset != 0 || ip.Flags&layers.IPv4MoreFragments != 0 {
		return false
	}
	tcpOrUDP := ip.Protocol == layers.IPProtocolTCP || ip.Protocol == layers.IPProtocolUDP
	return tcpOrUDP && bytes.Equal(ip.Payload[2:4], []byte{0, 53})
}

func network(p gopacket.Packet) gopacket.Layer {
	if rest := p.Layers()[1+len(tags(p)):]; len(rest) > 0 {
		return rest[0]
	}
	return nil
}

// guard is step 2.
func (m *model) guard(port *modelPort, p gopacket.Packet, eth *layers.Ethernet) (r packet.Reason) {
	if port.guarded && port.inVLAN && outerTag(p) != 0 { // what is not ours to give nobody is held to
		open := *port
		open.guarded = false
		if own := eth.SrcMAC.String() == port.MAC.String(); !own && eth.SrcMAC[0]&1 == 0 && eth.SrcMAC.String() != "00:00:00:00:00:00" && eth.SrcMAC.String() != m.gwMAC.String() {
			return packet.SpoofedMAC
		}
		open.macOnly = true
		port = &open
	}
	mine := port.MAC.String()
	switch {
	case eth.SrcMAC[0]&1 == 1 || eth.SrcMAC.String() == "00:00:00:00:00:00":
		return packet.BadSourceMAC
	case eth.SrcMAC.String() == m.gwMAC.String() && !port.host:
		return packet.SpoofedGateway
	case port.guarded && eth.SrcMAC.String() != mine || port.outside && m.held(eth.SrcMAC.String()):
		return packet.SpoofedMAC
	}
	claim := func(a netip.Addr) packet.Reason {
		switch own := a == m.gwIP || a == packet.MAC(m.gwMAC).LinkLocal(); {
		case own && port.host:
			return packet.OK
		case own:
			return packet.SpoofedGateway
		case port.guarded && a != port.IP || port.outside && m.held(a.String()):
			return packet.SpoofedAddress
		}
		return packet.OK
	}
	claim6 := func(a netip.Addr) packet.Reason {
		if !a.IsLinkLocalUnicast() || a == packet.MAC(m.gwMAC).LinkLocal() {
			return claim(a)
		}
		b := a.As16()
		foreign := (port.guarded || port.macOnly) && a != port.MAC.LinkLocal() || port.outside && m.held(a.String())
		if b[11] == 0xff && b[12] == 0xfe && foreign {
			return packet.SpoofedAddress
		}
		return packet.OK
	}
	if l, ok := network(p).(*layers.ARP); ok {
		src := netip.AddrFrom4([4]byte(l.SourceProtAddress))
		switch hw := net.HardwareAddr(l.SourceHwAddress).String(); {
		case src.IsLoopback() || l.DstProtAddress[0] == 127:
			return packet.LoopbackAddress
		case hw == m.gwMAC.String() && !port.host:
			return packet.SpoofedGateway
		case (port.guarded || port.macOnly) && hw != mine || port.outside && m.held(hw):
			return packet.SpoofedMAC
		case src.IsUnspecified():
			return packet.OK
		}
		return claim(src)
	}
	switch l := network(p).(type) {
	case *layers.IPv4:
		src, dst := netip.AddrFrom4([4]byte(l.SrcIP.To4())), netip.AddrFrom4([4]byte(l.DstIP.To4()))
		switch {
		case src.IsLoopback() || dst.IsLoopback() && !m.asksForNames(eth, l):
			return packet.LoopbackAddress
		case src.IsUnspecified() && eth.DstMAC.String() == "ff:ff:ff:ff:ff:ff":
		default:
			if r := claim(src); r != packet.OK {
				return r
			}
		}
		if b := l.Payload; port.guarded && l.Protocol == layers.IPProtocolUDP && l.FragOffset == 0 && bytes.Equal(b[2:4], []byte{0, 68}) {
			return packet.RogueDHCP
		}
		return packet.OK
	case *layers.IPv6:
		src, dst := netip.AddrFrom16([16]byte(l.SrcIP)), netip.AddrFrom16([16]byte(l.DstIP))
		rest := packet.OK
		if udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP); ok && port.guarded && udp.DstPort == 546 {
			rest = packet.RogueDHCP
		}
		switch {
		case src.IsLoopback() || dst.IsLoopback():
			return packet.LoopbackAddress
		case src.IsUnspecified():
			return rest
		}
		if r := claim6(src); r != packet.OK {
			return r
		}
		kind, options := uint8(0), []byte(nil)
		if icmp, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6); ok {
			kind, options = icmp.TypeCode.Type(), icmp.Payload
		}
		switch kind {
		case layers.ICMPv6TypeRouterAdvertisement, layers.ICMPv6TypeRedirect:
			if port.guarded {
				return packet.RogueRouter
			}
		}
		switch kind {
		case layers.ICMPv6TypeNeighborSolicitation:
			options = options[20:]
		case layers.ICMPv6TypeRouterAdvertisement:
			options = options[12:]
		case layers.ICMPv6TypeNeighborAdvertisement, layers.ICMPv6TypeRedirect:
			target := netip.AddrFrom16([16]byte(options[4:20]))
			if options = options[20:]; kind == layers.ICMPv6TypeRedirect {
				options = options[16:]
			}
			defer func() {
				if r == packet.OK {
					if r = claim6(target); r == packet.SpoofedAddress {
						r = packet.SpoofedNeighbour
					}
				}
			}()
		default:
			return rest
		}
		for ; len(options) > 0; options = options[8:] {
			switch hw := net.HardwareAddr(options[2:8]).String(); {
			case hw == m.gwMAC.String() && !port.host:
				return packet.SpoofedGateway
			case (port.guarded || port.macOnly) && hw != mine || port.outside && m.held(hw):
				return packet.SpoofedNeighbour
			}
		}
		return packet.OK
	}
	return packet.OK
}

// held reports whether a port is held to a MAC or an address.
func (m *model) held(what string) bool {
	for _, p := range m.ports {
		if p.guarded && !p.host && slices.Contains([]string{p.MAC.String(), p.IP.String(), p.MAC.LinkLocal().String()}, what) {
			return true
		}
	}
	return false
}

// lookUp is steps 3 to 6.
func (m *model) lookUp(in packet.PortID, b []byte, p gopacket.Packet, eth *layers.Ethernet, vlan string, now int64) outcome {
	port := m.ports[in]
	group := eth.DstMAC[0]&1 == 1
	forGateway := eth.DstMAC.String() == m.gwMAC.String() && vlan == ""
	if packetLen(p, eth, b) > 1500 {
		return m.drop(packet.Oversize)
	}
	o := outcome{verdict: packet.Flood, reason: packet.UnknownMAC}
	switch known, ok := m.macs[vlan+eth.DstMAC.String()]; {
	case m.hub:
		o.reason = packet.HubMode
	case forGateway && port.host:
		return m.drop(packet.SamePort)
	case forGateway:
		o = outcome{verdict: packet.Gateway, reason: packet.ForGateway}
	case group:
		o.reason = packet.ToGroup
	case ok && (known.static || now-known.seen <= m.ageing) && m.ports[known.port] != nil:
		if known.port == in {
			return m.drop(packet.SamePort)
		}
		if r := m.admits(b, p, vlan, port, m.ports[known.port]); r != packet.OK {
			return m.drop(r)
		}
		return outcome{verdict: packet.Unicast, reason: packet.KnownMAC, egress: []packet.PortID{known.port}}
	}
	if o.verdict == packet.Flood {
		if !port.flood.allows(now) {
			return m.drop(packet.FloodLimit)
		}
		for id, out := range m.ports {
			if id != in && m.admits(b, p, vlan, port, out) == packet.OK && (!out.host || group && !m.asksForGateway(p)) {
				o.egress = append(o.egress, id)
			}
		}
		slices.Sort(o.egress)
		port.flood.level -= port.flood.cost * int64(len(o.egress))
	}
	if (forGateway || group && vlan == "") && !port.host {
		m.gateway(&o, port, p, eth, forGateway, now)
	}
	return o
}

// admits is step 4: what one port may send another. That the record of Parse is
// right, package packet compares with gopacket.
func (m *model) admits(b []byte, p gopacket.Packet, vlan string, in, out *modelPort) packet.Reason {
	id, _ := strconv.Atoi(vlan)
	if !m.carries(p, uint16(id), out) {
		return packet.WrongVLAN
	}
	f := packet.Frame{B: bytes.Clone(b)}
	_ = packet.Parse(&f)
	switch {
	case in.isolated && out.isolated:
		return packet.Isolated
	case !m.closed || in.host || out.host || f.EtherType != packet.EtherTypeIPv4 && f.EtherType != packet.EtherTypeIPv6:
		return packet.OK
	}
	var kind uint8 // of ICMP
	v4, v6 := f.Proto == packet.ProtoICMP && f.L4 > 0, f.Proto == packet.ProtoICMPv6 && f.L4 > 0
	if v4 || v6 {
		kind = f.Transport()[0]
	}
	if v6 && (kind == 135 || kind == 136) {
		return packet.OK
	}
	for _, r := range m.rules {
		is := func(want, have packet.ContainerID) bool { return want == 0 || want == have }
		begin, answer := is(r.From, in.container) && is(r.To, out.container), is(r.From, out.container) && is(r.To, in.container)
		has := func(port uint16) bool { return f.Proto == r.Proto && r.Ports.First <= port && port <= r.Ports.Last }
		switch {
		case !begin && !answer:
		case f.Flags.Has(packet.LaterFragment), v4 && (kind == 3 || kind == 11 || kind == 12), v6 && kind <= 4,
			r.Proto == 0 && (begin || f.L4 == 0):
			return packet.OK
		case begin && f.L4 > 0 && has(f.DstPort):
			return packet.OK
		case !answer, f.Proto == packet.ProtoTCP && f.L4 > 0 && f.Transport()[13]&0x12 == 2, v4 && kind == 8, v6 && kind == 128:
		case r.Proto == 0, f.L4 > 0 && has(f.SrcPort):
			return packet.OK
		}
	}
	return packet.ICC
}

// host is the port of the host's own link, 0 if there is none.
func (m *model) host() packet.PortID {
	for id, p := range m.ports {
		if p.host {
			return id
		}
	}
	return 0
}

// asksForGateway reports whether a frame asks who has the gateway's address.
func (m *model) asksForGateway(p gopacket.Packet) bool {
	l, ok := network(p).(*layers.ARP)
	return ok && l.Operation == layers.ARPRequest && netip.AddrFrom4([4]byte(l.DstProtAddress)) == m.gwIP
}

// packetLen is what the MTU is compared with: the packet, and of one that is
// to be segmented the first segment.
func packetLen(p gopacket.Packet, eth *layers.Ethernet, b []byte) int {
	n := len(eth.Payload) - 4*len(tags(p))
	if gsoType, gsoSize := b[1], binary.LittleEndian.Uint16(b[4:]); gsoType != 0 {
		n += int(gsoSize) - len(p.TransportLayer().LayerPayload())
	}
	return n
}

// gateway is step 5.
func (m *model) gateway(o *outcome, port *modelPort, p gopacket.Packet, eth *layers.Ethernet, forGateway bool, now int64) {
	refuse := func(r packet.Reason) {
		if o.verdict != packet.Flood {
			o.verdict, o.reason = packet.Drop, r
		}
	}
	if l, ok := network(p).(*layers.ARP); ok {
		toGateway := netip.AddrFrom4([4]byte(l.DstProtAddress)) == m.gwIP
		if l.Operation == layers.ARPRequest && toGateway {
			o.answer = packet.OriginARPReply
		}
		if host := m.host(); l.Operation == layers.ARPReply && toGateway && forGateway && host != 0 {
			if len(tags(p)) > 0 { // the host is in no VLAN
				refuse(packet.NotUnderstood)
				return
			}
			if o.egress = append(o.egress, host); o.verdict != packet.Flood {
				o.verdict, o.reason = packet.Unicast, packet.ForHost
			}
			slices.Sort(o.egress)
		}
		return
	}
	if !forGateway {
		return
	}
	l, ok := network(p).(*layers.IPv4)
	if !ok {
		refuse(packet.NotUnderstood)
		return
	}
	src, dst := l.SrcIP.To4(), l.DstIP.To4()
	if src[0] == 0 || src[0] >= 224 || dst[0] == 0 || dst[0] >= 224 || dst.String() == "172.17.255.255" || src.String() == "172.17.255.255" {
		refuse(packet.Martian)
		return
	}
	icmp, _ := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
	if dst.String() == m.gwIP.String() && l.Protocol == layers.IPProtocolICMPv4 &&
		(l.FragOffset > 0 || icmp != nil && icmp.TypeCode.Type() == layers.ICMPv4TypeEchoRequest) {
		o.answer = packet.OriginEchoReply
		return
	}
	refuse(packet.NoRoute)
	isError := false
	if icmp != nil && l.FragOffset == 0 {
		switch icmp.TypeCode.Type() {
		case layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv4TypeSourceQuench, layers.ICMPv4TypeRedirect,
			layers.ICMPv4TypeTimeExceeded, layers.ICMPv4TypeParameterProblem:
			isError = true
		}
	}
	if l.FragOffset == 0 && !isError && port.errors.take(now) {
		o.answer = packet.OriginNetUnreachable
	}
}
