package node

import (
	"context"
	"sync"
	"time"

	"fairlead/policy"
)

// Clients' requests may take one part of paceShare of a processor, and paceBurst of it
// at once: a thousand containers are made in that. Whoever asks for more waits, so that
// no client has the workers and the containers wait for processors.
const (
	paceShare = 8
	paceBurst = 2 * time.Second
	// A request is charged paceLeast when it begins, which is what reading it and writing
	// the answer take, and in the end what it took beyond that, up to paceMost: one that
	// takes longer waits for something.
	paceLeast = 200 * time.Microsecond
	paceMost  = 10 * time.Millisecond
)

// A pace is what clients have taken. Any goroutine may use it.
type pace struct {
	start time.Time     // of its clock
	turn  chan struct{} // of those in debt one waits for the time, the others for it

	mu   sync.Mutex
	rate policy.Rate // of microseconds
}

func newPace() *pace {
	return &pace{
		start: time.Now(), turn: make(chan struct{}, 1),
		rate: policy.NewRate(int((time.Second / paceShare).Microseconds()), int(paceBurst.Microseconds())),
	}
}

// begin waits until there may be one more request, or nobody waits for its answer.
func (p *pace) begin(ctx context.Context) {
	defer p.charge(paceLeast)
	if p.debt() <= 0 {
		return
	}
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return
	}
	for debt := p.debt(); debt > 0; debt = p.debt() {
		select {
		case <-time.After(debt):
		case <-ctx.Done():
			return
		}
	}
}

// end charges what the request took beyond what it was charged at the beginning.
func (p *pace) end(took time.Duration) {
	p.charge(max(min(took, paceMost)-paceLeast, 0))
}

func (p *pace) charge(took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rate.Take(int64(time.Since(p.start)), int(took.Microseconds()))
}

// debt is how long it takes until something may be taken again.
func (p *pace) debt() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := int64(time.Since(p.start))
	return time.Duration(p.rate.Until(now) - now)
}
