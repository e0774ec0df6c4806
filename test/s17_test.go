package test

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"fairlead/node/api"
	"fairlead/test/lab"
)

var hexID = regexp.MustCompile(`^[0-9a-f]{64}$`)

// network makes a network and returns what is known of it.
func (n *node) network(args ...string) api.NetworkInspect {
	n.t.Helper()
	id := strings.TrimSpace(n.run(append([]string{"network", "create"}, args...)...))
	if !hexID.MatchString(id) {
		n.t.Fatalf("network create printed %q, want an id", id)
	}
	return n.inspectNetwork(id)
}

func (n *node) inspectNetwork(ref string) api.NetworkInspect {
	n.t.Helper()
	var list []api.NetworkInspect
	if out := n.run("network", "inspect", ref); json.Unmarshal([]byte(out), &list) != nil || len(list) != 1 {
		n.t.Fatalf("network inspect %s: %s", ref, out)
	}
	return list[0]
}

// A network of one's own is in the next free pool, its containers have addresses
// and a gateway there, and are apart from those of others.
func TestS17_CustomNetwork(t *testing.T) {
	lab.NoLeaks(t)
	lab.Need(t, "ip", "ping", "curl")
	n := newNode(t)
	a, b := n.network("lab"), n.network("--label", "stage=test", "yard")
	if a.IPAM.Config[0].Subnet != "172.18.0.0/16" || b.IPAM.Config[0].Subnet != "172.19.0.0/16" || b.Labels["stage"] != "test" {
		t.Errorf("%+v\n%+v", a, b)
	}
	n.start("one")
	n.serve("web", "--network", "lab")
	n.start("two", "--network", "lab")
	n.start("three", "--net", b.ID[:12])
	if got := n.exec("web", "ip", "-4", "route"); got != "default via 172.18.0.1 dev eth0 \n172.18.0.0/16 dev eth0 proto kernel scope link src 172.18.0.2 \n" {
		t.Errorf("ip route: %s", got)
	}
	greeted(t, n.exec("two", "curl", "-sS", "--max-time", "5", "http://172.18.0.2/"), "172.18.0.3")
	n.exec("two", "ping", "-c", "1", "-W", "5", "172.18.0.1")

	// Nobody of another network hears an answer, and each that asks is counted.
	for _, from := range []string{"one", "three"} {
		before := n.dropped(from, "other-network")
		r := n.try("exec", from, "ping", "-c", "2", "-i", "0.05", "-W", "0.2", "172.18.0.2")
		if r.code != 1 || !strings.Contains(r.stdout, "100% packet loss") || strings.Contains(r.stdout, "From ") {
			t.Errorf("%s reaches another network: %v", from, r)
		}
		if got := n.dropped(from, "other-network") - before; got != 2 {
			t.Errorf("%d packets of %s were dropped as other-network, want 2", got, from)
		}
	}
	if err := contains(n.run("network", "ls"), "NETWORK ID", "default  bridge  local  172.17.0.0/16  1", a.ID[:12]+"  lab      bridge  local  172.18.0.0/16  2"); err != nil {
		t.Error(err)
	}
	if got := n.run("network", "ls", "-q", "--filter", "label=stage"); got != b.ID[:12]+"\n" {
		t.Errorf("network ls: %q", got)
	}
	if got := n.run("network", "inspect", "-f", "{{range .Containers}}{{.Name}} {{.IPv4Address}}{{println}}{{end}}", "yard"); got != "three 172.19.0.2/16\n\n" {
		t.Errorf("network inspect: %q", got)
	}

	// What is in use stays; the rest goes, and its pool is free again.
	n.refuses(`network lab has active endpoints`, "network", "rm", "lab")
	n.run("stop", "-t", "0", "three")
	if got := n.run("network", "prune", "-f"); got != "Deleted Networks:\nyard\n" {
		t.Errorf("network prune: %q", got)
	}
	if b = n.network("yard"); b.IPAM.Config[0].Subnet != "172.19.0.0/16" {
		t.Errorf("%+v", b.IPAM)
	}
	if got := n.run("network", "rm", "yard"); got != "yard\n" {
		t.Errorf("network rm: %q", got)
	}
	n.refuses("network yard not found", "network", "inspect", "yard")
	n.run("network", "rm", "-f", "yard")
}

// Subnet, gateway, range and kept addresses are what was asked for.
func TestS17_Addresses(t *testing.T) {
	lab.NoLeaks(t)
	lab.Need(t, "ip")
	n := newNode(t)
	n.network("--subnet", "10.1.0.0/16", "--gateway", "10.1.0.254", "--ip-range", "10.1.5.0/29", "--aux-address", "router=10.1.5.1", "lab")
	config := n.inspectNetwork("lab").IPAM.Config[0]
	if config.IPRange != "10.1.5.0/29" || config.Gateway != "10.1.0.254" || config.AuxiliaryAddresses["router"] != "10.1.5.1" {
		t.Errorf("%+v", config)
	}
	n.start("a", "--network", "lab")
	n.start("b", "--network", "lab")
	if got := n.exec("a", "ip", "-4", "-o", "addr", "show", "dev", "eth0"); !strings.Contains(got, " 10.1.5.0/16 ") {
		t.Errorf("ip addr: %s", got) // of the range the first, which is no more than an address of the subnet
	}
	if got := n.exec("b", "ip", "-4", "route"); !strings.HasPrefix(got, "default via 10.1.0.254 dev eth0") || !strings.Contains(got, "src 10.1.5.2") {
		t.Errorf("ip route: %s", got)
	}
	n.start("c", "--network", "name=lab,ip=10.1.9.9,mac-address=02:00:00:00:00:09,ifname=lab0")
	if got := n.exec("c", "ip", "-o", "addr", "show", "dev", "lab0"); !strings.Contains(got, " 10.1.9.9/16 ") {
		t.Errorf("ip addr: %s", got)
	}
	if got := n.exec("c", "ip", "-o", "link", "show", "dev", "lab0"); !strings.Contains(got, "02:00:00:00:00:09") {
		t.Errorf("ip link: %s", got)
	}
	n.refuses("address 10.1.5.1 is kept for router (--aux-address)", "run", "--network", "lab", "--ip", "10.1.5.1", "--", "true")
	n.refuses("address 10.1.0.254 is the gateway's", "run", "--network", "lab", "--ip", "10.1.0.254", "--", "true")
	for range 5 { // 3 to 7
		n.run("run", "-d", "--network", "lab", "--", "sleep", "1000")
	}
	n.refuses("no address of the range from 10.1.5.0 to 10.1.5.7 is free; 8 containers have one", "run", "--network", "lab", "--", "true")
}

// An internal network has no way out and no default route, also when it becomes
// one while it is used.
func TestS17_Internal(t *testing.T) {
	o := newHostOutside(t)
	o.serveHTTP(o.Host, 80)
	far := "http://" + o.Router.FarHost + "/"
	o.network("--internal", "back")
	o.serve("db", "--network", "back")
	o.start("app", "--network", "back")
	if got := o.exec("app", "ip", "-4", "route"); got != "172.18.0.0/16 dev eth0 proto kernel scope link src 172.18.0.3 \n" {
		t.Errorf("ip route: %s", got)
	}
	greeted(t, o.exec("app", "curl", "-sS", "--max-time", "5", "http://172.18.0.2/"), "172.18.0.3")
	if r := o.try("exec", "app", "curl", "-sS", "--max-time", "5", far); r.code != 7 {
		t.Errorf("it leads outside: %v", r)
	}
	// Who makes a default route of his own gets no further than the gateway.
	o.exec("app", "ip", "route", "add", "default", "via", "172.18.0.1")
	if r := o.try("exec", "app", "ping", "-c", "1", "-W", "5", o.Router.FarHost); r.code != 1 || !strings.Contains(r.stdout, "Destination Net Unreachable") {
		t.Errorf("it leads outside: %v", r)
	}
	o.exec("app", "ip", "route", "del", "default")
	o.run("network", "set", "--internal=false", "back")
	greeted(t, o.exec("app", "curl", "-sS", "--max-time", "5", far), o.seen)
	o.run("network", "set", "--internal", "back")
	if got := o.exec("app", "ip", "-4", "route", "show", "default"); got != "" {
		t.Errorf("default route: %s", got)
	}
	if d := o.inspectNetwork("back"); !d.Internal {
		t.Errorf("%+v", d)
	}
}

// Containers of one network reach what those of another have published, by the
// host's address, and no more of it.
func TestS17_Published(t *testing.T) {
	o := newHostOutside(t)
	o.network("lab")
	o.serve("web", "-p", "8080:80")
	o.start("client", "--network", "lab")
	greeted(t, o.exec("client", "curl", "-sS", "--max-time", "5", "http://"+o.Router.Uplink+":8080/"), o.Router.Uplink)
	r := o.try("exec", "client", "curl", "-sS", "--max-time", "0.3", "http://172.17.0.2/")
	if r.code != 28 { // timed out
		t.Errorf("reached by its own address: %v", r)
	}
}

// Two networks that are routed reach one another directly, with one hop between.
func TestS17_Routed(t *testing.T) {
	lab.NoLeaks(t)
	lab.Need(t, "ping", "curl")
	n := newNode(t)
	n.network("-o", "routed=on", "lab")
	n.network("yard")
	n.serve("web", "--network", "lab")
	n.serve("client", "--network", "yard")
	if r := n.try("exec", "client", "ping", "-c", "1", "-W", "0.2", "172.18.0.2"); r.code != 1 {
		t.Errorf("one of two is routed: %v", r)
	}
	n.run("network", "set", "-o", "routed=on", "yard")
	greeted(t, n.exec("client", "curl", "-sS", "--max-time", "5", "http://172.18.0.2/"), "172.19.0.2")
	greeted(t, n.exec("web", "curl", "-sS", "--max-time", "5", "http://172.19.0.2/"), "172.18.0.2")
	if got := n.exec("client", "ping", "-c", "1", "-W", "5", "172.18.0.2"); !strings.Contains(got, "ttl=63") {
		t.Errorf("ping: %s", got)
	}
	var rules []api.FilterRule
	n.json(&rules, "show", "rules")
	for _, way := range [][2]string{{"lab", "yard"}, {"yard", "lab"}} {
		if i := slices.IndexFunc(rules, func(r api.FilterRule) bool { return r.Match == "both are routed" && r.In == way[0] && r.Out == way[1] }); i < 0 || rules[i].Packets == 0 {
			t.Errorf("from %s to %s: %+v", way[0], way[1], rules)
		}
	}
	n.run("network", "set", "-o", "routed=off", "lab")
	if r := n.try("exec", "web", "ping", "-c", "1", "-W", "0.2", "172.19.0.2"); r.code != 1 {
		t.Errorf("no more routed: %v", r)
	}
}

// Without masquerade the outside host sees the container itself, if it knows a way
// back.
func TestS17_NoMasquerade(t *testing.T) {
	o := newOutside(t)
	o.serveHTTP(o.Host, 80)
	o.start("a")
	far := "http://" + o.Router.FarHost + "/"
	greeted(t, o.exec("a", "curl", "-sS", "--max-time", "5", far), o.seen)
	o.run("network", "set", "-o", "masquerade=off", "default")
	o.Router.Route(t, "172.17.0.0/16", o.Router.Uplink)
	o.Host.Route(t, "172.17.0.0/16", o.Router.Far)
	greeted(t, o.exec("a", "curl", "-sS", "--max-time", "5", far), "172.17.0.2")
	if got := o.exec("a", "ping", "-c", "1", "-W", "5", o.Router.FarHost); !strings.Contains(got, "1 received") {
		t.Errorf("ping: %s", got)
	}
	if err := contains(o.run("show", "nat"), "none", "up0", "(as it is)"); err != nil {
		t.Error(err)
	}
	// Nobody out there begins anything.
	silent(t, o.Host, "http://172.17.0.2/")
	o.run("network", "set", "-o", "masquerade=on", "default")
	greeted(t, o.exec("a", "curl", "-sS", "--max-time", "5", far), o.seen)
}

// Where this host has a route into the usual subnet, the default network has the
// next one, and those that are made take the ones behind it.
func TestS17_NextPool(t *testing.T) {
	o := newHostMachine(t)
	o.Machine.Run(t, "ip", "link", "add", "docker0", "type", "bridge")
	o.Machine.Run(t, "ip", "addr", "add", "172.17.0.1/16", "dev", "docker0")
	o.Machine.Run(t, "ip", "route", "add", "172.19.3.0/24", "via", o.Router.Addr)
	if out, status := o.on(o.Machine, "up"); status != 0 || !strings.Contains(out, "network default: 172.18.0.0/16, gateway 172.18.0.1") {
		t.Fatalf("fairlead up: exit status %d\n%s", status, out)
	}
	o.serve("web")
	o.start("client")
	greeted(t, o.exec("client", "curl", "-sS", "--max-time", "5", "http://172.18.0.2/"), "172.18.0.3")
	if lab := o.network("lab"); lab.IPAM.Config[0].Subnet != "172.20.0.0/16" {
		t.Errorf("%+v", lab.IPAM)
	}
	o.refuses("172.19.0.0/16 and the route 172.19.3.0/24 dev eth0 of this host; --subnet 172.21.0.0/16 is free", "network", "create", "--subnet", "172.19.0.0/16", "yard")
	// What up says without a subnet changes none.
	if out, status := o.on(o.Machine, "up"); status != 0 || !strings.Contains(out, "network default: 172.18.0.0/16") {
		t.Errorf("fairlead up: exit status %d\n%s", status, out)
	}
	if out, _ := o.on(o.Machine, "doctor"); !strings.Contains(out, "172.18.0.0/16, 172.20.0.0/16: no address or route of this") {
		t.Errorf("fairlead doctor:\n%s", out)
	}
}
