package vswitch

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/packet"
	"fairlead/policy"
)

// A Limit is the rates one container is held to, at all its ports together. What
// it sends is not read while it has sent too much: it waits in the container, and
// nothing is lost here. What it is sent beyond its rate is dropped (RateLimit),
// for nobody could wait who sends to others as well. A frame counts with all its
// bytes, a segmentation-offload frame with those of all its segments, headers
// included: what a queueing discipline of the kernel's counts (qdisc_pkt_len_init).
//
// The rates may be changed at any time by any goroutine. A nil Limit is none.
type Limit struct{ in, out atomic.Pointer[meter] }

// A meter is a bucket of bytes that several workers may take from.
type meter struct {
	bandwidth policy.Bandwidth

	mu   sync.Mutex
	rate policy.Rate
}

// What may come at once. A receiver that drops must let a TCP connection begin
// that knows nothing of the rate, and make up for the fifth of a second it is
// silent after it lost a whole window (RFC 6298's time-out, as Linux has it). A
// sender that waits needs no more than a frame or what a turn may be late.
const (
	burstIn, leastBurstIn   = 300 * time.Millisecond, 256 << 10
	burstOut, leastBurstOut = 10 * time.Millisecond, 64 << 10
)

// longestDebt bounds how long a port goes without a look whether its rate was
// changed.
const longestDebt = 100 * time.Millisecond

func newMeter(b policy.Bandwidth, burst time.Duration, least int) *meter {
	if b == 0 {
		return nil
	}
	n := b.Bytes()
	return &meter{bandwidth: b, rate: policy.NewRate(n, max(least, int(float64(n)*burst.Seconds())))}
}

// Set says how much the container may receive and send; zero is no limit. A rate
// that stays as it was keeps its bucket.
func (l *Limit) Set(in, out policy.Bandwidth) {
	oldIn, oldOut := l.Rates()
	if in != oldIn {
		l.in.Store(newMeter(in, burstIn, leastBurstIn))
	}
	if out != oldOut {
		l.out.Store(newMeter(out, burstOut, leastBurstOut))
	}
}

// Rates is what Set has said.
func (l *Limit) Rates() (in, out policy.Bandwidth) {
	if m := l.in.Load(); m != nil {
		in = m.bandwidth
	}
	if m := l.out.Load(); m != nil {
		out = m.bandwidth
	}
	return in, out
}

// receivesAll reports whether the container may be sent whatever comes.
func (l *Limit) receivesAll() bool { return l == nil || l.in.Load() == nil }

// receives reports whether it may be sent n bytes more, and takes them up.
func (l *Limit) receives(now int64, n int) bool {
	m := l.in.Load()
	if m == nil {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.rate.Allows(now) {
		return false
	}
	m.rate.Take(now, n)
	return true
}

// sent takes up frames of n bytes that were read.
func (l *Limit) sent(now int64, n int, frames []packet.Frame) {
	if m := l.out.Load(); m != nil {
		for i := range frames {
			n += frames[i].TrainHeaders()
		}
		m.mu.Lock()
		m.rate.Take(now, n)
		m.mu.Unlock()
	}
}

// debt is how long the container may not send.
func (l *Limit) debt(now int64) time.Duration {
	if l == nil {
		return 0
	}
	m := l.out.Load()
	if m == nil {
		return 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Duration(m.rate.Until(now) - now)
}

// indebted reports whether the port's container has sent more than it may, or the
// port has taken more of the worker's time than it may waste (share.go), and if so has
// it read again when that is over.
func (p *Port) indebted(now int64, events uint32) bool {
	return p.pause(min(max(p.conf.Limit.debt(now), p.overdrawn(now)), longestDebt), events)
}

// pause has the port not read for a while, if that is not none. A link that reports
// its end is read on.
func (p *Port) pause(d time.Duration, events uint32) bool {
	if d == 0 || events&unix.EPOLLERR != 0 {
		return false
	}
	p.n.paused.Add(1)
	p.source.Watch(0)
	if p.debt == nil {
		p.debt = p.worker.AfterFunc(d, func(int64) {
			if !p.lost {
				p.source.Watch(unix.EPOLLIN)
				p.source.Wake() // a source without a descriptor tells of what is new only
			}
		})
	} else {
		p.debt.Reset(d)
	}
	return true
}
