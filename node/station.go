package node

import (
	"net/http"
	"strings"

	"fairlead/node/api"
	"fairlead/packet"
)

// Not every port has a container of its own behind it: a real interface has a
// LAN, and one end of a pair that somebody made whatever he put at the other. Who
// sends there is for them to say, so the port may use any source but the
// gateway's, and has neither address nor MAC. Such a port is a container of mode
// foreign, too.

// isPlug reports whether c is one: if:NAME or veth:NAME.
func (c *container) isPlug() bool {
	kind, _, _ := strings.Cut(c.req.Foreign, ":")
	return kind == api.ForeignInterface || kind == api.ForeignVeth
}

// plugLocked gives c its place on a network, without an address there.
func (n *Node) plugLocked(c *container, l *lan, w api.EndpointRequest) error {
	for _, x := range []struct {
		flag  string
		given bool
	}{
		{"--ip", w.IP != "" || w.DHCP}, {"--mac", w.MAC != ""}, {"--ifname", w.Interface != ""}, {"--alias", len(w.Aliases) > 0},
		{"--link", len(w.Links) > 0}, {"--gw-priority", w.Priority != 0}, {"--route", len(w.Routes) > 0}, {"--opt", len(w.Options) > 0},
		{"--publish", len(c.req.Publish) > 0 || c.req.PublishAll},
	} {
		if x.given {
			return fail(http.StatusBadRequest, "%s is no container: %s is for whoever is behind it to say", c.req.Foreign, x.flag)
		}
	}
	for _, other := range n.containers {
		if other.req.Foreign == c.req.Foreign {
			return fail(http.StatusConflict, "%s is a port of network %s already; `fairlead network disconnect %s %s`", c.req.Foreign, other.network, other.network, other.name())
		}
	}
	kind, name, _ := strings.Cut(c.req.Foreign, ":")
	n.occupyLocked(c, &attachment{
		id: newID(), lan: l, asked: w, iface: name, opts: linkOptions{veth: true, plug: kind},
	})
	return nil
}

// addrWord is the attachment's address, empty where it has none.
func (a *attachment) addrWord() string {
	if !a.addr.IsValid() {
		return ""
	}
	return a.addr.Addr().String()
}

// prefixWord is it with the length of the subnet.
func (a *attachment) prefixWord() string {
	if !a.addr.IsValid() {
		return ""
	}
	return a.addr.String()
}

// macWord is the attachment's MAC, empty where it has none.
func (a *attachment) macWord() string {
	if a.mac.IsZero() {
		return ""
	}
	return a.mac.String()
}

// linkLocalWord is what that makes of it.
func (a *attachment) linkLocalWord() string {
	if a.mac == (packet.MAC{}) {
		return ""
	}
	return a.mac.LinkLocal().String()
}
