package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"fairlead/test/world/maker"
)

// spreadVariable has the number of the descriptor by which a world asks for RPS.
const spreadVariable = "FAIRLEAD_SPREAD"

// lendSpreading gives a world somebody who spreads what eth0 of a namespace receives
// over all processors (RPS), if we may: the kernel wants the machine's root for it
// (store_rps_map in net/core/net-sysfs.c), whoever owns the namespace. What comes is
// the descriptor of a namespace, what is answered an error's text or nothing. It ends
// with the world.
func lendSpreading(w *maker.World) (end func()) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil || os.Getuid() != 0 {
		return func() {} // the path says so
	}
	theirs := os.NewFile(uintptr(pair[1]), "spread")
	w.Files = append(w.Files, theirs)
	w.Env = append(w.Env, fmt.Sprintf("%s=%d", spreadVariable, 2+len(w.Files)))
	go func() {
		runtime.LockOSThread() // and never unlock: the thread is in other namespaces, and ends
		for {
			control := make([]byte, unix.CmsgSpace(4))
			n, got, _, _, err := unix.Recvmsg(pair[0], make([]byte, 1), control, 0)
			if err != nil || n == 0 {
				return
			}
			answer := " "
			if err := spread(control[:got]); err != nil {
				answer = err.Error()
			}
			_, _ = unix.Write(pair[0], []byte(answer))
		}
	}()
	return func() { theirs.Close() }
}

// spread does it, on a thread that is given up for it.
func spread(control []byte) error {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil || len(messages) != 1 {
		return errors.Join(err, errors.New("no namespace came along"))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return err
	}
	defer unix.Close(fds[0])
	if err := unix.Setns(fds[0], unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter a namespace: %w", err)
	}
	// sysfs shows the namespace of whoever mounts it.
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mounts: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	all := strconv.FormatUint(1<<min(runtime.NumCPU(), 32)-1, 16)
	return os.WriteFile("/sys/class/net/eth0/queues/rx-0/rps_cpus", []byte(all), 0)
}

// spreader is whom to ask, if our world was given one.
var spreader = -1

// inheritSpreading takes what our world was given.
func inheritSpreading() {
	if fd, err := strconv.Atoi(os.Getenv(spreadVariable)); err == nil {
		syscall.CloseOnExec(fd)
		os.Unsetenv(spreadVariable)
		spreader = fd
	}
}

// maySpread says why RPS cannot be had.
func maySpread() error {
	if spreader < 0 {
		return errors.New("only the machine's root, outside of namespaces, may set rps_cpus; try: sudo fairlead bench")
	}
	return nil
}

// layRPS is raw, with what it writes handed on to all processors.
func layRPS(l *lab, c *cable) {
	process("raw", tap, tap)(l, c)
	for _, h := range c.ends {
		l.check(h.Do(func() error {
			ns, err := os.Open("/proc/thread-self/ns/net")
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := unix.Sendmsg(spreader, []byte{0}, unix.UnixRights(int(ns.Fd())), nil, 0); err != nil {
				return err
			}
			answer := make([]byte, 1024)
			n, err := unix.Read(spreader, answer)
			if err != nil || string(answer[:n]) != " " {
				return errors.Join(err, errors.New(string(answer[:n])))
			}
			return nil
		}), "set RPS of eth0 of %s", h.Name)
	}
}
