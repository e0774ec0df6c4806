package main

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	hosts "fairlead/test/lab"
)

// A lab is the T of package lab for a program that is no test. What is made
// with it lasts until do returns.
type lab struct {
	ctx      context.Context // ends with Ctrl-C
	name     string
	cleanups []func()
	err      error

	attempted bool // a failure is told in one line
}

// broken ends what do called.
type broken struct{}

// attempt calls fn, which may break off without ending all the rest. What it
// made then is gone, else it lasts as long as l.
func (l *lab) attempt(fn func(l *lab)) error {
	part := &lab{ctx: l.ctx, name: l.name, attempted: true}
	return part.do(func() {
		fn(part)
		l.cleanups = append(l.cleanups, part.cleanups...)
		part.cleanups = nil
	})
}

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
func (l *lab) Failed() bool { return l.err != nil && l.ctx.Err() == nil && !l.attempted }

// packages lists the programs of others and where Debian has them.
//
//go:embed packages.txt
var packages string

// packageOf is the Debian package of a program.
func packageOf(program string) string {
	for line := range strings.Lines(packages) {
		line, _, _ = strings.Cut(line, "#")
		if f := strings.Fields(line); len(f) > 1 && slices.Contains(f[1:], program) {
			return f[0]
		}
	}
	panic("bench: name the package that has " + program + " in packages.txt")
}

// PackageOf is what package lab asks: what is installed has no checkout to read it from.
func (l *lab) PackageOf(program string) string { return packageOf(program) }

// Skipf says that something is missing here, and what to try.
func (l *lab) Skipf(f string, a ...any) { l.Fatalf(f, a...) }

// dir makes a folder that lasts as long as l.
func (l *lab) dir() string {
	dir, err := os.MkdirTemp("", "bench")
	l.check(err, "make a folder")
	l.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// comes waits until a service is ready, and says what it said when it is not.
func (l *lab) comes(s *hosts.Service, ready func() error) {
	deadline := time.Now().Add(5 * time.Second)
	for err := ready(); err != nil; err = ready() {
		if time.Now().After(deadline) || l.ctx.Err() != nil {
			said := strings.TrimSpace(s.Output())
			s.Stop()
			l.check(errors.New(cmp.Or(said[strings.LastIndexByte(said, '\n')+1:], err.Error())), "%s", "it does not start")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// check breaks off for an error.
func (l *lab) check(err error, doing string, a ...any) {
	if l.ctx.Err() != nil {
		l.Fatalf("interrupted")
	}
	if err != nil {
		l.Fatalf("%s: %w", fmt.Sprintf(doing, a...), err)
	}
}
