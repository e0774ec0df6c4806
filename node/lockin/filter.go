package lockin

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// HasSeccomp reports whether the kernel has filters of system calls.
func HasSeccomp() bool {
	action := uint32(unix.SECCOMP_RET_ERRNO)
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	return errno == 0
}

// filterCalls has the kernel ask the filter before each system call, on all
// threads (TSYNC), and note in its audit what is refused (LOG).
func filterCalls(mode Mode) error {
	filter, err := assemble(mode, os.Getpid())
	if err != nil {
		return err
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	thread, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC|unix.SECCOMP_FILTER_FLAG_LOG, uintptr(unsafe.Pointer(&prog)))
	switch {
	case errno != 0:
		return fmt.Errorf("filter system calls: %w", os.NewSyscallError("seccomp", errno))
	case thread != 0: // which has another filter already (seccomp(2), TSYNC)
		return fmt.Errorf("filter system calls: thread %d does not take the filter", thread)
	}
	return nil
}

// What becomes of a call: SECCOMP_RET_… of seccomp(2), errors with their number.
const (
	allow   = unix.SECCOMP_RET_ALLOW
	kill    = unix.SECCOMP_RET_KILL_PROCESS
	unknown = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS) // as if the kernel had no such call
	refuse  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	trap    = unix.SECCOMP_RET_TRAP
)

// Where struct seccomp_data has what is asked about (linux/seccomp.h). Of
// arguments the lower word is looked at: those that are looked at are ints.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

// assemble writes the filter. The kernel runs it once for each call that is
// allowed whatever its arguments are, and remembers; so the calls that carry
// frames cost nothing (kernel/seccomp.c, the action cache of Linux 5.11).
func assemble(mode Mode, pid int) ([]unix.SockFilter, error) {
	otherwise, no := uint32(unknown), uint32(refuse)
	if mode == Strict {
		otherwise, no = trap, trap
	}
	code := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: arch, SkipTrue: 1},
		bpf.RetConstant{Val: kill},
		bpf.LoadAbsolute{Off: offNumber, Size: 4},
		// x86-64 has every call a second time beyond this bit (x32).
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: 0x40000000, SkipTrue: 1},
		bpf.RetConstant{Val: kill},
	}
	on := func(number uintptr, then []bpf.Instruction) {
		code = append(code, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(number), SkipTrue: uint8(len(then))})
		code = append(code, then...)
	}
	for _, c := range allowed() {
		then := []bpf.Instruction{bpf.RetConstant{Val: allow}}
		if c.only != nil {
			then = c.only(pid, no)
		}
		on(c.number, then)
	}
	for _, number := range absent() {
		on(number, []bpf.Instruction{bpf.RetConstant{Val: unknown}})
	}
	for _, number := range hostile() {
		on(number, []bpf.Instruction{bpf.RetConstant{Val: kill}})
	}
	code = append(code, bpf.RetConstant{Val: otherwise})
	raw, err := bpf.Assemble(code)
	if err != nil {
		return nil, fmt.Errorf("assemble the filter of system calls: %w", err)
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return filter, nil
}

// A condition is what a call's arguments have to be: instructions that end in a
// verdict. no is that of an argument that is merely not on the list.
type condition func(pid int, no uint32) []bpf.Instruction

func argument(i int) bpf.Instruction { return bpf.LoadAbsolute{Off: uint32(offArgs + 8*i), Size: 4} }

// oneOf allows certain values of an argument.
func oneOf(i int, values ...uint32) condition {
	return func(_ int, no uint32) []bpf.Instruction {
		code := []bpf.Instruction{argument(i)}
		for _, v := range values {
			code = append(code, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: v, SkipTrue: 1}, bpf.RetConstant{Val: allow})
		}
		return append(code, bpf.RetConstant{Val: no})
	}
}

// neither ends the process where an argument has one of these bits.
func neither(i int, bits uint32) condition {
	return func(int, uint32) []bpf.Instruction {
		return []bpf.Instruction{argument(i),
			bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: bits, SkipFalse: 1}, bpf.RetConstant{Val: kill}, bpf.RetConstant{Val: allow}}
	}
}

// aThread allows a new thread, and ends the process for a new process.
func aThread(int, uint32) []bpf.Instruction {
	return []bpf.Instruction{argument(0),
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.CLONE_THREAD, SkipTrue: 1}, bpf.RetConstant{Val: kill},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: newNamespace, SkipFalse: 1}, bpf.RetConstant{Val: kill}, bpf.RetConstant{Val: allow}}
}

// newNamespace are the flags of clone(2) that make one.
const newNamespace = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// ourThreads allows signals to threads of this process, which is how the
// runtime has goroutines yield.
func ourThreads(pid int, no uint32) []bpf.Instruction { return oneOf(0, uint32(pid))(pid, no) }

// ourselves allows a descriptor of this process. Before SO_PEERPIDFD a peer of the
// control socket is known by its number alone, and so any process is allowed; since
// then a node gets hold of those only that are handed in or connect to it.
func ourselves(pid int, no uint32) []bpf.Instruction {
	if !hasPeerPIDFD() {
		return []bpf.Instruction{bpf.RetConstant{Val: allow}}
	}
	return oneOf(0, uint32(pid))(pid, no)
}

// hasPeerPIDFD reports whether the kernel says which process a peer is (Linux 6.5).
func hasPeerPIDFD() bool {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	fd, err := unix.GetsockoptInt(pair[0], unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if err != nil {
		return false
	}
	_ = unix.Close(fd)
	return true
}

// familiar allows sockets of the families containers are connected by, and of
// netlink those that tell of addresses and routes. A unix socket could be connected
// to whatever service of this machine listens on one; see channelsOnly.
func familiar(_ int, no uint32) []bpf.Instruction {
	code := []bpf.Instruction{argument(0)}
	for _, family := range []uint32{unix.AF_INET, unix.AF_INET6} {
		code = append(code, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: family, SkipTrue: 1}, bpf.RetConstant{Val: allow})
	}
	return append(code, bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_NETLINK, SkipTrue: 1}, bpf.RetConstant{Val: no},
		argument(2),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.NETLINK_ROUTE, SkipTrue: 1}, bpf.RetConstant{Val: no}, bpf.RetConstant{Val: allow})
}

// channelsOnly allows pairs of the type that channels are of. A filter does not see
// where connect(2) leads, but who is connected already is refused by a socket that
// keeps its connection; one for datagrams could be led elsewhere (unix_dgram_connect
// in net/unix/af_unix.c).
func channelsOnly(_ int, no uint32) []bpf.Instruction {
	return []bpf.Instruction{argument(0),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_UNIX, SkipTrue: 1}, bpf.RetConstant{Val: no},
		argument(1), bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xf}, // SOCK_TYPE_MASK of linux/net.h, the rest are flags
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SOCK_SEQPACKET, SkipTrue: 1}, bpf.RetConstant{Val: no}, bpf.RetConstant{Val: allow}}
}
