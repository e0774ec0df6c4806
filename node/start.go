package node

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/node/api"
	"fairlead/node/box"
)

// startWithin bounds how long Ensure waits for a node it started; it takes
// some ten milliseconds, on a machine that swaps seconds.
const startWithin = 15 * time.Second

// Ensure returns a client of the node in dir, starting one in the background
// when none runs, or when the one that runs is just ending. The node that
// answers stays for idleAfter at least.
//
// A start that has begun is not cut short by ctx: a node that does not answer
// yet could not be told to go down.
func Ensure(ctx context.Context, dir, version string) (*api.Client, error) {
	c := api.NewClient(dir)
	for {
		if err := ask(ctx, c); !errors.Is(err, api.ErrNoNode) && !isEnding(err) {
			return c, err
		}
		lock, err := lockStart(ctx, dir)
		if err != nil {
			return nil, err
		}
		err = ask(ctx, c)
		if errors.Is(err, api.ErrNoNode) { // else somebody was faster
			err = errors.Join(start(context.WithoutCancel(ctx), c, dir), ctx.Err())
		}
		lock.Close()
		if !isEnding(err) {
			return c, err
		}
		time.Sleep(time.Millisecond) // now it is that node that wants the lock
	}
}

// ask says whether a node answers that we can talk to.
func ask(ctx context.Context, c *api.Client) error {
	_, err := who(ctx, c)
	return err
}

// who is the node that answers, if we can talk to it.
func who(ctx context.Context, c *api.Client) (*api.VersionInfo, error) {
	info := new(api.VersionInfo)
	if err := c.Get(ctx, "/v1/version", info); err != nil {
		return nil, err
	}
	if info.API != api.Version {
		return nil, fmt.Errorf("the node in %s is of version %s and speaks API v%d, this program v%d; `fairlead up --replace` has it be of this one, or set FAIRLEAD_DIR for another",
			c.Dir(), info.Version, info.API, api.Version)
	}
	return info, nil
}

// isEnding reports whether an error of ask is that of a node on its way out.
func isEnding(err error) bool { return errors.Is(err, api.ErrLeaving) || errors.Is(err, api.ErrLeft) }

// start starts a node and waits until it answers.
func start(ctx context.Context, c *api.Client, dir string) error {
	p, err := spawn(dir)
	if err != nil {
		return err
	}
	return await(ctx, startWithin, c, p, func(*api.VersionInfo) bool { return true })
}

// StartHere starts a node in dir that logs where we do, and waits until it answers. It
// is a process of its own all the same, which locks itself in before its workers start;
// we keep what rights we have. When we are killed so is the node.
func StartHere(ctx context.Context, dir string) (*Process, error) {
	c := api.NewClient(dir)
	lock, err := lockStart(ctx, dir)
	for ; err == nil; lock, err = lockStart(ctx, dir) {
		if err = ask(ctx, c); errors.Is(err, api.ErrNoNode) {
			break
		}
		lock.Close()
		if !isEnding(err) {
			return nil, cmp.Or(err, errRuns(dir))
		}
		time.Sleep(time.Millisecond) // as in Ensure
	}
	if lock == nil {
		return nil, err
	}
	defer lock.Close()
	p, err := launch(os.Stderr, &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}, "--dir", dir)
	if err != nil {
		return nil, err
	}
	if err := await(ctx, startWithin, c, p, func(*api.VersionInfo) bool { return true }); err != nil {
		_ = p.Signal(syscall.SIGTERM)
		<-p.ended
		return nil, err
	}
	return p, nil
}

// Replace starts a node that takes the place of the one that runs in dir, and returns
// once it has. After an error that one goes on. It takes no lock: the node that runs has
// its own until the other one has that, and may end meanwhile with all its files.
func Replace(ctx context.Context, dir string) error {
	p, err := spawn(dir, "--replace")
	if err != nil {
		return err
	}
	return await(ctx, replaceWithin, api.NewClient(dir), p, func(info *api.VersionInfo) bool { return info.Pid == p.Pid })
}

// lockStart makes the node directory and takes start.lock, waiting for whoever
// has it. A node that ends takes the directory with it, perhaps just now.
func lockStart(ctx context.Context, dir string) (*os.File, error) {
	for deadline := time.Now().Add(startWithin); ; {
		if err := api.MakeDir(dir); err != nil {
			return nil, err
		}
		lock, err := lockIn(dir, startLock)
		switch {
		case errors.Is(err, os.ErrNotExist):
			continue
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return lock, err
		case time.Now().After(deadline):
			return nil, fmt.Errorf("another command has been starting or ending a node for %v; `fuser %s` says which", startWithin, filepath.Join(dir, startLock))
		}
		select { // a lock that waits could not be interrupted
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// AwaitSettled waits until nobody starts or ends a node in dir, and reports whether
// anybody did.
func AwaitSettled(ctx context.Context, dir string) (waited bool, err error) {
	lock, err := os.Open(filepath.Join(dir, startLock))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("node directory: %w", err)
	}
	defer lock.Close()
	for {
		// Who ends takes the file away and then gives up the lock, last of all.
		err := syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return waited, err
		}
		waited = true
		select {
		case <-ctx.Done():
			return waited, context.Cause(ctx)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// AwaitEnd waits until another node can start in dir, and nothing more becomes of the
// files of the one that ends, whose process this is.
func AwaitEnd(ctx context.Context, dir string, pid int) error {
	process, err := box.OpenPID(pid)
	if err == nil { // else it has ended
		defer unix.Close(process)
	}
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, nodeLock)); errors.Is(err, os.ErrNotExist) && !runs(process) {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

// runs reports whether a process has not ended; -1 has.
func runs(pidfd int) bool {
	if pidfd < 0 {
		return false
	}
	alive, err := box.PIDFDAlive(pidfd)
	return err == nil && alive
}

// spawn starts `fairlead node` so that nothing ties it to its caller: a session
// of its own, no descriptor of the caller's (else an ssh or a CI pipe would
// wait for it), what it has to say in a log file.
func spawn(dir string, more ...string) (*Process, error) {
	how := os.O_WRONLY | os.O_APPEND
	if _, err := os.Stat(filepath.Join(dir, nodeLock)); len(more) == 0 || err == nil { // else nobody takes it away
		how |= os.O_CREATE
	}
	if len(more) == 0 { // else it is also that of the node that runs
		how |= os.O_TRUNC
		// What a node wrote that was killed is there as long as the next one lives.
		if err := os.Rename(filepath.Join(dir, nodeLog), filepath.Join(dir, nodeLogBefore)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("start a node: %w", err)
		}
	}
	log, err := os.OpenFile(filepath.Join(dir, nodeLog), how, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start a node: %w", err)
	}
	defer log.Close()
	p, err := launch(log, &syscall.SysProcAttr{Setsid: true}, append([]string{"--dir", dir}, more...)...)
	if err == nil {
		p.log = log.Name()
	}
	return p, err
}

// A Process is a node that we have started.
type Process struct {
	*os.Process
	ended chan struct{} // closed when it has
	state *os.ProcessState
	log   string // where it writes, unless that is where we do
}

// Wait waits for its end.
func (p *Process) Wait() *os.ProcessState {
	<-p.ended
	return p.state
}

// launch starts `fairlead node`, with nothing of ours but the log.
func launch(log *os.File, how *syscall.SysProcAttr, args ...string) (*Process, error) {
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return nil, fmt.Errorf("start a node: mark descriptors close-on-exec (needs Linux 5.11): %w", err)
	}
	cmd := exec.Command("/proc/self/exe", append([]string{"node"}, args...)...)
	cmd.Args[0] = "fairlead"
	cmd.Dir = "/"
	cmd.Stderr = log
	cmd.SysProcAttr = how
	started := make(chan error)
	p := &Process{ended: make(chan struct{})}
	go func() {
		runtime.LockOSThread() // whose end is what Pdeathsig means
		defer close(p.ended)
		err := cmd.Start()
		p.Process = cmd.Process
		if started <- err; err == nil {
			_ = cmd.Wait() // its log says why it ended
			p.state = cmd.ProcessState
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start a node: %w", err)
	}
	return p, nil
}

// await waits until the node answers that is the right one, for so long.
func await(ctx context.Context, within time.Duration, c *api.Client, p *Process, right func(*api.VersionInfo) bool) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		info, err := who(ctx, c)
		if err == nil && right(info) {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("the node ended as soon as it was started (%v)%s", p.state, lastWords(p.log))
		case <-ctx.Done():
			return fmt.Errorf("the node does not answer after %v (%w); see %s", within, err, cmp.Or(p.log, "what it has said"))
		case <-time.After(wait):
		}
	}
}

// lastWords is the end of a node's log, if it has one, for an error message.
func lastWords(log string) string {
	b, err := os.ReadFile(log)
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	if err != nil || len(b) == 0 {
		return ""
	}
	return ": " + string(lines[len(lines)-1])
}
