package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The ports of the far end.
const (
	oncePort    = 7010 // TCP: reads a request, writes an answer, closes
	echoTCPPort = 7011 // TCP: writes back what it reads
	sinkPort    = 7012 // UDP: counts
)

// A job is what one of the ends is asked to do.
type job struct {
	Do   string // once, echo, flood, count
	To   netip.AddrPort
	Size int           // of a datagram
	Rate float64       // of datagrams in a second
	For  time.Duration // how long
}

// An outcome is what came of it.
type outcome struct {
	Count   uint64        // of connections made, datagrams sent, datagrams received
	Took    time.Duration // until the last of them
	Median  time.Duration // of a request and its answer
	Problem string
}

// An endpoint process runs on one side of a site and does what it is asked.
type endProcess struct {
	in  *json.Encoder
	out *json.Decoder
}

// startEnd starts the role near or far of this program on one side of a site.
func startEnd(l *lab, s *site, inside bool, role string) *endProcess {
	self, err := os.Executable()
	l.check(err, "find this program")
	cmd := s.command(l.ctx, inside, self, role)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	l.check(err, "start the %s end", role)
	out, err := cmd.StdoutPipe()
	l.check(err, "start the %s end", role)
	l.check(cmd.Start(), "start the %s end", role)
	l.Cleanup(func() {
		_ = in.Close() // it ends then
		_ = cmd.Wait()
	})
	e := &endProcess{in: json.NewEncoder(in), out: json.NewDecoder(out)}
	_, err = e.do(job{Do: "count"})
	l.check(err, "start the %s end", role)
	return e
}

func (e *endProcess) do(j job) (o outcome, err error) {
	if err = e.in.Encode(j); err == nil {
		err = e.out.Decode(&o)
	}
	if err == nil && o.Problem != "" {
		err = errors.New(o.Problem)
	}
	return o, err
}

// endRole reads jobs and does them until its standard input ends.
func endRole(do func(job) (outcome, error)) error {
	in, out := json.NewDecoder(bufio.NewReader(os.Stdin)), json.NewEncoder(os.Stdout)
	for {
		var j job
		if err := in.Decode(&j); err != nil {
			return nil
		}
		o, err := do(j)
		if err != nil {
			o.Problem = err.Error()
		}
		if err := out.Encode(o); err != nil {
			return err
		}
	}
}

// far serves on all its ports. All calls block: the Go runtime's poller is not
// to be measured.
func far([]string) error {
	for port, serve := range map[int]func(fd int){oncePort: answerOnce, echoTCPPort: echoStream} {
		listener, err := listenTCP(port)
		if err != nil {
			return err
		}
		for range connecting {
			go func() {
				for {
					fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
					if err != nil {
						continue
					}
					serve(fd)
					unix.Close(fd)
				}
			}()
		}
	}
	var received atomic.Uint64
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make a UDP socket: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20) // as much as the machine lets
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: sinkPort}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	go func() {
		m := newMessages(2048)
		for {
			if n, err := m.call(unix.SYS_RECVMMSG, fd, len(m.headers), unix.MSG_WAITFORONE); err == nil {
				received.Add(uint64(n))
			}
		}
	}()
	return endRole(func(job) (outcome, error) { return outcome{Count: received.Load()}, nil })
}

func listenTCP(port int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("make a TCP socket: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Port: port})
	}
	if err == nil {
		err = unix.Listen(fd, 4096)
	}
	if err != nil {
		return -1, fmt.Errorf("listen on port %d: %w", port, err)
	}
	return fd, nil
}

// request is what is asked and answered.
const request = 100

func answerOnce(fd int) {
	var buf [request]byte
	if n, err := unix.Read(fd, buf[:]); err == nil && n > 0 {
		_, _ = unix.Write(fd, buf[:n])
	}
}

func echoStream(fd int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	var buf [request]byte
	for {
		n, err := unix.Read(fd, buf[:])
		if err != nil || n == 0 {
			return
		}
		if _, err := unix.Write(fd, buf[:n]); err != nil {
			return
		}
	}
}

// near does what clients do.
func near([]string) error {
	return endRole(func(j job) (outcome, error) {
		switch j.Do {
		case "once":
			return connects(j)
		case "echo":
			return requests(j)
		case "flood":
			return flood(j)
		}
		return outcome{}, nil
	})
}

// connecting is how many connections are made side by side.
const connecting = 8

// connects makes connections, each with a request, an answer and an end, which
// the server begins.
func connects(j job) (o outcome, err error) {
	var done atomic.Uint64
	var all sync.WaitGroup
	failed := make(chan error, connecting)
	start := time.Now()
	for range connecting {
		all.Go(func() {
			for time.Since(start) < j.For {
				if err := connectOnce(j.To); err != nil {
					failed <- err
					return
				}
				done.Add(1)
			}
		})
	}
	all.Wait()
	select {
	case err = <-failed:
	default:
	}
	return outcome{Count: done.Load(), Took: time.Since(start)}, err
}

func dialTCP(to netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("make a TCP socket: %w", err)
	}
	// A lost answer is an error, not a pause without end.
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("connect to %v: %w", to, err)
	}
	return fd, nil
}

func connectOnce(to netip.AddrPort) error {
	fd, err := dialTCP(to)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var buf [request]byte
	if _, err := unix.Write(fd, buf[:]); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	for got := 0; ; {
		n, err := unix.Read(fd, buf[:])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("receive: %w", err)
		case n == 0 && got == request:
			return nil
		case n == 0:
			return fmt.Errorf("the connection ended after %d of %d bytes", got, request)
		default:
			got += n
		}
	}
}

// requests plays ping-pong over one connection.
func requests(j job) (o outcome, err error) {
	fd, err := dialTCP(j.To)
	if err != nil {
		return o, err
	}
	defer unix.Close(fd)
	var buf [request]byte
	var took []time.Duration
	for start := time.Now(); time.Since(start) < j.For; {
		begin := time.Now()
		if _, err := unix.Write(fd, buf[:]); err != nil {
			return o, fmt.Errorf("send: %w", err)
		}
		for got := 0; got < request; {
			n, err := unix.Read(fd, buf[:])
			if err != nil && !errors.Is(err, unix.EINTR) {
				return o, fmt.Errorf("receive: %w", err)
			}
			if err == nil && n == 0 {
				return o, errors.New("the connection ended")
			}
			got += max(n, 0)
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	return outcome{Count: uint64(len(took)), Median: took[len(took)/2]}, nil
}

// flood sends datagrams at a rate, or as fast as they are taken.
func flood(j job) (o outcome, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return o, fmt.Errorf("make a UDP socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(j.To.Port()), Addr: j.To.Addr().As4()}); err != nil {
		return o, fmt.Errorf("connect: %w", err)
	}
	m := newMessages(j.Size)
	start := time.Now()
	for {
		passed := time.Since(start)
		if passed >= j.For {
			return outcome{Count: o.Count, Took: passed}, nil
		}
		due := int(passed.Seconds()*j.Rate) - int(o.Count)
		if due < 1 {
			wait := unix.NsecToTimespec(20_000)
			_ = unix.Nanosleep(&wait, nil)
			continue
		}
		n, err := m.call(unix.SYS_SENDMMSG, fd, min(due, len(m.headers)), 0)
		if err != nil {
			return o, fmt.Errorf("send: %w", err)
		}
		o.Count += uint64(n)
	}
}

// messages are the arguments of sendmmsg and recvmmsg.
type messages struct {
	headers [32]struct {
		header unix.Msghdr
		length uint32
		_      [4]byte
	}
	iovecs [32]unix.Iovec
}

func newMessages(size int) *messages {
	m := &messages{}
	for i := range m.headers {
		buf := make([]byte, size)
		m.iovecs[i] = unix.Iovec{Base: &buf[0]}
		m.iovecs[i].SetLen(size)
		m.headers[i].header.Iov = &m.iovecs[i]
		m.headers[i].header.SetIovlen(1)
	}
	return m
}

// call sends or receives up to count of them and returns how many. That nobody
// listens yet is not an error.
func (m *messages) call(number uintptr, fd, count, flags int) (int, error) {
	n, _, errno := unix.Syscall6(number, uintptr(fd), uintptr(unsafe.Pointer(&m.headers)), uintptr(count), uintptr(flags), 0, 0)
	switch errno {
	case 0:
		return int(n), nil
	case unix.EINTR, unix.ECONNREFUSED, unix.ENOBUFS, unix.EAGAIN:
		return 0, nil
	}
	return 0, errno
}
