package test

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"fairlead/node/api"
)

// A soakStatic is an entry of a table that somebody added by hand: a MAC of a
// switch, or with an address a neighbour of a gateway.
type soakStatic struct {
	net     *soakNet
	box     *soaked
	mac     string
	address string
	vlan    int
}

// soakMAC is how the MACs of these entries begin, that nobody else has.
const soakMAC = "02:55:"

// mostStatics is how many there are at a time.
const mostStatics = 8

// changeStatics adds a static entry, removes one, or flushes the tables of a
// network, which nobody's traffic minds.
func (s *soak) changeStatics() bool {
	switch n := s.networks[s.rng.IntN(len(s.networks))]; s.rng.IntN(6) {
	case 0, 1, 2:
		return s.addStatic(n)
	case 3:
		if len(s.statics) == 0 {
			return false
		}
		i := s.rng.IntN(len(s.statics))
		e := s.statics[i]
		s.statics = slices.Delete(s.statics, i, i+1)
		if e.address != "" {
			s.do("arp", "rm", "--network", e.net.name, e.address)
		} else {
			s.do("mac", "rm", "--network", e.net.name, "--vlan", fmt.Sprint(e.vlan), e.mac)
		}
	case 4:
		s.do("mac", "flush", "--network", n.name)
		s.do("arp", "flush", "--network", n.name)
	case 5:
		s.do("mac", "flush", "--all", "--network", n.name)
		s.do("arp", "flush", "--all", "--network", n.name)
		s.forget(func(e soakStatic) bool { return e.net == n })
	}
	return true
}

func (s *soak) addStatic(n *soakNet) bool {
	b := s.pickBox(func(b *soaked) bool { _, on := b.nets[n]; return on })
	if b == nil || len(s.statics) >= mostStatics {
		return false
	}
	neighbour := s.rng.IntN(2) == 0 && b.vlans[n] == 0 // where the gateway is
	if n.hub && !neighbour {
		return false
	}
	s.made++
	e := soakStatic{net: n, box: b, mac: fmt.Sprintf(soakMAC+"00:00:%02x:%02x", s.made>>8&0xff, s.made&0xff), vlan: b.vlans[n]}
	if neighbour {
		subnet := n.subnet
		if subnet == "" {
			subnet = "172.17.200"
		}
		e.address = fmt.Sprintf("%s.%d", subnet, 251+s.rng.IntN(4))
		s.forget(func(x soakStatic) bool { return x.net == n && x.address == e.address }) // it is another's now
		s.do("arp", "add", "--network", n.name, e.address, e.mac, b.name)
	} else {
		s.do("mac", "add", "--network", n.name, "--vlan", fmt.Sprint(e.vlan), e.mac, b.name)
	}
	s.statics = append(s.statics, e)
	return true
}

// forget takes out of the model what has gone.
func (s *soak) forget(gone func(e soakStatic) bool) { s.statics = slices.DeleteFunc(s.statics, gone) }

// staticsDiffer compares the static entries with the model's.
func (s *soak) staticsDiffer() error {
	var macs []api.MAC
	var neighbours []api.Neighbour
	if err := errors.Join(s.ask("/v1/macs", &macs), s.ask("/v1/arp", &neighbours)); err != nil {
		return err
	}
	var is, want []string
	for _, m := range macs {
		if m.Static {
			is = append(is, fmt.Sprintf("%s in VLAN %d of %s at %s", m.MAC, m.VLAN, m.Network, m.Container))
		}
	}
	for _, n := range neighbours {
		if strings.HasPrefix(n.MAC, soakMAC) {
			is = append(is, fmt.Sprintf("%s %s on %s at %s %s", n.IP, n.MAC, n.Network, n.Container, n.State))
		}
	}
	for _, e := range s.statics {
		if e.address != "" {
			want = append(want, fmt.Sprintf("%s %s on %s at %s PERMANENT", e.address, e.mac, e.net.name, e.box.name))
		} else {
			want = append(want, fmt.Sprintf("%s in VLAN %d of %s at %s", e.mac, e.vlan, e.net.name, e.box.name))
		}
	}
	return same("static entries", is, want)
}
