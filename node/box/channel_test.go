package box

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/test/lab"
)

func channels(t testing.TB) (a, b *Channel) {
	t.Helper()
	x, y, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	if a, err = NewChannel(x); err != nil {
		t.Fatal(err)
	}
	if b, err = NewChannel(y); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestChannel(t *testing.T) {
	lab.NoLeaks(t)
	a, b := channels(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	fd := int(null.Fd())
	if err := a.Send(&Message{Signal: 9}); err != nil {
		t.Fatal(err)
	}
	if err := a.Send(&Message{Warning: "careful"}, fd, fd); err != nil {
		t.Fatal(err)
	}
	if m, fds, err := b.Recv(); err != nil || m.Signal != 9 || len(fds) != 0 {
		t.Errorf("got %+v %v %v", m, fds, err)
	}
	m, fds, err := b.Recv()
	if err != nil || m.Warning != "careful" || len(fds) != 2 {
		t.Fatalf("got %+v %v %v", m, fds, err)
	}
	for _, fd := range fds {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d has flags %#x, %v", fd, flags, err)
		}
	}
	closeAll(fds)

	if err := a.Send(&Message{}, fd, fd, fd, fd, fd); err == nil {
		t.Error("five descriptors travelled")
	}
	if err := b.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Recv(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, want a timeout", err)
	}
	if err := b.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	// The largest message crosses whole, the next larger one not at all.
	room := MaxMessage - len(`{"warning":""}`)
	if err := a.Send(&Message{Warning: strings.Repeat("x", room)}); err != nil {
		t.Error(err)
	}
	if m, _, err := b.Recv(); err != nil || len(m.Warning) != room {
		t.Errorf("got %v", err)
	}
	if err := a.Send(&Message{Warning: strings.Repeat("x", room+1)}); err == nil {
		t.Error("a message beyond the bound travelled")
	}
	// A peer that does not read never makes Send wait.
	for range 10_000 {
		if err = a.Send(&Message{Warning: strings.Repeat("x", 1000)}); err != nil {
			break
		}
	}
	if !errors.Is(err, unix.EAGAIN) {
		t.Errorf("a full channel: %v", err)
	}
	b.Close()
	if err := a.Send(&Message{Signal: 1}); err == nil {
		t.Errorf("a closed channel: %v", err)
	}
	if _, _, err := a.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want EOF", err)
	}
}

func TestChannelIsOne(t *testing.T) {
	lab.NoLeaks(t)
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range p {
		if _, err := NewChannel(fd); err == nil {
			t.Error("a stream taken for a channel")
		}
	}
}

// Whatever comes over a channel, nothing breaks and no descriptor stays.
func FuzzRecv(f *testing.F) {
	code := 3
	for _, m := range []Message{
		{Spec: own("sh", "-c", "true")}, {Exec: &Exec{Args: []string{"true"}}}, {Attach: eth1()}, {Ready: &Ready{Index: 2, PeerNetNS: -1}}, {Link: eth1()}, {Unlink: 3}, {Default: &DefaultRoute{Via: eth0().Gateways[0], Index: 2}}, {Done: true},
		{Failure: &Failure{Code: 127, Text: "no"}}, {Started: 2}, {Signal: 15}, {Exit: &code},
	} {
		body, err := json.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body, uint8(1))
	}
	f.Add([]byte("{"), uint8(0))
	f.Add([]byte(strings.Repeat("[", 2000)), uint8(200))
	null, err := os.Open(os.DevNull)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { null.Close() })
	f.Fuzz(func(t *testing.T, body []byte, descriptors uint8) {
		x, y, err := Pair()
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(x)
		c, err := NewChannel(y)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var oob []byte
		if descriptors > 0 {
			fds := make([]int, descriptors)
			for i := range fds {
				fds[i] = int(null.Fd())
			}
			oob = unix.UnixRights(fds...)
		}
		if len(body) == 0 || unix.Sendmsg(x, body, oob, nil, unix.MSG_DONTWAIT) != nil {
			return // the kernel does not take it
		}
		m, fds, err := c.Recv()
		closeAll(fds)
		if err == nil && len(fds) != int(descriptors) {
			t.Errorf("%d descriptors sent, %d received", descriptors, len(fds))
		}
		if err == nil && m.Spec != nil {
			_ = m.Spec.Validate()
		}
		if err == nil && m.Link != nil {
			_ = m.Link.validate()
		}
		if err == nil && m.Default != nil {
			_ = m.Default.validate()
		}
		// The next number shows whether a descriptor stayed.
		probe, err := unix.Dup(int(null.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(probe)
		if probe > 100 {
			t.Errorf("descriptors stay open: the next is %d", probe)
		}
	})
}

func FuzzIDMap(f *testing.F) {
	f.Add("         0          0 4294967295\n")
	f.Add("0 1000 1\n1 100000 65536\n")
	f.Add("0 a\n")
	f.Fuzz(func(t *testing.T, text string) {
		maps, err := parseIDMap(text)
		if err == nil && len(maps) > strings.Count(text, "\n")+1 {
			t.Errorf("%d maps of %q", len(maps), text)
		}
	})
}
