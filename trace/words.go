package trace

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

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
	if d := &r.Decision; d.Verdict == packet.Gateway || d.Verdict == packet.Flood && d.ToGateway {
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
	case d.Verdict == packet.Gateway:
		w.say("5 gateway", "has nothing to add")
	}
	if d.Verdict == packet.Unicast || d.Verdict == packet.Flood {
		w.say("6 emit", "%s to %s", d.Verdict, r.To(names))
	}
	if d.Originate != packet.OriginNone {
		w.say("6 emit", "%s to %s", d.Originate, w.port)
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

// at is the head from an offset of the frame's record on.
func (r *Record) at(offset uint16) []byte { return r.head[min(int(offset), r.headLen):r.headLen] }

// Summary says what the frame is, in the words of tcpdump as far as they go: what
// Parse has found in it, and of a malformed frame what can be read.
func (r *Record) Summary() string {
	if r.headLen < packet.EthernetLen {
		return fmt.Sprintf("%d bytes", r.Len)
	}
	var tags string
	for _, tci := range r.frame.VLAN[:r.frame.Tags] {
		tags += fmt.Sprintf("vlan %d ", tci&0xfff)
	}
	return tags + r.networkWords()
}

func (r *Record) networkWords() string {
	b := r.at(r.frame.L3)
	switch t := r.frame.EtherType; {
	case t == packet.EtherTypeARP && packet.ARP(b).Valid():
		return arpWords(b)
	case t == packet.EtherTypeIPv4 && len(b) >= packet.IPv4MinLen:
		ip := packet.IPv4(b)
		return r.ipWords(packet.AddrFrom4(ip.Src()), packet.AddrFrom4(ip.Dst()), ip.Proto())
	case t == packet.EtherTypeIPv6 && len(b) >= packet.IPv6Len:
		ip := packet.IPv6(b)
		return r.ipWords(ip.Src(), ip.Dst(), ip.NextHeader())
	}
	words := fmt.Sprintf("%s > %s", r.ether().Src(), r.ether().Dst())
	if r.frame.L3 == 0 {
		return words // Parse gave it up at its tags
	}
	t := r.frame.EtherType.String()
	if strings.HasPrefix(t, "0x") {
		t = "ethertype " + t
	}
	return words + " " + t
}

func arpWords(a packet.ARP) string {
	sender, target := packet.AddrFrom4(a.SenderIP()), packet.AddrFrom4(a.TargetIP())
	if a.Op() == packet.ARPReply {
		return fmt.Sprintf("ARP %s is at %s", sender, a.SenderMAC())
	}
	return fmt.Sprintf("ARP who has %s, tell %s", target, sender)
}

// ipWords describes a packet between two addresses. next is the protocol that
// the fixed header names: all there is to say when Parse got no further.
func (r *Record) ipWords(src, dst packet.Addr, next packet.Proto) string {
	f := &r.frame
	proto := cmp.Or(f.Proto, next)
	words := fmt.Sprintf("%s > %s", src, dst)
	transport := r.at(f.L4)
	switch {
	case f.L4 == 0 || len(transport) < packet.ICMPLen: // not there to be read
		words += " " + proto.String()
	case proto == packet.ProtoICMP:
		words += " " + icmp4Words(packet.ICMP(transport))
	case proto == packet.ProtoICMPv6:
		words += " " + icmp6Words(packet.ICMP(transport))
	default:
		words = fmt.Sprintf("%s > %s %s", netip.AddrPortFrom(src.Netip(), f.SrcPort), netip.AddrPortFrom(dst.Netip(), f.DstPort), proto)
		if proto == packet.ProtoTCP && len(transport) >= packet.TCPMinLen {
			words += tcpFlags(transport)
		}
	}
	switch {
	case f.Flags.Has(packet.LaterFragment):
		words += ", later fragment"
	case f.Flags.Has(packet.Fragment):
		words += ", first fragment"
	}
	return words
}

func tcpFlags(t packet.TCP) (words string) {
	for _, f := range []struct {
		bit  uint8
		name string
	}{
		{packet.TCPSyn, " SYN"}, {packet.TCPFin, " FIN"}, {packet.TCPRst, " RST"}, {packet.TCPPsh, " PSH"}, {packet.TCPAck, " ACK"},
	} {
		if t.Flags()&f.bit != 0 {
			words += f.name
		}
	}
	return words
}
