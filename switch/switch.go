package vswitch

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/link"
	"fairlead/loop"
	"fairlead/packet"
	"fairlead/policy"
	"fairlead/trace"
)

// maxPorts is what the 16-bit index of a PortID can name, without zero.
const maxPorts = 1<<16 - 1

// Config says what a new switch is. It does not change afterwards.
type Config struct {
	ID   packet.NetworkID
	Name string // of the network, for people
	MTU  int    // of the segment, in bytes of network packet

	// Gateway is step 5; nil when the segment has none.
	Gateway Gateway
	// GatewayAddrs are the addresses no port may claim.
	GatewayAddrs []packet.Addr

	Ageing time.Duration // of the MAC table; zero is DefaultAgeing
	Hub    bool          // flood everything, learn nothing

	// LoopGuard has ports that are joined behind the switch's back looked for, and one
	// of them blocked; see loopGuard. It takes a Gateway. LoopFound is told of it, on a
	// worker, and must not block; nil is nobody.
	LoopGuard bool
	LoopFound func(Loop)

	// SlowFound is told of a receiver that took more than a second for one delivery, on
	// a worker, and must not block; nil is nobody.
	SlowFound func(Slow)
}

// Lanes are what the workers of one loop carry along. All switches of a loop
// share them.
type Lanes struct {
	loop  *loop.Loop
	lanes []*lane
	holds holdQueue
	apart atomic.Int32 // switches that join nothing now; see Joins

	mu       sync.Mutex                // serialises the replacing of switches, and what settles apart
	switches atomic.Pointer[[]*Switch] // by the low bits of their NetworkID
}

// maxNetworks bounds the NetworkIDs of switches that share lanes.
const maxNetworks = 1 << 16

// NewLanes prepares one lane for each worker of l.
func NewLanes(l *loop.Loop) *Lanes {
	ls := &Lanes{loop: l}
	for range l.NumWorkers() {
		ls.lanes = append(ls.lanes, newLane(ls, len(ls.lanes)))
	}
	ls.switches.Store(&[]*Switch{})
	return ls
}

// network returns the switch of a network, nil when it is gone.
func (ls *Lanes) network(n packet.NetworkID) *Switch {
	if list := *ls.switches.Load(); int(n) < len(list) {
		return list[n]
	}
	return nil
}

// find returns a port of any network, nil when it is gone.
func (ls *Lanes) find(at packet.Place) *Port {
	if s := ls.network(at.Network); s != nil {
		return s.ports.Load().find(at.Port)
	}
	return nil
}

// set publishes a switch, or with nil takes one out.
func (ls *Lanes) set(n packet.NetworkID, s *Switch) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	old := *ls.switches.Load()
	list := make([]*Switch, max(len(old), int(n)+1))
	copy(list, old)
	was := list[n]
	list[n] = s
	ls.switches.Store(&list)
	ls.settleLocked(was)
	ls.settleLocked(s)
}

// Joins reports whether all switches join frames now (Switch.SetJoin). It is for who
// reads what is for any of them. Any goroutine may ask.
func (ls *Lanes) Joins() bool { return ls.apart.Load() == 0 }

// settle has Joins say what is so now, after a switch was told something. It takes no
// longer where there are more switches: a recorder is told to each of thousands.
func (ls *Lanes) settle(s *Switch) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.settleLocked(s)
}

// settleLocked counts a switch, nil is none, unless it has been taken out.
func (ls *Lanes) settleLocked(s *Switch) {
	if s == nil {
		return
	}
	apart := !s.joins() && ls.network(s.conf.ID) == s
	switch {
	case apart && !s.apart:
		ls.apart.Add(1)
	case s.apart && !apart:
		ls.apart.Add(-1)
	}
	s.apart = apart
}

// Grace calls fn once every worker has passed a whole turn since.
func (ls *Lanes) Grace(fn func()) { ls.loop.Grace(fn) }

// Holding is how many frames wait for something on the whole node.
func (ls *Lanes) Holding() int { return ls.holds.holding() }

// Worker is the one whose index Home gives.
func (ls *Lanes) Worker(i int) *loop.Worker { return ls.loop.Worker(i) }

// Home is the index of the worker a container's ports are read by: all of one
// container's traffic stays with one worker.
func (ls *Lanes) Home(c packet.ContainerID) int { return int(c&0xffff) % len(ls.lanes) }

// A Switch is one L2 segment.
type Switch struct {
	conf    Config
	hub     bool
	mtu     int
	gateway Gateway
	lanes   *Lanes
	macs    *macTable
	loops   *loopGuard // nil is none

	// Snapshots: replaced whole, never changed.
	ports    atomic.Pointer[portTable]
	bound    policy.Bound // what its ports are held to; followed where one is outside
	recorder atomic.Pointer[trace.Recorder]

	own    counters    // of frames the gateway made by itself
	ticker *loop.Timer // of the gateway's Tick; on worker 0 only, as is due
	due    int64       // when it fires; 0 is never
	closed atomic.Bool
	join   atomic.Bool // small frames of a flow may be joined
	apart  bool        // counted in lanes.apart; lanes.mu guards it

	changing sync.Mutex // serialises AddPort and RemovePort; held before mu

	mu          sync.Mutex // guards what follows and the replacing of ports; nobody waits for a worker with it
	generations map[uint16]uint16
	leaving     map[*Port]bool // off the snapshot, not closed yet
	retired     Counts         // of ports that are gone
	closing     sync.WaitGroup
}

// A portTable is one snapshot of the ports, and of what they may send one another.
// A port that comes or goes copies both lists, eight bytes for each port: a few
// microseconds for a thousand.
type portTable struct {
	admit   *policy.Admit   // nil is everything
	list    []*Port         // by index, without gaps
	byIndex []*Port         // PortID's index → port, nil where free
	outside int             // of the ports, those with a LAN behind them
	claimed *policy.VLANSet // VLANs that ports say they are in, closed to all others; nil is none
}

// find returns the port an ID names, or nil when it is gone.
func (t *portTable) find(id packet.PortID) *Port {
	if i := int(id & 0xffff); i < len(t.byIndex) {
		if p := t.byIndex[i]; p != nil && p.id == id {
			return p
		}
	}
	return nil
}

// New returns a switch without ports.
func New(conf Config, lanes *Lanes) *Switch {
	if conf.Ageing == 0 {
		conf.Ageing = DefaultAgeing
	}
	s := &Switch{
		conf: conf, hub: conf.Hub, mtu: conf.MTU, gateway: conf.Gateway, lanes: lanes,
		macs:        newMACTable(conf.Ageing, macSlots),
		loops:       newLoopGuard(&conf),
		generations: make(map[uint16]uint16),
		leaving:     make(map[*Port]bool),
	}
	s.ports.Store(&portTable{})
	if conf.ID >= maxNetworks {
		panic("vswitch: network number out of range")
	}
	lanes.set(conf.ID, s)
	return s
}

// Config returns what the switch was made from.
func (s *Switch) Config() Config { return s.conf }

// AddPort gives a link a port and has its home worker read it from now on.
// After an error the queue is still the caller's.
func (s *Switch) AddPort(conf PortConfig) (*Port, error) {
	switch {
	case conf.Host:
		conf.Guard = policy.Guard{Strict: true, MAC: s.gateway.MAC(), Addrs: s.conf.GatewayAddrs}
	case s.gateway != nil:
		conf.Guard.GatewayMAC = s.gateway.MAC()
	}
	if !conf.Host {
		conf.Guard.GatewayAddrs = s.conf.GatewayAddrs
	}
	if conf.Outside {
		conf.Guard.Others = &s.bound
	}
	p := &Port{
		conf: conf, sw: s, ln: s.lanes.lanes[conf.Worker], worker: s.lanes.loop.Worker(conf.Worker),
		added: time.Now(), batch: packet.BatchFrames,
	}
	if conf.Metered && !s.hub {
		p.accounts = make([]account, len(s.lanes.lanes))
	}
	p.offloads, _ = conf.Queue.(interface{ Offload() link.Offload })
	if p.tagged = conf.Guard; conf.Guard.Strict {
		p.tagged.Strict, p.tagged.MACOnly = false, true
	}
	limit := conf.FloodLimit
	if limit == 0 {
		limit = DefaultFloodLimit
	}
	p.flood, p.linkLocals = policy.NewRate(limit, limit/10), policy.NewLinkLocals()

	s.changing.Lock()
	defer s.changing.Unlock()
	if err := s.putIn(p); err != nil {
		return nil, fmt.Errorf("add port %q: %w", conf.Name, err)
	}
	if err := p.register(); err != nil {
		s.mu.Lock()
		s.replaceLocked(uint16(p.id), nil)
		s.mu.Unlock()
		return nil, fmt.Errorf("add port %q: %w", conf.Name, err)
	}
	return p, nil
}

// putIn publishes a port under the lowest free index.
func (s *Switch) putIn(p *Port) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	index, err := s.freeIndexLocked()
	if err != nil {
		return err
	}
	s.generations[index]++
	p.id = packet.PortID(s.generations[index])<<16 | packet.PortID(index)
	s.replaceLocked(index, p)
	return nil
}

// takeOff publishes the ports without one; false is a port that is off already.
func (s *Switch) takeOff(p *Port) bool {
	s.changing.Lock()
	defer s.changing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ports.Load().find(p.id) == nil {
		return false
	}
	s.replaceLocked(uint16(p.id), nil)
	s.leaving[p] = true
	s.closing.Add(1)
	return true
}

// freeIndexLocked finds the lowest free port index; zero names no port.
func (s *Switch) freeIndexLocked() (uint16, error) {
	byIndex := s.ports.Load().byIndex
	for i := 1; i <= maxPorts; i++ {
		if i >= len(byIndex) || byIndex[i] == nil {
			return uint16(i), nil
		}
	}
	return 0, fmt.Errorf("network %s has %d ports, which is all a switch can have", s.conf.Name, maxPorts)
}

// replaceLocked publishes a new snapshot of the ports, with p (nil for none) at
// index.
func (s *Switch) replaceLocked(index uint16, p *Port) {
	old := s.ports.Load()
	t := &portTable{
		admit: old.admit, outside: old.outside,
		byIndex: make([]*Port, max(len(old.byIndex), int(index)+1)), list: make([]*Port, 0, len(old.list)+1),
	}
	copy(t.byIndex, old.byIndex)
	if was := t.byIndex[index]; was != nil && was.conf.Outside {
		t.outside--
	}
	if p != nil && p.conf.Outside {
		t.outside++
	}
	t.byIndex[index] = p
	for _, p := range t.byIndex {
		if p != nil {
			t.list = append(t.list, p)
			t.claim(&p.conf.VLANs)
		}
	}
	if t.outside > 0 {
		var guards []*policy.Guard
		for _, p := range t.list {
			if !p.conf.Host {
				guards = append(guards, &p.conf.Guard)
			}
		}
		s.bound.Set(guards)
	}
	s.ports.Store(t)
}

// SetAdmit says what containers of the network may send one another; nil is
// everything. Ports that are isolated stay so.
func (s *Switch) SetAdmit(a *policy.Admit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := *s.ports.Load()
	t.admit = a
	s.ports.Store(&t)
}

// SetJoin says whether small frames that are read from one port together may leave
// as one, segments or datagrams of a train, where the link takes that. They are not
// without a word, and where a recorder or a hub shows each packet as it came; nor in
// programs built with the tag plain.
func (s *Switch) SetJoin(on bool) {
	s.join.Store(on)
	s.lanes.settle(s)
}

// joins reports whether frames of this switch, read or to be written, may be joined
// now.
func (s *Switch) joins() bool {
	return !loop.Plain && s.join.Load() && !s.hub && s.recorder.Load() == nil
}

// register has the port's worker told when frames wait. It happens on the
// worker, so that no turn begins before the port knows its source.
func (p *Port) register() (err error) {
	ran := p.worker.Call(func() {
		switch q := p.conf.Queue.(type) {
		case interface{ Fd() int }:
			p.source, err = p.worker.Add(q.Fd(), unix.EPOLLIN, p)
			p.level = true
		case interface{ Notify(func()) }:
			p.source = p.worker.AddNotified(p)
			q.Notify(p.source.Wake)
			p.source.Wake() // for what waited before
		default:
			err = errors.New("its queue has neither a descriptor nor a way to notify")
		}
	})
	if !ran {
		return loop.ErrClosed
	}
	return err
}

// RemovePort takes a port off the switch: its frames, its MACs and its
// neighbours are gone when it returns; the link is closed soon after, off the
// workers, and done (may be nil) is called then. Removing a port twice does
// nothing.
func (s *Switch) RemovePort(p *Port, done func()) {
	if !s.takeOff(p) {
		if done != nil {
			done()
		}
		return
	}
	p.source.Remove()
	s.forget(p)
	s.lanes.loop.Grace(func() {
		defer s.closing.Done()
		s.forget(p) // a worker in mid-turn may have learned from it once more
		_ = p.conf.Queue.Close()
		counts := p.Counts()
		s.mu.Lock()
		delete(s.leaving, p)
		s.retired.Add(&counts)
		s.mu.Unlock()
		if done != nil {
			done()
		}
	})
}

// forget takes a port out of the tables that learn.
func (s *Switch) forget(p *Port) {
	s.macs.clear(func(_ uint64, h hop, _ int64) bool { return h.port == p.id })
	s.lanes.holds.forget(p, loop.Clock())
	if s.gateway != nil {
		s.gateway.FlushPort(p.id)
	}
}

// Close removes all ports and waits until their links are closed. The loop
// must still be running.
func (s *Switch) Close() {
	for _, p := range s.Ports() {
		s.RemovePort(p, nil)
	}
	s.closing.Wait()
	s.closed.Store(true)
	if s.lanes.network(s.conf.ID) == s {
		s.lanes.set(s.conf.ID, nil)
	}
}

// Wake has the gateway's Tick called soon. Any goroutine may call it.
func (s *Switch) Wake() {
	w := s.lanes.loop.Worker(0)
	w.Post(func() { s.wake(0, w.Now()) })
}

// wake has the gateway's Tick called at a time or sooner, on worker 0. worker
// is who calls.
func (s *Switch) wake(worker int, at int64) {
	w := s.lanes.loop.Worker(0)
	if worker != 0 {
		w.Post(func() { s.wake(0, at) })
		return
	}
	if s.due != 0 && s.due <= at {
		return
	}
	s.due = at
	after := time.Duration(max(0, at-w.Now()))
	if s.ticker == nil {
		s.ticker = w.AfterFunc(after, s.tick)
	} else {
		s.ticker.Reset(after)
	}
}

// tick gives the gateway its turn.
func (s *Switch) tick(now int64) {
	s.due = 0
	if s.closed.Load() {
		return
	}
	ln := s.lanes.lanes[0]
	ln.counted, ln.now = &s.own, now
	s.gateway.Tick(now, ln)
	ln.flush()
	ln.resumeKeys(now)
}

// Ports lists the ports by index.
func (s *Switch) Ports() []*Port { return s.ports.Load().list }

// Port finds a port by ID; nil when it is gone.
func (s *Switch) Port(id packet.PortID) *Port { return s.ports.Load().find(id) }

// Totals sums the counters of all ports, those that are gone included.
func (s *Switch) Totals() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.retiredLocked()
	for _, p := range s.ports.Load().list {
		n := p.Counts()
		c.Add(&n)
	}
	return c
}

// Dropped is Totals of one reason, without looking at all else.
func (s *Switch) Dropped(r packet.Reason) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.retired.Dropped[r].N + s.own.dropped[r].n.Load()
	for p := range s.leaving {
		n += p.n.dropped[r].n.Load()
	}
	for _, p := range s.ports.Load().list {
		n += p.n.dropped[r].n.Load()
	}
	return n
}

// Retired sums the counters of the ports that are gone.
func (s *Switch) Retired() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.retiredLocked()
}

func (s *Switch) retiredLocked() Counts {
	c := s.retired
	own := s.own.load()
	c.Add(&own)
	for p := range s.leaving {
		n := p.Counts()
		c.Add(&n)
	}
	return c
}

// SetRecorder starts (or with nil stops) recording of decisions.
func (s *Switch) SetRecorder(r *trace.Recorder) {
	s.recorder.Store(r)
	s.lanes.settle(s)
}

// record writes down one decision: what came in, what was decided and where
// the copies go.
func (s *Switch) record(r *trace.Recorder, in *Port, ports *portTable, f *packet.Frame, d *packet.Decision) {
	rec := trace.NewRecord(f, d)
	switch d.Verdict {
	case packet.Unicast:
		rec.AddEgress(d.Egress.Port)
	case packet.Flood:
		for _, out := range ports.list {
			if !s.hears(f, in, out) {
				continue
			}
			if _, r := ports.admits(f, d.VLAN, in, out); r == packet.OK {
				rec.AddEgress(out.id)
			} else {
				rec.Withhold(r)
			}
		}
	}
	r.Add(rec)
}
