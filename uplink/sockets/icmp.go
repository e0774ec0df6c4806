package sockets

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/loop"
	"fairlead/packet"
)

// A pingSocket is the host's ping socket of one identifier of a container's
// (icmp(7)): it sends echo requests and gets the answers to them. The identifier
// is replaced by the socket's own, and put back into what comes.
type pingSocket struct{ shared }

// pingEndpoint returns the ping socket of an identifier.
func (s *Sockets) pingEndpoint(f *packet.Frame, k packet.Tuple) (endpoint, packet.Reason) {
	at := localAddr{addr: k.Src, port: k.SrcPort, proto: packet.ProtoICMP}
	have, free := s.find(at, f.Container)
	if !free {
		return nil, packet.SocketBudget
	}
	e, _ := have.(*pingSocket)
	if e == nil {
		e = new(pingSocket)
		if reason := s.openShared(e, at, f.Container, s.newPing); reason != packet.OK {
			return nil, reason
		}
	}
	s.join(e, f.Flow, k)
	return e, packet.OK
}

func (s *Sockets) newPing() (int, unix.Errno) {
	fd, errno := newDatagram(unix.AF_INET, unix.IPPROTO_ICMP)
	if errno != 0 {
		s.pings.forbidden.Store(errno == unix.EACCES || errno == unix.EPERM)
		return -1, errno
	}
	// Asked for one identifier the kernel gives it to several sockets, and then
	// answers to either; one of its own choice is this socket's alone.
	if errno := bind4(fd, [4]byte{}, 0); errno != 0 {
		closeFd(fd)
		return -1, errno
	}
	return fd, 0
}

// A pings knows whether the host lets this user have ping sockets: whether one
// of its groups is in net.ipv4.ping_group_range.
type pings struct {
	forbidden atomic.Bool
	probed    atomic.Int64 // when it was tried
}

// probeEvery is how often it is tried again for a ping that goes on once it was
// forbidden, so that what mends it works at once. For one that begins it is tried
// each time: who finds out when the socket is opened cannot answer any more.
const probeEvery = int64(time.Second)

// probe tries whether there are ping sockets.
func (p *pings) probe(now int64) {
	p.probed.Store(now)
	r, _, errno := unix.RawSyscall(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if errno == 0 {
		closeFd(int(r))
	}
	p.forbidden.Store(errno == unix.EACCES || errno == unix.EPERM)
}

// refused reports whether there are no ping sockets, for a ping that begins or goes
// on.
func (p *pings) refused(now int64, begins bool) bool {
	if begins || p.forbidden.Load() && now-p.probed.Load() >= probeEvery {
		p.probe(now)
	}
	return p.forbidden.Load()
}

// write sends echo requests.
func (e *pingSocket) write(frames []*packet.Frame, _ int64) (done int, reason packet.Reason) {
	for done < len(frames) {
		if reason := e.writeEcho(frames[done]); reason != packet.OK {
			return done, reason
		}
		done++
	}
	return done, packet.OK
}

func (e *pingSocket) writeEcho(f *packet.Frame) packet.Reason {
	ip, m := packet.IPv4(f.Packet()), packet.ICMP(f.Transport())
	switch {
	case m.Type() != packet.ICMPEcho || m.Code() != 0:
		return packet.EgressRefused
	case packet.Sum(m, 0) != 0xffff:
		e.s.stats.Damaged.Add(1, f.Time)
		return packet.BadTransport
	}
	e.sends(f)
	e.df.set(e.fd, e.family, ip.DontFragment())
	io := &e.s.datagrams
	io.begin()
	io.piece(m) // the kernel writes identifier and checksum
	io.to4(ip.Dst(), 0)
	io.number(unix.SOL_IP, unix.IP_TTL, int(ip.TTL()))
	io.number(unix.SOL_IP, unix.IP_TOS, int(ip.TOS()))
	if errno := io.send(e.fd); errno != 0 {
		return e.refuse(f, errno)
	}
	if len(ip.Options()) > 0 {
		e.s.stats.Options.Add(1, f.Time)
	}
	return packet.OK
}

// send adds the answers that came to b.
func (e *pingSocket) send(b *packet.Batch, _ int64) (more bool) { return e.sendWith(b, e.receive) }

// receive adds one answer to b; false when there is none.
func (e *pingSocket) receive(b *packet.Batch) bool {
	const before = headRoom + packet.IPv4MinLen
	room := b.Room()
	var a arrival
	if errno := e.s.datagrams.receive(e.fd, room[before:], &a); errno != 0 {
		return e.failed(errno, b)
	}
	e.arrived(&a)
	if a.cut || a.size < packet.ICMPLen || a.size > maxPacket-packet.IPv4MinLen {
		e.s.stats.Truncated.Add(1, loop.Clock())
		return true
	}
	h := ipv4{tos: a.tos, ttl: a.ttl, length: a.size, id: e.s.nextID(1)}
	h.tuple = packet.Tuple{Src: a.src, Dst: e.local.addr, Proto: packet.ProtoICMP}
	m := packet.ICMP(headers(room, &h))
	sum := packet.Delta(0).Replace16(m.ID(), e.local.port)
	m.SetID(e.local.port)
	m.SetChecksum(sum.Update(m.Checksum()))
	b.Add(before + a.size)
	return true
}
