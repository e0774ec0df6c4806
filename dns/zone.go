package dns

import (
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"fairlead/packet"
)

// A Zone is what there is of containers' names at one moment. It does not change;
// the next one takes its place.
type Zone struct {
	networks map[packet.NetworkID]*names
	order    []packet.NetworkID // as they were given: the host looks in this one
	views    map[packet.ContainerID]*View
}

// Names are those of the containers on a network. Two containers may share one.
type Names struct {
	Network packet.NetworkID
	Name    string // of the network
	// Hidden says that containers do not hear them, only the host does. Docker's
	// default network has no names.
	Hidden bool
	Hosts  []Host
}

// A Host is one container on one network.
type Host struct {
	Names []string // the first one is also that of its addresses
	Addrs []netip.Addr
}

// A View is what one container sees: the names of networks it is on, and no other.
type View struct {
	Container packet.ContainerID
	Networks  []Attached // in the order in which names are looked for
}

// Attached is a network a container is on. Links are further names that it alone
// has for containers there, by what they stand for.
type Attached struct {
	Network packet.NetworkID
	Links   map[string]string
}

// names are Names by what is asked for.
type names struct {
	name   string
	hidden bool
	addrs  map[string][]packet.Addr // empty: the name is known, and has no address
	of     map[packet.Addr]string   // name and network, see joined
}

// NewZone makes a zone.
func NewZone(networks []Names, views []View) *Zone {
	z := &Zone{networks: make(map[packet.NetworkID]*names, len(networks)), views: make(map[packet.ContainerID]*View, len(views))}
	for _, n := range networks {
		z.order = append(z.order, n.Network)
		z.networks[n.Network] = n.index()
	}
	for _, v := range views {
		known := View{Container: v.Container}
		for _, at := range v.Networks {
			links := make(map[string]string, len(at.Links))
			for name, target := range at.Links {
				links[plain(spelled(name))] = plain(spelled(target))
			}
			known.Networks = append(known.Networks, Attached{at.Network, links})
		}
		z.views[v.Container] = &known
	}
	return z
}

func (n *Names) index() *names {
	x := &names{
		name: plain(spelled(n.Name)), hidden: n.Hidden,
		addrs: make(map[string][]packet.Addr), of: make(map[packet.Addr]string),
	}
	for _, h := range n.Hosts {
		var addrs []packet.Addr
		for _, a := range h.Addrs {
			addrs = append(addrs, packet.AddrFromNetip(a))
		}
		seen := make(map[string]bool, len(h.Names))
		for _, name := range h.Names {
			key := plain(spelled(name))
			if key == "" || seen[key] {
				continue
			}
			if len(seen) == 0 {
				for _, a := range addrs {
					x.of[a] = joined(spelled(name), spelled(n.Name))
				}
			}
			seen[key] = true
			x.addrs[key] = append(x.addrs[key], addrs...)
		}
	}
	return x
}

// spelled is a name as messages have it, with a dot at its end; empty when it
// fits into none. (Of a container's name 64 characters are allowed, of a label
// 63.)
func spelled(name string) string {
	return carried(dns.Fqdn(strings.ReplaceAll(name, `\`, `\\`)))
}

// carried is a name with a dot at its end after its way through a message; empty
// when it does not survive that.
func carried(name string) string {
	var b [256]byte
	n, err := dns.PackDomainName(name, b[:], 0, nil, false)
	if err != nil {
		return ""
	}
	s, _, err := dns.UnpackDomainName(b[:n], 0)
	if err != nil || s == "." {
		return ""
	}
	return s
}

// joined is a name with its network's, or alone where both fit into no message.
func joined(name, network string) string {
	if whole := carried(name + network); whole != "" {
		return whole
	}
	return name
}

// view is what the asker sees: a container what it is on, the host everything. Who
// is unknown, a station behind somebody's port, is on the network it asks.
func (z *Zone) view(q *Question) []Attached {
	if v := z.views[q.Container]; v != nil {
		return v.Networks
	}
	if q.Network != HostNetwork {
		return []Attached{{Network: q.Network}}
	}
	list := make([]Attached, 0, len(z.order))
	for _, id := range z.order {
		list = append(list, Attached{Network: id})
	}
	return list
}

// addrs looks a name up, which is in lower case and without the dot at its end.
// Names and networks may hold dots, so a.b.c is looked for as such, then as a.b in
// network c, then as a in network b.c; the first network that knows it answers.
func (z *Zone) lookUp(q *Question, name string) (addrs []packet.Addr, known bool) {
	view := z.view(q)
	for at := len(name); at > 0; at = strings.LastIndexByte(name[:at], '.') {
		host, network := name[:at], strings.TrimPrefix(name[at:], ".")
		for _, linked := range []bool{true, false} {
			for _, on := range view {
				n := z.networks[on.Network]
				if n == nil || n.hidden && q.Network != HostNetwork || network != "" && network != n.name {
					continue
				}
				asked := host
				if target, ok := on.Links[host]; ok != linked {
					continue
				} else if ok {
					asked = target
				}
				if addrs, known := n.addrs[asked]; known {
					return addrs, true
				}
			}
		}
	}
	return nil, false
}

// nameOf is the name of an address and of its network, with a dot at its end;
// empty when the asker knows nobody who has it.
func (z *Zone) nameOf(q *Question, a packet.Addr) string {
	for _, on := range z.view(q) {
		if n := z.networks[on.Network]; n != nil && (!n.hidden || q.Network == HostNetwork) && n.of[a] != "" {
			return n.of[a]
		}
	}
	return ""
}
