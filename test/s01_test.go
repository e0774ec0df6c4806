package test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"fairlead/test/lab"
)

// An iface is one element of what `ip -j addr` prints.
type iface struct {
	Index   int      `json:"ifindex"`
	Name    string   `json:"ifname"`
	Flags   []string `json:"flags"`
	MTU     int      `json:"mtu"`
	Address string   `json:"address"`
	Addrs   []inet   `json:"addr_info"`
}

type inet struct {
	Family    string `json:"family"`
	Local     string `json:"local"`
	Length    int    `json:"prefixlen"`
	Broadcast string `json:"broadcast"`
	Scope     string `json:"scope"`
	Tentative bool   `json:"tentative"`
}

// interfaces are those a container sees.
func (n *node) interfaces(name string) []iface {
	n.t.Helper()
	return parseInterfaces(n.t, n.exec(name, "ip", "-j", "addr"))
}

func parseInterfaces(t *testing.T, text string) (list []iface) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatalf("ip -j addr: %v\n%s", err, text)
	}
	return list
}

// address is the first IPv4 address on a container's eth0.
func (n *node) address(name string) string {
	n.t.Helper()
	return strings.TrimSpace(n.run("inspect", "-f", "{{.NetworkSettings.IPAddress}}", name))
}

func TestS01_FreshContainer(t *testing.T) {
	lab.Need(t, "ip")
	n := newNode(t)
	id := n.start("web")
	if !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(id) {
		t.Errorf("run -d printed %q, not an id", id)
	}

	up := func(i iface) bool { return slices.Contains(i.Flags, "UP") && slices.Contains(i.Flags, "LOWER_UP") }
	have := n.interfaces("web")
	if len(have) != 2 || !up(have[0]) || !up(have[1]) {
		t.Fatalf("interfaces: %+v, want lo and eth0, both up", have)
	}
	for i, want := range []iface{
		{1, "lo", nil, 65536, "00:00:00:00:00:00", []inet{
			{"inet", "127.0.0.1", 8, "", "host", false}, {"inet6", "::1", 128, "", "host", false}}},
		{2, "eth0", nil, 1500, "02:42:ac:11:00:02", []inet{
			{"inet", "172.17.0.2", 16, "172.17.255.255", "global", false}, {"inet6", "fe80::42:acff:fe11:2", 64, "", "link", false}}},
	} {
		have[i].Flags = nil
		if !reflect.DeepEqual(have[i], want) {
			t.Errorf("interface\n%+v, want\n%+v", have[i], want)
		}
	}

	for what, c := range map[string]struct{ command, want string }{
		"routes": {"ip route", "default via 172.17.0.1 dev eth0\n" +
			"172.17.0.0/16 dev eth0 proto kernel scope link src 172.17.0.2"},
		"host name":     {"hostname", id[:12]},
		"/etc/hostname": {"cat /etc/hostname", id[:12]},
		"/etc/hosts": {"cat /etc/hosts", "127.0.0.1\tlocalhost\n" +
			"::1\tlocalhost ip6-localhost ip6-loopback\n" +
			"fe00::\tip6-localnet\n" +
			"ff00::\tip6-mcastprefix\n" +
			"ff02::1\tip6-allnodes\n" +
			"ff02::2\tip6-allrouters\n" +
			"172.17.0.2\t" + id[:12]},
		"own name": {"getent hosts " + id[:12], "172.17.0.2      " + id[:12]},
	} {
		got := regexp.MustCompile(`(?m) +$`).ReplaceAllString(strings.TrimRight(n.sh("web", c.command), "\n"), "")
		if got != c.want {
			t.Errorf("%s:\n%q, want\n%q", what, got, c.want)
		}
	}
}

// The search line is the host's; the nameserver is the gateway.
func TestS01_ResolvConf(t *testing.T) {
	n := newNodeDir(t)
	file := filepath.Join(filepath.Dir(n.dir), "resolv.conf")
	if err := os.WriteFile(file, []byte("# a host's\nnameserver 192.0.2.53\nsearch  example.org example.net\noptions ndots:2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	// A node in a mount namespace of its own has another /etc/resolv.conf.
	cmd := n.command(t.Context(), "up")
	own := exec.Command("unshare", append([]string{"--mount", "sh", "-ec", `mount -n --bind "$0" /etc/resolv.conf; exec "$@"`, file}, cmd.Args...)...)
	own.Env = cmd.Env
	if out, err := own.CombinedOutput(); err != nil {
		t.Fatalf("up: %v\n%s", err, out)
	}
	n.start("web")
	if got, want := n.exec("web", "cat", "/etc/resolv.conf"), "search example.org example.net\nnameserver 172.17.0.1\n"; got != want {
		t.Errorf("/etc/resolv.conf: %q, want %q", got, want)
	}
}

// Addresses are reused from below, and MACs follow them.
func TestS01_LowestFreeAddress(t *testing.T) {
	n := newNode(t)
	for i, name := range []string{"a", "b", "c"} {
		n.start(name)
		if got, want := n.address(name), []string{"172.17.0.2", "172.17.0.3", "172.17.0.4"}[i]; got != want {
			t.Errorf("%s has %s, want %s", name, got, want)
		}
	}
	n.start("far", "--ip", "172.17.0.6")
	n.run("kill", "b")
	n.gone("b")
	for name, want := range map[string]string{"d": "172.17.0.3"} {
		n.start(name)
		if got := n.interfaces(name)[1]; got.Addrs[0].Local != want || got.Address != "02:42:ac:11:00:03" {
			t.Errorf("%s has %+v, want the address that was given back", name, got)
		}
	}
	n.start("e")
	n.start("f") // over the one that was asked for
	if e, f := n.address("e"), n.address("f"); e != "172.17.0.5" || f != "172.17.0.7" {
		t.Errorf("e has %s and f %s, want 172.17.0.5 and 172.17.0.7", e, f)
	}
	n.refuses("address 172.17.0.6 is already in use", "run", "--ip", "172.17.0.6", "--", "true")
	n.refuses("address 172.17.0.1 is the gateway's", "run", "--ip", "172.17.0.1", "--", "true")
	n.refuses("address 10.0.0.1 is not in the subnet 172.17.0.0/16", "run", "--ip", "10.0.0.1", "--", "true")
	if got := len(n.containers()); got != 6 {
		t.Errorf("%d containers run, want 6", got)
	}
}

// Subnet and gateway of the default network can be set.
func TestS01_BIP(t *testing.T) {
	lab.Need(t, "ip", "ping")
	n := newNode(t, "--bip", "172.17.42.1/16")
	n.start("a")
	routes := n.exec("a", "ip", "route")
	if !strings.Contains(routes, "default via 172.17.42.1 dev eth0") || !strings.Contains(routes, "172.17.0.0/16 dev eth0 proto kernel scope link src 172.17.0.1 ") {
		t.Errorf("routes:\n%s", routes)
	}
	n.exec("a", "ping", "-c", "1", "-W", "5", "172.17.42.1")
	if s := n.theSwitch(); s.BridgeID != "8000.0242ac112a01" || s.Gateway != "172.17.42.1" || s.Subnet != "172.17.0.0/16" {
		t.Errorf("the switch: %+v", s)
	}
	if got := n.exec("a", "cat", "/etc/resolv.conf"); !strings.Contains(got, "nameserver 172.17.42.1\n") {
		t.Errorf("/etc/resolv.conf: %q", got)
	}
	n.refuses("network default has 1 container, so it stays as it is", "up", "--bip", "10.9.0.1/24")
	n.run("kill", "a")
	n.gone("a")
	n.run("up", "--bip", "10.9.0.1/29")
	for range 5 { // .2 to .6
		n.run("run", "-d", "--", "sleep", "1000")
	}
	n.refuses("no address of 10.9.0.0/29 is free", "run", "--", "true")
}
