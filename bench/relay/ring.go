package relay

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Veth joins two packet sockets, each on one end of a veth pair, as Raw joins two
// TAPs: a read and a write for each frame, with its virtio-net header.
func Veth(sockets [2]int, crossed *Crossed) error {
	for _, fd := range sockets {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
			return fmt.Errorf("set PACKET_VNET_HDR: %w", err)
		}
	}
	return Raw(sockets[:], crossed)
}

// A slot of a ring has room for the largest frame and what is in front of it. A
// block holds as many as it may without the kernel needing much memory in one piece.
const (
	slotSize  = 68 << 10
	blockSize = 1 << 20
	blocks    = 4
	vnetLen   = 10
)

// Ring joins two packet sockets as Veth does, and reads frames where the kernel
// puts them: in a ring of each socket that is mapped (PACKET_RX_RING, TPACKET_V2,
// whose slots are of one size and are handed over one by one, without a timer). So
// there is no call for a read, and none of its copies in user space: a frame is
// written from its slot. It is done when a descriptor fails.
func Ring(sockets [2]int, crossed *Crossed) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var rings [2]*packetRing
	var fds [2]unix.PollFd
	for i, fd := range sockets {
		r, err := newPacketRing(fd)
		if err != nil {
			return err
		}
		rings[i], fds[i] = r, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	}
	for {
		if _, err := unix.Poll(fds[:], -1); err != nil && err != unix.EINTR {
			return fmt.Errorf("poll: %w", err)
		}
		for i, r := range rings {
			for range drain {
				frame := r.next()
				if frame == nil {
					break
				}
				_, errno := call(unix.SYS_WRITE, sockets[1-i], frame)
				r.giveBack()
				switch errno {
				case 0:
					crossed.Frames.Add(1)
					crossed.Bytes.Add(uint64(len(frame)))
				case unix.ENOBUFS, unix.EAGAIN, unix.ENETDOWN: // nobody takes it
				default:
					return fmt.Errorf("write a frame: %w", errno)
				}
			}
		}
	}
}

// A packetRing is where the kernel puts what arrives at a socket.
type packetRing struct {
	slots []byte
	at    int // the next slot that will be filled
}

func newPacketRing(fd int) (*packetRing, error) {
	for _, o := range []struct {
		name        string
		what, value int
	}{
		{"PACKET_VERSION", unix.PACKET_VERSION, unix.TPACKET_V2},
		{"PACKET_VNET_HDR", unix.PACKET_VNET_HDR, 1},
	} {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, o.what, o.value); err != nil {
			return nil, fmt.Errorf("set %s: %w", o.name, err)
		}
	}
	req := unix.TpacketReq{Block_size: blockSize, Block_nr: blocks, Frame_size: slotSize, Frame_nr: blockSize / slotSize * blocks}
	if err := unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return nil, fmt.Errorf("set PACKET_RX_RING: %w", err)
	}
	slots, err := unix.Mmap(fd, 0, blockSize*blocks, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the ring of a packet socket: %w", err)
	}
	return &packetRing{slots: slots}, nil
}

// slot is where the next frame will be.
func (r *packetRing) slot() (b []byte, h *unix.Tpacket2Hdr) {
	const each = blockSize / slotSize
	start := r.at/each*blockSize + r.at%each*slotSize
	b = r.slots[start : start+slotSize]
	return b, (*unix.Tpacket2Hdr)(unsafe.Pointer(&b[0]))
}

// next is the next frame with its virtio-net header, which lies in front of it, or
// nil. It is the kernel's again after giveBack.
func (r *packetRing) next() []byte {
	b, h := r.slot()
	if atomic.LoadUint32(&h.Status)&unix.TP_STATUS_USER == 0 {
		return nil
	}
	return b[h.Mac-vnetLen : uint32(h.Mac)+h.Snaplen]
}

func (r *packetRing) giveBack() {
	_, h := r.slot()
	atomic.StoreUint32(&h.Status, unix.TP_STATUS_KERNEL)
	r.at = (r.at + 1) % (blockSize / slotSize * blocks)
}
