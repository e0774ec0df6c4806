package test

import (
	"strings"
	"testing"

	"fairlead/node/api"
)

// natRule is the one rule of a kind, as programs see it.
func (n *node) natRule(kind string) (found api.NATRule) {
	n.t.Helper()
	var rules []api.NATRule
	n.json(&rules, "show", "nat")
	for _, r := range rules {
		if r.Kind == kind {
			found = r
		}
	}
	if found.Kind == "" {
		n.t.Fatalf("show nat has no %s: %+v", kind, rules)
	}
	return found
}

// The rules of NAT are there before the first packet, and their counters move
// with what they translate.
func TestS06_ShowNAT(t *testing.T) { eachWay(t, showsNAT) }

func showsNAT(t *testing.T, o *outside) {
	o.serveHTTP(o.Host, 80)
	o.serve("web", "-p", "8080:80")
	o.start("a")
	rows := table(t, o.run("show", "nat"))
	var have []string
	for _, r := range rows {
		have = append(have, strings.Join([]string{r["kind"], r["proto"], r["source"], r["destination"], r["uplink"], r["becomes"], r["packets"]}, " "))
	}
	want := []string{
		"publish tcp 0.0.0.0/0 0.0.0.0/0:8080 - to 172.17.0.2:80 0",
		"hairpin all 172.17.0.0/16 172.17.0.0/16 - from the address it met 0",
		"none all 172.17.0.0/16 172.17.0.0/16 - (as it is) 0",
		"masquerade all 172.17.0.0/16 0.0.0.0/0 " + o.way + " from 192.0.2.2 0",
	}
	if strings.Join(have, "\n") != strings.Join(want, "\n") {
		t.Errorf("show nat has\n%s\nwant\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
	}

	o.exec("a", "ping", "-c", "3", "-i", "0.2", "-W", "5", o.Router.FarHost)
	if r := o.natRule("masquerade"); r.Flows != 1 || r.Packets != 6 || r.Bytes < 6*84 || r.Mappings != 1 {
		t.Errorf("after a ping of three: %+v", r)
	}
	curl(t, o.Host, "http://"+o.reach+":8080/")
	published := o.natRule("publish")
	if published.Flows != 1 || published.Packets < 6 || published.Container != "web" {
		t.Errorf("after a page from outside: %+v", published)
	}
	o.exec("a", "curl", "-sS", "--max-time", "5", "http://"+o.Router.Uplink+":8080/")
	if r := o.natRule("publish"); r.Flows != 2 || r.Packets <= published.Packets {
		t.Errorf("after a page from inside: %+v", r)
	}
	if r := o.natRule("hairpin"); r.Flows != 1 || r.Packets < 6 {
		t.Errorf("after a page from inside: %+v", r)
	}
	// Containers among themselves meet no rule.
	o.exec("a", "curl", "-sS", "--max-time", "5", "http://172.17.0.2/")
	if r := o.natRule("masquerade"); r.Packets != 6 {
		t.Errorf("what stays inside is masqueraded: %+v", r)
	}
}

// The connections there are, as programs and people see them.
func TestS06_ShowFlows(t *testing.T) {
	o := newOutside(t)
	s := o.Host.Serve(t, play(t, "sink", ":9000")[0], play(t, "sink", ":9000")[1:]...)
	o.says(s, "listening")
	o.start("a")
	o.exec("a", "ping", "-c", "1", "-W", "5", o.Router.FarHost)
	o.exec("a", play(t, "transfer", o.Router.FarHost+":9000", "100000")...)
	flows := map[string]api.Flow{}
	var list []api.Flow
	o.json(&list, "show", "flows")
	for _, f := range list {
		flows[f.Proto] = f
	}
	if f := flows["icmp"]; f.Container != "a" || f.Kind != "masquerade" || f.Uplink != "up0" || f.Network != "default" || f.Unreplied ||
		f.Original.Packets != 1 || f.Reply.Packets != 1 || f.TTL <= 0 || f.TTL > 62 || f.Rule != o.natRule("masquerade").Number {
		t.Errorf("the ping is %+v", f)
	}
	if f := flows["tcp"]; f.Original.Source != "172.17.0.2" || f.Original.Destination != o.Router.FarHost || f.Original.DestinationPort != 9000 ||
		f.Reply.Destination != o.Router.Uplink || f.Original.Bytes < 100_000 || f.State == "" {
		t.Errorf("the transfer is %+v", f)
	}
	for _, row := range table(t, o.run("show", "flows")) {
		if row["container"] != "a" || row["becomes"] == "-" {
			t.Errorf("a row of show flows is %v", row)
		}
	}
	o.run("stop", "a")
	o.json(&list, "show", "flows")
	if len(list) != 0 {
		t.Errorf("a container that is gone has flows: %+v", list)
	}
}

// In the columns of the kernel's tools.
func TestS06_AsKernel(t *testing.T) {
	o := newOutside(t)
	o.serve("web", "-p", "8080:80")
	o.exec("web", "ping", "-c", "1", "-W", "5", o.Router.FarHost)
	for what, want := range map[string][]string{
		"nat": {
			" pkts bytes target     prot opt in     out     source               destination         \n",
			" MASQUERADE  all  --  *      up0     172.17.0.0/16        0.0.0.0/0           \n",
			" DNAT       tcp  --  *      *       0.0.0.0/0            0.0.0.0/0            tcp dpt:8080 to:172.17.0.2:80\n",
		},
		"rules": {
			"Chain FORWARD (policy DROP 0 packets, 0 bytes)\n pkts bytes target     prot opt in     out     source               destination         \n",
			" ACCEPT     tcp  --  *      web     0.0.0.0/0            172.17.0.2           tcp dpt:80 /* publish */\n",
			" ACCEPT     all  --  up0    default  0.0.0.0/0            0.0.0.0/0            ctstate RELATED,ESTABLISHED\n",
		},
		"flows": {
			"icmp     1 ", " src=172.17.0.2 dst=198.51.100.2 type=8 code=0 id=", " packets=1 bytes=",
			" src=198.51.100.2 dst=192.0.2.2 type=0 code=0 id=", " mark=0 use=1\n",
		},
		"routes": {
			"default via 192.0.2.1 dev up0 \n172.17.0.0/16 dev default proto kernel scope link src 172.17.0.1 \n192.0.2.0/24 dev up0 proto kernel scope link src 192.0.2.2 \n",
		},
		"switch": {"bridge name\tbridge id\t\tSTP enabled\tinterfaces\ndefault\t\t8000.0242ac110001\tno\t\tweb\n"},
		"mac":    {"port no\tmac addr\t\tis local?\tageing timer\n  0\t02:42:ac:11:00:01\tyes\t\t   0.00\n"},
		"arp":    {"172.17.0.2               ether   02:42:ac:11:00:02   CM                    default\n"},
	} {
		if err := contains(o.run("show", what, "--as", "kernel"), want...); err != nil {
			t.Errorf("show %s --as kernel: %v", what, err)
		}
	}
	o.refuses("the only layout is kernel", "show", "nat", "--as", "docker")
	o.refuses("two layouts", "show", "nat", "--as", "kernel", "--json")
}
