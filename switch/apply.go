package vswitch

import "fairlead/packet"

// A lane is what one worker carries along: the batch it reads into, the frames
// staged for writing, and room for the frames the gateway originates. Switches
// of one loop share it, because a worker gives one port its turn at a time.
type lane struct {
	batch  *packet.Batch
	staged []staged
	out    []*packet.Frame // scratch of flush

	// decision is that of the frame at hand. It lives here because the compiler
	// cannot see that a Gateway does not keep it, and would allocate one a frame.
	decision packet.Decision

	answers []packet.Frame // originated in this batch
	room    []byte         // their bytes
	used    int
}

// staged is one copy of a frame on its way to a port, until the next flush.
type staged struct {
	to *Port
	f  *packet.Frame
}

func newLane() *lane {
	return &lane{
		batch:   packet.NewBatch(),
		staged:  make([]staged, 0, 2*packet.BatchFrames),
		out:     make([]*packet.Frame, 0, 2*packet.BatchFrames),
		answers: make([]packet.Frame, 0, packet.BatchFrames),
		room:    make([]byte, 2*packet.MaxFrame),
	}
}

// apply carries a decision out: the only place that writes tables, counts and
// hands frames to queues.
func (s *Switch) apply(ln *lane, in *Port, ports *portTable, f *packet.Frame, d *packet.Decision) {
	if d.Learn != packet.LearnNothing {
		s.macs.learn(macKey(f, packet.Ethernet(f.Ether()).Src()), in.id, f.Time)
	}
	switch d.Verdict {
	case packet.Unicast:
		in.n.unicast.Add(1)
		ln.stage(ports.find(d.Egress), f)
	case packet.Flood:
		in.n.flooded.Add(1)
		copies := ln.flood(in, ports, f)
		in.flood.Take(f.Time, copies)
		in.n.fanout.Add(uint64(copies))
	case packet.Gateway:
		in.n.gateway.Add(1)
	case packet.Drop:
		in.n.drop(d.Reason, f.Time)
	}
	if d.Originate != packet.OriginNone || d.Neighbour {
		if n := s.gateway.Apply(f, d, ln.answerRoom()); n > 0 {
			in.n.originated.Add(1)
			ln.stage(in, ln.answer(n, f.Time))
		}
	}
}

// stage puts a frame down for writing to a port at the next flush.
func (ln *lane) stage(to *Port, f *packet.Frame) { ln.staged = append(ln.staged, staged{to, f}) }

// flood writes one frame to every port that may have it, now, after what was
// staged before it: the same bytes go to each, nobody has changed them.
func (ln *lane) flood(in *Port, ports *portTable, f *packet.Frame) (copies int) {
	ln.flush()
	ln.out = append(ln.out[:0], f)
	for _, to := range ports.list {
		if floods(in, to) {
			to.write(ln.out)
			copies++
		}
	}
	return copies
}

// answerRoom returns packet.MaxFrame bytes for an originated frame.
func (ln *lane) answerRoom() []byte {
	if len(ln.answers) == cap(ln.answers) || ln.used+packet.MaxFrame > len(ln.room) {
		ln.flush()
	}
	return ln.room[ln.used : ln.used+packet.MaxFrame]
}

// answer takes the first n bytes of answerRoom as a frame.
func (ln *lane) answer(n int, now int64) *packet.Frame {
	ln.answers = append(ln.answers, packet.Frame{B: ln.room[ln.used : ln.used+n : ln.used+n], Time: now})
	ln.used += n
	return &ln.answers[len(ln.answers)-1]
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
		to.write(ln.out)
	}
	ln.staged, ln.answers, ln.used = ln.staged[:0], ln.answers[:0], 0
}

// write hands frames to the port's queue and counts each as written or failed.
func (p *Port) write(frames []*packet.Frame) {
	for len(frames) > 0 {
		n, err := p.conf.Queue.WriteBatch(frames)
		p.n.wrote(frames[:n])
		if err == nil {
			return
		}
		p.n.fail(failure(err), frames[n].Time)
		frames = frames[n+1:]
	}
}

// failure is the reason a queue gave for not taking a frame.
func failure(err error) packet.Reason {
	if r, ok := err.(packet.Reason); ok { //nolint:errorlint // the contract of Queue: a bare Reason, and errors.As would allocate
		return r
	}
	return packet.EgressRefused
}
