//go:build !cgo

package lockin

func ofC() []call { return nil }
