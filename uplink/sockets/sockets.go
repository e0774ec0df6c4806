package sockets

import (
	"sync"
	"sync/atomic"

	"fairlead/loop"
	"fairlead/packet"
)

// An Inbound takes the packets that come out of sockets: the router. See
// vswitch.Gateway for Prefetch, Route and Apply.
type Inbound interface {
	Prefetch(frames []packet.Frame)
	Route(f *packet.Frame, d *packet.Decision)
	Apply(f *packet.Frame, d *packet.Decision, out packet.Out)
	// EndFlows ends the flows with these tuples, as seen on the uplink's segment:
	// their sockets are closed.
	EndFlows(list []packet.Tuple)
}

// A Config says what a Sockets is. It does not change once it is made.
type Config struct {
	Network packet.NetworkID // of its segment
	Name    string           // for people
	// Worker is where the sockets have their events: it has to be the one that
	// reads the port.
	Worker *loop.Worker
	// Containers bounds how many descriptors one container may have, Total all of
	// them together. Zero is no bound.
	Containers, Total int
	// Shares is among how many containers half of Total is shared out: each has its
	// part whatever the others do.
	Shares int

	// Joins reports whether datagrams may come as trains now, as the kernel or we make
	// them; nil is always. It is asked for each by the one who reads, and returns at
	// once.
	Joins func() bool

	// NoPeekOffset has TCP go without SO_PEEK_OFF, NoUDPOffload UDP without
	// UDP_SEGMENT and UDP_GRO, as on older kernels.
	NoPeekOffset, NoUDPOffload bool
}

// A Sockets is an uplink made of sockets: the queue of its port, the gateway of
// its segment, and an uplink to the router. The zero Sockets is not one; see New.
type Sockets struct {
	conf    Config
	inbound Inbound
	addr    atomic.Pointer[packet.Addr]          // what flows are masqueraded to
	share   int                                  // descriptors each container is sure of
	owned   atomic.Pointer[map[packet.Addr]bool] // the host's addresses
	port    atomic.Uint32                        // the packet.PortID of its port

	mu     sync.Mutex
	closed bool
	notify func() // has the port read
	ready  fifo   // endpoints that may have frames to send
	flows  flowTable
	ended  []packet.Tuple // flows whose endpoints are done, for EndFlows
	timed  timed
	tcp    tcp

	datagrams datagramIO
	carried   carried
	errors    errorReader
	standIns  standIns
	fragments reassembler
	pings     pings
	id        uint16 // of the last packet that was made
	stats     Stats  // counters only
}

// An endpoint is one socket and its protocol's state. All its methods are called
// with the mutex held.
type endpoint interface {
	// write takes frames of one flow, in order, as vswitch.Queue.WriteBatch does:
	// it returns how many it took, and the reason why the next one failed. A frame
	// it has nothing to do with (out of window, after the end) is taken too.
	write(frames []*packet.Frame, now int64) (int, packet.Reason)
	// send adds frames for the containers to b, one large one or a few small
	// ones, and reports whether there may be more at once.
	send(b *packet.Batch, now int64) (more bool)
	// expire is called when the time of base.deadline has come.
	expire(now int64)
	// flowEnded is told that NAT gave up a flow of the endpoint. The router's lock
	// is held: what takes system calls is for the next send.
	flowEnded(number uint32)
	// close closes the descriptor, at once and for good; the endpoint says no more.
	close()

	common() *base
}

// A base is what all endpoints have. Whoever embeds it has it in place of a
// pointer to Sockets and a registration.
type base struct {
	s      *Sockets
	fd     int    // -1 when it is closed
	watch  *watch // of fd
	self   endpoint
	holder *holder // who pays for the descriptor, nil is nobody

	events uint32 // of epoll, not looked at yet
	queued bool   // in s.ready

	deadline int64 // when expire is due; 0 is never
	place    int   // 1 + that in s.timed

	unanswered bool // nothing has come back yet: the first to go when there are too many
}

func (e *base) common() *base { return e }

// A watch has the worker tell of the events of one descriptor. An endpoint that
// opens another one gets another watch: an event of the old one may come late,
// and would be taken for one of the new.
type watch struct {
	s      *Sockets
	e      *base
	source *loop.Source
}

// Ready is an event, called by the worker.
func (w *watch) Ready(_ int64, events uint32) (again bool) {
	s := w.s
	s.mu.Lock()
	var notify func()
	if w.e.watch == w {
		w.e.events |= events
		w.e.wake()
		notify = s.notify
	}
	s.mu.Unlock()
	if notify != nil {
		notify()
	}
	return false
}

// wake has send called soon.
func (e *base) wake() {
	if !e.queued {
		e.queued = true
		e.s.ready.push(e.self)
	}
}

// New returns an uplink without flows. Its port is to be added to a switch
// whose gateway it is.
func New(conf Config, inbound Inbound) *Sockets {
	if conf.Joins == nil {
		conf.Joins = func() bool { return true }
	}
	s := &Sockets{conf: conf, inbound: inbound}
	if conf.Shares > 0 {
		s.share = conf.Total / 2 / conf.Shares
	}
	s.flows.init()
	s.tcp.init(conf.NoPeekOffset)
	s.tcp.look = func() { conf.Worker.AfterFunc(aMoment, s.lookAtConns) }
	s.pings.probe(loop.Clock())
	s.SetAddr(placeholder)
	return s
}

// placeholder stands for the host when it has no address to speak of: the IPv4
// dummy address (RFC 7600).
var placeholder = packet.AddrFrom4([4]byte{192, 0, 0, 8})

// SetAddr says which address stands for the host: that of its default route.
// The zero Addr is none. Flows that there are keep theirs.
func (s *Sockets) SetAddr(a packet.Addr) {
	if a == (packet.Addr{}) {
		a = placeholder
	}
	s.addr.Store(&a)
}

// Notify sets what has the port read. See vswitch.Queue.
func (s *Sockets) Notify(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notify = fn
}

// ReadBatch adds frames from sockets to b. See vswitch.Queue.
func (s *Sockets) ReadBatch(b *packet.Batch) (int, error) {
	now := loop.Clock()
	before := len(b.Frames)
	s.mu.Lock()
	if ended := s.takeEnded(); len(ended) > 0 {
		// What they had to say was read the last time, and has gone its way.
		s.mu.Unlock()
		s.inbound.EndFlows(ended)
		s.mu.Lock()
	}
	for !b.Full() {
		if e := s.carried.e; e != nil {
			e.sendCarried(b) // others wait for the place of what was carried
			continue
		}
		e := s.ready.pop()
		if e == nil {
			break
		}
		e.common().queued = false
		if e.send(b, now) {
			e.common().wake()
		}
	}
	var notify func()
	if len(s.ended) > 0 {
		notify = s.notify
	}
	s.mu.Unlock()
	if notify != nil {
		notify()
	}
	return len(b.Frames) - before, nil
}

// takeEnded returns the flows that are to be ended. Their tuples are handed over.
func (s *Sockets) takeEnded() []packet.Tuple {
	ended := s.ended
	s.ended = nil
	return ended
}

// WriteBatch gives frames to sockets. See vswitch.Queue.
func (s *Sockets) WriteBatch(frames []*packet.Frame) (int, error) {
	s.mu.Lock()
	idle := s.ready.empty()
	n, reason := s.writeLocked(frames)
	var notify func()
	if idle && (!s.ready.empty() || len(s.ended) > 0) {
		notify = s.notify
	}
	s.mu.Unlock()
	if notify != nil {
		notify()
	}
	if reason != packet.OK {
		return n, reason
	}
	return n, nil
}

func (s *Sockets) writeLocked(frames []*packet.Frame) (done int, reason packet.Reason) {
	if s.closed {
		return 0, packet.EgressGone
	}
	for done < len(frames) {
		if first := frames[done]; first.Flags.Has(packet.Fragment) && first.Flow != 0 {
			if reason := s.writeFragment(first); reason != packet.OK {
				return done, reason
			}
			done++
			continue
		}
		run := 1
		for done+run < len(frames) && frames[done+run].Flow == frames[done].Flow && !frames[done+run].Flags.Has(packet.Fragment) {
			run++
		}
		e, reason := s.endpoint(frames[done])
		if reason != packet.OK {
			return done, reason
		}
		if e == nil { // it is kept, or nothing is to be done
			done++
			continue
		}
		n, reason := e.write(frames[done:done+run], frames[done].Time)
		done += n
		if reason != packet.OK {
			return done, reason
		}
	}
	return done, packet.OK
}

// Close closes all sockets.
func (s *Sockets) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.fragments = reassembler{}
	s.flows.closeAll()
	s.tcp.close()
	return nil
}

// FlowEnded tells that NAT has ended a flow. The router's lock may be held.
func (s *Sockets) FlowEnded(number uint32) {
	s.mu.Lock()
	e := s.flows.forget(number)
	if e != nil {
		e.flowEnded(number)
		e.common().wake()
	}
	notify := s.notify
	s.mu.Unlock()
	if e != nil && notify != nil {
		notify()
	}
}

// A fifo is a queue of endpoints. Its memory is used again.
type fifo struct {
	list []endpoint
	head int
}

func (q *fifo) empty() bool { return q.head == len(q.list) }

func (q *fifo) push(e endpoint) {
	if q.head > 64 && q.head*2 > len(q.list) {
		n := copy(q.list, q.list[q.head:])
		clear(q.list[n:])
		q.list, q.head = q.list[:n], 0
	}
	q.list = append(q.list, e)
}

// pop takes the endpoint that waits for longest; nil when none does.
func (q *fifo) pop() endpoint {
	if q.empty() {
		q.list, q.head = q.list[:0], 0
		return nil
	}
	e := q.list[q.head]
	q.list[q.head] = nil
	q.head++
	return e
}
