package trace

import (
	"fmt"
	"strings"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"fairlead/packet"
)

// Names gives ports a name for people.
type Names func(n packet.NetworkID, p packet.PortID) string

// Line is the record in one line: port in, what it is, verdict, reason, ports
// out.
func (r *Record) Line(names Names) string {
	return fmt.Sprintf("%s  %s → %s  %s  %s (%s)", r.Wall.Format("15:04:05.000000"),
		names(r.Network, r.Port), r.To(names), r.Summary(), r.Decision.Verdict, r.Decision.Reason)
}

// To names where the frame went.
func (r *Record) To(names Names) string {
	var to []string
	for _, p := range r.Named() {
		to = append(to, names(r.Network, p))
	}
	if more := r.Copies - len(to); more > 0 {
		to = append(to, fmt.Sprintf("and %d more", more))
	}
	if d := &r.Decision; d.Verdict == packet.Gateway || d.ToGateway {
		to = append(to, "gateway")
	}
	if len(to) == 0 {
		return "nowhere"
	}
	return strings.Join(to, ", ")
}

// Walk is the record as the steps of the packet's path, a line each.
func (r *Record) Walk(names Names) []string {
	d := &r.Decision
	w := walk{record: r, port: names(r.Network, r.Port)}
	if d.Verdict == packet.Drop && d.Reason < packet.BadSourceMAC {
		return w.stop("1 parse", d.Reason)
	}
	w.say("1 parse", "%s, %d bytes%s", r.Summary(), r.Len, segments(r.Segments))
	if d.Verdict == packet.Drop && d.Reason <= packet.LoopbackAddress {
		return w.stop("2 guard", d.Reason)
	}
	w.say("2 guard", "%s may use source %s", w.port, r.ether().Src())
	switch d.Learn {
	case packet.LearnNew:
		w.say("", "learned: %s is behind %s", r.ether().Src(), w.port)
	case packet.LearnMoved:
		w.say("", "moved: %s is now behind %s", r.ether().Src(), w.port)
	}
	switch {
	case d.Verdict == packet.Unicast:
		w.say("3 look up", "%s is behind %s", r.ether().Dst(), r.To(names))
	case d.Verdict == packet.Flood:
		w.say("3 look up", "%s: %s", r.ether().Dst(), d.Reason.Why())
	case d.Reason == packet.SamePort || d.Reason == packet.ReservedGroup:
		return w.stop("3 look up", d.Reason)
	case d.Reason >= packet.Isolated && d.Reason <= packet.Oversize:
		return w.stop("4 admit", d.Reason)
	default:
		w.say("3 look up", "%s is the gateway", r.ether().Dst())
	}
	w.say("4 admit", "nothing forbids it")
	switch {
	case d.Verdict == packet.Drop:
		w.stop("5 gateway", d.Reason)
	case d.Originate != packet.OriginNone || d.Neighbour:
		w.say("5 gateway", "%s", gatewayWords(d))
	}
	if d.Verdict == packet.Drop && d.Originate != packet.OriginNone {
		w.say("6 emit", "%s to %s", d.Originate, w.port)
		return w.lines
	}
	if d.Verdict == packet.Gateway {
		w.say("6 emit", "%s to %s", d.Originate, w.port)
		return w.lines
	}
	if d.Verdict != packet.Drop {
		w.say("6 emit", "%s to %s", d.Verdict, r.To(names))
	}
	return w.lines
}

func gatewayWords(d *packet.Decision) string {
	var words []string
	if d.Neighbour {
		words = append(words, "takes the sender into its ARP table")
	}
	if d.Originate != packet.OriginNone {
		words = append(words, "answers with "+d.Originate.String())
	}
	return strings.Join(words, ", ")
}

// A walk collects the lines of Walk.
type walk struct {
	record *Record
	port   string
	lines  []string
}

func (w *walk) say(step, format string, args ...any) {
	w.lines = append(w.lines, fmt.Sprintf("%-10s %s", step, fmt.Sprintf(format, args...)))
}

func (w *walk) stop(step string, r packet.Reason) []string {
	w.say(step, "dropped, %s: %s", r, r.Why())
	if r.Try() != "" {
		w.say("", "%s", r.Try())
	}
	return w.lines
}

func segments(n int) string {
	if n == 1 {
		return ""
	}
	return fmt.Sprintf(" in %d segments", n)
}

func (r *Record) ether() packet.Ethernet { return packet.Ethernet(r.head[:r.headLen]) }

// Summary says what the frame is, in the words of tcpdump as far as they go.
func (r *Record) Summary() string {
	if r.headLen < packet.EthernetLen {
		return fmt.Sprintf("%d bytes", r.Len)
	}
	p := gopacket.NewPacket(r.head[:r.headLen], layers.LayerTypeEthernet,
		gopacket.DecodeOptions{Lazy: true, NoCopy: true})
	var tag string
	if l, ok := p.Layer(layers.LayerTypeDot1Q).(*layers.Dot1Q); ok {
		tag = fmt.Sprintf("vlan %d ", l.VLANIdentifier)
	}
	if l, ok := p.Layer(layers.LayerTypeARP).(*layers.ARP); ok {
		return tag + arpWords(l)
	}
	var src, dst string
	switch l := p.NetworkLayer().(type) {
	case *layers.IPv4:
		src, dst = l.SrcIP.String(), l.DstIP.String()
		if l.FragOffset != 0 {
			return fmt.Sprintf("%s%s > %s %s fragment at %d", tag, src, dst, l.Protocol, int(l.FragOffset)*8)
		}
	case *layers.IPv6:
		src, dst = l.SrcIP.String(), l.DstIP.String()
	default:
		return fmt.Sprintf("%s%s > %s ethertype %#04x", tag, r.ether().Src(), r.ether().Dst(), uint16(r.ether().Type()))
	}
	return tag + transportWords(p, src, dst)
}

func arpWords(a *layers.ARP) string {
	src, dst := ip4(a.SourceProtAddress), ip4(a.DstProtAddress)
	if a.Operation == layers.ARPReply {
		return fmt.Sprintf("ARP %s is at %s", src, mac(a.SourceHwAddress))
	}
	return fmt.Sprintf("ARP who has %s, tell %s", dst, src)
}

func transportWords(p gopacket.Packet, src, dst string) string {
	plain := fmt.Sprintf("%s > %s", src, dst)
	for _, l := range p.Layers() {
		switch l := l.(type) {
		case *layers.TCP:
			return fmt.Sprintf("%s:%d > %s:%d TCP %s", src, l.SrcPort, dst, l.DstPort, tcpFlags(l))
		case *layers.UDP:
			return fmt.Sprintf("%s:%d > %s:%d UDP", src, l.SrcPort, dst, l.DstPort)
		case *layers.ICMPv4:
			return fmt.Sprintf("%s ICMP %s", plain, l.TypeCode)
		case *layers.ICMPv6:
			return fmt.Sprintf("%s ICMPv6 %s", plain, l.TypeCode)
		}
	}
	if l, ok := p.NetworkLayer().(*layers.IPv4); ok {
		return fmt.Sprintf("%s %s", plain, l.Protocol)
	}
	if l, ok := p.NetworkLayer().(*layers.IPv6); ok {
		return fmt.Sprintf("%s %s", plain, l.NextHeader)
	}
	return plain
}

func tcpFlags(t *layers.TCP) string {
	var s []string
	for _, f := range []struct {
		on   bool
		name string
	}{{t.SYN, "SYN"}, {t.FIN, "FIN"}, {t.RST, "RST"}, {t.PSH, "PSH"}, {t.ACK, "ACK"}} {
		if f.on {
			s = append(s, f.name)
		}
	}
	return strings.Join(s, " ")
}

func ip4(b []byte) string {
	if len(b) != 4 {
		return "?"
	}
	return fmt.Sprintf("%d.%d.%d.%d", b[0], b[1], b[2], b[3])
}

func mac(b []byte) string {
	if len(b) != 6 {
		return "?"
	}
	return packet.MAC(b).String()
}
