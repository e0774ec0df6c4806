package test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// A successor is a program that says it is to take a node's place.
type successor struct {
	conn *net.UnixConn
	last api.Handed
}

// steps are what a node says to one that takes its place, up to the last word but one.
// Each returns once the next answer is awaited. From the fifth on traffic stands still.
func (s *successor) steps() []func() error {
	done := func() error { return api.SendMessage(s.conn, api.Done{}, nil) }
	last := func() error {
		for !s.last.Last {
			if err := errors.Join(done(), s.hear()); err != nil {
				return err
			}
		}
		return nil
	}
	text := func() error {
		err := done()
		_, rerr := io.ReadFull(s.conn, make([]byte, s.last.Text))
		return errors.Join(err, rerr)
	}
	return []func() error{
		func() error {
			err := api.SendMessage(s.conn, api.Replace{Version: "0"}, nil)
			return errors.Join(err, s.hear())
		},
		func() error { return errors.Join(done(), s.hear()) },
		last,
		text,
		func() error { return errors.Join(done(), s.hear()) },
		last,
		func() error {
			err := text()
			for count := uint32(1); err == nil && count > 0; {
				if err = binary.Read(s.conn, binary.LittleEndian, &count); err == nil {
					_, err = io.ReadFull(s.conn, make([]byte, int(count)*s.last.Flow))
				}
			}
			return err
		},
	}
}

// hear takes a message, and what comes with it.
func (s *successor) hear() error {
	s.last = api.Handed{}
	fds, err := api.ReceiveMessage(s.conn, &s.last)
	api.CloseAll(fds)
	if err == nil && s.last.Error != "" {
		err = errors.New(s.last.Error)
	}
	return err
}

// Whatever becomes of a node that is to take the place of another one, at whatever
// step: that one goes on as if nothing had happened, and can be ended like any other.
func TestS29_ReplacementFails(t *testing.T) {
	n := newNode(t, "--names", "127.0.0.1:1053")
	n.start("server", append([]string{"-p", "127.0.0.1:7007:7", "--"}, play(t, "parrot", ":7")...)...)
	n.logSays("server", "listening")
	n.start("client", "--opt", veth)
	to := n.containers()["server"].IP + ":7"
	between := n.talk("client", to, 3)
	in, err := net.DialTimeout("tcp4", "127.0.0.1:7007", patience)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	before := n.nodePid()
	steps := len(new(successor).steps())
	for name, then := range map[string]func(s *successor) error{
		"it dies":    func(*successor) error { return nil },
		"it refuses": func(s *successor) error { return api.SendMessage(s.conn, api.Done{Error: "no"}, nil) },
		"it babbles": func(s *successor) error { _, err := s.conn.Write([]byte("?\n")); return err },
	} {
		for k := range steps + 1 {
			if name != "it dies" && k%2 == 0 {
				continue // half of the steps are enough
			}
			if err := n.failToReplace(k, then); err != nil {
				t.Errorf("%s after %d steps: %v", name, k, err)
			}
		}
	}
	between.asks("3 answered, 0 reset, 0 silent")
	if err := saySomething(in); err != nil {
		t.Errorf("a connection to a published port: %v", err)
	}
	if out := n.run("names"); !strings.Contains(out, "127.0.0.1:1053") {
		t.Error(out)
	}
	if now := n.nodePid(); now != before {
		t.Errorf("node %d has become %d", before, now)
	}
	n.run("up", "--replace")
	n.restarted = true
	between.asks("3 answered, 0 reset, 0 silent")
	if list, _ := filepath.Glob(filepath.Join(n.dir, "containers", "*")); len(list) != 2 {
		t.Errorf("files of containers: %v", list)
	}
	// One that has traffic stand still and says nothing is given up, and no other may do so
	// for a while. TestHandOverToSilent in node is for the other steps.
	err = n.failToReplace(5, func(s *successor) error {
		_, err := io.Copy(io.Discard, s.conn) // until the node closes it
		return err
	})
	if err != nil {
		t.Error(err)
	}
	n.refuses("try again in", "up", "--replace")
	between.asks("3 answered, 0 reset, 0 silent")
	n.run("down", "--all") // whose workers and sockets work
}

// failToReplace has somebody take the node's place up to a step, and then do something.
func (n *node) failToReplace(steps int, then func(s *successor) error) error {
	n.t.Helper()
	conn, err := api.NewClient(n.dir).Upgrade(n.t.Context(), "/v1/replace")
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	s := &successor{conn: conn}
	for _, step := range s.steps()[:steps] {
		if err := step(); err != nil {
			return err
		}
	}
	if err := then(s); err != nil {
		return err
	}
	conn.Close()
	if r := n.try("ps", "-q"); r.code != 0 {
		return fmt.Errorf("%v", r)
	}
	return nil
}

// A node that is to take the place of another one is killed at a moment nobody chose:
// the one that has the place then goes on, or the next one adopts what it leaves.
func TestS29_ReplacementKilled(t *testing.T) {
	n := newNode(t)
	n.start("server", append([]string{"--"}, play(t, "parrot", ":7")...)...)
	n.logSays("server", "listening")
	n.start("client", "--opt", veth)
	between := n.talk("client", n.containers()["server"].IP+":7", 3)
	rng := newRNG(t)
	n.restarted = true
	for range 3 {
		before := n.nodePid()
		c := n.background("up", "--replace")
		var next int
		lab.Eventually(t, patience, func() error {
			if next = n.successorOf(before); next == 0 {
				return errors.New("it has not been started yet")
			}
			return nil
		})
		time.Sleep(time.Duration(rng.IntN(60)) * time.Millisecond)
		kill(t, next, syscall.SIGKILL)
		c.wait()
		awaitEnd(t, next)
		n.run("ps")
		between.asks("3 answered, 0 reset, 0 silent")
	}
}

// successorOf is the process that is to take the place of a node, 0 if there is none.
func (n *node) successorOf(before int) (pid int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		line, _ := os.ReadFile(file) // it may have ended
		if string(line) != "fairlead\x00node\x00--dir\x00"+n.dir+"\x00--replace\x00" {
			continue
		}
		if _, err := fmt.Sscanf(file, "/proc/%d/", &pid); err == nil && pid != before {
			return pid
		}
	}
	return 0
}

// Containers come and go while nodes are replaced: nothing is left of those that went,
// and all of them ran.
func TestS29_ReplacedWhileEnding(t *testing.T) {
	n := newNode(t)
	n.start("stays")
	n.restarted = true
	enough, ran := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-enough:
				ran <- nil
				return
			default:
			}
			out, err := n.command(t.Context(), "run", "--", "echo", "here").CombinedOutput()
			if err != nil || string(out) != "here\n" {
				ran <- fmt.Errorf("run: %w, %s", err, out)
				return
			}
		}
	}()
	for range 3 {
		n.run("up", "--replace")
	}
	close(enough)
	if err := <-ran; err != nil {
		t.Error(err)
	}
	lab.Eventually(t, patience, func() error {
		if list, _ := filepath.Glob(filepath.Join(n.dir, "containers", "*")); len(list) != 1 || len(n.containers()) != 1 {
			return fmt.Errorf("files of %v, and containers %v", list, n.containers())
		}
		return nil
	})
}

// An HTTP client that keeps its connection for later does not keep a node from being
// replaced, nor does one that connects and says nothing, or half of what he wants.
func TestS29_ReplacedBesideIdle(t *testing.T) {
	n := newNode(t)
	const request = "GET /v1/version HTTP/1.1\r\nHost: node\r\n\r\n"
	var idle net.Conn
	for _, said := range []string{"", request[:20], request} {
		var err error
		if idle, err = net.Dial("unix", api.Socket(n.dir)); err != nil {
			t.Fatal(err)
		}
		defer idle.Close()
		if _, err := fmt.Fprint(idle, said); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := idle.Read(make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
	n.run("up", "--replace")
	n.restarted = true
}

// The node is killed, and its socket cannot have its name again: the next node does not
// begin, says why, and leaves containers and what is written down of them to one that does.
func TestS29_NoSocket(t *testing.T) {
	n := newNode(t)
	id := n.start("c", "-p", "127.0.0.1:8080:80")
	before := n.containers()
	n.killNode()
	socket := api.Socket(n.dir)
	if err := errors.Join(os.Remove(socket), os.MkdirAll(filepath.Join(socket, "x"), 0o700)); err != nil {
		t.Fatal(err)
	}
	n.refuses("control socket", "ps")
	for _, file := range []string{filepath.Join(socket, "x"), filepath.Join(n.dir, "running.json"), filepath.Join(n.dir, "containers", id, "record.json")} {
		if _, err := os.Stat(file); err != nil {
			t.Errorf("the node that did not begin took it away: %v", err)
		}
	}
	if err := os.RemoveAll(socket); err != nil {
		t.Fatal(err)
	}
	if a, b := fmt.Sprintf("%+v", before), fmt.Sprintf("%+v", n.containers()); a != b {
		t.Errorf("containers were\n%s\nand are\n%s", a, b)
	}
	n.exec("c", "fairlead", "probe", "ping", "-c", "1", "172.17.0.1")
}
