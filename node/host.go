package node

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"fairlead/node/api"
	"fairlead/node/box"
	"fairlead/node/network"
	"fairlead/packet"
)

// A hostUse is how far the network uses the sockets of this host as a way out.
type hostUse uint8

const (
	hostUnnamed hostUse = iota // while nobody names another uplink
	hostNamed                  // beside others too
	hostOff
)

// usesHostLocked reports whether the network has this host's sockets as a way
// out. An uplink whose device has gone is still one that was asked for: nothing
// leaves another way behind the user's back.
func (n *Node) usesHostLocked() bool {
	return n.hostUse == hostNamed || n.hostUse == hostUnnamed && len(n.uplinks) == 0
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

// useHost has the network use the sockets of this host, or not. Without others
// they give way to one that comes later.
func (n *Node) useHost(use bool) error {
	defer n.tracing.follow()
	n.linking.Lock()
	defer n.linking.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.isLeaving() {
		return errLeaving
	}
	before := n.hostUse
	switch {
	case !use:
		n.hostUse = hostOff
	case len(n.uplinks) > 0:
		n.hostUse = hostNamed
	default:
		n.hostUse = hostUnnamed
	}
	if err := n.setWaysLocked(); err != nil {
		n.hostUse = before
		return errors.Join(err, n.setWaysLocked())
	}
	slog.Info("host sockets", "network", defaultName, "used", use)
	return nil
}

// setWaysLocked has the network use the uplinks there are, and published ports be
// listened on if host sockets are one of them.
func (n *Node) setWaysLocked() error {
	if err := n.syncListenersLocked(); err != nil {
		return err
	}
	return n.net.SetUplinks(n.waysLocked()...)
}

// stepInLocked has host sockets take the place of an uplink that was removed, if
// there is no other. If they cannot, there is none.
func (n *Node) stepInLocked() error {
	err := n.setWaysLocked()
	if err == nil || !n.usesHostLocked() {
		return err
	}
	n.hostUse = hostOff
	return errors.Join(fmt.Errorf("network %s leads nowhere now: %w", defaultName, err), n.setWaysLocked())
}

// hostLineLocked is the uplink as it is listed.
func (n *Node) hostLineLocked() api.Uplink {
	have := n.hostWay.Switch().Totals()
	d := api.Uplink{
		Name: api.HostUplink, Network: n.net.Config().Name, Kind: api.HostUplink, Spec: api.HostUplink,
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

// socketsLocked is how many of them there are, and may be.
func (n *Node) socketsLocked() api.Sockets {
	b := &n.budget
	inside := n.net.Switch().Totals()
	return api.Sockets{
		Descriptors: b.Limit, Used: n.hostWay.Sockets().Stats().Descriptors, Most: b.Total, MostEach: b.Container,
		Listening: n.listening, MostListening: b.Listeners, Refused: inside.Dropped[packet.SocketBudget].N,
	}
}

func (n *Node) postHost(http.ResponseWriter, *http.Request) (any, error) {
	return done, n.useHost(true)
}
