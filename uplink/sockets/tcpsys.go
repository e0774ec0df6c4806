package sockets

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"fairlead/packet"
)

// A tcpIO is the memory calls on connections are made from. The mutex guards it,
// so one is enough, and no call allocates.
type tcpIO struct {
	msg unix.Msghdr
	iov [packet.BatchFrames]unix.Iovec

	vectors      int // of iov that are gathered for send
	gathered     int // and their bytes
	lastGathered int // of the last send

	noPeekOffset bool
	scratch      []byte // what peekBehind reads and nobody wants
}

func (io *tcpIO) init(noPeekOffset bool) {
	if noPeekOffset {
		io.withoutPeekOffset()
	}
}

// usePeekOffset has a socket peek on from where the last peek ended.
func (io *tcpIO) usePeekOffset(fd int) {
	if !io.noPeekOffset && setInt(fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF, 0) != 0 {
		io.withoutPeekOffset() // of TCP since Linux 6.9
	}
}

func (io *tcpIO) withoutPeekOffset() {
	io.noPeekOffset = true
	io.scratch = make([]byte, scratchLen)
}

// Without SO_PEEK_OFF each peek copies all that is on its way, to where nobody
// looks: maxSkip bounds it.
const (
	scratchLen = 64 << 10
	maxSkip    = 4 * scratchLen
)

// peek reads without taking.
func (io *tcpIO) peek(fd int, into []byte) (int, unix.Errno) {
	io.iov[0].Base = &into[0]
	io.iov[0].SetLen(len(into))
	return io.recv(fd, 1)
}

// peekBehind reads what comes behind the first skip bytes. ended says that no more
// will come than is there: the end is what it finds behind all of it.
func (io *tcpIO) peekBehind(fd, skip int, into []byte, ended bool) (int, unix.Errno) {
	n := 0
	for left := skip; left > 0; left -= scratchLen {
		io.iov[n].Base = &io.scratch[0]
		io.iov[n].SetLen(min(left, scratchLen))
		n++
	}
	io.iov[n].Base = &into[0]
	io.iov[n].SetLen(len(into))
	got, errno := io.recv(fd, n+1)
	switch {
	case errno != 0 || got > skip:
		return max(0, got-skip), errno
	case skip == 0 || ended && got == skip:
		return 0, 0
	}
	return 0, unix.EAGAIN
}

func (io *tcpIO) recv(fd, vectors int) (int, unix.Errno) {
	io.msg = unix.Msghdr{Iov: &io.iov[0]}
	io.msg.SetIovlen(vectors)
	n, errno := recvmsg(fd, &io.msg, unix.MSG_PEEK)
	io.forget(vectors)
	if errno != 0 {
		return 0, errno
	}
	return n, 0
}

// gather adds payload to what send sends. It is borrowed until then.
func (io *tcpIO) gather(payload []byte) {
	io.iov[io.vectors].Base = &payload[0]
	io.iov[io.vectors].SetLen(len(payload))
	io.vectors++
	io.gathered += len(payload)
}

// send sends what was gathered and returns how much of it was taken.
func (io *tcpIO) send(fd int) (int, unix.Errno) {
	io.msg = unix.Msghdr{Iov: &io.iov[0]}
	io.msg.SetIovlen(io.vectors)
	n, errno := sendmsg(fd, &io.msg, 0)
	io.forget(io.vectors)
	io.lastGathered, io.vectors, io.gathered = io.gathered, 0, 0
	if errno != 0 {
		return 0, errno
	}
	return n, 0
}

// forget lets go of memory that was borrowed.
func (io *tcpIO) forget(vectors int) {
	for i := range io.iov[:vectors] {
		io.iov[i].Base = nil
	}
}

// A pollFd is struct pollfd of poll(2).
var pollOut = int16(unix.POLLOUT)

// writable reports whether a socket's send buffer counts as writable. If not, an
// event will tell when it is: the kernel notes that somebody has asked
// (tcp_poll). A signal, as the Go scheduler sends them, ends the call only if it is
// not (do_poll in fs/select.c).
func (io *tcpIO) writable(fd int) bool {
	p := unix.PollFd{Fd: int32(fd), Events: pollOut}
	n, _, _ := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&noTime)), 0, 0, 0)
	runtime.KeepAlive(&p)
	return int(n) > 0
}

var noTime unix.Timespec

// sendBuffer is the size of a socket's send buffer and how much of it is used, in
// bytes of kernel memory.
func sendBuffer(fd int) (size, used int) {
	var info [9]uint32 // SK_MEMINFO_VARS
	length := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return 0, 0
	}
	return int(info[unix.SK_MEMINFO_SNDBUF]), int(info[unix.SK_MEMINFO_WMEM_QUEUED])
}

// newSocket makes a socket that does not block.
func newSocket(family, kind, proto int) (int, unix.Errno) {
	fd, _, errno := unix.RawSyscall(unix.SYS_SOCKET, uintptr(family), uintptr(kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC), uintptr(proto))
	if errno != 0 {
		return -1, errno
	}
	return int(fd), 0
}

func connect(fd int, a *unix.RawSockaddrInet4) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(a)), unsafe.Sizeof(*a))
	return errno
}

// shutdown sends a FIN behind what was written.
func shutdown(fd int) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0)
	return errno
}

// lingerNot has the closing of a socket send a RST.
func lingerNot(fd int) {
	v := unix.Linger{Onoff: 1}
	_, _, _ = unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_LINGER, uintptr(unsafe.Pointer(&v)), unsafe.Sizeof(v), 0)
}
