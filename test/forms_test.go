package test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// No form of address leads a container to what listens on the host's loopback: a
// service of another user, or the node's own. Each is tried by TCP and UDP, as a
// program writes it, with the routes there are and with ones that root inside has
// bent.
func TestLoopbackOfTheHostByAnyForm(t *testing.T) {
	o := newHostOutside(t)
	const public = "203.0.113.77" // of the machine's, as a server on the internet has
	o.Machine.Addr(t, "lo", public+"/32")
	o.Machine.Addr(t, "eth0", "fe80::1/64")
	listen := func(addr string) {
		t.Helper()
		o.says(o.Machine.Serve(t, o.bin, "probe", "http-server", "--addr", addr), "serving on")
		o.says(o.Machine.Serve(t, o.bin, "probe", "udp-echo", "--addr", addr), "echoing on")
	}
	listen("127.0.0.1:7070")
	listen("[::1]:7070")
	listen("127.0.0.1:53") // as resolvers of the host do
	listen(":7071")        // for everybody
	o.start("a")

	forms := []string{
		"127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.1.2.3", "127.255.255.255", "127.128.0.0", // the last two stand for others in the node
		"0.0.0.0", "0", "[::]", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]",
		"192.0.0.8", // what stands for a host without an address
		"172.17.0.1", "[::ffff:172.17.0.1]", "172.17.255.255", "172.17.0.0", "255.255.255.255",
		"[fe80::1%eth0]", "[fe80::1%2]", "[fe80::1%lo]", "[fe80::42:acff:fe11:1%eth0]", "[::1%eth0]",
		o.Router.Uplink, public, "[::ffff:" + public + "]",
		"loop.example", "loop6.example", "zero.example", "localhost", // names somebody has chosen
		"host.fairlead.internal", "host.docker.internal",
	}
	everybodys := []string{o.Router.Uplink, public}
	for _, bent := range []bool{false, true} {
		if bent {
			// What is for the loopback leaves the container, as from a program that
			// writes its packets itself.
			o.sh("a", `echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
				ip route del local 127.0.0.0/8 dev lo table local
				ip route del local 127.0.0.1 dev lo table local
				ip route add 127.0.0.0/8 via 172.17.0.1 src 172.17.0.2
				ip -6 route add ::/0 via fe80::42:acff:fe11:1 dev eth0`)
		}
		if got := o.reaches("a", everybodys, 7071, "10"); !slices.Equal(got, []string{"tcp " + everybodys[0], "tcp " + everybodys[1], "udp " + everybodys[0], "udp " + everybodys[1]}) {
			t.Errorf("what is there for everybody is reached by %q", got)
		}
		if got := o.reaches("a", forms, 7070, "0.5"); len(got) > 0 {
			t.Errorf("the host's loopback is reached by %q (bent routes: %v)", got, bent)
		}
	}
	if o.dropped("a", "loopback-address") == 0 {
		t.Errorf("nothing was bent: %s", o.run("show", "drops"))
	}

	// The node's own listener for DNS answers at its port, and not at the one it
	// has: nor is the gateway's port 53 the host's.
	own := 0
	for line := range strings.Lines(o.Machine.Run(t, "ss", "-Hltnp")) {
		fields := strings.Fields(line)
		port, ok := strings.CutPrefix(fields[3], "127.0.0.1:")
		if !ok || !strings.Contains(line, fmt.Sprintf("pid=%d,", o.nodePid())) {
			continue
		}
		own++
		for _, at := range []string{"172.17.0.1:" + port, o.Router.Uplink + ":" + port, "127.0.0.1:" + port} {
			if r := o.try("exec", "a", "curl", "-sS", "--max-time", "2", "http://"+at+"/"); r.code == 0 || r.code == 52 || r.code == 56 {
				t.Errorf("the node's listener is reached by %s: %v", at, r)
			}
		}
	}
	if own != 1 {
		t.Errorf("the node listens on %d ports of the loopback, want 1", own)
	}
	if r := o.try("exec", "a", "curl", "-sS", "--max-time", "2", "http://172.17.0.1:53/"); strings.Contains(r.stdout, "Hello") {
		t.Errorf("a service of the host answers at the gateway's port 53: %v", r)
	}
}

// reaches tries to reach a port by forms of addresses, with so many seconds'
// patience, and returns which lead to an HTTP server and to a UDP echo server.
func (n *node) reaches(container string, forms []string, port int, patience string) (reached []string) {
	n.t.Helper()
	command := []string{"exec", container, "curl", "-sS", "-g", "-Z", "--parallel-immediate", "--parallel-max", "100", "--noproxy", "*", "--max-time", patience,
		"--resolve", fmt.Sprintf("loop.example:%d:127.0.0.1", port), "--resolve", fmt.Sprintf("loop6.example:%d:[::1]", port),
		"--resolve", fmt.Sprintf("zero.example:%d:0.0.0.0", port)}
	for _, form := range forms {
		command = append(command, "-o", "/dev/null", "-w", "%{http_code} %{url_effective}\n", fmt.Sprintf("http://%s:%d/", form, port))
	}
	for line := range strings.Lines(n.try(command...).stdout) {
		if at, ok := strings.CutPrefix(strings.TrimSpace(line), "200 http://"); ok {
			reached = append(reached, "tcp "+strings.TrimSuffix(at, fmt.Sprintf(":%d/", port)))
		}
	}
	command = append([]string{"exec", container}, play(n.t, "echoes", strconv.Itoa(port), patience+"s")...)
	for form := range strings.FieldsSeq(n.run(append(command, forms...)...)) {
		reached = append(reached, "udp "+form)
	}
	slices.Sort(reached)
	return reached
}

// echoes asks a UDP port by forms of addresses, and prints those that answer:
//
//	PORT PATIENCE FORM...
func echoes(args []string) error {
	patience, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	for _, form := range args[2:] {
		_, err := netip.ParseAddr(strings.Trim(form, "[]"))
		if err != nil && !strings.HasPrefix(form, "host.") {
			continue // Go does not know the forms of libc, and nobody the names
		}
		wg.Go(func() {
			conn, err := net.Dial("udp", form+":"+args[0])
			if err != nil {
				return
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			_, _ = conn.Write([]byte("?"))
			if _, err := conn.Read(make([]byte, 100)); err == nil {
				fmt.Println(form)
			}
		})
	}
	wg.Wait()
	return nil
}
