package main

import (
	"fmt"
	"time"

	hosts "fairlead/test/lab"
)

// A badLine is a long way, or one on which packets get lost.
type badLine struct {
	name string
	line hosts.Line
	what string

	seconds int // of one measurement: a connection over a long line begins slowly
}

// badLines are what there may be between the machine and the outside.
var badLines = []badLine{
	{"1ms", hosts.Line{Delay: 500 * time.Microsecond}, "1 ms round trip", 1},
	{"20ms", hosts.Line{Delay: 10 * time.Millisecond}, "20 ms round trip", 2},
	{"100ms", hosts.Line{Delay: 50 * time.Millisecond}, "100 ms round trip", 3},
	{"loss", hosts.Line{Delay: 10 * time.Millisecond, Loss: 0.01, Seed: 1}, "20 ms round trip, 1 % of the packets lost", 2},
}

// hostLine is iperf3 over a line that is long or bad, of a container and of the
// machine itself, over the same relay. All sockets have the machine's default
// congestion control: with CUBIC a line that loses packets shows nothing else.
func hostLine(d direction, b badLine) *workload {
	w := &workload{name: fmt.Sprintf("host-%s-%s", d, b.name), unit: "Gb/s", takes: func(o *options) time.Duration {
		return time.Duration(2*o.Pairs) * (time.Duration(b.seconds)*time.Second + around)
	}}
	w.what = map[direction]string{out: "TCP from a container to a host outside, ", in: "TCP from a host outside to a published port, "}[d] + b.what
	w.measure = func(l *lab, o *options, r *results) {
		hosts.Need(l, "iperf3")
		through := laySite(l, leaders[0], "", &b.line)
		through.serveIperf(l, d)
		direct := &site{
			leader: &leader{name: "direct"}, iperf: directPort,
			container: through.machine, machine: through.machine, outside: through.outside,
		}
		direct.inside = direct.machine.Serve(l, "sleep", "100000").Pid()
		direct.serveIperf(l, d)
		m := &sites{w: w, r: r}
		ours, plain := &measured{site: through}, &measured{site: direct}
		m.list = []*measured{ours, plain}
		for _, e := range m.list {
			e.figure = r.figure(w, e.name)
			e.measure = func(int) (sample, error) { return e.bulk(l, d, b.seconds, 1) }
		}
		m.rounds(l, o)
		r.atLeast(ours.figure, plain.figure, lineBar)
		r.undropped(ours.figure)
	}
	return w
}

// directPort is where iperf3 serves without fairlead: the machine's own, in one
// direction.
const directPort = 5202
