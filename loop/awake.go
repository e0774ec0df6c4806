//go:build !plain

package loop

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A thread that sleeps comes back ten to twenty microseconds after what wakes it,
// which is most of the time of a request and its answer, and much of the pause
// between two pieces of a paced stream. So who was woken soon after falling asleep,
// some times in a row and for little work, stays awake for about that long. Who did
// so in vain starts over. See docs/decisions/spin.md.
const (
	shortWait = int64(40 * time.Microsecond)
	shortTurn = int64(60 * time.Microsecond) // a longer one had more to do than a piece of a paced stream
	spinAfter = 8                            // short waits in a row
	spinTime  = int64(50 * time.Microsecond)
)

// rest waits a moment for something to happen: awake first, where that pays, then
// dozing.
func (w *Worker) rest(timeout int) (n int) {
	if w.short >= spinAfter && w.took < shortTurn {
		for n == 0 && Clock()-w.now < spinTime {
			n = epollPoll(w.epfd, &w.events)
		}
		if n > 0 {
			w.stats.awake.Add(1)
			return n
		}
		w.short = 0
	}
	return epollDoze(w.epfd, &w.events, timeout)
}

// noteWait counts waits that something ended soon.
func (w *Worker) noteWait(event bool, lasted int64) {
	if event && lasted < shortWait {
		w.short++
	} else {
		w.short = 0
	}
}

// dozeTime is how long a worker that has just had something to do waits, in
// milliseconds, before it tells the scheduler that it blocks.
const dozeTime = 1

// epollDoze is epollWait for a moment, and does not tell the scheduler. A garbage
// collection that wants the thread meanwhile sends it a signal, which ends the
// call, or waits for that moment.
func epollDoze(epfd int, events *[maxEvents]poll, timeout int) int {
	if timeout < 0 || timeout > dozeTime {
		timeout = dozeTime
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT,
		uintptr(epfd), uintptr(unsafe.Pointer(&events[0])), maxEvents, uintptr(timeout), 0, 0)
	return result(n, errno)
}
