package main

import (
	"fmt"
	"net/netip"

	hosts "fairlead/test/lab"
)

// natBar is the part of our own switching's figure that translated TCP has to
// reach: what looking a flow up and rewriting four fields may cost.
const natBar = 0.9

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
	outsideAddr = netip.MustParsePrefix("203.0.113.2/24")
)

// publishedPort of the uplink's address leads to iperf3 in the container.
const publishedPort = 8080

// natTCP is iperf3 between a container and a host outside, one stream with
// CUBIC. It stands beside our own switching of the same stream.
func natTCP(d direction) *workload {
	w := &workload{name: "nat-" + string(d), unit: "Gb/s"}
	w.what = map[direction]string{
		out: "TCP from a container to a host outside, masqueraded",
		in:  "TCP from a host outside to a published port of a container",
	}[d]
	w.measure = func(l *lab, o *options, r *results) {
		figures := w.bulk(l, o, r, natPaths(d), "cubic", 1)
		compare(figures, "kernel", "switching")
		if f, other := figures["fairlead"], figures["switching"]; f != nil && other != nil {
			r.atLeast(f, other, natBar)
		}
	}
	return w
}

// natPaths are the paths between a container and a host outside, and what they
// are measured against.
func natPaths(d direction) []*path {
	return []*path{
		{name: "switching", every: 1, quick: true, what: "fairlead without NAT: two TAPs on one network", lay: process("fairlead", false, false)},
		{name: "kernel", every: 1, quick: true, what: "bridge, two veth pairs, masquerade and dnat of nftables", lay: d.kernel},
	}
}

// place says where the ends of a cable are, and returns the container and the
// host outside.
func (d direction) place(c *cable) (container, outside *hosts.Host) {
	inside, far := 0, 1
	c.server, c.seen = netip.AddrPortFrom(outsideAddr.Addr(), iperfPort), uplinkAddr.Addr()
	if d == in {
		inside, far = 1, 0
		c.server, c.seen = netip.AddrPortFrom(uplinkAddr.Addr(), publishedPort), outsideAddr.Addr()
	}
	c.prefix[inside] = netip.PrefixFrom(addrs[0], gatewayAddr.Bits())
	c.gateway[inside] = gatewayAddr.Addr()
	c.prefix[far] = outsideAddr
	return c.ends[inside], c.ends[far]
}

// kernel has the kernel translate, as it does for Docker.
func (d direction) kernel(l *lab, c *cable) {
	hosts.Need(l, "nft")
	container, outside := d.place(c)
	h := plainBridge(l, c.name, container)
	hosts.Join(l, h, "up0", outside, "eth0")
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
}
