package box

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// SamePeer refuses whoever connected the unix socket fd unless his uid and his
// user namespace are ours. A container of the same user has our uid too; what
// tells it apart is the user namespace.
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
	ns, err := openNS(pidfd, unix.CLONE_NEWUSER)
	if err != nil {
		return fmt.Errorf("refused: peer is process %d: %w", cred.Pid, err)
	}
	defer unix.Close(ns)
	if same, err := isOurNS(ns, unix.CLONE_NEWUSER); err != nil {
		return err
	} else if !same {
		return fmt.Errorf("refused: peer is process %d of another user namespace (a container?), this node serves its own only", cred.Pid)
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
