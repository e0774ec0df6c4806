package test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"fairlead/test/lab"
)

// Answers from a published UDP port come from the address and port that were
// asked: a connected socket takes no others.
func TestS26_AnswersFromThePublishedPort(t *testing.T) {
	eachWay(t, func(t *testing.T, o *outside) {
		o.start("a", append([]string{"-p", "5353:53/udp", "--"}, play(t, "who", "a", ":53")...)...)
		o.logSays("a", "answering")
		command := play(t, "ask", "40000", o.reach+":5353", "3")
		want := strings.Repeat(" a:"+o.Router.FarHost+":40000", 3)
		if out := o.Host.Run(t, command[0], command[1:]...); out != want[1:]+"\n" {
			t.Errorf("ask prints %q, want %q", out, want[1:])
		}
	})
}

// A container comes back with another address, and a client that never stopped
// asking, from the same port, reaches it at once: no flow leads it astray.
func TestS26_RestartedWithANewAddress(t *testing.T) {
	eachWay(t, func(t *testing.T, o *outside) {
		command := play(t, "persist", "40000", o.reach+":5353")
		s := o.Host.Serve(t, command[0], command[1:]...)
		answers := func(name string) {
			t.Helper()
			lab.Eventually(t, 5*time.Second, func() error {
				lines := strings.Split(strings.TrimSpace(s.Output()), "\n")
				if last := lines[len(lines)-1]; !strings.HasPrefix(last, name+":") {
					return fmt.Errorf("the last answer is %q, want one of %s", last, name)
				}
				return nil
			})
		}
		for i, name := range []string{"a", "b", "c"} {
			o.start(name, append([]string{"-p", "5353:53/udp", "--ip", fmt.Sprintf("172.17.0.%d", 10+i), "--"}, play(t, "who", name, ":53")...)...)
			o.logSays(name, "answering")
			start := time.Now()
			answers(name)
			// Who asked while the container's interface was just coming up has
			// made the gateway ask again after a second (RFC 1122 2.3.2.1).
			if took := time.Since(start); took > 1500*time.Millisecond {
				t.Errorf("%s was reached after %v", name, took)
			}
			o.run("stop", "-t", "0", name)
			o.gone(name)
		}
	})
}
