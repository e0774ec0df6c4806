package sockets

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

// from is a frame of a container's with a source of the test's choice.
func (r *dgRig) from(src, dst netip.AddrPort, payload string) *packet.Frame {
	return r.frame(packettest.Partial(packettest.UDP(packettest.Station{MAC: routerMAC, IP: src.Addr()},
		packettest.Station{MAC: outsideMAC, IP: dst.Addr()}, src.Port(), dst.Port(), []byte(payload))))
}

// publish opens a published port that is free, on an address.
func (r *dgRig) publish(addr string) netip.AddrPort {
	r.t.Helper()
	for range 100 {
		p := newPeer(r.t, netip.AddrPortFrom(netip.MustParseAddr(addr), 0).String())
		at := netip.AddrPortFrom(netip.MustParseAddr(addr), p.at.Port())
		p.close()
		switch err := r.s.listenUDP(at); {
		case err == nil:
			return at
		case !errors.Is(err, unix.EADDRINUSE):
			r.t.Fatal(err)
		}
	}
	r.t.Fatal("no port is free")
	return netip.AddrPort{}
}

// TestPublishedUDP: the container sees the client and the address it spoke to,
// and the answer leaves from there, whichever of the host's it is.
func TestPublishedUDP(t *testing.T) {
	r := newDgRig(t, nil)
	at := r.publish("0.0.0.0")
	for _, local := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.77"} {
		to := netip.AddrPortFrom(netip.MustParseAddr(local), at.Port())
		p := newPeer(t, "127.0.0.9:0")
		p.send(to, []byte("question to "+local))
		f, payload := r.datagram()
		want := packet.Tuple{Src: packet.AddrFromNetip(p.at.Addr()), SrcPort: p.at.Port(), Dst: packet.AddrFromNetip(to.Addr()), DstPort: to.Port(), Proto: packet.ProtoUDP}
		if f.Tuple() != want || string(payload) != "question to "+local {
			t.Errorf("came %v with %q, want %v", f.Tuple(), payload, want)
		}
		r.write(r.from(to, p.at, "answer"))
		if h := p.recv(); string(h.data) != "answer" || h.from != to {
			t.Errorf("%q from %v, want it from %v", h.data, h.from, to)
		}
	}
	if n := r.s.Stats(); n.Descriptors != 0 || n.Flows != 3 {
		t.Errorf("%+v: a published port costs containers nothing", n)
	}
}

// TestPublishedUDPSpeaksFirst: what a container sends from its published port
// leaves by the port's socket, so that its peers see that port.
func TestPublishedUDPSpeaksFirst(t *testing.T) {
	r := newDgRig(t, nil)
	at := r.publish("0.0.0.0")
	p := newPeer(t, "127.0.0.1:0")
	r.s.SetAddr(packet.Addr{}) // no address: the host's routes know which
	r.write(r.from(netip.AddrPortFrom(placeholder.Netip(), at.Port()), p.at, "hello"))
	if h := p.recv(); h.from != netip.AddrPortFrom(p.at.Addr(), at.Port()) {
		t.Errorf("from %v, want port %d", h.from, at.Port())
	}
}

// TestPublishedUDPOneAddress: a port of one address is not there at another, and
// two containers may have the same port at different ones.
func TestPublishedUDPOneAddress(t *testing.T) {
	r := newDgRig(t, nil)
	one := r.publish("127.0.0.1")
	two := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), one.Port())
	if err := r.s.listenUDP(two); err != nil {
		t.Fatal(err)
	}
	for _, to := range []netip.AddrPort{one, two} {
		p := newPeer(t, "127.0.0.1:0")
		p.send(to, []byte("x"))
		if f, _ := r.datagram(); f.Tuple().Dst != packet.AddrFromNetip(to.Addr()) {
			t.Errorf("what was sent to %v came to %v", to, f.Tuple().Dst)
		}
		r.write(r.from(to, p.at, "y"))
		if h := p.recv(); h.from != to {
			t.Errorf("the answer came from %v", h.from)
		}
	}
	if err := r.s.listenUDP(one); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("published twice: %v", err)
	}
}

// TestPublishedUDP6: clients of IPv6 come as somebody else, each as one of its
// own, and are answered from where they spoke to.
func TestPublishedUDP6(t *testing.T) {
	r := newDgRig(t, nil)
	at := r.publish("::")
	to := netip.AddrPortFrom(netip.IPv6Loopback(), at.Port())
	var shown []netip.AddrPort
	for i := range 3 {
		p := newPeer(t, "[::1]:0")
		for range 2 {
			p.send(to, []byte("question"))
			f, _ := r.datagram()
			k := f.Tuple()
			src := netip.AddrPortFrom(k.Src.Netip(), k.SrcPort)
			if !packet.IsStandIn(k.Src) || src.Port() != p.at.Port() || k.Dst != packet.HostIPv6 || k.DstPort != at.Port() {
				t.Fatalf("the client came as %v to %v:%d", src, k.Dst, k.DstPort)
			}
			r.write(r.from(netip.AddrPortFrom(k.Dst.Netip(), at.Port()), src, fmt.Sprint("answer ", i)))
			if h := p.recv(); string(h.data) != fmt.Sprint("answer ", i) || h.from != to {
				t.Errorf("%q from %v", h.data, h.from)
			}
			shown = append(shown, src)
		}
	}
	if shown[0] != shown[1] || shown[0].Addr() == shown[2].Addr() || shown[2].Addr() == shown[4].Addr() {
		t.Errorf("clients came as %v", shown)
	}
}

// TestStandIns: the table stays as large as it may be, gives up those that were
// not heard, and says which flow that ends.
func TestStandIns(t *testing.T) {
	var x standIns
	at := localAddr{port: 53, proto: packet.ProtoUDP}
	addr := func(i int) packet.Addr { return packet.Addr{0: 0x20, 1: 1, 14: byte(i >> 8), 15: byte(i)} }
	busy := client{addr: addr(1 << 15), port: 7, at: at}
	of, _ := x.standIn(busy)
	gone := 0
	for i := range 3 * maxStandIns {
		c := client{addr: addr(i % (1 << 14)), port: uint16(i), at: at}
		shown, replaced := x.standIn(c)
		if got := x.client(shown, c.port); got == nil || *got != c {
			t.Fatalf("client %d is not found by %v", i, shown)
		}
		if replaced != (packet.Tuple{}) {
			if gone++; replaced.Src != shown || replaced.DstPort != 53 {
				t.Fatalf("replaced %v by %v", replaced, shown)
			}
		}
		if again, _ := x.standIn(busy); again != of {
			t.Fatalf("a client that speaks all the time was forgotten after %d", i)
		}
	}
	if len(x.list) != maxStandIns || len(x.byClient) != maxStandIns || gone != 3*maxStandIns+1-maxStandIns {
		t.Errorf("%d in the list, %d in the map, %d gone", len(x.list), len(x.byClient), gone)
	}
	for _, a := range []packet.Addr{{}, packet.AddrFromNetip(hostAddr), packet.StandIn(maxStandIns), packet.AddrFrom4([4]byte{127, 0, 0, 1})} {
		if c := x.client(a, 7); c != nil {
			t.Errorf("%v stands for %v", a, c)
		}
	}
}

// TestUnpublishUDP: the port is closed at once and can be had again, and its
// flows end; a socket that has the port by chance gives way.
func TestUnpublishUDP(t *testing.T) {
	r := newDgRig(t, nil)
	at := r.publish("127.0.0.1")
	p := newPeer(t, "127.0.0.1:0")
	p.send(at, []byte("x"))
	r.datagram()
	answer := r.from(at, p.at, "y")
	r.write(answer)
	p.recv()
	r.s.unlistenUDP(at)
	if k := r.over(); k != answer.Tuple() {
		t.Errorf("ended %v, want %v", k, answer.Tuple())
	}
	r.write(r.udp(at.Port(), p.at, []byte("by chance")))
	if h := p.recv(); h.from.Port() != at.Port() {
		t.Fatalf("the port of the container, %d, is %v on the host", at.Port(), h.from)
	}
	if err := r.s.listenUDP(at); err != nil {
		t.Fatal(err)
	}
	if k := r.over(); k.SrcPort != at.Port() {
		t.Errorf("ended %v", k)
	}
}

// TestPublishedUDPCosts: ten thousand published ports are no matter.
func TestPublishedUDPCosts(t *testing.T) {
	if n := unsafe.Sizeof(udpSocket{}); n > 384 {
		t.Errorf("a socket costs %d bytes", n)
	}
	r := newDgRig(t, nil)
	const ports = 256
	var list []netip.AddrPort
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range ports {
		list = append(list, r.publish("127.0.0.1"))
	}
	runtime.ReadMemStats(&after)
	each := (after.TotalAlloc - before.TotalAlloc) / ports
	t.Logf("%d bytes were allocated for each, with the test's own", each)
	if !raceEnabled && each > 2048 {
		t.Errorf("a published port costs %d bytes", each)
	}
	for _, at := range list {
		r.s.unlistenUDP(at)
	}
	if n := len(r.s.flows.udp); n != 0 {
		t.Errorf("%d sockets are left", n)
	}
}
