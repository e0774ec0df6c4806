package nat

import (
	"math"

	"fairlead/packet"
)

// Some uplinks have an end of every flow themselves, as host sockets have: they
// keep flows. There a TCP connection that was answered and goes on has no
// time-out, since who has its end knows better whether it does; it is ended by
// End. And whatever flow is ended here, the uplink has to hear of it.

// An Owner is whose table it is. Its methods are called by those of the table,
// while the owner's lock is held, and must not call back.
type Owner interface {
	// Ended tells that a flow across an uplink that keeps flows is no more.
	Ended(uplink packet.NetworkID, number uint32)

	// Hide says whether a client that comes in on an uplink that keeps flows is to
	// be hidden from a container of a network, why, and what the container sees
	// instead.
	Hide(network packet.NetworkID, c packet.ContainerID, client packet.Addr) (as packet.Addr, why packet.Hidden)

	// Owns reports whether a packet may leave by an uplink with that source.
	Owns(uplink packet.NetworkID, source packet.Addr) bool
}

// SetOwner says who it is. That is for once, before there are flows.
func (t *Table) SetOwner(o Owner) { t.owner = o }

// nobody is the owner of a table on its own.
type nobody struct{}

func (nobody) Ended(packet.NetworkID, uint32) {}
func (nobody) Hide(packet.NetworkID, packet.ContainerID, packet.Addr) (as packet.Addr, why packet.Hidden) {
	return as, packet.HiddenNot
}
func (nobody) Owns(packet.NetworkID, packet.Addr) bool { return false }

// Never is the deadline of what does not end by time.
const Never = math.MaxInt64

// Keep says whether an uplink keeps the flows that are made from now on.
func (t *Table) Keep(uplink packet.NetworkID, keep bool) {
	if keep {
		t.keeps[uplink] = true
	} else {
		delete(t.keeps, uplink)
	}
}

// lasts reports whether the flow is a connection that ends with its socket. One
// that was never answered, or that is over, has its time as everywhere: nobody
// else may know that it was there.
func (b *body) lasts() bool {
	if !b.is(kept) || b.proto != packet.ProtoTCP {
		return false
	}
	switch b.state() {
	case opening, open, halfClosed:
		return true
	}
	return false
}

// tellEnded tells the owner that a flow has ended which an uplink keeps.
func (t *Table) tellEnded(ref uint32) {
	for dir := range 2 {
		if scope, _ := t.key(ref, dir); t.keeps[scope] {
			t.owner.Ended(scope, ref)
		}
	}
}

// End ends the flow whose packets leave, or came in, with tuple k on the segment
// of an uplink. It reports false when there is none.
func (t *Table) End(uplink packet.NetworkID, k packet.Tuple) bool {
	answers := k.Reverse()
	ref, _ := t.lookup(uplink, &answers)
	if ref == 0 {
		ref, _ = t.lookup(uplink, &k)
	}
	if ref == 0 {
		return false
	}
	t.end(ref)
	return true
}
