package test

import (
	"strings"
	"testing"

	"fairlead/test/lab"
)

// One container has an outside address of its own: who comes by it reaches all of
// its ports, and pings it; what it sends comes from there. Another one keeps the
// uplink's.
func TestS36_OneToOne(t *testing.T) {
	lab.Need(t, "traceroute")
	const own = "192.0.2.50"
	o := newOutside(t, "addr="+own)
	o.serveHTTP(o.Host, 80)
	o.serveUDP(o.Host, 7)
	o.serve("mail")
	o.serve("other", "-p", "8080:80")
	far := o.Router.FarHost
	refused(t, o.Host, "http://"+own+"/") // it is nobody's yet
	o.run("publish", "--address", own, "mail")

	greeted(t, curl(t, o.Host, "http://"+own+"/"), far)
	if err := contains(curl(t, o.Host, "http://"+own+"/"), "at 172.17.0.2:80."); err != nil {
		t.Error(err)
	}
	refused(t, o.Host, "http://"+own+":81/") // by the container itself: nobody listens
	if out := o.Host.Run(t, "ping", "-c", "1", "-W", "5", own); !strings.Contains(out, "ttl=62") {
		t.Errorf("ping of %s is not answered by the container, two hops away:\n%s", own, out)
	}
	greeted(t, o.exec("mail", "curl", "-sS", "--max-time", "5", "http://"+far+"/"), own)
	greeted(t, o.exec("other", "curl", "-sS", "--max-time", "5", "http://"+far+"/"), o.Router.Uplink)
	o.exec("mail", "ping", "-c", "1", "-W", "5", far)
	o.exec("other", "ping", "-c", "1", "-W", "5", far)
	// ICMP errors, both directions: the container's own about its closed port,
	// and the outside host's.
	closed := play(t, "ask", "40000", own+":9", "1")
	if err := contains(o.Host.Run(t, closed[0], closed[1:]...), "connection refused"); err != nil {
		t.Error(err)
	}
	if err := contains(o.exec("mail", play(t, "ask", "40000", far+":9", "1")...), "connection refused"); err != nil {
		t.Error(err)
	}
	// The hops are seen from both ends.
	route, _ := traceBy(func(command ...string) string { return o.Host.Run(t, command[0], command[1:]...) }, "-n", "-w", probeWait, "-I", own)
	if have := hops(route); strings.Join(have, " ") != o.Router.Far+" "+o.Router.Uplink+" "+own {
		t.Errorf("the hops to %s are %v", own, have)
	}
	// From inside, a sibling reaches it by that address, and it itself.
	for _, name := range []string{"mail", "other"} {
		if err := contains(o.exec(name, "curl", "-sS", "--max-time", "5", "http://"+own+"/"), "at 172.17.0.2:80."); err != nil {
			t.Error(err)
		}
	}
	// A published port of another container is on the uplink's own address.
	if err := contains(curl(t, o.Host, "http://"+o.Router.Uplink+":8080/"), "at 172.17.0.3:80."); err != nil {
		t.Error(err)
	}
	o.refuses(own, "publish", "--address", own, "other")
	if err := contains(o.run("show", "nat"), "one-to-one", own, "mail"); err != nil {
		t.Error(err)
	}

	o.run("unpublish", "--address", own, "mail")
	refused(t, o.Host, "http://"+own+"/")
	greeted(t, o.exec("mail", "curl", "-sS", "--max-time", "5", "http://"+far+"/"), o.Router.Uplink)
	o.run("publish", "--address", own, "other") // it is free again
	greeted(t, o.exec("other", "curl", "-sS", "--max-time", "5", "http://"+far+"/"), own)
}

// A second NAT router may hand all that is for it to that one container.
func TestS36_BehindANATRouter(t *testing.T) {
	const own = "192.0.2.50"
	o := newOutside(t, "addr="+own)
	o.Router.NATFor(t, own)
	o.serveHTTP(o.Host, 80)
	o.serve("mail")
	o.start("other")
	o.run("publish", "--address", own, "mail")
	greeted(t, curl(t, o.Host, "http://"+o.Router.Far+"/"), o.Router.FarHost)
	for _, name := range []string{"mail", "other"} {
		greeted(t, o.exec(name, "curl", "-sS", "--max-time", "5", "http://"+o.Router.FarHost+"/"), o.Router.Far)
		o.exec(name, "ping", "-c", "1", "-W", "5", o.Router.FarHost)
	}
	closed := play(t, "ask", "40000", o.Router.Far+":9", "1")
	if err := contains(o.Host.Run(t, closed[0], closed[1:]...), "connection refused"); err != nil {
		t.Error(err)
	}
}
