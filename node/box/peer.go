package box

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// SamePeer refuses whoever connected the unix socket fd unless his uid, his pid
// namespace and his user namespace are ours. A container of the same user has
// our uid too; what tells it apart are its namespaces.
//
// Whoever is confined by Landlock may not trace processes outside, and so may not
// open their namespaces to compare them. What can be seen of everybody: in how
// many pid namespaces a process is, one within the other, and what ids its user
// namespace maps to which. Every container has a pid namespace of its own. Who
// has ours and another user namespace has other maps, unless somebody with rights
// over each of our ids has mapped all of them to themselves for him.
func SamePeer(fd int) error { return samePeer(fd, os.Geteuid()) }

func samePeer(fd, uid int) error {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return fmt.Errorf("ask for the peer's credentials: %w", err)
	}
	if int(cred.Uid) != uid {
		return fmt.Errorf("refused: peer is process %d of uid %d, this node serves uid %d only", cred.Pid, cred.Uid, uid)
	}
	pidfd, err := peerPIDFD(fd, int(cred.Pid))
	if err != nil {
		return fmt.Errorf("refused: peer of uid %d: %w", cred.Uid, err)
	}
	defer unix.Close(pidfd)
	if same, err := sharesNamespaces(pidfd); err != nil {
		return fmt.Errorf("refused: peer is process %d: %w", cred.Pid, err)
	} else if !same {
		return fmt.Errorf("refused: peer is process %d of another pid or user namespace (a container?), this node serves its own only", cred.Pid)
	}
	// Whoever connected and handed the socket on could have made room for a
	// better process under his number; then the pidfd shows an end.
	if alive, err := PIDFDAlive(pidfd); err != nil || !alive {
		return fmt.Errorf("refused: peer, process %d, has ended", cred.Pid)
	}
	return nil
}

// Peer returns a pidfd of the process that connected the unix socket fd, the
// caller's to close.
func Peer(fd int) (int, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return -1, fmt.Errorf("ask for the peer's credentials: %w", err)
	}
	return peerPIDFD(fd, int(cred.Pid))
}

// peerPIDFD returns a pidfd of the process that connected. Before Linux 6.5
// (SO_PEERPIDFD) there is only its number, which somebody else may have by
// now: the best that can be asked is that nothing changes while we look.
func peerPIDFD(fd, pid int) (int, error) {
	pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if err == nil {
		unix.CloseOnExec(pidfd)
		return pidfd, nil
	}
	if !errors.Is(err, unix.ENOPROTOOPT) { // ESRCH, EINVAL before 6.16: it has ended
		return -1, errEnded
	}
	if pid == 0 {
		return -1, errors.New("a process of another pid namespace")
	}
	return OpenPID(pid)
}

// sharesNamespaces reports whether a process is in our pid and user namespace.
func sharesNamespaces(pidfd int) (bool, error) {
	self, err := OpenPID(os.Getpid())
	if err != nil {
		return false, err
	}
	defer unix.Close(self)
	ours, err := pidsOf(self)
	if err != nil {
		return false, err
	}
	its, err := pidsOf(pidfd)
	if err != nil || len(its) != len(ours) {
		return false, err
	}
	for _, name := range []string{"uid_map", "gid_map"} {
		ours, err := os.ReadFile("/proc/self/" + name)
		if err != nil {
			return false, err
		}
		its, err := os.ReadFile(fmt.Sprintf("/proc/%s/%s", its[0], name))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			return false, errEnded
		}
		if err != nil || !bytes.Equal(ours, its) {
			return false, err
		}
	}
	return true, nil
}
