package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fairlead/link"
	"fairlead/packet"
	"fairlead/packet/packettest"
	hosts "fairlead/test/lab"
)

// manyPortsBar is the part of the figure with two ports that forwarding between
// two of a thousand has to reach.
const manyPortsBar = 0.8

// ports is how many small frames cross between two of many ports. All others are
// real TAPs, in one namespace instead of one each, up and silent; the kernel's
// bridge has as many veth pairs.
func ports() *workload {
	w := &workload{name: "scale-ports", unit: "k/s", what: "60-byte frames between two of 2, 100 and 1,000 ports; the others are up and silent"}
	counts := []int{2, 100, 1000}
	var paths []*path
	for _, n := range counts {
		paths = append(paths, portPath("fairlead", n, layPorts("fairlead", n)))
	}
	for _, n := range counts {
		paths = append(paths, portPath("kernel", n, layBridgePorts(n)))
	}
	paths = append(paths, sizedPeers(2)...)
	for _, p := range paths {
		p.standsBy(strings.HasSuffix(p.name, "-100"))
	}
	for _, n := range []int{2, 1000} { // those the bar is about
		bound := portPath("raw", n, layPorts("raw", n))
		bound.standsBy(true)
		paths = append(paths, bound)
	}
	w.takes = func(o *options) time.Duration { return o.takeTurns(paths) + 20*time.Second }
	w.measure = func(l *lab, o *options, r *results) {
		figures := w.turns(l, o, r, paths, func(l *lab, c *cable) func() (sample, error) {
			src, dst := packettest.Station{MAC: c.mac(l, 0), IP: addrs[0]}, packettest.Station{MAC: c.mac(l, 1), IP: nobody}
			s := newSpray(l, c.ends[0], 64, func(i int) []byte { return small(src, dst, 1024+uint16(i), 9) })
			return func() (sample, error) {
				if err := c.connect(l); err != nil { // so that nobody has forgotten the far end
					return sample{}, err
				}
				return s.measure(c, time.Duration(o.lasts(c.path))*time.Second)
			}
		})
		if few, many := figures["fairlead-2"], figures["fairlead-1000"]; few != nil && many != nil {
			r.atLeast(many, few, manyPortsBar)
			r.alike(figures["raw-1000"], figures["raw-2"])
		}
		r.holdPeers(w, map[string]*figure{"fairlead": figures["fairlead-2"]}, peerBar)
	}
	return w
}

// nobody has this address.
var nobody = netip.MustParseAddr("10.0.0.99")

func portPath(name string, n int, lay func(l *lab, c *cable)) *path {
	return &path{name: fmt.Sprintf("%s-%d", name, n), of: name, every: 1, quick: true, lay: lay}
}

// sizedPeers are the switches of others at one of a workload's sizes, each with a
// process of two ports. Which of them is the best is soon known.
func sizedPeers(n int) (list []*path) {
	for _, p := range paths {
		if p.peer {
			sized := *p
			sized.name, sized.of, sized.every, sized.brief = fmt.Sprintf("%s-%d", p.name, n), p.name, 1, true
			list = append(list, &sized)
		}
	}
	return list
}

// size is the number at the end of a path's name, and what stands in front of it.
func size(path string) (name string, n int) {
	if at := strings.LastIndexByte(path, '-'); at > 0 {
		if n, err := strconv.Atoi(path[at+1:]); err == nil {
			return path[:at], n
		}
	}
	return path, 0
}

// standsBy has a path no bar is about measured seldom, and for a second.
func (p *path) standsBy(yes bool) {
	if yes {
		p.every, p.brief = seldom, true
	}
}

// layPorts is a process with n ports, of which two belong to the cable's ends.
func layPorts(kind string, n int) func(l *lab, c *cable) {
	return func(l *lab, c *cable) {
		ends, fds := c.links(l, tap, tap)
		defer closeFiles(fds)
		others, taps := idleTAPs(l, n-2)
		defer closeFiles(taps)
		c.crossed = startChild(l, kind, append(ends, others...), append(fds, taps...)).crossed
	}
}

// idleTAPs makes containers that do nothing, in one namespace.
func idleTAPs(l *lab, n int) (ends []end, fds []*os.File) {
	if n == 0 {
		return nil, nil
	}
	h := silentHost(l, "others")
	fds = hosts.In(l, h, func() (fds []*os.File, err error) {
		for i := range n {
			fd, err := createTAP(fmt.Sprintf("tap%d", i))
			if err != nil {
				return fds, err
			}
			fds = append(fds, fd)
		}
		return fds, nil
	})
	links, err := h.Netlink.LinkList()
	l.check(err, "list the links of %s", h.Name)
	for _, x := range links {
		if x.Type() != "tuntap" {
			continue
		}
		l.check(h.Netlink.LinkSetGroup(x, idleGroup), "put %s into a group", x.Attrs().Name)
		l.check(h.Netlink.LinkSetUp(x), "set %s up", x.Attrs().Name)
		i := len(ends)
		ends = append(ends, end{Link: tap, MAC: packet.MAC(x.Attrs().HardwareAddr), Addr: netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})})
	}
	// All at once: one by one, as they are closed, they take the kernel 16 ms each.
	l.Cleanup(func() { deleteGroup(h, idleGroup) })
	return ends, fds
}

// idleGroup is that of the TAPs of containers that do nothing.
const idleGroup = 1

// deleteGroup removes all interfaces of a group.
func deleteGroup(h *hosts.Host, group int) {
	_ = h.Command(context.Background(), "ip", "link", "delete", "group", strconv.Itoa(group)).Run()
}

// createTAP makes a TAP where it is called and returns its other end.
func createTAP(name string) (*os.File, error) {
	q, err := link.CreateTAP(link.TAPConfig{Name: name})
	if err != nil {
		return nil, err
	}
	defer q.Close()
	fd, err := unix.FcntlInt(uintptr(q.Fd()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("copy the descriptor of %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// silentHost is one whose interfaces say nothing by themselves.
func silentHost(l *lab, name string) *hosts.Host {
	h := hosts.NewHost(l, name)
	h.Sysctl(l, "net.ipv6.conf.default.disable_ipv6", "1")
	return h
}

// layBridgePorts is the kernel's bridge with n ports.
func layBridgePorts(n int) func(l *lab, c *cable) {
	return func(l *lab, c *cable) {
		h := plainBridge(l, c.name, c.ends[:]...)
		c.crossed = sentBy(h, "port1", "port2")
		if n == 2 {
			return
		}
		others := silentHost(l, "others")
		h.Sysctl(l, "net.ipv6.conf.default.disable_ipv6", "1")
		br, err := h.Netlink.LinkByName("br0")
		l.check(err, "find the bridge")
		for i := 2; i < n; i++ {
			l.check(addPort(l, h, br, others, fmt.Sprintf("port%d", i+1)), "add a port to the bridge")
		}
	}
}

// addPort hangs a veth pair on a bridge.
func addPort(l *lab, h *hosts.Host, br netlink.Link, other *hosts.Host, name string) error {
	hosts.Join(l, h, name, other, name)
	port, err := h.Netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return h.Netlink.LinkSetMaster(port, br)
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
