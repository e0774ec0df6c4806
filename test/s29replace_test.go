package test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// replace has another node take the place of the one that runs, from where that was
// started.
func (o *outside) replace() {
	o.t.Helper()
	err := o.tryReplace()
	for tries := 1; err != nil; err = o.tryReplace() {
		switch text := err.Error(); {
		case strings.Contains(text, "the last replacement has failed"): // it says in how many seconds it may try
			time.Sleep(time.Second)
		case tries < 3 && (strings.Contains(text, "i/o timeout") || strings.Contains(text, "traffic cannot be stopped")):
			tries++ // the machine is busy, and nothing has changed
			o.t.Log(err)
		default:
			o.t.Fatal(err)
		}
	}
}

func (o *outside) tryReplace() error {
	o.t.Helper()
	if o.Machine == nil {
		if r := o.try("up", "--replace"); r.code != 0 {
			return fmt.Errorf("%v", r)
		}
	} else if out, status := o.on(o.Machine, "up", "--replace"); status != 0 {
		return fmt.Errorf("up --replace: exit status %d\n%s", status, out)
	}
	o.restarted = true
	return nil
}

// A node takes the place of another one under load. Whoever knocks at a published
// port, or at the control socket, is let in, and connections go on, full ones
// and idle ones, whatever the way out is.
func TestS29_Replaced(t *testing.T) {
	eachUplink(t, func(t *testing.T, o *outside) {
		parrot := play(t, "parrot", ":7")
		o.says(o.Host.Serve(t, parrot[0], parrot[1:]...), "listening")
		o.start("server", append([]string{"-p", "7:7", "-p", "8:8/udp", "--"}, parrot...)...)
		o.logSays("server", "listening")
		o.start("client", "--opt", veth)
		o.start("maker")
		o.start("sharer", "--network", "container:maker")
		o.run("kill", "maker")
		between := o.talk("client", o.containers()["server"].IP+":7", 3)
		shared := o.talk("sharer", o.containers()["server"].IP+":7", 3)
		out := o.talk("client", o.Router.FarHost+":7", 3)
		in := o.talkFromOutside(o.reach+":7", 3)
		pours := []*client{o.pour("client", o.Router.FarHost+":7"), o.pour("sharer", o.containers()["server"].IP+":7"), o.pourFromOutside(o.reach + ":7")}
		how := "speak"
		if o.byHost() {
			how = "connect" // who has been let in already ends with the node's sockets
		}
		knock := play(t, "knock", o.reach+":7", filepath.Join(filepath.Dir(o.dir), "enough"), how)
		knocker := o.Host.Serve(t, knock[0], knock[1:]...)
		o.says(knocker, "knocking")
		for range 3 {
			done := make(chan string)
			go func() { done <- o.knockAtNode() }()
			o.replace()
			if trouble := <-done; trouble != "" {
				t.Error(trouble)
			}
		}
		between.asks("3 answered, 0 reset, 0 silent")
		shared.asks("3 answered, 0 reset, 0 silent")
		out.asks("3 answered, 0 reset, 0 silent")
		in.asks("3 answered, 0 reset, 0 silent")
		for _, c := range pours {
			_ = c.in.Close()
			if code := c.wait(); code != 0 || !strings.Contains(c.out.String(), "came back as they went") {
				t.Errorf("%q: %s%s", c.cmd.Args[1:], c.out.String(), c.errors.String())
			}
		}
		if err := os.WriteFile(filepath.Join(filepath.Dir(o.dir), "enough"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		lab.Eventually(t, patience, func() error { return contains(knocker.Output(), " failed") })
		t.Log(strings.TrimSpace(knocker.Output()))
		if !strings.Contains(knocker.Output(), " 0 failed") {
			t.Errorf("some knocks at the published port failed")
		}
		if have := nodesIn(t, o.dir); len(have) > 0 {
			t.Errorf("nodes of before are there: %v", have)
		}
	})
}

// pour has a container pour bytes to a parrot.
func (n *node) pour(name, to string) *client {
	n.t.Helper()
	c := n.background(append([]string{"exec", "-i", name}, play(n.t, "pour", to)...)...)
	c.says("pouring")
	return c
}

// pour says random bytes to a parrot until its standard input ends, and hears whether
// they come back as they went:
//
//	ADDRESS:PORT
func pour(args []string) error {
	conn, err := net.DialTimeout("tcp4", args[0], patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	fmt.Println("pouring")
	var enough atomic.Bool
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		enough.Store(true)
	}()
	went, came := sha256.New(), sha256.New()
	written := make(chan error, 1)
	go func() {
		rng := rand.NewChaCha8([32]byte{1})
		b := make([]byte, 32<<10)
		for !enough.Load() {
			_, _ = rng.Read(b)
			_, _ = went.Write(b)
			time.Sleep(2 * time.Millisecond) // there is more to be seen than how fast it is
			_ = conn.SetDeadline(time.Now().Add(patience))
			if _, err := conn.Write(b); err != nil {
				written <- err
				return
			}
		}
		written <- conn.(*net.TCPConn).CloseWrite()
	}()
	bytes, err := io.Copy(came, conn)
	if err = errors.Join(err, <-written); err != nil {
		return err
	}
	if string(came.Sum(nil)) != string(went.Sum(nil)) {
		return fmt.Errorf("%d bytes came back, and they are others", bytes)
	}
	fmt.Println(bytes, "bytes came back as they went")
	return nil
}

// knockAtNode asks the node some times, and says what went wrong.
func (n *node) knockAtNode() string {
	for range 20 {
		if out := n.show("ps", "-q"); len(strings.Fields(out)) != 3 {
			return fmt.Sprintf("ps says %q", out)
		}
	}
	return ""
}

// knock opens connections to a parrot one after another, until a file is there, and
// prints how many did not come to be, or to an answer:
//
//	ADDRESS:PORT FILE connect|speak
func knock(args []string) error {
	fmt.Println("knocking")
	knocks, failed := 0, 0
	var last error
	for ; ; knocks++ {
		if _, err := os.Stat(args[1]); err == nil {
			break
		}
		conn, err := net.DialTimeout("tcp4", args[0], patience)
		if err == nil && args[2] == "speak" {
			err = saySomething(conn)
		}
		if conn != nil {
			_ = conn.Close()
		}
		if err != nil {
			failed, last = failed+1, err
		}
		time.Sleep(time.Millisecond)
	}
	fmt.Println(knocks, "knocks,", failed, "failed", last)
	return nil
}

// A node that cannot take the place of another one leaves it as it was.
func TestS29_NotReplaced(t *testing.T) {
	n := newNode(t)
	n.start("c")
	before := n.nodePid()
	few := n.command(t.Context())
	few.Path, few.Args = "/bin/sh", []string{"sh", "-c", `ulimit -n 12 && exec "$@"`, "sh", n.bin, "up", "--replace"}
	if out, err := few.CombinedOutput(); err == nil || !strings.Contains(string(out), fmt.Sprintf("node %d goes on", before)) {
		t.Errorf("with 12 descriptors: %v, %s", err, out)
	}
	if now := n.nodePid(); now != before {
		t.Errorf("node %d has become %d", before, now)
	}
	n.exec("c", "fairlead", "probe", "ping", "-c", "1", "172.17.0.1")
	n.refuses("--replace leaves everything as it is", "up", "--replace", "--bip", "172.30.0.1/16")
	n.run("up", "--replace")
	n.restarted = true
	n.exec("c", "fairlead", "probe", "ping", "-c", "1", "172.17.0.1")
}

// Who waits for a container to end when another node takes the place of the one that was
// asked is answered by that: `stop` still kills one that does not hear the first signal.
func TestS29_ReplacedWhileStopping(t *testing.T) {
	n := newNode(t)
	n.start("deaf", "--", "sh", "-c", `trap "echo heard" TERM; echo ready; while :; do sleep 0.1; done`)
	n.logSays("deaf", "ready")
	stop := n.background("stop", "-t", "2", "deaf")
	n.logSays("deaf", "heard")
	n.run("up", "--replace")
	n.restarted = true
	if code := stop.wait(); code != 0 || stop.out.String() != "deaf\n" {
		t.Errorf("stop: exit status %d, %q%s", code, stop.out.String(), stop.errors.String())
	}
	if list := n.run("ps", "-q"); list != "" {
		t.Errorf("it runs: %s", list)
	}
}

// The node that takes the place of another one has given up as much as that had,
// whatever the command that asks for it would have.
func TestS29_ReplacedAsLockedIn(t *testing.T) {
	n := newNode(t, "--lock-in", "off")
	n.start("c")
	n.run("up", "--replace")
	n.restarted = true
	var now api.VersionInfo
	if err := n.ask("/v1/version", &now); err != nil || now.LockIn.Mode != "off" {
		t.Errorf("%+v, %v", now.LockIn, err)
	}
}
