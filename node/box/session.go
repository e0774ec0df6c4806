package box

import (
	"errors"
	"fmt"
	"io"
	"syscall"
)

// An Exec is one more command for a running container.
type Exec struct {
	Args []string `json:"args"`
	Env  []string `json:"env,omitempty"` // added to the container's
	Cwd  string   `json:"cwd,omitempty"` // empty: the container's
	TTY  bool     `json:"tty,omitempty"`
}

// A Session is the client's end of one Exec. The other end goes to init over
// the node: node.Send(&Message{Exec: e}, stdin, stdout, stderr, end).
//
// When the client closes its end, or dies, what it started is hung up: SIGHUP
// to the command's process group, SIGKILL a second later. (Docker leaves it
// running without anybody who could reach it.)
type Session struct {
	channel *Channel
}

// NewSession makes a session; end is the caller's to hand over and close.
func NewSession() (s *Session, end int, err error) {
	near, end, err := Pair()
	if err != nil {
		return nil, -1, err
	}
	channel, err := NewChannel(near)
	if err != nil {
		closeAll([]int{end})
		return nil, -1, err
	}
	return &Session{channel: channel}, end, nil
}

// Started waits until the command runs. An error that is a *Failure has the
// exit status that tells why it does not.
func (s *Session) Started() error {
	err := s.started(func(string) {})
	if errors.Is(err, io.EOF) {
		return errors.New("the container ended before the command started")
	}
	return err
}

func (s *Session) started(warn func(string)) error {
	for {
		m, err := s.channel.Hear()
		if err != nil {
			return err
		}
		switch {
		case m.Started != 0:
			return nil
		case m.Failure != nil:
			return m.Failure
		case m.Warning != "":
			warn(m.Warning)
		}
	}
}

// Signal sends sig to the command.
func (s *Session) Signal(sig syscall.Signal) error {
	return s.channel.Send(&Message{Signal: int(sig)})
}

// Wait waits for the end of the command and returns its status, 128+n when
// signal n ended it. Call it after Started.
func (s *Session) Wait() (int, error) {
	for {
		m, err := s.channel.Hear()
		if errors.Is(err, io.EOF) {
			return 0, errors.New("the container ended before the command")
		} else if err != nil {
			return 0, fmt.Errorf("wait for the command: %w", err)
		}
		if m.Exit != nil {
			return *m.Exit, nil
		}
	}
}

// Close ends the session and what it started.
func (s *Session) Close() { _ = s.channel.Close() }
