package test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// hostsOf are the lines of a container's hosts file behind the six every one has.
func (n *node) hostsOf(name string) []string {
	n.t.Helper()
	lines := strings.Split(strings.TrimSpace(n.exec(name, "cat", "/etc/hosts")), "\n")
	if len(lines) < 6 {
		n.t.Fatalf("/etc/hosts of %s: %q", name, lines)
	}
	return lines[6:]
}

// A link on the default network is a line in the hosts file, before the
// container's own, and variables; it follows the container that has the name.
func TestS10_Link(t *testing.T) {
	n := newNode(t)
	lab.Need(t, "ping", "curl")
	web := n.serve("web1", "--expose", "80", "-e", "COLOUR=red")
	before := n.hostsOf("web1")
	client := n.start("client", "--link", "web1:db")
	if want := []string{"172.17.0.2\tdb " + web[:12] + " web1", "172.17.0.3\t" + client[:12]}; !slices.Equal(n.hostsOf("client"), want) {
		t.Errorf("hosts %q, want %q", n.hostsOf("client"), want)
	}
	n.exec("client", "ping", "-c", "1", "-W", "5", "db")
	n.fetches("client", "http://db/", false)
	if now := n.hostsOf("web1"); !slices.Equal(now, before) {
		t.Errorf("web1's hosts are %q now, and were %q", now, before)
	}
	var i api.Inspect
	if err := n.ask("/v1/containers/client", &i); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(i.HostConfig.Links, []string{"/web1:/client/db"}) {
		t.Errorf("inspect has links %q", i.HostConfig.Links)
	}

	// The variables, below what -e says.
	env := strings.Split(n.run("run", "--name", "told", "--link", "web1:my-db", "-e", "MY_DB_ENV_COLOUR=blue", "--", "env"), "\n")
	for _, want := range []string{"MY_DB_PORT=tcp://172.17.0.2:80", "MY_DB_PORT_80_TCP=tcp://172.17.0.2:80", "MY_DB_PORT_80_TCP_ADDR=172.17.0.2",
		"MY_DB_PORT_80_TCP_PORT=80", "MY_DB_PORT_80_TCP_PROTO=tcp", "MY_DB_NAME=/told/my-db", "MY_DB_ENV_COLOUR=blue"} {
		if !slices.Contains(env, want) {
			t.Errorf("no %s in %q", want, env)
		}
	}
	// Without an alias it is the name, also of one that was called by its id.
	if out := n.run("run", "--link", web[:12], "--", "cat", "/etc/hosts"); !strings.Contains(out, "172.17.0.2\tweb1 "+web[:12]+"\n") {
		t.Errorf("hosts of a link by id:\n%s", out)
	}

	// It returns with another address.
	n.run("stop", "-t", "0", "web1")
	n.gone("web1")
	if want := []string{"172.17.0.3\t" + client[:12]}; !slices.Equal(n.hostsOf("client"), want) {
		t.Errorf("hosts %q without web1", n.hostsOf("client"))
	}
	n.start("between")
	n.serve("web1", "--expose", "80")
	addr := n.containers()["web1"].IP
	if addr == "172.17.0.2" {
		t.Fatal("web1 has its address again")
	}
	lab.Eventually(t, patience, func() error {
		if line := n.hostsOf("client")[0]; !strings.HasPrefix(line, addr+"\tdb ") {
			return fmt.Errorf("the link leads to %q, and web1 is %s", line, addr)
		}
		return nil
	})
	n.fetches("client", "http://db/", false)
}

// -p exposes what it publishes, and -P publishes what is exposed; where containers
// do not talk to one another a link opens both.
func TestS10_LinkOpensWhatIsExposed(t *testing.T) {
	n := newNode(t, "--opt", "icc=off")
	lab.Need(t, "curl")
	for name, options := range map[string][]string{
		"exposed": {"--expose", "80"}, "published": {"-p", "8080:80"}, "all": {"--expose", "80", "-P"}, "hidden": {},
	} {
		n.serve(name, options...)
		n.start("to-"+name, "--link", name)
		n.fetches("to-"+name, "http://"+name+"/", name == "hidden")
	}
}

// On a network with names a link is one of the container's own.
func TestS10_CustomNetwork(t *testing.T) {
	n := newNode(t)
	lab.Need(t, "curl")
	n.run("network", "create", "back")
	n.serve("web1", "--network", "back")
	n.start("client", "--network", "back", "--link", "web1:db")
	n.start("other", "--network", "back")
	n.fetches("client", "http://db/", false)
	if r := n.try("exec", "other", "curl", "-sS", "--max-time", "5", "http://db/"); r.code != 6 { // no such host
		t.Errorf("others have the name too: %v", r)
	}
	if hosts := n.hostsOf("client"); len(hosts) != 1 {
		t.Errorf("hosts %q", hosts)
	}
	if out := n.run("run", "--network", "back", "--link", "web1:db", "--", "env"); strings.Contains(out, "DB_PORT") {
		t.Errorf("variables are of the default network only:\n%s", out)
	}
	// So is one of who is connected later.
	n.start("late")
	n.run("network", "connect", "--link", "web1:later", "back", "late")
	n.fetches("late", "http://later/", false)
	// With the network its rules go.
	n.run("network", "set", "back", "--opt", "icc=off")
	n.fetches("late", "http://later/", true)
	n.run("rule", "add", "--network", "back", "late", "web1:80")
	n.fetches("late", "http://later/", false)
	n.run("network", "disconnect", "back", "late")
	if state := table(t, n.run("rule", "ls"))[0]["state"]; state != "waits for late" {
		t.Errorf("rule ls says %q", state)
	}
	n.run("stop", "-t", "0", "web1", "client", "other", "late")
	n.run("network", "rm", "back")
	var rules []api.Rule
	if n.json(&rules, "rule", "ls"); len(rules) != 0 {
		t.Errorf("rules are left: %+v", rules)
	}
}
