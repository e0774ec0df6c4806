package test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"fairlead/test/lab"
)

// example is a file of docs/examples, from the root of the file system.
func example(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(root, "docs", "examples", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// One file builds three networks in a row and two containers that route between
// them; ping goes end to end, traceroute shows both routers each way, and the file
// removes what it has built and nothing else.
func TestS39_Lab(t *testing.T) {
	lab.Need(t, "ping", "traceroute", "ip")
	n := newNodeDir(t)
	file := example(t, "routers.yaml")
	want := `create network left
create network middle
create network right
start container r1
start container r2
start container pc1
start container pc2
lab routers: 7 of 7 `
	if said := n.run("up", "-f", file, "--dry-run"); said != want+"would change\n" || n.nodePid() != 0 {
		t.Errorf("up --dry-run, after which node %d runs:\n%s", n.nodePid(), said)
	}
	n.start("mine")
	if said := n.run("up", "-f", file); said != want+"changed\n" {
		t.Errorf("up:\n%s", said)
	}
	for from, path := range map[string][]string{
		"pc1 to 10.3.0.2": {"10.1.0.254", "10.2.0.3", "10.3.0.2"},
		"pc2 to 10.1.0.2": {"10.3.0.254", "10.2.0.2", "10.1.0.2"},
	} {
		name, to, _ := strings.Cut(from, " to ")
		if err := contains(n.exec(name, "ping", "-c", "2", "-i", "0.2", "-W", "5", to), "ttl=62", "2 received"); err != nil {
			t.Errorf("%s: %v", from, err)
		}
		out, _ := n.traceroute(name, "-n", "-q", "1", "-N", "1", "-w", probeWait, to)
		var hops []string
		for _, line := range strings.Split(strings.TrimSpace(out), "\n")[1:] {
			hops = append(hops, strings.Fields(line)[1])
		}
		if got, want := strings.Join(hops, " "), strings.Join(path, " "); got != want {
			t.Errorf("%s: %s, want %s\n%s", from, got, want, out)
		}
	}
	ids := n.run("ps", "-q", "--no-trunc")
	if said := n.run("up", "-f", file); said != "lab routers: nothing changed\n" || n.run("ps", "-q", "--no-trunc") != ids {
		t.Errorf("up again: %s", said)
	}
	for name, c := range n.containers() {
		if want := name != "mine"; (c.Labels["fairlead.lab"] == "routers") != want {
			t.Errorf("%s has the labels %v", name, c.Labels)
		}
	}
	if err := contains(n.run("down", "-f", file), "stop container pc2\nstop container pc1\nstop container r2\nstop container r1\n",
		"remove network left\n", "remove network middle\n", "remove network right\n", "lab routers: 7 of 7 changed\n"); err != nil {
		t.Error(err)
	}
	if left := n.containers(); len(left) != 1 || left["mine"].ID == "" {
		t.Errorf("left are %v", left)
	}
	n.theSwitch() // the only one
	if said := n.run("down", "-f", file); said != "lab routers: nothing changed\n" {
		t.Errorf("down again: %s", said)
	}
}

// A lab follows its file: what changed begins anew, all else goes on; what is not
// in it any more stays until --prune.
func TestLabFollowsItsFile(t *testing.T) {
	n := newNodeDir(t)
	file := filepath.Join(filepath.Dir(n.dir), "lab.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	id := func(name string) string { return n.containers()[name].ID }
	const text = `networks:
  front: {subnet: 10.1.0.0/24}
  back: {subnet: 10.2.0.0/24, options: {icc: off}, rules: [web db:80]}
containers:
  web:
    command: fairlead probe http-server
    networks: [front, back]
    env: {COLOUR: red}
    wait-for: db:80
  db:
    command: [fairlead, probe, http-server]
    networks: {back: {ip: 10.2.0.9, aliases: [sql]}}
    hostname: database
  once: {command: "sleep 1000", networks: none}
`
	write(text)
	n.run("up", "-f", file)
	if err := contains(n.exec("web", "fairlead", "probe", "get", "http://10.2.0.9/"), "this is database at 10.2.0.9:80"); err != nil {
		t.Error(err)
	}
	if colour := strings.TrimSpace(n.sh("web", "echo $COLOUR; hostname")); colour != "red\nweb" {
		t.Errorf("web has %q", colour)
	}
	web, db := id("web"), id("db")

	// One container changed, a network in what it can while it is used; one is gone.
	n.run("stop", "once")
	n.gone("once")
	write(strings.NewReplacer("red", "blue", "rules: [web db:80]", "rules: [any db]").Replace(text))
	if said, want := n.run("up", "-f", file), "set network back: rules\nrestart container web: env\nstart container once\nlab lab: 3 of 5 changed\n"; said != want {
		t.Errorf("said\n%s, want\n%s", said, want)
	}
	if id("db") != db || id("web") == web {
		t.Error("another container than web was restarted")
	}
	if colour := strings.TrimSpace(n.sh("web", "echo $COLOUR")); colour != "blue" {
		t.Errorf("web has %q", colour)
	}

	// A network that has to go takes its containers with it.
	write(strings.NewReplacer("10.2.0", "10.3.0").Replace(text))
	if said, want := n.run("up", "-f", file), "replace network back: rules and subnet\nrestart container db: networks\nrestart container web: env\nlab lab: 3 of 5 changed\n"; said != want {
		t.Errorf("said\n%s, want\n%s", said, want)
	}
	n.exec("web", "fairlead", "probe", "get", "http://10.3.0.9/")

	// What is not in the file stays, until it is to go.
	write("containers: {once: {command: sleep 1000, networks: none}}")
	keep := "keep network front: not in the file any more; --prune takes it away\nkeep network back: not in the file any more; --prune takes it away\n" +
		"keep container db: not in the file any more; --prune takes it away\nkeep container web: not in the file any more; --prune takes it away\n"
	if said := n.run("up", "-f", file); sortLines(said) != sortLines(keep+"lab lab: nothing changed\n") {
		t.Errorf("said\n%s", said)
	}
	if err := contains(n.run("up", "-f", file, "--prune"), "stop container web\n", "stop container db\n", "remove network front\n", "remove network back\n", "4 of 5 changed"); err != nil {
		t.Error(err)
	}
	if left := n.containers(); len(left) != 1 || left["once"].ID == "" {
		t.Errorf("left are %v", left)
	}
	n.run("down", "-f", file)
}

// Networks of a lab outlive the node; what does not outlive it, comes again.
func TestLabOutlivesTheNode(t *testing.T) {
	n := newNodeDir(t)
	file := filepath.Join(filepath.Dir(n.dir), "lab.yaml")
	const text = `networks:
  a: {subnet: 10.1.0.0/24, rules: [web web2:80], uplinks: none, labels: {use: test}}
  b: {}
containers:
  web: {command: sleep 1000, networks: [a, b]}
  web2: {command: sleep 1000, networks: [a, b]}
`
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	n.run("up", "-f", file)
	n.run("down", "--all")
	again := "set network a: uplinks\nstart container web\nstart container web2\nlab lab: 3 of 4 "
	if said := n.run("up", "-f", file, "--dry-run"); said != again+"would change\n" {
		t.Errorf("up --dry-run:\n%s", said)
	}
	if said := n.run("up", "-f", file); said != again+"changed\n" {
		t.Errorf("up:\n%s", said)
	}
	if said := n.run("up", "-f", file); said != "lab lab: nothing changed\n" {
		t.Errorf("up again:\n%s", said)
	}
	n.run("down", "--all")
	if said := n.run("down", "-f", file); said != "remove network a\nremove network b\nlab lab: 2 of 2 changed\n" {
		t.Errorf("down:\n%s", said)
	}
}

// Networks of a node that has ended are there for who asks, as for who runs; and what
// is published where nothing leads outside is said to lead nowhere.
func TestNetworksWithoutANode(t *testing.T) {
	n := newNodeDir(t)
	n.run("network", "create", "--internal", "inner")
	n.run("network", "create", "outer")
	n.run("down", "--all")
	if out := n.run("network", "ls", "--format", "{{.Name}}"); out != "default\ninner\nouter\n" {
		t.Errorf("ls: %q", out)
	}
	n.run("down", "--all")
	if out := n.run("network", "inspect", "-f", "{{.Internal}}", "inner"); out != "true\n" {
		t.Errorf("inspect: %q", out)
	}
	n.run("down", "--all")
	if out := n.run("network", "rm", "outer"); out != "outer\n" {
		t.Errorf("rm: %q", out)
	}
	n.run("network", "set", "--label", "stage=test", "inner")
	n.run("down", "--all")
	if out := n.run("network", "ls", "--format", "{{.Name}} {{.Labels}}"); out != "default \ninner stage=test\n" {
		t.Errorf("ls: %q", out)
	}
	if r := n.try("run", "-d", "--name", "web", "-p", "8099:80", "--network", "inner", "--", "sleep", "1000"); r.code != 0 || !strings.Contains(r.stderr, "published ports of web lead nowhere: no network of it leads outside") {
		t.Errorf("run -p on an internal network: %v", r)
	}
	n.run("network", "connect", "default", "web")
	if r := n.try("port", "web"); r.code != 0 || strings.Contains(r.stderr, "nowhere") {
		t.Errorf("on another network, too: %v", r)
	}
}

// sortLines puts lines in order.
func sortLines(s string) string {
	lines := strings.Split(s, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// A file that is wrong changes nothing, whatever of it is right, and what others
// have is not touched.
func TestLabThatIsWrong(t *testing.T) {
	n := newNode(t)
	n.start("mine", "--ip", "172.17.0.77")
	dir := filepath.Dir(n.dir)
	for i, test := range []struct{ file, want string }{
		{"networks: {a: {subnet: 10.9.0.0/24, otions: {}}}", `networks.a: unknown key "otions"; did you mean "options"?`},
		{"containers:\n  web: {command: sleep 1}\n  x: {command: [no-such-program]}", `:3:7: containers.x.command: "no-such-program": executable file not found in $PATH`},
		{"containers:\n  x: {command: sleep 1, sysctls: {net.ipv4.ip_forwad: 1}}", `:2:55: containers.x.sysctls.net.ipv4.ip_forwad: "net.ipv4.ip_forwad" is no kernel parameter of this machine`},
		{"containers:\n  web: {command: sleep 1}\n  x: {command: sleep 1, workdir: /no/such}", ":3:34: containers.x.workdir: /no/such: no such file or directory"},
		{"containers:\n  web: {command: sleep 1, rootfs: no-tree}", "/no-tree: no such file or directory"},
		{"containers:\n  web: {command: sleep 1, egress: allow:rules}", "rules: no such file or directory"},
		{"containers:\n  web: {command: sleep 1}\n  mine: {command: sleep 1}", ":3:3: containers.mine: there is a container of this name, and it is of no file"},
		{"containers:\n  web: {command: sleep 1}\n  x: {command: sleep 1, networks: {default: {ip: 172.17.0.77}}}", ":3:50: containers.x.networks.default.ip: container mine has 172.17.0.77 already"},
		{"networks:\n  a: {subnet: 172.17.128.0/24}", ":2:15: networks.a.subnet: 172.17.128.0/24 overlaps with 172.17.0.0/16 of network default"},
		{"networks:\n  a: {options: {hubb: on}}", `networks.a.options.hubb: unknown option "hubb"`},
		{"networks:\n  a: {uplinks: 'tap:up0,ip=192.0.2.2/24'}\n  b: {uplinks: ['tap:up0,ip=192.0.2.3/24']}", ":3:7: networks.b.uplinks: up0 is an uplink of network a already"},
		{"networks:\n  a: {external: true}", ":2:3: networks.a: there is no such network; `fairlead network create a` makes it"},
	} {
		file := filepath.Join(dir, fmt.Sprintf("wrong%d.yaml", i))
		if err := os.WriteFile(file, []byte(test.file), 0o644); err != nil {
			t.Fatal(err)
		}
		n.refuses(test.want, "up", "-f", file)
	}
	if left := n.containers(); len(left) != 1 {
		t.Errorf("there are %v", left)
	}
	n.theSwitch() // the only one
	n.refuses("up: open "+dir+"/none.yaml: no such file or directory", "up", "-f", filepath.Join(dir, "none.yaml"))
	n.refuses("up: --prune takes -f FILE", "up", "--prune")
	n.refuses("up: --bip and -f are two things; make them two calls", "up", "-f", "x", "--bip", "10.0.0.1/8")
}

// A network of a lab leads outside by its own uplink, which changes while the
// network is used and goes with it.
func TestLabWithUplink(t *testing.T) {
	lab.NeedTUN(t)
	lab.Need(t, "ip", "ping")
	lan := lab.NewHost(t, "lan")
	lan.AddTAP(t, "up0")
	lan.Addr(t, "up0", "192.0.2.1/24")
	n := newNodeDir(t)
	file := filepath.Join(filepath.Dir(n.dir), "lab.yaml")
	do := func(text, want string, args ...string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, status := n.on(lan, append(args, "-f", file)...); status != 0 || out != want {
			t.Errorf("%s: exit status %d\n%s\nwant\n%s", args, status, out, want)
		}
	}
	const text = `networks:
  out: {subnet: 10.1.0.0/24, uplinks: ["tap:up0,ip=192.0.2.2/24,gw=192.0.2.1"]}
  in: {subnet: 10.2.0.0/24, uplinks: none}
containers:
  a: {command: sleep 1000, networks: out}
`
	do(text, "create network out\ncreate network in\nstart container a\nlab lab: 3 of 3 changed\n", "up")
	if up := n.uplink("up0"); up.Network != "out" || up.State != "up" {
		t.Errorf("%+v", up)
	}
	n.exec("a", "ping", "-c", "1", "-W", "5", "192.0.2.1")
	do(text, "lab lab: nothing changed\n", "up")
	changed := strings.Replace(text, "gw=192.0.2.1", "gw=192.0.2.1,addr=192.0.2.50", 1)
	do(changed, "set network out: uplinks\nlab lab: 1 of 3 changed\n", "up")
	if up := n.uplink("up0"); !slices.Equal(up.Addresses, []string{"192.0.2.50"}) {
		t.Errorf("%+v", up)
	}
	n.exec("a", "ping", "-c", "1", "-W", "5", "192.0.2.1")
	do("what is to go need not be right", "stop container a\nremove network out\nremove network in\nlab lab: 3 of 3 changed\n", "down")
}
