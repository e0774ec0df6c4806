package vswitch

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"fairlead/link"
	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/test/lab"
)

// TestJoinAgainstModel has random mixes of flows joined: the trains are those of the
// model, and cut again they are the packets that were sent. Each rule must have kept
// frames apart.
func TestJoinAgainstModel(t *testing.T) {
	batches := 1500
	if detector > 1 {
		batches /= 3
	}
	rng, j, apart := newRand(lab.Seed(t)), newJoiner(), map[string]int{}
	packets, trains := 0, 0
	for range batches {
		n := 1 + rng.IntN(packet.BatchFrames)
		if rng.IntN(10) == 0 {
			n = maxStaged
		}
		frames := newMix(rng).batch(t, n)
		want := modelJoin(frames, apart)
		got := checkJoined(t, j, frames, link.OffloadAll)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			for i, f := range frames {
				t.Logf("%d: port %#x, % x", i, f.Port, f.B[:min(len(f.B), 100)])
			}
			t.Fatalf("joined %v,\n  want %v", got, want)
		}
		packets += len(frames)
		trains += len(got)
	}
	t.Logf("%d frames became %d; what kept them apart: %v", packets, trains, apart)
	for _, why := range apartReasons {
		if least := batches / 300; apart[why] < least {
			t.Errorf("%s kept apart %d times, want %d", why, apart[why], least)
		}
	}
	if trains > packets*3/4 {
		t.Errorf("of %d frames %d were left", packets, trains)
	}
}

// A mix makes frames of some flows, mostly as they follow one another, now and then
// with something odd.
type mix struct {
	rng   *rand.Rand
	flows []*mixFlow
	calm  bool // nothing odd
}

type mixFlow struct {
	from, to station
	udp      bool
	port     uint16
	seq      uint32
	size     int
}

func newMix(rng *rand.Rand) *mix {
	m := &mix{rng: rng, calm: rng.IntN(8) == 0}
	for range 1 + rng.IntN(6) {
		f := &mixFlow{from: stationOf(2 + rng.IntN(2)), to: stationOf(4 + rng.IntN(2)), udp: rng.IntN(2) == 0,
			port: uint16(1000 + rng.IntN(3)), seq: rng.Uint32(), size: m.anySize()}
		if rng.IntN(3) == 0 {
			f.from, f.to = f.from.IPv6(), f.to.IPv6()
		}
		m.flows = append(m.flows, f)
	}
	return m
}

func (m *mix) anySize() int {
	switch m.rng.IntN(4) {
	case 0:
		return 1 + m.rng.IntN(30)
	case 1:
		return 1400 + m.rng.IntN(29)
	}
	return 1 + m.rng.IntN(1400)
}

// batch makes frames as one turn has them.
func (m *mix) batch(t testing.TB, n int) []*packet.Frame {
	t.Helper()
	var list [][]byte
	for range n {
		list = append(list, m.frame())
	}
	frames := readFrom(t, list...)
	for _, f := range frames {
		switch n := m.rng.IntN(150); {
		case m.calm:
		case n == 0:
			f.Port = 2
		case n == 1:
			*f = packet.Frame{B: f.B} // originated
		}
	}
	return frames
}

func (m *mix) frame() []byte {
	if m.calm {
		f := m.flows[0]
		if f.udp {
			return m.datagram(f, f.size, 0, false)
		}
		return m.segment(f, f.size, 0, false)
	}
	if m.rng.IntN(60) == 0 {
		return packettest.Good(m.rng, stationOf(2), stationOf(3), stationOf(4))
	}
	f := m.flows[m.rng.IntN(len(m.flows))]
	size := f.size
	switch m.rng.IntN(20) {
	case 0:
		size = m.anySize()
	case 1:
		size = 1 + m.rng.IntN(f.size) // the last of a train
	case 2:
		f.size = m.anySize()
		size = f.size
	case 3:
		if m.rng.IntN(3) == 0 {
			size = 0
		}
	}
	train := 0
	if m.rng.IntN(12) == 0 && size > 0 {
		train, size = size, size*(1+m.rng.IntN(4))-m.rng.IntN(2)*m.rng.IntN(size)
	}
	odd := m.rng.IntN(25) == 0
	if f.udp {
		return m.datagram(f, size, train, odd)
	}
	return m.segment(f, size, train, odd)
}

func (m *mix) datagram(f *mixFlow, size, train int, odd bool) []byte {
	port := f.port
	if odd && m.rng.IntN(3) == 0 {
		f.port, port = 68, 68
	}
	return m.dress(packettest.UDP(f.from, f.to, port, 7, m.bytes(size)), train, odd)
}

func (m *mix) segment(f *mixFlow, size, train int, odd bool) []byte {
	s := packettest.Segment{SrcPort: f.port, DstPort: 80, Seq: f.seq, Ack: 5, Flags: packet.TCPAck, Options: slices.Clone(timestamps)}
	f.seq += uint32(size)
	if !m.calm && m.rng.IntN(10) == 0 {
		s.Flags |= packet.TCPPsh
	}
	if odd {
		switch m.rng.IntN(5) {
		case 0:
			s.Seq -= uint32(m.rng.IntN(100))
		case 1:
			s.Ack++
		case 2:
			s.Options[11]++
		case 3:
			s.Flags = uint8(m.rng.IntN(256))
		case 4:
			s.Options = nil
		}
	}
	b := packettest.TCP(f.from, f.to, s, m.bytes(size))
	if odd && m.rng.IntN(8) == 0 {
		t := packet.TCP(b[len(b)-size-packet.TCPMinLen-len(s.Options):])
		t.SetWindow(7)
	}
	return m.dress(b, train, odd && m.rng.IntN(2) == 0)
}

func (m *mix) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(m.rng.Uint32())
	}
	return b
}

// dress finishes a frame as a kernel would, or oddly.
func (m *mix) dress(b []byte, train int, odd bool) []byte {
	if train > 0 {
		b = packettest.GSO(b, train)
	} else if !odd || m.rng.IntN(4) > 0 {
		b = packettest.Partial(b)
	}
	b = edited(b, func(ip packet.IPv4) {
		ip.SetFragment(!odd || m.rng.IntN(3) > 0, false, 0)
		ip.SetID(uint16(m.rng.Uint32()))
		if odd {
			ip.SetTTL(uint8(62 + m.rng.IntN(3)))
			ip.SetTOS(uint8(m.rng.IntN(3)))
		}
	})
	if !odd {
		return b
	}
	const l3 = packet.VNetLen + packet.EthernetLen
	six := b[l3]>>4 == 6
	switch m.rng.IntN(9) {
	case 8:
		b[0] |= packet.VNetDataValid
	case 0:
		b = packettest.Tagged(b, uint16(m.rng.IntN(2)))
	case 1:
		if train == 0 {
			b = append(b, 0, 0)
		}
	case 2:
		b[packet.VNetLen+5] ^= 1 // destination MAC
	case 3:
		if b[0] != 0 { // an unfinished sum that is wrong
			b[packet.VNetLen+int(packet.VNet(b).CSumStart()+packet.VNet(b).CSumOffset())] ^= 1
		}
	case 4:
		if !six {
			b[l3+10] ^= 0x40 // a damaged IPv4 header
		}
	case 5:
		if six {
			b[l3+1+m.rng.IntN(3)] ^= 1 // traffic class, flow label
		}
	case 6:
		if six {
			b[l3+7]-- // hop limit
		}
	}
	return b
}

// A modelPacket is what the model knows of a frame, by gopacket.
type modelPacket struct {
	flow  string // empty: of none that is known
	bad   string // why it joins nothing
	same  []string
	sizes []int // of the packets it stands for
	head  int   // length of its headers
	seq   int64 // -1: of no stream
	push  bool
}

// Why frames of one flow are kept apart; the first ones by what must be the same.
var sameNames = []string{"port", "MACs", "tags", "TTL", "TOS", "pseudo-header", "stream"}

var apartReasons = append([]string{"checksum", "headers", "DF", "DHCP", "empty", "flags", "size", "order", "PSH", "number", "unknown"}, sameNames...)

// modelJoin says which frames make a train, and counts why others do not.
func modelJoin(frames []*packet.Frame, apart map[string]int) (trains [][]int) {
	open := map[string]int{}         // the last train of a flow
	have := map[int][]*modelPacket{} // the packets of a train
	for i, f := range frames {
		p := describe(f)
		if p.flow == "" {
			if len(open) > 0 {
				apart["unknown"]++
			}
			clear(open)
			trains = append(trains, []int{i})
			continue
		}
		if k, ok := open[p.flow]; ok {
			why := mayFollow(have[k], p)
			if why == "" {
				trains[k], have[k] = append(trains[k], i), append(have[k], p)
				continue
			}
			apart[why]++
		}
		open[p.flow] = len(trains)
		have[len(trains)] = []*modelPacket{p}
		trains = append(trains, []int{i})
	}
	return trains
}

// mayFollow says why p cannot be part of a train, if it cannot.
func mayFollow(train []*modelPacket, p *modelPacket) string {
	first, last := train[0], train[len(train)-1]
	var sizes []int
	total := p.head
	for _, x := range append(slices.Clone(train), p) {
		if x.bad != "" {
			return x.bad
		}
		sizes = append(sizes, x.sizes...)
		for _, n := range x.sizes {
			total += n
		}
	}
	for i, name := range sameNames {
		if first.same[i] != p.same[i] {
			return name
		}
	}
	next := last.seq
	for _, n := range last.sizes {
		next += int64(n)
	}
	if last.push {
		return "PSH"
	}
	for i, n := range sizes {
		if n > sizes[0] || n < sizes[0] && i < len(sizes)-1 {
			return "size"
		}
	}
	switch {
	case p.seq >= 0 && uint32(p.seq) != uint32(next):
		return "order"
	case len(sizes) > 64 || total > 65535:
		return "number"
	}
	return ""
}

// describe reads a frame, whose record it uses for where it was read only.
func describe(f *packet.Frame) *modelPacket {
	v, b := f.B[:packet.VNetLen], f.B[packet.VNetLen:]
	p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.NoCopy)
	eth, ok := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
	d := &modelPacket{seq: -1}
	if !ok || f.Port == 0 || eth.DstMAC[0]&1 == 1 || len(f.B) > 2048 || v[0]&1 == 0 {
		return d
	}
	list := p.Layers()[1:]
	tags := ""
	for ; len(list) > 0 && list[0].LayerType() == layers.LayerTypeDot1Q; list = list[1:] {
		tags += fmt.Sprintf("%x ", list[0].LayerContents())
	}
	if len(list) < 2 {
		return d
	}
	l3 := packet.EthernetLen + len(tags)/9*packet.VLANLen
	var src, dst netip.Addr
	var ttl, tos string
	switch ip := list[0].(type) {
	case *layers.IPv4:
		src, dst = netip.AddrFrom4([4]byte(ip.SrcIP.To4())), netip.AddrFrom4([4]byte(ip.DstIP.To4()))
		ttl, tos = fmt.Sprint(ip.TTL), fmt.Sprint(ip.TOS)
		switch {
		case packettest.Sum(b[l3:l3+int(ip.IHL)*4], 0) != 0xffff, int(ip.Length) != len(b)-l3, len(ip.Options) > 0:
			d.bad = "headers"
		case ip.Flags != layers.IPv4DontFragment:
			d.bad = "DF"
		}
	case *layers.IPv6:
		src, dst = netip.AddrFrom16([16]byte(ip.SrcIP)), netip.AddrFrom16([16]byte(ip.DstIP))
		ttl, tos = fmt.Sprint(ip.HopLimit), fmt.Sprint(ip.TrafficClass, ip.FlowLabel)
		if int(ip.Length) != len(b)-l3-40 {
			d.bad = "headers"
		}
	default:
		return d
	}
	transport := p.TransportLayer()
	if transport == nil || p.Layer(gopacket.LayerTypeFragment) != nil {
		return d
	}
	l4 := bytes.Index(b[l3:], transport.LayerContents()) + l3
	start := int(binary.LittleEndian.Uint16(v[6:]))
	if start != l4 || list[1] != gopacket.Layer(transport) && !extended(list) {
		return d
	}
	if extended(list) {
		d.bad = "headers"
	}
	if v[0] != 1 {
		d.bad = "checksum"
	}
	payload, field, proto, stream := 0, uint16(0), packet.ProtoUDP, ""
	switch l := transport.(type) {
	case *layers.UDP:
		d.head, payload, field = l4+8, len(b)-l4-8, l.Checksum
		switch {
		case int(l.Length) != len(b)-l4 && d.bad == "":
			d.bad = "headers"
		case slices.Contains([]layers.UDPPort{67, 68}, l.SrcPort), slices.Contains([]layers.UDPPort{67, 68}, l.DstPort):
			d.bad = "DHCP"
		}
	case *layers.TCP:
		d.head, field, proto = l4+int(l.DataOffset)*4, l.Checksum, packet.ProtoTCP
		payload, d.push, d.seq = len(b)-d.head, l.PSH, int64(l.Seq)
		if l.FIN || l.SYN || l.RST || l.URG || l.ECE || l.CWR || l.NS || b[l4+12]&0xf != 0 || !l.ACK {
			d.bad = "flags"
		}
		stream = fmt.Sprintf("%d %d %d %x", l.Ack, l.Window, l.Urgent, b[l4+20:d.head])
	default:
		return d
	}
	if payload == 0 && d.bad == "" {
		d.bad = "empty"
	}
	size := payload
	if gso := int(binary.LittleEndian.Uint16(v[4:])); v[1] != 0 && gso < payload {
		size = gso
	}
	for n := payload; n > 0; n -= size {
		d.sizes = append(d.sizes, min(n, size))
	}
	// How far the unfinished sum is from what it should be.
	wrong := (uint32(field) + 0xffff - uint32(packettest.PseudoSum(src, dst, proto, len(b)-l4))) % 0xffff
	d.flow = fmt.Sprint(src, dst, proto, b[l4:l4+4])
	d.same = []string{fmt.Sprint(f.Port), eth.SrcMAC.String() + eth.DstMAC.String(), tags, ttl, tos, fmt.Sprint(wrong), fmt.Sprint(stream)}
	return d
}

// extended reports whether there are extension headers.
func extended(list []gopacket.Layer) bool {
	switch list[1].LayerType() {
	case layers.LayerTypeIPv6HopByHop, layers.LayerTypeIPv6Destination, layers.LayerTypeIPv6Routing, layers.LayerTypeIPv6Fragment, layers.LayerTypeIPSecAH:
		return true
	}
	return false
}
