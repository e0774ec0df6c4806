package node

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"fairlead/node/api"
	"fairlead/node/network"
)

// postNetworks makes a network.
func (n *Node) postNetworks(w http.ResponseWriter, r *http.Request) (any, error) {
	var req api.NetworkCreate
	if err := body(w, r, &req); err != nil {
		return nil, err
	}
	l, err := n.createNetwork(req)
	if err != nil {
		return nil, err
	}
	return api.NetworkCreated{ID: l.id}, nil
}

func (n *Node) createNetwork(req api.NetworkCreate) (*lan, error) {
	host, err := HostTaken()
	if err != nil {
		return nil, err
	}
	defer n.tracing.follow() // it is traced too
	n.linking.Lock()
	defer n.linking.Unlock()
	l := newLan(newID(), req.Name, time.Now())
	var next *state
	n.mu.Lock()
	if err = errLeaving; !n.isLeaving() {
		err = n.readLocked(l, req, host)
	}
	if err == nil {
		next = n.stateLocked()
		next.Networks = append(next.Networks, savedLan{l.id, l.created, l.requestLocked(), nil})
	}
	n.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if err := n.home.writeState(next); err != nil {
		return nil, err
	}
	n.mu.Lock()
	if err = errLeaving; !n.isLeaving() {
		err = n.addLanLocked(l)
	}
	n.mu.Unlock()
	if err != nil {
		return nil, errors.Join(err, n.saveState())
	}
	slog.Info("network is made", "network", l.name, "id", l.id[:12], "subnet", l.conf.Gateway.Masked(), "internal", l.conf.Internal)
	return l, nil
}

// makeLocked makes of a lan what is asked for.
func (n *Node) makeLocked(l *lan, req api.NetworkCreate) error {
	if err := n.readLocked(l, req, nil); err != nil {
		return err
	}
	return n.addLanLocked(l)
}

// readLocked has a lan be what is asked for, without anybody knowing of it; host
// is where this host's routes lead.
func (n *Node) readLocked(l *lan, req api.NetworkCreate, host []network.Taken) (err error) {
	if err := n.networkNameLocked(req.Name); err != nil {
		return err
	}
	l.labels = maps.Clone(req.Labels)
	if l.reach, err = l.reach.changed(api.NetworkRequest{Egress: req.Egress, HostLoopback: req.HostLoopback}); err != nil {
		return err
	}
	if l.conf, err = readNetwork(&req, n.takenLocked(nil, host)); err != nil {
		return fail(http.StatusBadRequest, "network %s: %w", req.Name, err)
	}
	l.conf.ID, err = n.freeNumberLocked()
	return err
}

// addLanLocked has a network begin.
func (n *Node) addLanLocked(l *lan) (err error) {
	if l.net, err = network.New(l.conf, n.router); err != nil {
		return statusError{http.StatusBadRequest, err}
	}
	n.lans = append(n.lans, l)
	if err := n.setWaysLocked(); err != nil {
		n.lans = n.lans[:len(n.lans)-1]
		l.net.Close()
		return err
	}
	n.serveDNSLocked(l)
	n.applyReachLocked(l)
	n.publishAdmitLocked()
	return nil
}

// networkNameLocked refuses names that are no network's, or another's.
func (n *Node) networkNameLocked(name string) error {
	switch {
	case name == "":
		return fail(http.StatusBadRequest, "network name required: `fairlead network create NAME`")
	case isPredefined(name):
		return fail(http.StatusForbidden, "operation is not permitted on predefined %s network; choose another name", name)
	case !api.ValidName(name):
		return fail(http.StatusBadRequest, "invalid network name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, 64 of them at most", name)
	}
	for _, l := range n.lans {
		if l.name == name {
			return fail(http.StatusConflict, "network with name %s already exists; `fairlead network rm %[1]s` removes it", name)
		}
	}
	return nil
}

// isPredefined reports whether a name is one that every node has a network, or
// something else, by.
func isPredefined(name string) bool {
	return isDefault(name) || name == "host" || name == "none" || name == "container"
}

// getNetworks lists the networks, the default one first.
func (n *Node) getNetworks(http.ResponseWriter, *http.Request) (any, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := make([]api.NetworkInspect, len(n.lans))
	for i, l := range n.lans {
		list[i] = n.inspectNetworkLocked(l)
	}
	return list, nil
}

func (n *Node) getNetwork(_ http.ResponseWriter, r *http.Request) (any, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l, err := n.lanLocked(r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	return n.inspectNetworkLocked(l), nil
}

// inspectNetworkLocked answers in the shape of `docker network inspect`.
func (n *Node) inspectNetworkLocked(l *lan) api.NetworkInspect {
	d := api.NetworkInspect{
		Name: l.name, ID: l.id, Created: l.created, Scope: "local", Driver: "bridge", EnableIPv4: true,
		Internal: l.conf.Internal, Containers: map[string]api.NetworkContainer{},
		Options: l.conf.Options.Pairs(), Labels: map[string]string{},
		Egress: egressWord(l.reach.egress), HostLoopback: l.reach.hostLoopback, Uplinks: n.waysLocked(l),
	}
	maps.Copy(d.Labels, l.labels)
	config := api.NetworkIPAMConfig{Subnet: l.conf.Gateway.Masked().String(), Gateway: l.conf.Gateway.Addr().String()}
	if p := l.conf.Pool; p != nil {
		if p.Range.IsValid() {
			config.IPRange = p.Range.String()
		}
		for name, a := range p.Aux {
			if config.AuxiliaryAddresses == nil {
				config.AuxiliaryAddresses = map[string]string{}
			}
			config.AuxiliaryAddresses[name] = a.String()
		}
	}
	d.IPAM = api.NetworkIPAM{Driver: "default", Options: map[string]string{}, Config: []api.NetworkIPAMConfig{config}}
	listed := make(map[*attachment]bool)
	for _, c := range n.onNetworkLocked(l) {
		a := c.onLocked(l)
		if !a.up() || listed[a] || c.share != nil && n.containers[c.share.id] != nil {
			continue // of those that share a namespace the first to make it, or one of the others
		}
		listed[a] = true
		d.Containers[c.id] = api.NetworkContainer{Name: c.name(), EndpointID: a.id, MacAddress: a.macWord(), IPv4Address: a.prefixWord()}
	}
	return d
}

// onNetworkLocked are the containers that have a place on a network, by name.
func (n *Node) onNetworkLocked(l *lan) (list []*container) {
	for _, c := range n.containers {
		if c.onLocked(l) != nil {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b *container) int { return cmp.Compare(a.name(), b.name()) })
	return list
}

// deleteNetwork removes a network nobody is on.
func (n *Node) deleteNetwork(_ http.ResponseWriter, r *http.Request) (any, error) {
	return done, n.removeNetwork(r.PathValue("name"))
}

func (n *Node) removeNetwork(ref string) error {
	defer n.tracing.follow()
	n.linking.Lock() // nobody gets its number before it is closed
	defer n.linking.Unlock()
	n.mu.Lock()
	l, err := n.removableLocked(ref)
	var next *state
	if err == nil {
		next = n.stateLocked()
		next.Networks = slices.Delete(next.Networks, next.of(l), next.of(l)+1)
	}
	n.mu.Unlock()
	if err != nil {
		return err
	}
	if err := n.home.writeState(next); err != nil {
		return err
	}
	if err := n.takeOut(ref); err != nil { // somebody has just joined it
		return errors.Join(err, n.saveState())
	}
	l.net.Close() // waits for links of containers that have just gone
	slog.Info("network is removed", "network", l.name, "id", l.id[:12])
	return nil
}

// takeOut takes a network off the list.
func (n *Node) takeOut(ref string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	l, err := n.removableLocked(ref)
	if err != nil {
		return err
	}
	n.lans = slices.DeleteFunc(n.lans, func(x *lan) bool { return x == l })
	n.publishNetworksLocked()
	n.publishAdmitLocked()
	return nil
}

// removableLocked looks up a network nobody is on.
func (n *Node) removableLocked(ref string) (*lan, error) {
	l, err := n.lanLocked(ref)
	if err != nil {
		return nil, err
	}
	if l == n.defaultLocked() {
		return nil, fail(http.StatusForbidden, "%s is a pre-defined network and cannot be removed; `fairlead up --bip` and --opt set it up otherwise", ref)
	}
	if users := n.onNetworkLocked(l); len(users) > 0 {
		var names []string
		for _, c := range users {
			names = append(names, fmt.Sprintf("name:%q id:%q", c.name(), c.id[:12]))
		}
		return nil, fail(http.StatusForbidden, "error while removing network: network %s has active endpoints (%s); %s",
			l.name, strings.Join(names, ", "), takesOff(l, users))
	}
	if up := n.uplinksLocked(l); len(up) > 0 {
		return nil, fail(http.StatusConflict, "network %s has %s; remove them first: `fairlead network set %[1]s --uplink none`", l.name, plural(len(up), "uplink"))
	}
	return l, nil
}

// takesOff is what takes one of a network's users off it, or the last of them.
func takesOff(l *lan, users []*container) string {
	names := ""
	for _, c := range users {
		if c.share == nil {
			return fmt.Sprintf("`fairlead network disconnect %s %s` takes one off", l.name, c.name())
		}
		names += " " + c.name()
	}
	return fmt.Sprintf("they have the networks of container %s, which has ended; `fairlead stop%s` takes it off them", users[0].share.name(), names)
}

// postNetwork changes a network while it is used.
func (n *Node) postNetwork(w http.ResponseWriter, r *http.Request) (any, error) {
	var req api.NetworkRequest
	if err := body(w, r, &req); err != nil {
		return nil, err
	}
	warnings, err := n.changeNetwork(r.PathValue("name"), req)
	return api.NetworkChanged{Warnings: warnings}, err
}

// changeNetwork changes a network. Warnings are about containers that do not follow.
func (n *Node) changeNetwork(ref string, req api.NetworkRequest) (warnings []string, err error) {
	on, err := n.changeLan(ref, req)
	if len(on) > 0 {
		warnings = n.rerouteAll(on, fmt.Sprintf("fairlead network set --internal=%t %s", *req.Internal, ref))
	}
	return warnings, err
}

// changeLan does so but for what inits are waited for, on which no other network
// waits: on are the containers whose default route may lead elsewhere now.
func (n *Node) changeLan(ref string, req api.NetworkRequest) (on []*container, err error) {
	n.linking.Lock()
	defer n.linking.Unlock()
	n.mu.Lock()
	l, err := n.lanLocked(ref)
	var to lan
	var next *state
	if err == nil {
		to, err = n.changedLocked(l, req)
	}
	if err == nil {
		next = n.stateLocked()
		if i := next.of(l); i >= 0 {
			next.Networks[i].NetworkCreate = to.requestLocked()
		}
	}
	n.mu.Unlock()
	if err != nil || req.Check {
		return nil, err
	}
	if err := n.home.writeState(next); err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.changeLanLocked(l, &to)
	n.noteRunningLocked()
	if req.Internal != nil {
		for _, c := range n.onNetworkLocked(l) {
			if c.owner != nil && !slices.Contains(on, c.owner) {
				n.settleLocked(c.owner)
				on = append(on, c.owner)
			}
		}
	}
	n.mu.Unlock()
	return on, nil
}

// changedLocked is what a network is to be, which is not changed: its name and its
// options, internal, labels and reach.
func (n *Node) changedLocked(l *lan, req api.NetworkRequest) (to lan, err error) {
	to = lan{name: l.name, conf: l.conf, labels: l.labels}
	if to.reach, err = l.reach.changed(req); err != nil {
		return to, err
	}
	if to.conf.Options, err = l.conf.Options.Changed(req.Options); err == nil {
		err = to.conf.Options.DHCP.Fits(l.net.Config().Gateway)
	}
	if err != nil {
		return to, fail(http.StatusBadRequest, "network %s: %w", l.name, err)
	}
	if req.Internal != nil && *req.Internal != l.conf.Internal {
		if l == n.defaultLocked() {
			return to, fail(http.StatusForbidden, "network %s: it cannot be internal; `fairlead network create --internal NAME` makes one that is, and `fairlead network set %[1]s --uplink none` takes its ways out", l.name)
		}
		to.conf.Internal = *req.Internal
	}
	if req.Labels != nil {
		to.labels = req.Labels
	}
	return to, nil
}

// changeLanLocked has a network be what changedLocked made of it.
func (n *Node) changeLanLocked(l, to *lan) {
	options := to.conf.Options
	if to.conf.Internal != l.conf.Internal {
		l.net.SetInternal(to.conf.Internal)
	}
	l.reach, l.conf, l.labels = to.reach, to.conf, to.labels
	l.net.SetMasquerade(!options.NotMasqueraded)
	l.net.SetRouted(options.Routed)
	l.net.SetJoin(!options.Unjoined)
	n.applyReachLocked(l)
	n.publishAdmitLocked()
	slog.Info("network is changed", "network", l.name, "internal", l.conf.Internal, "options", options.Pairs(),
		"egress", egressWord(l.reach.egress), "host_loopback", l.reach.hostLoopback)
}
