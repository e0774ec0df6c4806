package nat

import "fairlead/packet"

// A holder is what a container has of the table: its flows by class, in the
// order in which they came into it.
type holder struct {
	flows   int
	retired int // those that ended and wait to be recycled
	classes [numClasses]list
}

// When a container needs room one of its flows goes, by class.
type class uint8

const (
	others    class = iota
	renewable       // see body.renewable
	proven          // assured and open when it was looked at last
	numClasses
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

// peekHolder is holderOf for planning, which changes nothing.
func (t *Table) peekHolder(c packet.ContainerID) *holder {
	if i := int(c & 0xffff); i < len(t.holders) {
		return &t.holders[i]
	}
	return &noHolder
}

var noHolder holder // never written

// classify puts a flow into the list where it belongs by now.
func (t *Table) classify(ref uint32) {
	b := t.body(ref)
	now := others
	switch {
	case b.renewable():
		now = renewable
	case !t.expendable(ref):
		now = proven
	}
	if now != b.class {
		h := t.holderOf(b.container)
		t.unlink(&h.classes[b.class], linkHolder, ref)
		b.class = now
		t.append(&h.classes[now], linkHolder, ref)
	}
}

// lookAt bounds how many flows of each class are looked at to find one that may
// go.
const lookAt = 64

// victim finds the oldest flow of a container that may go, 0 if there is none
// near the ends of its lists. Flows of the mapping spare may not.
func (t *Table) victim(h *holder, spare uint32) uint32 {
	for i := range h.classes {
		for ref, n := h.classes[i].head, 0; ref != 0 && n < lookAt; n++ {
			b := t.body(ref)
			if t.expendable(ref) && (spare == 0 || b.mapping != spare) {
				return ref
			}
			ref = b.links[linkHolder].next
		}
	}
	return h.classes[renewable].head
}

// crowded reports whether another flow of a container needs one of its own to go.
func (t *Table) crowded(h *holder) bool {
	return h.flows >= t.config.PerContainer || t.live >= t.config.Flows
}

// churns reports whether a container ends flows faster than their records are
// recycled, and would need more of those than are set aside for it.
func (t *Table) churns(h *holder) bool {
	return h.retired >= t.waiting && (t.crowded(h) || h.flows+h.retired >= t.config.PerContainer+t.waiting)
}

// admits says whether there is room for a planned flow, if need be in the place
// of another of the same container.
func (t *Table) admits(p *Plan) packet.Reason {
	v4, h := is4(&p.Before), t.peekHolder(p.Container)
	switch {
	case v4 && !t.v4.room() || !v4 && !t.v6.room():
		return packet.FlowTableFull
	case t.churns(h):
		return packet.FlowBudget
	case !t.crowded(h) || t.replaces(p) || t.victim(h, p.target) != 0:
		return packet.OK
	case h.flows >= t.config.PerContainer:
		return packet.FlowBudget
	}
	return packet.FlowTableFull
}
