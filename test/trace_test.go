package test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// trace follows packets from here on.
func (n *node) trace(args ...string) *client {
	n.t.Helper()
	c := n.background(append([]string{"trace"}, args...)...)
	n.start("marker", quiet)
	lab.Eventually(n.t, 10*time.Second, func() error {
		n.mark("marker")
		if !strings.Contains(c.out.String(), "ARP who has") {
			return fmt.Errorf("trace has not begun: %s%s", c.out.String(), c.errors.String())
		}
		return nil
	})
	return c
}

// A ping from a to b, who have not spoken before, and one to the gateway: every
// packet is one line with its way in, verdict, reason and ways out.
func TestTraceLines(t *testing.T) {
	lab.Need(t, "ping")
	n := newNode(t, "--uplink", "none")
	n.start("a", quiet)
	n.start("b", quiet)
	people, machines := n.background("trace"), n.trace("--json")
	n.exec("a", "ping", "-c", "1", "-W", "5", "172.17.0.3")
	n.exec("a", "ping", "-c", "1", "-W", "5", "172.17.0.1")
	if r := n.try("exec", "a", "ping", "-c", "1", "-W", "5", "192.0.2.1"); r.code == 0 {
		t.Errorf("ping to the outside: %v", r)
	}
	end := n.mark("marker")

	// people is where it went in the line for people, which names the gateway.
	type packet struct{ in, out, people, summary, verdict, reason, answer string }
	want := []packet{
		{"a", "b marker", "b, marker, gateway", "ARP who has 172.17.0.3, tell 172.17.0.2", "flood", "to-group", ""},
		{"b", "a", "a", "ARP 172.17.0.3 is at 02:42:ac:11:00:03", "unicast", "known-mac", ""},
		{"a", "b", "b", "172.17.0.2 > 172.17.0.3 ICMP echo request", "unicast", "known-mac", ""},
		{"b", "a", "a", "172.17.0.3 > 172.17.0.2 ICMP echo reply", "unicast", "known-mac", ""},
		{"a", "b marker", "b, marker, gateway", "ARP who has 172.17.0.1, tell 172.17.0.2", "flood", "to-group", "ARP reply"},
		{"a", "", "gateway", "172.17.0.2 > 172.17.0.1 ICMP echo request", "gateway", "for-gateway", "echo reply"},
		{"a", "", "nowhere", "172.17.0.2 > 192.0.2.1 ICMP echo request", "drop", "no-route", "ICMP net unreachable"},
	}
	var have []packet
	machines.says(end)
	for _, l := range traceLines(t, machines) {
		if isMark.MatchString(l.Summary) {
			continue
		}
		have = append(have, packet{l.In, strings.Join(l.Out, " "), "", l.Summary, l.Verdict, l.Reason, l.Answer})
		if l.Copies != len(l.Out) || l.Bytes < 42 || l.Segments != 1 || l.Network != "default" || time.Since(l.Time) > time.Minute {
			t.Errorf("the line of %s: %+v", l.Summary, l)
		}
	}
	for i := range have {
		have[i].people = want[min(i, len(want)-1)].people // judged below
	}
	if !reflect.DeepEqual(have, want) {
		t.Errorf("the trace has\n%s\nwant\n%s", lines(have), lines(want))
	}

	people.says(end)
	line := regexp.MustCompile(`^\d\d:\d\d:\d\d\.\d{6}  (\S+) → (.+?)  (.+)  (\w+) \(([\w-]+)\)(?:; (ICMP .+) to a)?$`)
	i := 0
	for text := range strings.Lines(people.out.String()) {
		if isMark.MatchString(text) {
			continue
		}
		m := line.FindStringSubmatch(strings.TrimSuffix(text, "\n"))
		if m == nil || i >= len(want) {
			t.Fatalf("a line for people is not as the others, or one too many: %q", text)
		}
		w := want[i]
		if m[1] != w.in || m[2] != w.people || m[3] != w.summary || m[4] != w.verdict || m[5] != w.reason || m[6] != "" && m[6] != w.answer {
			t.Errorf("line %q, want %+v", text, w)
		}
		i++
	}
	if i != len(want) {
		t.Errorf("%d lines for people, want %d:\n%s", i, len(want), people.out.String())
	}
	for _, c := range []*client{people, machines} {
		c.signal(interrupt)
		if code := c.wait(); code != 0 {
			t.Errorf("Ctrl-C ends trace with %d: %s", code, c.errors.String())
		}
	}
}

func lines[T any](list []T) string {
	var b strings.Builder
	for _, v := range list {
		fmt.Fprintf(&b, "%+v\n", v)
	}
	return b.String()
}

// With a container, only its packets; with --words, each step of the way; with
// -n, so many and no more.
func TestTraceOptions(t *testing.T) {
	lab.Need(t, "ping")
	n := newNode(t)
	for _, name := range []string{"a", "b", "c"} {
		n.start(name, quiet)
	}
	all := n.trace()
	of, words := n.background("trace", "--json", "c"), n.background("trace", "--words", "-n", "1", "a")
	for _, c := range []*client{of, words} { // until both have begun
		lab.Eventually(t, 10*time.Second, func() error {
			n.exec("b", "ping", "-c", "1", "-W", "5", "172.17.0.2")
			n.exec("b", "ping", "-c", "1", "-W", "5", "172.17.0.4")
			if c.out.String() == "" {
				return fmt.Errorf("%q says nothing: %s", c.cmd.Args[1:], c.errors.String())
			}
			return nil
		})
	}
	if code := words.wait(); code != 0 {
		t.Errorf("trace -n 1 ended with %d: %s", code, words.errors.String())
	}
	if err := contains(words.out.String(), "\n    1 parse", "\n    2 guard", "\n    3 look up", "\n    4 admit"); err != nil {
		t.Error(err)
	}
	for _, l := range traceLines(t, of) {
		if l.In != "c" && !strings.Contains(strings.Join(l.Out, " "), "c") {
			t.Errorf("trace c has a packet that is none of its business: %+v", l)
		}
	}
	n.refuses("No such container: nobody", "trace", "nobody")
	n.start("alone", "--net", "none")
	n.refuses("container alone has no port", "trace", "alone")
	if err := contains(all.out.String(), "a → b", "c → b"); err != nil {
		t.Error(err)
	}
	// A trace ends with the node.
	n.run("down", "--all")
	if code := all.wait(); code != 0 {
		t.Errorf("trace ended with %d when the node went down: %s", code, all.errors.String())
	}
}

// Who follows packets may begin before there is a node: it starts, and stays for
// as long as somebody watches.
func TestTraceFirst(t *testing.T) {
	n := newNodeDir(t)
	trace := n.background("trace")
	var pid int
	lab.Eventually(t, 10*time.Second, func() error {
		n.run("run", "--", "fairlead", "probe", "ping", "-c", "1", "172.17.0.1")
		pid = n.nodePid()
		return contains(trace.out.String(), "172.17.0.1")
	})
	time.Sleep(3 * time.Second) // a node without a use lasts two
	if now := n.nodePid(); now != pid {
		t.Errorf("node %d was followed by %d", pid, now)
	}
	trace.stop()
}

// The control socket speaks HTTP, so curl is a client.
func TestControlSocketByCurl(t *testing.T) {
	lab.Need(t, "curl")
	n := newNode(t)
	var v api.VersionInfo
	out := output(t, "curl", "-sS", "--unix-socket", api.Socket(n.dir), "http://fairlead/v1/version")
	if err := json.Unmarshal([]byte(out), &v); err != nil || v.API != api.Version || v.Pid != n.nodePid() {
		t.Errorf("GET /v1/version: %s (%v)", out, err)
	}
}
