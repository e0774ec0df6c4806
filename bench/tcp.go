package main

import (
	"context"
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
	quick bool   // it is one of the eight of --quick
	asked bool   // it is measured only if --only names it
	even  bool   // peers are measured as often as we are: the best of several figures may be several

	takes   func(o *options) time.Duration // about; nil: usual
	measure func(l *lab, o *options, r *results)
}

// workloads are all there are, in the order in which they run.
var workloads = func() []*workload {
	var ws []*workload
	each := func(one func(cc string, streams int) *workload) {
		for _, cc := range []string{"cubic", "bbr"} {
			for _, streams := range []int{1, 2, 4, 8} {
				ws = append(ws, one(cc, streams))
			}
		}
	}
	each(bulkTCP)
	for _, d := range []direction{out, in} {
		each(func(cc string, streams int) *workload { return natTCP(d, cc, streams) })
	}
	ws = append(ws, udpWorkloads()...)
	ws = append(ws, requestWorkloads()...)
	ws = append(ws, natConnections(), httpRequests(), gone(), stall(), ports(), macs(), flows(), attach(), idleNode(), nodeMemory())
	ws = append(ws, hostileWorkloads()...)
	return append(ws, hostWorkloads()...)
}()

// What fairlead has to reach.
const (
	rawBar = 0.95 // of the raw relay: what a switch, its guard, its counters and its gateway may cost

	oneStreamAgain  = 0.0  // retransmits for each gigabyte
	manyStreamAgain = 10.0 // the same with four streams
)

// peerBars are the parts of the best peer's figure to reach, with each congestion
// control: with CUBIC nobody is ahead, with BBR nobody by more than a tenth.
var peerBars = map[string]float64{"cubic": 1.0, "bbr": 0.9}

// kernelBars are the parts of the kernel bridge's figure to reach.
var kernelBars = map[string]float64{
	"tcp-1-cubic": 1.3, "tcp-1-bbr": 0.75,
	"tcp-4-cubic": 0.42, "tcp-4-bbr": 0.5,
}

// bulkTCP is iperf3 from one container to another, with a congestion control.
// Which one matters: BBR paces by timers and makes many short bursts, CUBIC
// fills every queue there is.
func bulkTCP(cc string, streams int) *workload {
	w := &workload{
		name: fmt.Sprintf("tcp-%d-%s", streams, cc), unit: "Gb/s",
		what:  fmt.Sprintf("TCP from one container to another, %s, %s", counted(streams, "stream"), cc),
		quick: streams == 1 || streams == 4,
	}
	span := func(o *options) *options {
		if kernelBars[w.name] > 0 {
			return o
		}
		return o.brief()
	}
	w.takes = func(o *options) time.Duration { return span(o).takeTurns(paths) }
	w.measure = func(l *lab, o *options, r *results) {
		figures := w.bulk(l, span(o), r, paths, cc, streams)
		compare(figures, "kernel", "raw", "fairlead")
		f, raw := figures["fairlead"], figures["raw"]
		if f == nil {
			return
		}
		r.hold(w, figures, "raw", rawBar)
		if raw != nil && streams == 4 && cc == "cubic" {
			r.cheaper(f, raw, "CPU time for each gigabyte", cpuOfBytes)
		}
		if bound := kernelBars[w.name]; bound > 0 {
			r.hold(w, figures, "kernel", bound)
		}
		r.holdPeers(w, figures, peerBars[cc])
		r.steady(f, streams)
	}
	return w
}

// bulk measures bulk TCP on the paths that are to be measured, in turns.
func (w *workload) bulk(l *lab, o *options, r *results, paths []*path, cc string, streams int) map[string]*figure {
	hosts.Need(l, "iperf3")
	needCongestionControl(l, cc)
	return w.turns(l, o, r, paths, func(l *lab, c *cable) func() (sample, error) {
		c.ends[1].Serve(l, "iperf3", "-s")
		c.ends[1].Listens(l, iperfPort)
		c.settle(l, func() error { _, err := c.iperf(l, 5*time.Second, "-n", "1M"); return err })
		return func() (sample, error) { return c.bulk(l, o, cc, streams) }
	})
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
	lost, err := c.dropped()
	if err != nil {
		return s, err
	}
	before, err := c.crossed()
	if err != nil {
		return s, err
	}
	seconds := o.lasts(c.path)
	report, err := c.iperf(l, time.Duration(seconds+20)*time.Second, "-t", strconv.Itoa(seconds), "-C", cc, "-P", strconv.Itoa(streams))
	if err != nil {
		return s, err
	}
	after, err := c.crossed()
	if err != nil {
		return s, err
	}
	now, err := c.dropped()
	if err != nil {
		return s, err
	}
	lost = now - lost
	// Headers come on top, so what crossed is more than what arrived.
	n, got := after.minus(before), report.End.Received
	if float64(n.Bytes) < got.Bytes {
		return s, fmt.Errorf("iperf3 received %.0f bytes and %d crossed the path: the traffic went another way, and is not reported", got.Bytes, n.Bytes)
	}
	return sample{Value: got.Rate / 1e9, Bytes: got.Bytes, Retransmits: report.End.Sent.Retransmits, Dropped: lost, Frames: float64(n.Frames), spent: n.spent}, nil
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

// iperf runs a client of iperf3 in the first container against the second, which
// ends within some time: some peers carry so little that it never does.
func (c *cable) iperf(l *lab, within time.Duration, args ...string) (*iperfReport, error) {
	ctx, cancel := context.WithTimeout(l.ctx, within)
	defer cancel()
	args = append([]string{"-J", "--connect-timeout", "2000",
		"-c", c.server.Addr().String(), "-p", strconv.Itoa(int(c.server.Port()))}, args...)
	out, err := c.ends[0].Command(ctx, "iperf3", args...).Output()
	var report iperfReport
	if json.Unmarshal(out, &report) == nil && report.Error != "" {
		return nil, fmt.Errorf("iperf3: %s", report.Error)
	}
	if ctx.Err() != nil && l.ctx.Err() == nil {
		err = fmt.Errorf("no end after %v", within)
	}
	if err != nil {
		return nil, fmt.Errorf("iperf3: %w", err)
	}
	// The server needs a moment between two clients.
	time.Sleep(50 * time.Millisecond)
	return &report, nil
}
