package sockets

import (
	"bytes"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/test/lab"
)

// A wide is a host with sockets, a router, and a server behind it that is
// reached by a narrower link.
//
//	node eth0 ── near router far ── eth0 server
//	203.0.113.2  .1   198.51.100.1   .2
type wide struct {
	*dgRig
	router, server *lab.Host
}

var (
	nodeAddr   = netip.MustParseAddr("203.0.113.2")
	nearAddr   = netip.MustParseAddr("203.0.113.1")
	serverAddr = netip.MustParseAddr("198.51.100.2")
)

const farMTU = 1280

func newWide(t *testing.T) *wide {
	t.Helper()
	node, router, server := lab.NewHost(t, "node"), lab.NewHost(t, "router"), lab.NewHost(t, "server")
	lab.Join(t, node, "eth0", router, "near")
	lab.Join(t, router, "far", server, "eth0")
	node.Addr(t, "eth0", nodeAddr.String()+"/24")
	router.Addr(t, "near", nearAddr.String()+"/24")
	router.Addr(t, "far", "198.51.100.1/24")
	server.Addr(t, "eth0", serverAddr.String()+"/24")
	node.Route(t, "default", nearAddr.String())
	server.Route(t, "default", "198.51.100.1")
	for _, h := range []*lab.Host{node, router, server} {
		h.Sysctl(t, "net.ipv4.icmp_ratemask", "0")
		h.Sysctl(t, "net.ipv4.icmp_msgs_per_sec", "100000")
		h.Sysctl(t, "net.ipv4.icmp_msgs_burst", "100000")
	}
	router.Sysctl(t, "net.ipv4.ip_forward", "1")
	node.Sysctl(t, "net.ipv4.ping_group_range", "0 0")
	router.Run(t, "ip", "link", "set", "far", "mtu", strconv.Itoa(farMTU))
	server.Run(t, "ip", "link", "set", "eth0", "mtu", strconv.Itoa(farMTU))
	w := &wide{dgRig: newDgRigOn(t, node, nil), router: router, server: server}
	w.s.SetAddr(packet.AddrFromNetip(nodeAddr))
	return w
}

// echo is an echo request of a container's.
func (r *dgRig) echo(id, seq uint16, to netip.Addr, data []byte) *packet.Frame {
	return r.frame(packettest.ICMPEcho(packettest.Station{MAC: routerMAC, IP: r.s.Addr().Netip()}, packettest.Station{MAC: outsideMAC, IP: to}, id, seq, data))
}

// reply is the next echo reply that comes.
func (r *dgRig) reply() (packet.IPv4, packet.ICMP) {
	r.t.Helper()
	f := r.next()
	m := packet.ICMP(f.Transport())
	if f.Proto != packet.ProtoICMP || m.Type() != packet.ICMPEchoReply || packet.Sum(m, 0) != 0xffff {
		r.t.Fatalf("came no echo reply: % x", f.Packet())
	}
	return packet.IPv4(f.Packet()), m
}

// TestPing: echo requests leave with identifier, sequence, data and header, and
// what comes back has them too; one socket serves all whom an identifier asks.
func TestPing(t *testing.T) {
	w := newWide(t)
	for seq := range uint16(3) {
		data := pattern(int(seq), 10+int(seq)*700)
		for _, to := range []netip.Addr{serverAddr, nearAddr} {
			w.write(w.with(w.echo(0x1234, seq, to, data), func(ip packet.IPv4) { ip.SetTOS(0x48) }))
			ip, m := w.reply()
			want := packet.AddrFromNetip(to)
			if packet.AddrFrom4(ip.Src()) != want || m.ID() != 0x1234 || m.Seq() != seq || !bytes.Equal(m.Data(), data) || ip.TOS() != 0x48 {
				t.Errorf("echo %d of %v: came identifier %#x, sequence %d, %d bytes, TOS %#x from %v", seq, to, m.ID(), m.Seq(), len(m.Data()), ip.TOS(), ip.Src())
			}
			if ttl := map[netip.Addr]uint8{serverAddr: 63, nearAddr: 64}[to]; ip.TTL() != ttl {
				t.Errorf("TTL %d from %v, want %d", ip.TTL(), to, ttl)
			}
		}
	}
	if n := w.s.Stats(); n.Descriptors != 1 || n.Flows != 2 || n.PingForbidden {
		t.Errorf("%+v, want one socket of two flows", n)
	}
}

// TestPingIdentifierTaken: somebody on the host has the identifier; the
// container does not notice.
func TestPingIdentifierTaken(t *testing.T) {
	w := newWide(t)
	w.do(func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrInet4{Port: 77})
			t.Cleanup(func() { unix.Close(fd) })
		}
		if err != nil {
			t.Error(err)
		}
	})
	f := w.echo(77, 5, serverAddr, []byte("mine"))
	w.write(f)
	if _, m := w.reply(); m.ID() != 77 || m.Seq() != 5 || string(m.Data()) != "mine" {
		t.Errorf("came identifier %d, sequence %d, %q", m.ID(), m.Seq(), m.Data())
	}
	if at := w.s.Local(f.Flow); at.Port() == 77 || at.Port() == 0 {
		t.Errorf("the host's socket is %v", at)
	}
}

// TestPingForbidden: where the host allows no ping sockets a packet is refused
// before it leaves, and as soon as it allows them it goes.
func TestPingForbidden(t *testing.T) {
	h := lab.NewHost(t, "strict") // as every fresh namespace is
	r := newDgRigOn(t, h, nil)
	if !r.s.Stats().PingForbidden {
		t.Error("nothing is said of it")
	}
	f := r.echo(1, 1, netip.MustParseAddr("127.0.0.1"), []byte("x"))
	resolve := func() (reason packet.Reason) {
		d := packet.Decision{NAT: packet.Translation{New: true, Container: r.c, After: f.Tuple()}}
		r.do(func() { r.s.Resolve(f, packet.Addr{}, &d) })
		return d.Reason
	}
	if reason := resolve(); reason != packet.PingForbidden {
		t.Errorf("an echo request is decided on as %v", reason)
	}
	if n, err := r.try(f); n != 0 || err != packet.EgressRefused { //nolint:errorlint // see switch
		t.Errorf("one that comes all the same: %d, %v", n, err)
	}
	h.Sysctl(t, "net.ipv4.ping_group_range", "0 0")
	f.Time += int64(time.Hour)
	if reason := resolve(); reason != packet.OK {
		t.Errorf("once it is allowed: %v", reason)
	}
	r.write(f)
	r.reply()
	if r.s.Stats().PingForbidden {
		t.Error("it is still said to be forbidden")
	}
}

// TestPingForbiddenAgain: who was allowed to when it was tried last has already his
// very first one refused, and so answered.
func TestPingForbiddenAgain(t *testing.T) {
	r := newDgRigOn(t, lab.NewHost(t, "strict"), nil)
	r.s.pings.forbidden.Store(false) // a user of one group cannot forbid it again
	f := r.echo(1, 1, netip.MustParseAddr("127.0.0.1"), []byte("x"))
	d := packet.Decision{NAT: packet.Translation{New: true, Container: r.c, After: f.Tuple()}}
	r.do(func() { r.s.Resolve(f, packet.Addr{}, &d) })
	if d.Reason != packet.PingForbidden {
		t.Errorf("an echo request is decided on as %v", d.Reason)
	}
}

// TestPingDamaged: nothing but sound echo requests leaves.
func TestPingDamaged(t *testing.T) {
	w := newWide(t)
	f := w.echo(9, 1, serverAddr, []byte("data"))
	packet.ICMP(f.Transport()).Data()[0] ^= 1
	if n, err := w.try(f); n != 0 || err != packet.BadTransport { //nolint:errorlint // see switch
		t.Errorf("a damaged one: %d, %v", n, err)
	}
	f = w.echo(9, 1, serverAddr, []byte("data"))
	m := packet.ICMP(f.Transport())
	m.SetCode(1)
	m.UpdateChecksum(0)
	if n, err := w.try(f); n != 0 || err != packet.EgressRefused { //nolint:errorlint // see switch
		t.Errorf("one with a code: %d, %v", n, err)
	}
}
