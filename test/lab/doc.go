// Package lab is where tests and benchmarks get their hosts, links and
// clients: network namespaces stand for hosts, kernel veth pairs for cables.
//
//	lab.NoLeaks(t)
//	lab.Need(t, "ping")
//	a, b := lab.NewHost(t, "a"), lab.NewHost(t, "b")
//	lab.Join(t, a, "eth0", b, "eth0")
//	a.Addr(t, "eth0", "10.0.0.1/24")
//	b.Addr(t, "eth0", "10.0.0.2/24")
//	a.Run(t, "ping", "-c1", "10.0.0.2")
//
// Hosts exist in the world of package world only, so that nothing here can
// touch the machine: `make test` runs there, and `go test -exec "$PWD/bin/world"`.
// Elsewhere, and where a client program is missing, the test is listed as not
// run; see Need.
//
// A Host may be used by several goroutines. The functions that take a T belong
// to the goroutine of that test.
package lab

import (
	"fmt"
	"time"
)

// T is what the lab uses of a *testing.T. A benchmark program that is no test
// has one of its own.
type T interface {
	Helper()
	Name() string
	Cleanup(func())
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any) // does not return
	Skipf(format string, args ...any)  // does not return
}

// Eventually calls check until it returns nil, and fails the test with its last
// error when that takes longer than within.
func Eventually(t T, within time.Duration, check func() error) {
	t.Helper()
	if err := eventually(within, check); err != nil {
		t.Fatalf("not within %v: %v", within, err)
	}
}

func eventually(within time.Duration, check func() error) error {
	deadline := time.Now().Add(within)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := check()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(pause)
	}
}

// must fails the test when a step of the lab itself fails.
func must(t T, err error, format string, args ...any) {
	t.Helper()
	if err != nil {
		t.Fatalf("lab: %s: %v", fmt.Sprintf(format, args...), err)
	}
}
