package box

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"runtime"
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

// Who is handed a descriptor that takes its time to be closed does not wait for it.
func TestDiscard(t *testing.T) {
	lab.NoLeaks(t)
	a, b := channels(t)
	for _, c := range []struct {
		what string
		take func(fd int) error
	}{
		{"as a channel", func(fd int) error {
			_, err := NewChannel(fd)
			return err
		}},
		{"with no message", func(fd int) error {
			err := unix.Sendmsg(int(a.file.Fd()), []byte("{"), unix.UnixRights(fd), nil, unix.MSG_DONTWAIT)
			unix.Close(fd) // the copy on its way is another one
			if err != nil {
				t.Error(err)
			}
			_, _, err = b.Recv()
			return err
		}},
		{"for a link", func(fd int) error {
			go func() {
				_, fds, err := b.Recv()
				if err != nil {
					t.Error(err)
					return
				}
				defer closeAll(fds)
				if err := unix.Sendmsg(fds[0], []byte(`{"ready":{"index":2}}`), unix.UnixRights(fd), nil, unix.MSG_DONTWAIT); err != nil {
					t.Error(err)
				}
				unix.Close(fd)
			}()
			_, err := RequestLink(a, further("eth1", "172.18.0.2/16"), patience)
			return err
		}},
	} {
		fd, release := lingering(t)
		taken := make(chan error, 1)
		go func() { taken <- c.take(fd) }()
		select {
		case err := <-taken:
			if err == nil {
				t.Errorf("%s: it was taken", c.what)
			}
		case <-time.After(patience):
			t.Errorf("%s: whoever is handed it waits", c.what)
		}
		release()
	}
}

// lingering is a TCP socket whose last copy is not closed before release is called.
func lingering(t *testing.T) (fd int, release func()) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(err)
	defer unix.Close(listener)
	must(unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	must(unix.Listen(listener, 1))
	at, err := unix.Getsockname(listener)
	must(err)
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(err)
	must(unix.Connect(fd, at))
	peer, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	must(err)
	must(unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 1000}))
	must(unix.SetNonblock(fd, true))
	for err == nil { // until neither end's kernel takes more
		_, err = unix.Write(fd, make([]byte, 1<<16))
	}
	if !errors.Is(err, unix.EAGAIN) {
		t.Fatal(err)
	}
	return fd, func() { unix.Close(peer) }
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
		for idle := false; !idle; runtime.Gosched() { // what is refused is closed elsewhere
			discarded.Lock()
			idle = !discarded.busy
			discarded.Unlock()
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
