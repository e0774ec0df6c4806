//go:build cgo

package lockin

import "golang.org/x/sys/unix"

// ofC are calls of a program with a C library, as one with the race detector is.
// A node that `make` built has none.
func ofC() []call {
	return []call{
		{name: "set_robust_list", number: unix.SYS_SET_ROBUST_LIST, why: "threads of the C library"},
		{name: "rseq", number: unix.SYS_RSEQ, why: "threads of the C library"},
		{name: "clock_nanosleep", number: unix.SYS_CLOCK_NANOSLEEP, why: "the race detector's own thread"},
		{name: "brk", number: unix.SYS_BRK, why: "memory of the C library"},
		{name: "mprotect", number: unix.SYS_MPROTECT, why: "stacks of the C library's threads", only: neither(2, unix.PROT_EXEC)},
		{name: "mremap", number: unix.SYS_MREMAP, why: "memory of the C library"},
	}
}
