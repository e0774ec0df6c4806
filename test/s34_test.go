package test

import (
	"strings"
	"testing"

	"fairlead/test/lab"
)

// routes are the routing table in the words of ip route.
func (n *node) routes() string {
	n.t.Helper()
	return strings.ReplaceAll(n.run("show", "routes", "--as", "kernel"), " \n", "\n")
}

// Networks on-link, uplinks and the default route; a specific route wins.
func TestS34_Routes(t *testing.T) { eachRouter(t, routesWin) }

func routesWin(t *testing.T, o *outside) {
	second := o.AddRouter(t)
	seen := second.Uplink
	if o.seen == o.Router.Far { // behind a second NAT router, the other way is behind one too
		second.NAT(t)
		seen = second.Far
	}
	o.uplinks(o.Router.Spec(), second.Spec("route=198.18.1.0/24"))
	if want := `default via 192.0.2.1 dev up0
172.17.0.0/16 dev default proto kernel scope link src 172.17.0.1
192.0.2.0/24 dev up0 proto kernel scope link src 192.0.2.2
198.18.1.0/24 via 203.0.113.1 dev up1
203.0.113.0/24 dev up1 proto kernel scope link src 203.0.113.2
`; o.routes() != want {
		t.Errorf("routes are\n%swant\n%s", o.routes(), want)
	}
	rows := table(t, o.run("show", "routes"))
	if len(rows) != 5 || rows[len(rows)-1]["destination"] != "0.0.0.0/0" || rows[0]["state"] != "up" || rows[0]["network"] != "default" {
		t.Errorf("show routes has %v", rows)
	}
	o.serveHTTP(o.Host, 80)
	o.start("a")
	greeted(t, o.exec("a", "curl", "-sS", "--max-time", "5", "http://"+second.FarHost+"/"), seen) // the specific one
	greeted(t, o.exec("a", "curl", "-sS", "--max-time", "5", "http://"+o.Router.FarHost+"/"), o.seen)
}

// Without a route the sender is told so, at once, and show drops says why.
func TestS34_NoRoute(t *testing.T) {
	lab.Need(t, "ping")
	n := newNode(t, "--uplink", "none")
	n.start("a")
	r := n.try("exec", "a", "ping", "-c", "1", "-W", "5", "198.51.100.2")
	if r.code != 1 || !strings.Contains(r.stdout, "From 172.17.0.1 icmp_seq=1 Destination Net Unreachable") {
		t.Errorf("ping to nowhere: %v", r)
	}
	if err := contains(n.run("show", "drops"), "no-route", "fairlead network set"); err != nil {
		t.Error(err)
	}
	if got := n.routes(); got != "172.17.0.0/16 dev default proto kernel scope link src 172.17.0.1\n" {
		t.Errorf("routes are\n%s", got)
	}
}
