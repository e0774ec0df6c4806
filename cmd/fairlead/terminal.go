package main

import (
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/term"

	"fairlead/node/box"
)

// A terminal is what a command's standard input, output and error are: ours,
// or with -t a pseudo terminal whose other end we copy.
type terminal struct {
	master, slave *os.File // nil without -t
	interactive   bool
	saved         *term.State // of our own terminal, while it is raw
	resized       chan os.Signal
	settled       chan struct{} // closed when nobody resizes any more
	drained       chan struct{}
}

// terminal opens what -i and -t ask for.
func (o *runOptions) terminal() (*terminal, error) {
	// Detached, init makes the command's terminal and copies it to the log.
	return openTerminal(o.tty && !o.detach, o.interactive && !o.detach)
}

func openTerminal(tty, interactive bool) (*terminal, error) {
	t := &terminal{interactive: interactive}
	if !tty {
		return t, nil
	}
	if interactive && !term.IsTerminal(int(os.Stdin.Fd())) {
		return nil, errNotATTY
	}
	var err error
	t.master, t.slave, err = box.OpenPTY()
	if err != nil {
		return nil, err
	}
	t.resize()
	return t, nil
}

// stdio is what the command gets.
func (t *terminal) stdio() [3]*os.File {
	if t.slave != nil {
		return [3]*os.File{t.slave, t.slave, t.slave}
	}
	return [3]*os.File{os.Stdin, os.Stdout, os.Stderr}
}

// descriptors is stdio as numbers; without -i and -t standard input is
// /dev/null. done lets go of what was opened.
func (t *terminal) descriptors() (fds []int, done func(), err error) {
	stdio := t.stdio()
	done = func() {}
	if t.slave == nil && !t.interactive {
		null, err := os.Open(os.DevNull)
		if err != nil {
			return nil, nil, err
		}
		stdio[0], done = null, func() { null.Close() }
	}
	for _, f := range stdio {
		fds = append(fds, int(f.Fd()))
	}
	return fds, done, nil
}

// started closes our copy of the command's side, so that its end is the end of
// the last one.
func (t *terminal) started() {
	if t.slave != nil {
		t.slave.Close()
	}
}

// attach begins to copy. Our own terminal becomes raw, so that Ctrl-C is a
// character that the command's terminal makes a signal of.
func (t *terminal) attach() {
	if t.master == nil {
		return
	}
	t.resized = make(chan os.Signal, 1)
	t.settled = make(chan struct{})
	signal.Notify(t.resized, syscall.SIGWINCH)
	t.resize() // it may have changed before anybody listened
	go func() {
		defer close(t.settled)
		for range t.resized {
			t.resize()
		}
	}()
	if t.interactive {
		t.saved, _ = term.MakeRaw(int(os.Stdin.Fd())) // cooked is better than nothing
		go copyAll(t.master, os.Stdin)
	}
	t.drained = make(chan struct{})
	go func() {
		copyAll(os.Stdout, t.master)
		close(t.drained)
	}()
}

// resize gives the command's terminal the size of ours.
func (t *terminal) resize() {
	for _, f := range []*os.File{os.Stdout, os.Stdin} {
		if term.IsTerminal(int(f.Fd())) {
			_ = pty.InheritSize(f, t.master) // a terminal without a size works too
			return
		}
	}
}

// drain waits for the last output of a container that has ended, with which the
// terminal has lost its last user.
func (t *terminal) drain() {
	if t.drained != nil {
		<-t.drained
	}
}

// drainSome is drain for a command that may have left others on its terminal:
// they can write for as long as they live.
func (t *terminal) drainSome() {
	if t.drained == nil {
		return
	}
	select {
	case <-t.drained:
	case <-time.After(time.Second):
	}
}

// close gives our terminal back as it was.
func (t *terminal) close() {
	if t.master == nil {
		return
	}
	if t.resized != nil {
		signal.Stop(t.resized)
		close(t.resized)
		<-t.settled // it uses the descriptors by number
	}
	if t.saved != nil {
		_ = term.Restore(int(os.Stdin.Fd()), t.saved)
	}
	t.slave.Close() // once more is as good
	t.master.Close()
}

// copyAll copies until either side ends; that the command has ended is learned
// elsewhere.
func copyAll(dst io.Writer, src io.Reader) { _, _ = io.Copy(dst, src) }
