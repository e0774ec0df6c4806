// Package loop runs the workers: threads that wait for descriptors, timers and
// calls, and carry everything that happens to its end before they look at the
// next thing.
//
// Everything that forwards or waits registers here: the queues of a switch,
// sockets, the pidfd of a container. A handler must not block. Whatever takes
// longer than a frame (closing a TAP takes 16 ms) belongs on a goroutine, after
// a Grace.
//
// # A turn
//
//	1 wait      epoll, and not at all when something is left to do
//	2 inbox     calls posted by others, in the order they were posted
//	3 timers    those that are due
//	4 sources   each ready source once, in the order they became ready
//	5 again     2 and 4 once more, if those have posted calls or woken sources
//
// A source that has more to do than fits a turn returns again: it is called in
// the next turn behind all others, and the worker does not sleep meanwhile.
//
// # Concurrency
//
// A worker is one goroutine locked to one thread. Handlers, timers and posted
// calls of one worker never run at the same time, so what belongs to a worker
// needs no lock. The methods say which of them may be called from anywhere and
// which only on the worker.
//
// A worker blocks in one place, epoll_pwait, and when it sleeps there the Go
// scheduler knows of it: its processor is free for others. Only the first
// ten milliseconds after something was to do pass without the scheduler's knowledge,
// because a thread that goes to sleep and comes back ten thousand times a second
// keeps the runtime's monitor busy with taking its processor away; of that, one
// that answers again and again is awake for the first 50 µs (awake.go). With the
// build tag plain it does neither, nor step 5. Every other call goes around the scheduler, so
// that a busy worker never loses its processor. The price: workers that are busy without a pause
// take a processor each from the rest of the program, which then gets its turn
// by preemption only, every 10 ms. Set GOMAXPROCS to the number of workers plus
// one or two.
//
// A handler that panics is a bug and ends the process.
//
// # Files
//
//	loop.go    Loop: start, grace periods, end
//	worker.go  Worker: the turn, posted calls, statistics
//	awake.go   what has a worker answer sooner; plain.go, without
//	source.go  Source: descriptors and notifications, generations
//	timer.go   Timer
//	inbox.go   the queue others put their calls into
//	epoll.go   the system calls
package loop
