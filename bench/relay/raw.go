package relay

import (
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Raw joins TAPs with virtio-net headers, each two that follow one another: one thread,
// one epoll, one buffer, a read and a write for each frame, and nothing else. What it
// reaches is the ceiling of every switch that reads TAPs one frame at a time. It is done
// when a descriptor fails.
func Raw(taps []int, crossed *Crossed) error { return raw(taps, func([]byte) {}, 0, crossed) }

// Awake is Raw that does not sleep while anything crosses: it asks epoll again and
// again. What it reaches is the least a request and its answer take through a
// process that is never woken; it takes a processor for that. So that others are
// measured without it, it sleeps when nothing has come for AwakeFor.
func Awake(taps []int, crossed *Crossed) error {
	return raw(taps, func([]byte) {}, AwakeFor, crossed)
}

// AwakeFor is a hundred times what an exchange takes that waits for nobody else.
const AwakeFor = 5 * time.Millisecond

// raw has look look at each frame between reading and writing it, and stays awake
// for some time behind the last one.
func raw(taps []int, look func(frame []byte), awake time.Duration, crossed *Crossed) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("epoll_create1: %w", err)
	}
	defer unix.Close(epoll)
	for i, fd := range taps {
		if err := unix.SetNonblock(fd, true); err != nil {
			return fmt.Errorf("set O_NONBLOCK: %w", err)
		}
		if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}); err != nil {
			return fmt.Errorf("epoll_ctl: %w", err)
		}
	}
	buf := make([]byte, 10+14+4+4+65535) // the largest frame with its virtio-net header
	var events [2]unix.EpollEvent
	last := time.Now()
	for {
		wait := -1
		if awake > 0 && time.Since(last) < awake {
			wait = 0
		}
		n, err := unix.EpollWait(epoll, events[:], wait)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		if awake > 0 && n > 0 {
			last = time.Now()
		}
		for _, ev := range events[:max(n, 0)] {
			from, to := taps[ev.Fd], taps[ev.Fd^1]
			var frames, bytes uint64
			for range drain {
				size, errno := call(unix.SYS_READ, from, buf)
				if errno == unix.EAGAIN {
					break
				}
				if errno == 0 {
					look(buf[:size])
					_, errno = call(unix.SYS_WRITE, to, buf[:size])
				}
				if errno == unix.EIO {
					continue // the interface is down, and the frame lost
				}
				if errno != 0 {
					return fmt.Errorf("relay a frame: %w", errno)
				}
				frames++
				bytes += uint64(size)
			}
			crossed.Frames.Add(frames)
			crossed.Bytes.Add(bytes)
		}
	}
}
