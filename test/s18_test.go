package test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// named is a node with the network lab, on it web1 and web2, who are both www, and
// client, which asks. The machine asks 127.0.3.1, which knows example, and of silent
// somebody who says nothing.
func named(t *testing.T, up ...string) (*node, *resolver) {
	t.Helper()
	silent, err := net.ListenPacket("udp", "127.0.3.9:53")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	r := newResolver(t, "127.0.3.1", "192.0.2.80", "--server=/silent/127.0.3.9")
	n, _ := newNodeWithDNS(t, "search corp.example lan.example\nnameserver 127.0.3.1\noptions timeout:1\n")
	if len(up) > 0 {
		n.run(append([]string{"up"}, up...)...)
	}
	n.run("network", "create", "--subnet", "172.18.0.0/16", "lab")
	n.start("web1", "--network", "lab", "--ip", "172.18.0.11", "--network-alias", "www", "--hostname", "counter")
	n.start("web2", "--network", "lab", "--ip", "172.18.0.12", "--network-alias", "www")
	n.start("client", "--network", "lab", "--ip", "172.18.0.15")
	return n, r
}

// dig asks from a container and returns what +short prints, in order.
func (n *node) dig(container, args string) string {
	n.t.Helper()
	lines := strings.Fields(n.sh(container, "dig +time=10 +tries=1 +short "+args))
	slices.Sort(lines)
	return strings.Join(lines, " ")
}

// code is the code of an answer.
func (n *node) code(container, args string) string {
	n.t.Helper()
	m := regexp.MustCompile(`status: (\w+)`).FindStringSubmatch(n.sh(container, "dig +time=10 +tries=1 "+args))
	if m == nil {
		return "no answer"
	}
	return m[1]
}

// What a container on a network of its own finds in its files, and what it can ask.
func TestS18_Names(t *testing.T) {
	lab.Need(t, "ping")
	n, r := named(t)
	if got, want := n.exec("client", "cat", "/etc/resolv.conf"), "search corp.example lan.example\nnameserver 127.0.0.11\noptions ndots:0\n"; got != want {
		t.Errorf("resolv.conf is %q, want %q", got, want)
	}
	if got, want := n.exec("web1", "cat", "/etc/hosts"), "172.18.0.11\tcounter\n"; !strings.HasSuffix(got, "ip6-allrouters\n"+want) {
		t.Errorf("hosts is %q, want at its end %q", got, want)
	}
	id := n.containers()["web1"].ID[:12]
	for args, want := range map[string]string{
		"web1": "172.18.0.11", "WEB1.lab": "172.18.0.11", "web1.LAB": "172.18.0.11", id: "172.18.0.11", id + ".lab": "172.18.0.11", "counter": "172.18.0.11",
		"www": "172.18.0.11 172.18.0.12", "www.lab": "172.18.0.11 172.18.0.12", "+tcp www": "172.18.0.11 172.18.0.12", "client": "172.18.0.15",
		"web1 AAAA": "", "web1 MX": "", "-x 172.18.0.12": "web2.lab.", "+tcp -x 172.18.0.12": "web2.lab.", "-x 172.18.0.1": "",
		"web1.fairlead.internal": "172.18.0.11", "+noedns web1": "172.18.0.11", "+tcp +keepopen web1 www.example": "172.18.0.11 192.0.2.80",
		"www.example": "192.0.2.80", "+tcp www.example": "192.0.2.80", "@172.18.0.1 web1": "172.18.0.11", "@172.18.0.1 +tcp web1": "172.18.0.11",
	} {
		if got := n.dig("client", args); got != want {
			t.Errorf("dig %s: %q, want %q", args, got, want)
		}
	}
	for args, want := range map[string]string{
		"web1": "NOERROR", "web1 AAAA": "NOERROR", "web1 TXT": "NOERROR", "nobody.example": "NXDOMAIN", "nobody.fairlead.internal": "NXDOMAIN",
		"-x 172.18.0.99": "NXDOMAIN", "www.example": "NOERROR",
	} {
		if got := n.code("client", args); got != want {
			t.Errorf("dig %s: %s, want %s", args, got, want)
		}
	}
	out := n.exec("client", "ping", "-c", "1", "-W", "5", "web1")
	if err := contains(out, "PING web1 (172.18.0.11)", "from web1.lab (172.18.0.11)"); err != nil {
		t.Error(err)
	}
	if r.asked("web1") != 0 || r.asked("www") != 0 || r.asked("web1.lab") != 0 {
		t.Errorf("containers' names were asked outside:\n%s", r.log.String())
	}

	// Nothing but names is to be had at that address, nor at others of the loopback.
	before := n.dropped("client", "loopback-address")
	if out := n.try("exec", "client", "dig", "@127.0.0.11", "-p", "54", "+time=1", "+tries=1", "web1"); out.code == 0 {
		t.Errorf("port 54 of 127.0.0.11: %v", out)
	}
	if after := n.dropped("client", "loopback-address"); after == before {
		t.Error("what is asked at port 54 is not dropped")
	}
	n.sh("client", "ip route add 127.0.0.12/32 via 172.18.0.1 dev eth0 src 172.18.0.15 table local")
	before = n.dropped("client", "loopback-address")
	if out := n.try("exec", "client", "dig", "@127.0.0.12", "+time=1", "+tries=1", "web1"); out.code == 0 {
		t.Errorf("127.0.0.12: %v", out)
	}
	if after := n.dropped("client", "loopback-address"); after == before {
		t.Error("what is asked at 127.0.0.12 is not dropped")
	}
}

// The resolvers that programs are linked with find the same.
func TestS18_Resolvers(t *testing.T) {
	lab.Need(t, "nslookup", "busybox", "musl-gcc", "gcc")
	n, _ := named(t)
	dir := t.TempDir()
	for name, cc := range map[string]string{"lookup-glibc": "gcc", "lookup-musl": "musl-gcc"} {
		if out, err := exec.Command(cc, "-o", filepath.Join(dir, name), "testdata/lookup.c").CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cc, err, out)
		}
	}
	const all = "172.18.0.11 172.18.0.12"
	addresses := regexp.MustCompile(`\b(172\.18|192\.0)\.\d+\.\d+\b`)
	for _, c := range []struct{ command, want string }{
		{"getent ahostsv4 www | cut -d' ' -f1", all},
		{"RES_OPTIONS=use-vc getent ahostsv4 www | cut -d' ' -f1", all}, // by TCP
		{"RES_OPTIONS=edns0 getent ahosts web1", "172.18.0.11"},
		{"getent hosts www.example", "192.0.2.80"},
		{"nslookup www | sed 1,3d", all},
		{"nslookup -vc www | sed 1,3d", all},
		{"nslookup www.example | sed 1,3d", "192.0.2.80"},
		{"busybox nslookup www. | sed 1,3d", all}, // without the dot it asks below the search domains only
		{"busybox nslookup www.lab | sed 1,3d", all},
		{"busybox nslookup www.example | sed 1,3d", "192.0.2.80"},
		{dir + "/lookup-glibc www", all},
		{dir + "/lookup-musl www", all},
		{dir + "/lookup-glibc WEB1.Lab", "172.18.0.11"},
		{dir + "/lookup-musl WEB1.Lab", "172.18.0.11"},
		{dir + "/lookup-glibc www.example", "192.0.2.80"},
		{dir + "/lookup-musl www.example", "192.0.2.80"},
		{dir + "/lookup-glibc nobody.example || echo $?", ""},
		{dir + "/lookup-musl nobody.example || echo $?", ""},
	} {
		found := addresses.FindAllString(n.sh("client", c.command), -1)
		slices.Sort(found)
		if got := strings.Join(slices.Compact(found), " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.command, got, c.want)
		}
	}
	for command, want := range map[string]string{
		"getent hosts 172.18.0.11":                      "172.18.0.11     web1.lab\n",
		dir + "/lookup-glibc -r 172.18.0.11":            "web1.lab\n",
		dir + "/lookup-musl -r 172.18.0.11":             "web1.lab\n",
		dir + "/lookup-glibc nobody.example || echo $?": "Name or service not known\n2\n",
		dir + "/lookup-musl nobody.example || echo $?":  "Name does not resolve\n2\n",
	} {
		if got := n.sh("client", command); got != want {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
	if out := n.sh("client", "nslookup 172.18.0.12"); !strings.Contains(out, "name = web2.lab.") {
		t.Errorf("nslookup of an address:\n%s", out)
	}
}

// In the default network names outside are found, and containers' are not, which
// are not asked outside by their addresses either.
func TestS18_DefaultNetwork(t *testing.T) {
	n, r := named(t)
	n.start("plain")
	n.start("other")
	if got, want := n.exec("plain", "cat", "/etc/resolv.conf"), "search corp.example lan.example\nnameserver 172.17.0.1\n"; got != want {
		t.Errorf("resolv.conf is %q, want %q", got, want)
	}
	for args, want := range map[string]string{"www.example": "192.0.2.80", "+tcp www.example": "192.0.2.80", "other": "", "plain": "", "web1": "", "web1.lab": "", "-x 172.17.0.3": "", "-x 172.18.0.11": ""} {
		if got := n.dig("plain", args); got != want {
			t.Errorf("dig %s: %q, want %q", args, got, want)
		}
	}
	if r.asked("other") == 0 {
		t.Error("what is nobody's name is not asked outside")
	}
	if strings.Contains(r.log.String(), "172.17.0.3") || strings.Contains(r.log.String(), "172.18.0.11") {
		t.Errorf("our addresses were asked about outside:\n%s", r.log.String())
	}
	// 127.0.0.11 is not led to the gateway there.
	if r := n.try("exec", "plain", "dig", "@127.0.0.11", "+time=1", "+tries=1", "www.example"); r.code == 0 {
		t.Errorf("127.0.0.11 answers: %v", r)
	}
}

// On an internal network containers find each other, and nothing is asked outside.
func TestS18_InternalNetwork(t *testing.T) {
	n, r := named(t)
	n.run("network", "create", "--internal", "--subnet", "172.19.0.0/16", "inner")
	n.start("monk", "--network", "inner")
	n.start("abbot", "--network", "inner")
	if got := n.dig("monk", "abbot"); got != "172.19.0.3" {
		t.Errorf("abbot is at %q", got)
	}
	before := r.log.String()
	for _, name := range []string{"www.example", "nobody", "web1", "+tcp www.example", "TXT secret.example", "@172.19.0.1 www.example"} {
		if got := n.code("monk", name); got != "SERVFAIL" {
			t.Errorf("dig %s: %s, want SERVFAIL", name, got)
		}
	}
	if r.log.String() != before {
		t.Errorf("asked outside:\n%s", r.log.String())
	}
	// With a second network, that is not internal, it asks outside, and finds both.
	n.run("network", "connect", "lab", "monk")
	for name, want := range map[string]string{"www.example": "192.0.2.80", "abbot": "172.19.0.3", "web1": "172.18.0.11", "monk.inner": "172.19.0.2"} {
		if got := n.dig("monk", name); got != want {
			t.Errorf("dig %s: %q, want %q", name, got, want)
		}
	}
}

// Names follow containers that are connected, disconnected, renamed and stopped, and
// their files do.
func TestS18_Follows(t *testing.T) {
	n, _ := named(t)
	n.start("late")
	hosts := func(container string) string {
		_, own, _ := strings.Cut(n.exec(container, "cat", "/etc/hosts"), "ip6-allrouters\n")
		return own
	}
	id := n.containers()["late"].ID[:12]
	n.sh("late", "echo '192.0.2.7 mine' >>/etc/hosts")
	n.run("network", "connect", "--ip", "172.18.0.20", "--alias", "fresh", "lab", "late")
	if got, want := hosts("late"), "172.17.0.2\t"+id+"\n172.18.0.20\t"+id+"\n192.0.2.7 mine\n"; got != want {
		t.Errorf("connected: hosts are %q, want %q", got, want)
	}
	if got, want := n.exec("late", "cat", "/etc/resolv.conf"), "search corp.example lan.example\nnameserver 127.0.0.11\noptions ndots:0\n"; got != want {
		t.Errorf("connected: resolv.conf is %q, want %q", got, want)
	}
	expect := func(when string, answers map[string]string) {
		t.Helper()
		for question, want := range answers {
			container, args, _ := strings.Cut(question, " ")
			if got := n.dig(container, args); got != want {
				t.Errorf("%s: %s is told %q for %s, want %q", when, container, got, args, want)
			}
		}
	}
	expect("connected", map[string]string{"client late": "172.18.0.20", "client fresh": "172.18.0.20", "late web1": "172.18.0.11", "late www.example": "192.0.2.80"})
	n.run("rename", "late", "later")
	expect("renamed", map[string]string{"client late": "", "client later": "172.18.0.20", "client fresh": "172.18.0.20", "client -x 172.18.0.20": "later.lab."})
	n.run("network", "disconnect", "lab", "later")
	expect("disconnected", map[string]string{"client later": "", "client fresh": "", "client -x 172.18.0.20": "", "later www.example": "192.0.2.80", "later web1": ""})
	if got, want := hosts("later"), "172.17.0.2\t"+id+"\n192.0.2.7 mine\n"; got != want {
		t.Errorf("disconnected: hosts are %q, want %q", got, want)
	}
	n.run("kill", "web1")
	n.gone("web1")
	expect("web1 is gone", map[string]string{"client web1": "", "client www": "172.18.0.12"})
	n.start("web1", "--network", "lab", "--ip", "172.18.0.30", "--network-alias", "www")
	expect("web1 is back", map[string]string{"client web1": "172.18.0.30", "client www": "172.18.0.12 172.18.0.30"})

	// Who shares a namespace asks as it does, also when its first container is gone.
	n.start("sharer", "--network", "container:web2")
	expect("shared", map[string]string{"sharer web1": "172.18.0.30", "sharer web2": "172.18.0.12", "client sharer": ""})
	n.run("kill", "web2")
	n.gone("web2")
	expect("web2 is gone", map[string]string{"sharer web1": "172.18.0.30", "sharer www.example": "192.0.2.80", "sharer web2": "", "client www": "172.18.0.30"})

	// Who has written a nameserver of his own keeps it.
	n.sh("later", "echo nameserver 192.0.2.9 >/etc/resolv.conf")
	n.run("network", "connect", "lab", "later")
	if got := n.exec("later", "cat", "/etc/resolv.conf"); got != "nameserver 192.0.2.9\n" {
		t.Errorf("resolv.conf is %q", got)
	}
}

// A namespace somebody else made has files of its own, and asks the gateway.
func TestS18_ForeignNamespace(t *testing.T) {
	lab.Need(t, "ip")
	n, _ := named(t)
	h := lab.NewHost(t, "foreign")
	sleep := h.Serve(t, "sleep", "1000")
	n.run("network", "connect", "--name", "foreign", "--alias", "stranger", "lab", fmt.Sprintf("pid:%d", sleep.Pid()))
	addr := n.containers()["foreign"].IP
	for name, want := range map[string]string{"web1": "172.18.0.11", "web2.lab": "172.18.0.12", "+tcp www": "172.18.0.11 172.18.0.12", "www.example": "192.0.2.80", "stranger": addr} {
		out := strings.Fields(h.Run(t, "sh", "-c", "dig +time=10 +tries=1 +short @172.18.0.1 "+name))
		slices.Sort(out)
		if got := strings.Join(out, " "); got != want {
			t.Errorf("dig %s: %q, want %q", name, got, want)
		}
	}
	if got := n.dig("client", "stranger.lab"); got != addr {
		t.Errorf("stranger is at %q, want %q", got, addr)
	}
}

// A container that asks as fast as it can, for names nobody outside answers, keeps
// no other from its answers.
func TestS18_NobodyStarves(t *testing.T) {
	n, _ := named(t)
	flood := n.background(append([]string{"exec", "web1"}, play(t, "hurry", "127.0.0.11:53")...)...)
	flood.says("sent 1000")
	for range 20 {
		for name, want := range map[string]string{"web2": "172.18.0.12", "www.example": "192.0.2.80", "+tcp web2": "172.18.0.12"} {
			if got := n.dig("client", name); got != want {
				t.Errorf("dig %s: %q, want %q", name, got, want)
			}
		}
	}
	if n.dropped("web1", "dns-busy") == 0 {
		t.Error("nothing of the flood was dropped; it was none")
	}
	flood.stop()
}

// hurry asks for names as fast as it can, each another one, and hears nothing.
func hurry(args []string) error {
	conn, err := net.Dial("udp", args[0])
	if err != nil {
		return err
	}
	for i := 1; ; i++ {
		b, err := new(dns.Msg).SetQuestion(fmt.Sprintf("x%d.silent.", i), dns.TypeA).Pack()
		if err != nil {
			return err
		}
		_, _ = conn.Write(b) // nobody may be there for a moment
		if i == 1000 {
			fmt.Println("sent 1000")
		}
	}
}

// This machine asks for containers by name, at an address of its loopback, and by
// its own resolver once that was told.
func TestS18_TheMachineAsks(t *testing.T) {
	lab.Need(t, "dnsmasq", "unshare")
	n, _ := named(t, "--names", "on")
	n.start("plain")
	var names api.Names
	n.json(&names, "names")
	if len(names.Names) != 4 || names.Names[1].Name != "plain.default.fairlead.internal" || names.Names[1].Address != "172.17.0.2" {
		t.Errorf("%+v", names)
	}
	addr, port, _ := strings.Cut(names.Server, ":")
	if addr != "127.0.0.17" || port != "53" && port != "1053" {
		t.Fatalf("answered at %q", names.Server)
	}
	ask := func(server, args string) string {
		t.Helper()
		out, err := exec.Command("sh", "-c", "dig +time=10 +tries=1 +short "+server+" "+args).CombinedOutput()
		if err != nil {
			t.Fatalf("dig %s %s: %v\n%s", server, args, err, out)
		}
		list := strings.Fields(string(out))
		slices.Sort(list)
		return strings.Join(list, " ")
	}
	questions := map[string]string{
		"plain.fairlead.internal": "172.17.0.2", "plain.default.fairlead.internal": "172.17.0.2", "web1.lab.fairlead.internal": "172.18.0.11",
		"+tcp www.fairlead.internal": "172.18.0.11 172.18.0.12", "-x 172.18.0.12": "web2.lab.fairlead.internal.", "nobody.fairlead.internal": "",
	}
	for args, want := range questions {
		if got := ask("@"+addr+" -p "+port, args); got != want {
			t.Errorf("dig @%s %s: %q, want %q", names.Server, args, got, want)
		}
	}
	if got := ask("@"+addr+" -p "+port, "web1"); got != "" {
		t.Errorf("web1 without the domain: %q", got)
	}

	// By dnsmasq, with the lines for it.
	conf := filepath.Join(t.TempDir(), "fairlead.conf")
	if err := os.WriteFile(conf, []byte(n.run("names", "--for", "dnsmasq")), 0o644); err != nil {
		t.Fatal(err)
	}
	forwarder := exec.Command("dnsmasq", "--no-daemon", "--user=root", "--conf-file="+conf, "--no-resolv", "--no-hosts", "--bind-interfaces", "--listen-address=127.0.3.2", "--pid-file")
	if err := forwarder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = forwarder.Process.Kill(); _ = forwarder.Wait() })
	lab.Eventually(t, 10*time.Second, func() error {
		return exec.Command("dig", "@127.0.3.2", "+time=1", "+tries=1", "plain.fairlead.internal").Run()
	})
	for args, want := range questions {
		if got := ask("@127.0.3.2", args); got != want {
			t.Errorf("dnsmasq, %s: %q, want %q", args, got, want)
		}
	}
	if got := n.run("names", "--for", "resolved"); !strings.HasPrefix(got, "[Resolve]\nDNS="+names.Server+"\nDomains=~fairlead.internal ~17.172.in-addr.arpa ~18.172.in-addr.arpa\n") {
		t.Errorf("for systemd-resolved: %q", got)
	}
	if port == "53" { // else it cannot be named there
		file := filepath.Join(t.TempDir(), "resolv.conf")
		if err := os.WriteFile(file, []byte(n.run("names", "--for", "resolv.conf")+"nameserver 127.0.3.1\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"web1.lab.fairlead.internal": "172.18.0.11", "www.example": "192.0.2.80"} {
			out, err := exec.Command("unshare", "--mount", "sh", "-ec", `mount -n --bind "$0" /etc/resolv.conf; getent hosts "$1"`, file, name).CombinedOutput()
			if err != nil || !strings.HasPrefix(string(out), want+" ") {
				t.Errorf("getent %s: %v\n%s", name, err, out)
			}
		}
	}
	n.run("up", "--names", "off")
	if out, err := exec.Command("dig", "@"+addr, "-p", port, "+time=1", "+tries=1", "plain.fairlead.internal").CombinedOutput(); err == nil {
		t.Errorf("answered after off:\n%s", out)
	}
	if err := json.Unmarshal([]byte(n.run("names", "--json")), &names); err != nil || names.Server != "" {
		t.Errorf("answered at %q: %v", names.Server, err)
	}
}
