package box

import (
	"errors"
	"testing"

	"fairlead/test/lab"
)

// Where nothing but the channel could say that a process is the init of before, as
// when it is not known when that began, whoever has its number is left alone: a node
// that held a pidfd of it would kill it in the other's place.
func TestReachStranger(t *testing.T) {
	lab.NoLeaks(t)
	r := start(t, none("sleep", "1000"))
	pid, err := PIDOf(r.PIDFD)
	if err != nil {
		t.Fatal(err)
	}
	begun, err := StartOf(r.PIDFD)
	if err != nil {
		t.Fatal(err)
	}
	for name, i := range map[string]Init{
		"its beginning is not known": {PID: pid},
		"it is another one":          {PID: pid, Start: begun + 1},
	} {
		if got, err := Reach(i); !errors.Is(err, ErrGone) {
			t.Errorf("%s: %v", name, err)
			got.Close()
		}
	}
	got, err := Reach(Init{PID: pid, Start: begun})
	if err == nil || errors.Is(err, ErrGone) || got.PIDFD < 0 {
		t.Errorf("one that keeps nothing is taken for gone: %v", err)
	}
	got.Close()
}
