//go:build !plain

package loop

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Plain is set in programs built with the tag plain.
const Plain = false

// Slept reports whether the worker waited before this turn: then everything that
// is ready became so while it did. It is told by the clock, so a call that returned
// at once may count as a wait when the machine is busy. On the worker only.
func (w *Worker) Slept() bool { return w.slept }

// callWoken calls those that were woken in this turn: they need not wait for another
// look at epoll.
func (w *Worker) callWoken() {
	if !w.inbox.empty() {
		w.slept = false
		w.takeInbox()
		w.callReady()
	}
}

// A thread that sleeps comes back ten to twenty microseconds after what wakes it,
// which is most of the time of a request and its answer. So who is mostly woken
// soon after falling asleep, and for little work, stays awake for about that long.
// See docs/decisions/spin.md.
const (
	shortWait = int64(40 * time.Microsecond)
	shortTurn = int64(60 * time.Microsecond) // a longer one had more to do than an answer
	spinTime  = int64(50 * time.Microsecond)

	// Points: a short wait brings one, a long one costs two, one awake in vain costs
	// three more, and much that is moved at once (Bulk) two. There are twice as many as it
	// takes, so that one that lasted a little longer among many that did not changes
	// nothing.
	spinAfter  = 8
	mostPoints = 2 * spinAfter
	longCosts  = 2
	vainCosts  = 3
	bulkCosts  = 2
)

// Bulk says that what the worker is doing moves much: nobody waits for it to answer. Two
// that exchange much are quicker when a processor is theirs than when this worker is
// awake on it. On the worker only.
func (w *Worker) Bulk() { w.points = max(w.points-bulkCosts, 0) }

// rest waits a moment for something to happen: awake first, where that pays, then
// dozing.
func (w *Worker) rest(timeout int) (n int) {
	if w.points >= spinAfter && w.took < shortTurn {
		for n == 0 && Clock()-w.now < spinTime {
			n = epollPoll(w.epfd, &w.events)
		}
		if n > 0 {
			w.stats.awake.Add(1)
			return n
		}
		w.points -= vainCosts
	}
	return epollDoze(w.epfd, &w.events, timeout)
}

// noteWait counts waits that something ended soon. Behind one that was longer than
// any piece of what went on, something else begins.
func (w *Worker) noteWait(event bool, lasted int64) {
	switch {
	case event && lasted < shortWait:
		w.points = min(w.points+1, mostPoints)
	case lasted > int64(time.Millisecond):
		w.points = 0
	default:
		w.points = max(w.points-longCosts, 0)
	}
}

// dozeTime is how long a worker that has just had something to do waits, in
// milliseconds, before it tells the scheduler that it blocks. It is as long as the
// scheduler lets anybody run, and longer than the kernel's tick: a shorter time would
// have the processor's timer set, and taken back, for each wait.
const dozeTime = 10

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
