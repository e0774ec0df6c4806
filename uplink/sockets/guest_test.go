package sockets

import (
	"math/rand/v2"
	"slices"
	"time"

	"fairlead/packet"
)

// A guest is the TCP of a container, a small one: go-back-N with a short timer,
// and a receiver that keeps what comes early. Between it and the sockets is a
// wire that may lose, double and reorder.
type guest struct {
	r    *rig
	k    packet.Tuple
	wire wire

	una, nxt, max uint32 // of what it sends; iss + 1 is out[0]
	iss           uint32
	out           []byte
	finish        bool // a FIN follows out
	wnd           uint32
	wndShift      uint8
	dups          int
	train         int
	since         time.Time // of una's last move

	rcvNxt uint32
	room   uint32 // it offers
	shift  uint8
	in     []byte
	early  map[uint32][]byte
	sawFin bool

	open, reset bool
	offered     uint32 // the last window that was offered to it
	acks        int    // due
}

// A wire loses, doubles and holds back one of that many segments, in both
// directions; 0 is none.
type wire struct {
	rng                  *rand.Rand
	lose, double, hold   int
	held                 [][]byte // to be given to the sockets later
	lost, doubled, early int
}

func (w *wire) one(of int) bool { return of > 0 && w.rng.IntN(of) == 0 }

func newGuest(r *rig, k packet.Tuple) *guest {
	return &guest{
		r: r, k: k, iss: rand.Uint32(), room: 1 << 20, shift: 7, early: make(map[uint32][]byte),
		since: time.Now(), train: 1460,
	}
}

// connect sends a SYN.
func (g *guest) connect() {
	g.una, g.nxt, g.max = g.iss, g.iss+1, g.iss+1
	g.transmit(seg{flags: packet.TCPSyn, seq: g.iss, window: 64240, options: synOptions(1460, g.shift)})
}

// transmit puts a segment on the wire to the sockets.
func (g *guest) transmit(x seg) {
	b := tcpFrame(g.k, x)
	w := &g.wire
	switch {
	case w.one(w.lose):
		w.lost++
		return
	case w.one(w.hold):
		w.held = append(w.held, b)
		w.early++
		return
	case w.one(w.double):
		w.doubled++
		g.r.write(slices.Clone(b))
	}
	g.r.write(b)
	if len(w.held) > 0 && w.rng.IntN(3) == 0 {
		g.r.write(w.held[0])
		w.held = w.held[1:]
	}
}

func (g *guest) segment(flags uint8, seq uint32, payload []byte) {
	g.transmit(seg{flags: flags, seq: seq, ack: g.rcvNxt, window: uint16(min(0xffff, g.room>>g.shift)), payload: payload, train: g.train})
}

// run lets both sides go on until ok.
func (g *guest) run(what string, ok func() bool) {
	g.r.t.Helper()
	for end := time.Now().Add(3 * patience); !ok(); {
		if time.Now().After(end) {
			g.r.t.Fatalf("not in time: %s\nguest una %d nxt %d of %d, in %d, window %d, open %v reset %v\n%s", what,
				g.una-g.iss, g.nxt-g.iss, len(g.out), len(g.in), g.wnd, g.open, g.reset, g.r.describe(g.k))
		}
		if g.turn() {
			continue
		}
		select {
		case <-g.r.wake:
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// turn does what there is to do; false when that was nothing.
func (g *guest) turn() (busy bool) {
	busy = g.r.poll(g.arrive)
	for ; g.acks > 0; g.acks-- {
		g.segment(packet.TCPAck, g.nxt, nil)
	}
	return g.send() || busy
}

// arrive takes a frame from the sockets, cut into segments as a wire has them.
func (g *guest) arrive(f *packet.Frame) {
	if f.Tuple().Reverse() != g.k {
		return
	}
	var cut packet.Segmenter
	for cut.Reset(f); ; {
		b := make([]byte, packet.MaxFrame)
		n, ok := cut.Next(b)
		if !ok {
			return
		}
		one := &packet.Frame{B: b[:n]}
		if reason := packet.Parse(one); reason != packet.OK {
			g.r.t.Fatal(reason)
		}
		w := &g.wire
		if w.one(w.lose) {
			w.lost++
			continue
		}
		g.take(packet.TCP(one.Transport()), packet.IPv4(one.Packet()))
		if w.one(w.double) {
			g.take(packet.TCP(one.Transport()), packet.IPv4(one.Packet()))
		}
	}
}

func (g *guest) take(t packet.TCP, ip packet.IPv4) {
	if packet.Sum(t, packet.PseudoSum4(ip.Src(), ip.Dst(), packet.ProtoTCP, len(t))) != 0xffff {
		g.r.t.Fatal("a segment with a wrong checksum")
	}
	flags := t.Flags()
	switch {
	case flags&packet.TCPRst != 0:
		g.reset = true
		return
	case flags&packet.TCPSyn != 0:
		if v := t.Option(optionScale); len(v) == 1 {
			g.wndShift = v[0]
		}
		g.rcvNxt = t.Seq() + 1
		g.open, g.acks = true, 1
	}
	g.offered = uint32(t.Window())
	if flags&packet.TCPSyn == 0 {
		g.offered <<= g.wndShift
	}
	g.wnd = g.offered
	switch ack := t.Ack(); {
	case flags&packet.TCPAck == 0:
	case after(ack, g.max):
		g.r.t.Fatalf("an acknowledgement of what was not sent: %d of %d", ack-g.iss, g.max-g.iss)
	case after(ack, g.una):
		g.una, g.dups, g.since = ack, 0, time.Now()
		if before(g.nxt, ack) {
			g.nxt = ack
		}
	case ack == g.una && len(t.Payload()) == 0:
		if g.dups++; g.dups == 3 {
			g.nxt = g.una
		}
	}
	g.receive(t.Seq(), t.Payload(), flags&packet.TCPFin != 0)
}

// receive takes payload, early or not.
func (g *guest) receive(seq uint32, payload []byte, fin bool) {
	if len(payload) == 0 && !fin {
		if before(seq, g.rcvNxt) {
			g.acks++ // a probe
		}
		return
	}
	g.acks++
	if after(seq, g.rcvNxt) {
		if !fin {
			g.early[seq] = slices.Clone(payload)
		}
		return
	}
	g.append(seq, payload)
	for more := true; more; {
		more = false
		for s, p := range g.early {
			if !after(s, g.rcvNxt) {
				delete(g.early, s)
				g.append(s, p)
				more = true
			}
		}
	}
	if fin && !g.sawFin && seq+uint32(len(payload)) == g.rcvNxt {
		g.sawFin = true
		g.rcvNxt++
	}
}

func (g *guest) append(seq uint32, payload []byte) {
	if old := int(g.rcvNxt - seq); old < len(payload) && !g.sawFin {
		g.in = append(g.in, payload[old:]...)
		g.rcvNxt = seq + uint32(len(payload))
	}
}

// timeout is short, because between the two is memory.
const guestTimeout = 30 * time.Millisecond

// send sends what the window takes; false when that was nothing.
func (g *guest) send() (sent bool) {
	end := g.iss + 1 + uint32(len(g.out))
	if !g.open {
		if time.Since(g.since) > guestTimeout {
			g.since = time.Now()
			g.connect()
		}
		return false
	}
	if before(g.una, g.max) && time.Since(g.since) > guestTimeout {
		g.nxt, g.since = g.una, time.Now()
		if g.wnd == 0 && before(g.nxt, end) { // a probe of one byte
			g.segment(packet.TCPAck, g.nxt, g.out[g.nxt-g.iss-1:][:1])
		}
	}
	for before(g.nxt, end) {
		n := min(int(end-g.nxt), int(int32(g.una+g.wnd-g.nxt)), 44*1460)
		if n <= 0 {
			if g.una == g.nxt && time.Since(g.since) > guestTimeout {
				g.since = time.Now()
				g.segment(packet.TCPAck, g.nxt-1, nil)
			}
			return sent
		}
		at := g.nxt - g.iss - 1
		g.segment(packet.TCPAck|packet.TCPPsh, g.nxt, g.out[at:][:n])
		g.nxt += uint32(n)
		g.max = later(g.max, g.nxt)
		sent = true
	}
	if g.finish && g.nxt == end {
		g.segment(packet.TCPAck|packet.TCPFin, g.nxt, nil)
		g.nxt++
		g.max = later(g.max, g.nxt)
		sent = true
	}
	return sent
}

func later(a, b uint32) uint32 {
	if after(b, a) {
		return b
	}
	return a
}

// finished reports whether the guest's FIN was acknowledged.
func (g *guest) finished() bool {
	return g.finish && g.una == g.iss+2+uint32(len(g.out))
}

// look calls fn with the sockets' end of a connection, if there is one.
func (r *rig) look(k packet.Tuple, fn func(c *conn)) {
	if c := r.conn(k); c != nil {
		r.s.mu.Lock()
		defer r.s.mu.Unlock()
		fn(c)
	}
}

// state is that of the sockets' end.
func (r *rig) state(k packet.Tuple) (s tcpState) {
	r.look(k, func(c *conn) { s = c.state })
	return s
}

// option is one of the host's socket.
func (r *rig) option(k packet.Tuple, level, name int) (v int) {
	r.look(k, func(c *conn) { v = getInt(c.fd, level, name) })
	return v
}

// conn is the sockets' end of a connection, nil when there is none.
func (r *rig) conn(k packet.Tuple) *conn {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if n := r.numbers[k]; n != 0 {
		if c, ok := r.s.flows.find(n, &k).(*conn); ok {
			return c
		}
	}
	return r.s.tcp.unnumbered[k]
}

// describe is for failures.
func (r *rig) describe(k packet.Tuple) string {
	c := r.conn(k)
	if c == nil {
		return "no connection"
	}
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	return sprintConn(c)
}
