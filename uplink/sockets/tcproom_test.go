package sockets

import (
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestRoomOrEvent: a send buffer has room, or is known to be full, so that an event
// tells when it has; also if its peer takes some just when it is looked at.
func TestRoomOrEvent(t *testing.T) {
	r := newRig(t, Config{})
	g, peer := talk(t, r, 40001)
	go func() { _, _ = io.Copy(io.Discard, peer) }()
	c := r.conn(g.k)
	r.s.mu.Lock()
	fd := c.fd
	r.s.mu.Unlock()
	payload := make([]byte, 64<<10)
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end) && !t.Failed(); {
		for {
			if n, err := unix.Write(fd, payload); err != nil || n < len(payload) {
				break
			}
		}
		r.s.mu.Lock()
		for full := true; full; full = c.bits.has(fullSend) {
			c.bits &^= fullSend
			if c.sendRoom() == 0 && !c.bits.has(fullSend) {
				t.Error("there is no room, and nothing will tell when there is")
			}
		}
		r.s.mu.Unlock()
	}
}
