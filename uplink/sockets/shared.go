package sockets

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"fairlead/loop"
	"fairlead/packet"
)

// A shared is what sockets of datagrams have in common: several flows use one,
// all those of a mapping of NAT or of a published port.
type shared struct {
	base
	local  localAddr // of its packets, on the segment
	flows  []uint32  // their numbers
	family int
	kept   bool // it stays when its last flow ends
	df     dontFragment
	sent   *sentRing // nil until something is sent

	overruns uint32 // as the kernel said last

	// refused is the last packet the host did not let out, until the container is
	// told; nil is none.
	refused *refused
}

// A refused is a packet the host did not let out, and why.
type refused struct {
	errno  unix.Errno
	tuple  packet.Tuple
	header sent
}

// sharer is an endpoint that embeds shared.
type sharer interface {
	endpoint
	shares() *shared
}

func (e *shared) shares() *shared { return e }

// join makes e the endpoint of one more flow.
func (s *Sockets) join(e sharer, number uint32, k packet.Tuple) {
	s.flows.set(number, k, e)
	x := e.shares()
	s.flows.slots[number].place = len(x.flows)
	x.flows = append(x.flows, number)
}

// flowEnded takes a flow out of the list; the last one has the socket closed by
// the next send.
func (e *shared) flowEnded(number uint32) {
	slots := e.s.flows.slots
	at, last := slots[number].place, len(e.flows)-1
	e.flows[at] = e.flows[last]
	slots[e.flows[at]].place = at
	e.flows = e.flows[:last]
}

// idle reports whether nobody uses the socket anymore.
func (e *shared) idle() bool { return len(e.flows) == 0 && !e.kept }

// expire does nothing: how long flows live is NAT's business.
func (e *shared) expire(int64) {}

// close closes the socket and ends its flows.
func (e *shared) close() {
	if e.fd < 0 {
		return
	}
	t := &e.s.flows
	for _, number := range e.flows {
		if x := &t.slots[number]; x.e == e.self {
			e.s.ended = append(e.s.ended, x.tuple)
			*x = slot{}
		}
	}
	e.flows = nil
	if c := &e.s.carried; c.e != nil && &c.e.shared == e {
		c.e = nil
	}
	if t.udp[e.local] == e.self {
		delete(t.udp, e.local)
	}
	e.shut()
}

// find returns the socket of datagrams with a local address if it is one the
// container may use. One that nobody uses and another container had is closed;
// false when that one uses it still.
func (s *Sockets) find(at localAddr, c packet.ContainerID) (e endpoint, free bool) {
	have, ok := s.flows.udp[at].(sharer)
	if !ok {
		return nil, true
	}
	if x := have.shares(); !x.kept && (x.holder == nil || x.holder.id != c) {
		if !x.idle() {
			return nil, false
		}
		x.close()
		return nil, true
	}
	return have, true
}

// openShared opens the socket of a mapping: make gives the descriptor, which is
// paid for by the container.
func (s *Sockets) openShared(e sharer, at localAddr, c packet.ContainerID, make func() (int, unix.Errno)) packet.Reason {
	x := e.shares()
	x.s, x.self, x.fd, x.local, x.family, x.unanswered = s, e, -1, at, unix.AF_INET, true
	if !s.charge(c, e) {
		return packet.SocketBudget
	}
	fd, errno := make()
	for (errno == unix.EMFILE || errno == unix.ENFILE) && s.evict(x.holder) {
		fd, errno = make()
	}
	if errno != 0 {
		x.discharge()
		return refusal(errno)
	}
	if err := s.register(e, fd, loop.In|loop.Edge); err != nil {
		x.shut()
		return packet.EgressGone
	}
	s.flows.udp[at] = e
	return packet.OK
}

// refusal is the reason why a frame did not leave by a socket.
func refusal(errno unix.Errno) packet.Reason {
	switch errno {
	case 0:
		return packet.OK
	case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
		return packet.EgressFull
	case unix.EMSGSIZE:
		return packet.FragNeeded
	case unix.ENETUNREACH:
		return packet.NoRoute
	case unix.EHOSTUNREACH, unix.EHOSTDOWN:
		return packet.HostUnreachable
	case unix.EMFILE, unix.ENFILE, unix.EADDRINUSE:
		return packet.SocketBudget
	}
	return packet.EgressRefused // EPERM of a firewall of the host's, and others
}

// refuse notes that the host did not let a packet out and has the container told.
func (e *shared) refuse(f *packet.Frame, errno unix.Errno) packet.Reason {
	switch errno {
	case unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EHOSTDOWN, unix.ENETDOWN, unix.EACCES, unix.EPERM:
		// Of a packet that is too large the error queue tells, with the MTU.
		e.refused = &refused{errno, f.Tuple(), headerOf(f)}
		e.wake()
	}
	return refusal(errno)
}

// sends takes note of a packet that is about to leave.
func (e *shared) sends(f *packet.Frame) {
	if e.sent == nil {
		e.sent = new(sentRing)
	}
	e.sent.add(headerOf(f))
}

// sendAtOnce bounds how many datagrams a socket hands over before others get
// their turn.
const sendAtOnce = 32

// sendWith adds to b what receive finds, and errors.
func (e *shared) sendWith(b *packet.Batch, receive func(*packet.Batch) bool) (more bool) {
	if e.fd < 0 {
		return false
	}
	if e.idle() {
		e.close()
		return false
	}
	if e.tell(b) {
		return true
	}
	for range sendAtOnce {
		if b.Full() {
			return true
		}
		if !receive(b) {
			return false
		}
	}
	return true
}

// failed reports whether to go on after a call that received nothing.
func (e *shared) failed(errno unix.Errno, b *packet.Batch) bool {
	switch errno {
	case unix.EAGAIN, unix.ENOMEM, unix.ENOBUFS, unix.EBADF, unix.EINVAL, unix.EFAULT, unix.ENOTSOCK:
		return false
	}
	e.events |= loop.Err // of an earlier packet; it is in the queue as well
	e.tell(b)
	return true
}

// tell adds errors to b: what the host refused, and the error queue. It reports
// whether there may be more.
func (e *shared) tell(b *packet.Batch) (more bool) {
	if r := e.refused; r != nil {
		if b.Full() {
			return true
		}
		report := localError(r.errno, 0)
		e.s.errorFrame(b, &report, &r.tuple, &r.header)
		e.refused = nil
	}
	if e.events&(loop.Err|loop.Hup) == 0 {
		return false
	}
	for !b.Full() {
		report, ok, errno := e.s.readError(e.fd)
		if errno != 0 {
			e.events &^= loop.Err | loop.Hup
			return false
		}
		if ok {
			e.s.reported(e, b, &report)
		}
	}
	return true
}

// reported adds one error from the queue to b.
func (s *Sockets) reported(e *shared, b *packet.Batch, report *hostError) {
	if e.family == unix.AF_INET6 && !s.shown(e, report) {
		return
	}
	h := e.sent.find(report, e.local.proto)
	t := packet.Tuple{Src: e.local.addr, SrcPort: e.local.port, Dst: report.peer, DstPort: report.port, Proto: e.local.proto}
	if h != nil {
		t.Src, t.DstPort = packet.AddrFrom4(h.src), binary.BigEndian.Uint16(h.head[2:])
	} else if e.kept {
		t.Src = report.local
	}
	if e.local.proto == packet.ProtoICMP {
		t.DstPort = 0
		if h == nil && len(report.payload) >= packet.ICMPLen {
			h = quotedEcho(report.payload, t.SrcPort)
		}
		report.payload = report.payload[min(packet.ICMPLen, len(report.payload)):]
	}
	e.answered()
	s.errorFrame(b, report, &t, h)
}

// quotedEcho is what is known of an echo request that left too long ago: what
// its error quotes, with the container's identifier.
func quotedEcho(quoted []byte, id uint16) *sent {
	h := &sent{ttl: 1, length: uint16(packet.IPv4MinLen + min(len(quoted), packet.ICMPLen+maxQuoted)), proto: packet.ProtoICMP}
	copy(h.head[:], quoted)
	m := packet.ICMP(h.head[:])
	sum := packet.Delta(0).Replace16(m.ID(), id)
	m.SetID(id)
	m.SetChecksum(sum.Update(m.Checksum()))
	return h
}

// arrived takes note of what the kernel said of a datagram.
func (e *shared) arrived(a *arrival) {
	e.answered()
	if a.overruns != 0 {
		e.s.stats.Overrun.Add(uint64(a.overruns-e.overruns), loop.Clock())
		e.overruns = a.overruns
	}
}

// nextID is the identification of the first of n packets.
func (s *Sockets) nextID(n int) uint16 {
	id := s.id + 1
	s.id += uint16(n)
	return id
}
