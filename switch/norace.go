//go:build !race

package vswitch

const detector = 1
