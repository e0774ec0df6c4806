package vswitch

import (
	"fmt"
	"sync/atomic"

	"fairlead/packet"
)

// counters are one port's. The home worker writes the ingress side, any worker
// the egress side; they are read while running, so every word is atomic.
type counters struct {
	read, readBytes, readSegments          atomic.Uint64
	unicast, flooded, fanout, gateway      atomic.Uint64
	originated, held, resumed, split       atomic.Uint64
	written, writtenBytes, writtenSegments atomic.Uint64
	joined, joinedBytes, paused            atomic.Uint64
	dropped, failed                        [packet.NumReasons]tally
}

// A tally counts one reason and remembers when it last came up.
type tally struct {
	n    atomic.Uint64
	last atomic.Int64
}

func (t *tally) add(now int64) {
	t.n.Add(1)
	t.last.Store(now)
}

func (c *counters) drop(r packet.Reason, now int64) { c.dropped[r].add(now) }
func (c *counters) fail(r packet.Reason, now int64) { c.failed[r].add(now) }

// wrote counts a batch in one go, so that its cost does not grow with it.
func (c *counters) wrote(frames []*packet.Frame) {
	if len(frames) == 0 {
		return
	}
	var bytes, segments int
	for _, f := range frames {
		bytes += f.Len()
		segments += f.Segments()
	}
	c.written.Add(uint64(len(frames)))
	c.writtenBytes.Add(uint64(bytes))
	c.writtenSegments.Add(uint64(segments))
}

// wroteTrains adds to what wrote has counted the frames that went along in another's
// train.
func (c *counters) wroteTrains(trains []train) {
	var frames, bytes int
	for i := range trains {
		t := &trains[i]
		frames += int(t.frames) - 1
		bytes += (int(t.frames) - 1) * t.headers
	}
	c.written.Add(uint64(frames))
	c.writtenBytes.Add(uint64(bytes))
	c.joined.Add(uint64(frames))
	c.joinedBytes.Add(uint64(bytes))
}

// Counts are a port's counters at one moment, in frames as read and written; a
// segmentation-offload frame is one frame of several segments.
type Counts struct {
	Read         uint64 `json:"read"`
	ReadBytes    uint64 `json:"read_bytes"`
	ReadSegments uint64 `json:"read_segments"`

	Unicast    uint64 `json:"unicast"`
	Flooded    uint64 `json:"flooded"`
	Fanout     uint64 `json:"fanout"` // copies made of flooded frames
	Gateway    uint64 `json:"gateway"`
	Held       uint64 `json:"held"`       // times a frame had to wait
	Resumed    uint64 `json:"resumed"`    // held frames that were decided on again
	Originated uint64 `json:"originated"` // frames the gateway made because of this port's
	Split      uint64 `json:"split"`      // pieces more than packets, where packets were cut into fragments

	Written         uint64 `json:"written"`
	WrittenBytes    uint64 `json:"written_bytes"`
	WrittenSegments uint64 `json:"written_segments"`

	// Of those written, what the other end has not seen as frames: how many went along
	// in another's train, and their headers, which did not. Written less Joined is what
	// a kernel counts there.
	Joined      uint64 `json:"joined"`
	JoinedBytes uint64 `json:"joined_bytes"`

	// Paused is how often the port was not read for a while: its container had sent more
	// than its rate, or it had had its share of a worker's time.
	Paused uint64 `json:"paused"`

	Dropped [packet.NumReasons]packet.Tally `json:"-"`
	Failed  [packet.NumReasons]packet.Tally `json:"-"`
}

// load reads the counters.
func (c *counters) load() Counts {
	r := Counts{
		Read: c.read.Load(), ReadBytes: c.readBytes.Load(), ReadSegments: c.readSegments.Load(),
		Unicast: c.unicast.Load(), Flooded: c.flooded.Load(), Fanout: c.fanout.Load(),
		Gateway: c.gateway.Load(), Originated: c.originated.Load(),
		Held: c.held.Load(), Resumed: c.resumed.Load(), Split: c.split.Load(),
		Written: c.written.Load(), WrittenBytes: c.writtenBytes.Load(), WrittenSegments: c.writtenSegments.Load(),
		Joined: c.joined.Load(), JoinedBytes: c.joinedBytes.Load(), Paused: c.paused.Load(),
	}
	for i := range c.dropped {
		r.Dropped[i] = packet.Tally{N: c.dropped[i].n.Load(), Last: c.dropped[i].last.Load()}
		r.Failed[i] = packet.Tally{N: c.failed[i].n.Load(), Last: c.failed[i].last.Load()}
	}
	return r
}

// Add sums two ports' counters.
func (c *Counts) Add(o *Counts) {
	c.Read += o.Read
	c.ReadBytes += o.ReadBytes
	c.ReadSegments += o.ReadSegments
	c.Unicast += o.Unicast
	c.Flooded += o.Flooded
	c.Fanout += o.Fanout
	c.Gateway += o.Gateway
	c.Held += o.Held
	c.Resumed += o.Resumed
	c.Originated += o.Originated
	c.Split += o.Split
	c.Written += o.Written
	c.WrittenBytes += o.WrittenBytes
	c.WrittenSegments += o.WrittenSegments
	c.Joined += o.Joined
	c.JoinedBytes += o.JoinedBytes
	c.Paused += o.Paused
	for i := range c.Dropped {
		c.Dropped[i].Add(o.Dropped[i].N, o.Dropped[i].Last)
		c.Failed[i].Add(o.Failed[i].N, o.Failed[i].Last)
	}
}

// sum adds up a table of tallies.
func sum(ts *[packet.NumReasons]packet.Tally) (n uint64) {
	for i := range ts {
		n += ts[i].N
	}
	return n
}

// CheckIngress holds one port's counters against the ingress half of the
// conservation law.
func (c *Counts) CheckIngress() error {
	in, out := c.Read+c.Resumed, c.Unicast+c.Flooded+c.Gateway+c.Held+sum(&c.Dropped)
	if in != out {
		return fmt.Errorf("conservation, ingress: read %d + resumed %d != unicast %d + flooded %d + gateway %d + held %d + dropped %d",
			c.Read, c.Resumed, c.Unicast, c.Flooded, c.Gateway, c.Held, sum(&c.Dropped))
	}
	return nil
}

// CheckCopies holds the sum over all ports of all switches that share their
// lanes, removed ones included, against the copies half. A routed frame is
// counted where it was read and where it was written.
func (c *Counts) CheckCopies() error {
	if in, out := c.Unicast+c.Fanout+c.Originated+c.Split, c.Written+sum(&c.Failed); in != out {
		return fmt.Errorf("conservation, copies: unicast %d + fan-out %d + originated %d + split %d != written %d + failed %d",
			c.Unicast, c.Fanout, c.Originated, c.Split, c.Written, sum(&c.Failed))
	}
	return nil
}

// CheckHold holds the same sum against the number of frames that are held.
func (c *Counts) CheckHold(holding int) error {
	if c.Held != c.Resumed+uint64(holding) {
		return fmt.Errorf("conservation, hold: held %d != resumed %d + holding %d", c.Held, c.Resumed, holding)
	}
	return nil
}
