package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"
)

// A signal reaches whoever can act on it, whenever it comes.
func TestForwardSignals(t *testing.T) {
	cancelled, got := make(chan struct{}), make(chan syscall.Signal, 2)
	f := forwardSignals(t.Context(), func() { close(cancelled) })
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

// One that came before anybody forwarded signals is not lost.
func TestForwardEarlierSignal(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		if err := syscall.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
		<-ctx.Done()
		cancelled := make(chan struct{})
		f := forwardSignals(ctx, func() { close(cancelled) })
		defer f.stop()
		<-cancelled
		if err := f.orElse(nil); err != exitStatus(128+int(sig)) { //nolint:errorlint // the very one
			t.Errorf("after %v: %v", sig, err)
		}
		var got syscall.Signal
		f.to(func(s syscall.Signal) error { got = s; return nil })
		if got != sig {
			t.Errorf("%v was sent, want %v", got, sig)
		}
	}
}
