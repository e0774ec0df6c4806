//go:build race

package vswitch

// The race detector makes our part of a write several times as long, and far more than
// that where a wire has us finish each packet.
const (
	raceEnabled = true
	detector    = 10
)
