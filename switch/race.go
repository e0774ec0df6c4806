//go:build race

package vswitch

const (
	raceEnabled = true
	detector    = 4 // times as long a packet may take to be written
)
