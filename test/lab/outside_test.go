package lab

import (
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// Both routers reach the outside host, which a neighbour of theirs can, too: it
// answers by the way it was asked.
func TestOutside(t *testing.T) {
	NoLeaks(t)
	Need(t, "ping")
	o := NewOutside(t)
	second := o.AddRouter(t)
	for _, r := range []*Router{o.Router, second} {
		neighbour := NewHost(t, "neighbour")
		Join(t, neighbour, "eth0", r.Host, "cable")
		neighbour.Addr(t, "eth0", r.Uplink+"/32")
		r.Host.Addr(t, "cable", r.Addr+"/32")
		for _, h := range []*Host{neighbour, r.Host} {
			dev, peer := "eth0", r.Addr
			if h == r.Host {
				dev, peer = "cable", r.Uplink
			}
			dst, err := netlink.ParseIPNet(peer + "/32")
			must(t, err, "parse %s", peer)
			must(t, h.Netlink.RouteAdd(&netlink.Route{LinkIndex: h.link(t, dev).Attrs().Index, Dst: dst, Scope: netlink.SCOPE_LINK}), "route")
		}
		neighbour.Route(t, "default", r.Addr)
		if out := neighbour.Run(t, "ping", "-c1", "-W5", r.FarHost); !strings.Contains(out, "ttl=63") {
			t.Errorf("there is no router on the way:\n%s", out)
		}
		r.NAT(t)
		neighbour.Run(t, "ping", "-c1", "-W5", r.FarHost)
		r.MTU(t, 1300)
		out, status := neighbour.Try(t, "ping", "-c1", "-W5", "-Mdo", "-s1400", r.FarHost)
		if status == 0 || !strings.Contains(out, "mtu = 1300") {
			t.Errorf("a large packet crosses the smaller MTU:\n%s", out)
		}
	}
}

// A TAP stays while nobody has it open; others find it by name in its host.
func TestTAPStays(t *testing.T) {
	NoLeaks(t)
	NeedTUN(t)
	h := NewHost(t, "h")
	h.AddTAP(t, "up0")
	if kind := h.link(t, "up0").Type(); kind != "tuntap" {
		t.Errorf("up0 is a %s", kind)
	}
}
