package link

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"fairlead/packet"

	"golang.org/x/sys/unix"
)

// runt is the least a frame can be: the virtio-net and the Ethernet header.
const runt = packet.VNetLen + packet.EthernetLen

// A tun is the descriptor of a TAP device: what TAP and Wire have in common.
type tun struct {
	fd int

	// nowait is RWF_NOWAIT, or 0 on a kernel whose TAPs do not know it (6.1
	// does not, 6.12 does); there O_NONBLOCK has to be trusted.
	nowait uintptr

	iov  unix.Iovec // of the one reader; on the heap, so that reading allocates nothing
	lost atomic.Uint64
}

// newTun takes a descriptor with a device attached, and checks that it is of
// the kind wanted: flags of want, none of refuse.
func newTun(fd int, want, refuse uint16) (*tun, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	// The device number first: to ask an unknown device by ioctl is to press
	// its buttons.
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(10, 200) {
		return nil, fmt.Errorf("descriptor %d is not of /dev/net/tun", fd)
	}
	t := &tun{fd: fd}
	name, flags, err := t.flags()
	if err != nil {
		return nil, err
	}
	if flags&want != want || flags&refuse != 0 {
		return nil, fmt.Errorf("interface %s has flags %#x: want %#x and none of %#x", name, flags, want, refuse)
	}
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("interface %s: set O_NONBLOCK: %w", name, err)
	}
	t.nowait = unix.RWF_NOWAIT
	// One byte is too short for a frame, EINVAL. A kernel that does not know
	// RWF_NOWAIT on TAPs says so first.
	if _, errno := t.pwritev2([]byte{0}); errno == unix.EOPNOTSUPP {
		t.nowait = 0
	}
	return t, nil
}

// Fd is the descriptor, to be registered for reading. It stays the queue's.
func (t *tun) Fd() int { return t.fd }

// Lost is how many frames were read and could not be delivered: the kernel
// could not describe them, or they were larger than any frame can be.
func (t *tun) Lost() uint64 { return t.lost.Load() }

// Name is the interface's name at this moment. Whoever is root in its namespace
// can rename it.
func (t *tun) Name() (string, error) {
	name, _, err := t.iff()
	return name, err
}

// SetCarrier plugs the cable in or pulls it out, as the interface sees it.
func (t *tun) SetCarrier(up bool) error {
	v := 0
	if up {
		v = 1
	}
	return t.ioctlInt("set carrier (TUNSETCARRIER)", unix.TUNSETCARRIER, v)
}

// SetPersist makes the interface outlive its descriptor, with addresses and
// routes, or takes that back.
func (t *tun) SetPersist(on bool) error {
	v := 0
	if on {
		v = 1
	}
	if err := unix.IoctlSetInt(t.fd, unix.TUNSETPERSIST, v); err != nil {
		return fmt.Errorf("link: set persistent (TUNSETPERSIST): %w", err)
	}
	return nil
}

// Close closes the descriptor; unless persistent the interface is removed.
// Calling it again does nothing.
func (t *tun) Close() error {
	if t.fd < 0 {
		return nil
	}
	fd := t.fd
	t.fd = -1 // calls from now on get EBADF
	return unix.Close(fd)
}

// flags asks for name and flags, IFF_NO_PI as it is. That takes a detour, for
// TUNGETIFF sets the same bit, as IFF_NOFILTER, where there is no filter: so it
// is asked while there is one, which lets everything pass. A filter somebody
// else attached is gone afterwards.
func (t *tun) flags() (name string, flags uint16, err error) {
	pass := [1]unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1}}
	prog := unix.SockFprog{Len: 1, Filter: &pass[0]}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(t.fd), unix.TUNATTACHFILTER, uintptr(unsafe.Pointer(&prog)))
	switch errno {
	case 0:
		defer func() {
			_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(t.fd), unix.TUNDETACHFILTER, 0)
			if errno != 0 && err == nil {
				err = fmt.Errorf("interface %s (TUNDETACHFILTER): %w", name, errno)
			}
		}()
	case unix.EINVAL, unix.EBADFD:
		// No TAP, or no interface: that is seen below.
	default:
		return "", 0, fmt.Errorf("descriptor %d (TUNATTACHFILTER): %w", t.fd, errno)
	}
	return t.iff()
}

// iff asks for name and flags (TUNGETIFF).
func (t *tun) iff() (name string, flags uint16, err error) {
	var ifr unix.Ifreq
	if err := unix.IoctlIfreq(t.fd, unix.TUNGETIFF, &ifr); err != nil {
		if errors.Is(err, unix.EBADFD) {
			return "", 0, fmt.Errorf("descriptor %d has no interface: %w", t.fd, ErrGone)
		}
		return "", 0, fmt.Errorf("descriptor %d (TUNGETIFF): %w", t.fd, err)
	}
	return ifr.Name(), ifr.Uint16(), nil
}

func (t *tun) ioctlInt(what string, req uint, v int) error {
	if err := unix.IoctlSetPointerInt(t.fd, req, v); err != nil {
		return fmt.Errorf("link: %s: %w", what, err)
	}
	return nil
}

// readBatch appends the frames that wait to b. The device's frames lack the
// first missing bytes of ours, which become zero.
func (t *tun) readBatch(b *packet.Batch, missing int) (int, error) {
	n := 0
	// The attempts are counted as well as the frames: lost ones take time too.
	for range packet.BatchFrames {
		if b.Full() {
			break
		}
		room := b.Room()
		clear(room[:missing])
		size, errno := t.preadv2(room[missing:])
		size += missing
		switch {
		case errno == unix.EAGAIN:
			return n, nil
		case errno == unix.EINVAL:
			// The kernel has no virtio-net words for the frame (tun_put_user)
			// and has thrown it away.
			t.lost.Add(1)
		case errno != 0 && n > 0:
			return n, nil // the next call will say it
		case errno != 0:
			return 0, errorOf(errno)
		case size == len(room) || size < packet.VNetLen:
			// No frame is that large, so the kernel has cut it off, without a
			// word.
			t.lost.Add(1)
		default:
			b.Add(size)
			n++
		}
	}
	return n, nil
}

// write writes one frame as the device has it.
func (t *tun) write(b []byte) error {
	_, errno := t.pwritev2(b)
	if errno != 0 {
		return errorOf(errno)
	}
	return nil
}

// preadv2 reads one frame, around the scheduler: it copies, and never waits.
func (t *tun) preadv2(b []byte) (int, unix.Errno) {
	t.iov.Base = unsafe.SliceData(b)
	t.iov.SetLen(len(b))
	for {
		// Position -1 is the file's own, of which a TAP has none.
		n, _, errno := unix.RawSyscall6(unix.SYS_PREADV2,
			uintptr(t.fd), uintptr(unsafe.Pointer(&t.iov)), 1, ^uintptr(0), ^uintptr(0), t.nowait)
		if errno == 0 {
			return int(n), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// pwritev2 writes one frame, around the scheduler: the network stack of the
// receiver runs inside, which takes microseconds but never waits. The iovec is
// on the stack, because many may write at the same time.
func (t *tun) pwritev2(b []byte) (int, unix.Errno) {
	iov := unix.Iovec{Base: unsafe.SliceData(b)}
	iov.SetLen(len(b))
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_PWRITEV2,
			uintptr(t.fd), uintptr(unsafe.Pointer(&iov)), 1, ^uintptr(0), ^uintptr(0), t.nowait)
		if errno == 0 {
			return int(n), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}
