package lab

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"regexp"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// relayed makes two hosts with a bad line between a TAP and a cable.
func relayed(t *testing.T, line Line) (a, b *Host, r *Relay) {
	t.Helper()
	a, b = NewHost(t, "a"), NewHost(t, "b")
	middle := NewHost(t, "middle")
	near := NewRelayTAP(t, a, "eth0")
	Join(t, middle, "far", b, "eth0")
	r = NewRelay(t, near, NewRelayPort(t, middle, "far"), line)
	a.Addr(t, "eth0", "10.0.0.1/24")
	b.Addr(t, "eth0", "10.0.0.2/24")
	return a, b, r
}

func TestRelayIsLate(t *testing.T) {
	NoLeaks(t)
	Need(t, "ping")
	a, _, r := relayed(t, Line{Delay: 20 * time.Millisecond})
	out := a.Run(t, "ping", "-c3", "-i0.1", "-W5", "10.0.0.2")
	best, err := strconv.ParseFloat(regexp.MustCompile(`= ([0-9.]+)/`).FindStringSubmatch(out)[1], 64)
	if err != nil || best < 40 {
		t.Errorf("a round trip takes less than two delays of 20 ms:\n%s", out)
	}
	if s := r.Stats(); s.Carried < 6 || s.Lost+s.Reordered+s.Shrunk > 0 {
		t.Errorf("%+v", s)
	}
}

// Whatever happens on the line, TCP of the kernel gets everything across.
func TestRelayIsBad(t *testing.T) {
	NoLeaks(t)
	a, b, r := relayed(t, Line{
		Delay: 500 * time.Microsecond, Loss: 0.01, Reorder: 0.02, Late: 2 * time.Millisecond, Shrink: 0.05, Seed: 1,
	})
	sent := make([]byte, 4<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(sent)
	listener := In(t, b, func() (net.Listener, error) { return net.Listen("tcp4", "10.0.0.2:80") })
	defer listener.Close()
	failed := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			_, err = io.Copy(conn, conn) // back it goes
			conn.Close()
		}
		failed <- err
	}()
	conn := In(t, a, func() (net.Conn, error) { return net.DialTimeout("tcp4", "10.0.0.2:80", patience) })
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(patience)), "set a deadline")
	go func() {
		_, err := conn.Write(sent)
		if err == nil {
			err = conn.(*net.TCPConn).CloseWrite()
		}
		if err != nil {
			failed <- err
		}
	}()
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes came back, or not as they were: %v", len(got), len(sent), err)
	}
	if err := <-failed; err != nil {
		t.Error(err)
	}
	if s := r.Stats(); s.Lost == 0 || s.Reordered == 0 || s.Shrunk == 0 {
		t.Errorf("nothing happened on the line: %+v", s)
	} else {
		t.Logf("%+v", s)
	}
}

// What waits has a bound.
func TestRelayIsFull(t *testing.T) {
	NoLeaks(t)
	a, _, r := relayed(t, Line{Delay: time.Hour, Queue: 10 * smallFrame})
	fd := In(t, a, func() (int, error) { return unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0) })
	defer unix.Close(fd)
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1), "allow broadcast")
	everybody := &unix.SockaddrInet4{Addr: [4]byte{10, 0, 0, 255}, Port: 9} // without ARP
	Eventually(t, settle, func() error {
		if err := unix.Sendto(fd, []byte("x"), 0, everybody); err != nil {
			t.Fatal(err)
		}
		if s := r.Stats(); s.Full == 0 {
			return fmt.Errorf("nothing is lost for want of room: %+v", s)
		}
		return nil
	})
	if s := r.Stats(); s.Carried > 0 {
		t.Errorf("an hour is over: %+v", s)
	}
}
