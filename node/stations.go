package node

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"fairlead/arp"
	"fairlead/loop"
	"fairlead/node/api"
	"fairlead/packet"
	vswitch "fairlead/switch"
)

// namedLans are the network a request names by ?network=, or all.
func (n *Node) namedLans(r *http.Request) ([]*lan, error) {
	name := r.URL.Query().Get("network")
	if name == "" {
		return n.listLans(), nil
	}
	l, err := n.lan(name)
	return []*lan{l}, err
}

// all reports whether a request is about what was added by hand too.
func all(r *http.Request) bool { return r.URL.Query().Get("all") != "" }

func (n *Node) getMACs(_ http.ResponseWriter, r *http.Request) (any, error) {
	lans, err := n.namedLans(r)
	if err != nil {
		return nil, err
	}
	at, list := n.residents(), []api.MAC{}
	for _, l := range lans {
		net := l.network(n)
		list = append(list, api.MAC{Network: l.name, MAC: net.GatewayMAC().String(), Local: true})
		for _, e := range net.Switch().MACs(loop.Clock()) {
			list = append(list, api.MAC{
				Network: l.name, VLAN: e.VLAN, MAC: e.MAC.String(), Port: portNumber(e.Port),
				Container: at.nameOf(net, e.Port), Static: e.Static, Age: e.Age.Seconds(),
			})
		}
	}
	return list, nil
}

// postMACs adds a static MAC.
func (n *Node) postMACs(w http.ResponseWriter, r *http.Request) (any, error) {
	var req api.MACRequest
	if err := body(w, r, &req); err != nil {
		return nil, err
	}
	mac, err := api.ParseStation(req.MAC)
	if err == nil {
		err = api.CheckVLAN(req.VLAN)
	}
	if err != nil {
		return nil, statusError{http.StatusBadRequest, err}
	}
	p, err := n.placeFor(req.Network, req.Container)
	if err != nil {
		return nil, err
	}
	l, net := p.lan, p.lan.network(n)
	switch {
	case net.Config().Options.Hub:
		return nil, fail(http.StatusConflict, "network %s plays a hub (hub=on), which sends everything everywhere and has no MAC table", l.name)
	case mac == net.GatewayMAC():
		return nil, fail(http.StatusConflict, "network %s: %v is the gateway's MAC; give another one", l.name, mac)
	}
	if err := n.addStatic(p, static{VLAN: req.VLAN, MAC: mac}); err != nil {
		return nil, statusError{http.StatusConflict, err}
	}
	return api.MAC{Network: l.name, VLAN: req.VLAN, MAC: mac.String(), Port: portNumber(p.port.ID()), Container: p.name, Static: true}, nil
}

// A place is where something is added by hand: a container's on a network.
type place struct {
	lan  *lan
	of   *container // whose attachment it is
	at   *attachment
	name string // of who was asked for
	port *vswitch.Port
}

func (n *Node) placeFor(network, ref string) (*place, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l, err := n.lanLocked(network)
	if err != nil {
		return nil, err
	}
	c, err := n.findLocked(ref)
	if err != nil {
		return nil, err
	}
	a := c.onLocked(l)
	if a == nil || !a.up() {
		return nil, fail(http.StatusConflict, "container %s is not on network %s; `fairlead network connect %[2]s %[1]s` connects it", c.name(), l.name)
	}
	return &place{l, c.holder(), a, c.name(), a.endpoint.port}, nil
}

// deleteMAC forgets one MAC, learned or added.
func (n *Node) deleteMAC(_ http.ResponseWriter, r *http.Request) (any, error) {
	mac, err := api.ParseStation(r.PathValue("mac"))
	if err != nil {
		return nil, statusError{http.StatusBadRequest, err}
	}
	vlan := uint64(0)
	if word := r.URL.Query().Get("vlan"); word != "" {
		vlan, err = strconv.ParseUint(word, 10, 16)
		if err == nil {
			err = api.CheckVLAN(uint16(vlan))
		}
		if err != nil {
			return nil, statusError{http.StatusBadRequest, err}
		}
	}
	l, err := n.lan(r.URL.Query().Get("network"))
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	there := l.net.Switch().RemoveMAC(uint16(vlan), mac)
	n.dropStaticsLocked(l, (&static{VLAN: uint16(vlan), MAC: mac}).replaces)
	n.mu.Unlock()
	if !there {
		in := ""
		if vlan != 0 {
			in = fmt.Sprintf(" in VLAN %d", vlan)
		}
		return nil, fail(http.StatusNotFound, "network %s knows no station %v%s; `fairlead mac ls --network %[1]s` lists those it knows", l.name, mac, in)
	}
	return done, nil
}

// deleteMACs empties the table of the network that is named, or of all.
func (n *Node) deleteMACs(_ http.ResponseWriter, r *http.Request) (any, error) {
	lans, err := n.namedLans(r)
	if err != nil {
		return nil, err
	}
	var flushed api.Flushed
	for _, l := range lans {
		n.mu.Lock()
		flushed.MACs += l.net.Switch().FlushMACs(all(r))
		if all(r) {
			n.dropStaticsLocked(l, func(s static) bool { return !s.Addr.IsValid() })
		}
		n.mu.Unlock()
	}
	return flushed, nil
}

// getARP lists who the router knows on networks and uplinks.
func (n *Node) getARP(_ http.ResponseWriter, r *http.Request) (any, error) {
	seen := n.segments()
	list, name := []api.Neighbour{}, r.URL.Query().Get("network")
	now, at := loop.Clock(), n.residents()
	add := func(network string, e arp.Entry, container string) {
		a := api.Neighbour{Network: network, IP: packet.AddrFrom4(e.Addr).String(), State: e.State.String(), Port: portNumber(e.Port), Container: container}
		if !e.MAC.IsZero() {
			a.MAC, a.Age = e.MAC.String(), time.Duration(now-e.Seen).Seconds()
		}
		list = append(list, a)
	}
	uplink := false
	for _, u := range seen.uplinks {
		uplink = uplink || u.Name() == name
	}
	if name != "" && !uplink {
		l, err := n.lan(name)
		if err != nil {
			return nil, err
		}
		name = l.name
	}
	for _, net := range seen.nets {
		if name != "" && net.Config().Name != name {
			continue
		}
		for _, e := range net.Neighbours(now) {
			add(net.Config().Name, e, at.nameOf(net, e.Port))
		}
	}
	for _, u := range seen.uplinks {
		if name != "" && u.Name() != name {
			continue
		}
		for _, e := range u.State(now).Neighbours {
			add(u.Name(), e, "")
		}
	}
	return list, nil
}

// postARP adds a static neighbour.
func (n *Node) postARP(w http.ResponseWriter, r *http.Request) (any, error) {
	var req api.NeighbourRequest
	if err := body(w, r, &req); err != nil {
		return nil, err
	}
	addr, err := api.ParseNeighbour(req.IP)
	if err != nil {
		return nil, statusError{http.StatusBadRequest, err}
	}
	mac, err := api.ParseStation(req.MAC)
	if err != nil {
		return nil, statusError{http.StatusBadRequest, err}
	}
	p, err := n.placeFor(req.Network, req.Container)
	if err != nil {
		return nil, err
	}
	if err := n.addStatic(p, static{MAC: mac, Addr: addr}); err != nil {
		return nil, statusError{http.StatusConflict, err}
	}
	return api.Neighbour{Network: p.lan.name, IP: addr.String(), MAC: mac.String(), State: arp.Permanent.String(), Port: portNumber(p.port.ID()), Container: p.name}, nil
}

// deleteNeighbour forgets one address, learned or added.
func (n *Node) deleteNeighbour(_ http.ResponseWriter, r *http.Request) (any, error) {
	addr, err := api.ParseNeighbour(r.PathValue("ip"))
	if err != nil {
		return nil, statusError{http.StatusBadRequest, err}
	}
	l, err := n.lan(r.URL.Query().Get("network"))
	if err != nil {
		return nil, err
	}
	net := l.network(n)
	if p := net.Held(addr); p != nil {
		return nil, fail(http.StatusConflict, "network %s: %v is %s's own address, which its guard holds; `fairlead network disconnect %[1]s %[3]s` takes both away", l.name, addr, n.residents().name(p))
	}
	n.mu.Lock()
	flushed := net.FlushNeighbours(func(e arp.Entry) bool { return e.Addr == addr.As4() })
	n.dropStaticsLocked(l, (&static{Addr: addr}).replaces)
	n.mu.Unlock()
	if flushed == 0 {
		return nil, fail(http.StatusNotFound, "the gateway of network %s does not know %v; `fairlead arp ls --network %[1]s` lists those it knows", l.name, addr)
	}
	return done, nil
}

// deleteARP empties the ARP table of the gateway of the network that is named, or
// of all.
func (n *Node) deleteARP(_ http.ResponseWriter, r *http.Request) (any, error) {
	lans, err := n.namedLans(r)
	if err != nil {
		return nil, err
	}
	var flushed api.NeighboursFlushed
	for _, l := range lans {
		net := l.network(n)
		held := net.AllHeld()
		n.mu.Lock()
		flushed.Neighbours += net.FlushNeighbours(func(e arp.Entry) bool {
			return e.State != arp.Permanent || all(r) && !slices.Contains(held, netip.AddrFrom4(e.Addr))
		})
		if all(r) {
			n.dropStaticsLocked(l, func(s static) bool { return s.Addr.IsValid() })
		}
		n.mu.Unlock()
	}
	return flushed, nil
}
