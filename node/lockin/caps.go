package lockin

import (
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// kept is the capability that stays where the node has it. It is not needed:
// without it, ports below 1024 are to be bound by somebody else.
const kept = unix.CAP_NET_BIND_SERVICE

// keptHidden stays besides where /proc is mounted with hidepid: there the kernel
// shows a process only to who may trace it, and the control socket has to look
// at its peers.
const keptHidden = unix.CAP_SYS_PTRACE

// dropCapabilities gives up all but those that are kept, in all sets, and returns the
// names of those that are left.
func dropCapabilities(hidden bool) (left []string, err error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&header, &have[0]); err != nil {
		return nil, fmt.Errorf("ask for our capabilities: %w", err)
	}
	has := func(set [2]uint32, c int) bool { return set[c/32]&(1<<(c%32)) != 0 }
	effective := [2]uint32{have[0].Effective, have[1].Effective}
	var want [2]unix.CapUserData
	keep := func(c int, name string) {
		if has(effective, c) {
			want[c/32].Effective |= 1 << (c % 32)
			left = append(left, name)
		}
	}
	keep(kept, "CAP_NET_BIND_SERVICE")
	if hidden {
		keep(keptHidden, "CAP_SYS_PTRACE")
	}
	want[0].Permitted, want[1].Permitted = want[0].Effective, want[1].Effective
	if has(effective, unix.CAP_SETPCAP) { // else the set is not ours to change, and nothing is executed anyway
		if err := emptyBoundingSet(want); err != nil {
			return left, err
		}
	}
	if err := everywhere(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0); err != nil {
		return left, fmt.Errorf("give up ambient capabilities: %w", err)
	}
	_, _, errno := psx.Syscall3(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&want[0])), 0)
	if errno != 0 {
		return left, fmt.Errorf("give up capabilities: %w", os.NewSyscallError("capset", errno))
	}
	return left, nil
}

// emptyBoundingSet takes all but those of want out of it.
func emptyBoundingSet(want [2]unix.CapUserData) error {
	for c := 0; ; c++ {
		is, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0)
		if err != nil {
			return nil // EINVAL: beyond the kernel's last one
		}
		if is == 0 || want[c/32].Effective&(1<<(c%32)) != 0 {
			continue
		}
		if err := everywhere(unix.PR_CAPBSET_DROP, uintptr(c), 0); err != nil {
			return fmt.Errorf("take capability %d out of the bounding set: %w", c, err)
		}
	}
}

// hidesProcesses reports whether /proc shows only what one may trace (hidepid= in
// proc(5)).
func hidesProcesses() bool {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	hidden := false
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) > 4 && f[4] == "/proc" { // the last one is the one that is seen
			options := "," + f[len(f)-1]
			hidden = strings.Contains(options, ",hidepid=") && !strings.Contains(options, ",hidepid=off") && !strings.Contains(options, ",hidepid=0")
		}
	}
	return hidden
}
