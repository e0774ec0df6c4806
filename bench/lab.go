package main

import (
	"context"
	"fmt"
	"os"
	"slices"
)

// A lab is the T of package lab for a program that is no test. What is made
// with it lasts until do returns.
type lab struct {
	ctx      context.Context // ends with Ctrl-C
	name     string
	cleanups []func()
	err      error
}

// broken ends what do called.
type broken struct{}

// do calls fn and cleans up behind it, also when it broke off.
func (l *lab) do(fn func()) error {
	func() {
		defer func() {
			if r := recover(); r != nil {
				if _, ok := r.(broken); !ok {
					panic(r)
				}
			}
		}()
		fn()
	}()
	for _, clean := range slices.Backward(l.cleanups) {
		clean()
	}
	l.cleanups = nil
	return l.err
}

func (l *lab) Helper()                   {}
func (l *lab) Name() string              { return l.name }
func (l *lab) Cleanup(fn func())         { l.cleanups = append(l.cleanups, fn) }
func (l *lab) Logf(f string, a ...any)   { endProgress(); fmt.Fprintf(os.Stderr, f+"\n", a...) }
func (l *lab) Errorf(f string, a ...any) { l.err = fmt.Errorf(f, a...) }
func (l *lab) Fatalf(f string, a ...any) { l.Errorf(f, a...); panic(broken{}) }

// Failed has what services said shown, unless it was the user who ended it.
func (l *lab) Failed() bool { return l.err != nil && l.ctx.Err() == nil }

// Skipf says that something is missing here, and what to try.
func (l *lab) Skipf(f string, a ...any) { l.Fatalf(f, a...) }

// check breaks off for an error.
func (l *lab) check(err error, doing string, a ...any) {
	if l.ctx.Err() != nil {
		l.Fatalf("interrupted")
	}
	if err != nil {
		l.Fatalf("%s: %w", fmt.Sprintf(doing, a...), err)
	}
}
