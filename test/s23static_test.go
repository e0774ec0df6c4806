package test

import (
	"fmt"
	"strings"
	"testing"

	"fairlead/test/lab"
)

// row is the line of a MAC table, "" if there is none.
func (n *node) macRow(mac string) string {
	n.t.Helper()
	for line := range strings.Lines(n.run("mac", "ls", "--network", "default")) {
		if strings.Contains(line, mac) {
			return strings.Join(strings.Fields(line), " ")
		}
	}
	return ""
}

// A MAC that is another container's is not followed under guard: it is refused and
// counted, and whose it is goes on.
func TestS23_MoveRefused(t *testing.T) {
	lab.Need(t, "ping", "ip")
	n := newNode(t)
	n.start("a", quiet)
	n.start("b", quiet)
	n.start("c", quiet)
	n.exec("c", "ping", "-c", "1", "-W", "5", "172.17.0.2")
	n.sh("b", "ip link set eth0 address 02:42:ac:11:00:02; ip addr add 172.17.0.2/16 dev eth0; "+
		"! ping -c 1 -W 0.2 -I 172.17.0.2 172.17.0.4")
	if n.dropped("b", "spoofed-mac") == 0 {
		t.Errorf("nothing was refused:\n%s", n.run("show", "drops"))
	}
	n.ruled("guard", "spoofed-mac")
	if row := n.macRow("02:42:ac:11:00:02"); !strings.HasSuffix(row, " a") {
		t.Errorf("a's MAC is %q", row)
	}
	before := n.port("b").Counts.Written
	n.exec("c", "ping", "-c", "1", "-W", "5", "172.17.0.2")
	if got := n.port("b").Counts.Written; got != before {
		t.Errorf("b got %d frames for a", got-before)
	}
}

// A static MAC is where it was said to be: no frame moves it, flush leaves it, and it
// goes with its container.
func TestS23_StaticMAC(t *testing.T) {
	lab.Need(t, "ip", "ping")
	n := newNode(t, "--opt", "guard=off")
	n.start("a", quiet)
	n.start("b", quiet)
	const mac = "02:00:00:00:00:77"
	n.run("mac", "add", mac, "b")
	n.run("mac", "add", "--vlan", "10", mac, "a")
	want := "default 2 " + mac + " - no static b"
	if row := n.macRow(mac); row != want {
		t.Errorf("added: %q, want %q", row, want)
	}
	n.sh("a", "ip link set eth0 address "+mac+"; ! ping -c 1 -W 0.2 172.17.0.3")
	if err := contains(n.run("show", "mac", "--json"), `"static": true`, `"vlan": 10`); err != nil || n.macRow(mac) != want {
		t.Errorf("a sends by it: %q, %v", n.macRow(mac), err)
	}
	n.sh("a", "ip link set eth0 down") // it asks on
	n.run("mac", "flush")
	if row := n.macRow(mac); row != want {
		t.Errorf("flushed: %q", row)
	}
	n.run("mac", "rm", "--vlan", "10", mac)
	n.run("mac", "rm", mac)
	if row := n.macRow(mac); row != "" {
		t.Errorf("removed: %q", row)
	}
	n.run("mac", "add", mac, "b")
	if out := n.run("mac", "flush", "--all", "--network", "default"); out == "0 forgotten\n" || n.macRow(mac) != "" {
		t.Errorf("flushed all: %q, %q", out, n.macRow(mac))
	}
	n.run("mac", "add", mac, "b")
	n.run("kill", "b")
	n.gone("b")
	if row := n.macRow(mac); row != "" {
		t.Errorf("b has gone: %q", row)
	}
}

// A static neighbour is not changed by what is heard, and not flushed unless all are.
func TestS23_StaticARP(t *testing.T) {
	lab.Need(t, "ip", "ping")
	n := newNode(t, "--opt", "guard=off")
	n.start("a", quiet)
	n.start("b", quiet)
	const address, mac = "172.17.0.99", "02:00:00:00:00:77"
	state := func() string {
		for _, row := range table(t, n.run("arp", "ls", "--network", "default")) {
			if row["Address"] == address {
				return fmt.Sprint(row["HWaddress"], " ", row["State"], " ", row["Container"])
			}
		}
		return ""
	}
	want := mac + " PERMANENT b"
	n.run("arp", "add", address, mac, "b")
	n.sh("a", "ip addr add "+address+"/16 dev eth0; ping -c 1 -W 5 -I "+address+" 172.17.0.1") // answered by who asks
	n.run("arp", "flush")
	if got := state(); got != want {
		t.Errorf("a claims it, and the table was flushed: %q, want %q", got, want)
	}
	n.run("arp", "rm", address)
	n.sh("a", "ip neigh flush dev eth0; ping -c 1 -W 5 -I "+address+" 172.17.0.1")
	if got := state(); got != "02:42:ac:11:00:02 REACHABLE a" {
		t.Errorf("removed, and a asked: %q", got)
	}
	n.run("arp", "add", address, mac, "b")
	n.run("arp", "flush", "--all")
	if got := state(); got != "" {
		t.Errorf("all flushed: %q", got)
	}

	// What a guard holds is nobody's to change.
	guarded := newNode(t)
	guarded.start("a", quiet)
	guarded.run("arp", "flush", "--all")
	guarded.knows("172.17.0.2", "02:42:ac:11:00:02")
	guarded.exec("a", "ping", "-c", "1", "-W", "5", "172.17.0.1")
}
