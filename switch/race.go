//go:build race

package vswitch

// detector is how many times as long a write may take: the race detector makes our part
// of it so.
const (
	raceEnabled = true
	detector    = 4
)
