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
	all := sockets.Stats{Options: 1, NoChecksum: 2, Damaged: 3, Overrun: 4, Truncated: 5, Incomplete: 6, Overlapping: 7, Unaccepted: 8}
	counted := map[uint64]bool{}
	for _, l := range socketLosses {
		if seen[l.reason] || l.why == "" || l.direction != "altered" && l.direction != "lost" {
			t.Errorf("%+v", l.reason)
		}
		seen[l.reason] = true
		counted[l.count(&all)] = true
	}
	if len(counted) != 8 || counted[0] {
		t.Errorf("of eight counters these are shown: %v", counted)
	}
}
