package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	hosts "fairlead/test/lab"
)

// parts is turns whose measurements give several samples each, one for the
// figure of each part.
func (w *workload) parts(l *lab, o *options, r *results, paths []*path, parts []*workload, prepare func(l *lab, c *cable) func() ([]sample, error)) []map[string]*figure {
	taken := map[string][][]sample{}
	parts[0].even = w.even // it is in this one's turns that all are measured
	first := parts[0].turns(l, o, r, paths, func(l *lab, c *cable) func() (sample, error) {
		measure := prepare(l, c)
		return func() (sample, error) {
			samples, err := measure()
			if err != nil {
				return sample{}, err
			}
			taken[c.name] = append(taken[c.name], samples)
			return samples[0], nil
		}
	})
	all := []map[string]*figure{first}
	for i, part := range parts[1:] {
		figures := map[string]*figure{}
		for _, p := range paths {
			f := first[p.name]
			if f == nil {
				continue
			}
			figures[p.name] = r.figure(part, p.name)
			for j, samples := range taken[p.name] {
				s := samples[i+1]
				s.Round, s.Stolen, s.watched = f.Samples[j].Round, f.Samples[j].Stolen, true
				figures[p.name].add(s)
			}
		}
		all = append(all, figures)
	}
	return all
}

// across has something done, and proves by the path's counters that as many
// bytes of payload crossed it as do says have arrived. Headers come on top, so
// it is more.
func (c *cable) across(do func() (payload float64, err error)) (n crossed, err error) {
	before, err := c.crossed()
	if err != nil {
		return n, err
	}
	payload, err := do()
	if err != nil {
		return n, err
	}
	after, err := c.crossed()
	if err != nil {
		return n, err
	}
	n = after.minus(before)
	if float64(n.Bytes) < payload {
		err = fmt.Errorf("%.0f bytes arrived and %d crossed the path: the traffic went another way, and is not reported", payload, n.Bytes)
	}
	return n, err
}

// commandOn prepares commands on a host.
func commandOn(h *hosts.Host) func(name string, args ...string) *hosts.Cmd {
	return func(name string, args ...string) *hosts.Cmd { return h.Command(context.Background(), name, args...) }
}

// to is a port of the second container, as the first reaches it.
func (c *cable) to(port int) netip.AddrPort { return netip.AddrPortFrom(c.server.Addr(), uint16(port)) }

// startEnds starts a near end in the first container and a far end in the
// second, and waits until one reaches the other.
func (c *cable) startEnds(l *lab, d datagrams) (near, far *endProcess) {
	far = startFar(l, commandOn(c.ends[1]), d)
	near = startEnd(l, commandOn(c.ends[0]), "near")
	c.settle(l, func() error {
		_, err := near.do(job{Do: "echo", To: c.to(echoTCPPort), For: time.Millisecond})
		return err
	})
	return near, far
}

// takeMoments is how long the turns of some paths take that are measured for so
// many moments each.
func takeMoments(paths []*path, moments float64) func(o *options) time.Duration {
	return func(o *options) time.Duration {
		return o.takeTurnsOf(paths, func(*path) time.Duration { return time.Duration(moments * float64(o.moment())) })
	}
}
