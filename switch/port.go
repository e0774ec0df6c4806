package vswitch

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/link"
	"fairlead/loop"
	"fairlead/packet"
	"fairlead/policy"
	"fairlead/trace"
)

// A turn bounds what one port may have done before the next gets its turn: in
// frames, in bytes, and in time. Time is what counts when one frame is much
// work: a broadcast is a write to every port, a segment train towards a
// textbook wire a write for every packet, and the receiver's network stack runs
// inside each.
const (
	turnFrames = 64
	turnBytes  = 1 << 20
	turnTime   = int64(300 * time.Microsecond)
)

// bulk is how many bytes of a turn nobody waits to have answered.
const bulk = 16 << 10

// PortConfig says what a new port is.
type PortConfig struct {
	Name      string // for people: the container's name
	Container packet.ContainerID
	Queue     Queue // the switch closes it when the port goes

	Guard    policy.Guard // its fields about gateway and others are filled in by the switch
	Isolated bool         // hears no other isolated port
	VLANs    policy.VLANs // it is in

	// Outside is set on a port with a LAN behind it that may use any MAC and address
	// but those other ports are held to.
	Outside bool

	// Host is set on the port of the host's own link. The host has the gateway's MAC
	// and address: containers see one station, and the gateway says what is for
	// which of the two. The port is held to both, whatever Guard says.
	Host bool

	// Shared is set on a port with a LAN behind it, whatever guard is on: no station
	// there may have it blocked for the others (loopGuard). The host's is, too.
	Shared bool

	// FloodLimit bounds the copies per second of frames the port has flooded;
	// zero is DefaultFloodLimit, negative no limit.
	FloodLimit int

	// Metered holds the port to shares of its workers' time, see account. Not so an
	// uplink's, the host's and that of a LAN: behind them are many.
	Metered bool

	// Limit is the rates its container is held to; nil is none.
	Limit *Limit

	// Worker is the port's home: the index of the worker that reads it.
	Worker int

	// Lost is called once, on the worker, when the link is gone for good. It
	// must not block; it usually posts a RemovePort.
	Lost func(p *Port, err error)
}

// DefaultFloodLimit is a tenth of what one worker can write, so that a storm
// leaves nine tenths to others, and enough for every one of a hundred
// containers to ask for every other ten times a second.
const DefaultFloodLimit = 100_000

// A Port is an identity on a switch with a queue and its counters. Its
// configuration never changes after AddPort.
type Port struct {
	id     packet.PortID
	conf   PortConfig
	sw     *Switch
	ln     *lane
	worker *loop.Worker
	source *loop.Source
	added  time.Time

	tagged policy.Guard // of frames of a trunk's tagged VLANs

	offloads interface{ Offload() link.Offload } // the queue; nil if it does not say what it takes

	held     atomic.Int32 // frames of it in the hold queue
	accounts []account    // one for each worker; nil where it is not metered

	blocked  atomic.Int64  // by the loop guard, until this time
	loopFrom atomic.Uint32 // the PortID what came back had left by
	blockFor time.Duration // how long it was blocked last; guarded by loopGuard.mu

	slowUntil atomic.Int64 // some worker sends it nothing until this time, for people; see cutOff

	// Of the home worker only:

	flood      policy.Rate
	linkLocals policy.LinkLocals
	signs      int         // of a loop
	signsSince int64       // since this time
	batch      int         // how many frames to read at once, by what the last ones cost
	lone       bool        // the last turn found one frame and no second
	level      bool        // what is not read is reported again
	lost       bool        // the link is gone and Lost was called
	debt       *loop.Timer // has the port read again

	n counters
}

// ID names the port on its switch.
func (p *Port) ID() packet.PortID { return p.id }

// Network is the name of the network the port is on.
func (p *Port) Network() string { return p.sw.conf.Name }

// Config returns what the port was made from.
func (p *Port) Config() PortConfig { return p.conf }

// Added is when the port joined the switch.
func (p *Port) Added() time.Time { return p.added }

// Counts reads the port's counters.
func (p *Port) Counts() Counts { return p.n.load() }

// Ready is the port's turn, called by its home worker: it reads, decides and
// acts until no frame waits or the turn is over, and then asks for another.
func (p *Port) Ready(now int64, events uint32) (again bool) {
	if p.indebted(now, events) {
		return false
	}
	var read intake
	began, before := p.ln.wall(), p.n.unicast.Load()
	p.ln.turn, p.ln.flooding = p, 0
	again = p.turn(now, began, events, &read)
	p.ln.turn = nil
	p.wasted(now, began, events, read.frames, before)
	if read.bytes > bulk {
		p.ln.bulk()
	}
	p.n.read.Add(uint64(read.frames))
	p.n.readBytes.Add(uint64(read.bytes))
	p.n.readSegments.Add(uint64(read.segments))
	return again
}

// An intake is what a port read in a turn.
type intake struct{ frames, bytes, segments int }

func (p *Port) turn(now, begin int64, events uint32, read *intake) (again bool) {
	batch, most := p.ln.batch, p.turnTime(now)
	// Where frames come one by one, as questions and answers do, nobody looks for a
	// second one: the first goes on sooner, and if there is one epoll says so.
	alone := p.lone && p.level && p.worker.Slept() && events&unix.EPOLLERR == 0
	p.lone = alone
	last, since := begin, 0 // when the clock was read, and the frames since
	for read.frames < turnFrames && read.bytes < turnBytes && last-begin < most {
		batch.Reset()
		batch.Limit(min(p.batch, turnFrames-read.frames))
		if alone {
			batch.Limit(1)
		}
		n, err := p.conf.Queue.ReadBatch(batch)
		if n > 0 {
			before := read.bytes
			p.sw.run(p, now, read)
			since += n
			if p.conf.Limit != nil {
				p.conf.Limit.sent(now, read.bytes-before, batch.Frames)
				if p.indebted(now, events) {
					return false
				}
			}
			// Frames that cost little are not timed one by one: as many as take
			// an eighth of a turn go by between two looks at the clock.
			if since >= p.batch/8 {
				end := p.ln.wall()
				p.batch = int(most / max(1, (end-last)/int64(since)))
				last, since = end, 0
			}
		}
		switch {
		case err != nil:
			p.lose(err)
			return false
		case alone:
			return false
		case !batch.Full(): // the queue is drained
			p.lone = read.frames == 1
			if events&unix.EPOLLERR != 0 {
				p.lose(packet.EgressGone)
			}
			return false
		}
	}
	return true
}

// run takes one batch through the path.
func (s *Switch) run(p *Port, now int64, read *intake) {
	ports, recorder := s.ports.Load(), s.recorder.Load()
	frames := p.ln.batch.Frames
	p.ln.joins = s.joins()
	if s.gateway != nil && !loop.Plain {
		s.gateway.Prefetch(frames)
	}
	for i := range frames {
		f := &frames[i]
		f.Time = now
		read.bytes += f.Len() // before a tag goes or comes
		s.path(p, ports, recorder, f)
		read.segments += f.Segments()
	}
	read.frames += len(frames)
	p.ln.flush()
	if len(p.ln.resumes) > 0 {
		p.ln.resumeKeys(now)
	}
}

// path takes one frame through the path: decide, record, act.
func (s *Switch) path(p *Port, ports *portTable, recorder *trace.Recorder, f *packet.Frame) {
	f.Port, f.Container, f.Network = p.id, p.conf.Container, s.conf.ID
	d := &p.ln.decision
	*d = packet.Decision{}
	s.forward(f, p, ports, d)
	if recorder != nil {
		s.record(recorder, p, ports, f, d)
	}
	s.apply(p.ln, p, ports, f, d)
}

// one takes a frame through the path that was not read just now.
func (s *Switch) one(p *Port, f *packet.Frame) { s.path(p, s.ports.Load(), s.recorder.Load(), f) }

// lose leaves epoll, where a dead descriptor would fire for ever, and says once
// that the link is gone.
func (p *Port) lose(err error) {
	if p.lost {
		return
	}
	p.lost = true
	p.source.Remove()
	if p.conf.Lost != nil {
		p.conf.Lost(p, err)
	}
}
