package node

import (
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fairlead/node/api"
)

// What a later version hands over is refused, with what helps.
func TestTakeOverRefusesLater(t *testing.T) {
	ours, theirs := conns(t)
	taking := &takeover{conn: ours, things: make(map[api.Thing]int)}
	go func() {
		var hello api.Replace
		_, _ = api.ReceiveMessage(theirs, &hello)
		_ = api.SendMessage(theirs, api.Handed{Last: true, Version: handVersion + 1, Program: "9.9"}, nil)
	}()
	err := taking.receive("0.1")
	if err == nil || !strings.Contains(err.Error(), "of version 9.9, which hands over more than this one, 0.1, can read: `fairlead up --replace` of that version") {
		t.Errorf("got %v", err)
	}
}

// A node that says what it hands over, and does not, is not believed.
func TestTakeOverRefusesUnnamed(t *testing.T) {
	ours, theirs := conns(t)
	taking := &takeover{conn: ours, things: make(map[api.Thing]int)}
	go func() {
		var hello api.Replace
		_, _ = api.ReceiveMessage(theirs, &hello)
		_ = api.SendMessage(theirs, api.Handed{Items: []api.Thing{{Kind: thingLock}}}, nil)
	}()
	refused(t, taking.receive("0.1"), "the node that runs sent 0 descriptors and named 1")
}

// conns are the two ends of a control connection.
func conns(t *testing.T) (a, b *net.UnixConn) {
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
