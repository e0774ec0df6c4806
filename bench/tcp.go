package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	hosts "fairlead/test/lab"
)

// A workload is a kind of traffic.
type workload struct {
	name string
	what string
	unit string

	group string // of which table
	less  bool   // is better

	measure func(l *lab, o *options, r *results) // of all its paths
}

// workloads are all there are, in the order in which they run.
var workloads = func() []*workload {
	var ws []*workload
	for _, cc := range []string{"cubic", "bbr"} {
		for _, streams := range []int{1, 4} {
			ws = append(ws, bulkTCP(cc, streams))
		}
	}
	ws = append(ws, natTCP(out), natTCP(in), gone(), stall())
	return append(ws, hostWorkloads()...)
}()

// rawBar is the part of the raw relay's figure that fairlead has to reach: what
// a switch, its guard, its counters and its gateway may cost.
const rawBar = 0.95

// duration is how many seconds one measurement of throughput takes.
func (o *options) duration() int {
	if o.quick {
		return 1
	}
	return o.seconds
}

// bulkTCP is iperf3 from one container to another, with a congestion control.
// Which one matters: BBR paces by timers and makes many short bursts, CUBIC
// fills every queue there is.
func bulkTCP(cc string, streams int) *workload {
	w := &workload{
		name: fmt.Sprintf("tcp-%d-%s", streams, cc), unit: "Gb/s",
		what: fmt.Sprintf("TCP from one container to another, %d streams, %s", streams, cc),
	}
	w.measure = func(l *lab, o *options, r *results) {
		figures := w.bulk(l, o, r, paths, cc, streams)
		compare(figures, "kernel", "raw", "fairlead")
		if f, other := figures["fairlead"], figures["raw"]; f != nil && other != nil {
			r.atLeast(f, other, rawBar)
		}
	}
	return w
}

// bulk measures bulk TCP on the paths that are to be measured, in turns.
func (w *workload) bulk(l *lab, o *options, r *results, paths []*path, cc string, streams int) map[string]*figure {
	hosts.Need(l, "iperf3")
	needCongestionControl(l, cc)
	var cables []*cable
	figures := map[string]*figure{}
	for _, p := range paths {
		if !o.measures(p) {
			continue
		}
		c := layCable(l, p)
		c.settle(l, func() error { return c.connect(l) })
		c.ends[1].Serve(l, "iperf3", "-s")
		c.ends[1].Listens(l, iperfPort)
		c.settle(l, func() error { _, err := c.iperf(l, "-n", "1M"); return err })
		cables = append(cables, c)
		figures[p.name] = r.figure(w, p.name)
	}
	for round := range o.pairs {
		for _, c := range cables {
			if round%c.every != 0 {
				continue
			}
			s, err := c.bulk(l, o, cc, streams)
			l.check(err, "path %s", c.name)
			s.Round = round
			figures[c.name].add(s)
			progress("%s  round %d of %d  %-13s %6.2f %s", w.name, round+1, o.pairs, c.name, s.Value, w.unit)
		}
		slices.Reverse(cables) // neither of two neighbours is always the first
	}
	return figures
}

// compare puts every figure in relation to those of some paths.
func compare(figures map[string]*figure, paths ...string) {
	for _, to := range paths {
		for _, f := range figures {
			if other := figures[to]; other != nil {
				f.ratio(other)
			}
		}
	}
}

// needCongestionControl breaks off where the kernel does not have one: a
// namespace cannot load modules.
func needCongestionControl(l *lab, cc string) {
	have, err := os.ReadFile("/proc/sys/net/ipv4/tcp_available_congestion_control")
	l.check(err, "ask which congestion controls there are")
	if !slices.Contains(strings.Fields(string(have)), cc) {
		l.Skipf("the kernel has no congestion control %s; try: sudo modprobe tcp_%s", cc, cc)
	}
}

const iperfPort = 5201

// bulk measures once, and proves by the path's counters that it was crossed.
func (c *cable) bulk(l *lab, o *options, cc string, streams int) (s sample, err error) {
	seconds := o.duration()
	if c.brief {
		seconds = 1
	}
	before, err := c.crossed()
	if err != nil {
		return s, err
	}
	report, err := c.iperf(l, "-t", strconv.Itoa(seconds), "-C", cc, "-P", strconv.Itoa(streams))
	if err != nil {
		return s, err
	}
	after, err := c.crossed()
	if err != nil {
		return s, err
	}
	// Headers come on top, so what crossed is more than what arrived.
	n, got := after.minus(before), report.End.Received
	if float64(n.Bytes) < got.Bytes {
		return s, fmt.Errorf("iperf3 received %.0f bytes and %d crossed the path: the traffic went another way, and is not reported", got.Bytes, n.Bytes)
	}
	return sample{Value: got.Rate / 1e9, Bytes: got.Bytes, Retransmits: report.End.Sent.Retransmits, CPU: n.CPU}, nil
}

// An iperfReport is what is used of iperf3's JSON.
type iperfReport struct {
	Error string `json:"error"`
	End   struct {
		Sent struct {
			Retransmits int `json:"retransmits"`
		} `json:"sum_sent"`
		Received struct {
			Bytes float64 `json:"bytes"`
			Rate  float64 `json:"bits_per_second"`
		} `json:"sum_received"`
	} `json:"end"`
}

// iperf runs a client of iperf3 in the first container against the second.
func (c *cable) iperf(l *lab, args ...string) (*iperfReport, error) {
	args = append([]string{"-J", "--connect-timeout", "2000",
		"-c", c.server.Addr().String(), "-p", strconv.Itoa(int(c.server.Port()))}, args...)
	out, err := c.ends[0].Command(l.ctx, "iperf3", args...).Output()
	var report iperfReport
	if json.Unmarshal(out, &report) == nil && report.Error != "" {
		return nil, fmt.Errorf("iperf3: %s", report.Error)
	}
	if err != nil {
		return nil, fmt.Errorf("iperf3: %w", err)
	}
	// The server needs a moment between two clients.
	time.Sleep(50 * time.Millisecond)
	return &report, nil
}
