package test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// A container that runs is connected to further networks, with what is asked for
// there, and disconnected again. The default route, published ports, hosts lines
// and names follow each time, and no other port notices.
func TestS21_RunningContainer(t *testing.T) {
	o := newHostOutside(t)
	for _, args := range [][]string{{"front"}, {"--subnet", "10.21.0.0/24", "back"}, {"--internal", "dark"}} {
		o.run(append([]string{"network", "create"}, args...)...)
	}
	o.says(o.Host.Serve(t, o.bin, "probe", "http-server", "--addr", ":9000"), "serving on")
	o.serve("web", "-p", "8080:80")
	o.start("db", "--network", "back")
	o.start("other", "--network", "front")
	beat := o.beating("from", "to")
	before := o.exec("web", "ip", "route")

	o.run("network", "connect", "--ip", "10.21.0.77", "--mac", "02:42:00:00:00:77", "--ifname", "lab0", "--alias", "www", "--route", "10.99.0.0/16@10.21.0.2", "back", "web")
	links := o.exec("web", "ip", "-br", "address")
	if err := contains(links, "eth0", "172.17.0.2/16", "lab0", "10.21.0.77/24", "fe80::42:ff:fe00:77/64"); err != nil {
		t.Error(err)
	}
	routes := o.exec("web", "ip", "route")
	if err := contains(routes, "default via 10.21.0.1 dev lab0", "10.99.0.0/16 via 10.21.0.2 dev lab0", "172.17.0.0/16 dev eth0"); err != nil {
		t.Error(err) // back comes before default
	}
	if strings.Count(routes, "default") != 1 {
		t.Errorf("routes\n%s", routes)
	}
	if err := contains(o.exec("web", "cat", "/etc/hosts"), "172.17.0.2\t", "10.21.0.77\t"); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"web", "www", "web.back"} {
		if err := contains(o.exec("db", "ping", "-c", "1", "-W", "10", name), "(10.21.0.77)"); err != nil {
			t.Error(err)
		}
	}
	if err := contains(o.exec("web", "ping", "-c", "1", "-W", "10", "db"), "(10.21.0.2)"); err != nil {
		t.Error(err)
	}
	reached := func() {
		t.Helper()
		o.Host.Run(t, "curl", "-sS", "--max-time", "10", "-o", "/dev/null", "http://"+o.reach+":8080/")
		o.exec("web", "curl", "-sS", "--max-time", "10", "-o", "/dev/null", "http://"+o.Router.FarHost+":9000/")
	}
	reached()

	// A priority goes before names, and an internal network is never the way out.
	o.run("network", "connect", "dark", "web")
	o.run("network", "connect", "--gw-priority", "9", "front", "web")
	if err := contains(o.exec("web", "ip", "route"), "default via 172.18.0.1 dev eth2"); err != nil {
		t.Error(err)
	}
	reached()
	if got := o.ports("web"); !slices.Equal(got, []string{"front"}) {
		t.Errorf("published by way of %v", got)
	}
	o.refuses("endpoint with name web already exists in network dark", "network", "connect", "dark", "web")

	for _, step := range []struct{ leaves, route string }{
		{"front", "default via 10.21.0.1 dev lab0"},
		{"back", "default via 172.17.0.1 dev eth0"},
		{"dark", strings.TrimSpace(strings.Split(before, "\n")[0])},
	} {
		o.run("network", "disconnect", step.leaves, "web")
		if err := contains(o.exec("web", "ip", "route"), step.route); err != nil {
			t.Errorf("without %s: %v", step.leaves, err)
		}
		reached()
	}
	if after := o.exec("web", "ip", "route"); after != before {
		t.Errorf("routes are\n%swere\n%s", after, before)
	}
	o.refuses("container web is not connected to network back", "network", "disconnect", "back", "web")
	if r := o.try("exec", "db", "ping", "-c", "1", "-W", "1", "www"); r.code == 0 {
		t.Errorf("the alias is still there: %v", r)
	}
	beat.stop()
	for _, name := range []string{"web", "db", "other", "from", "to"} {
		o.run("kill", name)
		o.gone(name)
	}
	for _, name := range []string{"front", "back", "dark"} {
		o.run("network", "rm", name)
	}
}

// ports are the networks a container's published ports lead to.
func (n *node) ports(name string) (networks []string) {
	n.t.Helper()
	var rules []api.NATRule
	n.json(&rules, "show", "nat")
	for _, r := range rules {
		if r.Kind == "publish" && r.Container == name {
			networks = append(networks, r.Network)
		}
	}
	return networks
}

// Who has a conversation by one network when the default route comes to lead by another
// reaches the new gateway all the same: what still leaves with the old address is
// refused, and the container asks for its neighbours by the new one.
func TestS21_RouteMovesUnderTraffic(t *testing.T) {
	o := newHostOutside(t)
	o.serveUDP(o.Host, 7)
	far := o.Router.FarHost + ":7"
	o.run("network", "create", "lab")
	o.start("c", "--network", "lab")
	o.exec("c", "fairlead", "probe", "udp-echo", far)
	old := o.background(append([]string{"exec", "-i", "c"}, play(t, "beat", far)...)...)
	lab.Eventually(t, patience, func() error {
		if in := o.port("c").Counts.Read; in < 100 {
			return fmt.Errorf("%d frames", in)
		}
		return nil
	})
	o.run("network", "connect", "default", "c") // goes before lab by its name
	lab.Eventually(t, patience, func() error {
		return contains(o.run("show", "drops"), "spoofed-address")
	})
	o.exec("c", "fairlead", "probe", "udp-echo", far)
	old.stop()
}

// Root inside takes away the interface its default route led by: the container
// goes on by the other, and can be disconnected from where that was.
func TestS21_InterfaceRemovedInside(t *testing.T) {
	n := newNode(t)
	n.run("network", "create", "back")
	n.start("web", "--network", "back", "--network", "default")
	n.start("db", "--network", "default")
	if err := contains(n.exec("web", "ip", "route"), "default via 172.18.0.1 dev eth0"); err != nil {
		t.Error(err)
	}
	n.exec("web", "ip", "link", "delete", "eth0")
	lab.Eventually(t, patience, func() error {
		if err := contains(n.exec("web", "ip", "route"), "default via 172.17.0.1 dev eth1"); err != nil {
			return err
		}
		if c := n.containers()["web"]; c.IP != "172.17.0.3" && c.IP != "172.17.0.2" || c.Network != "default" {
			return fmt.Errorf("listed %+v", c)
		}
		return nil
	})
	n.exec("web", "ping", "-c", "1", "-W", "10", n.containers()["db"].IP)
	n.run("network", "disconnect", "back", "web")
	n.run("network", "connect", "back", "web")
	if err := contains(n.exec("web", "ip", "route"), "default via 172.18.0.1 dev eth0"); err != nil {
		t.Error(err)
	}
	n.run("kill", "web")
	n.gone("web")
	n.run("network", "rm", "back")
}
