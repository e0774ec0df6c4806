package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// httpConnections is over how many connections wrk asks, which stay open.
const httpConnections = 16

// httpRequests is how many requests wrk has answered in a second by a server of
// ours, which has one page as long as nginx's first.
func httpRequests() *workload {
	w := &workload{
		name: "http", unit: "1/s", takes: takeMoments(paths, 1),
		what: fmt.Sprintf("HTTP requests by wrk over %d connections that stay open, a page of %d bytes", httpConnections, pageSize),
	}
	w.measure = func(l *lab, o *options, r *results) {
		if err := (&path{programs: []string{"wrk"}}).missing(); err != nil {
			r.notRun(w, "wrk", err)
			r.open(w, "the best peer", peerBar)
			return
		}
		figures := w.turns(l, o, r, paths, func(l *lab, c *cable) func() (sample, error) {
			startFar(l, commandOn(c.ends[1]), datagrams{})
			return func() (sample, error) { return c.http(l, o.moment()) }
		})
		compare(figures, "kernel", "raw", "fairlead")
		r.holdPeers(w, figures, peerBar)
	}
	return w
}

// http measures once.
func (c *cable) http(l *lab, during time.Duration) (sample, error) {
	var got wrkReport
	n, err := c.across(func() (payload float64, err error) {
		ctx, cancel := context.WithTimeout(l.ctx, during+20*time.Second)
		defer cancel()
		said, err := c.ends[0].Command(ctx, "wrk", "-t", "1", "-c", strconv.Itoa(httpConnections),
			"-d", strconv.Itoa(int(max(during, time.Second)/time.Second)), "http://"+c.to(httpPort).String()+"/").CombinedOutput()
		if err != nil {
			return 0, fmt.Errorf("wrk: %w: %s", err, said)
		}
		got, err = readWrk(string(said))
		return got.requests * pageSize, err
	})
	return sample{Value: got.rate, spent: n.spent, Frames: float64(n.Frames)}, err
}

// A wrkReport is what wrk prints.
type wrkReport struct {
	requests float64 // answered
	rate     float64 // a second
}

// readWrk reads it. Where a request failed the figure means nothing.
func readWrk(said string) (r wrkReport, err error) {
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(line)
		f := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "Socket errors:"), strings.HasPrefix(line, "Non-2xx or 3xx responses:"):
			return r, fmt.Errorf("wrk: %s", line)
		case len(f) > 3 && f[1] == "requests" && f[2] == "in":
			r.requests, err = strconv.ParseFloat(f[0], 64)
		case len(f) == 2 && f[0] == "Requests/sec:":
			r.rate, err = strconv.ParseFloat(f[1], 64)
		}
		if err != nil {
			return r, fmt.Errorf("wrk: %w", err)
		}
	}
	if !(r.requests > 0 && r.rate > 0) {
		return r, errors.New("wrk: it had no request answered")
	}
	return r, nil
}
