package test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"fairlead/test/lab"
)

// A resolver is a DNS server of the host's, that of another program.
type resolver struct {
	t   *testing.T
	cmd *exec.Cmd
	log transcript
}

// newResolver starts one at port 53 of an address of the loopback. Of example it
// knows www, by an address of the caller's choosing, an alias of that, and texts
// of three sizes. More are options of dnsmasq.
func newResolver(t *testing.T, addr, www string, more ...string) *resolver {
	t.Helper()
	lab.Need(t, "dnsmasq", "dig")
	r := &resolver{t: t, cmd: exec.Command("dnsmasq", append(more, "--no-daemon", "--user=root", "--conf-file=/dev/null",
		"--no-resolv", "--no-hosts", "--bind-interfaces", "--listen-address="+addr, "--log-queries", "--log-facility=-",
		"--local=/example/", "--edns-packet-max=4096", "--host-record=www.example,"+www, "--cname=alias.example,www.example",
		text("short.example", 1), text("middle.example", 5), text("long.example", 20))...)}
	r.cmd.Stderr = &r.log
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.stop)
	lab.Eventually(t, 10*time.Second, func() error {
		return exec.Command("dig", "@"+addr, "+time=1", "+tries=1", "www.example").Run()
	})
	return r
}

func (r *resolver) stop() {
	_ = r.cmd.Process.Kill() // it may have ended
	_ = r.cmd.Wait()
}

// asked counts the queries for a name.
func (r *resolver) asked(name string) int {
	return strings.Count(r.log.String(), "] "+name+" from ")
}

// text is a record of so many strings of 200 bytes.
func text(name string, n int) string {
	return "--txt-record=" + name + strings.Repeat(","+strings.Repeat("x", 200), n)
}

// newNodeWithDNS starts a node that has another /etc/resolv.conf than this
// process, and returns what writes that.
func newNodeWithDNS(t *testing.T, lines string) (n *node, write func(lines string)) {
	t.Helper()
	n = newNodeDir(t)
	file := filepath.Join(filepath.Dir(n.dir), "resolv.conf")
	write = func(lines string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(lines), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(lines)
	cmd := n.command(t.Context(), "up")
	own := exec.Command("unshare", append([]string{"--mount", "sh", "-ec", `mount -n --bind "$0" /etc/resolv.conf; exec "$@"`, file}, cmd.Args...)...)
	own.Env = cmd.Env
	if out, err := own.CombinedOutput(); err != nil {
		t.Fatalf("up: %v\n%s", err, out)
	}
	return n, write
}

// The gateway answers as the host's resolver does, by UDP and TCP, in each size.
func TestDNS(t *testing.T) {
	r := newResolver(t, "127.0.3.1", "192.0.2.80")
	n, _ := newNodeWithDNS(t, "nameserver 127.0.3.1\n")
	n.start("a")
	dig := func(args string) string {
		t.Helper()
		return n.sh("a", "dig +time=10 +tries=1 "+args)
	}
	for args, want := range map[string]string{
		"+short www.example":                              "192.0.2.80\n",
		"+short +tcp www.example":                         "192.0.2.80\n",
		"+short +noedns www.example":                      "192.0.2.80\n",
		"+short alias.example":                            "www.example.\n192.0.2.80\n",
		"+short -x 172.17.0.2":                            "",
		"+short host.docker.internal":                     "",
		"+short +tcp +keepopen www.example alias.example": "192.0.2.80\nwww.example.\n192.0.2.80\n",
	} {
		if got := dig(args); got != want {
			t.Errorf("dig %s: %q, want %q", args, got, want)
		}
	}
	if got := n.sh("a", "getent hosts alias.example"); !strings.HasPrefix(got, "192.0.2.80 ") {
		t.Errorf("getent: %q", got)
	}

	const (
		opt = "OPT PSEUDOSECTION"
		tc  = " tc"
	)
	for _, c := range []struct {
		args, name string
		rcode      string
		truncated  bool
		edns       bool
		tcp        bool
	}{
		{"+noedns +ignore", "short.example", "NOERROR", false, false, false},
		{"+noedns +ignore", "middle.example", "NOERROR", true, false, false},
		{"+noedns", "middle.example", "NOERROR", false, false, true}, // dig goes on by TCP
		{"+bufsize=1232 +ignore", "middle.example", "NOERROR", false, true, false},
		{"+bufsize=512 +ignore", "middle.example", "NOERROR", true, true, false},
		{"+bufsize=4096 +ignore", "long.example", "NOERROR", true, true, false}, // the network's MTU
		{"+bufsize=4096", "long.example", "NOERROR", false, true, true},
		{"+tcp", "long.example", "NOERROR", false, true, true},
		{"+dnssec", "short.example", "NOERROR", false, true, false},
		{"", "nobody.example", "NXDOMAIN", false, true, false},
		{"+tcp", "nobody.example", "NXDOMAIN", false, true, true},
		{"", "host.fairlead.internal", "NXDOMAIN", false, true, false},
		{"-t axfr +noedns", "example", "", false, false, true},
		{"+ednsopt=65001:abcd", "short.example", "NOERROR", false, true, false},
		{"+edns=1 +noednsneg", "short.example", "BADVERS", false, true, false},
		{"+opcode=notify", "short.example", "NOTIMP", false, false, false},
		{"", "elsewhere.test", "REFUSED", false, true, false}, // what a resolver without servers says
	} {
		out := dig(c.args + " TXT " + c.name)
		flags := regexp.MustCompile(`;; flags: ([^;]*);`).FindStringSubmatch(out)
		switch {
		case c.rcode == "":
			if !strings.Contains(out, "Transfer failed") {
				t.Errorf("dig %s %s:\n%s", c.args, c.name, out)
			}
		case flags == nil || !strings.Contains(out, "status: "+c.rcode+",") || strings.Contains(flags[1], tc) != c.truncated ||
			strings.Contains(out, opt) != c.edns || strings.Contains(out, "(TCP)") != c.tcp:
			t.Errorf("dig %s %s:\n%s", c.args, c.name, out)
		}
	}
	for _, name := range []string{"2.0.17.172.in-addr.arpa", "host.docker.internal", "host.fairlead.internal"} {
		if r.asked(name) != 0 {
			t.Errorf("%s was asked outside", name)
		}
	}

	// Whoever finds the node's port on the loopback is not answered.
	ports := regexp.MustCompile(`127\.0\.0\.1:(\d+)`).FindAllStringSubmatch(output(t, "ss", "-Hltn"), -1)
	if len(ports) == 0 {
		t.Error("the node listens nowhere")
	}
	for _, at := range ports {
		if out, err := exec.Command("dig", "@127.0.0.1", "-p", at[1], "+tcp", "+time=10", "+tries=1", "www.example").CombinedOutput(); err == nil || bytes.Contains(out, []byte("192.0.2.80")) {
			t.Errorf("port %s of the host answers:\n%s", at[1], out)
		}
	}
}

// The host's resolvers are followed as they change, and one that is dead does not
// stop the others.
func TestDNSFollowsTheHost(t *testing.T) {
	first := newResolver(t, "127.0.3.1", "192.0.2.1")
	newResolver(t, "127.0.3.2", "192.0.2.2")
	n, write := newNodeWithDNS(t, "nameserver 127.0.3.1\n")
	n.start("a")
	becomes := func(want string) {
		t.Helper()
		lab.Eventually(t, 20*time.Second, func() error {
			if got := n.sh("a", "dig +short +time=10 +tries=1 www.example || true"); got != want+"\n" {
				return fmt.Errorf("answered %q, want %s", got, want)
			}
			return nil
		})
	}
	becomes("192.0.2.1")
	write("nameserver 127.0.3.2\n")
	becomes("192.0.2.2")
	write("nameserver 127.0.3.1\nnameserver 127.0.3.2\n")
	becomes("192.0.2.1")
	first.stop()
	becomes("192.0.2.2")
	write("nameserver 127.0.3.1\n")
	lab.Eventually(t, 20*time.Second, func() error {
		return contains(n.sh("a", "dig +time=10 +tries=1 www.example"), "status: SERVFAIL")
	})
}

// The host's names are those of its loopback while that may be reached; a name in
// a policy opens what is answered for it, and who has no way out asks nobody.
func TestDNSAndPolicies(t *testing.T) {
	r := newResolver(t, "127.0.3.1", "192.0.2.80")
	n, _ := newNodeWithDNS(t, "nameserver 127.0.3.1\n")
	lab.Need(t, "curl")
	port := serveLoopback(t)
	n.start("a")
	fetch := func(host string) result {
		t.Helper()
		return n.try("exec", "a", "curl", "-sS", "--max-time", "10", fmt.Sprintf("http://%s:%d/", host, port))
	}
	const refused, unknown = 7, 6 // of curl
	expect := func(host string, code int) {
		t.Helper()
		if r := fetch(host); r.code != code || code == 0 && r.stdout != "loopback" {
			t.Errorf("%v\nwant exit status %d", r, code)
		}
	}
	expect("host.fairlead.internal", unknown)
	expect("172.17.0.1", refused)
	n.run("network", "set", "default", "--host-loopback")
	expect("host.fairlead.internal", 0)
	expect("host.docker.internal", 0)
	expect("172.17.0.1", 0)

	rules := filepath.Join(filepath.Dir(n.dir), "rules")
	if err := os.WriteFile(rules, fmt.Appendf(nil, "allow host.docker.internal %d/tcp\n", port), 0o644); err != nil {
		t.Fatal(err)
	}
	n.run("network", "set", "default", "--egress", "allow:"+rules)
	expect("172.17.0.1", refused)
	expect("host.fairlead.internal", refused) // not the name that was allowed
	expect("host.docker.internal", 0)
	expect("172.17.0.1", 0)

	before := r.asked("www.example")
	n.run("network", "set", "default", "--egress", "none")
	if out := n.sh("a", "dig +time=10 +tries=1 www.example"); !strings.Contains(out, "status: REFUSED") || r.asked("www.example") != before {
		t.Errorf("a container without a way out asked:\n%s", out)
	}
}

// serveLoopback serves a word by HTTP on the host's loopback and returns the port.
func serveLoopback(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "loopback") })}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return l.Addr().(*net.TCPAddr).Port
}
