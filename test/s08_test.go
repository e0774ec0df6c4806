package test

import (
	"regexp"
	"strings"
	"testing"

	"fairlead/test/lab"
)

func TestS08_PingAndHTTP(t *testing.T) {
	lab.Need(t, "ping", "curl")
	n := newNode(t)
	n.serve("a")
	n.serve("b", "--opt", "offload=off")
	n.serve("c")
	all := map[string]string{"a": "172.17.0.2", "b": "172.17.0.3", "c": "172.17.0.4"}
	for from, own := range all {
		for _, to := range all {
			if to == own {
				continue
			}
			if out := n.exec(from, "ping", "-c", "1", "-W", "5", to); !strings.Contains(out, "ttl=64") {
				t.Errorf("ping from %s does not say ttl=64:\n%s", from, out)
			}
			page := n.exec(from, "curl", "-sS", "--max-time", "5", "http://"+to+"/")
			if !strings.HasPrefix(page, "Hello "+own+":") || !strings.Contains(page, "at "+to+":80.") {
				t.Errorf("%s got from %s: %q", from, to, page)
			}
		}
	}
}

func TestS08_OneHop(t *testing.T) {
	lab.Need(t, "traceroute")
	n := newNode(t)
	n.start("a")
	n.start("b")
	for _, method := range []string{"-U", "-I", "-T"} {
		out, _ := n.traceroute("a", method, "-n", "-q", "1", "-w", "5", "172.17.0.3")
		if hops := regexp.MustCompile(`(?m)^ *\d+ +(\S+)`).FindAllStringSubmatch(out, -1); len(hops) != 1 || hops[0][1] != "172.17.0.3" {
			t.Errorf("traceroute %s, want one hop:\n%s", method, out)
		}
	}
}

// A container sees its neighbours' own MACs, and the gateway's.
func TestS08_Neighbours(t *testing.T) {
	lab.Need(t, "ping", "arp", "ip")
	n := newNode(t)
	n.start("a")
	n.start("b", "--mac", "02:00:00:00:00:bb")
	want := map[string]string{"172.17.0.1": "02:42:ac:11:00:01", "172.17.0.3": "02:00:00:00:00:bb"}
	for to := range want {
		n.exec("a", "ping", "-c", "1", "-W", "5", to)
	}
	arp, neigh := table(t, n.exec("a", "arp", "-n")), n.exec("a", "ip", "neigh", "show", "dev", "eth0")
	have := map[string]string{}
	for _, row := range arp {
		have[row["Address"]] = row["HWaddress"]
	}
	for address, mac := range want {
		if have[address] != mac {
			t.Errorf("arp -n: %s is at %q, want %s", address, have[address], mac)
		}
		if !strings.Contains(neigh, address+" lladdr "+mac+" ") {
			t.Errorf("ip neigh does not say that %s is at %s:\n%s", address, mac, neigh)
		}
	}
	if len(have) != len(want) {
		t.Errorf("arp -n: %v, want %v", have, want)
	}
	// And the gateway knows who is there, without asking.
	rows := table(t, n.run("show", "arp"))
	if len(rows) != 2 || rows[0]["State"] != "PERMANENT" || rows[0]["Address"] != "172.17.0.2" || rows[0]["HWaddress"] != "02:42:ac:11:00:02" ||
		rows[0]["Port"] != "1" || rows[0]["Container"] != "a" {
		t.Errorf("show arp: %v", rows)
	}
}
