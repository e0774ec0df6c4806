package box

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The other kind of link: a veth pair. One end is the container's interface, an
// ordinary cable's, as those of Docker's containers are. The other lies in an
// empty network namespace, the nursery, with a packet socket on it, and that is
// what the node gets: the socket pins the nursery and nothing else, and no stack
// of any host sees the frames.

// portName is what the end in the nursery is called.
const portName = "port"

// portMTU is that end's: the most there is. The kernel drops what is larger than
// the MTU of the end it arrives at (is_skb_forwardable in net/core/dev.c), and
// what root inside makes of his own end is for the switch to judge.
const portMTU = 65535

// createVeth makes a pair for an interface of the network namespace inside. The
// calling thread is in the nursery.
func createVeth(i *Interface, inside int) (fd int, err error) {
	if err := quietNursery(); err != nil {
		return -1, err
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return -1, fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = portName, portMTU
	err = h.LinkAdd(&netlink.Veth{
		LinkAttrs: attrs, PeerName: i.Name, PeerMTU: 1500, PeerHardwareAddr: i.MAC[:], PeerNamespace: netlink.NsFd(inside),
	})
	switch {
	case errors.Is(err, unix.EEXIST):
		return -1, errTaken(i.Name)
	case errors.Is(err, unix.EOPNOTSUPP):
		return -1, fmt.Errorf("make a veth pair: %w: this kernel has no veth; as root: `modprobe veth`, or leave link=veth out", err)
	case err != nil:
		return -1, fmt.Errorf("make a veth pair: %w", err)
	}
	return listenAt(h, portName)
}

// quietNursery keeps the nursery's own IPv6 from saying anything on links to
// come. Of a kernel without IPv6, or a /proc/sys we may not write, listenAt
// takes what can be taken without.
func quietNursery() error {
	err := setSysctl("net/ipv6/conf/default/disable_ipv6", "1")
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EROFS) && !errors.Is(err, os.ErrPermission) {
		return err
	}
	return nil
}

// listenAt sets an interface of the nursery up and opens a packet socket on it,
// in that order backwards: what comes first is heard, too. The nursery has no
// address, answers no ARP and makes no IPv6 address.
func listenAt(h *netlink.Handle, name string) (fd int, err error) {
	l, err := h.LinkByName(name)
	if err != nil {
		return -1, fmt.Errorf("find interface %s: %w", name, err)
	}
	const none = 1 // IN6_ADDR_GEN_MODE_NONE
	err = h.LinkSetIP6AddrGenMode(l, none)
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINVAL) { // a kernel without IPv6
		return -1, fmt.Errorf("interface %s: keep IPv6 off: %w", name, err)
	}
	if err := h.LinkSetARPOff(l); err != nil {
		return -1, fmt.Errorf("interface %s: keep ARP off: %w", name, err)
	}
	if fd, err = packetSocket(); err != nil {
		return -1, err
	}
	if err = bindPacket(fd, l.Attrs().Index); err == nil {
		err = h.LinkSetUp(l)
	}
	if err == nil {
		// That the interface was down when the socket was bound (packet_do_bind in
		// net/packet/af_packet.c) the first frame sent would be told.
		_, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("interface %s: %w", name, err)
	}
	return fd, nil
}

// portWithin bounds the wait for a port, which is less than a millisecond.
const portWithin = 2 * time.Second

// awaitPort waits until the other end of an interface that has been set up takes
// frames. A TAP does. The port of a pair has a carrier by then, and the discipline
// noop until the kernel has seen to that, which loses frames without a word
// (linkwatch_do_dev in net/core/link_watch.c; noop_enqueue). What can be seen is
// that the port runs, which is set on the way; since Linux 6.8 whoever asks has it
// done at once (linkwatch_sync_dev in rtnl_getlink).
func awaitPort(i *Interface, fd int) error {
	if !i.Veth {
		return nil
	}
	return inNurseryOf(fd, func(h *netlink.Handle) error {
		events, err := watchLinks()
		if err != nil {
			return err
		}
		defer events.Close()
		for deadline := time.Now().Add(portWithin); ; {
			l, err := h.LinkByName(portName)
			if err != nil {
				return fmt.Errorf("find interface %s: %w", portName, err)
			}
			left := time.Until(deadline)
			if runs(l) || left <= 0 { // a port that loses frames is better than none
				return nil
			}
			if err := events.next(left); err != nil {
				return err
			}
		}
	})
}

// packetBuffer bounds what waits at a packet socket, in either direction. The
// kernel doubles it and counts its own memory: that is more than 100 segments of
// 64 KiB, or 5,000 small frames. The usual 208 KiB hold four of the former.
const packetBuffer = 8 << 20

// packetSocket opens a packet socket that hears nothing until bindPacket.
func packetSocket() (fd int, err error) {
	fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open a packet socket: %w", err)
	}
	for _, option := range []struct {
		name string
		n    int
	}{
		{"PACKET_VNET_HDR", unix.PACKET_VNET_HDR},
		{"PACKET_AUXDATA", unix.PACKET_AUXDATA},
		// Without it the node wakes for every frame the host itself sends there.
		{"PACKET_IGNORE_OUTGOING", unix.PACKET_IGNORE_OUTGOING},
	} {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, option.n, 1); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("set %s: %w", option.name, err)
		}
	}
	for _, force := range []struct{ privileged, plain int }{
		{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF},
	} {
		// Without CAP_NET_ADMIN it is as much as net.core.rmem_max allows.
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force.privileged, packetBuffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, force.plain, packetBuffer)
		}
	}
	return fd, nil
}

// listenToAll has an interface hand over frames for whatever MAC, as long as the
// socket is open: it drops those for others' unless it is promiscuous.
func listenToAll(fd, index int) error {
	err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
		&unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_PROMISC})
	if err != nil {
		return fmt.Errorf("make the interface promiscuous: %w", err)
	}
	return nil
}

// bindPacket has a packet socket hear all that an interface receives.
func bindPacket(fd, index int) error {
	var all [2]byte
	binary.BigEndian.PutUint16(all[:], unix.ETH_P_ALL)
	err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16(all[:]), Ifindex: index})
	if err != nil {
		return fmt.Errorf("bind the packet socket: %w", err)
	}
	return nil
}

// inNursery calls fn on a thread in an empty network namespace, which is gone
// afterwards unless something that fn made keeps it.
func inNursery(fn func() error) error {
	return onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make an empty network namespace: %w", err)
		}
		return fn()
	})
}

// inNurseryOf calls fn on a thread in the nursery that a packet socket pins.
func inNurseryOf(socket int, fn func(h *netlink.Handle) error) error {
	nursery, err := unix.IoctlRetInt(socket, unix.SIOCGSKNS)
	if err != nil {
		return fmt.Errorf("find its namespace: %w", err)
	}
	defer unix.Close(nursery)
	return onOwnThread(func() error {
		if err := unix.Setns(nursery, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter its namespace: %w", err)
		}
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("open netlink: %w", err)
		}
		defer h.Close()
		return fn(h)
	})
}

// onOwnThread calls fn on a thread that ends afterwards, whatever fn did to it.
func onOwnThread(fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			done <- fn() // and the thread ends with this goroutine
			return
		}
		// The first thread is the one whose namespaces others take for the
		// process's. As long as it is ours no other goroutine gets it.
		other := make(chan error)
		go func() {
			runtime.LockOSThread()
			other <- fn()
		}()
		err := <-other
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

// Offloads of a veth that a virtio-net header has no words for: a frame that
// needs them would be lost at the packet socket (packet_rcv_vnet in
// net/packet/af_packet.c). Without them the kernel cuts before. They are those
// of tunnels inside the container, of SCTP, and of lists of fragments.
var wordless = []string{
	"tx-gre-segmentation", "tx-gre-csum-segmentation", "tx-ipxip4-segmentation", "tx-ipxip6-segmentation",
	"tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation", "tx-sctp-segmentation", "tx-gso-list",
}

// turnOff turns offloads of an interface off, by their names in `ethtool -k`, as
// far as it has them. Names are not numbers: each kernel counts anew.
func turnOff(name string, features []string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("interface %s: turn offloads off: %w", name, err)
	}
	defer unix.Close(fd)
	const setFeatures = 4 // ETH_SS_FEATURES
	info := struct {
		cmd, _ uint32
		mask   uint64
		count  uint32
	}{cmd: unix.ETHTOOL_GSSET_INFO, mask: 1 << setFeatures}
	if err := ethtool(fd, name, unsafe.Pointer(&info)); err != nil {
		return err
	}
	const most, width = 256, 32 // features there may be, ETH_GSTRING_LEN
	var names struct {
		cmd, set, len uint32
		data          [most * width]byte
	}
	names.cmd, names.set, names.len = unix.ETHTOOL_GSTRINGS, setFeatures, info.count
	if info.count > most {
		return fmt.Errorf("interface %s: it has %d features, more than anybody knows", name, info.count)
	}
	if err := ethtool(fd, name, unsafe.Pointer(&names)); err != nil {
		return err
	}
	var change struct {
		cmd, size uint32
		blocks    [most / 32]struct{ valid, requested uint32 }
	}
	change.cmd, change.size = unix.ETHTOOL_SFEATURES, (info.count+31)/32
	for i := range info.count {
		feature, _, _ := bytes.Cut(names.data[i*width:(i+1)*width], []byte{0})
		if slices.Contains(features, string(feature)) {
			change.blocks[i/32].valid |= 1 << (i % 32)
		}
	}
	return ethtool(fd, name, unsafe.Pointer(&change))
}

// ethtool asks an interface of fd's namespace what arg begins to ask.
func ethtool(fd int, name string, arg unsafe.Pointer) error {
	ifr := struct { // struct ifreq of linux/if.h
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: arg}
	copy(ifr.name[:unix.IFNAMSIZ-1], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifr)))
	if errno != 0 {
		return fmt.Errorf("interface %s: turn offloads off: %w", name, errno)
	}
	return nil
}
