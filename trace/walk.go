package trace

import (
	"fmt"
	"slices"
	"strings"

	"fairlead/packet"
)

// A step is one of the packet's path, in its order.
type step uint8

const (
	parse step = iota
	guard
	lookUp
	admit
	forMe
	ttl
	egress
	translate
	mtu
	nextHop
	uplink
	emit
)

var stepNames = [...]string{"1 parse", "2 guard", "3 look up", "4 admit", "5.1 for me", "5.2 TTL", "5.3 egress", "5.4 NAT",
	"5.5 MTU", "5.6 next hop", "5.7 uplink", "6 emit"}

// stepOf is the step at which a frame ends or waits for a reason.
func stepOf(d *packet.Decision) step {
	switch r := d.Reason; {
	case r <= packet.BadTransport:
		return parse
	case r <= packet.RogueDHCP:
		return guard
	case r <= packet.ReservedGroup:
		return lookUp
	case r <= packet.Oversize:
		return admit
	case r == packet.TTLExceeded:
		return ttl
	case r == packet.EgressDenied || r == packet.OtherNetwork:
		return egress
	case r == packet.NotCarried || r == packet.PingForbidden || r == packet.SocketBudget:
		return uplink
	case r == packet.FragNeeded:
		return mtu
	case r == packet.HoldFull && d.NextHop == packet.Addr{}:
		return translate // no room to wait for a first fragment
	case r <= packet.Martian:
		return forMe
	case r <= packet.BadQuote:
		return translate
	}
	return nextHop
}

// The order of the steps. What comes from an uplink is translated before it is
// known whether it goes on at all.
var (
	fromInside = [...]step{parse, guard, lookUp, admit, forMe, ttl, egress, translate, mtu, nextHop, uplink, emit}
	fromUplink = [...]step{parse, guard, lookUp, admit, forMe, translate, ttl, mtu, nextHop, uplink, emit}
)

// Walk is the record as the steps of the packet's path, a line each.
func (r *Record) Walk(names Names) []string {
	d := &r.Decision
	w := walk{record: r, names: names, port: names.Port(r.in()), last: emit}
	if d.Verdict == packet.Drop || d.Verdict == packet.Hold {
		w.last = stepOf(d)
	}
	if r.frame.Flags.Has(packet.Resumed) {
		w.say(parse, "it has waited, and begins again")
	}
	path := fromInside[:]
	if r.FromUplink() {
		path = fromUplink[:]
	}
	for _, s := range path[:slices.Index(path, w.last)] {
		w.pass(s)
	}
	switch d.Verdict {
	case packet.Drop:
		w.stop()
	case packet.Hold:
		w.wait()
	case packet.Unicast, packet.Flood:
		w.say(emit, "%s to %s", d.Verdict, r.To(names))
	}
	if d.Originate != packet.OriginNone {
		w.say(emit, "%s", r.originWords(names))
	}
	return w.lines
}

// A walk collects the lines of Walk.
type walk struct {
	record *Record
	names  Names
	port   string // where the frame came in
	last   step
	lines  []string
}

// say adds a line. The step's name is on its first one only.
func (w *walk) say(s step, format string, args ...any) {
	w.lines = append(w.lines, fmt.Sprintf("%-12s %s", stepNames[s], fmt.Sprintf(format, args...)))
}

func (w *walk) also(format string, args ...any) {
	w.lines = append(w.lines, fmt.Sprintf("%-12s %s", "", fmt.Sprintf(format, args...)))
}

// stop ends the way of a dropped frame.
func (w *walk) stop() {
	r := w.record.Decision.Reason
	w.say(w.last, "dropped, %s: %s", r, r.Why())
	if r == packet.EgressDenied {
		for _, words := range egressWords(&w.record.Decision, "refused") {
			w.also("%s", words)
		}
	}
	if r.Try() != "" {
		w.also("%s", r.Try())
	}
}

// wait ends the way of a frame for now.
func (w *walk) wait() {
	d := &w.record.Decision
	if w.last == nextHop {
		w.say(nextHop, "%s", w.way())
		w.also("waits for %s, %s: %s", d.NextHop, d.Reason, d.Reason.Why())
		return
	}
	w.say(w.last, "waits, %s: %s", d.Reason, d.Reason.Why())
}

// pass says how the frame got through a step, if it was in it.
func (w *walk) pass(s step) {
	r, d := w.record, &w.record.Decision
	src, dst := r.ether().Src(), r.ether().Dst()
	routed := (d.Routed && !d.ToHost || w.last > forMe && w.last < emit) && r.isIPv4()
	switch s {
	case parse:
		w.say(s, "%s, %d bytes%s", r.Summary(), r.Len, segments(r.Segments))
	case guard:
		if r.FromUplink() {
			w.say(s, "%s is an uplink: any source may be behind it", w.port)
		} else {
			w.say(s, "%s may use source %s", w.port, src)
		}
		switch d.Learn {
		case packet.LearnNew:
			w.also("learned: %s is behind %s", src, w.port)
		case packet.LearnMoved:
			w.also("moved: %s is now behind %s", src, w.port)
		}
	case lookUp:
		switch {
		case d.Verdict == packet.Flood:
			w.say(s, "%s: %s", dst, d.Reason.Why())
		case d.Verdict == packet.Unicast && !d.Routed:
			w.say(s, "%s is behind %s", dst, r.To(w.names))
		case w.last == admit: // who it was for is not in the decision
		case r.FromUplink():
			w.say(s, "%s is the uplink's own", dst)
		default:
			w.say(s, "%s is the gateway", dst)
		}
	case admit:
		w.admission()
	case forMe:
		w.forMe(routed)
	default:
		switch {
		case routed:
			w.route(s)
		case s == egress && d.EgressOwn|d.EgressRule != 0, s == translate && d.NAT.Before != packet.Tuple{}:
			w.route(s) // from the host, or to it
		}
	}
}

// dhcpServer is the port of DHCP servers.
const dhcpServer = 67

// admission says by which rule a frame may pass, and how many copies of one that
// is flooded may not.
func (w *walk) admission() {
	r, n := w.record, w.record.Decision.Admitted
	words := "nothing forbids it"
	if n != 0 {
		words = fmt.Sprintf("rule %d opens it", n)
		if rule := w.names.Rule(r.Network, n); rule != "" {
			words += ": " + rule
		}
	}
	w.say(admit, "%s", words)
	if r.Withheld > 0 {
		w.also("not for %s, %s: %s", ports(r.Withheld), r.Why, r.Why.Why())
	}
}

// forMe is the step at which the router takes what is its own.
func (w *walk) forMe(routed bool) {
	r, d := w.record, &w.record.Decision
	var words []string
	if d.Neighbour {
		words = append(words, "takes the sender into its ARP table")
	}
	switch {
	case d.Query && (r.frame.DstPort == dhcpServer || r.frame.SrcPort == dhcpServer):
		words = append(words, "passes the message on to DHCP")
	case d.Query:
		words = append(words, "passes the question on to DNS")
	case d.Originate == packet.OriginARPReply || d.Originate == packet.OriginEchoReply:
		words = append(words, "answers with "+d.Originate.String())
	case d.ToHost:
		words = append(words, "no, for the host, which has this address too")
	case routed && (r.FromUplink() || d.NAT.Kind == packet.NATHairpin || d.NAT.Kind == packet.NATRedirect):
		words = append(words, fmt.Sprintf("%s is an address of ours", packet.AddrFrom4(r.ipv4().Dst())))
	case routed:
		words = append(words, fmt.Sprintf("no, for %s", packet.AddrFrom4(r.ipv4().Dst())))
	case d.Verdict == packet.Gateway && !d.Neighbour:
		words = append(words, "has nothing to add")
	}
	if len(words) > 0 {
		w.say(forMe, "%s", strings.Join(words, ", "))
	}
}

// route is how a routed packet got through steps 5.2 to 5.7.
func (w *walk) route(s step) {
	r, d := w.record, &w.record.Decision
	switch s {
	case ttl:
		t := r.ipv4().TTL()
		w.say(s, "%d → %d", t, t-1)
	case egress:
		words := egressWords(d, "allowed")
		if len(words) == 0 {
			words = []string{"nothing forbids it"}
		}
		w.say(s, "%s", strings.Join(words, ", "))
	case translate:
		w.translation(&d.NAT)
	case mtu:
		switch {
		case d.Routed && d.MTU != 0:
			w.say(s, "%d bytes are cut into fragments of at most %d", r.packetLen, d.MTU)
		case d.Routed:
			w.say(s, "%d bytes fit", r.packetLen)
		}
	case nextHop:
		w.nextHop()
	case uplink:
		if d.Egress.Network != r.Network && !r.FromUplink() {
			w.say(s, "leaves by %s, as %s", w.names.Port(d.Egress), d.SrcMAC)
		} else {
			w.say(lookUp, "%s is behind %s", d.DstMAC, w.names.Port(d.Egress))
		}
	}
}

// egressWords says which rules of the policies of the way out have decided, the
// last of them by a verdict.
func egressWords(d *packet.Decision, verdict string) (words []string) {
	own := verdict
	if d.EgressRule != 0 {
		own = "allowed" // else the network's would not have been asked
	}
	if d.EgressOwn != 0 {
		words = append(words, fmt.Sprintf("%s by rule %d of the container's own policy", own, d.EgressOwn))
	}
	if d.EgressRule != 0 {
		words = append(words, fmt.Sprintf("%s by rule %d of the network's policy", verdict, d.EgressRule))
	}
	return words
}

// translation says by which rule and flow NAT changes what.
func (w *walk) translation(nat *packet.Translation) {
	if nat.Before == (packet.Tuple{}) {
		return
	}
	flow := fmt.Sprintf("known flow %d", nat.Flow)
	switch {
	case nat.New:
		flow = "new flow"
	case nat.Quoted:
		flow = fmt.Sprintf("an error about flow %d", nat.Flow)
	case nat.Reply:
		flow = fmt.Sprintf("answer, flow %d", nat.Flow)
	case nat.Flow == 0: // only a neighbour is met without one
		flow = "stays on its network"
	}
	if nat.Kind == packet.NATNone && nat.Before == nat.After {
		w.say(translate, "not translated, %s", flow)
		return
	}
	by := fmt.Sprintf(" by rule %d", nat.Rule)
	if nat.Rule == 0 {
		by = "" // a redirect has none
	}
	w.say(translate, "%s%s, %s", kindWords(nat), by, flow)
	of := ""
	if nat.Quoted {
		of = "quoted: "
	}
	w.also("%s%s", of, tupleWords(nat.Before))
	w.also("%*s→ %s", max(0, len(of)-2), "", tupleWords(nat.After))
	if nat.Hidden != packet.HiddenNot {
		w.also("the client is hidden: %s", nat.Hidden.Why())
	}
}

// kindWords is the kind of a translation. The host's own connections have none,
// and change their port where they must.
func kindWords(nat *packet.Translation) string {
	if nat.Kind == packet.NATNone {
		return "another port"
	}
	return nat.Kind.String()
}

// nextHop says by which route the packet goes, and to whom.
func (w *walk) nextHop() {
	w.say(nextHop, "%s", w.way())
	w.also("%s is at %s", w.record.Decision.NextHop, w.record.Decision.DstMAC)
}

// way is the route the packet takes.
func (w *walk) way() string {
	r, d := w.record, &w.record.Decision
	var dst packet.Addr
	switch {
	case d.NAT.Quoted: // to who sent the packet that is quoted
		dst = d.NAT.After.Src
	case d.NAT.After != packet.Tuple{}:
		dst = d.NAT.After.Dst
	case r.isIPv4():
		dst = packet.AddrFrom4(r.ipv4().Dst())
	}
	how := "not on-link"
	if d.NextHop == dst {
		how = "on-link"
	}
	if route := w.names.Route(r.Network, d.NAT.Out, dst); route != "" {
		how += ": " + route
	}
	return how
}

func ports(n int) string {
	if n == 1 {
		return "1 port"
	}
	return fmt.Sprintf("%d ports", n)
}

func segments(n int) string {
	if n == 1 {
		return ""
	}
	return fmt.Sprintf(" in %d segments", n)
}
