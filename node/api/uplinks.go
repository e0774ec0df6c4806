package api

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// An UplinkSpec is what `--uplink` says, taken apart. It never changes once it
// is parsed.
type UplinkSpec struct {
	Kind      string           // tap: a TAP of ours; if: an interface, by a packet socket; host: HostUplink, and that is all
	Name      string           // of the device; the uplink is called that too
	Addr      netip.Prefix     // ip=; the zero Prefix with dhcp
	Gateway   netip.Addr       // gw=; the zero Addr where there is none
	DHCP      bool             // dhcp
	MAC       net.HardwareAddr // mac=; nil where none is given
	SharedMAC bool             // mac=shared: the interface's own
	MTU       int              // mtu=; 0 is the device's
	Routes    []netip.Prefix   // route=; none, and a gateway: the default route
	Addrs     []netip.Addr     // addr=: further addresses, for 1:1
}

// HostUplink is the uplink that is no link: the sockets of this host. Networks
// have it while they have no other.
const HostUplink = "host"

// Bounds of one specification: what a person writes is far below.
const (
	maxUplinkSpec   = 4096
	maxUplinkRoutes = 64
	maxUplinkAddrs  = 64
)

// uplinkExample is how an uplink is written, for error messages.
const uplinkExample = "such as tap:up0,ip=192.0.2.2/24,gw=192.0.2.1"

// ParseUplink reads an argument of `--uplink`:
//
//	tap:NAME,ip=ADDRESS/LENGTH,gw=ADDRESS[,mac=MAC][,mtu=N][,route=SUBNET]…[,addr=ADDRESS]…
//	if:NAME,dhcp[,mac=MAC|shared]…
//	host
//
// The error names the field that is wrong, and an example.
func ParseUplink(s string) (*UplinkSpec, error) {
	if len(s) > maxUplinkSpec {
		return nil, fmt.Errorf("an uplink of %d characters, %d are the most", len(s), maxUplinkSpec)
	}
	u, err := parseUplink(s)
	if err != nil {
		return nil, fmt.Errorf("uplink %q: %w", s, err)
	}
	return u, nil
}

func parseUplink(s string) (*UplinkSpec, error) {
	device, rest, more := strings.Cut(s, ",")
	kind, name, named := strings.Cut(device, ":")
	switch {
	case kind == HostUplink && (named || more):
		return nil, errors.New("host takes nothing behind it: it is this host's sockets")
	case kind == HostUplink:
		return &UplinkSpec{Kind: HostUplink, Name: HostUplink}, nil
	case kind != "tap" && kind != "if":
		return nil, fmt.Errorf("it begins with tap:NAME or if:NAME, %s; or it is host", uplinkExample)
	case name == HostUplink:
		return nil, errors.New("an uplink called host is this host's sockets; give the device another name")
	}
	if !validInterface(name) {
		return nil, fmt.Errorf("%q is no name for an interface (1 to 15 characters, no / : or space)", name)
	}
	u := &UplinkSpec{Kind: kind, Name: name}
	seen := map[string]bool{}
	for more {
		var field string
		field, rest, more = strings.Cut(rest, ",")
		key, value, _ := strings.Cut(field, "=")
		if seen[key] && key != "route" && key != "addr" {
			return nil, fmt.Errorf("%s is given twice", key)
		}
		seen[key] = true
		if err := u.set(key, value, field); err != nil {
			return nil, err
		}
	}
	return u, u.check()
}

// set takes one field.
func (u *UplinkSpec) set(key, value, field string) (err error) {
	switch key {
	case "ip":
		if u.Addr, err = netip.ParsePrefix(value); err != nil || !u.Addr.Addr().Is4() {
			return fmt.Errorf("ip=%s is not an IPv4 address with a length, such as ip=192.0.2.2/24", value)
		}
	case "gw":
		if u.Gateway, err = netip.ParseAddr(value); err != nil || !u.Gateway.Is4() {
			return fmt.Errorf("gw=%s is not an IPv4 address, such as gw=192.0.2.1", value)
		}
	case "dhcp":
		if field != "dhcp" {
			return fmt.Errorf("%s: dhcp takes no value, such as if:eth0,dhcp", field)
		}
		u.DHCP = true
	case "mac":
		return u.setMAC(value)
	case "mtu":
		if u.MTU, err = strconv.Atoi(value); err != nil || u.MTU < 576 || u.MTU > 65521 {
			return fmt.Errorf("mtu=%s is not a number from 576 to 65521, such as mtu=1400", value)
		}
	case "route":
		return u.addRoute(value)
	case "addr":
		return u.addAddr(value)
	case "":
		return fmt.Errorf("there is an empty field; fields are separated by one comma, %s", uplinkExample)
	default:
		return fmt.Errorf("unknown field %q; an uplink has ip, gw, dhcp, mac, mtu, route and addr, %s", key, uplinkExample)
	}
	return nil
}

func (u *UplinkSpec) setMAC(value string) (err error) {
	if value == "shared" {
		if u.Kind != "if" {
			return errors.New("mac=shared is for if:NAME: the other end of a TAP has that MAC already")
		}
		u.SharedMAC = true
		return nil
	}
	u.MAC, err = net.ParseMAC(value)
	if err != nil || len(u.MAC) != 6 || u.MAC[0]&1 != 0 || slices.Max(u.MAC) == 0 {
		return fmt.Errorf("mac=%s is not a MAC address a station can have, such as mac=02:42:c0:00:02:02, or mac=shared", value)
	}
	return nil
}

func (u *UplinkSpec) addRoute(value string) error {
	subnet := value
	if value == "default" {
		subnet = "0.0.0.0/0"
	}
	p, err := netip.ParsePrefix(subnet)
	switch {
	case err != nil || !p.Addr().Is4():
		return fmt.Errorf("route=%s is not an IPv4 subnet, such as route=10.0.0.0/8, or route=default", value)
	case p != p.Masked():
		return fmt.Errorf("route=%s has bits behind its length; route=%s is the subnet", value, p.Masked())
	case slices.Contains(u.Routes, p):
		return fmt.Errorf("route=%s is given twice", value)
	case len(u.Routes) == maxUplinkRoutes:
		return fmt.Errorf("there are more than %d routes", maxUplinkRoutes)
	}
	u.Routes = append(u.Routes, p)
	return nil
}

func (u *UplinkSpec) addAddr(value string) error {
	a, err := netip.ParseAddr(value)
	switch {
	case err != nil || !a.Is4() || !isStation(a):
		return fmt.Errorf("addr=%s is not an IPv4 address a station can have, such as addr=192.0.2.50", value)
	case slices.Contains(u.Addrs, a):
		return fmt.Errorf("addr=%s is given twice", value)
	case len(u.Addrs) == maxUplinkAddrs:
		return fmt.Errorf("there are more than %d addresses", maxUplinkAddrs)
	}
	u.Addrs = append(u.Addrs, a)
	return nil
}

// check holds the fields against one another.
func (u *UplinkSpec) check() error {
	a, p := u.Addr.Addr(), u.Addr.Masked()
	switch {
	case u.DHCP && u.Addr.IsValid():
		return errors.New("ip and dhcp contradict each other; leave one out")
	case u.DHCP && u.Gateway.IsValid():
		return errors.New("gw and dhcp contradict each other: the router comes with the lease")
	case u.DHCP:
		return nil
	case !u.Addr.IsValid():
		return fmt.Errorf("it has no address: say ip=ADDRESS/LENGTH or dhcp, %s", uplinkExample)
	case u.Addr.Bits() < 8 || !isStation(a) || u.Addr.Bits() < 31 && (a == p.Addr() || a == lastOf(p)):
		return fmt.Errorf("ip=%s is not an address a station can have, with a length from 8 to 32, such as ip=192.0.2.2/24", u.Addr)
	case u.Gateway == a:
		return fmt.Errorf("gw=%s is the uplink's own address; it is that of the next router", u.Gateway)
	case u.Gateway.IsValid() && (!p.Contains(u.Gateway) || p.Bits() < 31 && (u.Gateway == p.Addr() || u.Gateway == lastOf(p))):
		return fmt.Errorf("gw=%s is no station of %s, where the uplink is", u.Gateway, p)
	case len(u.Routes) > 0 && !u.Gateway.IsValid():
		return fmt.Errorf("route=%s leads to no router: say gw=ADDRESS too", u.Routes[0])
	case slices.Contains(u.Addrs, a) || u.Gateway.IsValid() && slices.Contains(u.Addrs, u.Gateway):
		return errors.New("addr= is for further addresses; the uplink's own and the router's are in ip and gw")
	}
	return nil
}

// String writes the specification as ParseUplink reads it, in one form only: two
// that mean the same are written the same.
func (u *UplinkSpec) String() string {
	if u.Kind == HostUplink {
		return HostUplink
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%s", u.Kind, u.Name)
	if u.DHCP {
		b.WriteString(",dhcp")
	}
	if u.Addr.IsValid() {
		fmt.Fprintf(&b, ",ip=%s", u.Addr)
	}
	if u.Gateway.IsValid() {
		fmt.Fprintf(&b, ",gw=%s", u.Gateway)
	}
	if u.SharedMAC {
		b.WriteString(",mac=shared")
	} else if u.MAC != nil {
		fmt.Fprintf(&b, ",mac=%s", u.MAC)
	}
	if u.MTU != 0 {
		fmt.Fprintf(&b, ",mtu=%d", u.MTU)
	}
	for _, r := range u.Routes {
		fmt.Fprintf(&b, ",route=%s", r)
	}
	for _, a := range u.Addrs {
		fmt.Fprintf(&b, ",addr=%s", a)
	}
	return b.String()
}

// validInterface reports whether the kernel takes it as the name of an
// interface, and our syntax too.
func validInterface(s string) bool {
	return s != "" && len(s) <= 15 && s != "." && s != ".." &&
		!strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == '/' || r == ':' || r == ',' || r >= 127 })
}

// isStation reports whether one station can have the address (RFC 1122 3.2.1.3).
func isStation(a netip.Addr) bool {
	first := a.As4()[0]
	return first != 0 && first != 127 && first < 224
}

// lastOf is the broadcast address of an IPv4 subnet.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}
