package box

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// LentRights reports whether the process is a plain user's and has capabilities
// all the same, as `setpriv --ambient-caps` lends them for one command.
func LentRights() (bool, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&header, &caps[0]); err != nil {
		return false, fmt.Errorf("ask for our capabilities: %w", err)
	}
	return unix.Geteuid() != 0 && caps[0].Permitted|caps[1].Permitted != 0, nil
}

// ReturnRights gives all capabilities back, those of every thread: whoever asks
// after the process sees the first one. It works in a program without C.
func ReturnRights() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none)), 0)
	if errno != 0 {
		return fmt.Errorf("give back our capabilities: %w", errno)
	}
	return nil
}
