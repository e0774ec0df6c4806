package node

import (
	"cmp"
	"log/slog"
	"net/netip"
	"slices"
	"strings"

	"fairlead/dns"
	"fairlead/packet"
)

// publishNamesLocked makes what containers are called follow the registry: what
// the nameserver and DHCP know, and the files of containers.
func (n *Node) publishNamesLocked() {
	n.dns.publish(n.namesLocked())
	n.publishDHCPLocked()
	for _, c := range n.containers {
		if o := c.tenantLocked(); o != nil {
			if err := n.followFilesLocked(o); err != nil {
				slog.Warn("names inside are those of before", "err", err)
			}
		}
	}
}

// names are all the nameserver knows of the registry.
type names struct {
	networks map[packet.NetworkID]known
	zone     []dns.Names
	views    []dns.View
}

// known is a network and its policies.
type known struct {
	dns.Network
	policies egress
}

func (n *Node) namesLocked() *names {
	all := &names{networks: make(map[packet.NetworkID]known, len(n.lans))}
	place := make(map[*lan]int, len(n.lans))
	for _, l := range n.lans {
		if l.net == nil {
			continue // it is just being made
		}
		conf := l.net.Config()
		all.networks[l.number()] = known{dns.Network{
			Gateway:      conf.Gateway,
			MaxUDP:       conf.Options.MTU - packet.IPv4MinLen - packet.UDPLen,
			Internal:     l.conf.Internal,
			HostLoopback: l.reach.hostLoopback,
		}, l.net}
		place[l] = len(all.zone)
		all.zone = append(all.zone, dns.Names{Network: l.number(), Name: l.name, Hidden: l.number() == defaultID})
	}
	seen := make(map[packet.ContainerID]bool, len(n.containers))
	for _, c := range n.containers {
		if o := c.tenantLocked(); o != nil && !seen[o.number] {
			seen[o.number] = true
			all.views = append(all.views, o.viewLocked())
		}
		if c.ending || c.share != nil {
			continue
		}
		for _, a := range c.attachments {
			i, ok := place[a.lan]
			if !ok || !a.up() {
				continue
			}
			host := dns.Host{Names: slices.Concat([]string{c.name()}, a.aliases, []string{c.id[:12], c.hostname})}
			if a.addr.IsValid() {
				host.Addrs = []netip.Addr{a.addr.Addr()}
			}
			all.zone[i].Hosts = append(all.zone[i].Hosts, host)
		}
	}
	return all
}

// tenantLocked is whose attachments and files c has: its own, or while it runs
// those of the container whose namespace it shares. nil is nobody's.
func (c *container) tenantLocked() *container {
	if c.share != nil {
		return c.owner
	}
	return c
}

// viewLocked is which names the container sees. It looks for them where its default
// route would lead first, as Docker's does.
func (c *container) viewLocked() dns.View {
	order := c.liveLocked()
	slices.SortStableFunc(order, func(a, b *attachment) int {
		return cmp.Or(b.priority-a.priority, isInternal(a)-isInternal(b), cmp.Compare(a.lan.name, b.lan.name))
	})
	v := dns.View{Container: c.number}
	for _, a := range order {
		on := dns.Attached{Network: a.lan.number(), Links: make(map[string]string, len(a.links))}
		for _, link := range a.links {
			name, alias, _ := strings.Cut(link, ":")
			on.Links[alias] = name
		}
		v.Networks = append(v.Networks, on)
	}
	return v
}

func isInternal(a *attachment) int {
	if a.lan.conf.Internal {
		return 1
	}
	return 0
}
