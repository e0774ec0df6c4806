package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	hosts "fairlead/test/lab"
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

// spread does it in the namespace that came along.
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
	return writeSetting(fds[0], "eth0/queues/rx-0/rps_cpus", strconv.FormatUint(1<<min(runtime.NumCPU(), 32)-1, 16))
}

// writeSetting writes a file of an interface in a network namespace. It gives up a
// thread for it, in namespaces of its own: sysfs shows the namespace of whoever
// mounts it.
func writeSetting(namespace int, name, value string) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends
		result <- writeSettingHere(namespace, name, value)
	}()
	return <-result
}

func writeSettingHere(namespace int, name, value string) error {
	// The main thread does not end, and would keep the namespaces it is in.
	for _, kind := range []string{"net", "mnt"} {
		home, err := os.Open("/proc/thread-self/ns/" + kind)
		if err != nil {
			return err
		}
		defer home.Close()
		defer func() { _ = unix.Setns(int(home.Fd()), 0) }()
	}
	if err := unix.Setns(namespace, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter a namespace: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mounts: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	return os.WriteFile("/sys/class/net/"+name, []byte(value), 0)
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
		l.check(askToSpread(namespaceOf(l, h)), "set RPS of eth0 of %s", h.Name)
	}
}

// namespaceOf is a descriptor of a host's network namespace.
func namespaceOf(l *lab, h *hosts.Host) *os.File {
	return hosts.In(l, h, func() (*os.File, error) { return os.Open("/proc/thread-self/ns/net") })
}

func askToSpread(namespace *os.File) error {
	defer namespace.Close()
	if err := unix.Sendmsg(spreader, []byte{0}, unix.UnixRights(int(namespace.Fd())), nil, 0); err != nil {
		return err
	}
	answer := make([]byte, 1024)
	n, err := unix.Read(spreader, answer)
	if err == nil && string(answer[:n]) != " " {
		err = errors.New(string(answer[:n]))
	}
	return err
}
