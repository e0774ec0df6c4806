package vswitch

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/loop"
	"fairlead/packet"
	"fairlead/packet/packettest"
)

// Accounts of two workers share no pair of cache lines.
func TestAccountsApart(t *testing.T) {
	if n := reflect.TypeFor[account]().Size(); n%128 != 0 {
		t.Errorf("an account has %d bytes", n)
	}
}

func metered(c *PortConfig) { c.Metered = true }

// A share is repaid as time goes by. What was taken in many pieces is owed for
// longestRepay at most, one large piece in full, and a part of one for longestRepay again.
func TestShare(t *testing.T) {
	var s share
	now := int64(1e9)
	w := futileShare
	if s.over(w, now) || s.some(w, now) {
		t.Error("who has taken nothing has nothing left")
	}
	s.charge(w, now, w.burst)
	if s.over(w, now) || !s.some(w, now) {
		t.Error("all of it may be taken at once")
	}
	s.charge(w, now, 1000)
	if now += w.of*1000 - 1; !s.over(w, now) {
		t.Error("a microsecond more is repaid at once")
	}
	if now++; s.over(w, now) {
		t.Error("it is not repaid")
	}
	for range 1000 {
		s.charge(w, now, int64(time.Millisecond))
	}
	if s.lasting(w, now) {
		t.Error("many pieces last")
	}
	if now += longestRepay; s.over(w, now) {
		t.Error("many pieces are owed too long")
	}
	for _, piece := range []time.Duration{time.Second, time.Minute, 10 * time.Minute, 24 * time.Hour} {
		s = share{}
		s.charge(w, now, int64(piece))
		s.charge(w, now, 1)
		if now += w.of*int64(piece) - w.window() - 1; !s.over(w, now) {
			t.Errorf("a piece of %v is not paid in full", piece)
		}
		if now += 1 + w.of; s.over(w, now) {
			t.Errorf("a piece of %v is never repaid", piece)
		}
	}
	s = share{}
	for range 10 {
		s.chargePart(w, now, int64(time.Hour))
	}
	if s.lasting(w, now) {
		t.Error("parts last")
	}
	if now += longestRepay; s.over(w, now) {
		t.Error("parts are owed too long")
	}
}

// A port whose frames are refused, flooded to nobody, or answered is not read any more when
// that took its share, while others want the worker, and read again later. Who sends
// what others get is read always.
func TestFutile(t *testing.T) {
	for name, frame := range map[string]func(in, to *end) []byte{
		"refused":  func(in, to *end) []byte { return ping(to.station, in.station) },
		"answered": func(in, _ *end) []byte { return packettest.ARPRequest(in.station, gatewayAddr.Addr()) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			in, a, b := r.add(2, metered), r.add(3, metered), r.add(4, metered)
			r.known(in, a, b)
			var batch [][]byte
			for range packet.BatchFrames {
				batch = append(batch, frame(in, a))
			}
			spent, rounds := false, 0
			for ; !spent && rounds < 10_000; rounds++ {
				r.now += 1000
				r.send(a, ping(a.station, b.station))
				r.on(func() { // all in one call, or a timer has it read what is left, by another clock
					in.queue.inject = batch
					for in.port.Ready(r.now, 0) {
					}
					in.queue.inject, spent = nil, in.port.overdrawn(r.now) > 0
				})
				for _, e := range r.ends {
					e.got(t)
				}
			}
			if !spent {
				t.Fatalf("%d batches of frames that were %s, and more of them would be read", rounds, name)
			}
			take := func() (left int) {
				r.on(func() {
					in.queue.inject = batch
					for in.port.Ready(r.now, 0) {
					}
					left, in.queue.inject = len(in.queue.inject), nil
				})
				return left
			}
			if left := take(); left != len(batch) {
				t.Errorf("%d frames were read", len(batch)-left)
			}
			// The test's clock stands all but still, so whatever kept a write is never repaid.
			r.on(func() { b.port.accounts[0].slow = share{} })
			r.send(a, ping(a.station, b.station))
			b.expect(t, ping(a.station, b.station))
			r.now += longestRepay + contention
			if left := take(); left != 0 {
				t.Errorf("%d frames were not read later", left)
			}
		})
	}
}

// Who has an uplink open a socket with each frame is read later when that took its share,
// while others want the worker; who sends by it what costs little is read always.
func TestOutside(t *testing.T) {
	for _, c := range []struct {
		cost          time.Duration
		alone, paused bool
	}{
		{50 * time.Microsecond, false, true},
		{50 * time.Microsecond, true, false},
		{2 * time.Microsecond, false, false},
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			r := newRig(t)
			r.ownClock()
			in, a, b, out := r.add(2, metered), r.add(3, metered), r.add(4, metered), r.add(5)
			r.known(in, a, b, out)
			out.queue.slowly(detector * c.cost)
			r.now += int64(time.Second) // it was not alone when all came
			sent, left := 0, 0
			for sent < 300 && left == 0 {
				if !c.alone {
					r.send(a, ping(a.station, b.station))
					b.expect(t, ping(a.station, b.station))
				}
				r.send(in, ping(in.station, out.station))
				r.on(func() { left, in.queue.inject = len(in.queue.inject), nil })
				if sent++; left == 0 {
					out.expect(t, ping(in.station, out.station))
				}
			}
			if paused := left > 0; paused != c.paused {
				t.Fatalf("after %d frames it is read no more: %v", sent, paused)
			}
			if n := int64(sent) * detector * int64(c.cost); c.paused && (n < outsideShare.burst || n > 2*outsideShare.burst) {
				t.Errorf("it was read no more after %d frames", sent)
			}
			r.now += outsideShare.window() + longestRepay
			r.send(in, ping(in.station, out.station))
			out.expect(t, ping(in.station, out.station))
		})
	}
}

// A turn that was told of a frame and found none is one for nothing: somebody has a copy
// of the link, and took it.
func TestNothingThere(t *testing.T) {
	r := newRig(t)
	r.ownClock()
	in := r.add(2, metered)
	owed := func() (ns int64) {
		r.on(func() { ns = max(0, in.port.accounts[0].futile.repaid-r.now) })
		return ns
	}
	turn := func(events uint32) { r.on(func() { in.port.Ready(r.now, events) }) }
	r.on(func() { in.port.level = true })
	if turn(0); owed() != 0 {
		t.Error("a turn that nobody asked for is charged")
	}
	if turn(unix.EPOLLIN); owed() == 0 || owed() > futileShare.of*fairPacket {
		t.Errorf("%d ns are owed", owed())
	}
	r.on(func() { in.port.level = false }) // it is told once of many
	before := owed()
	if turn(unix.EPOLLIN); owed() > before {
		t.Error("a turn is charged where one is told once of many")
	}
}

// A crowd is a sender on a switch with so many others that one broadcast is a
// millisecond of writes, and two who talk to one another.
func crowd(t *testing.T) (r *rig, sender, a, b *end) {
	r = newRig(t)
	r.ownClock()
	sender, a, b = r.add(2, metered), r.add(3, metered), r.add(4, metered)
	r.known(sender, a, b)
	for n := range 250 {
		r.add(10 + n).queue.slowly(4 * time.Microsecond)
	}
	return r, sender, a, b
}

// broadcast has it ask for somebody who is not there.
func (r *rig) broadcast(e *end) {
	r.send(e, packettest.ARPRequest(e.station, stationOf(999).IP))
	for _, e := range r.ends {
		e.got(r.t)
	}
}

// Who broadcasts now and then among very many is read always, and so is who
// broadcasts all the time: only his broadcasts are refused then.
func TestFloods(t *testing.T) {
	r, sender, a, b := crowd(t)
	others := func() {
		r.now += 1000
		r.send(a, ping(a.station, b.station))
		b.expect(t, ping(a.station, b.station))
	}
	for n := range 5 {
		others()
		if r.broadcast(sender); sender.drops(packet.FloodLimit) != 0 {
			t.Fatalf("broadcast %d was refused", n)
		}
	}
	for n := 0; sender.drops(packet.FloodLimit) == 0; n++ {
		if n == 100 {
			t.Fatal("no broadcast was refused")
		}
		others()
		r.broadcast(sender)
	}
	r.send(sender, ping(sender.station, a.station))
	a.expect(t, ping(sender.station, a.station))
	r.now += longestRepay + floodShare.window()
	others()
	before := sender.drops(packet.FloodLimit)
	if r.broadcast(sender); sender.drops(packet.FloodLimit) != before {
		t.Error("a broadcast was refused when all was repaid")
	}
}

// Where nobody else wants the worker, who floods may.
func TestFloodsAlone(t *testing.T) {
	r, sender, _, _ := crowd(t)
	r.now += int64(time.Second) // it was not alone when all came
	for range 40 {
		r.broadcast(sender)
	}
	if n := sender.drops(packet.FloodLimit); n != 0 {
		t.Errorf("%d broadcasts were refused", n)
	}
}

// Others are there however long nobody has asked whether they are.
func TestContention(t *testing.T) {
	r, _, _, a, b := slowRig(t)
	c := r.add(6, metered)
	for range 3 {
		r.now += 5 * contention
		r.send(a, ping(a.station, b.station))
		b.got(t)
		for _, after := range []int64{0, contention - 1, 2 * contention} {
			for e, want := range map[*end]bool{a: false, b: false, c: after < contention} {
				r.on(func() {
					if got := e.port.accounts[0].contended(e.port.ln, r.now+after); got != want {
						t.Errorf("%v, %d ns later: others are there: %v, want %v", e.MAC, after, got, want)
					}
				})
			}
		}
	}
}

// A turn that lasted long for one frame was not at work all the time.
func TestWaitIsNotFutile(t *testing.T) {
	r := newRig(t)
	in := r.add(2, metered)
	r.on(func() {
		in.port.wasted(r.now, loop.Clock()-int64(time.Millisecond), 0, 1, in.port.n.unicast.Load())
		if owed := in.port.accounts[0].futile.repaid - r.now; owed <= 0 || owed > futileShare.of*fairPacket {
			t.Errorf("a refused frame is repaid after %d ns, want %d at most", owed, futileShare.of*fairPacket)
		}
	})
}

// Where nobody else wants the worker, who has it do nothing for anybody may.
func TestFutileAlone(t *testing.T) {
	r := newRig(t)
	in, a := r.add(2, metered), r.add(3, metered)
	r.known(in, a)
	r.now += int64(time.Second) // it was not alone when both came
	for range 200 {
		r.send(in, ping(in.station, stationOf(999)), ping(a.station, in.station))
		r.on(func() {
			if n := len(in.queue.inject); n != 0 {
				t.Errorf("%d frames were not read", n)
			}
		})
		a.got(t)
	}
}
