package relay

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"fairlead/packet"
)

// Datagrams carries UDP datagrams from a TAP with a virtio-net header to a socket
// that is connected, and from a socket that is bound to the TAP: one thread, trains
// where the kernel takes them, and nothing else. No address is looked up, no
// checksum verified, nothing bounded. What it reaches is what any program can that
// leads datagrams from a TAP to sockets and back. Head is that of the frames it
// writes, from the virtio-net header to the UDP header. It is done when a descriptor
// fails.
func Datagrams(tap, out, in int, head []byte, crossed *Crossed) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.SetsockoptInt(in, unix.IPPROTO_UDP, unix.UDP_GRO, 1); err != nil {
		return fmt.Errorf("set UDP_GRO: %w", err)
	}
	fds := []unix.PollFd{{Fd: int32(tap), Events: unix.POLLIN}, {Fd: int32(in), Events: unix.POLLIN}}
	batch, train := packet.NewBatch(), newTrain(head)
	for {
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			return fmt.Errorf("poll: %w", err)
		}
		for range drain {
			if !train.outward(tap, out, batch, crossed) {
				break
			}
		}
		for range drain {
			if !train.inward(in, tap, crossed) {
				break
			}
		}
	}
}

// A train is some datagrams of one size, the last perhaps shorter.
type train struct {
	iovecs  [64]unix.Iovec
	control [24]byte // UDP_SEGMENT there, UDP_GRO back
	header  unix.Msghdr
	frame   []byte
	head    int
}

func newTrain(head []byte) *train {
	t := &train{frame: make([]byte, packet.MaxFrame), head: len(head)}
	copy(t.frame, head)
	c := (*unix.Cmsghdr)(unsafe.Pointer(&t.control[0]))
	c.Level, c.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	c.SetLen(unix.CmsgLen(2))
	t.header.Control = &t.control[0]
	return t
}

// outward reads what waits on the TAP and sends it, as trains.
func (t *train) outward(tap, out int, batch *packet.Batch, crossed *Crossed) bool {
	batch.Reset()
	for !batch.Full() {
		n, errno := call(unix.SYS_READ, tap, batch.Room())
		if errno != 0 {
			break
		}
		batch.Add(n)
	}
	many := batch.Full()
	size, n, bytes := 0, 0, 0
	send := func() {
		if n == 0 {
			return
		}
		t.header.Iov, t.header.Controllen = &t.iovecs[0], 0
		t.header.SetIovlen(n)
		if n > 1 {
			binary.NativeEndian.PutUint16(t.control[unix.CmsgLen(0):], uint16(size))
			t.header.SetControllen(unix.CmsgSpace(2))
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(out), uintptr(unsafe.Pointer(&t.header)), 0); errno == 0 {
			crossed.Frames.Add(uint64(n))
			crossed.Bytes.Add(uint64(bytes))
		}
		n, bytes = 0, 0
	}
	for _, f := range batch.Frames {
		payload := f.B[min(len(f.B), t.head):]
		if len(payload) == 0 || f.B[packet.VNetLen+23] != byte(packet.ProtoUDP) {
			continue
		}
		if len(payload) != size || n == len(t.iovecs) || bytes+size > 65000 {
			send()
			size = len(payload)
		}
		t.iovecs[n].Base = &payload[0]
		t.iovecs[n].SetLen(len(payload))
		n, bytes = n+1, bytes+len(payload)
	}
	send()
	return many
}

// inward receives one datagram or train and writes it to the TAP.
func (t *train) inward(in, tap int, crossed *Crossed) bool {
	var control [24]byte
	iovec := unix.Iovec{Base: &t.frame[t.head]}
	iovec.SetLen(len(t.frame) - t.head)
	header := unix.Msghdr{Iov: &iovec, Control: &control[0]}
	header.SetIovlen(1)
	header.SetControllen(len(control))
	n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(in), uintptr(unsafe.Pointer(&header)), unix.MSG_DONTWAIT)
	if errno != 0 || n == 0 {
		return false
	}
	size := int(n)
	if header.Controllen > 0 {
		size = int(binary.NativeEndian.Uint32(control[unix.CmsgLen(0):]))
	}
	v, ip := packet.VNet(t.frame), packet.IPv4(t.frame[packet.VNetLen+packet.EthernetLen:])
	v.SetGSOType(packet.GSONone)
	if size < int(n) {
		v.SetGSOType(packet.GSOUDPL4)
		v.SetGSOSize(uint16(size))
	}
	udp, length := packet.UDP(ip[packet.IPv4MinLen:]), packet.UDPLen+int(n)
	ip.SetTotalLen(packet.IPv4MinLen + length)
	ip.UpdateChecksum()
	udp.SetLen(length)
	udp.SetChecksum(packet.PseudoSum4(ip.Src(), ip.Dst(), packet.ProtoUDP, length))
	if _, errno := call(unix.SYS_WRITE, tap, t.frame[:t.head+int(n)]); errno == 0 {
		crossed.Frames.Add(1)
		crossed.Bytes.Add(uint64(n))
	}
	return true
}
