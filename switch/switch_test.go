package vswitch

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"fairlead/nat"
	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/policy"
	"fairlead/test/lab"
)

func TestS31_FloodThenLearn(t *testing.T) {
	r := newRig(t)
	a, b, c := r.add(2), r.add(3), r.add(4)

	r.send(a, ping(a.station, b.station))
	b.expect(t, ping(a.station, b.station))
	c.expect(t, ping(a.station, b.station)) // nobody knows b yet

	r.send(b, ping(b.station, a.station))
	a.expect(t, ping(b.station, a.station))
	c.expect(t) // a is known

	r.send(a, ping(a.station, b.station))
	b.expect(t, ping(a.station, b.station))
	c.expect(t)

	r.now += int64(DefaultAgeing) + 1
	r.send(a, ping(a.station, b.station))
	b.expect(t, ping(a.station, b.station))
	c.expect(t, ping(a.station, b.station)) // b has aged

	r.send(b, ping(b.station, a.station))
	if n := r.sw.FlushMACs(false); n != 2 {
		t.Errorf("flushed %d MACs, want 2", n)
	}
	a.got(t)
	c.got(t)
	r.send(a, ping(a.station, b.station))
	c.expect(t, ping(a.station, b.station)) // flushed
	b.got(t)
}

func TestNeverBackOutOfTheIngressPort(t *testing.T) {
	r := newRig(t)
	unguarded := func(c *PortConfig) { c.Guard = policy.Guard{} }
	a, b := r.add(2, unguarded), r.add(3, unguarded)
	other := stationOf(9) // a second station behind a
	r.send(a, ping(other, b.station))
	b.got(t)
	r.send(a, ping(a.station, other))
	a.expect(t)
	b.expect(t)
	if a.drops(packet.SamePort) != 1 {
		t.Error("not counted as same-port")
	}
}

func TestS23_MoveIsFollowedAtOnce(t *testing.T) {
	r := newRig(t)
	unguarded := func(c *PortConfig) { c.Guard = policy.Guard{} }
	a, b, c := r.add(2, unguarded), r.add(3, unguarded), r.add(4, unguarded)
	r.send(b, ping(b.station, a.station))
	a.got(t)
	c.got(t)

	r.send(c, ping(b.station, a.station)) // b's MAC, now behind c
	b.got(t)
	r.send(a, ping(a.station, b.station))
	c.expect(t, ping(a.station, b.station))
	b.expect(t)
	if macs := r.sw.MACs(r.now); len(macs) != 2 || macs[1].Port != c.port.ID() {
		t.Errorf("MAC table: %v", macs)
	}
}

func TestHubFloodsEverythingAndLearnsNothing(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Hub = true })
	a, b, c := r.add(2), r.add(3), r.add(4)
	for range 3 {
		r.send(a, ping(a.station, b.station))
		r.send(b, ping(b.station, a.station))
		if len(b.got(t)) != 1 || len(a.got(t)) != 1 || len(c.got(t)) != 2 {
			t.Fatal("not everybody saw everything")
		}
	}
	if macs := r.sw.MACs(r.now); len(macs) != 0 {
		t.Errorf("a hub learned %v", macs)
	}
	gw := station{MAC: r.gw.MAC(), IP: gatewayAddr.Addr()}
	r.send(a, ping(a.station, gw))
	if len(a.got(t)) != 1 || len(c.got(t)) != 1 {
		t.Error("in hub mode the third station sees a ping to the gateway, and the gateway answers it")
	}
}

func TestIsolatedPortsDoNotHearOneAnother(t *testing.T) {
	r := newRig(t)
	isolated := func(c *PortConfig) { c.Isolated = true }
	a, b, c := r.add(2, isolated), r.add(3, isolated), r.add(4)
	r.send(a, packettest.ARPRequest(a.station, b.IP))
	b.expect(t)
	c.expect(t, packettest.ARPRequest(a.station, b.IP))
	r.send(b, ping(b.station, c.station))
	r.send(a, ping(a.station, b.station))
	b.expect(t)
	if a.drops(packet.Isolated) != 1 {
		t.Error("not counted as isolated")
	}
	r.send(c, ping(c.station, a.station))
	if len(a.got(t)) != 1 {
		t.Error("an isolated port hears one that is not")
	}
}

// TestIsolationHoldsForMappings: the way over an address of ours leads to an
// isolated port where somebody has published it, and not by way of what else its
// container has open.
func TestIsolationHoldsForMappings(t *testing.T) {
	r := newRig(t)
	isolated := func(c *PortConfig) { c.Isolated = true }
	a, b, c := r.add(2, isolated), r.add(3, isolated), r.add(4)
	for _, e := range []*end{a, b, c} {
		r.send(e, packettest.ARPRequest(e.station, gatewayAddr.Addr()))
	}
	for _, e := range []*end{a, b, c} {
		e.got(t)
	}
	if _, err := r.nat.Publish(nat.Rule{Network: 1, Container: b.port.conf.Container, Proto: packet.ProtoUDP,
		OutsidePort: 8080, Inside: packet.AddrFromNetip(b.IP), InsidePort: 80}); err != nil {
		t.Fatal(err)
	}
	ours := station{MAC: r.gw.MAC(), IP: gatewayAddr.Addr()}
	r.send(a, packettest.UDP(a.station, ours, 5000, 8080, nil)) // this makes the mapping of port 5000
	if len(b.got(t)) != 1 {
		t.Fatal("a published port is not reached")
	}
	r.send(b, packettest.UDP(b.station, ours, 80, 5000, nil))
	r.send(b, packettest.UDP(b.station, ours, 6000, 5000, nil))
	if len(a.got(t)) != 1 || b.drops(packet.Isolated) != 1 {
		t.Errorf("an isolated port reaches another by its mapping; %d dropped", b.drops(packet.Isolated))
	}
	r.send(c, packettest.UDP(c.station, ours, 6000, 5000, nil))
	if len(a.got(t)) != 1 {
		t.Error("one that is not isolated does not reach the mapping")
	}
}

func TestFloodLimit(t *testing.T) {
	r := newRig(t)
	a := r.add(2, func(c *PortConfig) { c.FloodLimit = 100 })
	b := r.add(3)
	for range 30 {
		r.send(a, packettest.ARPRequest(a.station, b.IP))
	}
	if n := len(b.got(t)); n != 10 || a.drops(packet.FloodLimit) != 20 {
		t.Errorf("%d frames passed at once, %d were dropped, want 10 and 20", n, a.drops(packet.FloodLimit))
	}
	r.now += int64(time.Second)
	r.send(a, packettest.ARPRequest(a.station, b.IP))
	if len(b.got(t)) != 1 {
		t.Error("the limit did not recover")
	}
}

func TestOversize(t *testing.T) {
	r := newRig(t)
	a, b := r.add(2), r.add(3)
	r.send(b, ping(b.station, a.station))
	a.got(t)
	fits := packettest.UDP(a.station, b.station, 1, 2, make([]byte, 1472))
	r.send(a, fits, packettest.UDP(a.station, b.station, 1, 2, make([]byte, 1473)))
	b.expect(t, fits)
	gso := packettest.GSO(packettest.TCP(a.station, b.station, packettest.Segment{}, make([]byte, 30000)), 1460)
	big := packettest.GSO(packettest.TCP(a.station, b.station, packettest.Segment{}, make([]byte, 30000)), 1461)
	r.send(a, gso, big)
	b.expect(t, gso) // 64 KiB pass, segments above the MTU do not
	if n := a.drops(packet.Oversize); n != 2 {
		t.Errorf("%d dropped as oversize, want 2", n)
	}
}

func TestOrderIsKeptWithinABatch(t *testing.T) {
	r := newRig(t)
	a, b, c := r.add(2), r.add(3), r.add(4)
	r.send(b, ping(b.station, a.station))
	r.send(c, ping(c.station, a.station))
	a.got(t)
	b.got(t)
	c.got(t)
	var toB, toC, all [][]byte
	for i := range 40 {
		to := []*end{b, c}[i%2]
		f := packettest.ICMPEcho(a.station, to.station, 1, uint16(i), nil)
		switch {
		case i%7 == 0: // a broadcast between them
			f = packettest.ARPRequest(a.station, to.IP)
			toB, toC = append(toB, f), append(toC, f)
		case i%2 == 0:
			toB = append(toB, f)
		default:
			toC = append(toC, f)
		}
		all = append(all, f)
	}
	r.send(a, all...)
	b.expect(t, toB...)
	c.expect(t, toC...)
}

func TestFailedCopies(t *testing.T) {
	r := newRig(t)
	a, b := r.add(2), r.add(3)
	r.send(b, ping(b.station, a.station))
	a.got(t)
	for _, reason := range []packet.Reason{packet.EgressDown, packet.EgressGone, packet.EgressFull, packet.EgressSegments, packet.EgressRefused} {
		b.queue.err = reason
		r.send(a, ping(a.station, b.station), ping(a.station, b.station))
		if c := b.port.Counts(); c.Failed[reason].N != 2 {
			t.Errorf("%v counted %d times, want 2", reason, c.Failed[reason].N)
		}
	}
}

func TestRemovePort(t *testing.T) {
	r := newRig(t)
	a, b, c := r.add(2), r.add(3), r.add(4)
	r.send(b, packettest.ARPRequest(b.station, gatewayAddr.Addr()))
	if len(r.gw.Neighbours(r.now)) != 1 {
		t.Fatal("the gateway did not learn")
	}
	a.got(t)
	b.got(t)
	c.got(t)
	r.sw.RemovePort(b.port, nil)
	if len(r.sw.Ports()) != 2 || len(r.sw.MACs(r.now)) != 0 || len(r.gw.Neighbours(r.now)) != 0 {
		t.Error("the port is still in a table")
	}
	select {
	case <-b.queue.closed:
	case <-time.After(5 * time.Second):
		t.Fatal("the queue was not closed")
	}
	r.send(a, ping(a.station, b.station))
	c.expect(t, ping(a.station, b.station)) // nobody knows b any more

	d := r.add(3)
	if d.port.ID() == b.port.ID() || d.port.ID()&0xffff != b.port.ID()&0xffff {
		t.Errorf("a new port of the same number is %#x, the old one was %#x", d.port.ID(), b.port.ID())
	}
	if r.sw.Port(b.port.ID()) != nil {
		t.Error("the old identity still leads to a port")
	}
}

func TestLinkGoneIsToldOnce(t *testing.T) {
	r := newRig(t)
	lost := make(chan error, 8)
	a := r.add(2, func(c *PortConfig) { c.Lost = func(_ *Port, err error) { lost <- err } })
	_ = a.far.Close()
	select {
	case err := <-lost:
		if !errors.Is(err, packet.EgressGone) {
			t.Errorf("lost: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("nobody was told")
	}
	r.on(func() { a.port.Ready(r.now, 0) })
	if len(lost) != 0 {
		t.Error("told twice")
	}
}

func TestReservedGroupsAreNotForwarded(t *testing.T) {
	r := newRig(t)
	a, b := r.add(2), r.add(3)
	stp := packettest.Ethernet(a.MAC, packet.MAC{1, 0x80, 0xc2, 0, 0, 0}, 0x0026, make([]byte, 60))
	r.send(a, stp)
	b.expect(t)
	if a.drops(packet.ReservedGroup) != 1 {
		t.Error("not counted as reserved-group")
	}
}

// TestDecidingChangesNothing: explain is the path without apply, so asking for
// a decision any number of times leaves tables, counters and queues alone.
func TestDecidingChangesNothing(t *testing.T) {
	r := newRig(t)
	a, b := r.add(2), r.add(3)
	before := a.port.Counts()
	first := r.decide(a, ping(a.station, b.station))
	for range 3 {
		if d := r.decide(a, ping(a.station, b.station)); d != first {
			t.Fatalf("decided %+v, then %+v", first, d)
		}
	}
	if first.Verdict != packet.Flood || first.Learn != packet.LearnNew {
		t.Errorf("decided %+v", first)
	}
	if len(r.sw.MACs(r.now)) != 0 || a.port.Counts() != before {
		t.Error("deciding left a trace")
	}
	b.expect(t)
}

func TestDifferentVLANsAreDifferentStations(t *testing.T) {
	r := newRig(t)
	unguarded := func(c *PortConfig) { c.Guard = policy.Guard{} }
	a, b, c := r.add(2, unguarded), r.add(3, unguarded), r.add(4, unguarded)
	r.send(b, packettest.Tagged(ping(b.station, a.station), 10))
	r.send(c, packettest.Tagged(ping(b.station, a.station), 20))
	a.got(t)
	b.got(t)
	c.got(t)
	in10, in20 := packettest.Tagged(ping(a.station, b.station), 10), packettest.Tagged(ping(a.station, b.station), 20)
	r.send(a, in10, in20)
	b.expect(t, in10)
	c.expect(t, in20)
}

// TestATurnEndsByTheClock: a receiver whose network stack is slow inside our
// write takes few frames a turn, so that others get theirs.
func TestATurnEndsByTheClock(t *testing.T) {
	r := newRig(t)
	a, b := r.add(2), r.add(3)
	r.send(b, ping(b.station, a.station))
	a.got(t)
	b.queue.slow = time.Millisecond
	frames := make([][]byte, 200)
	for i := range frames {
		frames[i] = packettest.ICMPEcho(a.station, b.station, 1, uint16(i), nil)
	}
	var turns []int
	r.on(func() {
		a.queue.inject = frames
		for again := true; again; {
			before := len(a.queue.inject)
			again = a.port.Ready(r.now, 0)
			turns = append(turns, before-len(a.queue.inject))
		}
	})
	for i, n := range turns[1:] { // what it costs is known after the first
		if n > 1 {
			t.Errorf("turn %d took %d frames of a millisecond each", i+1, n)
		}
	}
	if got := b.got(t); len(got) != len(frames) {
		t.Errorf("%d of %d frames arrived", len(got), len(frames))
	}
	b.queue.slow = 0
	// Turns are timed by the real clock, so a busy machine may make one slow.
	lab.Eventually(t, 10*time.Second, func() (err error) {
		r.on(func() {
			a.queue.inject = frames
			for a.port.Ready(r.now, 0) {
			}
			if a.port.batch != packet.BatchFrames && a.port.batch < 16 {
				err = fmt.Errorf("after the receiver recovered %d frames are read at once", a.port.batch)
			}
		})
		b.got(t)
		return err
	})
}
