package node

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"

	"fairlead/node/api"
	"fairlead/node/box"
	"fairlead/node/network"
	"fairlead/packet"
)

// readNetwork reads what a network is asked to be, beside what is in use already.
func readNetwork(req *api.NetworkCreate, taken []network.Taken) (conf network.Config, err error) {
	if req.Driver != "" && req.Driver != "bridge" {
		return conf, fmt.Errorf("could not find plugin %s in v1 plugin registry: plugin not found; the driver here is bridge", req.Driver)
	}
	want := network.Addresses{}
	if req.Subnet != "" {
		if want.Subnet, err = readSubnet("subnet", req.Subnet); err != nil {
			return conf, err
		}
	}
	if req.IPRange != "" {
		if want.Range, err = readSubnet("ip-range", req.IPRange); err != nil {
			return conf, err
		}
	}
	if req.Gateway != "" {
		if want.Gateway, err = readAddress("gateway", req.Gateway); err != nil {
			return conf, err
		}
	}
	for name, address := range req.AuxAddresses {
		if name == "" {
			return conf, fmt.Errorf("aux-address =%s: say whose it is: --aux-address router=%[1]s", address)
		}
		a, err := readAddress("aux-address "+name, address)
		if err != nil {
			return conf, err
		}
		if want.Aux == nil {
			want.Aux = map[string]netip.Addr{}
		}
		want.Aux[name] = a
	}
	conf = network.Config{Name: req.Name, Internal: req.Internal}
	if conf.Options, err = network.ParseOptions(req.Options); err != nil {
		return conf, err
	}
	conf.Gateway, conf.Pool, err = want.Choose(taken)
	return conf, err
}

func readSubnet(what, s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil || !p.Addr().Is4() {
		return p, fmt.Errorf("invalid %s %q: it is no IPv4 subnet, such as 172.30.0.0/16", what, s)
	}
	return p, nil
}

func readAddress(what, s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() {
		return a, fmt.Errorf("invalid %s %q: it is no IPv4 address", what, s)
	}
	return a, nil
}

// HostTaken are the subnets this host has routes to or addresses in, so no network
// may have them. What is as wide as a default route (OpenVPN's halves of the
// world) leads everywhere.
func HostTaken() ([]network.Taken, error) {
	routes, err := box.HostRoutes()
	if err != nil {
		return nil, err
	}
	var list []network.Taken
	for _, r := range routes {
		if r.Prefix.Bits() < widestRoute {
			continue
		}
		by := fmt.Sprintf("the route %s dev %s of this host", r.Prefix, r.Dev)
		if r.Address {
			by = fmt.Sprintf("the address %s of this host's %s", r.Prefix, r.Dev)
		}
		list = append(list, network.Taken{Prefix: r.Prefix.Masked(), By: by})
	}
	return list, nil
}

// widestRoute is the length of the widest subnet a network may have.
const widestRoute = 8

// takenLocked are the subnets of uplinks and networks but one, those of this host
// behind them.
func (n *Node) takenLocked(but *lan, host []network.Taken) (list []network.Taken) {
	for _, l := range n.lans {
		if l == but {
			continue
		}
		p := l.net.Config().Gateway.Masked()
		list = append(list, network.Taken{Prefix: p, By: fmt.Sprintf("%s of network %s", p, l.name)})
	}
	for _, u := range n.uplinks {
		if a := u.spec.Addr; a.IsValid() {
			list = append(list, network.Taken{Prefix: a.Masked(), By: fmt.Sprintf("%s of uplink %s", a.Masked(), u.spec.Name)})
		}
	}
	return append(list, host...)
}

// placeDefaultLocked gives the default network a subnet, unless it was told which:
// the one it has, or the first of Docker's pools that this host has no route to.
// What is in more is taken as well.
func (n *Node) placeDefaultLocked(s *setup, more []network.Taken) error {
	if !s.chosen {
		return nil
	}
	if n.setup.chosen {
		s.net.Gateway = n.setup.net.Gateway
		return nil
	}
	host, err := HostTaken()
	if err != nil { // who may not look has it as it always was
		slog.Warn("this host's routes are not known", "err", err)
	}
	if s.net.Gateway, err = network.FreePool(append(n.takenLocked(n.defaultLocked(), host), more...)); err != nil {
		return fmt.Errorf("network %s: %w", defaultName, err)
	}
	if s.net.Gateway != network.DefaultSubnet {
		slog.Info("this host has routes into the usual subnet of the default network", "usual", network.DefaultSubnet.Masked(), "subnet", s.net.Gateway.Masked())
	}
	return nil
}

// freeNumberLocked is the lowest number no network has.
func (n *Node) freeNumberLocked() (packet.NetworkID, error) {
	used := make(map[packet.NetworkID]bool, len(n.lans))
	for _, l := range n.lans {
		used[l.number()] = true
	}
	for id := defaultID; id <= network.MaxNetworks; id++ {
		if !used[id] {
			return id, nil
		}
	}
	return 0, fail(http.StatusConflict, "this node has %d networks, which is all it can have", len(n.lans))
}
