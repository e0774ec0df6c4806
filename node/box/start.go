package box

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The namespaces of a container, apart from the user and the network
// namespace, which depend on the network mode.
const cloneAlways = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC

// readyTimeout bounds the time from clone to init's first answer, which takes
// some milliseconds; a machine that swaps may take seconds.
const readyTimeout = 30 * time.Second

// A Box is a started container, held by the client that started it.
type Box struct {
	PID   int // of init, in our pid namespace
	PIDFD int // of init; the Box's until Close
	// TAP is the other end of the container's interface, or a packet socket on
	// it if that is one of a veth pair; -1 when there is none. Node is the node's end of the channel to init. Both are the
	// Box's until Release; whoever takes them over does so by a copy.
	TAP, Node int
	Index     int // of the interface, in the container's network namespace
	PeerNetNS int // what that calls the namespace of a veth's other end; -1 of a TAP
	// KeptChannel and KeptLink are init's own copies of Node and TAP, by their
	// numbers there; 0 is none. See Reach.
	KeptChannel, KeptLink int
	// Warnings say what is less than asked for. Complete when Started returned.
	Warnings []string

	session Session // over the channel init was born with
	process *os.Process
}

// Start clones init, hands it the Spec and returns when the container's end
// of the link exists: the caller gives TAP, PIDFD and Node to the node, calls
// Release, then Started. stdio is standard input, output and error; a
// detached container takes none of them.
func Start(spec *Spec, stdio [3]*os.File) (*Box, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	near, far, err := Pair()
	if err != nil {
		return nil, err
	}
	born, err := NewChannel(near)
	if err != nil {
		unix.Close(far)
		return nil, err
	}
	b := &Box{PIDFD: -1, TAP: -1, Node: -1, PeerNetNS: -1, session: Session{channel: born}}
	err = b.clone(spec, stdio, far)
	unix.Close(far)
	if err == nil {
		err = b.ready(spec)
	}
	if err != nil {
		b.kill()
		return nil, fmt.Errorf("start container: %w", err)
	}
	return b, nil
}

// clone starts init with far as the channel it is born with.
func (b *Box) clone(spec *Spec, stdio [3]*os.File, far int) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	if spec.Detached {
		stdio = [3]*os.File{null, null, null}
	} else if !spec.Stdin && !spec.TTY {
		stdio[0] = null
	}
	files := []uintptr{stdio[0].Fd(), stdio[1].Fd(), stdio[2].Fd(), uintptr(far)}
	argv := []string{initName, spec.ID}

	if err := markCloseOnExec(); err != nil {
		return err
	}
	if spec.Network == NetworkShared {
		return b.cloneShared(spec.SharePID, argv, files)
	}
	flags := uintptr(cloneAlways | unix.CLONE_NEWUSER)
	if spec.ownNet() {
		flags |= unix.CLONE_NEWNET
	}
	uids, gids, setgroups, err := idMaps()
	if err != nil {
		return err
	}
	pid, _, err := syscall.StartProcess(selfExe, argv, &syscall.ProcAttr{
		Env:   childEnv(),
		Files: files,
		Sys: &syscall.SysProcAttr{
			Cloneflags: flags, UidMappings: uids, GidMappings: gids, GidMappingsEnableSetgroups: setgroups,
			Setsid: true, PidFD: &b.PIDFD,
		},
	})
	if err != nil {
		return explainClone(err)
	}
	return b.adopt(pid)
}

// cloneShared starts init in the user and network namespaces of pid.
func (b *Box) cloneShared(pid int, argv []string, files []uintptr) error {
	p, err := OpenPID(pid)
	if err != nil {
		return err
	}
	defer unix.Close(p)
	var join []namespace
	for _, kind := range []int{unix.CLONE_NEWUSER, unix.CLONE_NEWNET} { // user first: it brings the right to the other
		ns, err := openForeignNS(p, kind)
		if err != nil {
			return fmt.Errorf("join process %d: %w", pid, err)
		}
		if ns.fd >= 0 {
			defer unix.Close(ns.fd)
			join = append(join, ns)
		}
	}
	child, err := forkInto(join, cloneAlways, argv, childEnv(), files)
	if err != nil {
		return fmt.Errorf("join process %d: %w", pid, err)
	}
	if b.PIDFD, err = unix.PidfdOpen(child, 0); err != nil { // a child of ours, so the pid is still its own
		return fmt.Errorf("open process %d: %w", child, err)
	}
	return b.adopt(child)
}

// adopt makes the new child the one to wait for.
func (b *Box) adopt(pid int) (err error) {
	b.PID = pid
	b.process, err = os.FindProcess(pid)
	return err
}

// ready sends the Spec and takes the descriptors init answers with.
func (b *Box) ready(spec *Spec) error {
	born := b.session.channel
	if err := born.SetReadDeadline(time.Now().Add(readyTimeout)); err != nil {
		return err
	}
	if err := born.Send(&Message{Spec: spec}); err != nil {
		return err
	}
	for {
		m, fds, err := born.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return fmt.Errorf("init ended with status %d before it was ready", b.mustWait())
		case err != nil:
			return fmt.Errorf("init: %w", err)
		case m.Ready != nil && len(fds) > 0:
			b.Node, b.Index, b.PeerNetNS = fds[0], m.Ready.Index, m.Ready.PeerNetNS
			b.KeptChannel, b.KeptLink = m.Ready.KeptChannel, m.Ready.KeptLink
			b.Warnings = append(b.Warnings, m.Ready.Warnings...)
			if len(fds) > 1 {
				b.TAP = fds[1]
			}
			return born.SetReadDeadline(time.Time{})
		case m.Warning != "":
			b.Warnings = append(b.Warnings, m.Warning)
		case m.Failure != nil:
			return m.Failure
		}
		closeAll(fds)
	}
}

// Started waits until the command runs. An error that is a *Failure has the
// exit status that tells why it does not.
func (b *Box) Started() error {
	// Only now: a command that ends at once must not end before the node has
	// looked at its container. An init that has failed already says so below.
	_ = b.session.channel.Send(&Message{Go: true})
	err := b.session.started(func(w string) { b.Warnings = append(b.Warnings, w) })
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("init ended with status %d before the command started", b.mustWait())
	}
	return err
}

// Signal sends sig to the command. Before the command started it ends the container.
func (b *Box) Signal(sig syscall.Signal) error { return b.session.Signal(sig) }

// Wait waits for the end of the container and returns the command's status,
// 128+n when signal n ended it.
func (b *Box) Wait() (int, error) {
	state, err := b.process.Wait()
	if err != nil {
		return 0, fmt.Errorf("wait for init: %w", err)
	}
	return exitStatus(state.Sys().(syscall.WaitStatus)), nil
}

// mustWait is Wait for an init whose channel is closed already.
func (b *Box) mustWait() int {
	code, err := b.Wait()
	if err != nil {
		return 125
	}
	return code
}

// Release closes our copies of TAP and Node, once the node has its own.
func (b *Box) Release() {
	closeAll([]int{b.TAP, b.Node})
	b.TAP, b.Node = -1, -1
}

// Close lets go of the container: a detached one that has started goes on,
// any other ends. Wait still works.
func (b *Box) Close() {
	b.Release()
	b.session.Close()
	closeAll([]int{b.PIDFD})
	b.PIDFD = -1
}

// kill undoes a Start that failed halfway.
func (b *Box) kill() {
	if b.process != nil {
		_ = b.process.Kill() // may have ended by itself
		_, _ = b.process.Wait()
	}
	b.Close()
}

// markCloseOnExec: what our own caller left open (a CI's pipes, an editor's
// sockets) must not live on in a child. What Go opened is marked already.
func markCloseOnExec() error {
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("mark descriptors close-on-exec (needs Linux 5.11): %w", err)
	}
	return nil
}

func exitStatus(ws syscall.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}
