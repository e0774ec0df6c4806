//go:build race

package vswitch

// detector is how many times as long a packet may take to be written: the race detector
// makes our part of it longer.
const detector = 4
