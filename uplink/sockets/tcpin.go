package sockets

import (
	"time"

	"golang.org/x/sys/unix"

	"fairlead/packet"
)

// write takes the container's segments. In-order payload of all of them leaves
// by one call. See endpoint.
func (c *conn) write(frames []*packet.Frame, now int64) (done int, reason packet.Reason) {
	for _, f := range frames {
		if c.state == closed && c.word == nothing && beginsTCP(f) {
			c.end() // the SYN of the next one, from the same port, is not to be lost
			return done, packet.OK
		}
		if f.L4 != 0 && !f.Flags.Has(packet.Fragment) { // kernels do not cut segments; who does has them lost
			if !c.s.intact(f) {
				reason = packet.BadTransport
				break
			}
			c.segment(f, packet.TCP(f.Transport()), now)
		}
		done++
	}
	c.flush()
	if !c.bits.has(over) {
		c.wake()
	}
	return done, reason
}

// intact looks at the checksum of a segment (RFC 9293 3.1). The kernel sums anew
// what leaves, and would make good data of bad. A train is always unfinished.
func (s *Sockets) intact(f *packet.Frame) bool {
	if f.Flags.Has(packet.NeedsChecksum) {
		return true
	}
	ip, t := packet.IPv4(f.Packet()), packet.TCP(f.Transport())
	if packet.Sum(t, packet.PseudoSum4(ip.Src(), ip.Dst(), packet.ProtoTCP, len(t))) == 0xffff {
		return true
	}
	s.stats.Damaged.Add(1, f.Time)
	return false
}

// segment takes one (RFC 9293 3.10.7).
func (c *conn) segment(f *packet.Frame, t packet.TCP, now int64) {
	switch c.state {
	case closed:
	case listen:
		c.begin(now)
	case connecting:
		c.inConnecting(f, t, now)
	case synSent:
		c.inSynSent(t, now)
	case timeWait:
		c.inTimeWait(f, t, now)
	default:
		c.synchronized(f, t, now)
	}
}

// inConnecting takes a segment while the host connects.
func (c *conn) inConnecting(f *packet.Frame, t packet.TCP, now int64) {
	switch flags := t.Flags(); {
	case flags&packet.TCPRst != 0:
		if t.Seq() == c.rcvNxt { // else it is late, of an earlier connection
			c.abort(nothing)
		}
	case flags&(packet.TCPSyn|packet.TCPAck) != packet.TCPSyn:
	case t.Seq()+1 != c.rcvNxt || packet.IPv4(f.Packet()).TTL() != c.ttl:
		// Another connection from the same port, or the next probe of a program
		// that traces the route.
		lingerNot(c.fd)
		paid := c.holder
		c.holder = nil // the descriptor is another's place
		c.hangUp()
		c.holder = paid
		c.greeted(f)
		c.begin(now)
	default:
		c.interval, c.heard = now-c.heard, now
		c.alarm(now + max(synSilence, c.interval*5/2))
	}
}

// inSynSent takes the answer to our SYN.
func (c *conn) inSynSent(t packet.TCP, now int64) {
	flags := t.Flags()
	switch {
	case flags&packet.TCPAck != 0 && (t.Ack() != c.max || c.max == c.una):
		if flags&packet.TCPRst == 0 {
			c.older(t.Ack())
		}
	case flags&packet.TCPRst != 0:
		if flags&packet.TCPAck != 0 {
			c.abort(nothing)
		}
	case flags&(packet.TCPSyn|packet.TCPAck) == packet.TCPSyn|packet.TCPAck:
		c.answered()
		c.peer(t)
		c.measure(now)
		c.una, c.nxt, c.state, c.due, c.retries = t.Ack(), t.Ack(), established, 0, 0
		c.acks = 1
		c.bits |= reopen
	}
}

// older has an acknowledgement of another connection be reset (RFC 9293
// 3.10.7.3): the container has not forgotten the last one with that client's
// port. Then it is asked again, the first time at once.
func (c *conn) older(ack uint32) {
	c.bits |= stale
	c.staleAck = ack
	if c.retries == 0 {
		c.retries = 1
		c.nxt = c.una
	}
}

// inTimeWait takes a segment behind the end: a FIN that is sent again, or the
// SYN of the next connection (RFC 9293 3.6.1).
func (c *conn) inTimeWait(f *packet.Frame, t packet.TCP, now int64) {
	switch flags := t.Flags(); {
	case flags&packet.TCPRst != 0:
	case flags&(packet.TCPSyn|packet.TCPAck) == packet.TCPSyn && after(t.Seq(), c.rcvNxt) && !c.bits.has(inbound):
		c.unanswered = true
		c.greeted(f)
		if !c.s.charge(f.Container, c) {
			c.abort(sayReset)
			return
		}
		c.begin(now)
	default:
		c.acks = 1
	}
}

// synchronized takes a segment once our SYN was sent and the container's came.
func (c *conn) synchronized(f *packet.Frame, t packet.TCP, now int64) {
	io := &c.s.tcp.io
	flags, seq, payload := t.Flags(), t.Seq(), t.Payload()
	if flags&(packet.TCPRst|packet.TCPSyn|packet.TCPFin) != 0 {
		c.flush()
	}
	next := c.rcvNxt + uint32(io.gathered)
	switch {
	case flags&packet.TCPRst != 0:
		// Anybody can guess a number in the window (RFC 5961 3.2).
		if seq == next {
			c.abort(nothing)
		} else if before(seq, c.rcvEdge) && after(seq, next) {
			c.acks = max(c.acks, 1)
		}
		return
	case flags&packet.TCPSyn != 0:
		if c.state == synReceived && seq+1 == c.rcvNxt && flags&packet.TCPAck == 0 {
			c.nxt = c.una // our answer was lost
		} else {
			c.acks = max(c.acks, 1) // RFC 5961 4.2
		}
		return
	case flags&packet.TCPAck == 0:
		return
	case !c.acknowledged(t, len(payload), now):
		return
	}
	if c.state == closed || c.state == timeWait {
		return
	}
	if f.Flags.Has(packet.GSO) {
		c.bits |= trains
	}
	c.hop(packet.IPv4(f.Packet()))

	fin := flags&packet.TCPFin != 0
	if old := next - seq; before(seq, next) { // what was taken before
		if len(payload) <= 1 && old == 1 && !fin && c.rcvEdge != c.rcvNxt {
			c.keepAlive()
		}
		c.acks = max(c.acks, 1)
		if int(old) > len(payload) || int(old) == len(payload) && !fin {
			return
		}
		payload = payload[old:]
	} else if seq != next { // behind something that was lost
		if len(payload) > 0 || fin {
			c.acks = min(c.acks+1, maxDuplicates)
		}
		return
	}
	switch c.state {
	case closeWait, closing, lastAck:
		c.acks = max(c.acks, 1) // behind its FIN comes nothing
		return
	}
	if len(payload) > 0 {
		io.gather(payload)
		c.owed(len(payload))
	}
	if fin {
		want := c.rcvNxt + uint32(io.gathered)
		c.flush()
		if c.rcvNxt == want && c.state != closed {
			c.finished()
		}
	}
}

// maxDuplicates is how many duplicate acknowledgements one turn sends: as many as
// it takes for the container to send again at once (RFC 5681).
const maxDuplicates = 3

// hop has the socket's packets have the time to live and the type of service that
// the container's have.
func (c *conn) hop(ip packet.IPv4) {
	if ttl := ip.TTL(); ttl != c.ttl {
		c.ttl = ttl
		setInt(c.fd, unix.SOL_IP, unix.IP_TTL, int(ttl))
	}
	if tos := ip.TOS(); tos>>2 != c.tos>>2 { // the rest is the connection's own ECN
		c.tos = tos
		setInt(c.fd, unix.SOL_IP, unix.IP_TOS, int(tos))
	}
}

// keepAlive has the host's socket do what the container does.
func (c *conn) keepAlive() {
	if !c.bits.has(keepAlive) {
		c.bits |= keepAlive
		setInt(c.fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	}
}

// flush gives the host's socket the payload that was gathered. What it takes is
// acknowledged.
func (c *conn) flush() {
	io := &c.s.tcp.io
	if io.gathered == 0 {
		return
	}
	n, errno := io.send(c.fd)
	c.took(n)
	switch {
	case errno == unix.EAGAIN || errno == 0 && n < io.lastGathered:
		c.bits |= fullSend | untaken
	case errno != 0:
		c.bits |= broken | readable
	}
}

// took moves on behind n sequence numbers, of which some may not have been
// offered.
func (c *conn) took(n int) {
	c.rcvNxt += uint32(n)
	if after(c.rcvNxt, c.rcvEdge) {
		c.rcvEdge = c.rcvNxt
	}
}

// finished takes the container's FIN, behind all that it sent.
func (c *conn) finished() {
	if shutdown(c.fd) != 0 {
		c.bits |= broken | readable
		return
	}
	c.took(1)
	c.acks = max(c.acks, 1)
	switch c.state {
	case synReceived, established:
		c.state = closeWait
	case finWait1:
		c.state = closing
	case finWait2:
		c.rest()
	}
}

// rest is TIME-WAIT, without a socket.
func (c *conn) rest() {
	c.state = timeWait
	c.done()
	c.alarm(c.heard + lingering)
}

// acknowledged takes what a segment says of our data. It returns false when the
// segment is not of this connection as it is.
func (c *conn) acknowledged(t packet.TCP, length int, now int64) bool {
	ack := t.Ack()
	c.heard = now
	if after(ack, c.max) {
		if c.state == synReceived {
			c.reset()
		}
		c.acks = max(c.acks, 1)
		return false
	}
	if before(ack, c.una) {
		if c.state == synReceived { // of an earlier connection (RFC 9293 3.10.7.4)
			c.bits |= stale
			c.staleAck = ack
			return false
		}
		return true
	}
	if c.state == synReceived {
		if ack == c.una {
			return false
		}
		c.state = established
		c.bits |= reopen
	}
	seq, wnd := t.Seq(), uint32(t.Window())<<c.sndShift
	same := wnd == c.wnd
	if before(c.wl1, seq) || c.wl1 == seq && !before(ack, c.wl2) {
		c.wnd, c.wl1, c.wl2 = wnd, seq, ack
		c.maxWnd = max(c.maxWnd, wnd)
		if wnd > 0 && c.bits.has(probing) {
			c.bits &^= probing
			c.due, c.retries, c.rto.backoff = 0, 0, 0
		}
	}
	switch {
	case ack != c.una:
		c.advance(ack, now)
	case c.una == c.max:
		c.retries = 0 // the answer to a probe
	case length == 0 && same && t.Flags()&packet.TCPFin == 0:
		if c.dups++; c.dups == 3 && !c.bits.has(recovering) {
			c.lost()
		}
	}
	return true
}

// advance takes an acknowledgement of something new.
func (c *conn) advance(ack uint32, now int64) {
	got := ack - c.una
	if c.bits.has(timing) && !before(ack, c.timed) {
		c.measure(now)
	}
	c.una = ack
	if before(c.nxt, ack) {
		c.nxt = ack
	}
	c.dups, c.retries, c.due = 0, 0, 0
	c.rto.backoff = 0
	if c.una != c.max {
		c.alarm(now + c.rto.interval())
	}
	if c.bits.has(recovering) {
		if before(ack, c.recover) {
			return // the next hole (RFC 6582)
		}
		c.bits &^= recovering
		c.cwnd = c.ssthresh
	} else {
		c.grow(got)
	}
	if !c.bits.has(sawEnd) || ack != c.fin+1 {
		return
	}
	switch c.state { // our FIN
	case finWait1:
		c.state = finWait2
	case closing:
		c.rest()
	case lastAck:
		c.done()
		c.end()
	}
}

// grow opens the congestion window (RFC 5681 3.1).
func (c *conn) grow(got uint32) {
	if c.cwnd < c.ssthresh {
		c.cwnd += got
	} else {
		c.cwnd += max(1, uint32(uint64(got)*uint64(c.mss)/uint64(c.cwnd)))
	}
	c.cwnd = min(c.cwnd, maxWindow)
}

// A retransmission is the timer of RFC 6298.
type retransmission struct {
	srtt, rttvar int64 // 0 while nothing was measured
	backoff      uint8
}

// minRTO is below the RFC's second, as in Linux: no acknowledgement is delayed
// for longer.
const (
	minRTO = int64(200 * time.Millisecond)
	maxRTO = int64(60 * time.Second)
)

// interval is how long an acknowledgement is waited for.
func (r *retransmission) interval() int64 {
	rto := synTimeout
	if r.srtt != 0 {
		rto = max(minRTO, r.srtt+4*r.rttvar)
	}
	return min(maxRTO, rto<<min(r.backoff, 16))
}

// measure takes a round trip of a segment that was sent once.
func (c *conn) measure(now int64) {
	if !c.bits.has(timing) {
		return
	}
	c.bits &^= timing
	r, rtt := &c.rto, max(1, now-c.clock)
	if r.srtt == 0 {
		r.srtt, r.rttvar = rtt, rtt/2
		return
	}
	off := r.srtt - rtt
	if off < 0 {
		off = -off
	}
	r.rttvar += (off - r.rttvar) / 4
	r.srtt += (rtt - r.srtt) / 8
}

// before and after compare sequence numbers (RFC 9293 3.4).
func before(a, b uint32) bool { return int32(a-b) < 0 }
func after(a, b uint32) bool  { return int32(a-b) > 0 }
