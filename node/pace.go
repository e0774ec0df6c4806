package node

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"

	"fairlead/loop"
	"fairlead/policy"
)

// Clients' requests may take one part of paceShare of a processor, and paceBurst of it
// at once: a thousand containers are made in that. Whoever asks for more waits, so that
// no client has the workers and the containers wait for processors.
//
// Processes take turns. Each turn is paid for when it comes, with paceMost at most, and
// what a request has taken beyond that its process pays in further turns. So how much one
// has waiting or owes is of no account to the next, which waits for one turn of each.
const (
	paceShare = 8
	paceBurst = 2 * time.Second
	// A request pays paceLeast when it begins, which is what reading it and writing the
	// answer take. Short ones that take longer than paceMost wait for something.
	paceLeast = 200 * time.Microsecond
	paceMost  = 10 * time.Millisecond
	// What one read of a connection takes, with waking up for it, and each byte of a header
	// or message, which are taken apart before anybody looks at a clock. Of a header with
	// lines as short as they can be it is that much.
	paceRead = 10 * time.Microsecond
	paceByte = 50 * time.Nanosecond
	// How much a connection may owe before it waits for its turn in the midst of a request.
	oweMost = 2 * paceLeast
)

// A pace is what clients have taken, and who waits to take more. Any goroutine may use it.
type pace struct {
	start time.Time // of its clock

	mu     sync.Mutex
	rate   policy.Rate // of microseconds
	line   []*caller   // the first one's turn is next
	waking bool        // next will be called
}

// A caller is a process that waits, for its turns in their order.
type caller struct {
	pid     int
	waiting []turn
}

// A turn is one that a request waits for.
type turn struct {
	came chan struct{} // closed when it has
	cost time.Duration
}

func newPace() *pace {
	return &pace{
		start: time.Now(),
		rate:  policy.NewRate(int((time.Second / paceShare).Microseconds()), int(paceBurst.Microseconds())),
	}
}

// begin waits until it is the turn of a process for a short request. It returns false if
// nobody waits for that any more.
func (p *pace) begin(ctx context.Context, pid int) bool { return p.wait(ctx, pid, paceLeast) }

// pay waits until a process has paid what it owes, as begin does.
func (p *pace) pay(ctx context.Context, pid int, owed time.Duration) bool {
	for ; owed > 0; owed -= paceMost {
		if !p.wait(ctx, pid, min(owed, paceMost)) {
			return false
		}
	}
	return true
}

func (p *pace) wait(ctx context.Context, pid int, cost time.Duration) bool {
	came := p.enter(pid, cost)
	select {
	case <-came:
		return true
	case <-ctx.Done():
		return !p.leave(pid, came)
	}
}

// enter puts a process into the line for a turn, and returns what is closed when that
// has come.
func (p *pace) enter(pid int, cost time.Duration) (came chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := turn{make(chan struct{}), cost}
	if c := p.callerLocked(pid); c != nil {
		c.waiting = append(c.waiting, t)
	} else {
		p.line = append(p.line, &caller{pid: pid, waiting: []turn{t}})
	}
	if !p.waking {
		p.nextLocked()
	}
	return t.came
}

func (p *pace) callerLocked(pid int) *caller {
	if i := slices.IndexFunc(p.line, func(c *caller) bool { return c.pid == pid }); i >= 0 {
		return p.line[i]
	}
	return nil
}

// leave takes a turn out of the line; false is that it has come already.
func (p *pace) leave(pid int, came chan struct{}) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.callerLocked(pid)
	if c == nil {
		return false
	}
	i := slices.IndexFunc(c.waiting, func(t turn) bool { return t.came == came })
	if i < 0 {
		return false
	}
	if c.waiting = slices.Delete(c.waiting, i, i+1); len(c.waiting) == 0 {
		p.line = slices.DeleteFunc(p.line, func(o *caller) bool { return o == c })
	}
	return true
}

func (p *pace) next() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nextLocked()
}

// nextLocked has whoever is next go on, as long as there is time to be had, and comes
// back when there is some again.
func (p *pace) nextLocked() {
	p.waking = false
	for len(p.line) > 0 {
		if debt := p.debtLocked(); debt > 0 {
			p.waking = true
			time.AfterFunc(debt, p.next)
			return
		}
		c := p.line[0]
		t := c.waiting[0]
		p.line = slices.Delete(p.line, 0, 1)
		if c.waiting = slices.Delete(c.waiting, 0, 1); len(c.waiting) > 0 {
			p.line = append(p.line, c)
		}
		p.rate.Take(int64(time.Since(p.start)), int(t.cost.Microseconds()))
		close(t.came)
	}
}

// debtLocked is how long it takes until something may be taken again.
func (p *pace) debtLocked() time.Duration {
	now := int64(time.Since(p.start))
	return time.Duration(p.rate.Until(now) - now)
}

// compute has fn run, which may not wait for a client, and returns how long a processor
// was busy with that.
func compute(fn func()) time.Duration {
	runtime.LockOSThread() // whose clock it is
	defer runtime.UnlockOSThread()
	began := loop.ThreadClock()
	fn()
	return time.Duration(loop.ThreadClock() - began)
}
