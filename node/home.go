package node

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"fairlead/node/api"
)

// Locks of a node directory; see doc.go.
const (
	nodeLock  = "node.lock"
	startLock = "start.lock"
)

// A home is the node directory while a node holds node.lock in it. The node
// keeps it open: by its path alone it might take another's files away, once
// somebody has removed the directory and another node has made one there.
type home struct {
	*os.Root
	lock *os.File // node.lock
}

// claim makes the node directory and locks it for one node.
func claim(dir string) (*home, error) {
	if err := api.MakeDir(dir); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("node directory: %w", err)
	}
	lock, err := lockFile(root, nodeLock, syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return &home{root, lock}, nil
	}
	_ = root.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, errRuns(dir)
	}
	return nil, err
}

func errRuns(dir string) error {
	return fmt.Errorf("a node is running in %s already; stop it with `fairlead down`, or set FAIRLEAD_DIR for another", dir)
}

// lost reports whether the path leads to another home or to none, so that no
// command finds the node.
func (h *home) lost() bool { return !h.isLock(os.Stat(filepath.Join(h.Name(), nodeLock))) }

// isLock reports whether a file is the lock we hold. Only that there is none,
// or another, counts against it.
func (h *home) isLock(info os.FileInfo, err error) bool {
	if err != nil {
		return !errors.Is(err, os.ErrNotExist)
	}
	own, err := h.lock.Stat()
	return err != nil || os.SameFile(own, info)
}

// leave removes the files of these names if the lock is still there, with the
// directory if nothing else is in it, and gives the lock up.
func (h *home) leave(names ...string) {
	defer h.lock.Close()
	defer h.Close()
	if !h.isLock(h.Stat(nodeLock)) {
		return
	}
	for _, name := range names {
		if err := h.RemoveAll(name); err != nil {
			slog.Error("remove", "file", name, "err", err)
		}
	}
	_ = os.Remove(h.Name()) // stays when somebody else put something there
}

// lockIn locks a file of a node directory for us alone, unless somebody has it.
func lockIn(dir, name string) (*os.File, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("node directory: %w", err)
	}
	defer root.Close()
	return lockFile(root, name, syscall.LOCK_EX|syscall.LOCK_NB)
}

// lockFile opens (and makes) a file and locks it; the lock ends with the file.
// A node removes its lock files when it ends, so the lock counts only if the
// name still leads to the file that was locked.
func lockFile(dir *os.Root, name string, how int) (*os.File, error) {
	for {
		f, err := dir.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", filepath.Join(dir.Name(), name), err)
		}
		if err := syscall.Flock(int(f.Fd()), how); err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		locked, err1 := f.Stat()
		named, err2 := dir.Stat(name)
		if err1 == nil && err2 == nil && os.SameFile(locked, named) {
			return f, nil
		}
		f.Close()
	}
}
