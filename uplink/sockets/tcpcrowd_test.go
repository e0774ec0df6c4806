package sockets

import (
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"fairlead/packet"
)

// TestCrowd opens many connections at once, which half-close, close, reset and
// vanish at random, from both sides. In the end nothing is left of them.
func TestCrowd(t *testing.T) {
	t.Run("with peek offset", func(t *testing.T) { crowd(t, Config{}) })
	t.Run("without", func(t *testing.T) { crowd(t, Config{NoPeekOffset: true}) })
}

func crowd(t *testing.T, conf Config) {
	const size = 150
	rng := rand.New(rand.NewPCG(9, 10))
	r := newRig(t, conf)
	l := listenLocal(t)
	var served sync.WaitGroup
	served.Go(func() { serveCrowd(l, &served) })

	guests := make(map[packet.Tuple]*guest)
	over, rude := make(map[packet.Tuple]bool), make(map[packet.Tuple]bool)
	for i := range size {
		g := newGuest(r, towards(l.Addr(), uint16(40000+i)))
		g.out, g.finish = random(rng.IntN(50_000), uint64(i)), i%4 < 2
		rude[g.k] = i%4 == 2 // of the others some wait for the host's FIN
		g.wire = wire{rng: rng, lose: 100}
		guests[g.k] = g
		g.connect()
	}
	deliver := func(f *packet.Frame) {
		if g := guests[f.Tuple().Reverse()]; g != nil {
			g.arrive(f)
		}
	}
	for end := time.Now().Add(3 * patience); len(over) < size; {
		if time.Now().After(end) {
			for k, g := range guests {
				if !over[k] {
					t.Logf("%v: open %v reset %v una %d of %d\n%s", k, g.open, g.reset, g.una-g.iss, len(g.out), r.describe(k))
				}
			}
			t.Fatalf("%d of %d connections have ended", len(over), size)
		}
		busy := r.poll(deliver)
		for k, g := range guests {
			switch {
			case over[k]:
			case r.isEnded(k):
				over[k] = true
			case g.reset:
			case rude[k] && g.una == g.iss+1+uint32(len(g.out)) || rng.IntN(20_000) == 0: // no good end
				if rng.IntN(2) == 0 {
					r.s.FlowEnded(r.numbers[k])
					over[k] = true
				} else {
					g.lastWord()
				}
				g.reset = true
			default:
				for ; g.acks > 0; g.acks-- {
					g.segment(packet.TCPAck, g.nxt, nil)
				}
				busy = g.send() || busy
				g.finish = g.finish || g.sawFin
			}
		}
		if !busy {
			select {
			case <-r.wake:
			case <-time.After(time.Millisecond):
			}
		}
	}
	_ = l.Close()
	served.Wait()
	r.eventually("nothing is left", func() bool { return r.s.Stats().Descriptors == 0 })
	r.nothingLeft()
}

// lastWord resets the connection, on a wire that does not lose it. What was lost
// before counts as not sent: behind a hole a RST is only a guess.
func (g *guest) lastWord() {
	seq := g.max
	g.r.look(g.k, func(c *conn) { seq = c.rcvNxt })
	g.r.write(tcpFrame(g.k, seg{flags: packet.TCPRst, seq: seq}))
}

// serveCrowd is the host's side of a crowd.
func serveCrowd(l *net.TCPListener, all *sync.WaitGroup) {
	rng := rand.New(rand.NewPCG(11, 12))
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			return
		}
		_ = c.SetDeadline(time.Now().Add(3 * patience))
		kind, n := rng.IntN(4), rng.IntN(50_000)
		all.Go(func() {
			defer c.Close()
			switch kind {
			case 0: // says nothing
				_ = c.CloseWrite()
				swallow(c)
			case 1:
				pump(c, make([]byte, n))
				swallow(c)
			case 2:
				_, _ = c.Write(make([]byte, n))
				_ = c.SetLinger(0)
			case 3: // leaves at once
			}
		})
	}
}
