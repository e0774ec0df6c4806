//go:build !race

package vswitch

const (
	raceEnabled = false
	detector    = 1
)
