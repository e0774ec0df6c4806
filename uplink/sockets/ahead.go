package sockets

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"fairlead/packet"
)

// maxAhead is how many datagrams one call reads at most behind others.
const (
	maxAheadBits = 4
	maxAhead     = 1 << maxAheadBits
)

// A carried reads datagrams behind others, by one call for as many as are likely
// to be part of their train (recvmmsg(2)), and keeps those that are not, and trains
// of the kernel's that are to be taken apart: they are what its socket says next.
// There is one for all sockets, so a socket that has something here says it when its
// turn is over, and reads nothing more then.
type carried struct {
	e       *udpSocket // whose they are; nil is nobody
	list    [maxAhead]ahead
	at, end int  // in list, of those that are kept
	over    bool // the turn of e is over

	msgs     [maxAhead]mmsghdr
	iov      [maxAhead][2]unix.Iovec
	names    [maxAhead][unix.SizeofSockaddrInet6]byte
	controls [maxAhead][192]byte
	bufs     [maxAhead][]byte // for what is kept, and what is longer than its place
}

// An ahead is a datagram that was read ahead.
type ahead struct {
	arrival
	inPlace bool   // it is where it has to be in the train
	place   int    // how many bytes there were for it there
	data    []byte // where it is once it is kept
}

// mmsghdr is struct mmsghdr.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// read reads up to want datagrams into buf, one behind the other if each has size
// bytes. A single one may be longer.
func (c *carried) read(e *udpSocket, buf []byte, size, want int) (got int, errno unix.Errno) {
	if want == 1 {
		size = len(buf)
	}
	for i := range want {
		v, own := &c.iov[i], c.buf(i)
		v[0].Base, v[1].Base = &buf[i*size], &own[size]
		v[0].SetLen(size)
		v[1].SetLen(len(own) - size)
		m := &c.msgs[i].hdr
		*m = unix.Msghdr{Name: &c.names[i][0], Namelen: uint32(len(c.names[i])), Iov: &v[0], Control: &c.controls[i][0]}
		m.SetIovlen(len(v))
		m.SetControllen(len(c.controls[i]))
	}
	got, errno = recvmmsg(e.fd, c.msgs[:want])
	for i := range got {
		x, m := &c.list[i], &c.msgs[i]
		x.read(&m.hdr, int(m.n), c.names[i][:], c.controls[i][:])
		x.place, x.inPlace = size, x.size <= size
		e.arrived(&x.arrival)
	}
	return got, errno
}

// keep keeps the datagrams from one place in the list to another.
func (c *carried) keep(e *udpSocket, from, to int) {
	c.e, c.at, c.end = e, from, to
	for i := from; i < to; i++ {
		x := &c.list[i]
		copy(c.bufs[i], unsafe.Slice(c.iov[i][0].Base, min(x.size, x.place)))
		x.data = c.bufs[i][:min(x.size, len(c.bufs[i]))]
	}
}

// buf is the memory for one of the list.
func (c *carried) buf(i int) []byte {
	if c.bufs[i] == nil {
		c.bufs[i] = make([]byte, packet.MaxFrame)
	}
	return c.bufs[i]
}

// put keeps a train, with the datagrams in data.
func (c *carried) put(e *udpSocket, a *arrival, data []byte) {
	c.e, c.at, c.end = e, 0, 1
	x, own := &c.list[0], c.buf(0)
	x.arrival, x.data = *a, own[:copy(own, data[:a.size])]
}

// cut copies the first datagram of the train in front into buf, and leaves the rest.
func (c *carried) cut(buf []byte) arrival {
	x := c.front()
	a := x.arrival
	a.size, a.train = a.train, 0
	copy(buf, x.data[:a.size])
	x.data, x.size = x.data[a.size:], x.size-a.size
	return a
}

// front is the first one kept; pop takes it out. It is valid until the next read.
func (c *carried) front() *ahead { return &c.list[c.at] }

func (c *carried) pop() *ahead {
	x := c.front()
	if c.at++; c.at == c.end {
		c.e = nil
	}
	return x
}

// recvmmsg reads by several messages at once and returns how many it filled.
func recvmmsg(fd int, list []mmsghdr) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&list[0])), uintptr(len(list)), unix.MSG_DONTWAIT, 0, 0)
		runtime.KeepAlive(list)
		switch errno {
		case 0:
			return int(n), 0
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
