package sockets

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"testing"

	"fairlead/packet"
)

func sprintConn(c *conn) string {
	return fmt.Sprintf("%v bits %b acks %d fd %d\nrcvNxt %d edge +%d\nhead %d una +%d nxt +%d max +%d fin +%d wnd %d cwnd %d ssthresh %d peeked %d dups %d retries %d due %d",
		c.state, c.bits, c.acks, c.fd, c.rcvNxt, c.rcvEdge-c.rcvNxt, c.head, c.una-c.head, c.nxt-c.head, c.max-c.head, c.fin-c.head,
		c.wnd, c.cwnd, c.ssthresh, c.peeked, c.dups, c.retries, c.due)
}

// TestBulk sends data both ways at once over a wire that loses, doubles and
// reorders, and compares.
func TestBulk(t *testing.T) {
	for _, x := range []struct {
		name string
		wire wire
		conf Config
		size int
	}{
		{"clean", wire{}, Config{}, 8 << 20},
		{"lossy", wire{lose: 50}, Config{}, 2 << 20},
		{"doubling", wire{double: 10}, Config{}, 2 << 20},
		{"reordering", wire{hold: 20}, Config{}, 2 << 20},
		{"bad", wire{lose: 30, double: 30, hold: 30}, Config{}, 1 << 20},
		{"clean, no peek offset", wire{}, Config{NoPeekOffset: true}, 4 << 20},
		{"bad, no peek offset", wire{lose: 30, double: 30, hold: 30}, Config{NoPeekOffset: true}, 1 << 20},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := newRig(t, x.conf)
			l := listenLocal(t)
			g := newGuest(r, towards(l.Addr(), 40001))
			g.wire = x.wire
			g.wire.rng = rand.New(rand.NewPCG(1, 2))
			there, back := random(x.size, 3), random(x.size+777, 4)
			g.out, g.finish = there, true
			g.connect()
			g.run("connected", func() bool { return g.open })
			c := accept(t, l)
			sum := make(chan [32]byte, 1)
			go pump(c, back)
			go func() { sum <- swallow(c) }()
			g.run("all data and both FINs", func() bool { return g.finished() && g.sawFin })
			if got := <-sum; got != sha256.Sum256(there) {
				t.Error("the host has other data")
			}
			if !bytes.Equal(g.in, back) {
				t.Errorf("the container has other data: %d bytes of %d", len(g.in), len(back))
			}
			g.run("the flow ends", func() bool { return r.isEnded(g.k) })
			r.nothingLeft()
		})
	}
}

func random(n int, seed uint64) []byte {
	b := make([]byte, n)
	c := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = c.Read(b)
	return b
}

// pump writes all and a FIN.
func pump(c *net.TCPConn, data []byte) {
	if _, err := c.Write(data); err == nil {
		_ = c.CloseWrite()
	}
}

// swallow reads to the end.
func swallow(c *net.TCPConn) (sum [32]byte) {
	h := sha256.New()
	_, _ = io.Copy(h, c)
	return [32]byte(h.Sum(nil))
}

// nothingLeft checks that no descriptor, flow or deadline is kept.
func (r *rig) nothingLeft() {
	r.t.Helper()
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if n := r.s.flows.total; n != 0 {
		r.t.Errorf("%d descriptors are left", n)
	}
	for i := range r.s.flows.slots {
		if r.s.flows.slots[i].e != nil {
			r.t.Errorf("flow %d has an endpoint still", i)
		}
	}
	if len(r.s.tcp.unnumbered)+len(r.s.tcp.inside)+len(r.s.flows.holders)+len(r.s.timed.list) != 0 {
		r.t.Errorf("left: %d unnumbered, %d inside, %d holders, %d deadlines", len(r.s.tcp.unnumbered), len(r.s.tcp.inside),
			len(r.s.flows.holders), len(r.s.timed.list))
	}
}

func sum256(b []byte) [32]byte { return sha256.Sum256(b) }

// TestUntaken: what the host's socket does not take is asked for when it has room
// again, by as many acknowledgements as have it sent at once.
func TestUntaken(t *testing.T) {
	r := newRig(t, Config{})
	g, c := talk(t, r, 40001)
	_ = c.SetReadBuffer(32 << 10)
	part := random(44*1460, 1)
	full := func() (yes bool) {
		r.look(g.k, func(c *conn) { yes = c.bits.has(untaken) })
		return yes
	}
	for sent := 0; !full(); sent += len(part) { // whatever the window says
		if sent > 1<<30 {
			t.Fatal("the host takes everything")
		}
		g.segment(packet.TCPAck, g.nxt, part)
		g.nxt += uint32(len(part))
		r.poll(func(*packet.Frame) {})
	}
	go swallow(c)
	var last packet.TCP
	same := 0
	r.read(func(f *packet.Frame) bool {
		s := packet.TCP(f.Transport())
		if last != nil && s.Ack() == last.Ack() && s.Window() == last.Window() {
			same++
		}
		last = slices.Clone(s)
		return same == maxDuplicates
	})
}
