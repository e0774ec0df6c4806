package test

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"fairlead/test/lab"
)

// As brctl show and brctl showmacs.
func TestS03_ShowSwitch(t *testing.T) {
	lab.Need(t, "ping")
	n := newNode(t)
	if rows := table(t, n.run("show", "switch")); len(rows) != 1 || rows[0]["port"] != "" {
		t.Errorf("an empty switch: %v", rows)
	}
	n.start("a")
	n.start("b")
	n.exec("a", "ping", "-c", "1", "-W", "5", "172.17.0.3")

	rows := table(t, n.run("show", "switch"))
	if len(rows) != 2 {
		t.Fatalf("show switch: %v, want two ports", rows)
	}
	if r := rows[0]; r["network"] != "default" || r["bridge id"] != "8000.0242ac110001" || r["loop guard"] != "yes" {
		t.Errorf("the first line: %v", r)
	}
	for i, name := range []string{"a", "b"} {
		r := rows[i]
		if r["port"] != strconv.Itoa(i+1) || r["container"] != name || r["in"] == "0" || r["out"] == "0" || r["dropped"] != "0" {
			t.Errorf("the line of %s: %v", name, r)
		}
	}
}

func TestS03_ShowMAC(t *testing.T) {
	lab.Need(t, "ping")
	n := newNode(t)
	n.start("a", quiet)
	n.start("b", quiet)
	if rows := table(t, n.run("show", "mac")); len(rows) != 1 {
		t.Errorf("before anybody spoke: %v, want the gateway only", rows)
	}
	n.exec("a", "ping", "-c", "1", "-W", "5", "172.17.0.3")

	rows := table(t, n.run("show", "mac"))
	want := []map[string]string{
		{"mac addr": "02:42:ac:11:00:01", "port no": "0", "is local?": "yes", "container": "(gateway)"},
		{"mac addr": "02:42:ac:11:00:02", "port no": "1", "is local?": "no", "container": "a"},
		{"mac addr": "02:42:ac:11:00:03", "port no": "2", "is local?": "no", "container": "b"},
	}
	if len(rows) != len(want) {
		t.Fatalf("show mac: %v, want %v", rows, want)
	}
	for i, w := range want {
		for head, cell := range w {
			if rows[i][head] != cell {
				t.Errorf("show mac, line %d: %s is %q, want %q", i+1, head, rows[i][head], cell)
			}
		}
		if age, err := strconv.ParseFloat(rows[i]["ageing timer"], 64); err != nil || age < 0 || age > 10 {
			t.Errorf("show mac, line %d: ageing timer %q", i+1, rows[i]["ageing timer"])
		}
	}
	if got := n.run("mac", "flush"); got != "2 forgotten\n" {
		t.Errorf("mac flush says %q", got)
	}
	if rows := table(t, n.run("show", "mac")); len(rows) != 1 {
		t.Errorf("after mac flush: %v, want the gateway only", rows)
	}
}

// What the table says of a cable is what the kernel says at its other end; at
// ours there is no interface.
func TestS04_Cables(t *testing.T) {
	lab.Need(t, "ip")
	n := newNode(t)
	before, err := exec.Command("ip", "-o", "link").Output()
	if err != nil {
		t.Fatal(err)
	}
	n.start("a")
	n.start("plain", "--opt", "offload=off")
	for name, kind := range map[string]string{"a": "tap", "plain": "wire"} {
		p := n.port(name)
		if p.Kind != kind || p.HostIface != "" {
			t.Errorf("%s hangs on a %s with %q at the host, want %s and nothing", name, p.Kind, p.HostIface, kind)
		}
		inside := n.interfaces(name)[1]
		if p.Interface != inside.Name || p.Index != inside.Index || p.MAC != inside.Address {
			t.Errorf("%s: port %+v, inside %+v", name, p, inside)
		}
		if p.Pid != n.pid(name) || p.Pid == 0 {
			t.Errorf("%s: port of pid %d, ps says %d", name, p.Pid, n.pid(name))
		}
		info, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", p.Pid))
		if err != nil || info.Sys().(*syscall.Stat_t).Ino != p.Netns {
			t.Errorf("%s: network namespace %d in the table, %v, %v", name, p.Netns, info, err)
		}
		words := n.run("show", "switch", "-v")
		for _, want := range []string{
			fmt.Sprintf("%s: eth0, index %d, in network namespace %d of pid %d\n", kind, p.Index, p.Netns, p.Pid),
			"no host interface: a TAP lives in the container only\n",
		} {
			if !strings.Contains(words, want) {
				t.Errorf("show switch -v does not say %q:\n%s", want, words)
			}
		}
	}
	if after, err := exec.Command("ip", "-o", "link").Output(); err != nil || string(after) != string(before) {
		t.Errorf("the host's interfaces changed (%v):\n%s%s", err, before, after)
	}
}

// Of a veth pair, `ip link` and `ethtool -S` inside say what the table says, and
// the other end lies where no host is.
func TestS04_VethCables(t *testing.T) {
	lab.Need(t, "ip", "ethtool")
	n := newNode(t)
	before, err := exec.Command("ip", "-o", "link").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		n.start(name, "--opt", "link=veth")
		p := n.port(name)
		words := n.run("show", "switch", "-v")
		for _, want := range []string{
			fmt.Sprintf("veth: eth0, index %d, in network namespace %d of pid %d\n", p.Index, p.Netns, p.Pid),
			fmt.Sprintf("other end: index %d, in a network namespace of its own; inside it is eth0@if%[1]d, link-netnsid %d\n", p.Peer, p.LinkNetns),
		} {
			if !strings.Contains(words, want) {
				t.Errorf("show switch -v does not say %q:\n%s", want, words)
			}
		}
		link := n.exec(name, "ip", "-o", "link", "show", "eth0")
		for _, want := range []string{fmt.Sprintf("%d: eth0@if%d: ", p.Index, p.Peer), fmt.Sprintf("link/ether %s brd ff:ff:ff:ff:ff:ff link-netnsid %d\n", p.MAC, p.LinkNetns)} {
			if !strings.Contains(link, want) {
				t.Errorf("ip link does not say %q: %s", want, link)
			}
		}
		if stats := n.exec(name, "ethtool", "-S", "eth0"); !strings.Contains(stats, fmt.Sprintf("peer_ifindex: %d\n", p.Peer)) {
			t.Errorf("the table says the peer is %d:\n%s", p.Peer, stats)
		}
	}
	n.exec("a", "ping", "-c", "1", "-W", "5", "172.17.0.3")
	n.audit()
	if after, err := exec.Command("ip", "-o", "link").Output(); err != nil || string(after) != string(before) {
		t.Errorf("the host's interfaces changed (%v):\n%s%s", err, before, after)
	}
}
