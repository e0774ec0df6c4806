package main

import (
	"fmt"
	"net/netip"
	"os"
	"time"

	"fairlead/nat"
	"fairlead/node/box"
	"fairlead/node/network"
	"fairlead/packet"
	hosts "fairlead/test/lab"
)

// natBar is the part of our own switching's figure that translated TCP has to
// reach: what looking a flow up and rewriting four fields may cost.
const natBar = 0.95

// A direction is which way connections are opened through NAT; the bytes flow
// the same way.
type direction string

const (
	out direction = "out" // masqueraded
	in  direction = "in"  // to a published port
)

// The outside is a network for documentation (RFC 5737): a host, and the
// address of the NAT's uplink. Inside, addresses are as on every path.
var (
	uplinkAddr  = netip.MustParsePrefix("203.0.113.1/24")
	uplinkMAC   = packet.MACFromIPv4(uplinkAddr.Addr())
	outsideAddr = netip.MustParsePrefix("203.0.113.2/24")
)

// publishedPort of the uplink's address leads to iperf3 in the container.
const publishedPort = 8080

// natTCP is iperf3 between a container and a host outside. It stands beside our
// own switching of the same streams.
func natTCP(d direction, cc string, streams int) *workload {
	w := &workload{
		name: fmt.Sprintf("nat-%s-%d-%s", d, streams, cc), unit: "Gb/s",
		quick: streams == 1 && cc == "cubic",
	}
	barred := streams == 1 || streams == 4
	rounds := func(o *options) *options {
		if barred {
			return o
		}
		return o.free().brief()
	}
	w.takes = func(o *options) time.Duration { return rounds(o).takeTurns(natPaths(d)) }
	w.what = map[direction]string{
		out: "TCP from a container to a host outside, masqueraded",
		in:  "TCP from a host outside to a published port of a container",
	}[d] + fmt.Sprintf(", %s, %s", counted(streams, "stream"), cc)
	w.measure = func(l *lab, o *options, r *results) {
		figures := w.bulk(l, rounds(o), r, natPaths(d), cc, streams)
		compare(figures, "kernel", "switching")
		if f := figures["fairlead"]; barred && f != nil {
			r.hold(w, figures, "switching", natBar)
			r.steady(f, streams)
		}
	}
	return w
}

// natPaths are the paths between a container and a host outside, and what they
// are measured against.
func natPaths(d direction) []*path {
	return []*path{
		{name: "fairlead", every: 1, quick: true, what: "node/network with a TAP outside as its uplink", lay: d.fairlead(tap)},
		{name: "switching", every: 1, quick: true, what: "fairlead without NAT: two TAPs on one network", lay: process("fairlead", tap, tap)},
		{name: "kernel", every: 1, quick: true, what: "bridge, two veth pairs, masquerade and dnat of nftables", lay: d.kernel, programs: []string{"nft"}},
		{name: "kernel-10000", every: seldom, brief: true, what: "the same with net.core.netdev_max_backlog=10000", lay: d.kernel, programs: []string{"nft"}, possible: mayLengthen, during: lengthen},
		{name: "raw", every: seldom, brief: true, what: "raw between two containers, without NAT: what only reads and writes", lay: process("raw", tap, tap)},
		{name: "socket", every: seldom, brief: true, what: "fairlead with a packet socket on a veth pair as its uplink", lay: d.fairlead(socket)},
	}
}

// ends says which end of a cable is the container and which the host outside.
func (d direction) ends() (inside, outside int) {
	if d == in {
		return 1, 0
	}
	return 0, 1
}

// place gives the ends of a cable their addresses.
func (d direction) place(c *cable) {
	c.server, c.seen = netip.AddrPortFrom(outsideAddr.Addr(), iperfPort), uplinkAddr.Addr()
	if d == in {
		c.server, c.seen = netip.AddrPortFrom(uplinkAddr.Addr(), publishedPort), outsideAddr.Addr()
	}
	inside, outside := d.ends()
	c.prefix[inside] = netip.PrefixFrom(addrs[0], gatewayAddr.Bits())
	c.gateway[inside] = gatewayAddr.Addr()
	c.prefix[outside] = outsideAddr
}

// fairlead is a path whose process translates between its ends.
func (d direction) fairlead(uplink linkKind) func(l *lab, c *cable) {
	links := []linkKind{tap, tap}
	_, outside := d.ends()
	links[outside] = uplink
	carry := process("nat-"+string(d), links...)
	return func(l *lab, c *cable) {
		d.place(c)
		carry(l, c)
	}
}

// packetSocket makes a host beside another and opens a packet socket on their
// cable, as `--uplink if:` does.
func packetSocket(l *lab, h *hosts.Host) *os.File {
	near := hosts.NewHost(l, h.Name+"-uplink")
	hosts.Join(l, near, "up0", h, "eth0")
	u := hosts.In(l, near, func() (*box.Uplink, error) { return box.OpenPacket("up0", uplinkMAC, false) })
	return os.NewFile(uintptr(u.FD), "up0")
}

// start begins to translate between the inherited links, in the path's process.
func (d direction) start(ends []end) (count func() crossed, err error) {
	_, router, n, err := newNetwork(workers)
	if err != nil {
		return nil, err
	}
	inside, outside := d.ends()
	const name = "up0"
	queue, err := adopt(firstLink+outside, ends[outside].Link)
	if err != nil {
		return nil, err
	}
	_, err = router.AddUplink(network.UplinkConfig{Name: name, MAC: uplinkMAC, Addr: uplinkAddr}, queue)
	if err != nil {
		return nil, err
	}
	if err := n.SetUplinks(name); err != nil {
		return nil, err
	}
	if queue, err = adopt(firstLink+inside, ends[inside].Link); err != nil {
		return nil, err
	}
	container := ends[inside].endpoint(inside, queue)
	if _, err := n.Attach(container); err != nil {
		return nil, err
	}
	router.Flows(func(t *nat.Table) {
		_, err = t.Publish(nat.Rule{
			Network: networkID, Container: container.Container, Inside: packet.AddrFromNetip(container.Addr),
			Proto: packet.ProtoTCP, OutsidePort: publishedPort, InsidePort: iperfPort,
		})
	})
	return func() crossed { return written(router.Totals()) }, err
}

// kernel has the kernel translate, as it does for Docker.
func (d direction) kernel(l *lab, c *cable) { d.kernelHost(l, c) }

// kernelHost is the host whose kernel does.
func (d direction) kernelHost(l *lab, c *cable) *hosts.Host {
	d.place(c)
	inside, outside := d.ends()
	h := plainBridge(l, c.name, c.ends[inside])
	hosts.Join(l, h, "up0", c.ends[outside], "eth0")
	h.Addr(l, "br0", gatewayAddr.String())
	h.Addr(l, "up0", uplinkAddr.String())
	h.Sysctl(l, "net.ipv4.ip_forward", "1")
	h.Run(l, "nft", fmt.Sprintf(`
		table ip nat {
			chain postrouting {
				type nat hook postrouting priority srcnat;
				oifname "up0" masquerade;
			}
			chain prerouting {
				type nat hook prerouting priority dstnat;
				ip daddr %s tcp dport %d dnat to %s:%d;
			}
		}`, uplinkAddr.Addr(), publishedPort, addrs[0], iperfPort))
	c.crossed = sentBy(h, "port1", "up0")
	return h
}
