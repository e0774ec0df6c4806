package box

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"fairlead/link"
)

// carrierTimeout bounds the wait for the node to read the container's link.
const carrierTimeout = 10 * time.Second

// linkLocalTimeout bounds the wait for the IPv6 link-local address where
// linkLocalAtOnce had no effect: a random part of a second, and a second for
// the answers that do not come (RFC 4862 5.4).
const linkLocalTimeout = 2500 * time.Millisecond

// createLink makes an interface in the network namespace of this process, down.
// The descriptor, its other end, is the caller's.
func createLink(i *Interface) (fd int, ready *Ready, err error) {
	ready = &Ready{PeerNetNS: -1}
	if !i.Veth {
		fd, ready.Index, err = createTAP(i)
		return fd, ready, err
	}
	self, err := OpenPID(os.Getpid())
	if err != nil {
		return -1, nil, err
	}
	defer unix.Close(self)
	inside, err := openNS(self, unix.CLONE_NEWNET)
	if err != nil {
		return -1, nil, err
	}
	defer unix.Close(inside)
	err = inNursery(func() (err error) {
		fd, err = createVeth(i, inside)
		return err
	})
	if err != nil {
		return -1, nil, err
	}
	if err = ready.veth(i.Name); err != nil {
		unix.Close(fd)
		return -1, nil, err
	}
	return fd, ready, nil
}

// veth says what there is to know of the end inside, in whose namespace the
// calling thread is, and turns off there what the other end cannot take.
func (r *Ready) veth(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", name, err)
	}
	r.Index, r.PeerNetNS = l.Attrs().Index, l.Attrs().NetNsID
	return turnOff(name, wordless)
}

// createTAP makes the device of an interface in the network namespace of the
// calling thread, down and without carrier. The descriptor is the caller's.
func createTAP(i *Interface) (fd, index int, err error) {
	var dev interface {
		Fd() int
		Close() error
	}
	if i.Plain {
		dev, err = link.CreateWire(link.WireConfig{Name: i.Name})
	} else {
		dev, err = link.CreateTAP(link.TAPConfig{Name: i.Name})
	}
	if err != nil {
		return -1, 0, err
	}
	defer dev.Close()
	ifi, err := net.InterfaceByName(i.Name)
	if err != nil {
		return -1, 0, fmt.Errorf("find interface %s: %w", i.Name, err)
	}
	fd, err = unix.FcntlInt(uintptr(dev.Fd()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, 0, fmt.Errorf("interface %s: %w", i.Name, err)
	}
	return fd, ifi.Index, nil
}

// setupNetwork gives the container's network namespace its addresses and
// routes.
func (c *container) setupNetwork() error {
	if c.spec.Network == NetworkOwn {
		linkLocalAtOnce(c.spec.Interface.Name, c.warn)
		ignoreRouters(c.spec.Interface.Name, c.warn)
		askByOwnAddress(c.spec.Interface.Name, c.warn)
	}
	for name, value := range c.spec.Sysctls {
		if err := setSysctl(name, value); err != nil {
			return err
		}
	}
	if !c.spec.ownNet() {
		return nil
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err == nil {
		err = h.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	if c.spec.Network != NetworkOwn {
		return nil
	}
	return setupInterface(h, c.spec.Interface, c.warn)
}

// linkLocalAtOnce makes the IPv6 link-local address fe80:: and the MAC by
// EUI-64, and usable without duplicate address detection: the switch lets
// nobody else have this MAC, so there is nothing to detect. (dad_transmits=0
// would still wait for a random part of a second, addrconf_dad_kick in
// net/ipv6/addrconf.c.)
func linkLocalAtOnce(name string, warn func(string, ...any)) {
	clearIPv6(name, warn, "addr_gen_mode", "accept_dad")
}

// ignoreRouters keeps an interface from taking routes and addresses from
// whoever says he is a router (RFC 6104): the gateway speaks no IPv6, so it can
// only be a neighbour. --sysctl, which is set later, may ask for them.
func ignoreRouters(name string, warn func(string, ...any)) {
	clearIPv6(name, warn, "accept_ra", "accept_redirects")
}

// askByOwnAddress has an interface ask for neighbours by an address of its network. A
// kernel would name the source of the first packet that waits (arp_solicit in
// net/ipv4/arp.c), which of a connection from before the default route led here is
// another interface's. The guard refuses that, and as long as such a connection tries
// nobody in the container would find the gateway.
func askByOwnAddress(name string, warn func(string, ...any)) {
	if err := setSysctl("net/ipv4/conf/"+name+"/arp_announce", "1"); err != nil {
		warn("%v", err)
	}
}

// clearIPv6 sets IPv6 settings of an interface to 0.
func clearIPv6(name string, warn func(string, ...any), keys ...string) {
	for _, key := range keys {
		err := setSysctl("net/ipv6/conf/"+name+"/"+key, "0")
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without IPv6
			warn("%v", err)
		}
	}
}

// setupInterface gives an interface its addresses, sets it up and routes by
// it. h and the calling thread are in its namespace.
func setupInterface(h *netlink.Handle, i *Interface, warn func(string, ...any)) error {
	l, err := h.LinkByName(i.Name)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", i.Name, err)
	}
	if err := h.LinkSetHardwareAddr(l, i.MAC[:]); err != nil {
		return fmt.Errorf("interface %s: set MAC %v: %w", i.Name, i.MAC, err)
	}
	if i.MTU != 0 {
		if err := h.LinkSetMTU(l, i.MTU); err != nil {
			return fmt.Errorf("interface %s: set MTU %d: %w", i.Name, i.MTU, err)
		}
	}
	for _, p := range i.Addresses {
		a := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := h.AddrAdd(l, a); err != nil {
			return fmt.Errorf("interface %s: add address %v: %w", i.Name, p, err)
		}
	}
	if err := h.LinkSetUp(l); err != nil {
		return fmt.Errorf("set interface %s up: %w", i.Name, err)
	}
	for _, g := range i.Gateways {
		add := addDefaultRoute
		if i.ReplaceDefault {
			add = replaceDefaultRoute
		}
		if err := add(h, l.Attrs().Index, g); err != nil {
			return fmt.Errorf("interface %s: add default route via %v: %w", i.Name, g, err)
		}
	}
	for _, r := range i.Routes {
		route := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(r.To), Gw: r.Via.AsSlice()}
		if !r.Via.IsValid() && r.To.Addr().Is4() {
			route.Scope = netlink.SCOPE_LINK
		}
		if err := h.RouteAdd(route); err != nil {
			return fmt.Errorf("interface %s: add route to %v: %w", i.Name, r.To, err)
		}
	}
	if i.Resolver.IsValid() {
		if err := addResolver(h, l, i); err != nil {
			warn("interface %s: no names at %v: %v", i.Name, resolverAddr, err)
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// resolverAddr is where Docker has a container look for names, and so programs
// and people do.
var resolverAddr = netip.AddrFrom4([4]byte{127, 0, 0, 11})

// addResolver leads resolverAddr to a station on the link. It is a route, and
// nothing listens inside: a socket of ours there would pin the namespace. The
// table of local addresses is looked at first, and there a host goes before
// 127.0.0.0/8; route_localnet has the kernel send to and take from a loopback
// address by this interface. Of several interfaces the oldest is asked.
func addResolver(h *netlink.Handle, l netlink.Link, i *Interface) error {
	if err := setSysctl("net/ipv4/conf/"+i.Name+"/route_localnet", "1"); err != nil {
		return err
	}
	route := &netlink.Route{
		LinkIndex: l.Attrs().Index, Dst: ipNet(netip.PrefixFrom(resolverAddr, 32)), Gw: i.Resolver.AsSlice(),
		Table: unix.RT_TABLE_LOCAL, Priority: l.Attrs().Index,
	}
	for _, p := range i.Addresses {
		if p.Masked().Contains(i.Resolver) {
			route.Src = p.Addr().AsSlice() // or it would be the loopback's
		}
	}
	return h.RouteAdd(route)
}

// addDefaultRoute leaves a default route that is there as it is, also one of a
// higher metric, which ours would win over: how a namespace reaches the world
// is for its owner to say.
func addDefaultRoute(h *netlink.Handle, index int, gateway netip.Addr) error {
	family := netlink.FAMILY_V4
	if gateway.Is6() {
		family = netlink.FAMILY_V6
	}
	routes, err := h.RouteList(nil, family)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(routes, isDefault) {
		return nil
	}
	return h.RouteAdd(&netlink.Route{LinkIndex: index, Gw: gateway.AsSlice()})
}

// replaceDefaultRoute takes the place of one without a metric.
func replaceDefaultRoute(h *netlink.Handle, index int, gateway netip.Addr) error {
	return h.RouteReplace(&netlink.Route{LinkIndex: index, Gw: gateway.AsSlice()})
}

func isDefault(r netlink.Route) bool {
	if r.Dst == nil {
		return true
	}
	ones, _ := r.Dst.Mask.Size()
	return ones == 0
}

// waitCarrier waits until the node reads the other end, and the interface runs:
// what it sends before that is lost, answers to ARP too (the kernel gives a link
// a queue after it has seen the carrier, linkwatch_do_dev). A TCP connection would
// take a second longer.
func waitCarrier(name string, timeout time.Duration, warn func(string, ...any)) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	events, err := watchLinks()
	if err != nil {
		return err
	}
	defer events.Close()
	deadline := time.Now().Add(timeout)
	carrier := false
	for {
		l, err := h.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find interface %s: %w", name, err)
		}
		if !carrier && runs(l) {
			carrier, deadline = true, time.Now().Add(linkLocalTimeout)
		}
		if carrier && linkLocalReady(h, l) {
			return nil
		}
		left := time.Until(deadline)
		switch {
		case left > 0:
		case carrier:
			warn("interface %s: its IPv6 link-local address is not usable yet", name)
			return nil
		default:
			return fmt.Errorf("interface %s has no carrier after %v: the node does not read its link", name, timeout)
		}
		if err := events.next(left); err != nil {
			return err
		}
	}
}

// runs reports whether somebody reads an interface's other end, and it is up.
func runs(l netlink.Link) bool {
	const flags = unix.IFF_UP | unix.IFF_LOWER_UP | unix.IFF_RUNNING
	return l.Attrs().RawFlags&flags == flags
}

// linkEvents are changes of interfaces and of their IPv6 addresses. Who waits for
// one subscribes before the first look, so that no change falls between.
type linkEvents struct{ *nl.NetlinkSocket }

func watchLinks() (linkEvents, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV6_IFADDR)
	if err != nil {
		return linkEvents{}, fmt.Errorf("subscribe to link changes: %w", err)
	}
	return linkEvents{s}, nil
}

// next waits for one, or as long as it may. Whatever it says, one looks again.
func (e linkEvents) next(within time.Duration) error {
	tv := unix.NsecToTimeval(max(within, time.Millisecond).Nanoseconds())
	if err := e.SetReceiveTimeout(&tv); err != nil {
		return fmt.Errorf("wait for link changes: %w", err)
	}
	_, _, err := e.Receive() // ENOBUFS: it said too much
	if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOBUFS) {
		return fmt.Errorf("wait for link changes: %w", err)
	}
	return nil
}

// linkLocalReady reports whether the interface's IPv6 link-local address can
// be used, or none is to be expected.
func linkLocalReady(h *netlink.Handle, l netlink.Link) bool {
	disabled, ok := sysctl("net/ipv6/conf/" + l.Attrs().Name + "/disable_ipv6")
	if !ok || disabled != 0 {
		return true
	}
	addrs, err := h.AddrList(l, netlink.FAMILY_V6)
	return err == nil && slices.ContainsFunc(addrs, func(a netlink.Addr) bool {
		return a.IP.IsLinkLocalUnicast() && a.Flags&unix.IFA_F_TENTATIVE == 0
	})
}

// sysctlPath takes both notations of sysctl(8): with dots, or with slashes
// where a name itself has a dot.
func sysctlPath(name string) string {
	if !strings.Contains(name, "/") {
		name = strings.ReplaceAll(name, ".", "/")
	}
	return "/proc/sys/" + name
}

// sysctl reads an integer; ok is false where there is none.
func sysctl(name string) (value int, ok bool) {
	text, err := os.ReadFile(sysctlPath(name))
	if err != nil {
		return 0, false
	}
	value, err = strconv.Atoi(strings.TrimSpace(string(text)))
	return value, err == nil
}

func setSysctl(name, value string) error {
	if err := os.WriteFile(sysctlPath(name), []byte(value), 0); err != nil {
		return fmt.Errorf("sysctl %s=%s: %w", name, value, err)
	}
	return nil
}
