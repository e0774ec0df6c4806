package nat

import "fairlead/packet"

// A holder is what a container has of the table: its flows by class, in the
// order in which they came into it.
type holder struct {
	flows   int
	inward  int // of them
	retired int // those that ended and wait to be recycled
	classes [numClasses]list
}

// When a container needs room one of its flows goes, by class; and what comes
// from outside takes the place of nothing else.
type class uint8

const (
	inwardOthers class = iota
	renewable          // see body.renewable
	inwardProven
	others
	proven // assured and open when it was looked at last
	numClasses

	numInward = others
)

// holderOf returns the holder of a container, and makes room for it. Holders go
// by the dense index: when it is given to a new container, the flows of the old
// one have been flushed.
func (t *Table) holderOf(c packet.ContainerID) *holder {
	i := int(c & 0xffff)
	for len(t.holders) <= i {
		t.holders = append(t.holders, holder{})
	}
	return &t.holders[i]
}

// peekHolder is holderOf for who changes nothing about a container without flows.
func (t *Table) peekHolder(c packet.ContainerID) *holder {
	if i := int(c & 0xffff); i < len(t.holders) {
		return &t.holders[i]
	}
	return &noHolder
}

var noHolder holder // never written

// classOf is where a flow belongs by now.
func (t *Table) classOf(ref uint32) class {
	b := t.body(ref)
	switch from := b.is(inward); {
	case b.renewable():
		return renewable
	case t.expendable(ref) && from:
		return inwardOthers
	case t.expendable(ref):
		return others
	case from:
		return inwardProven
	}
	return proven
}

// classify puts a flow into the list where it belongs by now.
func (t *Table) classify(ref uint32) {
	b := t.body(ref)
	if now := t.classOf(ref); now != b.class {
		h := t.holderOf(b.container)
		t.unlink(&h.classes[b.class], linkHolder, ref)
		b.class = now
		t.append(&h.classes[now], linkHolder, ref)
	}
}

// lookAt bounds how many flows of each class are looked at to find one that may
// go.
const lookAt = 64

// victim finds the oldest flow of a container that may go for the planned one, 0
// if there is none near the ends of its lists. Flows of the mapping that the
// packet is sent to may not.
func (t *Table) victim(h *holder, p *Plan) uint32 {
	classes := h.classes[:]
	if p.inward {
		classes = classes[:numInward]
	}
	for i := range classes {
		for ref, n := classes[i].head, 0; ref != 0 && n < lookAt; n++ {
			b := t.body(ref)
			if t.expendable(ref) && (p.target == 0 || b.mapping != p.target) {
				return ref
			}
			ref = b.links[linkHolder].next
		}
	}
	return h.classes[renewable].head
}

// charge has a container pay for so many more flows, and records of ended ones.
func (t *Table) charge(h *holder, flows, retired int) {
	t.borrowed -= max(t.records(h)-t.share, 0)
	h.flows += flows
	h.retired += retired
	t.borrowed += max(t.records(h)-t.share, 0)
}

// records is how many of the node's records a container has, beside those for
// ended flows that are set aside for it.
func (t *Table) records(h *holder) int { return h.flows + max(h.retired-t.waiting, 0) }

// crowded reports whether another flow of a container needs one of its own to
// go.
func (t *Table) crowded(h *holder, inward bool) bool {
	return t.live.Load() >= int64(t.config.Flows) || t.fills(t.records(h), 8) || inward && t.fills(h.inward, 7)
}

// fills reports whether so many flows are as many eighths of what a container
// may have: of its budget, or while others have all that is for whoever comes
// first, of its guaranteed share.
func (t *Table) fills(flows, eighths int) bool {
	return flows >= t.config.PerContainer*eighths/8 || t.borrowed >= t.common && flows >= t.share*eighths/8
}

// admits says whether there is room for a planned flow, if need be in the place
// of another of the same container.
func (t *Table) admits(p *Plan) packet.Reason {
	v4, h := is4(&p.Before), t.peekHolder(p.Container)
	switch crowded := t.crowded(h, p.inward); {
	case v4 && !t.v4.room() || !v4 && !t.v6.room():
		return packet.FlowTableFull
	case crowded && h.retired >= t.waiting:
		return packet.FlowBudget // it ends flows faster than records are recycled
	case !crowded || t.replaces(p) || t.victim(h, p) != 0:
		return packet.OK
	case h.flows >= t.config.PerContainer || p.inward && h.inward >= t.config.PerContainer*7/8:
		return packet.FlowBudget
	}
	return packet.FlowTableFull
}
