package test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"fairlead/test/lab"
)

// What a third container hears of a ping from a to b.
const (
	whoHas  = "^02:42:ac:11:00:02 > ff:ff:ff:ff:ff:ff, .* Request who-has 172.17.0.3 tell 172.17.0.2,"
	isAt    = "^02:42:ac:11:00:03 > 02:42:ac:11:00:02, .* Reply 172.17.0.3 is-at"
	request = "^02:42:ac:11:00:02 > 02:42:ac:11:00:03, .* 172.17.0.2 > 172.17.0.3: ICMP echo request"
	reply   = "^02:42:ac:11:00:03 > 02:42:ac:11:00:02, .* 172.17.0.3 > 172.17.0.2: ICMP echo reply"
)

// learning starts a and b, and a third container that listens.
func learning(t *testing.T, upArgs ...string) (*node, *ear) {
	t.Helper()
	lab.Need(t, "ping")
	n := newNode(t, upArgs...)
	n.start("a", quiet)
	n.start("b", quiet)
	return n, n.ear("ear", "arp or icmp", quiet)
}

// ping sends three echo requests, each after the reply to the one before: a ping
// that got a reply already has little patience for the next.
func (n *node) ping(from, to string) {
	n.t.Helper()
	n.sh(from, "for i in 1 2 3; do ping -c 1 -W 5 "+to+"; done")
}

// The first frame of a conversation is flooded, and none after the answer.
func TestS31_FirstFrameIsFlooded(t *testing.T) {
	n, e := learning(t)
	n.ping("a", "172.17.0.3")
	e.heard("a and b had never spoken", "a", whoHas)
	n.ping("b", "172.17.0.2")
	e.heard("a and b had spoken", "b")
}

// After `mac flush` the flood is back, for one frame.
func TestS31_Flush(t *testing.T) {
	n, e := learning(t)
	n.ping("a", "172.17.0.3")
	n.run("mac", "flush")
	e.since("ear") // teaches the switch nobody but the ear
	n.ping("a", "172.17.0.3")
	e.heard("after mac flush", "a", request)
}

// A MAC that was silent for longer than the ageing time is forgotten.
func TestS31_Ageing(t *testing.T) {
	n, e := learning(t, "--opt", "ageing=1s")
	n.ping("a", "172.17.0.3")
	e.heard("a and b had never spoken", "a", whoHas)
	lab.Eventually(t, 10*time.Second, func() error {
		if out := n.run("show", "mac"); strings.Contains(out, "02:42:ac:11:00:03") {
			return fmt.Errorf("b is still there:\n%s", out)
		}
		return nil
	})
	n.ping("a", "172.17.0.3")
	e.heard("b was forgotten", "a", request)
}

// A container that comes back at another port is found there.
func TestS31_Moved(t *testing.T) {
	n, e := learning(t)
	n.ping("a", "172.17.0.3")
	e.heard("a and b had never spoken", "a", whoHas)
	was := n.port("b").Port
	n.run("kill", "b")
	n.gone("b")
	placeholder := n.start("placeholder", quiet, "--ip", "172.17.0.99") // takes the port's number
	n.start("b", quiet)
	if p := n.port("b"); p.Port == was || p.IP != "172.17.0.3" || p.MAC != "02:42:ac:11:00:03" {
		t.Errorf("b is back as %+v; it was at port %d, which %s should have now", p, was, placeholder)
	}
	n.ping("a", "172.17.0.3")
	e.heard("b came back, and knows nobody", "a", request, "^02:42:ac:11:00:03 > ff:ff:ff:ff:ff:ff, .* who-has 172.17.0.2 tell")
	n.ping("a", "172.17.0.3")
	e.heard("b had answered", "a")
}

// A hub lets everybody hear everything.
func TestS31_Hub(t *testing.T) {
	n, e := learning(t, "--opt", "hub=on")
	n.ping("a", "172.17.0.3")
	e.heard("in hub mode", "a", whoHas, isAt, request, reply, request, reply, request, reply)
	if rows := table(t, n.run("show", "mac")); len(rows) != 1 {
		t.Errorf("a hub has learned: %v", rows)
	}
	if words := n.run("show", "switch", "-v"); !strings.Contains(words, "hub on") {
		t.Errorf("show switch -v does not say that this is a hub:\n%s", words)
	}
}
