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
// asking, from the same port, reaches it at once: no flow leads it astray, and
// the first packet let in finds somebody who answers ARP. Asked in vain, one would
// wait a second (RFC 1122 2.3.2.1).
func TestS26_RestartedWithANewAddress(t *testing.T) {
	eachWay(t, func(t *testing.T, o *outside) {
		o.ear("ear", "arp and ether src 02:42:ac:11:00:01")
		command := play(t, "persist", "40000", o.reach+":5353")
		s := o.Host.Serve(t, command[0], command[1:]...)
		answers := func(name string) {
			t.Helper()
			lab.Eventually(t, 10*time.Second, func() error {
				lines := strings.Split(strings.TrimSpace(s.Output()), "\n")
				if last := lines[len(lines)-1]; !strings.HasPrefix(last, name+":") {
					return fmt.Errorf("the last answer is %q, want one of %s", last, name)
				}
				return nil
			})
		}
		var again []string
		for i, name := range []string{"a", "b", "c"} {
			o.start(name, append([]string{"-p", "5353:53/udp", "--ip", fmt.Sprintf("172.17.0.%d", 10+i), "--"}, play(t, "who", name, ":53")...)...)
			o.logSays(name, "answering")
			answers(name)
			if strings.Count(o.run("logs", "ear"), fmt.Sprintf("who-has 172.17.0.%d ", 10+i)) > 1 {
				again = append(again, name)
			}
			o.run("stop", "-t", "0", name)
			o.gone(name)
		}
		if len(again) > 1 { // one may be the machine's fault, which stood still for a second
			t.Errorf("the gateway had to ask again for %v", again)
		}
	})
}
