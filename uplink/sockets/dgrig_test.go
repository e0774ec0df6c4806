package sockets

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/loop"
	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/test/lab"
)

// hostAddr is what the flows of the tests are masqueraded to. It need not exist.
var hostAddr = netip.MustParseAddr("192.0.2.1")

const (
	testNetwork = packet.NetworkID(4097)
	patience    = 10 * time.Second
)

// A dgRig is a Sockets on a worker of its own, and what switch and router do
// around it: numbers for flows, and a queue of what came for the containers.
type dgRig struct {
	t    testing.TB
	s    *Sockets
	loop *loop.Loop
	port *loop.Source

	numbers map[packet.Tuple]uint32
	last    uint32
	came    chan packet.Frame
	batch   *packet.Batch
	ended   chan packet.Tuple
	c       packet.ContainerID
	host    *lab.Host // where the sockets are; nil is here
}

func newDgRig(t testing.TB, change func(*Config)) *dgRig {
	t.Helper()
	return newDgRigOn(t, nil, change)
}

// do calls fn where the sockets are.
func (r *dgRig) do(fn func()) {
	r.t.Helper()
	if r.host == nil {
		fn()
	} else if err := r.host.Do(func() error { fn(); return nil }); err != nil {
		r.t.Fatal(err)
	}
}

// newDgRigOn makes one with its sockets on a host of the lab's.
func newDgRigOn(t testing.TB, host *lab.Host, change func(*Config)) *dgRig {
	t.Helper()
	l, err := loop.New(1)
	if err != nil {
		t.Fatal(err)
	}
	conf := Config{Network: testNetwork, Name: "host", Worker: l.Worker(0)}
	if change != nil {
		change(&conf)
	}
	r := &dgRig{
		t: t, host: host, loop: l, numbers: make(map[packet.Tuple]uint32), c: 7,
		came: make(chan packet.Frame, 1<<16), ended: make(chan packet.Tuple, 1<<16), batch: packet.NewBatch(),
	}
	r.do(func() { r.s = New(conf, r) })
	r.s.SetAddr(packet.AddrFromNetip(hostAddr))
	r.port = l.Worker(0).AddNotified(r)
	r.s.Notify(r.port.Wake)
	t.Cleanup(func() {
		r.port.Remove()
		if err := r.s.Close(); err != nil {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// Ready reads, as the port does.
func (r *dgRig) Ready(int64, uint32) (again bool) {
	r.batch.Reset()
	if _, err := r.s.ReadBatch(r.batch); err != nil {
		r.t.Error(err)
		return false
	}
	for i := range r.batch.Frames {
		r.came <- r.batch.Frames[i].Clone(nil)
	}
	return r.batch.Full()
}

// Prefetch, Route, Apply and EndFlows are the router.
func (r *dgRig) Prefetch([]packet.Frame)                           {}
func (r *dgRig) Route(*packet.Frame, *packet.Decision)             {}
func (r *dgRig) Apply(*packet.Frame, *packet.Decision, packet.Out) {}
func (r *dgRig) EndFlows(list []packet.Tuple) {
	for _, k := range list {
		r.ended <- k
	}
}

// flow is the number of the flow with a tuple.
func (r *dgRig) flow(k packet.Tuple) uint32 {
	n := r.numbers[k]
	if n == 0 {
		r.last++
		n = r.last
		r.numbers[k] = n
	}
	return n
}

// end has a flow end as NAT ends it.
func (r *dgRig) end(k packet.Tuple) {
	n := r.numbers[k]
	delete(r.numbers, k)
	r.s.FlowEnded(n)
}

// over is the flow the sockets end next.
func (r *dgRig) over() packet.Tuple {
	r.t.Helper()
	select {
	case k := <-r.ended:
		return k
	case <-time.After(patience):
		r.t.Fatal("no flow ended")
		return packet.Tuple{}
	}
}

// frame makes a frame ready for the queue out of bytes.
func (r *dgRig) frame(b []byte) *packet.Frame {
	r.t.Helper()
	f := &packet.Frame{B: b, Network: testNetwork, Container: r.c, Time: loop.Clock()}
	if reason := packet.Parse(f); reason != packet.OK {
		r.t.Fatalf("a frame for the queue: %v", reason)
	}
	f.Flow = r.flow(f.Tuple())
	return f
}

// udp is a frame of a container's with a datagram, from the port of hostAddr.
func (r *dgRig) udp(port uint16, to netip.AddrPort, payload []byte) *packet.Frame {
	return r.frame(packettest.Partial(r.udpBytes(port, to, payload)))
}

func (r *dgRig) udpBytes(port uint16, to netip.AddrPort, payload []byte) []byte {
	return packettest.UDP(packettest.Station{MAC: routerMAC, IP: hostAddr}, packettest.Station{MAC: outsideMAC, IP: to.Addr()},
		port, to.Port(), payload)
}

// with edits the IPv4 header of a frame.
func (r *dgRig) with(f *packet.Frame, edit func(ip packet.IPv4)) *packet.Frame {
	ip := packet.IPv4(f.Packet())
	edit(ip)
	ip.UpdateChecksum()
	return f
}

// write writes frames and fails the test unless all are taken.
func (r *dgRig) write(frames ...*packet.Frame) {
	r.t.Helper()
	if n, err := r.try(frames...); n != len(frames) || err != nil {
		r.t.Fatalf("%d of %d frames taken: %v", n, len(frames), err)
	}
}

// try writes frames.
func (r *dgRig) try(frames ...*packet.Frame) (n int, err error) {
	r.t.Helper()
	r.do(func() { n, err = r.s.WriteBatch(frames) })
	return n, err
}

// next is what comes next for the containers.
func (r *dgRig) next() *packet.Frame {
	r.t.Helper()
	select {
	case f := <-r.came:
		if reason := packet.Parse(&f); reason != packet.OK {
			r.t.Fatalf("came malformed: %v\n% x", reason, f.B)
		}
		ip := packet.IPv4(f.Packet())
		if packet.Sum(ip[:ip.HeaderLen()], 0) != 0xffff {
			r.t.Fatalf("came with a wrong header checksum: % x", []byte(ip))
		}
		return &f
	case <-time.After(patience):
		r.t.Fatal("nothing came")
		return nil
	}
}

// datagram is one that comes, and its payload.
func (r *dgRig) datagram() (*packet.Frame, []byte) {
	r.t.Helper()
	f := r.next()
	if f.Proto != packet.ProtoUDP {
		r.t.Fatalf("came a %v packet", f.Proto)
	}
	finished := f.Clone(nil)
	if f.Segments() == 1 {
		packet.Complete(&finished)
		ip, u := packet.IPv4(finished.Packet()), packet.UDP(finished.Transport())
		if packet.Sum(u, packet.PseudoSum4(ip.Src(), ip.Dst(), packet.ProtoUDP, len(u))) != 0xffff {
			r.t.Fatal("came with a checksum that cannot be finished")
		}
	}
	return f, packet.UDP(f.Transport()).Payload()
}

// A peer is somebody outside: a socket of the test's own.
type peer struct {
	t  testing.TB
	fd int
	at netip.AddrPort
}

// newPeer opens a socket on an address, port 0 is any.
func newPeer(t testing.TB, at string) *peer {
	t.Helper()
	a := netip.MustParseAddrPort(at)
	family, sa := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Addr: [4]byte{}, Port: int(a.Port())})
	if a.Addr().Is4() {
		sa.(*unix.SockaddrInet4).Addr = a.Addr().As4()
	} else {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, fd: fd}
	t.Cleanup(p.close)
	if err := unix.Bind(fd, sa); err != nil {
		t.Fatal(err)
	}
	tv := unix.NsecToTimeval(int64(patience))
	for _, o := range []struct{ level, name, value int }{
		{unix.SOL_IP, unix.IP_RECVTTL, 1}, {unix.SOL_IP, unix.IP_RECVTOS, 1}, {unix.SOL_SOCKET, unix.SO_RCVBUF, 1 << 20},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		t.Fatal(err)
	}
	p.at = sockname(fd)
	if !p.at.Addr().IsUnspecified() {
		return p
	}
	p.at = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), p.at.Port())
	return p
}

// close closes the peer's socket, once.
func (p *peer) close() {
	if p.fd >= 0 {
		if err := unix.Close(p.fd); err != nil {
			p.t.Error(err)
		}
	}
	p.fd = -1
}

// A heard is what a peer got.
type heard struct {
	from     netip.AddrPort
	data     []byte
	ttl, tos uint8
}

func (p *peer) recv() (h heard) {
	p.t.Helper()
	var buf [1 << 16]byte
	var oob [256]byte
	n, oobn, _, from, err := unix.Recvmsg(p.fd, buf[:], oob[:], 0)
	if err != nil {
		p.t.Fatalf("the peer hears nothing: %v", err)
	}
	for c := control(oob[:oobn]); ; {
		level, kind, data, ok := c.next()
		if !ok {
			break
		}
		readHop(level, kind, data, &h.ttl, &h.tos)
	}
	h.data, h.from = append([]byte(nil), buf[:n]...), addrPort(from)
	return h
}

func (p *peer) send(to netip.AddrPort, data []byte) {
	p.t.Helper()
	var sa unix.Sockaddr = &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}
	if to.Addr().Is4() {
		sa = &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	}
	if err := unix.Sendto(p.fd, data, 0, sa); err != nil {
		p.t.Fatal(err)
	}
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return netip.AddrPort{}
}
