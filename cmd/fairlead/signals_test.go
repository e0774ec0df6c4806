package main

import (
	"errors"
	"os"
	"syscall"
	"testing"
	"time"
)

// A signal reaches whoever can act on it, whenever it comes.
func TestForwardSignals(t *testing.T) {
	cancelled, got := make(chan struct{}), make(chan syscall.Signal, 2)
	f := forwardSignals(func() { close(cancelled) })
	defer f.stop()
	kill := func(s syscall.Signal) {
		if err := syscall.Kill(os.Getpid(), s); err != nil {
			t.Fatal(err)
		}
	}
	receive := func(want syscall.Signal) {
		t.Helper()
		select {
		case s := <-got:
			if s != want {
				t.Errorf("%v came, want %v", s, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%v did not come", want)
		}
	}
	failed := errors.New("failed")
	if err := f.orElse(failed); err != failed { //nolint:errorlint // the very one
		t.Errorf("before any signal: %v", err)
	}
	kill(syscall.SIGUSR1)
	<-cancelled
	if err := f.orElse(failed); err != exitStatus(128+int(syscall.SIGUSR1)) { //nolint:errorlint // the very one
		t.Errorf("after a signal: %v", err)
	}
	f.to(func(s syscall.Signal) error { got <- s; return nil })
	receive(syscall.SIGUSR1) // the attempt succeeded all the same
	kill(syscall.SIGUSR2)
	receive(syscall.SIGUSR2)
}
