//go:build plain

package loop

// Programs built with the tag plain have nothing that makes it faster and could be left
// out: a worker that has nothing to do tells the scheduler that it blocks, always, and
// looks at epoll before it calls anybody it was told of meanwhile; each port is read
// until nothing waits; no flow is fetched ahead, and no packets are joined. `make
// plain` runs all scenarios so, and the random tests that hold the paths against models.

// Plain is set in programs built with the tag plain.
const Plain = true

func (w *Worker) rest(timeout int) (n int) { return epollWait(w.epfd, &w.events, timeout) }

func (w *Worker) noteWait(event bool, lasted int64) {}

func (w *Worker) callWoken() {}

// Slept reports false: nobody relies on what the worker knows of the wait before.
func (w *Worker) Slept() bool { return false }

// Bulk says that much is being moved, which is nothing to this worker.
func (w *Worker) Bulk() {}
