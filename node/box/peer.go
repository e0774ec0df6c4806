package box

import (
	"errors"
	"fmt"
	"os"
	"sync"

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
//
// It returns the number of the process that connected.
func SamePeer(fd int) (pid int, err error) { return samePeer(fd, os.Geteuid()) }

func samePeer(fd, uid int) (int, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, fmt.Errorf("ask for the peer's credentials: %w", err)
	}
	if int(cred.Uid) != uid {
		return 0, fmt.Errorf("refused: peer is process %d of uid %d, this node serves uid %d only", cred.Pid, cred.Uid, uid)
	}
	pidfd, err := peerPIDFD(fd, int(cred.Pid))
	if err != nil {
		return 0, fmt.Errorf("refused: peer of uid %d: %w", cred.Uid, err)
	}
	defer unix.Close(pidfd)
	if same, err := sharesNamespaces(pidfd); err != nil {
		return 0, fmt.Errorf("refused: peer is process %d: %w", cred.Pid, err)
	} else if !same {
		return 0, fmt.Errorf("refused: peer is process %d of another pid or user namespace (a container?), this node serves its own only", cred.Pid)
	}
	// Whoever connected and handed the socket on could have made room for a
	// better process under his number; then the pidfd shows an end.
	if alive, err := PIDFDAlive(pidfd); err != nil || !alive {
		return 0, fmt.Errorf("refused: peer, process %d, has ended", cred.Pid)
	}
	return int(cred.Pid), nil
}

// PeerNumber returns the number of the process that connected the unix socket fd, as the
// kernel has it: another may have it by now. It is 0 for one of another pid namespace that
// is not inside of ours.
func PeerNumber(fd int) int {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0
	}
	return int(cred.Pid)
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
	ours, err := ourNamespaces()
	if err != nil {
		return false, err
	}
	its, err := pidsOf(pidfd)
	if err != nil || len(its) != ours.depth {
		return false, err
	}
	maps, err := readIDMaps(its[0])
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return false, errEnded
	}
	return err == nil && maps == ours.maps, err
}

// namespaces are what everybody sees of those of a process.
type namespaces struct {
	depth int       // how many pid namespaces it is in, one within the other
	maps  [2]string // uid_map and gid_map of its user namespace
}

// ourNamespaces are ours. They do not change, and peers may knock often.
var ourNamespaces = sync.OnceValues(func() (n namespaces, err error) {
	self, err := OpenPID(os.Getpid())
	if err != nil {
		return n, err
	}
	defer unix.Close(self)
	pids, err := pidsOf(self)
	if err != nil {
		return n, err
	}
	n.depth = len(pids)
	n.maps, err = readIDMaps("self")
	return n, err
})

// readIDMaps are the id maps of a process of that number, or self.
func readIDMaps(pid string) (maps [2]string, err error) {
	for i, name := range []string{"uid_map", "gid_map"} {
		if maps[i], err = readProc("/proc/" + pid + "/" + name); err != nil {
			return maps, err
		}
	}
	return maps, nil
}

// maxProc is more than the longest of what is read: 340 lines of an id map.
const maxProc = 16 << 10

// readProc reads a small file of /proc, in the three calls that takes.
func readProc(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	buf := make([]byte, maxProc)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return "", &os.PathError{Op: "read", Path: path, Err: err}
	}
	return string(buf[:n]), nil
}
