package box

import (
	"errors"
	"fmt"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// What a container keeps for the node that comes after one that was killed.
//
// Each init has copies of the node's ends: of the channel, and of its interfaces.
// So neither ends with the node: no interface goes, no carrier drops, and what is
// sent meanwhile waits in the link's own queue, which drops beyond its bound. The
// next node takes the copies out of init by pidfd_getfd(2). Init has no part in
// that: it may be stopped, and there is nothing to ask it and nobody to believe.
// Who may take is the kernel's to decide (PTRACE_MODE_ATTACH_REALCREDS of
// ptrace(2)): whoever made the user namespace, from outside of it. Another
// container of the same user may not.
//
// Non-blocking is asked for with each call, so that another holder of the same open
// file keeps no worker waiting; where the kernel cannot be asked (link.TAP on
// Linux 6.1) nothing is kept.

// keep has a copy of the other end of an interface stay here, fd itself, and
// returns its number; 0 where it must not.
func (c *container) keep(index, fd int) (number int) {
	if !neverWaits(fd) {
		return 0
	}
	c.kept[index] = fd
	return fd
}

// dropKept closes the copy of an interface that goes. c.network is held.
func (c *container) dropKept(index int) {
	if fd, ok := c.kept[index]; ok {
		delete(c.kept, index)
		unix.Close(fd)
	}
}

// dropUnless has the copy of an interface be dropped, and a TAP go with it, when the
// node gives up before the caller says that it works.
func (c *container) dropUnless(index int, session *Channel) (keepIf func(works bool)) {
	var decided sync.Once
	drop := func() {
		c.network.Lock()
		defer c.network.Unlock()
		c.dropKept(index)
	}
	go func() {
		_, _ = session.Hear() // the node says nothing: it has gone, or we have closed it
		decided.Do(drop)
	}()
	return func(works bool) {
		decided.Do(func() {
			if !works {
				drop()
			}
		})
	}
}

// keepFor is RequestKeep.
func (c *container) keepFor(index, fd int, session *Channel) {
	c.network.Lock()
	defer c.network.Unlock()
	if _, has := c.kept[index]; has || len(c.kept) >= maxKept {
		unix.Close(fd)
		_ = session.Send(&Message{Failure: &Failure{Code: 125, Text: "it is kept already, or too many are"}})
		return
	}
	number := c.keep(index, fd)
	if number == 0 {
		unix.Close(fd)
	}
	_ = session.Send(&Message{Ready: &Ready{Index: index, PeerNetNS: -1, KeptLink: number}})
}

// maxKept bounds the copies of one init; a container is on 64 networks at most.
const maxKept = 128

// neverWaits reports whether reads and writes of a link's end can be kept from
// waiting call by call: those of a socket, and of a TAP that knows RWF_NOWAIT. One
// byte is too short for a frame, EINVAL, unless the flag is unknown.
func neverWaits(fd int) bool {
	if _, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err == nil {
		return true
	}
	_, err := unix.Pwritev2(fd, [][]byte{{0}}, -1, unix.RWF_NOWAIT)
	return !errors.Is(err, unix.EOPNOTSUPP)
}

// noteExit writes the command's exit status to the file for it.
func (c *container) noteExit(code int) {
	if c.exit >= 0 {
		_, _ = unix.Pwrite(c.exit, []byte(strconv.Itoa(code)+"\n"), 0) // what is lost says 137
	}
}

// Cookie identifies the channel as long as this machine runs: every copy of this
// end has it, and no other socket ever (SO_COOKIE in socket(7)).
func (c *Channel) Cookie() (cookie uint64, err error) {
	cerr := c.conn.Control(func(fd uintptr) { cookie, err = unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_COOKIE) })
	if err = errors.Join(cerr, err); err != nil {
		return 0, fmt.Errorf("channel: ask for its cookie: %w", err)
	}
	return cookie, nil
}

// A Reached is the init of a container that was another node's.
type Reached struct {
	PIDFD   int      // the Reached's until it is set to -1
	Channel *Channel // likewise, nil
	pid     int
}

// ErrGone says that an init that is to be reached has ended.
var ErrGone = errors.New("it has ended")

// An Init is how an init is found again.
type Init struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start,omitempty"` // see StartOf; 0 is unknown
	// Kept is its copy of the node's end of their channel, by its number there, and
	// Cookie that end's.
	Kept   int    `json:"kept,omitempty"`
	Cookie uint64 `json:"cookie,omitempty"`
}

// Reach takes hold of an init again. After ErrGone the container has ended, and its
// number may be another process's; any other error says why it cannot be reached,
// and what is returned has a pidfd of it.
func Reach(i Init) (*Reached, error) {
	r := &Reached{PIDFD: -1, pid: i.PID}
	var err error
	if r.PIDFD, err = unix.PidfdOpen(i.PID, 0); err != nil {
		return nil, ErrGone // or it is a thread's number by now
	}
	start, serr := StartOf(r.PIDFD)
	if alive, err := PIDFDAlive(r.PIDFD); err != nil || !alive || serr == nil && i.Start != 0 && start != i.Start {
		r.Close()
		return nil, ErrGone
	}
	err = r.takeChannel(i)
	if err != nil && (serr != nil || i.Start == 0 || errors.Is(err, ErrGone)) {
		// Nothing but its channel could say that it is the one: whoever has its
		// number now is not killed in its place.
		r.Close()
		return nil, ErrGone
	}
	return r, err
}

// takeChannel takes the channel, and nothing else for it.
func (r *Reached) takeChannel(i Init) error {
	fd, err := r.take(i.Kept)
	if err != nil {
		return err
	}
	if r.Channel, err = NewChannel(fd); err != nil {
		return err
	}
	if have, err := r.Channel.Cookie(); err != nil || have != i.Cookie {
		_ = r.Channel.Close()
		r.Channel = nil
		return errors.New("what its init keeps is not the channel it was born with: root inside took it apart")
	}
	return nil
}

// Take copies the other end of a link that init keeps, by its number there. The
// descriptor is the caller's, to be adopted by what it is.
func (r *Reached) Take(kept int) (fd int, err error) {
	if fd, err = r.take(kept); err != nil {
		return -1, err
	}
	if !isLink(fd) {
		discard(fd)
		return -1, errors.New("what its init keeps is no end of a link: root inside took it apart")
	}
	return fd, nil
}

func (r *Reached) take(kept int) (fd int, err error) {
	if kept <= 2 {
		return -1, errors.New("its init keeps nothing for a later node")
	}
	// A file that is served by a process inside is better not taken: whoever has one
	// cannot even end before it is closed. Root inside may be quicker than we are;
	// then it is discarded.
	if kind, err := kindOf(unix.AT_FDCWD, fmt.Sprintf("/proc/%d/fd/%d", r.pid, kept), 0); err == nil && kind == 0 {
		return -1, errors.New("what its init keeps is neither a socket nor a TAP: root inside took it apart")
	}
	fd, err = unix.PidfdGetfd(r.PIDFD, kept, 0)
	switch {
	case errors.Is(err, unix.ESRCH):
		return -1, ErrGone
	case errors.Is(err, unix.EPERM):
		return -1, fmt.Errorf("take a descriptor of its init (pidfd_getfd): %w; kernel.yama.ptrace_scope=3 forbids it to everybody", err)
	case errors.Is(err, unix.EBADF):
		return -1, errors.New("its init has given up what it kept: root inside took it apart")
	case err != nil:
		return -1, fmt.Errorf("take a descriptor of its init (pidfd_getfd): %w", err)
	}
	return fd, nil
}

// Close lets go of what is still the Reached's.
func (r *Reached) Close() {
	closeAll([]int{r.PIDFD})
	r.PIDFD = -1
	if r.Channel != nil {
		_ = r.Channel.Close()
		r.Channel = nil
	}
}

// Copy is a copy of our end, the caller's to hand on.
func (c *Channel) Copy() (fd int, err error) {
	cerr := c.conn.Control(func(own uintptr) { fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(cerr, err); err != nil {
		return -1, fmt.Errorf("copy a channel: %w", err)
	}
	return fd, nil
}
