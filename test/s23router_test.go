package test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/test/lab"
)

// No container is a router because it says so: not as one that advertises itself,
// not as one that sends others another way, however it is wrapped, and be the others
// ready to believe it.
func TestS23_RogueRouter(t *testing.T) {
	lab.Need(t, "ip")
	const believe = "net.ipv6.conf.eth0.accept_ra=2"
	n := newNode(t)
	n.start("rogue")
	n.start("a", "--sysctl", believe)
	rogue, a := n.station("rogue").IPv6(), n.station("a").IPv6()
	advert := routerAdvert(rogue, a)
	lies := [][]byte{
		advert,
		packettest.Tagged(advert, 0), // which a kernel takes as if it had no tag
		packettest.Discovery(rogue, a, packet.ICMPv6Redirect, rogue.IP, rogue.MAC),
		packettest.IP(n.station("rogue"), n.station("a"), packet.ProtoICMP, []byte{packet.ICMPRedirect, 1, 0, 0, 172, 17, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0}),
	}
	for _, errno := range n.inject("rogue", "plain", lies) {
		if errno != 0 {
			t.Fatal(errno)
		}
	}
	lab.Eventually(t, patience, func() error {
		if n.dropped("rogue", "rogue-router") < uint64(len(lies)) {
			return errors.New(n.run("show", "drops"))
		}
		return nil
	})
	if routes := n.exec("a", "ip", "-6", "route", "show", "default"); routes != "" {
		t.Errorf("a was led astray: %s", routes)
	}
	n.ruled("guard", "rogue-router")

	// Without the guard that is how it goes.
	open := newNode(t, "--opt", "guard=off")
	open.start("router")
	open.start("a", "--sysctl", believe)
	router := open.station("router").IPv6()
	lab.Eventually(t, patience, func() error {
		open.inject("router", "plain", [][]byte{routerAdvert(router, open.station("a").IPv6())})
		if routes := open.exec("a", "ip", "-6", "route", "show", "default"); !strings.Contains(routes, "via "+router.IP.String()+" ") {
			return fmt.Errorf("a has not taken the router: %s", routes)
		}
		return nil
	})
}

// routerAdvert is that of a router for half an hour.
func routerAdvert(src, dst packettest.Station) []byte {
	m := []byte{packet.ICMPv6RouterAdvert, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0}
	packet.ICMP(m).SetChecksum(^packettest.Sum(m, packettest.PseudoSum(src.IP, dst.IP, packet.ProtoICMPv6, len(m))))
	b := packettest.IP(src, dst, packet.ProtoICMPv6, m)
	packet.IPv6(b[packet.VNetLen+packet.EthernetLen:]).SetHopLimit(255)
	return b
}
