package node

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/link"
	"fairlead/node/api"
	"fairlead/node/box"
	"fairlead/test/lab"
)

// TestMain lets the test binary be what Ensure starts, a node, one whose handler
// panics, and what a test starts in other namespaces, a peer.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "node": // fairlead node --dir DIR
			if err := Serve(context.Background(), Config{Dir: os.Args[3], Version: "test"}); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		case "panics": // in a handler
			fatal(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("in a handler") })).ServeHTTP(nil, nil)
		case "peer": // DIR: says what the node answers
			var info api.VersionInfo
			fmt.Println(api.NewClient(os.Args[2]).Get(context.Background(), "/v1/version", &info))
			os.Exit(0)
		}
	}
	if flag.Parse(); !testing.Verbose() {
		slog.SetDefault(slog.New(slog.DiscardHandler))
	}
	if flag.Lookup("test.fuzz").Value.String() == "" { // there it is how many fuzz
		_ = flag.Set("test.parallel", "8") // those that are parallel do nothing but wait
	}
	os.Exit(m.Run())
}

// A rig is a node that serves in a directory of its own, and a client of it.
type rig struct {
	*api.Client
	t      testing.TB
	ctx    context.Context
	cancel context.CancelFunc
	served chan error // Serve's result
}

// shortDir is a directory whose name leaves room for a socket's.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "n")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "node")
}

// serve starts a node that stays, without a way out: the ports of this host are
// for the tests that are about them. When the test ends it is told to go down, and
// must leave nothing.
func serve(t testing.TB, change ...func(*Config)) *rig {
	t.Helper()
	conf := Config{Dir: shortDir(t), Version: "test", Stays: true}
	for _, fn := range change {
		fn(&conf)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &rig{Client: api.NewClient(conf.Dir), t: t, ctx: ctx, cancel: cancel, served: make(chan error, 1)}
	go func() { r.served <- Serve(ctx, conf) }()
	t.Cleanup(func() {
		_ = r.Post(context.Background(), "/v1/down", api.DownRequest{All: true}, nil) // it may be gone already
		r.ended(10 * time.Second)
		cancel()
		if os.Remove(filepath.Join(conf.Dir, stateFile)) == nil { // networks outlive it, and keep the directory
			_ = os.Remove(conf.Dir)
		}
		if _, err := os.Stat(conf.Dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the node directory is still there: %v", err)
		}
	})
	r.answers()
	if err := r.Delete(ctx, "/v1/uplinks/host", nil); err != nil {
		t.Fatal(err)
	}
	return r
}

// answers waits until the node does.
func (r *rig) answers() {
	r.t.Helper()
	lab.Eventually(r.t.(lab.T), 10*time.Second, func() error { return r.Get(r.ctx, "/v1/version", new(api.VersionInfo)) })
}

// ended waits until Serve has returned, without an error.
func (r *rig) ended(within time.Duration) {
	r.t.Helper()
	select {
	case err := <-r.served:
		if err != nil {
			r.t.Errorf("Serve: %v", err)
		}
		r.served <- err // for who asks again
	case <-time.After(within):
		r.t.Errorf("the node has not ended after %v", within)
	}
}

// create reserves a container.
func (r *rig) create(req api.CreateRequest) *api.Created {
	r.t.Helper()
	if req.Command == nil {
		req.Command = []string{"sleep", "1000"}
	}
	c := new(api.Created)
	if err := r.Post(r.ctx, "/v1/containers", req, c); err != nil {
		r.t.Fatalf("create %+v: %v", req, err)
	}
	return c
}

// list is GET /v1/containers.
func (r *rig) list() []api.Container {
	r.t.Helper()
	var list []api.Container
	if err := r.Get(r.ctx, "/v1/containers", &list); err != nil {
		r.t.Fatal(err)
	}
	return list
}

func (r *rig) inspect(ref string) *api.Inspect {
	r.t.Helper()
	i := new(api.Inspect)
	if err := r.Get(r.ctx, "/v1/containers/"+ref, i); err != nil {
		r.t.Fatalf("inspect %s: %v", ref, err)
	}
	return i
}

// refused wants a call to fail with that text.
func refused(t testing.TB, err error, want string) {
	t.Helper()
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// gone waits until a container is. Its name must not be the beginning of an id.
func (r *rig) gone(ref string) {
	r.t.Helper()
	lab.Eventually(r.t.(lab.T), 10*time.Second, func() error {
		err := r.Get(r.ctx, "/v1/containers/"+ref, new(api.Inspect))
		if err == nil {
			return fmt.Errorf("container %s is still there", ref)
		}
		if !strings.HasPrefix(err.Error(), "No such container: ") {
			return err
		}
		return nil
	})
}

// A fakeInit stands for a container's init: a process that does nothing, and
// this end of its channel, by which the test says what an init would.
type fakeInit struct {
	*box.Channel
	cmd     *exec.Cmd
	pidfd   int
	channel int // the node's end
	dead    atomic.Bool
}

// newInit starts one whose link is in order. It says so before the node asks, so
// attach never waits.
func newInit(t testing.TB) *fakeInit {
	t.Helper()
	i := newMuteInit(t)
	i.linked(t)
	return i
}

// newMuteInit starts one that has not said anything.
func newMuteInit(t testing.TB) *fakeInit {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	i := &fakeInit{cmd: cmd}
	ours, theirs, err := box.Pair()
	if err != nil {
		t.Fatal(err)
	}
	i.channel = theirs
	if i.Channel, err = box.NewChannel(ours); err != nil {
		t.Fatal(err)
	}
	if i.pidfd, err = box.OpenPID(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		i.die()
		_ = unix.Close(i.pidfd)
		_ = unix.Close(i.channel)
		_ = i.Close()
	})
	return i
}

// linked says that the container's end of its link is in order.
func (i *fakeInit) linked(t testing.TB) {
	t.Helper()
	if err := i.Send(&box.Message{Linked: true}); err != nil {
		t.Error(err)
	}
}

// die ends the process, as when the container's command has ended.
func (i *fakeInit) die() {
	if !i.dead.Swap(true) {
		_ = i.cmd.Process.Kill()
		_ = i.cmd.Wait()
	}
}

// exit says the command's exit status and ends.
func (i *fakeInit) exit(t testing.TB, code int) {
	t.Helper()
	if err := i.Send(&box.Message{Exit: &code}); err != nil {
		t.Error(err)
	}
	i.die()
}

// netns is the inode of its network namespace, 0 of an init that has ended.
func (i *fakeInit) netns() uint64 {
	ns, _ := box.NetNS(i.pidfd)
	return ns.Ino
}

// attach hands an init over to a container without a link.
func (r *rig) attach(id string, i *fakeInit) error {
	return r.Hand(r.ctx, "/v1/containers/"+id+"/attach",
		api.Attach{Descriptors: []string{"init", "channel"}, Netns: i.netns()}, []int{i.pidfd, i.channel})
}

// run makes a container without a link run.
func (r *rig) run(req api.CreateRequest) (*api.Created, *fakeInit) {
	r.t.Helper()
	if req.Network == "" {
		req.Network = "none"
	}
	c, i := r.create(req), newInit(r.t)
	if err := r.attach(c.ID, i); err != nil {
		r.t.Fatal(err)
	}
	return c, i
}

// A guest is the far end of a container's link, as a TAP in a host of the lab.
type guest struct {
	*lab.Host
	tap *link.TAP
}

// tap makes one, without carrier until the node reads.
func newGuest(t *testing.T, name string) *guest {
	t.Helper()
	lab.NeedTUN(t)
	h := lab.NewHost(t, name)
	tap := lab.In(t, h, func() (*link.TAP, error) { return link.CreateTAP(link.TAPConfig{Name: "eth0"}) })
	t.Cleanup(func() { _ = tap.Close() })
	return &guest{h, tap}
}

// runOn makes a container with a TAP run, and configures the interface.
func (r *rig) runOn(g *guest, req api.CreateRequest) (*api.Created, *fakeInit) {
	r.t.Helper()
	c, i := r.create(req), newInit(r.t)
	err := r.Hand(r.ctx, "/v1/containers/"+c.ID+"/attach",
		api.Attach{Descriptors: []string{"tap", "init", "channel"}, Interface: "eth0", Index: 2, Netns: i.netns()}, []int{g.tap.Fd(), i.pidfd, i.channel})
	if err != nil {
		r.t.Fatal(err)
	}
	t := r.t.(lab.T)
	g.Run(t, "ip", "link", "set", "eth0", "address", c.Link.MAC)
	g.Addr(t, "eth0", c.Link.Address)
	g.Up(t, "eth0")
	return c, i
}

// A handlers is a node without a listener and without a way out: its handlers,
// called directly, as if by way of conn.
type handlers struct {
	*Node
	http.Handler
	conn *controlConn
}

func newHandlers(t testing.TB) *handlers {
	t.Helper()
	h := newHandlersOut(t)
	if err := h.useHost("", false); err != nil {
		t.Fatal(err)
	}
	return h
}

// newHandlersOut is newHandlers with the sockets of this host as the way out.
func newHandlersOut(t testing.TB) *handlers {
	t.Helper()
	dir := shortDir(t)
	home, err := claim(dir)
	if err != nil {
		t.Fatal(err)
	}
	n, err := newNode(Config{Dir: dir, Version: "test", Stays: true}, home)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.close)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fds[0]), "socketpair")
	conn, err := net.FileConn(file)
	if err = errors.Join(err, file.Close(), unix.Close(fds[1])); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &handlers{n, n.newServer().Handler, &controlConn{UnixConn: conn.(*net.UnixConn)}}
}

// call sends a request and returns status and body.
func (h *handlers) call(method, path, body string) (int, string) {
	w := httptest.NewRecorder()
	ctx := context.WithValue(context.Background(), connKey{}, h.conn)
	h.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)).WithContext(ctx))
	text, _ := io.ReadAll(w.Result().Body)
	return w.Code, strings.TrimSpace(string(text))
}

// called gives a container its name.
func called(c *container, name string) *container {
	c.named.Store(&name)
	return c
}
