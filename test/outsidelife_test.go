package test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"fairlead/test/lab"
)

// The router is replaced by one with another MAC, which says so by the first
// question it asks, and containers reach the outside by it at once. The time its
// cable is out, nothing answers.
func TestRouterReplaced(t *testing.T) {
	o := newOutside(t)
	o.start("a")
	far := o.Router.FarHost
	o.exec("a", "ping", "-c", "1", "-W", "5", far)
	for _, mac := range []string{"02:00:00:00:00:98", "02:00:00:00:00:99"} {
		o.Router.Run(t, "ip", "link", "set", "up0", "down")
		if r := o.try("exec", "a", "ping", "-c", "1", "-W", "0.3", far); r.code != 1 {
			t.Errorf("without a router: %v", r)
		}
		o.Router.Run(t, "ip", "link", "set", "up0", "address", mac)
		o.Router.Run(t, "ip", "link", "set", "up0", "up")
		o.Router.Run(t, "ping", "-c", "1", "-W", "5", o.Router.Uplink)
		o.exec("a", "ping", "-c", "1", "-W", "1", far)
		if err := contains(o.run("show", "arp"), mac); err != nil {
			t.Error(err)
		}
	}
	if err := contains(o.run("show", "drops"), "egress-down"); err != nil {
		t.Errorf("nothing counts what found no router: %v", err)
	}
}

// Uplinks are taken away and come back while containers talk.
func TestUplinkTakenAway(t *testing.T) {
	o := newOutside(t)
	o.serveHTTP(o.Host, 80)
	o.serve("web", "-p", "8080:80")
	far := o.Router.FarHost
	for range 3 {
		greeted(t, curl(t, o.Host, "http://"+o.Router.Uplink+":8080/"), far)
		greeted(t, o.exec("web", "curl", "-sS", "--max-time", "5", "http://"+far+"/"), o.seen)
		o.run("network", "set", "default", "--uplink", "none")
		r := o.try("exec", "web", "ping", "-c", "1", "-W", "5", far)
		if !strings.Contains(r.stdout, "From 172.17.0.1 icmp_seq=1 Destination Net Unreachable") {
			t.Errorf("without an uplink: %v", r)
		}
		if out := o.run("port", "web"); out != "80/tcp -> 0.0.0.0:8080\n" {
			t.Errorf("without an uplink port prints %q", out)
		}
		o.uplinks(o.Router.Spec())
	}
}

// The interface of an uplink is deleted: its routes are down, and senders are
// told. It is made again, and set again, and all is as before.
func TestUplinkDeleted(t *testing.T) {
	o := newOutside(t)
	o.serve("web", "-p", "8080:80")
	far := o.Router.FarHost
	o.exec("web", "ping", "-c", "1", "-W", "5", far)
	o.Router.Run(t, "ip", "link", "del", "up0")
	lab.Eventually(t, 10*time.Second, func() error { return contains(o.run("network", "ls"), "tap:up0: its interface was removed") })
	r := o.try("exec", "web", "ping", "-c", "1", "-W", "5", far)
	if !strings.Contains(r.stdout, "From 172.17.0.1 icmp_seq=1 Destination Net Unreachable") {
		t.Errorf("without an uplink: %v", r)
	}
	o.Router.AddTAP(t, "up0")
	o.Router.Host.Addr(t, "up0", o.Router.Addr+"/24")
	o.uplinks(o.Router.Spec())
	o.exec("web", "ping", "-c", "1", "-W", "5", far)
	greeted(t, curl(t, o.Host, "http://"+o.Router.Uplink+":8080/"), far)
}

// Who is on the uplink's own network is met without the router. That there is
// nobody is told when nobody has answered three questions, and from then on at
// once.
func TestNeighbourOnTheUplink(t *testing.T) {
	o := newOutside(t)
	o.Router.Host.Addr(t, "up0", "192.0.2.77/32")
	o.serveHTTP(o.Router.Host, 80)
	o.start("a")
	greeted(t, o.exec("a", "curl", "-sS", "--max-time", "5", "http://192.0.2.77/"), o.Router.Uplink)
	o.exec("a", "ping", "-c", "1", "-W", "5", o.Router.Uplink) // which answers itself
	for _, least := range []time.Duration{2 * time.Second, 0} {
		start := time.Now()
		r := o.try("exec", "a", "ping", "-c", "1", "-W", "10", "192.0.2.78")
		if !strings.Contains(r.stdout, "From 172.17.0.1 icmp_seq=1 Destination Host Unreachable") {
			t.Errorf("nobody is at 192.0.2.78, but: %v", r)
		}
		if took := time.Since(start); took < least || least == 0 && took > 2*time.Second {
			t.Errorf("that was said after %v", took)
		}
	}
	if err := contains(o.run("show", "arp"), "192.0.2.78  ether   (incomplete)"); err != nil {
		t.Error(err)
	}
}

// Three containers have many connections at once, all from the same ports.
func TestManyConnections(t *testing.T) {
	eachWay(t, func(t *testing.T, o *outside) {
		o.serveHTTP(o.Host, 80)
		var clients []*client
		for _, name := range []string{"a", "b", "c"} {
			o.start(name)
			clients = append(clients, o.background(append([]string{"exec", name}, play(t, "crowd", o.Router.FarHost+":80", "300")...)...))
		}
		for _, c := range clients {
			if code := c.wait(); code != 0 {
				t.Error(c.errors.String())
			}
		}
		flows := func() int {
			return len(regexp.MustCompile(`(?m)^\d+ +tcp`).FindAllString(o.run("show", "flows"), -1))
		}
		if o.byHost() {
			o.noConnections() // they end with their sockets
		} else if n := flows(); n != 900 {
			t.Errorf("%d flows, want 900", n)
		}
	})
}

// A conversation with the outside does not notice what happens beside it: other
// containers, their published ports, another uplink, a trace, and a flood of
// connections nobody wants.
func TestTalkGoesOnOutside(t *testing.T) {
	o := newOutside(t)
	second := o.AddRouter(t)
	o.serveUDP(o.Host, 7)
	o.start("a")
	far := o.Router.FarHost
	o.exec("a", "fairlead", "probe", "udp-echo", far+":7") // the first packet asks for the neighbour
	heart := &heartbeat{c: o.background(append([]string{"exec", "-i", "a"}, play(t, "beat", far+":7")...)...)}
	for range 3 {
		trace := o.background("trace", "--words")
		o.uplinks(o.Router.Spec(), second.Spec("route=198.18.1.0/24"))
		o.serve("web", "-p", "8080:80", "-p", "9000-9099:9000-9099")
		greeted(t, curl(t, o.Host, "http://"+o.reach+":8080/"), far)
		o.exec("web", "ping", "-c", "2", "-i", "0.1", "-W", "5", second.FarHost)
		o.run("unpublish", "web", "9000-9099:9000-9099")
		// Not all of them are refused: there is a limit to what is answered.
		o.Host.Try(t, "timeout", "1", "bash", "-c", "for i in $(seq 500); do echo > /dev/tcp/"+o.reach+"/$i || echo > /dev/udp/"+o.reach+"/$i; done 2>/dev/null")
		o.uplinks(o.Router.Spec())
		o.run("stop", "-t", "0", "web")
		o.gone("web")
		trace.stop()
	}
	heart.stop()
}
