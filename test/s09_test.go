package test

import (
	"strings"
	"testing"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// option changes an option of the default network while it is used.
func (n *node) option(key, value string) {
	n.t.Helper()
	ctx, cancel := contextWithPatience()
	defer cancel()
	request := api.NetworkRequest{Options: map[string]string{key: value}}
	if err := api.NewClient(n.dir).Post(ctx, "/v1/networks/default", request, nil); err != nil {
		n.t.Fatalf("option %s=%s: %v", key, value, err)
	}
}

// fetches fails the test unless a container gets a page, or with silent unless it
// gets no answer.
func (n *node) fetches(from, url string, silent bool) {
	n.t.Helper()
	if silent {
		if r := n.try("exec", from, "curl", "-sS", "--max-time", "0.3", url); r.code != 28 { // timed out
			n.t.Errorf("%v\nwant silence", r)
		}
		return
	}
	if page := n.exec(from, "curl", "-sS", "--max-time", "5", url); !strings.HasPrefix(page, "Hello ") {
		n.t.Errorf("%s gets %q from %s", from, page, url)
	}
}

// Where containers do not talk to one another, gateway, outside and published ports
// still work, and a link or a rule opens just what it names.
func TestS09_ICC(t *testing.T) { eachUplink(t, closedNetwork) }

func closedNetwork(t *testing.T, o *outside) {
	o.option("icc", "off")
	server := o.serveHTTP(o.Host, 80)
	defer server.Stop()
	o.serve("web", "--expose", "80", "-p", "8080:80")
	o.start("a")
	web := "http://172.17.0.2/"

	// Not one another, though they find one another.
	o.fetches("a", web, true)
	o.exec("a", "sh", "-c", "! ping -c 1 -W 0.3 172.17.0.2")
	if out := o.exec("a", "ip", "neigh", "show", "172.17.0.2"); !strings.Contains(out, "02:42:ac:11:00:02") {
		t.Errorf("web's MAC is not known: %q", out)
	}
	if o.dropped("a", "icc") == 0 {
		t.Errorf("nothing counts it: %s", o.run("show", "drops"))
	}
	// But the gateway, the outside, and what is published.
	o.exec("a", "ping", "-c", "1", "-W", "5", "172.17.0.1")
	o.fetches("a", "http://"+o.Router.FarHost+"/", false)
	greeted(t, curl(t, o.Host, "http://"+o.reach+":8080/"), o.Router.FarHost)
	o.fetches("a", "http://"+o.reach+":8080/", false)
	// And nobody goes by the gateway instead.
	o.exec("a", "ip", "neigh", "replace", "172.17.0.2", "lladdr", "02:42:ac:11:00:01", "dev", "eth0")
	o.fetches("a", web, true)
	o.exec("a", "ip", "neigh", "flush", "dev", "eth0")

	// A link opens what is exposed, to who has it.
	o.start("linked", "--link", "web:db")
	o.fetches("linked", "http://db/", false)
	o.sh("linked", "! ping -c 1 -W 0.3 db")
	o.sh("linked", "! curl -s --max-time 0.3 http://db:81/")
	o.fetches("a", web, true)
	if o.ruled("admit", "rule 1: link web:db, exposed: 80/tcp") == 0 {
		t.Errorf("the link counts nothing: %s", o.run("show", "rules"))
	}

	// A rule as well, for names that need not be there yet, and not backwards.
	if number := o.run("rule", "add", "a", "web:80"); number != "2\n" {
		t.Errorf("rule add prints %q", number)
	}
	o.fetches("a", web, false)
	o.sh("a", "! ping -c 1 -W 0.3 172.17.0.2")
	if r := o.try("rule", "add", "any", "late:7/udp"); r.code != 0 || !strings.Contains(r.stderr, "no container on network default is called late so far") {
		t.Error(r)
	}
	late := o.start("late", "--", "fairlead", "probe", "udp-echo")
	o.logSays("late", "echoing on")
	address := o.containers()["late"].IP
	o.exec("a", "fairlead", "probe", "udp-echo", "--timeout", "5s", address+":7")
	if err := contains(o.exec("a", play(t, "ask", "5000", address+":8", "1")...), "silence"); err != nil {
		t.Errorf("port 8 is open too: %v", err)
	}
	// They follow a container that returns with another address.
	o.run("stop", "-t", "0", late)
	o.gone("late")
	o.start("between")
	o.start("late", "--", "fairlead", "probe", "udp-echo")
	o.logSays("late", "echoing on")
	if again := o.containers()["late"].IP; again == address {
		t.Fatalf("late has %s again", again)
	} else {
		o.exec("a", "fairlead", "probe", "udp-echo", "--timeout", "5s", again+":7")
	}
	rules := table(t, o.run("rule", "ls"))
	if len(rules) != 2 || rules[0]["state"] != "open" || rules[0]["from"] != "a" || rules[0]["to"] != "web:80/tcp" || rules[0]["packets"] == "0" || rules[1]["packets"] == "0" {
		t.Errorf("rule ls: %v", rules)
	}
	o.run("rule", "rm", "a", "web:80")
	o.fetches("a", web, true)

	// Who shares a namespace has its frames, and its name is as good.
	o.start("side", "--network", "container:a")
	o.run("rule", "add", "side", "web:80")
	o.fetches("a", web, false)
	o.run("rule", "rm", "side", "web:80")
	o.run("stop", "-t", "0", "side")

	// Each packet's trace names what let it pass, or that nothing did.
	trace := o.background("trace", "--words", "a")
	lab.Eventually(t, patience, func() error {
		o.try("exec", "a", "fairlead", "probe", "udp-echo", "--timeout", "50ms", o.containers()["late"].IP+":7")
		o.try("exec", "a", "ping", "-c", "1", "-W", "0.1", "172.17.0.2")
		return contains(trace.out.String(), "4 admit      rule 3 opens it: any → late:7/udp", "4 admit      dropped, icc: The network does not let")
	})
	trace.stop()
	o.option("icc", "on")
	o.fetches("a", web, false)
	if state := table(t, o.run("rule", "ls"))[0]["state"]; state != "not needed (icc=on)" {
		t.Errorf("rule ls says %q", state)
	}
}

// IPv6 is held to the same: neighbours are found, and nothing else passes.
func TestS09_IPv6(t *testing.T) {
	n := newNode(t, "--opt", "icc=off")
	lab.Need(t, "ping", "curl")
	n.serve("web")
	n.start("a")
	const web = "fe80::42:acff:fe11:2%eth0"
	n.sh("a", "! ping -6 -c 1 -W 0.3 "+web)
	n.run("rule", "add", "a", "web:80")
	n.fetches("a", "http://["+web+"]/", false)
	n.sh("a", "! ping -6 -c 1 -W 0.3 "+web)
	n.run("rule", "add", "a", "web") // everything
	n.exec("a", "ping", "-6", "-c", "1", "-W", "5", web)
	n.sh("web", "! ping -6 -c 1 -W 0.3 fe80::42:acff:fe11:3%eth0")
}

// Datagrams larger than the MTU pass in pieces where their port is open, and
// errors about what passed come back.
func TestS09_FragmentsAndErrors(t *testing.T) {
	n := newNode(t, "--opt", "icc=off")
	n.start("echo", "--", "fairlead", "probe", "udp-echo")
	n.logSays("echo", "echoing on")
	n.start("a")
	n.run("rule", "add", "a", "echo:7-8/udp")
	large := strings.Repeat("large ", 1000)
	if out := n.exec("a", "fairlead", "probe", "udp-echo", "--timeout", "5s", "172.17.0.2:7", large); !strings.HasPrefix(out, large) {
		t.Error("a datagram in pieces is not echoed")
	}
	if out := n.exec("a", play(t, "ask", "5000", "172.17.0.2:8", "1")...); !strings.Contains(out, "refused") {
		t.Errorf("nobody listens on port 8, and who asks gets %q", out)
	}
	if n.dropped("echo", "icc")+n.dropped("a", "icc") != 0 {
		t.Error(n.run("show", "drops"))
	}
}
