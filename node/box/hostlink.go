package box

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fairlead/link"
	"fairlead/packet"
)

// A HostLink is an interface of the host on a network of containers: it has the
// gateway's MAC and address.
type HostLink struct {
	Name    string // of a TAP that is there and ours; empty makes one
	Network string // what people call it
	Addr    netip.Prefix
	MAC     packet.MAC
	MTU     int
}

// madeName is what interfaces are called that are made here; the kernel counts.
const madeName = "fairlead%d"

// OpenHostLink makes the interface in the caller's network namespace, which takes
// CAP_NET_ADMIN there, and it goes when the last descriptor does. Or it opens a TAP
// somebody with the right has made for us, with address and MAC. The kernel makes
// the route by itself.
func OpenHostLink(h HostLink) (*Uplink, error) {
	if h.Name != "" {
		if err := uplinkName(h.Name); err != nil {
			return nil, fmt.Errorf("host link of network %s: %w", h.Network, err)
		}
	}
	u, err := h.open()
	if errors.Is(err, unix.EPERM) {
		err = fmt.Errorf("%w: it takes CAP_NET_ADMIN. Say it as root, with the node root's; or have an interface made that is yours, once: %s; and then: --host-link=%s. "+
			"Without any right containers are reached from inside: `fairlead run -- curl %s`", err, h.commands(), h.ownName(), h.Addr.Addr().Next().Next())
	}
	if err != nil {
		return nil, fmt.Errorf("host link of network %s: %w", h.Network, err)
	}
	return u, nil
}

// MayMakeInterfaces reports whether the process has CAP_NET_ADMIN.
func MayMakeInterfaces() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	return unix.Capget(&header, &caps[0]) == nil && caps[0].Effective&(1<<unix.CAP_NET_ADMIN) != 0
}

func (h *HostLink) ownName() string {
	if h.Name != "" {
		return h.Name
	}
	return fmt.Sprintf(madeName, 0)
}

// commands make the interface for a user.
func (h *HostLink) commands() string {
	return fmt.Sprintf("sudo ip tuntap add dev %[1]s mode tap user $USER && sudo ip link set %[1]s address %[2]v mtu %[3]d up && sudo ip addr add %[4]v dev %[1]s",
		h.ownName(), h.MAC, h.MTU, h.Addr)
}

func (h *HostLink) open() (u *Uplink, err error) {
	var tap *link.TAP
	if h.Name == "" {
		tap, err = link.CreateTAP(link.TAPConfig{Name: madeName})
	} else {
		if _, err := net.InterfaceByName(h.Name); err != nil {
			return nil, fmt.Errorf("there is no interface %s; this makes it: %s", h.Name, h.commands())
		}
		tap, err = link.OpenTAP(h.Name)
	}
	if err != nil {
		return nil, err
	}
	defer tap.Close()
	name, err := tap.Name()
	if err != nil {
		return nil, err
	}
	if h.Name == "" {
		err = h.configure(name)
	} else {
		err = h.check(name)
	}
	if err != nil {
		return nil, err
	}
	if u, err = newUplink(name); err != nil {
		return nil, err
	}
	if u.FD, err = unix.FcntlInt(uintptr(tap.Fd()), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return nil, err
	}
	return u, nil
}

// configure gives a new interface what it needs. It is of IPv4 alone: what
// containers say to the gateway's MAC by IPv6 does not get here.
func (h *HostLink) configure(name string) error {
	n, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer n.Close()
	l, err := n.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", name, err)
	}
	const none = 1 // IN6_ADDR_GEN_MODE_NONE
	if err := n.LinkSetIP6AddrGenMode(l, none); err != nil && !noIPv6(err) {
		return fmt.Errorf("interface %s: keep IPv6 off: %w", name, err)
	}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"describe it", func() error { return n.LinkSetAlias(l, "fairlead network "+h.Network) }},
		{"set its MAC", func() error { return n.LinkSetHardwareAddr(l, h.MAC[:]) }},
		{"set its MTU", func() error { return n.LinkSetMTU(l, h.MTU) }},
		{"give it " + h.Addr.String(), func() error {
			return n.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: h.Addr.Addr().AsSlice(), Mask: net.CIDRMask(h.Addr.Bits(), 32)}})
		}},
		{"set it up", func() error { return n.LinkSetUp(l) }},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("interface %s: %s: %w", name, step.what, err)
		}
	}
	return nil
}

// noIPv6 reports whether an error is that of a kernel without IPv6.
func noIPv6(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL)
}

// check refuses an interface that would hear nothing of containers, or is not the
// gateway to them.
func (h *HostLink) check(name string) error {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	addrs, err := i.Addrs()
	if err != nil {
		return err
	}
	has := slices.ContainsFunc(addrs, func(a net.Addr) bool { return a.String() == h.Addr.String() })
	if !has || packet.MAC(i.HardwareAddr) != h.MAC || i.MTU != h.MTU || i.Flags&net.FlagUp == 0 {
		return fmt.Errorf("interface %s is not what the network needs: sudo ip link set %[1]s address %v mtu %d up && sudo ip addr replace %v dev %[1]s",
			name, h.MAC, h.MTU, h.Addr)
	}
	return nil
}
