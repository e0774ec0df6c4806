package main

import (
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

	mu   sync.Mutex // guards what follows
	send func(syscall.Signal) error
	last syscall.Signal // the last that came, 0 without
}

// forwardSignals begins to take the signals a user or a supervisor sends. Those
// for job control stay with this process.
func forwardSignals(cancel func()) *forwarder {
	f := &forwarder{signals: make(chan os.Signal, 16)}
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
	if f.last != 0 {
		_ = send(f.last)
	}
}

// orElse is what ended an attempt: a signal, of which nothing need be said, or
// err.
func (f *forwarder) orElse(err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last != 0 {
		return exitStatus(128 + int(f.last))
	}
	return err
}

func (f *forwarder) stop() {
	signal.Stop(f.signals)
	close(f.signals)
}
