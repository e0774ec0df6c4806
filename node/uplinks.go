package node

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"fairlead/link"
	"fairlead/loop"
	"fairlead/node/api"
	"fairlead/node/network"
	"fairlead/packet"
	vswitch "fairlead/switch"
)

// maxUplinks bounds the uplinks of a node: each is a segment of its own and a
// line in the routing table, which is looked through in order.
const maxUplinks = 16

// An uplink is one the node was handed. It stays listed when its device has
// gone, until somebody removes it or brings another of that name.
type uplink struct {
	spec *api.UplinkSpec
	lan  *lan // whose way out it is
	way  *network.Uplink
	mac  packet.MAC
	mtu  int

	device int // MTU of the device; 0 is unknown
	fd     int // of the queue, as long as it is not lost

	// Guarded by Node.mu.
	since time.Time // when it came, or was lost
	lost  error     // why its device is gone; nil while it is there
}

// addUplink puts a link to use that leads outside. The descriptor is the
// node's from here on, whatever becomes of it.
func (n *Node) addUplink(m api.UplinkRequest, fds []int) error { return n.addUplinkAs(m, fds, false) }

// addUplinkAs does so; held says that its addresses are ours already.
func (n *Node) addUplinkAs(m api.UplinkRequest, fds []int, held bool) error {
	defer n.tracing.follow() // it is traced too
	n.linking.Lock()
	defer n.linking.Unlock()
	u, err := n.newUplink(m, fds)
	if err != nil {
		api.CloseAll(fds)
		return err
	}
	u.fd = fds[0]
	queue, err := u.open(u.fd)
	if err != nil {
		return fmt.Errorf("uplink %s: %w", u.spec.Name, err)
	}
	u.way, err = n.router.AddUplink(network.UplinkConfig{
		Name: u.spec.Name, MAC: u.mac, MTU: u.mtu, DHCP: u.spec.DHCP,
		Addr: u.spec.Addr, Gateway: u.spec.Gateway, Extra: u.spec.Addrs, Routes: u.spec.Routes,
		SharedMAC: u.spec.SharedMAC, Held: held,
		Lost: func(err error) { go n.uplinkLost(u, err) }, // on a worker
	}, queue)
	if err != nil {
		return err // the router has closed the queue
	}
	if s := u.way.State(loop.Clock()); !held && !u.spec.DHCP && !s.Addr.IsValid() && s.Problem != nil {
		// Somebody has the address. To go on would cut him off, and us.
		return errors.Join(fail(http.StatusConflict, "uplink %s: %v", u.spec.Name, s.Problem), n.router.RemoveUplink(u.spec.Name))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.uplinks = slices.DeleteFunc(n.uplinks, func(old *uplink) bool { return old.spec.Name == u.spec.Name }) // a lost one
	n.uplinks = append(n.uplinks, u)
	if err := n.setWaysLocked(); err != nil {
		return err
	}
	n.routeAddressesLocked(u)
	slog.Info("uplink is there", "uplink", u.spec.Name, "network", u.lan.name, "spec", u.spec)
	return nil
}

// uplinksLocked are a network's, also those whose device has gone.
func (n *Node) uplinksLocked(l *lan) (list []*uplink) {
	for _, u := range n.uplinks {
		if u.lan == l {
			list = append(list, u)
		}
	}
	return list
}

// waysLocked are the uplinks of a network that work, by name, in the order they
// came, and behind them this host's sockets: of equally good ones the first is
// taken.
func (n *Node) waysLocked(l *lan) (names []string) {
	for _, u := range n.uplinksLocked(l) {
		if u.lost == nil {
			names = append(names, u.spec.Name)
		}
	}
	if n.usesHostLocked(l) {
		names = append(names, api.HostUplink)
	}
	return names
}

// linksLocked is how many uplinks work that the node was handed.
func (n *Node) linksLocked() (count int) {
	for _, u := range n.uplinks {
		if u.lost == nil {
			count++
		}
	}
	return count
}

// newUplink checks what a client wants to be an uplink.
func (n *Node) newUplink(m api.UplinkRequest, fds []int) (*uplink, error) {
	spec, err := api.ParseUplink(m.Spec)
	if err != nil {
		return nil, statusError{http.StatusBadRequest, err}
	}
	if spec.Kind == api.HostUplink {
		return nil, fail(http.StatusBadRequest, "uplink host: it takes no descriptor: POST /v1/uplinks/host")
	}
	if len(fds) != 1 {
		return nil, fail(http.StatusBadRequest, "uplink %s: it takes one descriptor; %d came", spec.Name, len(fds))
	}
	u := &uplink{spec: spec, mtu: spec.MTU, device: m.MTU, since: time.Now()}
	if err := fitsDevice(spec, u.device); err != nil {
		return nil, err
	}
	if u.mtu == 0 {
		u.mtu = min(cmp.Or(u.device, network.DefaultMTU), 65521)
	}
	if u.mac, err = packet.ParseMAC(m.MAC); err != nil || u.mac.IsGroup() || u.mac.IsZero() {
		return nil, fail(http.StatusBadRequest, "uplink %s: invalid MAC address %q: six bytes such as 02:42:c0:00:02:02, the first one even", spec.Name, m.MAC)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.isLeaving() {
		return nil, errLeaving
	}
	if u.lan, err = n.lanLocked(m.Network); err != nil {
		return nil, err
	}
	return u, n.checkUplinkLocked(u)
}

// checkUplinkLocked refuses an uplink that contradicts those that work.
func (n *Node) checkUplinkLocked(u *uplink) error {
	var others []*api.UplinkSpec
	for _, other := range n.uplinks {
		if other.lost != nil {
			continue
		}
		if other.spec.Name == u.spec.Name {
			return fail(http.StatusConflict, "uplink %s is there already, as %s; `fairlead network set %s --uplink …` replaces it", u.spec.Name, other.spec, other.lan.name)
		}
		others = append(others, other.spec)
	}
	return fits(u.spec, n.lans, others)
}

// open makes the descriptor a queue; it is the queue's in every case.
func (u *uplink) open(fd int) (q vswitch.Queue, err error) {
	if u.spec.Kind == "tap" {
		q, err = link.AdoptTAP(fd)
	} else {
		q, err = link.AdoptPacket(fd)
	}
	if err != nil {
		api.CloseAll([]int{fd})
		return nil, err
	}
	return q, nil
}

// removeUplink takes an uplink away.
func (n *Node) removeUplink(name string) error {
	n.linking.Lock()
	defer n.linking.Unlock()
	n.mu.Lock()
	i := slices.IndexFunc(n.uplinks, func(u *uplink) bool { return u.spec.Name == name })
	if i < 0 {
		n.mu.Unlock()
		return fail(http.StatusNotFound, "No such uplink: %s; `fairlead network ls` lists those there are", name)
	}
	u := n.uplinks[i]
	n.uplinks = slices.Delete(n.uplinks, i, i+1)
	n.unrouteAddressesLocked(u)
	if u.lost != nil {
		defer n.mu.Unlock()
		return n.stepInLocked(u.lan)
	}
	n.mu.Unlock()
	slog.Info("uplink is removed", "uplink", name)
	err := n.router.RemoveUplink(name)
	n.mu.Lock()
	defer n.mu.Unlock()
	return errors.Join(err, n.stepInLocked(u.lan))
}

// uplinkLost is called when the device of an uplink has gone.
func (n *Node) uplinkLost(u *uplink, err error) {
	n.linking.Lock() // after addUplink, for one lost at once
	defer n.linking.Unlock()
	n.mu.Lock()
	if !slices.Contains(n.uplinks, u) || u.lost != nil {
		n.mu.Unlock()
		return
	}
	if u.lost = err; errors.Is(err, packet.EgressGone) {
		u.lost = errors.New("its interface was removed") // the usual reason, in words
	}
	u.since = time.Now()
	n.unrouteAddressesLocked(u)
	n.mu.Unlock()
	slog.Warn("uplink is gone", "uplink", u.spec.Name, "network", u.lan.name, "err", err)
	if err := n.router.RemoveUplink(u.spec.Name); err != nil {
		slog.Error("remove uplink", "uplink", u.spec.Name, "err", err)
	}
}

// routeAddressesLocked has the addresses of an uplink lead to those containers
// whose own they are.
func (n *Node) routeAddressesLocked(u *uplink) {
	for _, a := range u.spec.Addrs {
		c := n.ownerOfLocked(a)
		if c == nil {
			continue
		}
		own := &c.addresses[c.ownsAddress(a)]
		if own.rule != 0 || own.at.lan != u.lan {
			continue // by another uplink, or where that does not lead
		}
		var err error
		if own.rule, err = n.routeAddress(c, own.at, u, a); err != nil {
			slog.Error("route address", "container", c.name(), "address", a, "err", err)
		}
	}
}

// unrouteAddressesLocked is its reverse: they stay the containers' own, and lead
// nowhere until an uplink has them again.
func (n *Node) unrouteAddressesLocked(u *uplink) {
	for _, a := range u.spec.Addrs {
		if c := n.ownerOfLocked(a); c != nil {
			own := &c.addresses[c.ownsAddress(a)]
			n.unroute(own.rule)
			own.rule = 0
			slog.Warn("address leads nowhere without its uplink", "container", c.name(), "address", a)
		}
	}
}

// address is the uplink's own, with the length of its subnet; the zero Prefix
// while it has none.
func (u *uplink) address() netip.Prefix {
	if u.lost != nil {
		return netip.Prefix{}
	}
	if a := u.way.Addr(); a != (packet.Addr{}) {
		return netip.PrefixFrom(a.Netip(), u.way.Subnet().Bits())
	}
	return netip.Prefix{}
}

// state is up, no-address, or down when its device is gone.
func (u *uplink) state() string {
	switch {
	case u.lost != nil:
		return "down"
	case !u.address().IsValid():
		return "no-address"
	}
	return "up"
}

// outsideLocked are the addresses by which stations outside reach us.
func (n *Node) outsideLocked() (list []netip.Addr) {
	for _, u := range n.uplinks {
		if u.lost != nil {
			continue
		}
		if a := u.address(); a.IsValid() {
			list = append(list, a.Addr())
		}
		list = append(list, u.spec.Addrs...)
	}
	return list
}

// getUplinks lists the uplinks in the order they came.
func (n *Node) getUplinks(http.ResponseWriter, *http.Request) (any, error) {
	now := loop.Clock()
	n.mu.Lock()
	defer n.mu.Unlock()
	list := []api.Uplink{}
	for _, u := range n.uplinks {
		d := api.Uplink{
			Name: u.spec.Name, Network: u.lan.name, Kind: u.spec.Kind, Spec: u.spec.String(),
			MAC: u.mac.String(), MTU: u.mtu, State: u.state(), Since: u.since,
		}
		for _, a := range u.spec.Addrs {
			d.Addresses = append(d.Addresses, a.String())
		}
		if u.way != nil { // else a node before had it
			have := u.way.Switch().Totals()
			d.MTU, d.Counts = u.way.MTU(), counts(&have)
			if hop := u.way.NextHop(); hop != (packet.Addr{}) {
				d.Gateway = hop.String()
			}
		}
		if a := u.address(); a.IsValid() {
			d.Address = a.String()
		}
		if u.lost != nil {
			d.Why = u.lost.Error()
		} else if s := u.way.State(now); s.Problem != nil {
			d.Why = s.Problem.Error()
		}
		list = append(list, d)
	}
	for _, l := range n.lans {
		if n.usesHostLocked(l) && !l.conf.Internal {
			list = append(list, n.hostLineLocked(l))
		}
	}
	return list, nil
}

// lostRoutes are those that were by way of uplinks whose devices have gone.
func (n *Node) lostRoutes() (list []api.IPRoute) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, u := range n.uplinks {
		if u.lost == nil {
			continue
		}
		add := func(p netip.Prefix, via netip.Addr) {
			d := api.IPRoute{Network: u.lan.name, Destination: p.String(), Dev: u.spec.Name, Scope: "link", MTU: u.mtu, State: "down"}
			if via.IsValid() {
				d.Via, d.Scope = via.String(), "global"
			}
			list = append(list, d)
		}
		if u.spec.Addr.IsValid() {
			add(u.spec.Addr.Masked(), netip.Addr{})
		}
		for _, p := range u.spec.Routes {
			add(p, u.spec.Gateway)
		}
		if len(u.spec.Routes) == 0 && (u.spec.DHCP || u.spec.Gateway.IsValid()) {
			add(netip.PrefixFrom(netip.IPv4Unspecified(), 0), u.spec.Gateway)
		}
	}
	return list
}

func (n *Node) postUplinks(w http.ResponseWriter, r *http.Request) (any, error) {
	var m api.UplinkRequest
	return upgrade(w, r, &m, func(fds []int) error { return n.addUplink(m, fds) })
}

func (n *Node) postUplinksCheck(w http.ResponseWriter, r *http.Request) (any, error) {
	var m api.UplinksCheck
	if err := body(w, r, &m); err != nil {
		return nil, err
	}
	return n.checkUplinks(m)
}

func (n *Node) deleteUplink(_ http.ResponseWriter, r *http.Request) (any, error) {
	if r.PathValue("name") == api.HostUplink {
		return done, n.useHost(r.URL.Query().Get("network"), false)
	}
	return done, n.removeUplink(r.PathValue("name"))
}
