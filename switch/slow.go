package vswitch

import (
	"time"

	"fairlead/loop"
	"fairlead/packet"
)

// What a write may cost before its receiver counts as slow, whatever it costs to others:
// for each packet, and for each byte in sixteenths of a nanosecond. They are twice what
// kernels take that have to wake the reader, so that who is charged is not merely
// unlucky; a receiver with 20,000 firewall rules takes 200 µs.
const (
	fairPacket = int64(4_000)
	fairByte16 = int64(12)
)

// The clocks of a lane.
//
// Every delivery is measured by the clock on the wall. What looks slow by it may be a
// thread that had no processor: others were given it, or the hypervisor took it. So then
// the clock of the thread is asked as well, which stands still meanwhile. That is a system
// call, some ten times as dear. What the thread did not run since it was asked last, asleep
// or not, is held not to be the write's. Of a long write that is little, for before a
// delivery it is asked if the last time was askAtLeast ago; of a short one it may be all,
// the first time. So whoever has looked slow is a suspect for slowShare.of times as long
// as nobody can tell of: meanwhile it is asked if the last time was askAfter ago.
//
// Nor is one such write by itself anybody's, unless it is a long one: in its time fall what
// the kernel does for others (softirq), and what a hypervisor takes without telling. It
// has whoever answers for it suspected, and the next is charged. Who is slow again as soon
// as he is no suspect any more has one part of nine for nothing.
type clocks struct {
	wall   func() int64 // loop.Clock, in tests another
	thread func() int64 // loop.ThreadClock

	clock   int64 // the wall's, read last
	askedAt int64 // the wall's when the thread's was asked last
	ran     int64 // what that said

	stalled int64 // what slow writes took, all together
}

const (
	askAfter   = int64(100 * time.Microsecond)
	askAtLeast = int64(100 * time.Millisecond) // ten calls a second
)

func newClocks() clocks { return clocks{wall: loop.Clock, thread: loop.ThreadClock} }

// away is how long, at most, the thread has had no processor since it was asked last.
func (c *clocks) away() int64 {
	at, ran := c.askedAt, c.ran
	c.askedAt, c.ran = c.clock, c.thread()
	return max(0, c.askedAt-at-(c.ran-ran))
}

// answerable is the account of who answers for what a delivery to the port takes: its
// own, or where it has none that of who sends.
func (p *Port) answerable(ln *lane) *account {
	if a := p.account(ln); a != nil {
		return a
	}
	return ln.payer()
}

// measure begins to measure a delivery.
func (p *Port) measure(ln *lane) {
	ln.clock = ln.wall()
	if ago := ln.clock - ln.askedAt; ago > askAfter && (ago > askAtLeast || p.suspected(ln)) {
		ln.away()
	}
}

// suspected reports whether who answers for a delivery to the port has looked slow.
func (p *Port) suspected(ln *lane) bool {
	a := p.answerable(ln)
	return a != nil && ln.clock < a.suspect
}

// judge ends the measurement of a delivery, which began when the clock was read last,
// and charges what it took longer than it may: to the receiver and to who sent it, or to
// him alone if the receiver has no account.
func (p *Port) judge(ln *lane, frames []*packet.Frame) {
	began := ln.clock
	ln.clock = ln.wall()
	took := ln.clock - began
	if took <= 2*fairPacket {
		return
	}
	fair := p.slowCost(frames)
	if p.account(ln) == nil {
		fair *= 2 // sockets: the host's stack sends, and where it receives as well it does so inside
	}
	if took <= 2*fair {
		return
	}
	ln.stalled += took - fair
	a := p.answerable(ln)
	if a == nil {
		return
	}
	suspected := began < a.suspect
	a.suspect = max(a.suspect, ln.clock+slowShare.of*min(took, askAtLeast))
	if took -= ln.away(); took <= 2*fair || !suspected && took < askAtLeast {
		return
	}
	if p.account(ln) == nil {
		a.outside.chargePart(outsideShare, ln.clock, took-fair)
		return
	}
	a.slow.charge(slowShare, ln.clock, took-fair)
	if by := ln.payer(); by != nil {
		by.causes.chargePart(causeShare, ln.clock, took-fair)
	}
	if a.slow.lasting(slowShare, ln.clock) {
		p.cutOff(ln, a.slow.repaid-slowShare.window(), took)
	}
}

// A Slow is a port that is sent nothing for a time, because one delivery to it took so
// much of the time of a worker.
type Slow struct {
	Port      *Port
	Took, For time.Duration
}

// longWrite is what no receiver takes that means no harm: so much is told by name.
const longWrite = int64(time.Second)

// cutOff notes until when the port is sent nothing after a delivery that took long.
func (p *Port) cutOff(ln *lane, until, took int64) {
	for { // each worker has found out by itself, and the longest time counts
		had := p.slowUntil.Load()
		if had >= until || p.slowUntil.CompareAndSwap(had, until) {
			break
		}
	}
	if fn := p.sw.conf.SlowFound; fn != nil && took > longWrite {
		fn(Slow{Port: p, Took: time.Duration(took), For: time.Duration(until - ln.clock)})
	}
}

// SentNothing is how long a port will be sent nothing by one worker at least, because a
// delivery to it took long; zero is not at all.
func (p *Port) SentNothing(now int64) time.Duration {
	return max(0, time.Duration(p.slowUntil.Load()-now))
}

// fairCost is what writing frames may cost. A TCP segment of 64 KiB is one packet to
// its receiver, a train of datagrams each of them. Where the link takes no trains we
// cut them ourselves, and what each packet of them costs is the cost of that link.
func (p *Port) fairCost(frames []*packet.Frame) int64 { return p.cost(frames, fairPacket) }

// slowCost is fairCost, and more with the race detector, which makes our part of it
// longer, above all where we cut and sum.
func (p *Port) slowCost(frames []*packet.Frame) int64 { return p.cost(frames, detector*fairPacket) }

func (p *Port) cost(frames []*packet.Frame, perPacket int64) int64 {
	packets, bytes := len(frames), 0
	whole := p.offloads != nil && p.offloads.Offload() != 0
	for _, f := range frames {
		bytes += f.Len()
		if !whole || f.Proto == packet.ProtoUDP {
			packets += f.Segments() - 1
		}
	}
	return int64(packets)*perPacket + int64(bytes)*fairByte16/16
}

// fewAtOnce is how many frames are written to a port before it is measured: a write
// cannot be cut short. It is enough for the clock's share to be small. Fewer for a port
// nothing is known of would spare nobody: quick ones are followed by slow ones as its
// rules have it.
const fewAtOnce = 8

// atOnce is how many of so many frames are written to the port before it is measured.
// Who has been slow, or is suspected of a long write, gets one by one.
func (p *Port) atOnce(ln *lane, frames int) int {
	switch a := p.account(ln); {
	case a == nil:
		return frames
	case a.slow.some(slowShare, ln.clock), a.suspect > ln.clock+slowShare.of*contention:
		return 1
	}
	return min(frames, fewAtOnce)
}

// tooSlow reports whether writing to the port has taken more of the worker's time
// than its share, or than that of who sends to it.
func (p *Port) tooSlow(ln *lane, now int64) bool {
	a := p.account(ln)
	if a == nil || !a.slow.some(slowShare, now) {
		return false
	}
	if a.binds(&a.slow, slowShare, ln, now) {
		return true
	}
	by := ln.payer()
	return by != nil && by.binds(&by.causes, causeShare, ln, now)
}
