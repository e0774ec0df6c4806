package test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	mdnslib "github.com/miekg/dns"

	"fairlead/test/lab"
)

// A realLAN is a LAN with a DHCP server, and a machine on it whose interface is
// going to be a port, too.
type realLAN struct {
	server, machine *lab.Host
	script          string // of its DHCP clients
}

const lanScript = `#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr flush dev $interface scope global
ip addr add $ip/24 dev $interface
ip route replace default via $router
echo "bound to $ip"
`

func newRealLAN(t *testing.T) *realLAN {
	t.Helper()
	l := &realLAN{server: lab.NewHost(t, "server"), machine: lab.NewHost(t, "machine")}
	l.script = t.TempDir() + "/script"
	if err := os.WriteFile(l.script, []byte(lanScript), 0o755); err != nil {
		t.Fatal(err)
	}
	lab.Bridge(t, "lan", l.server, l.machine)
	l.server.Addr(t, "eth0", "10.35.0.1/24")
	l.server.Route(t, "default", "10.35.0.1") // for what goes to groups
	l.machine.Addr(t, "eth0", "10.35.0.2/24")
	s := l.server.Serve(t, "dnsmasq", "-d", "-C", "/dev/null", "--port=0", "--interface=eth0", "--bind-interfaces",
		"--dhcp-range=10.35.0.100,10.35.0.120,1h", "--dhcp-authoritative", "--dhcp-leasefile="+t.TempDir()+"/leases", "--user=root", "--group=root")
	lab.Eventually(t, patience, func() error {
		if !strings.Contains(s.Output(), "DHCP, IP range") {
			return errors.New(s.Output())
		}
		return nil
	})
	return l
}

// network makes the node's side of the LAN: no addresses are lent there but the
// LAN's, and the few of our own lie beside those.
func (l *realLAN) network(n *node) {
	n.t.Helper()
	n.run("network", "create", "--subnet", "10.35.0.0/24", "--gateway", "10.35.0.250", "--ip-range", "10.35.0.240/29",
		"--opt", "dhcp=off", "--opt", "guard=off", "lan")
}

// join starts a container that asks the LAN's server for an address, and returns
// which that is.
func (l *realLAN) join(n *node, name string) (addr string) {
	n.t.Helper()
	n.start(name, "--network", "lan", "--", "udhcpc", "-f", "-i", "eth0", "-s", l.script)
	lab.Eventually(n.t, patience, func() error {
		out := n.run("logs", name)
		found := regexp.MustCompile(`bound to (10\.35\.0\.1[012]\d)\n`).FindStringSubmatch(out)
		if found == nil {
			return fmt.Errorf("not bound: %s", out)
		}
		addr = found[1]
		return nil
	})
	return addr
}

// A real interface becomes a port: containers get addresses from the LAN's own
// server, LAN and containers reach one another directly, groups reach both.
func TestS35_RealInterface(t *testing.T) {
	lab.NoLeaks(t)
	lab.Need(t, "dnsmasq", "udhcpc", "ping", "ip", "curl")
	l := newRealLAN(t)
	n := newNode(t)
	l.network(n)
	out, status := n.on(l.machine, "network", "connect", "--name", "lan0", "lan", "if:eth0")
	if status != 0 || out != "lan0\n" {
		t.Fatalf("network connect: exit status %d: %s", status, out)
	}
	a, b := l.join(n, "a"), l.join(n, "b")
	if a == b {
		t.Fatalf("both have %s", a)
	}
	// Directly, at layer 2: the LAN knows the containers' own MACs, and no router
	// was on the way.
	for name, addr := range map[string]string{"a": a, "b": b} {
		// In this order: dnsmasq had its kernel look for somebody with that address
		// before it lent it, and for a moment that remembers that there is nobody.
		if out := n.exec(name, "ping", "-c", "1", "-W", "5", "10.35.0.1"); !strings.Contains(out, "ttl=64") {
			t.Errorf("%s to the LAN: %s", name, out)
		}
		if out := l.server.Run(t, "ping", "-c", "1", "-W", "5", addr); !strings.Contains(out, "ttl=64") {
			t.Errorf("LAN to %s: %s", name, out)
		}
		mac := n.interfaces(name)[1].Address
		if out := l.server.Run(t, "ip", "neigh", "show", addr); !strings.Contains(out, mac) {
			t.Errorf("the LAN says of %s, which has %s: %s", name, mac, out)
		}
	}
	n.exec("a", "ping", "-c", "1", "-W", "5", b)
	n.start("web", "--network", "container:a", "--", "fairlead", "probe", "http-server")
	n.logSays("web", "serving on")
	greeted(t, l.server.Run(t, "curl", "-sS", "--max-time", "5", "http://"+a+"/"), "10.35.0.1")
	// The interface stays the machine's, and what is for the machine is for nobody
	// else.
	if out := l.server.Run(t, "ping", "-c", "3", "-i", "0.1", "-W", "5", "10.35.0.2"); !strings.Contains(out, "3 received") {
		t.Errorf("LAN to machine: %s", out)
	}
	l.machine.Run(t, "ping", "-c", "1", "-W", "5", "10.35.0.1")

	// mDNS, which is multicast, both ways.
	l.server.Serve(t, play(t, "mdns", "serve")[0], play(t, "mdns", "serve", "printer.local.", "10.35.0.1")[1:]...)
	n.start("service", append([]string{"--network", "container:b", "--"}, play(t, "mdns", "serve", "box.local.", b)...)...)
	n.logSays("service", "serving")
	ask := play(t, "mdns", "ask", "box.local.")
	if out := l.server.Run(t, ask[0], ask[1:]...); out != b+"\n" {
		t.Errorf("the LAN found %q", out)
	}
	if out := n.exec("a", play(t, "mdns", "ask", "printer.local.")...); out != "10.35.0.1\n" {
		t.Errorf("the container found %q", out)
	}

	// Who plays the gateway is refused also from there.
	before := n.dropped("lan0", "spoofed-gateway")
	l.server.Addr(t, "eth0", "10.35.0.250/24")
	if out, status := l.server.Try(t, "ping", "-c", "1", "-W", "1", "-I", "10.35.0.250", b); status == 0 {
		t.Errorf("the gateway's address was taken: %s", out)
	}
	if now := n.dropped("lan0", "spoofed-gateway"); now <= before {
		t.Errorf("%d frames of a false gateway were dropped, %d before", now, before)
	}
	if err := contains(n.run("show", "switch", "-v"), "(", "if: eth0, index", "an interface of this host, which it shares with the network"); err != nil {
		t.Error(err)
	}
	if out := l.machine.Run(t, "ip", "-d", "link", "show", "eth0"); !strings.Contains(out, "promiscuity 1 ") {
		t.Errorf("the interface hears the machine's frames only: %s", out)
	}
	n.run("network", "disconnect", "lan", "if:eth0")
	lab.Eventually(t, patience, func() error {
		if out := l.machine.Run(t, "ip", "-d", "link", "show", "eth0"); !strings.Contains(out, "promiscuity 0 ") {
			return errors.New(out)
		}
		return nil
	})
	if out, status := l.server.Try(t, "ping", "-c", "1", "-W", "1", a); status == 0 {
		t.Errorf("disconnected, and still there: %s", out)
	}
}

// What cannot be a port is refused by name and leaves nothing; one whose
// interface goes, goes too.
func TestS35_Refused(t *testing.T) {
	lab.NoLeaks(t)
	l := newRealLAN(t)
	n := newNode(t)
	l.network(n)
	for _, c := range []struct {
		want string
		args []string
	}{
		{"open if:eth9: find interface eth9: Link not found; `ip link` lists them", []string{"lan", "if:eth9"}},
		{"open if:lo: interface lo is no Ethernet but loopback", []string{"lan", "if:lo"}},
		{"network nosuch not found", []string{"nosuch", "if:eth0"}},
		{"if:eth0 is no container: --ip is for whoever is behind it to say", []string{"--ip", "10.35.0.9", "lan", "if:eth0"}},
		{"if:eth0 is no container: --mac is for whoever is behind it to say", []string{"--mac", "02:42:00:00:00:09", "lan", "if:eth0"}},
		{"if:eth0 is no container: --link is for whoever is behind it to say", []string{"--link", "a:b", "lan", "if:eth0"}},
		{"if:eth0 is no container: --gw-priority is for whoever is behind it to say", []string{"--route", "10.7.0.0/16@10.35.0.2", "--gw-priority", "1", "lan", "if:eth0"}},
		{"--wait waits for a namespace, and if:eth0 is none", []string{"--wait", "1s", "lan", "if:eth0"}},
	} {
		out, status := n.on(l.machine, append([]string{"network", "connect"}, c.args...)...)
		if status != 125 || !strings.Contains(out, c.want) {
			t.Errorf("%q: exit status %d: %s\nwant %s", c.args, status, out, c.want)
		}
	}
	n.run("network", "create", "--subnet", "10.36.0.0/24", "--opt", "mtu=9000", "jumbo")
	if out, status := n.on(l.machine, "network", "connect", "jumbo", "if:eth0"); status != 125 || !strings.Contains(out, "if:eth0 takes 1500 bytes at most, and the network 9000") {
		t.Errorf("exit status %d: %s", status, out)
	}
	if list := n.containers(); len(list) != 0 {
		t.Errorf("left behind: %v", list)
	}
	if out, status := n.on(l.machine, "network", "connect", "--name", "lan0", "lan", "if:eth0"); status != 0 {
		t.Fatalf("exit status %d: %s", status, out)
	}
	if out, status := n.on(l.machine, "network", "connect", "lan", "if:eth0"); status != 125 || !strings.Contains(out, "if:eth0 is a port of network lan already; `fairlead network disconnect lan lan0`") {
		t.Errorf("exit status %d: %s", status, out)
	}
	l.machine.Run(t, "ip", "link", "del", "eth0")
	n.gone("lan0")
}

// One end of a pair somebody made is a port, and nobody else hears it; at the
// other end is whatever he put there.
func TestS04_PairOfOthers(t *testing.T) {
	lab.NoLeaks(t)
	lab.Need(t, "ip", "ping")
	n := newNode(t)
	other := lab.NewHost(t, "other")
	machine := lab.NewHost(t, "machine")
	lab.Join(t, machine, "out", other, "eth0")
	other.Addr(t, "eth0", "172.17.9.9/16")
	n.start("a")
	n.run("network", "create", "--subnet", "10.36.0.0/24", "--opt", "mtu=9000", "jumbo")
	out, status := n.on(machine, "network", "connect", "jumbo", "veth:out")
	if status != 125 || !strings.Contains(out, "veth:out takes 1500 bytes at most, and the network 9000") {
		t.Fatalf("exit status %d: %s", status, out)
	}
	out, status = n.on(machine, "network", "connect", "--name", "pair", "--rate-in", "100mbit", "default", "veth:out")
	if status != 0 {
		t.Fatalf("exit status %d: %s", status, out)
	}
	if out, status := machine.Try(t, "ip", "link", "show", "out"); status == 0 {
		t.Errorf("the end is still on the machine: %s", out)
	}
	other.Run(t, "ping", "-c", "1", "-W", "5", "172.17.0.2")
	n.exec("a", "ping", "-c", "1", "-W", "5", "172.17.9.9")
	other.Run(t, "ping", "-c", "1", "-W", "5", "172.17.0.1")
	if err := contains(n.run("show", "switch", "-v"), "one end of a pair somebody made, in a network namespace of its own", "rates    in 100mbit, out -"); err != nil {
		t.Error(err)
	}
	other.Run(t, "ip", "link", "del", "eth0")
	n.gone("pair")
}

// mdns is a small responder and resolver of names on a link (RFC 6762): it serves
// NAME ADDRESS until it is killed, or asks for NAME and prints the answer. Both
// talk to the group only.
func mdns(args []string) error {
	group := &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: 5353}
	ifi, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	conn, err := net.ListenMulticastUDP("udp4", ifi, group)
	if err != nil {
		return err
	}
	say := func(m *mdnslib.Msg) error {
		b, err := m.Pack()
		if err == nil {
			_, err = conn.WriteToUDP(b, group)
		}
		return err
	}
	hear := func() (*mdnslib.Msg, error) {
		buf := make([]byte, 9000)
		n, _, err := conn.ReadFromUDP(buf)
		if err != nil {
			return nil, err
		}
		m := new(mdnslib.Msg)
		return m, m.Unpack(buf[:n])
	}
	serve, name := args[0] == "serve", args[1]
	question := new(mdnslib.Msg).SetQuestion(name, mdnslib.TypeA)
	if serve {
		fmt.Println("serving")
	} else if err := say(question); err != nil {
		return err
	}
	for again := time.Now(); ; {
		if !serve {
			if time.Since(again) > time.Second { // it may be lost, or nobody have listened yet
				if err := say(question); err != nil {
					return err
				}
				again = time.Now()
			}
			if err := conn.SetReadDeadline(again.Add(1100 * time.Millisecond)); err != nil {
				return err
			}
		}
		m, err := hear()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue
		case err != nil:
			return err
		case serve && !m.Response && len(m.Question) == 1 && m.Question[0].Name == name:
			reply := new(mdnslib.Msg).SetReply(m)
			reply.Answer = []mdnslib.RR{&mdnslib.A{
				Hdr: mdnslib.RR_Header{Name: name, Rrtype: mdnslib.TypeA, Class: mdnslib.ClassINET, Ttl: 120}, A: net.ParseIP(args[2]),
			}}
			if err := say(reply); err != nil {
				return err
			}
		case !serve && m.Response && len(m.Answer) == 1 && m.Answer[0].Header().Name == name:
			fmt.Println(m.Answer[0].(*mdnslib.A).A)
			return nil
		}
	}
}

// Nobody on the LAN takes a container's place, by its MAC or its address.
func TestS35_LANIsNoContainer(t *testing.T) {
	lab.Need(t, "ip", "ping", "dnsmasq")
	l := newRealLAN(t)
	n := newNode(t)
	n.run("network", "create", "--subnet", "10.35.0.0/24", "--gateway", "10.35.0.250", "--ip-range", "10.35.0.240/29", "--opt", "dhcp=off", "lan")
	if out, status := n.on(l.machine, "network", "connect", "--name", "lan0", "lan", "if:eth0"); status != 0 {
		t.Fatal(out)
	}
	n.start("a", "--network", "lan")
	n.start("b", "--network", "lan")
	a, b := n.containers()["a"], n.containers()["b"]
	n.exec("a", "ping", "-c", "1", "-W", "5", b.IP)
	l.server.Run(t, "ping", "-c", "1", "-W", "5", b.IP)

	// The LAN's server gives itself out for b, with its address and then its MAC as
	// well.
	forges := func(reason string) {
		t.Helper()
		lab.Eventually(t, patience, func() error {
			l.server.Try(t, "ping", "-c", "1", "-W", "0.2", "-I", b.IP, a.IP)
			if n.dropped("lan0", reason) == 0 {
				return errors.New(n.run("show", "drops"))
			}
			return nil
		})
		for _, row := range table(t, n.run("show", "mac")) {
			if row["mac addr"] == b.MAC && row["container"] != "b" {
				t.Errorf("the switch was led astray: %v", row)
			}
		}
		if neigh := n.exec("a", "ip", "neigh", "show", b.IP); !strings.Contains(neigh, "lladdr "+b.MAC+" ") {
			t.Errorf("a was led astray: %s", neigh)
		}
		n.exec("a", "ping", "-c", "1", "-W", "5", b.IP)
	}
	l.server.Run(t, "ip", "addr", "add", b.IP+"/24", "dev", "eth0")
	forges("spoofed-address")
	l.server.Run(t, "ip", "link", "set", "eth0", "down")
	l.server.Run(t, "ip", "link", "set", "eth0", "address", b.MAC, "up")
	forges("spoofed-mac")
	for _, reason := range []string{"spoofed-address", "spoofed-mac"} {
		if n.ruled("guard", reason) == 0 {
			t.Errorf("show rules has not counted %s", reason)
		}
	}

	// When b is gone, its address is the LAN's.
	n.run("stop", "-t", "0", "b")
	n.gone("b")
	lab.Eventually(t, patience, func() error {
		if out, status := l.server.Try(t, "ping", "-c", "1", "-W", "1", "-I", b.IP, a.IP); status != 0 {
			return errors.New(out)
		}
		return nil
	})
}
