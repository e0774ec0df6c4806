package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairlead/node/api"
	"fairlead/node/box"
	"fairlead/test/lab"
)

// TestLostHome: a node that no command finds any more, because somebody removed
// its directory or what is in it, ends with its containers, and takes nothing
// from the node that has come after it.
func TestLostHome(t *testing.T) {
	for name, remove := range map[string]func(dir string) error{
		"the directory": os.RemoveAll,
		"what is in it": func(dir string) error {
			entries, err := os.ReadDir(dir)
			for _, e := range entries {
				err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
			}
			return err
		},
		"nothing: it was moved": func(dir string) error { return os.Rename(dir, dir+"2") },
	} {
		t.Run(name, func(t *testing.T) {
			lab.NoLeaks(t)
			conf := Config{Dir: shortDir(t), Version: "test", Stays: true}
			old := &rig{Client: api.NewClient(conf.Dir), t: t, ctx: t.Context(), served: make(chan error, 1)}
			go func() { old.served <- Serve(old.ctx, conf) }()
			old.answers()
			_, init := old.run(api.CreateRequest{Name: "web"})
			if err := remove(conf.Dir); err != nil {
				t.Fatal(err)
			}
			fresh := serve(t, func(c *Config) { c.Dir = conf.Dir })
			c := fresh.create(api.CreateRequest{Name: "web"})
			select {
			case err := <-old.served:
				if err == nil || !strings.HasPrefix(err.Error(), "the node directory "+conf.Dir+" was removed") {
					t.Errorf("the node without a directory ended with %v", err)
				}
			case <-time.After(5 * time.Second):
				t.Fatal("the node without a directory goes on")
			}
			if alive, err := box.PIDFDAlive(init.pidfd); alive || err != nil {
				t.Errorf("its container lives: %v, %v", alive, err)
			}
			fresh.inspect("web")
			if _, err := os.Stat(c.Hosts); err != nil {
				t.Error(err)
			}
			if _, err := lockIn(conf.Dir, nodeLock); !errors.Is(err, syscall.EWOULDBLOCK) {
				t.Errorf("the lock of the node that runs: %v", err)
			}
			if left, _ := os.ReadDir(conf.Dir + "2"); len(left) > 0 {
				t.Errorf("left in the directory that was moved: %v", left)
			}
		})
	}
}
