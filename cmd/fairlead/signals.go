package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// heeded are the signals among all that whoever started us wants us to hear:
// nohup and a shell's & ignore some, and listening would undo that.
func heeded(first os.Signal, more ...os.Signal) []os.Signal {
	heard := []os.Signal{first}
	for _, s := range more {
		if !signal.Ignored(s) {
			heard = append(heard, s)
		}
	}
	return heard
}

// A forwarder passes signals of this process on: to a command once it runs,
// before that they end the attempt to run it.
type forwarder struct {
	signals chan os.Signal
	earlier context.Context // ended by a signal that came before we listened
	expect  func() bool     // stops looking out for that

	mu   sync.Mutex // guards what follows
	send func(syscall.Signal) error
	last syscall.Signal // the last that came, 0 without
}

// forwardSignals begins to take the signals a user or a supervisor sends. Those
// for job control stay with this process. One that came earlier has ended ctx.
func forwardSignals(ctx context.Context, cancel func()) *forwarder {
	f := &forwarder{signals: make(chan os.Signal, 16), earlier: ctx}
	f.expect = context.AfterFunc(ctx, cancel)
	f.send = func(syscall.Signal) error { cancel(); return nil }
	signal.Notify(f.signals, heeded(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)...)
	go func() {
		for s := range f.signals {
			f.mu.Lock()
			f.last = s.(syscall.Signal)
			_ = f.send(f.last) // fails when the command has just ended, which is as well
			f.mu.Unlock()
		}
	}()
	return f
}

// to makes send the receiver of every later signal, and of one that came too
// late to stop the attempt.
func (f *forwarder) to(send func(syscall.Signal) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.send = send
	if sig := f.cameLocked(); sig != 0 {
		_ = send(sig)
	}
	f.expect()
}

// cameLocked is the last signal that came, 0 without.
func (f *forwarder) cameLocked() syscall.Signal {
	switch {
	case f.last != 0:
		return f.last
	case f.earlier.Err() == nil:
		return 0
	case context.Cause(f.earlier).Error() == syscall.SIGTERM.String()+" signal received": // see signal.NotifyContext
		return syscall.SIGTERM
	}
	return syscall.SIGINT
}

// orElse is what ended an attempt: a signal, of which nothing need be said, or
// err.
func (f *forwarder) orElse(err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if sig := f.cameLocked(); sig != 0 {
		return exitStatus(128 + int(sig))
	}
	return err
}

func (f *forwarder) stop() {
	f.expect()
	signal.Stop(f.signals)
	close(f.signals)
}
