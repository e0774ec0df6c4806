package test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/test/lab"
)

func TestS23_GatewayAnswers(t *testing.T) {
	lab.Need(t, "ping", "ip")
	n := newNode(t)
	n.start("a", quiet)
	n.ear("dump", "arp", "--network", "container:a")
	n.exec("a", "ping", "-c", "1", "-W", "5", "172.17.0.1")
	n.logSays("dump", "02:42:ac:11:00:01 > 02:42:ac:11:00:02, ethertype ARP (0x0806), length 42: Reply 172.17.0.1 is-at 02:42:ac:11:00:01, length 28")
	if neigh := n.exec("a", "ip", "neigh"); !strings.Contains(neigh, "172.17.0.1 dev eth0 lladdr 02:42:ac:11:00:01 REACHABLE") {
		t.Errorf("ip neigh: %s", neigh)
	}
	// Whom nobody has nobody answers for. (Linux asks three times a second apart.)
	n.sh("a", "cd /proc/sys/net/ipv4/neigh/eth0; echo 1 > mcast_solicit; echo 100 > retrans_time_ms")
	if r := n.try("exec", "a", "ping", "-c", "1", "-W", "5", "172.17.9.9"); r.code == 0 || !strings.Contains(r.stdout, "Destination Host Unreachable") {
		t.Error(r)
	}
	if log := n.run("logs", "dump"); strings.Contains(log, "Reply 172.17.9.9") {
		t.Errorf("somebody answered for 172.17.9.9:\n%s", log)
	}
}

// knows waits until the gateway has an address at a MAC in its ARP table.
func (n *node) knows(address, mac string) {
	n.t.Helper()
	lab.Eventually(n.t, 10*time.Second, func() error {
		out := n.run("show", "arp")
		for _, row := range table(n.t, out) {
			if row["Address"] == address && row["HWaddress"] == mac {
				return nil
			}
		}
		return fmt.Errorf("the gateway does not know that %s is at %s:\n%s", address, mac, out)
	})
}

// A kernel that announces its addresses does so by gratuitous ARP when its MAC
// changes and when an interface comes up: the gateway and the neighbours follow.
func TestS23_GratuitousARP(t *testing.T) {
	lab.Need(t, "ping", "ip", "sysctl")
	n := newNode(t, "--opt", "guard=off")
	n.start("a", quiet)
	n.start("b", quiet)
	n.exec("a", "sysctl", "-qw", "net.ipv4.conf.all.arp_notify=1")
	n.exec("a", "ping", "-c", "1", "-W", "5", "172.17.0.1")
	n.exec("b", "ping", "-c", "1", "-W", "5", "172.17.0.2")
	n.knows("172.17.0.2", "02:42:ac:11:00:02")

	neighbour := func(mac string) {
		t.Helper()
		lab.Eventually(t, 10*time.Second, func() error {
			return contains(n.exec("b", "ip", "neigh"), "172.17.0.2 dev eth0 lladdr "+mac+" ")
		})
	}
	n.exec("a", "ip", "link", "set", "eth0", "address", "02:00:00:00:00:aa")
	n.knows("172.17.0.2", "02:00:00:00:00:aa")
	neighbour("02:00:00:00:00:aa")
	n.exec("b", "ping", "-c", "1", "-W", "5", "172.17.0.2")

	n.sh("a", "ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:ab; ip link set eth0 up")
	n.knows("172.17.0.2", "02:00:00:00:00:ab")
	neighbour("02:00:00:00:00:ab")

	// An address the gateway has not met is not taken from an announcement
	// (RFC 826), but from the first question to the gateway.
	n.sh("a", "ip addr add 172.17.0.77/16 dev eth0; ping -I 172.17.0.77 -c 1 -W 5 172.17.0.1")
	n.knows("172.17.0.77", "02:00:00:00:00:ab")
}

// A MAC that turns up behind another port is there from that frame on.
func TestS23_MovedMAC(t *testing.T) {
	lab.Need(t, "ping", "ip")
	n := newNode(t, "--opt", "guard=off")
	n.start("a", quiet)
	n.start("b", quiet)
	n.start("c", quiet)
	n.exec("c", "ping", "-c", "1", "-W", "5", "172.17.0.2")
	behind := func(container string) {
		t.Helper()
		for _, row := range table(t, n.run("show", "mac")) {
			if row["mac addr"] == "02:42:ac:11:00:02" && row["container"] == container {
				return
			}
		}
		t.Errorf("02:42:ac:11:00:02 is not behind %s:\n%s", container, n.run("show", "mac"))
	}
	behind("a")

	n.sh("b", "ip link set eth0 address 02:42:ac:11:00:02; ip addr add 172.17.0.2/16 dev eth0")
	n.exec("b", "ping", "-c", "1", "-W", "5", "-I", "172.17.0.2", "172.17.0.4")
	behind("b")
	heard, answered := n.port("a").Counts.Written, n.port("b").Counts.Read
	n.exec("c", "ping", "-c", "1", "-W", "5", "172.17.0.2")
	if got := n.port("a").Counts.Written; got != heard {
		t.Errorf("a got %d frames although its MAC is behind b", got-heard)
	}
	if got := n.port("b").Counts.Read; got == answered {
		t.Errorf("b has not answered")
	}

	// And back, with a's first frame.
	n.exec("a", "ping", "-c", "1", "-W", "5", "172.17.0.4")
	behind("a")
}

// Nobody may be the gateway, neither by MAC nor by address, and be the guard
// off.
func TestS23_SpoofedGateway(t *testing.T) {
	lab.Need(t, "ping", "ip")
	for _, guard := range []string{"on", "off"} {
		t.Run("guard="+guard, func(t *testing.T) {
			n := newNode(t, "--opt", "guard="+guard)
			n.start("a", quiet)
			n.start("b", quiet)
			n.exec("b", "ping", "-c", "1", "-W", "5", "172.17.0.1")
			forged := func(what, reason, script string) {
				t.Helper()
				before := n.dropped("a", reason)
				n.sh("a", script)
				lab.Eventually(t, 10*time.Second, func() error {
					if n.dropped("a", reason) == before {
						return fmt.Errorf("%s: nothing was dropped as %s:\n%s", what, reason, n.run("show", "drops"))
					}
					return nil
				})
			}
			const ask = "echo > /dev/udp/172.17.0.3/9" // with an ARP request before it
			forged("the gateway's MAC", "spoofed-gateway", `ip link set eth0 address 02:42:ac:11:00:01
				bash -c "`+ask+`"; ip link set eth0 address 02:42:ac:11:00:02`)
			forged("the gateway's address", "spoofed-gateway", `ip neigh flush dev eth0; ip addr add 172.17.0.1/16 dev eth0
				! ping -I 172.17.0.1 -c 1 -W 0.2 172.17.0.3; ip addr del 172.17.0.1/16 dev eth0`)
			if guard == "on" {
				forged("another MAC", "spoofed-mac", `ip link set eth0 address 02:00:00:00:00:aa
					bash -c "`+ask+`"; ip link set eth0 address 02:42:ac:11:00:02`)
				forged("another address", "spoofed-address", `ip neigh flush dev eth0; ip addr add 172.17.0.99/16 dev eth0
					! ping -I 172.17.0.99 -c 1 -W 0.2 172.17.0.3; ip addr del 172.17.0.99/16 dev eth0`)
			}
			if neigh := n.exec("b", "ip", "neigh"); !strings.Contains(neigh, "172.17.0.1 dev eth0 lladdr 02:42:ac:11:00:01 ") {
				t.Errorf("b was led astray: %s", neigh)
			}
			for _, row := range table(t, n.run("show", "mac")) {
				if row["mac addr"] == "02:42:ac:11:00:01" && row["container"] != "(gateway)" {
					t.Errorf("the switch was led astray: %v", row)
				}
			}
			drops := n.run("show", "drops")
			if err := contains(drops, "spoofed-gateway", "A container uses the gateway's MAC or address as its own."); err != nil {
				t.Error(err)
			}
			n.exec("a", "ping", "-c", "1", "-W", "5", "172.17.0.3") // honest again
		})
	}
}

// A container is not believed what IPv6 neighbour discovery says of others: who
// wants to talk to one talks to that one.
func TestS23_NeighbourDiscovery(t *testing.T) {
	lab.Need(t, "ping", "ip")
	n := newNode(t)
	n.start("thief")
	n.start("a")
	n.start("b")
	thief, a, b := n.station("thief").IPv6(), n.station("a").IPv6(), n.station("b").IPv6()
	n.exec("a", "ping", "-6", "-c", "1", "-W", "5", b.IP.String()+"%eth0") // so that there is something to be replaced
	lies := [][]byte{
		packettest.Discovery(thief, a, packet.ICMPv6NeighborAdvert, b.IP, thief.MAC),
		packettest.Discovery(thief, a, packet.ICMPv6NeighborAdvert, thief.IP, b.MAC),
		packettest.Discovery(packettest.Station{MAC: thief.MAC, IP: b.IP}, a, packet.ICMPv6NeighborSolicit, a.IP, thief.MAC),
	}
	for _, errno := range n.inject("thief", "plain", lies) {
		if errno != 0 {
			t.Fatal(errno)
		}
	}
	lab.Eventually(t, patience, func() error {
		if n.dropped("thief", "spoofed-neighbour") < 2 || n.dropped("thief", "spoofed-address") < 1 {
			return errors.New(n.run("show", "drops"))
		}
		return nil
	})
	if neigh := n.exec("a", "ip", "-6", "neigh", "show", b.IP.String()); !strings.Contains(neigh, "lladdr "+b.MAC.String()+" ") {
		t.Errorf("a was led astray: %s", neigh)
	}
	n.exec("a", "ping", "-6", "-c", "1", "-W", "5", b.IP.String()+"%eth0")
	n.exec("thief", "ping", "-6", "-c", "1", "-W", "5", b.IP.String()+"%eth0") // honest, he is answered
	n.ruled("guard", "spoofed-neighbour")

	// Without the guard that is how it goes.
	open := newNode(t, "--opt", "guard=off")
	open.start("thief")
	open.start("a")
	open.start("b")
	open.exec("a", "ping", "-6", "-c", "1", "-W", "5", b.IP.String()+"%eth0")
	lab.Eventually(t, patience, func() error {
		open.inject("thief", "plain", lies[:1])
		if neigh := open.exec("a", "ip", "-6", "neigh", "show", b.IP.String()); !strings.Contains(neigh, "lladdr "+thief.MAC.String()+" ") {
			return fmt.Errorf("a was not led astray: %s", neigh)
		}
		return nil
	})
}
