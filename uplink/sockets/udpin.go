package sockets

import (
	"golang.org/x/sys/unix"

	"fairlead/loop"
	"fairlead/packet"
)

// udpHeaders is room for the headers of a datagram.
const udpHeaders = headRoom + packet.IPv4MinLen + packet.UDPLen

// send adds what came to b.
func (e *udpSocket) send(b *packet.Batch, _ int64) (more bool) { return e.sendWith(b, e.receive) }

// sendCarried adds to b what was read ahead.
func (e *udpSocket) sendCarried(b *packet.Batch) {
	if e.idle() {
		e.close()
		return
	}
	c := &e.s.carried
	c.over = true
	for c.e == e && !b.Full() {
		e.receive(b)
	}
	c.over = false
}

// receive adds to b the next datagram, and with it those behind it that differ
// in nothing but payload, if they may go together: like the kernel's own, where it
// makes trains (GRO), but also of what came one by one. It is false when there is
// nothing more.
func (e *udpSocket) receive(b *packet.Batch) (more bool) {
	room := b.Room()
	a, errno := e.next(room[udpHeaders:])
	if errno != 0 {
		return e.failed(errno, b)
	}
	if a.cut || a.size > maxPayload {
		e.s.stats.Truncated.Add(1, loop.Clock())
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

// next is the datagram that was read ahead, or else one from the socket. A train of
// the kernel's is as it came, or its datagrams one after the other if they may not go
// together.
func (e *udpSocket) next(buf []byte) (a arrival, errno unix.Errno) {
	c := &e.s.carried
	if c.e != e {
		if errno := e.s.datagrams.receive(e.fd, buf, &a); errno != 0 {
			return a, errno
		}
		e.arrived(&a)
		if !a.several() || e.together(&a) {
			return a, 0
		}
		c.put(e, &a, buf)
	}
	if x := c.front(); x.several() && !e.together(&x.arrival) {
		return c.cut(buf), 0
	}
	x := c.pop()
	copy(buf, x.data)
	return x.arrival, 0
}

// together reports whether datagrams like that may be one frame: not where each is to
// be seen as it came, and none of DHCP, whose clients read packet sockets.
func (e *udpSocket) together(a *arrival) bool {
	return !e.s.conf.NoUDPOffload && e.s.conf.Joins() && !isDHCP(e.local.port) && !isDHCP(a.port)
}

// isDHCP reports whether a port is the server's or the client's.
func isDHCP(port uint16) bool { return port == 67 || port == 68 }

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
	if a.train == 0 || !e.together(a) {
		return packets, 0
	}
	c := &e.s.carried
	for a.size%a.train == 0 && packets < maxTrain && a.size+a.train <= maxPayload {
		if c.e == e {
			x := c.front()
			if !x.joins(a, &packets) {
				return packets, 0
			}
			copy(buf[a.size-x.size:], x.data)
			c.pop()
			continue
		}
		if c.over {
			return packets, 0
		}
		want := min(1<<e.ahead, maxTrain-packets, (maxPayload-a.size)/a.train)
		got, errno := c.read(e, buf[a.size:], a.train, want)
		if errno != 0 {
			return packets, errno
		}
		joined := 0
		for joined < got && c.list[joined].inPlace && c.list[joined].joins(a, &packets) {
			joined++
		}
		switch {
		case joined < got:
			c.keep(e, joined, got)
			e.ahead = 0
		case got == want && c.list[0].train == 0: // else the kernel makes trains
			e.ahead = min(e.ahead+1, maxAheadBits)
		}
	}
	return packets, 0
}

// follows reports whether what came can be the rest of a train.
func (a *arrival) follows(t *arrival) bool {
	return a.src == t.src && a.port == t.port && a.zone == t.zone && a.local == t.local && a.ttl == t.ttl && a.tos == t.tos &&
		!a.cut && a.size > 0 && (a.train == t.train || a.size <= t.train && (a.train == 0 || a.size <= a.train))
}

// joins adds what came to a train, if it can be its rest.
func (a *arrival) joins(t *arrival, packets *int) bool {
	n := (a.size + t.train - 1) / t.train
	if t.size%t.train != 0 || !a.follows(t) || *packets+n > maxTrain || t.size+a.size > maxPayload {
		return false
	}
	t.size += a.size
	*packets += n
	return true
}
