package box

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"fairlead/link"
	"fairlead/packet"
)

// What `fairlead doctor` finds out by trying it.

// A Trial is what came of a container that was made and ended before it ran
// anything.
type Trial struct {
	Proc error // why its /proc is not its own, nil if it is
	Sys  error

	// Of its TAP, if it was to have one.
	Offload link.Offload
	Nowait  bool // reads and writes can be kept from waiting, whoever has a copy of the descriptor
}

// Try makes a container as Start does, with a TAP or without, and ends it.
func Try(withTAP bool) (*Trial, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	spec := &Spec{ID: "doctor", Args: []string{"true"}, Network: NetworkNone}
	if withTAP {
		spec.Network = NetworkOwn
		spec.Interface = &Interface{Name: "eth0", MAC: packet.MAC{0x02, 0x42}}
	}
	b, err := Start(spec, [3]*os.File{null, null, null})
	if err != nil {
		return nil, err
	}
	defer b.kill()
	trial := &Trial{}
	for _, w := range b.Warnings {
		if why, ok := strings.CutPrefix(w, procKept); ok {
			trial.Proc = errors.New(why)
		} else if why, ok := strings.CutPrefix(w, sysKept); ok {
			trial.Sys = errors.New(why)
		}
	}
	if !withTAP {
		return trial, nil
	}
	tap, err := link.AdoptTAP(b.TAP)
	if err != nil {
		return nil, err
	}
	trial.Offload = tap.Offload()
	// One byte is too short for a frame, EINVAL, unless the flag is unknown.
	_, err = unix.Pwritev2(b.TAP, [][]byte{{0}}, -1, unix.RWF_NOWAIT)
	trial.Nowait = !errors.Is(err, unix.EOPNOTSUPP)
	return trial, nil
}

// A TUN is what stands where the TUN device should.
type TUN struct {
	Err    error // of opening it
	Device bool  // it is the TUN device
	Mode   fs.FileMode
	Owner  string // uid and gid

	NoDevices bool // its mount has none (nodev)

	NoCarrier bool // IFF_NO_CARRIER is known
}

// LookTUN looks at the device and opens it.
func LookTUN(path string) *TUN {
	t := &TUN{}
	info, err := os.Stat(path)
	if err != nil {
		t.Err = err
		return t
	}
	t.Mode = info.Mode().Perm()
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		t.Device = st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(10, 200)
		t.Owner = fmt.Sprintf("%d:%d", st.Uid, st.Gid)
	}
	var mount unix.Statfs_t
	t.NoDevices = unix.Statfs(path, &mount) == nil && mount.Flags&unix.MS_NODEV != 0
	if !t.Device {
		return t // what opening it does, only its driver knows
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Err = &os.PathError{Op: "open", Path: path, Err: err}
		return t
	}
	defer unix.Close(fd)
	features, err := unix.IoctlGetUint32(fd, unix.TUNGETFEATURES)
	t.NoCarrier = err == nil && features&unix.IFF_NO_CARRIER != 0
	return t
}

// A Feature is something of the kernel that not every one has.
type Feature struct {
	Name    string
	Since   string // the first Linux that has it
	Without string // what is less without it; empty: nothing works
	Err     error  // nil: it is there
}

// Basics asks for what starts and watches processes.
func Basics() []Feature {
	return try([]attempt{
		{Feature{Name: "pidfd_open", Since: "5.3"}, func() error {
			fd, err := unix.PidfdOpen(os.Getpid(), 0)
			if err == nil {
				unix.Close(fd)
			}
			return err
		}},
		// Of a range without descriptors.
		{Feature{Name: "close_range", Since: "5.11"}, func() error {
			return unix.CloseRange(1<<31-1, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC)
		}},
		{Feature{Name: "SO_PEERPIDFD", Since: "6.5", Without: "who speaks to the node is known by a process number, which is a little less certain"}, func() error {
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer closeAll(pair[:])
			fd, err := unix.GetsockoptInt(pair[0], unix.SOL_SOCKET, unix.SO_PEERPIDFD)
			if err == nil {
				unix.Close(fd)
			}
			return err
		}},
	})
}

// SocketFeatures asks for what makes host sockets a fast way out.
func SocketFeatures() []Feature {
	option := func(kind, level, name, value int) func() error {
		return func() error {
			fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.SetsockoptInt(fd, level, name, value)
		}
	}
	const slower = "datagrams cross one at a time, which is slower"
	return try([]attempt{
		{Feature{Name: "SO_PEEK_OFF of TCP", Since: "6.9", Without: "what comes by TCP is copied more than once, which is slower over long ways"},
			option(unix.SOCK_STREAM, unix.SOL_SOCKET, unix.SO_PEEK_OFF, 0)},
		{Feature{Name: "UDP_SEGMENT", Since: "4.18", Without: slower}, option(unix.SOCK_DGRAM, unix.SOL_UDP, unix.UDP_SEGMENT, 1200)},
		{Feature{Name: "UDP_GRO", Since: "5.0", Without: slower}, option(unix.SOCK_DGRAM, unix.SOL_UDP, unix.UDP_GRO, 1)},
	})
}

type attempt struct {
	Feature
	try func() error
}

func try(attempts []attempt) []Feature {
	var list []Feature
	for _, a := range attempts {
		a.Err = a.try()
		list = append(list, a.Feature)
	}
	return list
}

// TryPing opens a ping socket, which takes a group in net.ipv4.ping_group_range.
func TryPing() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// TryPort takes a TCP port of this host for a moment, without listening. That
// somebody else has it is fine: who may not is told first.
func TryPort(port int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = unix.Bind(fd, &unix.SockaddrInet4{Port: port})
	if errors.Is(err, unix.EADDRINUSE) {
		return nil
	}
	return err
}

// Kernel is the release of the kernel, such as 6.1.0-18-amd64.
func Kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "of unknown release"
	}
	return unix.ByteSliceToString(u.Release[:])
}
