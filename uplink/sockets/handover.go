package sockets

import (
	"fairlead/loop"
	"fairlead/packet"
)

// Connections outlive the process: another one that is handed the host's socket and
// what only we know of it goes on where we stop. The payload is in the kernel's buffers,
// so that is little.

// A Moving is a TCP connection on its way from one process to another. Sequence numbers
// are as in conn; times, and what was just about to be done, stay behind.
type Moving struct {
	FD        int    `json:"-"`
	Flow      uint32 // NAT's number
	Tuple     packet.Tuple
	Container packet.ContainerID
	Network   packet.NetworkID
	State     uint8
	Bits      uint32
	TTL, TOS  uint8

	RcvNxt, RcvEdge, OfferedAt           uint32
	Head, Una, Nxt, Max, Fin             uint32
	Wnd, MaxWnd, WL1, WL2                uint32
	CongestionWnd, SlowStartEnd, Recover uint32
	MSS, ID                              uint16
	SndShift, RcvShift                   uint8
}

// movingBits are those that mean the same to another process, whose epoll tells it anew
// what the socket has to say.
const movingBits = readable | hungUp | sawEnd | broken | urgent | fullSend | untaken | keepAlive | recovering | probing | inbound | trains | numbered

// Connections lists those that can be handed over: a container has answered, and
// neither side has ended it for both. The descriptors stay ours. Nothing may happen to
// them meanwhile.
func (s *Sockets) Connections() (list []Moving) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.flows.slots {
		if c, ok := s.flows.slots[i].e.(*conn); ok && c.movable() {
			list = append(list, c.moving())
		}
	}
	return list
}

func (c *conn) movable() bool {
	if c.fd < 0 || c.word != nothing || !c.bits.has(numbered) || c.bits.has(gone|over) {
		return false
	}
	switch c.state {
	case established, finWait1, finWait2, closeWait:
		return true
	}
	return false
}

func (c *conn) moving() Moving {
	return Moving{
		FD: c.fd, Flow: c.flow, Tuple: c.tuple, Container: c.container, Network: c.network,
		State: uint8(c.state), Bits: uint32(c.bits & movingBits), TTL: c.ttl, TOS: c.tos,
		RcvNxt: c.rcvNxt, RcvEdge: c.rcvEdge, OfferedAt: c.offeredAt,
		Head: c.head, Una: c.una, Nxt: c.nxt, Max: c.max, Fin: c.fin,
		Wnd: c.wnd, MaxWnd: c.maxWnd, WL1: c.wl1, WL2: c.wl2,
		CongestionWnd: c.cwnd, SlowStartEnd: c.ssthresh, Recover: c.recover,
		MSS: c.mss, ID: c.id, SndShift: c.sndShift, RcvShift: c.rcvShift,
	}
}

// Take goes on with a connection. Its flow is there, with that number; the descriptor is
// the uplink's in every case. What was on its way is sent again when its time is up, and
// the container is told at once where we are.
func (s *Sockets) Take(m *Moving) {
	s.mu.Lock()
	defer s.unlock()
	if s.closed {
		closeFd(m.FD)
		return
	}
	c := &conn{
		flow: m.Flow, tuple: m.Tuple, container: m.Container, network: m.Network,
		state: tcpState(m.State), bits: connBits(m.Bits)&movingBits | reopen, ttl: m.TTL, tos: m.TOS,
		rcvNxt: m.RcvNxt, rcvEdge: m.RcvEdge, offeredAt: m.OfferedAt,
		head: m.Head, una: m.Una, nxt: m.Nxt, max: m.Max, fin: m.Fin,
		wnd: m.Wnd, maxWnd: m.MaxWnd, wl1: m.WL1, wl2: m.WL2,
		cwnd: m.CongestionWnd, ssthresh: m.SlowStartEnd, recover: m.Recover,
		mss: m.MSS, id: m.ID, sndShift: m.SndShift, rcvShift: m.RcvShift,
		acks: 1, heard: loop.Clock(),
	}
	c.s, c.self, c.fd = s, c, m.FD
	s.flows.set(m.Flow, m.Tuple.Reverse(), c)
	if !c.movable() || !s.charge(m.Container, c) || s.register(c, m.FD, connEvents) != nil {
		c.abort(sayReset)
		return
	}
	s.tcp.io.usePeekOffset(m.FD) // from where the buffer begins
	if m.Tuple.Src.Netip().IsLoopback() && !c.bits.has(inbound) {
		s.tcp.inside[sockname(m.FD)] = c
	}
	if c.una != c.max || c.bits.has(probing) {
		c.alarm(c.heard + c.rto.interval())
	}
	c.wake()
}
