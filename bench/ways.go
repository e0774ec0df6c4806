package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"fairlead/link"
	"fairlead/packet"
	hosts "fairlead/test/lab"
)

// ways are what else could be done with a frame, each as the least program that
// does it, beside raw, which is what fairlead does. They are measured only when
// asked for; docs/decisions/ways-not-taken.md says what came of them.
var ways = []*path{
	way("raw-queue-100", "raw, with room for 100 frames in front of it instead of 1,000", layQueueLength(100)),
	way("raw-queue-10000", "raw, with room for 10,000 frames in front of it", layQueueLength(10_000)),
	way("raw-queues", "raw twice, for TAPs with two queues each: two workers", wayOf("raw-queues", 2, unix.IFF_MULTI_QUEUE)),
	{name: "raw-rps", what: "raw, what it writes handed on to all processors (RPS)", every: 1, asked: true, lay: layRPS, possible: maySpread},
	way("raw-napi", "raw, what it writes taken in batches (IFF_NAPI)", wayOf("raw", 1, unix.IFF_NAPI)),
	way("raw-napi-threaded", "the same by a thread of the kernel's", layThreaded),
	way("raw-uring", "raw with batches of an io_uring", process("raw-uring", tap, tap)),
	way("raw-veth", "raw on packet sockets of two veth pairs", process("raw-veth", veth, veth)),
	way("raw-ring", "the same with a mapped ring of each socket", process("raw-ring", veth, veth)),
}

func way(name, what string, lay func(l *lab, c *cable)) *path {
	return &path{name: name, what: what, every: 1, asked: true, lay: lay}
}

// layThreaded is raw with NAPI, which a thread of the kernel's polls.
func layThreaded(l *lab, c *cable) {
	wayOf("raw", 1, unix.IFF_NAPI)(l, c)
	for _, h := range c.ends {
		ns := namespaceOf(l, h)
		l.check(writeSetting(int(ns.Fd()), "eth0/threaded", "1"), "have a thread for eth0 of %s", h.Name)
		ns.Close()
	}
}

// layQueueLength is raw with a queue of another length: what waits for it, of
// each TAP.
func layQueueLength(n int) func(l *lab, c *cable) {
	raw := process("raw", tap, tap)
	return func(l *lab, c *cable) {
		raw(l, c)
		for _, h := range c.ends {
			eth0, err := h.Netlink.LinkByName("eth0")
			l.check(err, "find eth0 of %s", h.Name)
			l.check(h.Netlink.LinkSetTxQLen(eth0, n), "set the queue length of eth0 of %s", h.Name)
		}
	}
}

// wayOf is a path whose process relays between TAPs that link does not make: with
// several queues, or with NAPI.
func wayOf(kind string, queues int, flags uint16) func(l *lab, c *cable) {
	return func(l *lab, c *cable) {
		var ends []end
		byQueue := make([][]*os.File, queues)
		for i, h := range c.ends {
			for q := range queues {
				fd := hosts.In(l, h, func() (*os.File, error) { return openQueue(flags) })
				defer fd.Close() // the process has its own
				byQueue[q] = append(byQueue[q], fd)
			}
			ends = append(ends, end{Link: tap, MAC: c.mac(l, i), Addr: c.prefix[i].Addr()})
			h.Up(l, "eth0")
		}
		var fds []*os.File
		for _, pair := range byQueue {
			fds = append(fds, pair...)
		}
		c.crossed = startChild(l, kind, ends, fds).crossed
	}
}

// openQueue opens one queue of eth0 where it is called, and makes eth0 if there is
// none: a TAP as link makes it, with flags that link refuses.
func openQueue(flags uint16) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	f := os.NewFile(uintptr(fd), "eth0")
	ifr, err := unix.NewIfreq("eth0")
	if err != nil {
		return f, err
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return f, fmt.Errorf("TUNSETIFF with flags %#x: %w", flags, err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, packet.VNetLen); err != nil {
		return f, fmt.Errorf("TUNSETVNETHDRSZ: %w", err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, int(link.OffloadAll)); err != nil {
		return f, fmt.Errorf("TUNSETOFFLOAD: %w", err)
	}
	return f, nil
}
