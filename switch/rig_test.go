package vswitch

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"fairlead/gateway"
	"fairlead/link"
	"fairlead/loop"
	"fairlead/nat"
	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/policy"
	"fairlead/trace"
)

// A rig is a switch on a loop of its own, with a gateway and ports whose other
// ends the test holds. Frames are put in and the port's turn is taken in one
// call on the worker, so nothing happens but what the test says, when it says.
type rig struct {
	t    *testing.T
	loop *loop.Loop
	sw   *Switch
	gw   *gateway.Gateway
	nat  *nat.Table // the gateway's
	now  int64
	ends map[packet.PortID]*end

	recorder *trace.Recorder
	others   []*Switch // of the same lanes

	clock *testClock // nil is the workers' own, see ownClock
}

// An end is the test's side of a port.
type end struct {
	port  *Port
	queue *faulty
	far   *link.Mem
	batch *packet.Batch
	station
}

// A station is who sits at a port.
type station = packettest.Station

// faulty is a memory queue that can be told to refuse what is written, and that
// delivers what no link would: frames shorter than a header.
type faulty struct {
	*link.Mem
	inject [][]byte
	err    error
	slow   time.Duration // a write takes that long, for each frame
	work   time.Duration // and this much of the worker's time, of which clock knows
	clock  *testClock
	takes  link.Offload
	closed chan struct{}
}

func (q *faulty) ReadBatch(b *packet.Batch) (n int, err error) {
	defer func() { q.clock.works(readTime * time.Duration(1+n)) }()
	for ; len(q.inject) > 0 && !b.Full(); n++ {
		b.Add(copy(b.Room(), q.inject[0]))
		q.inject = q.inject[1:]
	}
	if n > 0 {
		return n, nil
	}
	return q.Mem.ReadBatch(b)
}

func (q *faulty) WriteBatch(frames []*packet.Frame) (int, error) {
	if q.err != nil {
		return 0, q.err
	}
	q.clock.sleeps(time.Duration(len(frames)) * q.slow)
	q.clock.works(time.Duration(len(frames)) * q.work)
	return q.Mem.WriteBatch(frames)
}

func (q *faulty) Offload() link.Offload { return q.takes }

func (q *faulty) Close() error {
	close(q.closed)
	return q.Mem.Close()
}

var gatewayAddr = netip.MustParsePrefix("172.17.0.1/16")

func newRig(t *testing.T, change ...func(*Config)) *rig {
	t.Helper()
	l, err := loop.New(1)
	if err != nil {
		t.Fatal(err)
	}
	mac := packet.MACFromIPv4(gatewayAddr.Addr())
	flows := nat.New(nat.Config{})
	router := gateway.NewRouter(flows, l.Grace)
	gw := gateway.New(gateway.Config{Network: 1, Name: "default", MAC: mac, Addr: gatewayAddr, MTU: 1500}, router)
	r := &rig{t: t, loop: l, now: 1e9, ends: make(map[packet.PortID]*end), gw: gw, nat: flows}
	conf := Config{
		ID: 1, Name: "default", MTU: 1500, Gateway: r.gw,
		GatewayAddrs: []packet.Addr{packet.AddrFromNetip(gatewayAddr.Addr())},
	}
	for _, fn := range change {
		fn(&conf)
	}
	r.sw = New(conf, NewLanes(l))
	t.Cleanup(func() {
		r.on(r.checkConservation) // else in the midst of a turn, which counts at its end
		r.sw.Close()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// stationOf is container n of the subnet, n from 2.
func stationOf(n int) station {
	a := netip.AddrFrom4([4]byte{172, 17, byte(n >> 8), byte(n)})
	return station{MAC: packet.MACFromIPv4(a), IP: a}
}

// add gives station n a port.
func (r *rig) add(n int, change ...func(*PortConfig)) *end {
	r.t.Helper()
	near, far := link.NewPair(4 * packet.BatchFrames)
	e := &end{queue: &faulty{Mem: near, clock: r.clock, closed: make(chan struct{})}, far: far, batch: packet.NewBatch(), station: stationOf(n)}
	conf := PortConfig{
		Name: "c", Container: packet.ContainerID(1<<16 | n), Queue: e.queue, FloodLimit: -1,
		Guard: policy.Guard{Strict: true, MAC: e.MAC, Addrs: []packet.Addr{packet.AddrFromNetip(e.IP)}},
	}
	for _, fn := range change {
		fn(&conf)
	}
	port, err := r.sw.AddPort(conf)
	if err != nil {
		r.t.Fatal(err)
	}
	e.port = port
	r.ends[port.ID()] = e
	return e
}

// addHost gives the host its own link.
func (r *rig) addHost(change ...func(*PortConfig)) *end {
	e := r.add(1, append(change, func(c *PortConfig) { c.Host, c.Container = true, packet.Host })...)
	r.gw.SetHost(e.port.ID())
	return e
}

// A testClock is both clocks of a worker in a test: they go on while a queue works, and
// that of the wall while it sleeps. A nil one is the real ones, by which nothing works.
type testClock struct{ wall, thread atomic.Int64 }

// readTime is what a testClock says a call that reads takes, and each frame.
const readTime = time.Microsecond

func (c *testClock) works(d time.Duration) {
	if c != nil {
		c.wall.Add(int64(d))
		c.thread.Add(int64(d))
	}
}

func (c *testClock) sleeps(d time.Duration) {
	if c == nil {
		time.Sleep(d)
	} else {
		c.wall.Add(int64(d))
	}
}

// ownClock gives the rig a testClock. r.now and that of the wall are the same then.
func (r *rig) ownClock() {
	c := new(testClock)
	c.wall.Store(r.now)
	r.on(func() { r.sw.lanes.lanes[0].wall, r.sw.lanes.lanes[0].thread = c.wall.Load, c.thread.Load })
	r.clock = c
}

// on runs fn on the worker.
func (r *rig) on(fn func()) {
	ran := r.loop.Worker(0).Call(func() {
		if r.clock == nil {
			fn()
			return
		}
		r.clock.wall.Store(r.now)
		fn()
		r.now = r.clock.wall.Load()
	})
	if !ran {
		r.t.Fatal("the worker has stopped")
	}
}

// send puts frames into a port and takes the port's turn at time r.now.
func (r *rig) send(e *end, frames ...[]byte) {
	r.t.Helper()
	r.on(func() {
		e.queue.inject = frames
		for e.port.Ready(r.now, 0) {
		}
	})
}

// got reads what has arrived at a far end, copied.
func (e *end) got(t *testing.T) (frames [][]byte) {
	t.Helper()
	for {
		e.batch.Reset()
		n, err := e.far.ReadBatch(e.batch)
		if err != nil && !errors.Is(err, packet.EgressGone) {
			t.Fatal(err)
		}
		if n == 0 {
			return frames
		}
		for i := range e.batch.Frames {
			frames = append(frames, bytes.Clone(e.batch.Frames[i].B))
		}
	}
}

// expect compares what has arrived at a far end.
func (e *end) expect(t *testing.T, frames ...[]byte) {
	t.Helper()
	got := e.got(t)
	if len(got) != len(frames) {
		t.Fatalf("%v got %d frames, want %d", e.MAC, len(got), len(frames))
	}
	for i := range frames {
		if !bytes.Equal(got[i], frames[i]) {
			t.Errorf("%v frame %d:\n got % x\nwant % x", e.MAC, i, got[i], frames[i])
		}
	}
}

// drops is how often a port dropped for a reason.
func (e *end) drops(r packet.Reason) uint64 {
	c := e.port.Counts()
	return c.Dropped[r].N
}

func (r *rig) checkConservation() {
	r.t.Helper()
	for _, p := range r.sw.Ports() {
		c := p.Counts()
		if err := c.CheckIngress(); err != nil {
			r.t.Errorf("port %v: %v", p.ID(), err)
		}
	}
	totals := r.sw.Totals()
	for _, s := range r.others {
		c := s.Totals()
		totals.Add(&c)
	}
	if err := totals.CheckCopies(); err != nil {
		r.t.Error(err)
	}
}

// decide is explain: the path's decision on a frame, without acting on it.
func (r *rig) decide(e *end, b []byte) (d packet.Decision) {
	f := packet.Frame{B: bytes.Clone(b), Time: r.now, Port: e.port.ID()}
	r.on(func() { r.sw.forward(&f, e.port, r.sw.ports.Load(), &d) })
	return d
}

// ping is an echo request between two stations.
func ping(from, to station) []byte { return packettest.ICMPEcho(from, to, 1, 1, []byte("ping")) }

// recorded returns the records of what fn does.
func (r *rig) recorded(fn func()) []trace.Record {
	if r.recorder == nil {
		r.recorder = trace.NewRecorder()
	}
	r.sw.SetRecorder(r.recorder)
	fn()
	r.sw.SetRecorder(nil)
	records, lost := r.recorder.Take(nil)
	if lost > 0 {
		r.t.Fatalf("%d records lost", lost)
	}
	return records
}

var loopback = netip.MustParseAddr("127.0.0.1")

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }
