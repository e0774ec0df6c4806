package sockets

import "time"

// aMoment is how long it takes until connections are looked at that are to be
// looked at soon.
const aMoment = time.Millisecond

// lookSoon has a connection be looked at in a moment, or two.
func (t *tcp) lookSoon(c *conn) {
	if !c.bits.has(listed) {
		c.bits |= listed
		t.soon = append(t.soon, c)
	}
	if !t.looking {
		t.looking = true
		c.s.conf.Worker.Post(t.look)
	}
}

// lookAtConns sends the acknowledgements no answer has taken along, and looks at
// the buffers that were full. Those are looked at again.
func (s *Sockets) lookAtConns(int64) {
	s.mu.Lock()
	t := &s.tcp
	list := t.soon
	t.soon, t.looking = t.soon[:0], false
	for _, c := range list {
		c.bits &^= listed
		if c.bits.has(over) || c.fd < 0 {
			continue
		}
		if c.bits.has(owes) {
			c.alone()
			c.wake()
		}
		if c.bits.has(fullSend) {
			if size, used := sendBuffer(c.fd); size-used >= size/16 {
				c.drained()
				c.wake()
			} else {
				t.lookSoon(c)
			}
		}
	}
	clear(list[len(t.soon):])
	notify := s.notify
	if s.ready.empty() {
		notify = nil
	}
	s.mu.Unlock()
	if notify != nil {
		notify()
	}
}
