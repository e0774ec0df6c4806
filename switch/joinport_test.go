//go:build !plain

package vswitch

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"fairlead/link"
	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/trace"
)

// joining is a rig whose ports take trains, and which knows two stations.
func joining(t *testing.T, change ...func(*Config)) (r *rig, in, out *end) {
	r = newRig(t, change...)
	r.sw.SetJoin(true)
	in, out = r.add(2), r.add(3)
	for _, e := range []*end{in, out} {
		e.queue.takes = link.OffloadAll
		r.send(e, packettest.ARPRequest(e.station, gatewayAddr.Addr()))
	}
	in.got(t)
	out.got(t)
	return r, in, out
}

// sameSize are n datagrams of a flow from one end to the other.
func sameSize(in, out *end, n int) (list [][]byte) {
	for i := range n {
		list = append(list, datagramOf(in.station, out.station, 1000, i, 60))
	}
	return list
}

// What is joined counts as what it was, and the counters say what a kernel would
// have counted.
func TestJoinedIsCounted(t *testing.T) {
	r, in, out := joining(t)
	before := out.port.Counts()
	r.send(in, append(sameSize(in, out, 10), ping(in.station, out.station))...)
	got := out.got(t)
	if len(got) != 2 {
		t.Fatalf("%d frames arrived, want a train and a ping", len(got))
	}
	c := out.port.Counts()
	bytes := uint64(len(got[0]) + len(got[1]) - 2*packet.VNetLen)
	if c.Written-before.Written != 11 || c.WrittenSegments-before.WrittenSegments != 11 || c.Joined != 9 ||
		c.WrittenBytes-before.WrittenBytes-c.JoinedBytes != bytes || c.JoinedBytes != 9*42 {
		t.Errorf("%+v, before %+v", c, before)
	}
	total := r.sw.Totals()
	if total.Joined != 9 || total.JoinedBytes != 9*42 {
		t.Errorf("all together %d and %d bytes joined", total.Joined, total.JoinedBytes)
	}
}

// One packet leaves in the turn in which it came, as it came.
func TestJoinLone(t *testing.T) {
	r, in, out := joining(t)
	one := sameSize(in, out, 1)[0]
	r.send(in, one)
	out.expect(t, one)
	r.send(in, one)
	out.expect(t, one)
}

// When a train cannot be written all its frames have failed.
func TestJoinedFails(t *testing.T) {
	r, in, out := joining(t)
	out.queue.err = packet.EgressFull
	r.send(in, append(append(sameSize(in, out, 10), ping(in.station, out.station)), sameSize(in, out, 3)...)...)
	out.expect(t)
	if c := out.port.Counts(); c.Failed[packet.EgressFull].N != 14 || c.Joined != 0 {
		t.Errorf("%d failed, %d joined", c.Failed[packet.EgressFull].N, c.Joined)
	}
}

// A queue that takes one frame, refuses the next, and so on.
type everyOther struct {
	*faulty
	n int
}

func (q *everyOther) WriteBatch(frames []*packet.Frame) (int, error) {
	for i, f := range frames {
		if q.n++; q.n%2 == 0 {
			return i, packet.EgressRefused
		}
		if _, err := q.Mem.WriteBatch([]*packet.Frame{f}); err != nil {
			return i, err
		}
	}
	return len(frames), nil
}

func TestJoinedFailsInBetween(t *testing.T) {
	r, in, _ := joining(t)
	q := &everyOther{n: 1}
	out := r.add(9, func(c *PortConfig) {
		q.faulty = c.Queue.(*faulty)
		q.takes = link.OffloadAll
		c.Queue = q
	})
	r.send(out, packettest.ARPRequest(out.station, gatewayAddr.Addr()))
	out.got(t)
	in.got(t)
	q.n = 0
	var list [][]byte
	for flow := range uint16(5) { // of 2, 3, 4, 5 and 6 datagrams; the second and fourth fail
		for i := range flow + 2 {
			list = append(list, datagramOf(in.station, out.station, flow, int(i), 60))
		}
	}
	before := out.port.Counts()
	r.send(in, list...)
	if got := out.got(t); len(got) != 3 {
		t.Fatalf("%d frames arrived, want three trains", len(got))
	}
	c := out.port.Counts()
	if c.Written-before.Written != 2+4+6 || c.Joined != 1+3+5 || c.Failed[packet.EgressRefused].N-before.Failed[packet.EgressRefused].N != 3+5 {
		t.Errorf("%+v, before %+v", c, before)
	}
}

// A rate counts datagrams: as many get through as if nothing were joined.
func TestJoinedWithinRates(t *testing.T) {
	r, in, _ := joining(t)
	l := new(Limit)
	l.Set(8000, 0)
	out := r.add(9, func(c *PortConfig) { c.Limit = l })
	out.queue.takes = link.OffloadAll
	r.send(out, packettest.ARPRequest(out.station, gatewayAddr.Addr()))
	out.got(t)
	in.got(t)
	plain := r.add(10, func(c *PortConfig) { c.Limit = new(Limit); c.Limit.Set(8000, 0) })
	r.send(plain, packettest.ARPRequest(plain.station, gatewayAddr.Addr()))
	plain.got(t)
	before, beforePlain := out.port.Counts(), plain.port.Counts()
	for _, e := range []*end{out, plain} {
		e.got(t)
		for range 30 {
			var list [][]byte
			for i := range 64 {
				list = append(list, datagramOf(in.station, e.station, 1000, i, 1400))
			}
			r.send(in, list...)
		}
	}
	a, b := out.port.Counts(), plain.port.Counts()
	if a.Failed[packet.RateLimit].N == 0 || a.Failed[packet.RateLimit].N != b.Failed[packet.RateLimit].N ||
		a.Written-before.Written != b.Written-beforePlain.Written || a.WrittenBytes-before.WrittenBytes != b.WrittenBytes-beforePlain.WrittenBytes ||
		a.Joined == 0 || b.Joined != 0 {
		t.Errorf("joined: %d failed, %d joined; not: %d, %d", a.Failed[packet.RateLimit].N, a.Joined, b.Failed[packet.RateLimit].N, b.Joined)
	}
}

// Where packets are to be seen as they are nothing is joined.
func TestJoinNot(t *testing.T) {
	for name, change := range map[string]func(r *rig, out *end){
		"unless it is told to": func(r *rig, _ *end) { r.sw.SetJoin(false) },
		"while traced":         func(r *rig, _ *end) { r.sw.SetRecorder(trace.NewRecorder()) },
		"towards a wire":       func(_ *rig, out *end) { out.queue.takes = 0 },
		"with an old kernel":   func(_ *rig, out *end) { out.queue.takes = link.OffloadTCP },
		"when flooded":         func(r *rig, _ *end) { r.sw.FlushMACs(false) },
	} {
		t.Run(name, func(t *testing.T) {
			r, in, out := joining(t)
			change(r, out)
			list := sameSize(in, out, 10)
			r.send(in, list...)
			out.expect(t, list...)
			if c := out.port.Counts(); c.Joined != 0 {
				t.Errorf("%d joined", c.Joined)
			}
			r.sw.SetRecorder(nil)
		})
	}
	t.Run("of a hub", func(t *testing.T) {
		r, in, out := joining(t, func(c *Config) { c.Hub = true })
		list := sameSize(in, out, 10)
		r.send(in, list...)
		out.expect(t, list...)
	})
}

// What is routed from a network that joins to one that does not, or the other way,
// arrives as it came.
func TestJoinBetweenNetworks(t *testing.T) {
	for _, c := range []struct{ from, to bool }{{true, true}, {true, false}, {false, true}} {
		r, in, _ := joining(t)
		r.sw.SetJoin(c.from)
		other := New(Config{ID: 2, Name: "other", MTU: 1500}, r.sw.lanes)
		other.SetJoin(c.to)
		r.others = append(r.others, other)
		near, far := link.NewPair(packet.BatchFrames)
		port, err := other.AddPort(PortConfig{Name: "c", Queue: &faulty{Mem: near, takes: link.OffloadAll, closed: make(chan struct{})}})
		if err != nil {
			t.Fatal(err)
		}
		// A gateway that passes everything on.
		r.on(func() { r.sw.gateway = passOn{r.gw, packet.Place{Network: 2, Port: port.ID()}} })
		var list [][]byte
		for i := range 5 {
			list = append(list, datagramOf(in.station, station{MAC: r.gw.MAC(), IP: stationOf(9).IP}, 5, i, 50))
		}
		r.send(in, list...)
		batch := packet.NewBatch()
		got, err := far.ReadBatch(batch)
		if want := map[bool]int{true: 1, false: 5}[c.from && c.to]; got != want || err != nil {
			t.Errorf("from %v to %v: %d frames, %v, want %d", c.from, c.to, got, err, want)
		}
		r.on(func() { r.sw.gateway = r.gw })
		other.Close()
	}
}

// Who reads what is for any switch joins nothing unless all of them do.
func TestLanesJoin(t *testing.T) {
	r := newRig(t)
	joins := func(when string, want bool) {
		t.Helper()
		if got := r.sw.lanes.Joins(); got != want {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	joins("a switch that was not told so", false)
	r.sw.SetJoin(true)
	joins("one that was", true)
	r.sw.SetRecorder(trace.NewRecorder())
	joins("while it is traced", false)
	r.sw.SetRecorder(nil)
	joins("when it was", true)
	for name, conf := range map[string]Config{"join=off": {ID: 2, MTU: 1500}, "hub": {ID: 2, MTU: 1500, Hub: true}} {
		other := New(conf, r.sw.lanes)
		other.SetJoin(conf.Hub)
		joins("another one with "+name, false)
		other.SetJoin(true)
		joins("another one that has been with "+name, !conf.Hub)
		other.Close()
		joins("when it is gone", true)
		other.SetRecorder(trace.NewRecorder())
		joins("when it is gone, and traced", true)
	}
	r.sw.SetJoin(false)
	joins("told not to", false)
}

// Datagrams of one flow's addresses and ports that are of two VLANs do not become one
// train on a trunk, and those of one VLAN do, with its tag.
func TestVLANsAreNotJoined(t *testing.T) {
	r := newRig(t)
	from, to := r.add(2, inVLANs(t, "trunk=10,20")), r.add(3, inVLANs(t, "trunk=10,20"))
	r.sw.SetJoin(true)
	to.queue.takes = link.OffloadAll
	for _, vlan := range []uint16{10, 20} {
		r.send(to, packettest.Tagged(packettest.ARPRequest(to.station, from.IP), vlan))
		from.got(t)
	}
	var list [][]byte
	for i := range 20 {
		list = append(list, packettest.Tagged(datagramOf(from.station, to.station, 9, i, 60), uint16(10+10*(i%2))))
	}
	r.send(from, list...)
	var vlans []uint16
	for _, b := range to.got(t) {
		f := packet.Frame{B: b}
		if packet.Parse(&f) != packet.OK {
			t.Fatal("malformed")
		}
		vlans = append(vlans, f.VID())
		for _, p := range packetsOf(&f, make([]byte, packet.MaxFrame)) {
			if !slices.ContainsFunc(list, func(sent []byte) bool { return bytes.Equal(sent[packet.VNetLen:][:18], p[packet.VNetLen:][:18]) }) {
				t.Errorf("a packet nobody sent: % x", p[:40])
			}
		}
	}
	// A frame of another VLAN ends the flow's train, so that it stays in order.
	if c := to.port.Counts(); c.Written != 20 || c.Joined > 18 || !slices.Contains(vlans, 10) || !slices.Contains(vlans, 20) {
		t.Errorf("%d written, %d joined: %v", c.Written, c.Joined, vlans)
	}
	// A turn that lost its processor may end between two of them.
	for tries := 0; ; tries++ {
		r.send(from, list[0], list[2], list[4], list[6])
		got := to.got(t)
		if len(got) == 1 && to.port.Counts().Joined >= 3 {
			return
		}
		if tries == 100 {
			t.Fatalf("four of one VLAN came as %d frames", len(got))
		}
	}
}

// passOn is a gateway that has everything leave at one place.
type passOn struct {
	Gateway
	to packet.Place
}

func (g passOn) Route(_ *packet.Frame, d *packet.Decision) {
	d.Verdict, d.Routed, d.Egress = packet.Unicast, true, g.to
}

func (passOn) Apply(*packet.Frame, *packet.Decision, packet.Out) {}

// BenchmarkDeliver takes batches of 64 small frames to a queue that does nothing, as
// one flow and as 64, joined and not: what joining itself costs, for each frame.
func BenchmarkDeliver(b *testing.B) {
	from, to := stationOf(2), stationOf(3)
	for _, flows := range []int{1, 64} {
		list := make([][]byte, packet.BatchFrames)
		for i := range list {
			list[i] = datagramOf(from, to, uint16(i%flows), i, 60)
		}
		frames := readFrom(b, list...)
		for name, o := range map[string]link.Offload{"joined": link.OffloadAll, "not": 0} {
			b.Run(fmt.Sprintf("flows=%d/%s", flows, name), func(b *testing.B) {
				ln := &lane{joins: true, joiner: newJoiner(), clocks: newClocks()}
				p := &Port{conf: PortConfig{Queue: nowhere{}}, sw: &Switch{}}
				if p.sw.join.Store(true); o != 0 {
					p.offloads = takesAll{}
				}
				b.ReportAllocs()
				for b.Loop() {
					p.deliver(ln, frames)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(frames)), "ns/frame")
			})
		}
	}
}

type takesAll struct{}

func (takesAll) Offload() link.Offload { return link.OffloadAll }
