package link

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"fairlead/packet"

	"github.com/songgao/water"
	"golang.org/x/sys/unix"
)

// wireFlags are those of a device a Wire can be: plain frames.
const wireFlags = unix.IFF_TAP | unix.IFF_NO_PI

// maxSegments is how many frames a wire cuts one into: each is a system call
// that runs the receiver's stack, and others wait meanwhile. 64 KiB are that
// many segments at an MSS of 128, far below what any path asks for; Linux lets
// a peer ask for 48 (net.ipv4.tcp_min_snd_mss), which would be 1,820.
const maxSegments = 512

// A Wire is the textbook wire: a TAP device whose frames are as the books draw
// them, without virtio-net header. The kernel finishes what it hands over; what
// is written to it is finished here, in the queue's own memory: checksums are
// summed and large segments cut.
//
// ReadBatch is for one goroutine, WriteBatch for any number; they take turns
// when there is something to finish.
type Wire struct {
	*tun

	mu      sync.Mutex       // guards what follows
	frame   packet.Frame     // the one being finished, as parsed here
	cut     packet.Segmenter // of frame
	scratch []byte           // what cut writes into
}

// A WireConfig says what to create; its fields are those of TAPConfig.
type WireConfig struct {
	Name    string
	Persist bool
}

// CreateWire makes a TAP device in the network namespace of the calling thread,
// down and without carrier, and opens it. It needs CAP_NET_ADMIN in that
// namespace.
func CreateWire(cfg WireConfig) (*Wire, error) {
	if len(cfg.Name) >= unix.IFNAMSIZ {
		return nil, fmt.Errorf("link: interface name %q is longer than 15 bytes", cfg.Name)
	}
	wc := water.Config{DeviceType: water.TAP}
	wc.Name, wc.Persist = cfg.Name, cfg.Persist
	dev, err := water.New(wc)
	if err != nil {
		return nil, wireError(cfg.Name, err)
	}
	fd, err := takeDescriptor(dev)
	if err != nil {
		return nil, fmt.Errorf("link: create interface %s: %w", dev.Name(), err)
	}
	w, err := AdoptWire(fd)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	if err := w.SetCarrier(false); err != nil {
		_ = w.Close()
		return nil, err
	}
	return w, nil
}

// wireError tells the two calls apart that water makes: open fails with a bare
// errno, the ioctl with an os.SyscallError.
func wireError(name string, err error) error {
	var ioctl *os.SyscallError
	if errors.As(err, &ioctl) {
		return createError(name, ioctl.Err)
	}
	return openError(err)
}

// takeDescriptor takes the descriptor out of the os.File water made. A copy of
// it: the file has registered its own with the poller of the Go runtime, which
// would wake up for every frame to tell nobody.
func takeDescriptor(dev *water.Interface) (fd int, err error) {
	file, ok := dev.ReadWriteCloser.(*os.File)
	if !ok {
		return -1, fmt.Errorf("water opened a %T, not a file", dev.ReadWriteCloser)
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return -1, err
	}
	var dupErr error
	err = raw.Control(func(n uintptr) {
		fd, dupErr = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err = errors.Join(err, dupErr, file.Close()); err != nil {
		return -1, err
	}
	return fd, nil
}

// AdoptWire takes over a descriptor somebody else opened: a TAP device with
// IFF_NO_PI and without IFF_VNET_HDR. What it is is asked before it is used. On
// success the descriptor is the wire's; else it stays the caller's.
func AdoptWire(fd int) (*Wire, error) {
	dev, err := newTun(fd, wireFlags, refusedFlags|unix.IFF_VNET_HDR)
	if err != nil {
		return nil, fmt.Errorf("link: adopt wire: %w", err)
	}
	return newWire(dev), nil
}

func newWire(dev *tun) *Wire {
	return &Wire{tun: dev, scratch: make([]byte, packet.MaxFrame)}
}

// Offload is none.
func (w *Wire) Offload() Offload { return 0 }

// ReadBatch appends the frames that wait to b, until none does or b is full,
// and returns how many. They borrow the bytes of b; their virtio-net header
// says nothing.
func (w *Wire) ReadBatch(b *packet.Batch) (int, error) { return w.readBatch(b, packet.VNetLen) }

// WriteBatch writes the frames, finished, and returns how many; with an error,
// frame n was not written, or not all of its segments, and those behind it were
// not tried. It keeps and changes nothing.
func (w *Wire) WriteBatch(frames []*packet.Frame) (int, error) {
	for i, f := range frames {
		if err := w.writeFrame(f); err != nil {
			return i, err
		}
	}
	return len(frames), nil
}

func (w *Wire) writeFrame(f *packet.Frame) error {
	if len(f.B) < runt {
		return ErrRefused
	}
	v := f.VNet()
	if v.Flags()&packet.VNetNeedsCSum == 0 && v.GSOType() == packet.GSONone {
		return w.write(f.Ether())
	}
	return w.finish(f.B)
}

// finish writes what an unfinished frame stands for. It parses the frame
// itself: what a queue writes need not have been read from another.
func (w *Wire) finish(b []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frame = packet.Frame{B: b}
	defer func() { w.frame = packet.Frame{} }() // the bytes are only borrowed
	if packet.Parse(&w.frame) != packet.OK {
		return ErrRefused
	}
	if w.frame.Segments() > maxSegments {
		return packet.EgressSegments
	}
	w.cut.Reset(&w.frame)
	for {
		n, ok := w.cut.Next(w.scratch)
		if !ok {
			return nil
		}
		if err := w.write(w.scratch[packet.VNetLen:n]); err != nil {
			return err
		}
	}
}
