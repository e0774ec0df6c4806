package sockets

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"

	"fairlead/packet"
)

// Bounds of one sendmsg: what the kernel takes as one train (UDP_MAX_SEGMENTS
// before Linux 6.9) and as one datagram.
const (
	maxTrain   = 64
	maxPayload = maxPacket - packet.IPv4MinLen - packet.UDPLen
)

// A datagramIO is the memory datagrams are sent and received by: one message at
// a time.
type datagramIO struct {
	msg     unix.Msghdr
	iov     [maxTrain]unix.Iovec
	pieces  int
	size    int // bytes in them
	name    [unix.SizeofSockaddrInet6]byte
	control [256]byte
	used    int // of control
}

// begin forgets the last message.
func (io *datagramIO) begin() { io.pieces, io.size, io.used = 0, 0, 0 }

// piece adds bytes to the message. They are borrowed until it is sent.
func (io *datagramIO) piece(b []byte) {
	v := &io.iov[io.pieces]
	v.Base = unsafe.SliceData(b)
	v.SetLen(len(b))
	io.pieces++
	io.size += len(b)
}

// option adds a control message and returns its room.
func (io *datagramIO) option(level, kind int32, size int) []byte {
	at := io.used
	io.used += unix.CmsgSpace(size)
	h := (*unix.Cmsghdr)(unsafe.Pointer(&io.control[at]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(size))
	return io.control[at+unix.CmsgLen(0) : at+unix.CmsgLen(size)]
}

// number adds a control message with an int.
func (io *datagramIO) number(level, kind int32, value int) {
	binary.NativeEndian.PutUint32(io.option(level, kind, 4), uint32(value))
}

// to4 and to6 set where the message goes.
func (io *datagramIO) to4(addr [4]byte, port uint16) {
	to := sockaddr4(addr, port)
	copy(io.name[:], (*[unix.SizeofSockaddrInet4]byte)(unsafe.Pointer(&to))[:])
	io.msg.Name, io.msg.Namelen = &io.name[0], unix.SizeofSockaddrInet4
}

func (io *datagramIO) to6(addr packet.Addr, port uint16, zone uint32) {
	to := unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: port<<8 | port>>8, Addr: addr, Scope_id: zone}
	copy(io.name[:], (*[unix.SizeofSockaddrInet6]byte)(unsafe.Pointer(&to))[:])
	io.msg.Name, io.msg.Namelen = &io.name[0], unix.SizeofSockaddrInet6
}

// send sends the message. What an earlier packet came to is reported by the next
// call (ip(7), IP_RECVERR); it is in the error queue as well, so the call is
// made again.
func (io *datagramIO) send(fd int) unix.Errno {
	io.msg.Iov = &io.iov[0]
	io.msg.SetIovlen(io.pieces)
	io.msg.Control, io.msg.Flags = &io.control[0], 0
	io.msg.SetControllen(io.used)
	_, errno := sendmsg(fd, &io.msg, 0)
	switch errno {
	case 0, unix.EAGAIN, unix.EMSGSIZE, unix.EINVAL, unix.EIO, unix.ENOBUFS:
		return errno
	}
	getInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	_, errno = sendmsg(fd, &io.msg, 0)
	return errno
}

// An arrival is what the kernel says of a datagram that came.
type arrival struct {
	size     int // of all of it
	train    int // of each datagram, if it is several
	src      packet.Addr
	port     uint16
	zone     uint32
	local    packet.Addr
	ttl, tos uint8
	cut      bool
	overruns uint32 // datagrams lost so far because the buffer was full
}

// several reports whether it is more than one datagram.
func (a *arrival) several() bool { return a.train > 0 && a.train < a.size && !a.cut }

// receive reads into buf what a socket has next.
func (io *datagramIO) receive(fd int, buf []byte, a *arrival) unix.Errno {
	io.begin()
	io.piece(buf)
	io.msg = unix.Msghdr{Name: &io.name[0], Namelen: uint32(len(io.name)), Iov: &io.iov[0], Control: &io.control[0]}
	io.msg.SetIovlen(1)
	io.msg.SetControllen(len(io.control))
	n, errno := recvmsg(fd, &io.msg, 0)
	if errno == 0 {
		a.read(&io.msg, n, io.name[:], io.control[:])
	}
	return errno
}

// read takes down what the kernel said of a message of n bytes.
func (a *arrival) read(m *unix.Msghdr, n int, name, said []byte) {
	*a = arrival{size: n, cut: m.Flags&unix.MSG_TRUNC != 0}
	name = name[:min(int(m.Namelen), len(name))]
	a.src, a.port = parseSockaddr(name)
	if len(name) == unix.SizeofSockaddrInet6 {
		a.zone = binary.NativeEndian.Uint32(name[24:])
	}
	for c := control(said[:min(int(m.Controllen), len(said))]); ; {
		level, kind, data, ok := c.next()
		if !ok {
			return
		}
		switch {
		case level == unix.SOL_UDP && kind == unix.UDP_GRO && len(data) >= 4:
			a.train = int(binary.NativeEndian.Uint32(data))
		case level == unix.SOL_SOCKET && kind == unix.SO_RXQ_OVFL && len(data) >= 4:
			a.overruns = binary.NativeEndian.Uint32(data)
		case level == unix.SOL_IP && kind == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			a.local = packet.AddrFrom4([4]byte(data[4:])) // ipi_spec_dst: of a broadcast, who answers it
		case level == unix.SOL_IPV6 && kind == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			a.local = packet.Addr(data[:16])
		default:
			readHop(level, kind, data, &a.ttl, &a.tos)
		}
	}
}

// newDatagram opens a socket for datagrams of a family and protocol with what
// this package needs of it.
func newDatagram(family, proto int) (fd int, errno unix.Errno) {
	r, _, errno := unix.RawSyscall(unix.SYS_SOCKET, uintptr(family), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, uintptr(proto))
	if errno != 0 {
		return -1, errno
	}
	datagramOptions(int(r), family)
	return int(r), 0
}

// datagramOptions has a socket tell of each datagram what its header said.
func datagramOptions(fd, family int) {
	// The kernel doubles it and grants no more than net.core.rmem_max.
	setInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	if family == unix.AF_INET6 {
		for _, name := range [...]int{unix.IPV6_V6ONLY, unix.IPV6_RECVERR, unix.IPV6_RECVHOPLIMIT, unix.IPV6_RECVTCLASS, unix.IPV6_RECVPKTINFO} {
			setInt(fd, unix.SOL_IPV6, name, 1)
		}
		return
	}
	for _, name := range [...]int{unix.IP_RECVERR, unix.IP_RECVTTL, unix.IP_RECVTOS} {
		setInt(fd, unix.SOL_IP, name, 1)
	}
}

// receiveBuffer is what a socket may hold until the worker comes by: a burst of
// a few milliseconds.
const receiveBuffer = 1 << 20

// bind4 gives a socket its address and port.
func bind4(fd int, addr [4]byte, port uint16) unix.Errno {
	at := sockaddr4(addr, port)
	_, _, errno := unix.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&at)), unix.SizeofSockaddrInet4)
	return errno
}

func bind6(fd int, addr [16]byte, port uint16, zone uint32) unix.Errno {
	at := unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: port<<8 | port>>8, Addr: addr, Scope_id: zone}
	_, _, errno := unix.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&at)), unix.SizeofSockaddrInet6)
	return errno
}

// A dontFragment is what a socket is told of the DF bit, which is an option of
// the socket and not of a message. Zero is nothing yet.
type dontFragment uint8

const (
	mayFragment dontFragment = 1 + iota
	mustNotFragment
)

// set has the packets that follow leave with or without DF (ip(7)). With it they
// are refused when they are larger than the way carries as far as the host
// knows.
func (d *dontFragment) set(fd, family int, df bool) {
	want, value := mayFragment, unix.IP_PMTUDISC_DONT
	if df {
		want, value = mustNotFragment, unix.IP_PMTUDISC_DO
	}
	if *d == want {
		return
	}
	*d = want
	if family == unix.AF_INET6 {
		setInt(fd, unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, value)
		return
	}
	setInt(fd, unix.SOL_IP, unix.IP_MTU_DISCOVER, value)
}
