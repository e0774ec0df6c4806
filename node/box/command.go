package box

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// start starts the command of the container.
func (c *container) start() error {
	stdio := [3]int{0, 1, 2}
	var after []int // our copies of what only the command needs
	if c.spec.Detached {
		var err error
		if stdio, after, err = c.log.stdio(c.spec, c.null); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	pid, err := c.launch(c.spec.Args, c.environment(nil), c.spec.Cwd, c.spec.TTY, stdio)
	closeAll(after)
	if err != nil {
		return err
	}
	c.command = pid
	// The command's end must be the end of its pipes: keep standard error
	// only, for the one message we may have to write.
	for fd := range 2 {
		_ = unix.Dup3(c.null, fd, 0)
	}
	return c.born.Send(&Message{Started: pid})
}

// exec starts one more command. fds are its stdio and its session.
func (c *container) exec(e *Exec, fds []int) {
	if len(fds) != 4 {
		closeAll(fds)
		return
	}
	defer closeAll(fds[:3])
	session, err := NewChannel(fds[3])
	if err != nil {
		return // nobody to tell
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	pid, err := c.launchExec(e, [3]int(fds[:3]))
	if err != nil {
		_ = session.Send(&Message{Failure: asFailure(err)})
		_ = session.Close()
		return
	}
	c.sessions[pid] = session
	_ = session.Send(&Message{Started: pid})
	go c.listenSession(session, pid)
}

func (c *container) launchExec(e *Exec, stdio [3]int) (int, error) {
	switch {
	case c.command == 0:
		return 0, errors.New("the container has not started yet")
	case len(c.sessions) >= maxSessions:
		return 0, fmt.Errorf("%d commands run beside the container's already", maxSessions)
	case len(e.Args) == 0:
		return 0, errors.New("no command given")
	}
	cwd := e.Cwd
	if cwd == "" {
		cwd = c.spec.Cwd
	}
	return c.launch(e.Args, c.environment(e.Env), cwd, e.TTY, stdio)
}

// listenSession serves one exec until its client goes, which hangs it up.
func (c *container) listenSession(session *Channel, pid int) {
	for {
		m, err := session.Hear()
		if err != nil {
			break
		}
		if m.Signal != 0 {
			c.signalSession(session, pid, pid, syscall.Signal(m.Signal))
		}
	}
	if c.signalSession(session, pid, -pid, syscall.SIGHUP) {
		time.Sleep(grace)
		c.signalSession(session, pid, -pid, syscall.SIGKILL)
	}
	_ = session.Close()
}

// signalSession signals target, pid or its process group, unless it was reaped:
// the number may be another's then.
func (c *container) signalSession(session *Channel, pid, target int, sig syscall.Signal) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sessions[pid] != session {
		return false
	}
	_ = syscall.Kill(target, sig)
	return true
}

// launch executes args with its own session, default signals and no
// descriptors but stdio. The caller holds mu.
func (c *container) launch(args, env []string, cwd string, tty bool, stdio [3]int) (int, error) {
	if cwd == "" {
		cwd = "/"
	}
	var st unix.Stat_t
	err := unix.Stat(cwd, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = unix.ENOTDIR
	}
	if err != nil {
		return 0, &Failure{Code: 126, Text: fmt.Sprintf("working directory %q: %v", cwd, err)}
	}
	path, err := findCommand(args[0], cwd, env)
	if err != nil {
		return 0, err
	}
	// A fork hands on the signal mask of its thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &unix.Sigset_t{}, nil)
	pid, err := syscall.ForkExec(path, args, &syscall.ProcAttr{
		Dir:   cwd,
		Env:   env,
		Files: []uintptr{uintptr(stdio[0]), uintptr(stdio[1]), uintptr(stdio[2])},
		Sys:   &syscall.SysProcAttr{Setsid: true, Setctty: tty, Ctty: 0},
	})
	if err != nil {
		if !filepath.IsAbs(path) { // as execve had it
			path = filepath.Join(cwd, path)
		}
		if info, serr := os.Stat(path); serr == nil && info.IsDir() {
			err = unix.EISDIR // execve says EACCES of one
		}
		return 0, commandError(args[0], err)
	}
	return pid, nil
}

// findCommand resolves a command without a slash along the PATH of env, as the
// command itself would see it. The others execve resolves in cwd.
func findCommand(name, cwd string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, kv := range env {
		if value, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = value
		}
	}
	var denied error
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) { // an empty one is the working directory
			dir = filepath.Join(cwd, dir)
		}
		file := filepath.Join(dir, name)
		info, err := os.Stat(file)
		if err != nil || info.IsDir() {
			continue
		}
		if err := unix.Access(file, unix.X_OK); err == nil {
			return file, nil
		}
		denied = unix.EACCES
	}
	if denied != nil {
		return "", commandError(name, denied)
	}
	return "", &Failure{Code: 127, Text: fmt.Sprintf("exec: %q: executable file not found in $PATH", name)}
}

// commandError says in Docker's words and status why a command does not run.
func commandError(name string, err error) *Failure {
	if errors.Is(err, fs.ErrNotExist) {
		return &Failure{Code: 127, Text: fmt.Sprintf("exec: %q: no such file or directory", name)}
	}
	return &Failure{Code: 126, Text: fmt.Sprintf("exec: %q: %v", name, err)}
}

// asFailure gives every other error the status of an error of ours.
func asFailure(err error) *Failure {
	if f := (*Failure)(nil); errors.As(err, &f) {
		return f
	}
	_, command := Mending(err)
	return &Failure{Code: 125, Text: err.Error(), Command: command}
}
