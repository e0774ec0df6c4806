package vswitch

import (
	"testing"
	"time"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

const udpHeaders = packet.EthernetLen + packet.IPv4MinLen + packet.UDPLen

// A port's turn ends with so many frames, so many bytes, or so much time, whichever
// comes first, and the port asks for another.
func TestTurnEnds(t *testing.T) {
	for name, c := range map[string]struct {
		payload int
		work    time.Duration // for each frame
		want    int           // frames
	}{
		"frames": {100, 0, turnFrames},
		"bytes":  {60_000, 0, turnBytes/(udpHeaders+60_000) + 1},
		// The turn before has taught the port to look at the clock behind each second one.
		"time": {100, time.Duration(turnTime) * 2 / 5, 4},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.ownClock()
			in, out := r.add(2), r.add(3)
			r.known(in, out)
			out.queue.work = c.work
			one := packettest.UDP(in.station, out.station, 9, 9, make([]byte, c.payload))
			if c.payload > 1500 {
				one = packettest.GSO(one, 1400)
			}
			frames := make([][]byte, packet.BatchFrames+1)
			for i := range frames {
				frames[i] = one
			}
			r.send(in, frames...)
			before := in.port.Counts()
			again := false
			r.on(func() {
				in.queue.inject = frames
				again = in.port.Ready(r.now, 0)
				in.queue.inject = nil
			})
			if n := in.port.Counts().Read - before.Read; int(n) != c.want || !again {
				t.Errorf("%d frames were read, want %d; the port asks for another turn: %v", n, c.want, again)
			}
		})
	}
}

// A turn that moves much costs the worker points for staying awake (loop.Worker.Bulk),
// one of a batch of small frames does not.
func TestTurnOfBulk(t *testing.T) {
	r := newRig(t)
	r.ownClock() // by which 64 frames are no long turn
	in, out := r.add(2), r.add(3)
	r.known(in, out)
	told := 0
	r.on(func() { r.sw.lanes.lanes[0].bulk = func() { told++ } })
	for _, c := range []struct{ frames, length, want int }{
		{1, bulk, 0}, {1, bulk + 1, 1}, {packet.BatchFrames, 60, 0}, {packet.BatchFrames, 1000, 1},
	} {
		one := packettest.UDP(in.station, out.station, 9, 9, make([]byte, c.length-udpHeaders))
		if c.length > 1500 {
			one = packettest.GSO(one, 1400)
		}
		var frames [][]byte
		for range c.frames {
			frames = append(frames, one)
		}
		told = 0
		r.on(func() {
			in.queue.inject = frames
			in.port.Ready(r.now, 0)
		})
		if told != c.want {
			t.Errorf("a turn of %d frames of %d bytes: the worker is told %d times, want %d", c.frames, c.length, told, c.want)
		}
	}
	if n := in.port.Counts().Unicast; n != 2+2*packet.BatchFrames {
		t.Errorf("%d frames went on", n)
	}
}
