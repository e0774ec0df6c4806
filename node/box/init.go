package box

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// grace is how long a command may clean up after it was told to end, before
// it is killed.
const grace = time.Second

// maxSessions bounds what exec may start beside the command.
const maxSessions = 64

// A container is what init knows of itself. Three goroutines use it: the main
// one prepares and then reaps, two more listen on the channels.
type container struct {
	spec *Spec
	born *Channel      // to the client
	goes chan struct{} // closed when the client says go
	goOn sync.Once
	node *Channel // to the node
	null int      // /dev/null, for whatever stdio is not the caller's
	log  *logger  // of a detached container
	exit int      // the file its exit status goes to, -1 without

	// mu is held from before a fork until its child is in the tables, so
	// that the reaper never meets a child it cannot find.
	mu       sync.Mutex
	command  int              // pid of the command, 0 before it started
	sessions map[int]*Channel // exec's, by pid

	network sync.Mutex  // held while interfaces and routes change, and while kept does
	kept    map[int]int // our copies of the node's ends of interfaces, by their index; see keep.go
}

// initMain is the life of pid 1. It returns the container's exit status.
func initMain() int {
	born, err := NewChannel(channelFD)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: to be started by a client only: %v\n", initName, err)
		return 125
	}
	c := &container{born: born, goes: make(chan struct{}), sessions: map[int]*Channel{}, kept: map[int]int{}, exit: -1}
	if err := c.prepare(); err != nil {
		failure := asFailure(explainInside(err))
		_ = born.Send(&Message{Failure: failure}) // nobody left to tell when this fails
		return failure.Code
	}
	return c.reap()
}

// prepare makes the container out of what clone gave and starts the command.
func (c *container) prepare() error {
	m, fds, err := c.born.Recv()
	if err != nil {
		return err
	}
	closeAll(fds)
	if m.Spec == nil {
		return errors.New("the first message is not a spec")
	}
	c.spec = m.Spec
	_ = os.WriteFile("/proc/self/comm", []byte(initName), 0) // for ps; it would read "exe"
	// Catching every signal also undoes, at the next fork, what our caller
	// ignores, as nohup does and shells do for what they put into the background.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals)
	go c.forwardSignals(signals)

	if c.null, err = unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return &os.PathError{Op: "open", Path: os.DevNull, Err: err}
	}
	// Before the tree changes: what the caller sees is opened here, and it is his
	// /dev/net/tun.
	if c.spec.Exit != "" {
		if c.exit, err = unix.Open(c.spec.Exit, unix.O_WRONLY|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600); err != nil {
			return &os.PathError{Op: "open", Path: c.spec.Exit, Err: err}
		}
	}
	link, ready := -1, &Ready{PeerNetNS: -1}
	if c.spec.Network == NetworkOwn {
		if link, ready, err = createLink(c.spec.Interface); err != nil {
			return err
		}
	}
	if c.spec.Detached {
		if c.log, err = openLog(c.spec.Log); err != nil {
			return err
		}
	}
	if err := c.buildTree(); err != nil {
		return err
	}
	if c.spec.Hostname != "" {
		if err := unix.Sethostname([]byte(c.spec.Hostname)); err != nil {
			return fmt.Errorf("set the host name %q: %w", c.spec.Hostname, err)
		}
	}
	if err := c.setupNetwork(); err != nil {
		return err
	}
	// After the interface is up: the kernel acts at once on a carrier that
	// comes then, and lets one that was there before wait for up to a second
	// (linkwatch_urgent_event in net/core/link_watch.c).
	if err := c.connect(link, ready); err != nil {
		return err
	}
	go c.listen(c.born, c.clientGone)
	go c.listen(c.node, c.nodeLost)
	if c.spec.Network == NetworkOwn {
		if err := waitCarrier(c.spec.Interface.Name, carrierTimeout, c.warn); err != nil {
			return err
		}
		_ = c.node.Send(&Message{Linked: true}) // a node that is gone ends us elsewhere
	}
	<-c.goes // whoever leaves or signals meanwhile ends us
	return c.start()
}

// connect makes the channel to the node and gives the node's ends of channel
// and link to the client. Copies stay here for the node that comes after one that
// was killed; see keep.go.
func (c *container) connect(link int, ready *Ready) error {
	near, far, err := Pair()
	if err != nil {
		return err
	}
	if c.node, err = NewChannel(near); err != nil {
		return err
	}
	ready.KeptChannel = far
	fds := []int{far}
	if link >= 0 {
		if err := awaitPort(c.spec.Interface, link); err != nil {
			return err
		}
		ready.KeptLink = c.keep(ready.Index, link)
		fds = append(fds, link)
	}
	err = c.born.Send(&Message{Ready: ready}, fds...)
	if link >= 0 && ready.KeptLink == 0 {
		unix.Close(link)
	}
	return err
}

// warn tells the client what is less than asked for.
func (c *container) warn(format string, args ...any) {
	_ = c.born.Send(&Message{Warning: fmt.Sprintf(format, args...)})
}

// listen serves one channel until its end.
func (c *container) listen(ch *Channel, gone func()) {
	for {
		m, fds, err := ch.Recv()
		switch {
		case err != nil:
			gone()
			return
		case m.Signal != 0:
			closeAll(fds)
			c.signal(syscall.Signal(m.Signal))
		case m.Exec != nil:
			c.exec(m.Exec, fds)
		case m.Link != nil || m.Unlink != 0 || m.Default != nil || m.Keep != 0:
			go c.serve(m, fds) // it may wait for the node
		case m.Go:
			closeAll(fds)
			c.goOn.Do(func() { close(c.goes) })
		default:
			closeAll(fds)
		}
	}
}

// clientGone: a detached container lets its client go once it has started.
func (c *container) clientGone() {
	if !c.spec.Detached || c.commandPID() == 0 {
		c.end("the client is gone")
	}
}

// nodeLost: the end of the node is no end of the channel, of which we have both
// ends. So somebody inside has taken it apart, and no node finds us any more.
func (c *container) nodeLost() {
	const why = "the channel to the node is broken, the container ends"
	if c.log != nil {
		c.log.Write([]byte("fairlead: " + why + "\n"))
	} else if c.commandPID() != 0 {
		fmt.Fprintln(os.Stderr, "fairlead: "+why)
	}
	c.end(why)
}

func (c *container) commandPID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.command
}

// signal sends sig to the command. Before it has started, a signal that would
// end it ends the start.
func (c *container) signal(sig syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.command != 0 {
		_ = syscall.Kill(c.command, sig) // it may have ended, or the number be none
		return
	}
	switch sig {
	case unix.SIGCONT, unix.SIGWINCH, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU: // what a terminal sends
	default:
		os.Exit(128 + int(sig))
	}
}

// end tells the command to end, and kills everything when it does not. The
// reaper sees the command's end and does the rest. Before the command has
// started it is the start that failed.
func (c *container) end(why string) {
	if c.commandPID() == 0 {
		_ = c.born.Send(&Message{Failure: &Failure{Code: 125, Text: why}})
		os.Exit(125)
	}
	c.signal(unix.SIGTERM)
	time.Sleep(grace)
	_ = syscall.Kill(-1, syscall.SIGKILL) // all but ourselves
}

// forwardSignals passes on what somebody sends to init itself, so that it
// never dies of a signal it could catch and `kill 1` inside means the command.
func (c *container) forwardSignals(signals <-chan os.Signal) {
	for s := range signals {
		switch s {
		case unix.SIGCHLD, unix.SIGURG, unix.SIGPIPE: // ours, the Go scheduler's, a lost reader's
		default:
			c.signal(s.(syscall.Signal))
		}
	}
}

// reap collects every process that ends, until the command does. Then it
// reports, kills what is left and returns the command's status.
func (c *container) reap() int {
	for {
		var ws syscall.WaitStatus
		pid, err := retryInt(func() (int, error) { return syscall.Wait4(-1, &ws, 0, nil) })
		if err != nil {
			return 125 // no children: the command is one, so this cannot be
		}
		c.mu.Lock()
		session, isSession := c.sessions[pid]
		delete(c.sessions, pid)
		isCommand := pid == c.command
		c.mu.Unlock()
		code := exitStatus(ws)
		switch {
		case isSession:
			_ = session.Send(&Message{Exit: &code})
			_ = session.Close()
		case isCommand:
			_ = c.node.Send(&Message{Exit: &code})
			c.noteExit(code)
			c.clear()
			return code
		}
	}
}

// clear kills what the command left, so that the log is complete before we end.
func (c *container) clear() {
	_ = syscall.Kill(-1, syscall.SIGKILL)
	if c.log == nil {
		return
	}
	for {
		if _, err := retryInt(func() (int, error) { return syscall.Wait4(-1, nil, 0, nil) }); err != nil {
			break
		}
	}
	c.log.drain()
}

// environment is the container's, with extra and HOSTNAME; of a name that
// comes twice the last one counts.
func (c *container) environment(extra []string) []string {
	hostname, _ := os.Hostname()
	var env []string
	at := map[string]int{}
	for _, kv := range slices.Concat([]string{"HOSTNAME=" + hostname}, c.spec.Env, extra) {
		name, _, _ := strings.Cut(kv, "=")
		if i, ok := at[name]; ok {
			env[i] = kv
		} else {
			at[name] = len(env)
			env = append(env, kv)
		}
	}
	return env
}
