package link

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Offload says what the reader of a TAP takes unfinished: the TUN_F bits of
// linux/if_tun.h. It limits what the kernel hands over, not what may be
// written: any TAP takes GSO frames and partial checksums.
type Offload uint32

const (
	OffloadChecksum Offload = unix.TUN_F_CSUM // checksums; the others need it
	OffloadTSO4     Offload = unix.TUN_F_TSO4
	OffloadTSO6     Offload = unix.TUN_F_TSO6
	OffloadECN      Offload = unix.TUN_F_TSO_ECN // TCP segments with CWR; needs a TSO

	// OffloadUSO is trains of UDP datagrams, Linux 6.2. IPv4 and IPv6 go
	// together only (set_offload in tun.c).
	OffloadUSO Offload = unix.TUN_F_USO4 | unix.TUN_F_USO6

	OffloadTCP = OffloadChecksum | OffloadTSO4 | OffloadTSO6 | OffloadECN
	OffloadAll = OffloadTCP | OffloadUSO
)

var offloadNames = []struct {
	bits Offload
	name string
}{
	{OffloadChecksum, "csum"},
	{OffloadTSO4, "tso4"},
	{OffloadTSO6, "tso6"},
	{OffloadECN, "ecn"},
	{OffloadUSO, "uso"},
}

// String lists the offloads, "csum,tso4,tso6,ecn,uso", or is "none".
func (o Offload) String() string {
	var names []string
	for _, n := range offloadNames {
		if o&n.bits == n.bits {
			names = append(names, n.name)
			o &^= n.bits
		}
	}
	if o != 0 {
		names = append(names, fmt.Sprintf("%#x", uint32(o)))
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ",")
}

// offloadOf is what a packet socket takes with a kernel of that release. It cannot
// be asked but by sending. What virtio-net headers say of trains of datagrams Linux
// has learned with 6.2, like TAPs.
func offloadOf(release string) Offload {
	var major, minor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n < 2 || major < 6 || major == 6 && minor < 2 {
		return OffloadTCP
	}
	return OffloadAll
}

// release is that of the kernel, such as 6.1.0-18-amd64.
func release() string {
	var u unix.Utsname
	_ = unix.Uname(&u) // an empty one is of an old kernel
	return unix.ByteSliceToString(u.Release[:])
}

// mostOffload sets as much as the kernel knows and returns what that is. The
// kernel answers EINVAL to a set with a bit it does not know.
func mostOffload(set func(Offload) error) (Offload, error) {
	var err error
	for _, o := range []Offload{OffloadAll, OffloadTCP, 0} {
		if err = set(o); !errors.Is(err, unix.EINVAL) {
			return o, err
		}
	}
	return 0, err
}
