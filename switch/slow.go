package vswitch

import (
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

// Reading the clock costs as much as a tenth of a small write, and that of the
// thread, which alone does not count while others have the processor, some ten times
// as much. So one delivery of so many is looked at with the first, drawn at random for
// there may be somebody who would be quick in just those, and who looks slow is measured
// with the second until he has not been slow for some.
const (
	glanceEvery = 16 // a power of two
	glanceAt    = 8  // frames: of that many the clock's share is small
	watchedFor  = 256
)

// A stopwatch measures one delivery.
type stopwatch struct {
	a       *account // nil is not measured
	watched bool     // by the thread's clock
	began   int64
}

// measure starts a stopwatch for a delivery of so many frames, if it is to be
// measured.
func (p *Port) measure(ln *lane, frames int) stopwatch {
	a := p.account(ln)
	switch {
	case a == nil:
	case a.watched > 0:
		return stopwatch{a, true, loop.ThreadClock()}
	case frames >= glanceAt || ln.draw()%glanceEvery == 0:
		return stopwatch{a, false, loop.Clock()}
	}
	return stopwatch{}
}

// draw is a number nobody can know beforehand (Marsaglia's xorshift64, the upper half).
func (ln *lane) draw() uint32 {
	x := ln.random
	x ^= x << 13
	x ^= x >> 7
	x ^= x << 17
	ln.random = x
	return uint32(x >> 32)
}

// judge stops it and charges what the delivery took longer than it may, to the
// receiver and to who sent it.
func (p *Port) judge(ln *lane, w stopwatch, frames []*packet.Frame) {
	a := w.a
	if a == nil {
		return
	}
	if !w.watched {
		if loop.Clock()-w.began > 2*p.slowCost(frames) {
			a.watched = watchedFor
		}
		return
	}
	a.watched--
	fair, took := p.slowCost(frames), loop.ThreadClock()-w.began
	if took > 2*fair {
		a.watched = watchedFor
		a.slow.charge(slowShare, frames[0].Time, took-fair)
		if by := ln.payer(); by != nil {
			by.causes.charge(causeShare, frames[0].Time, took-fair)
		}
	}
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

// fewAtOnce is how many frames who may be slow gets before it is asked whether he is.
const fewAtOnce = 4

// atOnce is how many of so many frames are written to the port before it is measured.
func (p *Port) atOnce(ln *lane, frames int) int {
	if a := p.account(ln); a != nil && a.watched > 0 {
		return min(frames, fewAtOnce)
	}
	return frames
}

// tooSlow reports whether writing to the port has taken more of the worker's time
// than its share, or than that of who sends to it, while others want it.
func (p *Port) tooSlow(ln *lane, now int64) bool {
	a := p.account(ln)
	if a == nil {
		return false
	}
	if a.slow.over(slowShare, now) {
		return a.contended(ln, now)
	}
	if !a.slow.some(slowShare, now) {
		return false
	}
	by := ln.payer()
	return by != nil && by.causes.over(causeShare, now) && by.contended(ln, now)
}
