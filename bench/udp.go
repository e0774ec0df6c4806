package main

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// What fairlead has to reach with datagrams.
const (
	oneFlowBar = 1.4  // of the kernel bridge
	mixedBar   = 0.75 // the same with many flows
	joiningBar = 0.97 // with many flows, of what it does when it joins none
	peerBar    = 0.9  // of the best other switch in user space
)

// moment is how long one measurement takes of what does not begin slowly.
func (o *options) moment() time.Duration {
	if o.Quick {
		return 400 * time.Millisecond
	}
	return time.Second
}

// frame60 is the payload of a datagram whose frame is as short as Ethernet
// has it, without its checksum: 60 bytes.
const frame60 = 60 - 14 - 20 - 8

// udpWorkloads are datagrams from one container to another, which a real socket
// receives. A generator sends as fast as it can, and what counts is what
// arrives.
func udpWorkloads() []*workload {
	const mixed = 64
	one := datagrams{Least: frame60, Most: frame60}
	many := datagrams{Least: 18, Most: 200, Flows: mixed}
	large := datagrams{Least: 1400, Most: 1400}
	// As QUIC sends: trains that the kernel takes apart, and a window. Three
	// trains are what a socket's buffer has room for with the kernel's defaults,
	// because each datagram takes more of it than its size.
	quic := datagrams{Least: 1252, Most: 1252, Train: 40, Window: 120}
	quicGRO := quic
	quicGRO.GRO = true
	ws := []*workload{
		udp("udp60", "of 18 bytes, frames of 60, one flow", one),
		udp("udp-mixed", fmt.Sprintf("of 18 to 200 bytes, %d flows at random", mixed), many),
		udp("udp1400", "of 1400 bytes, one flow", large),
		udp("udp-quic", "of 1252 bytes as QUIC sends them: trains of 40 (UDP_SEGMENT), three on their way, acknowledged", quic),
		udp("udp-quic-gro", "the same, received as trains (UDP_GRO)", quicGRO),
		udpLoss("udp60-loss", "of 18 bytes, frames of 60, one flow", one),
	}
	ws[0].quick = true
	return ws
}

// udp is how many datagrams of a kind arrive in a second.
func udp(name, what string, d datagrams) *workload {
	on := paths
	switch {
	case d.Train > 0: // trains come as one frame, and are joined with nothing
	case d.Most == frame60:
		on = unasked("join-off", "raw-trains")
	default:
		on = unasked("join-off")
	}
	w := &workload{name: name, unit: "k/s", what: "UDP datagrams " + what, takes: takeMoments(on, 1)}
	w.measure = func(l *lab, o *options, r *results) {
		figures := w.turns(l, o, r, on, func(l *lab, c *cable) func() (sample, error) {
			f := c.flooding(l, d, o.moment())
			return func() (sample, error) {
				s, _, err := f.sample(c, 0)
				return s, err
			}
		})
		compare(figures, "kernel", "raw", "fairlead")
		switch {
		case d.Flows > 1:
			r.hold(w, figures, "kernel", mixedBar)
			r.hold(w, figures, "join-off", joiningBar)
		case d.Most == frame60:
			r.hold(w, figures, "kernel", oneFlowBar)
		}
		r.holdPeers(w, figures, peerBar)
	}
	return w
}

// flooding starts both ends of floods on a cable.
func (c *cable) flooding(l *lab, d datagrams, during time.Duration) *flooding {
	near, far := c.startEnds(l, d)
	return &flooding{near: near, far: far, job: job{Do: "datagrams", To: c.to(sinkPort), For: during, Datagrams: d}}
}

// sample sends at a rate over a cable, 0 being as fast as it can, and proves by the
// path's counters that what arrived crossed it. Its value is what arrived.
func (f *flooding) sample(c *cable, rate float64) (s sample, sent outcome, err error) {
	var arrived outcome
	lost, err := c.dropped()
	if err != nil {
		return s, sent, err
	}
	n, err := c.across(func() (float64, error) {
		arrived, sent, err = f.try(rate)
		return float64(arrived.Bytes), err
	})
	if err != nil {
		return s, sent, err
	}
	now, err := c.dropped()
	if err != nil {
		return s, sent, err
	}
	return sample{
		Value: float64(arrived.Count) / sent.Took.Seconds() / 1e3, Bytes: float64(arrived.Bytes), Frames: float64(arrived.Count),
		spent: n.spent, Dropped: now - lost,
	}, sent, c.inOrder(arrived)
}

// inOrder says that datagrams are not as they were sent. The kernel's bridge may
// change their order, when their sender moves to another processor; a path that
// reads a link in one place may not.
func (c *cable) inOrder(arrived outcome) error {
	switch {
	case arrived.Count == 0:
		return errors.New("no datagram arrived")
	case arrived.Damaged > 0:
		return fmt.Errorf("%d of %d datagrams arrived otherwise than they were sent", arrived.Damaged, arrived.Count)
	case arrived.Disordered > 0 && !strings.HasPrefix(c.name, "kernel"):
		return fmt.Errorf("%d of %d datagrams arrived out of order, or twice", arrived.Disordered, arrived.Count)
	}
	return nil
}

// udpLoss is which part of the datagrams gets lost that are sent at half of
// what a path carries, at all of it, and at half as much again. How much of that was
// really sent is beside it: a sender that shares a small machine with the path, or does
// its work as over the kernel's bridge, may get no further.
func udpLoss(name, what string, d datagrams) *workload {
	w := &workload{name: name, what: "loss at 50, 100 and 150 % of what the path carries, UDP datagrams " + what, takes: func(o *options) time.Duration { return takeMoments(paths, 1.2)(o.free()) }}
	offered := []float64{0.5, 1, 1.5}
	var parts []*workload
	for _, part := range offered {
		parts = append(parts, &workload{
			name: fmt.Sprintf("%s%.0f", name, 100*part), unit: "%", less: true,
			what: fmt.Sprintf("UDP datagrams lost at %.0f %% of what the path carries, or as much of that as can be sent, %s", 100*part, what),
		})
	}
	w.measure = func(l *lab, o *options, r *results) {
		w.parts(l, o.free(), r, paths, parts, func(l *lab, c *cable) func() ([]sample, error) {
			f := c.flooding(l, d, o.moment()/4)
			return func() ([]sample, error) { return f.losses(c, offered) }
		})
	}
	return w
}

// losses are what gets lost at some parts of what a cable carries just now.
func (f *flooding) losses(c *cable, offered []float64) (samples []sample, err error) {
	full, _, err := f.sample(c, 0)
	if err != nil {
		return nil, err
	}
	carries := 1e3 * full.Value
	for _, part := range offered {
		s, sent, err := f.sample(c, part*carries)
		if err != nil {
			return nil, err
		}
		s.Value = max(0, 100*(1-s.Frames/float64(sent.Count)))
		s.Offered = float64(sent.Count) / sent.Took.Seconds() / carries
		samples = append(samples, s)
	}
	return samples, nil
}

// offered is which part of what the path carries was sent, as a cell.
func (f *figure) offered() string {
	var parts []float64
	for _, s := range f.Samples {
		if s.Offered > 0 {
			parts = append(parts, s.Offered)
		}
	}
	if len(parts) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.0f", 100*quantiles(parts).Median)
}

// overrun is which part of the frames the containers' interfaces dropped of those
// that they dropped and those that got through, as a cell.
func (f *figure) overrun() string {
	var frames float64
	for _, s := range f.Samples {
		frames += s.Frames
	}
	dropped := f.dropped()
	switch {
	case dropped == 0:
		return "–"
	case frames == 0: // by the host's sockets frames are not counted
		return fmt.Sprintf("%.0f frames", dropped)
	}
	return fmt.Sprintf("%.2g", 100*dropped/(dropped+frames))
}
