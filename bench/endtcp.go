package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// request is what is asked and answered, in bytes.
const request = 100

// connecting is how many connections are made side by side.
const connecting = 8

// A service is what the far end does with a connection to a port.
type service struct {
	port  int
	side  int // so many connections are served side by side
	serve func(fd int)
}

var services = []service{
	{httpPort, httpConnections, answerHTTP},
	{bulkPort, 1, readAll},
	{oncePort, connecting, answerOnce},
	{echoTCPPort, connecting, echoStream},
}

// start serves until the process ends.
func (s service) start() error {
	listener, err := listenTCP(s.port)
	if err != nil {
		return err
	}
	for range s.side {
		go func() {
			for {
				fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
				if err != nil {
					continue
				}
				s.serve(fd)
				unix.Close(fd)
			}
		}()
	}
	return nil
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

// receive reads until something has come, or nothing will.
func receive(fd int, buf []byte) (int, error) {
	for {
		n, err := unix.Read(fd, buf)
		if !errors.Is(err, unix.EINTR) { // the runtime sends itself signals
			return n, err
		}
	}
}

func answerOnce(fd int) {
	var buf [request]byte
	if n, err := receive(fd, buf[:]); err == nil && n > 0 {
		_, _ = unix.Write(fd, buf[:n])
	}
}

func echoStream(fd int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	var buf [request]byte
	for {
		n, err := receive(fd, buf[:])
		if err != nil || n == 0 {
			return
		}
		if _, err := unix.Write(fd, buf[:n]); err != nil {
			return
		}
	}
}

// readAll reads a connection to its end.
func readAll(fd int) {
	buf := make([]byte, 256<<10)
	for {
		if n, err := receive(fd, buf); err != nil || n == 0 {
			return
		}
	}
}

// The answer to every HTTP request is as long as the page that says that nginx
// works.
const pageSize = 615

var page = fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s", pageSize, strings.Repeat("x", pageSize))

// answerHTTP answers whatever is asked, one after the other, until the client
// goes or asks for what fits no buffer.
func answerHTTP(fd int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	var buf [4096]byte
	for have := 0; have < len(buf); {
		n, err := receive(fd, buf[have:])
		if err != nil || n == 0 {
			return
		}
		have += n
		for {
			end := bytes.Index(buf[:have], []byte("\r\n\r\n"))
			if end < 0 {
				break
			}
			have = copy(buf[:], buf[end+4:have])
			if _, err := unix.Write(fd, page); err != nil {
				return
			}
		}
	}
}

// patience is how long a client waits: a lost answer is an error, not a pause
// without end.
const patience = 5 // seconds

func dialTCP(to netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("make a TCP socket: %w", err)
	}
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err == nil {
			err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &unix.Timeval{Sec: patience})
		}
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	if err == nil {
		err = connectTCP(fd, to)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("connect to %v: %w", to, err)
	}
	return fd, nil
}

// connectTCP connects a socket. A signal, and the runtime sends itself some, ends the
// call and not what it has begun (connect(2), EINTR): that is waited for.
func connectTCP(fd int, to netip.AddrPort) error {
	deadline := time.Now().Add(patience * time.Second)
	err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	if !errors.Is(err, unix.EINTR) {
		return err
	}
	done := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	for {
		n, err := unix.Poll(done, int(max(0, time.Until(deadline).Milliseconds())))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return unix.ETIMEDOUT
		}
		failed, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if failed != 0 {
			err = unix.Errno(failed)
		}
		return err
	}
}

// connects makes connections, each with a request, an answer and an end, which
// the server begins.
func connects(j job) (o outcome, err error) {
	var begun, done atomic.Uint64
	var all sync.WaitGroup
	failed := make(chan error, connecting)
	start := time.Now()
	for range connecting {
		all.Go(func() {
			for time.Since(start) < j.For && begun.Add(1) <= j.most() {
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
		n, err := receive(fd, buf[:])
		switch {
		case err != nil:
			return fmt.Errorf("receive: %w", err)
		case n == 0 && got == request:
			return nil
		case n == 0:
			return fmt.Errorf("the connection ended after %d of %d bytes", got, request)
		}
		got += n
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
	var took histogram
	start := time.Now()
	for begin := start; begin.Sub(start) < j.For && took.count < j.most(); {
		if _, err := unix.Write(fd, buf[:]); err != nil {
			return o, fmt.Errorf("send: %w", err)
		}
		for got := 0; got < request; {
			n, err := receive(fd, buf[:])
			if err != nil {
				return o, fmt.Errorf("receive: %w", err)
			}
			if n == 0 {
				return o, errors.New("the connection ended")
			}
			got += n
		}
		end := time.Now()
		took.add(end.Sub(begin))
		begin = end
	}
	return outcome{
		Count: took.count, Took: time.Since(start),
		P50: took.quantile(0.5), P99: took.quantile(0.99), P999: took.quantile(0.999),
	}, nil
}

// stream sends bytes over one connection, at a pace which the kernel keeps. It
// counts as long as they take to arrive.
func stream(j job) (o outcome, err error) {
	fd, err := dialTCP(j.To)
	if err != nil {
		return o, err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, j.Control); err != nil {
		return o, fmt.Errorf("set TCP_CONGESTION %s: %w", j.Control, err)
	}
	if j.Rate > 0 {
		if err := unix.SetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, uint64(j.Rate)); err != nil {
			return o, fmt.Errorf("set SO_MAX_PACING_RATE: %w", err)
		}
	}
	buf := make([]byte, 128<<10)
	start := time.Now()
	for time.Since(start) < j.For {
		n, err := unix.Write(fd, buf)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return o, fmt.Errorf("send: %w", err)
		}
		o.Bytes += uint64(max(n, 0))
	}
	if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
		return o, fmt.Errorf("end: %w", err)
	}
	if _, err := receive(fd, buf); err != nil { // it closes when it has read all
		return o, fmt.Errorf("wait for the end: %w", err)
	}
	o.Took = time.Since(start)
	return o, nil
}
