package sockets

import (
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"fairlead/loop"
	"fairlead/packet"
)

// A script plays a container and its peer on the host from bytes: segments of
// any kind, calls on the peer's socket, events that tell of nothing. Each byte of
// both streams tells its place, so nothing can arrive twice, too early, or at all
// if it was not sent.
type script struct {
	t    testing.TB
	r    *rig
	k    packet.Tuple
	host int // the peer's socket, -1 when it is closed

	irs     uint32 // where the container's stream begins
	sent    uint32 // how much of it was sent in order
	iss     uint32 // where the host's stream begins, once known
	known   bool
	wrote   int // of the host's stream
	read    int // by the peer
	seen    uint32
	written bool // the peer's end of its stream was sent
	reset   bool
}

// at is the byte of a stream at a place.
func at(i uint32) byte { return byte(i*7 ^ i>>8) }

func stream(from uint32, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = at(from + uint32(i))
	}
	return b
}

// begin makes the connection, from the container or from outside.
func (s *script) begin(fromOutside bool) {
	if fromOutside {
		s.beginOutside()
	} else {
		l := listenLocal(s.t)
		s.k = towards(l.Addr(), 40001)
		s.irs = 0xfffff000 // it wraps soon
		s.write(seg{flags: packet.TCPSyn, seq: s.irs, window: 60000, options: synOptions(1000, 3)})
		s.r.read(func(f *packet.Frame) bool {
			s.iss, s.known = packet.TCP(f.Transport()).Seq(), true
			return true
		})
		c := accept(s.t, l)
		raw, err := c.File()
		if err != nil {
			s.t.Fatal(err)
		}
		s.host, _ = unix.FcntlInt(raw.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		_, _ = raw.Close(), c.Close()
	}
	_ = unix.SetNonblock(s.host, true)
	s.t.Cleanup(s.close)
}

func (s *script) beginOutside() {
	bound := publish(s.r, "tcp4")
	s.host, _ = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err := unix.Connect(s.host, &unix.SockaddrInet4{Addr: bound.Addr().As4(), Port: int(bound.Port())}); err != nil {
		s.t.Fatal(err)
	}
	s.r.read(func(f *packet.Frame) bool {
		s.iss, s.known, s.k = packet.TCP(f.Transport()).Seq(), true, f.Tuple().Reverse()
		return true
	})
	s.irs = 0xfffff000
	s.write(seg{flags: packet.TCPSyn | packet.TCPAck, seq: s.irs, ack: s.iss + 1, window: 60000, options: synOptions(1000, 3)})
}

func (s *script) close() {
	if s.host >= 0 {
		_ = unix.Close(s.host)
		s.host = -1
	}
}

func (s *script) write(x seg) { s.r.write(tcpFrame(s.k, x)) }

// next is the sequence number behind what the container has sent in order, and
// acked one for what it has.
func (s *script) next() uint32  { return s.irs + 1 + s.sent }
func (s *script) acked() uint32 { return s.iss + 1 + s.seen }

// step does one thing.
func (s *script) step(op, arg byte) {
	n := int(arg) * int(arg)
	x := seg{flags: packet.TCPAck, seq: s.next(), ack: s.acked(), window: 2000, train: 1000}
	switch op % 16 {
	case 0: // the next data
		x.payload = stream(s.sent, n)
		s.write(x)
	case 1: // data around it
		off := uint32(n) - 20_000
		x.seq += off
		x.payload = stream(s.sent+off, 1+n/3)
		s.write(x)
	case 2:
		s.write(x)
	case 3: // an acknowledgement of something else
		x.ack += uint32(int8(arg)) * 37
		s.write(x)
	case 4:
		x.window = uint16(arg)
		s.write(x)
	case 5:
		x.flags |= packet.TCPFin
		x.payload = stream(s.sent, int(arg))
		s.write(x)
	case 6:
		x.flags = packet.TCPRst | arg&packet.TCPAck
		x.seq += uint32(int8(arg)) / 2
		s.write(x)
	case 7: // anything
		x.flags, x.window = arg, uint16(n)
		x.options = synOptions(uint16(n), arg)
		s.write(x)
	case 8:
		if s.host >= 0 && !s.written {
			if k, err := unix.Write(s.host, stream(uint32(s.wrote), 1+n)); err == nil {
				s.wrote += k
			}
		}
	case 9:
		s.drain()
	case 10:
		if s.host >= 0 {
			_ = unix.Shutdown(s.host, unix.SHUT_WR)
			s.written = true
		}
	case 11:
		if arg&1 == 1 && s.host >= 0 {
			_ = unix.SetsockoptLinger(s.host, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		}
		s.close()
	case 12: // an event that tells of nothing, or nothing new
		s.r.look(s.k, func(c *conn) {
			c.events |= uint32(arg) & (loop.In | loop.Out | unix.EPOLLPRI | loop.Hup)
			c.wake()
		})
	case 13:
		s.r.look(s.k, func(c *conn) {
			if c.due != 0 {
				c.expire(c.due)
			}
		})
	case 14: // until there is nothing
		for s.r.poll(s.arrive) {
		}
	case 15: // the container writes on as if nothing was lost
		x.payload = stream(s.sent, n)
		s.sent += uint32(n)
		s.write(x)
	}
	for range 8 {
		if !s.r.poll(s.arrive) {
			break
		}
	}
	s.check()
}

// drain reads what has come to the peer.
func (s *script) drain() {
	buf := make([]byte, 1<<16)
	for s.host >= 0 {
		n, err := unix.Read(s.host, buf)
		if n <= 0 || err != nil {
			return
		}
		for i, b := range buf[:n] {
			if b != at(uint32(s.read+i)) {
				s.t.Fatalf("byte %d of the container's stream came as %x", s.read+i, b)
			}
		}
		s.read += n
	}
}

// arrive takes a frame as the container does.
func (s *script) arrive(f *packet.Frame) {
	if f.Proto != packet.ProtoTCP || f.Tuple().Reverse() != s.k {
		return
	}
	t := packet.TCP(f.Transport())
	if t.Flags()&packet.TCPSyn != 0 {
		s.iss, s.known = t.Seq(), true
		return
	}
	if t.Flags()&packet.TCPRst != 0 {
		s.reset = true
		return
	}
	from := t.Seq() - s.iss - 1
	for i, b := range t.Payload() {
		place := from + uint32(i)
		if b != at(place) {
			s.t.Fatalf("byte %d of the host's stream came as %x", place, b)
		}
		if int(place) >= s.wrote {
			s.t.Fatalf("byte %d of a stream of %d", place, s.wrote)
		}
	}
	if got := from + uint32(len(t.Payload())); !after(from, s.seen) && after(got, s.seen) {
		s.seen = got
	}
	if ack := t.Ack() - s.irs - 1; after(ack, s.sent) {
		s.sent = ack // what was sent early, or is the FIN
	}
}

// check looks at what always holds.
func (s *script) check() {
	s.r.look(s.k, func(c *conn) {
		if c.state <= connecting || c.state == synSent || c.state == synReceived {
			return
		}
		if after(c.una, c.nxt) || after(c.nxt, c.max) || after(c.head, c.una) && c.una != c.head {
			s.t.Fatalf("the order of sequence numbers is broken\n%s", sprintConn(c))
		}
		if before(c.rcvEdge, c.rcvNxt) || c.rcvEdge-c.rcvNxt > maxOffer {
			s.t.Fatalf("the window is not one\n%s", sprintConn(c))
		}
		if c.fd < 0 && c.state != timeWait && c.state != closed {
			s.t.Fatalf("no socket\n%s", sprintConn(c))
		}
	})
}

// play runs a whole script and checks that nothing is left of it.
func play(t testing.TB, data []byte) {
	if len(data) == 0 {
		return
	}
	r := newRig(t, Config{NoPeekOffset: data[0]&2 != 0})
	s := &script{t: t, r: r, host: -1}
	s.begin(data[0]&1 != 0)
	for data = data[1:]; len(data) >= 2 && len(data) < 400; data = data[2:] {
		s.step(data[0], data[1])
	}
	s.drain()
	s.r.s.FlowEnded(r.numbers[s.k])
	s.write(seg{flags: packet.TCPRst, seq: s.irs}) // of an inbound one without number
	r.eventually("nothing is left", func() bool {
		if c := r.conn(s.k); c != nil {
			r.s.mu.Lock()
			c.abort(nothing)
			r.s.mu.Unlock()
		}
		return r.s.Stats().Descriptors == 0
	})
	r.nothingLeft()
}

func FuzzTCP(f *testing.F) {
	f.Add([]byte{0, 2, 0, 0, 10, 8, 10, 2, 0, 9, 0, 5, 0, 10, 0, 2, 0, 13, 0})
	f.Add([]byte{1, 2, 0, 8, 200, 2, 0, 13, 0, 2, 0, 4, 0, 8, 100, 13, 0, 13, 0, 2, 0})
	f.Add([]byte{2, 15, 255, 1, 180, 3, 5, 3, 5, 3, 5, 12, 255, 11, 1, 14, 0})
	f.Add([]byte{0, 10, 0, 2, 1, 2, 1, 5, 0, 5, 0, 7, 2, 13, 0})
	f.Add([]byte{3, 8, 255, 8, 255, 3, 0, 3, 0, 3, 0, 3, 0, 13, 0, 6, 16, 6, 0})
	rng := rand.New(rand.NewPCG(5, 6))
	for range 200 {
		b := make([]byte, 1+rng.IntN(120))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) { play(t, data) })
}
