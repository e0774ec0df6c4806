package box

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fairlead/link"
	"fairlead/packet"
)

// An Uplink is a link on a real network, opened by whoever has the right and
// handed to a node, which then needs none.
type Uplink struct {
	// FD is the Uplink's until Close, and then the node's alone: that of a TAP
	// for link.AdoptTAP, a packet socket for link.AdoptPacket.
	FD    int
	Name  string
	Index int        // of the interface
	MTU   int        // of the interface
	MAC   packet.MAC // of the interface; the uplink's own only if that is shared

	taken, wasUp bool // by TakeVeth, and up before
}

// Close closes our copy of FD.
func (u *Uplink) Close() { closeAll([]int{u.FD}); u.FD = -1 }

// OpenUplinkTAP opens a TAP device in the caller's network namespace, as
// `ip tuntap add` makes them. It makes none: a name that was mistyped would look
// like a link with nobody at the other end.
func OpenUplinkTAP(name string) (*Uplink, error) {
	if err := uplinkName(name); err != nil {
		return nil, err
	}
	if _, err := net.InterfaceByName(name); err != nil {
		return nil, fmt.Errorf("open uplink tap:%s: there is no such interface; `ip link` lists those there are, and this makes it: sudo ip tuntap add dev %[1]s mode tap user $USER", name)
	}
	tap, err := link.OpenTAP(name)
	switch {
	case errors.Is(err, unix.EPERM):
		return nil, fmt.Errorf("open uplink tap:%s: %w: the interface is another user's; make it yours: sudo ip tuntap del dev %[1]s mode tap && sudo ip tuntap add dev %[1]s mode tap user $USER", name, unix.EPERM)
	case err != nil:
		return nil, fmt.Errorf("open uplink tap:%s: %w", name, err)
	}
	defer tap.Close()
	u, err := newUplink(name)
	if err != nil {
		return nil, fmt.Errorf("open uplink tap:%s: %w", name, err)
	}
	if u.FD, err = unix.FcntlInt(uintptr(tap.Fd()), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open uplink tap:%s: %w", name, err)
	}
	return u, nil
}

// OpenPacket opens a packet socket on an interface of the caller's network
// namespace, for an uplink with a MAC of its own; or with that of the interface
// if shared, where a network takes no other (Wi-Fi, most clouds). It needs
// CAP_NET_RAW there.
//
// The socket hears IPv4 and ARP for that MAC and for everybody, and nothing
// else, ever: its filter is locked. The host itself is not heard either and
// cannot reach the uplink's address, as with a macvlan.
//
// A shared MAC shares the frames too: the host's kernel gets those for the
// uplink's address. As an end system it ignores them. As a router it sends
// redirects and host-unreachables, which break the uplink's connections at
// random; so where the interface forwards, sharing is refused.
func OpenPacket(name string, mac packet.MAC, shared bool) (*Uplink, error) {
	if err := uplinkName(name); err != nil {
		return nil, err
	}
	u, err := openPacket(name, mac, shared)
	if err != nil {
		return nil, fmt.Errorf("open uplink if:%s: %w", name, err)
	}
	return u, nil
}

func openPacket(name string, mac packet.MAC, shared bool) (*Uplink, error) {
	u, err := newUplink(name)
	if err != nil {
		return nil, err
	}
	switch forwards, _ := sysctl("net/ipv4/conf/" + name + "/forwarding"); {
	case shared && forwards == 1:
		return nil, fmt.Errorf("mac=shared: this host forwards packets of %s, so it would answer those of the uplink with ICMP redirects and errors: leave mac=shared out, or: sudo sysctl -w net/ipv4/conf/%[1]s/forwarding=0", name)
	case shared:
		mac = u.MAC
	case mac == u.MAC:
		return nil, fmt.Errorf("mac=%v is the interface's own: say mac=shared, or leave mac= out", mac)
	case mac.IsGroup() || mac.IsZero():
		return nil, fmt.Errorf("mac=%v is not an address of one station", mac)
	}
	if u.FD, err = packetSocket(); errors.Is(err, unix.EPERM) {
		return nil, fmt.Errorf("%w: a packet socket takes CAP_NET_RAW: put `"+lendRaw+"` in front of the command, or use a TAP: tap:NAME", unix.EPERM)
	} else if err != nil {
		return nil, err
	}
	if err := u.listen(mac, shared); err != nil {
		u.Close()
		return nil, err
	}
	return u, nil
}

// listen sets the socket up and binds it.
func (u *Uplink) listen(mac packet.MAC, shared bool) error {
	if err := lockFilter(u.FD, packetFilter(mac)); err != nil {
		return err
	}
	if !shared {
		if err := listenToAll(u.FD, u.Index); err != nil {
			return err
		}
	}
	return bindPacket(u.FD, u.Index)
}

// lockFilter attaches a filter that nobody takes off again.
func lockFilter(fd int, filter []unix.SockFilter) error {
	err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	if err != nil {
		return fmt.Errorf("attach the filter: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1); err != nil {
		return fmt.Errorf("set SO_LOCK_FILTER: %w", err)
	}
	return nil
}

// packetFilter lets pass what an uplink has a use for: IPv4 and ARP, not of a
// VLAN, for its MAC, for everybody, or for all hosts (224.0.0.1).
func packetFilter(mac packet.MAC) []unix.SockFilter {
	const (
		// SKF_AD_OFF + SKF_AD_VLAN_TAG of linux/filter.h: the tag the kernel
		// has taken off, 0 where there was none.
		vlanTag = 1<<32 - 0x1000 + 44
		vlanID  = 0xfff // 0: the tag is a priority, not of a VLAN
		whole   = 1<<32 - 1
	)
	load := func(size uint16, at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_ABS | size, K: at}
	}
	// skip goes on behind the next so many instructions.
	skip := func(value uint32, equal, different uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jt: equal, Jf: different}
	}
	pass := func(bytes uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: bytes}
	}
	program := []unix.SockFilter{
		load(unix.BPF_W, vlanTag),
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: vlanID},
		skip(0, 1, 0),
		pass(0),
		load(unix.BPF_H, 2*uint32(len(mac))),
		skip(uint32(packet.EtherTypeIPv4), 2, 0),
		skip(uint32(packet.EtherTypeARP), 1, 0),
		pass(0),
	}
	for _, to := range []packet.MAC{mac, packet.BroadcastMAC, {0x01, 0x00, 0x5e, 0, 0, 1}} {
		program = append(program,
			load(unix.BPF_W, 0),
			skip(binary.BigEndian.Uint32(to[:]), 0, 3),
			load(unix.BPF_H, 4),
			skip(uint32(binary.BigEndian.Uint16(to[4:])), 0, 1),
			pass(whole))
	}
	return append(program, pass(0))
}

func uplinkName(name string) error {
	if !validInterfaceName(name) {
		return fmt.Errorf("%q is no name for an interface (1 to 15 characters, no / : or space)", name)
	}
	return nil
}

// newUplink asks what there is to know of an interface.
func newUplink(name string) (*Uplink, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find interface %s: %w; `ip link` lists them", name, err)
	}
	a := l.Attrs()
	if a.EncapType != "ether" || len(a.HardwareAddr) != len(packet.MAC{}) {
		return nil, fmt.Errorf("interface %s is no Ethernet but %s", name, a.EncapType)
	}
	return &Uplink{FD: -1, Name: name, Index: a.Index, MTU: a.MTU, MAC: packet.MAC(a.HardwareAddr)}, nil
}
