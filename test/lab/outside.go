package lab

import (
	"fmt"
	"net"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// An Outside is what lies beyond a node: a host that is nobody's neighbour, and
// the routers that lead to it.
//
//	node ── up0 Router far ── eth0 Host
//	        192.0.2.1   198.51.100.1 .2
//
// The addresses are those RFC 5737 and 2544 set aside. To traceroute everybody
// answers as often as asked.
type Outside struct {
	Host    *Host
	Router  *Router
	Machine *Host // whose sockets the node uses; nil if it has a TAP on the router
}

// A Router has the node as its neighbour on one side, by a persistent TAP, and
// the outside host on the other.
type Router struct {
	*Host

	TAP    string // what the node is the other end of, on the first router's host
	Addr   string // the router's address there
	Uplink string // the address left for the node
	subnet string // both are in

	Far     string // the router's address on the far side
	FarHost string // the outside host's there

	outside *Host
	farDev  string // of the outside host
}

// NewOutside makes an outside host and a router to it.
func NewOutside(t T) *Outside {
	t.Helper()
	return newOutside(t, func(o *Outside) { o.Router.AddTAP(t, "up0") })
}

// NewOutsideOf makes the same of a machine with a cable to the router, and the
// address that is else the node's. A plain user may ping there.
//
//	Machine eth0 ── up0 Router far ── eth0 Host
func NewOutsideOf(t T) *Outside {
	t.Helper()
	return newOutside(t, func(o *Outside) {
		o.Machine = NewHost(t, "machine")
		o.Machine.Sysctl(t, "net.ipv4.ping_group_range", "0 0")
		Join(t, o.Machine, "eth0", o.Router.Host, "up0")
		o.Machine.Addr(t, "eth0", o.Router.Uplink+"/24")
		o.Machine.Route(t, "default", o.Router.Addr)
	})
}

// newOutside makes it with a way to up0 on the router.
func newOutside(t T, way func(o *Outside)) *Outside {
	t.Helper()
	o := &Outside{Host: newStation(t, "outside")}
	o.Router = &Router{
		Host: newStation(t, "router"), TAP: "up0", Addr: "192.0.2.1", Uplink: "192.0.2.2", subnet: "192.0.2.0/24",
		Far: "198.51.100.1", FarHost: "198.51.100.2", outside: o.Host, farDev: "eth0",
	}
	way(o)
	o.Router.addr(t, "up0")
	o.Router.join(t)
	o.Host.Route(t, "default", o.Router.Far)
	return o
}

// AddRouter makes a second way to the same host, which answers by the way it
// was asked. Its TAP up1 is on the first router's host, bridged to a cable to
// the second: one call of fairlead has to find both.
func (o *Outside) AddRouter(t T) *Router {
	t.Helper()
	r := &Router{
		Host: newStation(t, "second router"), TAP: "up1", Addr: "203.0.113.1", Uplink: "203.0.113.2", subnet: "203.0.113.0/24",
		Far: "198.18.1.1", FarHost: "198.18.1.2", outside: o.Host, farDev: "eth1",
	}
	first := o.Router.Host
	first.AddTAP(t, "up1")
	Join(t, first, "second", r.Host, "lan")
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br1"
	br := &netlink.Bridge{LinkAttrs: attrs}
	must(t, first.Netlink.LinkAdd(br), "make a bridge on %s", first.Name)
	first.Up(t, "br1")
	for _, dev := range []string{"up1", "second"} {
		must(t, first.Netlink.LinkSetMaster(first.link(t, dev), br), "put %s.%s into br1", first.Name, dev)
	}
	r.addr(t, "lan")
	r.join(t)
	o.Host.Route(t, r.subnet, r.Far)
	return r
}

// addr gives the router its address on the node's side.
func (r *Router) addr(t T, dev string) {
	t.Helper()
	r.Host.Addr(t, dev, r.Addr+"/24")
}

// join connects the router with the outside host.
func (r *Router) join(t T) {
	t.Helper()
	Join(t, r.Host, "far", r.outside, r.farDev)
	r.Host.Addr(t, "far", r.Far+"/24")
	r.outside.Addr(t, r.farDev, r.FarHost+"/24")
}

// newStation makes a host that routes, without two limits that would make tests
// wait or fail: of one ICMP error a second to the same address, and to packets
// that come by the way back.
func newStation(t T, name string) *Host {
	t.Helper()
	h := NewHost(t, name)
	for key, value := range map[string]string{
		"ip_forward": "1", "icmp_ratelimit": "0", "conf.all.rp_filter": "0", "conf.default.rp_filter": "0",
	} {
		h.Sysctl(t, "net.ipv4."+key, value)
	}
	return h
}

// Move gives the router's address on one interface to another one, for a node
// that has no TAP.
func (r *Router) Move(t T, from, to string) {
	t.Helper()
	addr, err := netlink.ParseAddr(r.Addr + "/24")
	must(t, err, "parse %s", r.Addr)
	must(t, r.Netlink.AddrDel(r.link(t, from), addr), "take %s off %s", addr, from)
	r.addr(t, to)
}

// AddTAP makes a TAP that stays while nobody has it open, and sets it up.
func (h *Host) AddTAP(t T, name string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	must(t, h.Do(func() error {
		return netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: attrs, Mode: netlink.TUNTAP_MODE_TAP, Flags: netlink.TUNTAP_DEFAULTS})
	}), "make TAP %s on %s", name, h.Name)
	h.Up(t, name)
}

// Spec is what `fairlead --uplink` has to be told to use this router, with
// further fields.
func (r *Router) Spec(more ...string) string {
	spec := fmt.Sprintf("tap:%s,ip=%s/24,gw=%s", r.TAP, r.Uplink, r.Addr)
	return strings.Join(append([]string{spec}, more...), ",")
}

// MTU makes the way to the outside host narrower than both ends know, as a
// tunnel on it would: the router takes no larger packet there.
func (r *Router) MTU(t T, mtu int) {
	t.Helper()
	far, err := netlink.ParseAddr(r.Far + "/24")
	must(t, err, "parse %s", r.Far)
	subnet := &net.IPNet{IP: far.IP.Mask(far.Mask), Mask: far.Mask}
	must(t, r.Netlink.RouteReplace(&netlink.Route{
		LinkIndex: r.link(t, "far").Attrs().Index, Dst: subnet, Src: far.IP, Scope: netlink.SCOPE_LINK, Protocol: unix.RTPROT_KERNEL, MTU: mtu,
	}), "set the MTU of %s", r.Name)
}

// NAT makes it a second NAT router: outside sees its own address only, and what
// comes for that by TCP and UDP it hands on to the node.
func (r *Router) NAT(t T) {
	t.Helper()
	r.NATFor(t, r.Uplink)
}

// NATFor is NAT, and hands on to another address of the node.
func (r *Router) NATFor(t T, address string) {
	t.Helper()
	r.Rules(t, "add table ip nat",
		"add chain ip nat out { type nat hook postrouting priority 100; }",
		"add rule ip nat out oifname far masquerade",
		"add chain ip nat in { type nat hook prerouting priority -100; }",
		"add rule ip nat in iifname far ip daddr "+r.Far+" meta l4proto { tcp, udp } dnat to "+address)
}

// Rules adds lines for nft(8).
func (h *Host) Rules(t T, lines ...string) {
	t.Helper()
	Need(t, "nft")
	h.Run(t, "nft", strings.Join(lines, "; "))
}

// Try runs a command on the host, however it ends: all it said, and its status.
func (h *Host) Try(t T, name string, args ...string) (output string, status int) {
	t.Helper()
	ctx, cancel := contextWithPatience()
	defer cancel()
	cmd := h.Command(ctx, name, args...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || ctx.Err() != nil {
		t.Fatalf("host %s: %s: %v\n%s", h.Name, strings.Join(cmd.Args, " "), err, out)
	}
	return string(out), cmd.ProcessState.ExitCode()
}
