package main

import "time"

// natConnectionBar is the part of the kernel's connections through NAT that
// fairlead has to reach.
const natConnectionBar = 0.7

// natConnections is how many connections are made in a second through NAT, eight
// side by side, each with a request, an answer and an end.
func natConnections() *workload {
	w := &workload{
		name: "nat-conns", unit: "1/s", takes: takeMoments(natPaths(out), 1),
		what: "TCP connections from a container to a host outside, masqueraded, each with a request of 100 bytes",
	}
	w.measure = func(l *lab, o *options, r *results) {
		figures := w.turns(l, o, r, natPaths(out), func(l *lab, c *cable) func() (sample, error) {
			near, _ := c.startEnds(l, datagrams{})
			return func() (sample, error) { return c.connections(near, o.moment()) }
		})
		compare(figures, "kernel", "switching")
		r.hold(w, figures, "kernel", natConnectionBar)
	}
	return w
}

// connections measures once.
func (c *cable) connections(near *endProcess, during time.Duration) (sample, error) {
	var got outcome
	n, err := c.across(func() (payload float64, err error) {
		got, err = near.do(job{Do: "once", To: c.to(oncePort), For: during})
		return float64(2 * request * got.Count), err
	})
	return sample{Value: float64(got.Count) / got.Took.Seconds(), spent: n.spent, Frames: float64(n.Frames)}, err
}
