package box

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// MaxMessage bounds one message. A Spec with the largest argument the kernel
// takes (MAX_ARG_STRLEN, 128 KiB) does not fit, one with any usual environment
// does; the default socket buffer (net.core.wmem_max, 208 KiB) holds it.
const MaxMessage = 128 << 10

// maxDescriptors bounds the descriptors of one message: standard input,
// output, error and a session are the most anybody sends.
const maxDescriptors = 4

// A Message is what client, init and node say to each other. One field is set.
type Message struct {
	Spec    *Spec      `json:"spec,omitempty"`    // client → init, first
	Exec    *Exec      `json:"exec,omitempty"`    // node → init, with stdin, stdout, stderr and the session's end
	Attach  *Interface `json:"attach,omitempty"`  // client → join helper, with the target namespace
	Await   *Await     `json:"await,omitempty"`   // client → join helper, with the target namespace; Done
	Ready   *Ready     `json:"ready,omitempty"`   // init → client, with the node channel's end and the TAP if there is one; helper → client, with the TAP
	Warning string     `json:"warning,omitempty"` // init → client: something is less than asked, and goes on
	Failure *Failure   `json:"failure,omitempty"` // init → client or session: it ends here
	Linked  bool       `json:"linked,omitempty"`  // init → node: what comes by the link is answered
	Go      bool       `json:"go,omitempty"`      // client → init: the node has the container, start the command
	Started int        `json:"started,omitempty"` // init → client or session: pid of the command, inside
	Signal  int        `json:"signal,omitempty"`  // client, node or session → init: for the command
	Exit    *int       `json:"exit,omitempty"`    // init → node or session: status of the command

	// node → init, each with the session's end, last; see ask.go
	Link    *Interface    `json:"link,omitempty"`    // make it; the answers are Ready with its other end, then Linked
	Unlink  int           `json:"unlink,omitempty"`  // remove the interface with this index; Done
	Default *DefaultRoute `json:"default,omitempty"` // Done
	Keep    int           `json:"keep,omitempty"`    // with the other end of the interface with this index: have a copy; Ready says which
	Done    bool          `json:"done,omitempty"`    // init → session: what was asked for is so
}

// Ready says that the container's end of the link exists, and what its index
// is in its namespace.
type Ready struct {
	Index     int      `json:"index"`
	PeerNetNS int      `json:"peer_netns"` // link-netnsid of a veth, else -1
	Warnings  []string `json:"warnings,omitempty"`

	// What init keeps for a later node, as descriptors of its own; 0 is nothing.
	KeptChannel int `json:"kept_channel,omitempty"`
	KeptLink    int `json:"kept_link,omitempty"`
}

func (r *Ready) warn(format string, args ...any) {
	r.Warnings = append(r.Warnings, fmt.Sprintf(format, args...))
}

// A Failure is why a container or an exec did not come to run its command.
// Code is the exit status that says so in Docker's convention: 125 something
// of ours, 126 the command cannot be run, 127 it was not found.
type Failure struct {
	Code int    `json:"code"`
	Text string `json:"text"`
	// Command mends it, where one is known; Text has it too.
	Command string `json:"command,omitempty"`
}

func (f *Failure) Error() string { return f.Text }

// A Channel is one end of a SOCK_SEQPACKET socketpair that carries Messages
// and descriptors.
type Channel struct {
	file *os.File
	conn syscall.RawConn
}

// Pair makes the two ends of a channel.
func Pair() (a, b int, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, -1, fmt.Errorf("make a channel: %w", err)
	}
	return p[0], p[1], nil
}

// NewChannel takes fd, in every case: on an error it is closed, perhaps later. A
// descriptor that somebody handed over is looked at first: what is no socket the
// kernel refuses to ask, so nobody's file system is.
func NewChannel(fd int) (*Channel, error) {
	domain, err1 := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	kind, err2 := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err := errors.Join(err1, err2); err != nil || domain != unix.AF_UNIX || kind != unix.SOCK_SEQPACKET {
		discard(fd)
		return nil, fmt.Errorf("descriptor %d is not a channel (a unix socket of type seqpacket)", fd)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("channel %d: %w", fd, err)
	}
	unix.CloseOnExec(fd)
	file := os.NewFile(uintptr(fd), "channel")
	conn, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("channel %d: %w", fd, err)
	}
	return &Channel{file: file, conn: conn}, nil
}

// Close closes the end; a Recv that waits returns.
func (c *Channel) Close() error { return c.file.Close() }

// SetReadDeadline bounds every later Recv.
func (c *Channel) SetReadDeadline(t time.Time) error { return c.file.SetReadDeadline(t) }

// Send sends m with copies of fds, which stay the caller's. It never waits:
// a peer that does not read makes it fail once the socket buffer is full.
func (c *Channel) Send(m *Message, fds ...int) error {
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if len(body) > MaxMessage {
		return fmt.Errorf("send: arguments and environment take %d bytes, at most %d can travel: put them into a file", len(body), MaxMessage)
	}
	if len(fds) > maxDescriptors {
		return fmt.Errorf("send: %d descriptors, at most %d can travel", len(fds), maxDescriptors)
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	cerr := c.conn.Control(func(fd uintptr) {
		for {
			err = unix.Sendmsg(int(fd), body, oob, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			if !errors.Is(err, unix.EINTR) {
				return
			}
		}
	})
	if err = errors.Join(cerr, err); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// Recv waits for the next message. The descriptors are the caller's, marked
// close-on-exec; on an error there are none. io.EOF: the other end is closed.
func (c *Channel) Recv() (*Message, []int, error) { return c.receive(maxDescriptors) }

// Hear is Recv for messages that bring no descriptors. Those that come all the
// same the kernel drops, unseen: a file of a file system that a hostile process
// serves could be closed only when that process likes.
func (c *Channel) Hear() (*Message, error) {
	m, _, err := c.receive(0)
	return m, err
}

func (c *Channel) receive(most int) (*Message, []int, error) {
	var body []byte
	var fds []int
	var err error
	cerr := c.conn.Read(func(fd uintptr) bool {
		body, fds, err = receive(int(fd), most)
		return !errors.Is(err, unix.EAGAIN)
	})
	switch {
	case cerr != nil:
		return nil, nil, fmt.Errorf("receive: %w", cerr)
	case errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET): // reset: it closed with something of ours unread
		return nil, nil, io.EOF
	case err != nil:
		return nil, nil, fmt.Errorf("receive: %w", err)
	}
	m := new(Message)
	if err := json.Unmarshal(body, m); err != nil {
		discard(fds...)
		return nil, nil, fmt.Errorf("receive: %w", err)
	}
	return m, fds, nil
}

// receive reads one message without waiting (EAGAIN), with most descriptors. The
// length is asked first, so that a small message costs a small buffer.
func receive(fd, most int) (body []byte, fds []int, err error) {
	n, err := retryInt(func() (int, error) {
		n, _, err := unix.Recvfrom(fd, nil, unix.MSG_PEEK|unix.MSG_TRUNC|unix.MSG_DONTWAIT)
		return n, err
	})
	if err != nil {
		return nil, nil, err
	}
	body = make([]byte, min(n, MaxMessage))
	var oob []byte
	if most > 0 {
		oob = make([]byte, unix.CmsgSpace(most*4))
	}
	var oobn, flags int
	n, err = retryInt(func() (int, error) {
		var n int
		var err error
		n, oobn, flags, _, err = unix.Recvmsg(fd, body, oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		return n, err
	})
	if err != nil {
		return nil, nil, err
	}
	fds = parseRights(oob[:oobn])
	switch {
	case flags&unix.MSG_TRUNC != 0 || most > 0 && flags&unix.MSG_CTRUNC != 0:
		discard(fds...)
		return nil, nil, fmt.Errorf("message exceeds %d bytes or %d descriptors", MaxMessage, maxDescriptors)
	case n == 0: // we never send an empty message: the peer closed
		discard(fds...)
		return nil, nil, io.EOF
	}
	return body[:n], fds, nil
}

// parseRights returns the descriptors of a control message.
func parseRights(oob []byte) (fds []int) {
	cmsgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range cmsgs {
		if got, err := unix.ParseUnixRights(&cmsgs[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

// discard closes descriptors that may be anything. That of a file whose file system
// a hostile process serves is closed when that process likes (FUSE_FLUSH, which not
// even SIGKILL cuts short), that of a TCP socket when its other end has read all
// (SO_LINGER). So nobody waits for it: they are closed one after another, elsewhere.
// While one hangs the others stay open; they are not more than a process may have,
// and who serves that file goes with his container.
func discard(fds ...int) {
	discarded.Lock()
	defer discarded.Unlock()
	discarded.list = append(discarded.list, fds...)
	if !discarded.busy && len(discarded.list) > 0 {
		discarded.busy = true
		go closeDiscarded()
	}
}

var discarded struct {
	sync.Mutex
	list []int
	busy bool // somebody closes them
}

func closeDiscarded() {
	for {
		discarded.Lock()
		list := discarded.list
		discarded.list, discarded.busy = nil, len(list) > 0
		discarded.Unlock()
		if len(list) == 0 {
			return
		}
		closeAll(list)
	}
}

func closeAll(fds []int) {
	for _, fd := range fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// retryInt calls fn again when a signal interrupted it.
func retryInt(fn func() (int, error)) (int, error) {
	for {
		n, err := fn()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
