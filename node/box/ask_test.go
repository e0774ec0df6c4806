package box

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/test/lab"
)

// patience is for whatever is expected to happen.
const patience = 10 * time.Second

// further is one more interface of a container.
func further(name, address string) *Interface {
	p := netip.MustParsePrefix(address)
	return &Interface{Name: name, MAC: packet.MACFromIPv4(p.Addr()), MTU: 1400, Addresses: []netip.Prefix{p}}
}

// link asks for an interface and takes the node's part.
func (r *running) link(i *Interface) (*Link, queue) {
	r.t.Helper()
	l, err := RequestLink(r.node, i, patience)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(l.Close)
	for _, w := range l.Warnings {
		r.t.Errorf("warning: %s", w)
	}
	q := r.adopt(i, l.FD)
	l.Take()
	r.t.Cleanup(func() { q.Close() })
	raise(r.t, q)
	if err := l.Await(patience); err != nil {
		r.t.Fatal(err)
	}
	return l, q
}

// inside runs a script in the container and returns what it says.
func (r *running) inside(script string) string {
	r.t.Helper()
	x := execute(r.t, r, &Exec{Args: sh(script)})
	x.wait(0)
	return x.out.String()
}

// A running container gets a second interface, with a route, and the default
// route moves; the interface goes again, and the first has not noticed.
func TestS21_FurtherInterface(t *testing.T) {
	lab.NoLeaks(t)
	lab.Need(t, "ip")
	r := start(t, own("sleep", "1000"))
	before := r.inside("ip link show eth0; ip addr show eth0")
	for _, plain := range []bool{false, true} {
		i := further("eth1", "172.18.0.2/16")
		i.Plain = plain
		i.Routes = []Route{
			{To: netip.MustParsePrefix("10.1.0.0/16"), Via: netip.MustParseAddr("172.18.0.9")},
			{To: netip.MustParsePrefix("10.2.0.0/16")},
		}
		l, q := r.link(i)
		out := r.inside("ip -o addr show eth1; ip -o link show eth1; ip route; cat /proc/sys/net/ipv6/conf/eth1/accept_ra")
		for _, want := range []string{
			fmt.Sprintf("%d: eth1 ", l.Index), "inet 172.18.0.2/16 brd 172.18.255.255 scope global eth1", "inet6 fe80::42:acff:fe12:2/64 scope link",
			"<BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1400", "link/ether 02:42:ac:12:00:02",
			"default via 172.17.0.1 dev eth0 \n", "10.1.0.0/16 via 172.18.0.9 dev eth1 \n", "10.2.0.0/16 dev eth1 scope link \n",
			"172.18.0.0/16 dev eth1 proto kernel scope link src 172.18.0.2 \n0\n",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in:\n%s", want, out)
			}
		}
		if l.PeerNetNS != -1 {
			t.Errorf("a TAP whose other end is in namespace %d", l.PeerNetNS)
		}
		via := netip.MustParseAddr("172.18.0.1")
		for range 2 { // again is as good
			if err := RequestDefaultRoute(r.node, DefaultRoute{Via: via, Index: l.Index}, patience); err != nil {
				t.Error(err)
			}
			if out := r.inside("ip route show default"); out != "default via 172.18.0.1 dev eth1 \n" {
				t.Errorf("default routes:\n%s", out)
			}
		}
		if _, err := RequestLink(r.node, i, patience); err == nil || err.Error() != "make interface eth1: there is an interface eth1 already: name this one by --ifname" {
			t.Errorf("a second eth1: %v", err)
		}
		for range 2 {
			if err := RequestDefaultRoute(r.node, DefaultRoute{}, patience); err != nil {
				t.Error(err)
			}
			if out := r.inside("ip route show default"); out != "" {
				t.Errorf("default routes:\n%s", out)
			}
		}
		if err := RequestDefaultRoute(r.node, DefaultRoute{Via: netip.MustParseAddr("172.17.0.1"), Index: r.Index}, patience); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := RequestUnlink(r.node, l.Index, patience); err != nil {
				t.Error(err)
			}
		}
		if out := r.inside("echo /sys/class/net/*; ip route"); !strings.HasPrefix(out, "/sys/class/net/eth0 /sys/class/net/lo\ndefault via 172.17.0.1 dev eth0 \n") || strings.Contains(out, "172.18") {
			t.Errorf("after it went:\n%s", out)
		}
		q.Close()
	}
	if now := r.inside("ip link show eth0; ip addr show eth0"); now != before {
		t.Errorf("eth0 was:\n%s\nand is:\n%s", before, now)
	}
}

// What is asked for before the command starts is there when it does; a default
// route with a metric is the container's own affair.
func TestLinkBeforeStart(t *testing.T) {
	lab.NoLeaks(t)
	lab.Need(t, "ip")
	r := create(t, own(sh("echo /sys/class/net/*; ip route add default via 172.17.0.7 metric 50; ip route show default; echo ready; exec sleep 1000")...))
	l, _ := r.link(further("eth1", "172.18.0.2/16"))
	_, _ = r.link(further("eth2", "172.19.0.2/16"))
	if err := RequestDefaultRoute(r.node, DefaultRoute{Via: netip.MustParseAddr("172.18.0.1"), Index: l.Index}, patience); err != nil {
		t.Error(err)
	}
	if err := r.Started(); err != nil {
		t.Fatal(err)
	}
	r.until("ready")
	if want := "/sys/class/net/eth0 /sys/class/net/eth1 /sys/class/net/eth2 /sys/class/net/lo\n" +
		"default via 172.18.0.1 dev eth1 \ndefault via 172.17.0.7 dev eth0 metric 50 \nready\n"; r.out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", r.out.String(), want)
	}
	if err := RequestDefaultRoute(r.node, DefaultRoute{}, patience); err != nil {
		t.Error(err)
	}
	via := DefaultRoute{Via: netip.MustParseAddr("172.18.0.1"), Index: l.Index, Missing: true}
	for _, c := range []struct{ before, want string }{
		{"", "default via 172.17.0.7 dev eth0 metric 50 \n"},
		{"ip route del default", "default via 172.18.0.1 dev eth1 \n"},
		{"ip route replace default via 172.19.0.1", "default via 172.19.0.1 dev eth2 \n"},
	} {
		_ = r.inside(c.before)
		if err := RequestDefaultRoute(r.node, via, patience); err != nil {
			t.Error(err)
		}
		if out := r.inside("ip route show default"); out != c.want {
			t.Errorf("after %q:\n%s", c.before, out)
		}
	}
}

// A container that shares another's namespace serves it, too, when that one has
// gone; one that has the caller's makes nothing there.
func TestLinkOfOthers(t *testing.T) {
	lab.NoLeaks(t)
	lab.Need(t, "ip")
	x := start(t, own("sleep", "1000"))
	spec := none("sleep", "1000")
	spec.Network, spec.SharePID = NetworkShared, x.PID
	y := start(t, spec)
	x.stop()
	l, _ := y.link(further("eth1", "172.18.0.2/16"))
	if out := y.inside("ip -4 -o addr show eth1"); !strings.Contains(out, "172.18.0.2/16") {
		t.Errorf("got %q", out)
	}
	if err := RequestUnlink(y.node, l.Index, patience); err != nil {
		t.Error(err)
	}

	spec = none("sleep", "1000")
	spec.Network, spec.Hostname = NetworkHost, ""
	host := start(t, spec)
	const want = "the network namespace is not the container's own"
	if _, err := RequestLink(host.node, further("eth1", "172.18.0.2/16"), patience); err == nil || err.Error() != "make interface eth1: "+want {
		t.Errorf("an interface for the host: %v", err)
	}
	if err := RequestUnlink(host.node, 1, patience); err == nil || err.Error() != "remove interface 1: "+want {
		t.Errorf("the host's interface: %v", err)
	}
	if err := RequestDefaultRoute(host.node, DefaultRoute{}, patience); err == nil || err.Error() != "set the default route: "+want {
		t.Errorf("the host's default route: %v", err)
	}
}

// What cannot work says so and leaves nothing behind.
func TestLinkErrors(t *testing.T) {
	lab.NoLeaks(t)
	r := start(t, own("sleep", "1000"))
	for _, c := range []struct {
		change func(i *Interface)
		want   string
	}{
		{func(i *Interface) { i.Name = "a/b" }, `"a/b" is no name for an interface (1 to 15 characters, no / : or space)`},
		{func(i *Interface) { i.Routes = []Route{{To: netip.MustParsePrefix("10.1.2.3/16")}} },
			"interface eth1: route to 10.1.2.3/16: that is no network, such as 10.1.0.0/16"},
		{func(i *Interface) {
			i.Routes = []Route{{To: netip.MustParsePrefix("10.1.0.0/16"), Via: netip.MustParseAddr("192.0.2.1")}}
		}, "interface eth1: route to 10.1.0.0/16: router 192.0.2.1 is in none of its subnets [172.18.0.2/16]"},
		{func(i *Interface) { i.Resolver = netip.MustParseAddr("192.0.2.1") },
			"interface eth1: resolver 192.0.2.1 is in none of its subnets [172.18.0.2/16]"},
		// 172.17.0.0/16 is on eth0 already.
		{func(i *Interface) { i.Routes = []Route{{To: netip.MustParsePrefix("172.17.0.0/16")}} },
			"make interface eth1: interface eth1: add route to 172.17.0.0/16: file exists"},
	} {
		i := further("eth1", "172.18.0.2/16")
		c.change(i)
		if _, err := RequestLink(r.node, i, patience); err == nil || err.Error() != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
		if out := r.inside("echo /sys/class/net/*"); out != "/sys/class/net/eth0 /sys/class/net/lo\n" {
			t.Errorf("left behind: %s", out)
		}
	}
	if err := RequestUnlink(r.node, 1, patience); err == nil {
		t.Error("lo went")
	}
	for _, d := range []DefaultRoute{{Via: netip.MustParseAddr("fe80::1"), Index: 2}, {Via: netip.MustParseAddr("172.17.0.1")}} {
		if err := RequestDefaultRoute(r.node, d, patience); err == nil || !strings.Contains(err.Error(), "it takes an IPv4 address and an interface") {
			t.Errorf("%v: %v", d, err)
		}
	}
	// A node that takes the interface and never reads it.
	l, err := RequestLink(r.node, further("eth1", "172.18.0.2/16"), patience)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Await(time.Millisecond); err == nil || err.Error() != "the container's init does not answer" {
		t.Errorf("no carrier: %v", err)
	}
	l.Close() // and the interface goes
	lab.Eventually(t, patience, func() error {
		if out := r.inside("echo /sys/class/net/*"); out != "/sys/class/net/eth0 /sys/class/net/lo\n" {
			return errors.New(out)
		}
		return nil
	})
	r.stop()
	if _, err := RequestLink(r.node, further("eth1", "172.18.0.2/16"), patience); err == nil {
		t.Error("a container that has ended made an interface")
	}
}

// An init may be anybody's by now: whatever it answers, the node waits no longer
// than it wanted to, takes nothing that is no link, and leaks nothing.
func TestHostileInit(t *testing.T) {
	lab.NoLeaks(t)
	init, node := channels(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer closeAll(pipe[:])
	packets, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(packets)
	unrelated, _ := channels(t)
	ready, done := &Message{Ready: &Ready{Index: 2}}, &Message{Done: true}
	for _, c := range []struct {
		name   string
		answer *Message
		fds    []int
		link   string // what comes of a request for an interface, empty: a Link
		done   string // and of any other
	}{
		{"a packet socket", ready, []int{packets}, "", "answers something else"},
		{"another socket", ready, []int{int(unrelated.file.Fd())}, "answers something else", "answers something else"},
		{"no descriptor", ready, nil, "answers something else", "answers something else"},
		{"a pipe", ready, pipe[:1], "answers something else", "answers something else"},
		{"another device", ready, []int{int(null.Fd())}, "answers something else", "answers something else"},
		{"too many", ready, []int{packets, packets}, "answers something else", "answers something else"},
		{"done, with descriptors", done, []int{packets, pipe[0]}, "answers something else", ""},
		{"an escape", &Message{Failure: &Failure{Text: "\x1b[2Jbad\xff" + strings.Repeat("x", 5000)}}, nil, "?[2Jbad", "?[2Jbad"},
		{"an empty failure", &Message{Failure: &Failure{}}, nil, "answers something else", "answers something else"},
		{"the end", nil, nil, "the container has ended", "the container has ended"},
	} {
		for range 2 {
			go func() {
				_, fds, err := init.Recv()
				if err != nil || len(fds) != 1 {
					t.Errorf("the request brought %d descriptors, %v", len(fds), err)
					closeAll(fds)
					return
				}
				session, err := NewChannel(fds[0])
				if err != nil {
					t.Error(err)
					return
				}
				defer session.Close()
				if c.answer != nil {
					_ = session.Send(c.answer, c.fds...)
				}
			}()
			l, err := RequestLink(node, further("eth1", "172.18.0.2/16"), patience)
			if err == nil {
				l.Close()
			}
			if (c.link == "") != (err == nil) || err != nil && (!strings.Contains(err.Error(), c.link) || len(err.Error()) > 2*mostText) {
				t.Errorf("%s: an interface: %v, want %q", c.name, err, c.link)
			}
			go func() {
				_, fds, _ := init.Recv()
				if session, err := NewChannel(fds[0]); err == nil {
					if c.answer != nil {
						_ = session.Send(c.answer, c.fds...)
					}
					session.Close()
				}
			}()
			err = RequestUnlink(node, 7, patience)
			if (c.done == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.done) {
				t.Errorf("%s: a removal: %v, want %q", c.name, err, c.done)
			}
		}
	}
	if err := RequestUnlink(node, 7, time.Millisecond); err == nil || err.Error() != "remove interface 7: the container's init does not answer" {
		t.Errorf("no answer: %v", err)
	}
	_, fds, err := init.Recv()
	if err != nil {
		t.Fatal(err)
	}
	closeAll(fds)
	// One that does not even read.
	for range 10_000 {
		if err = node.Send(&Message{Warning: strings.Repeat("x", 1000)}); err != nil {
			break
		}
	}
	if err := RequestDefaultRoute(node, DefaultRoute{}, patience); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("a full channel: %v", err)
	}
}

// Whatever an init answers, what the node takes of it is bounded and printable.
func FuzzAnswer(f *testing.F) {
	for _, m := range []Message{
		{Ready: &Ready{Index: 2, PeerNetNS: 0, Warnings: []string{"careful"}}}, {Done: true}, {Linked: true}, {Failure: &Failure{Text: "no\x1b[m"}},
	} {
		body, err := json.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body, true)
		f.Add(body, false)
	}
	f.Fuzz(func(t *testing.T, body []byte, withSocket bool) {
		init, node := channels(t)
		answered := make(chan bool)
		go func() {
			defer close(answered)
			_, fds, err := init.Recv()
			if err != nil {
				return
			}
			var oob []byte
			if withSocket {
				oob = unix.UnixRights(fds[0])
			}
			_ = unix.Sendmsg(fds[0], body, oob, nil, unix.MSG_DONTWAIT) // an empty one is none
			closeAll(fds)
		}()
		l, err := RequestLink(node, further("eth1", "172.18.0.2/16"), patience)
		<-answered
		if err != nil {
			if len(err.Error()) > 2*mostText || strings.ContainsRune(err.Error(), 0x1b) {
				t.Errorf("%q", err)
			}
			return
		}
		if !withSocket {
			t.Error("a link without a descriptor")
		}
		l.Close()
	})
}

// 127.0.0.11 is a station on the link, and nobody listens inside: what is sent
// there is a frame for that station, and its answer is taken.
func TestResolverRoute(t *testing.T) {
	lab.NoLeaks(t)
	lab.Need(t, "ip")
	gateway := packettest.Station{MAC: packet.MAC{2, 0x42, 172, 17, 0, 1}, IP: netip.MustParseAddr("172.17.0.1")}
	spec := own(sh("ip route show table local 127.0.0.11; " + strings.Join(self("query", "127.0.0.11:53"), " "))...)
	spec.Interface.Resolver = gateway.IP
	r := start(t, spec)
	stop := make(chan bool)
	finished := make(chan bool)
	go func() {
		defer close(finished)
		batch := packet.NewBatch()
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			batch.Reset()
			_, _ = r.tap.ReadBatch(batch)
			for i := range batch.Frames {
				if f := &batch.Frames[i]; packet.Parse(f) == packet.OK {
					r.play(gateway, f)
				}
			}
		}
	}()
	r.wait(0)
	close(stop)
	<-finished
	if want := "127.0.0.11 via 172.17.0.1 dev eth0 src 172.17.0.2 metric 2 \nfrom 127.0.0.11:53: web has 172.17.0.3\n"; r.out.String() != want {
		t.Errorf("got %q, want %q", r.out.String(), want)
	}
}

// play answers as a gateway does: who it is, and what it is asked at 127.0.0.11.
func (r *running) play(gateway packettest.Station, f *packet.Frame) {
	client := packettest.Station{MAC: eth0().MAC, IP: eth0().Addresses[0].Addr()}
	var reply []byte
	switch {
	case f.EtherType == packet.EtherTypeARP:
		reply = packettest.ARPReply(gateway, client)
	case f.EtherType == packet.EtherTypeIPv4 && f.Proto == packet.ProtoUDP && packet.Ethernet(f.Ether()).Dst() == gateway.MAC:
		ip := packet.IPv4(f.Ether()[f.L3:])
		if ip.Src() != client.IP.As4() || ip.Dst() != resolverAddr.As4() || f.DstPort != 53 {
			r.t.Errorf("a query from %v to %v port %d", ip.Src(), ip.Dst(), f.DstPort)
			return
		}
		reply = packettest.UDP(packettest.Station{MAC: gateway.MAC, IP: resolverAddr}, client, 53, f.SrcPort, []byte("web has 172.17.0.3"))
	default:
		return
	}
	if n, err := r.tap.WriteBatch([]*packet.Frame{{B: reply}}); n != 1 || err != nil {
		r.t.Errorf("answered %d, %v", n, err)
	}
}

// Of two interfaces that lead to a resolver the older one does, and the other
// takes over when that has gone.
func TestResolverTakesOver(t *testing.T) {
	lab.NoLeaks(t)
	lab.Need(t, "ip")
	r := start(t, own("sleep", "1000"))
	var links []*Link
	for n := range 2 {
		i := further(fmt.Sprintf("eth%d", n+1), fmt.Sprintf("172.%d.0.2/16", n+18))
		i.Resolver = netip.AddrFrom4([4]byte{172, byte(n + 18), 0, 1})
		l, _ := r.link(i)
		links = append(links, l)
	}
	for n, l := range links {
		if out, want := r.inside("ip route get 127.0.0.11"), fmt.Sprintf("127.0.0.11 via 172.%d.0.1 dev eth%d src 172.%[1]d.0.2 ", n+18, n+1); !strings.HasPrefix(out, want) {
			t.Errorf("got %q, want %q", out, want)
		}
		if err := RequestUnlink(r.node, l.Index, patience); err != nil {
			t.Error(err)
		}
	}
	if out := r.inside("ip route get 127.0.0.11"); !strings.HasPrefix(out, "local 127.0.0.11 dev lo ") {
		t.Errorf("left behind: %q", out)
	}
}

// In somebody else's namespace, too; and not where somebody answers there.
func TestResolverForeign(t *testing.T) {
	lab.NoLeaks(t)
	lab.NeedTUN(t)
	for _, taken := range []string{"", "udp", "tcp"} {
		s := newStranger(t, unix.CLONE_NEWNET)
		s.ask(t, "ip link set lo up")
		if taken != "" {
			s.ask(t, strings.Join(self("hold", taken, "127.0.0.11:0"), " ")+" > /dev/null &")
			lab.Eventually(t, patience, func() error {
				if sockets := s.ask(t, "cat /proc/self/net/"+taken); !strings.Contains(sockets, ": 0B00007F:") {
					return errors.New(sockets)
				}
				return nil
			})
		}
		i := eth1()
		i.Resolver = netip.MustParseAddr("172.17.0.1")
		f, err := AttachForeign(Target{PID: s.cmd.Process.Pid}, i)
		if err != nil {
			t.Fatal(err)
		}
		if len(f.Warnings) > 0 {
			t.Errorf("warnings %q", f.Warnings)
		}
		out := s.ask(t, "ip route show table local 127.0.0.11; cat /proc/sys/net/ipv4/conf/eth1/route_localnet")
		want := fmt.Sprintf("127.0.0.11 via 172.17.0.1 dev eth1 src 172.17.0.9 metric %d linkdown \n1\n", f.Index)
		if taken != "" {
			want = "0\n"
		}
		if out != want {
			t.Errorf("taken by %q: got %q, want %q", taken, out, want)
		}
		f.Close()
		s.kill()
	}
}
