package vswitch

import (
	"time"

	"fairlead/loop"
)

// A share is what one port may take of a worker's time beyond what it is for: to
// have what others asked for carried. It is kept as policy.Rate keeps a bucket, as
// the moment at which all is repaid, shareOf nanoseconds for each that was taken.
type share struct{ repaid int64 }

const (
	// shareOf: a sixteenth of the time, so that who takes all he may get leaves
	// fifteen to others, and who is nothing but slow, or has everything he sends
	// refused, is still served.
	shareOf = 16
	// shareWindow is over which time that is counted. What may be taken at once is
	// its sixteenth, half a millisecond: longer than one turn.
	shareWindow = int64(8 * time.Millisecond)
	// longestRepay bounds how long a port pays for what nobody missed when it was
	// taken.
	longestRepay = int64(100 * time.Millisecond)
)

// charge takes ns nanoseconds up.
func (s *share) charge(now, ns int64) {
	s.repaid = min(max(s.repaid, now)+shareOf*ns, now+shareWindow+longestRepay)
}

// until is when there is something left again, now or later.
func (s *share) until(now int64) int64 { return max(now, s.repaid-shareWindow) }

// short reports whether at least half of what may be taken at once is.
func (s *share) short(now int64) bool { return s.repaid > now+shareWindow/2 }

// An account is what one metered port takes of one worker's time, written by that
// worker only.
//
// Two things are counted, each against a share of its own:
//
//   - slow: what writing to it takes longer than to others, for the receiver's network
//     stack runs inside our write, with all the rules its root has made up. What is
//     sent to it beyond that fails (packet.SlowReceiver), see slow.go.
//   - waste: what reading from it takes that nobody is sent anything by: refusals,
//     what is flooded, answers of the gateway. Beyond that it is not read, so that the
//     rest waits, or is lost, in its own interface.
//
// A share binds while somebody else wants the worker (contended). Who has it for
// himself may have all of it.
type account struct {
	slow, waste share
	delivered   int    // deliveries to the port
	watched     int    // so many of the next are to be measured, see slow.go
	touched     uint64 // of the lane's deliveries those from or to the port
	others      uint64 // those that were not, when contended was asked last
	asked       int64  // and when that was
	wanted      int64  // until when others count as there
}

// contention is how long somebody counts as there who had something carried.
const contention = int64(10 * time.Millisecond)

// account is what the port takes of a lane's worker; nil where nobody asks.
func (p *Port) account(ln *lane) *account {
	if p.accounts == nil {
		return nil
	}
	return &p.accounts[ln.id]
}

// touch notes a delivery from the port that has its turn to another.
func (ln *lane) touch(to *Port) {
	ln.deliveries++
	if a := to.account(ln); a != nil {
		a.delivered++
		a.touched++
	}
	if ln.turn == nil || ln.turn == to {
		return
	}
	if a := ln.turn.account(ln); a != nil {
		a.touched++
	}
}

// contended reports whether the worker has lately carried something that was
// neither from the port nor to it.
func (a *account) contended(ln *lane, now int64) bool {
	others := ln.deliveries - a.touched
	if others != a.others && now-a.asked <= contention { // else it may be long ago
		a.wanted = now + contention
	}
	a.others, a.asked = others, now
	return now < a.wanted
}

// overdrawn is how long the port is not to be read, because it has wasted what it
// may: until all is repaid, so that those who are read meanwhile are seldom disturbed.
func (p *Port) overdrawn(now int64) time.Duration {
	a := p.account(p.ln)
	if a == nil || a.waste.until(now) == now || !a.contended(p.ln, now) {
		return 0
	}
	return time.Duration(a.waste.repaid - now)
}

// turnTime is how long a turn of the port may take. Who wastes much has short ones,
// for whoever else comes waits until they end.
func (p *Port) turnTime(now int64) int64 {
	if a := p.account(p.ln); a != nil && a.waste.short(now) {
		return turnTime / 8
	}
	return turnTime
}

// A waste is what of a turn nobody is sent anything by, counted in frames and
// copies. The counters tell, so a frame costs nothing more.
type waste struct{ unicast, fanout uint64 }

// wasteOf is where the port's counters are as its turn begins.
func (p *Port) wasteOf() waste { return waste{p.n.unicast.Load(), p.n.fanout.Load()} }

// longestWaste bounds what one turn is charged. One that takes longer was not at
// work all the time.
const longestWaste = 4 * turnTime

// wasted charges the turn that began at a time and read so many frames.
func (p *Port) wasted(now, began int64, frames int, before waste) {
	a := p.account(p.ln)
	if a == nil {
		return
	}
	after := p.wasteOf()
	useful := min(after.unicast-before.unicast, uint64(frames)) // what was held may go on in any turn
	all := uint64(frames) + after.fanout - before.fanout
	if useful == all {
		return
	}
	took := min(loop.Clock()-began, longestWaste)
	took = took * int64(all-useful) / int64(all)
	// What lasts longer was no work of his: the worker had no processor, or one of
	// the receivers is slow, who pays for that himself.
	a.waste.charge(now, min(took, int64(all-useful)*fairPacket))
}
