package network

import (
	"fmt"
	"net/netip"
	"slices"

	"fairlead/arp"
	"fairlead/gateway"
	"fairlead/loop"
	"fairlead/packet"
	vswitch "fairlead/switch"
)

// maxNeighbours bounds the neighbours of a network that are added by hand.
const maxNeighbours = 1024

// Neighbours lists the gateway's ARP table.
func (n *Network) Neighbours(now int64) []arp.Entry { return n.gw.Neighbours(now) }

// AddNeighbour takes down that a station behind a port has an address, whatever is
// heard, until FlushNeighbours or the port goes.
func (n *Network) AddNeighbour(a netip.Addr, m packet.MAC, p *vswitch.Port) error {
	subnet := n.conf.Gateway.Masked()
	switch owner := n.Held(a); {
	case !subnet.Contains(a):
		return fmt.Errorf("network %s: %v is not in its subnet %v", n.conf.Name, a, subnet)
	case a == n.conf.Gateway.Addr():
		return fmt.Errorf("network %s: %v is the gateway's own address", n.conf.Name, a)
	case a == subnet.Addr() || a == gateway.Broadcast(n.conf.Gateway):
		return fmt.Errorf("network %s: %v is the network or broadcast address of %v", n.conf.Name, a, subnet)
	case m == n.GatewayMAC():
		return fmt.Errorf("network %s: %v is the gateway's MAC", n.conf.Name, m)
	case p.Config().VLANs.Untagged != 0:
		return fmt.Errorf("network %s: %s is in VLAN %d, and the gateway is in none: it reaches nobody there", n.conf.Name, p.Config().Name, p.Config().VLANs.Untagged)
	case owner != nil:
		return fmt.Errorf("network %s: %v is %s's own address, which its guard holds", n.conf.Name, a, owner.Config().Name)
	}
	added, held := 0, n.AllHeld()
	for _, e := range n.Neighbours(loop.Clock()) {
		if e.State == arp.Permanent && e.Addr != a.As4() && !slices.Contains(held, netip.AddrFrom4(e.Addr)) {
			added++
		}
	}
	if added >= maxNeighbours {
		return fmt.Errorf("network %s: %d static neighbours are all there can be; `fairlead arp rm` takes some away", n.conf.Name, maxNeighbours)
	}
	n.gw.AddNeighbour(arp.Entry{Addr: a.As4(), MAC: m, Port: p.ID(), Container: p.Config().Container, Seen: loop.Clock()})
	if n.sw.Port(p.ID()) == nil { // it went just now, with what it had before
		n.gw.FlushPort(p.ID())
	}
	return nil
}

// FlushNeighbours forgets the neighbours for which gone is true and returns how
// many they were. Gone must not use the network.
func (n *Network) FlushNeighbours(gone func(arp.Entry) bool) int { return n.gw.FlushNeighbours(gone) }

// Held is the port whose guard holds an address, nil if none does. Nobody else may
// have it, and no hand takes it away.
func (n *Network) Held(a netip.Addr) *vswitch.Port {
	for _, p := range n.sw.Ports() {
		if slices.Contains(heldBy(p), a) {
			return p
		}
	}
	return nil
}

// AllHeld are all addresses that guards hold.
func (n *Network) AllHeld() (list []netip.Addr) {
	for _, p := range n.sw.Ports() {
		list = append(list, heldBy(p)...)
	}
	return list
}

func heldBy(p *vswitch.Port) (list []netip.Addr) {
	if c := p.Config(); c.Guard.Strict && !c.Host {
		for _, a := range c.Guard.Addrs {
			list = append(list, a.Netip())
		}
	}
	return list
}
