// Package relay has the relays fairlead is measured against: the least a program
// can do between two TAPs, or between a TAP and sockets, and what programs in the
// books do.
//
// None is a switch: they join exactly two ends and have no table that ages,
// no guard, no counters by reason. They count frames and bytes, so that a
// measurement can prove that the traffic came this way.
package relay

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Crossed counts what a relay wrote. Anybody may read it meanwhile.
type Crossed struct{ Frames, Bytes atomic.Uint64 }

// drain is how many frames one port may have relayed before the other gets its
// turn.
const drain = 64

// call reads or writes without telling the Go scheduler: neither call waits.
func call(number uintptr, fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(number, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return int(n), errno
}
