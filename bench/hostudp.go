package main

import (
	"errors"
	"fmt"
	"math"
	"time"

	hosts "fairlead/test/lab"
)

// What fairlead has to reach beside the best peer.
const (
	datagramBar   = 2.0 // times the datagrams
	connectionBar = 1.0 // the connections, and the time of a request
)

// Datagrams are counted as long as no more than this part of them gets lost.
const lossLimit = 0.01

// atUsualMTU is the class peers of these workloads are in: nobody counts
// datagrams of 1400 bytes, or connections, at an MTU of 64 KiB.
func atUsualMTU(p *leader) bool { return p.mtu <= 1500 && !p.rawUDP }

// carriesDatagrams is the class of those that do, whatever else they do not.
func carriesDatagrams(p *leader) bool { return p.mtu <= 1500 }

// ends lays sites of that class with a far and a near end.
func (w *workload) ends(l *lab, o *options, r *results, d direction, class func(p *leader) bool, prepare func(l *lab, s *site, near, far *endProcess) func(round int) (sample, error)) *sites {
	return w.sites(l, o, r, d, "", class, func(l *lab, s *site) func(int) (sample, error) {
		far := startFar(l, s.commandOn(l, !d.side()), datagrams{})
		near := startEnd(l, s.commandOn(l, d.side()), "near")
		// What is slow only once: ARP, and the first flow.
		for deadline := time.Now().Add(10 * time.Second); !s.rawUDP; {
			_, err := near.do(job{Do: "echo", To: s.server(d, echoTCPPort), For: time.Millisecond})
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				l.check(err, "reach the other end")
			}
		}
		return prepare(l, s, near, far)
	})
}

// commandOn prepares commands in the container, or outside.
func (s *site) commandOn(l *lab, inside bool) func(name string, args ...string) *hosts.Cmd {
	return func(name string, args ...string) *hosts.Cmd { return s.command(l.ctx, inside, name, args...) }
}

// hostUDP is how many datagrams of a size arrive in a second while hardly any is
// lost.
func hostUDP(d direction, size int) *workload {
	w := &workload{name: fmt.Sprintf("host-%s-udp%d", d, size), unit: "k/s", takes: takeSites(d, carriesDatagrams, 1200*time.Millisecond)}
	w.what = fmt.Sprintf("UDP datagrams of %d bytes, as many as arrive with at most 1 %% lost, %s", size, map[direction]string{
		out: "from a container", in: "to a published port",
	}[d])
	w.measure = func(l *lab, o *options, r *results) {
		m := w.ends(l, o, r, d, carriesDatagrams, func(l *lab, s *site, near, far *endProcess) func(int) (sample, error) {
			f := &flooding{near: near, far: far, job: job{Do: "datagrams", To: s.server(d, sinkPort), For: trial, Datagrams: datagrams{Least: size, Most: size}}}
			return func(int) (sample, error) {
				var rate, bytes float64
				q, err := s.across(func() (payload float64, err error) {
					rate, bytes, err = f.search()
					return bytes, err
				})
				q.Value, q.Frames = rate/1e3, bytes/float64(size)
				return q, err
			}
		})
		m.rounds(l, o)
		m.bar(atUsualMTU, "at MTU 1500", datagramBar)
	}
	return w
}

// hostUDPCost is what of a processor a datagram takes in the process that carries
// it, at a rate that all bear: how many arrive at most is on a small machine a
// matter of the sender, and of who is not scheduled for some milliseconds.
func hostUDPCost(d direction, size int) *workload {
	w := &workload{name: fmt.Sprintf("host-%s-udp%d-cpu", d, size), unit: "µs", less: true, takes: takeSites(d, carriesDatagrams, 700*time.Millisecond)}
	w.what = fmt.Sprintf("processor time for each UDP datagram of %d bytes, %d a second, %s", size, costRate, map[direction]string{
		out: "from a container", in: "to a published port",
	}[d])
	w.measure = func(l *lab, o *options, r *results) {
		m := w.ends(l, o, r, d, carriesDatagrams, func(l *lab, s *site, near, far *endProcess) func(int) (sample, error) {
			f := &flooding{near: near, far: far, job: job{Do: "datagrams", To: s.server(d, sinkPort), For: time.Second / 2, Datagrams: datagrams{Least: size, Most: size}}}
			return func(int) (sample, error) {
				if s.pid == 0 {
					return sample{}, errors.New("it is several processes, one for each port")
				}
				var arrived, sent outcome
				q, err := s.across(func() (payload float64, err error) {
					arrived, sent, err = f.try(costRate)
					return float64(arrived.Bytes), err
				})
				if err == nil && float64(arrived.Count) < (1-lossLimit)*float64(sent.Count) {
					err = fmt.Errorf("of %d datagrams %d arrived", sent.Count, arrived.Count)
				}
				q.Value, q.Frames = q.CPU/float64(arrived.Count)*1e6, float64(arrived.Count)
				return q, err
			}
		})
		m.rounds(l, o)
		m.compare()
	}
	return w
}

// costRate is how many datagrams are sent in a second when their cost is measured.
const costRate = 20_000

// trial is how long datagrams are sent at one rate.
const trial = 200 * time.Millisecond

// A flooding looks for the highest rate at which hardly a datagram is lost.
type flooding struct {
	near, far *endProcess
	job       job
	last      float64 // rate found the last time
}

// search tries rates: the first time from a low one upwards, then around what
// was found. It returns how many arrive in a second, and how many bytes arrived
// in all.
func (f *flooding) search() (best, payload float64, err error) {
	rate, step, trials := 20e3, 2.0, 14
	if f.last > 0 {
		rate, step, trials = f.last, 1.2, 4
	}
	low, high := 0.0, math.Inf(1)
	for range trials {
		arrived, sent, err := f.try(rate)
		if err != nil {
			return 0, 0, err
		}
		payload += float64(arrived.Bytes)
		if sent.Count > 0 && float64(arrived.Count) >= (1-lossLimit)*float64(sent.Count) {
			best, low = max(best, float64(arrived.Count)/sent.Took.Seconds()), rate
			if float64(sent.Count) < 0.9*rate*sent.Took.Seconds() {
				break // the sender cannot, or is held back
			}
		} else {
			high = rate
		}
		switch {
		case low == 0:
			rate = high / step
		case math.IsInf(high, 1):
			rate = low * step
		default:
			rate = math.Sqrt(low * high)
		}
		if high/low < 1.05 || rate < 1000 {
			break
		}
	}
	f.last = best
	return best, payload, nil
}

// try sends at a rate, 0 being as fast as it can, and counts what arrives.
func (f *flooding) try(rate float64) (arrived, sent outcome, err error) {
	before, err := f.arrived()
	if err != nil {
		return arrived, sent, err
	}
	f.job.Rate = rate
	if sent, err = f.near.do(f.job); err != nil {
		return arrived, sent, err
	}
	arrived, err = f.arrived()
	return arrived.minus(before), sent, err
}

// arrived counts when no more arrive.
func (f *flooding) arrived() (outcome, error) {
	for last := uint64(math.MaxUint64); ; {
		o, err := f.far.do(job{Do: "count"})
		if err != nil || o.Count == last {
			return o, err
		}
		last = o.Count
		time.Sleep(20 * time.Millisecond)
	}
}

// hostConnections is how many connections are made in a second, eight side by
// side, each with a request, an answer and an end.
func hostConnections(d direction) *workload {
	w := &workload{name: fmt.Sprintf("host-%s-conns", d), unit: "1/s", takes: takeSites(d, atUsualMTU, 900*time.Millisecond)}
	w.what = "TCP connections with a request of 100 bytes, " + map[direction]string{out: "from a container", in: "to a published port"}[d]
	w.measure = func(l *lab, o *options, r *results) {
		m := w.ends(l, o, r, d, atUsualMTU, func(l *lab, s *site, near, _ *endProcess) func(int) (sample, error) {
			return func(int) (sample, error) {
				var got outcome
				q, err := s.across(func() (payload float64, err error) {
					got, err = near.do(job{Do: "once", To: s.server(d, oncePort), For: 700 * time.Millisecond})
					return float64(2 * request * got.Count), err
				})
				q.Value = float64(got.Count) / got.Took.Seconds()
				return q, err
			}
		})
		m.rounds(l, o)
		m.bar(atUsualMTU, "at MTU 1500", connectionBar)
	}
	return w
}

// hostLatency is how long a request and its answer take on a connection with
// nothing else on it.
func hostLatency(d direction) *workload {
	w := &workload{name: fmt.Sprintf("host-%s-request", d), unit: "µs", less: true, takes: takeSites(d, atUsualMTU, 500*time.Millisecond)}
	w.what = "median time of a request and an answer of 100 bytes, " + map[direction]string{out: "from a container", in: "to a published port"}[d]
	w.measure = func(l *lab, o *options, r *results) {
		m := w.ends(l, o, r, d, atUsualMTU, func(l *lab, s *site, near, _ *endProcess) func(int) (sample, error) {
			return func(int) (sample, error) {
				var got outcome
				q, err := s.across(func() (payload float64, err error) {
					got, err = near.do(job{Do: "echo", To: s.server(d, echoTCPPort), For: 300 * time.Millisecond})
					return float64(2 * request * got.Count), err
				})
				q.Value = micros(got.P50)
				return q, err
			}
		})
		m.rounds(l, o)
		m.bar(atUsualMTU, "at MTU 1500", connectionBar)
	}
	return w
}
