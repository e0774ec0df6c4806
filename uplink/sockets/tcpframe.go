package sockets

import (
	"encoding/binary"

	"fairlead/packet"
)

// segmentTo adds a segment to b whose n bytes of payload are in place. More than
// one segment's are a train.
func (c *conn) segmentTo(b *packet.Batch, flags uint8, seq uint32, n int) {
	c.put(b, flags, seq, c.offer(), 0, n)
	c.bits &^= owes
}

// sendSYN sends our SYN, or SYN and ACK.
func (c *conn) sendSYN(b *packet.Batch, now int64) {
	flags := uint8(packet.TCPSyn)
	mss := uint16(publishedMSS)
	if c.state == synReceived {
		flags |= packet.TCPAck
		mss = c.mss // the network is as wide in both directions
	}
	o := b.Room()[tcpHeaders:]
	o[0], o[1] = packet.TCPOptionMSS, 4
	binary.BigEndian.PutUint16(o[2:], mss)
	n := 4
	if c.state == synSent || c.rcvShift != 0 {
		o[4], o[5], o[6], o[7] = packet.TCPOptionNop, optionScale, 3, windowShift
		n = 8
	}
	// Of a SYN the window is not scaled.
	window := uint32(0xffff)
	if c.state == synReceived {
		window = min(window, c.sendRoom())
		c.rcvEdge = c.rcvNxt + window
	}
	c.put(b, flags, c.una, uint16(window), n, 0)
	c.nxt = c.una + 1
	c.bits &^= timing
	if c.nxt != c.max { // it was not sent before
		c.max = c.nxt
		c.bits |= timing
		c.clock, c.timed = now, c.nxt
	}
	c.alarm(now + synTimeout<<c.retries)
}

// sayLast says a closed connection's last word, and ends it.
func (c *conn) sayLast(b *packet.Batch) {
	switch {
	case c.word == sayReset && c.syn != nil: // its SYN was not answered
		c.put(b, packet.TCPRst|packet.TCPAck, 0, 0, 0, 0)
	case c.word == sayReset:
		c.put(b, packet.TCPRst|packet.TCPAck, c.nxt, 0, 0, 0)
	case c.word == sayError:
		c.sayError(b)
	}
	c.end()
}

// sayError tells why the connection could not be made: as a router said, or for
// the host itself.
func (c *conn) sayError(b *packet.Batch) {
	e := localError(c.errno, 0)
	if c.fd >= 0 {
		if told, ok, _ := c.s.readError(c.fd); ok && told.origin != 0 {
			e = told
			e.payload = nil // a SYN has none, and its options are the host's
		}
	}
	k := c.tuple.Reverse()
	c.s.errorFrame(b, &e, &k, c.syn)
}

// put writes headers in front of what is in place, options of the given length
// and n bytes of payload, and adds the frame.
func (c *conn) put(b *packet.Batch, flags uint8, seq uint32, window uint16, options, n int) {
	buf := b.Room()
	head := packet.TCPMinLen + options
	h := ipv4{tuple: c.tuple, length: head + n, ttl: defaultTTL, id: c.id}
	t := packet.TCP(headers(buf, &h))
	t.SetSrcPort(c.tuple.SrcPort)
	t.SetDstPort(c.tuple.DstPort)
	t.SetSeq(seq)
	t.SetAck(0)
	if flags&packet.TCPAck != 0 {
		t.SetAck(c.rcvNxt)
	}
	t.SetHeaderLen(head)
	t.SetFlags(flags)
	t.SetWindow(window)
	t[18], t[19] = 0, 0
	size := 0
	if n > int(c.mss) {
		size = int(c.mss)
		c.id += uint16((n + size - 1) / size)
	} else {
		c.id++
	}
	unfinished(buf, &h, head, packet.TCPChecksumOffset, packet.GSOTCPv4, size)
	b.Add(headRoom + packet.IPv4MinLen + head + n)
}
