package node

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"fairlead/loop"
	"fairlead/node/api"
	"fairlead/node/network"
	"fairlead/packet"
	vswitch "fairlead/switch"
)

// theRouter returns the router.
func (n *Node) theRouter() *network.Router {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.router
}

func (n *Node) getSwitches(http.ResponseWriter, *http.Request) (any, error) {
	at, list := n.residents(), []api.Switch{}
	for _, l := range n.listLans() {
		list = append(list, n.describeSwitch(l, at))
	}
	return list, nil
}

func (n *Node) describeSwitch(l *lan, at residents) api.Switch {
	n.mu.Lock()
	net, reach, hostLink := l.net, l.reach, ""
	if l.hostLink != nil {
		hostLink = l.hostLink.iface
	}
	n.mu.Unlock()
	conf, sw := net.Config(), net.Switch()
	totals := sw.Totals()
	s := api.Switch{
		Network: conf.Name, Subnet: conf.Gateway.Masked().String(), Gateway: conf.Gateway.Addr().String(),
		BridgeID: "8000." + strings.ReplaceAll(net.GatewayMAC().String(), ":", ""),
		MTU:      conf.Options.MTU, Hub: conf.Options.Hub, LoopGuard: "no",
		Ageing: sw.Config().Ageing.Seconds(), Egress: egressWord(reach.egress), HostLoopback: reach.hostLoopback, HostLink: hostLink, Ports: []api.Port{}, Totals: counts(&totals),
	}
	if !conf.Options.LoopsLeft {
		s.LoopGuard = "yes"
	}
	for _, p := range sw.Ports() {
		s.Ports = append(s.Ports, n.describePort(p, l, at[p.Config().Container]))
	}
	return s
}

// residents are the containers at ports, by the number the port has: who made
// its namespace or, once that has ended, the oldest of those that share it.
type residents map[packet.ContainerID]*container

func (n *Node) residents() residents {
	n.mu.Lock()
	defer n.mu.Unlock()
	at := make(residents, len(n.containers))
	for _, c := range n.containers {
		number := c.number
		if c.owner != nil {
			number = c.owner.number
		}
		if have := at[number]; have == nil || c.number == number || have.number != number && c.created.Before(have.created) {
			at[number] = c
		}
	}
	return at
}

// name is that of the container at a port.
func (at residents) name(p *vswitch.Port) string {
	if c := at[p.Config().Container]; c != nil {
		return c.name()
	}
	return p.Config().Name // of one that has come or gone since
}

// nameOf is the name of the container at the port with an id, empty when the
// port has gone.
func (at residents) nameOf(net *network.Network, id packet.PortID) string {
	if p := net.Switch().Port(id); p != nil {
		return at.name(p)
	}
	return ""
}

func (n *Node) describePort(p *vswitch.Port, l *lan, c *container) api.Port {
	conf, have := p.Config(), p.Counts()
	d := api.Port{
		Port: portNumber(p.ID()), Container: conf.Name, MAC: conf.Guard.MAC.String(),
		Guard: conf.Guard.Strict, Isolated: conf.Isolated, VLANs: conf.VLANs.String(), Counts: counts(&have),
	}
	if left, from := p.Blocked(loop.Clock()); left > 0 {
		d.Blocked, d.BlockedFrom = left.Seconds(), portNumber(from)
	}
	d.SentNothing = p.SentNothing(loop.Clock()).Seconds()
	if q, ok := conf.Queue.(interface{ Lost() uint64 }); ok {
		d.Lost = q.Lost()
	}
	if conf.Host {
		n.describeHostPort(&d, l)
	}
	if conf.Guard.MAC.IsZero() {
		d.MAC = "" // it is for whoever is behind it to say
	}
	if c == nil {
		return d // it left between two looks
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	d.Container, d.ID, d.Pid = c.name(), c.id, c.pid
	d.RateIn, d.RateOut = c.rateWords()
	if a := c.onLocked(l); a != nil {
		d.IP = a.addrWord()
		if e := a.endpoint; e != nil {
			d.Kind, d.Interface, d.Index, d.Netns, d.Offload = e.kind, a.iface, e.index, e.netns, e.offload
			if e.kind == "veth" {
				d.Peer, d.LinkNetns = e.peer, e.peerNetns
			}
		}
	}
	return d
}

// loopFound is told of a port that was blocked, on a worker.
func (n *Node) loopFound(l vswitch.Loop) {
	go func() {
		at := n.residents()
		slog.Warn("two ports are joined, one is blocked", "network", l.Port.Network(), "port", portNumber(l.Port.ID()), "container", at.name(l.Port),
			"joined_port", portNumber(l.From.ID()), "joined_container", at.name(l.From), "for", l.For)
	}()
}

// slowFound is told of a receiver that took very long, on a worker.
func (n *Node) slowFound(s vswitch.Slow) {
	go func() {
		slog.Warn("a container took so long to receive that it is sent nothing for a time", "network", s.Port.Network(), "port", portNumber(s.Port.ID()),
			"container", n.residents().name(s.Port), "took", s.Took, "for", s.For)
	}()
}

func counts(c *vswitch.Counts) api.Counts {
	return api.Counts{
		Read: c.Read, ReadBytes: c.ReadBytes, ReadSegments: c.ReadSegments,
		Unicast: c.Unicast, Flooded: c.Flooded, Fanout: c.Fanout, Gateway: c.Gateway, Originated: c.Originated,
		Held: c.Held, Resumed: c.Resumed, Split: c.Split,
		Written: c.Written, WrittenBytes: c.WrittenBytes, WrittenSegments: c.WrittenSegments,
		Joined: c.Joined, JoinedBytes: c.JoinedBytes, Paused: c.Paused,
		Dropped: tallies(&c.Dropped), Failed: tallies(&c.Failed),
	}
}

func tallies(ts *[packet.NumReasons]packet.Tally) map[string]uint64 {
	m := map[string]uint64{}
	for r, t := range ts {
		if t.N > 0 {
			m[packet.Reason(r).String()] = t.N
		}
	}
	return m
}

// getDrops lists every reason a frame was dropped or a copy failed for. Ports
// that are gone share one line for each.
func (n *Node) getDrops(http.ResponseWriter, *http.Request) (any, error) {
	list := []api.Drop{}
	add := func(network string, port int, name, direction string, ts *[packet.NumReasons]packet.Tally) {
		for i, t := range ts {
			if t.N == 0 {
				continue
			}
			r := packet.Reason(i)
			list = append(list, api.Drop{
				Network: network, Port: port, Container: name,
				Reason: r.String(), Direction: direction, Count: t.N, Last: wallClock(t.Last), Why: r.Why(), Try: r.Try(),
			})
		}
	}
	at := n.residents()
	n.segments().each(func(network string, sw *vswitch.Switch) {
		for _, p := range sw.Ports() {
			c := p.Counts()
			add(network, portNumber(p.ID()), at.name(p), "in", &c.Dropped)
			add(network, portNumber(p.ID()), at.name(p), "out", &c.Failed)
		}
		gone := sw.Retired()
		add(network, 0, "(gone)", "in", &gone.Dropped)
		add(network, 0, "(gone)", "out", &gone.Failed)
	})
	list = append(list, n.socketDrops()...)
	slices.SortStableFunc(list, func(a, b api.Drop) int { return cmp.Compare(b.Count, a.Count) })
	return list, nil
}

// wallClock turns a moment of the workers' clock into one of the day.
func wallClock(at int64) time.Time { return time.Now().Add(time.Duration(at - loop.Clock())) }

// checkAttempts is how often getCheck looks before it believes what it sees: an
// uplink that is just coming is counted by its ports and not yet by the router.
const checkAttempts = 20

// checkWithin is after how long it believes it in any case.
const checkWithin = 10 * time.Second

// getCheck holds the conservation law against the counters, which are read one after
// the other: where they differ, no frame may move meanwhile.
func (n *Node) getCheck(http.ResponseWriter, *http.Request) (any, error) {
	check := api.Check{Violations: violations(n.segments(), n.theRouter())}
	began := time.Now()
	for i := 0; len(check.Violations) > 0 && i < checkAttempts && time.Since(began) < checkWithin; i++ {
		time.Sleep(time.Duration(i) * time.Millisecond)
		atRest, err := n.violationsAtRest(i > 0)
		if err != nil {
			return nil, err
		}
		check.Violations = atRest
	}
	return check, nil
}

// violationsAtRest looks while no frame moves. A worker may come to rest late, or not at
// all, for which the others stand: then it is a while until they do so again, which who
// looks again waits for.
func (n *Node) violationsAtRest(again bool) ([]string, error) {
	segments, router := n.segments(), n.theRouter() // before: n.mu may be held by who waits for a worker
	n.checking.Lock()
	defer n.checking.Unlock()
	if again {
		time.Sleep(n.checked.left())
	} else if left := n.checked.await(); left > 0 {
		return nil, fail(http.StatusConflict, "the counters are read while traffic stands, which it has done for %v just now; try again in %v",
			n.checked.stood.Round(time.Millisecond), left.Round(time.Millisecond))
	}
	resume, err := n.loop.Rest(n.handTimes.still)
	if err != nil {
		n.checked = setback{stood: n.handTimes.still, at: time.Now()}
		return nil, fail(http.StatusConflict, "the counters are read while traffic stands, and it cannot be stopped: %w; `fairlead show switch` says (slow) behind a container whose firewall takes long; try again", err)
	}
	defer func() { n.checked = setback{stood: resume(), at: time.Now()} }()
	return violations(segments, router), nil
}

func violations(segments *segments, router *network.Router) []string {
	list := []string{}
	segments.each(func(network string, sw *vswitch.Switch) {
		for _, p := range sw.Ports() {
			c := p.Counts()
			if err := c.CheckIngress(); err != nil {
				list = append(list, fmt.Sprintf("network %s port %d (%s): %v", network, portNumber(p.ID()), p.Config().Name, err))
			}
		}
	})
	if err := router.CheckCopies(); err != nil {
		list = append(list, err.Error())
	}
	return list
}
