package sockets

import (
	"net"
	"testing"
	"unsafe"

	"fairlead/loop"
	"fairlead/packet"
	"fairlead/test/lab"
)

// A pipe is a connection both ends of which move data without allocating.
type pipe struct {
	g     *guest
	host  *net.TCPConn
	frame packet.Frame // of the container, written again and again
	list  []*packet.Frame
	take  func(f *packet.Frame)
	came  int
	ack   uint32 // the last one
}

func newPipe(t testing.TB, r *rig) *pipe {
	l := listenLocal(t)
	g := newGuest(r, towards(l.Addr(), 40001))
	g.connect()
	g.run("connected", func() bool { return g.open })
	p := &pipe{g: g, host: accept(t, l)}
	p.frame = *r.frame(tcpFrame(g.k, seg{flags: packet.TCPAck, seq: g.nxt, ack: g.rcvNxt, window: 0x4000, payload: make([]byte, 44*1460), train: 1460}))
	p.list = []*packet.Frame{&p.frame}
	p.take = func(f *packet.Frame) {
		s := packet.TCP(f.Transport())
		p.came += len(s.Payload())
		p.ack = s.Ack()
	}
	return p
}

// write gives the frame to the sockets, with n bytes of payload.
func (p *pipe) write(n int) {
	f := &p.frame
	f.B = f.B[:tcpHeaders+n]
	f.Time = loop.Clock()
	packet.IPv4(f.B[headRoom:]).SetTotalLen(packet.IPv4MinLen + packet.TCPMinLen + n)
	s := packet.TCP(f.B[headRoom+packet.IPv4MinLen:])
	s.SetSeq(p.g.nxt)
	s.SetAck(p.g.rcvNxt)
	if _, err := p.g.r.s.WriteBatch(p.list); err != nil {
		p.g.r.t.Fatal(err)
	}
	p.g.nxt += uint32(n)
}

// down moves n bytes from the host to the container, which acknowledges them
// together: they have to fit the socket's buffer as it is in the beginning.
func (p *pipe) down(buf []byte, n int) {
	if _, err := p.host.Write(buf[:n]); err != nil {
		p.g.r.t.Fatal(err)
	}
	for p.came = 0; p.came < n; {
		for p.g.r.poll(p.take) {
		}
		if p.came < n {
			<-p.g.r.wake
		}
	}
	p.g.rcvNxt += uint32(n)
	p.write(0)
}

// up moves n bytes from the container to the host.
func (p *pipe) up(buf []byte, n int) {
	p.write(n)
	for got := 0; got < n; {
		k, err := p.host.Read(buf)
		if err != nil {
			p.g.r.t.Fatal(err)
		}
		got += k
	}
	for p.ack != p.g.nxt {
		if !p.g.r.poll(p.take) {
			<-p.g.r.wake
		}
	}
}

func TestReleaseFramesAllocateNothing(t *testing.T) {
	lab.NeedRelease(t)
	for _, conf := range []Config{{}, {NoPeekOffset: true}} {
		p := newPipe(t, newRig(t, conf))
		buf := make([]byte, 64<<10)
		if n := testing.AllocsPerRun(500, func() { p.down(buf, 20*1460) }); n != 0 {
			t.Errorf("%v allocations for data towards the container", n)
		}
		if n := testing.AllocsPerRun(500, func() { p.up(buf, 44*1460) }); n != 0 {
			t.Errorf("%v allocations for data from the container", n)
		}
	}
}

// TestConnectionIsSmall keeps an eye on what a connection costs beside its
// socket.
func TestConnectionIsSmall(t *testing.T) {
	if n := unsafe.Sizeof(conn{}) + unsafe.Sizeof(slot{}) + unsafe.Sizeof(loop.Source{}); n > 640 {
		t.Errorf("a connection has %d bytes", n)
	} else {
		t.Logf("a connection has %d bytes", n)
	}
}

func BenchmarkDown(b *testing.B) {
	p := newPipe(b, newRig(b, Config{}))
	buf := make([]byte, 64<<10)
	b.SetBytes(20 * 1460)
	for b.Loop() {
		p.down(buf, 20*1460)
	}
}

func BenchmarkUp(b *testing.B) {
	p := newPipe(b, newRig(b, Config{}))
	buf := make([]byte, 64<<10)
	b.SetBytes(44 * 1460)
	for b.Loop() {
		p.up(buf, 44*1460)
	}
}
