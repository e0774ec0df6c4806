package main

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"fairlead/node/api"
	"fairlead/node/box"
)

// openWithRights opens the interfaces that uplinks are on, for a plain user who
// was lent CAP_NET_RAW for that (setpriv --ambient-caps), and gives the right
// back. A node has none, and answers nobody who has more rights than it: so all
// is opened before anybody is asked. For everybody else it does nothing; the
// caller closes what is opened.
func openWithRights(specs []*api.UplinkSpec) (opened map[string]*box.Uplink, err error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&header, &caps[0]); err != nil {
		return nil, fmt.Errorf("ask for our capabilities: %w", err)
	}
	if os.Geteuid() == 0 || caps[0].Permitted|caps[1].Permitted == 0 {
		return nil, nil
	}
	opened = make(map[string]*box.Uplink)
	for _, s := range specs {
		if s.Kind != "if" {
			continue
		}
		if opened[s.Name], err = openUplink(s); err != nil {
			delete(opened, s.Name)
			closeUplinks(opened)
			return nil, err
		}
	}
	// Of every thread: whoever asks after us sees the first one. What is ambient
	// goes along.
	var none [2]unix.CapUserData
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none)), 0)
	if errno != 0 {
		closeUplinks(opened)
		return nil, fmt.Errorf("give back our capabilities: %w", errno)
	}
	return opened, nil
}

func closeUplinks(opened map[string]*box.Uplink) {
	for _, u := range opened {
		u.Close()
	}
}
