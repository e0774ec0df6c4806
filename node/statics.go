package node

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"fairlead/packet"
)

// A static is a station that was added by hand behind an attachment, of which it is
// written down: a MAC address of the switch or, with an address, a neighbour of the
// gateway. The tables bound them.
type static struct {
	VLAN uint16     `json:"vlan,omitempty"`
	MAC  packet.MAC `json:"mac"`
	Addr netip.Addr `json:"addr,omitzero"`
}

// replaces reports whether s takes the place of another one in its table.
func (s *static) replaces(o static) bool {
	if s.Addr.IsValid() {
		return s.Addr == o.Addr
	}
	return !o.Addr.IsValid() && s.VLAN == o.VLAN && s.MAC == o.MAC
}

// addStatic adds one behind a container's port on a network.
func (n *Node) addStatic(p *place, s static) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !p.at.up() {
		return fmt.Errorf("network %s: its port has gone", p.lan.name)
	}
	if err := s.add(p.at); err != nil {
		return err
	}
	n.dropStaticsLocked(p.lan, s.replaces)
	p.at.statics = append(p.at.statics, s)
	n.renoteLocked(p.of)
	return nil
}

// add has the tables know it.
func (s *static) add(at *attachment) error {
	e := at.endpoint
	if s.Addr.IsValid() {
		return e.net.AddNeighbour(s.Addr, s.MAC, e.port)
	}
	return e.net.Switch().AddMAC(s.VLAN, s.MAC, e.port.ID())
}

// dropStaticsLocked forgets those of a network for which gone is true, that the tables
// do not know any more.
func (n *Node) dropStaticsLocked(l *lan, gone func(static) bool) {
	for _, c := range n.containers {
		of := c.holder()
		for _, a := range of.attachments {
			if a.lan == l && slices.ContainsFunc(a.statics, gone) {
				a.statics = slices.DeleteFunc(a.statics, gone)
				n.renoteLocked(of)
			}
		}
	}
}

// staticsAgain adds those that were written down of a place.
func (n *Node) staticsAgain(c *container, a *attachment, list []static) {
	for _, s := range list {
		if err := s.add(a); err != nil {
			slog.Warn("a station that was added by hand is lost", "container", c.name(), "mac", s.MAC, "err", err)
			n.handed.fail(err)
			continue
		}
		a.statics = append(a.statics, s)
	}
}
