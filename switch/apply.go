package vswitch

import "fairlead/packet"

// A lane is what one worker carries along: the batch it reads into, the frames
// staged for writing, and room for the frames gateways originate. Switches of
// one loop share it, because a worker gives one port its turn at a time. To a
// gateway it is the packet.Out.
type lane struct {
	lanes *Lanes
	id    int // of the worker

	batch  *packet.Batch
	staged []staged
	out    []*packet.Frame // scratch of flush
	second []*Port         // scratch of flood
	joins  bool            // what came in this batch may be joined
	joiner *joiner

	// decision is that of the frame at hand. It lives here because the compiler
	// cannot see that a Gateway does not keep it, and would allocate one a frame.
	decision packet.Decision

	// What a gateway that is called right now works for: counted is who its
	// frames are counted for.
	counted *counters
	now     int64

	turn       *Port  // whose turn it is; nil where it is nobody's
	deliveries recent // to ports, see account
	flooding   int64  // what of this turn went into the copies of floods
	bulk       func() // the worker's, for a turn that moved much
	clocks

	answers    []packet.Frame // originated or cut in this batch
	room       []byte         // their bytes
	used       int
	fragmenter packet.Fragmenter
	segmenter  packet.Segmenter
	segment    []byte // of a train that is cut

	watching bool         // a timer looks after the frames this worker's ports hold
	resumes  []uint64     // keys whose frames are to go on
	resumed  []*heldFrame // scratch of resume
}

// maxStaged bounds what is staged, and with that what is written to one port at
// once.
const maxStaged = 2 * packet.BatchFrames

// staged is one copy of a frame on its way to a port, until the next flush.
type staged struct {
	to *Port
	f  *packet.Frame
}

func newLane(lanes *Lanes, id int) *lane {
	return &lane{
		lanes: lanes, id: id, bulk: lanes.loop.Worker(id).Bulk,
		batch:   packet.NewBatch(),
		staged:  make([]staged, 0, maxStaged),
		out:     make([]*packet.Frame, 0, maxStaged),
		joiner:  newJoiner(),
		answers: make([]packet.Frame, 0, packet.BatchFrames),
		room:    make([]byte, 2*packet.MaxFrame),
		segment: make([]byte, packet.MaxFrame),
		clocks:  newClocks(),
		resumes: make([]uint64, 0, maxHeld),
		resumed: make([]*heldFrame, 0, maxHeld),
	}
}

// apply carries a decision out: the only place that writes tables, counts and
// hands frames to queues.
func (s *Switch) apply(ln *lane, in *Port, ports *portTable, f *packet.Frame, d *packet.Decision) {
	if d.Learn != packet.LearnNothing {
		s.macs.learn(stationKey(d.VLAN, packet.Ethernet(f.Ether()).Src()), in.id, f.Time)
	}
	if d.NewAddr && d.Verdict != packet.Drop {
		in.linkLocals.Take(f)
	}
	if d.Verdict == packet.Flood { // before anything edits the bytes
		ln.flush()
		began := ln.wall()
		copies := ln.flood(in, ports, f, d.VLAN)
		in.flooded(ln, ln.out, copies, began)
		in.flood.Take(f.Time, copies)
		in.n.fanout.Add(uint64(copies))
	}
	if d.AtGateway {
		ln.counted, ln.now = &in.n, f.Time
		s.gateway.Apply(f, d, ln)
	}
	switch d.Verdict {
	case packet.Unicast:
		in.n.unicast.Add(1)
		if !d.Routed {
			ln.send(ports.find(d.Egress.Port), f, d.VLAN)
		}
	case packet.Flood:
		in.n.flooded.Add(1)
		if d.Routed {
			in.n.fanout.Add(1)
		}
	case packet.Gateway:
		in.n.gateway.Add(1)
	case packet.Hold:
		in.n.held.Add(1)
		s.lanes.holds.put(in, f, d.HoldKey)
	case packet.Drop:
		in.n.drop(d.Reason, f.Time)
		if d.Looped != 0 {
			s.block(in, d.Looped, f.Time)
		}
	}
	if d.Learn == packet.LearnMoved || d.Verdict == packet.Flood {
		s.sign(ln, in, d.VLAN, f.Time)
	}
	if ports.admit != nil {
		ports.admit.Count(d.Admitted, d.Reason, ln.id, f.Segments(), f.Len()+f.TrainHeaders())
	}
	if d.Routed && d.Verdict != packet.Drop {
		ln.emit(in, f, d)
	}
}

// emit sends a routed frame on, whole or in fragments, to a port of any
// network.
func (ln *lane) emit(in *Port, f *packet.Frame, d *packet.Decision) {
	to := ln.lanes.find(d.Egress)
	switch {
	case to == nil:
		in.n.fail(packet.EgressGone, f.Time) // it left after the decision
		return
	case to.conf.VLANs.Untagged != 0:
		in.n.fail(packet.WrongVLAN, f.Time) // gateways are in none
		return
	}
	if d.MTU == 0 {
		ln.stage(to, f)
		return
	}
	pieces := 0
	if f.Segments() == 1 {
		pieces = ln.cut(to, f, int(d.MTU))
	} else { // datagrams of a train, each to be cut
		one := packet.Frame{Time: f.Time}
		for ln.segmenter.Reset(f); ; {
			n, ok := ln.segmenter.Next(ln.segment)
			if !ok {
				break
			}
			one.B = ln.segment[:n]
			if packet.Parse(&one) == packet.OK {
				pieces += ln.cut(to, &one, int(d.MTU))
			}
		}
	}
	if pieces == 0 {
		in.n.fail(packet.EgressRefused, f.Time)
		return
	}
	in.n.split.Add(uint64(pieces - 1))
}

// cut sends a packet in fragments of at most mtu bytes and returns how many
// they are.
func (ln *lane) cut(to *Port, f *packet.Frame, mtu int) (pieces int) {
	for ln.fragmenter.Reset(f, mtu); ; pieces++ {
		n, ok := ln.fragmenter.Next(ln.Room())
		if !ok {
			return pieces
		}
		ln.stage(to, ln.answer(n, f.Time))
	}
}

// stage puts a frame down for writing to a port at the next flush.
func (ln *lane) stage(to *Port, f *packet.Frame) {
	if len(ln.staged) == cap(ln.staged) {
		ln.flush()
	}
	ln.staged = append(ln.staged, staged{to, f})
}

// flood writes one frame to every port that may have it, now, when nothing is staged
// before it: the same bytes go to each, nobody has changed them. Those that
// want its VLAN's tag where it has none, or the other way round, come second.
func (ln *lane) flood(in *Port, ports *portTable, f *packet.Frame, vlan uint16) (copies int) {
	ln.out, ln.second = append(ln.out[:0], f), ln.second[:0]
	tagged := f.VID() != 0
	for _, to := range ports.list {
		if !in.sw.hears(f, in, to) {
			continue
		}
		rule, r := ports.admits(f, vlan, in, to)
		if ports.admit != nil {
			ports.admit.Count(rule, r, ln.id, f.Segments(), f.Len()+f.TrainHeaders())
		}
		if r != packet.OK {
			continue
		}
		copies++
		if to.tags(vlan) != tagged {
			ln.second = append(ln.second, to)
			continue
		}
		to.write(ln, ln.out)
	}
	if len(ln.second) == 0 {
		return copies
	}
	dressed := ln.dress(f, vlan, !tagged)
	for _, to := range ln.second {
		if dressed {
			to.write(ln, ln.out)
		} else {
			to.n.fail(packet.EgressRefused, f.Time)
		}
	}
	return copies
}

// Room returns packet.MaxFrame bytes for a frame. See packet.Out.
func (ln *lane) Room() []byte {
	if len(ln.answers) == cap(ln.answers) || ln.used+packet.MaxFrame > len(ln.room) {
		ln.flush()
	}
	return ln.room[ln.used : ln.used+packet.MaxFrame]
}

// answer takes the first n bytes of Room as a frame.
func (ln *lane) answer(n int, now int64) *packet.Frame {
	ln.answers = append(ln.answers, packet.Frame{B: ln.room[ln.used : ln.used+n : ln.used+n], Time: now})
	ln.used += n
	return &ln.answers[len(ln.answers)-1]
}

// Originate sends a gateway's own frame. See packet.Out.
func (ln *lane) Originate(to packet.Place, n int) {
	f := ln.answer(n, ln.now)
	if to.Port == 0 {
		ln.originateAll(to.Network, f)
		return
	}
	ln.counted.originated.Add(1)
	if p := ln.lanes.find(to); p != nil {
		ln.stage(p, f)
	} else {
		ln.counted.fail(packet.EgressGone, ln.now)
	}
}

// originateAll sends a frame to all ports of a network that carry its untagged VLAN,
// where the gateway is, but to the host: it is the
// gateway's other half, and what the one asks for the other asks for itself.
func (ln *lane) originateAll(n packet.NetworkID, f *packet.Frame) {
	s := ln.lanes.network(n)
	if s == nil {
		return
	}
	for _, p := range s.ports.Load().list {
		if p.conf.Host || p.conf.VLANs.Untagged != 0 {
			continue
		}
		ln.counted.originated.Add(1)
		ln.stage(p, f)
	}
}

// Resume has held frames go on at the end of the batch. See packet.Out.
func (ln *lane) Resume(key uint64) {
	if len(ln.resumes) < cap(ln.resumes) { // else their deadline will
		ln.resumes = append(ln.resumes, key)
	}
}

// Wake has a network's gateway called. See packet.Out.
func (ln *lane) Wake(n packet.NetworkID, at int64) {
	if s := ln.lanes.network(n); s != nil {
		s.wake(ln.id, at)
	}
}

// flush writes all staged frames, each port's in the order they were staged,
// and with that ends every borrowing: it runs before the next read.
func (ln *lane) flush() {
	for i := range ln.staged {
		to := ln.staged[i].to
		if to == nil {
			continue // went along with an earlier one
		}
		ln.out = ln.out[:0]
		for j := i; j < len(ln.staged); j++ {
			if ln.staged[j].to == to {
				ln.out = append(ln.out, ln.staged[j].f)
				ln.staged[j].to = nil
			}
		}
		to.write(ln, ln.out)
	}
	ln.staged, ln.answers, ln.used = ln.staged[:0], ln.answers[:0], 0
}

// write hands frames to the port, unless it is blocked or too slow to have more.
func (p *Port) write(ln *lane, frames []*packet.Frame) {
	switch now := frames[0].Time; {
	case p.isBlocked(now):
		p.failAll(frames, packet.Loop)
	case p.tooSlow(ln, max(now, ln.clock)):
		p.failAll(frames, packet.SlowReceiver)
	default:
		p.rated(ln, frames)
	}
}

func (p *Port) failAll(frames []*packet.Frame, r packet.Reason) {
	for _, f := range frames {
		p.n.fail(r, f.Time)
	}
}

// rated hands frames to the port, as far as its container may receive them.
func (p *Port) rated(ln *lane, frames []*packet.Frame) {
	if p.conf.Limit.receivesAll() {
		p.deliver(ln, frames)
		return
	}
	for len(frames) > 0 {
		n := 0
		for n < len(frames) && p.conf.Limit.receives(frames[n].Time, frames[n].Len()+frames[n].TrainHeaders()) {
			n++
		}
		if n > 0 {
			p.deliver(ln, frames[:n])
		}
		if frames = frames[n:]; len(frames) > 0 {
			p.n.fail(packet.RateLimit, frames[0].Time)
			frames = frames[1:]
		}
	}
}

// deliver hands frames to the port's queue, joined where they may be, and counts
// each as written or failed, also those of a train. Some at a time: meanwhile the port
// may have proved to be too slow.
func (p *Port) deliver(ln *lane, frames []*packet.Frame) {
	var trains []train // one for each of frames; nil where nothing is joined
	if len(frames) > 1 && ln.joins && p.offloads != nil && p.sw.joins() {
		frames, trains = ln.joiner.join(frames, p.offloads.Offload())
	}
	ln.touch(p, frames[0].Time)
	p.measure(ln)
	for at := 0; at < len(frames); {
		some := frames[at : at+p.atOnce(ln, len(frames)-at)]
		n, err := p.conf.Queue.WriteBatch(some)
		p.judge(ln, some)
		p.n.wrote(some[:n])
		p.n.wroteTrains(slice(trains, at, at+n))
		at += n
		if err != nil {
			p.failTrains(frames[at:at+1], slice(trains, at, at+1), failure(err))
			at++
		}
		if at < len(frames) && p.tooSlow(ln, ln.clock) {
			p.failTrains(frames[at:], slice(trains, at, len(frames)), packet.SlowReceiver)
			return
		}
	}
}

// slice is a part of trains, if there are any.
func slice(trains []train, from, to int) []train {
	if trains == nil {
		return nil
	}
	return trains[from:to]
}

// failTrains is failAll, with all that was joined.
func (p *Port) failTrains(frames []*packet.Frame, trains []train, r packet.Reason) {
	p.failAll(frames, r)
	for i := range trains {
		for range trains[i].frames - 1 {
			p.n.fail(r, frames[i].Time)
		}
	}
}

// failure is the reason a queue gave for not taking a frame.
func failure(err error) packet.Reason {
	if r, ok := err.(packet.Reason); ok { //nolint:errorlint // the contract of Queue: a bare Reason, and errors.As would allocate
		return r
	}
	return packet.EgressRefused
}
