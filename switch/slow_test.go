package vswitch

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"fairlead/link"
	"fairlead/packet"
	"fairlead/packet/packettest"
)

// slowly has a write take so much of the worker's time, as the network stack of a
// container with thousands of firewall rules does.
func (q *faulty) slowly(d time.Duration) { q.work = d }

// unforgetful has stations stay known while a test's clock goes on for hours.
func unforgetful(c *Config) { c.Ageing = 10_000 * time.Hour }

// slowRig is a switch with an innocent sender, a receiver that takes its time, and
// two others.
func slowRig(t *testing.T) (r *rig, sender, slow, a, b *end) {
	r = newRig(t, unforgetful)
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

// One write that took long, as when a hypervisor has stopped us in its midst, costs nobody
// anything. A second one soon after does.
func TestOneLongWrite(t *testing.T) {
	r, sender, slow, a, b := slowRig(t)
	frame := ping(sender.station, slow.station)
	arrives := func(took time.Duration) bool {
		slow.queue.slowly(took)
		r.send(b, ping(b.station, a.station)) // who wants the worker, too
		a.got(t)
		r.send(sender, frame)
		return len(slow.got(t)) == 1
	}
	const long = 50 * time.Millisecond
	if !arrives(0) || !arrives(long) || !arrives(0) {
		t.Error("one long write has cut its receiver off")
	}
	if !arrives(long) || arrives(0) {
		t.Error("the second one was for nothing")
	}
}

// However long one write takes, and whether it is one of many or of a flood, no more than
// an eighth of the time goes into them while others are there. Those of more than a
// moment are bounded also where others have something to say now and then only.
func TestLongWrites(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct{ took, others time.Duration }{
		{ms, ms}, {9 * ms, ms}, {20 * ms, 5 * ms}, {100 * ms, 5 * ms}, {100 * ms, 100 * ms}, {time.Second, 100 * ms},
		{7 * time.Second, time.Second}, {30 * time.Second, 5 * time.Second}, {10 * time.Minute, 2 * time.Minute},
	} {
		for _, flood := range []bool{false, true} {
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

// Nor does it help to wait until everything is forgotten, for the first long write is known
// to be one, too. What goes on is told, and for how long.
func TestLongWritesNowAndThen(t *testing.T) {
	for _, took := range []time.Duration{time.Second, 30 * time.Second, 10 * time.Minute} {
		for _, pause := range []int64{1, 2, 4, 7, 8, 9, 12, 16, 64} {
			t.Run(fmt.Sprintf("%v,%d", took, pause), func(t *testing.T) {
				var told []Slow
				r := newRig(t, unforgetful, func(c *Config) { c.SlowFound = func(s Slow) { told = append(told, s) } })
				r.ownClock()
				sender, slow := r.add(2, metered), r.add(3, metered)
				r.known(sender, slow)
				slow.queue.slowly(took)
				began, writes := r.now, 0
				for round := range 20 {
					r.send(sender, slices.Repeat([][]byte{ping(sender.station, slow.station)}, fewAtOnce)...)
					writes += len(slow.got(t))
					if left := slow.port.SentNothing(r.now); round == 0 && (len(told) != 1 || left > told[0].For || left < told[0].For-time.Millisecond) {
						t.Fatalf("it is sent nothing for %v, told was %+v", left, told)
					}
					r.now += pause * fewAtOnce * int64(took)
				}
				all := time.Duration(r.now-began) + time.Duration(slowShare.of*fewAtOnce)*took // what the last is still owed for
				if most := float64(all) / float64(slowShare.of+1) / float64(took); float64(writes) > most+1 {
					t.Errorf("%d writes of %v in %v, want %.1f at most", writes, took, all, most)
				}
				if first := told[0]; first.Port != slow.port || first.Took > fewAtOnce*took || first.Took < fewAtOnce*took-time.Duration(askAtLeast) {
					t.Errorf("told was %+v", first)
				}
			})
		}
	}
}

// Each worker has its own account of a receiver. What is told is for how long any of them
// sends it nothing, whoever was the last to find out.
func TestSlowToSeveralWorkers(t *testing.T) {
	r, _, slow, _, _ := slowRig(t)
	for _, left := range []time.Duration{time.Second, 8 * time.Minute, 2 * time.Second} {
		r.on(func() { slow.port.cutOff(slow.port.ln, r.now+int64(left), 0) })
	}
	if left := slow.port.SentNothing(r.now); left != 8*time.Minute {
		t.Errorf("it is sent nothing for %v", left)
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

func failed(e *end, r packet.Reason) uint64 {
	c := e.port.Counts()
	return c.Failed[r].N
}
