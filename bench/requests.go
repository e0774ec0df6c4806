package main

import (
	"fmt"
	"time"

	hosts "fairlead/test/lab"
)

// What a request and its answer may take: the kernel bridge's time, divided by
// this.
const (
	requestBar     = 1.0 // with nothing else on the machine
	requestBulkBar = 0.5 // beside bulk traffic on the same path
	// With processors that never sleep the bridge, which runs in the sender's own call,
	// needs no wake-up and we need two. What was measured so is held, beside the bridge
	// and beside a relay that has to be woken as often.
	requestSpinBar   = 0.4
	requestSpinRelay = 0.9
)

// bulkRate is the load beside which requests are measured, in bytes a second:
// 5 Gb/s, which all but the slowest carry.
const bulkRate = 5e9 / 8

// A load is what goes on beside requests and their answers.
type load struct {
	name, what string
	spinners   bool    // on every processor one that runs where nothing else wants to
	bulk       bool    // a connection with bulkRate on the same path
	bar        float64 // beside the kernel's p50 and p99
}

// loads are all there are. Spinners show what of the time is spent with
// processors that have to be woken, which differs from machine to machine.
var loads = []load{
	{name: "idle", what: "on an idle machine", bar: requestBar},
	{name: "spin", what: "with a SCHED_IDLE spinner on each processor", spinners: true, bar: requestSpinBar},
	{name: "bulk", what: "beside 5 Gb/s of TCP on the same path", bulk: true, bar: requestBulkBar},
}

// requestWorkloads are how long TCP requests and their answers take.
func requestWorkloads() (ws []*workload) {
	for _, load := range loads {
		ws = append(ws, requestTime(load))
	}
	return ws
}

// requestTime is how long a request of 100 bytes and an answer as long take on
// one connection, the next following at once.
func requestTime(load load) *workload {
	on := unasked("raw-awake")
	w := &workload{
		name: "request-" + load.name, what: "time of a TCP request and its answer, 100 bytes each, " + load.what,
		quick: load.name == "idle", even: true, takes: takeMoments(on, 1.5),
	}
	var parts []*workload
	for _, part := range []string{"p50", "p99", "p99.9"} {
		parts = append(parts, &workload{name: w.name + "-" + part, unit: "µs", less: true, what: part + " of the " + w.what})
	}
	w.measure = func(l *lab, o *options, r *results) {
		if load.bulk {
			needCongestionControl(l, bulkControl)
		}
		if load.spinners {
			startEnd(l, commandOn(hosts.NewHost(l, "spinners")), "spin")
		}
		beside := map[string][]float64{} // Gb/s of the bulk traffic
		all := w.parts(l, o, r, on, parts, func(l *lab, c *cable) func() ([]sample, error) {
			near, _ := c.startEnds(l, datagrams{})
			var bulk *endProcess
			if load.bulk {
				bulk = startEnd(l, commandOn(c.ends[0]), "near")
			}
			return func() ([]sample, error) {
				got, rate, n, err := c.requests(near, bulk, o.moment())
				if load.bulk {
					beside[c.name] = append(beside[c.name], rate)
				}
				return []sample{
					{Value: micros(got.P50), spent: n.spent, Frames: float64(n.Frames)}, {Value: micros(got.P99)}, {Value: micros(got.P999)},
				}, err
			}
		})
		for i, figures := range all {
			compare(figures, "kernel", "raw", "fairlead")
			if parts[i].name != w.name+"-p99.9" {
				before := len(r.Bars)
				r.hold(parts[i], figures, "kernel", load.bar)
				if len(r.Bars) > before {
					r.underLoad("fairlead", beside["fairlead"])
					r.underLoad("kernel", beside["kernel"])
				}
			}
			if load.spinners && parts[i].name == w.name+"-p50" {
				r.hold(parts[i], figures, "raw", requestSpinRelay)
			}
			before := len(r.Bars)
			r.holdPeers(parts[i], figures, peerBar)
			if len(r.Bars) > before {
				r.underLoad("fairlead", beside["fairlead"])
			}
		}
		for path, f := range all[0] {
			f.Note = tooLittle(beside[path])
		}
	}
	return w
}

// tooLittle says how much bulk traffic there was, where it was less than there should
// be; rates is empty where there should be none.
func tooLittle(rates []float64) string {
	if len(rates) == 0 {
		return ""
	}
	const want = float64(bulkRate) * 8 / 1e9
	if q := quantiles(rates); q.Median < 0.95*want {
		return fmt.Sprintf("it carried only %.2f of the %g Gb/s", q.Median, want)
	}
	return ""
}

// underLoad adds to the last bar that a path had less to do beside its requests than
// it should. Ours does not meet it so; of another nobody can tell.
func (r *results) underLoad(name string, rates []float64) {
	little := tooLittle(rates)
	if little == "" {
		return
	}
	b := r.last()
	b.Have += "; of " + name + ": " + little
	b.Met, b.Open = false, b.Open || name != "fairlead"
}

// bulkControl is the congestion control of the bulk traffic.
const bulkControl = "cubic"

// requests measures once, and returns how much bulk traffic there was beside if
// there is an end for it.
func (c *cable) requests(near, bulk *endProcess, during time.Duration) (got outcome, gbps float64, n crossed, err error) {
	n, err = c.across(func() (float64, error) {
		if bulk != nil {
			// It begins before, because it begins slowly, and ends behind.
			const before, behind = 150 * time.Millisecond, 50 * time.Millisecond
			err := bulk.begin(job{Do: "stream", To: c.to(bulkPort), For: before + during + behind, Rate: bulkRate, Control: bulkControl})
			if err != nil {
				return 0, err
			}
			time.Sleep(before)
		}
		got, err = near.do(job{Do: "echo", To: c.to(echoTCPPort), For: during})
		bytes := float64(2 * request * got.Count)
		if bulk != nil {
			sent, bulkErr := bulk.end()
			if err == nil {
				err = bulkErr
			}
			bytes += float64(sent.Bytes)
			gbps = float64(sent.Bytes) * 8 / 1e9 / sent.Took.Seconds()
		}
		return bytes, err
	})
	return got, gbps, n, err
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
