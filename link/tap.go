package link

import (
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"

	"fairlead/packet"

	"golang.org/x/sys/unix"
)

const device = "/dev/net/tun"

// tapFlags are those of a device a TAP can be: no four bytes of packet
// information in front of a frame, but the virtio-net header.
const tapFlags = unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR

// refusedFlags are those of a device no queue can be. With IFF_NAPI what is
// written waits in a queue that only TUNSETSNDBUF bounds, at the kernel's
// memory: 200,000 frames of 60 bytes were 121 MB.
const refusedFlags = unix.IFF_NAPI | unix.IFF_NAPI_FRAGS

// A TAP is the offloaded queue of a TAP device. Its frames carry their
// virtio-net header from one TAP to the other, so the kernel neither cuts nor
// sums what stays on this machine.
//
// ReadBatch is for one goroutine, WriteBatch for any number (tun_get_user
// without IFF_NAPI has no state they share). See the package comment.
type TAP struct {
	*tun
	offload atomic.Uint32
}

// A TAPConfig says what to create.
type TAPConfig struct {
	// Name of the interface, at most 15 bytes; empty for the next free tapN. An
	// existing persistent TAP of that name is opened again.
	Name string
	// Persist keeps the interface when the descriptor is closed.
	Persist bool
}

// CreateTAP makes a TAP device in the network namespace of the calling thread,
// down and without carrier, and opens it. It needs CAP_NET_ADMIN in that
// namespace.
//
// The descriptor pins the namespace: it does not end while the TAP is open,
// unless the device is moved into another.
func CreateTAP(cfg TAPConfig) (*TAP, error) {
	// A kernel that does not know IFF_NO_CARRIER ignores it, hence SetCarrier
	// below; one that does spares a device that is up the moment of carrier.
	return createTAP(cfg, tapFlags|unix.IFF_NO_CARRIER)
}

func createTAP(cfg TAPConfig, flags uint16) (*TAP, error) {
	t, err := openTAP(cfg.Name, flags)
	if err != nil {
		return nil, err
	}
	err = t.SetCarrier(false)
	if err == nil {
		err = t.SetPersist(cfg.Persist)
	}
	if err != nil {
		_ = t.Close()
		return nil, err
	}
	return t, nil
}

// OpenTAP opens the TAP device name in the network namespace of the calling
// thread, with carrier, and leaves it as persistent as it is. That needs no
// right if the device belongs to the calling user. Where there is no such device
// it makes one, down, which needs CAP_NET_ADMIN in that namespace.
//
// The descriptor pins the namespace, as that of CreateTAP does.
func OpenTAP(name string) (*TAP, error) { return openTAP(name, tapFlags) }

func openTAP(name string, flags uint16) (*TAP, error) {
	fd, err := openDevice(name, flags)
	if err != nil {
		return nil, err
	}
	t, err := AdoptTAP(fd)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return t, nil
}

// AdoptTAP takes over a descriptor somebody else opened: a TAP device with
// IFF_NO_PI and IFF_VNET_HDR. What it is is asked before it is used. On success
// the descriptor is the TAP's; else it stays the caller's.
//
// The same open file may be in other hands, which can then take frames away or
// change header and offloads. That garbles this link and no other.
func AdoptTAP(fd int) (*TAP, error) {
	dev, err := newTun(fd, tapFlags, refusedFlags)
	if err != nil {
		return nil, fmt.Errorf("link: adopt TAP: %w", err)
	}
	t := &TAP{tun: dev}
	if err := t.ioctlInt("set virtio-net header length (TUNSETVNETHDRSZ)", unix.TUNSETVNETHDRSZ, packet.VNetLen); err != nil {
		return nil, err
	}
	if err := t.ioctlInt("set little-endian virtio-net header (TUNSETVNETLE)", unix.TUNSETVNETLE, 1); err != nil {
		return nil, err
	}
	o, err := mostOffload(t.SetOffload)
	if err != nil {
		return nil, err
	}
	t.offload.Store(uint32(o))
	return t, nil
}

// Offload is what the TAP's reader takes unfinished.
func (t *TAP) Offload() Offload { return Offload(t.offload.Load()) }

// SetOffload limits what the kernel hands over unfinished. It may be called
// while frames cross; those on their way come as they are. Root inside can turn
// off more with `ethtool -K`, but not turn on what is not in o.
func (t *TAP) SetOffload(o Offload) error {
	if err := unix.IoctlSetInt(t.fd, unix.TUNSETOFFLOAD, int(o)); err != nil {
		return fmt.Errorf("link: set offload %v (TUNSETOFFLOAD): %w", o, err)
	}
	t.offload.Store(uint32(o))
	return nil
}

// ReadBatch appends the frames that wait to b, until none does or b is full,
// and returns how many. They borrow the bytes of b.
func (t *TAP) ReadBatch(b *packet.Batch) (int, error) { return t.readBatch(b, 0) }

// WriteBatch writes the frames and returns how many; with an error, frame n
// was not written and those behind it were not tried. It keeps and changes
// nothing.
func (t *TAP) WriteBatch(frames []*packet.Frame) (int, error) {
	for i, f := range frames {
		if len(f.B) < runt {
			return i, ErrRefused
		}
		if err := t.write(f.B); err != nil {
			return i, err
		}
	}
	return len(frames), nil
}

// openDevice opens /dev/net/tun and attaches the device name to it, creating
// it where there is none (TUNSETIFF).
func openDevice(name string, flags uint16) (int, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return -1, fmt.Errorf("link: interface name %q is longer than 15 bytes", name)
	}
	// The namespace is the one of the moment the file is opened.
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, openError(err)
	}
	ifr.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		_ = unix.Close(fd)
		return -1, createError(name, err)
	}
	return fd, nil
}

// ErrDevice is in every error about /dev/net/tun itself.
var ErrDevice = errors.New("open " + device)

func openError(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV):
		return fmt.Errorf("link: %w: %w; as root: `modprobe tun`, or in a container: `mkdir -p /dev/net && mknod -m 666 %s c 10 200`", ErrDevice, err, device)
	case errors.Is(err, unix.EPERM): // of the device control group: whatever its mode
		return fmt.Errorf("link: %w: %w; the container we run in may not: start it with --device %s", ErrDevice, err, device)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("link: %w: %w; as root: `chmod 666 %s`", ErrDevice, err, device)
	}
	return fmt.Errorf("link: %w: %w", ErrDevice, err)
}

func createError(name string, err error) error {
	if name == "" {
		name = "(any)"
	}
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("link: create interface %s: %w; it needs CAP_NET_ADMIN in this network namespace, such as under `unshare -rn`", name, err)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("link: open interface %s: %w; another process has it open", name, err)
	case errors.Is(err, unix.ENOTTY):
		return fmt.Errorf("link: %w: it is another device; as root: `rm %[2]s && mknod -m 666 %[2]s c 10 200`", ErrDevice, device)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("link: open interface %s: %w; it exists and is no TAP of ours, or the name is not allowed", name, err)
	}
	return fmt.Errorf("link: create interface %s (TUNSETIFF): %w", name, err)
}
