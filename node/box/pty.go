package box

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// OpenPTY opens a pair of pseudo terminals in the caller's /dev/pts. The slave
// is for a command's stdio; nobody controls it yet.
func OpenPTY() (master, slave *os.File, err error) {
	const path = "/dev/ptmx"
	m, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open a terminal: %w", &os.PathError{Op: "open", Path: path, Err: err})
	}
	if err := unix.IoctlSetPointerInt(m, unix.TIOCSPTLCK, 0); err != nil {
		unix.Close(m)
		return nil, nil, fmt.Errorf("unlock a terminal: %w", err)
	}
	// Not by its name, which may be another's in this mount namespace.
	s, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(m), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		unix.Close(m)
		return nil, nil, fmt.Errorf("open a terminal's other side: %w", errno)
	}
	return os.NewFile(uintptr(m), path), os.NewFile(s, "terminal"), nil
}
