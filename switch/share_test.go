package vswitch

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/link"
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

// slowly has a write take so much of the worker's time, as the network stack of a
// container with thousands of firewall rules does.
func (q *faulty) slowly(d time.Duration) { q.work = d }

// A share is repaid as time goes by. What was taken in many pieces is owed for
// longestRepay at most, one large piece in full, and for mostRepay at most.
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
	s = share{}
	s.charge(w, now, int64(time.Second))
	s.charge(w, now, 1)
	if now += w.of*int64(time.Second) - w.window() - 1; !s.over(w, now) {
		t.Error("one piece is not paid in full")
	}
	if now += 1 + w.of; s.over(w, now) {
		t.Error("one piece is never repaid")
	}
	s.charge(w, now, 1e18)
	if now += mostRepay; s.over(w, now) {
		t.Error("the longest is too long")
	}
}

// slowRig is a switch with an innocent sender, a receiver that takes its time, and
// two others.
func slowRig(t *testing.T) (r *rig, sender, slow, a, b *end) {
	r = newRig(t)
	r.ownClock()
	sender, slow, a, b = r.add(2, metered), r.add(3, metered), r.add(4, metered), r.add(5, metered)
	r.known(sender, slow, a, b)
	slow.queue.slowly(200 * time.Microsecond)
	return r, sender, slow, a, b
}

// Who takes 200 µs for each packet gets a share of the worker's time while others
// want it, and all that goes to the others gets there.
func TestSlowReceiver(t *testing.T) {
	r, sender, slow, a, b := slowRig(t)
	got, rounds := 0, 0
	for ; failed(slow, packet.SlowReceiver) < 100 && rounds < 10_000; rounds++ {
		r.now += 100_000
		r.send(sender, ping(sender.station, slow.station), ping(sender.station, a.station))
		r.send(b, ping(b.station, a.station))
		got += len(slow.got(t))
		if n := len(a.got(t)); n != 2 {
			t.Fatalf("round %d: %d frames arrived at who is not slow, want 2", rounds, n)
		}
	}
	if rounds == 10_000 {
		t.Fatalf("%d frames to the slow receiver, and none failed", rounds)
	}
	if n := failed(slow, packet.SlowReceiver); got == 0 || got+int(n) != rounds {
		t.Errorf("of %d frames %d arrived and %d failed", rounds, got, n)
	}
	if n := failed(a, packet.SlowReceiver) + failed(sender, packet.SlowReceiver) + failed(b, packet.SlowReceiver); n != 0 {
		t.Errorf("%d frames to others failed", n)
	}

	// What it has taken is repaid by and by.
	r.now += longestRepay
	r.send(sender, ping(sender.station, slow.station))
	slow.expect(t, ping(sender.station, slow.station))
}

// Nobody else wants the worker: then a slow receiver may have all of it.
func TestSlowReceiverAlone(t *testing.T) {
	r, sender, slow, _, _ := slowRig(t)
	r.now += int64(time.Second) // it was not alone when all came
	for range 300 {
		r.now += 200_000
		r.send(sender, ping(sender.station, slow.station))
		slow.expect(t, ping(sender.station, slow.station))
		r.send(slow, ping(slow.station, sender.station)) // which is no other
		sender.got(t)
	}
	a := &slow.port.accounts[0]
	r.on(func() {
		if !a.slow.over(slowShare, r.now) {
			t.Error("it was not charged")
		}
	})
}

// However long one write takes, and whether it is one of many or of a flood, no more than
// an eighth of the time goes into them while others are there. Those of more than a
// moment are bounded also where others have something to say now and then only.
func TestLongWrites(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct{ took, others time.Duration }{
		{ms, ms}, {9 * ms, ms}, {20 * ms, 5 * ms}, {100 * ms, 5 * ms}, {100 * ms, 100 * ms}, {time.Second, 100 * ms}, {7 * time.Second, 100 * ms},
	} {
		for _, flood := range []bool{false, true} {
			if !flood && c.took > time.Second {
				continue // several of those at once are owed for mostRepay and not in full
			}
			t.Run(fmt.Sprintf("%v,flood=%v", c, flood), func(t *testing.T) {
				r, sender, slow, a, b := slowRig(t)
				slow.queue.slowly(c.took)
				frame := ping(sender.station, slow.station)
				if flood {
					frame = packettest.ARPRequest(sender.station, stationOf(999).IP)
				}
				batch := slices.Repeat([][]byte{frame}, 2*fewAtOnce)
				began, writes := r.now, 0
				for r.now-began < 40*int64(c.took) || writes < 100 && r.now-began < int64(time.Second) {
					r.send(a, ping(a.station, b.station))
					b.got(t)
					r.send(sender, batch...)
					r.on(func() { sender.queue.inject = nil }) // else a timer has it read what is left
					n := len(slow.got(t))
					if writes += n; n > fewAtOnce+1+int(slowShare.burst/int64(c.took)) {
						t.Fatalf("%d writes of %v before it was held to its share", n, c.took)
					}
					for _, e := range r.ends {
						e.got(t)
					}
					r.now += int64(c.others)
				}
				at := float64(writes) * float64(c.took) / float64(r.now-began)
				if writes < 3 || at > 1./8+(fewAtOnce+1)/40. {
					t.Errorf("%d writes of %v took %.0f %% of the time", writes, c.took, 100*at)
				}
			})
		}
	}
}

// Who sends what takes its receiver long pays for that: what others send to the same
// one gets there.
func TestWhoCausesPays(t *testing.T) {
	r, attacker, victim, a, b := slowRig(t)
	for rounds := 0; failed(victim, packet.SlowReceiver) < 100; rounds++ {
		if rounds == 10_000 {
			t.Fatal("nothing the attacker sent has failed")
		}
		r.now += 100_000
		r.send(b, ping(b.station, attacker.station)) // there are others
		attacker.got(t)
		victim.queue.slowly(200 * time.Microsecond)
		r.send(attacker, ping(attacker.station, victim.station))
		victim.queue.slowly(0)
		got := len(victim.got(t))
		r.send(a, ping(a.station, victim.station))
		if n := len(victim.got(t)); n != 1 {
			t.Fatalf("round %d: the victim got %d of the attacker's frames and %d of another's", rounds, got, n)
		}
	}
	r.send(attacker, ping(attacker.station, a.station))
	a.expect(t, ping(attacker.station, a.station)) // who is not slow has it all
}

// While the thread has no processor it does no work, however long a write lasts then.
func TestWaitIsNotSlow(t *testing.T) {
	r, sender, slow, a, b := slowRig(t)
	slow.queue.slowly(0)
	slow.queue.slow = 2 * time.Millisecond // asleep
	for range 50 {
		r.now += int64(time.Millisecond) // what waking up takes is repaid
		r.send(sender, ping(sender.station, slow.station))
		slow.expect(t, ping(sender.station, slow.station))
		r.send(a, ping(a.station, b.station))
		b.got(t)
	}
}

// Nor does a slice of the processor that was stolen in the midst of a write cut its
// receiver off for long, where the kernel does not know that it was.
func TestStolenSlice(t *testing.T) {
	r, sender, slow, a, b := slowRig(t)
	slow.queue.slowly(50 * time.Millisecond)
	r.send(sender, ping(sender.station, slow.station))
	slow.queue.slowly(0)
	slow.got(t)
	r.now += int64(400 * time.Millisecond)
	r.send(a, ping(a.station, b.station))
	b.got(t)
	r.send(sender, ping(sender.station, slow.station))
	slow.expect(t, ping(sender.station, slow.station))
}

// A train is one packet to who takes it whole, and many where we cut it ourselves.
func TestTextbookWireIsNotSlow(t *testing.T) {
	r := newRig(t)
	whole, wire := r.add(2, metered), r.add(3, metered)
	whole.queue.takes = link.OffloadAll
	b := packettest.GSO(packettest.TCP(whole.station, wire.station, packettest.Segment{}, make([]byte, 44*1448)), 1448)
	f := packet.Frame{B: b}
	if packet.Parse(&f) != packet.OK {
		t.Fatal("malformed")
	}
	train := []*packet.Frame{&f}
	if got, want := wire.port.fairCost(train)-whole.port.fairCost(train), 43*fairPacket; got != want {
		t.Errorf("44 packets may take %d ns more than a train of them, want %d", got, want)
	}
	datagrams := packet.Frame{B: packettest.GSO(packettest.UDP(whole.station, wire.station, 1, 2, make([]byte, 44*1000)), 1000)}
	if packet.Parse(&datagrams) != packet.OK {
		t.Fatal("malformed")
	}
	if got := whole.port.fairCost([]*packet.Frame{&datagrams}); got < 44*fairPacket {
		t.Errorf("44 datagrams may take %d ns", got)
	}
	small := packet.Frame{B: ping(whole.station, wire.station)}
	if got := whole.port.fairCost([]*packet.Frame{&small, &small}); got < 2*fairPacket || got > 3*fairPacket {
		t.Errorf("two small packets may take %d ns", got)
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

func failed(e *end, r packet.Reason) uint64 {
	c := e.port.Counts()
	return c.Failed[r].N
}
