package nat

import "fairlead/packet"

// A Saved is a flow as it goes from the table of one node to that of the node that
// takes its place. Its counters stay behind. All of it has a fixed size,
// as encoding/binary calls that.
type Saved struct {
	Number    uint32 // in the table it comes from
	Container packet.ContainerID
	Kind      packet.NATKind
	Hidden    packet.Hidden
	From, To  packet.NetworkID
	Forward   packet.Tuple // seen on From
	Reply     packet.Tuple // the answers', seen on To
	Inward    bool
	ToMapping bool
	Rule      Rule // that made it; its Number is 0 for none

	// Of the mapping whose outside port it has, if it has one.
	Mapped      bool
	Network     packet.NetworkID
	Owner       packet.ContainerID
	Inside      packet.Addr
	InsidePort  uint16
	Proto       packet.Proto
	Uplink      packet.NetworkID
	Outside     packet.Addr
	OutsidePort uint16

	// Of each half: how long ago its last packet was, in nanoseconds, and what its
	// packets said.
	Age  [2]int64
	Bits [2]uint64
}

// Save yields the flows whose time is not up, of those that end with a socket only those
// that go with it, as Restore takes them, until yield returns false. Only the owner of the
// table calls it, while no worker runs.
func (t *Table) Save(now int64, goes func(number uint32) bool, yield func(*Saved) bool) {
	for f := range t.Flows {
		b := t.body(f.Number)
		if b.is(kept) && !goes(f.Number) {
			continue
		}
		s := Saved{
			Number: f.Number, Container: f.Container, Kind: f.Kind, Hidden: f.Hidden, From: f.From, To: f.To, Forward: f.Forward, Reply: f.Reply,
			Inward: f.Inward, ToMapping: b.is(toMapping),
		}
		if b.rule != 0 {
			s.Rule = t.rules.at(b.rule).Rule
		}
		if b.mapping != 0 {
			m := t.maps.at(b.mapping)
			s.Mapped, s.Network, s.Owner, s.Inside, s.InsidePort = true, m.network, m.container, m.inside, m.insidePort
			s.Proto, s.Uplink, s.Outside, s.OutsidePort = m.proto, m.uplink, m.outside, m.outsidePort
		}
		for dir := range b.seen {
			word := b.seen[dir].Load()
			s.Age[dir], s.Bits[dir] = max(0, now-since(word)), word&(stateBits-1)
		}
		if !yield(&s) {
			return
		}
	}
}

// A Restorer makes flows of another table's in this one. Only the owner of the table
// uses it, while nobody else does, and while its rules stay as they are.
type Restorer struct {
	table *Table
	now   int64
	rules map[Rule]uint32 // by what they say
}

// Restorer begins to restore flows. The clock is another one than that they were
// saved by, and no half was heard before it began: an idle flow may live as much
// longer.
func (t *Table) Restorer(now int64) *Restorer {
	t.setClock(now)
	r := &Restorer{table: t, now: now, rules: make(map[Rule]uint32)}
	for x := range t.Rules {
		r.rules[x.said()] = x.Number
	}
	return r
}

// said is what a rule says, whatever it is called and has done in its table. A
// masquerade says as much for all containers.
func (r Rule) said() Rule {
	said := Rule{
		Kind: r.Kind, Network: r.Network, Container: r.Container, Uplink: r.Uplink,
		Outside: r.Outside, Inside: r.Inside, Proto: r.Proto, OutsidePort: r.OutsidePort, InsidePort: r.InsidePort,
	}
	if r.Kind == packet.NATMasquerade {
		said = Rule{Kind: r.Kind, Network: r.Network, Uplink: r.Uplink}
	}
	return said
}

// Restore makes a flow as it was and returns its number; 0 if there is one in its place,
// its rule is not there, or it has no room.
func (r *Restorer) Restore(s *Saved) (number uint32) {
	t, now := r.table, r.now
	p := Plan{
		Translation: packet.Translation{
			New: true, Container: s.Container, Kind: s.Kind, Hidden: s.Hidden, ToMapping: s.ToMapping,
			In: s.From, Before: s.Forward, Out: s.To, After: s.Reply.Reverse(),
		},
		question: question{scope: s.From, container: s.Container, tuple: s.Forward, uplink: s.To},
		inward:   s.Inward,
	}
	if s.Rule.Number != 0 {
		if p.Rule = r.rules[s.Rule.said()]; p.Rule == 0 {
			return 0
		}
	}
	if t.crowded(t.holderOf(p.Container), p.inward) || t.inTheWay(&p) != 0 {
		return 0
	}
	if s.Mapped {
		p.source = endpoint{s.Network, s.Owner, s.Inside, s.InsidePort, s.Proto, s.Uplink, s.Outside}
		p.port = s.OutsidePort
		if n := t.findMapping(&p.source); n != 0 && t.maps.at(n).outsidePort == s.OutsidePort {
			p.mapping = n
		} else if t.poolOf(poolKey{s.Uplink, s.Outside, s.Proto}).owner[s.OutsidePort] != 0 {
			return 0
		}
	}
	f, reason := t.make(&p)
	if reason != packet.OK {
		return 0
	}
	b := t.body(f.ref)
	for dir := range b.seen {
		b.seen[dir].Store(uint64(max(0, now-s.Age[dir]))&^(granule-1) | s.Bits[dir]&(stateBits-1))
	}
	return f.ref
}
