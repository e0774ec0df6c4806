package node

import (
	"fmt"
	"log/slog"
	"net/http"

	"fairlead/link"
	"fairlead/node/api"
	"fairlead/node/network"
	vswitch "fairlead/switch"
)

// A hostLink is a network's own link to this host: a TAP that whoever had the
// right has opened here. See docs/hostlink.md.
type hostLink struct {
	iface   string
	index   int
	offload string
	fd      int // the TAP's, as long as it is there
	port    *vswitch.Port
	net     *network.Network // it is on
}

// hostLinksLocked is how many there are.
func (n *Node) hostLinksLocked() (count int) {
	for _, l := range n.lans {
		if l.hostLink != nil {
			count++
		}
	}
	return count
}

// addHostLink links the host to a network. The descriptor is the node's from here
// on, whatever becomes of it.
func (n *Node) addHostLink(name string, m api.HostLinkRequest, fds []int) error {
	defer n.tracing.follow()
	n.linking.Lock()
	defer n.linking.Unlock()
	l, err := n.linkable(name, m, fds)
	if err != nil {
		api.CloseAll(fds)
		return err
	}
	tap, err := link.AdoptTAP(fds[0])
	if err != nil {
		api.CloseAll(fds)
		return fmt.Errorf("host link of network %s: %w", l.name, err)
	}
	h := &hostLink{iface: m.Interface, index: m.Index, offload: tap.Offload().String(), fd: fds[0], net: l.net}
	h.port, err = l.net.LinkHost(h.iface, tap, func(_ *vswitch.Port, err error) { go n.hostLinkLost(l, h, err) }) // on a worker
	if err != nil {
		return err // the network has closed the TAP
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	l.hostLink = h
	n.noteRunningLocked()
	slog.Info("the host is linked", "network", l.name, "interface", h.iface)
	return nil
}

// linkable is the network the host may be linked to.
func (n *Node) linkable(name string, m api.HostLinkRequest, fds []int) (*lan, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l, err := n.lanLocked(name)
	switch {
	case err != nil:
		return nil, err
	case n.isLeaving():
		return nil, errLeaving
	case len(fds) != 1:
		return nil, fail(http.StatusBadRequest, "host link of network %s: it takes one descriptor; %d came", l.name, len(fds))
	case m.Interface == "":
		return nil, fail(http.StatusBadRequest, "host link of network %s: it takes the interface's name", l.name)
	case l.hostLink != nil:
		return nil, fail(http.StatusConflict, "network %s has a host link already, %s; `fairlead network set %[1]s --host-link=off` removes it", l.name, l.hostLink.iface)
	}
	return l, nil
}

// removeHostLink takes it away. Without one there is nothing to do.
func (n *Node) removeHostLink(name string) error {
	n.linking.Lock()
	defer n.linking.Unlock()
	n.mu.Lock()
	l, err := n.lanLocked(name)
	if err != nil {
		n.mu.Unlock()
		return err
	}
	h := l.hostLink
	l.hostLink = nil
	n.noteRunningLocked()
	n.mu.Unlock()
	if h != nil {
		h.net.UnlinkHost(h.port)
		slog.Info("the host is linked no more", "network", l.name, "interface", h.iface)
	}
	return nil
}

// hostLinkLost is called when its interface has been removed.
func (n *Node) hostLinkLost(l *lan, h *hostLink, err error) {
	n.linking.Lock() // after addHostLink, for one lost at once
	defer n.linking.Unlock()
	n.mu.Lock()
	ours := l.hostLink == h
	if ours {
		l.hostLink = nil
		n.noteRunningLocked()
	}
	n.mu.Unlock()
	if ours {
		slog.Warn("the host's link is gone", "network", l.name, "interface", h.iface, "err", err)
		h.net.UnlinkHost(h.port)
	}
}

// describeHostPort is the host's port, as it is listed.
func (n *Node) describeHostPort(d *api.Port, l *lan) {
	n.mu.Lock()
	defer n.mu.Unlock()
	d.Container = api.HostPort
	d.IP = l.net.Config().Gateway.Addr().String()
	if h := l.hostLink; h != nil {
		d.Kind, d.Interface, d.Index, d.Offload = "tap", h.iface, h.index, h.offload
	}
}

// hostLink are the rules about the host's own link.
func (l *ruleList) hostLink(r *routing) {
	for _, p := range r.net.Switch().Ports() {
		if !p.Config().Host {
			continue
		}
		c := p.Counts()
		l.accept("forward", p.Config().Name, l.network, "the host, to containers", c.Unicast)
		l.accept("forward", l.network, p.Config().Name, "to the gateway's address, and neither its own nor published", c.Written)
	}
}

func (n *Node) postHostLink(w http.ResponseWriter, r *http.Request) (any, error) {
	var m api.HostLinkRequest
	return upgrade(w, r, &m, func(fds []int) error { return n.addHostLink(r.PathValue("name"), m, fds) })
}

func (n *Node) deleteHostLink(_ http.ResponseWriter, r *http.Request) (any, error) {
	return done, n.removeHostLink(r.PathValue("name"))
}
