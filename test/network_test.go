package test

import (
	"strings"
	"testing"

	"fairlead/test/lab"
)

// Where there is no way out, the gateway says so at once.
func TestNetUnreachable(t *testing.T) {
	lab.Need(t, "ping", "curl")
	n := newNode(t, "--uplink", "none")
	n.start("a")
	r := n.try("exec", "a", "ping", "-c", "1", "-W", "5", "192.0.2.1")
	if r.code != 1 || !strings.Contains(r.stdout, "From 172.17.0.1 icmp_seq=1 Destination Net Unreachable") {
		t.Errorf("ping: %v", r)
	}
	if r := n.try("exec", "a", "curl", "-sS", "--max-time", "20", "http://192.0.2.1/"); r.code != 7 || // could not connect; 28 is a time-out
		!strings.Contains(r.stderr, "Failed to connect to 192.0.2.1 port 80") {
		t.Errorf("curl: %v", r)
	}
	if n.dropped("a", "no-route") < 2 {
		t.Errorf("not counted:\n%s", n.run("show", "drops"))
	}
	if err := contains(n.run("show", "drops"), "no-route", "The routing table has no way to the destination."); err != nil {
		t.Error(err)
	}
}

// Isolated ports do not hear one another; everybody else and the gateway do.
func TestIsolated(t *testing.T) {
	lab.Need(t, "ping", "ip")
	n := newNode(t)
	n.start("a", quiet, "--opt", "isolated=on")
	n.start("b", quiet, "--opt", "isolated=on")
	n.start("c", quiet)
	for _, pair := range [][2]string{{"a", "172.17.0.4"}, {"b", "172.17.0.4"}, {"c", "172.17.0.2"}, {"c", "172.17.0.3"}, {"a", "172.17.0.1"}, {"b", "172.17.0.1"}} {
		n.exec(pair[0], "ping", "-c", "1", "-W", "5", pair[1])
	}
	heard := n.port("b").Counts.Written
	// Broadcasts do not reach b; that drops nothing, c and the gateway have them.
	n.mark("a")
	if got := n.port("b").Counts.Written; got != heard {
		t.Errorf("b heard %d of a's broadcasts", got-heard)
	}
	// And what is addressed to b is dropped, with the reason.
	n.exec("a", "ip", "neigh", "replace", "172.17.0.3", "lladdr", "02:42:ac:11:00:03", "dev", "eth0")
	before := n.dropped("a", "isolated")
	if r := n.try("exec", "a", "ping", "-c", "2", "-i", "0.05", "-W", "0.2", "172.17.0.3"); r.code != 1 || !strings.Contains(r.stdout, "100% packet loss") {
		t.Errorf("ping between isolated containers: %v", r)
	}
	if got := n.dropped("a", "isolated") - before; got != 2 {
		t.Errorf("%d frames were dropped as isolated, want 2", got)
	}
	if !n.port("a").Isolated || n.port("c").Isolated {
		t.Errorf("show switch: %+v", n.theSwitch().Ports)
	}
	if words := n.run("show", "switch", "-v"); strings.Count(words, "isolated yes") != 2 {
		t.Errorf("show switch -v:\n%s", words)
	}
}
