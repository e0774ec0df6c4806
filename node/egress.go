package node

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"fairlead/node/api"
	"fairlead/packet"
	"fairlead/policy"
)

// reach is where the containers of a network may get, as it was set. It may
// change while they are there.
type reach struct {
	egress       *policy.Egress // nil is everywhere
	asked        *api.Egress    // what it was read from
	hostLoopback bool
}

// applyReachLocked has a network be so.
func (n *Node) applyReachLocked(l *lan) {
	l.net.SetEgress(l.reach.egress)
	l.net.SetHostLoopback(l.reach.hostLoopback)
	n.publishNetworksLocked()
}

// changed is what becomes of r by a request.
func (r reach) changed(req api.NetworkRequest) (reach, error) {
	if req.Egress != nil {
		e, err := readEgress(req.Egress)
		if err != nil {
			return r, err
		}
		r.egress, r.asked = e, req.Egress
	}
	if req.HostLoopback != nil {
		r.hostLoopback = *req.HostLoopback
	}
	return r, nil
}

// readEgress reads a policy. One that lets everything pass is none.
func readEgress(e *api.Egress) (*policy.Egress, error) {
	if e == nil || e.Spec == "all" {
		return nil, nil
	}
	p, err := policy.ParseEgress(e.Spec, func(string) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(e.Text)), nil
	})
	if err != nil {
		return nil, statusError{http.StatusBadRequest, err}
	}
	return p, nil
}

// egressWord is a policy as --egress says it.
func egressWord(e *policy.Egress) string {
	if e == nil {
		return "all"
	}
	return e.String()
}

// readEgress reads what a container may reach. Only one with a port of its own on
// a network can be held to it.
func (c *container) readEgress() (err error) {
	switch {
	case c.req.Egress == nil:
		return nil
	case c.mode == modeShared:
		return fail(http.StatusBadRequest, "conflicting options: --egress and the container type network mode; leave out --egress: that of %s holds for both", c.share.name())
	case c.mode != modeBridge && c.mode != modeForeign:
		return fail(http.StatusBadRequest, "conflicting options: --egress and the network mode; with --network %s there is no port on a network to hold to it", c.req.Network)
	}
	c.egress, err = readEgress(c.req.Egress)
	return err
}

// egressRules are where containers of a network may open connections to: what
// their own policies say, then that of the network.
func (n *Node) egressRules(l *ruleList, of *lan) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var list []*container
	for _, c := range n.containers {
		if c.egress != nil && c.onLocked(of) != nil {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b *container) int { return strings.Compare(a.name(), b.name()) })
	for _, c := range list {
		l.egress(c.name(), c.egress)
	}
	if of.reach.egress != nil {
		l.egress(l.network, of.reach.egress)
	}
}

func (l *ruleList) egress(in string, e *policy.Egress) {
	for _, r := range e.Rules() {
		f := api.FilterRule{Chain: "egress", Target: "reject", In: in, Port: r.Port, Match: fmt.Sprintf("%d: to %s", r.Number, r.To), Packets: r.Hits, Reason: packet.EgressDenied.String()}
		if r.Allow {
			f.Target, f.Reason = "accept", ""
		}
		if r.Proto != 0 {
			f.Proto = protoWord(r.Proto)
		}
		l.add(f)
	}
}

// everythingElse is what a rule matches that ends a chain.
const everythingElse = "everything else"
