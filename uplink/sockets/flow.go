package sockets

import (
	"slices"

	"fairlead/packet"
)

// Descriptors are shared out as NAT's tables are. Half of all are the guaranteed
// shares of the containers there may be: a container has that many whatever the
// others do. The other half is for whoever comes first, and each container has
// its bound. One that can have no more gives up the oldest of its own endpoints
// that was never answered, and never another's. Connections from outside that no
// container has answered yet are those of container 0.

// A flowTable finds the endpoint of a flow by the number NAT has given it.
// Numbers are dense, so it is as large as the most flows there were at once.
type flowTable struct {
	slots   []slot
	holders map[packet.ContainerID]*holder
	total   int                    // descriptors of all of them
	beyond  int                    // those beyond the holders' shares
	udp     map[localAddr]endpoint // of mappings and published ports, by the address they have on the segment
}

// A slot is one flow: the tuple of its packets towards the host, which tells it
// from a later flow with the same number, and its endpoint.
type slot struct {
	tuple packet.Tuple
	e     endpoint
	place int // in the list of an endpoint that has several flows
}

// A localAddr is what an endpoint-independent socket is found by.
type localAddr struct {
	addr  packet.Addr
	port  uint16
	proto packet.Proto
}

// A holder is what one container has.
type holder struct {
	id          packet.ContainerID
	descriptors int
	unanswered  int        // endpoints that hold them and were not answered yet
	waiting     []endpoint // those are among these, oldest first
}

func (t *flowTable) init() {
	t.holders = make(map[packet.ContainerID]*holder)
	t.udp = make(map[localAddr]endpoint)
}

// find returns the endpoint of a flow, nil when it has none.
func (t *flowTable) find(number uint32, k *packet.Tuple) endpoint {
	if int(number) < len(t.slots) {
		if x := &t.slots[number]; x.e != nil && x.tuple == *k {
			return x.e
		}
	}
	return nil
}

// set makes e the endpoint of a flow. One of an earlier flow with the number
// hears that it is over.
func (t *flowTable) set(number uint32, k packet.Tuple, e endpoint) {
	if old := t.forget(number); old != nil {
		old.flowEnded(number)
		old.common().wake()
	}
	for int(number) >= len(t.slots) {
		t.slots = append(t.slots, make([]slot, max(64, len(t.slots)))...)
	}
	t.slots[number] = slot{tuple: k, e: e}
}

// forget takes a flow out and returns its endpoint.
func (t *flowTable) forget(number uint32) endpoint {
	if int(number) >= len(t.slots) {
		return nil
	}
	e := t.slots[number].e
	t.slots[number] = slot{place: t.slots[number].place} // what e goes by in flowEnded
	return e
}

// endpoint returns the endpoint of a frame's flow, and makes it if the frame
// begins one. It is nil when there is nothing to give the frame to.
func (s *Sockets) endpoint(f *packet.Frame) (endpoint, packet.Reason) {
	k := f.Tuple()
	if e := s.flows.find(f.Flow, &k); e != nil {
		return e, packet.OK
	}
	if f.Flow == 0 {
		s.fromRouter(f)
		return nil, packet.OK
	}
	switch f.Proto {
	case packet.ProtoTCP:
		return s.newConn(f, k)
	case packet.ProtoUDP:
		return s.udpEndpoint(f, k)
	case packet.ProtoICMP:
		return s.pingEndpoint(f, k)
	}
	return nil, packet.EgressRefused
}

// charge takes a descriptor out of a container's budget. If that is used up, the
// oldest of its own endpoints that was never answered goes; false when there is
// none.
func (s *Sockets) charge(c packet.ContainerID, e endpoint) bool {
	h := s.flows.holders[c]
	if h == nil {
		h = &holder{id: c}
		s.flows.holders[c] = h
	}
	if s.full(h) && !s.evict(h) {
		if h.descriptors == 0 {
			delete(s.flows.holders, c)
		}
		return false
	}
	s.flows.holders[c] = h // the one it gave up may have been its last
	if h.descriptors >= s.share {
		s.flows.beyond++
	}
	h.descriptors++
	s.flows.total++
	e.common().holder = h
	if e.common().unanswered {
		h.unanswered++
		h.wait(e)
	}
	return true
}

// wait puts down an endpoint that was not answered yet. The list stays as short
// as what the container has.
func (h *holder) wait(e endpoint) {
	if len(h.waiting) > 2*h.descriptors+16 {
		h.waiting = slices.DeleteFunc(h.waiting, func(e endpoint) bool { return !h.hopes(e) })
	}
	h.waiting = append(h.waiting, e)
}

// hopes reports whether an endpoint holds a descriptor and was not answered yet.
func (h *holder) hopes(e endpoint) bool {
	b := e.common()
	return b.unanswered && b.holder == h && b.fd >= 0
}

// discharge gives a descriptor back to the budget.
func (e *base) discharge() {
	if e.holder == nil {
		return
	}
	e.holder.descriptors--
	e.s.flows.total--
	if e.holder.descriptors >= e.s.share {
		e.s.flows.beyond--
	}
	if e.unanswered {
		e.holder.unanswered--
	}
	if e.holder.descriptors == 0 {
		delete(e.s.flows.holders, e.holder.id)
	}
	e.holder = nil
}

// full reports whether a container may have no further descriptor.
func (s *Sockets) full(h *holder) bool {
	return s.conf.Containers > 0 && h.descriptors >= s.conf.Containers || s.commonFull(h.descriptors)
}

// commonFull reports whether who has so many descriptors may have no further one
// for the others' sake.
func (s *Sockets) commonFull(has int) bool {
	most := s.conf.Total
	return most > 0 && (s.flows.total >= most || has >= s.share && s.flows.beyond >= most-s.share*s.conf.Shares)
}

// evict closes the container's oldest endpoint that was never answered.
func (s *Sockets) evict(h *holder) bool {
	for len(h.waiting) > 0 {
		e := h.waiting[0]
		h.waiting[0] = nil
		h.waiting = h.waiting[1:]
		if h.hopes(e) {
			e.close()
			return true
		}
	}
	return false
}

// answered notes that something came back: the endpoint is not given up for
// another.
func (e *base) answered() {
	if e.unanswered && e.holder != nil {
		e.holder.unanswered--
	}
	e.unanswered = false
}

// admits reports whether the container of a new flow may have one more
// descriptor, if need be for one of its own, or the flow needs none.
func (s *Sockets) admits(x *packet.Translation) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x.After.Proto != packet.ProtoTCP && s.socketAt(&x.After) {
		return true
	}
	h := s.flows.holders[x.Container]
	if h == nil {
		return !s.commonFull(0)
	}
	return !s.full(h) || h.unanswered > 0
}

// register makes a descriptor an endpoint's, which the worker tells of events.
func (s *Sockets) register(e endpoint, fd int, events uint32) error {
	b := e.common()
	b.fd, b.watch = fd, &watch{s: s, e: b}
	var err error
	b.watch.source, err = s.conf.Worker.Add(fd, events, b.watch)
	return err
}

// shut closes an endpoint's descriptor and gives it back to the budget.
func (e *base) shut() {
	if e.fd < 0 {
		return
	}
	if e.watch != nil && e.watch.source != nil {
		e.watch.source.Remove()
	}
	closeFd(e.fd)
	e.fd, e.watch, e.events = -1, nil, 0
	e.s.timed.remove(e)
	e.discharge()
}

// closeAll closes all endpoints, each once.
func (t *flowTable) closeAll() {
	for i := range t.slots {
		if e := t.slots[i].e; e != nil {
			t.slots[i] = slot{}
			e.close()
		}
	}
	for k, e := range t.udp {
		delete(t.udp, k)
		e.close()
	}
}
