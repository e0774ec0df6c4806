package node

import (
	"cmp"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"fairlead/dns"
	"fairlead/packet"
)

// What containers are called is published one by one, as it changes: on a node with
// thousands of them one more costs as much as on an empty one.

// publishNetworksLocked makes what the nameserver and DHCP know of networks follow
// the registry.
func (n *Node) publishNetworksLocked() {
	n.dns.setNetworks(n.knownLocked())
	n.publishLendersLocked()
}

// publishNamesLocked makes what a container is called follow the registry: what the
// nameserver and DHCP know, and its files. Who shares a namespace stands for who
// made it.
func (n *Node) publishNamesLocked(c *container) {
	h := c.holder()
	n.dns.setStation(h.number, n.stationLocked(h))
	n.publishFixedLocked(h)
	if h.isPlug() {
		n.publishNetworksLocked() // it may have come or gone with another DHCP server
	}
	n.keepFilesLocked(h)
}

// livesLocked reports whether somebody is in the namespace c made: itself, from the
// moment it was reserved, or who shares it and runs.
func (n *Node) livesLocked(c *container) bool { return n.containers[c.id] == c || c.members > 0 }

// keepFilesLocked has the files of a container follow.
func (n *Node) keepFilesLocked(c *container) {
	if !n.livesLocked(c) {
		return
	}
	if err := n.followFilesLocked(c); err != nil {
		slog.Warn("names inside are those of before", "err", err)
	}
}

// known is a network, what it is called, and its policies.
type known struct {
	dns.NetworkName
	dns.Network
	policies egress
}

// knownLocked are the networks as the nameserver knows them.
func (n *Node) knownLocked() (list []known) {
	for _, l := range n.lans {
		if l.net == nil {
			continue // it is just being made
		}
		conf := l.net.Config()
		list = append(list, known{
			dns.NetworkName{Network: l.number(), Name: l.name, Hidden: l.number() == defaultID},
			dns.Network{
				Gateway:      conf.Gateway,
				MaxUDP:       conf.Options.MTU - packet.IPv4MinLen - packet.UDPLen,
				Internal:     l.conf.Internal,
				HostLoopback: l.reach.hostLoopback,
			}, l.net,
		})
	}
	return list
}

// stationLocked is what the nameserver knows of a container and its namespace; nil
// is nothing.
func (n *Node) stationLocked(c *container) *dns.Station {
	if !n.livesLocked(c) {
		return nil
	}
	s := &dns.Station{View: c.viewLocked()}
	if c.ending || n.containers[c.id] != c {
		return s
	}
	for _, a := range c.attachments {
		if !a.up() {
			continue
		}
		host := dns.Host{Network: a.lan.number(), Names: slices.Concat([]string{c.name()}, a.aliases, []string{c.id[:12], c.hostname})}
		if a.addr.IsValid() {
			host.Addrs = []netip.Addr{a.addr.Addr()}
		}
		s.Hosts = append(s.Hosts, host)
	}
	return s
}

// viewLocked is which names the container sees. It looks for them where its default
// route would lead first, as Docker's does.
func (c *container) viewLocked() (view []dns.Attached) {
	order := c.liveLocked()
	slices.SortStableFunc(order, func(a, b *attachment) int {
		return cmp.Or(b.priority-a.priority, isInternal(a)-isInternal(b), cmp.Compare(a.lan.name, b.lan.name))
	})
	for _, a := range order {
		on := dns.Attached{Network: a.lan.number(), Links: make(map[string]string, len(a.links))}
		for _, link := range a.links {
			name, alias, _ := strings.Cut(link, ":")
			on.Links[alias] = name
		}
		view = append(view, on)
	}
	return view
}

func isInternal(a *attachment) int {
	if a.lan.conf.Internal {
		return 1
	}
	return 0
}

// publishFixedLocked has the DHCP servers know what a container has on networks.
func (n *Node) publishFixedLocked(c *container) {
	fixed := make(map[packet.NetworkID]fixedStation)
	if n.containers[c.id] == c && !c.ending {
		for _, a := range c.attachments {
			if a.addr.IsValid() {
				fixed[a.lan.number()] = fixedStation{a.mac, a.addr.Addr(), c.hostname, a.asked.DHCP && !a.leaving}
			}
		}
	}
	if !maps.Equal(fixed, c.fixed) { // else nobody waits for their goroutine
		c.fixed = fixed
		n.dhcp.call(func() { n.dhcp.fix(c.number, fixed) })
	}
}
