package sockets

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"fairlead/packet"
	"fairlead/test/lab"
)

// checkLocked compares what the tables of flows, sockets and budgets say of each
// other.
func (s *Sockets) checkLocked() error {
	of := map[*shared]int{} // flows by what the slots say
	for n := range s.flows.slots {
		x := &s.flows.slots[n]
		if x.e == nil {
			continue
		}
		e := x.e.(sharer).shares()
		if e.fd < 0 {
			return fmt.Errorf("flow %d has a closed socket", n)
		}
		if x.place >= len(e.flows) || e.flows[x.place] != uint32(n) {
			return fmt.Errorf("flow %d is not at place %d of %v", n, x.place, e.flows)
		}
		of[e]++
	}
	held := map[packet.ContainerID]int{}
	total := 0
	for at, x := range s.flows.udp {
		e := x.(sharer).shares()
		switch {
		case e.local != at || e.fd < 0:
			return fmt.Errorf("%v is found as %v, descriptor %d", e.local, at, e.fd)
		case len(e.flows) != of[e]:
			return fmt.Errorf("%v has %d flows, the slots say %d", at, len(e.flows), of[e])
		case e.kept != (e.holder == nil):
			return fmt.Errorf("%v is kept: %v, and paid for: %v", at, e.kept, e.holder != nil)
		}
		delete(of, e)
		if e.holder != nil {
			held[e.holder.id]++
			total++
		}
	}
	if len(of) > 0 {
		return fmt.Errorf("%d sockets of flows are not found", len(of))
	}
	for id, h := range s.flows.holders {
		if h.id != id || h.descriptors != held[id] || h.descriptors == 0 {
			return fmt.Errorf("container %d has %d descriptors in its budget, and %d", id, h.descriptors, held[id])
		}
		if len(h.waiting) > 2*s.conf.Containers+17 { // trimmed when one more waits
			return fmt.Errorf("container %d: %d wait", id, len(h.waiting))
		}
		if s.conf.Containers > 0 && h.descriptors > s.conf.Containers {
			return fmt.Errorf("container %d has %d descriptors", id, h.descriptors)
		}
	}
	if len(held) != len(s.flows.holders) || total != s.flows.total || s.conf.Total > 0 && total > s.conf.Total {
		return fmt.Errorf("%d holders of %d, %d descriptors of %d", len(held), len(s.flows.holders), total, s.flows.total)
	}
	return nil
}

// TestDatagramLife: whatever containers begin, peers answer, NAT ends and users
// publish, in any order, flows, sockets and budgets agree; and nothing is left.
func TestDatagramLife(t *testing.T) {
	lab.NoLeaks(t)
	h := lab.NewHost(t, "node")
	h.Sysctl(t, "net.ipv4.ping_group_range", "0 0")
	rng := rand.New(rand.NewPCG(7, 8))
	r := newDgRigOn(t, h, func(c *Config) { c.Containers, c.Total = 6, 15 })
	var peers []*peer
	for range 4 {
		var p *peer
		if err := h.Do(func() error { p = newPeer(t, "127.0.0.1:0"); return nil }); err != nil {
			t.Fatal(err)
		}
		peers = append(peers, p)
	}
	owners := map[uint16]packet.ContainerID{} // NAT: a port is one container's
	alive := map[packet.Tuple]bool{}
	counts := map[string]int{}
	published := map[netip.AddrPort]bool{}
	for i := 0; i < 100_000 && (i < 5000 || seldomOf(counts) != ""); i++ {
		port := uint16(40000 + rng.IntN(30))
		c, ok := owners[port]
		if !ok {
			c = packet.ContainerID(1 + rng.IntN(4))
			owners[port] = c
		}
		r.c = c
		p := peers[rng.IntN(len(peers))]
		switch what := rng.IntN(12); {
		case what < 7:
			f := r.udp(port, p.at, []byte("x"))
			if what < 2 {
				f = r.echo(port, 1, p.at.Addr(), []byte("x"))
			}
			alive[f.Tuple()] = true
			_, err := r.try(f)
			if err != nil && err != packet.SocketBudget { //nolint:errorlint // see switch
				t.Fatal(err)
			}
			counts[fmt.Sprintf("%v %v", f.Proto, err)]++
		case what < 10:
			for k := range alive { // any
				r.end(k)
				delete(alive, k)
				delete(owners, k.SrcPort)
				for other := range alive {
					if other.SrcPort == k.SrcPort {
						owners[k.SrcPort] = c // still somebody's
						r.end(other)
						delete(alive, other)
					}
				}
				delete(owners, k.SrcPort)
				counts["ended"]++
				break
			}
		case what < 11:
			r.s.mu.Lock()
			for _, e := range r.s.flows.udp {
				e.common().answered()
				counts["answered"]++
				break
			}
			r.s.mu.Unlock()
		default:
			at := netip.AddrPortFrom(netip.MustParseAddr([]string{"0.0.0.0", "127.0.0.1", "::"}[rng.IntN(3)]), uint16(50000+rng.IntN(5)))
			if published[at] {
				r.s.unlistenUDP(at)
				delete(published, at)
			} else {
				r.do(func() { published[at] = r.s.listenUDP(at) == nil })
				counts["published"]++
			}
		}
		for len(r.ended) > 0 { // the router ends what it is told
			k := r.over()
			if alive[k] {
				delete(alive, k)
				r.end(k)
			}
			counts["given up"]++
		}
		for len(r.came) > 0 {
			<-r.came
		}
		r.s.mu.Lock()
		err := r.s.checkLocked()
		r.s.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
	}
	for k := range alive {
		r.end(k)
	}
	for at := range published {
		r.s.unlistenUDP(at)
	}
	eventually(t, func() error {
		r.s.mu.Lock()
		sockets := len(r.s.flows.udp)
		r.s.mu.Unlock()
		if n := r.s.Stats(); n.Descriptors != 0 || n.Flows != 0 || sockets != 0 {
			return fmt.Errorf("left: %+v, %d sockets", n, sockets)
		}
		return nil
	})
	t.Log(counts)
	if seldom := seldomOf(counts); seldom != "" {
		t.Error(seldom, "hardly came up")
	}
}

// seldomOf is something TestDatagramLife wants to see more of.
func seldomOf(counts map[string]int) string {
	for _, what := range []string{"UDP <nil>", "ICMP <nil>", "UDP socket-budget", "ended", "answered", "published", "given up"} {
		if counts[what] < 50 {
			return what
		}
	}
	return ""
}
