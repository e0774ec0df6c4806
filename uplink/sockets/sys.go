package sockets

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rdhup reports that the peer has sent its FIN.
const rdhup = unix.EPOLLRDHUP

// Calls on non-blocking descriptors go around the Go scheduler: they never
// sleep (see package loop). Each asks for that by a flag of its own, because a
// descriptor's O_NONBLOCK belongs to whoever has a copy.

// recvmsg reads by m, which the caller keeps on the heap. It returns 0 and EAGAIN
// when nothing is there.
func recvmsg(fd int, m *unix.Msghdr, flags int) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(m)), uintptr(flags|unix.MSG_DONTWAIT))
		runtime.KeepAlive(m)
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

// sendmsg writes by m.
func sendmsg(fd int, m *unix.Msghdr, flags int) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(m)), uintptr(flags|unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL))
		runtime.KeepAlive(m)
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

// discard takes n bytes that were peeked out of a TCP socket's queue, without
// copying them (tcp(7), MSG_TRUNC).
func discard(fd, n int) (int, unix.Errno) {
	for {
		got, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), 0, uintptr(n), unix.MSG_TRUNC|unix.MSG_DONTWAIT, 0, 0)
		if errno != unix.EINTR {
			return int(got), errno
		}
	}
}

// setInt is setsockopt with an int.
func setInt(fd, level, name, value int) unix.Errno {
	v := int32(value)
	_, _, errno := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(unsafe.Pointer(&v)), 4, 0)
	return errno
}

// getInt is getsockopt of an int; 0 when there is none.
func getInt(fd, level, name int) int {
	var v int32
	size := uint32(4)
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(unsafe.Pointer(&v)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0
	}
	return int(v)
}

func closeFd(fd int) { _, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// sockaddr4 is an IPv4 address as the kernel has it.
func sockaddr4(addr [4]byte, port uint16) unix.RawSockaddrInet4 {
	return unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port<<8 | port>>8, Addr: addr}
}
