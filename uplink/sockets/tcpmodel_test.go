package sockets

import (
	"math/rand/v2"
	"testing"

	"fairlead/packet"
)

// A tcpModel is the states of RFC 9293, figure 5, as the container's peer goes
// through them, and nothing else. It is compared with a conn that has a socket.
type tcpModel struct{ state tcpState }

// A tcpEvent is something that happens to a connection that is open.
type tcpEvent int

const (
	containerData  tcpEvent = iota
	containerAck            // of all that came
	containerFIN            // behind all data, without acknowledging more
	containerRST            // exactly where it belongs
	containerGuess          // a RST that is only near
	containerOld            // data that is there already
	containerSYN            // once more
	hostData
	hostFIN
	hostRST
	numEvents
)

var eventNames = [...]string{"data", "ACK", "FIN", "RST", "guessed RST", "old data", "SYN", "host data", "host FIN", "host RST"}

// possible reports whether an event can happen: nobody speaks behind its FIN.
func (m *tcpModel) possible(e tcpEvent) bool {
	containerOpen := m.state == established || m.state == finWait1 || m.state == finWait2
	hostOpen := m.state == established || m.state == closeWait
	switch e {
	case containerData, containerFIN:
		return containerOpen
	case hostData, hostFIN:
		return hostOpen
	case hostRST:
		return containerOpen || hostOpen // else the host's connection is over
	}
	return true
}

// event moves the model.
func (m *tcpModel) event(e tcpEvent) {
	switch {
	case m.state == closed:
	case e == containerRST && m.state != timeWait, e == hostRST:
		m.state = closed
	case e == containerAck:
		switch m.state {
		case finWait1:
			m.state = finWait2
		case closing:
			m.state = timeWait
		case lastAck:
			m.state = closed
		}
	case e == containerFIN:
		switch m.state {
		case established:
			m.state = closeWait
		case finWait1:
			m.state = closing
		case finWait2:
			m.state = timeWait
		}
	case e == hostFIN:
		switch m.state {
		case established:
			m.state = finWait1
		case closeWait:
			m.state = lastAck
		}
	}
}

// TestStates takes random walks and compares the states after every step.
func TestStates(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	var visits [lastAck + 1]int
	var steps [numEvents]int
	for walk := 0; walk < 4000; walk++ {
		enough := walk >= 150
		for s := established; s <= lastAck; s++ {
			enough = enough && visits[s] >= 100
		}
		for e := range numEvents {
			enough = enough && steps[e] >= 100
		}
		if enough {
			break
		}
		walkStates(t, rng, Config{NoPeekOffset: walk%2 == 1}, visits[:], steps[:])
	}
	t.Logf("states %v, events %v", visits, steps)
	for s := established; s <= lastAck; s++ {
		if visits[s] < 100 {
			t.Errorf("%v was met %d times", s, visits[s])
		}
	}
	for e, n := range steps {
		if n < 100 {
			t.Errorf("%v happened %d times", eventNames[e], n)
		}
	}
}

func walkStates(t *testing.T, rng *rand.Rand, conf Config, visits, steps []int) {
	r := newRig(t, conf)
	r.stopTime()
	defer r.close()
	g, host := talk(t, r, 40001)
	m := tcpModel{state: established}
	first, acked := g.iss, g.rcvNxt
	for step := 0; m.state != closed && step < 20; step++ {
		e := tcpEvent(rng.IntN(int(numEvents)))
		if (e == containerRST || e == hostRST) && rng.IntN(4) > 0 || !m.possible(e) || e == containerOld && g.nxt == first+1 {
			continue
		}
		visits[m.state]++
		steps[e]++
		from := m.state
		m.event(e)
		switch x := (seg{flags: packet.TCPAck, seq: g.nxt, ack: acked, window: 1 << 13}); e {
		case containerData:
			x.payload = []byte("from inside")
			g.nxt += uint32(len(x.payload))
			r.write(tcpFrame(g.k, x))
		case containerAck:
			g.listen("all that is to be acknowledged", g.heardAll)
			acked = g.rcvNxt
			x.ack = acked
			r.write(tcpFrame(g.k, x))
		case containerFIN:
			x.flags |= packet.TCPFin
			g.nxt++
			r.write(tcpFrame(g.k, x))
		case containerRST:
			x.flags = packet.TCPRst
			r.write(tcpFrame(g.k, x))
		case containerGuess:
			x.flags, x.seq = packet.TCPRst, g.nxt+3
			r.write(tcpFrame(g.k, x))
		case containerOld:
			x.seq, x.payload = first+1, []byte("f")
			r.write(tcpFrame(g.k, x))
		case containerSYN:
			x.flags, x.seq, x.ack = packet.TCPSyn, first, 0
			r.write(tcpFrame(g.k, x))
		case hostData:
			if _, err := host.Write([]byte("from outside")); err != nil {
				t.Fatal(err)
			}
		case hostFIN:
			if err := host.CloseWrite(); err != nil {
				t.Fatal(err)
			}
		case hostRST:
			_ = host.SetLinger(0)
			_ = host.Close()
		}
		g.max = later(g.max, g.nxt)
		what := from.String() + " and " + eventNames[e] + ": " + m.state.String()
		g.listen(what, func() bool { return r.state(g.k) == m.state })
	}
}

// listen takes what comes until ok, and answers nothing.
func (g *guest) listen(what string, ok func() bool) {
	g.r.t.Helper()
	g.r.await(what, ok, g.arrive)
}

// heardAll reports whether the container has all that was sent to it.
func (g *guest) heardAll() (all bool) {
	all = true
	g.r.look(g.k, func(c *conn) {
		all = c.state == timeWait || c.max == g.rcvNxt && (c.bits.has(sawEnd) || !c.bits.has(readable))
	})
	return all
}
