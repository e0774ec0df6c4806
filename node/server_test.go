package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/node/api"
	"fairlead/test/lab"
)

func (r *rig) connect(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", api.Socket(r.Dir()))
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// askBy sends a request by hand and reads the answer's status and body.
func askBy(conn net.Conn, request string) (int, string) {
	if _, err := fmt.Fprint(conn, request); err != nil {
		return 0, err.Error()
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, strings.TrimSpace(string(b))
}

func TestSocketIsOurs(t *testing.T) {
	r := serve(t)
	info, err := os.Stat(api.Socket(r.Dir()))
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// TestAnswerAfterLongWork: who handed descriptors over hears what came of them,
// however long that took.
func TestAnswerAfterLongWork(t *testing.T) {
	dir := shortDir(t)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := listenAt(api.Socket(dir))
	if err != nil {
		t.Fatal(err)
	}
	server := new(Node).newServer()
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = upgrade(w, r, new(api.Attach), func(fds []int) error {
			api.CloseAll(fds)
			_ = r.Context().Value(connKey{}).(*controlConn).SetDeadline(time.Unix(1, 0)) // as if the time had passed
			return errors.New("what came of it")
		})
	})
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	refused(t, api.NewClient(dir).Hand(t.Context(), "/v1/containers/web/attach", api.Attach{}, []int{0}), "what came of it")
}

// TestPeerOfAnotherUserNamespace: a container runs under our uid and may find
// the socket; it hears 403 and nothing else.
func TestPeerOfAnotherUserNamespace(t *testing.T) {
	r := serve(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	peer := func(attr *syscall.SysProcAttr) string {
		t.Helper()
		cmd := exec.Command(exe, "peer", r.Dir())
		cmd.SysProcAttr = attr
		out, err := cmd.CombinedOutput()
		if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
			lab.NotRun(t, "may not make a user namespace", "sudo sysctl -w user.max_user_namespaces=15000")
		}
		if err != nil {
			t.Errorf("%v: %s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if got := peer(nil); got != "<nil>" {
		t.Errorf("a peer of our own heard %s", got)
	}
	same := []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}}
	group := []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}}
	got := peer(&syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: same, GidMappings: group})
	if !strings.HasPrefix(got, "refused: peer is process ") ||
		!strings.HasSuffix(got, " of another pid or user namespace (a container?), this node serves its own only") {
		t.Errorf("a peer in another user namespace heard %s", got)
	}
}

// TestKnocker: who was refused for what he is and knocks again and again is cut off
// without a look or a word, and looked at again after a while.
func TestKnocker(t *testing.T) {
	lab.NoLeaks(t)
	for since, want := range map[time.Time]error{
		time.Now().Add(time.Hour): net.ErrClosed, // for as long as this test may take
		time.Now().Add(-knockFor): nil,
	} {
		l, dial := listener(t)
		*l.knockers.of(os.Getpid()) = knocker{pid: os.Getpid(), times: knockTimes, since: since}
		accepted := make(chan error, 1)
		go func() {
			conn, err := l.Accept()
			if err == nil {
				err = conn.Close()
			}
			accepted <- err
		}()
		conn := dial()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		if heard, err := conn.Read(make([]byte, 1)); heard > 0 || !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("he heard %d bytes and %v", heard, err)
		}
		_ = l.Close()
		if err := <-accepted; !errors.Is(err, want) {
			t.Errorf("since %v: accepting him says %v, want %v", since, err, want)
		}
	}
}

// TestKnockerAtHome: who has all connections he may have and asks for more is told so, and
// is cut off as any other when he goes on.
func TestKnockerAtHome(t *testing.T) {
	lab.NoLeaks(t)
	l, dial := listener(t)
	l.places = newPlaces(64)
	me := os.Getpid()
	for l.places.take(me) {
	}
	*l.knockers.of(me) = knocker{pid: me, times: knockTimes - 1, since: time.Now().Add(time.Hour)}
	accepted := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		accepted <- err
	}()
	for _, told := range []bool{true, false} {
		conn := dial()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\n\r\n") // he may have been cut off
		if heard, _ := io.ReadAll(conn); strings.Contains(string(heard), "which is all it may have") != told || !told && len(heard) > 0 {
			t.Errorf("he heard %q", heard)
		}
	}
	_ = l.Close()
	if err := <-accepted; !errors.Is(err, net.ErrClosed) {
		t.Errorf("accepting him says %v", err)
	}
}

// TestKnockers: several who knock in turns are known, each until his time is over.
func TestKnockers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, many := new(knockers), len(knockers{})
		for range knockTimes {
			for pid := range many {
				pid++
				if s.know(pid) {
					t.Fatalf("%d is known too early", pid)
				}
				s.refused(pid)
			}
		}
		s.refused(0)
		if *s.of(0) = (knocker{times: knockTimes, since: time.Now()}); s.know(0) {
			t.Error("nobody is known")
		}
		for pid := range many - 1 {
			if pid++; !s.know(pid) || s.know(pid+many) {
				t.Errorf("%d is known: %v, %d: %v", pid, s.know(pid), pid+many, s.know(pid+many))
			}
		}
		time.Sleep(knockFor)
		if s.know(1) {
			t.Error("he is still known")
		}
	})
}

// TestConnectionsAreBounded: the last one there is room for is accepted, the next
// once one of them has gone.
func TestConnectionsAreBounded(t *testing.T) {
	lab.NoLeaks(t)
	l, dial := listener(t)
	for pid := range 3 {
		l.places.take(-1 - pid) // others
	}
	accepted := make(chan net.Conn, 2)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- conn
		}
	}()
	dial()
	dial()
	first := <-accepted
	select {
	case <-accepted:
		t.Error("one too many was accepted")
	case <-time.After(50 * time.Millisecond):
	}
	_ = first.Close()
	_ = first.Close() // gives back one place
	_ = (<-accepted).Close()
	if n := l.places.inUse(); n != 3 {
		t.Errorf("at the end %d places are taken", n)
	}
}

// TestConnectionsOfOneProcess: a process that has its share of connections is
// refused, and told so; another one is served.
func TestConnectionsOfOneProcess(t *testing.T) {
	r := serve(t)
	_, most, _ := share()
	each := (most + 3) / 4
	var held []net.Conn
	for range each {
		held = append(held, r.connect(t))
	}
	code, text := askBy(r.connect(t), "GET /v1/version HTTP/1.1\r\nHost: node\r\n\r\n")
	if want := fmt.Sprintf("refused: process %d has %d connections, which is all it may have", os.Getpid(), each); code != 403 || !strings.Contains(text, want) {
		t.Errorf("%d %s, want 403 %s", code, text, want)
	}
	out, err := exec.Command("/proc/self/exe", "peer", r.Dir()).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "<nil>" {
		t.Errorf("another process heard %s (%v)", out, err)
	}
	for _, c := range held {
		_ = c.Close()
	}
	lab.Eventually(t, 10*time.Second, func() error { return r.Get(r.ctx, "/v1/version", new(api.VersionInfo)) })
}

// listener is a control socket without a node, with room for four, and who
// connects to it.
func listener(t *testing.T) (*controlListener, func() net.Conn) {
	t.Helper()
	dir, err := os.MkdirTemp("", "l") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := listenAt(filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	l.places = newPlaces(4)
	t.Cleanup(func() { _ = l.Close() })
	return l, func() net.Conn {
		t.Helper()
		conn, err := net.Dial("unix", filepath.Join(dir, "s"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
}

// TestBadRequests: what is no request of ours is refused, and costs nobody else
// anything.
func TestBadRequests(t *testing.T) {
	r := serve(t)
	for _, c := range []struct {
		request string
		code    int
	}{
		{"SSH-2.0-OpenSSH_9.2\r\n\r\n", 400},
		{"GET /v1/version HTTP/1.1\r\n\r\n", 400}, // no Host
		{"GET /v1/version HTTP/1.1\r\nHost: node\r\nX: " + strings.Repeat("x", 100<<10) + "\r\n\r\n", 431},
		{"GET /v1/containers/..%2f..%2fetc HTTP/1.1\r\nHost: node\r\n\r\n", 404},
		{"DELETE /v1/version HTTP/1.1\r\nHost: node\r\n\r\n", 404},
		{"POST /v1/containers HTTP/1.1\r\nHost: node\r\nContent-Length: 0\r\n\r\n", 400},
	} {
		conn := r.connect(t)
		if code, text := askBy(conn, c.request); code != c.code && (code != 405 || c.code != 404) {
			t.Errorf("%.60q: %d %.100s, want %d", c.request, code, text, c.code)
		}
		_ = conn.Close()
	}
	r.answers()
}

// TestSpeakingBefore101: descriptors that come with the request are gone before
// anybody can take them, so the connection is closed.
func TestSpeakingBefore101(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t)
	c := r.create(api.CreateRequest{Network: "none"})
	conn := r.connect(t).(*net.UnixConn)
	request := "POST /v1/containers/" + c.ID + "/attach HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: fairlead-fd\r\n\r\n" +
		`{"descriptors":["init"]}` + "\n"
	if _, _, err := conn.WriteMsgUnix([]byte(request), unix.UnixRights(0), nil); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(conn); err != nil && !errors.Is(err, syscall.ECONNRESET) || len(b) != 0 {
		t.Errorf("heard %q, %v", b, err)
	}
	_ = conn.Close()
	if got := r.inspect(c.ID); got.State.Status != "created" {
		t.Errorf("%+v", got.State)
	}
}

// A handler that panics ends the node, with its stack: with the registry locked
// nobody could command it.
func TestPanicInHandler(t *testing.T) {
	out, err := exec.Command("/proc/self/exe", "panics").CombinedOutput()
	exit := (*exec.ExitError)(nil)
	if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), "panic: in a handler") || !strings.Contains(string(out), "node.TestMain") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestSlowClients: half a header, half a body and half a message are waited for
// ten seconds, not longer, and others are served meanwhile. It takes its time
// beside others.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	r := serve(t)
	c := r.create(api.CreateRequest{Network: "none"})
	halves := map[string]string{
		"header": "GET /v1/version HTTP/1.1\r\nHost:",
		"body":   "POST /v1/up HTTP/1.1\r\nHost: node\r\nContent-Length: 100\r\n\r\n{",
		"message": "POST /v1/containers/" + c.ID + "/attach HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\n" +
			"Upgrade: fairlead-fd\r\n\r\n",
	}
	start := time.Now()
	ended := make(chan error, len(halves))
	for name, half := range halves {
		conn := r.connect(t)
		go func() {
			_, err := fmt.Fprint(conn, half)
			if err == nil && name == "message" {
				_, err = bufio.NewReader(conn).ReadString('\n') // 101
				if err == nil {
					_, _, err = conn.(*net.UnixConn).WriteMsgUnix([]byte("{"), unix.UnixRights(0, 1), nil)
				}
			}
			if err == nil {
				_, err = io.Copy(io.Discard, conn)
			}
			if d := time.Since(start); err == nil && (d < 9*time.Second || d > 20*time.Second) {
				err = fmt.Errorf("half a %s was waited for %v", name, d)
			}
			_ = conn.Close()
			ended <- err
		}()
	}
	for range 5 {
		r.answers()
		time.Sleep(20 * time.Millisecond)
	}
	for range halves {
		if err := <-ended; err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithTimeout(r.ctx, 5*time.Second)
	defer cancel()
	if err := r.Get(ctx, "/v1/version", new(api.VersionInfo)); err != nil {
		t.Error(err)
	}
}

func listenAt(path string) (*controlListener, error) {
	socket, err := controlSocket()
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	return listen(socket, path)
}
