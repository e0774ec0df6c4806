package test

import (
	"fmt"
	"strings"
	"testing"

	"fairlead/packet/packettest"
	"fairlead/test/lab"
)

// Containers of one VLAN reach one another and nobody else, the gateway neither; a
// trunk has their frames with tags, in both directions, checksums unfinished and
// datagrams in trains as they come.
func TestS31_VLAN(t *testing.T) {
	lab.Need(t, "ip", "ping")
	n := newNode(t, "--opt", "join=off") // each datagram by itself, for the ear
	n.start("a", quiet, "--opt", "vlan=10")
	n.start("b", quiet, "--opt", "vlan=10", "--", "fairlead", "probe", "udp-echo")
	n.start("other", quiet, "--opt", "vlan=20")
	n.start("open", quiet)
	n.ear("trunk", "vlan and not ip6", quiet, "--opt", "trunk=10,20-29")
	n.logSays("b", "echoing on")
	a, b, tr := n.station("a"), n.station("b"), n.station("trunk")

	n.exec("a", "ping", "-c", "1", "-W", "5", b.IP.String())
	for _, to := range []string{n.station("other").IP.String(), n.station("open").IP.String(), "172.17.0.1"} {
		n.sh("a", "! ping -c 1 -W 0.3 "+to)
		n.sh("a", "ip neigh show "+to+" | grep -E 'INCOMPLETE|FAILED'")
	}
	n.exec("open", "ping", "-c", "1", "-W", "5", "172.17.0.1")
	n.exec("trunk", "ping", "-c", "1", "-W", "5", "172.17.0.1") // without a tag it is where the gateway is
	lab.Eventually(t, patience, func() error {
		return contains(n.run("logs", "trunk"), fmt.Sprintf("%s > ff:ff:ff:ff:ff:ff, ethertype 802.1Q (0x8100), length 46: vlan 10, p 0, ethertype ARP", a.MAC))
	})

	// From the trunk to b, and back.
	n.exec("b", "ip", "neigh", "replace", tr.IP.String(), "lladdr", tr.MAC.String(), "dev", "eth0")
	train := packettest.Tagged(packettest.GSO(packettest.UDP(tr, b, 5000, 7, []byte(strings.Repeat("x", 2500))), 1000), 10)
	single := packettest.Tagged(packettest.Partial(packettest.UDP(tr, b, 5001, 7, []byte("unfinished"))), 10)
	for _, errno := range n.inject("trunk", "vnet", [][]byte{train, single}) {
		if errno != 0 {
			t.Fatal(errno)
		}
	}
	lab.Eventually(t, patience, func() error {
		return contains(n.run("logs", "trunk"),
			fmt.Sprintf("vlan 10, p 0, ethertype IPv4 (0x0800), %v.7 > %v.5000: UDP, length 1000", b.IP, tr.IP),
			fmt.Sprintf("vlan 10, p 0, ethertype IPv4 (0x0800), %v.7 > %v.5000: UDP, length 500", b.IP, tr.IP),
			fmt.Sprintf("vlan 10, p 0, ethertype IPv4 (0x0800), %v.7 > %v.5001: UDP, length 10", b.IP, tr.IP))
	})

	// What has a tag is refused where none is taken, and where it is of a VLAN somebody
	// else is in; a priority tag is none.
	tagged := func(name string, vlan uint16) {
		t.Helper()
		me := n.station(name)
		for _, errno := range n.inject(name, "plain", [][]byte{packettest.Tagged(packettest.ARPRequest(me, b.IP), vlan)}) {
			if errno != 0 {
				t.Fatal(errno)
			}
		}
	}
	for name, vlan := range map[string]uint16{"a": 10, "open": 10, "trunk": 30} {
		tagged(name, vlan)
		lab.Eventually(t, patience, func() error {
			if n.dropped(name, "wrong-vlan") == 0 {
				return fmt.Errorf("a frame of VLAN %d from %s was not refused:\n%s", vlan, name, n.run("show", "drops"))
			}
			return nil
		})
	}
	before := n.port("b").Counts.Written
	tagged("a", 0)
	lab.Eventually(t, patience, func() error {
		if n.port("b").Counts.Written == before {
			return fmt.Errorf("a frame with a priority tag has not come to b")
		}
		return nil
	})

	n.ruled("guard", "wrong-vlan")
	if err := contains(n.run("show", "switch", "-v"), "vlans    vlan=10\n", "vlans    trunk=10,20-29\n"); err != nil {
		t.Error(err)
	}
	if err := contains(n.run("show", "mac", "--json"), `"vlan": 10`); err != nil {
		t.Error(err)
	}
	n.refuses("is in VLAN 10, and the gateway is in none", "arp", "add", "172.17.0.99", a.MAC.String(), "a")
	n.refuses("the port of a (vlan=10) is not in the untagged VLAN; try `fairlead mac add --vlan 10 02:00:00:00:00:07 a`", "mac", "add", "02:00:00:00:00:07", "a")
	n.refuses("the port of trunk (trunk=10,20-29) is not in VLAN 30", "mac", "add", "--vlan", "30", "02:00:00:00:00:07", "trunk")
	n.refuses("the port of open has no --opt vlan or trunk, so it is not in VLAN 10, which other ports name", "mac", "add", "--vlan", "10", "02:00:00:00:00:07", "open")
	n.refuses("options trunk and vlan exclude each other", "run", "--opt", "vlan=10", "--opt", "trunk=20", "--", "true")
}
