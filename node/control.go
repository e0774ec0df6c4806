package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/node/api"
	"fairlead/node/box"
)

// maxConnections bounds what clients hold open at once: each costs a
// descriptor and a goroutine. Where descriptors are few, share says the bound.
const maxConnections = 1024

// controlSocket makes the control socket, which has no name yet. A node that has locked
// itself in makes no unix socket any more, so it has this one from before.
func controlSocket() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return os.NewFile(uintptr(fd), "control socket"), nil
}

// listen gives the control socket its name, for us alone. One that is there was left
// behind by a node that is dead: we hold its lock. The file stays the caller's.
func listen(socket *os.File, path string) (*controlListener, error) {
	fd := int(socket.Fd())
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	old := syscall.Umask(0o177)
	err := unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	syscall.Umask(old)
	if err == nil {
		err = unix.Listen(fd, math.MaxUint16) // or net.core.somaxconn
	}
	if err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	return listenerOf(socket)
}

// listenerOf is the control socket that a file is of, which stays the caller's.
func listenerOf(file *os.File) (*controlListener, error) {
	l, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	control, ok := l.(*net.UnixListener)
	if !ok {
		_ = l.Close()
		return nil, errors.New("what was handed over as the control socket is none")
	}
	return newControlListener(control), nil
}

func newControlListener(l *net.UnixListener) *controlListener {
	l.SetUnlinkOnClose(false) // by its path it may be another node's by then
	_, connections, _ := share()
	return &controlListener{UnixListener: l, places: newPlaces(connections), refusals: make(chan struct{}, maxRefusals)}
}

// A gate is open, or closed until somebody opens it.
type gate struct {
	reached, opened chan struct{}
	reach           sync.Once
}

// newGate makes one that is closed, and that nobody stands at.
func newGate() *gate { return &gate{reached: make(chan struct{}), opened: make(chan struct{})} }

// pause has connections wait in the kernel's line until resume is called. reached says
// that none is between the line and its place.
func (l *controlListener) pause() (resume func(), reached bool) {
	g := newGate()
	l.open.Store(g)
	_ = l.SetDeadline(time.Unix(1, 0))
	resume = sync.OnceFunc(func() {
		_ = l.SetDeadline(time.Time{})
		close(g.opened)
	})
	select {
	case <-g.reached:
		return resume, true
	case <-time.After(100 * time.Millisecond): // it waits for a place
		return resume, false
	}
}

// A controlListener accepts the connections of peers that may ask, and no more
// than there are places for at once; further ones wait in the kernel's backlog.
type controlListener struct {
	*net.UnixListener
	places   *places // of connections
	refusals chan struct{}
	open     atomic.Pointer[gate] // see pause; nil before the first time

	// Of Accept alone.
	knockers knockers
	spent    time.Duration // on peers, since it rested
	warned   time.Time     // when a refusal was last logged
	unsaid   int           // refusals since then
}

// Accept refuses whoever is not the node's user in the node's user namespace
// before he gets one of the places: a container runs under our uid and may
// reach the socket, so the uid alone says nothing.
func (l *controlListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			g := l.open.Load()
			g.reach.Do(func() { close(g.reached) })
			<-g.opened
			continue
		} else if err != nil {
			return nil, err
		}
		began := time.Now()
		number := numberOf(conn)
		if l.knockers.know(number) {
			l.unsaid++
			_ = conn.Close()
			l.rest(acceptCost + time.Since(began))
			continue
		}
		pid, err := l.admit(conn, number)
		took := time.Since(began)
		if errors.Is(err, errAllTaken) {
			err = l.places.await(context.Background(), pid)
		}
		if err != nil {
			l.refuse(conn, err)
		}
		l.rest(acceptCost + took)
		if err == nil {
			return &controlConn{UnixConn: conn, listener: l, pid: pid}, nil
		}
	}
}

// A knocker is a process that is refused, for what it is or because it has its share of
// the connections. Who knocks more often than knockTimes within knockFor is known by his
// number, and is neither looked at nor told again: that takes several times as long as all
// the rest.
type knocker struct {
	pid, times int
	since      time.Time
}

const (
	knockFor   = 100 * time.Millisecond
	knockTimes = 16
)

// Knockers are those who were refused last, by the end of their numbers. Of two with the
// same end the later one is known.
type knockers [64]knocker

func (k *knockers) of(pid int) *knocker { return &k[uint(pid)%uint(len(k))] }

// know reports whether a process has been refused often enough. Nobody knows 0: it is the
// number of all who have none here.
func (k *knockers) know(pid int) bool {
	who := k.of(pid)
	return pid != 0 && who.pid == pid && who.times >= knockTimes && time.Since(who.since) < knockFor
}

// refused notes who was.
func (k *knockers) refused(pid int) {
	who := k.of(pid)
	if who.pid != pid || time.Since(who.since) >= knockFor {
		*who = knocker{pid: pid, since: time.Now()}
	}
	who.times++
}

func numberOf(conn *net.UnixConn) (pid int) {
	_ = onDescriptor(conn, func(fd int) { pid = box.PeerNumber(fd) }) // 0 is nobody's
	return pid
}

// errAllTaken is for who has to wait for a place.
var errAllTaken = errors.New("all connections are taken")

// admit says who connected, who has one of the places then, or why he gets none. Who is
// refused is remembered by his number.
func (l *controlListener) admit(conn *net.UnixConn, number int) (pid int, refused error) {
	if pid, refused = peerOf(conn); refused == nil {
		if l.places.take(pid) {
			return pid, nil
		}
		have := l.places.had(pid)
		if have < fewPlaces {
			return pid, errAllTaken
		}
		refused = fmt.Errorf("refused: process %d has %d connections, which is all it may have", pid, have)
	}
	l.knockers.refused(number)
	return pid, refused
}

// What looking at who connects may take: one part of lookShare of a processor, however
// many knock. More of a rest would keep those waiting who stand in the kernel's line behind
// them. To accept one counts for acceptCost, and to tell him why he is refused for tellCost.
const (
	lookShare  = 4
	acceptCost = 10 * time.Microsecond
	tellCost   = 100 * time.Microsecond
)

// rest has looking at peers keep to that.
func (l *controlListener) rest(took time.Duration) {
	if l.spent += min(took, paceMost); l.spent >= time.Millisecond {
		time.Sleep((lookShare - 1) * l.spent)
		l.spent = 0
	}
}

func peerOf(conn *net.UnixConn) (pid int, refused error) {
	err := onDescriptor(conn, func(fd int) { pid, refused = box.SamePeer(fd) })
	return pid, errors.Join(err, refused)
}

// onDescriptor calls fn with the descriptor of a connection.
func onDescriptor(conn *net.UnixConn, fn func(fd int)) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { fn(int(fd)) })
}

// maxRefusals bounds the peers that are told at the same time why they are
// refused. Whoever comes beside them is cut off.
const maxRefusals = 16

// refuse sends a peer away, and logs it, but not more than once a second: a
// container may knock ten thousand times in one.
func (l *controlListener) refuse(conn *net.UnixConn, reason error) {
	if now := time.Now(); now.Sub(l.warned) >= time.Second {
		slog.Warn("refused a peer", "err", reason, "others_since_the_last", l.unsaid)
		l.warned, l.unsaid = now, 0
	} else {
		l.unsaid++
	}
	select {
	case l.refusals <- struct{}{}:
		l.spent += tellCost
		go func() {
			answerRefused(conn, reason)
			<-l.refusals
		}()
	default:
		_ = conn.Close()
	}
}

// answerRefused answers in HTTP, whatever was asked. It waits a second for the
// request: to a peer that still writes, a socket that is closed is a broken
// pipe, and it never reads the reason.
func answerRefused(conn *net.UnixConn, reason error) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := conn.Read(make([]byte, 4096)); err != nil {
		return
	}
	text, _ := json.Marshal(api.Error{Message: reason.Error()})
	fmt.Fprintf(conn, "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		len(text), text)
}

// A controlConn gives its place back when it is closed and paid for. What it costs to have
// it and to read from it goes on its bill, which a request pays with its own turn.
type controlConn struct {
	*net.UnixConn
	listener *controlListener
	pid      int
	closing  sync.Once

	pace *pace        // nil is none
	owed atomic.Int64 // to that, in nanoseconds
	body atomic.Bool  // what comes is not of a header: who asks for it pays for what is made of it
}

// inPace has a new connection owe what a short request does, and whatever comes by it.
func (c *controlConn) inPace(p *pace) {
	if c.pace = p; p != nil {
		c.owed.Store(int64(paceLeast))
	}
}

// Read waits only for whoever says a request in pieces: nobody else waits behind it. Who
// says all at once waits where the node knows of his request.
func (c *controlConn) Read(b []byte) (int, error) {
	c.payPieces()
	size, err := c.UnixConn.Read(b)
	each := paceByte
	if c.body.Load() {
		each = 0
	}
	c.hasRead(size, each)
	return size, err
}

// ReadMsgUnix is Read of a message with descriptors.
func (c *controlConn) ReadMsgUnix(b, oob []byte) (size, oobn, flags int, addr *net.UnixAddr, err error) {
	c.payPieces()
	size, oobn, flags, addr, err = c.UnixConn.ReadMsgUnix(b, oob)
	c.hasRead(size, paceByte)
	return size, oobn, flags, addr, err
}

// payPieces waits for a turn before one more piece is read, where those before owe much.
func (c *controlConn) payPieces() {
	if c.owed.Load() >= int64(oweMost) {
		c.pay(context.Background(), c.pace, 0)
	}
}

// hasRead puts a piece on the bill.
func (c *controlConn) hasRead(size int, each time.Duration) {
	if c.pace != nil && size > 0 {
		c.owed.Add(int64(paceRead + time.Duration(size)*each))
	}
}

// pay waits for a turn, which costs so much and what is owed. It returns false if nobody
// waits for that any more.
func (c *controlConn) pay(ctx context.Context, p *pace, cost time.Duration) bool {
	owed := c.owed.Swap(0)
	if !p.wait(ctx, c.pid, cost+time.Duration(owed)) {
		c.owed.Add(owed)
		return false
	}
	return true
}

// Close has who leaves without having asked for anything pay for having come, before
// another one can come in his place.
func (c *controlConn) Close() error {
	err := c.UnixConn.Close()
	c.closing.Do(func() {
		if c.owed.Load() < int64(paceLeast) {
			c.listener.places.leave(c.pid)
			return
		}
		go func() {
			c.pay(context.Background(), c.pace, 0)
			c.listener.places.leave(c.pid)
		}()
	})
	return err
}
