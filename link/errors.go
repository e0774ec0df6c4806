package link

import (
	"fairlead/packet"

	"golang.org/x/sys/unix"
)

// The errors of ReadBatch and WriteBatch are reasons, so that whoever counts a
// failed copy need not translate, and making one allocates nothing.
const (
	// ErrDown: the interface exists and is down. It may come up again.
	ErrDown = packet.EgressDown
	// ErrGone: the interface, its namespace or the other end is gone, or the
	// queue was closed. It stays gone.
	ErrGone = packet.EgressGone
	// ErrFull: no room for the frame at this moment.
	ErrFull = packet.EgressFull
	// ErrRefused: the kernel does not take this frame; others it would.
	ErrRefused = packet.EgressRefused
	// ErrTooLarge: the frame is larger than the interface's MTU allows. A TAP
	// takes it all the same.
	ErrTooLarge = packet.Oversize
)

// errorOf classifies what the kernel answers for a TAP (drivers/net/tun.c).
func errorOf(errno unix.Errno) error {
	switch errno {
	case unix.EIO: // the device is not IFF_UP
		return ErrDown
	case unix.EBADFD, // the device was unregistered
		unix.EBADF: // the queue was closed
		return ErrGone
	case unix.EAGAIN, // the send buffer is full (TUNSETSNDBUF)
		unix.ENOMEM, unix.ENOBUFS:
		return ErrFull
	}
	// EINVAL above all: shorter than an Ethernet header, or the virtio-net
	// header contradicts the frame.
	return ErrRefused
}
