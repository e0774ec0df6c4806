package policy

import (
	"cmp"
	"slices"

	"fairlead/packet"
)

// An Admit says what containers of one network may send one another where they
// may not by themselves (`--opt icc=off`): what its rules open, and nothing else.
// It is a snapshot that never changes; any worker may ask it.
//
// It is about IPv4 and IPv6. ARP and its successor, neighbour discovery, pass:
// who may be spoken to has to be found. It remembers no connections, so answers
// are known by what they look like: by TCP all but a bare SYN from the port that
// is open, by UDP whatever comes from it. Later fragments, which have no ports,
// and ICMP errors pass where there is any rule between the two.
type Admit struct {
	rules   []AdmitRule // by number
	between map[pair][]int
	shapes  []pair // of the keys in between: 1 for a container, 0 for any
	hits    map[uint32]*Hits
	refused *Hits
}

// An AdmitRule lets one container open connections to another.
type AdmitRule struct {
	Number   uint32             // of several that fit the lowest decides; not 0
	From, To packet.ContainerID // 0 is any
	Proto    packet.Proto       // TCP or UDP; 0 is everything, and then there are no ports
	Ports    Ports
	Hits     *Hits // rules with one number share them
}

// Ports are those from First to Last.
type Ports struct{ First, Last uint16 }

func (p Ports) has(n uint16) bool { return p.First <= n && n <= p.Last }

type pair struct{ from, to packet.ContainerID }

// NewAdmit makes a snapshot. refused counts what no rule lets pass.
func NewAdmit(rules []AdmitRule, refused *Hits) *Admit {
	a := &Admit{
		rules: slices.Clone(rules), between: make(map[pair][]int), hits: make(map[uint32]*Hits), refused: refused,
	}
	slices.SortStableFunc(a.rules, func(x, y AdmitRule) int { return cmp.Compare(x.Number, y.Number) })
	for i := range a.rules {
		r := &a.rules[i]
		a.hits[r.Number] = r.Hits
		k := pair{r.From, r.To}
		a.between[k] = append(a.between[k], i)
		if shape := (pair{min(k.from, 1), min(k.to, 1)}); !slices.Contains(a.shapes, shape) {
			a.shapes = append(a.shapes, shape)
		}
	}
	return a
}

// Check judges a parsed frame of one container for another: OK and the number of
// the rule that lets it pass, 0 if it takes none; or the reason to drop it. Who is
// no container (0), such as the gateway, may be spoken to and speaks.
func (a *Admit) Check(f *packet.Frame, from, to packet.ContainerID) (rule uint32, r packet.Reason) {
	if from == 0 || to == 0 || from == to || !isIP(f) || isNeighbourDiscovery(f) {
		return 0, packet.OK
	}
	first := len(a.rules)
	for _, shape := range a.shapes {
		first = a.first(f, pair{from * shape.from, to * shape.to}, false, first)
		first = a.first(f, pair{to * shape.from, from * shape.to}, true, first)
	}
	if first == len(a.rules) {
		return 0, packet.ICC
	}
	return a.rules[first].Number, packet.OK
}

// first is the first rule between two that fits, if it comes before another.
func (a *Admit) first(f *packet.Frame, k pair, answer bool, before int) int {
	for _, i := range a.between[k] {
		if i >= before {
			break
		}
		if a.rules[i].fits(f, answer) {
			return i
		}
	}
	return before
}

// fits reports whether the rule lets a frame pass: of who may open connections, or
// an answer to it.
func (r *AdmitRule) fits(f *packet.Frame, answer bool) bool {
	switch {
	case f.L4 == 0: // a later fragment, or a protocol we cannot read
		return r.Proto == 0 || f.Flags.Has(packet.LaterFragment)
	case isICMPError(f):
		return true
	case answer && begins(f):
		return false
	case r.Proto == 0:
		return true
	case answer:
		return f.Proto == r.Proto && r.Ports.has(f.SrcPort)
	}
	return f.Proto == r.Proto && r.Ports.has(f.DstPort)
}

// Count counts packets that rule let pass, or that r refused: those of a train are
// many. worker is who calls.
func (a *Admit) Count(rule uint32, r packet.Reason, worker, packets, bytes int) {
	switch {
	case r == packet.ICC:
		a.refused.Count(worker, packets, bytes)
	case rule != 0:
		if h := a.hits[rule]; h != nil {
			h.Count(worker, packets, bytes)
		}
	}
}

func isIP(f *packet.Frame) bool {
	return f.EtherType == packet.EtherTypeIPv4 || f.EtherType == packet.EtherTypeIPv6
}

func isNeighbourDiscovery(f *packet.Frame) bool {
	if f.Proto != packet.ProtoICMPv6 || f.L4 == 0 || f.EtherType != packet.EtherTypeIPv6 {
		return false
	}
	t := packet.ICMP(f.Transport()).Type()
	return t == packet.ICMPv6NeighborSolicit || t == packet.ICMPv6NeighborAdvert
}

// isICMPError reports whether the frame is an ICMP error about another packet.
func isICMPError(f *packet.Frame) bool {
	switch f.Proto {
	case packet.ProtoICMP:
		t := packet.ICMP(f.Transport()).Type()
		return t == packet.ICMPUnreachable || t == packet.ICMPTimeExceeded || t == packet.ICMPParameter
	case packet.ProtoICMPv6:
		return packet.ICMP(f.Transport()).Type() <= packet.ICMPv6Parameter
	}
	return false
}

// begins reports whether a frame can be seen to be no answer.
func begins(f *packet.Frame) bool {
	switch f.Proto {
	case packet.ProtoTCP:
		return packet.TCP(f.Transport()).Flags()&(packet.TCPSyn|packet.TCPAck) == packet.TCPSyn
	case packet.ProtoICMP:
		return packet.ICMP(f.Transport()).Type() == packet.ICMPEcho
	case packet.ProtoICMPv6:
		return packet.ICMP(f.Transport()).Type() == packet.ICMPv6Echo
	}
	return false
}
