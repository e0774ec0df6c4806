//go:build plain

package loop

// Programs built with the tag plain neither doze nor stay awake: a worker that has
// nothing to do tells the scheduler that it blocks, always. It is the loop without
// what docs/decisions/doze.md and spin.md are about, for `make plain`, which runs
// all scenarios so, and by switches that join nothing.

// Plain is set in programs built with the tag plain.
const Plain = true

func (w *Worker) rest(timeout int) (n int) { return epollWait(w.epfd, &w.events, timeout) }

func (w *Worker) noteWait(event bool, lasted int64) {}

// Bulk says that much is being moved, which is nothing to this worker.
func (w *Worker) Bulk() {}
