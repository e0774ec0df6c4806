package link

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"sync"
	"sync/atomic"
	"unsafe"

	"fairlead/packet"

	"golang.org/x/sys/unix"
)

// A Packet is the queue of a packet socket: it reads what an interface receives
// and writes what it sends (packet(7)). Frames carry their virtio-net header, as
// those of a TAP do. Which frames the socket hears, who opened it has decided
// with a filter.
//
// Its descriptor is one of the queue's own, an epoll over the socket: a packet
// socket reports an interface that goes down by EPOLLERR, which says of all
// other links that they are gone, and one that is removed while it is down not
// at all.
//
// ReadBatch is for one goroutine, WriteBatch for any number.
type Packet struct {
	fd    int // the socket
	epoll int // over fd and timer; what Fd returns
	timer int // runs while the interface may be down

	offload Offload

	down  atomic.Bool   // the timer runs
	downs atomic.Uint32 // how often it was said to be down
	lost  atomic.Uint64

	mu sync.Mutex // held by whoever asks the socket from elsewhere, and by Close

	// Of the one reader; here, so that reading allocates nothing.
	drained uint32 // of downs: no frame waits that came before
	iov     unix.Iovec
	msg     unix.Msghdr
	control auxControl
}

// auxControl is the control message a packet socket puts beside a frame
// (PACKET_AUXDATA), in its memory layout.
type auxControl struct {
	hdr unix.Cmsghdr
	aux unix.TpacketAuxdata
	_   [4]byte // cmsg(3) aligns
}

// How soon and how often a removed interface is looked for, once it was seen to
// be down. The kernel removes in two steps, some milliseconds apart, and tells
// of the first.
const (
	firstLook = 100e6 // ns
	nextLooks = 1e9
)

// AdoptPacket takes over a descriptor somebody else opened: an AF_PACKET socket
// of type SOCK_RAW, bound to one interface and all protocols. What it is is
// asked before it is used. On success the descriptor is the Packet's; else it
// stays the caller's.
//
// The same open file may be in other hands, which can then take frames away.
// That garbles this link and no other.
func AdoptPacket(fd int) (*Packet, error) {
	if err := identifyPacket(fd); err != nil {
		return nil, fmt.Errorf("link: adopt packet socket: %w", err)
	}
	p := &Packet{fd: fd, epoll: -1, timer: -1, offload: offloadOf(release())}
	if err := p.prepare(); err != nil {
		p.fd = -1 // stays the caller's
		_ = p.Close()
		return nil, fmt.Errorf("link: adopt packet socket: %w", err)
	}
	return p, nil
}

// identifyPacket makes sure that a descriptor is what AdoptPacket takes.
func identifyPacket(fd int) error {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fmt.Errorf("descriptor %d is no socket: %w", fd, err)
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return fmt.Errorf("descriptor %d (SO_TYPE): %w", fd, err)
	}
	if domain != unix.AF_PACKET || kind != unix.SOCK_RAW {
		return fmt.Errorf("descriptor %d is a socket of domain %d and type %d: want AF_PACKET (17) and SOCK_RAW (3)", fd, domain, kind)
	}
	addr, err := unix.Getsockname(fd)
	if err != nil {
		return fmt.Errorf("descriptor %d (getsockname): %w", fd, err)
	}
	ll, ok := addr.(*unix.SockaddrLinklayer)
	switch {
	case !ok || ll.Ifindex <= 0:
		return fmt.Errorf("descriptor %d is bound to no interface", fd)
	case ll.Hatype != unix.ARPHRD_ETHER:
		return fmt.Errorf("descriptor %d is bound to interface %d, which is no Ethernet or is gone", fd, ll.Ifindex)
	case ll.Protocol != networkOrder(unix.ETH_P_ALL):
		return fmt.Errorf("descriptor %d is bound to protocol %#04x: want all, ETH_P_ALL", fd, networkOrder(ll.Protocol))
	}
	return nil
}

// networkOrder swaps the bytes of a protocol number, as htons does here.
func networkOrder(x uint16) uint16 {
	return binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, x))
}

// prepare sets the socket up and makes the descriptors beside it.
func (p *Packet) prepare() (err error) {
	for _, option := range []struct {
		name     string
		n, value int
	}{
		// The first is refused where there is a ring, which would take all
		// frames away from recvmsg.
		{"PACKET_VNET_HDR", unix.PACKET_VNET_HDR, 1},
		{"PACKET_AUXDATA", unix.PACKET_AUXDATA, 1},
	} {
		if err := unix.SetsockoptInt(p.fd, unix.SOL_PACKET, option.n, option.value); err != nil {
			return fmt.Errorf("descriptor %d (%s): %w", p.fd, option.name, err)
		}
	}
	unix.CloseOnExec(p.fd)
	if err := unix.SetNonblock(p.fd, true); err != nil {
		return fmt.Errorf("descriptor %d: set O_NONBLOCK: %w", p.fd, err)
	}
	if p.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err != nil {
		return fmt.Errorf("make a timer: %w", err)
	}
	if p.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("make an epoll: %w", err)
	}
	for _, fd := range []int{p.fd, p.timer} {
		if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
			return fmt.Errorf("watch descriptor %d: %w", fd, err)
		}
	}
	return nil
}

// Fd is the descriptor to be registered for reading. It stays the queue's, and
// is not the one that was adopted.
func (p *Packet) Fd() int { return p.epoll }

// Offload is what the kernel takes unfinished, to finish on the way what the
// interface cannot.
func (p *Packet) Offload() Offload { return p.offload }

// Index is the number of the interface in its namespace, as long as it is there.
func (p *Packet) Index() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if addr, err := unix.Getsockname(p.fd); err == nil {
		if ll, ok := addr.(*unix.SockaddrLinklayer); ok {
			return ll.Ifindex
		}
	}
	return 0
}

// Lost is how many frames came and could not be delivered: the socket had no
// room, the kernel could not describe them, or they were cut off.
func (p *Packet) Lost() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	// Asking for the kernel's count sets it back to zero.
	if s, err := unix.GetsockoptTpacketStats(p.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		p.lost.Add(uint64(s.Drops))
	}
	return p.lost.Load()
}

// Close closes the socket and what belongs to it. Calling it again does
// nothing.
func (p *Packet) Close() (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, fd := range []*int{&p.epoll, &p.timer, &p.fd} {
		if *fd >= 0 {
			if e := unix.Close(*fd); err == nil {
				err = e
			}
			*fd = -1 // calls from now on get EBADF
		}
	}
	return err
}

// ReadBatch appends the frames that wait to b, until none does or b is full,
// and returns how many. They borrow the bytes of b.
func (p *Packet) ReadBatch(b *packet.Batch) (int, error) {
	if p.down.Load() && p.removed() {
		return 0, ErrGone
	}
	n := 0
	// The attempts are counted as well as the frames: lost ones take time too.
	for range packet.BatchFrames {
		if b.Full() {
			break
		}
		room := b.Room()
		downs := p.downs.Load() // before the look whether a frame waits
		size, errno := p.recvmsg(room[:packet.MaxFrame-packet.VLANLen])
		switch {
		case errno == unix.EAGAIN:
			p.drained = downs
			return n, nil
		case errno == unix.EINVAL:
			// The kernel has no virtio-net words for the frame
			// (packet_rcv_vnet) and has thrown it away.
			p.lost.Add(1)
		case errno == unix.ENETDOWN:
			// An event, told once; frames may wait behind it.
			p.watch()
		case errno != 0 && n > 0:
			return n, nil // the next call will say it
		case errno != 0:
			return 0, packetError(errno)
		default:
			if size = p.arrived(room, size); size == 0 {
				p.lost.Add(1)
				break
			}
			if p.drained == downs { // else it may have waited here since before
				p.up()
			}
			b.Add(size)
			n++
		}
	}
	return n, nil
}

// arrived makes of what was read into room a frame as the switch has it, and
// returns its length; zero where there is none.
func (p *Packet) arrived(room []byte, size int) int {
	c := &p.control
	if p.msg.Flags&unix.MSG_TRUNC != 0 || size < runt || // larger than any frame
		c.hdr.Level != unix.SOL_PACKET || c.hdr.Type != unix.PACKET_AUXDATA || // somebody asked for other control messages
		c.aux.Snaplen < c.aux.Len { // the filter cut it off
		return 0
	}
	return restore(room, size, &c.aux)
}

// restore undoes what a kernel does to a frame before a packet socket sees it.
// It works in room, whose first size bytes are virtio-net header and frame, with
// four to spare, and returns the new size.
func restore(room []byte, size int, aux *unix.TpacketAuxdata) int {
	v := packet.VNet(room)
	// Not every checksum is a sum: SCTP's is a CRC (RFC 9260 appendix A), which
	// veth pairs leave unfinished too, in the same words (NETIF_F_SCTP_CRC).
	// Nobody who reads them could tell, so it is finished here.
	start := packet.VNetLen + int(v.CSumStart())
	if v.Flags()&packet.VNetNeedsCSum != 0 && v.CSumOffset() == sctpChecksum && start+sctpLen <= size {
		field := room[start+sctpChecksum:]
		clear(field[:4])
		binary.LittleEndian.PutUint32(field, crc32.Checksum(room[start:size], crc32.MakeTable(crc32.Castagnoli)))
		v.SetFlags(v.Flags() &^ packet.VNetNeedsCSum)
		v.SetCSumStart(0)
		v.SetCSumOffset(0)
	}
	if aux.Status&unix.TP_STATUS_VLAN_VALID == 0 {
		return size
	}
	// The outer tag was taken off (skb_vlan_untag): it goes back in.
	tpid := uint16(packet.EtherTypeVLAN)
	if aux.Status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
		tpid = aux.Vlan_tpid
	}
	const at = packet.VNetLen + 2*6
	copy(room[at+packet.VLANLen:], room[at:size])
	binary.BigEndian.PutUint16(room[at:], tpid)
	binary.BigEndian.PutUint16(room[at+2:], aux.Vlan_tci)
	if v.Flags()&packet.VNetNeedsCSum != 0 {
		v.SetCSumStart(v.CSumStart() + packet.VLANLen)
	}
	if v.HdrLen() != 0 {
		v.SetHdrLen(v.HdrLen() + packet.VLANLen)
	}
	return size + packet.VLANLen
}

// The SCTP common header: its length, and where its checksum is.
const sctpLen, sctpChecksum = 12, 8

// WriteBatch writes the frames and returns how many; with an error, frame n was
// not written and those behind it were not tried. It keeps and changes nothing.
//
// What the interface cannot finish itself the kernel finishes on the way
// (validate_xmit_skb), so there is nothing to do here, unlike for a wire.
//
// A frame for an interface without a carrier, as one end of a pair whose other
// end is down, is said to be written once the kernel has put the discipline noop
// there, which answers what is no error to a packet socket (noop_enqueue in
// net/sched/sch_generic.c). PACKET_QDISC_BYPASS would say so, and lose frames of
// more than 65,535 bytes, which the kernel has to cut (__dev_direct_xmit in
// net/core/dev.c).
func (p *Packet) WriteBatch(frames []*packet.Frame) (int, error) {
	for n := 0; n < len(frames); {
		sent, errno := p.sendmmsg(frames[n:])
		n += sent
		switch {
		case sent > 0:
			p.up()
		case errno == unix.ENETDOWN:
			p.watch() // the reader was not told if we were
			return n, ErrDown
		default:
			return n, packetError(errno)
		}
	}
	return len(frames), nil
}

// packetError classifies what the kernel answers for a packet socket
// (net/packet/af_packet.c).
func packetError(errno unix.Errno) error {
	switch errno {
	case unix.ENXIO, unix.ENODEV, // the interface was removed
		unix.EBADF: // the queue was closed
		return ErrGone
	case unix.EAGAIN, // the send buffer is full
		unix.ENOBUFS, unix.ENOMEM: // the interface's queue is
		return ErrFull
	case unix.EMSGSIZE:
		return ErrTooLarge
	}
	return ErrRefused
}

// watch begins to look now and then whether the interface is still there.
func (p *Packet) watch() {
	p.downs.Add(1)
	if p.down.Swap(true) {
		return
	}
	_ = unix.TimerfdSettime(p.timer, 0, &unix.ItimerSpec{
		Value: unix.NsecToTimespec(firstLook), Interval: unix.NsecToTimespec(nextLooks)}, nil)
}

// up ends what watch began: a frame came or went since, so the interface is
// there.
func (p *Packet) up() {
	if p.down.Load() && p.down.Swap(false) {
		_ = unix.TimerfdSettime(p.timer, 0, &unix.ItimerSpec{}, nil)
	}
}

// removed reports whether the interface is gone; it is for the reader.
func (p *Packet) removed() bool {
	var ticks [8]byte
	_, _, _ = unix.RawSyscall(unix.SYS_READ, uintptr(p.timer), uintptr(unsafe.Pointer(&ticks)), uintptr(len(ticks)))
	// The socket forgets its interface when that is removed, and what kind it
	// is of some milliseconds before.
	var ll unix.RawSockaddrLinklayer
	size := uint32(unsafe.Sizeof(ll))
	_, _, errno := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(p.fd), uintptr(unsafe.Pointer(&ll)), uintptr(unsafe.Pointer(&size)))
	return errno == 0 && (ll.Ifindex <= 0 || ll.Hatype != unix.ARPHRD_ETHER)
}

// recvmsg reads one frame and what the kernel says beside it, around the
// scheduler: it copies, and never waits.
func (p *Packet) recvmsg(b []byte) (int, unix.Errno) {
	p.iov.Base = unsafe.SliceData(b)
	p.iov.SetLen(len(b))
	p.control.hdr = unix.Cmsghdr{}
	p.msg = unix.Msghdr{Iov: &p.iov, Control: (*byte)(unsafe.Pointer(&p.control))}
	p.msg.SetIovlen(1)
	p.msg.SetControllen(int(unsafe.Sizeof(p.control)))
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(p.fd), uintptr(unsafe.Pointer(&p.msg)), unix.MSG_DONTWAIT)
		if errno == 0 {
			return int(n), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// sendAtOnce is how many frames one system call writes. It bounds what the call
// needs of the stack: 80 bytes each.
const sendAtOnce = 16

// mmsghdr is struct mmsghdr of socket(7).
type mmsghdr struct {
	hdr unix.Msghdr
	_   uint32
}

// sendmmsg writes some of the frames, at least one unless there is an error,
// which then is of the first. It goes around the scheduler: the receiver's
// network stack may run inside, which takes microseconds but never waits. What
// it needs is on the stack, because many may write at the same time.
func (p *Packet) sendmmsg(frames []*packet.Frame) (int, unix.Errno) {
	var msgs [sendAtOnce]mmsghdr
	var iovs [sendAtOnce]unix.Iovec
	n := 0
	for _, f := range frames[:min(len(frames), sendAtOnce)] {
		if len(f.B) < runt {
			break
		}
		iovs[n].Base = unsafe.SliceData(f.B)
		iovs[n].SetLen(len(f.B))
		msgs[n].hdr.Iov = &iovs[n]
		msgs[n].hdr.SetIovlen(1)
		n++
	}
	if n == 0 {
		return 0, unix.EINVAL
	}
	for {
		sent, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(p.fd), uintptr(unsafe.Pointer(&msgs)), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
		if errno == 0 {
			return int(sent), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}
