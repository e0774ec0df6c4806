package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"fairlead/nat"
	"fairlead/node/network"
	"fairlead/packet"
	"fairlead/packet/packettest"
)

// What a million flows may cost beside a thousand.
const manyFlowsBar = 0.85

// A flow is one of so many ports of the container's that talks to one of so many
// hosts of the world: one outside address has no more ports than these.
const (
	flowPorts     = 50_000
	firstFlowPort = 10_000
	flowPeers     = 20
	flowPort      = 7000
)

// flows is how many small frames are masqueraded when that many flows live, in
// random order.
func flows() *workload {
	w := &workload{name: "scale-flows", unit: "k/s", what: "60-byte UDP frames from a container, masqueraded: 1, 1,000, 100,000 and 1,000,000 flows in random order"}
	counts := map[string]int{}
	var paths []*path
	for _, n := range []int{1, 1000, 100_000, flowPorts * flowPeers} {
		ours := portPath("fairlead", n, layFlows)
		kernel := portPath("kernel", n, layKernelFlows)
		kernel.programs = []string{"nft"}
		kernel.possible = func() error { return kernelTracks(n) }
		counts[ours.name], counts[kernel.name] = n, n
		paths = append(paths, ours, kernel)
		barred := n == 1000 || n == flowPorts*flowPeers
		ours.standsBy(!barred)
		kernel.standsBy(!barred)
		if barred {
			bound := portPath("lookup", n, layLookup(n))
			bound.standsBy(true)
			counts[bound.name] = n
			paths = append(paths, bound)
		}
	}
	w.takes = func(o *options) time.Duration { return o.takeTurns(paths) + 30*time.Second }
	w.measure = func(l *lab, o *options, r *results) {
		var memory []sample
		figures := w.turns(l, o, r, paths, func(l *lab, c *cable) func() (sample, error) {
			n := counts[c.name]
			s := newSpray(l, c.ends[0], n, c.flow(l))
			// Records lie in memory in the order in which flows were made. Asked for in
			// that order they would be there before they are asked for.
			l.check(c.establish(l, s), "make %d flows", n)
			s.shuffle()
			return func() (sample, error) {
				if err := c.establish(l, s); err != nil {
					return sample{}, err
				}
				q, err := s.measure(c, time.Duration(o.lasts(c.path))*time.Second)
				if err != nil || c.name != millionFlows {
					return q, err
				}
				now, err := c.crossed()
				memory = append(memory, sample{Round: len(memory), Value: now.Memory / 1e6})
				return q, err
			}
		})
		if few, many := figures["fairlead-1000"], figures[millionFlows]; few != nil && many != nil {
			r.atLeast(many, few, manyFlowsBar)
			r.alike(figures["lookup-1000000"], figures["lookup-1000"])
		}
		f := r.figure(&workload{name: "scale-flows-mem", unit: "MB", less: true, what: "resident memory of the process that translates a million flows"}, "fairlead")
		for _, s := range memory {
			f.add(s)
		}
	}
	return w
}

// millionFlows is fairlead with all of them.
const millionFlows = "fairlead-1000000"

// flow builds the frame of flow number i.
func (c *cable) flow(l *lab) func(i int) []byte {
	src := packettest.Station{MAC: c.mac(l, 0), IP: addrs[0]}
	gateway, err := c.gatewayMAC(l)
	l.check(err, "find the gateway of path %s", c.name)
	return func(i int) []byte {
		peer := netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + i%flowPeers)})
		return small(src, packettest.Station{MAC: gateway, IP: peer}, uint16(firstFlowPort+i/flowPeers), flowPort)
	}
}

// gatewayMAC is what the container has found out about its gateway.
func (c *cable) gatewayMAC(l *lab) (packet.MAC, error) {
	neighbours, err := c.ends[0].Netlink.NeighList(0, 0)
	if err != nil {
		return packet.MAC{}, err
	}
	for _, n := range neighbours {
		if n.IP.Equal(gatewayAddr.Addr().AsSlice()) && len(n.HardwareAddr) == len(packet.MAC{}) {
			return packet.MAC(n.HardwareAddr), nil
		}
	}
	return packet.MAC{}, fmt.Errorf("the container has not asked for the MAC address of %v", gatewayAddr.Addr())
}

// establish sends each frame until all flows are there.
func (c *cable) establish(l *lab, s *spray) error {
	var now crossed
	for range 10 {
		if err := s.once(c.received(1)); err != nil {
			return err
		}
		for last := -1; ; { // until the queue in front is empty
			var err error
			if now, err = c.crossed(); err != nil {
				return err
			}
			if l.ctx.Err() != nil || now.Flows == last {
				break
			}
			last = now.Flows
			time.Sleep(20 * time.Millisecond)
		}
		if now.Flows >= s.count() {
			return nil
		}
	}
	return fmt.Errorf("after ten rounds %d of %d flows are there", now.Flows, s.count())
}

// layFlows is fairlead with room for a million flows.
func layFlows(l *lab, c *cable) {
	out.place(c)
	process("flows", tap, tap)(l, c)
}

// layLookup is the bound of all that look a flow up for each frame: see
// relay.Lookup. The far container is the gateway.
func layLookup(n int) func(l *lab, c *cable) {
	return func(l *lab, c *cable) {
		c.prefix[1], c.server = gatewayAddr, netip.AddrPortFrom(gatewayAddr.Addr(), iperfPort)
		ends, fds := c.links(l, tap, tap)
		defer closeFiles(fds)
		ends[0].Flows = n
		c.crossed = startChild(l, "lookup", ends, fds).crossed
	}
}

// startFlows begins to translate between the inherited links, in the path's process.
func startFlows(ends []end) (count func() crossed, err error) {
	const most = 1 << 20
	_, router, n, err := newNetworkOf(workers, nil, nat.Config{Flows: most, PerContainer: most, MaxContainers: 1})
	if err != nil {
		return nil, err
	}
	const name = "up0"
	inside, err := adopt(firstLink, ends[0].Link)
	if err != nil {
		return nil, err
	}
	outside, err := adopt(firstLink+1, ends[1].Link)
	if err != nil {
		return nil, err
	}
	uplink := network.UplinkConfig{Name: name, MAC: uplinkMAC, Addr: uplinkAddr, Gateway: outsideAddr.Addr()}
	if _, err := router.AddUplink(uplink, outside); err != nil {
		return nil, err
	}
	if err := n.SetUplinks(name); err != nil {
		return nil, err
	}
	if _, err := n.Attach(ends[0].endpoint(0, inside)); err != nil {
		return nil, err
	}
	return func() crossed {
		c := written(router.Totals())
		router.Flows(func(t *nat.Table) { c.Flows = t.Stats().Flows })
		return c
	}, nil
}

// layKernelFlows is the kernel's masquerade, which remembers as long as we do.
func layKernelFlows(l *lab, c *cable) {
	h := out.kernelHost(l, c)
	h.Route(l, "default", outsideAddr.Addr().String())
	_ = h.Do(func() error { // where it may be set
		return os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_udp_timeout", []byte("300"), 0)
	})
	count := c.crossed
	c.crossed = func() (crossed, error) {
		n, err := count()
		if err != nil {
			return n, err
		}
		text, err := h.Command(context.Background(), "cat", "/proc/sys/net/netfilter/nf_conntrack_count").Output()
		if err != nil {
			return n, fmt.Errorf("count the kernel's flows: %w", err)
		}
		n.Flows, err = strconv.Atoi(strings.TrimSpace(string(text)))
		return n, err
	}
}

// kernelTracks says why the kernel cannot track so many flows here. The bound is
// the machine's, whatever the namespace.
func kernelTracks(n int) error {
	const file = "/proc/sys/net/netfilter/nf_conntrack_max"
	text, err := os.ReadFile(file)
	if err != nil {
		return nil // the module comes with the first rule
	}
	most, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err == nil && most < n+1000 {
		return fmt.Errorf("the kernel tracks %d flows here; try: sudo sysctl -w net.netfilter.nf_conntrack_max=%d", most, 2*n)
	}
	return err
}
