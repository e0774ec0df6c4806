package node

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// What a later version hands over is refused, with what helps, whatever else it says that
// this one does not know: in its first message as in its last.
func TestTakeOverRefusesLater(t *testing.T) {
	for _, says := range []string{
		`{"last":true,"version":%d,"program":"9.9"}`,
		`{"last":true,"version":%d,"program":"9.9","colour":"red"}`,
		`{"version":%d,"program":"9.9","items":[{"kind":"node","colour":"red"}]}`,
		`{"items":{"node":1},"version":%d,"program":"9.9"}`,
	} {
		ours, theirs := conns(t)
		taking := &takeover{conn: ours, things: make(map[api.Thing]int)}
		go hands(theirs, fmt.Sprintf(says, handVersion+1))
		refused(t, taking.receive("0.1"), "the node that runs is of version 9.9, which hands over more than this one, 0.1, can read: `fairlead up --replace` of that version or a later one does")
	}
}

// hands is a node that hands over, and says this.
func hands(conn *net.UnixConn, lines ...string) {
	for _, line := range lines {
		_, _ = conn.Write([]byte(line + "\n"))
		var done api.Done
		_, _ = api.ReceiveNews(conn, &done)
	}
}

// A field more is no reason to refuse what is of a version both know, on either side.
func TestHandOverMoreFields(t *testing.T) {
	ours, theirs := conns(t)
	taking := &takeover{conn: ours, things: make(map[api.Thing]int)}
	go hands(theirs, fmt.Sprintf(`{"version":%d,"colour":"red"}`, handVersion),
		fmt.Sprintf(`{"last":true,"version":%d,"text":7,"flow":%d,"colour":"red"}`, handVersion, flowBytes))
	if err := taking.receive("0.1"); err != nil || taking.text != 7 {
		t.Errorf("%d bytes, %v", taking.text, err)
	}
	ours, theirs = conns(t)
	if _, err := theirs.Write([]byte(`{"colour":"red"}` + "\n")); err != nil {
		t.Fatal(err)
	}
	s := &sender{conn: &controlConn{UnixConn: ours}, end: time.Now().Add(workMost)}
	if s.await(workWithin); s.err != nil {
		t.Error(s.err)
	}
}

// Who is connected and says nothing, or half of what he wants, is waited for for a moment;
// one whose request is being answered for as long as that takes.
func TestStandStillBesideConnected(t *testing.T) {
	h := newHandlers(t)
	h.listener = &controlListener{places: newPlaces(1)}
	if h.listener.places.take(1); !h.isQuiet() {
		t.Error("beside one who says nothing")
	}
	go h.use(1)
	lab.Eventually(t, 10*time.Second, func() error {
		if h.isQuiet() {
			return errors.New("his request is not waited for")
		}
		return nil
	})
	if h.use(-1); !h.isQuiet() {
		t.Error("when he has his answer")
	}
}

// Somebody has said all of his request and waits for his turn: he is waited for, and his
// connection is not taken for one that is kept for later, be it new or not.
func TestStandStillBesideWaiting(t *testing.T) {
	h := newHandlers(t)
	path := filepath.Join(t.TempDir(), "s")
	var err error
	if h.listener, err = listenAt(path); err != nil {
		t.Fatal(err)
	}
	h.server = h.newServer()
	go func() { _ = h.server.Serve(h.listener) }()
	defer h.server.Close()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	for range 2 {
		h.server.SetKeepAlivesEnabled(true)
		h.pace.mu.Lock()
		h.pace.waking = true // nobody goes on until next is called
		h.pace.mu.Unlock()
		if _, err := io.WriteString(conn, "GET /v1/version HTTP/1.1\r\nHost: node\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		lab.Eventually(t, 10*time.Second, func() error {
			h.mu.Lock()
			defer h.mu.Unlock()
			if h.requests == 0 {
				return errors.New("the node knows nothing of his request")
			}
			return nil
		})
		h.server.SetKeepAlivesEnabled(false)
		if resume, ok := h.tryStandStill(); ok {
			resume()
			t.Error("the node stands still, and somebody waits for his answer")
		}
		h.server.SetKeepAlivesEnabled(true) // which he had when he was let in
		h.pace.next()
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%s, %v", resp.Status, err)
		}
		_ = resp.Body.Close()
	}
}

// A node that says what it hands over, and does not, is not believed.
func TestTakeOverRefusesUnnamed(t *testing.T) {
	ours, theirs := conns(t)
	taking := &takeover{conn: ours, things: make(map[api.Thing]int)}
	go hands(theirs, `{"items":[{"kind":"lock"}]}`)
	refused(t, taking.receive("0.1"), "the node that runs sent 0 descriptors and named 1")
}

// What cannot be what it was is a reason to leave all of it to the node that runs, which
// is told so, and whose files are as they were.
func TestTakePlaceRefuses(t *testing.T) {
	old := newHandlers(t)
	web := old.join(t, "web")
	old.mu.Lock()
	err := old.noteLocked(web.container)
	before := handing{Running: old.runningLocked(), Records: []*record{web.container.recordLocked()}}
	old.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	written, err := old.home.ReadFile(recordPath(web.id))
	if err != nil {
		t.Fatal(err)
	}
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0) // no end of a link
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := conns(t)
	root, err := os.OpenRoot(old.conf.Dir)
	if err != nil {
		t.Fatal(err)
	}
	lock, err := root.Open(nodeLock)
	if err != nil {
		t.Fatal(err)
	}
	taking := &takeover{
		conn: ours, old: -1, handing: before,
		things: map[api.Thing]int{{Kind: thingLink, Of: web.id, Which: web.attachments[0].id}: null},
	}
	next, err := newNode(Config{Dir: old.conf.Dir, Version: "test", takeover: taking}, &home{root, lock})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		next.host.Close()
		next.dns.close()
		next.dhcp.close()
		_ = errors.Join(next.loop.Close(), root.Close(), lock.Close())
	}()
	control, err := old.conn.File() // never looked at
	if err != nil {
		t.Fatal(err)
	}
	taking.things[api.Thing{Kind: thingControl}] = int(control.Fd())
	err = next.takePlace(taking)
	if err == nil || !strings.HasPrefix(err.Error(), "not all would be as it is: container web: interface eth0: ") {
		t.Errorf("got %v", err)
	}
	now, err := old.home.ReadFile(recordPath(web.id))
	if err != nil || string(now) != string(written) {
		t.Errorf("its record has become %s, %v", now, err)
	}
	_ = theirs.SetReadDeadline(time.Unix(1, 0))
	if n, err := theirs.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the old node has heard that it works: %v", err)
	}
}

// Who has been let in and has no place yet is waited for, and nobody is lost between.
func TestPauseBetweenLineAndPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := listenAt(path)
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- conn
		}
	}()
	defer func() {
		_ = l.Close()
		<-accepted
	}()
	for pid := range l.places.most { // all are somebody's
		l.places.take(-1 - pid)
	}
	if _, err := net.Dial("unix", path); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, 10*time.Second, func() error {
		l.places.mu.Lock()
		defer l.places.mu.Unlock()
		if l.places.freed == nil {
			return errors.New("it has not been let in")
		}
		return nil
	})
	resume, reached := l.pause()
	if reached {
		t.Error("nobody is between the line and a place")
	}
	resume()
	l.places.leave(-1)
	conn := <-accepted
	resume, reached = l.pause()
	if !reached {
		t.Error("somebody is, who has his place")
	}
	resume()
	_ = conn.Close()
}

// Leases are written down while frames still pass: workers rest once there is no disk to
// wait for.
func TestStandStillWritesFirst(t *testing.T) {
	h := newHandlers(t)
	var err error
	if h.listener, err = listenAt(filepath.Join(t.TempDir(), "s")); err != nil {
		t.Fatal(err)
	}
	go func() {
		for err == nil {
			_, err = h.listener.Accept()
		}
	}()
	defer h.listener.Close()
	busy, written := make(chan struct{}), make(chan struct{})
	go h.dhcp.call(func() { // as if the disk took its time
		close(busy)
		<-written
	})
	<-busy
	resume := make(chan func())
	go func() {
		fn, ok := h.tryStandStill()
		for !ok {
			fn, ok = h.tryStandStill()
		}
		resume <- fn
	}()
	lab.Eventually(t, 10*time.Second, func() error {
		if h.linking.TryLock() {
			h.linking.Unlock()
			return errors.New("it has not begun")
		}
		return nil
	})
	passed := make(chan struct{})
	go func() {
		for range 1000 { // turns
			h.loop.Worker(0).Call(func() {})
		}
		close(passed)
	}()
	select {
	case <-passed:
	case <-time.After(10 * time.Second):
		t.Error("workers rest, and leases are being written")
	}
	close(written)
	(<-resume)()
}

// conns are the two ends of a control connection.
func conns(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ends := make([]*net.UnixConn, 2)
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "end")
		conn, err := net.FileConn(f)
		_ = f.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = conn.(*net.UnixConn)
		t.Cleanup(func() { _ = conn.Close() })
	}
	return ends[0], ends[1]
}
