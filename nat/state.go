package nat

import (
	"time"

	"fairlead/packet"
)

// Timeouts say how long a flow lives without a packet.
type Timeouts struct {
	TCPEstablished time.Duration // 7440 s: RFC 5382 REQ-5 wants at least 2 hours and 4 minutes
	TCPTransitory  time.Duration // 240 s while opening and closing: RFC 5382 REQ-5
	UDP            time.Duration // 300 s: RFC 4787 REQ-5 c
	UDPWellKnown   time.Duration // 30 s towards ports below 1024, which RFC 4787 REQ-5 a allows
	DNS            time.Duration // 10 s towards UDP port 53 once the answer came
	ICMP           time.Duration // 60 s: RFC 5508 REQ-2
	Other          time.Duration // 600 s for protocols without ports: Linux's nf_conntrack_generic_timeout
}

func (t *Timeouts) defaults() {
	for _, d := range []struct {
		value    *time.Duration
		standard time.Duration
	}{
		{&t.TCPEstablished, 7440 * time.Second},
		{&t.TCPTransitory, 240 * time.Second},
		{&t.UDP, 300 * time.Second},
		{&t.UDPWellKnown, 30 * time.Second},
		{&t.DNS, 10 * time.Second},
		{&t.ICMP, 60 * time.Second},
		{&t.Other, 600 * time.Second},
	} {
		if *d.value <= 0 {
			*d.value = d.standard
		}
	}
}

// shortest is how long every flow lives.
func (t *Timeouts) shortest() time.Duration {
	return min(t.TCPEstablished, t.TCPTransitory, t.UDP, t.UDPWellKnown, t.DNS, t.ICMP, t.Other)
}

// What a half of a flow knows is one word: when its last packet came, to an
// eighth of a second, and in the low bits what its packets said so far. So most
// packets find nothing to change.
const (
	heardBit = 1 << iota // a packet came
	ackBit               // TCP: one with ACK and without SYN
	finBit               // TCP: FIN
	rstBit               // TCP: the last one was a RST
	stateBits
	granule = 1 << 27 // nanoseconds
)

// since is the time in a half's word, rounded down to a granule.
func since(word uint64) int64 { return int64(word &^ (granule - 1)) }

// heard is a half's word after one more packet.
func (b *body) heard(word uint64, now int64, tcpFlags uint8) uint64 {
	bits := word&(stateBits-1) | heardBit
	if b.proto == packet.ProtoTCP {
		// RFC 793 knows no data after a RST, and anybody can forge one: if the
		// half goes on talking it was none.
		bits &^= rstBit
		if tcpFlags&(packet.TCPAck|packet.TCPSyn) == packet.TCPAck {
			bits |= ackBit
		}
		if tcpFlags&packet.TCPFin != 0 {
			bits |= finBit
		}
		if tcpFlags&packet.TCPRst != 0 {
			bits |= rstBit
		}
	}
	return uint64(max(now, since(word)))&^(granule-1) | bits
}

// A state is where a flow is in its life, with conntrack's names for TCP.
type state uint8

const (
	unanswered state = iota // no packet came back yet
	opening                 // TCP: answered, and the answer not yet acknowledged
	open
	halfClosed
	closed
	reset
)

func (b *body) state() state {
	there, back := b.seen[0].Load(), b.seen[1].Load()
	if b.proto == packet.ProtoTCP {
		switch {
		case (there|back)&rstBit != 0:
			return reset
		case there&back&finBit != 0:
			return closed
		case back&heardBit == 0:
			return unanswered
		case (there|back)&finBit != 0:
			return halfClosed
		case there&ackBit == 0:
			return opening
		}
		return open
	}
	if back&heardBit == 0 {
		return unanswered
	}
	return open
}

// over reports whether a TCP connection has ended, for a SYN that comes in
// direction dir: both sides have closed it, or one has reset it and who began it
// begins again. A RST is no proof, since anybody can forge one, with a SYN to
// follow; where such a SYN counts for nothing it belongs to the old connection.
// An uplink that keeps the flow knows which RST was one, and ends it: a RST that is
// late, of an earlier connection, is none, and the SYN behind it one sent again.
func (b *body) over(dir int) bool {
	there, back := b.seen[0].Load(), b.seen[1].Load()
	return there&back&finBit != 0 || dir == 0 && !b.is(kept) && (there|back)&rstBit != 0
}

// assured is conntrack's word for a flow of which both sides have shown that
// they mean it. What has no handshake, and was asked and answered once, can be
// the work of a single forged packet.
func (b *body) assured() bool {
	if b.seen[1].Load()&heardBit == 0 {
		return false
	}
	if b.proto == packet.ProtoTCP {
		return b.seen[0].Load()&ackBit != 0
	}
	return b.packets[0].Load() > 1 // Linux waits two seconds; a second question tells as much
}

// renewable reports whether the flow is one from outside by a rule, without a
// handshake. Who forges addresses can have any number of those, assured as well;
// who does not begins it anew with the next packet. So it gives way in the end.
func (b *body) renewable() bool {
	return b.is(inward) && !b.is(toMapping) && b.proto != packet.ProtoTCP
}

// expendable reports whether the flow may go when its container needs room.
func (t *Table) expendable(ref uint32) bool {
	b := t.body(ref)
	s := b.state()
	return !b.assured() || s == closed || s == reset || t.expired(b, t.forwardPort(ref), t.now)
}

// timeout is how long the flow lives without a packet. port is the destination
// port of its first packet.
func (t *Table) timeout(b *body, port uint16) time.Duration {
	switch b.proto {
	case packet.ProtoTCP:
		if b.state() == open {
			return t.config.Timeouts.TCPEstablished
		}
		return t.config.Timeouts.TCPTransitory
	case packet.ProtoUDP:
		switch {
		case port == 53 && b.state() == open:
			return t.config.Timeouts.DNS
		case port < 1024:
			return t.config.Timeouts.UDPWellKnown
		}
		return t.config.Timeouts.UDP
	case packet.ProtoICMP, packet.ProtoICMPv6:
		return t.config.Timeouts.ICMP
	}
	return t.config.Timeouts.Other
}

// deadline is when the flow's time is up: the granule is added so that it is
// never earlier than promised.
func (t *Table) deadline(b *body, port uint16) int64 {
	if b.lasts() {
		return Never
	}
	last := max(since(b.seen[0].Load()), since(b.seen[1].Load()))
	return last + granule + int64(t.timeout(b, port))
}

func (t *Table) expired(b *body, port uint16, now int64) bool { return now > t.deadline(b, port) }
