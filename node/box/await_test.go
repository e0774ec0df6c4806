package box

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"fairlead/test/lab"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Who waits for an interface goes on when it is up, however it came to be, here
// and in a namespace of somebody else's.
func TestS21_AwaitInterface(t *testing.T) {
	lab.NoLeaks(t)
	needVeth(t)
	s := newStranger(t, unix.CLONE_NEWNET)
	target := &Target{PID: s.cmd.Process.Pid}
	for _, c := range []struct {
		target *Target
		name   string
		within time.Duration
		want   string
	}{
		{nil, "a/b", 0, `"a/b" is no name for an interface (1 to 15 characters, no / : or space)`},
		{nil, "nosuch0", time.Millisecond, "there is no interface nosuch0 after 1ms"},
		{target, "eth1", time.Millisecond, target.String() + ": there is no interface eth1 after 1ms"},
		{target, "lo", time.Millisecond, target.String() + ": interface lo is not up after 1ms"},
		{&Target{Path: "/no/such/file"}, "lo", 0, "netns:/no/such/file: open /no/such/file: no such file or directory"},
	} {
		err := AwaitInterface(t.Context(), c.target, Await{Name: c.name, Within: c.within})
		if err == nil || err.Error() != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
	waited := make(chan error)
	go func() { waited <- AwaitInterface(t.Context(), target, Await{Name: "eth1"}) }()
	i := eth1()
	i.Veth = true
	f, err := AttachForeign(*target, i)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := <-waited; err != nil {
		t.Error(err)
	}
	if out := s.ask(t, "ip -o link show eth1"); !strings.Contains(out, ",UP,LOWER_UP> ") {
		t.Errorf("it is not up: %s", out)
	}

	ctx, cancel := context.WithCancel(t.Context())
	go func() { waited <- AwaitInterface(ctx, target, Await{Name: "eth2"}) }()
	cancel()
	if err := <-waited; !errors.Is(err, context.Canceled) {
		t.Errorf("told to stop: %v", err)
	}
	gone(t, joinName+"\x00"+target.String())

	h := lab.NewHost(t, "h")
	go func() {
		waited <- h.Do(func() error { return AwaitInterface(t.Context(), nil, Await{Name: "inner", Within: patience}) })
	}()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "inner"
	if err := h.Netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "outer"}); err != nil {
		t.Fatal(err)
	}
	h.Up(t, "inner")
	h.Up(t, "outer")
	if err := <-waited; err != nil {
		t.Error(err)
	}
}
