package nat

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"

	"fairlead/packet"
)

// A Rule is what flows are made by. Its number stays the same while it exists.
type Rule struct {
	Number    uint32
	Kind      packet.NATKind // masquerade, publish or one-to-one
	Network   packet.NetworkID
	Container packet.ContainerID // of a published port or one-to-one address
	Uplink    packet.NetworkID   // of masquerade and one-to-one; a published port is one on all

	// Outside is the host address of a published port (0.0.0.0 or :: for all of
	// ours; the zero Addr is the one of Inside's family), or the outside address
	// of the container's own.
	Outside packet.Addr
	Inside  packet.Addr // the container's

	Proto       packet.Proto // of a published port
	OutsidePort uint16       // of the host
	InsidePort  uint16       // of the container

	// What the rule did so far: set in lists.
	Flows, Packets, Bytes uint64
}

// ErrAllocated is why a port cannot be published; the error around it has
// Docker's words.
var ErrAllocated = errors.New("port is already allocated")

// rules are all of them, by number and by what they are looked up by. As many
// as the owner makes.
type rules struct {
	// all is read by Seen without a lock, which touches nothing but counters: it
	// only grows, and what is published does not change. A number is used again
	// when its rule is gone, the one first that is free for longest.
	all  atomic.Pointer[[]*rule]
	free []uint32

	published  map[portKey][]*rule
	inner      map[innerKey][]*rule // of UDP, by where they lead to
	inside     map[ownKey]*rule     // one-to-one, by network and inside address
	outside    map[ownKey]*rule     // one-to-one, by uplink and outside address
	masquerade map[[2]packet.NetworkID]uint32
	leading    map[packet.ContainerID]int // how many lead to each container
}

type rule struct {
	Rule
	flows, packets, bytes atomic.Uint64
	gone                  bool
}

type portKey struct {
	proto packet.Proto
	port  uint16
}

type innerKey struct {
	network packet.NetworkID
	addr    packet.Addr
	port    uint16
}

type ownKey struct {
	network packet.NetworkID
	addr    packet.Addr
}

func (r *rules) init() {
	r.all.Store(&[]*rule{nil}) // 0 is no rule
	r.published = make(map[portKey][]*rule)
	r.inner = make(map[innerKey][]*rule)
	r.inside = make(map[ownKey]*rule)
	r.outside = make(map[ownKey]*rule)
	r.masquerade = make(map[[2]packet.NetworkID]uint32)
	r.leading = make(map[packet.ContainerID]int)
}

func (r *rules) at(number uint32) *rule { return (*r.all.Load())[number] }

// count adds packets to a rule's counters. Any worker.
func (r *rules) count(number uint32, packets, bytes int) {
	rule := r.at(number)
	rule.packets.Add(uint64(packets))
	rule.bytes.Add(uint64(bytes))
}

// add gives a rule its number.
func (r *rules) add(x Rule) *rule {
	r.leading[x.Container]++
	if len(r.free) > 0 {
		added := r.at(r.free[0])
		r.free = r.free[1:]
		x.Number = added.Number
		added.Rule, added.gone = x, false
		for _, c := range []*atomic.Uint64{&added.flows, &added.packets, &added.bytes} {
			c.Store(0)
		}
		return added
	}
	all := *r.all.Load()
	x.Number = uint32(len(all))
	all = append(all, &rule{Rule: x})
	r.all.Store(&all)
	return all[x.Number]
}

// anyOf is the address that stands for all of a family.
func anyOf(a packet.Addr) packet.Addr {
	if a.Is4() {
		return packet.AddrFrom4([4]byte{})
	}
	return packet.Addr{}
}

// covers reports whether the rule's outside address is a, or stands for it.
func (r *rule) covers(a packet.Addr) bool { return r.Outside == a || r.Outside == anyOf(a) }

// publishedAt returns the rule that publishes a port at an address of ours. The
// one that names the address wins.
func (r *rules) publishedAt(a packet.Addr, proto packet.Proto, port uint16) (found *rule) {
	for _, x := range r.published[portKey{proto, port}] {
		if x.covers(a) && (found == nil || x.Outside == a) {
			found = x
		}
	}
	return found
}

func (r *rules) reserves(a packet.Addr, proto packet.Proto, port uint16) bool {
	return r.publishedAt(a, proto, port) != nil
}

func (r *rules) reservedPorts(a packet.Addr, proto packet.Proto, yield func(port uint16)) {
	for key := range r.published {
		if key.proto == proto && r.reserves(a, proto, key.port) {
			yield(key.port)
		}
	}
}

// outsideOf returns the one-to-one rule of an inside address at an uplink.
func (r *rules) outsideOf(network packet.NetworkID, inside packet.Addr, uplink packet.NetworkID) *rule {
	if x := r.inside[ownKey{network, inside}]; x != nil && x.Uplink == uplink {
		return x
	}
	return nil
}

// insideOf returns the one-to-one rule of an outside address.
func (r *rules) insideOf(uplink packet.NetworkID, outside packet.Addr) *rule {
	return r.outside[ownKey{uplink, outside}]
}

// Publish has a port of ours lead to a container's, and returns the rule with
// its number. What is taken is refused with Docker's text around ErrAllocated.
func (t *Table) Publish(r Rule) (Rule, error) {
	r.Kind, r.Uplink = packet.NATPublish, 0
	if r.Outside == (packet.Addr{}) {
		r.Outside = anyOf(r.Inside)
	}
	switch {
	case r.Proto != packet.ProtoTCP && r.Proto != packet.ProtoUDP:
		return Rule{}, fmt.Errorf("publish: protocol %d has no ports", r.Proto)
	case r.InsidePort == 0 || r.OutsidePort == 0:
		return Rule{}, errors.New("publish: a port is missing")
	case r.Outside.Is4() != r.Inside.Is4():
		return Rule{}, fmt.Errorf("publish: %s and %s are of different families", r.Outside, r.Inside)
	}
	if t.rules.conflict(r) {
		return Rule{}, fmt.Errorf("Bind for %s failed: %w", //nolint:staticcheck // Docker's words
			netip.AddrPortFrom(r.Outside.Netip(), r.OutsidePort), ErrAllocated)
	}
	added := t.rules.add(r)
	key := portKey{r.Proto, r.OutsidePort}
	t.rules.published[key] = append(t.rules.published[key], added)
	if inner := (innerKey{r.Network, r.Inside, r.InsidePort}); r.Proto == packet.ProtoUDP {
		t.rules.inner[inner] = append(t.rules.inner[inner], added)
	}
	for k, p := range t.maps.pools {
		if k.proto == r.Proto && added.covers(k.outside) {
			p.reserve(r.OutsidePort)
		}
	}
	return added.Rule, nil
}

// conflict reports whether a port is published already at an address that
// overlaps.
func (r *rules) conflict(x Rule) bool {
	for _, other := range r.published[portKey{x.Proto, x.OutsidePort}] {
		if other.Outside != x.Outside && (other.Outside == packet.HostIPv6 || x.Outside == packet.HostIPv6) {
			continue // the one is more specific, and what there is of IPv6
		}
		if other.Outside.Is4() == x.Outside.Is4() &&
			(other.Outside == x.Outside || other.Outside == anyOf(x.Outside) || x.Outside == anyOf(x.Outside)) {
			return true
		}
	}
	return false
}

// OneToOne gives a container an outside address of its own at an uplink.
func (t *Table) OneToOne(r Rule) (Rule, error) {
	r.Kind, r.Proto, r.OutsidePort, r.InsidePort = packet.NATOneToOne, 0, 0, 0
	in, out := ownKey{r.Network, r.Inside}, ownKey{r.Uplink, r.Outside}
	switch {
	case r.Outside.Is4() != r.Inside.Is4():
		return Rule{}, fmt.Errorf("one-to-one: %s and %s are of different families", r.Outside, r.Inside)
	case t.rules.outside[out] != nil:
		return Rule{}, fmt.Errorf("one-to-one: %s is already that of %s", r.Outside, t.rules.outside[out].Inside)
	case t.rules.inside[in] != nil:
		return Rule{}, fmt.Errorf("one-to-one: %s already has %s", r.Inside, t.rules.inside[in].Outside)
	}
	added := t.rules.add(r)
	t.rules.inside[in], t.rules.outside[out] = added, added
	return added.Rule, nil
}

// Masquerade enters the rule that counts what leaves a network by an uplink, and
// returns it. There is one for each pair; without it flows are masqueraded all
// the same, under no number.
func (t *Table) Masquerade(network, uplink packet.NetworkID) Rule {
	pair := [2]packet.NetworkID{network, uplink}
	if n := t.rules.masquerade[pair]; n != 0 {
		return t.rules.at(n).Rule
	}
	added := t.rules.add(Rule{Kind: packet.NATMasquerade, Network: network, Uplink: uplink})
	t.rules.masquerade[pair] = added.Number
	return added.Rule
}

// Unpublish takes rules of any kind back and ends the flows made by them. All
// flows are looked at once, however many rules there are. It reports false when
// there is none of one of the numbers.
func (t *Table) Unpublish(numbers ...uint32) bool {
	all := *t.rules.all.Load()
	gone, found := make([]bool, len(all)), 0
	for _, number := range numbers {
		if number != 0 && int(number) < len(all) && !all[number].gone {
			t.remove(all[number])
			gone[number] = true
			found++
		}
	}
	if found > 0 {
		t.flush(func(ref uint32) bool { return gone[t.body(ref).rule] })
	}
	return found == len(numbers)
}

// remove takes a rule out of the tables.
func (t *Table) remove(r *rule) {
	r.gone = true
	t.rules.free = append(t.rules.free, r.Number)
	if t.rules.leading[r.Container]--; t.rules.leading[r.Container] == 0 {
		delete(t.rules.leading, r.Container)
	}
	switch r.Kind {
	case packet.NATMasquerade:
		delete(t.rules.masquerade, [2]packet.NetworkID{r.Network, r.Uplink})
	case packet.NATOneToOne:
		delete(t.rules.inside, ownKey{r.Network, r.Inside})
		delete(t.rules.outside, ownKey{r.Uplink, r.Outside})
	case packet.NATPublish:
		t.withdraw(r)
	}
}

// withdraw takes a published port out of the tables.
func (t *Table) withdraw(r *rule) {
	without(t.rules.published, portKey{r.Proto, r.OutsidePort}, r)
	without(t.rules.inner, innerKey{r.Network, r.Inside, r.InsidePort}, r)
	for k, p := range t.maps.pools {
		if k.proto == r.Proto && !t.rules.reserves(k.outside, k.proto, r.OutsidePort) {
			p.unreserve(r.OutsidePort)
		}
	}
}

// without takes a rule out of the list under a key.
func without[K comparable](lists map[K][]*rule, key K, r *rule) {
	rest := slices.DeleteFunc(slices.Clone(lists[key]), func(x *rule) bool { return x == r })
	if len(rest) > 0 {
		lists[key] = rest
	} else {
		delete(lists, key)
	}
}

// Rules yields all rules with their counters, by number.
func (t *Table) Rules(yield func(Rule) bool) {
	for _, r := range *t.rules.all.Load() {
		if r == nil || r.gone {
			continue
		}
		x := r.Rule
		x.Flows, x.Packets, x.Bytes = r.flows.Load(), r.packets.Load(), r.bytes.Load()
		if !yield(x) {
			return
		}
	}
}
