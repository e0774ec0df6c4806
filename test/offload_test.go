package test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"fairlead/test/lab"
)

// gigabyte is what must cross in either direction, whole.
const gigabyte = 1 << 30

// offloads are the ways two containers can differ in what their kernels leave
// to the other side: by the kind of their links, --opt, and by an ethtool line
// that is run in the container.
var offloads = []struct {
	name         string
	linkA, linkB string
	offA, offB   bool
	gigabyte     bool // or less, where it would be the same again
}{
	{name: "all on", gigabyte: true},
	{name: "off at the client", offA: true, gigabyte: true},
	{name: "off at the server", offB: true, gigabyte: true},
	{name: "off at both", offA: true, offB: true},
	{name: "wire at the client", linkA: wire, gigabyte: true},
	{name: "wire at the server", linkB: wire},
	{name: "wire at both", linkA: wire, linkB: wire},
	{name: "wire at the client, off at the server", linkA: wire, offB: true},
	{name: "veth at the client", linkA: veth, gigabyte: true},
	{name: "veth at the server", linkB: veth},
	{name: "veth at both", linkA: veth, linkB: veth},
	{name: "veth at both, off at the client", linkA: veth, linkB: veth, offA: true},
	{name: "veth at the client, wire at the server", linkA: veth, linkB: wire},
	{name: "wire at the client, veth at the server", linkA: wire, linkB: veth},
}

// What --opt makes of a link that is to be no TAP.
const (
	wire = "offload=off"
	veth = "link=veth"
)

// Whatever each end leaves to the other, TCP connects and every byte arrives,
// over IPv4 and IPv6, and every datagram as it was sent.
func TestOffloads(t *testing.T) { testOffloads(t, 8<<20, 4<<20) }

// The same with gigabytes.
func TestOffloadsRelease(t *testing.T) {
	lab.NeedRelease(t)
	testOffloads(t, gigabyte, 32<<20)
}

func testOffloads(t *testing.T, whole, part int64) {
	lab.Need(t, "ethtool")
	n := newNode(t)
	seed := lab.Seed(t)
	for _, o := range offloads {
		link := func(kind string) []string {
			if kind != "" {
				return []string{"--opt", kind}
			}
			return nil
		}
		n.start("client", link(o.linkA)...)
		n.start("server", append(link(o.linkB), append([]string{"--"}, play(t, "sink", ":5001")...)...)...)
		n.start("echo", append([]string{"--network", "container:server", "--"}, "fairlead", "probe", "udp-echo")...)
		n.logSays("server", "listening")
		n.logSays("echo", "echoing")
		for name, off := range map[string]bool{"client": o.offA, "server": o.offB} {
			if off {
				n.exec(name, strings.Fields("ethtool -K eth0 tx off tso off gso off")...)
			}
		}
		amount := part
		if o.gigabyte {
			amount = whole
		}
		ip := n.containers()["server"].IP
		four := n.exec("client", play(t, "transfer", ip+":5001", strconv.FormatInt(amount, 10))...)
		six := n.exec("client", play(t, "transfer", "["+linkLocal(n, "server")+"%eth0]:5001", strconv.FormatInt(part, 10))...)
		udp := n.exec("client", play(t, "datagrams", ip+":7", "60", strconv.FormatUint(seed, 10))...)
		t.Logf("%s: %d MiB each way, %s   IPv6: %s   %s", o.name, amount>>20, four, six, udp)
		n.audit()
		n.checkSegments(t, o.offA || o.linkA == wire)
		for _, name := range []string{"client", "echo", "server"} {
			n.run("kill", name)
			n.gone(name)
		}
	}
}

// checkSegments makes sure that the client sent what its offloads say: large
// frames or none.
func (n *node) checkSegments(t *testing.T, plain bool) {
	t.Helper()
	c := n.port("client").Counts
	if large := c.ReadSegments > c.Read; large == plain {
		t.Errorf("the client sent %d frames of %d segments; without offloads: %v", c.Read, c.ReadSegments, plain)
	}
}

// linkLocal is the IPv6 link-local address of a container.
func linkLocal(n *node, name string) string {
	n.t.Helper()
	return strings.TrimSpace(n.run("inspect", "-f", "{{(index .NetworkSettings.Networks \"default\").LinkLocalIPv6Address}}", name))
}

// Root inside turns every screw of his interface while bytes flow: they arrive
// all the same, and others notice nothing.
func TestOffloadsFlipped(t *testing.T) {
	for _, kind := range []string{"tap", "veth"} {
		t.Run(kind, func(t *testing.T) { testOffloadsFlipped(t, "link="+kind) })
	}
}

func testOffloadsFlipped(t *testing.T, kind string) {
	lab.Need(t, "ethtool", "ip", "ping")
	n := newNode(t, "--opt", "guard=off", "--opt", kind)
	n.blinks = true
	heart := n.beating("a", "b")
	n.start("client")
	n.start("server", append([]string{"--"}, play(t, "sink", ":5001")...)...)
	n.logSays("server", "listening")
	ip := n.containers()["server"].IP
	const turn = `while read -t 0.02 end; [ -z "$end" ]; do
		case $((i++ % 12)) in
		0) ethtool -K eth0 tx off;;
		1) ethtool -K eth0 tx on tso on;;
		2) ethtool -K eth0 gso off gro off;;
		3) ethtool -K eth0 gso on gro on sg off;;
		4) ethtool -K eth0 sg on tx-checksumming on tso on;;
		5) ip link set eth0 mtu $3;;
		6) ip link set eth0 mtu 9000;;
		7) ping -q -c1 -W0.01 -s 4000 172.17.0.1;;
		8) ip link set eth0 mtu 1500;;
		9) ip link set eth0 address 02:42:ac:11:ff:$1;;
		10) ip link set eth0 address $2;;
		11) ip link set eth0 down; ip link set eth0 up;;
		esac >/dev/null 2>&1
	done; echo $i turns`
	small := "1280"
	if kind == veth {
		small = "1501" // a cable loses what is larger than the MTU of the end it arrives at, and TCP waits
	}
	var turners []*client
	for _, name := range []string{"client", "server"} {
		c := n.containers()[name]
		turners = append(turners, n.background("exec", "-i", name, "bash", "-c", turn, "turn", c.MAC[15:], c.MAC, small))
	}
	for start, crossed := time.Now(), 0; crossed == 0 || time.Since(start) < 3*time.Second; {
		switch r := n.try(append([]string{"exec", "client"}, play(t, "transfer", ip+":5001", "32000000")...)...); {
		case r.code == 0:
			crossed++
			t.Logf("%s", r.stdout)
		case strings.Contains(r.stderr, "network is unreachable") && time.Since(start) < patience: // it was just down
		default:
			t.Fatalf("%v", r)
		}
	}
	for _, c := range turners {
		fmt.Fprintln(c.in, "end")
		c.says("turns")
		if c.wait() != 0 {
			t.Errorf("%s", c.errors.String())
		}
		t.Logf("root inside made %s", strings.TrimSpace(c.out.String()))
	}
	heart.stop()
	t.Logf("dropped: %v and %v", n.port("client").Counts.Dropped, n.port("server").Counts.Dropped)
}
