package api

import (
	"bufio"
	"context"
	"encoding/json"
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

	"fairlead/test/lab"
)

// A fake is what answers on a control socket in place of a node: one function
// for each connection.
func fake(t *testing.T, serve func(*net.UnixConn)) *Client {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "n")
	if err := MakeDir(dir); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", Socket(dir))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			serve(conn.(*net.UnixConn))
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return NewClient(dir)
}

// answering reads a request and answers with text.
func answering(t *testing.T, text string) *Client {
	return fake(t, func(conn *net.UnixConn) {
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
			return
		}
		fmt.Fprint(conn, text)
	})
}

func TestClient(t *testing.T) {
	lab.NoLeaks(t)
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/echo", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_ = json.NewEncoder(w).Encode(map[string]string{"method": r.Method, "body": string(body), "query": r.URL.RawQuery})
	})
	mux.HandleFunc("/v1/refuse", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusConflict)
		_ = json.NewEncoder(w).Encode(Error{Message: "it is taken"})
	})
	mux.HandleFunc("/v1/stream", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "line 1\nline 2\n") })
	dir := filepath.Join(t.TempDir(), "n")
	if err := MakeDir(dir); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", Socket(dir))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: mux}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	defer func() {
		_ = server.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()

	c, ctx := NewClient(dir), context.Background()
	if c.Dir() != dir {
		t.Errorf("directory %s", c.Dir())
	}
	for _, call := range []struct {
		do   func(out any) error
		want string
	}{
		{func(out any) error { return c.Get(ctx, "/v1/echo?tail=3", out) }, "map[body: method:GET query:tail=3]"},
		{func(out any) error { return c.Post(ctx, "/v1/echo", DownRequest{All: true}, out) }, `map[body:{"all":true} method:POST query:]`},
		{func(out any) error { return c.Delete(ctx, "/v1/echo", out) }, "map[body: method:DELETE query:]"},
	} {
		var got map[string]string
		if err := call.do(&got); err != nil || fmt.Sprint(got) != call.want {
			t.Errorf("got %v, %v, want %s", got, err, call.want)
		}
	}
	if err := c.Post(ctx, "/v1/echo", DownRequest{}, nil); err != nil {
		t.Errorf("an answer nobody wants: %v", err)
	}
	var refused *Error
	if err := c.Get(ctx, "/v1/refuse", nil); !errors.As(err, &refused) || err.Error() != "it is taken" {
		t.Errorf("refused: %v", err)
	}
	if err := c.Get(ctx, "/v1/none", nil); err == nil || err.Error() != "the node answered 404 Not Found: 404 page not found" {
		t.Errorf("not found: %v", err)
	}
	if err := c.Post(ctx, "/v1/echo", func() {}, nil); err == nil {
		t.Error("sent a function")
	}
	body, err := c.Stream(ctx, "/v1/stream")
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(body)
	if body.Close(); string(text) != "line 1\nline 2\n" {
		t.Errorf("streamed %q", text)
	}
	if _, err := c.Stream(ctx, "/v1/refuse"); !errors.As(err, &refused) {
		t.Errorf("refused stream: %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := c.Get(cancelled, "/v1/echo", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestNoNode: without a node every call says so in one sentence.
func TestNoNode(t *testing.T) {
	base, ctx := t.TempDir(), context.Background()
	empty, stale := filepath.Join(base, "empty"), filepath.Join(base, "stale")
	if err := errors.Join(MakeDir(empty), MakeDir(stale)); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: Socket(stale), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	for _, dir := range []string{filepath.Join(base, "none"), empty, stale} {
		c := NewClient(dir)
		_, streamed := c.Stream(ctx, "/v1/trace")
		for _, err := range []error{
			c.Get(ctx, "/v1/version", nil), c.Post(ctx, "/v1/up", UpRequest{}, nil), c.Delete(ctx, "/v1/macs", nil),
			streamed, c.Hand(ctx, "/v1/containers/x/attach", Attach{}, nil),
		} {
			if !errors.Is(err, ErrNoNode) || err.Error() != "no node is running in "+dir+"; start one with `fairlead up` or `fairlead run`" {
				t.Errorf("%s: %v", dir, err)
			}
		}
	}
}

// TestForeignDirectory: nothing is said to whoever listens in a directory that
// is not ours, and the error names it.
func TestForeignDirectory(t *testing.T) {
	c := fake(t, func(*net.UnixConn) { t.Error("was talked to") })
	if err := os.Chmod(c.Dir(), 0o755); err != nil {
		t.Fatal(err)
	}
	want := "node directory " + c.Dir() + " may be entered by others (mode 0755); set FAIRLEAD_DIR to a directory of yours alone (mode 0700)"
	for _, err := range []error{c.Get(context.Background(), "/v1/version", nil), c.Hand(context.Background(), "/x", nil, nil)} {
		if err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := NewClient(file+"/sub").Get(context.Background(), "/v1/version", nil)
	if want := "node directory: lstat " + file + "/sub: not a directory"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestBadAnswers(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: "
	for _, c := range []struct{ name, answer, want string }{
		{"left", "", "the node left without an answer: EOF"},
		{"no HTTP", "SSH-2.0-OpenSSH_9.2\r\n", `malformed HTTP response "SSH-2.0-OpenSSH_9.2"`},
		{"no JSON", ok + "5\r\n\r\nhello", "read the node's answer to GET /v1/version: invalid character 'h' looking for beginning of value"},
		{"cut off", ok + "50\r\n\r\n{\"version\":", "read the node's answer to GET /v1/version: unexpected EOF"},
		{"bare status", "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n", "the node answered 500 Internal Server Error: "},
		{"a message", "HTTP/1.1 403 Forbidden\r\n\r\n" + `{"error":"refused: peer is process 1 of uid 5"}`, "refused: peer is process 1 of uid 5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var info VersionInfo
			err := answering(t, c.answer).Get(context.Background(), "/v1/version", &info)
			if err == nil || !strings.HasSuffix(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestHand(t *testing.T) {
	lab.NoLeaks(t)
	upgraded := func(answer func(*net.UnixConn, Attach, []int)) *Client {
		return fake(t, func(conn *net.UnixConn) {
			r, err := http.ReadRequest(bufio.NewReader(conn))
			if err != nil || r.Method != http.MethodPost || r.Header.Get("Upgrade") != Protocol || r.Header.Get("Connection") != "Upgrade" {
				t.Errorf("asked %v, %v", r, err)
				return
			}
			fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+Protocol+"\r\n\r\n")
			var m Attach
			fds, err := ReceiveMessage(conn, &m)
			if err != nil {
				t.Error(err)
			}
			answer(conn, m, fds)
			CloseAll(fds)
		})
	}
	ctx := context.Background()
	message := Attach{Descriptors: []string{"tap"}, Pid: 3}

	c := upgraded(func(conn *net.UnixConn, m Attach, fds []int) {
		if m.Pid != 3 || len(fds) != 2 {
			t.Errorf("got %+v and %d descriptors", m, len(fds))
		}
		if err := SendMessage(conn, Done{}, nil); err != nil {
			t.Error(err)
		}
	})
	if err := c.Hand(ctx, "/v1/containers/x/attach", message, files(t, 2)); err != nil {
		t.Error(err)
	}
	c = upgraded(func(conn *net.UnixConn, _ Attach, _ []int) { _ = SendMessage(conn, Done{Error: "not wanted"}, nil) })
	var refused *Error
	if err := c.Hand(ctx, "/x", message, nil); !errors.As(err, &refused) || err.Error() != "not wanted" {
		t.Errorf("refused: %v", err)
	}
	c = upgraded(func(*net.UnixConn, Attach, []int) {})
	if err := c.Hand(ctx, "/x", message, nil); !errors.Is(err, ErrLeft) || err.Error() != "the node's answer at /x: the node left without an answer: unexpected EOF" {
		t.Errorf("left: %v", err)
	}
	c = answering(t, "HTTP/1.1 404 Not Found\r\n\r\n"+`{"error":"No such container: x"}`)
	if err := c.Hand(ctx, "/x", message, nil); !errors.As(err, &refused) || err.Error() != "No such container: x" {
		t.Errorf("not found: %v", err)
	}
	c = answering(t, "")
	if err := c.Hand(ctx, "/x", message, nil); err == nil || !strings.HasPrefix(err.Error(), "ask for fairlead-fd at /x: ") {
		t.Errorf("hung up: %v", err)
	}
	release := make(chan struct{})
	c = upgraded(func(*net.UnixConn, Attach, []int) { <-release })
	soon, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if err := c.Hand(soon, "/x", message, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("cancelled: %v", err)
	}
	close(release)
}
