package test

import (
	"fmt"
	"testing"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// ruled are the packets a rule has counted: the one of a chain that refuses for
// a reason, or accepts what it says.
func (n *node) ruled(chain, reasonOrMatch string) (packets uint64) {
	n.t.Helper()
	var rules []api.FilterRule
	n.json(&rules, "show", "rules")
	found := false
	for _, r := range rules {
		if r.Chain == chain && (r.Reason == reasonOrMatch || r.Reason == "" && r.Match == reasonOrMatch) {
			packets += r.Packets
			found = true
		}
	}
	if !found {
		n.t.Fatalf("show rules has no %s in chain %s: %+v", reasonOrMatch, chain, rules)
	}
	return packets
}

// The counter of the rule that lets a packet through or drops it moves.
func TestS33_CountersMove(t *testing.T) { eachRouter(t, countersMove) }

func countersMove(t *testing.T, o *outside) {
	o.serve("web", "-p", "8080:80")
	o.start("a", "--opt", "isolated=on")
	o.start("b", "--opt", "isolated=on")
	for _, c := range []struct {
		chain, rule string
		do          func()
	}{
		{"inbound", "publish", func() { curl(t, o.Host, "http://"+o.reach+":8080/") }},
		{"inbound", "established", func() { o.exec("a", "ping", "-c", "1", "-W", "5", o.Router.FarHost) }},
		{"forward", "both directions", func() { o.exec("a", "ping", "-c", "1", "-W", "5", o.Router.FarHost) }},
		{"inbound", "refused", func() { refused(t, o.Host, "http://"+o.reach+":81/") }},
		{"inbound", "not-for-us", func() {
			o.Router.Run(t, "ip", "route", "replace", "172.17.0.0/16", "via", o.Router.Uplink)
			silent(t, o.Router.Host, "http://172.17.0.2/")
		}},
		{"forward", "refused", func() { o.try("exec", "a", "curl", "-sS", "--max-time", "5", "http://172.17.0.1:81/") }},
		{"forward", "martian", func() { o.try("exec", "a", "ping", "-c", "1", "-W", "0.2", "240.0.0.1") }},
		{"forward", "ttl-exceeded", func() { o.try("exec", "a", "ping", "-c", "1", "-W", "5", "-t", "1", o.Router.FarHost) }},
		{"admit", "isolated", func() {
			// ARP is flooded past isolated ports, so the neighbour is made known.
			o.exec("a", "ip", "neigh", "replace", "172.17.0.4", "lladdr", "02:42:ac:11:00:04", "dev", "eth0")
			o.exec("b", "ping", "-c", "1", "-W", "5", "172.17.0.1") // so that the switch knows b
			o.try("exec", "a", "ping", "-c", "1", "-W", "0.2", "172.17.0.4")
		}},
		{"guard", "spoofed-address", func() {
			o.exec("a", "ip", "addr", "add", "172.17.0.77/16", "dev", "eth0")
			o.try("exec", "a", "ping", "-c", "1", "-W", "0.2", "-I", "172.17.0.77", "172.17.0.1")
		}},
	} {
		before := o.ruled(c.chain, c.rule)
		c.do()
		lab.Eventually(t, patience, func() error {
			if now := o.ruled(c.chain, c.rule); now <= before {
				return fmt.Errorf("%s in chain %s counts %d, and did before", c.rule, c.chain, now)
			}
			return nil
		})
	}
	// For people only what has something to say, and the rest is counted.
	if err := contains(o.run("show", "rules"), "isolated", "spoofed-address", "publish", "\nNot listed: "); err != nil {
		t.Error(err)
	}
}

// What containers may send one another has its lines too: what a link and a rule
// let pass, and what nothing did.
func TestS33_BetweenContainers(t *testing.T) {
	n := newNode(t, "--opt", "icc=off")
	lab.Need(t, "ping", "curl")
	n.serve("web", "--expose", "80")
	n.start("linked", "--link", "web")
	n.start("a")
	n.run("rule", "add", "a", "web:80")
	for _, c := range []struct {
		rule string
		do   func()
	}{
		{"rule 1: link web:web, exposed: 80/tcp", func() { n.fetches("linked", "http://web/", false) }},
		{"rule 2: a → web:80/tcp", func() { n.fetches("a", "http://172.17.0.2/", false) }},
		{"icc", func() { n.sh("a", "! ping -c 1 -W 0.2 172.17.0.2") }},
		{"icc", func() { // the switch does not know web, so this is flooded
			n.exec("a", "ip", "neigh", "replace", "172.17.0.2", "lladdr", "02:42:ac:11:00:99", "dev", "eth0")
			n.sh("a", "! ping -c 1 -W 0.2 172.17.0.2")
		}},
	} {
		before := n.ruled("admit", c.rule)
		c.do()
		if now := n.ruled("admit", c.rule); now <= before {
			t.Errorf("%s counts %d, and did before", c.rule, now)
		}
	}
	if err := contains(n.run("show", "rules"), "rule 1: link web:web", "rule 2: a → web:80/tcp", "from one container to another (icc=off)"); err != nil {
		t.Error(err)
	}
	if err := contains(n.run("show", "rules", "--as", "kernel"), "link web:web", "dpt:80"); err != nil {
		t.Error(err)
	}
}
