package test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"fairlead/node/api"
	"fairlead/packet"
	"fairlead/test/lab"
)

// dhcpScript is what DHCP clients run when something has happened: it writes that
// down, in the words of whichever calls it, and udhcpc's and dhclient's has the
// interface configured.
const dhcpScript = `#!/bin/sh
i=${interface} a=${ip:-$new_ip_address} m=${mask:-${new_subnet_cidr:-$new_subnet_mask}} r=${router:-$new_routers}
echo "${1:-$reason} ip=$a mask=$m router=$r dns=${dns:-$new_domain_name_servers} mtu=${mtu:-$new_interface_mtu}" \
	"domain=${domain:-$new_domain_name} host=${hostname:-$new_host_name} broadcast=${broadcast:-$new_broadcast_address}" >>LOG
case ${1:-$reason} in
bound|renew|BOUND|RENEW|REBOOT|REBIND) ;;
*) exit 0 ;;
esac
ip addr replace $a/$m brd + dev $i
ip link set $i mtu ${mtu:-$new_interface_mtu}
ip route replace default via $r dev $i
`

// A dhcpClient is one of those people have.
type dhcpClient struct {
	program string
	run     []string // it, in the foreground
	renew   []string // a command inside; a signal if it is one word
	release []string
	done    string // what it says when it has renewed
	book    string // the file its renew reads, which it may write after its script has run
}

// dhcpClients returns the clients, with their files in a directory.
func dhcpClients(dir string) []dhcpClient {
	script := filepath.Join(dir, "script")
	files := []string{"-lf", dir + "/leases", "-pf", dir + "/pid", "-cf", dir + "/conf", "-sf", script}
	return []dhcpClient{
		{"udhcpc", []string{"udhcpc", "-f", "-i", "eth0", "-s", script, "-O", "mtu", "-O", "hostname", "-O", "domain"}, []string{"USR1"}, []string{"USR2"}, "renew", ""},
		{"dhclient", slices.Concat([]string{"dhclient", "-d"}, files, []string{"eth0"}),
			slices.Concat([]string{"dhclient", "-1", "-d"}, files, []string{"eth0"}),
			slices.Concat([]string{"dhclient", "-r"}, files, []string{"eth0"}), "REBOOT", dir + "/leases"},
		{"dhcpcd", []string{"sh", "-c", "mount -n -t tmpfs none /run; mount -n -t tmpfs none /var/lib/dhcpcd; exec dhcpcd -B -4 -f " + dir + "/dhcpcd.conf -c " + script + " eth0"},
			[]string{"dhcpcd", "-n", "-4", "eth0"}, []string{"dhcpcd", "-k", "-4", "eth0"}, "RENEW", ""},
	}
}

// Three clients in containers obtain what the containers have, renew it and give
// it back.
func TestS19_Clients(t *testing.T) {
	lab.Need(t, "ip", "udhcpc", "dhclient", "dhcpcd")
	for i := range 3 {
		t.Run(dhcpClients("")[i].program, func(t *testing.T) {
			n := newNode(t, "--opt", "mtu=1400", "--opt", "domain=lab.example", "--bip", "172.17.0.1/24")
			dir := dhcpFiles(t)
			c := dhcpClients(dir)[i]
			n.start("c", append([]string{"--hostname", "box"}, append([]string{"--"}, c.run...)...)...)
			n.dhcpSaid(dir, c.program, func(line string) bool { return strings.Contains(strings.ToLower(line), "bound ip=172.17.0.2 ") })
			log, _ := os.ReadFile(dir + "/log")
			for _, want := range []string{"ip=172.17.0.2", "router=172.17.0.1", "dns=172.17.0.1", "mtu=1400", "domain=lab.example", "broadcast=172.17.0.255"} {
				if !strings.Contains(string(log), want) {
					t.Errorf("it has not heard %s:\n%s", want, log)
				}
			}
			if !strings.Contains(string(log), "mask=24") && !strings.Contains(string(log), "mask=255.255.255.0") {
				t.Errorf("it has heard no mask:\n%s", log)
			}
			lab.Eventually(t, patience/3, func() error { // its script is still at work
				if out := n.exec("c", "ip", "addr", "show", "eth0"); !strings.Contains(out, "inet 172.17.0.2/24 brd 172.17.0.255") || !strings.Contains(out, "mtu 1400") {
					return fmt.Errorf("it has\n%s", out)
				}
				return nil
			})
			lease := n.lease("172.17.0.2")
			if lease.Container != "c" || lease.Kind != "container" || lease.State != "bound" || lease.Expires == nil {
				t.Errorf("%+v", lease)
			}
			before := *lease.Expires
			lab.Eventually(t, patience/3, func() error {
				if c.book == "" {
					return nil
				}
				book, err := os.ReadFile(c.book)
				if err == nil && !strings.HasSuffix(string(book), "}\n") {
					err = fmt.Errorf("it has written down no lease: %q", book)
				}
				return err
			})
			n.dhcpTell("c", c.renew)
			n.dhcpSaid(dir, c.program, func(line string) bool { return strings.HasPrefix(line, c.done+" ip=172.17.0.2 ") })
			if after := n.lease("172.17.0.2").Expires; after == nil || !after.After(before) {
				t.Errorf("renewed, it ends at %v, before at %v", after, before)
			}
			n.dhcpTell("c", c.release)
			lab.Eventually(t, patience/3, func() error {
				if l := n.leases(); len(l) > 0 {
					if len(c.release) == 1 { // udhcpc hears no signal while its script runs
						n.dhcpTell("c", c.release)
					}
					return fmt.Errorf("given back, and still there: %+v", l)
				}
				return nil
			})
		})
	}
}

// A namespace somebody else made is offered its address as well.
func TestS19_Foreign(t *testing.T) {
	lab.Need(t, "ip", "udhcpc")
	n := newNode(t)
	dir := dhcpFiles(t)
	path, remove := namedNetns(t)
	defer remove()
	n.run("network", "connect", "--name", "f", "--ifname", "eth0", "--ip", "172.17.0.9", "default", "netns:"+path)
	inNetns(t, path, func() error {
		cmd := exec.Command("udhcpc", "-f", "-n", "-q", "-i", "eth0", "-s", dir+"/script", "-O", "mtu")
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	if l := n.lease("172.17.0.9"); l.Container != "f" || l.Kind != "container" {
		t.Errorf("%+v", l)
	}
	if log, _ := os.ReadFile(dir + "/log"); !strings.Contains(string(log), "bound ip=172.17.0.9 ") {
		t.Errorf("it heard\n%s", log)
	}
}

// Stations that are no containers get addresses of a range, by reservation the same
// always; when there is none left they hear nothing, until one is free.
func TestS19_Stations(t *testing.T) {
	lab.Need(t, "ip", "udhcpc", "dhclient")
	n := newNode(t, "--opt", "guard=off", "--opt", "dhcp-range=172.17.0.100,172.17.0.102",
		"--opt", "dhcp-host=02:00:00:00:00:07,172.17.0.77,printer;id:scanner,172.17.0.78")
	dir := dhcpFiles(t)
	station := func(name, mac string) {
		n.start(name)
		n.sh(name, "ip link set eth0 down; ip addr flush dev eth0; ip link set eth0 address "+mac+"; ip link set eth0 up")
	}
	ask := func(name string, more ...string) result {
		return n.try(slices.Concat([]string{"exec", name, "udhcpc", "-f", "-n", "-q", "-t", "3", "-T", "2", "-A", "1", "-i", "eth0", "-s", dir + "/script", "-O", "mtu", "-O", "hostname"}, more)...)
	}
	got := func(name, ip, kind string, more ...string) {
		t.Helper()
		if r := ask(name, more...); r.code != 0 {
			t.Fatalf("%v\n%+v", r, n.leases())
		}
		if l := n.lease(ip); l.Kind != kind || l.Container != name || l.State != "bound" {
			t.Errorf("%s has no %s %s: %+v", name, kind, ip, n.leases())
		}
	}
	for i := range 5 {
		station(fmt.Sprintf("s%d", i), fmt.Sprintf("02:00:00:00:00:0%d", i+3))
	}
	got("s4", "172.17.0.77", "reserved")
	if log, _ := os.ReadFile(dir + "/log"); !strings.Contains(string(log), "host=printer") {
		t.Errorf("it is not called by its name:\n%s", log)
	}
	got("s3", "172.17.0.78", "reserved", "-x", "0x3d:7363616e6e6572")

	// Somebody has an address by hand: it is found, and not lent.
	n.sh("s3", "ip addr flush dev eth0; ip addr add 172.17.0.102/16 dev eth0")
	got("s0", "172.17.0.101", "dynamic")
	if l := n.lease("172.17.0.102"); l.State != "declined" {
		t.Errorf("%+v", n.leases())
	}
	got("s1", "172.17.0.100", "dynamic")
	if r := ask("s2", "-t", "1"); r.code == 0 {
		t.Errorf("of a full range: %+v", n.leases())
	}
	// What is given back is the next one's; and what a station declines is nobody's.
	n.dhcpSays("s1", "02:00:00:00:00:04", dhcpv4.MessageTypeRelease, "172.17.0.100")
	n.sh("s1", "ip addr flush dev eth0")
	got("s2", "172.17.0.100", "dynamic")
	n.dhcpSays("s2", "02:00:00:00:00:05", dhcpv4.MessageTypeDecline, "172.17.0.100")
	lab.Eventually(t, patience/3, func() error {
		if l := n.lease("172.17.0.100"); l.State != "declined" {
			return fmt.Errorf("%+v", n.leases())
		}
		return nil
	})
	if r := ask("s2", "-t", "1"); r.code == 0 {
		t.Errorf("a declined address was lent again: %+v", n.leases())
	}
	// A container that goes takes its leases along.
	n.run("kill", "s0")
	n.gone("s0")
	got("s2", "172.17.0.101", "dynamic")
	if out := n.run("show", "leases"); !strings.Contains(out, "172.17.0.77") || !strings.Contains(out, "reserved") {
		t.Errorf("show leases:\n%s", out)
	}
}

// Who wants an address that is not its own is told so, and gets another.
func TestS19_Refused(t *testing.T) {
	lab.Need(t, "ip", "dhclient")
	n := newNode(t)
	dir := dhcpFiles(t)
	if err := os.WriteFile(dir+"/leases", []byte(`lease {
  interface "eth0";
  fixed-address 172.17.0.99;
  option subnet-mask 255.255.0.0;
  option routers 172.17.0.1;
  option dhcp-lease-time 3600;
  option dhcp-message-type 5;
  option dhcp-server-identifier 172.17.0.1;
  renew 4 2037/01/01 00:00:00;
  rebind 4 2037/01/02 00:00:00;
  expire 4 2037/01/03 00:00:00;
}
`), 0o644); err != nil {
		t.Fatal(err)
	}
	n.start("c", append([]string{"--"}, dhcpClients(dir)[1].run...)...)
	n.dhcpSaid(dir, "dhclient", func(line string) bool { return strings.HasPrefix(line, "BOUND ip=172.17.0.2 ") })
	n.logSays("c", "DHCPNAK from 172.17.0.1")
}

// A container is no DHCP server: what it says is refused, and counted; unless the
// guard is off.
func TestS19_RogueServer(t *testing.T) {
	lab.Need(t, "ip", "udhcpc", "dnsmasq", "socat")
	rogue := []string{"--", "dnsmasq", "--no-daemon", "--user=root", "--conf-file=/dev/null", "--port=0", "--interface=eth0", "--bind-interfaces",
		"--no-ping", "--dhcp-authoritative", "--dhcp-leasefile=/dev/null", "--dhcp-range=172.17.0.200,172.17.0.209,2m"}
	n := newNode(t)
	dir := dhcpFiles(t)
	n.start("rogue", rogue...)
	n.start("c")
	n.logSays("rogue", "DHCP, IP range")
	lab.Eventually(t, patience, func() error {
		n.exec("c", "udhcpc", "-f", "-n", "-q", "-i", "eth0", "-s", dir+"/script", "-O", "mtu")
		if n.dropped("rogue", "rogue-dhcp") == 0 {
			return errors.New("nothing was refused")
		}
		return nil
	})
	if log, _ := os.ReadFile(dir + "/log"); strings.Contains(string(log), "172.17.0.20") {
		t.Errorf("it believed the other one:\n%s", log)
	}
	n.ruled("guard", "rogue-dhcp")

	// Clients do not ask from which port an offer comes.
	n.start("sly")
	if r := n.tryWith(strings.NewReader("an offer"), "exec", "-i", "sly", "socat", "-u", "-", "UDP-SENDTO:255.255.255.255:68,sourceport=1234,broadcast"); r.code != 0 {
		t.Fatal(r)
	}
	lab.Eventually(t, patience, func() error {
		if n.dropped("sly", "rogue-dhcp") == 0 {
			return errors.New("an offer from another port was not refused")
		}
		return nil
	})

	open := newNode(t, "--opt", "guard=off", "--opt", "dhcp=off")
	open.start("server", rogue...)
	open.start("c")
	open.logSays("server", "DHCP, IP range")
	open.exec("c", "udhcpc", "-f", "-n", "-q", "-i", "eth0", "-s", dir+"/script", "-O", "mtu")
	if log, _ := os.ReadFile(dir + "/log"); !strings.Contains(string(log), "bound ip=172.17.0.2") {
		t.Errorf("the server of one's own did not answer:\n%s", log)
	}
	if l := open.leases(); len(l) > 0 {
		t.Errorf("ours did: %+v", l)
	}
}

// dhcpFiles makes a directory with what clients need.
func dhcpFiles(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range map[string]string{
		"script":      strings.ReplaceAll(dhcpScript, "LOG", dir+"/log"),
		"conf":        "request subnet-mask, routers, domain-name-servers, interface-mtu, host-name, domain-name, broadcast-address;\ntimeout 10;\nretry 1;\ninitial-interval 1;\nreboot 2;\n",
		"dhcpcd.conf": "option domain_name_servers, domain_name, host_name, interface_mtu, rapid_commit\nnoipv4ll\nnodev\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// dhcpSaid waits until a client's script has written down what is wanted.
func (n *node) dhcpSaid(dir, program string, wanted func(line string) bool) {
	n.t.Helper()
	lab.Eventually(n.t, patience, func() error {
		log, err := os.ReadFile(dir + "/log")
		for line := range strings.Lines(string(log)) {
			if wanted(line) {
				return nil
			}
		}
		return fmt.Errorf("%s has not said it: %s (%w)\n%s", program, log, err, n.try("logs", "c").stdout)
	})
}

// dhcpTell has a client do something: by a signal, or by another call of it.
func (n *node) dhcpTell(name string, what []string) {
	n.t.Helper()
	if len(what) == 1 {
		n.run("kill", "-s", what[0], name)
		return
	}
	c := n.background(slices.Concat([]string{"exec", name}, what)...)
	n.t.Cleanup(c.stop)
}

// dhcpSays sends a message to the server that clients send when it suits them.
func (n *node) dhcpSays(name, mac string, kind dhcpv4.MessageType, ip string) {
	n.t.Helper()
	station, err := packet.ParseMAC(mac)
	if err != nil {
		n.t.Fatal(err)
	}
	m, err := dhcpv4.New(dhcpv4.WithHwAddr(station[:]), dhcpv4.WithMessageType(kind),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(172, 17, 0, 1))),
		dhcpv4.WithOption(dhcpv4.OptClientIdentifier(append([]byte{1}, station[:]...))))
	if err != nil {
		n.t.Fatal(err)
	}
	if kind == dhcpv4.MessageTypeRelease {
		m.ClientIPAddr = net.ParseIP(ip).To4()
	} else {
		m.UpdateOption(dhcpv4.OptRequestedIPAddress(net.ParseIP(ip)))
	}
	r := n.tryWith(bytes.NewReader(m.ToBytes()), "exec", "-i", name, "socat", "-u", "-", "UDP-SENDTO:172.17.0.1:67,sourceport=68")
	if r.code != 0 {
		n.t.Fatal(r)
	}
}

// leases lists those there are, and lease is that of an address.
func (n *node) leases() (list []api.Lease) {
	n.t.Helper()
	n.json(&list, "show", "leases")
	return list
}

func (n *node) lease(ip string) (found api.Lease) {
	n.t.Helper()
	for _, l := range n.leases() {
		if l.IP == ip {
			found = l
		}
	}
	return found
}

// A container on a network that has a DHCP server already gets its address from
// there, keeps it, and gives it back; whatever made its namespace.
func TestS19_AddressOfTheLAN(t *testing.T) {
	lab.Need(t, "ip", "dnsmasq", "ping")
	n := newNode(t, "--opt", "guard=off", "--opt", "dhcp=off", "--bip", "172.17.0.1/24")
	n.refuses("no DHCP server has lent an address within 10s", "run", "--ip", "dhcp", "--", "true")
	dir := t.TempDir()
	n.start("server", "--", "dnsmasq", "--no-daemon", "--user=root", "--conf-file=/dev/null", "--port=0", "--interface=eth0", "--bind-interfaces",
		"--no-ping", "--dhcp-authoritative", "--dhcp-leasefile="+dir+"/leases", "--log-dhcp", "--dhcp-range=172.17.0.200,172.17.0.209,2m")
	n.logSays("server", "DHCP, IP range")
	n.start("c", "--ip", "dhcp", "--mac", "02:00:00:00:00:33", "--hostname", "box")
	c := n.containers()["c"]
	if !strings.HasPrefix(c.IP, "172.17.0.2") || len(c.IP) != len("172.17.0.200") || c.MAC != "02:00:00:00:00:33" {
		t.Errorf("%+v", c)
	}
	if out := n.exec("c", "ip", "addr", "show", "eth0"); !strings.Contains(out, "inet "+c.IP+"/24 ") {
		t.Errorf("inside\n%s", out)
	}
	n.exec("c", "ping", "-c", "1", "-W", "5", n.containers()["server"].IP)
	n.logSays("server", "DHCPACK(eth0) "+c.IP+" 02:00:00:00:00:33")
	n.run("stop", "c")
	n.logSays("server", "DHCPRELEASE(eth0) "+c.IP+" 02:00:00:00:00:33")

	path, remove := namedNetns(t)
	defer remove()
	n.run("network", "connect", "--name", "f", "--ifname", "eth0", "--ip", "dhcp", "default", "netns:"+path)
	if f := n.containers()["f"]; !strings.HasPrefix(f.IP, "172.17.0.20") {
		t.Errorf("%+v", f)
	}
	n.run("network", "disconnect", "default", "f")

	// A server that lends addresses of another network than ours is.
	n.run("network", "create", "--subnet", "10.99.0.0/16", "--opt", "guard=off", "--opt", "dhcp=off", "other")
	n.start("stranger", "--network", "other", "--", "sh", "-c", "ip addr add 10.77.0.1/24 dev eth0; exec dnsmasq --no-daemon --user=root --conf-file=/dev/null --port=0 "+
		"--no-ping --dhcp-authoritative --dhcp-leasefile=/dev/null --dhcp-range=10.77.0.100,10.77.0.110,2m")
	n.logSays("stranger", "DHCP, IP range")
	n.refuses("network other is 10.99.0.0/16, and its DHCP server lends 10.77.0.1", "run", "--network", "name=other,ip=dhcp", "--", "true")

	// Where we lend them ourselves there is nobody to be asked.
	n.run("network", "create", "own")
	n.start("o", "--network", "name=own,ip=dhcp")
	if o := n.containers()["o"]; o.IP != "172.18.0.2" {
		t.Errorf("%+v", o)
	}
}

// The same behind a real interface: our own server is silent there by itself, and the
// guard holds the container to what it was lent.
func TestS35_AddressOfTheLAN(t *testing.T) {
	lab.NoLeaks(t)
	lab.Need(t, "dnsmasq", "udhcpc", "ping", "ip")
	l, n := newRealLAN(t), newNode(t)
	n.run("network", "create", "--subnet", "10.35.0.0/24", "--gateway", "10.35.0.250", "--ip-range", "10.35.0.240/29", "lan")
	if out, status := n.on(l.machine, "network", "connect", "--name", "lan0", "lan", "if:eth0"); status != 0 {
		t.Fatal(out)
	}
	n.start("c", "--network", "name=lan,ip=dhcp")
	addr := n.containers()["c"].IP
	if !strings.HasPrefix(addr, "10.35.0.1") || len(addr) != len("10.35.0.100") {
		t.Errorf("it has %s", addr)
	}
	// In this order: dnsmasq had its kernel look for somebody with that address
	// before it lent it, and for a moment that remembers that there is nobody.
	n.exec("c", "ping", "-c", "1", "-W", "5", "10.35.0.1")
	if out := l.server.Run(t, "ping", "-c", "1", "-W", "5", addr); !strings.Contains(out, "ttl=64") {
		t.Errorf("LAN to container: %s", out)
	}
	n.start("d")
	n.run("network", "connect", "--ip", "dhcp", "lan", "d")
	if out := n.exec("d", "ping", "-c", "1", "-W", "5", "10.35.0.1"); !strings.Contains(out, "ttl=64") {
		t.Errorf("container to LAN: %s", out)
	}
	if list := n.leases(); len(list) > 0 {
		t.Errorf("ours has lent %+v", list)
	}
	n.run("network", "disconnect", "lan", "d")
}
