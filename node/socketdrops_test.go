package node

import (
	"testing"

	"fairlead/packet"
	"fairlead/uplink/sockets"
)

// What sockets have altered or lost has a name that no drop has, and a sentence.
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
		if seen[l.reason] || l.why == "" || l.direction != "altered" && l.direction != "lost" {
			t.Errorf("%+v", l.reason)
		}
		seen[l.reason] = true
		counted[l.count(&all).N] = true
	}
	if len(counted) != 8 || counted[0] {
		t.Errorf("of eight counters these are shown: %v", counted)
	}
}
