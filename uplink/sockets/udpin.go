package sockets

import (
	"golang.org/x/sys/unix"

	"fairlead/packet"
)

// udpHeaders is room for the headers of a datagram.
const udpHeaders = headRoom + packet.IPv4MinLen + packet.UDPLen

// send adds what came to b.
func (e *udpSocket) send(b *packet.Batch, _ int64) (more bool) {
	more = e.sendWith(b, e.receive)
	e.s.carried.save()
	return more
}

// receive adds to b the next datagram, and with it those behind it that differ
// in nothing but payload: like the kernel's own, where it makes trains (GRO), but
// also of what came one by one. It is false when there is nothing more.
func (e *udpSocket) receive(b *packet.Batch) (more bool) {
	room := b.Room()
	a, errno := e.next(room[udpHeaders:])
	if errno != 0 {
		return e.failed(errno, b)
	}
	if a.cut || a.size > maxPayload {
		e.s.stats.Truncated++
		return true
	}
	h := ipv4{tos: a.tos, ttl: a.ttl}
	h.tuple = packet.Tuple{Src: a.src, SrcPort: a.port, Dst: e.local.addr, DstPort: e.local.port, Proto: packet.ProtoUDP}
	if e.kept && !e.spokenTo(&h.tuple, &a) {
		return true
	}
	packets, errno := e.follow(room[udpHeaders:], &a)
	h.length, h.id = packet.UDPLen+a.size, e.s.nextID(packets)
	u := packet.UDP(headers(room, &h))
	u.SetSrcPort(a.port)
	u.SetDstPort(e.local.port)
	u.SetLen(h.length)
	size := 0
	if packets > 1 {
		size = a.train
	}
	unfinished(room, &h, packet.UDPLen, packet.UDPChecksumOffset, packet.GSOUDPL4, size)
	b.Add(udpHeaders + a.size)
	return errno == 0 || e.failed(errno, b)
}

// next reads the datagram that was read too early, or else one from the socket.
func (e *udpSocket) next(buf []byte) (a arrival, errno unix.Errno) {
	if c := &e.s.carried; c.e == e {
		copy(buf, c.data)
		c.e = nil
		return c.a, 0
	}
	if errno := e.s.datagrams.receive(e.fd, buf, nil, &a); errno != 0 {
		return a, errno
	}
	e.arrived(&a)
	return a, 0
}

// follow reads behind the datagrams in buf those that make one train with them.
// It returns how many there are then, and what the socket said when it had no
// other.
func (e *udpSocket) follow(buf []byte, a *arrival) (packets int, errno unix.Errno) {
	if a.train == 0 || a.train > a.size {
		a.train = a.size
	}
	if packets = 1; a.train > 0 {
		packets = (a.size + a.train - 1) / a.train
	}
	if e.s.conf.NoUDPOffload || a.train == 0 {
		return packets, 0
	}
	for a.size%a.train == 0 && packets < maxTrain && a.size+a.train <= maxPayload {
		tail, spill := buf[a.size:], e.s.carried.room()
		var x arrival
		if errno := e.s.datagrams.receive(e.fd, tail, spill[len(tail):], &x); errno != 0 {
			return packets, errno
		}
		e.arrived(&x)
		n := (x.size + a.train - 1) / a.train
		if !x.follows(a) || packets+n > maxTrain || a.size+x.size > maxPayload {
			e.s.carried.keep(e, &x, tail)
			return packets, 0
		}
		a.size += x.size
		packets += n
	}
	return packets, 0
}

// follows reports whether what came can be the rest of a train.
func (x *arrival) follows(a *arrival) bool {
	return x.src == a.src && x.port == a.port && x.zone == a.zone && x.local == a.local && x.ttl == a.ttl && x.tos == a.tos &&
		!x.cut && x.size > 0 && (x.train == a.train || x.size <= a.train && (x.train == 0 || x.size <= x.train))
}

// A carried is the datagram that was read behind others and is no part of their
// train: it is the next one of its socket.
type carried struct {
	e    *udpSocket // nil is none
	a    arrival
	data []byte // where it is: in buf, or until save behind those others
	buf  []byte
}

// room is where what is too long for the place behind others goes on.
func (c *carried) room() []byte {
	if c.buf == nil {
		c.buf = make([]byte, packet.MaxFrame)
	}
	return c.buf
}

// keep takes the datagram that was read into tail, and into room behind as much
// as tail is.
func (c *carried) keep(e *udpSocket, a *arrival, tail []byte) {
	c.e, c.a = e, *a
	if c.data = tail[:min(a.size, len(tail))]; a.size > len(tail) {
		copy(c.buf, tail)
		c.data = c.buf[:min(a.size, len(c.buf))]
	}
}

// save moves it to memory that nobody else writes to.
func (c *carried) save() {
	if c.e != nil {
		c.data = c.buf[:copy(c.buf, c.data)]
	}
}
