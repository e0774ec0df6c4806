package dns

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"fairlead/packet"
)

// A Zone is what there is of containers' names now. What is set of one container
// costs as much beside thousands of others as alone.
type Zone struct {
	networks map[packet.NetworkID]*names
	order    []packet.NetworkID // as they were given: the host looks in this one
	known    map[packet.ContainerID]*known
}

// A NetworkName is what a network of containers is called. Two containers on it may
// share a name.
type NetworkName struct {
	Network packet.NetworkID
	Name    string
	// Hidden says that containers do not hear names there, only the host does.
	// Docker's default network has no names.
	Hidden bool
}

// A Station is what there is of one container: what others call it, and which
// names it sees itself, those of networks it is on, and no other.
type Station struct {
	Hosts []Host
	View  []Attached // in the order in which names are looked for
}

// A Host is a container on one network.
type Host struct {
	Network packet.NetworkID
	Names   []string // the first one is also that of its addresses
	Addrs   []netip.Addr
}

// Attached is a network a container is on. Links are further names that it alone
// has for containers there, by what they stand for.
type Attached struct {
	Network packet.NetworkID
	Links   map[string]string
}

// names are those on one network, by what is asked for.
type names struct {
	NetworkName
	spelled string
	hosts   map[string][]*host // those that share the name
	of      map[packet.Addr]*host
}

// A host is a Host as it is found.
type host struct {
	names []string
	addrs []packet.Addr // empty: the name is known, and has no address
	whole string        // its first name and the network's, see joined
}

// known is a Station as it is found.
type known struct {
	hosts map[*host]*names
	view  []Attached
}

// NewZone makes an empty zone.
func NewZone() *Zone {
	return &Zone{networks: make(map[packet.NetworkID]*names), known: make(map[packet.ContainerID]*known)}
}

// SetNetworks says which networks there are. The names on those that were there
// before stay.
func (z *Zone) SetNetworks(list []NetworkName) {
	before := z.networks
	z.networks, z.order = make(map[packet.NetworkID]*names, len(list)), nil
	for _, n := range list {
		x := before[n.Network]
		if x == nil || x.NetworkName != n {
			x = &names{
				NetworkName: n, spelled: plain(spelled(n.Name)),
				hosts: make(map[string][]*host), of: make(map[packet.Addr]*host),
			}
		}
		z.networks[n.Network], z.order = x, append(z.order, n.Network)
	}
}

// Set says what there is of a container from now on; nil is nothing. Its networks
// are set before.
func (z *Zone) Set(c packet.ContainerID, s *Station) {
	if old := z.known[c]; old != nil {
		for h, on := range old.hosts {
			on.remove(h)
		}
		delete(z.known, c)
	}
	if s == nil {
		return
	}
	k := &known{hosts: make(map[*host]*names, len(s.Hosts))}
	for i := range s.Hosts {
		if on := z.networks[s.Hosts[i].Network]; on != nil {
			k.hosts[on.add(&s.Hosts[i])] = on
		}
	}
	for _, at := range s.View {
		links := make(map[string]string, len(at.Links))
		for name, target := range at.Links {
			links[plain(spelled(name))] = plain(spelled(target))
		}
		k.view = append(k.view, Attached{at.Network, links})
	}
	z.known[c] = k
}

func (n *names) add(from *Host) *host {
	h := new(host)
	for _, a := range from.Addrs {
		h.addrs = append(h.addrs, packet.AddrFromNetip(a))
	}
	for _, name := range from.Names {
		key := plain(spelled(name))
		if key == "" || slices.Contains(h.names, key) {
			continue
		}
		if len(h.names) == 0 {
			h.whole = joined(spelled(name), spelled(n.Name))
			for _, a := range h.addrs {
				n.of[a] = h
			}
		}
		h.names = append(h.names, key)
		n.hosts[key] = append(n.hosts[key], h)
	}
	return h
}

func (n *names) remove(h *host) {
	for _, key := range h.names {
		n.hosts[key] = slices.DeleteFunc(n.hosts[key], func(x *host) bool { return x == h })
		if len(n.hosts[key]) == 0 {
			delete(n.hosts, key)
		}
	}
	for _, a := range h.addrs {
		if n.of[a] == h {
			delete(n.of, a)
		}
	}
}

// addrs are those of who has a name.
func (n *names) addrs(name string) (list []packet.Addr, known bool) {
	hosts := n.hosts[name]
	for _, h := range hosts {
		list = append(list, h.addrs...)
	}
	return list, len(hosts) > 0
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
	if k := z.known[q.Container]; k != nil {
		return k.view
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

// lookUp looks a name up, which is in lower case and without the dot at its end.
// Names and networks may hold dots, so a.b.c is looked for as such, then as a.b in
// network c, then as a in network b.c; the first network that knows it answers.
func (z *Zone) lookUp(q *Question, name string) (addrs []packet.Addr, known bool) {
	view := z.view(q)
	for at := len(name); at > 0; at = strings.LastIndexByte(name[:at], '.') {
		host, network := name[:at], strings.TrimPrefix(name[at:], ".")
		for _, linked := range []bool{true, false} {
			for _, on := range view {
				n := z.networks[on.Network]
				if n == nil || n.Hidden && q.Network != HostNetwork || network != "" && network != n.spelled {
					continue
				}
				asked := host
				if target, ok := on.Links[host]; ok != linked {
					continue
				} else if ok {
					asked = target
				}
				if addrs, known := n.addrs(asked); known {
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
		if n := z.networks[on.Network]; n != nil && (!n.Hidden || q.Network == HostNetwork) && n.of[a] != nil {
			return n.of[a].whole
		}
	}
	return ""
}
