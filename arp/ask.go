package arp

import (
	"bytes"
	"slices"
	"time"

	"fairlead/packet"
)

// How a table asks: as the kernel does by default (mcast_solicit, retrans_time),
// and RFC 1122 2.3.2.1 wants no more than one request a second.
const (
	maxAsks   = 3
	askEvery  = int64(time.Second)
	failedFor = int64(3 * time.Second) // the negative cache
	// MaxAsking is how many addresses one container makes us ask for at the same
	// time, those that have failed lately included: who scans a subnet neither
	// fills the table nor floods the segment, and hinders nobody else.
	MaxAsking = 64
)

// A question is an address that was asked for and not heard since.
type question struct {
	by     packet.ContainerID
	asks   uint8
	failed bool
	due    int64 // when it is asked again, fails, or is forgotten
}

func (q question) entry(addr [4]byte) Entry {
	e := Entry{Addr: addr, Container: q.by, State: Incomplete}
	if q.failed {
		e.State = Failed
	}
	return e
}

// Asked takes down that a request for addr is sent now, because of a packet of
// container by, and returns when Tick is due. It returns false when no request
// is to be sent: one is on its way already, or the container has made us ask for
// MaxAsking others.
func (t *Table) Asked(now int64, addr [4]byte, by packet.ContainerID) (next int64, ok bool) {
	if q, asked := t.questions[addr]; asked && (!q.failed || now < q.due) {
		return 0, false
	}
	t.answered(addr)
	if !t.MayAsk(by) {
		return 0, false
	}
	t.asking[by]++
	t.questions[addr] = question{by: by, asks: 1, due: now + askEvery}
	return now + askEvery, true
}

// MayAsk reports whether a container may make us ask for one more address.
func (t *Table) MayAsk(by packet.ContainerID) bool { return t.asking[by] < MaxAsking }

// answered takes a question off.
func (t *Table) answered(addr [4]byte) (q question, ok bool) {
	q, ok = t.questions[addr]
	if !ok {
		return q, false
	}
	delete(t.questions, addr)
	if t.asking[q.by]--; t.asking[q.by] == 0 {
		delete(t.asking, q.by)
	}
	return q, true
}

// Tick does what is due: it calls ask for each address a request is to be sent
// for, and failed for each that has not answered. Neither may use the table. It
// returns when it is due again, zero when nothing is.
func (t *Table) Tick(now int64, ask, failed func(addr [4]byte)) (next int64) {
	var due [][4]byte
	for addr, q := range t.questions {
		if q.due <= now {
			due = append(due, addr)
		} else if next == 0 || q.due < next {
			next = q.due
		}
	}
	slices.SortFunc(due, func(a, b [4]byte) int { return bytes.Compare(a[:], b[:]) })
	for _, addr := range due {
		q := t.questions[addr]
		switch {
		case q.failed:
			t.answered(addr)
			continue
		case q.asks < maxAsks:
			q.asks++
			q.due = now + askEvery
			ask(addr)
		default:
			t.Remove(addr) // it may have been known, and is no more
			t.asking[q.by]++
			q.failed, q.due = true, now+failedFor
			failed(addr)
		}
		t.questions[addr] = q
		if next == 0 || q.due < next {
			next = q.due
		}
	}
	return next
}
