package vswitch

import (
	"testing"
	"time"

	"fairlead/link"
	"fairlead/loop"
	"fairlead/packet"
	"fairlead/packet/packettest"
)

func metered(c *PortConfig) { c.Metered = true }

// slowly has a write take so much of the worker's time, as the network stack of a
// container with thousands of firewall rules does.
func (q *faulty) slowly(d time.Duration) { q.work = d }

// A share is repaid as time goes by, and what it may be overdrawn by is bounded.
func TestShare(t *testing.T) {
	var s share
	now := int64(1e9)
	if s.until(now) != now || s.short(now) {
		t.Error("who has taken nothing has nothing left")
	}
	s.charge(now, shareWindow/shareOf)
	if s.until(now) != now || !s.short(now) {
		t.Errorf("all of it may be taken at once; until %d", s.until(now)-now)
	}
	s.charge(now, 1000)
	if got := s.until(now) - now; got != shareOf*1000 {
		t.Errorf("a microsecond more is repaid after %d ns, want %d", got, shareOf*1000)
	}
	if now += shareOf * 1000; s.until(now) != now {
		t.Error("it is not repaid")
	}
	s.charge(now, 1e12)
	if got := s.until(now) - now; got != longestRepay {
		t.Errorf("it is repaid after %d ns, want %d at most", got, longestRepay)
	}
}

// slowRig is a switch with an innocent sender, a receiver that takes its time, and
// two others.
func slowRig(t *testing.T) (r *rig, sender, slow, a, b *end) {
	r = newRig(t)
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
	for range 5 * glanceEvery {
		r.now += 200_000
		r.send(sender, ping(sender.station, slow.station))
		slow.expect(t, ping(sender.station, slow.station))
		r.send(slow, ping(slow.station, sender.station)) // which is no other
		sender.got(t)
	}
	a := &slow.port.accounts[0]
	r.on(func() {
		if a.slow.until(r.now) == r.now {
			t.Error("it was not charged")
		}
	})
}

// While the thread has no processor it does no work, however long a write lasts then.
func TestWaitIsNotSlow(t *testing.T) {
	r, sender, slow, a, b := slowRig(t)
	slow.queue.slowly(0)
	slow.queue.slow = 2 * time.Millisecond // asleep
	for range 3 * glanceEvery {
		r.now += int64(time.Millisecond) // what waking up takes is repaid
		r.send(sender, ping(sender.station, slow.station))
		slow.expect(t, ping(sender.station, slow.station))
		r.send(a, ping(a.station, b.station))
		b.got(t)
	}
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
	small := packet.Frame{B: ping(whole.station, wire.station)}
	if got := whole.port.fairCost([]*packet.Frame{&small, &small}); got < 2*fairPacket || got > 3*fairPacket {
		t.Errorf("two small packets may take %d ns", got)
	}
}

// A port whose frames are refused, flooded, or answered is not read any more when
// that took its share, while others want the worker, and read again later. Who sends
// what others get is read always.
func TestWaste(t *testing.T) {
	for name, frame := range map[string]func(in, to *end) []byte{
		"refused":  func(in, to *end) []byte { return ping(to.station, in.station) },
		"flooded":  func(in, _ *end) []byte { return ping(in.station, stationOf(999)) },
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
				r.send(in, batch...)
				r.on(func() { // else a timer has it read what is left
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

// A turn that lasted long for one frame was not at work all the time.
func TestWaitIsNotWaste(t *testing.T) {
	r := newRig(t)
	in := r.add(2, metered)
	r.on(func() {
		in.port.wasted(r.now, loop.Clock()-int64(time.Millisecond), 1, in.port.wasteOf())
		if owed := in.port.accounts[0].waste.repaid - r.now; owed <= 0 || owed > shareOf*fairPacket {
			t.Errorf("a refused frame is repaid after %d ns, want %d at most", owed, shareOf*fairPacket)
		}
	})
}

// Where nobody else wants the worker, who wastes its time may.
func TestWasteAlone(t *testing.T) {
	r := newRig(t)
	in, a := r.add(2, metered), r.add(3, metered)
	r.known(in, a)
	for range 200 {
		r.send(in, ping(in.station, stationOf(999)), ping(a.station, in.station))
		r.on(func() {
			if n := len(in.queue.inject); n != 0 {
				t.Fatalf("%d frames were not read", n)
			}
		})
		a.got(t)
	}
}

func failed(e *end, r packet.Reason) uint64 {
	c := e.port.Counts()
	return c.Failed[r].N
}

// work has the calling thread work for a time.
func work(d time.Duration) {
	for began := loop.ThreadClock(); loop.ThreadClock()-began < int64(d); {
	}
}
