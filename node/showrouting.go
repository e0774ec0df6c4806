package node

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	"fairlead/gateway"
	"fairlead/loop"
	"fairlead/nat"
	"fairlead/node/api"
	"fairlead/node/network"
	"fairlead/packet"
)

// anyAddress is how iptables writes it.
const anyAddress = "0.0.0.0/0"

// routing is what the router knows at one moment, as one network sees it, with
// names for its numbers.
type routing struct {
	lan     *lan
	net     *network.Network
	uplinks []*network.Uplink // of the network
	*routed
}

// A census is who is where, at one moment.
type census struct {
	seen *segments
	at   residents
}

func (n *Node) census() census { return census{n.segments(), n.residents()} }

// routed is what is the same for all networks.
type routed struct {
	census

	users map[packet.NetworkID]int // networks that use an uplink

	rules     []nat.Rule
	uncounted map[natSum]traffic // what no rule counts; only asked for
	mappings  map[natPair]int
}

// A natSum is what live flows are added up by that have no rule of their own.
type natSum struct {
	kind     packet.NATKind // NATNone or NATHairpin
	from, to packet.NetworkID
}

// Traffic is how much flows have carried, both ways.
type traffic struct {
	flows, packets, bytes uint64
}

func (t traffic) plus(o traffic) traffic {
	return traffic{t.flows + o.flows, t.packets + o.packets, t.bytes + o.bytes}
}

// A natPair is a network and an uplink of it.
type natPair struct{ network, uplink packet.NetworkID }

// slice is how many flows are looked at before others have a turn: some hundred
// microseconds, and a millisecond to tell a client of them.
const slice = 512

// routing looks at the router, for each network; at its flows only if they are to be counted.
func (n *Node) routing(countFlows bool) (list []*routing) {
	r := n.routed()
	if countFlows {
		r.uncounted = n.uncounted()
	}
	for _, l := range n.listLans() {
		n.mu.Lock()
		net := l.net
		n.mu.Unlock()
		x := &routing{l, net, net.Uplinks(), r}
		for _, u := range x.uplinks {
			r.users[u.Network()]++
		}
		list = append(list, x)
	}
	return list
}

func (n *Node) routed() *routed {
	r := &routed{census: n.census(), mappings: map[natPair]int{}, users: map[packet.NetworkID]int{}}
	n.theRouter().Flows(func(t *nat.Table) {
		t.Rules(func(x nat.Rule) bool { r.rules = append(r.rules, x); return true })
		t.Mappings(func(m nat.MappingInfo) bool { r.mappings[natPair{m.Network, m.Uplink}]++; return true })
	})
	return r
}

// uncounted adds up the flows that no rule counts.
func (n *Node) uncounted() map[natSum]traffic {
	sums := make(map[natSum]traffic)
	router, flows := n.theRouter(), make([]nat.FlowInfo, 0, slice)
	for next, more := uint32(0), true; more; {
		flows, next, more = flowsFrom(router, next, flows)
		for i := range flows {
			f := &flows[i]
			if k := (natSum{f.Kind, f.From, f.To}); f.Kind == packet.NATNone || f.Kind == packet.NATHairpin {
				sums[k] = sums[k].plus(traffic{1, f.Packets[0] + f.Packets[1], f.Bytes[0] + f.Bytes[1]})
			}
		}
	}
	return sums
}

// flowsFrom looks at one slice of the live flows, in the order of their numbers: they are
// many, and whoever looks at them keeps workers from making others. It puts them where
// others were, and returns where the next slice begins, if there is any.
func flowsFrom(router *network.Router, from uint32, flows []nat.FlowInfo) (_ []nat.FlowInfo, next uint32, more bool) {
	flows = flows[:0]
	router.Flows(func(t *nat.Table) {
		next, more = t.FlowsFrom(from, slice, func(f nat.FlowInfo) bool { flows = append(flows, f); return true })
	})
	return flows, next, more
}

// container is the name of one, empty when it has gone.
func (who *census) container(c packet.ContainerID) string {
	if c := who.at[c]; c != nil {
		return c.name()
	}
	return ""
}

func (r *routing) subnet() string { return r.net.Config().Gateway.Masked().String() }

func (n *Node) getNAT(http.ResponseWriter, *http.Request) (any, error) {
	list := []api.NATRule{}
	for _, r := range n.routing(true) {
		list = append(list, r.natRules()...)
	}
	return list, nil
}

// natRules lists the rules in the order in which they are tried, and between
// them what needs no rule: who meets a published port from inside is
// masqueraded, and what stays inside otherwise is not rewritten.
func (r *routing) natRules() []api.NATRule {
	name, subnet := r.net.Config().Name, r.subnet()
	list := []api.NATRule{}
	inside := api.NATRule{Network: name, Proto: "all", Source: subnet, Destination: subnet}
	of := func(kind packet.NATKind, rule func(x *nat.Rule) api.NATRule) {
		for i := range r.rules {
			if x := &r.rules[i]; x.Kind == kind && x.Network == r.net.Config().ID {
				a := rule(x)
				a.Network, a.Number, a.Kind = name, int(x.Number), kind.String()
				a.Flows, a.Packets, a.Bytes, a.Container = x.Flows, x.Packets, x.Bytes, r.container(x.Container)
				list = append(list, a)
			}
		}
	}
	of(packet.NATPublish, func(x *nat.Rule) api.NATRule {
		return api.NATRule{
			Proto: protoWord(x.Proto), Source: anyAddress, Destination: address(x.Outside), Port: x.OutsidePort,
			To: x.Inside.String(), ToPort: x.InsidePort,
		}
	})
	list = append(list, r.counted(packet.NATHairpin, inside), r.counted(packet.NATNone, inside))
	of(packet.NATOneToOne, func(x *nat.Rule) api.NATRule {
		return api.NATRule{Proto: "all", Source: anyAddress, Destination: address(x.Outside), In: r.seen.name(x.Uplink), To: x.Inside.String()}
	})
	for _, u := range r.uplinks {
		list = append(list, r.masquerade(u))
	}
	return list
}

// masquerade is the rule for what leaves by an uplink.
func (r *routing) masquerade(u *network.Uplink) api.NATRule {
	id := r.net.Config().ID
	a := api.NATRule{
		Network: r.net.Config().Name, Kind: packet.NATMasquerade.String(), Proto: "all", Source: r.subnet(), Destination: anyAddress,
		Out: u.Name(), Mappings: r.mappings[natPair{id, u.Network()}],
	}
	if from := u.Addr(); from != (packet.Addr{}) {
		a.To = from.String()
	}
	for i := range r.rules {
		if x := &r.rules[i]; x.Kind == packet.NATMasquerade && x.Network == id && x.Uplink == u.Network() {
			a.Number, a.Flows, a.Packets, a.Bytes = int(x.Number), x.Flows, x.Packets, x.Bytes
			return a
		}
	}
	// A network without masquerade: it leaves as it is.
	a.To = ""
	return r.between(u.Network(), a)
}

// between counts the flows from the network to a segment that are not translated.
func (r *routing) between(to packet.NetworkID, a api.NATRule) api.NATRule {
	return r.uncounted[natSum{packet.NATNone, r.net.Config().ID, to}].on(packet.NATNone, a)
}

// counted sums the flows of a kind that has no rule of its own.
func (r *routing) counted(kind packet.NATKind, a api.NATRule) api.NATRule {
	var all traffic
	for k, t := range r.uncounted {
		if k.kind == kind && k.from == r.net.Config().ID {
			all = all.plus(t)
		}
	}
	return all.on(kind, a)
}

// on is a with what flows of a kind have carried.
func (t traffic) on(kind packet.NATKind, a api.NATRule) api.NATRule {
	a.Kind, a.Flows, a.Packets, a.Bytes = kind.String(), t.flows, t.packets, t.bytes
	return a
}

// getFlows tells of a slice of the flows in each turn: all of them may be a gigabyte as
// text. What was done before the client has hung up is paid for all the same.
func (n *Node) getFlows(w http.ResponseWriter, r *http.Request) (any, error) {
	leave, err := n.awaitPlace(n.tables, r)
	if err != nil {
		return nil, err
	}
	defer leave()
	settle(r)
	w.Header().Set("Content-Type", "application/json")
	var who census
	owed := compute(func() { who = n.census() })
	router, flows := n.theRouter(), make([]nat.FlowInfo, 0, slice)
	text, before := new(bytes.Buffer), "["
	for next, more := uint32(0), true; ; {
		owed += compute(func() {
			flows, next, more = flowsFrom(router, next, flows)
			for i := range flows {
				line, _ := json.Marshal(who.flow(&flows[i], loop.Clock())) // of words and numbers it does not fail
				text.WriteString(before)
				text.Write(line)
				before = ",\n"
			}
		})
		giveTime(w)
		_, err = text.WriteTo(w)
		n.charge(r, owed)
		if owed = 0; err != nil || !more || r.Context().Err() != nil {
			break
		}
	}
	end := "]\n"
	if before == "[" {
		end = "[]\n"
	}
	_, _ = io.WriteString(w, end) // fails only when the client has left
	n.pay(w, r, owed)             // nothing, but it takes until the answer has left us
	return nil, nil
}

func (who *census) flow(f *nat.FlowInfo, now int64) api.Flow {
	inside, outside := f.From, f.To
	if f.Inward {
		inside, outside = outside, inside
	}
	a := api.Flow{
		Number: f.Number, Proto: protoWord(f.Forward.Proto), State: f.State, TTL: max(0, time.Duration(f.Expires-now).Seconds()),
		Kind: f.Kind.String(), Hidden: f.Hidden.String(), Rule: int(f.Rule), Network: who.seen.name(inside), Container: who.container(f.Container),
		Unreplied: f.Unreplied, Assured: f.Assured,
		Original: flowHalf(f.Forward, f.Packets[0], f.Bytes[0]), Reply: flowHalf(f.Reply, f.Packets[1], f.Bytes[1]),
	}
	if f.Expires == nat.Never {
		a.TTL = 0
	}
	if outside != inside {
		a.Uplink = who.seen.name(outside)
	}
	for _, u := range who.seen.uplinks {
		if s := u.Sockets(); s != nil && u.Network() == outside {
			if at := s.Local(f.Number); at.IsValid() {
				a.Socket = at.String()
			}
		}
	}
	return a
}

func flowHalf(t packet.Tuple, packets, octets uint64) api.FlowHalf {
	h := api.FlowHalf{
		Source: t.Src.String(), Destination: t.Dst.String(), SourcePort: t.SrcPort, DestinationPort: t.DstPort,
		Packets: packets, Bytes: octets,
	}
	if t.Proto == packet.ProtoICMP || t.Proto == packet.ProtoICMPv6 {
		id := max(t.SrcPort, t.DstPort) // that of who answers is 0
		h.SourcePort, h.DestinationPort = id, id
	}
	return h
}

func (n *Node) getRoutes(http.ResponseWriter, *http.Request) (any, error) {
	list := []api.IPRoute{}
	for _, net := range n.networks() {
		list = append(list, routesOf(net)...)
	}
	return append(list, n.lostRoutes()...), nil
}

// routesOf is a network's routing table.
func routesOf(net *network.Network) (list []api.IPRoute) {
	conf := net.Config()
	mtus := map[packet.NetworkID]int{conf.ID: conf.Options.MTU}
	uplinks := net.Uplinks()
	for _, u := range uplinks {
		mtus[u.Network()] = u.MTU()
	}
	for _, r := range net.Routes() {
		a := api.IPRoute{
			Network: conf.Name, Destination: r.Prefix.String(), Dev: r.Name, Scope: "link", Source: r.Source.String(),
			MTU: mtus[r.Network], State: "up",
		}
		if r.Via != (packet.Addr{}) {
			a.Via, a.Scope = r.Via.String(), "global"
		}
		list = append(list, a)
	}
	for _, u := range uplinks {
		if u.Addr() == (packet.Addr{}) {
			list = append(list, api.IPRoute{Network: conf.Name, Destination: anyAddress, Dev: u.Name(), Scope: "link", MTU: u.MTU(), State: "no-address"})
		}
	}
	return list
}

// routeWords is a route as `ip route` begins its line.
func routeWords(r *gateway.Route) string {
	words := r.Prefix.String()
	if r.Prefix.Bits() == 0 {
		words = "default"
	}
	if r.Via != (packet.Addr{}) {
		words += " via " + r.Via.String()
	}
	return words + " dev " + r.Name
}

func protoWord(p packet.Proto) string { return strings.ToLower(p.String()) }

// address is one as iptables writes it: the unspecified one is any.
func address(a packet.Addr) string {
	if a.Netip().IsUnspecified() {
		return anyAddress
	}
	return a.String()
}
