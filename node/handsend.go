package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/node/api"
)

// A sender sends descriptors, some in each message, and waits for an answer to each:
// on a stream two messages could be read as one. After an error it does nothing more.
type sender struct {
	conn    *controlConn
	program string        // what it was sent by
	ack     time.Duration // for what takes the new node no work
	end     time.Time     // of all of it
	items   []api.Thing
	fds     []int
	files   []*os.File // closed behind the message
	err     error
}

// handAtOnce is how many descriptors a message brings.
const handAtOnce = 8

func (s *sender) fail(err error) {
	if s.err == nil {
		s.err = err
	}
}

func (s *sender) send(fd int, t api.Thing) {
	s.items, s.fds = append(s.items, t), append(s.fds, fd)
	if len(s.fds) == handAtOnce {
		s.ask(api.Handed{})
	}
}

// file sends one that is closed afterwards.
func (s *sender) file(f *os.File, err error, kind string, of ...string) {
	if err != nil {
		s.fail(err)
		return
	}
	s.files = append(s.files, f)
	t := api.Thing{Kind: kind}
	if len(of) > 0 {
		t.Of = of[0]
	}
	fd := int(f.Fd())
	// Fd has made the open file one that waits, for us as well, who may go on with it.
	if err := unix.SetNonblock(fd, true); err != nil {
		s.fail(err)
	}
	s.send(fd, t)
}

// copy sends one that stays.
func (s *sender) copy(f *os.File, kind string) { s.send(int(f.Fd()), api.Thing{Kind: kind}) }

// ask sends a message with the descriptors there are by now, and waits for the answer.
// The last message comes behind one with all that are left.
func (s *sender) ask(m api.Handed) {
	if m.Last && len(s.fds) > 0 {
		s.ask(api.Handed{})
	}
	if s.err == nil {
		s.within(s.ack)
		m.Version, m.Program, m.Items = handVersion, s.program, s.items
		s.fail(api.SendMessage(s.conn.UnixConn, m, s.fds))
		s.await(s.ack)
	}
	s.items, s.fds = nil, nil
	s.close()
}

// describe says that these were all the descriptors, and sends what they do not say.
func (s *sender) describe(what any) {
	text, err := json.Marshal(what)
	if err != nil {
		s.fail(err)
		return
	}
	s.ask(api.Handed{Last: true, Text: len(text), Flow: flowBytes})
	s.write(text)
}

// await waits for the new node to have done what it was asked for.
func (s *sender) await(within time.Duration) {
	if s.err != nil {
		return
	}
	s.within(within)
	var done api.Done
	fds, err := api.ReceiveNews(s.conn.UnixConn, &done)
	api.CloseAll(fds)
	if err != nil {
		s.fail(fmt.Errorf("the new node has not said that it works: %w", err))
	} else if done.Error != "" {
		s.fail(errors.New(done.Error))
	}
}

// write sends bytes as they are.
func (s *sender) write(b []byte) {
	for len(b) > 0 && s.err == nil {
		s.within(s.ack)
		n, err := s.conn.Write(b[:min(len(b), 64<<10)])
		if b = b[n:]; err != nil {
			s.fail(fmt.Errorf("the new node takes nothing: %w", err))
		}
	}
}

// within bounds what comes next.
func (s *sender) within(d time.Duration) {
	deadline := time.Now().Add(d)
	if deadline.After(s.end) {
		deadline = s.end
	}
	_ = s.conn.SetDeadline(deadline)
}

// took gives the new node more time for the rest, for what it has taken.
func (s *sender) took(count int, each time.Duration) {
	s.end = s.end.Add(time.Duration(count) * each)
}

func (s *sender) close() {
	for _, f := range s.files {
		_ = f.Close()
	}
	s.files = nil
}
