package sockets

import (
	"bytes"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"fairlead/packet"
)

// icmpError is the next ICMP error that comes, and the packet it quotes.
func (r *dgRig) icmpError() (from netip.Addr, m packet.ICMP, quoted packet.IPv4) {
	r.t.Helper()
	f := r.next()
	m = packet.ICMP(f.Transport())
	if f.Proto != packet.ProtoICMP || !m.IsError4() {
		r.t.Fatalf("came no ICMP error: % x", f.Packet())
	}
	if _, ok := f.Quoted(); !ok {
		r.t.Fatalf("the router will not understand it: % x", f.Packet())
	}
	return f.Tuple().Src.Netip(), m, packet.IPv4(m.Data())
}

// is checks an ICMP error's source, type, code and quote.
func (r *dgRig) is(from netip.Addr, kind, code uint8, about *packet.Frame) packet.ICMP {
	r.t.Helper()
	who, m, quoted := r.icmpError()
	if who != from || m.Type() != kind || m.Code() != code {
		r.t.Errorf("came %d/%d from %v, want %d/%d from %v", m.Type(), m.Code(), who, kind, code, from)
	}
	ip := packet.IPv4(about.Packet())
	ttl := ip.TTL()
	if kind == packet.ICMPTimeExceeded {
		ttl = 1
	}
	if quoted.Src() != ip.Src() || quoted.Dst() != ip.Dst() || quoted.ID() != ip.ID() || quoted.TOS() != ip.TOS() ||
		quoted.TotalLen() != ip.TotalLen() || quoted.DontFragment() != ip.DontFragment() || quoted.TTL() != ttl || quoted.Proto() != ip.Proto() {
		r.t.Errorf("quotes the header\n% x, sent was\n% x", []byte(quoted[:20]), []byte(ip[:20]))
	}
	finished := about.Clone(nil)
	packet.Complete(&finished)
	sent, got := finished.Transport(), quoted[packet.IPv4MinLen:]
	got = got[:min(len(got), len(sent))]
	if about.Flags.Has(packet.NeedsChecksum) && len(got) < len(sent) {
		packet.UDP(sent).SetChecksum(0) // nobody can know
	}
	if len(got) < transportHead || !bytes.Equal(got, sent[:len(got)]) {
		r.t.Errorf("quotes\n% x, sent was\n% x", got, sent[:min(len(sent), len(got))])
	}
	return m
}

// TestErrorTypes: what each error is to the container.
func TestErrorTypes(t *testing.T) {
	icmp, icmp6, local := uint8(unix.SO_EE_ORIGIN_ICMP), uint8(unix.SO_EE_ORIGIN_ICMP6), uint8(unix.SO_EE_ORIGIN_LOCAL)
	for _, c := range []struct {
		e          hostError
		kind, code uint8
		rest       uint32
	}{
		{hostError{origin: icmp, kind: 3, code: 1}, 3, 1, 0},
		{hostError{origin: icmp, kind: 3, code: 4, info: 1300}, 3, 4, 1300},
		{hostError{origin: icmp, kind: 3, code: 13}, 3, 13, 0},
		{hostError{origin: icmp, kind: 11, code: 1}, 11, 1, 0},
		{hostError{origin: icmp, kind: 12, info: 20}, 12, 0, 20 << 24},
		{hostError{origin: icmp6, kind: 1, code: 0}, 3, 1, 0},
		{hostError{origin: icmp6, kind: 1, code: 1}, 3, 13, 0},
		{hostError{origin: icmp6, kind: 1, code: 4}, 3, 3, 0},
		{hostError{origin: icmp6, kind: 2, info: 1300}, 3, 4, 1280},
		{hostError{origin: icmp6, kind: 2, info: 1}, 3, 4, 20},
		{hostError{origin: icmp6, kind: 3, code: 0}, 11, 0, 0},
		{hostError{origin: icmp6, kind: 4, code: 1}, 3, 2, 0},
		{hostError{origin: local, errno: unix.EMSGSIZE, info: 1400}, 3, 4, 1400},
		{localError(unix.ENETUNREACH, 0), 3, 0, 0},
		{localError(unix.EHOSTUNREACH, 0), 3, 1, 0},
		{localError(unix.EPERM, 0), 3, 13, 0},
		{localError(unix.ECONNREFUSED, 0), 3, 3, 0},
	} {
		kind, code, rest, ok := c.e.icmp()
		if !ok || kind != c.kind || code != c.code || rest != c.rest {
			t.Errorf("%+v is %d/%d %#x, want %d/%d %#x", c.e, kind, code, rest, c.kind, c.code, c.rest)
		}
	}
	for _, e := range []hostError{{}, {origin: icmp, kind: 5}, {origin: icmp6, kind: 137}, {origin: local, errno: unix.EINVAL}, {origin: unix.SO_EE_ORIGIN_TIMESTAMPING}} {
		if kind, code, _, ok := e.icmp(); ok {
			t.Errorf("%+v is %d/%d", e, kind, code)
		}
	}
}

// TestErrors: what routers and hosts say of a packet comes to the container with
// who said it and the header it sent, for UDP and for echo.
func TestErrors(t *testing.T) {
	w := newWide(t)
	closed := netip.AddrPortFrom(serverAddr, 9)
	nowhere := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.99"), 9)
	id := uint16(100)
	hop := func(f *packet.Frame, ttl uint8, df bool) *packet.Frame {
		id++
		return w.with(f, func(ip packet.IPv4) {
			ip.SetTTL(ttl)
			ip.SetID(id)
			ip.SetTOS(uint8(id << 2))
			ip.SetFragment(df, false, 0)
		})
	}
	for _, c := range []struct {
		name       string
		f          *packet.Frame
		from       netip.Addr
		kind, code uint8
	}{
		{"UDP, first hop", hop(w.udp(40000, closed, pattern(1, 32)), 1, false), nearAddr, packet.ICMPTimeExceeded, packet.ICMPTTLExceeded},
		{"UDP, closed port", hop(w.udp(40000, closed, pattern(2, 32)), 2, false), serverAddr, packet.ICMPUnreachable, packet.ICMPPortUnreachable},
		{"UDP, empty", hop(w.udp(40000, closed, nil), 9, false), serverAddr, packet.ICMPUnreachable, packet.ICMPPortUnreachable},
		{"UDP, long", hop(w.udp(40000, closed, pattern(3, 1200)), 9, false), serverAddr, packet.ICMPUnreachable, packet.ICMPPortUnreachable},
		{"UDP, finished checksum", hop(w.frame(w.udpBytes(40000, closed, pattern(4, 1200))), 9, true), serverAddr, packet.ICMPUnreachable, packet.ICMPPortUnreachable},
		{"UDP, no route", hop(w.udp(40000, nowhere, pattern(5, 32)), 9, true), nearAddr, packet.ICMPUnreachable, packet.ICMPNetUnreachable},
		{"echo, first hop", hop(w.echo(40000, 1, serverAddr, pattern(6, 56)), 1, false), nearAddr, packet.ICMPTimeExceeded, packet.ICMPTTLExceeded},
		{"echo, no data", hop(w.echo(40000, 2, serverAddr, nil), 1, false), nearAddr, packet.ICMPTimeExceeded, packet.ICMPTTLExceeded},
		{"echo, no route", hop(w.echo(40000, 3, nowhere.Addr(), pattern(7, 56)), 9, true), nearAddr, packet.ICMPUnreachable, packet.ICMPNetUnreachable},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.t = t
			w.write(c.f)
			w.is(c.from, c.kind, c.code, c.f)
		})
	}
}

// TestErrorsInARow: each of many probes that differ in their port, their payload
// or their sequence number comes back as itself.
func TestErrorsInARow(t *testing.T) {
	w := newWide(t)
	var frames []*packet.Frame
	for i := range 8 {
		to := netip.AddrPortFrom(serverAddr, uint16(33434+i%4))
		f := w.with(w.udp(40000, to, pattern(i, 12)), func(ip packet.IPv4) { ip.SetTTL(1); ip.SetID(uint16(1000 + i)) })
		frames = append(frames, f)
	}
	w.write(frames...)
	left := map[uint16]*packet.Frame{}
	for _, f := range frames {
		left[packet.IPv4(f.Packet()).ID()] = f
	}
	for range frames {
		_, _, quoted := w.icmpError()
		f := left[quoted.ID()]
		if f == nil {
			t.Fatalf("quotes a packet with ID %d", quoted.ID())
		}
		delete(left, quoted.ID())
		if packet.UDP(quoted.Payload()).DstPort() != f.DstPort {
			t.Errorf("ID %d has port %d, sent was %d", quoted.ID(), packet.UDP(quoted.Payload()).DstPort(), f.DstPort)
		}
	}
}

// TestErrorsOfManyEchoes: of echo requests there may be more on the way than
// headers are kept: the sequence number is in what comes back.
func TestErrorsOfManyEchoes(t *testing.T) {
	w := newWide(t)
	const n = 50
	var frames []*packet.Frame
	for seq := range uint16(n) {
		frames = append(frames, w.with(w.echo(7, seq, serverAddr, pattern(int(seq), 56)), func(ip packet.IPv4) { ip.SetTTL(1) }))
	}
	w.write(frames...)
	var seen [n]bool
	for range frames {
		_, _, quoted := w.icmpError()
		m := packet.ICMP(quoted.Payload())
		if m.Type() != packet.ICMPEcho || m.ID() != 7 || int(m.Seq()) >= n || seen[m.Seq()] || packet.Sum(m, 0) != 0xffff {
			t.Fatalf("quotes % x", []byte(quoted))
		}
		seen[m.Seq()] = true
	}
}

// TestPathMTU: a packet with DF that is too large for the way is answered with
// the MTU: by the router, and then by the host, which remembers it. One without
// DF arrives, in fragments, and so does a train of such.
func TestPathMTU(t *testing.T) {
	w := newWide(t)
	var p *peer
	w.peerOn(w.server, &p, netip.AddrPortFrom(serverAddr, 0))
	df := func(f *packet.Frame) *packet.Frame {
		return w.with(f, func(ip packet.IPv4) { ip.SetFragment(true, false, 0) })
	}
	large := df(w.udp(40000, p.at, pattern(1, 1400)))
	w.write(large)
	if m := w.is(nearAddr, packet.ICMPUnreachable, packet.ICMPFragNeeded, large); m.MTU() != farMTU {
		t.Errorf("the router's MTU is %d", m.MTU())
	}
	if n, err := w.try(large); n != 0 || err != packet.FragNeeded { //nolint:errorlint // see switch
		t.Errorf("the second one: %d, %v", n, err)
	}
	if m := w.is(nodeAddr, packet.ICMPUnreachable, packet.ICMPFragNeeded, large); m.MTU() != farMTU {
		t.Errorf("the host's MTU is %d", m.MTU())
	}
	echo := df(w.echo(40000, 1, serverAddr, pattern(1, 1400)))
	if _, err := w.try(echo); err != packet.FragNeeded { //nolint:errorlint // see switch
		t.Errorf("an echo request: %v", err)
	}
	if m := w.is(nodeAddr, packet.ICMPUnreachable, packet.ICMPFragNeeded, echo); m.MTU() != farMTU {
		t.Errorf("the host's MTU for an echo request is %d", m.MTU())
	}
	var want [][]byte
	var frames []*packet.Frame
	for i := range 6 {
		payload := pattern(i, 3000)
		want, frames = append(want, payload), append(frames, w.udp(40000, p.at, payload))
	}
	fits := pattern(9, farMTU-28)
	want, frames = append(want, fits), append(frames, df(w.udp(40000, p.at, fits)))
	w.write(frames...)
	for i := range want {
		if h := p.recv(); !bytes.Equal(h.data, want[i]) {
			t.Fatalf("datagram %d: %d bytes, want %d", i, len(h.data), len(want[i]))
		}
	}
	w.write(w.echo(40000, 2, serverAddr, pattern(2, 3000)))
	if _, m := w.reply(); !bytes.Equal(m.Data(), pattern(2, 3000)) {
		t.Errorf("a large echo came back with %d bytes", len(m.Data()))
	}
}

// TestHostRefuses: what the host itself does not let out is answered in its
// name.
func TestHostRefuses(t *testing.T) {
	w := newWide(t)
	for _, r := range []struct {
		kind   string
		code   uint8
		reason packet.Reason
	}{
		{"unreachable", packet.ICMPHostUnreachable, packet.HostUnreachable},
		{"prohibit", packet.ICMPAdminProhibited, packet.EgressRefused},
		{"throw", packet.ICMPNetUnreachable, packet.NoRoute},
	} {
		if r.kind == "throw" {
			w.host.Run(t, "ip", "route", "del", "default")
		} else {
			w.host.Run(t, "ip", "route", "replace", r.kind, "192.0.2.0/24")
		}
		dst := netip.MustParseAddrPort("192.0.2.1:7")
		if r.kind == "throw" {
			dst = netip.MustParseAddrPort("192.0.3.1:7")
		}
		for _, f := range []*packet.Frame{w.udp(40000, dst, []byte("x")), w.echo(40000, 1, dst.Addr(), []byte("x"))} {
			if n, err := w.try(f); n != 0 || err != r.reason { //nolint:errorlint // see switch
				t.Errorf("%s route, %v: %d, %v, want %v", r.kind, f.Proto, n, err, r.reason)
			}
			w.is(nodeAddr, packet.ICMPUnreachable, r.code, f)
		}
	}
}

// TestNeighbourSilent: what waits for a neighbour fills the socket's buffer, and
// the frames behind it are refused; when nobody answers the container is told.
func TestNeighbourSilent(t *testing.T) {
	w := newWide(t)
	w.host.Sysctl(t, "net.ipv4.neigh.eth0.retrans_time_ms", "100")
	f := w.udp(40000, netip.MustParseAddrPort("203.0.113.77:9"), pattern(1, 1400))
	w.write(f)
	w.s.mu.Lock()
	setInt(w.s.flows.slots[f.Flow].e.common().fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 20000)
	w.s.mu.Unlock()
	for n := 0; ; n++ {
		_, err := w.try(f)
		if err == packet.EgressFull { //nolint:errorlint // see switch
			break
		}
		if err != nil || n > 10000 {
			t.Fatalf("frame %d: %v", n, err)
		}
	}
	w.is(nodeAddr, packet.ICMPUnreachable, packet.ICMPHostUnreachable, f)
}

// TestErrorOfAnother: an error about one peer does not cost another one's
// datagram.
func TestErrorOfAnother(t *testing.T) {
	r := newDgRig(t, nil)
	p := newPeer(t, "127.0.0.1:0")
	closed := newPeer(t, "127.0.0.2:0")
	closed.close()
	for i := range 50 {
		r.write(r.udp(40000, closed.at, []byte{byte(i)}), r.udp(40000, p.at, []byte{byte(i)}))
		if h := p.recv(); h.data[0] != byte(i) {
			t.Fatalf("datagram %d is lost", i)
		}
	}
	from, m, _ := r.icmpError()
	if from != closed.at.Addr() || m.Code() != packet.ICMPPortUnreachable {
		t.Errorf("came %d/%d from %v", m.Type(), m.Code(), from)
	}
}

// TestPublishedUDPError: an error about an answer of a published port quotes the
// address the client spoke to.
func TestPublishedUDPError(t *testing.T) {
	for _, addr := range []string{"127.0.0.3", "::1"} {
		r := newDgRig(t, nil)
		any := map[bool]string{true: "0.0.0.0", false: "::"}[addr != "::1"]
		at := r.publish(any)
		p := newPeer(t, netip.AddrPortFrom(netip.MustParseAddr(addr), 0).String())
		p.send(netip.AddrPortFrom(netip.MustParseAddr(addr), at.Port()), []byte("question"))
		f, _ := r.datagram()
		p.close()
		k := f.Tuple().Reverse()
		answer := r.from(netip.AddrPortFrom(k.Src.Netip(), k.SrcPort), netip.AddrPortFrom(k.Dst.Netip(), k.DstPort), "answer")
		r.write(answer)
		r.is(k.Dst.Netip(), packet.ICMPUnreachable, packet.ICMPPortUnreachable, answer)
	}
}
