package nat

import "fairlead/packet"

// Commit makes the flow of a plan, with its mapping. The table may have changed
// since the plan was made: then it makes what is right now, or returns the flow
// that another packet of the same connection has made meanwhile.
func (t *Table) Commit(p Plan, now int64) (Flow, packet.Reason) {
	t.setClock(now)
	q := &p.question
	if ref, dir := t.lookup(q.scope, &q.tuple); ref != 0 && !t.replaceable(ref, dir) {
		return Flow{ref, dir == 1}, packet.OK
	}
	for {
		fresh, reason := t.plan(q)
		if reason != packet.OK {
			return Flow{}, reason
		}
		// What is in the way goes first, now that there is something to take its
		// place. That may end the mapping the plan was about to use, so it is made
		// again.
		if ref := t.inTheWay(&fresh); ref != 0 {
			t.end(ref)
			continue
		}
		return t.make(&fresh)
	}
}

// inTheWay returns a flow that has to end for the planned one: one that counts
// no more and has the same questions or answers, or one of the container's that
// is one too many. Planning has made sure that it may.
func (t *Table) inTheWay(p *Plan) uint32 {
	if ref, _ := t.lookup(p.In, &p.Before); ref != 0 {
		return ref
	}
	answers := p.After.Reverse()
	if ref, _ := t.lookup(p.Out, &answers); ref != 0 {
		return ref
	}
	if h := t.holderOf(p.Container); t.crowded(h, p.inward) {
		t.stats.Evicted++
		return t.victim(h, p)
	}
	return 0
}

func (t *Table) traitsOf(p *Plan) (is traits) {
	if p.inward {
		is |= inward
	}
	if p.ToMapping {
		is |= toMapping
	}
	if t.keeps[p.In] || t.keeps[p.Out] {
		is |= kept
	}
	return is
}

// make enters a planned flow.
func (t *Table) make(p *Plan) (Flow, packet.Reason) {
	q := &p.question
	answers := p.After.Reverse()
	there, back := t.hash(q.scope, &q.tuple), t.hash(p.Out, &answers)
	if !t.index.room(there, back) {
		return Flow{}, packet.FlowTableFull
	}
	n := p.mapping
	if n == 0 && p.source.proto != 0 {
		if n = t.makeMapping(&p.source, p.port); n == 0 {
			return Flow{}, packet.FlowTableFull
		}
	}

	ref := t.takeRecord(!is4(&q.tuple))
	t.setKey(ref, 0, q.scope, &q.tuple)
	t.setKey(ref, 1, p.Out, &answers)
	b := t.body(ref)
	b.container, b.rule, b.mapping = p.Container, p.Rule, n
	b.proto, b.kind, b.traits, b.hidden = q.tuple.Proto, p.Kind, t.traitsOf(p), p.Hidden
	b.live = true
	for dir := range b.seen {
		b.seen[dir].Store(0)
		b.packets[dir].Store(0)
		b.bytes[dir].Store(0)
	}
	b.seen[0].Store(uint64(t.now) &^ (granule - 1))
	if n != 0 {
		t.join(n, ref)
	}
	h := t.holderOf(p.Container)
	b.class = t.classOf(ref)
	t.append(&h.classes[b.class], linkHolder, ref)
	t.charge(h, 1, 0)
	if p.inward {
		h.inward++
	}
	t.live.Add(1)
	t.arm(ref, min(t.deadline(b, q.tuple.DstPort), t.now+youth))
	if p.Rule != 0 {
		t.rules.at(p.Rule).flows.Add(1)
	}
	t.stats.Created++

	// From here on readers find it.
	t.index.add(there, ref<<1)
	t.index.add(back, ref<<1|1)
	return Flow{ref: ref}, packet.OK
}

// end takes a flow out. Its record waits to be recycled.
func (t *Table) end(ref uint32) {
	for dir := range 2 {
		scope, k := t.key(ref, dir)
		t.index.remove(t.hash(scope, &k), ref<<1|uint32(dir))
	}
	b := t.body(ref)
	b.live = false
	if b.mapping != 0 {
		t.leave(b.mapping, ref)
	}
	h := t.holderOf(b.container)
	t.unlink(&h.classes[b.class], linkHolder, ref)
	t.charge(h, -1, 1)
	if b.is(inward) {
		h.inward--
	}
	t.live.Add(-1)
	t.disarm(ref)
	t.append(&t.retired, linkWheel, ref)
	t.numRetired++
	t.stats.Ended++
	if b.is(kept) {
		t.tellEnded(ref)
	}
}

// Retired is how many ended flows wait to be recycled.
func (t *Table) Retired() int { return t.numRetired }

// Recycle frees the records of the n flows that ended first. The owner calls it
// when every worker has passed a turn since Retired said n.
func (t *Table) Recycle(n int) {
	for ; n > 0 && t.retired.head != 0; n-- {
		ref := t.retired.head
		t.unlink(&t.retired, linkWheel, ref)
		t.numRetired--
		t.charge(t.holderOf(t.body(ref).container), 0, -1)
		if isV6(ref) {
			t.append(&t.v6.free, linkWheel, ref)
			t.v6.spare++
		} else {
			t.append(&t.v4.free, linkWheel, ref)
			t.v4.spare++
		}
	}
}

// FlushContainer ends all flows of a container: those it pays for, and those of
// others with its published ports and own addresses.
func (t *Table) FlushContainer(c packet.ContainerID) {
	t.flushOf(c, func(ref uint32) bool {
		b := t.body(ref)
		return b.container == c || b.rule != 0 && t.rules.at(b.rule).Container == c
	})
}

// FlushContainerOn ends those of them that have an end on one network: the
// container leaves it, and stays on others.
func (t *Table) FlushContainerOn(c packet.ContainerID, n packet.NetworkID) {
	t.flushOf(c, func(ref uint32) bool {
		b := t.body(ref)
		if rule := b.rule; rule != 0 && t.rules.at(rule).Container == c && t.rules.at(rule).Network == n {
			return true
		}
		return b.container == c && t.crosses(ref, n)
	})
}

// FlushUntranslated ends the flows between a network and segments for which to is
// true that are not translated.
func (t *Table) FlushUntranslated(n packet.NetworkID, to func(packet.NetworkID) bool) {
	t.flush(func(ref uint32) bool {
		a, _ := t.key(ref, 0)
		b, _ := t.key(ref, 1)
		return t.body(ref).kind == packet.NATNone && (a == n && to(b) || b == n && to(a))
	})
}

// crosses reports whether a flow's packets are seen on a segment.
func (t *Table) crosses(ref uint32, n packet.NetworkID) bool {
	a, _ := t.key(ref, 0)
	b, _ := t.key(ref, 1)
	return a == n || b == n
}

// FlushAddress ends all flows in which an address of a network or uplink takes
// part, as itself or as the outside address of their mapping. The zero address
// stands for all addresses.
func (t *Table) FlushAddress(n packet.NetworkID, a packet.Addr) {
	all := a == packet.Addr{}
	t.flush(func(ref uint32) bool {
		for dir := range 2 {
			if scope, k := t.key(ref, dir); scope == n && (all || k.Src == a || k.Dst == a) {
				return true
			}
		}
		m := t.body(ref).mapping
		return m != 0 && t.maps.at(m).uplink == n && (all || t.maps.at(m).outside == a)
	})
	for k, p := range t.maps.pools {
		if k.uplink == n && (all || k.outside == a) && p.used == 0 {
			delete(t.maps.pools, k)
		}
	}
}

// flush ends the flows for which gone is true. It looks at all of them: a few
// milliseconds for a hundred thousand.
func (t *Table) flush(gone func(ref uint32) bool) {
	for i := range t.holders {
		t.flushHolder(&t.holders[i], gone)
	}
}

// flushOf is flush for flows of one container: it looks at those the container pays
// for, and only while rules lead to it at those that others pay for.
func (t *Table) flushOf(c packet.ContainerID, gone func(ref uint32) bool) {
	if t.rules.leading[c] > 0 {
		t.flush(gone)
	} else {
		t.flushHolder(t.peekHolder(c), gone)
	}
}

func (t *Table) flushHolder(h *holder, gone func(ref uint32) bool) {
	for class := range h.classes {
		for ref := h.classes[class].head; ref != 0; {
			next := t.body(ref).links[linkHolder].next
			if gone(ref) {
				t.end(ref)
			}
			ref = next
		}
	}
}
