package node

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fairlead/loop"
	"fairlead/node/api"
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
						p.begin(t.Context(), 1)
						time.Sleep(took)
						p.pay(t.Context(), 1, took-paceLeast)
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
		serve(2*burst, took)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		start := time.Now()
		if p.begin(ctx, 1) {
			t.Error("who has left has a turn")
		}
		if d := time.Since(start); d > 0 {
			t.Errorf("who has left waits for %v", d)
		}
		if len(p.line) > 0 {
			t.Errorf("nobody waits, and %+v do", p.line)
		}
	})
}

// TestPaceTurns: of who has many requests waiting, and of who owes much, another process
// need not wait for more than what is under way.
func TestPaceTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 255 {
			wg.Go(func() {
				for p.begin(ctx, 1) {
					time.Sleep(paceMost)
					p.pay(ctx, 1, paceMost)
				}
			})
		}
		wg.Go(func() { p.pay(ctx, 2, time.Hour) }) // what it has taken already
		time.Sleep(time.Minute)
		for range 100 {
			start := time.Now()
			p.begin(ctx, 3)
			if d := time.Since(start); d > 3*paceMost*paceShare {
				t.Errorf("a short request waited for %v beside others' long ones", d)
			}
			time.Sleep(100 * time.Millisecond)
		}
		cancel()
		wg.Wait()
		if len(p.line) > 0 {
			t.Errorf("nobody waits, and %+v do", p.line)
		}
	})
}

// meter has so much of a processor be taken at once, so that nothing of what is paid comes
// back meanwhile, and returns what says how much was paid since.
func meter(p *pace, first time.Duration) (paid func() time.Duration) {
	at := int64(time.Since(p.start))
	taken := func() int64 {
		p.mu.Lock()
		defer p.mu.Unlock()
		rate := p.rate
		rate.Take(at, int(paceBurst.Microseconds())) // a debt can be read
		return rate.Until(at)
	}
	p.mu.Lock()
	p.rate.Take(at, int(first.Microseconds()))
	p.mu.Unlock()
	before := taken()
	return func() time.Duration { return time.Duration(taken()-before) / paceShare }
}

// TestHeadersArePaid by the byte, and bodies by whoever asks for them.
func TestHeadersArePaid(t *testing.T) {
	ours, theirs := conns(t)
	conn := &controlConn{UnixConn: ours, pid: 1}
	conn.inPace(newPace())
	paid := meter(conn.pace, paceBurst/2)
	reads := func() (cost time.Duration) {
		before := paid() + time.Duration(conn.owed.Load())
		for range 16 {
			if _, err := theirs.Write(make([]byte, 4<<10)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(conn, make([]byte, 4<<10)); err != nil {
				t.Fatal(err)
			}
		}
		return paid() + time.Duration(conn.owed.Load()) - before
	}
	if cost := reads(); cost < maxHeader*paceByte {
		t.Errorf("a long header costs %v", cost)
	}
	conn.body.Store(true)
	if cost := reads(); cost > 16*2*paceRead {
		t.Errorf("a body costs %v", cost)
	}
}

// TestMessagesArePaid: a message that comes by an upgraded connection is on its bill.
func TestMessagesArePaid(t *testing.T) {
	h := newHandlers(t)
	ours, theirs := conns(t)
	conn := &controlConn{UnixConn: theirs, listener: &controlListener{places: newPlaces(16)}, pid: 1}
	conn.listener.places.take(conn.pid)
	h.served(t, conn)
	if code, text := askBy(ours, "POST /v1/listeners HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: "+api.Protocol+"\r\n\r\n"); code != http.StatusSwitchingProtocols {
		t.Fatalf("%d %s", code, text)
	}
	message, answer := api.Done{Error: strings.Repeat("x", 1000)}, api.Done{}
	if err := api.SendMessage(ours, message, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := api.ReceiveMessage(ours, &answer); err != nil || answer.Error == "" {
		t.Fatalf("%v, %+v", err, answer)
	}
	if owed := time.Duration(conn.owed.Load()); owed < paceRead+1000*paceByte {
		t.Errorf("a message of 1000 bytes costs %v", owed)
	}
}

// TestComputed: what computes is charged the time of its processor, what waits is not.
func TestComputed(t *testing.T) {
	var ran int64
	took := compute(func() {
		for began := loop.ThreadClock(); ran < int64(2*paceMost); ran = loop.ThreadClock() - began {
		}
	})
	if took < time.Duration(ran) || took > time.Duration(ran)+paceMost {
		t.Errorf("of %v are charged %v", time.Duration(ran), took)
	}
	if took := compute(func() { time.Sleep(2 * paceMost) }); took > paceMost {
		t.Errorf("of sleep are charged %v", took)
	}
}
