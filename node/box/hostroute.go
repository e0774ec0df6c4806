package box

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fairlead/packet"
)

// A HostRoute is an address this host has, or a destination it has a route to.
type HostRoute struct {
	Prefix  netip.Prefix
	Dev     string
	Address bool
}

// HostRoutes lists the IPv4 addresses of this host and the routes of all its
// tables that lead somewhere. An interface that has the MAC of a gateway with its
// address is this host's link to a network of ours, and not listed.
func HostRoutes() (list []HostRoute, err error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list this host's interfaces: %w", err)
	}
	names := make(map[int]string, len(links))
	macs := make(map[int]net.HardwareAddr, len(links))
	for _, l := range links {
		names[l.Attrs().Index], macs[l.Attrs().Index] = l.Attrs().Name, l.Attrs().HardwareAddr
	}
	ours := make(map[int]bool)
	add := func(n *net.IPNet, index int, address bool) {
		if a, ok := netip.AddrFromSlice(n.IP); ok && !ours[index] {
			bits, _ := n.Mask.Size()
			list = append(list, HostRoute{netip.PrefixFrom(a.Unmap(), bits), names[index], address})
		}
	}
	addrs, err := h.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list this host's addresses: %w", err)
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP.To4()); ok {
			mac := packet.MACFromIPv4(ip)
			ours[a.LinkIndex] = ours[a.LinkIndex] || bytes.Equal(macs[a.LinkIndex], mac[:])
		}
	}
	for _, a := range addrs {
		add(a.IPNet, a.LinkIndex, true)
	}
	// Without the filter netlink leaves all tables but main out.
	routes, err := h.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list this host's routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst != nil && r.Type == unix.RTN_UNICAST {
			add(r.Dst, r.LinkIndex, false)
		}
	}
	return list, nil
}
