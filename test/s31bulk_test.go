package test

import (
	"slices"
	"testing"

	"fairlead/test/lab"
)

// Bulk TCP between access ports of two networks, whose trunks a kernel's bridge joins,
// arrives as it was sent, in both directions. By links that take segments of 64 KiB
// they cross whole: with a tag pushed on their way to one trunk and taken off behind the
// other, offsets of checksum and headers with it, as the kernel in between has them, too.
func TestS31_VLANBulk(t *testing.T) {
	lab.Need(t, "ip")
	n := newNode(t)
	const tap = "link=tap"
	for _, network := range []string{"left", "right"} {
		n.run("network", "create", "--opt", "guard=off", network)
	}
	for _, kinds := range [][3]string{{tap, tap, tap}, {tap, veth, tap}, {wire, tap, veth}, {tap, wire, tap}} {
		a, trunk, b := kinds[0], kinds[1], kinds[2]
		n.start("a", quiet, "--network", "left", "--opt", "vlan=10", "--opt", a)
		n.start("b", append([]string{"--network", "right", "--opt", "vlan=10", "--opt", b, "--"}, play(t, "sink", ":5001")...)...)
		n.start("cable", quiet, "--network", "left", "--opt", "trunk=10,20", "--opt", trunk)
		n.run("network", "connect", "--opt", "trunk=10", "--opt", trunk, "right", "cable")
		n.logSays("b", "listening")
		n.sh("cable", `echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6
			ip link add br0 type bridge
			for dev in eth0 eth1; do ip addr flush dev $dev; ip link set $dev master br0; done
			ip link set br0 up`)
		n.sh("a", "ip addr add 10.9.0.1/24 dev eth0")
		n.sh("b", "ip addr add 10.9.0.2/24 dev eth0")
		t.Logf("%v: %s", kinds, n.exec("a", play(t, "transfer", "10.9.0.2:5001", "16000000")...))
		for _, s := range n.switches() {
			for _, p := range s.Ports {
				if whole := p.Counts.ReadSegments > 4*p.Counts.Read; !whole && !slices.Contains(kinds[:], wire) {
					t.Errorf("%v: %s sent %d frames of %d segments on %s", kinds, p.Container, p.Counts.Read, p.Counts.ReadSegments, s.Network)
				}
			}
		}
		if trunk != veth { // whose kernel counts no tag that it keeps beside the frame
			n.audit()
		}
		for _, name := range []string{"a", "b", "cable"} {
			n.run("kill", name)
			n.gone(name)
		}
	}
}
