package test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead/test/lab"
)

// probeWait is for traceroute where every hop answers: it waits for a probe up to
// five seconds, not as usual three times as long as another one of the hop took,
// which is nothing on a machine that is busy.
const probeWait = "5,100,1000"

// Traceroute and mtr, with every kind of probe, find the gateway, the router and
// the host, in that order.
func TestS07_Hops(t *testing.T) {
	lab.Need(t, "traceroute", "mtr")
	eachWay(t, func(t *testing.T, o *outside) {
		o.serveHTTP(o.Host, 80)
		o.start("a")
		far := o.Router.FarHost
		want := []string{"172.17.0.1", o.Router.Addr, far}
		mtr := []string{"mtr", "-rn", "-c", "1", "-i", "0.1", "-G", "0.1", "-Z", "1"}
		for _, command := range [][]string{
			append(mtr, far),
			append(mtr, "-u", far),
			append(mtr, "-T", "-P", "80", far),
		} {
			if out := o.exec("a", command...); !slices.Equal(hops(out), want) {
				t.Errorf("%s, want the hops %v:\n%s", strings.Join(command, " "), want, out)
			}
		}
		for _, probes := range [][]string{{"-U"}, {"-I"}, {"-T", "-p", "80"}} {
			if out, _ := o.traceroute("a", append(probes, "-n", "-w", probeWait, far)...); !slices.Equal(hops(out), want) {
				t.Errorf("traceroute %s, want the hops %v:\n%s", strings.Join(probes, " "), want, out)
			}
		}
	})
}

// A hop that does not answer is a star, and the others are found all the same.
func TestS07_SilentHop(t *testing.T) {
	lab.Need(t, "traceroute")
	eachWay(t, silentHop)
}

func silentHop(t *testing.T, o *outside) {
	o.Router.Rules(t, "add table ip quiet",
		"add chain ip quiet out { type filter hook output priority 0; }",
		"add rule ip quiet out icmp type time-exceeded drop")
	o.start("a")
	far := o.Router.FarHost
	for _, method := range []string{"-U", "-I", "-T"} {
		out, took := o.traceroute("a", "-n", method, "-w", "0.5", far)
		if want := []string{"172.17.0.1", "*", far}; !slices.Equal(hops(out), want) || !strings.Contains(out, "* * *") {
			t.Errorf("traceroute %s, want the hops %v:\n%s", method, want, out)
		}
		if took > 3*time.Second {
			t.Errorf("traceroute %s took %v", method, took)
		}
	}
}

// An ICMP error reaches the container it is meant for, and no other one that
// talks to the same host from the same port.
func TestS07_ErrorsReachTheRightContainer(t *testing.T) {
	eachWay(t, func(t *testing.T, o *outside) {
		o.serveUDP(o.Host, 7)
		far := o.Router.FarHost
		names := []string{"a", "b", "c"}
		for _, name := range names {
			o.start(name)
		}
		for _, refused := range names {
			var wait []func()
			for _, name := range names {
				port := "7"
				if name == refused {
					port = "9" // where nobody listens
				}
				c := o.background(append([]string{"exec", name}, play(t, "ask", "40000", far+":"+port, "3")...)...)
				wait = append(wait, func() {
					c.wait()
					answer := strings.TrimSpace(c.out.String())
					if want := map[bool]string{true: "connection refused", false: "0 1 2"}[name == refused]; !strings.Contains(answer, want) {
						t.Errorf("%s asks port %s and gets %q, want %q", name, port, answer, want)
					}
				})
			}
			for _, w := range wait {
				w()
			}
		}
	})
}

// Many trace routes at once: nobody gets an answer that is another's.
func TestS07_ManyAtOnce(t *testing.T) {
	lab.Need(t, "traceroute")
	eachWay(t, manyTraces)
}

func manyTraces(t *testing.T, o *outside) {
	far := o.Router.FarHost
	type tracing struct {
		*client
		name, method string
	}
	var clients []tracing
	for _, name := range []string{"a", "b", "c"} {
		o.start(name)
		o.exec(name, "ping", "-c", "1", "-W", "5", far) // as many probes at once as wait for a neighbour
		for _, method := range []string{"-U", "-I"} {
			command := timed("traceroute", "-n", "-w", probeWait, method, far)
			clients = append(clients, tracing{o.background(append([]string{"exec", name}, command...)...), name, method})
		}
	}
	want := []string{"172.17.0.1", o.Router.Addr, far}
	for _, c := range clients {
		code := c.wait()
		out, deaf := withoutTimes(c.out.String())
		if deaf { // as traceBy says; alone this time
			out, _ = o.traceroute(c.name, "-n", "-w", probeWait, c.method, far)
		}
		if code != 0 || !slices.Equal(hops(out), want) || strings.Contains(out, "*") {
			t.Errorf("%s traces by %s and ends with %d, want the hops %v:\n%s%s", c.name, c.method, code, want, out, c.errors.String())
		}
	}
}
