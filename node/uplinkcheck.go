package node

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"fairlead/node/api"
)

// An intended uplink is one a network is to be given, and what there is of that
// name so far, if its device is there.
type intended struct {
	spec *api.UplinkSpec
	now  *uplink
}

// checkUplinks refuses ways out that could not be added, as far as that can be
// known beforehand: whoever sets them removes others first, and with those go
// their connections. It changes nothing, and returns what would be lost.
func (n *Node) checkUplinks(m api.UplinksCheck) (*api.UplinksChecked, error) {
	n.linking.Lock()
	defer n.linking.Unlock()
	plan, lost, err := n.intend(m)
	if err != nil {
		return nil, err
	}
	for _, x := range plan {
		if x.now == nil {
			continue
		}
		if err := x.now.way.Probe(x.fresh()); err != nil {
			return nil, fail(http.StatusConflict, "uplink %s: %v", x.spec.Name, err)
		}
	}
	return &api.UplinksChecked{Lost: lost}, nil
}

// intend holds what is wanted against itself and against what stays.
func (n *Node) intend(m api.UplinksCheck) (plan []intended, lost []api.OwnAddress, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l, err := n.lanLocked(m.Network)
	if err != nil {
		return nil, nil, err
	}
	var all []*api.UplinkSpec
	for _, u := range n.uplinks {
		if (u.lan != l || !m.Only) && u.lost == nil && !slices.ContainsFunc(m.Specs, func(s string) bool { return isNamed(s, u.spec.Name) }) {
			all = append(all, u.spec)
		}
	}
	for _, text := range m.Specs {
		x := intended{}
		if x.spec, err = api.ParseUplink(text); err != nil {
			return nil, nil, statusError{http.StatusBadRequest, err}
		}
		if i := slices.IndexFunc(n.uplinks, func(u *uplink) bool { return u.lost == nil && u.spec.Name == x.spec.Name }); i >= 0 {
			x.now = n.uplinks[i]
			if err := fitsDevice(x.spec, x.now.device); err != nil {
				return nil, nil, err
			}
		}
		if err := fits(x.spec, n.lans, all); err != nil {
			return nil, nil, err
		}
		plan, all = append(plan, x), append(all, x.spec)
	}
	for _, c := range n.containers {
		for _, a := range c.addresses {
			if a.rule != 0 && !slices.ContainsFunc(all, func(s *api.UplinkSpec) bool { return slices.Contains(s.Addrs, a.Addr) }) {
				lost = append(lost, api.OwnAddress{Container: c.name(), Address: a.String()})
			}
		}
	}
	slices.SortFunc(lost, func(a, b api.OwnAddress) int { return strings.Compare(a.Address, b.Address) })
	return plan, lost, nil
}

// isNamed reports whether a specification is one of the uplink of that name.
func isNamed(spec, name string) bool {
	s, err := api.ParseUplink(spec)
	return err == nil && s.Name == name
}

// fresh are the addresses the uplink does not have yet.
func (x *intended) fresh() (list []netip.Addr) {
	for _, a := range append([]netip.Addr{x.spec.Addr.Addr()}, x.spec.Addrs...) {
		if a.IsValid() && a != x.now.spec.Addr.Addr() && !slices.Contains(x.now.spec.Addrs, a) {
			list = append(list, a)
		}
	}
	return list
}

// fitsDevice refuses an MTU the device does not have; 0 is unknown.
func fitsDevice(s *api.UplinkSpec, mtu int) error {
	if mtu != 0 && s.MTU > mtu {
		return fail(http.StatusBadRequest, "uplink %s: mtu=%d is more than the device takes: it has %d", s.Name, s.MTU, mtu)
	}
	return nil
}

// fits refuses what would make addresses ambiguous beside others.
func fits(s *api.UplinkSpec, lans []*lan, others []*api.UplinkSpec) error {
	subnet := s.Addr
	for _, l := range lans {
		inside := l.net.Config().Gateway.Masked()
		if subnet.IsValid() && subnet.Overlaps(inside) {
			elsewhere := "`fairlead network create --subnet 10.88.0.0/16 " + l.name + "`"
			if l == lans[0] {
				elsewhere = "`fairlead up --bip 10.88.0.1/16`"
			}
			return fail(http.StatusConflict, "uplink %s: ip=%s is in the subnet of network %s; set that up elsewhere: %s", s.Name, subnet, l.name, elsewhere)
		}
		if i := slices.IndexFunc(s.Addrs, inside.Contains); i >= 0 {
			return fail(http.StatusConflict, "uplink %s: addr=%s is in the subnet of network %s", s.Name, s.Addrs[i], l.name)
		}
	}
	for _, other := range others {
		if subnet.IsValid() && subnet.Overlaps(other.Addr) {
			return fail(http.StatusConflict, "uplink %s: ip=%s is in the subnet of uplink %s, %s", s.Name, subnet, other.Name, other.Addr.Masked())
		}
	}
	if len(others) >= maxUplinks {
		return fail(http.StatusConflict, "this node has %d uplinks, which is all it can have", len(others))
	}
	return nil
}
