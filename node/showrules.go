package node

import (
	"fmt"
	"net/http"
	"slices"

	"fairlead/node/api"
	"fairlead/packet"
	vswitch "fairlead/switch"
)

// What a rule that counts under a drop reason says. A frame ends at the first
// one that fits.
type refusal struct {
	reason packet.Reason
	target string // drop, or reject: the sender is told
	match  string
}

var (
	// guardRefusals are about all ports of a network; those about one port name
	// its addresses.
	guardRefusals = []refusal{
		{packet.Loop, "drop", "port is joined to another one (loop guard)"},
		{packet.WrongVLAN, "drop", "in a VLAN the port is not in"},
		{packet.BadSourceMAC, "drop", "source MAC is zero or a group's"},
		{packet.LoopbackAddress, "drop", "an address is 127.0.0.0/8 or ::1"},
		{packet.SpoofedGateway, "drop", "source is the gateway's"},
		{packet.SpoofedNeighbour, "drop", "IPv6 neighbour discovery about somebody else"},
		{packet.AddressLimit, "drop", "from ever new link-local addresses of IPv6"},
		{packet.RogueRouter, "drop", "what only a router says: advertisements, redirects"},
		{packet.RogueDHCP, "drop", "for DHCP clients (UDP port 68, 546 by IPv6)"},
	}
	// outsideRefusals are about a port with a LAN behind it.
	outsideRefusals = []refusal{
		{packet.SpoofedMAC, "drop", "source MAC is a container's"},
		{packet.SpoofedAddress, "drop", "source address is a container's"},
	}
	admitRefusals = []refusal{
		{packet.Oversize, "drop", "larger than the MTU of the network"},
		{packet.FloodLimit, "drop", "floods more than it may"},
		{packet.Isolated, "drop", "both ports are isolated"},
	}
	forwardRefusals = []refusal{
		{packet.DNSBusy, "drop", "as many questions for names as may be under way"},
		{packet.DHCPBusy, "drop", "as many DHCP messages as may be waiting"},
		{packet.NotUnderstood, "drop", "neither ARP nor IPv4"},
		{packet.Martian, "drop", "an address no router may pass on"},
		{packet.TTLExceeded, "reject", "time to live is used up"},
		{packet.OtherNetwork, "drop", "to another network of this node"},
		{packet.NotTranslatable, "reject", "neither TCP, UDP nor ICMP"},
		{packet.NoFlow, "reject", "of no known connection, and begins none"},
		{packet.BadQuote, "drop", "an ICMP error about no known connection"},
		{packet.FragmentOrphan, "drop", "fragment without its first one"},
		{packet.NoRoute, "reject", "no route"},
		{packet.Refused, "reject", "to an address of ours, nothing published"},
		{packet.Filtered, "drop", "to a port that is in use with others"},
		{packet.FlowBudget, "reject", "container has its share of connections"},
		{packet.FlowTableFull, "reject", "node has its number of connections"},
		{packet.PortsExhausted, "reject", "no outside port is left"},
		{packet.FragNeeded, "reject", "larger than the next MTU, may not be cut"},
		{packet.HostUnreachable, "reject", "next hop does not answer ARP"},
		{packet.HoldFull, "drop", "no room to wait for ARP or a fragment"},
		{packet.NotCarried, "reject", "host sockets do not carry it"},
		{packet.PingForbidden, "reject", "the host lets this user not ping"},
		{packet.SocketBudget, "reject", "container has its share of host sockets"},
	}
	inboundRefusals = []refusal{
		{packet.NotForUs, "drop", "to an address that is not ours"},
		{packet.Martian, "drop", "an address no router may pass on"},
		{packet.NotTranslatable, "reject", "neither TCP, UDP nor ICMP"},
		{packet.NoFlow, "reject", "of no known connection, and begins none"},
		{packet.BadQuote, "drop", "an ICMP error about no known connection"},
		{packet.FragmentOrphan, "drop", "fragment without its first one"},
		{packet.Filtered, "drop", "to a port that is in use with others"},
		{packet.TTLExceeded, "reject", "time to live is used up"},
		{packet.FlowBudget, "drop", "container has its share of connections"},
		{packet.FlowTableFull, "drop", "node has its number of connections"},
		{packet.FragNeeded, "reject", "larger than the next MTU, may not be cut"},
		{packet.HostUnreachable, "reject", "container does not answer ARP"},
		{packet.HoldFull, "drop", "no room to wait for ARP or a fragment"},
		{packet.Refused, "reject", "everything else"},
	}
)

// getRules lists what may pass, in the order of the packet's path. There is no
// second implementation: the counters are those of the drop reasons, of NAT's
// rules and of the ports.
func (n *Node) getRules(http.ResponseWriter, *http.Request) (any, error) {
	list := []api.FilterRule{}
	for _, r := range n.routing(n.anyUntranslated()) {
		list = append(list, n.rulesOf(r)...)
	}
	return list, nil
}

// anyUntranslated reports whether something passes that has no rule of NAT's to be
// counted by, but flows only.
func (n *Node) anyUntranslated() bool {
	return slices.ContainsFunc(n.listLans(), func(l *lan) bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return l.conf.Options.Routed || l.conf.Options.NotMasqueraded
	})
}

// routedRules are the networks that one is routed to.
func (n *Node) routedRules(list *ruleList, r *routing) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, to := range n.lans {
		if to == r.lan || !to.conf.Options.Routed || !r.lan.conf.Options.Routed {
			continue
		}
		x := r.between(to.number(), api.NATRule{})
		list.add(api.FilterRule{
			Chain: "forward", Target: "accept", Source: r.subnet(), Destination: to.conf.Gateway.Masked().String(),
			In: list.network, Out: to.name, Packets: x.Packets, Bytes: &x.Bytes, Match: "both are routed",
		})
	}
}

// rulesOf are those of one network.
func (n *Node) rulesOf(r *routing) []api.FilterRule {
	l := ruleList{network: r.lan.name}
	inside := r.net.Switch().Totals()
	l.guard(r)
	l.refuse("guard", "", &inside, guardRefusals)

	l.refuse("admit", "", &inside, admitRefusals)
	n.admitRules(&l, r.lan)
	admitted := inside.Read
	for r := packet.OK; r < packet.ForGateway; r++ {
		admitted -= inside.Dropped[r].N
	}
	l.accept("admit", l.network, "", everythingElse, admitted)

	n.egressRules(&l, r.lan)
	l.hostLink(r)
	n.routedRules(&l, r)
	l.refuse("forward", l.network, &inside, forwardRefusals)
	for _, u := range r.uplinks {
		m := r.masquerade(u)
		l.add(api.FilterRule{Chain: "forward", Target: "accept", Source: m.Source, In: l.network, Out: m.Out, Packets: m.Packets, Bytes: &m.Bytes, Match: "both directions"})
	}

	totals := make([]vswitch.Counts, len(r.uplinks))
	for i, u := range r.uplinks {
		totals[i] = u.Switch().Totals()
		to := l.network
		if r.users[u.Network()] > 1 {
			to = "" // what came in by the uplink is counted for all its networks together
		}
		l.accept("inbound", u.Name(), to, "established", totals[i].Unicast)
	}
	for _, p := range r.published() {
		l.add(p)
	}
	for i, u := range r.uplinks {
		l.refuse("inbound", u.Name(), &totals[i], inboundRefusals)
	}
	return l.rules
}

// A ruleList collects the rules of a network.
type ruleList struct {
	network string
	rules   []api.FilterRule
}

func (l *ruleList) add(r api.FilterRule) {
	r.Network = l.network
	for _, s := range []*string{&r.Source, &r.Destination} {
		if *s == "" {
			*s = anyAddress
		}
	}
	if r.Proto == "" {
		r.Proto = "all"
	}
	l.rules = append(l.rules, r)
}

func (l *ruleList) accept(chain, in, out, match string, packets uint64) {
	l.add(api.FilterRule{Chain: chain, Target: "accept", In: in, Out: out, Match: match, Packets: packets})
}

func (l *ruleList) refuse(chain, in string, c *vswitch.Counts, list []refusal) {
	for _, x := range list {
		l.add(api.FilterRule{Chain: chain, Target: x.target, In: in, Match: x.match, Reason: x.reason.String(), Packets: c.Dropped[x.reason].N})
	}
}

// guard is what holds each port to its addresses.
func (l *ruleList) guard(r *routing) {
	for _, p := range r.net.Switch().Ports() {
		conf, c := p.Config(), p.Counts()
		if conf.Outside {
			l.refuse("guard", r.at.name(p), &c, outsideRefusals)
		}
		if !conf.Guard.Strict {
			continue
		}
		l.add(api.FilterRule{Chain: "guard", Target: "drop", In: r.at.name(p), Match: fmt.Sprintf("source MAC is not %s", conf.Guard.MAC),
			Reason: packet.SpoofedMAC.String(), Packets: c.Dropped[packet.SpoofedMAC].N})
		for _, a := range conf.Guard.Addrs {
			l.add(api.FilterRule{Chain: "guard", Target: "drop", In: r.at.name(p), Match: fmt.Sprintf("source address is not %s", a),
				Reason: packet.SpoofedAddress.String(), Packets: c.Dropped[packet.SpoofedAddress].N})
		}
	}
}

// published are the rules that let others in, from wherever they come: by any
// uplink, or from another container to an address of ours. They count all.
func (r *routing) published() (list []api.FilterRule) {
	for i := range r.rules {
		x := &r.rules[i]
		if x.Network != r.net.Config().ID || x.Kind != packet.NATPublish && x.Kind != packet.NATOneToOne {
			continue
		}
		f := api.FilterRule{Chain: "inbound", Target: "accept", Proto: "all", Out: r.container(x.Container),
			Destination: x.Inside.String(), Port: x.InsidePort, Packets: x.Packets, Bytes: &x.Bytes, Match: x.Kind.String()}
		if x.Proto != 0 {
			f.Proto = protoWord(x.Proto)
		}
		list = append(list, f)
	}
	return list
}
