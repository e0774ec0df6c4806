package node

import (
	"fmt"
	"maps"
	"net/http"
	"strconv"

	"fairlead/nat"
	"fairlead/node/api"
	"fairlead/node/network"
)

// A setup is what `up` may choose while nobody uses it. Beside it there is reach.
type setup struct {
	net    network.Config
	nat    nat.Config
	chosen bool // the subnet is one nobody asked for
}

// Bounds of `--opt flows`: less is no use to anybody, and nat holds no more.
const (
	leastFlows = 64
	mostFlows  = 1 << 22
)

// readSetup reads what `up` asks for. What it does not name is as it is without
// `up`.
func readSetup(up api.UpRequest) (s setup, err error) {
	options := maps.Clone(up.Options)
	for _, x := range []struct {
		key string
		n   *int
	}{{"flows", &s.nat.Flows}, {"flows-per-container", &s.nat.PerContainer}} {
		value, given := options[x.key]
		if !given {
			continue
		}
		delete(options, x.key)
		if *x.n, err = strconv.Atoi(value); err != nil || *x.n < leastFlows || *x.n > mostFlows {
			return s, fmt.Errorf("option %s: %q is not a number from %d to %d", x.key, value, leastFlows, mostFlows)
		}
	}
	s.net, s.chosen = network.Config{ID: defaultID, Name: defaultName}, up.BIP == ""
	if s.net.Options, err = network.ParseOptions(options); err != nil {
		return s, err
	}
	if !s.chosen {
		s.net.Gateway, err = parsePrefix(up.BIP)
	}
	return s, err
}

// setUpLocked makes the default network anew, and the router if need be, with
// it the other networks. It returns what closes those it has replaced.
func (n *Node) setUpLocked(s setup) (closeOld func(), err error) {
	router, way := n.router, n.hostWay
	if router == nil || s.nat != n.setup.nat {
		router = network.NewRouter(n.lanes, s.nat)
		router.TellLoops(n.loopFound)
		router.TellSlow(n.slowFound)
		if way, err = n.addHost(router); err != nil {
			return nil, err
		}
	}
	fresh := map[*lan]*network.Network{}
	for i, l := range n.lans {
		conf := l.conf
		if i == 0 {
			conf = s.net
		} else if router == n.router {
			continue
		}
		if fresh[l], err = network.New(conf, router); err != nil {
			delete(fresh, l)
			for _, net := range fresh {
				net.Close()
			}
			if router != n.router {
				router.Close()
			}
			return nil, err
		}
	}
	var old []*network.Network
	for l, net := range fresh {
		if l.net != nil {
			old = append(old, l.net)
		}
		l.net = net
	}
	oldRouter := n.router
	n.setup, n.router, n.hostWay, n.defaultLocked().conf = s, router, way, s.net
	for l := range fresh {
		n.applyReachLocked(l)
		n.serveDNSLocked(l)
	}
	n.publishNetworksLocked()
	n.publishAdmitLocked()
	return func() {
		for _, net := range old {
			net.Close() // waits for links of containers that have just gone
		}
		if oldRouter != router {
			oldRouter.Close()
		}
	}, n.setWaysLocked()
}

// postUp has the node stay, and sets it up.
func (n *Node) postUp(w http.ResponseWriter, r *http.Request) (any, error) {
	var up api.UpRequest
	if err := body(w, r, &up); err != nil {
		return nil, err
	}
	closeOld, err := n.stay(up)
	if err != nil {
		return nil, err
	}
	if closeOld != nil {
		n.tracing.follow()
		closeOld()
	}
	return done, nil
}

// stay does what up asks for, and returns what closes what it has replaced, if
// anything. A network that is used stays as it is: a container's address is not
// changed under its feet.
func (n *Node) stay(up api.UpRequest) (closeOld func(), err error) {
	n.linking.Lock()
	defer n.linking.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.defaultLocked()
	reach, err := l.reach.changed(api.NetworkRequest{Egress: up.Egress, HostLoopback: up.HostLoopback})
	if err != nil {
		return nil, err
	}
	names, renamed, err := n.openNames(up.Names)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			names.close()
		}
	}()
	if up.BIP != "" || len(up.Options) > 0 {
		s, err := readSetup(up)
		if err != nil {
			return nil, statusError{http.StatusBadRequest, err}
		}
		if err := n.placeDefaultLocked(&s, nil); err != nil {
			return nil, err
		}
		if s != n.setup {
			if closeOld, err = n.changeLocked(s); err != nil {
				return nil, err
			}
		}
	}
	if renamed {
		n.dns.answerHost(names)
	}
	l.reach = reach
	n.applyReachLocked(l)
	n.stays = true
	n.noteRunningLocked()
	return closeOld, nil
}

// changeLocked sets an unused node up anew.
func (n *Node) changeLocked(s setup) (closeOld func(), err error) {
	if len(n.containers) > 0 {
		return nil, fail(http.StatusConflict, "network %s has %s, so it stays as it is; stop them first: `fairlead down --all`",
			defaultName, plural(len(n.containers), "container"))
	}
	if up := n.linksLocked(); up > 0 {
		return nil, fail(http.StatusConflict, "network %s has %s, so it stays as it is; remove them first: `fairlead network set %[1]s --uplink none`",
			defaultName, plural(up, "uplink"))
	}
	for _, l := range n.lans {
		if l.hostLink != nil {
			return nil, fail(http.StatusConflict, "network %s has a host link, so it stays as it is; remove that first: `fairlead network set %[1]s --host-link=off`", l.name)
		}
	}
	if err = network.CheckFree(s.net.Gateway.Masked(), n.takenLocked(n.defaultLocked(), nil)); err == nil {
		closeOld, err = n.setUpLocked(s)
	}
	if err != nil {
		return nil, statusError{http.StatusBadRequest, err}
	}
	return closeOld, nil
}
