package test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// With a link of its own the host has the gateway's address on an interface, and a
// route to the containers. What the gateway answers itself it goes on answering,
// whatever the host would say; the rest that is sent to its address is the host's.
func TestS15_HostLink(t *testing.T) {
	o := newHostOutside(t, "--host-link")
	addr := strings.Join(strings.Fields(o.Machine.Run(t, "ip", "-4", "-o", "addr", "show", "dev", "fairlead0")), " ")
	if want := "inet 172.17.0.1/16 brd 172.17.255.255 scope global fairlead0"; !strings.Contains(addr, want) {
		t.Errorf("the host has %q, want %q", addr, want)
	}
	route := "172.17.0.0/16 dev fairlead0 proto kernel scope link src 172.17.0.1"
	if out := o.Machine.Run(t, "ip", "route"); !strings.Contains(out, route) {
		t.Errorf("the host has the routes\n%swant %s", out, route)
	}

	o.Machine.Sysctl(t, "net.ipv4.icmp_echo_ignore_all", "1")
	o.Machine.Sysctl(t, "net.ipv4.conf.all.arp_ignore", "8")
	o.start("a")
	o.start("b")
	if out := o.exec("a", "ping", "-c", "1", "-W", "5", "172.17.0.1"); !strings.Contains(out, "ttl=64") {
		t.Errorf("the gateway answers\n%s", out)
	}
	if out := o.exec("a", "arp", "-n"); !strings.Contains(out, "02:42:ac:11:00:01") {
		t.Errorf("a knows\n%s", out)
	}

	o.serveHTTP(o.Machine, 9090)
	o.serveUDP(o.Machine, 9090)
	greeted(t, o.exec("a", "curl", "-sS", "--max-time", "5", "http://172.17.0.1:9090/"), "172.17.0.2")
	o.exec("a", "fairlead", "probe", "udp-echo", "--timeout", "5s", "172.17.0.1:9090")
	if r := o.try("exec", "a", "curl", "-sS", "--max-time", "5", "http://172.17.0.1:9099/"); r.code != 7 {
		t.Errorf("nobody listens: %v", r)
	}
	// Published ports come first, by the gateway's address as by others.
	o.serve("web", "-p", "8080:80")
	greeted(t, o.exec("a", "curl", "-sS", "--max-time", "5", "http://172.17.0.1:8080/"), "172.17.0.1")
	greeted(t, curl(t, o.Machine, "http://172.17.0.1:8080/"), "172.17.0.1")

	// The port is the host's in all tables, and it is nobody else's.
	if p := o.port(api.HostPort); p.Interface != "fairlead0" || p.IP != "172.17.0.1" || p.MAC != "02:42:ac:11:00:01" {
		t.Errorf("the host's port is %+v", p)
	}
	if out := o.run("show", "rules"); !strings.Contains(out, "the host, to containers") {
		t.Errorf("no rule speaks of the host:\n%s", out)
	}
	o.sh("a", "ip addr add 172.17.0.1/32 dev eth0; ping -c 1 -W 1 -I 172.17.0.1 172.17.0.3 || true; ip addr del 172.17.0.1/32 dev eth0")
	if o.dropped("a", "spoofed-gateway") == 0 {
		t.Error("a could use the host's address")
	}

	// It goes when it is told to, with its interface when that is removed, and with
	// the node.
	o.hostLink("off")
	o.withoutInterface("fairlead0")
	if r := o.try("exec", "a", "curl", "-sS", "--max-time", "5", "http://172.17.0.1:9090/"); r.code != 7 {
		t.Errorf("the link is off: %v", r)
	}
	o.hostLink("on")
	o.hostLink("on") // there it is
	o.Machine.Run(t, "ip", "link", "del", "fairlead0")
	lab.Eventually(t, 10*time.Second, func() error {
		if slices.ContainsFunc(o.theSwitch().Ports, func(p api.Port) bool { return p.Container == api.HostPort }) {
			return fmt.Errorf("the host's port is still there")
		}
		return nil
	})
	o.hostLink("on")
	greeted(t, o.exec("a", "curl", "-sS", "--max-time", "5", "http://172.17.0.1:9090/"), "172.17.0.2")
	o.run("down", "--all")
	o.withoutInterface("fairlead0")
}

// hostLink says `network set default --host-link=VALUE` on the machine.
func (o *outside) hostLink(value string) {
	o.t.Helper()
	if out, status := o.on(o.Machine, "network", "set", "default", "--host-link="+value); status != 0 {
		o.t.Fatalf("--host-link=%s: exit status %d\n%s", value, status, out)
	}
}

// withoutInterface waits until the machine has no interface of a name.
func (o *outside) withoutInterface(name string) {
	o.t.Helper()
	lab.Eventually(o.t, 10*time.Second, func() error {
		if out, status := o.Machine.Try(o.t, "ip", "link", "show", "dev", name); status == 0 {
			return fmt.Errorf("it is still there:\n%s", out)
		}
		return nil
	})
}

// By the link the host reaches containers at their own addresses, and only the
// host: who uses it as a router does not.
func TestS14_HostToContainer(t *testing.T) {
	o := newHostOutside(t, "--host-link")
	o.serve("web")
	greeted(t, curl(t, o.Machine, "http://172.17.0.2/"), "172.17.0.1")
	if out := o.Machine.Run(t, "ping", "-c", "1", "-W", "5", "-s", "3000", "172.17.0.2"); !strings.Contains(out, "ttl=64") {
		t.Errorf("web answers\n%s", out)
	}
	if out := o.Machine.Run(t, "ip", "neigh", "show", "172.17.0.2"); !strings.Contains(out, "02:42:ac:11:00:02") {
		t.Errorf("the host knows %q", out)
	}
	refused(t, o.Machine, "http://172.17.0.2:81/")
	// Its answers come back although web may open no connection.
	o.run("network", "set", "default", "--egress", "none")
	greeted(t, curl(t, o.Machine, "http://172.17.0.2/"), "172.17.0.1")
	if out, status := o.Machine.Try(t, "ping", "-c", "1", "-W", "5", "172.17.0.2"); status != 0 {
		t.Errorf("ping of web:\n%s", out)
	}

	// A router before it has no use of the machine's route, forwarding or not.
	o.Machine.Sysctl(t, "net.ipv4.ip_forward", "1")
	o.Router.Route(t, "172.17.0.0/16", o.Router.Uplink)
	silent(t, o.Host, "http://172.17.0.2/")
	if o.dropped(api.HostPort, "spoofed-address") == 0 {
		t.Errorf("nothing counts what the host forwarded: %s", o.run("show", "drops"))
	}
}

// Without the right there is no such interface, but a TAP that somebody has made
// for the user does: the error says how. And another container asks from inside.
func TestS14_HostToContainerWithoutRights(t *testing.T) {
	lab.Need(t, "setpriv")
	o := newHostOutside(t)
	o.serve("web")
	plain := func(value string) (string, int) {
		return o.Machine.Try(t, "env", "FAIRLEAD_DIR="+o.dir, "setpriv", "--bounding-set", "-net_admin",
			o.bin, "network", "set", "default", "--host-link="+value)
	}
	out, status := plain("on")
	if err := contains(out, "CAP_NET_ADMIN", "fairlead run -- curl 172.17.0.3", "--host-link=fairlead0"); err != nil || status != 125 {
		t.Fatalf("exit status %d, %v", status, err)
	}
	greeted(t, o.run("run", "--", "curl", "-sS", "--max-time", "5", "http://172.17.0.2/"), "172.17.0.3")
	if out, _ := plain("fairlead0"); !strings.Contains(out, "there is no interface fairlead0; this makes it: sudo ip tuntap add dev fairlead0") {
		t.Errorf("of an interface that is not there:\n%s", out)
	}

	commands := regexp.MustCompile(`sudo ip tuntap.* dev fairlead0`).FindString(out)
	o.Machine.Run(t, "sh", "-ec", strings.NewReplacer("sudo ", "", "$USER", "root").Replace(commands))
	if out, status := plain("fairlead0"); status != 0 {
		t.Fatalf("exit status %d\n%s", status, out)
	}
	lab.Eventually(t, 10*time.Second, func() error { // until its carrier is seen
		if out, status := o.Machine.Try(t, "curl", "-sS", "--max-time", "5", "http://172.17.0.2/"); status != 0 || !strings.HasPrefix(out, "Hello 172.17.0.1:") {
			return fmt.Errorf("exit status %d: %s", status, out)
		}
		return nil
	})
	o.Machine.Run(t, "ip", "addr", "del", "172.17.0.1/16", "dev", "fairlead0")
	if out, _ := plain("off"); out != "" {
		t.Error(out)
	}
	if out, status := plain("fairlead0"); status != 125 || !strings.Contains(out, "is not what the network needs: sudo ip link set fairlead0 address 02:42:ac:11:00:01") {
		t.Errorf("exit status %d\n%s", status, out)
	}
}

// Each network has a link of its own, which leads to its own containers alone, and
// goes with it.
func TestS17_HostLinkOfEachNetwork(t *testing.T) {
	o := newHostOutside(t, "--host-link")
	make := func() {
		if out, status := o.on(o.Machine, "network", "create", "--host-link", "lab"); status != 0 {
			t.Fatalf("exit status %d\n%s", status, out)
		}
	}
	make()
	for dev, want := range map[string]string{"fairlead0": "172.17.0.1/16", "fairlead1": "172.18.0.1/16"} {
		if out := o.Machine.Run(t, "ip", "-4", "-o", "addr", "show", "dev", dev); !strings.Contains(out, "inet "+want) {
			t.Errorf("%s has %q, want %s", dev, out, want)
		}
	}
	o.serve("web")
	o.serve("web2", "--network", "lab")
	greeted(t, curl(t, o.Machine, "http://172.17.0.2/"), "172.17.0.1")
	greeted(t, curl(t, o.Machine, "http://172.18.0.2/"), "172.18.0.1")
	// What the host has routes to containers have not, forwarding or not; nor do the
	// host's sockets lead there.
	o.Machine.Sysctl(t, "net.ipv4.ip_forward", "1")
	for _, url := range []string{"http://172.18.0.2/", "http://172.18.0.1/"} {
		if r := o.try("exec", "web", "curl", "-sS", "--max-time", "1", url); r.code == 0 {
			t.Errorf("%s from another network: %v", url, r)
		}
	}
	o.run("stop", "-t", "0", "web2")
	o.gone("web2")
	o.run("network", "rm", "lab")
	o.withoutInterface("fairlead1")
	greeted(t, curl(t, o.Machine, "http://172.17.0.2/"), "172.17.0.1")
	make()
	o.run("network", "rm", "lab")
}
