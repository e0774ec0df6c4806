package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/bench/relay"
	"fairlead/link"
	"fairlead/node/box"
	hosts "fairlead/test/lab"
)

// A path is what carries frames between two containers.
type path struct {
	name string
	what string

	// every is in which rounds it is measured: each, or one of so many.
	every int
	// brief paths are measured for a second: slow ones, and those that only stand
	// by.
	brief bool
	// quick paths are measured with --quick too.
	quick bool
	// asked paths are measured only if --paths names them: what was tried and
	// decided against.
	asked bool
	// of is what paths of several sizes have in common: --paths may name that.
	of string
	// peers are programs of others. One that fails is noted, and nothing else.
	peer bool

	programs []string     // of packages.txt, which have to be here
	possible func() error // says why it cannot be measured here; nil: it can

	lay func(l *lab, p *cable)
	// during is called before each measurement, and undo behind it.
	during func() (undo func(), err error)
	// lull is how long it goes on taking a processor behind the last frame. Nobody
	// else is measured before that is over.
	lull time.Duration
}

// paths are the paths of bulk traffic. Those compared with one another are
// neighbours here, so that they are neighbours in time.
var paths = slices.Concat([]*path{
	{name: "fairlead", every: 1, quick: true, what: "node/network on a loop, two TAPs", lay: process("fairlead", tap, tap)},
	{name: "raw", every: 1, quick: true, what: "two TAPs, one worker, a read and a write each", lay: process("raw", tap, tap)},
	{name: "raw-awake", every: seldom, asked: true, what: "raw that does not sleep while anything crosses", lay: process("raw-awake", tap, tap), lull: 2 * relay.AwakeFor},
	{name: "raw-trains", every: seldom, asked: true, what: "raw that writes datagrams of one length as trains, and judges nothing", lay: process("raw-trains", tap, tap)},
	{name: "kernel", every: 1, quick: true, what: "bridge, two veth pairs, its defaults", lay: kernelBridge},
	{name: "kernel-10000", every: seldom, brief: true, what: "the same with net.core.netdev_max_backlog=10000", lay: kernelBridge, possible: mayLengthen, during: lengthen},
	{name: "fairlead-veth", every: seldom, brief: true, what: "fairlead, two veth pairs by packet sockets", lay: process("fairlead", veth, veth)},
	{name: "fairlead-wire", every: seldom, brief: true, what: "fairlead, the receiver on a textbook wire", lay: process("fairlead", tap, wire)},
	{name: "join-off", every: 1, asked: true, what: "fairlead with join=off, small frames of a flow each by itself", lay: process("fairlead-join-off", tap, tap)},
	{name: "unlocked", every: 1, asked: true, what: "fairlead that has not given up what a node gives up (lock-in=off)", lay: process(unlocked, tap, tap)},
	{name: "two-workers", every: 1, asked: true, what: "fairlead with two workers, a TAP each", lay: process("fairlead-2", tap, tap)},
	{name: "textbook", every: 1, brief: true, peer: true, what: "water and gopacket, a frame for each Read", lay: process("textbook", wire, wire)},
	{name: "ovs", every: 1, brief: true, peer: true, what: "Open vSwitch, userspace datapath, its defaults", lay: openVSwitch(false),
		programs: []string{"ovs-vswitchd", "ovsdb-server", "ovsdb-tool", "ovs-vsctl", "ethtool"}},
	{name: "ovs-tso", every: 1, peer: true, what: "Open vSwitch, userspace datapath, userspace-tso-enable=true", lay: openVSwitch(true),
		programs: []string{"ovs-vswitchd", "ovsdb-server", "ovsdb-tool", "ovs-vsctl"}},
	{name: "vde", every: 1, brief: true, peer: true, what: "VDE: vde_switch and two vde_plug2tap", lay: vde,
		programs: []string{"vde_switch", "vde_plug2tap"}},
}, ways)

// The addresses of the two containers, the same on every path.
var (
	gatewayAddr = netip.MustParsePrefix("10.0.0.254/24")
	addrs       = [2]netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")}
)

// A cable is a path that was laid: two containers and how to count what
// crossed between them.
type cable struct {
	*path
	ends    [2]*hosts.Host
	prefix  [2]netip.Prefix // their addresses
	gateway [2]netip.Addr   // their default routes, if valid
	server  netip.AddrPort  // where the first reaches the second
	seen    netip.Addr      // as whom the second sees the first
	crossed func() (crossed, error)

	more     func(l *lab, container *hosts.Host, port string) // hangs one more container on a switch of others
	services []*hosts.Service                                 // programs of others that are all it takes
}

// layCable makes two containers and a path between them, and waits until it
// carries.
func layCable(l *lab, p *path) *cable {
	c := &cable{path: p, server: netip.AddrPortFrom(addrs[1], iperfPort), seen: addrs[0]}
	for i := range c.ends {
		c.ends[i] = hosts.NewHost(l, fmt.Sprintf("%s-%d", p.name, i+1))
		c.prefix[i] = netip.PrefixFrom(addrs[i], gatewayAddr.Bits())
	}
	p.lay(l, c)
	for i, h := range c.ends {
		h.Addr(l, "eth0", c.prefix[i].String())
		if c.gateway[i].IsValid() {
			h.Route(l, "default", c.gateway[i].String())
		}
	}
	return c
}

// process is a path that is a process of this program.
func process(kind string, links ...linkKind) func(l *lab, c *cable) {
	return func(l *lab, c *cable) {
		ends, fds := c.links(l, links...)
		defer closeFiles(fds) // the process has its own
		c.crossed = startChild(l, kind, ends, fds).crossed
	}
}

// links makes eth0 of both containers, and returns the other ends.
func (c *cable) links(l *lab, kinds ...linkKind) (ends []end, fds []*os.File) {
	for i, h := range c.ends {
		fds = append(fds, makeLink(l, h, kinds[i]))
		ends = append(ends, end{Link: kinds[i], MAC: c.mac(l, i), Addr: c.prefix[i].Addr()})
		h.Up(l, "eth0")
	}
	return ends, fds
}

// makeLink makes eth0 of a container and returns the other end.
func makeLink(l *lab, h *hosts.Host, kind linkKind) *os.File {
	switch kind {
	case socket:
		return packetSocket(l, h)
	case veth:
		near := hosts.NewHost(l, h.Name+"-port")
		hosts.Join(l, near, "port", h, "eth0")
		u := hosts.In(l, near, func() (*box.Uplink, error) { return box.TakeVeth("port") })
		return os.NewFile(uintptr(u.FD), "port")
	}
	return hosts.In(l, h, func() (*os.File, error) {
		var q interface {
			Fd() int
			SetCarrier(bool) error
			Close() error
		}
		var err error
		if kind == wire {
			q, err = link.CreateWire(link.WireConfig{Name: "eth0"})
		} else {
			q, err = link.CreateTAP(link.TAPConfig{Name: "eth0"})
		}
		if err != nil {
			return nil, err
		}
		defer q.Close()
		if err := q.SetCarrier(true); err != nil {
			return nil, err
		}
		fd, err := unix.FcntlInt(uintptr(q.Fd()), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("copy the descriptor of eth0: %w", err)
		}
		return os.NewFile(uintptr(fd), "eth0"), nil
	})
}

// kernelBridge is what fairlead stands in for.
func kernelBridge(l *lab, c *cable) {
	h := plainBridge(l, c.name, c.ends[:]...)
	c.crossed = sentBy(h, "port1", "port2")
}

// plainBridge is a host whose kernel bridges others and does nothing else with
// what crosses.
func plainBridge(l *lab, name string, ends ...*hosts.Host) *hosts.Host {
	h := hosts.Bridge(l, name, ends...)
	l.check(h.Do(func() error {
		// A fresh namespace has it on when the module is loaded.
		const file = "/proc/sys/net/bridge/bridge-nf-call-"
		for _, what := range []string{"iptables", "ip6tables", "arptables"} {
			if err := os.WriteFile(file+what, []byte("0"), 0); err != nil && !os.IsNotExist(err) {
				return err
			}
		}
		return nil
	}), "switch bridge-nf off")
	return h
}

// sentBy counts what interfaces of a host sent.
func sentBy(h *hosts.Host, devs ...string) func() (crossed, error) {
	return func() (n crossed, err error) {
		for _, dev := range devs {
			link, err := h.Netlink.LinkByName(dev)
			if err != nil {
				return n, err
			}
			s := link.Attrs().Statistics
			n.Frames += s.TxPackets
			n.Bytes += s.TxBytes
		}
		return n, nil
	}
}

// receivedBy counts what an interface of a host received.
func receivedBy(h *hosts.Host, dev string) (n crossed, err error) {
	link, err := h.Netlink.LinkByName(dev)
	if err != nil {
		return n, err
	}
	s := link.Attrs().Statistics
	return crossed{Frames: s.RxPackets, Bytes: s.RxBytes}, nil
}

// spentBy adds to a count what processors have spent on services.
func spentBy(count func() (crossed, error), services ...*hosts.Service) func() (crossed, error) {
	return func() (crossed, error) {
		n, err := count()
		for _, s := range services {
			n.spent = n.spent.plus(spentOn(s.Pid()))
		}
		return n, err
	}
}

// dropped is how many frames the containers' interfaces did not take: what a TAP
// whose queue nobody empties in time throws away.
func (c *cable) dropped() (n uint64, err error) {
	for _, h := range c.ends {
		link, err := h.Netlink.LinkByName("eth0")
		if err != nil {
			return n, err
		}
		n += link.Attrs().Statistics.TxDropped
	}
	return n, nil
}

// connect opens a connection and makes sure that it comes from whom it should.
func (c *cable) connect(l *lab) error {
	listener := hosts.In(l, c.ends[1], func() (net.Listener, error) { return net.Listen("tcp4", fmt.Sprintf(":%d", iperfPort)) })
	defer listener.Close()
	from := make(chan netip.Addr, 1)
	go func() {
		defer close(from)
		if conn, err := listener.Accept(); err == nil {
			from <- conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
			conn.Close()
		}
	}()
	err := c.ends[0].Do(func() error {
		conn, err := net.DialTimeout("tcp4", c.server.String(), time.Second)
		if err == nil {
			err = conn.Close()
		}
		return err
	})
	if err != nil {
		return err
	}
	if seen := <-from; seen != c.seen {
		return fmt.Errorf("a connection came from %v instead of %v: it went another way", seen, c.seen)
	}
	return nil
}

// settle waits until the far end answers.
func (c *cable) settle(l *lab, try func() error) {
	hosts.Eventually(l, 10*time.Second, func() error {
		if l.ctx.Err() != nil {
			l.Fatalf("interrupted")
		}
		return try()
	})
}
