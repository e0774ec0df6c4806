package test

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairlead/test/lab"
)

// A container dies in the middle of connections out and in, by TCP, UDP and ICMP.
// Within a second its flows, sockets and listeners are gone, its peers have heard
// of it, and its port is free.
func TestS28_SocketsOfAContainerKilled(t *testing.T) {
	lab.Need(t, "socat")
	o := newHostOutside(t)
	sink := play(t, "deaf", ":9000")
	o.says(o.Host.Serve(t, sink[0], sink[1:]...), "listening")
	o.serveUDP(o.Host, 7)
	before := o.holdings()
	far := o.Router.FarHost
	for _, how := range []string{"kill", "init", "stop"} {
		o.start("victim", append([]string{"-p", "8080:9000", "-p", "5353:53/udp", "--", "sh", "-c",
			`"$0" "$@" & "$0" play who victim :53 & ping -q ` + far + ` & "$0" play stuff ` + far + `:9000 3 </dev/zero & wait`}, sink...)...)
		o.logSays("victim", "listening")
		o.logSays("victim", "answering")
		o.logSays("victim", "stuffed")
		o.exec("victim", "fairlead", "probe", "udp-echo", far+":7")
		client := o.Host.Serve(t, "socat", "-u", "TCP:"+o.reach+":8080", "-")
		asks := play(t, "ask", "40000", o.reach+":5353", "1")
		o.Host.Run(t, asks[0], asks[1:]...)
		c := o.containers()["victim"]
		o.ends(5, "tcp", "udp", "icmp")

		start := time.Now()
		switch how {
		case "kill":
			o.run("kill", "victim")
		case "init":
			kill(t, c.Pid, syscall.SIGKILL)
		case "stop":
			o.run("stop", "-t", "0", "victim")
		}
		o.leavesTables(c, start)
		lab.Eventually(t, time.Second-time.Since(start), func() error {
			if list := o.flows(); len(list) > 0 {
				return fmt.Errorf("there are flows: %+v", list)
			}
			if s := o.sockets(); s.Used > 0 || s.Listening > 0 {
				return fmt.Errorf("there are sockets: %+v", s)
			}
			if out := o.Machine.Run(t, "ss", "-Hanptu", "state", "all", "( sport = :8080 or sport = :5353 )"); strings.Contains(out, "pid=") {
				return errors.New(out)
			}
			return nil
		})
		client.Wait(t) // it has heard
		o.nothingLeft(c, before)
		refused(t, o.Host, "http://"+o.reach+":8080/")
	}
}

// ends waits until there are so many flows, of these protocols.
func (n *node) ends(count int, protos ...string) {
	n.t.Helper()
	lab.Eventually(n.t, 10*time.Second, func() error {
		list := n.flows()
		text := fmt.Sprintf("%+v", list)
		for _, p := range protos {
			if !strings.Contains(text, "Proto:"+p+" ") {
				return fmt.Errorf("no flow by %s: %s", p, text)
			}
		}
		if len(list) < count {
			return fmt.Errorf("%d flows, want %d: %s", len(list), count, text)
		}
		return nil
	})
}
