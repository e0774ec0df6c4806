package node

import (
	"context"
	"sync"
	"time"
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

// A pace is what clients have taken, kept as policy.Rate keeps a bucket: as the moment
// at which all is repaid. Any goroutine may use it.
type pace struct {
	mu     sync.Mutex
	repaid time.Time
	turn   chan struct{} // of those in debt one waits for the time, the others for it
}

func newPace() *pace { return &pace{repaid: time.Now(), turn: make(chan struct{}, 1)} }

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
	if now := time.Now(); p.repaid.Before(now) {
		p.repaid = now
	}
	p.repaid = p.repaid.Add(paceShare * took)
}

// debt is how long it takes until no more is owed than may be taken at once.
func (p *pace) debt() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Until(p.repaid) - paceShare*paceBurst
}
