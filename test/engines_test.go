package test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"

	"fairlead/test/lab"
)

// A docker is a real dockerd of the test's own: data, socket and control group are
// its own, and where it runs so are network and processes.
type docker struct {
	t    *testing.T
	cmd  *exec.Cmd
	sock string
}

// newDocker starts one, and makes the image busybox, of one file.
func newDocker(t *testing.T) *docker {
	t.Helper()
	group := lab.NeedEngine(t, "dockerd", "docker", "iptables", "nsenter")
	dir, err := os.MkdirTemp("/run", "docker")
	if err != nil {
		t.Fatal(err)
	}
	d := &docker{t: t, sock: "unix://" + dir + "/sock"}
	d.cmd = exec.Command("dockerd", "--data-root", dir+"/data", "--exec-root", dir+"/exec", "--pidfile", dir+"/pid", "--host", d.sock,
		"--storage-driver", "vfs", "--cgroup-parent", group, "--log-level", "warn")
	var log transcript
	d.cmd.Stdout, d.cmd.Stderr = &log, &log
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.end()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	lab.Eventually(t, 60*time.Second, func() error {
		if out, err := d.command("version").CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	var image bytes.Buffer
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(&image)
	if err := w.WriteHeader(&tar.Header{Name: "bin/busybox", Mode: 0o755, Size: int64(len(program))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(program); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	load := d.command("import", "-", "busybox")
	load.Stdin = &image
	if out, err := load.CombinedOutput(); err != nil {
		t.Fatalf("docker import: %v\n%s", err, out)
	}
	return d
}

// end ends it, and takes away the bridge it leaves.
func (d *docker) end() {
	_ = d.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	_ = d.cmd.Wait()
	if bridge, err := netlink.LinkByName("docker0"); err == nil {
		_ = netlink.LinkDel(bridge)
	}
}

func (d *docker) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	d.t.Cleanup(cancel)
	return exec.CommandContext(ctx, "docker", append([]string{"--host", d.sock}, args...)...)
}

func (d *docker) run(args ...string) string {
	d.t.Helper()
	var complaints bytes.Buffer
	cmd := d.command(args...)
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		d.t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, complaints.String())
	}
	return string(out)
}

// An engine runs containers, whoever it is. The words are Docker's for both.
type engine interface {
	run(args ...string) string
}

// A villager is a container of the comparison: its name, its networks and its
// address on each, and further options.
type villager struct {
	name    string
	on      []string // NETWORK or NETWORK=ADDRESS; the second is connected later
	options []string
}

// The same village for every engine.
var (
	villageNetworks = [][]string{
		{"--subnet", "172.30.0.0/24", "green"},
		{"--subnet", "172.30.1.0/24", "Market.Place"},
		{"--subnet", "172.30.2.0/24", "--internal", "abbey"},
	}
	village = []villager{
		{"web1", []string{"green=172.30.0.11"}, []string{"--network-alias", "www", "--network-alias", "Shop.Front", "--hostname", "Counter"}},
		{"Web2", []string{"green=172.30.0.12"}, []string{"--network-alias", "www"}},
		{"a.b", []string{"green=172.30.0.13"}, nil},
		{"both", []string{"green=172.30.0.14", "Market.Place=172.30.1.14"}, nil},
		{"stall", []string{"Market.Place=172.30.1.11"}, []string{"--network-alias", "web1"}},
		{"monk", []string{"abbey=172.30.2.11"}, nil},
		{"asker", []string{"green=172.30.0.15"}, []string{"--link", "web1:linked", "--link", "Web2"}},
		{"plain", []string{""}, nil},
		{"other", []string{""}, nil},
	}
)

// settle makes the village with an engine, and returns each container's id and
// process. image is what stands before the command.
func settle(t *testing.T, e engine, image ...string) (ids map[string]string, pids map[string]string) {
	t.Helper()
	for _, n := range villageNetworks {
		e.run(append([]string{"network", "create"}, n...)...)
	}
	ids, pids = map[string]string{}, map[string]string{}
	for _, v := range village {
		args := append([]string{"run", "-d", "--name", v.name}, v.options...)
		if network, addr, ok := strings.Cut(v.on[0], "="); ok {
			args = append(args, "--network", network, "--ip", addr)
		}
		ids[v.name] = strings.TrimSpace(e.run(append(append(args, image...), "sleep", "1000")...))
		for _, on := range v.on[1:] {
			network, addr, _ := strings.Cut(on, "=")
			e.run("network", "connect", "--ip", addr, network, v.name)
		}
		pids[v.name] = strings.TrimSpace(e.run("inspect", "--format", "{{.State.Pid}}", v.name))
	}
	return ids, pids
}

// leave takes the village away.
func leave(e engine) {
	for _, v := range village {
		e.run("stop", "-t", "0", v.name)
	}
	for _, n := range villageNetworks {
		e.run("network", "rm", n[len(n)-1])
	}
}

// askedOutside begins an answer for which the resolver of the machine was asked.
const askedOutside = "asked outside: "

// A differing is what we answer other than Docker does, on purpose: every such
// question is of one of these kinds, and docs/docker.md says why.
type differing struct{ kind, docker, ours string }

var differings = []differing{
	{"another type of record, of a container's name", askedOutside + "NXDOMAIN", "NOERROR"},
	{"a network's name in another case", askedOutside + "NXDOMAIN", "NOERROR 172.30.1.11 600s"},
	{"an address of a network of ours that the container is not on, or that nobody has", askedOutside + "NXDOMAIN", "NXDOMAIN"},
	{"a name outside, from an internal network", askedOutside + "NOERROR 192.0.2.80 77s", "SERVFAIL"},
	{"a name nobody has, from an internal network", askedOutside + "NXDOMAIN", "SERVFAIL"},
	{"a container's name below fairlead.internal", askedOutside + "NXDOMAIN", "NOERROR 172.30.0.11 600s"},
	{"a name nobody has below fairlead.internal", askedOutside + "NXDOMAIN", "NXDOMAIN"},
	{"host.docker.internal, while the host's loopback is closed", askedOutside + "NXDOMAIN", "NXDOMAIN"},
}

// asked is a question of one of the villagers. ID stands for web1's short id. kind
// is that of the difference; empty is none.
type asked struct {
	by, name, qtype string
	kind            string
}

func villageQuestions() (list []asked) {
	add := func(by, kind string, qtypes string, names ...string) {
		for _, name := range names {
			for qtype := range strings.FieldsSeq(qtypes) {
				list = append(list, asked{by, name, qtype, kind})
			}
		}
	}
	// What a container is called, in any case, with its network or without.
	add("asker", "", "A AAAA MX", "web1", "WEB1", "web1.green", "www", "www.green", "shop.front", "shop.front.green", "ID", "ID.green",
		"web2", "a.b", "a.b.green", "both", "both.green", "asker", "asker.green", "linked", "linked.green")
	// Names of networks it is not on, or of nobody.
	add("asker", "", "A AAAA MX TXT SRV", "stall", "stall.market.place", "web1.market.place", "monk", "plain", "nobody", "nobody.green", "green",
		"b", "b.green", "web1.web1", "_http._tcp.web1", "www.example", "text.example", "gone.example", "deep.www.example")
	add("asker", differings[0].kind, "TXT SRV HTTPS CAA NS SOA CNAME", "web1", "web1.green", "linked")
	add("asker", "", "A", "counter", "COUNTER", "counter.green")
	add("asker", "a container's name below fairlead.internal", "A", "web1.fairlead.internal", "web1.green.fairlead.internal")
	add("asker", "a name nobody has below fairlead.internal", "A", "nobody.fairlead.internal", "stall.market.place.fairlead.internal")
	add("asker", "host.docker.internal, while the host's loopback is closed", "A", "host.docker.internal")
	// Addresses.
	add("asker", "", "PTR", "11.0.30.172.in-addr.arpa", "12.0.30.172.in-addr.arpa", "13.0.30.172.in-addr.arpa", "15.0.30.172.in-addr.arpa", "80.2.0.192.in-addr.arpa",
		"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa")
	add("asker", differings[2].kind, "PTR", "1.0.30.172.in-addr.arpa", "99.0.30.172.in-addr.arpa", "0.30.172.in-addr.arpa", "11.1.30.172.in-addr.arpa")
	// Of two networks.
	add("both", "", "A", "web1", "web1.green", "WEB1.Market.Place", "stall", "both", "both.green", "www", "monk", "linked", "www.example")
	add("both", "a network's name in another case", "A", "web1.market.place", "stall.MARKET.place")
	add("both", "", "PTR", "14.0.30.172.in-addr.arpa", "14.1.30.172.in-addr.arpa", "11.1.30.172.in-addr.arpa")
	// Of the internal one.
	add("monk", "a name outside, from an internal network", "A", "www.example")
	add("monk", "a name nobody has, from an internal network", "A AAAA TXT", "web1", "nobody")
	add("monk", "", "A AAAA MX", "monk", "monk.abbey")
	// Of the default one.
	add("plain", "", "A AAAA TXT", "other", "plain", "other.bridge", "web1", "www.example", "text.example", "gone.example")
	add("plain", differings[2].kind, "PTR", "3.0.17.172.in-addr.arpa")
	return list
}

// The same village, the same questions, by the same dig, to Docker's resolver and
// to ours: answers, codes and TTL are the same, and so is who is asked outside,
// but for what docs/docker.md lists.
func TestEngineDockerNames(t *testing.T) {
	lab.NeedEngine(t, "dig", "nsenter")
	resolver := outsideNames(t, "192.0.2.53")

	d := newDocker(t)
	t.Log("dockerd " + strings.TrimSpace(d.run("version", "--format", "{{.Server.Version}}")))
	theirs := answersOf(t, d, resolver, "busybox", "/bin/busybox")
	leave(d)
	d.end() // its address is the one of our default network

	n := newNode(t)
	ours := answersOf(t, n, resolver, "--")
	leave(n)

	met := map[string]bool{}
	for _, q := range villageQuestions() {
		theirs, ours := theirs[q], ours[q]
		i := slices.IndexFunc(differings, func(d differing) bool { return d.kind == q.kind })
		switch {
		case q.kind == "" && theirs != ours:
			t.Errorf("%s asks for %s %s: Docker says %q, we %q", q.by, q.name, q.qtype, theirs, ours)
		case q.kind != "" && i < 0:
			t.Errorf("what kind is %q?", q.kind)
		case q.kind != "" && (theirs != differings[i].docker || ours != differings[i].ours):
			t.Errorf("%s asks for %s %s, %s: Docker says %q and not %q, or we %q and not %q",
				q.by, q.name, q.qtype, q.kind, theirs, differings[i].docker, ours, differings[i].ours)
		}
		met[q.kind] = true
	}
	for _, d := range differings {
		if !met[d.kind] {
			t.Errorf("nobody asks for %s", d.kind)
		}
	}
}

// outsideNames is a resolver at an address of this machine, which programs here ask.
// It returns how often it was asked.
func outsideNames(t *testing.T, addr string) *atomic.Int64 {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(addr), Mask: net.CIDRMask(32, 32)}})
	}
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("search village.example\nnameserver "+addr+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount(file, "/etc/resolv.conf", "", syscall.MS_BIND, ""); err != nil { // the room's
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount("/etc/resolv.conf", syscall.MNT_DETACH) })
	zone := map[string]string{
		"www.example. A": "192.0.2.80", "text.example. TXT": "hello",
		"80.2.0.192.in-addr.arpa. PTR": "www.example.",
	}
	names := map[string]bool{}
	for k := range zone {
		name, _, _ := strings.Cut(k, " ")
		names[name] = true
	}
	var asked atomic.Int64
	answer := dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) {
		asked.Add(1)
		q := m.Question[0]
		r := new(dns.Msg).SetReply(m)
		name, qtype := strings.ToLower(q.Name), dns.TypeToString[q.Qtype]
		if data, ok := zone[name+" "+qtype]; ok {
			rr, err := dns.NewRR(q.Name + " 77 IN " + qtype + " " + data)
			if err != nil {
				t.Error(err)
			}
			r.Answer = append(r.Answer, rr)
		} else if !names[name] {
			r.Rcode = dns.RcodeNameError
		}
		_ = w.WriteMsg(r)
	})
	for _, network := range []string{"udp", "tcp"} {
		started := make(chan struct{})
		s := &dns.Server{Addr: addr + ":53", Net: network, Handler: answer, NotifyStartedFunc: func() { close(started) }}
		ended := make(chan error, 1)
		go func() { ended <- s.ListenAndServe() }()
		select {
		case <-started:
		case err := <-ended:
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return &asked
}

// answersOf settles the village with an engine and has it ask.
func answersOf(t *testing.T, e engine, resolver *atomic.Int64, image ...string) map[asked]string {
	t.Helper()
	ids, pids := settle(t, e, image...)
	answers := map[asked]string{}
	for _, q := range villageQuestions() {
		name := strings.Replace(q.name, "ID", ids["web1"][:12], 1)
		before := resolver.Load()
		answers[q] = digInside(t, pids[q.by], nameserverInside(t, pids[q.by]), name, q.qtype)
		if resolver.Load() != before {
			answers[q] = askedOutside + answers[q]
		}
	}
	return answers
}

// nameserverInside is the first nameserver a container's resolv.conf names.
func nameserverInside(t *testing.T, pid string) string {
	t.Helper()
	text, err := os.ReadFile("/proc/" + pid + "/root/etc/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "nameserver" {
			return f[1]
		}
	}
	t.Fatalf("no nameserver in %q", text)
	return ""
}

// digInside asks from the network namespace of a process: the code, what the
// answer says in the order of the alphabet, and its TTL.
func digInside(t *testing.T, pid, server, name, qtype string) string {
	t.Helper()
	out, err := exec.Command("nsenter", "--net=/proc/"+pid+"/ns/net", "dig", "@"+server, "+time=5", "+tries=3", "+noall", "+comments", "+answer",
		name, qtype).CombinedOutput()
	if err != nil {
		inside, _ := exec.Command("nsenter", "--net=/proc/"+pid+"/ns/net", "sh", "-c", "ip route show table all; ip neigh; ip -s link").CombinedOutput()
		t.Fatalf("dig @%s %s %s: %v\n%s\n%s", server, name, qtype, err, out, inside)
	}
	var code string
	var said []string
	for line := range strings.Lines(string(out)) {
		if _, rest, ok := strings.Cut(line, "status: "); ok {
			code, _, _ = strings.Cut(rest, ",")
		}
		if f := strings.Fields(line); len(f) > 4 && !strings.HasPrefix(line, ";") {
			said = append(said, strings.Join(f[4:], " ")+" "+f[1]+"s")
		}
	}
	slices.Sort(said)
	return strings.Join(append([]string{code}, said...), " ")
}
