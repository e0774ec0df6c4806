package sockets

import "time"

// tickEvery is how exactly deadlines are kept.
const tickEvery = 20 * time.Millisecond

// A timed is the endpoints with a deadline. There are few: those with something
// on the way or at its end; a connection that rests has none. While there are
// any the worker looks through them every tickEvery.
type timed struct {
	list    []*base
	ticking bool
}

// at sets an endpoint's deadline.
func (e *base) at(deadline int64) {
	e.deadline = deadline
	t := &e.s.timed
	if e.place == 0 {
		t.list = append(t.list, e)
		e.place = len(t.list)
	}
	if !t.ticking {
		t.ticking = true
		s := e.s
		s.conf.Worker.Post(func() { s.conf.Worker.AfterFunc(tickEvery, s.tick) })
	}
}

// remove takes an endpoint's deadline away.
func (t *timed) remove(e *base) {
	e.deadline = 0
	if e.place == 0 {
		return
	}
	last := t.list[len(t.list)-1]
	t.list[e.place-1], last.place = last, e.place
	t.list[len(t.list)-1] = nil
	t.list = t.list[:len(t.list)-1]
	e.place = 0
}

// tick calls the endpoints whose time has come.
func (s *Sockets) tick(now int64) {
	s.mu.Lock()
	for i := len(s.timed.list) - 1; i >= 0; i-- {
		if i >= len(s.timed.list) {
			continue // one that was called took others with it
		}
		if e := s.timed.list[i]; e.deadline <= now {
			s.timed.remove(e)
			e.self.expire(now)
		}
	}
	again := len(s.timed.list) > 0 && !s.closed
	s.timed.ticking = again
	notify := s.notify
	due := !s.ready.empty() || len(s.ended) > 0
	s.mu.Unlock()
	if due && notify != nil {
		notify()
	}
	if again {
		s.conf.Worker.AfterFunc(tickEvery, s.tick)
	}
}
