package vswitch

import (
	"testing"
	"time"

	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/policy"
)

// mbit is a rate of n of them.
func mbit(n int) policy.Bandwidth { return policy.Bandwidth(n) * 1_000_000 }

// known has the switch know who is at some ports.
func (r *rig) known(ends ...*end) {
	for _, e := range ends {
		r.send(e, packettest.ARPRequest(e.station, gatewayAddr.Addr()))
	}
	for _, e := range r.ends {
		e.got(r.t)
	}
}

// What a container is sent beyond its rate is dropped, whoever sends it, and
// counted at its port.
func TestLimitIn(t *testing.T) {
	r := newRig(t)
	limit := &Limit{}
	in, out := r.add(2), r.add(3, func(c *PortConfig) { c.Limit = limit })
	other := r.add(4, func(c *PortConfig) { c.Limit = limit }) // another port of the same container
	r.known(in, out, other)
	b := packettest.UDP(in.station, out.station, 1, 2, make([]byte, 1000))
	toOther := packettest.UDP(in.station, other.station, 1, 2, make([]byte, 1000))
	size := len(b) - packet.VNetLen
	limit.Set(mbit(8), 0) // a megabyte a second
	burst := int(burstIn.Seconds() * 1e6)
	sent, got, arrived := 0, 0, 0
	pass := func(d time.Duration, atLeast, atMost int) {
		t.Helper()
		r.now += int64(d)
		got = 0
		for range atMost/size + 2*packet.BatchFrames {
			frame, to := b, out
			if sent++; sent%2 == 0 {
				frame, to = toOther, other
			}
			r.send(in, frame)
			got += len(to.got(t)) * size
		}
		arrived += got / size
		if got < atLeast || got > atMost {
			t.Errorf("%d bytes after %v, want from %d to %d", got, d, atLeast, atMost)
		}
	}
	pass(time.Second, burst-size, burst+size)
	pass(0, 0, 0)
	pass(100*time.Millisecond, 100_000-size, 100_000+size)
	failed := out.port.Counts().Failed[packet.RateLimit].N + other.port.Counts().Failed[packet.RateLimit].N
	if failed == 0 || int(failed) != sent-arrived {
		t.Errorf("%d of %d arrived, %d were dropped", arrived, sent, failed)
	}
	limit.Set(mbit(8), mbit(1)) // the same: nothing is forgiven
	pass(0, 0, 0)
	limit.Set(0, 0)
	r.send(in, b)
	if len(out.got(t)) != 1 {
		t.Error("without a rate it gets nothing")
	}
}

// A port whose container has sent too much is not read, and read on later; so
// nothing is lost.
func TestLimitOut(t *testing.T) {
	r := newRig(t)
	limit := &Limit{}
	in, out := r.add(2, func(c *PortConfig) { c.Limit = limit }), r.add(3)
	r.known(in, out)
	r.on(func() { r.now = r.loop.Worker(0).Now() })
	limit.Set(0, mbit(8))
	b := packettest.UDP(in.station, out.station, 1, 2, make([]byte, 1000))
	frames := make([][]byte, 300)
	for i := range frames {
		frames[i] = b
	}
	first := 0
	r.on(func() { // nothing else comes between
		in.queue.inject = frames
		for in.port.Ready(r.now, 0) {
		}
		first = len(out.got(t))
	})
	if burst := leastBurstOut / len(b); first < burst || first > burst+2*packet.BatchFrames {
		t.Errorf("%d frames at once", first)
	}
	// The rest comes by itself, the worker's clock being what it is.
	for deadline := time.Now().Add(10 * time.Second); first < len(frames) && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		first += len(out.got(t))
	}
	r.on(func() {}) // the turn is over that read the last
	if c := in.port.Counts(); first != len(frames) || c.Read != uint64(len(frames))+1 {
		t.Errorf("%d of %d frames came, %d were read", first, len(frames), c.Read)
	}
}

// A train counts with each packet's headers, sent or received, as if its packets
// came one by one.
func TestLimitCountsTrains(t *testing.T) {
	r := newRig(t)
	limit := &Limit{}
	in, out := r.add(2), r.add(3, func(c *PortConfig) { c.Limit = limit })
	r.known(in, out)
	const packets, size = 64, 18
	wire := packets * (size + packet.EthernetLen + packet.IPv4MinLen + packet.UDPLen)
	train := packettest.GSO(packettest.UDP(in.station, out.station, 1, 2, make([]byte, packets*size)), size)

	limit.Set(mbit(8), 0) // a megabyte a second
	burst, got := int(burstIn.Seconds()*1e6), 0
	for out.port.Counts().Failed[packet.RateLimit].N == 0 {
		if r.send(in, train); got > 2*burst/wire {
			break
		}
		got += len(out.got(t))
	}
	if got*wire < burst-wire || got*wire > burst+wire {
		t.Errorf("%d trains of %d bytes were received, want %d bytes", got, wire, burst)
	}

	limit.Set(0, mbit(8))
	frames := make([]packet.Frame, 100)
	for i := range frames {
		frames[i] = *readFrom(t, train)[0]
	}
	now := int64(time.Hour)
	limit.sent(now, len(frames)*frames[0].Len(), frames)
	want := time.Duration(len(frames)*wire-leastBurstOut) * time.Microsecond
	if debt := limit.debt(now); debt < want || debt > want+time.Microsecond {
		t.Errorf("who has sent them waits for %v, want %v", debt, want)
	}
}

// Whose rate is taken away while he waits is read soon.
func TestLimitOutTakenAway(t *testing.T) {
	r := newRig(t)
	limit := &Limit{}
	in, out := r.add(2, func(c *PortConfig) { c.Limit = limit }), r.add(3)
	r.known(in, out)
	r.on(func() { r.now = r.loop.Worker(0).Now() })
	limit.Set(0, 8000) // a kilobyte a second: a minute for what follows
	b := packettest.UDP(in.station, out.station, 1, 2, make([]byte, 1000))
	frames := make([][]byte, 2*packet.BatchFrames)
	for i := range frames {
		frames[i] = b
	}
	r.send(in, frames...)
	if n := len(out.got(t)); n >= len(frames) {
		t.Fatalf("%d frames at once", n)
	}
	r.on(func() { in.queue.inject = nil })
	if _, err := in.far.WriteBatch([]*packet.Frame{{B: b}}); err != nil || len(out.got(t)) != 0 {
		t.Fatal("a frame came in debt: ", err)
	}
	limit.Set(0, 0)
	for deadline := time.Now().Add(10 * time.Second); len(out.got(t)) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is not read any more")
		}
	}
}
