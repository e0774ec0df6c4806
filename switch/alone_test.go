package vswitch

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/loop"
	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/test/lab"
)

// A pipe is a queue with a descriptor: what is not read is reported again.
type pipe struct {
	fd    int
	reads atomic.Int32
}

func newPipe(t *testing.T) (q *pipe, far int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[1]) })
	return &pipe{fd: fds[0]}, fds[1]
}

func (q *pipe) Fd() int      { return q.fd }
func (q *pipe) Close() error { return unix.Close(q.fd) }

func (q *pipe) ReadBatch(b *packet.Batch) (n int, err error) {
	for ; !b.Full(); n++ {
		q.reads.Add(1)
		size, err := unix.Read(q.fd, b.Room())
		if err != nil {
			return n, nil // EAGAIN
		}
		b.Add(size)
	}
	return n, nil
}

func (q *pipe) WriteBatch(frames []*packet.Frame) (int, error) {
	for i, f := range frames {
		if _, err := unix.Write(q.fd, f.B); err != nil {
			return i, packet.EgressFull
		}
	}
	return len(frames), nil
}

// Frames that come one by one are read by one call each; when several wait none is
// left behind.
func TestFramesComeAlone(t *testing.T) {
	l, err := loop.New(1)
	if err != nil {
		t.Fatal(err)
	}
	sw := New(Config{ID: 1, Name: "default", MTU: 1500}, NewLanes(l))
	defer func() {
		sw.Close()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	a, near := newPipe(t)
	b, far := newPipe(t)
	for i, q := range []*pipe{a, b} {
		if _, err := sw.AddPort(PortConfig{Name: "c", Container: packet.ContainerID(i + 1), Queue: q}); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, packet.MaxFrame)
	receive := func(fd int) {
		t.Helper()
		lab.Eventually(t, 10*time.Second, func() error {
			_, err := unix.Read(fd, buf)
			return err
		})
	}
	send := func(fd int, frame []byte) {
		t.Helper()
		if _, err := unix.Write(fd, frame); err != nil && !errors.Is(err, unix.EAGAIN) {
			t.Fatal(err)
		}
	}
	there := packettest.UDP(stationOf(2), stationOf(3), 1000, 2000, []byte("question"))
	back := packettest.UDP(stationOf(3), stationOf(2), 2000, 1000, []byte("answer"))
	const rounds = 200
	for range rounds {
		send(near, there)
		receive(far)
		send(far, back)
		receive(near)
	}
	if n := a.reads.Load() + b.reads.Load(); n > rounds*3 && !loop.Plain { // of 2 frames each; 4 if each was looked behind
		t.Errorf("%d frames were read by %d calls", 2*rounds, n)
	}
	for range 50 {
		for range 3 {
			send(near, there)
		}
		for range 3 {
			receive(far)
		}
	}
}
