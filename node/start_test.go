package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// ensure starts or finds a node, which is this test binary, and returns its pid.
func ensure(t *testing.T, dir string) (*api.Client, int) {
	t.Helper()
	c, err := Ensure(context.Background(), dir, "test")
	if err != nil {
		t.Error(err)
		return nil, 0
	}
	var info api.VersionInfo
	if err := c.Get(context.Background(), "/v1/version", &info); err != nil {
		t.Error(err)
	}
	return c, info.Pid
}

func endsWithin(t *testing.T, dir string, within time.Duration) {
	t.Helper()
	lab.Eventually(t, within, func() error {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			return errors.New("the node directory is still there")
		}
		return nil
	})
}

// TestEnsureTogether: many first commands start one node.
func TestEnsureTogether(t *testing.T) {
	lab.NoLeaks(t)
	dir := shortDir(t)
	pids := make([]int, 6)
	var all sync.WaitGroup
	for i := range pids {
		all.Add(1)
		go func() {
			defer all.Done()
			_, pids[i] = ensure(t, dir)
		}()
	}
	all.Wait()
	for _, pid := range pids {
		if pid != pids[0] || pid == 0 || pid == os.Getpid() {
			t.Fatalf("nodes %v", pids)
		}
	}
	if err := api.NewClient(dir).Post(context.Background(), "/v1/down", api.DownRequest{}, nil); err != nil {
		t.Error(err)
	}
	endsWithin(t, dir, 5*time.Second)
}

// TestEnsureWhileNodesEnd: whoever comes while a node is on its way out gets
// another one, and no error.
func TestEnsureWhileNodesEnd(t *testing.T) {
	lab.NoLeaks(t)
	dir := shortDir(t)
	last := 0
	for range 8 {
		c, pid := ensure(t, dir)
		if t.Failed() {
			return
		}
		if pid == last {
			t.Fatalf("node %d was told to go down and still counts", pid)
		}
		last = pid
		if err := c.Post(context.Background(), "/v1/down", api.DownRequest{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	endsWithin(t, dir, 5*time.Second)
}

func TestEnsureSaysWhyANodeDoesNotStart(t *testing.T) {
	dir := shortDir(t)
	if err := api.MakeDir(dir); err != nil {
		t.Fatal(err)
	}
	lock, err := lockIn(dir, nodeLock)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	_, err = Ensure(context.Background(), dir, "test")
	refused(t, err, "the node ended as soon as it was started (exit status 1): a node is running in "+dir+
		" already; stop it with `fairlead down`, or set FAIRLEAD_DIR for another")
	_, err = Ensure(context.Background(), "here", "test")
	refused(t, err, `node directory "here" is not an absolute path; set FAIRLEAD_DIR to one`)
}

// TestEnsureOfAnotherVersion says what to do rather than what is malformed.
func TestEnsureOfAnotherVersion(t *testing.T) {
	dir := shortDir(t)
	if err := api.MakeDir(dir); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", api.Socket(dir))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(api.VersionInfo{Version: "v0.9", API: api.Version + 1})
	})}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	_, err = Ensure(t.Context(), dir, "test")
	refused(t, err, fmt.Sprintf("the node in %s is of version v0.9 and speaks API v%d, this program v%d; `fairlead up --replace` has it be of this one, "+
		"or set FAIRLEAD_DIR for another", dir, api.Version+1, api.Version))
}

func TestServeRefuses(t *testing.T) {
	r := serve(t)
	ctx := context.Background()
	refused(t, Serve(ctx, Config{Dir: r.Dir()}), "a node is running in "+r.Dir()+
		" already; stop it with `fairlead down`, or set FAIRLEAD_DIR for another")
	r.answers() // nothing was taken from the one that runs

	// Nothing is left of a node that could not be.
	dir := shortDir(t)
	err := Serve(ctx, Config{Dir: dir, Up: api.UpRequest{BIP: "172.17.0.0/16"}})
	refused(t, err, "network default: gateway 172.17.0.0/16 is the network or broadcast address of its own subnet")
	err = Serve(ctx, Config{Dir: dir, Up: api.UpRequest{BIP: "172.17.0.1"}})
	refused(t, err, `"172.17.0.1" is not an address with a length, such as 172.17.42.1/16`)
	err = Serve(ctx, Config{Dir: dir, Up: api.UpRequest{Options: map[string]string{"mtu": "1"}}})
	refused(t, err, `option mtu: "1" is not a number from 576 to 65521`)
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its directory is still there: %v", err)
	}
}

// TestKilledNode: what a node that was killed leaves behind is no obstacle.
func TestKilledNode(t *testing.T) {
	dir := shortDir(t)
	_, pid := ensure(t, dir)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, 10*time.Second, func() error {
		if err := api.NewClient(dir).Get(context.Background(), "/v1/version", nil); !errors.Is(err, api.ErrNoNode) {
			return errors.New("it still answers")
		}
		return nil
	})
	if _, err := os.Stat(api.Socket(dir)); err != nil {
		t.Errorf("no socket was left: %v", err)
	}
	c, next := ensure(t, dir)
	if next == pid {
		t.Error("the dead answers")
	}
	if err := c.Post(context.Background(), "/v1/down", api.DownRequest{}, nil); err != nil {
		t.Error(err)
	}
	endsWithin(t, dir, 5*time.Second)
}

// TestHangup: a node whose terminal is closed cleans up as for any other signal,
// except under nohup.
func TestHangup(t *testing.T) {
	dir := shortDir(t)
	_, pid := ensure(t, dir)
	if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	endsWithin(t, dir, 2*idleAfter/3)

	signal.Ignore(syscall.SIGHUP) // it is inherited
	defer signal.Reset(syscall.SIGHUP)
	_, pid = ensure(t, dir)
	if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	if _, still := ensure(t, dir); still != pid {
		t.Errorf("node %d has ended, %d answers", pid, still)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	endsWithin(t, dir, 2*idleAfter/3)
}

// TestIdleExit: a node that was not asked to stay ends by itself.
func TestIdleExit(t *testing.T) {
	t.Parallel()
	r := serve(t, func(c *Config) { c.Stays = false })
	start := time.Now()
	c := r.create(api.CreateRequest{Network: "none"})
	for time.Since(start) < idleAfter+500*time.Millisecond {
		if len(r.served) > 0 {
			t.Fatal("it ended while it had a container")
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err := r.Delete(r.ctx, "/v1/containers/"+c.ID, nil); err != nil {
		t.Fatal(err)
	}
	start = time.Now()
	r.ended(idleAfter + 10*time.Second)
	if d := time.Since(start); d < idleAfter {
		t.Errorf("it ended after %v, want %v at least", d, idleAfter)
	}
}

// TestWatchedNode does not end by itself while somebody watches.
func TestWatchedNode(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t, func(c *Config) { c.Stays = false })
	_, stop := r.follow(t, "")
	time.Sleep(idleAfter + time.Second)
	if len(r.served) > 0 {
		t.Error("it ended while it was watched")
	}
	stop()
	r.ended(idleAfter + 10*time.Second)
}

func TestLockFileOfARemovedPath(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	const name = "lock"
	path := filepath.Join(root.Name(), name)
	first, err := lockFile(root, name, syscall.LOCK_EX)
	if err != nil {
		t.Fatal(err)
	}
	_, err = lockFile(root, name, syscall.LOCK_EX|syscall.LOCK_NB)
	if !errors.Is(err, syscall.EWOULDBLOCK) || !strings.Contains(err.Error(), path) {
		t.Errorf("locked twice: %v", err)
	}
	got := make(chan *os.File)
	go func() {
		f, err := lockFile(root, name, syscall.LOCK_EX) // waits for the file that goes
		if err != nil {
			t.Error(err)
		}
		got <- f
	}()
	time.Sleep(20 * time.Millisecond)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	first.Close()
	second := <-got
	defer second.Close()
	if _, err := lockFile(root, name, syscall.LOCK_EX|syscall.LOCK_NB); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Errorf("the lock is one of a file nobody finds: %v", err)
	}
}
