package box

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A logger copies a detached container's output to a file of bounded size
// with one predecessor. The command must never wait for a full disk, so what
// cannot be written is dropped.
type logger struct {
	dir   *os.Root // opened before the tree may change under our feet
	name  string
	limit int64
	done  chan struct{} // closed when all writers of the output are gone

	mu   sync.Mutex
	file *os.File // nil when it could not be opened: the next write tries again
	size int64
}

// drainTimeout bounds the wait for output whose writers were killed; one that
// hangs in the kernel must not keep the container.
const drainTimeout = time.Second

func openLog(l *Log) (*logger, error) {
	limit := l.Limit
	if limit <= 0 {
		limit = DefaultLogLimit
	}
	dir, err := os.OpenRoot(filepath.Dir(l.Path))
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	g := &logger{dir: dir, name: filepath.Base(l.Path), limit: limit, done: make(chan struct{})}
	if err := g.open(os.O_APPEND); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return g, nil
}

func (g *logger) open(how int) (err error) {
	g.size = 0
	if g.file, err = g.dir.OpenFile(g.name, os.O_WRONLY|os.O_CREATE|how, 0o600); err != nil {
		return err
	}
	if info, err := g.file.Stat(); err == nil {
		g.size = info.Size()
	}
	return nil
}

// stdio makes the standard input, output and error of a detached command and
// starts to copy. spent are the descriptors to close once the command has its
// own. One pipe serves output and error, so their order is kept.
func (g *logger) stdio(spec *Spec, null int) (stdio [3]int, spent []int, err error) {
	if spec.TTY {
		master, slave, err := OpenPTY()
		if err != nil {
			return stdio, nil, err
		}
		fd, err := unix.FcntlInt(slave.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		slave.Close()
		if err != nil {
			master.Close()
			return stdio, nil, err
		}
		go g.copy(master)
		return [3]int{fd, fd, fd}, []int{fd}, nil
	}
	stdio[0] = null
	if spec.Stdin { // nobody writes to it, and we keep the end open
		var in [2]int
		if err := unix.Pipe2(in[:], unix.O_CLOEXEC); err != nil {
			return stdio, nil, fmt.Errorf("make standard input: %w", err)
		}
		stdio[0], spent = in[0], []int{in[0]}
	}
	var out [2]int
	if err := unix.Pipe2(out[:], unix.O_CLOEXEC); err != nil {
		return stdio, spent, fmt.Errorf("make standard output: %w", err)
	}
	_ = unix.SetNonblock(out[0], true) // our end only: a pipe's ends are two open files
	go g.copy(os.NewFile(uintptr(out[0]), "output"))
	stdio[1], stdio[2] = out[1], out[1]
	return stdio, append(spent, out[1]), nil
}

func (g *logger) copy(from *os.File) {
	defer close(g.done)
	defer from.Close()
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		g.Write(buf[:n])
		if err != nil { // io.EOF, or EIO of a terminal nobody has open
			return
		}
	}
}

// Write appends p, or drops it.
func (g *logger) Write(p []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.file != nil && g.size > 0 && g.size+int64(len(p)) > g.limit {
		_ = g.file.Close()
		_ = g.dir.Rename(g.name, g.name+".1") // where that fails the old output is lost
		g.file = nil
	}
	if g.file == nil {
		if err := g.open(os.O_TRUNC); err != nil {
			return
		}
	}
	n, _ := g.file.Write(p)
	g.size += int64(n)
}

// drain waits until everything written is in the file.
func (g *logger) drain() {
	select {
	case <-g.done:
	case <-time.After(drainTimeout):
	}
}
