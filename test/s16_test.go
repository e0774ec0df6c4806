package test

import (
	"os/exec"
	"strings"
	"testing"

	"fairlead/test/lab"
)

func TestS16_None(t *testing.T) {
	lab.Need(t, "ip", "ping")
	n := newNode(t)
	n.start("a", "--network", "none", "--hostname", "alone")
	have := n.interfaces("a")
	if len(have) != 1 || have[0].Name != "lo" {
		t.Fatalf("interfaces: %+v, want lo only", have)
	}
	if got := n.sh("a", "hostname; ip route; ping -c 1 -W 5 127.0.0.1 >&2"); got != "alone\n" {
		t.Errorf("host name and routes: %q", got)
	}
	if r := n.try("exec", "a", "ping", "-c", "1", "-W", "1", "172.17.0.1"); r.code == 0 || !strings.Contains(r.stderr, "Network is unreachable") {
		t.Error(r)
	}
	if got := n.sh("a", "tail -n 1 /etc/hosts; cat /etc/resolv.conf"); strings.Contains(got, "172.17.") {
		t.Errorf("it is told of a network it has not: %q", got)
	}
	if ports := n.theSwitch().Ports; len(ports) != 0 {
		t.Errorf("it has a port: %+v", ports)
	}
	n.refuses("user specified IP address is supported on a network only", "run", "--net", "none", "--ip", "172.17.0.9", "--", "true")
	n.refuses("conflicting options: mac-address and the network mode", "run", "--net", "none", "--mac", "02:42:ac:11:00:09", "--", "true")
}

// A command that ends at once ends after the node has looked at its container.
func TestS16_EndsAtOnce(t *testing.T) {
	n := newNode(t)
	n.start("x")
	for range 10 {
		n.run("run", "--net", "none", "--", "true")
		n.run("run", "--net", "container:x", "--", "true")
	}
}

func TestS16_Host(t *testing.T) {
	lab.Need(t, "ip")
	// So that there is something to see.
	ip(t, "link", "add", "fairlead0", "type", "veth", "peer", "name", "fairlead1")
	t.Cleanup(func() { ip(t, "link", "del", "fairlead0") })
	ip(t, "addr", "add", "192.0.2.1/24", "dev", "fairlead0")

	n := newNode(t)
	if got, want := n.run("run", "--net", "host", "--", "ip", "addr"), ip(t, "addr"); got != want {
		t.Errorf("ip addr inside:\n%swant the host's:\n%s", got, want)
	}
	n.start("a", "--network", "host")
	if got, want := n.exec("a", "ip", "addr"), ip(t, "addr"); got != want {
		t.Errorf("ip addr inside:\n%swant the host's:\n%s", got, want)
	}
	if got, want := n.exec("a", "hostname"), output(t, "hostname"); got != want {
		t.Errorf("host name inside %q, want the host's %q", got, want)
	}
	n.refuses("user specified IP address is supported on a network only", "run", "--net", "host", "--ip", "172.17.0.9", "--", "true")
	n.refuses("conflicting options: hostname and the network mode", "run", "--net", "host", "--hostname", "h", "--", "true")
	n.refuses("container a has no network namespace of its own", "run", "--net", "container:a", "--", "true")
}

func ip(t *testing.T, args ...string) string {
	t.Helper()
	return output(t, "ip", args...)
}

// output runs a command of the host.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Two containers in one namespace have one address and meet on 127.0.0.1.
func TestS16_Container(t *testing.T) {
	lab.Need(t, "ip", "ping", "curl")
	n := newNode(t)
	n.start("x", "--hostname", "web")
	n.serve("y", "--network", "container:x")
	n.start("other")
	for _, command := range []string{"ip addr", "ip route", "hostname", "cat /etc/hosts", "cat /etc/resolv.conf"} {
		if x, y := n.sh("x", command), n.sh("y", command); x != y || x == "" {
			t.Errorf("%s in x:\n%sin y:\n%s", command, x, y)
		}
	}
	if page := n.exec("x", "curl", "-sS", "--max-time", "5", "http://127.0.0.1/"); !strings.Contains(page, "this is web") {
		t.Errorf("x gets from y on 127.0.0.1: %q", page)
	}
	n.start("server", "--net", "container:x", "--", "fairlead", "probe", "http-server", "--addr", "127.0.0.1:81")
	n.logSays("server", "serving on")
	n.exec("y", "curl", "-sS", "--max-time", "5", "http://127.0.0.1:81/")
	n.exec("other", "curl", "-sS", "--max-time", "5", "http://172.17.0.2/")
	if ports := n.theSwitch().Ports; len(ports) != 2 {
		t.Errorf("%d ports, want one for x and those with it, and one for other: %+v", len(ports), ports)
	}
	if y := n.containers()["y"]; y.Network != "container:x" || y.IP != "172.17.0.2" {
		t.Errorf("ps says of y: %+v", y)
	}
	for flag, text := range map[string]string{
		"--hostname=h":            "conflicting options: hostname and the network mode",
		"--mac=02:42:ac:11:00:09": "conflicting options: mac-address and the network mode",
		"--ip=172.17.0.9":         "user specified IP address is supported on a network only",
	} {
		n.refuses(text, "run", "--net", "container:x", flag, "--", "true")
	}
	n.refuses("No such container: nobody", "run", "--net", "container:nobody", "--", "true")
	if out := n.run("run", "--net", "container:y", "--", "ip", "-o", "-4", "addr", "show", "dev", "eth0"); !strings.Contains(out, " 172.17.0.2/16 ") {
		t.Errorf("who joins y is not in x: %q", out)
	}
	n.refuses("invalid container format container:<name|id>", "run", "--net", "container:", "--", "true")
}

// X ends first: the other keeps eth0, its address and its traffic until it ends.
func TestS16_OwnerEndsFirst(t *testing.T) {
	lab.Need(t, "ip", "ping", "curl")
	n := newNode(t)
	n.start("x")
	n.serve("y", "--network", "container:x")
	n.start("other")
	addr := n.exec("y", "ip", "addr")
	n.run("kill", "x")
	n.gone("x")

	if got := n.exec("y", "ip", "addr"); got != addr {
		t.Errorf("ip addr in y was\n%snow it is\n%s", addr, got)
	}
	n.exec("y", "ping", "-c", "1", "-W", "5", "172.17.0.3")
	n.exec("y", "ping", "-c", "1", "-W", "5", "172.17.0.1")
	n.exec("other", "curl", "-sS", "--max-time", "5", "http://172.17.0.2/")
	n.start("new")
	if got := n.address("new"); got != "172.17.0.4" {
		t.Errorf("a new container has %s; 172.17.0.2 is still in use and 172.17.0.4 the lowest free", got)
	}
	n.refuses("address 172.17.0.2 is already in use", "run", "--ip", "172.17.0.2", "--", "true")
	if ports := n.theSwitch().Ports; len(ports) != 3 {
		t.Errorf("%d ports, want 3: %+v", len(ports), ports)
	}
	n.audit() // while the port's namespace is y's alone

	n.run("kill", "y")
	n.gone("y")
	if ports := n.theSwitch().Ports; len(ports) != 2 {
		t.Errorf("%d ports after the last one left, want 2: %+v", len(ports), ports)
	}
	n.start("newer")
	if got := n.address("newer"); got != "172.17.0.2" {
		t.Errorf("the address that was given back is not used again: %s", got)
	}
}
