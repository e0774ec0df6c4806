package node

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"
)

// mishaps are panics that the node outlives: of the two goroutines where parsers of
// others' meet what strangers say, for names and for DHCP. Each has a state nobody
// else has a lock of, and a message that is lost is sent again. Nowhere else are
// panics outlived: a worker would leave locks held and decisions half applied. See
// docs/security.md.
//
// A mishaps belongs to one goroutine.
type mishaps struct {
	of    string // what is lost with each
	count uint64
	said  time.Time
}

// saidEvery is how often one is logged at most, with its stack.
const saidEvery = time.Minute

// outlive runs fn, and reports whether it came to its end. What it had done by then
// stays done.
func (m *mishaps) outlive(fn func()) (whole bool) {
	defer func() {
		if cause := recover(); cause != nil {
			m.happened(cause)
		}
	}()
	fn()
	return true
}

func (m *mishaps) happened(cause any) {
	m.count++
	if time.Since(m.said) < saidEvery {
		return
	}
	m.said = time.Now()
	slog.Error("a panic that the node outlives; please report it", "lost", m.of, "so far", m.count, "panic", cause, "stack", string(debug.Stack()))
}

// fatal has a panic in a handler end the node, as everywhere else. net/http would go
// on, and the registry perhaps be locked for good.
func fatal(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if cause := recover(); cause != nil {
				stack := debug.Stack()
				go func() { panic(fmt.Sprintf("%v\n%s", cause, stack)) }() // where nobody recovers
				select {}
			}
		}()
		h.ServeHTTP(w, r)
	})
}
