package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/test/lab"
)

// socketpair are two connected ends of a stream socket.
func socketpair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conn := func(fd int) *net.UnixConn {
		f := os.NewFile(uintptr(fd), "socketpair")
		defer f.Close()
		c, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		return c.(*net.UnixConn)
	}
	return conn(fds[0]), conn(fds[1])
}

// files makes n files to hand over, each with its number in it.
func files(t testing.TB, n int) (fds []int) {
	t.Helper()
	for i := range n {
		f, err := os.CreateTemp(t.TempDir(), "")
		if err == nil {
			_, err = fmt.Fprint(f, i)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		fds = append(fds, int(f.Fd()))
	}
	return fds
}

// descriptors counts those of this process.
func descriptors(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestMessage(t *testing.T) {
	lab.NoLeaks(t)
	for _, n := range []int{0, 1, 3, maxDescriptors} {
		a, b := socketpair(t)
		sent := files(t, n)
		want := Attach{Descriptors: []string{"tap", "init", "channel"}, Pid: 7, Interface: "eth0", Index: 2}
		if err := SendMessage(a, want, sent); err != nil {
			t.Fatal(err)
		}
		var got Attach
		fds, err := ReceiveMessage(b, &got)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) || len(fds) != n {
			t.Fatalf("received %v with %d descriptors: %v", got, len(fds), err)
		}
		for i, fd := range fds {
			text := make([]byte, 8)
			k, err := unix.Pread(fd, text, 0)
			if err != nil || string(text[:k]) != fmt.Sprint(i) {
				t.Errorf("descriptor %d leads to %q, %v", i, text[:max(k, 0)], err)
			}
			if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("descriptor %d would be inherited (%#x, %v)", i, flags, err)
			}
			if _, err := unix.FcntlInt(uintptr(sent[i]), unix.F_GETFD, 0); err != nil {
				t.Errorf("the sender's descriptor %d is gone: %v", i, err)
			}
		}
		CloseAll(fds)
	}
}

// TestLongMessage is larger than a socket buffer, and its pieces arrive as they
// come.
func TestLongMessage(t *testing.T) {
	a, b := socketpair(t)
	want := Exec{Command: []string{strings.Repeat("x", MaxMessage-100)}}
	sent := make(chan error, 1)
	go func() { sent <- SendMessage(a, want, files(t, 2)) }()
	var got Exec
	fds, err := ReceiveMessage(b, &got)
	CloseAll(fds)
	if err != nil || len(fds) != 2 || len(got.Command) != 1 || got.Command[0] != want.Command[0] {
		t.Errorf("%d descriptors, %v", len(fds), err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// TestMessageInPieces: bytes may come one by one, and descriptors with any of
// them.
func TestMessageInPieces(t *testing.T) {
	a, b := socketpair(t)
	fds := files(t, 2)
	go func() {
		for i, c := range []byte(`{"pid":5}` + "\n") {
			var rights []byte
			if i == 3 || i == 6 {
				rights = unix.UnixRights(fds[i/6])
			}
			_, _, _ = a.WriteMsgUnix([]byte{c}, rights, nil)
		}
	}()
	var got Attach
	received, err := ReceiveMessage(b, &got)
	CloseAll(received)
	if err != nil || got.Pid != 5 || len(received) != 2 {
		t.Errorf("%+v with %d descriptors, %v", got, len(received), err)
	}
}

// hint is what follows a field that only another version knows.
const hint = "; `fairlead version` says whether the node is older than the program"

// TestBadMessages: after an error no descriptor is left open, whatever came.
func TestBadMessages(t *testing.T) {
	fds := files(t, 1)
	many := make([]int, maxDescriptors+1)
	for i := range many {
		many[i] = fds[0]
	}
	for _, c := range []struct {
		name   string
		pieces []string
		fds    []int // with the first piece
		again  []int // with the last one
		want   string
	}{
		{"nothing", nil, nil, nil, "unexpected EOF"},
		{"cut off", []string{`{"pid":`}, fds, nil, "unexpected EOF"},
		{"without end of line", []string{`{"pid":5}`}, fds, nil, "unexpected EOF"},
		{"too many descriptors", []string{`{"pid":5}` + "\n"}, many, nil, "more than 8 descriptors in one message"},
		{"far too many descriptors", []string{`{"pid":5}` + "\n"}, append(append(many, many...), many...), nil, "more than 8 descriptors in one message"},
		{"too many in two pieces", []string{`{"pid"`, ":5}\n"}, many[:5], many[:4], "more than 8 descriptors in one message"},
		{"too long", []string{`{"descriptors":["` + strings.Repeat("x", MaxMessage)}, fds, nil, "a message is longer than 262144 bytes"},
		{"too long with an end", []string{strings.Repeat(" ", MaxMessage) + "\n"}, fds, nil, "a message is longer than 262144 bytes"},
		{"no JSON", []string{"PRI * HTTP/2.0\r\n"}, fds, nil, "malformed JSON: invalid character 'P' looking for beginning of value"},
		{"empty line", []string{"\n"}, fds, nil, "malformed JSON: there is nothing"},
		{"binary", []string{"\x16\x03\x01\x00\n"}, fds, nil, `malformed JSON: invalid character '\x16' looking for beginning of value`},
		{"unknown field", []string{`{"pid":5,"uid":0}` + "\n"}, fds, nil, `malformed JSON: json: unknown field "uid"` + hint},
		{"wrong type", []string{`{"pid":"five"}` + "\n"}, fds, nil, "malformed JSON: json: cannot unmarshal string into Go struct field Attach.pid of type int"},
		{"two messages", []string{`{"pid":5}` + "\n" + `{"pid":6}` + "\n"}, fds, nil, "malformed JSON: something follows it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := socketpair(t)
			before := descriptors(t)
			go func() {
				for i, p := range c.pieces {
					var rights []byte
					if i == 0 && c.fds != nil {
						rights = unix.UnixRights(c.fds...)
					} else if i == len(c.pieces)-1 && c.again != nil {
						rights = unix.UnixRights(c.again...)
					}
					n, _, err := a.WriteMsgUnix([]byte(p), rights, nil)
					if err == nil && n < len(p) {
						_, _ = a.Write([]byte(p)[n:]) // fails when the reader has had enough
					}
				}
				_ = a.CloseWrite()
			}()
			var got Attach
			fds, err := ReceiveMessage(b, &got)
			if err == nil || err.Error() != c.want || fds != nil {
				t.Errorf("got %v and descriptors %v, want %s", err, fds, c.want)
			}
			if after := descriptors(t); after != before {
				t.Errorf("%d descriptors, there were %d", after, before)
			}
		})
	}
}

func TestReceiveDeadline(t *testing.T) {
	a, b := socketpair(t)
	before := descriptors(t)
	if _, _, err := a.WriteMsgUnix([]byte("{"), unix.UnixRights(files(t, 1)...), nil); err != nil {
		t.Fatal(err)
	}
	_ = b.SetDeadline(time.Now().Add(10 * time.Millisecond))
	var got Attach
	if _, err := ReceiveMessage(b, &got); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if after := descriptors(t); after != before+1 { // the file itself
		t.Errorf("%d descriptors, there were %d", after, before+1)
	}
}

func TestSendFails(t *testing.T) {
	a, b := socketpair(t)
	if err := SendMessage(a, func() {}, nil); err == nil {
		t.Error("sent a function")
	}
	if err := SendMessage(a, Done{}, []int{-1}); !errors.Is(err, unix.EBADF) {
		t.Errorf("sent descriptor -1: %v", err)
	}
	// A peer that has read all and left is no error.
	if err := SendMessage(a, Done{Error: "x"}, nil); err != nil {
		t.Error(err)
	}
	_ = b.Close()
	if err := SendMessage(a, Done{}, nil); !errors.Is(err, unix.EPIPE) {
		t.Errorf("sent to nobody: %v", err)
	}
}

func TestDecode(t *testing.T) {
	long := `{"name":"` + strings.Repeat("x", MaxMessage) + `"}`
	for _, c := range []struct{ text, want string }{
		{`{"name":"web","command":["sh"]}`, ""},
		{" {}\n\n ", ""},
		{`null`, ""},
		{``, "malformed JSON: there is nothing"},
		{"  \n", "malformed JSON: there is nothing"},
		{`{"name":"web"`, "malformed JSON: unexpected EOF"},
		{`{"colour":"red"}`, `malformed JSON: json: unknown field "colour"` + hint},
		{`[]`, "malformed JSON: json: cannot unmarshal array into Go value of type api.CreateRequest"},
		{`{"tty":"yes"}`, "malformed JSON: json: cannot unmarshal string into Go struct field CreateRequest.tty of type bool"},
		{`{} {}`, "malformed JSON: something follows it"},
		{`{}x`, "malformed JSON: something follows it"},
		{long, "malformed JSON: it is longer than 262144 bytes"},
		{"{}" + strings.Repeat(" ", MaxMessage), "malformed JSON: it is longer than 262144 bytes"},
	} {
		var r CreateRequest
		err := Decode(strings.NewReader(c.text), &r)
		if got := fmt.Sprint(err); c.want == "" && err != nil || c.want != "" && got != c.want {
			t.Errorf("%.40q: %v, want %s", c.text, err, c.want)
		}
	}
	broken := io.MultiReader(strings.NewReader(`{"name"`), brokenReader{})
	if err := Decode(broken, new(CreateRequest)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("an error of the reader came out as %v", err)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, os.ErrClosed }

// FuzzReceive: whatever comes along with descriptors, there is no panic, and
// only those that are returned are open.
func FuzzReceive(f *testing.F) {
	for _, s := range []string{
		`{"descriptors":["tap"],"pid":5,"interface":"eth0","index":2}` + "\n", "\n", "{", "{}\n{}\n", `{"pid":-1}` + "\n", "\x00\n",
	} {
		f.Add([]byte(s), uint8(1), uint8(2))
	}
	f.Fuzz(func(t *testing.T, b []byte, first, last uint8) {
		if len(b) == 0 || len(b) > 64<<10 {
			return
		}
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		file := os.NewFile(uintptr(fds[1]), "socketpair")
		conn, err := net.FileConn(file)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		rights := func(n uint8) []byte { // of standard input
			return unix.UnixRights(make([]int, n%12)...)
		}
		half := len(b) / 2
		_ = unix.Sendmsg(fds[0], b[:half+1], rights(first), nil, unix.MSG_DONTWAIT)
		_ = unix.Sendmsg(fds[0], b[half+1:], rights(last), nil, unix.MSG_DONTWAIT)
		_ = unix.Close(fds[0])
		before := descriptors(t)
		var m Attach
		received, err := ReceiveMessage(conn.(*net.UnixConn), &m)
		if len(received) > maxDescriptors || err != nil && received != nil {
			t.Errorf("%d descriptors and %v", len(received), err)
		}
		if after := descriptors(t); after != before+len(received) {
			t.Errorf("%d descriptors for %d received and %d before", after, len(received), before)
		}
		CloseAll(received)
		if _, again := json.Marshal(m); err == nil && (again != nil || !bytes.Contains(b, []byte{'\n'})) {
			t.Errorf("took %q: %v", b, again)
		}
	})
}
