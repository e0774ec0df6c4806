package sockets

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"fairlead/loop"
	"fairlead/packet"
)

// talk connects a guest to a listener of the test's own.
func talk(t *testing.T, r *rig, port uint16) (*guest, *net.TCPConn) {
	t.Helper()
	l := listenLocal(t)
	g := newGuest(r, towards(l.Addr(), port))
	g.connect()
	g.run("connected", func() bool { return g.open })
	c := accept(t, l)
	g.run("established", func() bool { return r.state(g.k) == established })
	return g, c
}

func TestRefused(t *testing.T) {
	r := newRig(t, Config{})
	l := listenLocal(t)
	g := newGuest(r, towards(l.Addr(), 40001))
	_ = l.Close()
	g.connect()
	r.read(func(f *packet.Frame) bool {
		s := packet.TCP(f.Transport())
		if s.Flags() != packet.TCPRst|packet.TCPAck || s.Seq() != 0 || s.Ack() != g.iss+1 {
			t.Errorf("flags %x seq %d ack %d", s.Flags(), s.Seq(), s.Ack()-g.iss)
		}
		return true
	})
	r.eventually("the flow ends", func() bool { return r.isEnded(g.k) })
	r.nothingLeft()
}

func TestUnreachable(t *testing.T) {
	r := newRig(t, Config{})
	g := newGuest(r, towards(&net.TCPAddr{IP: net.IPv4bcast, Port: 9}, 40001)) // which no TCP reaches
	g.connect()
	r.read(func(f *packet.Frame) bool {
		about, ok := f.Quoted()
		if !ok || about != g.k {
			t.Fatalf("proto %v quotes %v", f.Proto, about)
		}
		m := packet.ICMP(f.Transport())
		if m.Type() != packet.ICMPUnreachable || m.Code() != packet.ICMPNetUnreachable {
			t.Errorf("type %d code %d", m.Type(), m.Code())
		}
		if seq := packet.TCP(m.Data()[packet.IPv4MinLen:]).Seq(); seq != g.iss {
			t.Errorf("quotes sequence number %d of %d", seq, g.iss)
		}
		return true
	})
	r.eventually("the flow ends", func() bool { return r.isEnded(g.k) })
	r.nothingLeft()
}

// bound is a socket nobody listens on yet.
func bound(t *testing.T) (fd int, at *net.TCPAddr) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	return fd, net.TCPAddrFromAddrPort(sockname(fd))
}

// fill makes it a listener whose queue is full: SYNs to it are not answered.
func fill(t *testing.T, fd int, at *net.TCPAddr) {
	t.Helper()
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	first, err := net.DialTCP("tcp4", nil, at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = first.Close() })
}

// full is an address that answers no SYN.
func full(t *testing.T) net.Addr {
	t.Helper()
	fd, at := bound(t)
	fill(t, fd, at)
	return at
}

func TestContainerGivesUp(t *testing.T) {
	for _, x := range []struct {
		name string
		do   func(r *rig, g *guest)
	}{
		{"by a reset", func(r *rig, g *guest) { g.transmit(seg{flags: packet.TCPRst, seq: g.iss + 1}) }},
		{"by silence", func(r *rig, g *guest) { r.late(g.k) }},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := newRig(t, Config{})
			r.stopTime()
			g := newGuest(r, towards(full(t), 40001))
			g.connect()
			r.eventually("connecting", func() bool { return r.state(g.k) == connecting })
			x.do(r, g)
			r.eventually("the flow ends", func() bool { return r.isEnded(g.k) })
			r.nothingLeft()
		})
	}
}

// late has what is due for a connection at some time be due now. Time has to be
// stopped, for else it may have been already.
func (r *rig) late(k packet.Tuple) {
	r.t.Helper()
	c := r.conn(k)
	if c == nil {
		r.t.Fatal("no connection")
	}
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if c.due == 0 {
		r.t.Error("nothing is due")
	}
	r.s.timed.remove(&c.base)
	c.expire(c.due)
}

// TestProbes: a SYN sent again keeps the connect, another TTL or another
// sequence number make it a new one.
func TestProbes(t *testing.T) {
	r := newRig(t, Config{Containers: 1})
	r.stopTime()
	g := newGuest(r, towards(full(t), 40001))
	local := func() any { return r.s.Local(r.numbers[g.k]) }
	syn := func(seq uint32, ttl uint8) {
		g.transmit(seg{flags: packet.TCPSyn, seq: seq, ttl: ttl, window: 1000, options: synOptions(1460, 7)})
	}
	syn(1000, 5)
	first := local()
	syn(1000, 5)
	if local() != first {
		t.Error("a SYN sent again connects again")
	}
	syn(1000, 6)
	if got := r.option(g.k, unix.SOL_IP, unix.IP_TTL); got != 6 {
		t.Errorf("TTL %d", got)
	}
	second := local()
	syn(5000, 6)
	if second == first || local() == second {
		t.Error("another probe has the same socket")
	}
	g.transmit(seg{flags: packet.TCPRst, seq: 5001})
	r.eventually("the flow ends", func() bool { return r.isEnded(g.k) })
	r.nothingLeft()
}

// TestEventsOfProbeBefore: what the host's socket of one probe came to is not
// taken for the answer to the next one.
func TestEventsOfProbeBefore(t *testing.T) {
	r := newRig(t, Config{})
	r.stopTime()
	fd, at := bound(t)
	g := newGuest(r, towards(at, 40001))
	syn := func(ttl uint8) {
		g.transmit(seg{flags: packet.TCPSyn, seq: 1000, ttl: ttl, window: 1000, options: synOptions(1460, 7)})
	}
	syn(5) // refused: nobody listens
	var old *watch
	eventually(t, func() (err error) {
		err = errors.New("no event came")
		r.look(g.k, func(c *conn) {
			if old = c.watch; c.events != 0 {
				err = nil
			}
		})
		return err
	})
	fill(t, fd, at)
	syn(6)
	old.Ready(0, loop.Out|loop.Err|loop.Hup) // late
	if r.poll(func(f *packet.Frame) { t.Errorf("came: flags %x", packet.TCP(f.Transport()).Flags()) }); r.state(g.k) != connecting {
		t.Error(r.describe(g.k))
	}
}

func TestContainersWindowCloses(t *testing.T) {
	r := newRig(t, Config{})
	g, c := talk(t, r, 40001)
	g.room = 0
	g.segment(packet.TCPAck, g.nxt, nil)
	data := random(300_000, 1)
	go pump(c, data)
	e := r.conn(g.k)
	g.run("the window is asked for", func() bool {
		r.s.mu.Lock()
		defer r.s.mu.Unlock()
		return e.bits.has(probing) && e.rto.backoff > 1
	})
	if len(g.in) != 0 {
		t.Errorf("%d bytes came against a closed window", len(g.in))
	}
	g.room = 4096 // said by the answer to the next probe
	g.run("all data", func() bool { return len(g.in) == len(data) })
	if !bytes.Equal(g.in, data) {
		t.Error("other data")
	}
}

func TestHostReadsSlowly(t *testing.T) {
	r := newRig(t, Config{})
	g, c := talk(t, r, 40001)
	_ = c.SetReadBuffer(32 << 10)
	g.out, g.finish = random(12<<20, 1), true
	most := uint32(0)
	g.run("the window closes", func() bool { // or the host has room for all of it
		most = max(most, g.offered)
		return g.una == g.nxt && g.offered < 1460 || g.finished()
	})
	sum := make(chan [32]byte, 1)
	go func() { sum <- swallow(c) }()
	g.run("all data", g.finished)
	if got := <-sum; got != sum256(g.out) {
		t.Error("the host has other data")
	}
	if most > maxOffer {
		t.Errorf("a window of %d", most)
	}
}

// TestUrgent: urgent data is where it was sent, in both directions.
func TestUrgent(t *testing.T) {
	r := newRig(t, Config{})
	g, c := talk(t, r, 40001)
	urgently(t, c)
	g.run("all of it", func() bool { return string(g.in) == "before ! behind" })
	x := seg{flags: packet.TCPAck | packet.TCPUrg, seq: g.nxt, ack: g.rcvNxt, window: 1000, payload: []byte("inline")}
	g.transmit(x)
	buf := make([]byte, 6)
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "inline" {
		t.Errorf("%q %v", buf, err)
	}
}

// urgently has the host send urgent data among other.
func urgently(t *testing.T, c *net.TCPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"before ", "!", " behind"} {
		flags := 0
		if part == "!" {
			flags = unix.MSG_OOB
		}
		if err := raw.Control(func(fd uintptr) { err = unix.Send(int(fd), []byte(part), flags) }); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestKeepAlive(t *testing.T) {
	r := newRig(t, Config{})
	g, _ := talk(t, r, 40001)
	if r.option(g.k, unix.SOL_SOCKET, unix.SO_KEEPALIVE) != 0 {
		t.Error("keepalive without being asked for")
	}
	g.segment(packet.TCPAck, g.nxt-1, nil)
	r.read(func(f *packet.Frame) bool {
		s := packet.TCP(f.Transport())
		return s.Flags() == packet.TCPAck && s.Ack() == g.nxt
	})
	if r.option(g.k, unix.SOL_SOCKET, unix.SO_KEEPALIVE) == 0 {
		t.Error("the host's socket does not ask")
	}
}

// TestConnectionBudget: an unanswered connection gives way, an answered one does
// not.
func TestConnectionBudget(t *testing.T) {
	r := newRig(t, Config{Containers: 1})
	r.stopTime()
	stuck := newGuest(r, towards(full(t), 40000))
	stuck.connect()
	g, _ := talk(t, r, 40001)
	if !r.isEnded(stuck.k) {
		t.Error("the unanswered connection is still there")
	}
	l := listenLocal(t)
	third := newGuest(r, towards(l.Addr(), 40002))
	third.connect()
	r.read(func(f *packet.Frame) bool {
		s := packet.TCP(f.Transport())
		return s.Flags() == packet.TCPRst|packet.TCPAck && s.Ack() == third.iss+1
	})
	r.eventually("the refused flow ends", func() bool { return r.isEnded(third.k) })
	if r.state(g.k) != established {
		t.Error("an answered connection gave way")
	}
}

// TestDamagedSegments: what has a wrong checksum does not leave with a new one, and
// begins nothing.
func TestDamagedSegments(t *testing.T) {
	r := newRig(t, Config{})
	g, c := talk(t, r, 40001)
	x := seg{flags: packet.TCPAck, seq: g.nxt, ack: g.rcvNxt, window: 1000, payload: []byte("good")}
	first := finished(r, tcpFrame(g.k, x))
	x.seq, x.payload = x.seq+4, []byte("baad")
	damaged := finished(r, tcpFrame(g.k, x))
	damaged[len(damaged)-1]++
	x.payload = []byte("news")
	third := finished(r, tcpFrame(g.k, x))
	list := []*packet.Frame{r.frame(first), r.frame(damaged), r.frame(third)}
	if n, err := r.s.WriteBatch(list); n != 1 || !errors.Is(err, packet.BadTransport) {
		t.Errorf("%d taken, %v", n, err)
	}
	if n, err := r.s.WriteBatch(list[2:]); n != 1 || err != nil {
		t.Errorf("%d taken, %v", n, err)
	}
	buf := make([]byte, 8)
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "goodnews" {
		t.Errorf("%q %v", buf, err)
	}

	syn := finished(r, tcpFrame(towards(c.LocalAddr(), 40002), seg{flags: packet.TCPSyn, seq: 1000, window: 1000}))
	syn[len(syn)-1]++ // urgent pointer
	if n, err := r.s.WriteBatch([]*packet.Frame{r.frame(syn)}); n != 0 || !errors.Is(err, packet.BadTransport) {
		t.Errorf("%d taken, %v", n, err)
	}
	if s := r.s.Stats(); s.Damaged.N != 2 || s.Descriptors != 1 || s.Flows != 1 {
		t.Errorf("%+v", s)
	}
}

// finished is a segment as a wire has it: with its checksum, and without a word
// on it.
func finished(r *rig, b []byte) []byte {
	packet.Complete(r.frame(b))
	return b
}

// TestHopFollows: the host's socket sends as the container does.
func TestHopFollows(t *testing.T) {
	r := newRig(t, Config{})
	g, _ := talk(t, r, 40001)
	g.transmit(seg{flags: packet.TCPAck, seq: g.nxt, ack: g.rcvNxt, window: 1000, payload: []byte("x"), ttl: 17})
	if got := r.option(g.k, unix.SOL_IP, unix.IP_TTL); got != 17 {
		t.Errorf("TTL %d", got)
	}
}

// TestOwner: whose a connection to the host's loopback is.
func TestOwner(t *testing.T) {
	r := newRig(t, Config{})
	g, c := talk(t, r, 40001)
	at := c.RemoteAddr().(*net.TCPAddr).AddrPort()
	if owner, _, ok := r.s.Owner(at); !ok || owner != testContainer {
		t.Errorf("%v is of %v, %v", at, owner, ok)
	}
	if got := r.s.Local(r.numbers[g.k]); got != at {
		t.Errorf("the socket has %v", got)
	}
	g.transmit(seg{flags: packet.TCPRst, seq: g.nxt})
	if _, _, ok := r.s.Owner(at); ok {
		t.Error("a connection that is no more has an owner")
	}
}
