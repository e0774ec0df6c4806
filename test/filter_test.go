package test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A forbidden is a system call a kernel does not know, or a sandbox does not
// let through.
type forbidden struct {
	call   uintptr
	args   []argument
	answer unix.Errno
}

// An argument is of a forbidden call if what is left under the mask is value,
// or anything at all if that is 0.
type argument struct {
	n     int
	mask  uint32
	value uint32
}

// sandboxes are what a program may be put into, by name.
var sandboxes = map[string][]forbidden{
	// As Docker's default profile for whoever has no CAP_SYS_ADMIN.
	"no-namespaces": {
		{unix.SYS_CLONE, []argument{{0, unix.CLONE_NEWUSER, 0}}, unix.EPERM},
		{unix.SYS_CLONE3, nil, unix.ENOSYS},
		{unix.SYS_UNSHARE, nil, unix.EPERM},
	},
	"no-mounts":        {{unix.SYS_MOUNT, nil, unix.EPERM}},
	"no-pidfd":         {{unix.SYS_PIDFD_OPEN, nil, unix.ENOSYS}},
	"no-peer-pidfd":    {{unix.SYS_GETSOCKOPT, []argument{{2, ^uint32(0), unix.SO_PEERPIDFD}}, unix.ENOPROTOOPT}},
	"no-interface":     {{unix.SYS_IOCTL, []argument{{1, ^uint32(0), unix.TUNSETIFF}}, unix.EPERM}},
	"no-uso":           {{unix.SYS_IOCTL, []argument{{1, ^uint32(0), unix.TUNSETOFFLOAD}, {2, unix.TUN_F_USO4 | unix.TUN_F_USO6, 0}}, unix.EINVAL}},
	"no-offloads":      {{unix.SYS_IOCTL, []argument{{1, ^uint32(0), unix.TUNSETOFFLOAD}, {2, ^uint32(0), 0}}, unix.EINVAL}},
	"no-nowait":        {{unix.SYS_PWRITEV2, []argument{{5, unix.RWF_NOWAIT, 0}}, unix.EOPNOTSUPP}},
	"no-peek-offset":   {{unix.SYS_SETSOCKOPT, []argument{{1, ^uint32(0), unix.SOL_SOCKET}, {2, ^uint32(0), unix.SO_PEEK_OFF}}, unix.EOPNOTSUPP}},
	"no-udp-offload":   {{unix.SYS_SETSOCKOPT, []argument{{1, ^uint32(0), unix.SOL_UDP}}, unix.ENOPROTOOPT}},
	"no-route-netlink": {{unix.SYS_SOCKET, []argument{{0, ^uint32(0), unix.AF_NETLINK}}, unix.EAFNOSUPPORT}},
}

// filter runs a program in a sandbox: filter SANDBOX COMMAND ARG...
func filter(args []string) error {
	if len(args) < 2 || sandboxes[args[0]] == nil {
		return fmt.Errorf("filter: no such sandbox or no command: %q", args)
	}
	path, err := exec.LookPath(args[1])
	if err != nil {
		return err
	}
	program := seccomp(sandboxes[args[0]])
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	runtime.LockOSThread() // a filter is its thread's, and execve keeps that of the one that calls it
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0); err != nil {
		return fmt.Errorf("install a seccomp filter: %w", err)
	}
	return errors.Join(errors.New("filter"), syscall.Exec(path, args[1:], os.Environ()))
}

// seccomp is the program of a filter (struct seccomp_data of linux/seccomp.h;
// of each argument the lower half, on machines that have it first).
func seccomp(list []forbidden) []unix.SockFilter {
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	var program []unix.SockFilter
	for _, f := range list {
		// Each test that does not hold jumps over the rest of its rule, which is
		// as long as what has been gathered so far behind it.
		rule := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(f.answer)}}
		for _, a := range slices.Backward(f.args) {
			hold, skip := uint8(0), uint8(len(rule))
			if a.value == 0 {
				hold, skip = skip, hold
			}
			rule = append([]unix.SockFilter{
				load(16 + 8*uint32(a.n)),
				{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: a.mask},
				{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: a.value, Jt: hold, Jf: skip},
			}, rule...)
		}
		rule = append([]unix.SockFilter{
			load(0),
			{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(f.call), Jf: uint8(len(rule))},
		}, rule...)
		program = append(program, rule...)
	}
	return append(program, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
}
