package node

import (
	"fmt"
	"strings"
	"testing"

	"fairlead/packet"
	"fairlead/uplink/sockets"
)

// What sockets have altered or lost has a name that no drop has, a sentence, and one that
// says what to try.
func TestSocketLosses(t *testing.T) {
	seen := map[string]bool{}
	for r := range packet.NumReasons {
		seen[packet.Reason(r).String()] = true
	}
	all := sockets.Stats{
		Options: packet.Tally{N: 1}, NoChecksum: packet.Tally{N: 2}, Damaged: packet.Tally{N: 3}, Overrun: packet.Tally{N: 4},
		Truncated: packet.Tally{N: 5}, Incomplete: packet.Tally{N: 6}, Overlapping: packet.Tally{N: 7}, Unaccepted: packet.Tally{N: 8},
	}
	counted := map[uint64]bool{}
	for _, l := range socketLosses {
		if seen[l.reason] || !strings.HasSuffix(l.why, ".") || !strings.HasSuffix(l.try, ".") || l.direction != "altered" && l.direction != "lost" {
			t.Errorf("%s: %q, %q", l.reason, l.why, l.try)
		}
		seen[l.reason] = true
		counted[l.count(&all).N] = true
	}
	if len(counted) != 8 || counted[0] {
		t.Errorf("of eight counters these are shown: %v", counted)
	}
	if bound := fmt.Sprintf("the container has %d,%03d,", maxContainer/1000, maxContainer%1000); !strings.Contains(packet.SocketBudget.Try(), bound) {
		t.Errorf("%q does not say that %s", packet.SocketBudget.Try(), bound)
	}
}
