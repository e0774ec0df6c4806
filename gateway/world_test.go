package gateway

import (
	"bytes"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"fairlead/arp"
	queues "fairlead/link"
	"fairlead/loop"
	"fairlead/nat"
	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/policy"
	vswitch "fairlead/switch"
	"fairlead/trace"
)

// A world is networks and uplinks on real switches of one worker, with a
// station at the far end of every port. Nothing happens in it but what the test
// says: frames are put in and the port's turn is taken in one call, and its
// time is so far ahead of the worker's clock that no timer ever fires.
type world struct {
	t      *testing.T
	loop   *loop.Loop
	lanes  *vswitch.Lanes
	router *Router
	sides  []*side
	ends   []*end
	now    int64
	hub    bool // what is added from now on is a hub
	plain  bool // nothing is prefetched

	recorder *trace.Recorder
}

// A side is a network or an uplink: what a switch has for its gateway. It hands
// frames on and keeps hold of the Out they come with, so that Tick and Resume
// can be part of a turn.
type side struct {
	vswitch.Gateway
	w       *world
	network packet.NetworkID
	sw      *vswitch.Switch
	within  func(now int64, out packet.Out) // once, after the next frame was applied
}

// Prefetch does it for every batch, however few flows there are.
func (s *side) Prefetch(frames []packet.Frame) {
	if !s.w.plain {
		s.w.router.prefetch(s.network, s.MAC(), frames)
	}
}

func (s *side) Apply(f *packet.Frame, d *packet.Decision, out packet.Out) {
	s.Gateway.Apply(f, d, out)
	if fn := s.within; fn != nil {
		s.within = nil
		fn(f.Time, out)
	}
}

// An end is the far end of a port.
type end struct {
	station
	side  *side
	port  *vswitch.Port
	queue *injected
	far   *queues.Mem
	batch *packet.Batch
}

// injected is a memory queue that delivers what it is told.
type injected struct {
	*queues.Mem
	frames [][]byte
}

func (q *injected) ReadBatch(b *packet.Batch) (n int, err error) {
	for ; len(q.frames) > 0 && !b.Full(); n++ {
		b.Add(copy(b.Room(), q.frames[0]))
		q.frames = q.frames[1:]
	}
	return n, nil
}

func newWorld(t *testing.T, flows nat.Config) *world { return newWorldOf(t, 1, flows) }

// newWorldOf is a world whose ports are dealt out to several workers.
func newWorldOf(t *testing.T, workers int, flows nat.Config) *world {
	l, err := loop.New(workers)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, loop: l, lanes: vswitch.NewLanes(l), now: loop.Clock() + int64(1e6*time.Second), recorder: trace.NewRecorder()}
	if flows.Seed == 0 {
		flows.Seed = 1
	}
	w.router = NewRouter(nat.New(flows), l.Grace)
	t.Cleanup(func() {
		w.checkConservation()
		for _, s := range w.sides {
			s.sw.Close()
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// addNetwork joins a network of containers; gateway is its address and length.
func (w *world) addNetwork(n packet.NetworkID, gateway string, mtu int, uplinks ...Uplink) *side {
	p := netip.MustParsePrefix(gateway)
	g := New(Config{Network: n, Name: "net", MAC: packet.MACFromIPv4(p.Addr()), Addr: p, MTU: mtu}, w.router)
	g.SetUplinks(uplinks)
	return w.addSide(n, g, mtu, packet.AddrFromNetip(p.Addr()))
}

func (w *world) addSide(n packet.NetworkID, g vswitch.Gateway, mtu int, own ...packet.Addr) *side {
	s := &side{Gateway: g, w: w, network: n}
	s.sw = vswitch.New(vswitch.Config{ID: n, Name: "side", MTU: mtu, Gateway: s, GatewayAddrs: own, Hub: w.hub}, w.lanes)
	w.sides = append(w.sides, s)
	return s
}

// attach puts a station on a side. Of an uplink's segment it is everybody there.
func (w *world) attach(s *side, ip string) *end { return w.attachAs(s, ip, vswitch.PortConfig{}) }

// attachHost gives the host a link to a network.
func (w *world) attachHost(s *side) *end {
	e := w.attachAs(s, netAddr(s).String(), vswitch.PortConfig{Host: true, Container: packet.Host})
	s.Gateway.(*Gateway).SetHost(e.port.ID())
	return e
}

func (w *world) attachAs(s *side, ip string, conf vswitch.PortConfig) *end {
	w.t.Helper()
	near, far := queues.NewPair(2 * packet.BatchFrames)
	e := &end{station: stationAt(ip), side: s, queue: &injected{Mem: near}, far: far, batch: packet.NewBatch()}
	conf.Name, conf.Queue, conf.FloodLimit, conf.Worker = ip, e.queue, -1, len(w.ends)%w.loop.NumWorkers()
	u, ok := s.Gateway.(interface{ setPort(packet.PortID) })
	if !ok && !conf.Host {
		conf.Container = packet.ContainerID(1<<16 | len(w.ends) + 1)
		conf.Guard = policy.Guard{Strict: true, MAC: e.MAC, Addrs: []packet.Addr{addrOf(e.station)}}
	}
	_, conf.Guard.Trusted = s.Gateway.(*hostSegment)
	port, err := s.sw.AddPort(conf)
	if err != nil {
		w.t.Fatal(err)
	}
	e.port = port
	if ok {
		u.setPort(port.ID())
	}
	w.ends = append(w.ends, e)
	return e
}

// on runs fn on the first worker.
func (w *world) on(fn func()) {
	if !w.loop.Worker(0).Call(fn) {
		w.t.Fatal("the worker has stopped")
	}
}

// turn has a port's worker read frames at time now.
func (e *end) turn(now int64, frames [][]byte) {
	e.side.w.loop.Worker(e.port.Config().Worker).Call(func() {
		e.queue.frames = frames
		for e.port.Ready(now, 0) {
		}
	})
}

// send puts frames into a port and takes its turn. It returns what was decided.
func (w *world) send(e *end, frames ...[]byte) []trace.Record {
	for _, s := range w.sides {
		s.sw.SetRecorder(w.recorder)
	}
	e.turn(w.now, frames)
	records, lost := w.recorder.Take(nil)
	if lost > 0 {
		w.t.Fatalf("%d records lost", lost)
	}
	return records
}

// within does fn as part of a turn of a side's first port, in which nothing else
// happens.
func (w *world) within(s *side, fn func(now int64, out packet.Out)) []trace.Record {
	s.within = fn
	for _, e := range w.ends {
		if e.side == s {
			return w.send(e, packettest.Ethernet(e.MAC, s.MAC(), 0x88b5, make([]byte, 46)))[1:]
		}
	}
	w.t.Fatal("nobody is there")
	return nil
}

// tick has all gateways do what is due.
func (w *world) tick() (records []trace.Record) {
	for _, s := range w.sides {
		records = append(records, w.within(s, s.Tick)...)
	}
	done := make(chan struct{}) // what ended is recycled
	w.loop.Grace(func() { close(done) })
	<-done
	return records
}

// got reads what has arrived at a far end, copied.
func (e *end) got() (frames [][]byte) {
	for {
		e.batch.Reset()
		n, _ := e.far.ReadBatch(e.batch)
		if n == 0 {
			return frames
		}
		for i := range e.batch.Frames {
			frames = append(frames, bytes.Clone(e.batch.Frames[i].B))
		}
	}
}

// drain takes what has arrived at all far ends away.
func (w *world) drain() {
	for _, e := range w.ends {
		for {
			e.batch.Reset()
			if n, _ := e.far.ReadBatch(e.batch); n == 0 {
				break
			}
		}
	}
}

// checkConservation holds the law against every port and the whole node.
func (w *world) checkConservation() {
	var total vswitch.Counts
	for _, s := range w.sides {
		for _, p := range s.sw.Ports() {
			c := p.Counts()
			if err := c.CheckIngress(); err != nil {
				w.t.Errorf("port %s: %v", p.Config().Name, err)
			}
		}
		c := s.sw.Totals()
		total.Add(&c)
	}
	if err := total.CheckCopies(); err != nil {
		w.t.Error(err)
	}
	if err := total.CheckHold(w.lanes.Holding()); err != nil {
		w.t.Error(err)
	}
}

// A segment is a small uplink: an address, a neighbour table, one port.
type segment struct {
	network packet.NetworkID
	mac     packet.MAC
	mtu     int
	addr    netip.Prefix // zero while there is none
	extra   []packet.Addr
	nextHop packet.Addr
	routes  []netip.Prefix
	port    packet.PortID
	inbound *Inbound

	mu         sync.Mutex
	neighbours *arp.Table
}

// addUplink joins an uplink with an address, or without one if addr is empty.
func (w *world) addUplink(n packet.NetworkID, addr, nextHop string, mtu int, routes ...string) (*segment, *side) {
	u := &segment{network: n, mtu: mtu, inbound: w.router.Inbound(n), neighbours: arp.NewTable(), mac: packet.MAC{2, 9, 9, 9, 9, byte(n)}}
	if addr != "" {
		u.addr = netip.MustParsePrefix(addr)
		u.nextHop = packet.AddrFromNetip(netip.MustParseAddr(nextHop))
	}
	for _, r := range routes {
		u.routes = append(u.routes, netip.MustParsePrefix(r))
	}
	w.router.PlugUplink(u)
	return u, w.addSide(n, u, mtu)
}

func (u *segment) setPort(p packet.PortID) { u.port = p }

func (u *segment) Network() packet.NetworkID { return u.network }
func (u *segment) Name() string              { return "uplink" }
func (u *segment) MTU() int                  { return u.mtu }
func (u *segment) MAC() packet.MAC           { return u.mac }
func (u *segment) Addr() packet.Addr         { return packet.AddrFromNetip(u.addr.Addr()) }
func (u *segment) Owns(a packet.Addr) bool {
	return u.addr.IsValid() && (a == u.Addr() || slices.Contains(u.extra, a))
}
func (u *segment) Subnet() netip.Prefix   { return u.addr.Masked() }
func (u *segment) NextHop() packet.Addr   { return u.nextHop }
func (u *segment) Routes() []netip.Prefix { return u.routes }

func (u *segment) Resolve(f *packet.Frame, hop packet.Addr, d *packet.Decision) {
	addr := [4]byte(hop[12:])
	u.mu.Lock()
	e, state := u.neighbours.Resolve(f.Time, addr)
	u.mu.Unlock()
	switch {
	case state <= arp.Permanent:
		d.SrcMAC, d.DstMAC, d.Egress = u.mac, e.MAC, packet.Place{Network: u.network, Port: u.port}
	case state == arp.Failed:
		d.Refuse(packet.HostUnreachable)
	case d.Verdict != packet.Flood:
		d.Verdict, d.Reason, d.HoldKey = packet.Hold, packet.NextHop, packet.ARPKey(u.network, addr)
	}
	if state == arp.Stale || state == arp.Unknown {
		d.Originate, d.To = packet.OriginARPRequest, packet.Place{Network: u.network, Port: u.port}
	}
}

func (u *segment) Ask(f *packet.Frame, d *packet.Decision, out packet.Out) {
	addr := [4]byte(d.NextHop[12:])
	u.mu.Lock()
	next, ok := u.neighbours.Asked(f.Time, addr, f.Container)
	u.mu.Unlock()
	if ok {
		u.ask(addr, out)
		out.Wake(u.network, next)
	}
}

func (u *segment) ask(addr [4]byte, out packet.Out) {
	n := arp.Request(out.Room(), u.mac, u.addr.Addr().As4(), addr)
	out.Originate(packet.Place{Network: u.network, Port: u.port}, n)
}

// Prefetch, Route, Apply, Tick and FlushPort are vswitch.Gateway.
func (u *segment) Prefetch([]packet.Frame) {}

func (u *segment) Route(f *packet.Frame, d *packet.Decision) {
	switch {
	case f.EtherType == packet.EtherTypeARP:
		d.Neighbour = true
		d.EndAtGateway()
	case f.EtherType == packet.EtherTypeIPv4 && packet.Ethernet(f.Ether()).Dst() == u.mac:
		u.inbound.Route(f, d)
	default:
		d.RefuseCopy(packet.NotUnderstood)
	}
}

func (u *segment) Apply(f *packet.Frame, d *packet.Decision, out packet.Out) {
	if !d.Neighbour {
		u.inbound.Apply(f, d, out)
		return
	}
	a := packet.ARP(f.Ether()[f.L3:])
	u.mu.Lock()
	waited := u.neighbours.Learn(arp.Entry{Addr: a.SenderIP(), MAC: a.SenderMAC(), Port: f.Port, Seen: f.Time})
	u.mu.Unlock()
	if waited {
		out.Resume(packet.ARPKey(u.network, a.SenderIP()))
	}
}

func (u *segment) Tick(now int64, out packet.Out) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.neighbours.Tick(now, func(a [4]byte) { u.ask(a, out) },
		func(a [4]byte) { out.Resume(packet.ARPKey(u.network, a)) })
}

func (u *segment) FlushPort(packet.PortID) {}
