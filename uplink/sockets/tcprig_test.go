package sockets

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"fairlead/loop"
	"fairlead/packet"
)

// A rig is a Sockets on a worker, in the place of whose router and container
// stands the test: what it writes are the container's packets behind NAT, what
// it reads are those for the container.
type rig struct {
	t       testing.TB
	s       *Sockets
	wake    chan struct{}
	batch   *packet.Batch
	numbers map[packet.Tuple]uint32 // of flows, by the tuple of the container's packets
	next    uint32
	close   func()

	mu    sync.Mutex
	ended []packet.Tuple
}

const testContainer = packet.ContainerID(0x10001)

// outside is the address containers are masqueraded to.
var outside = netip.MustParseAddr("192.0.2.1")

func newRig(t testing.TB, conf Config) *rig {
	t.Helper()
	l, err := loop.New(1)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, wake: make(chan struct{}, 1), batch: packet.NewBatch(), numbers: make(map[packet.Tuple]uint32)}
	conf.Worker = l.Worker(0)
	r.s = New(conf, r)
	r.s.SetAddr(packet.AddrFromNetip(outside))
	r.s.Notify(func() {
		select {
		case r.wake <- struct{}{}:
		default:
		}
	})
	r.close = sync.OnceFunc(func() {
		_ = r.s.Close()
		_ = l.Close()
	})
	t.Cleanup(r.close)
	return r
}

// stopTime has nothing be due until the test says so, by late: a machine that
// stalls changes nothing then.
func (r *rig) stopTime() {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.s.timed.ticking = true // as far as it knows
}

// The router's side: only the end of flows matters.
func (r *rig) Prefetch([]packet.Frame)                           {}
func (r *rig) Route(*packet.Frame, *packet.Decision)             {}
func (r *rig) Apply(*packet.Frame, *packet.Decision, packet.Out) {}

func (r *rig) EndFlows(list []packet.Tuple) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range list {
		if k != (packet.Tuple{}) {
			r.ended = append(r.ended, k)
		}
	}
}

// isEnded reports whether the flow of the container's packets with a tuple was
// ended, and has NAT forget it.
func (r *rig) isEnded(k packet.Tuple) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, x := range r.ended {
		if x == k || x == k.Reverse() {
			r.ended = append(r.ended[:i], r.ended[i+1:]...)
			delete(r.numbers, k)
			return true
		}
	}
	return false
}

// write gives a packet to the sockets.
func (r *rig) write(frames ...[]byte) {
	r.t.Helper()
	list := make([]*packet.Frame, len(frames))
	for i, b := range frames {
		list[i] = r.frame(b)
	}
	for len(list) > 0 {
		n, err := r.s.WriteBatch(list)
		if err == nil {
			return
		}
		list = list[n+1:]
	}
}

func (r *rig) frame(b []byte) *packet.Frame {
	r.t.Helper()
	f := &packet.Frame{B: b, Time: loop.Clock(), Container: testContainer}
	if reason := packet.Parse(f); reason != packet.OK {
		r.t.Fatalf("the test made a bad frame: %v", reason)
	}
	k := f.Tuple()
	if r.numbers[k] == 0 {
		r.next++
		r.numbers[k] = r.next
	}
	f.Flow = r.numbers[k]
	return f
}

// read waits for packets and calls fn with each, until fn returns true. The
// frames are borrowed.
func (r *rig) read(fn func(f *packet.Frame) bool) {
	r.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		for r.poll(func(f *packet.Frame) {
			if fn != nil && fn(f) {
				fn = nil
			}
		}) {
		}
		if fn == nil {
			return
		}
		select {
		case <-r.wake:
		case <-deadline.C:
			r.t.Fatal("nothing came")
		}
	}
}

// poll takes what is there; false when it is nothing.
func (r *rig) poll(fn func(f *packet.Frame)) bool {
	r.t.Helper()
	r.batch.Reset()
	if n, err := r.s.ReadBatch(r.batch); err != nil || n != len(r.batch.Frames) {
		r.t.Fatalf("ReadBatch: %d, %v", n, err)
	}
	for i := range r.batch.Frames {
		f := &r.batch.Frames[i]
		if reason := packet.Parse(f); reason != packet.OK {
			r.t.Fatalf("a bad frame came out of the sockets: %v\n%x", reason, f.B)
		}
		fn(f)
	}
	return len(r.batch.Frames) > 0
}

// eventually waits until ok. What comes meanwhile is lost.
func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	r.await(what, ok, func(*packet.Frame) {})
}

// await waits until ok and calls take with what comes.
func (r *rig) await(what string, ok func() bool, take func(*packet.Frame)) {
	r.t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			r.t.Fatalf("not within %v: %s", patience, what)
		}
		for r.poll(take) {
		}
		select {
		case <-r.wake:
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// A seg is a segment as a test writes it.
type seg struct {
	flags   uint8
	seq     uint32
	ack     uint32
	window  uint16
	options []byte
	payload []byte
	ttl     uint8
	train   int // its payload is of segments of that size
}

// tcpFrame makes a container's segment.
func tcpFrame(k packet.Tuple, x seg) []byte {
	head := packet.TCPMinLen + len(x.options)
	buf := make([]byte, headRoom+packet.IPv4MinLen+head+len(x.payload))
	h := ipv4{tuple: k, length: head + len(x.payload), ttl: 63}
	if x.ttl != 0 {
		h.ttl = x.ttl
	}
	t := packet.TCP(headers(buf, &h))
	ip := packet.IPv4(buf[headRoom:])
	ip.SetFragment(true, false, 0)
	ip.UpdateChecksum()
	t.SetSrcPort(k.SrcPort)
	t.SetDstPort(k.DstPort)
	t.SetSeq(x.seq)
	t.SetAck(x.ack)
	t.SetHeaderLen(head)
	t.SetFlags(x.flags)
	t.SetWindow(x.window)
	copy(t[packet.TCPMinLen:], x.options)
	copy(t[head:], x.payload)
	size := 0
	if x.train != 0 && len(x.payload) > x.train {
		size = x.train
	}
	unfinished(buf, &h, head, packet.TCPChecksumOffset, packet.GSOTCPv4, size)
	return buf
}

// synOptions announce a segment size and a window scale.
func synOptions(mss uint16, shift uint8) []byte {
	o := []byte{packet.TCPOptionMSS, 4, 0, 0, packet.TCPOptionNop, optionScale, 3, shift}
	binary.BigEndian.PutUint16(o[2:], mss)
	return o
}

// towards is the tuple of a container's packets to an address of the host.
func towards(to net.Addr, port uint16) packet.Tuple {
	at := to.(*net.TCPAddr).AddrPort()
	return packet.Tuple{
		Src: packet.AddrFromNetip(outside), SrcPort: port,
		Dst: packet.AddrFromNetip(at.Addr()), DstPort: at.Port(), Proto: packet.ProtoTCP,
	}
}

// listenLocal listens on the host's loopback.
func listenLocal(t testing.TB) *net.TCPListener {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// accept takes the connection that has to come.
func accept(t testing.TB, l *net.TCPListener) *net.TCPConn {
	t.Helper()
	_ = l.SetDeadline(time.Now().Add(patience))
	c, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { _ = c.Close() })
	return c
}
