package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// datagrams are what datagrams are like that a generator sends, and a sink
// expects.
type datagrams struct {
	Least, Most int // bytes of payload, at random

	// Flows of how many the next datagram may be, at random. Each has a port of
	// its own at the sink, so they can be sent by one call. 0 is one.
	Flows int

	// Trains of so many datagrams are handed to the kernel as one, which takes
	// them apart as late as it can (UDP_SEGMENT). 0 is none.
	Train int
	// GRO is whether the sink takes trains as they come (UDP_GRO).
	GRO bool
	// Window is how many datagrams may be on their way. The sink acknowledges
	// what has come, as QUIC does. 0 is any number, and no acknowledgements.
	Window int
}

func (d datagrams) flows() int { return max(d.Flows, 1) }
func (d datagrams) train() int { return max(d.Train, 1) }

// Every datagram begins with its number, which is higher than that of the one
// before in its flow, and its size.
const datagramHeader = 8 + 2

// mark numbers a datagram and says how long it is.
func mark(b []byte, n uint64) {
	binary.LittleEndian.PutUint64(b, n)
	binary.LittleEndian.PutUint16(b[8:], uint16(len(b)))
}

// flood sends datagrams at a rate, or as fast as they are taken.
func flood(j job) (o outcome, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	g, err := newGenerator(j.To, j.Datagrams)
	if err != nil {
		return o, err
	}
	defer unix.Close(g.fd)
	train := j.Datagrams.train()
	start := time.Now()
	for o.Count < j.most() {
		o.Took = time.Since(start)
		if o.Took >= j.For {
			break
		}
		due := len(g.messages.headers)
		if j.Rate > 0 {
			due = min(due, (int(o.Took.Seconds()*j.Rate)-int(o.Count))/train)
		}
		due = int(min(uint64(due), (j.most()-o.Count-1)/uint64(train)+1))
		if due < 1 {
			wait := unix.NsecToTimespec(20_000)
			_ = unix.Nanosleep(&wait, nil)
			continue
		}
		if j.Datagrams.Window > 0 {
			if due, err = g.room(due); err != nil {
				return o, err
			}
		}
		sent, err := g.send(due)
		if err != nil {
			return o, fmt.Errorf("send: %w", err)
		}
		o.Count += uint64(sent)
	}
	return o, nil
}

// A generator sends numbered datagrams. It belongs to one thread.
type generator struct {
	datagrams
	fd       int
	messages *messages
	random   *rand.Rand
	last     uint64 // number sent
	acked    uint64 // highest number of which is known that it came, or will not
}

// lostAfter is when a generator with a window gives up what was not
// acknowledged.
const lostAfter = 10 * time.Millisecond

func newGenerator(to netip.AddrPort, d datagrams) (*generator, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a UDP socket: %w", err)
	}
	// Numbers go on where the generator before left off, or above: nobody sends
	// a thousand million datagrams a second.
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	first := uint64(now.Nano())
	g := &generator{datagrams: d, fd: fd, random: rand.New(rand.NewPCG(1, 2)), last: first, acked: first}
	g.messages = newMessages((sendBatch-1)/d.train()+1, d.Most*d.train())
	if d.flows() > 1 {
		g.messages.names = addresses(to, d.Flows)
	} else if err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
		err = fmt.Errorf("connect: %w", err)
	}
	if err == nil && d.Train > 0 {
		err = setOption(fd, unix.SOL_UDP, unix.UDP_SEGMENT, d.Most, "UDP_SEGMENT")
	}
	if err == nil {
		timeout := unix.NsecToTimeval(lostAfter.Nanoseconds())
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return g, nil
}

// sendBatch is how many datagrams a generator sends by one call at least.
const sendBatch = 64

// room waits until a train fits into the window, and says how many fit: at most
// as many as are due.
func (g *generator) room(due int) (trains int, err error) {
	var ack [8]byte
	for {
		if free := g.Window - int(g.last-g.acked); free >= g.train() {
			return min(due, free/g.train()), nil
		}
		n, err := unix.Read(g.fd, ack[:])
		switch err {
		case nil:
			if n == len(ack) {
				g.acked = max(g.acked, binary.LittleEndian.Uint64(ack[:]))
			}
		case unix.EAGAIN:
			g.acked = g.last
		case unix.EINTR, unix.ECONNREFUSED:
		default:
			return 0, fmt.Errorf("receive: %w", err)
		}
	}
}

// send sends so many trains, or as many as are taken, and returns how many
// datagrams that were.
func (g *generator) send(trains int) (int, error) {
	m := g.messages
	for i := range trains {
		size := g.Most
		if g.Least < g.Most {
			size = g.Least + g.random.IntN(g.Most-g.Least+1)
		}
		if m.names != nil {
			to := &m.names[g.random.IntN(len(m.names))]
			m.headers[i].header.Name, m.headers[i].header.Namelen = (*byte)(unsafe.Pointer(to)), unix.SizeofSockaddrInet4
		}
		b := m.buffers[i][:size*g.train()]
		m.iovecs[i].SetLen(len(b))
		for ; len(b) > 0; b = b[size:] {
			g.last++
			mark(b[:size], g.last)
		}
	}
	n, err := m.call(unix.SYS_SENDMMSG, g.fd, trains, 0)
	g.last -= uint64((trains - n) * g.train())
	return n * g.train(), err
}

// addresses are those of flows, one port after the other.
func addresses(to netip.AddrPort, flows int) []unix.RawSockaddrInet4 {
	names := make([]unix.RawSockaddrInet4, flows)
	for i := range names {
		names[i] = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: to.Addr().As4()}
		binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&names[i].Port))[:], to.Port()+uint16(i))
	}
	return names
}

// A sink receives what generators send, checks and counts it. One thread
// receives, anybody may ask for the outcome.
type sink struct {
	datagrams
	messages *messages
	flows    []sinkFlow

	count, bytes, damaged, disordered atomic.Uint64
}

// A sinkFlow is a socket of a sink, and the highest number it has received.
type sinkFlow struct {
	fd   int
	last uint64
}

// openSink makes a socket for every flow.
func openSink(d datagrams) (*sink, error) {
	s := &sink{datagrams: d}
	if d.GRO {
		s.messages = newMessages(16, 1<<16-1)
		s.messages.controls = make([]control, 16)
	} else {
		s.messages = newMessages(64, 2048)
	}
	if d.Window > 0 {
		s.messages.names = make([]unix.RawSockaddrInet4, len(s.messages.headers))
	}
	for i := range d.flows() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("make a UDP socket: %w", err)
		}
		s.flows = append(s.flows, sinkFlow{fd: fd})
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20) // as much as the machine lets
		if d.GRO {
			if err := setOption(fd, unix.SOL_UDP, unix.UDP_GRO, 1, "UDP_GRO"); err != nil {
				return nil, err
			}
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: sinkPort + i}); err != nil {
			return nil, fmt.Errorf("bind: %w", err)
		}
	}
	return s, nil
}

func setOption(fd, level, option, value int, name string) error {
	if err := unix.SetsockoptInt(fd, level, option, value); err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	return nil
}

// serve receives until something fails. A single socket is waited for by
// receiving from it, as most programs do.
func (s *sink) serve() error {
	runtime.LockOSThread()
	if len(s.flows) == 1 {
		for {
			if err := s.receive(&s.flows[0], unix.MSG_WAITFORONE); err != nil {
				return err
			}
		}
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("epoll_create1: %w", err)
	}
	defer unix.Close(epoll)
	for i, f := range s.flows {
		if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, f.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}); err != nil {
			return fmt.Errorf("epoll_ctl: %w", err)
		}
	}
	ready := make([]unix.EpollEvent, len(s.flows))
	for {
		n, err := unix.EpollWait(epoll, ready, -1)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		for _, e := range ready[:max(n, 0)] {
			if err := s.receive(&s.flows[e.Fd], unix.MSG_DONTWAIT); err != nil {
				return err
			}
		}
	}
}

// receive takes what a socket has, as much as one call can.
func (s *sink) receive(f *sinkFlow, flags int) error {
	m := s.messages
	m.prepare()
	n, err := m.call(unix.SYS_RECVMMSG, f.fd, len(m.headers), flags)
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	var count, bytes uint64
	for i := range n {
		b := m.buffers[i][:m.headers[i].length]
		bytes += uint64(len(b))
		for size := m.segment(i); len(b) > 0; count++ {
			size = min(size, len(b))
			s.check(f, b[:size])
			b = b[size:]
		}
	}
	s.bytes.Add(bytes)
	s.count.Add(count)
	if n > 0 && s.Window > 0 {
		var ack [8]byte
		binary.LittleEndian.PutUint64(ack[:], f.last)
		// One that gets lost is made good by the next.
		_, _, _ = unix.Syscall6(unix.SYS_SENDTO, uintptr(f.fd), uintptr(unsafe.Pointer(&ack)), uintptr(len(ack)),
			unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&m.names[n-1])), unix.SizeofSockaddrInet4)
	}
	return nil
}

// check looks whether a datagram is as it was sent, and comes after those that
// were sent before.
func (s *sink) check(f *sinkFlow, b []byte) {
	if len(b) < datagramHeader || int(binary.LittleEndian.Uint16(b[8:])) != len(b) {
		s.damaged.Add(1)
		return
	}
	if n := binary.LittleEndian.Uint64(b); n > f.last {
		f.last = n
	} else {
		s.disordered.Add(1)
	}
}

// outcome is what has come so far.
func (s *sink) outcome() outcome {
	o := outcome{Count: s.count.Load(), Bytes: s.bytes.Load(), Damaged: s.damaged.Load(), Disordered: s.disordered.Load()}
	for i := range s.flows { // the rest of a flow is the receiving thread's
		var info [unix.SK_MEMINFO_DROPS + 1]uint32
		size := uint32(unsafe.Sizeof(info))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s.flows[i].fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		if errno == 0 {
			o.Overflowed += uint64(info[unix.SK_MEMINFO_DROPS])
		}
	}
	return o
}

// messages are the arguments of sendmmsg and recvmmsg.
type messages struct {
	headers []message
	iovecs  []unix.Iovec
	buffers [][]byte

	names    []unix.RawSockaddrInet4 // where to, or from whom if that is asked for
	controls []control               // how long datagrams of trains are, if that is asked for
}

// A message is the kernel's struct mmsghdr.
type message struct {
	header unix.Msghdr
	length uint32
	_      [4]byte
}

// A control has room for one int from the kernel.
type control [3]uint64

func newMessages(count, size int) *messages {
	m := &messages{headers: make([]message, count), iovecs: make([]unix.Iovec, count), buffers: make([][]byte, count)}
	for i := range m.headers {
		m.buffers[i] = make([]byte, size)
		m.iovecs[i] = unix.Iovec{Base: &m.buffers[i][0]}
		m.iovecs[i].SetLen(size)
		m.headers[i].header.Iov = &m.iovecs[i]
		m.headers[i].header.SetIovlen(1)
	}
	return m
}

// prepare makes them ready to receive; the kernel has left in them how long
// what it wrote is.
func (m *messages) prepare() {
	for i := range m.names {
		m.headers[i].header.Name, m.headers[i].header.Namelen = (*byte)(unsafe.Pointer(&m.names[i])), unix.SizeofSockaddrInet4
	}
	for i := range m.controls {
		m.headers[i].header.Control = (*byte)(unsafe.Pointer(&m.controls[i]))
		m.headers[i].header.SetControllen(len(m.controls[i]) * 8)
	}
}

// segment is how long the datagrams of a received train are; the last may be
// shorter. What is no train is one datagram.
func (m *messages) segment(i int) int {
	if m.controls == nil || m.headers[i].header.Controllen == 0 {
		return int(m.headers[i].length)
	}
	c := (*unix.Cmsghdr)(unsafe.Pointer(&m.controls[i]))
	size := *(*int32)(unsafe.Add(unsafe.Pointer(c), unix.SizeofCmsghdr))
	if c.Level != unix.SOL_UDP || c.Type != unix.UDP_GRO || size < 1 {
		return int(m.headers[i].length)
	}
	return int(size)
}

// call sends or receives up to count of them and returns how many. That nobody
// listens yet is not an error.
func (m *messages) call(number uintptr, fd, count, flags int) (int, error) {
	n, _, errno := unix.Syscall6(number, uintptr(fd), uintptr(unsafe.Pointer(&m.headers[0])), uintptr(count), uintptr(flags), 0, 0)
	switch errno {
	case 0:
		return int(n), nil
	case unix.EINTR, unix.ECONNREFUSED, unix.ENOBUFS, unix.EAGAIN:
		return 0, nil
	}
	return 0, errno
}
