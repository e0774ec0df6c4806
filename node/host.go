package node

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"

	"fairlead/node/api"
	"fairlead/node/box"
	"fairlead/node/network"
	"fairlead/packet"
)

// A hostUse is how far a network uses the sockets of this host as a way out.
type hostUse uint8

const (
	hostUnnamed hostUse = iota // while nobody names another uplink
	hostNamed                  // beside others too
	hostOff
)

// usesHostLocked reports whether a network has this host's sockets as a way out.
// An uplink whose device has gone is still one that was asked for: nothing leaves
// another way behind the user's back.
func (n *Node) usesHostLocked(l *lan) bool {
	return l.hostUse == hostNamed || l.hostUse == hostUnnamed && len(n.uplinksLocked(l)) == 0
}

// addHost plugs the sockets of this host into a new router.
func (n *Node) addHost(router *network.Router) (*network.Uplink, error) {
	way, err := router.AddSockets(network.SocketsConfig{Name: api.HostUplink, Containers: n.budget.Container, Total: n.budget.Total, Shares: socketShares})
	if err == nil {
		tellHost(way, n.host.Seen())
	}
	return way, err
}

// hostChanged is called when this host has other addresses.
func (n *Node) hostChanged(h *box.HostAddrs) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.hostWay == nil {
		return // the node just begins
	}
	tellHost(n.hostWay, h)
}

// tellHost tells sockets which addresses this host has.
func tellHost(way *network.Uplink, h *box.HostAddrs) {
	s := way.Sockets()
	var list []packet.Addr
	for _, a := range h.All {
		list = append(list, packet.AddrFromNetip(a))
	}
	s.SetHostAddrs(list)
	if h.Primary.IsValid() {
		s.SetAddr(packet.AddrFromNetip(h.Primary))
	} else {
		s.SetAddr(packet.Addr{})
	}
}

// useHost has a network use the sockets of this host, or not. Without others
// they give way to one that comes later.
func (n *Node) useHost(name string, use bool) error {
	defer n.tracing.follow()
	n.linking.Lock()
	defer n.linking.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.isLeaving() {
		return errLeaving
	}
	l, err := n.lanLocked(name)
	if err != nil {
		return err
	}
	before := l.hostUse
	switch {
	case !use:
		l.hostUse = hostOff
	case len(n.uplinksLocked(l)) > 0:
		l.hostUse = hostNamed
	default:
		l.hostUse = hostUnnamed
	}
	if err := n.setWaysLocked(); err != nil {
		l.hostUse = before
		return errors.Join(err, n.setWaysLocked())
	}
	slog.Info("host sockets", "network", l.name, "used", use)
	return nil
}

// setWaysLocked has each network use the uplinks it has, and published ports be
// listened on if host sockets are one of them.
func (n *Node) setWaysLocked() error {
	if err := n.syncListenersLocked(maps.Values(n.containers)); err != nil {
		return err
	}
	for _, l := range n.lans {
		if err := l.net.SetUplinks(n.waysLocked(l)...); err != nil {
			return err
		}
	}
	n.noteRunningLocked()
	return nil
}

// stepInLocked has host sockets take the place of an uplink of a network that was
// removed, if there is no other. If they cannot, there is none.
func (n *Node) stepInLocked(l *lan) error {
	err := n.setWaysLocked()
	if err == nil || !n.usesHostLocked(l) {
		return err
	}
	l.hostUse = hostOff
	return errors.Join(fmt.Errorf("network %s leads nowhere now: %w", l.name, err), n.setWaysLocked())
}

// hostLineLocked is the uplink as it is listed for a network.
func (n *Node) hostLineLocked(l *lan) api.Uplink {
	have := n.hostWay.Switch().Totals()
	d := api.Uplink{
		Name: api.HostUplink, Network: l.name, Kind: api.HostUplink, Spec: api.HostUplink,
		MTU: n.hostWay.MTU(), State: "up", Since: n.started, Counts: counts(&have),
	}
	seen := n.host.Seen()
	if seen.Primary.IsValid() {
		d.Address = seen.Primary.String()
	}
	switch {
	case seen.Problem != nil:
		d.Why = seen.Problem.Error()
	case n.hostWay.Sockets().Stats().PingForbidden:
		d.Why = "containers cannot ping; `sudo sysctl -w net.ipv4.ping_group_range=\"0 2147483647\"` lets them"
	}
	return d
}

// sockets is how many of them there are, and may be. Every command asks, so nobody
// waits for the looking at all ports.
func (n *Node) sockets() api.Sockets {
	var refused uint64
	for _, net := range n.networks() {
		refused += net.Switch().Dropped(packet.SocketBudget)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	b := &n.budget
	return api.Sockets{
		Descriptors: b.Limit, Used: n.hostWay.Sockets().Stats().Descriptors, Most: b.Total, MostEach: b.Container,
		Listening: n.listening, MostListening: b.Listeners, Refused: refused,
	}
}

func (n *Node) postHost(_ http.ResponseWriter, r *http.Request) (any, error) {
	return done, n.useHost(r.URL.Query().Get("network"), true)
}
