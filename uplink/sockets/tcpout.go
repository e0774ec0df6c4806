package sockets

import (
	"golang.org/x/sys/unix"

	"fairlead/loop"
	"fairlead/packet"
)

const (
	// defaultMSS is that of who says nothing (RFC 9293 3.7.1); minMSS is Linux's
	// (tcp_min_snd_mss), below which headers are most of what is sent; with maxMSS a
	// segment fits a packet. A train has at most trainSegments.
	defaultMSS = 536
	minMSS     = 48
	maxMSS     = maxPacket - packet.IPv4MinLen - packet.TCPMinLen

	// windowShift is our window scale: up to 8 MB in steps of 128 bytes.
	windowShift  = 7
	optionScale  = 3 // RFC 7323 2.2
	publishedMSS = 1460

	// maxWindow bounds what is on its way to a container, and is the congestion
	// window a connection begins with: there is no path to be probed for its width.
	// It covers the time a worker and the container's kernel take turns. Four times
	// as much is no faster, and a peek looks for its place through all of it.
	maxWindow = 1 << 20

	// A container that does not answer is given up as Linux does it (tcp_retries2).
	maxRetries = 15
)

// send makes the connection's segments: one train, or what is to be said without
// data. See endpoint.
func (c *conn) send(b *packet.Batch, now int64) (more bool) {
	if c.bits.has(gone | over) {
		c.close()
		return false
	}
	c.takeEvents(now)
	switch c.state {
	case closed:
		c.sayLast(b)
		return false
	case listen, connecting:
		return false
	case synSent, synReceived:
		if c.bits.has(stale) {
			c.bits &^= stale
			c.put(b, packet.TCPRst, c.staleAck, 0, 0, 0)
			return true
		}
		if c.nxt == c.una {
			c.sendSYN(b, now)
		}
		return false
	case timeWait:
	default:
		c.discardAcked()
		more = c.sendData(b, now)
		if c.state == closed {
			return true
		}
	}
	for c.acks > 0 && !b.Full() {
		c.acks--
		c.segmentTo(b, packet.TCPAck, c.nxt, 0)
	}
	return more || c.acks > 0
}

// takeEvents takes what epoll has told of the socket.
func (c *conn) takeEvents(now int64) {
	ev := c.events
	c.events = 0
	if ev == 0 || c.fd < 0 {
		return
	}
	if c.state == connecting {
		if ev&(loop.Out|loop.Err|loop.Hup) == 0 {
			return
		}
		if ev&(loop.Err|loop.Hup) != 0 {
			if errno := unix.Errno(getInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR)); errno != 0 {
				c.unreachable(errno)
				return
			}
		}
		c.connected()
	}
	if ev&(loop.In|rdhup|loop.Err|loop.Hup) != 0 {
		c.bits |= readable
	}
	if ev&rdhup != 0 {
		c.bits |= hungUp
	}
	if ev&unix.EPOLLPRI != 0 {
		c.bits |= urgent
	}
	if ev&loop.Err != 0 {
		c.bits |= broken
	}
	if ev&loop.Out != 0 && c.bits.has(fullSend) {
		c.drained()
	}
}

// drained has the container send again: the socket's buffer has room.
func (c *conn) drained() {
	c.acks = max(c.acks, 1)
	if c.bits.has(untaken) { // the container is to send it again at once
		c.acks = 1 + maxDuplicates
	}
	c.bits = c.bits&^(fullSend|untaken) | reopen
}

// sendData sends the next train, or the FIN, if there is one and the container
// has room. It reports whether there may be another at once.
func (c *conn) sendData(b *packet.Batch, now int64) (more bool) {
	if c.bits.has(probing) && c.due == 0 {
		c.probe(b, now)
	}
	end := c.bits.has(sawEnd)
	if end && after(c.nxt, c.fin) {
		if c.bits.has(broken) {
			c.reset()
		}
		return false // all is sent
	}
	if !end && !c.bits.has(readable|broken) && c.nxt == c.max {
		return false
	}
	room := c.room()
	if room <= 0 {
		switch {
		case c.una != c.max: // what is on its way will be acknowledged, or sent again
		case c.bits.has(broken):
			c.reset() // no window is waited for to say so
			return true
		default:
			c.awaitWindow(now)
		}
		return false
	}
	want := min(room, c.largest())
	if end {
		want = min(want, int(c.fin-c.nxt))
	}
	n := 0
	if want > 0 {
		var errno unix.Errno
		n, errno = c.peek(b.Room()[tcpHeaders:], want)
		switch {
		case errno == unix.EAGAIN:
			if !c.bits.has(hungUp | urgent | broken) { // else no event tells of what an acknowledgement lets peek at
				c.bits &^= readable
			}
			return false
		case errno != 0 || n == 0 && c.bits.has(broken):
			c.reset()
			return true
		case n == 0:
			c.bits |= sawEnd
			c.fin, end = c.nxt, true
		case n < want && !c.bits.has(hungUp|urgent|broken):
			c.bits &^= readable // an event tells of more (epoll(7), question 9)
		}
	}
	flags := uint8(packet.TCPAck)
	switch {
	case end && c.nxt+uint32(n) == c.fin:
		flags |= packet.TCPFin
		c.finSent()
	case n < want:
		flags |= packet.TCPPsh
	}
	c.segmentTo(b, flags, c.nxt, n)
	c.acks = 0
	c.answeredAsked(now)
	c.moved(n, flags, now)
	return flags&packet.TCPFin == 0 && (c.bits.has(readable) || c.nxt != c.max)
}

// finSent notes that our FIN is sent.
func (c *conn) finSent() {
	switch c.state {
	case established:
		c.state = finWait1
	case closeWait:
		c.state = lastAck
	}
}

// room is how much may be sent. It is 0 also when that is so little that waiting
// for more is better (RFC 9293 3.8.6.2.1).
func (c *conn) room() int {
	window := min(c.wnd, c.cwnd)
	if c.s.tcp.io.noPeekOffset {
		window = min(window, maxSkip)
	}
	if c.bits.has(recovering) {
		window = min(c.wnd, uint32(c.largest()))
	}
	room := int(int32(c.una + window - c.nxt))
	if room < int(c.mss) && room < int(c.maxWnd/2) && c.una != c.nxt {
		return 0
	}
	return room
}

// largest is the payload of the longest train: whole segments, so that none in
// the middle of the stream is short.
func (c *conn) largest() int { return min(maxMSS/int(c.mss), trainSegments) * int(c.mss) }

// trainSegments bounds a train: links that cut have to, all of it at once.
const trainSegments = 128

// moved moves on behind n bytes and perhaps a FIN.
func (c *conn) moved(n int, flags uint8, now int64) {
	if flags&packet.TCPFin != 0 {
		n++
	}
	fresh := c.nxt == c.max
	c.nxt += uint32(n)
	if after(c.nxt, c.max) {
		c.max = c.nxt
	}
	if fresh && !c.bits.has(timing) {
		c.bits |= timing
		c.clock, c.timed = now, c.nxt
	}
	if c.due == 0 {
		c.alarm(now + c.rto.interval())
	}
}

// peek copies up to want bytes from nxt on out of the socket's buffer.
func (c *conn) peek(into []byte, want int) (int, unix.Errno) {
	io := &c.s.tcp.io
	skip := c.nxt - c.head
	if io.noPeekOffset {
		return io.peekBehind(c.fd, int(skip), into[:want], c.bits.has(hungUp|broken) && !c.bits.has(urgent)) // which ends a peek as well
	}
	if skip != c.peeked {
		setInt(c.fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF, int(skip))
		c.peeked = skip
	}
	n, errno := io.peek(c.fd, into[:want])
	c.peeked += uint32(n)
	return n, errno
}

// discardAcked takes out of the socket's buffer what the container has.
func (c *conn) discardAcked() {
	to := c.una
	if c.bits.has(sawEnd) && after(to, c.fin) {
		to = c.fin
	}
	for before(c.head, to) && c.fd >= 0 {
		n, errno := discard(c.fd, int(to-c.head))
		if errno != 0 || n == 0 {
			return // an error that the next peek meets too
		}
		c.head += uint32(n)
		c.peeked -= min(c.peeked, uint32(n))
	}
}

// lost begins again with the first byte that was not acknowledged (go-back-N).
// One train is sent until its acknowledgement says what else is missing: the
// container keeps what came behind a hole.
func (c *conn) lost() {
	c.ssthresh = max((c.max-c.una)/2, uint32(2*c.largest()))
	c.recover = c.max
	c.bits = c.bits&^timing | recovering // of what is sent twice no time is taken (Karn)
	c.nxt = c.una
}

// timeout is called when no acknowledgement came, or no window.
func (c *conn) timeout(now int64) {
	if c.una == c.max && !c.bits.has(probing) {
		return
	}
	if c.retries++; c.retries > maxRetries {
		c.reset()
		return
	}
	c.rto.backoff++
	if c.una != c.max {
		c.lost()
		c.dups = 0
		c.alarm(now + c.rto.interval())
	}
}

// awaitWindow has the container be asked for a window now and then (RFC 9293
// 3.8.6.1): its opening may be lost.
func (c *conn) awaitWindow(now int64) {
	if !c.bits.has(probing) {
		c.bits |= probing
		c.alarm(now + c.rto.interval())
	}
}

// probe sends a segment that is out of the window, so that it is answered.
func (c *conn) probe(b *packet.Batch, now int64) {
	c.segmentTo(b, packet.TCPAck, c.una-1, 0)
	c.alarm(now + c.rto.interval())
}

// offer sets the window: what the socket's send buffer takes, in whole steps of
// its scale. It is never taken back. While nothing comes it stays, for else a
// duplicate acknowledgement would not look like one (RFC 5681 2). Nor is the socket
// asked for each of small requests that are answered as they come: what was offered
// last takes many more of them.
func (c *conn) offer() uint16 {
	enough := c.pingpong >= pingpongs && c.rcvNxt-c.offeredAt < someRequests && c.rcvEdge-c.rcvNxt >= manyRequests
	if c.fd >= 0 && (c.bits.has(reopen) || c.offeredAt != c.rcvNxt && !enough) {
		c.bits &^= reopen
		c.offeredAt = c.rcvNxt
		if room := c.sendRoom(); room > 0 {
			edge := c.rcvNxt + room>>c.rcvShift<<c.rcvShift
			if after(edge, c.rcvEdge) {
				c.rcvEdge = edge
			}
		}
	}
	// Rounded up, for the edge does not move back.
	return uint16(min(0xffff, (c.rcvEdge-c.rcvNxt+1<<c.rcvShift-1)>>c.rcvShift))
}

// sendRoom is how much more payload the socket's send buffer is sure to take; 0
// when it is full, and then an event tells when a third of it is free
// (sk_stream_write_space), or who looks soon sees that some is.
//
// The kernel counts memory, not payload: half of it is payload at least, unless
// segments are small, and then what is not taken comes again; of segment trains
// nearly all of it is. With the last eighth, or where that is more than two
// trains with those, the buffer counts as full: so it fills as it does for a
// program that writes, and the container is not let send a segment for each that
// leaves.
func (c *conn) sendRoom() uint32 {
	if c.bits.has(fullSend) {
		return 0
	}
	size, used := sendBuffer(c.fd)
	free := size - used
	if free < min(size/8, twoTrains) {
		if !c.s.tcp.io.writable(c.fd) {
			c.bits |= fullSend
			if size >= longBuffer {
				c.s.tcp.lookSoon(c)
			}
			return 0
		}
		// The peer has just taken some, and no event will tell: by what there was
		// before, the window would stay closed.
		size, used = sendBuffer(c.fd)
		free = size - used
	}
	limit := c.ring()
	if c.rcvShift == 0 {
		limit = min(limit, 0xffff)
	}
	payload := free / 2
	if c.bits.has(trains) {
		payload = free - free/16
	}
	return uint32(max(0, min(payload, int(limit))))
}

const (
	twoTrains = 128 << 10

	// manyRequests is a window so large that a request is no hurry to widen it,
	// someRequests what no more than some of them come to: an upload is more.
	manyRequests, someRequests = 32 << 10, 4 << 10

	// longBuffer is the send buffer of a connection over a long way, which is as
	// fast as the buffer is full. Waiting until a third of it is free leaves that
	// third out.
	longBuffer = 1 << 20
)

// ring is what the queue of a container's interface holds for certain: a thousand
// packets (its tx_queue_len), of which other connections have some. There is no
// memory behind it: what does not fit is lost, and is sent again in order.
func (c *conn) ring() uint32 {
	if c.bits.has(trains) {
		return maxOffer
	}
	return min(maxOffer, 500*uint32(c.mss))
}

// maxOffer bounds the window in any case. It covers a turn of the worker, as
// maxWindow does.
const maxOffer = 1 << 20
