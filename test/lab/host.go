package lab

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// A Host is a network namespace with lo up. It lasts until the test ends, or as
// long as a process or a TAP still lives in it.
type Host struct {
	Name string

	// Netlink speaks to the namespace's kernel, for what has no method here.
	Netlink *netlink.Handle

	ns netns.NsHandle
}

// NewHost makes a host. The name appears in messages only.
func NewHost(t T, name string) *Host {
	t.Helper()
	needWorld(t)
	h := &Host{Name: name, ns: -1}
	must(t, onThread(func() (err error) {
		h.ns, err = netns.New()
		return err
	}), "make host %s", name)
	t.Cleanup(func() { h.ns.Close() })
	var err error
	h.Netlink, err = netlink.NewHandleAt(h.ns, unix.NETLINK_ROUTE)
	must(t, err, "make host %s", name)
	t.Cleanup(h.Netlink.Close)
	// No address is anybody else's here, and none is tentative for its first seconds.
	h.Sysctl(t, "net.ipv6.conf.default.accept_dad", "0")
	h.Up(t, "lo")
	return h
}

// Do calls fn on a thread that is in the host's namespace. What fn opens
// belongs to the namespace: sockets, listeners, TAPs. Goroutines it starts are
// elsewhere, and so are the functions of T.
func (h *Host) Do(fn func() error) error {
	return onThread(func() error {
		if err := netns.Set(h.ns); err != nil {
			return fmt.Errorf("enter host %s: %w", h.Name, err)
		}
		return fn()
	})
}

// In calls fn as Do does and returns its result; an error fails the test.
//
//	tap := lab.In(t, h, func() (*link.TAP, error) { return link.CreateTAP(cfg) })
func In[V any](t T, h *Host, fn func() (V, error)) V {
	t.Helper()
	var v V
	err := h.Do(func() (err error) {
		v, err = fn()
		return err
	})
	if err != nil {
		t.Fatalf("host %s: %v", h.Name, err)
	}
	return v
}

// onThread calls fn on a thread of its own and puts the thread back into the
// namespace it came from. It cannot simply let the thread end: the goroutine
// may be on the main thread, which never ends and is what /proc/PID/ns shows.
func onThread(fn func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			result <- fmt.Errorf("find the namespace of this thread: %w", err)
			return
		}
		err = fn()
		if back := netns.Set(home); back != nil {
			// The thread stays locked and ends with this goroutine.
			err = errors.Join(err, fmt.Errorf("return to the namespace of this thread: %w", back))
		} else {
			runtime.UnlockOSThread()
		}
		home.Close()
		result <- err
	}()
	return <-result
}

// Join lays a cable: a veth pair with one end in each host, both up.
func Join(t T, a *Host, aDev string, b *Host, bDev string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = aDev
	must(t, a.Netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: attrs, PeerName: bDev, PeerNamespace: netlink.NsFd(b.ns),
	}), "join %s.%s and %s.%s", a.Name, aDev, b.Name, bDev)
	a.Up(t, aDev)
	b.Up(t, bDev)
}

// Bridge makes one more host whose kernel bridges a cable to the eth0 of each
// of hosts: what fairlead is measured against.
func Bridge(t T, name string, hosts ...*Host) *Host {
	t.Helper()
	h := NewHost(t, name)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br0"
	br := &netlink.Bridge{LinkAttrs: attrs}
	must(t, h.Netlink.LinkAdd(br), "make a bridge on %s", name)
	for i, other := range hosts {
		dev := fmt.Sprintf("port%d", i+1)
		Join(t, h, dev, other, "eth0")
		must(t, h.Netlink.LinkSetMaster(h.link(t, dev), br), "put %s.%s into br0", name, dev)
	}
	h.Up(t, "br0")
	return h
}

// Up sets an interface up.
func (h *Host) Up(t T, dev string) {
	t.Helper()
	must(t, h.Netlink.LinkSetUp(h.link(t, dev)), "set %s.%s up", h.Name, dev)
}

// Addr gives an interface an address such as "10.0.0.1/24". An IPv6 address is
// usable at once, without the second of duplicate address detection.
func (h *Host) Addr(t T, dev, cidr string) {
	t.Helper()
	addr, err := netlink.ParseAddr(cidr)
	must(t, err, "parse the address %s", cidr)
	if addr.IP.To4() == nil {
		addr.Flags = unix.IFA_F_NODAD
	}
	must(t, h.Netlink.AddrAdd(h.link(t, dev), addr), "give %s.%s the address %s", h.Name, dev, cidr)
}

// Route adds a route to "default" or a prefix by way of a gateway.
func (h *Host) Route(t T, prefix, via string) {
	t.Helper()
	gateway, err := netlink.ParseIPNet(via + "/0")
	must(t, err, "parse the gateway %s", via)
	route := &netlink.Route{Gw: gateway.IP}
	if prefix != "default" {
		route.Dst, err = netlink.ParseIPNet(prefix)
		must(t, err, "parse the prefix %s", prefix)
	}
	must(t, h.Netlink.RouteAdd(route), "route %s by way of %s on %s", prefix, via, h.Name)
}

// Sysctl sets a value under /proc/sys, such as "net.ipv4.ip_forward". An
// interface's dot is written as a slash, as sysctl(8) has it.
func (h *Host) Sysctl(t T, key, value string) {
	t.Helper()
	path := "/proc/sys/" + strings.NewReplacer(".", "/", "/", ".").Replace(key)
	must(t, h.Do(func() error { return os.WriteFile(path, []byte(value), 0) }), "sysctl on %s", h.Name)
}

func (h *Host) link(t T, dev string) netlink.Link {
	t.Helper()
	link, err := h.Netlink.LinkByName(dev)
	must(t, err, "find %s.%s", h.Name, dev)
	return link
}
