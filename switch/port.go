package vswitch

import (
	"time"

	"golang.org/x/sys/unix"

	"fairlead/loop"
	"fairlead/packet"
	"fairlead/policy"
)

// A turn bounds the work one port may have done before the next gets its turn:
// a flooded copy counts as a frame, else one broadcaster costs N writes per
// unit of its budget.
const (
	turnFrames = 64
	turnBytes  = 256 << 10
)

// PortConfig says what a new port is.
type PortConfig struct {
	Name      string // for people: the container's name
	Container packet.ContainerID
	Queue     Queue // the switch closes it when the port goes

	Guard    policy.Guard // its gateway fields are filled in by the switch
	Isolated bool         // hears no other isolated port
	// FloodLimit bounds the frames per second the port may have flooded; zero
	// is DefaultFloodLimit, negative no limit.
	FloodLimit int

	// Worker is the port's home: the index of the worker that reads it.
	Worker int

	// Lost is called once, on the worker, when the link is gone for good. It
	// must not block; it usually posts a RemovePort.
	Lost func(p *Port, err error)
}

// DefaultFloodLimit is far above what ARP, DHCP and neighbour discovery of a
// hundred containers need, and keeps a storm from taking the workers.
const DefaultFloodLimit = 10_000

// A Port is an identity on a switch with a queue and its counters. Its
// configuration never changes after AddPort.
type Port struct {
	id   packet.PortID
	conf PortConfig
	sw   *Switch

	queue    Queue
	guard    policy.Guard
	isolated bool
	flood    policy.Rate // used by the home worker only

	ln     *lane
	worker *loop.Worker
	source *loop.Source
	lost   bool // home worker only
	added  time.Time

	n counters
}

// ID names the port on its switch.
func (p *Port) ID() packet.PortID { return p.id }

// Config returns what the port was made from.
func (p *Port) Config() PortConfig { return p.conf }

// Added is when the port joined the switch.
func (p *Port) Added() time.Time { return p.added }

// Counts reads the port's counters.
func (p *Port) Counts() Counts { return p.n.load() }

// Ready is the port's turn, called by its home worker: it reads, decides and
// acts until no frame waits or the turn's budget is used up, and then asks for
// another.
func (p *Port) Ready(now int64, events uint32) (again bool) {
	frames, bytes := turnFrames, turnBytes
	for frames > 0 && bytes > 0 {
		p.ln.batch.Reset()
		n, err := p.queue.ReadBatch(p.ln.batch)
		if n > 0 {
			f, b := p.sw.run(p, now)
			frames -= f
			bytes -= b
		}
		switch {
		case err != nil:
			p.lose(err)
			return false
		case !p.ln.batch.Full(): // the queue is drained
			if events&unix.EPOLLERR != 0 {
				p.lose(packet.EgressGone)
			}
			return false
		}
	}
	return true
}

// run takes one batch through the path and returns the frames (copies
// included) and bytes it was worth.
func (s *Switch) run(p *Port, now int64) (work, bytes int) {
	ports, recorder := s.ports.Load(), s.recorder.Load()
	frames := p.ln.batch.Frames
	segments := 0
	for i := range frames {
		f := &frames[i]
		f.Time, f.Port, f.Container, f.Network = now, p.id, p.conf.Container, s.conf.ID
		d := &p.ln.decision
		*d = packet.Decision{}
		s.forward(f, p, ports, d)
		if recorder != nil {
			s.record(recorder, p, ports, f, d)
		}
		work += 1 + s.apply(p.ln, p, ports, f, d)
		bytes += f.Len()
		segments += f.Segments()
	}
	p.ln.flush()
	p.n.read.Add(uint64(len(frames)))
	p.n.readBytes.Add(uint64(bytes))
	p.n.readSegments.Add(uint64(segments))
	return work, bytes
}

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
