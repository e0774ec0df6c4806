package node

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead/node/api"
	"fairlead/test/lab"

	"golang.org/x/sys/unix"
)

// TestAttachWrongDescriptors: whatever is handed over that was not asked for is
// refused and closed, and the container can still be attached.
func TestAttachWrongDescriptors(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t)
	i := newInit(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	fd := map[string]int{"tap": int(null.Fd()), "init": i.pidfd, "channel": i.channel, "other": int(null.Fd())}
	describe := func(names []string) string { return strings.Join(names, "+") }

	// Every choice of up to four names, in every order, for every mode.
	names := []string{"tap", "init", "channel", "other"}
	var choices [][]string
	var choose func(have []string)
	choose = func(have []string) {
		choices = append(choices, have)
		if len(have) < 4 {
			for _, n := range names {
				choose(append(have[:len(have):len(have)], n))
			}
		}
	}
	choose(nil)
	needs := map[string]string{
		"default": "channel+init+tap", "none": "channel+init", "host": "channel+init", "foreign": "tap",
	}
	for mode, want := range needs {
		req := api.CreateRequest{Name: "web", Network: mode}
		if mode == "foreign" {
			req = api.CreateRequest{Name: "web", Foreign: "pid:1"}
		}
		r.create(req)
		before := openDescriptors(t)
		for _, choice := range choices {
			if describe(slices.Sorted(slices.Values(choice))) == want {
				continue // right, and tried below
			}
			var fds []int
			for _, n := range choice {
				fds = append(fds, fd[n])
			}
			err := r.Hand(r.ctx, "/v1/containers/web/attach", api.Attach{Descriptors: choice}, fds)
			if err == nil || !strings.Contains(err.Error(), "descriptor ") {
				t.Errorf("%s: %s: %v", mode, describe(choice), err)
			}
		}
		// Names and descriptors that do not agree in number.
		for _, n := range []int{0, 1, 4} {
			err := r.Hand(r.ctx, "/v1/containers/web/attach", api.Attach{Descriptors: []string{"init", "channel"}}, []int{0, 0, 0, 0}[:n])
			refused(t, err, fmt.Sprintf("the message names 2 descriptors and brought %d", n))
		}
		noMoreDescriptors(t, before)
		if got := r.inspect("web"); got.State.Status != "created" {
			t.Errorf("%s: %+v", mode, got.State)
		}
		if err := r.Delete(r.ctx, "/v1/containers/web", nil); err != nil {
			t.Error(err)
		}
	}
}

// openDescriptors counts those of this process.
func openDescriptors(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// noMoreDescriptors waits until there are no more than before: connections of the
// control socket take a moment to close.
func noMoreDescriptors(t testing.TB, before int) {
	t.Helper()
	lab.Eventually(t, 10*time.Second, func() error {
		if n := openDescriptors(t); n > before {
			return fmt.Errorf("%d descriptors, there were %d", n, before)
		}
		return nil
	})
}

// TestAttachImpostors: descriptors with the right names that are something else
// end the container, with what it had.
func TestAttachImpostors(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t)
	i := newInit(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	stream, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer api.CloseAll(stream[:])
	dead := newInit(t)
	dead.die()
	file := int(null.Fd())
	for _, c := range []struct {
		name    string
		network string
		fds     []int // tap, init, channel
		want    string
	}{
		{"a file for init", "none", []int{-1, file, i.channel}, " is not a pidfd"},
		{"a channel for init", "none", []int{-1, i.channel, i.channel}, " is not a pidfd"},
		{"a dead init", "none", []int{-1, dead.pidfd, i.channel}, "the process has ended"},
		{"a file for the channel", "none", []int{-1, i.pidfd, file}, " is not a channel (a unix socket of type seqpacket)"},
		{"a stream for the channel", "none", []int{-1, i.pidfd, stream[0]}, " is not a channel (a unix socket of type seqpacket)"},
		{"a file for the TAP", "default", []int{file, i.pidfd, i.channel}, " is not of /dev/net/tun"},
		{"a channel for the TAP", "default", []int{i.channel, i.pidfd, i.channel}, " is not of /dev/net/tun"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := openDescriptors(t)
			created := r.create(api.CreateRequest{Name: "web", Network: c.network})
			names, fds := []string{"tap", "init", "channel"}, c.fds
			if c.fds[0] < 0 {
				names, fds = names[1:], fds[1:]
			}
			err := r.Hand(r.ctx, "/v1/containers/web/attach", api.Attach{Descriptors: names}, fds)
			if err == nil || !strings.HasPrefix(err.Error(), "attach container web: ") || !strings.HasSuffix(err.Error(), c.want) {
				t.Errorf("got %v, want …%s", err, c.want)
			}
			r.gone(created.ID)
			noMoreDescriptors(t, before)
		})
	}
}

// TestAttachTwice: the second to come is refused and changes nothing.
func TestAttachTwice(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t)
	c, _ := r.run(api.CreateRequest{Name: "web"})
	refused(t, r.attach(c.ID, newInit(t)), "container web has its descriptors already, or is just ending")
	if got := r.inspect("web"); !got.State.Running {
		t.Error("it does not run any more")
	}
	refused(t, r.attach("nobody", newInit(t)), "No such container: nobody; `fairlead ps` lists those that run")
	err := r.Post(r.ctx, "/v1/containers/web/attach", nil, nil)
	refused(t, err, "/v1/containers/web/attach takes descriptors: ask for Upgrade: fairlead-fd")
}
