package main

import (
	"errors"
	"slices"
	"strings"
	"time"
)

// A turn is a path that was laid, and how it is measured once.
type turn struct {
	*cable
	figure  *figure
	measure func() (sample, error)
	seldom  bool // it is so slow that it bounds nothing
	gone    bool // it did not work any more
}

// seldom paths are measured in one round of so many.
const seldom = 3

// turns lays the paths that are to be measured and measures them in turns; what
// prepare returns measures one of them once. A peer that does not work is noted,
// and nothing else.
func (w *workload) turns(l *lab, o *options, r *results, paths []*path, prepare func(l *lab, c *cable) func() (sample, error)) map[string]*figure {
	var turns []*turn
	figures := map[string]*figure{}
	r.noteMissing(w, o, paths)
	for _, p := range paths {
		if !o.measures(p) {
			continue
		}
		t := &turn{}
		lay := func(l *lab) {
			t.cable = layCable(l, p)
			t.settle(l, func() error { return t.connect(l) })
			t.measure = prepare(l, t.cable)
		}
		if !p.peer {
			lay(l)
		} else if err := l.attempt(lay); err != nil {
			l.check(nil, "lay path %s", p.name) // which ends here when it was interrupted
			r.notRun(w, p.name, err)
			continue
		}
		t.figure = r.figure(w, p.name)
		figures[p.name] = t.figure
		turns = append(turns, t)
	}
	take := func(t *turn, round int) {
		since := watchTheft()
		s, err := t.once()
		s.Stolen, s.watched = since.until(watchTheft()), true
		if err != nil && t.peer && l.ctx.Err() == nil {
			r.notRun(w, t.name, err)
			t.gone = true
			return
		}
		l.check(err, "path %s", t.name)
		s.Round = round
		t.figure.add(s)
		progress("%s  round %d of %d  %-13s %6.2f %s", w.name, round+1, max(o.Pairs, round+1), t.name, s.Value, w.unit)
	}
	if len(turns) == 0 && len(o.Paths) > 0 {
		r.notRun(w, strings.Join(o.Paths, ", "), errors.New("it has no such path, or that cannot be measured here"))
	}
	for round := range o.Pairs {
		for _, t := range turns {
			if !t.gone && round%t.every == 0 && (!t.seldom || round%seldom == 0) {
				take(t, round)
			}
		}
		if round == 0 && !w.even {
			sortOut(turns)
		}
		slices.Reverse(turns) // neither of two neighbours is always the first
	}
	// Of a peer it may show only at the end that it is the best, whom bars are
	// about. It is measured as often as the others then.
	for round := o.Pairs; ; round++ {
		best := r.bestPeer(w.name)
		i := slices.IndexFunc(turns, func(t *turn) bool { return t.figure == best && !t.gone })
		if i < 0 || len(best.Samples) >= o.Pairs {
			return figures
		}
		for _, t := range turns {
			if t.figure == best || !t.peer && t.every == 1 {
				take(t, round)
			}
		}
	}
}

// once measures one path.
func (t *turn) once() (sample, error) {
	if t.during != nil {
		undo, err := t.during()
		if err != nil {
			return sample{}, err
		}
		defer undo()
	}
	s, err := t.measure()
	time.Sleep(t.lull)
	return s, err
}

// sortOut has all peers but the best measured seldom: it alone bounds us.
func sortOut(turns []*turn) {
	var best *turn
	for _, t := range turns {
		if !t.peer || len(t.figure.Samples) == 0 {
			continue
		}
		t.seldom = true
		if best == nil || t.figure.better(t.figure.Samples[0].Value, best.figure.Samples[0].Value) > 1 {
			best = t
		}
	}
	if best != nil {
		best.seldom = false
	}
}

// lasts is how many seconds one measurement of a path takes.
func (o *options) lasts(p *path) int {
	if p.brief {
		return 1
	}
	return o.Seconds
}

// What comes with each path and with each measurement.
const (
	laying = 700 * time.Millisecond
	around = 200 * time.Millisecond
)

// takeTurns is how long the turns of some paths take, when each measurement takes
// as long as one of throughput.
func (o *options) takeTurns(paths []*path) time.Duration {
	return o.takeTurnsOf(paths, func(p *path) time.Duration { return time.Duration(o.lasts(p)) * time.Second })
}

// takeTurnsOf is how long turns take whose measurements take some other time.
func (o *options) takeTurnsOf(paths []*path, lasts func(p *path) time.Duration) (d time.Duration) {
	peers := 0
	for _, p := range paths {
		if !o.measures(p) {
			continue
		}
		every := p.every
		if p.peer {
			if peers++; peers > 1 {
				every = seldom
			}
		}
		rounds := (o.Pairs + every - 1) / every
		d += laying + time.Duration(rounds)*(lasts(p)+around)
	}
	return d
}
