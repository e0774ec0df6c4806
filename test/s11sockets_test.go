package test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// A published port is a listener of the machine's, reached by all its addresses
// and in both families. The container sees the client's own address and port; it
// sees its gateway's where its answer would not come back otherwise, and `show
// flows` says why. Never is it an address of the loopback.
func TestS11_WhoTheContainerSees(t *testing.T) {
	o := newHostOutside(t)
	const gateway, near6, machine6 = "172.17.0.1", "2001:db8::1", "2001:db8::2"
	o.Router.Host.Addr(t, "up0", near6+"/64")
	o.Machine.Addr(t, "eth0", machine6+"/64")
	// Somebody out there has an address that is the container's neighbour's, too.
	const neighbour = "172.17.0.200"
	o.Router.Host.Addr(t, "lo", neighbour+"/32")
	o.start("web", append([]string{"-p", "8080:80", "-p", "5353:53/udp", "--", "sh", "-c", `fairlead probe http-server & exec "$@"`, "sh"}, play(t, "who", "web", ":53")...)...)
	o.logSays("web", "serving on")
	o.logSays("web", "answering")
	o.Machine.Run(t, "ip", "route", "add", neighbour, "via", o.Router.Addr)

	listeners := o.Machine.Run(t, "ss", "-Hlntup", "sport = :8080 or sport = :5353")
	pid := fmt.Sprintf("pid=%d,", o.nodePid())
	for _, want := range []string{`tcp .* 0\.0\.0\.0:8080 .*` + pid, `tcp .* \[::\]:8080 .*` + pid, `udp .* 0\.0\.0\.0:5353 .*` + pid, `udp .* \[::\]:5353 .*` + pid} {
		if !regexp.MustCompile(want).MatchString(listeners) {
			t.Errorf("ss -lntup has no %q:\n%s", want, listeners)
		}
	}

	port := 30000
	for _, c := range []struct {
		from         *lab.Host
		own, to      string
		seen, hidden string
	}{
		{o.Host, o.Router.FarHost, o.Router.Uplink, o.Router.FarHost, ""},
		{o.Router.Host, o.Router.Addr, o.Router.Uplink, o.Router.Addr, ""},
		{o.Machine, o.Router.Uplink, o.Router.Uplink, o.Router.Uplink, ""},
		{o.Machine, "127.0.0.1", "127.0.0.1", gateway, "loopback"},
		{o.Machine, "127.0.0.5", "127.0.0.9", gateway, "loopback"},
		{o.Router.Host, neighbour, o.Router.Uplink, gateway, "in-subnet"},
		{o.Router.Host, near6, machine6, gateway, "other-family"},
		{o.Machine, machine6, machine6, gateway, "other-family"},
		{o.Machine, "::1", "::1", gateway, "other-family"},
	} {
		port++
		from, name := strconv.Itoa(port), fmt.Sprintf("%s from %s to %s", c.from.Name, c.own, c.to)
		page := c.from.Run(t, "curl", "-sS", "--max-time", "10", "--interface", c.own, "--local-port", from, "http://"+net.JoinHostPort(c.to, "8080")+"/")
		greeted(t, page, c.seen)
		command := play(t, "ask", net.JoinHostPort(c.own, from), net.JoinHostPort(c.to, "5353"), "2")
		answer := c.from.Run(t, command[0], command[1:]...)
		who := " web:" + c.seen + ":"
		if strings.Count(" "+answer, who) != 2 {
			t.Errorf("%s: the answers are %q, want%s", name, answer, who)
		}
		if c.hidden == "" {
			if err := errors.Join(contains(page, c.seen+":"+from), contains(answer, c.seen+":"+from)); err != nil {
				t.Errorf("%s: not the client's own port: %v", name, err)
			}
		}
		flows := o.flows()
		i := slices.IndexFunc(flows, func(f api.Flow) bool { return f.Proto == "udp" && int(f.Original.SourcePort) == port })
		if c.own == machine6 || c.own == near6 || c.own == "::1" { // shown by a stand-in, whose port is another
			i = slices.IndexFunc(flows, func(f api.Flow) bool { return f.Proto == "udp" && f.Hidden == c.hidden })
		}
		if i < 0 || flows[i].Hidden != c.hidden || flows[i].Kind != "publish" {
			t.Errorf("%s: no flow says %q: %+v", name, c.hidden, flows)
		}
	}
	o.noConnections()
}

// A client that speaks from one port to two published ports of the same port of a
// container is seen with another port the second time: else it would be one
// connection.
func TestS11_PortTaken(t *testing.T) {
	o := newHostOutside(t)
	o.start("web", append([]string{"-p", "5353:53/udp", "-p", "5354:53/udp", "-p", "8080:80", "-p", "8081:80", "--",
		"sh", "-c", `fairlead probe http-server & exec "$@"`, "sh"}, play(t, "who", "web", ":53")...)...)
	o.logSays("web", "serving on")
	o.logSays("web", "answering")
	command := play(t, "twice", "30000", o.reach, "5353", "5354", "8080", "8081")
	seen := strings.Fields(o.Host.Run(t, command[0], command[1:]...))
	if len(seen) != 4 {
		t.Fatalf("twice says %q", seen)
	}
	own := o.Router.FarHost + ":30000"
	for _, pair := range [][]string{seen[:2], seen[2:]} {
		for i, at := range pair {
			if !strings.HasPrefix(at, o.Router.FarHost+":") || (at == own) != (i == 0) {
				t.Errorf("the container has seen %q, want %s first, and then another port", pair, own)
			}
		}
	}
	hidden := func(proto string) (why []string) {
		for _, f := range o.flows() {
			if f.Proto == proto {
				why = append(why, f.Hidden)
			}
		}
		slices.Sort(why)
		return why
	}
	if why := hidden("udp"); !slices.Equal(why, []string{"", "port-taken"}) {
		t.Errorf("show flows says %q", why)
	}
}

// twice asks two UDP servers of the kind of who and two of probe http-server, each
// pair from the same port, and prints as whom they have seen it:
//
//	PORT ADDRESS UDPPORT UDPPORT TCPPORT TCPPORT
func twice(args []string) error {
	port, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{Port: port})
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, to := range args[2:4] {
		at, err := net.ResolveUDPAddr("udp4", net.JoinHostPort(args[1], to))
		if err != nil {
			return err
		}
		if _, err := conn.WriteTo([]byte("?"), at); err != nil {
			return err
		}
		b := make([]byte, 100)
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		n, from, err := conn.ReadFrom(b)
		if err != nil || from.String() != at.String() {
			return fmt.Errorf("%v answers for %v: %w", from, at, err)
		}
		_, seen, _ := strings.Cut(string(b[:n]), ":")
		fmt.Println(seen)
	}
	again := func(_, _ string, raw syscall.RawConn) (err error) {
		return errors.Join(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) }), err)
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{Port: port}, Control: again, Timeout: 10 * time.Second}
	var conns []net.Conn
	for _, to := range args[4:] {
		c, err := d.Dial("tcp4", net.JoinHostPort(args[1], to))
		if err != nil {
			return err
		}
		defer c.Close()
		conns = append(conns, c)
	}
	for _, c := range conns {
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		fmt.Fprint(c, "GET / HTTP/1.0\r\n\r\n")
		page, err := io.ReadAll(c)
		_, after, ok := strings.Cut(string(page), "Hello ")
		seen, _, _ := strings.Cut(after, ",")
		if err != nil || !ok {
			return fmt.Errorf("%q, %w", page, err)
		}
		fmt.Println(seen)
	}
	return nil
}

// The addresses of each family are published one by one, too.
func TestS11_EachFamily(t *testing.T) {
	o := newHostOutside(t)
	o.serve("web", "-p", "0.0.0.0:8080:80", "-p", "[::]:8080:80")
	for _, url := range []string{"http://127.0.0.1:8080/", "http://[::1]:8080/"} {
		greeted(t, curl(t, o.Machine, url), "172.17.0.1")
	}
	o.run("unpublish", "web", "[::]:8080:80")
	greeted(t, curl(t, o.Machine, "http://127.0.0.1:8080/"), "172.17.0.1")
	refused(t, o.Machine, "http://[::1]:8080/")
	// Another container may have the other family.
	o.serve("web6", "-p", "[::]:8080:80")
	for url, name := range map[string]string{"http://127.0.0.1:8080/": "172.17.0.2:80", "http://[::1]:8080/": "172.17.0.3:80"} {
		if page := curl(t, o.Machine, url); !strings.Contains(page, name) {
			t.Errorf("%s answers %q, want %s", url, page, name)
		}
	}
}
