package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"fairlead/test/world/maker"
)

// How many frames may wait for a processor's softirq, on the whole machine. The
// kernel's bridge drops what comes beyond: with its default of 1000 TCP sees
// losses that a path of processes does not have.
const (
	backlogFile = "/proc/sys/net/core/netdev_max_backlog"
	longBacklog = 10000
)

// backlogVariable has the number of the descriptor by which a world may write it.
const backlogVariable = "FAIRLEAD_BACKLOG"

// takeBacklog gives a world the machine's setting to write, which its namespaces
// do not have, if we may write it. Restore puts back what was there when the world
// has ended, however that was.
func takeBacklog(w *maker.World) (restore func()) {
	f, err := os.OpenFile(backlogFile, os.O_RDWR, 0)
	if err != nil {
		return func() {} // the path says so
	}
	was, err := readBacklog(f)
	if err != nil {
		f.Close()
		return func() {}
	}
	w.Files = append(w.Files, f)
	w.Env = append(w.Env, fmt.Sprintf("%s=%d", backlogVariable, 2+len(w.Files)))
	return func() {
		if now, err := readBacklog(f); err == nil && now != was {
			_ = writeBacklog(f, was)
		}
		f.Close()
	}
}

// backlog is the machine's setting, if our world was given it, or nil.
var backlog *os.File

// inheritBacklog takes what our world was given. Processes we start are given
// other descriptors.
func inheritBacklog() {
	fd, err := strconv.Atoi(os.Getenv(backlogVariable))
	if err != nil {
		return
	}
	syscall.CloseOnExec(fd)
	os.Unsetenv(backlogVariable)
	backlog = os.NewFile(uintptr(fd), backlogFile)
}

// mayLengthen says why the setting cannot be written.
func mayLengthen() error {
	if backlog == nil {
		return errors.New("only the machine's root, outside of namespaces, has net.core.netdev_max_backlog; try: sudo fairlead bench")
	}
	was, err := readBacklog(backlog)
	if err == nil {
		err = writeBacklog(backlog, was)
	}
	return err
}

// lengthen has the machine's queues longer until undo is called.
func lengthen() (undo func(), err error) {
	was, err := readBacklog(backlog)
	if err == nil {
		err = writeBacklog(backlog, strconv.Itoa(longBacklog))
	}
	return func() { _ = writeBacklog(backlog, was) }, err
}

// The file is read and written from its beginning, else the kernel refuses.
func readBacklog(f *os.File) (string, error) {
	var text [32]byte
	n, err := f.ReadAt(text[:], 0)
	if n == 0 {
		return "", fmt.Errorf("read %s: %w", backlogFile, err)
	}
	return string(bytes.TrimSpace(text[:n])), nil
}

func writeBacklog(f *os.File, value string) error {
	_, err := f.WriteAt([]byte(value), 0)
	return err
}
