package node

import (
	"cmp"
	"fmt"
	"net/http"
	"net/netip"
	"slices"

	"fairlead/node/api"
)

func (n *Node) getPorts(_ http.ResponseWriter, _ *http.Request, c *container) (any, error) {
	n.mu.Lock()
	answer := n.portsLocked(c, c.published, c.ownAddresses())
	for _, e := range c.exposed {
		answer.Exposed = append(answer.Exposed, e.String())
	}
	pid := c.pid
	if c.mode == modeForeign {
		pid = 0 // that of whoever was there first; it may have ended, and its number be another's
	}
	n.mu.Unlock()
	if list, ok := listenersOf(pid); ok && n.isStill(c) { // else the pid may be another's by now
		answer.Listeners, answer.ListenersKnown = list, true
	}
	return answer, nil
}

// isStill reports whether a container has not ended.
func (n *Node) isStill(c *container) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !c.ending
}

func (n *Node) postPorts(w http.ResponseWriter, r *http.Request, c *container) (any, error) {
	var req api.PublishRequest
	if err := body(w, r, &req); err != nil {
		return nil, err
	}
	ports, addresses, err := n.publish(c, req)
	return n.answerPorts(c, ports, addresses, err)
}

func (n *Node) deletePorts(_ http.ResponseWriter, r *http.Request, c *container) (any, error) {
	q := r.URL.Query()
	ports, addresses, err := n.unpublish(c, q["port"], q.Get("address"))
	return n.answerPorts(c, ports, addresses, err)
}

func (n *Node) answerPorts(c *container, ports []publication, addresses []netip.Addr, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.portsLocked(c, ports, addresses), nil
}

// portsLocked is publications and addresses of c as the wire has them, in the
// order `docker port` has them.
func (n *Node) portsLocked(c *container, ports []publication, addresses []netip.Addr) api.Ports {
	answer := api.Ports{
		Published: []api.PublishedPort{}, Addresses: []string{}, Exposed: []string{}, Listeners: []api.Listener{},
		Nowhere: len(ports) > 0 && c.leadsNowhereLocked(),
	}
	var outside, common []netip.Addr // of links; common are those that are no container's own
	if c.entry != nil {
		outside = n.outsideLocked()
		common = slices.DeleteFunc(slices.Clone(outside), func(a netip.Addr) bool { return n.ownerOfLocked(a) != nil })
	}
	for _, p := range sortedPorts(ports) {
		d := api.PublishedPort{Proto: p.proto, Port: p.port, HostIP: p.boundIP().String(), HostPort: p.hostPort, Reached: []string{}}
		at := p.listensAt()
		switch {
		case !p.hostIP.IsValid() || p.hostIP == netip.IPv4Unspecified():
			at = append(at, common...)
		case slices.Contains(outside, p.hostIP):
			at = append(at, p.hostIP)
		}
		for _, a := range at {
			d.Reached = append(d.Reached, a.String())
		}
		answer.Published = append(answer.Published, d)
	}
	for _, a := range addresses {
		answer.Addresses = append(answer.Addresses, a.String())
		if i := c.ownsAddress(a); i >= 0 && c.addresses[i].rule == 0 {
			answer.Lost = append(answer.Lost, a.String())
		}
	}
	return answer
}

// leadsNowhereLocked reports whether no network of c's leads outside. In other
// modes there is none to lead.
func (c *container) leadsNowhereLocked() bool {
	return (c.mode == modeBridge || c.mode == modeForeign) && c.electLocked() == nil
}

func (c *container) ownAddresses() (list []netip.Addr) {
	for _, a := range c.addresses {
		list = append(list, a.Addr)
	}
	return list
}

// sortedPorts sorts by the port inside, then by the place outside.
func sortedPorts(ports []publication) []publication {
	return slices.SortedFunc(slices.Values(ports), func(a, b publication) int {
		return cmp.Or(cmp.Compare(a.port, b.port), cmp.Compare(a.proto, b.proto), a.hostIP.Compare(b.hostIP), cmp.Compare(a.hostPort, b.hostPort))
	})
}

// portWordsLocked are a container's ports as docker ps lists them: ranges in
// one, what is exposed and not published by its number.
func (c *container) portWordsLocked() (words []string) {
	ports := slices.SortedFunc(slices.Values(everyPlace(c.published)), func(a, b publication) int { // neighbours outside
		return cmp.Or(cmp.Compare(a.proto, b.proto), a.hostIP.Compare(b.hostIP), cmp.Compare(a.hostPort, b.hostPort))
	})
	for len(ports) > 0 {
		first, count := ports[0], 1
		for count < len(ports) && ports[count].isNext(first, count) {
			count++
		}
		last := ports[count-1]
		at := first.boundIP().String()
		if first.boundIP().Is6() {
			at = "[" + at + "]"
		}
		words = append(words, fmt.Sprintf("%s:%s->%s/%s", at,
			api.PortRange{First: first.hostPort, Last: last.hostPort}, api.PortRange{First: first.port, Last: last.port}, first.proto))
		ports = ports[count:]
	}
	for _, e := range c.exposed {
		if !slices.ContainsFunc(c.published, func(p publication) bool { return p.port == e.port && p.proto == e.proto }) {
			words = append(words, e.String())
		}
	}
	for _, a := range c.addresses {
		words = append(words, a.String()+"->"+a.at.addr.Addr().String())
	}
	return words
}

// everyPlace has a port that is listened on at all addresses of both families
// stand there for each, as Docker has it.
func everyPlace(ports []publication) []publication {
	list := slices.Clone(ports)
	for _, p := range ports {
		if p.open6 && !p.hostIP.IsValid() {
			p.hostIP = netip.IPv6Unspecified()
			list = append(list, p)
		}
	}
	return list
}

// isNext reports whether a publication is the one i ports further than first,
// on both sides.
func (p publication) isNext(first publication, i int) bool {
	return p.proto == first.proto && p.hostIP == first.hostIP &&
		int(p.port) == int(first.port)+i && int(p.hostPort) == int(first.hostPort)+i
}

// inspectPortsLocked are the three places docker inspect has ports in: what is
// exposed, what was asked for, and where it is.
func (c *container) inspectPortsLocked() (exposed map[string]api.InspectNothing, asked, have map[string][]api.InspectBinding) {
	asked, have = map[string][]api.InspectBinding{}, map[string][]api.InspectBinding{}
	for _, e := range c.exposed {
		have[e.String()] = nil
	}
	for _, s := range c.specs {
		for i := range s.Container.Len() {
			var b api.InspectBinding
			if s.HostIP.IsValid() {
				b.HostIP = s.HostIP.String()
			}
			if s.Host.Len() == s.Container.Len() {
				b.HostPort = fmt.Sprint(s.Host.First + uint16(i))
			} else if s.Host.Len() > 0 {
				b.HostPort = s.Host.String()
			}
			private := fmt.Sprintf("%d/%s", s.Container.First+uint16(i), s.Proto)
			asked[private] = append(asked[private], b)
			have[private] = nil
		}
	}
	if len(have) > 0 {
		exposed = map[string]api.InspectNothing{}
	}
	for private := range have {
		exposed[private] = api.InspectNothing{}
	}
	for _, p := range sortedPorts(everyPlace(c.published)) {
		have[p.private()] = append(have[p.private()], api.InspectBinding{HostIP: p.boundIP().String(), HostPort: fmt.Sprint(p.hostPort)})
	}
	return exposed, asked, have
}
