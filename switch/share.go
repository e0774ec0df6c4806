package vswitch

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/packet"
)

// A share is what one port has taken of a worker's time for one thing, against an
// allowance. It is kept as policy.Rate keeps a bucket: as the moment at which all is
// repaid.
type share struct{ repaid int64 }

// An allowance is how much that may be: one part of so many, and so many nanoseconds
// of it at once.
type allowance struct{ of, burst int64 }

var (
	// futileShare: who takes all he may leaves 31 parts to others, and who has
	// everything he sends refused is still served. At once it is more than one turn.
	futileShare = allowance{32, int64(500 * time.Microsecond)}
	// floodShare: one broadcast on a network of 1,000 ports is a millisecond or two of
	// writes, and who begins to talk to several has to ask for each.
	floodShare = allowance{32, int64(16 * time.Millisecond)}
	// slowShare: whoever sends to it. At once it is more than what the kernel now and then
	// does for others at the end of our write (softirq), which looks like the receiver's.
	slowShare = allowance{8, int64(8 * time.Millisecond)}
	// causeShare: half of slow, so that no one sender uses up what a receiver may be slow for.
	causeShare = allowance{16, int64(4 * time.Millisecond)}
	// outsideShare: who opens some forty connections at once by sockets of the host does
	// not wait, and who goes on has two or three thousand a second.
	outsideShare = allowance{8, int64(2 * time.Millisecond)}
)

// What is taken in many pieces while nobody misses it is paid for longestRepay at most;
// one piece that is worth more in full, however long.
const longestRepay = int64(100 * time.Millisecond)

// window is over which time the allowance is counted.
func (w allowance) window() int64 { return w.of * w.burst }

func (w allowance) String() string {
	return fmt.Sprintf("one part of %d; %v at once", w.of, time.Duration(w.burst))
}

// charge takes up what one piece took, in nanoseconds.
func (s *share) charge(w allowance, now, ns int64) {
	worth := w.of * ns
	most := now + w.window() + max(worth, longestRepay)
	s.repaid = max(s.repaid, min(max(s.repaid, now)+worth, most))
}

// chargePart takes up as much of it as is repaid in longestRepay. A piece that was the
// receiver's to make long is no more than that to its sender.
func (s *share) chargePart(w allowance, now, ns int64) { s.charge(w, now, min(ns, longestRepay/w.of)) }

// over reports whether nothing is left.
func (s *share) over(w allowance, now int64) bool { return s.repaid > now+w.window() }

// lasting reports whether more is owed than many pieces make: one took very long.
func (s *share) lasting(w allowance, now int64) bool {
	return s.repaid > now+w.window()+longestRepay
}

// some reports whether a quarter of what may be taken at once is: more than what a
// thread that lost its caches makes of a few writes.
func (s *share) some(w allowance, now int64) bool { return s.repaid > now+w.window()/4 }

// An account is what one metered port takes of one worker's time, written by that
// worker only.
//
// Five things are counted, each against a share of its own:
//
//   - futile: what reading from it takes that nobody is sent anything by: refusals,
//     answers of the gateway, and of floods the reading. Beyond that it is not read, so
//     that the rest waits, or is lost, in its own interface.
//   - floods: what writing the copies of its floods takes. Beyond that they are
//     refused (packet.FloodLimit), and all else it sends goes on.
//   - slow: what writing to it takes longer than it may, for the receiver's network
//     stack runs inside our write, with all the rules its root has made up. What is
//     sent to it beyond that fails (packet.SlowReceiver), see slow.go.
//   - causes: the same time, of those it sent to, and of a long write a part. Beyond
//     that what it sends to receivers that have taken some of theirs fails: who sends what
//     does that, such as packets of ever new neighbours, does not have them cut off from
//     others. Two such senders do.
//   - outside: the same time, where the receiver has no account: what it sends by an
//     uplink opens sockets there. Beyond that it is not read.
//
// A share binds while somebody else wants the worker (contended). Who has it for
// himself may have all of it, but for what lasts so long that nobody can tell.
type account struct {
	futile, floods, slow, causes, outside share

	suspect int64  // until then what writing to it takes is looked at closely, see clocks
	touched recent // of the lane's deliveries those from or to the port

	// Accounts of one port on two workers share no cache line; processors fetch them in
	// pairs.
	_ [64]byte
}

// contention is how long somebody counts as there who had something carried: at least
// that, and twice that at most.
const contention = int64(10 * time.Millisecond)

// A recent counts what happened lately: in the epoch that is now and in the one before,
// each as long as contention.
type recent struct {
	epoch       int64
	now, before uint32
}

func (t *recent) add(epoch int64) {
	if epoch != t.epoch {
		t.before, t.now = t.of(epoch), 0
		t.epoch = epoch
	}
	t.now++
}

// of is what was counted lately, seen from an epoch.
func (t *recent) of(epoch int64) uint32 {
	switch epoch - t.epoch {
	case 0:
		return t.now + t.before
	case 1:
		return t.now
	}
	return 0
}

// account is what the port takes of a lane's worker; nil where nobody asks.
func (p *Port) account(ln *lane) *account {
	if p.accounts == nil {
		return nil
	}
	return &p.accounts[ln.id]
}

// payer is the account of the port that has its turn; nil if it has none.
func (ln *lane) payer() *account {
	if ln.turn == nil {
		return nil
	}
	return ln.turn.account(ln)
}

// epoch is that of a time, which may be of a frame that was read a little earlier. What
// slow writes took does not count: nobody else could have anything carried meanwhile, and
// is there all the same.
func (ln *lane) epoch(now int64) int64 {
	return max((now-ln.stalled)/contention, ln.deliveries.epoch)
}

// touch notes a delivery from the port that has its turn to another.
func (ln *lane) touch(to *Port, now int64) {
	epoch := ln.epoch(now)
	ln.deliveries.add(epoch)
	if a := to.account(ln); a != nil {
		a.touched.add(epoch)
	}
	if a := ln.payer(); a != nil && ln.turn != to {
		a.touched.add(epoch)
	}
}

// contended reports whether the worker has lately carried something that was
// neither from the port nor to it.
func (a *account) contended(ln *lane, now int64) bool {
	epoch := ln.epoch(now)
	return ln.deliveries.of(epoch) > a.touched.of(epoch)
}

// binds reports whether one of the account's shares holds its port back now: nothing is
// left, and somebody else wants the worker, or might have while one write lasted.
func (a *account) binds(s *share, w allowance, ln *lane, now int64) bool {
	return s.over(w, now) && (s.lasting(w, now) || a.contended(ln, now))
}

// overdrawn is how long the port is not to be read, because it has had more than its
// share for nothing, or of what goes outside: until all is repaid, so that those who are
// read meanwhile are seldom disturbed.
func (p *Port) overdrawn(now int64) time.Duration {
	a := p.account(p.ln)
	if a == nil {
		return 0
	}
	until := now
	if a.binds(&a.futile, futileShare, p.ln, now) {
		until = a.futile.repaid
	}
	if a.binds(&a.outside, outsideShare, p.ln, now) {
		until = max(until, a.outside.repaid)
	}
	return time.Duration(until - now)
}

// mayFlood reports whether the port may have one more frame flooded, by the number of
// copies and by the time they take.
func (p *Port) mayFlood(now int64) bool {
	if !p.flood.Allows(now) {
		return false
	}
	a := p.account(p.ln)
	return a == nil || !a.binds(&a.floods, floodShare, p.ln, now)
}

// flooded charges the port for copies of a frame, the writing of which began at a
// time and is over now. What lasts longer than it may was no work of his: the worker had
// no processor, or one of the receivers is slow, who pays for that himself.
func (p *Port) flooded(ln *lane, frame []*packet.Frame, copies int, began int64) {
	a := p.account(ln)
	if a == nil {
		return
	}
	took := max(0, ln.clock-began)
	ln.flooding += took
	a.floods.charge(floodShare, frame[0].Time, min(took, int64(copies)*p.fairCost(frame)))
}

// turnTime is how long a turn of the port may take. Who sends much for nothing has
// short ones, for whoever else comes waits until they end.
func (p *Port) turnTime(now int64) int64 {
	if a := p.account(p.ln); a != nil && a.futile.some(futileShare, now) {
		return turnTime / 8
	}
	return turnTime
}

// longestFutile bounds what one turn is charged. One that takes longer was not at
// work all the time.
const longestFutile = 4 * turnTime

// wasted charges the port for the frames of a turn that were not sent on to one
// receiver: the turn began at a time and read so many frames, when before it so many
// had been sent on. The counters tell, so a frame costs nothing more. A turn that was
// told of frames and found none counts as one: root inside can get hold of a copy of the
// link, and take away what has woken us.
func (p *Port) wasted(now, began int64, events uint32, frames int, before uint64) {
	a := p.account(p.ln)
	if a == nil {
		return
	}
	useful := min(p.n.unicast.Load()-before, uint64(frames)) // what was held may go on in any turn
	rest := int64(frames) - int64(useful)
	if frames == 0 && p.level && events&unix.EPOLLIN != 0 {
		frames, rest = 1, 1
	}
	if rest == 0 {
		return
	}
	took := min(p.ln.wall()-began-p.ln.flooding, longestFutile)
	a.futile.charge(futileShare, now, min(took*rest/int64(frames), rest*fairPacket))
}
