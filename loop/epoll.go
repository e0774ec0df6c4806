package loop

import (
	"errors"
	"fmt"
	"math"
	"unsafe"

	"golang.org/x/sys/unix"
)

// poll is one event of epoll. Its 64 bits of user data hold the index and the
// generation of a source.
type poll = unix.EpollEvent

// wakerGen is the generation of no source: it marks the eventfd's events.
const wakerGen = math.MaxUint32

func setRef(ev *poll, index, gen uint32) { ev.Fd, ev.Pad = int32(index), int32(gen) }

func ref(ev *poll) (index, gen uint32) { return uint32(ev.Fd), uint32(ev.Pad) }

// openDescriptors makes an epoll and the eventfd that wakes whoever waits for
// it. The eventfd is edge-triggered: every write is one event, and nobody needs
// to read it empty (it would take 2^64 writes to fill).
func openDescriptors() (epfd, waker int, err error) {
	epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return -1, -1, fmt.Errorf("epoll_create1: %w", err)
	}
	waker, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(epfd)
		return -1, -1, fmt.Errorf("eventfd: %w", err)
	}
	ev := poll{Events: unix.EPOLLIN | unix.EPOLLET}
	setRef(&ev, 0, wakerGen)
	if err = unix.EpollCtl(epfd, unix.EPOLL_CTL_ADD, waker, &ev); err != nil {
		_ = closeDescriptors(epfd, waker)
		return -1, -1, fmt.Errorf("epoll_ctl: %w", err)
	}
	return epfd, waker, nil
}

func closeDescriptors(epfd, waker int) error {
	return errors.Join(unix.Close(waker), unix.Close(epfd))
}

var one = [8]byte{1} // any number but zero, in any byte order

// writeWaker wakes whoever waits for the eventfd.
func writeWaker(fd int) {
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&one[0])), 8)
		if errno != unix.EINTR {
			return
		}
	}
}

// epollPoll returns what is ready now. It goes around the scheduler, because it
// does not block.
func epollPoll(epfd int, events *[maxEvents]poll) int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT,
		uintptr(epfd), uintptr(unsafe.Pointer(&events[0])), maxEvents, 0, 0, 0)
	return result(n, errno)
}

// epollWait sleeps up to timeout milliseconds, -1 for ever, and returns what is
// ready. The scheduler knows that it blocks.
func epollWait(epfd int, events *[maxEvents]poll, timeout int) int {
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT,
		uintptr(epfd), uintptr(unsafe.Pointer(&events[0])), maxEvents, uintptr(timeout), 0, 0)
	return result(n, errno)
}

func result(n uintptr, errno unix.Errno) int {
	switch errno {
	case 0:
		return int(n)
	case unix.EINTR:
		// A signal, of which the runtime sends itself many. The caller goes
		// around and comes back with what is left of the timeout.
		return 0
	}
	// EBADF, EFAULT, EINVAL: none can happen unless memory or descriptors of
	// the loop were touched by others, and then nothing can go on.
	panic("loop: epoll_pwait: " + errno.Error())
}

func gettid() int64 { return int64(unix.Gettid()) }
