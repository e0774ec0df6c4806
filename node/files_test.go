package node

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/node/api"
	"fairlead/node/box"
	"fairlead/test/lab"
)

// TestFilesOnLease: a lease that somebody inside has on a file of his stops nobody,
// and the file follows once the lease has gone.
func TestFilesOnLease(t *testing.T) {
	h := newHandlers(t)
	h.makeNetwork(t, api.NetworkCreate{Name: "alpha"})
	g := newGuest(t, "g")
	web := h.join(t, "web")
	h.answering(t, web, func(ask *box.Message) ([]*box.Message, []int) {
		if ask.Link == nil {
			return []*box.Message{{Done: true}}, nil
		}
		fd, err := unix.Dup(g.tap.Fd())
		if err != nil {
			t.Error(err)
		}
		return []*box.Message{{Ready: &box.Ready{Index: 7}}, {Linked: true}}, []int{fd}
	})
	// A file of its own each, as a lease is its descriptor's.
	var leases []*os.File
	for _, path := range []string{web.files.hosts, web.files.resolvConf} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
			t.Fatal(err)
		}
		leases = append(leases, f)
	}
	start := time.Now()
	if err := h.connect("web", api.EndpointRequest{Network: "alpha"}); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("connect took %v", d)
	}
	for _, f := range leases {
		if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK); err != nil {
			t.Error(err)
		}
	}
	lab.Eventually(t, 10*time.Second, func() error {
		hosts, err1 := os.ReadFile(web.files.hosts)
		resolv, err2 := os.ReadFile(web.files.resolvConf)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		if !strings.Contains(string(hosts), "172.18.0.2\t"+web.hostname+"\n") || !strings.Contains(string(resolv), "nameserver 127.0.0.11\n") {
			return errors.New("the files are those of before:\n" + string(hosts) + string(resolv))
		}
		return nil
	})
}

// An init that begins while its container goes may put a file there after the last
// look: the directory goes all the same.
func TestFilesOfWhoOnlyBegins(t *testing.T) {
	dir := t.TempDir()
	for i := range 2000 {
		f := files{dir: filepath.Join(dir, strconv.Itoa(i))}
		for _, path := range []string{f.dir, filepath.Join(f.dir, "hosts")} {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		var init sync.WaitGroup
		init.Go(func() {
			for _, err := os.Stat(filepath.Join(f.dir, "hosts")); err == nil; _, err = os.Stat(filepath.Join(f.dir, "hosts")) {
			}
			_ = os.WriteFile(filepath.Join(f.dir, exitFile), nil, 0o600)
		})
		f.remove()
		init.Wait()
		if _, err := os.Stat(f.dir); err == nil {
			t.Fatalf("directory %d is left", i)
		}
	}
}
