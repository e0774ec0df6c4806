package node

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"fairlead/node/api"
	"fairlead/packet"
	"fairlead/policy"
)

// An opening is what lets containers reach others on a network whose containers
// do not talk to one another by themselves: a rule that was added, or a link.
type opening struct {
	number uint32 // on the whole node, never used again
	words  string // for people
	hits   *policy.Hits
}

// A rule is an opening somebody added. Its names follow the containers that have
// them.
type rule struct {
	opening
	network string
	spec    api.RuleSpec
}

// maxRules bounds the rules of a node: more are not made by hand.
const maxRules = 4096

// An admission is what is kept of a network about what its containers may send one
// another. Guarded by Node.mu.
type admission struct {
	closed  bool         // it has a policy
	refused *policy.Hits // what that did not let pass
	links   map[linkKey]*opening
}

// A linkKey names a link of an attachment: NAME:ALIAS.
type linkKey struct {
	from *attachment
	link string
}

// openingLocked numbers a new opening.
func (n *Node) openingLocked(words string) opening {
	n.openings++
	return opening{n.openings, words, policy.NewHits(n.loop.NumWorkers())}
}

// publishAdmitLocked makes what may pass between containers follow the registry:
// links, exposed ports and rules, by the containers that have their names now.
func (n *Node) publishAdmitLocked() {
	n.rules = slices.DeleteFunc(n.rules, func(r *rule) bool { // with their networks
		return !slices.ContainsFunc(n.lans, func(l *lan) bool { return l.name == r.network })
	})
	for _, l := range n.lans {
		if l.net == nil {
			continue // it is just being made
		}
		switch closed := l.conf.Options.ICCOff; {
		case closed:
			if l.admission.refused == nil {
				l.admission.refused = policy.NewHits(n.loop.NumWorkers())
			}
			l.net.Switch().SetAdmit(policy.NewAdmit(n.admittedLocked(l), l.admission.refused))
		case l.admission.closed:
			l.net.Switch().SetAdmit(nil)
			l.admission.links = nil
		}
		l.admission.closed = l.conf.Options.ICCOff
	}
}

// admittedLocked is what containers of a network may send one another.
func (n *Node) admittedLocked(l *lan) (list []policy.AdmitRule) {
	on := onLan{n, l}
	for _, r := range n.rules {
		from, to, there := on.both(r.spec.From, r.spec.To)
		if r.network != l.name || !there {
			continue
		}
		list = append(list, policy.AdmitRule{
			Number: r.number, From: from, To: to, Proto: protoOf(r.spec.Proto), Ports: portsOf(r.spec.Ports), Hits: r.hits,
		})
	}
	links := make(map[linkKey]*opening)
	for name, from := range n.linked {
		to := on.named(name)
		if to == nil {
			continue
		}
		for a, c := range from {
			if a.lan != l || to == c || c.ending || n.containers[c.id] != c {
				continue
			}
			for _, link := range a.links {
				if !strings.HasPrefix(link, name+":") {
					continue
				}
				k := linkKey{a, link}
				o := l.admission.links[k]
				if o == nil {
					fresh := n.openingLocked("link " + link)
					o = &fresh
				}
				links[k] = o
				for _, p := range to.exposedPorts() {
					list = append(list, policy.AdmitRule{
						Number: o.number, From: c.number, To: to.stationLocked(), Proto: protoOf(p.Proto), Ports: portsOf(p.Container), Hits: o.hits,
					})
				}
			}
		}
	}
	l.admission.links = links
	return list
}

// onLan are the containers of a network. Node.mu is held by who asks.
type onLan struct {
	n *Node
	l *lan
}

// named is the one of that name, nil if there is none.
func (on onLan) named(name string) *container {
	c := on.n.named[name]
	if c == nil || c.ending || c.onLocked(on.l) == nil || c.stationLocked() == 0 {
		return nil
	}
	return c
}

// both are the numbers of two containers, any being 0, and whether they are there.
func (on onLan) both(from, to string) (a, b packet.ContainerID, there bool) {
	for name, n := range map[string]*packet.ContainerID{from: &a, to: &b} {
		switch c := on.named(name); {
		case name == api.Any:
		case c == nil:
			return 0, 0, false
		default:
			*n = c.stationLocked()
		}
	}
	return a, b, true
}

// missing are the names of a rule that no container has.
func (on onLan) missing(s api.RuleSpec) (names []string) {
	for _, name := range []string{s.From, s.To} {
		if name != api.Any && on.named(name) == nil {
			names = append(names, name)
		}
	}
	return names
}

// stationLocked is the number the container's frames have: that of who made the
// namespace it lives in. 0 is none.
func (c *container) stationLocked() packet.ContainerID {
	switch {
	case c.share == nil:
		return c.number
	case c.owner != nil:
		return c.owner.number
	}
	return 0
}

// exposedPorts are those the container says it serves, by --expose and -p, in
// order; who shares a namespace serves those of the one it shares.
func (c *container) exposedPorts() []api.PortSpec {
	if c.share != nil {
		c = c.share
	}
	list := slices.Clone(c.specs)
	for _, e := range c.exposed {
		list = append(list, api.PortSpec{Container: api.PortRange{First: e.port, Last: e.port}, Proto: e.proto})
	}
	return joined(list)
}

func portsOf(r api.PortRange) policy.Ports { return policy.Ports{First: r.First, Last: r.Last} }

// protoOf is a protocol by its word; no word is every one.
func protoOf(word string) packet.Proto {
	switch word {
	case "tcp":
		return packet.ProtoTCP
	case "udp":
		return packet.ProtoUDP
	}
	return 0
}

// postRules adds a rule.
func (n *Node) postRules(w http.ResponseWriter, r *http.Request) (any, error) {
	var req api.RuleRequest
	if err := body(w, r, &req); err != nil {
		return nil, err
	}
	n.linking.Lock()
	defer n.linking.Unlock()
	n.mu.Lock()
	added, err := n.addRuleLocked(req)
	var described api.Rule
	if err == nil {
		described = n.describeRuleLocked(added)
	}
	n.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if err := n.saveState(); err != nil {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.dropRuleLocked(added)
		return nil, err
	}
	return described, nil
}

// addRuleLocked reads a rule and has it hold.
func (n *Node) addRuleLocked(req api.RuleRequest) (*rule, error) {
	spec, err := api.ParseRule(req.From, req.To)
	if err != nil {
		return nil, statusError{http.StatusBadRequest, err}
	}
	l, err := n.lanLocked(req.Network)
	if err != nil {
		return nil, err
	}
	for _, old := range n.rules {
		if old.network == l.name && old.spec == spec {
			return nil, fail(http.StatusConflict, "rule %d of network %s is %s already; `fairlead rule ls` lists them", old.number, l.name, spec)
		}
	}
	if len(n.rules) == maxRules {
		return nil, fail(http.StatusConflict, "this node has %d rules, which is all it can have; `fairlead rule rm` takes some away", maxRules)
	}
	added := &rule{n.openingLocked(spec.String()), l.name, spec}
	n.rules = append(n.rules, added)
	n.noteRunningLocked()
	n.publishAdmitLocked()
	return added, nil
}

func (n *Node) dropRuleLocked(r *rule) {
	n.rules = slices.DeleteFunc(n.rules, func(old *rule) bool { return old == r })
	n.noteRunningLocked()
	n.publishAdmitLocked()
}

// rulesOnLocked are the rules of a network, to be added again.
func (n *Node) rulesOnLocked(l *lan) (list []api.RuleRequest) {
	for _, r := range n.rules {
		if r.network == l.name {
			list = append(list, api.RuleRequest{From: r.spec.From, To: r.spec.Target()})
		}
	}
	return list
}

// getAddedRules lists the rules that were added.
func (n *Node) getAddedRules(http.ResponseWriter, *http.Request) (any, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := []api.Rule{}
	for _, l := range n.lans {
		for _, r := range n.rules {
			if r.network == l.name {
				list = append(list, n.describeRuleLocked(r))
			}
		}
	}
	return list, nil
}

func (n *Node) describeRuleLocked(r *rule) api.Rule {
	packets, bytes := r.hits.Sum()
	d := api.Rule{Number: int(r.number), Network: r.network, From: r.spec.From, To: r.spec.Target(), Packets: packets, Bytes: bytes}
	if l, err := n.lanLocked(r.network); err == nil { // else it goes just now
		d.Needed, d.Missing = l.conf.Options.ICCOff, onLan{n, l}.missing(r.spec)
	}
	return d
}

// deleteRule takes a rule away. What it has let begin does not go on.
func (n *Node) deleteRule(_ http.ResponseWriter, r *http.Request) (any, error) {
	word := r.PathValue("number")
	number, err := strconv.ParseUint(word, 10, 32)
	if err != nil {
		return nil, fail(http.StatusBadRequest, "%q is no number of a rule; `fairlead rule ls` lists them", word)
	}
	n.linking.Lock()
	defer n.linking.Unlock()
	n.mu.Lock()
	i := slices.IndexFunc(n.rules, func(r *rule) bool { return r.number == uint32(number) })
	if i < 0 {
		n.mu.Unlock()
		return nil, fail(http.StatusNotFound, "no rule has number %d; `fairlead rule ls` lists them", number)
	}
	gone, all := n.rules[i], n.rules
	n.rules = slices.Delete(slices.Clone(all), i, i+1)
	next := n.stateLocked()
	n.rules = all
	n.mu.Unlock()
	if err := n.home.writeState(next); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dropRuleLocked(gone)
	return done, nil
}

// admitRules are what containers of a network may send one another, and how often
// they did.
func (n *Node) admitRules(list *ruleList, l *lan) {
	n.mu.Lock()
	defer n.mu.Unlock()
	closed := l.admission.closed
	idle := ""
	if !closed {
		idle = "; not asked, for containers talk to one another (icc=on)"
	}
	for _, r := range n.rules {
		if r.network == l.name {
			f := r.filter(fmt.Sprintf("rule %d: %s%s", r.number, r.words, idle))
			f.In, f.Out, f.Proto = r.spec.From, r.spec.To, r.spec.Proto
			if r.spec.Ports.Len() == 1 {
				f.Port = r.spec.Ports.First
			}
			list.add(f)
		}
	}
	if !closed {
		return
	}
	var keys []linkKey
	for k := range l.admission.links {
		keys = append(keys, k)
	}
	links := l.admission.links
	slices.SortFunc(keys, func(a, b linkKey) int { return int(links[a].number) - int(links[b].number) })
	on := onLan{n, l}
	for _, k := range keys {
		o := links[k]
		f := o.filter(fmt.Sprintf("rule %d: %s", o.number, o.words))
		f.Out, _, _ = strings.Cut(k.link, ":")
		if c := n.linked[f.Out][k.from]; c != nil {
			f.In = c.name()
		}
		var ports []string
		if to := on.named(f.Out); to != nil {
			for _, p := range to.exposedPorts() {
				ports = append(ports, fmt.Sprintf("%s/%s", p.Container, p.Proto))
			}
		}
		f.Match += ", exposed: " + cmp.Or(strings.Join(ports, " "), "nothing")
		list.add(f)
	}
	packets, bytes := l.admission.refused.Sum()
	list.add(api.FilterRule{
		Chain: "admit", Target: "drop", In: list.network, Out: list.network, Match: "from one container to another (icc=off)",
		Reason: packet.ICC.String(), Packets: packets, Bytes: &bytes,
	})
}

// filter is the opening as `show rules` has it.
func (o *opening) filter(match string) api.FilterRule {
	packets, bytes := o.hits.Sum()
	return api.FilterRule{Chain: "admit", Target: "accept", Match: match, Packets: packets, Bytes: &bytes}
}

// openingWords is what an opening of a network is, for who reads a trace.
func (n *Node) openingWords(id packet.NetworkID, number uint32) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range n.rules {
		if r.number == number {
			return r.words
		}
	}
	for _, l := range n.lans {
		for _, o := range l.admission.links {
			if l.number() == id && o.number == number {
				return o.words
			}
		}
	}
	return ""
}
