package test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"fairlead/test/lab"
)

// The link-local address is formed from the MAC (RFC 4291 appendix A).
func TestS02_LinkLocal(t *testing.T) {
	lab.Need(t, "ip", "ping")
	n := newNode(t)
	n.start("a")
	n.start("b", "--mac", "02:00:00:12:34:56")
	const a, b = "fe80::42:acff:fe11:2", "fe80::ff:fe12:3456"
	for name, want := range map[string]string{"a": a, "b": b} {
		if got := n.interfaces(name)[1].Addrs[1]; got.Local != want || got.Length != 64 || got.Scope != "link" {
			t.Errorf("%s has %+v, want %s/64 scope link", name, got, want)
		}
		if got := strings.TrimSpace(n.run("inspect", "-f", "{{.NetworkSettings.Networks.default.LinkLocalIPv6Address}}", name)); got != want {
			t.Errorf("inspect says that %s has %s, want %s", name, got, want)
		}
	}
	for from, to := range map[string]string{"a": b, "b": a} {
		if out := n.exec(from, "ping", "-6", "-c", "1", "-W", "5", to+"%eth0"); !strings.Contains(out, "ttl=64") {
			t.Errorf("ping from %s:\n%s", from, out)
		}
	}
}

// A container with IPv6 off has no address of it and sends nothing of it, not
// even the listener report everybody else begins with. Nobody asks for routers.
func TestS02_IPv6Off(t *testing.T) {
	lab.Need(t, "ip", "ping")
	n := newNode(t)
	trace := n.background("trace", "--json")
	e := n.ear("ear", "ip6", quiet)
	n.start("off", "--sysctl", "net.ipv6.conf.all.disable_ipv6=1", "--sysctl", "net.ipv6.conf.default.disable_ipv6=1")
	n.start("on")
	if out := n.exec("off", "ip", "-6", "addr"); out != "" {
		t.Errorf("a container with IPv6 off shows:\n%s", out)
	}
	// Who has IPv6 reports its groups in the first second; the one without had
	// more time for it.
	lab.Eventually(t, 10*time.Second, func() error {
		return contains(n.run("logs", "ear"), "listener report")
	})
	n.exec("off", "ping", "-c", "1", "-W", "5", n.address("on"))
	for line := range strings.Lines(n.run("logs", e.name)) {
		if strings.Contains(line, "02:42:ac:11:00:03 >") || strings.Contains(line, "router solicitation") {
			t.Errorf("a third container heard %s", line)
		}
	}
	// The trace began before the container, so it has every frame of it.
	read := n.port("off").Counts.Read
	lab.Eventually(t, 10*time.Second, func() error {
		var sent uint64
		for _, line := range traceLines(t, trace) {
			if line.In != "off" {
				continue
			}
			sent++
			if !strings.HasPrefix(line.Summary, "ARP ") && !strings.HasPrefix(line.Summary, "172.17.0.3 > ") {
				t.Fatalf("it sent %s", line.Summary)
			}
		}
		if read == 0 || sent < read {
			return fmt.Errorf("the trace has %d frames, the port read %d", sent, read)
		}
		return nil
	})
}
