package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	hosts "fairlead/test/lab"
)

// What fairlead has to reach beside its peers, by the plan's rule for bars.
const (
	hostBar = 3.0 // times the best that makes packets of the usual MTU; of the others see peerBars,
	lineBar = 0.9 // and of the same line without it
)

// hostGroup are the workloads of the default uplink: containers that reach the
// world, and are reached, by ordinary sockets of the host.
const hostGroup = "host"

// hostWorkloads are all of that group.
func hostWorkloads() []*workload {
	var ws []*workload
	for _, d := range []direction{out, in} {
		for _, cc := range []string{"cubic", "bbr"} {
			for _, streams := range []int{1, 4} {
				ws = append(ws, hostTCP(d, cc, streams))
			}
		}
	}
	for _, d := range []direction{out, in} {
		for _, b := range badLines {
			ws = append(ws, hostLine(d, b))
		}
	}
	for _, d := range []direction{out, in} {
		ws = append(ws, hostUDP(d, 60), hostUDP(d, 1400), hostUDPCost(d, 60), hostUDPCost(d, 1400), hostConnections(d), hostLatency(d))
	}
	ws = append(ws, hostPorts())
	for _, w := range ws {
		w.group = hostGroup
	}
	return ws
}

// side says where who begins is.
func (d direction) side() (clientInside bool) { return d == out }

// hostTCP is iperf3 between a container and a host outside, both of which may
// have each congestion control, as the host has. Connections and bytes have the
// same direction.
func hostTCP(d direction, cc string, streams int) *workload {
	w := &workload{name: fmt.Sprintf("host-%s-%d-%s", d, streams, cc), unit: "Gb/s", takes: takeSites(d, everyLeader, time.Second+around)}
	w.what = map[direction]string{
		out: fmt.Sprintf("TCP from a container to a host outside, %s, %s", counted(streams, "stream"), cc),
		in:  fmt.Sprintf("TCP from a host outside to a published port, %s, %s", counted(streams, "stream"), cc),
	}[d]
	w.measure = func(l *lab, o *options, r *results) {
		hosts.Need(l, "iperf3")
		needCongestionControl(l, cc)
		m := w.sites(l, o, r, d, cc, everyLeader, func(l *lab, s *site) func(round int) (sample, error) {
			s.serveIperf(l, d)
			return func(int) (sample, error) { return s.bulk(l, d, 1, streams) }
		})
		m.rounds(l, o)
		m.holdTCP(cc)
	}
	return w
}

// holdTCP are the bars of bulk TCP: beside the best peer of each kind, and that the
// container's interface drops nothing. They are open where the machine's sockets had
// another congestion control.
func (m *sites) holdTCP(cc string) {
	before := len(m.r.Bars)
	m.bar(func(p *leader) bool { return p.mtu == 1500 }, "at MTU 1500", hostBar)
	m.bar(func(p *leader) bool { return p.mtu != 1500 }, "at any other MTU", peerBars[cc])
	if ours := m.ours(); ours != nil {
		m.r.undropped(ours)
		for i := before; i < len(m.r.Bars) && ours.Note != ""; i++ {
			m.r.Bars[i].doubt(ours.Note)
		}
	}
}

// serveIperf starts iperf3's server where connections of a direction end, and
// waits until one crosses.
func (s *site) serveIperf(l *lab, d direction) {
	server := s.command(context.Background(), !d.side(), "iperf3", "-s", "-p", strconv.Itoa(s.iperf))
	l.check(server.Start(), "start iperf3")
	l.Cleanup(func() {
		_ = server.Cancel()
		_ = server.Wait()
	})
	hosts.Eventually(l, 10*time.Second, func() error {
		if l.ctx.Err() != nil {
			l.Fatalf("interrupted")
		}
		_, err := s.runIperf(l, d, "-n", "64K")
		return err
	})
}

// bulk measures once, and proves that the bytes crossed the container's
// interface.
func (s *site) bulk(l *lab, d direction, seconds, streams int) (q sample, err error) {
	args := []string{"-t", strconv.Itoa(seconds), "-P", strconv.Itoa(streams)}
	if s.cc != "" {
		args = append(args, "-C", s.cc)
	}
	var report *iperfReport
	q, err = s.across(func() (payload float64, err error) {
		if report, err = s.runIperf(l, d, args...); err != nil {
			return 0, err
		}
		return report.End.Received.Bytes, nil
	})
	if err != nil {
		return q, err
	}
	got := report.End.Received
	q.Value, q.Bytes, q.Retransmits = got.Rate/1e9, got.Bytes, report.End.Sent.Retransmits
	return q, nil
}

// runIperf runs a client of iperf3.
func (s *site) runIperf(l *lab, d direction, args ...string) (*iperfReport, error) {
	ctx, cancel := context.WithTimeout(l.ctx, 20*time.Second) // some never end
	defer cancel()
	at := s.server(d, s.iperf)
	args = append([]string{"-J", "--connect-timeout", "3000", "-c", at.Addr().String(), "-p", strconv.Itoa(int(at.Port()))}, args...)
	output, err := s.command(ctx, d.side(), "iperf3", args...).Output()
	var report iperfReport
	if json.Unmarshal(output, &report) == nil && report.Error != "" {
		return nil, fmt.Errorf("iperf3: %s", report.Error)
	}
	if ctx.Err() != nil && l.ctx.Err() == nil {
		err = errors.New("no end after 20 s")
	}
	if err != nil {
		return nil, fmt.Errorf("iperf3: %w", err)
	}
	time.Sleep(50 * time.Millisecond) // the server needs a moment between two clients
	return &report, nil
}

// Sites that are measured in turns.
type sites struct {
	w    *workload
	r    *results
	list []*measured

	missing []*leader // that did not start
}

// A measured is a site, and how to measure it once.
type measured struct {
	*site
	figure  *figure
	measure func(round int) (sample, error)
	seldom  bool // it is so slow that it bounds nothing
	gone    bool // it did not work any more
}

// takeSites is how long the rounds of a class's sites take, when one measurement
// takes each.
func takeSites(d direction, class func(p *leader) bool, each time.Duration) func(o *options) time.Duration {
	return func(o *options) (all time.Duration) {
		known := map[bool]bool{} // whether the best of a class was counted, by whether its MTU is the usual one
		for _, p := range leaders {
			if !o.measuresLeader(p) || !class(p) || p.onlyIn && d == out {
				continue
			}
			rounds := o.Pairs
			if p.peer() {
				if usual := p.mtu == 1500; known[usual] {
					rounds = (rounds + seldomEvery - 1) / seldomEvery
				} else {
					known[usual] = true
				}
			}
			all += laying + time.Duration(rounds)*each
		}
		return all
	}
}

// everyLeader is the class of all that carry everything.
func everyLeader(p *leader) bool { return !p.rawUDP }

// sites lays a site for each leader of a class. Prepare returns how it is measured. Peers
// that do not start are noted, and nothing else.
func (w *workload) sites(l *lab, o *options, r *results, d direction, cc string, class func(p *leader) bool, prepare func(l *lab, s *site) func(round int) (sample, error)) *sites {
	m := &sites{w: w, r: r}
	for _, p := range leaders {
		if !o.measuresLeader(p) || !class(p) || p.onlyIn && d == out {
			continue
		}
		e := &measured{}
		err := l.attempt(func(l *lab) {
			e.site = laySite(l, p, cc, nil)
			e.measure = prepare(l, e.site)
		})
		switch {
		case l.ctx.Err() != nil:
			l.Fatalf("interrupted")
		case err != nil && p.ours():
			l.check(err, "%s", p.name)
		case err != nil:
			r.notRun(w, p.name, err)
			m.missing = append(m.missing, p)
			continue
		}
		e.figure = r.figure(w, p.name)
		e.figure.Note = e.note
		m.list = append(m.list, e)
	}
	return m
}

// seldomBelow is the part of its class's best below which a peer is measured in
// every third round only.
const seldomBelow, seldomEvery = 0.7, 3

// rounds measures all sites in turns, and those again of which a class's best
// shows only then that it is.
func (m *sites) rounds(l *lab, o *options) {
	for round := range o.Pairs {
		for _, e := range m.list {
			if !e.seldom || round%seldomEvery == 0 {
				m.once(l, o, e, round)
			}
		}
		if round == 0 {
			m.sortOut()
		}
		slices.Reverse(m.list) // neither of two neighbours is always the first
	}
	for round := o.Pairs; ; round++ {
		i := slices.IndexFunc(m.list, func(e *measured) bool {
			return e.peer() && !e.gone && len(e.figure.Samples) < o.Pairs && m.best(e.mtu == 1500) == e
		})
		if i < 0 {
			return
		}
		for _, e := range m.list {
			if e.ours() || e == m.list[i] {
				m.once(l, o, e, round)
			}
		}
	}
}

// best is the peer of a class that has the best median.
func (m *sites) best(usual bool) (best *measured) {
	for _, e := range m.list {
		if e.peer() && len(e.figure.Samples) > 0 && (e.mtu == 1500) == usual &&
			(best == nil || e.figure.better(e.figure.Value.Median, best.figure.Value.Median) > 1) {
			best = e
		}
	}
	return best
}

// once measures one site.
func (m *sites) once(l *lab, o *options, e *measured, round int) {
	if e.gone {
		return
	}
	since := watchTheft()
	s, err := e.measure(round)
	s.Stolen, s.watched = since.until(watchTheft()), true
	if l.ctx.Err() != nil {
		l.Fatalf("interrupted")
	}
	if err != nil && e.ours() {
		l.check(err, "%s", e.name)
	}
	if err != nil {
		m.r.notRun(m.w, e.name, err)
		e.gone = true
		return
	}
	s.Round = round
	e.figure.add(s)
	progress("%s  round %d of %d  %-13s %8.2f %s", m.w.name, round+1, max(o.Pairs, round+1), e.name, s.Value, m.w.unit)
}

// sortOut finds those that cannot be the best of their class.
func (m *sites) sortOut() {
	for _, e := range m.list {
		if !e.peer() || len(e.figure.Samples) == 0 {
			continue
		}
		for _, other := range m.list {
			if !other.peer() || len(other.figure.Samples) == 0 || (other.mtu == 1500) != (e.mtu == 1500) {
				continue
			}
			q := e.figure.better(e.figure.Samples[0].Value, other.figure.Samples[0].Value)
			e.seldom = e.seldom || q < seldomBelow
		}
	}
}

// ours is fairlead's figure, if there is one.
func (m *sites) ours() *figure {
	for _, e := range m.list {
		if e.ours() && len(e.figure.Samples) > 0 {
			return e.figure
		}
	}
	return nil
}

// compare has fairlead's ratios to all others and returns its figure, if there is
// one.
func (m *sites) compare() *figure {
	ours := m.ours()
	for _, e := range m.list {
		if ours != nil && e.figure != ours && len(e.figure.Samples) > 0 {
			ours.ratio(e.figure)
		}
	}
	return ours
}

// bar holds fairlead against the best peer of a class.
func (m *sites) bar(class func(p *leader) bool, what string, bound float64) {
	var best *figure
	for _, e := range m.list {
		f := e.figure
		if len(f.Samples) > 0 && e.peer() && class(e.leader) && (best == nil || f.better(f.Value.Median, best.Value.Median) > 1) {
			best = f
		}
	}
	switch ours := m.compare(); {
	case ours == nil:
	case best != nil:
		m.r.atLeast(ours, best, bound)
		m.r.last().Name += ", the best peer " + what
		m.r.besides(m.absent(class))
	case len(m.absent(class)) > 0:
		m.r.open(m.w, "the best peer "+what, bound)
	}
}

// absent are the peers of a class that did not start, or not every time.
func (m *sites) absent(class func(p *leader) bool) (names []string) {
	for _, p := range m.missing {
		if class(p) {
			names = append(names, p.name)
		}
	}
	for _, e := range m.list {
		if e.gone && class(e.leader) {
			names = append(names, e.name)
		}
	}
	return names
}
