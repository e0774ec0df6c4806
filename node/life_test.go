package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/node/api"
	"fairlead/node/box"
	"fairlead/test/lab"
)

// message receives what the node says to an init.
func (i *fakeInit) message(t testing.TB) (*box.Message, []int) {
	t.Helper()
	_ = i.SetReadDeadline(time.Now().Add(5 * time.Second))
	m, fds, err := i.Recv()
	if err != nil {
		t.Fatalf("the init was told nothing: %v", err)
	}
	return m, fds
}

// TestS28_ProcessKilled: a container whose init is killed is gone at once, with
// all it had.
func TestS28_ProcessKilled(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t)
	c, i := r.run(api.CreateRequest{Name: "web"})
	if got := r.inspect("web"); !got.State.Running || got.State.Status != "running" || got.State.Pid != i.cmd.Process.Pid ||
		got.State.StartedAt.IsZero() {
		t.Errorf("%+v", got.State)
	}
	start := time.Now()
	i.die()
	r.gone("web")
	t.Logf("it took %v", time.Since(start))
	if _, err := os.Stat(c.Hosts); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its files are left: %v", err)
	}
}

func TestExitStatus(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t)
	for code, end := range map[int]func(i *fakeInit){
		0:   func(i *fakeInit) { i.exit(t, 0) },
		3:   func(i *fakeInit) { i.exit(t, 3) },
		143: func(i *fakeInit) { _ = i.Send(&box.Message{Started: 1}); i.exit(t, 143) }, // not its last word
		137: func(i *fakeInit) { i.die() },                                              // without a word
	} {
		c, i := r.run(api.CreateRequest{})
		got := make(chan error, 2)
		for range 2 { // waiters hear the same
			go func() {
				var exit api.Exit
				err := r.Get(r.ctx, "/v1/containers/"+c.ID+"/wait", &exit)
				if err == nil && exit.Code != code {
					err = fmt.Errorf("exit status %d, want %d", exit.Code, code)
				}
				got <- err
			}()
		}
		time.Sleep(300 * time.Millisecond) // they wait by now
		end(i)
		if err := errors.Join(<-got, <-got); err != nil {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithCancel(r.ctx)
	c, _ := r.run(api.CreateRequest{})
	time.AfterFunc(10*time.Millisecond, cancel)
	if err := r.Get(ctx, "/v1/containers/"+c.ID+"/wait", new(api.Exit)); !errors.Is(err, context.Canceled) {
		t.Errorf("a waiter that left: %v", err)
	}
}

func TestKillAndStop(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t)
	one := 1

	// A reservation has no process: to kill it is to give it back.
	r.create(api.CreateRequest{Name: "early"})
	refused(t, r.Post(r.ctx, "/v1/containers/early/kill", api.SignalRequest{Signal: "TERM"}, nil), "kill early: it has no process of ours")
	if err := r.Post(r.ctx, "/v1/containers/early/kill", api.SignalRequest{}, nil); err != nil {
		t.Error(err)
	}
	r.gone("early")

	// A signal goes to the command, by way of init.
	_, i := r.run(api.CreateRequest{Name: "web"})
	for signal, want := range map[string]unix.Signal{"HUP": unix.SIGHUP, "sigusr1": unix.SIGUSR1, "15": unix.SIGTERM} {
		if err := r.Post(r.ctx, "/v1/containers/web/kill", api.SignalRequest{Signal: signal}, nil); err != nil {
			t.Error(err)
		}
		if m, _ := i.message(t); m.Signal != int(want) {
			t.Errorf("%s came as %+v", signal, m)
		}
	}
	// SIGKILL goes to init itself.
	if err := r.Post(r.ctx, "/v1/containers/web/kill", api.SignalRequest{}, nil); err != nil {
		t.Error(err)
	}
	r.gone("web")
	if err := r.Post(r.ctx, "/v1/containers/web/kill", api.SignalRequest{}, nil); err == nil {
		t.Error("killed twice")
	}

	// stop returns when the container is gone, by itself.
	_, i = r.run(api.CreateRequest{Name: "web"})
	go func() {
		if m, _ := i.message(t); m.Signal != int(unix.SIGTERM) {
			t.Errorf("stop says %+v", m)
		}
		i.exit(t, 0)
	}()
	if err := r.Post(r.ctx, "/v1/containers/web/stop", api.SignalRequest{}, nil); err != nil {
		t.Error(err)
	}
	r.gone("web")

	// Or else it is killed, after the time-out.
	_, i = r.run(api.CreateRequest{Name: "web"})
	start := time.Now()
	if err := r.Post(r.ctx, "/v1/containers/web/stop", api.SignalRequest{Signal: "INT", Timeout: &one}, nil); err != nil {
		t.Error(err)
	}
	if d := time.Since(start); d < time.Second || d > 8*time.Second { // 10 without being asked for one
		t.Errorf("killed after %v, want a second", d)
	}
	if m, _ := i.message(t); m.Signal != int(unix.SIGINT) {
		t.Errorf("stop says %+v", m)
	}
	r.gone("web")

	// Who stops and leaves has not killed.
	_, i = r.run(api.CreateRequest{Name: "web"})
	ctx, cancel := context.WithTimeout(r.ctx, 20*time.Millisecond)
	defer cancel()
	if err := r.Post(ctx, "/v1/containers/web/stop", api.SignalRequest{}, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a client that left: %v", err)
	}
	time.Sleep(50 * time.Millisecond)
	if got := r.inspect("web"); !got.State.Running {
		t.Error("it was killed")
	}
	refused(t, r.Delete(r.ctx, "/v1/containers/web", nil), "container web is running; stop it with `fairlead stop web`")
}

// TestEndWhileStarting has containers killed at the moment they are attached:
// each ends, whoever is first.
func TestEndWhileStarting(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t)
	for range 40 {
		c, i := r.create(api.CreateRequest{Network: "none"}), newInit(t)
		killed := make(chan error, 1)
		go func() { killed <- r.Post(r.ctx, "/v1/containers/"+c.ID+"/kill", api.SignalRequest{}, nil) }()
		_ = r.attach(c.ID, i) // either may win
		if err := <-killed; err != nil && !strings.HasPrefix(err.Error(), "No such container: ") {
			t.Error(err)
		}
		r.gone(c.ID)
	}
	if list := r.list(); len(list) != 0 {
		t.Errorf("left: %+v", list)
	}
}

// TestKilledWhileStarting: a container that was told to end while its init makes
// further interfaces has its address as long as it has a port.
func TestKilledWhileStarting(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t)
	r.network(api.NetworkCreate{Name: "alpha"})
	g := newGuest(t, "g")
	i := newInit(t)
	c := r.create(api.CreateRequest{Name: "web", Networks: []api.EndpointRequest{{Network: "default"}, {Network: "alpha"}}})
	attached := make(chan error, 1)
	go func() {
		attached <- r.Hand(r.ctx, "/v1/containers/"+c.ID+"/attach",
			api.Attach{Descriptors: []string{"tap", "init", "channel"}, Interface: "eth0", Index: 2, Netns: i.netns()}, []int{g.tap.Fd(), i.pidfd, i.channel})
	}()
	m, session := i.message(t)
	if m.Link == nil || m.Link.Name != "eth1" {
		t.Fatalf("the init got %+v", m)
	}
	killed, dead := make(chan error, 1), make(chan struct{})
	go func() { killed <- r.Post(r.ctx, "/v1/containers/"+c.ID+"/kill", api.SignalRequest{}, nil) }()
	go func() {
		_ = i.cmd.Wait()
		i.dead.Store(true)
		close(dead)
	}()
	select {
	case <-dead:
	case <-time.After(10 * time.Second):
		t.Error("its init lives")
	}
	// The dead init's channel, which is the test's, keeps start waiting.
	if next := r.create(api.CreateRequest{}); next.Link.Address != "172.17.0.3/16" {
		t.Errorf("web has a port, and the next got %s", next.Link.Address)
	}
	api.CloseAll(session)
	if err := <-killed; err != nil {
		t.Error(err)
	}
	refused(t, <-attached, "attach container web: it was told to end")
	r.gone("web")
	if next := r.create(api.CreateRequest{}); next.Link.Address != "172.17.0.2/16" {
		t.Errorf("nobody has web's address, and the next got %s", next.Link.Address)
	}
}

// TestStartAfterEnd: who was told to end before it begins to start gets no port.
func TestStartAfterEnd(t *testing.T) {
	h := newHandlers(t)
	g := newGuest(t, "g")
	c, err := h.create(api.CreateRequest{Name: "pipe", Foreign: "pid:1"})
	if err != nil {
		t.Fatal(err)
	}
	h.end(c)
	fd, err := unix.Dup(g.tap.Fd())
	if err != nil {
		t.Fatal(err)
	}
	d := &descriptors{fd, -1, -1}
	defer d.close()
	refused(t, h.start(c, api.Attach{}, d), "it was told to end")
	if ports := h.networks()[0].Switch().Ports(); len(ports) != 0 {
		t.Errorf("%d ports", len(ports))
	}
}

// homes is how many containers the router knows the way to.
func (h *handlers) homes() int {
	return reflect.ValueOf(h.router).Elem().FieldByName("rt").Elem().FieldByName("homes").Len()
}

// TestHomesAreForgotten: the router knows no containers that are gone, however
// they came to an end.
func TestHomesAreForgotten(t *testing.T) {
	h := newHandlers(t)
	file, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	c, err := h.create(api.CreateRequest{Name: "pipe", Foreign: "pid:1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.attach(c, api.Attach{Descriptors: []string{"tap"}}, []int{file}); err == nil || !strings.HasSuffix(err.Error(), "is not of /dev/net/tun") {
		t.Errorf("attached: %v", err)
	}
	if got := h.homes(); got != 0 {
		t.Errorf("after a start that failed: %d", got)
	}
	settle := func(c *container) {
		h.mu.Lock()
		h.settleLocked(c)
		h.mu.Unlock()
	}
	web := h.join(t, "web")
	settle(web.container)
	if got := h.homes(); got != 1 {
		t.Errorf("of one that runs: %d", got)
	}
	h.end(web.container)
	settle(web.container) // its link says that it has gone only now
	if got := h.homes(); got != 0 {
		t.Errorf("of one that has ended: %d", got)
	}
	x := h.join(t, "x")
	settle(x.container)
	h.mu.Lock()
	x.members++ // somebody who shares its namespace is starting
	h.mu.Unlock()
	h.end(x.container)
	settle(x.container)
	if got := h.homes(); got != 1 {
		t.Errorf("of one whose namespace is used: %d", got)
	}
	h.undo(&container{}, x.container, nil)
	if got := h.homes(); got != 0 {
		t.Errorf("of one whose namespace nobody uses: %d", got)
	}
}

func TestExec(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t)
	_, i := r.run(api.CreateRequest{Name: "web"})
	r.create(api.CreateRequest{Name: "early"})
	a, b, err := box.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer api.CloseAll([]int{a, b})
	four := []int{0, 1, 2, a}
	exec := func(name string, m api.Exec, fds []int) error {
		return r.Hand(r.ctx, "/v1/containers/"+name+"/exec", m, fds)
	}
	before := openDescriptors(t)
	if err := exec("web", api.Exec{Command: []string{"id", "-u"}, Env: []string{"A=1"}, Workdir: "/srv", TTY: true}, four); err != nil {
		t.Fatal(err)
	}
	m, fds := i.message(t)
	if len(fds) != 4 || m.Exec == nil || strings.Join(m.Exec.Args, " ") != "id -u" || m.Exec.Cwd != "/srv" || m.Exec.Env[0] != "A=1" || !m.Exec.TTY {
		t.Errorf("the init got %+v with %d descriptors", m.Exec, len(fds))
	}
	api.CloseAll(fds)
	refused(t, exec("web", api.Exec{}, four), "no command; say what to run: `fairlead exec -it web sh`")
	refused(t, exec("web", api.Exec{Command: []string{"id"}}, four[:3]),
		"exec takes four descriptors: standard input, output, error and a session; 3 came")
	refused(t, exec("early", api.Exec{Command: []string{"id"}}, four), "Container early is not running")
	refused(t, exec("nobody", api.Exec{Command: []string{"id"}}, four), "No such container: nobody; `fairlead ps` lists those that run")
	noMoreDescriptors(t, before)
}

// TestSharedNamespace: who shares a namespace has its files and name, and the
// one that made it may end first.
func TestSharedNamespace(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t)
	x, xInit := r.run(api.CreateRequest{Name: "x", Network: "none", Hostname: "xhost"})
	c, guest := r.run(api.CreateRequest{Name: "guest", Network: "container:x"})
	if c.Mode != "shared" || c.SharePid != xInit.cmd.Process.Pid || c.Hostname != "xhost" || c.Hosts != x.Hosts {
		t.Errorf("created %+v", c)
	}
	if got := r.inspect("guest"); got.HostConfig.NetworkMode != "container:x" || got.Config.Hostname != "xhost" {
		t.Errorf("%+v", got)
	}
	xInit.die()
	r.gone("x")
	if got := r.inspect("guest"); !got.State.Running {
		t.Error("the other is gone, too")
	}
	// Through one that is in it others can still come in, and see the same files.
	third, _ := r.run(api.CreateRequest{Name: "third", Network: "container:guest"})
	if third.SharePid != guest.cmd.Process.Pid || third.Hostname != "xhost" || third.Hosts != x.Hosts {
		t.Errorf("created %+v", third)
	}
	if b, err := os.ReadFile(x.Hosts); err != nil || len(b) == 0 {
		t.Errorf("the files of x: %v", err)
	}
	for _, name := range []string{"guest", "third"} {
		if err := r.Post(r.ctx, "/v1/containers/"+name+"/kill", api.SignalRequest{}, nil); err != nil {
			t.Error(err)
		}
		r.gone(name)
	}
	if _, err := os.Stat(x.Hosts); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the files of x outlive those who share them: %v", err)
	}
	late := r.create(api.CreateRequest{Name: "late", Network: "none"})
	if err := r.Post(r.ctx, "/v1/containers", api.CreateRequest{Command: []string{"sh"}, Network: "container:late"}, nil); err == nil {
		t.Error("joined one that does not run")
	}
	_ = late
}

// TestSharesTheNamespaceItSays: a client joins a process by its number, which
// may be that of another one by then. It must not get the host's network so.
func TestSharesTheNamespaceItSays(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t)
	r.run(api.CreateRequest{Name: "x"})
	elsewhere := lab.In(t, lab.NewHost(t, "elsewhere"), func() (*fakeInit, error) { return newInit(t), nil })
	c := r.create(api.CreateRequest{Name: "guest", Network: "container:x"})
	refused(t, r.attach(c.ID, elsewhere), "attach container guest: its network namespace is not that of container x")
	r.gone("guest")
	r.run(api.CreateRequest{Name: "guest", Network: "container:x"})
}

// TestSharedAddressIsGivenBack: the address of a namespace goes with the last
// container in it, also when that is told to end before it has started.
func TestSharedAddressIsGivenBack(t *testing.T) {
	h := newHandlers(t)
	x := h.join(t, "x")
	h.mu.Lock()
	x.members++ // c is starting
	h.mu.Unlock()
	h.end(x.container)
	next := func() string {
		t.Helper()
		c, err := h.create(api.CreateRequest{Command: []string{"sh"}})
		if err != nil {
			t.Fatal(err)
		}
		h.end(c)
		return c.attachments[0].addr.String()
	}
	if got := next(); got != "172.17.0.3/16" {
		t.Errorf("c still has x's address, and the next got %s", got)
	}
	h.undo(&container{}, x.container, nil)
	if got := next(); got != "172.17.0.2/16" {
		t.Errorf("nobody has x's address, and the next got %s", got)
	}
	if ports := h.networks()[0].Switch().Ports(); len(ports) != 0 {
		t.Errorf("%d ports are left", len(ports))
	}
}

// TestDownEndsContainers: down --all kills what runs and waits for it.
func TestDownEndsContainers(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t)
	r.create(api.CreateRequest{})
	c, i := r.run(api.CreateRequest{})
	waited := make(chan error, 1)
	go func() { waited <- r.Get(r.ctx, "/v1/containers/"+c.ID+"/wait", new(api.Exit)) }()
	time.Sleep(300 * time.Millisecond) // it waits by now
	if err := r.Post(r.ctx, "/v1/down", api.DownRequest{All: true}, nil); err != nil {
		t.Fatal(err)
	}
	r.ended(5 * time.Second)
	if err := <-waited; err != nil {
		t.Errorf("who waited was told %v", err)
	}
	if state, err := i.cmd.Process.Wait(); err != nil || !strings.Contains(state.String(), "killed") {
		t.Errorf("its init is %v, %v", state, err)
	}
	i.dead.Store(true)
}

// TestNothingStartsAnyMore: a node on its way out takes nobody in.
func TestNothingStartsAnyMore(t *testing.T) {
	h := newHandlers(t)
	c, err := h.create(api.CreateRequest{Name: "web", Command: []string{"sh"}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.end(c)
	h.goDown()
	for _, call := range [][2]string{{"GET", "/v1/version"}, {"POST", "/v1/containers"}} {
		code, text := h.call(call[0], call[1], `{"command":["sh"]}`)
		if code != 503 || text != `{"error":"the node is just ending; try again"}` {
			t.Errorf("%v: %d %s", call, code, text)
		}
	}
	if code, _ := h.call("GET", "/v1/containers/web", ""); code != 200 {
		t.Errorf("inspect: %d", code)
	}
}

// TestNetworkChangesWhileStarting: a container that starts while its network is cut
// off has no default route once it runs.
func TestNetworkChangesWhileStarting(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t)
	r.network(api.NetworkCreate{Name: "alpha"})
	g, i := newGuest(t, "g"), newInit(t)
	c := r.create(api.CreateRequest{Name: "web", Networks: []api.EndpointRequest{{Network: "alpha"}}})
	if c.Link.Gateway == "" {
		t.Fatal("it was to have a default route")
	}
	yes := true
	if err := r.Post(r.ctx, "/v1/networks/alpha", api.NetworkRequest{Internal: &yes}, nil); err != nil {
		t.Fatal(err)
	}
	attached := make(chan error, 1)
	go func() {
		attached <- r.Hand(r.ctx, "/v1/containers/"+c.ID+"/attach",
			api.Attach{Descriptors: []string{"tap", "init", "channel"}, Interface: "eth0", Index: 2, Netns: i.netns()}, []int{g.tap.Fd(), i.pidfd, i.channel})
	}()
	m, session := i.message(t)
	if m.Default == nil || m.Default.Via.IsValid() {
		t.Errorf("the init got %+v", m)
	}
	answer, err := box.NewChannel(session[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(answer.Send(&box.Message{Done: true}), answer.Close(), <-attached); err != nil {
		t.Error(err)
	}
}
