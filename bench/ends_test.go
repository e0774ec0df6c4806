package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	hosts "fairlead/test/lab"
)

// onCable calls fn with a cable of each path that needs no program of others.
func onCable(t *testing.T, fn func(t *testing.T, l *lab, c *cable)) {
	hosts.NoLeaks(t)
	hosts.NeedTUN(t)
	for _, p := range paths {
		if !p.quick {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			l := &lab{ctx: t.Context(), name: t.Name()}
			if err := l.do(func() { fn(t, l, layCable(l, p)) }); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// What is sent is received, every datagram once, as it was and in order. There
// are as few as the sink's socket has room for, so that nothing depends on who
// is scheduled when.
func TestDatagrams(t *testing.T) {
	onCable(t, func(t *testing.T, l *lab, c *cable) {
		for name, d := range map[string]datagrams{
			"frames of 60":  {Least: frame60, Most: frame60},
			"mixed":         {Least: 18, Most: 200, Flows: 64},
			"large":         {Least: 1400, Most: 1400},
			"QUIC":          {Least: 1252, Most: 1252, Train: 40, Window: 80},
			"QUIC with GRO": {Least: 1252, Most: 1252, Train: 40, Window: 80, GRO: true},
		} {
			part := &lab{ctx: l.ctx, name: name}
			err := part.do(func() {
				const count = 120 // three trains
				near, far := c.startEnds(part, d)
				got, err := near.do(job{Do: "datagrams", To: c.to(sinkPort), For: time.Minute, Count: count, Rate: 20_000, Datagrams: d})
				part.check(err, "send")
				if got.Count != count {
					t.Errorf("%s: %d datagrams sent, want %d", name, got.Count, count)
				}
				hosts.Eventually(t, 10*time.Second, func() error {
					if got, err = far.do(job{Do: "count"}); err == nil && got.Count != count {
						err = fmt.Errorf("%s: %+v, want %d datagrams", name, got, count)
					}
					return err
				})
				if got.Damaged+got.Disordered+got.Overflowed > 0 || got.Bytes < uint64(count*d.Least) || got.Bytes > uint64(count*d.Most) {
					t.Errorf("%s: %+v", name, got)
				}
			})
			if err != nil {
				t.Error(err)
			}
		}
	})
}

// A sink counts what is not as it was sent.
func TestSinkChecks(t *testing.T) {
	datagram := func(n uint64, size int) []byte {
		b := make([]byte, size)
		mark(b, n)
		return b
	}
	var s sink
	var f sinkFlow
	for _, b := range [][]byte{
		datagram(5, 18), datagram(7, 1400), datagram(6, 18), datagram(7, 18), datagram(8, 18), // two come late
		datagram(9, 60)[:59], datagram(10, 18)[:9], nil, append(datagram(11, 18), 0), // four are cut or longer
	} {
		s.check(&f, b)
	}
	if got := s.outcome(); got.Disordered != 2 || got.Damaged != 4 {
		t.Errorf("%+v", got)
	}
}

// Clients and servers count each connection, request and byte once.
func TestConnectionsAndRequests(t *testing.T) {
	onCable(t, func(t *testing.T, l *lab, c *cable) {
		near, _ := c.startEnds(l, datagrams{})
		for _, j := range []job{
			{Do: "once", To: c.to(oncePort), Count: 40},
			{Do: "echo", To: c.to(echoTCPPort), Count: 200},
		} {
			j.For = time.Minute
			got, err := near.do(j)
			if err != nil || got.Count != j.Count {
				t.Errorf("%s: %+v, %v; want %d", j.Do, got, err, j.Count)
			}
			if j.Do == "echo" && !(0 < got.P50 && got.P50 <= got.P99 && got.P99 <= got.P999 && got.P999 <= got.Took) {
				t.Errorf("%s: %+v", j.Do, got)
			}
		}
		n, err := c.across(func() (float64, error) {
			got, err := near.do(job{Do: "stream", To: c.to(bulkPort), For: 20 * time.Millisecond, Rate: 10e6, Control: "cubic"})
			return float64(got.Bytes), err
		})
		if err != nil || n.Bytes == 0 || (n.CPU > 0) == (c.name == "kernel") {
			t.Errorf("stream: %+v, %v", n, err)
		}
		if _, err := near.do(job{Do: "echo", To: c.to(1), For: time.Minute}); err == nil {
			t.Error("a request to where nobody listens was answered")
		}
	})
}

// The HTTP server answers one request after the other on a connection.
func TestAnswerHTTP(t *testing.T) {
	onCable(t, func(t *testing.T, l *lab, c *cable) {
		c.startEnds(l, datagrams{})
		conn := hosts.In(t, c.ends[0], func() (net.Conn, error) { return net.Dial("tcp4", c.to(httpPort).String()) })
		defer conn.Close()
		l.check(conn.SetDeadline(time.Now().Add(10*time.Second)), "set a deadline")
		// Two at once, and a third by two writes.
		const ask = "GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
		reader := bufio.NewReader(conn)
		for _, write := range []string{ask + ask + ask[:20], ask[20:]} {
			_, err := io.WriteString(conn, write)
			l.check(err, "ask")
		}
		for range 3 {
			answer, err := http.ReadResponse(reader, nil)
			l.check(err, "read an answer")
			body, err := io.ReadAll(answer.Body)
			answer.Body.Close()
			if err != nil || answer.StatusCode != http.StatusOK || len(body) != pageSize {
				t.Errorf("%s, %d bytes, %v", answer.Status, len(body), err)
			}
		}
	})
}

// Spinners spin until their standard input ends.
func TestSpin(t *testing.T) {
	hosts.NoLeaks(t)
	h := hosts.NewHost(t, "spinners")
	l := &lab{ctx: t.Context(), name: t.Name()}
	if err := l.do(func() { startEnd(l, commandOn(h), "spin") }); err != nil {
		t.Fatal(err)
	}
}

// TestConnectInterrupted: signals end the call that connects, and not the connection.
// Where nobody accepts, a SYN is dropped and comes again after a second, so that it
// takes as long.
func TestConnectInterrupted(t *testing.T) {
	full, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(full)
	if err := unix.Bind(full, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(full, 0); err != nil { // room for one
		t.Fatal(err)
	}
	name, err := unix.Getsockname(full)
	if err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name.(*unix.SockaddrInet4).Port))
	first, err := dialTCP(to)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(first)

	thread, dialled := make(chan int, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		thread <- unix.Gettid()
		fd, err := dialTCP(to)
		if err == nil {
			unix.Close(fd)
		}
		dialled <- err
	}()
	tid := <-thread
	for sent := 0; ; sent++ {
		if sent == 50 { // by now it waits, and there is room
			fd, _, err := unix.Accept4(full, unix.SOCK_CLOEXEC)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
		}
		select {
		case err := <-dialled:
			if err != nil {
				t.Error(err)
			}
			return
		case <-time.After(time.Millisecond):
		}
		if err := unix.Tgkill(unix.Getpid(), tid, unix.SIGURG); err != nil {
			t.Fatal(err)
		}
	}
}

// TestConnectRefused: what a connection comes to is heard of also then.
func TestConnectRefused(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to := listener.Addr().(*net.TCPAddr).AddrPort()
	listener.Close()
	if _, err := dialTCP(to); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("got %v", err)
	}
}
