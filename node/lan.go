package node

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"fairlead/node/network"
	"fairlead/packet"
)

// defaultName and defaultID are those of the network containers join when they
// ask for none. It is always there.
const (
	defaultName                  = "default"
	defaultID   packet.NetworkID = 1
)

// A lan is a network of the node, as its registry knows it. What is not marked
// otherwise never changes.
type lan struct {
	id      string // 64 hexadecimal digits, as Docker has it
	name    string
	created time.Time

	// Guarded by Node.mu.
	labels  map[string]string
	conf    network.Config   // as it is now; net has what it was made from
	net     *network.Network // replaced by `up` only, while nobody uses it
	reach   reach
	hostUse hostUse

	hostLink *hostLink // nil is none

	admission admission
	macs      map[packet.MAC]*container // whose containers' ports they are
}

// newLan makes one, without a network yet.
func newLan(id, name string, created time.Time) *lan {
	return &lan{id: id, name: name, created: created, macs: make(map[packet.MAC]*container)}
}

// custom reports whether containers of the network know one another by name: on
// all but the default one, as Docker has it.
func (l *lan) custom() bool { return l.name != defaultName }

// network is the one it is now. Node.mu must not be held.
func (l *lan) network(n *Node) *network.Network {
	n.mu.Lock()
	defer n.mu.Unlock()
	return l.net
}

// number is what the network is called in packets' records.
func (l *lan) number() packet.NetworkID { return l.conf.ID }

// defaultLocked is the network containers join when they ask for none.
func (n *Node) defaultLocked() *lan { return n.lans[0] }

// isDefault reports whether a name is one of the default network's: what it is
// called without a word, by us and by Docker.
func isDefault(name string) bool { return name == "" || name == defaultName || name == "bridge" }

// lanLocked looks a network up by name, id or unique beginning of the id.
func (n *Node) lanLocked(ref string) (*lan, error) {
	if isDefault(ref) {
		return n.defaultLocked(), nil
	}
	var found []*lan
	for _, l := range n.lans {
		if l.name == ref || l.id == ref {
			return l, nil // also when ids begin like this name
		}
		if strings.HasPrefix(l.id, ref) {
			found = append(found, l)
		}
	}
	switch len(found) {
	case 0:
		return nil, fail(http.StatusNotFound, "network %s not found; `fairlead network ls` lists those there are", ref)
	case 1:
		return found[0], nil
	}
	return nil, fail(http.StatusConflict, "network %s is ambiguous (%d matches found on id prefix)", ref, len(found))
}

// lan is lanLocked for who does not hold the lock.
func (n *Node) lan(ref string) (*lan, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lanLocked(ref)
}

// listLans returns the networks in the order they came, the default one first.
func (n *Node) listLans() []*lan {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.lans)
}

// networks are those of the lans, in the same order.
func (n *Node) networks() []*network.Network {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := make([]*network.Network, len(n.lans))
	for i, l := range n.lans {
		list[i] = l.net
	}
	return list
}
