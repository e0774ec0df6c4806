package node

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestPace: what is taken at once goes on at once, what is taken beyond that is one part
// of paceShare of the time, however many ask together, and rest brings it back.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace()
		const took, clients = 5 * time.Millisecond, 20
		serve := func(requests int, took time.Duration) time.Duration {
			start := time.Now()
			var wg sync.WaitGroup
			for range clients {
				wg.Go(func() {
					for range requests / clients {
						p.begin(t.Context())
						time.Sleep(took)
						p.end(took)
					}
				})
			}
			wg.Wait()
			return time.Since(start)
		}
		const burst = int(paceBurst / took)
		if d := serve(burst/clients*clients, took); d > paceBurst {
			t.Errorf("what may be taken at once took %v", d)
		}
		serve(10*clients, took) // what goes by before all are in debt
		want := 1000 * took * paceShare
		if d := serve(1000, took); d < want*9/10 || d > want*11/10 {
			t.Errorf("1000 requests of %v took %v, want about %v", took, d, want)
		}
		if d := serve(1000, time.Microsecond); d < 1000*paceLeast*paceShare*9/10 {
			t.Errorf("1000 requests of a microsecond took %v", d)
		}
		if d := serve(clients, took); d < took*paceShare {
			t.Errorf("who is in debt got %d answers in %v", clients, d)
		}
		time.Sleep(paceShare * paceBurst)
		if d := serve(burst/clients*clients, took); d > paceBurst {
			t.Errorf("after a rest what may be taken at once took %v", d)
		}
		time.Sleep(paceShare * paceBurst)
		p.end(time.Hour) // somebody has watched for an hour
		if d := p.debt(); d > 0 {
			t.Errorf("who waited for long costs %v", d)
		}
		serve(2*burst, took)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		start := time.Now()
		p.begin(ctx)
		if d := time.Since(start); d > 0 {
			t.Errorf("who has left waits for %v", d)
		}
	})
}
