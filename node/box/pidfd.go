package box

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// OpenPID returns a pidfd, the caller's to close.
func OpenPID(pid int) (int, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	switch {
	case err == unix.ESRCH || err == unix.EINVAL && pid <= 0:
		return -1, fmt.Errorf("process %d: no such process", pid)
	case err == unix.EINVAL || err == unix.ENOENT: // ENOENT: since 6.15, EINVAL before: a thread
		return -1, fmt.Errorf("process %d: a thread, not a process", pid)
	case err != nil:
		return -1, fmt.Errorf("process %d: pidfd_open: %w", pid, err)
	}
	return fd, nil
}

// SignalPIDFD sends sig to the process, which cannot have become another one.
func SignalPIDFD(pidfd int, sig syscall.Signal) error {
	if err := unix.PidfdSendSignal(pidfd, sig, nil, 0); err != nil {
		return fmt.Errorf("signal process: %w", err)
	}
	return nil
}

// PIDFDAlive reports whether the process has not ended, a zombie has. A
// descriptor that is no pidfd is an error, so this also identifies one that
// somebody handed over.
func PIDFDAlive(pidfd int) (bool, error) {
	err := unix.PidfdSendSignal(pidfd, 0, nil, 0)
	if err != nil && err != unix.ESRCH && err != unix.EPERM {
		return false, fmt.Errorf("descriptor %d is not a pidfd: %w", pidfd, err)
	}
	poll := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	if _, err := retryInt(func() (int, error) { return unix.Poll(poll, 0) }); err != nil {
		return false, fmt.Errorf("poll pidfd: %w", err)
	}
	return poll[0].Revents == 0, nil
}

// AwaitEnd waits until the process has ended, a zombie has, and reports whether it has
// within that time.
func AwaitEnd(pidfd int, within time.Duration) bool {
	for deadline := time.Now().Add(within); ; {
		left := time.Until(deadline)
		poll := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, int(max(0, left).Milliseconds()))
		if n > 0 || left <= 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return n > 0 && poll[0].Revents&unix.POLLIN != 0
		}
	}
}

// PIDOf returns the process's number in our pid namespace.
func PIDOf(pidfd int) (int, error) {
	value, err := pidfdInfo(pidfd, "Pid:")
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(value))
	if err == nil && pid > 0 {
		return pid, nil
	}
	return 0, errEnded // or is of another pid namespace, and we cannot name it either
}

// pidsOf are the process's numbers in the pid namespace that /proc is of, and in
// each of those below down to its own.
func pidsOf(pidfd int) ([]string, error) {
	value, err := pidfdInfo(pidfd, "NSpid:")
	pids := strings.Fields(value)
	if err == nil && (len(pids) == 0 || pids[0] == "-1" || pids[0] == "0") {
		err = errEnded
	}
	return pids, err
}

// pidfdInfo is what the kernel says of a pidfd under a heading.
func pidfdInfo(pidfd int, heading string) (string, error) {
	text, err := readProc("/proc/self/fdinfo/" + strconv.Itoa(pidfd))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, heading); ok {
			return value, nil
		}
	}
	return "", fmt.Errorf("descriptor %d is not a pidfd", pidfd)
}

// StartOf is when the process began, in clock ticks since the machine did: with its
// number that is nobody else's (proc_pid_stat(5), field 22). It fails where /proc
// does not show the process.
func StartOf(pidfd int) (ticks uint64, err error) {
	pid, err := PIDOf(pidfd)
	if err != nil {
		return 0, err
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text[max(0, strings.LastIndex(string(text), ")")):]), " ") // its name may have any character
	fields := strings.Fields(rest)
	const starttime = 22 - 3 // the third field is the first behind the name
	if len(fields) <= starttime {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields behind the name", pid, len(fields))
	}
	return strconv.ParseUint(fields[starttime], 10, 64)
}

var errEnded = errors.New("the process has ended")

// A NSID identifies a namespace as long as somebody keeps it alive.
type NSID struct{ Dev, Ino uint64 }

// UserNS identifies the user namespace of a process.
func UserNS(pidfd int) (NSID, error) { return nsOf(pidfd, unix.CLONE_NEWUSER) }

// NetNS identifies the network namespace of a process.
func NetNS(pidfd int) (NSID, error) { return nsOf(pidfd, unix.CLONE_NEWNET) }

func nsOf(pidfd, kind int) (NSID, error) {
	fd, err := openNS(pidfd, kind)
	if err != nil {
		return NSID{}, err
	}
	defer unix.Close(fd)
	return nsID(fd)
}

func nsID(fd int) (NSID, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return NSID{}, fmt.Errorf("stat namespace: %w", err)
	}
	return NSID{Dev: st.Dev, Ino: st.Ino}, nil
}

// The kinds of namespaces we ask for.
var nsKinds = map[int]struct {
	file  string
	ioctl int // PIDFD_GET_…_NAMESPACE, Linux 6.11
}{
	unix.CLONE_NEWUSER: {"user", unix.PIDFD_GET_USER_NAMESPACE},
	unix.CLONE_NEWNET:  {"net", unix.PIDFD_GET_NET_NAMESPACE},
}

// openNS opens a namespace of the process. Before Linux 6.11 it goes through
// /proc/PID, where PID may be another process by now; if the one we hold is
// alive afterwards it was not.
func openNS(pidfd, kind int) (int, error) {
	k := nsKinds[kind]
	fd, err := unix.IoctlRetInt(pidfd, uint(k.ioctl))
	if err == nil {
		return fd, nil
	}
	if err == unix.ESRCH {
		return -1, errEnded
	} else if err == unix.EACCES {
		return -1, fmt.Errorf("open its %s namespace: %w", k.file, err)
	}
	return openNSByProc(pidfd, k.file)
}

func openNSByProc(pidfd int, file string) (int, error) {
	pid, err := PIDOf(pidfd)
	if err != nil {
		return -1, err
	}
	path := fmt.Sprintf("/proc/%d/ns/%s", pid, file)
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	if alive, err := PIDFDAlive(pidfd); err != nil || !alive {
		unix.Close(fd)
		return -1, errEnded
	}
	return fd, nil
}

// openForeignNS opens a namespace of the process for joining; fd is -1 when we
// are in it already, because joining one's own user namespace is refused.
func openForeignNS(pidfd, kind int) (namespace, error) {
	fd, err := openNS(pidfd, kind)
	if err != nil {
		return namespace{fd: -1}, err
	}
	same, err := isOurNS(fd, kind)
	if err != nil || same {
		unix.Close(fd)
		return namespace{fd: -1}, err
	}
	return namespace{fd: fd, kind: kind}, nil
}

// isOurNS reports whether fd is the namespace this process is in.
func isOurNS(fd, kind int) (bool, error) {
	self, err := OpenPID(os.Getpid())
	if err != nil {
		return false, err
	}
	defer unix.Close(self)
	ours, err1 := nsOf(self, kind)
	its, err2 := nsID(fd)
	return ours == its, errors.Join(err1, err2)
}
