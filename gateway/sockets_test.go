package gateway

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"fairlead/nat"
	"fairlead/packet"
	"fairlead/packet/packettest"
)

// A fakeSockets is an uplink that keeps flows.
type fakeSockets struct {
	fakeUplink
	ended []uint32
}

func (s *fakeSockets) KeepsFlows() bool                                { return true }
func (s *fakeSockets) FlowEnded(number uint32)                         { s.ended = append(s.ended, number) }
func (s *fakeSockets) Subnet() netip.Prefix                            { return everything }
func (s *fakeSockets) NextHop() packet.Addr                            { return packet.Addr{} }
func (s *fakeSockets) Owns(a packet.Addr) bool                         { return a == s.Addr() || a == addrOf(alsoHost) }
func (s *fakeSockets) Ask(*packet.Frame, *packet.Decision, packet.Out) {}

var (
	hostSelf = masqueraded // the host, by the address that stands for it
	alsoHost = stationAt("10.9.8.7")
	onHost   = stationAt("127.0.0.1")
)

func newSocketsRig(t testing.TB, conf nat.Config) (*natRig, *fakeSockets) {
	r := newNATRig(t, conf)
	s := &fakeSockets{fakeUplink: fakeUplink{mtu: 65535}}
	r.router.UnplugUplink(natUplink)
	r.router.PlugUplink(s)
	r.gw.SetUplinks([]Uplink{s})
	return r, s
}

func (r *natRig) publishAt(proto packet.Proto, at packet.Addr, port, inside uint16) nat.Rule {
	r.t.Helper()
	var rule nat.Rule
	r.router.Flows(func(table *nat.Table) {
		var err error
		rule, err = table.Publish(nat.Rule{Network: natNetwork, Container: 1, Proto: proto, Outside: at, OutsidePort: port, Inside: addrOf(alice), InsidePort: inside})
		if err != nil {
			r.t.Fatal(err)
		}
	})
	return rule
}

func (r *natRig) flows() (list []nat.FlowInfo) {
	r.router.Flows(func(table *nat.Table) { list = slices.Collect(table.Flows) })
	return list
}

func syn(src, dst station, srcPort, dstPort uint16) []byte {
	return packettest.TCP(src, dst, packettest.Segment{SrcPort: srcPort, DstPort: dstPort, Flags: packet.TCPSyn}, nil)
}

func synAck(src, dst station, srcPort, dstPort uint16) []byte {
	return packettest.TCP(src, dst, packettest.Segment{SrcPort: srcPort, DstPort: dstPort, Flags: packet.TCPSyn | packet.TCPAck}, nil)
}

func wantPair(t testing.TB, f *packet.Frame, src station, srcPort uint16, dst station, dstPort uint16) {
	t.Helper()
	want := packet.Tuple{Src: addrOf(src), Dst: addrOf(dst), SrcPort: srcPort, DstPort: dstPort, Proto: f.Proto}
	if got := f.Tuple(); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestSocketsHearOfTheEnd(t *testing.T) {
	r, s := newSocketsRig(t, nat.Config{})
	out := r.mustInside(1, syn(alice, server, 4000, 80))
	r.mustOutside(synAck(server, hostSelf, 80, 4000))
	r.later(100 * 24 * time.Hour)
	if list := r.flows(); len(list) != 1 || list[0].Number != out.Flow || list[0].Expires != nat.Never {
		t.Fatalf("flows %+v", list)
	}
	r.inbound.EndFlows([]packet.Tuple{out.Tuple()})
	if list := r.flows(); len(list) != 0 || len(s.ended) != 1 || s.ended[0] != out.Flow {
		t.Errorf("flows %+v, told of %v, want %d", list, s.ended, out.Flow)
	}

	// By time, with the container, with the uplink.
	for _, end := range []func(){
		func() {
			for range 10 {
				r.later(time.Minute)
			}
		},
		func() { r.router.FlushContainer(1) },
		func() { r.router.UnplugUplink(natUplink) },
	} {
		s.ended = nil
		out := r.mustInside(1, packettest.UDP(alice, server, 4000, 80, nil))
		if end(); len(s.ended) != 1 || s.ended[0] != out.Flow {
			t.Errorf("told of %v, want %d", s.ended, out.Flow)
		}
	}
	// A raw uplink with the number of one that kept flows does not.
	s.ended = nil
	r.router.PlugUplink(r.uplink)
	r.gw.SetUplinks([]Uplink{r.uplink})
	r.mustInside(1, packettest.UDP(alice, server, 4000, 80, nil))
	if r.router.FlushContainer(1); len(s.ended) != 0 {
		t.Errorf("told of %v", s.ended)
	}
}

func TestEndManyFlows(t *testing.T) {
	r, s := newSocketsRig(t, nat.Config{})
	var list []packet.Tuple
	for port := range uint16(3 * endAtOnce / 2) {
		list = append(list, r.mustInside(1, packettest.UDP(alice, server, 4000+port, 80, nil)).Tuple())
	}
	r.inbound.EndFlows(list)
	if left := r.flows(); len(left) != 0 || len(s.ended) != len(list) {
		t.Errorf("%d are left, told of %d", len(left), len(s.ended))
	}
}

// TestHidden has a client for each rule by which it is hidden, and one for none.
func TestHidden(t *testing.T) {
	internal := func(r *natRig) { r.gw.SetInternal(true) }
	for name, x := range map[string]struct {
		client station
		setup  func(r *natRig)
		want   packet.Hidden
	}{
		"from elsewhere":                {client: server},
		"the host itself":               {client: hostSelf},
		"another address of the host's": {client: alsoHost},
		"loopback":                      {client: onHost, want: packet.HiddenLoopback},
		"in its subnet":                 {client: stationAt("172.17.9.9"), want: packet.HiddenInSubnet},
		"as the gateway":                {client: gw, want: packet.HiddenInSubnet},
		"in another subnet of its": {client: stationAt("172.20.0.9"), want: packet.HiddenInSubnet, setup: func(r *natRig) {
			r.router.SetHome(1, Home{Subnets: []netip.Prefix{subnet, netip.MustParsePrefix("172.20.0.0/16")}, Default: natNetwork})
		}},
		"in a subnet of another's": {client: stationAt("172.20.0.9"), setup: func(r *natRig) {
			r.router.SetHome(2, Home{Subnets: []netip.Prefix{netip.MustParsePrefix("172.20.0.0/16")}, Default: natNetwork})
		}},
		"an internal network": {client: server, setup: internal, want: packet.HiddenNoDefaultRoute},
		"default route elsewhere": {client: server, want: packet.HiddenNoDefaultRoute, setup: func(r *natRig) {
			r.router.SetHome(1, Home{Subnets: []netip.Prefix{subnet}, Default: 77})
		}},
		"other family":             {client: standIn(7), want: packet.HiddenFamily},
		"other family, internal":   {client: standIn(7), setup: internal, want: packet.HiddenFamily},
		"on loopback and internal": {client: onHost, setup: internal, want: packet.HiddenLoopback},
	} {
		for _, tcp := range []bool{true, false} {
			r, _ := newSocketsRig(t, nat.Config{})
			if x.setup != nil {
				x.setup(r)
			}
			r.publishAt(packet.ProtoTCP, packet.Addr{}, 8080, 80)
			r.publishAt(packet.ProtoUDP, packet.Addr{}, 8080, 80)
			frame := func(src, dst station, srcPort, dstPort uint16, first bool) []byte {
				switch {
				case !tcp:
					return packettest.UDP(src, dst, srcPort, dstPort, nil)
				case first:
					return syn(src, dst, srcPort, dstPort)
				}
				return synAck(src, dst, srcPort, dstPort)
			}
			for _, dst := range []station{onHost, hostSelf, alsoHost} {
				seen := x.client
				if x.want != packet.HiddenNot {
					seen = gw
				}
				d, in := r.outside(frame(x.client, dst, 5000, 8080, true))
				if in == nil {
					t.Fatalf("%s to %v: %+v", name, dst.IP, d)
				}
				port, hidden := uint16(5000), x.want
				if dst != onHost { // the port is taken by the connection to another address
					if port = in.SrcPort; port == 5000 {
						t.Errorf("%s: port %d twice", name, port)
					}
					if hidden == packet.HiddenNot {
						hidden = packet.HiddenPortTaken
					}
				}
				wantPair(t, in, seen, port, alice, 80)
				if d.NAT.Hidden != hidden {
					t.Errorf("%s to %v: hidden by %v, want %v", name, dst.IP, d.NAT.Hidden, hidden)
				}
				back := r.mustInside(1, frame(alice, seen, 80, port, false))
				wantPair(t, back, dst, 8080, x.client, 5000)
			}
			for _, f := range r.flows() {
				if hidden := f.Reply.DstPort != 5000; f.Hidden != x.want && !hidden {
					t.Errorf("%s: listed as hidden by %v, want %v", name, f.Hidden, x.want)
				}
			}
		}
	}
}

func standIn(n uint32) station {
	return stationAt(packet.StandIn(n).String())
}

// TestNobodyIsOnLoopback is that a container never sees 127.0.0.0/8, whatever
// comes out of a socket.
func TestNobodyIsOnLoopback(t *testing.T) {
	r, _ := newSocketsRig(t, nat.Config{})
	out := r.mustInside(1, packettest.UDP(alice, server, 4000, 80, nil))
	if d, f := r.outside(packettest.ICMPError(onHost, hostSelf, packet.ICMPUnreachable, 1, 0, out.B, 60)); f != nil || d.Reason != packet.Martian {
		t.Errorf("%+v", d)
	}
	// And a container sends nothing there.
	for _, dst := range []string{"127.0.0.1", "127.1.2.3", "0.0.0.0", "240.0.0.1"} {
		r.gw.SetHostLoopback(true)
		if d, f := r.inside(1, packettest.UDP(alice, stationAt(dst), 4000, 80, nil)); f != nil || d.Reason != packet.Martian {
			t.Errorf("to %s: %+v", dst, d)
		}
	}
	for _, b := range [][]byte{
		packettest.UDP(stationAt("0.0.0.0"), hostSelf, 4000, 80, nil),
		packettest.UDP(server, stationAt("255.255.255.255"), 4000, 80, nil),
		packettest.UDP(server, stationAt("224.0.0.251"), 4000, 80, nil),
	} {
		if d, f := r.outside(b); f != nil || d.Reason != packet.Martian {
			t.Errorf("%+v", d)
		}
	}
}

func TestRedirect(t *testing.T) {
	r, _ := newSocketsRig(t, nat.Config{})
	refused := func(b []byte, answer packet.Origin) {
		t.Helper()
		if d, f := r.inside(1, b); f != nil || d.Reason != packet.Refused || d.Originate != answer {
			t.Errorf("%+v", d)
		}
		r.sent = nil
	}
	// Nothing is there.
	refused(syn(alice, gw, 4000, 53), packet.OriginReset)
	refused(syn(alice, gw, 4000, 8000), packet.OriginReset)
	refused(packettest.UDP(alice, gw, 4000, 8000, nil), packet.OriginPortUnreachable)

	// DNS over TCP always.
	r.router.SetServices(5353)
	d, f := r.inside(1, syn(alice, gw, 4000, 53))
	if f == nil || d.NAT.Kind != packet.NATRedirect || d.NAT.Container != 1 {
		t.Fatalf("%+v", d)
	}
	wantPair(t, f, hostSelf, 4000, onHost, 5353)
	wantPair(t, r.mustOutside(synAck(onHost, hostSelf, 5353, 4000)), gw, 53, alice, 4000)
	refused(syn(alice, gw, 4000, 8000), packet.OriginReset)

	// At the containers' nameserver too, and there nothing else.
	self := station{MAC: gw.MAC, IP: Nameserver}
	martian := func(b []byte) {
		t.Helper()
		if d, f := r.inside(1, b); f != nil || d.Reason != packet.Martian || d.Originate != packet.OriginNone {
			t.Errorf("%+v", d)
		}
	}
	f = r.mustInside(1, syn(alice, self, 4003, 53))
	wantPair(t, f, hostSelf, 4003, onHost, 5353)
	wantPair(t, r.mustOutside(synAck(onHost, hostSelf, 5353, 4003)), self, 53, alice, 4003)
	part := packettest.TCP(alice, self, packettest.Segment{SrcPort: 4004, DstPort: 53, Flags: packet.TCPSyn}, make([]byte, 4)) // whole eighths
	binary.BigEndian.PutUint16(payload(part)[6:], 0x2000)                                                                      // more of it follows
	martian(resum(part))
	martian(syn(self, self, 4004, 53))
	martian(syn(alice, station{MAC: gw.MAC, IP: netip.MustParseAddr("127.0.0.1")}, 4004, 53))
	r.gw.SetHostLoopback(true)
	rule := r.publishAt(packet.ProtoUDP, packet.Addr{}, 53, 53)
	martian(syn(alice, self, 4004, 8000))
	martian(packettest.UDP(alice, self, 4004, 53, nil)) // nobody answers questions here
	martian(packettest.ICMPEcho(alice, self, 1, 1, nil))
	r.router.Flows(func(table *nat.Table) { table.Unpublish(rule.Number) })

	// The host's loopback with leave.
	f = r.mustInside(1, syn(alice, gw, 4001, 8000))
	wantPair(t, f, hostSelf, 4001, onHost, 8000)
	wantPair(t, r.mustOutside(synAck(onHost, hostSelf, 8000, 4001)), gw, 8000, alice, 4001)
	f = r.mustInside(1, packettest.UDP(alice, gw, 4001, 53, nil))
	wantPair(t, f, hostSelf, 4001, onHost, 53)
	wantPair(t, r.mustOutside(packettest.UDP(onHost, hostSelf, 53, 4001, nil)), gw, 53, alice, 4001)

	// What is published is a container's, and other protocols are ours.
	r.publishAt(packet.ProtoTCP, packet.Addr{}, 8000, 80)
	f = r.mustInside(2, syn(bob, gw, 4000, 8000))
	if f.Tuple().Dst != addrOf(alice) || f.Tuple().Src != addrOf(gw) {
		t.Errorf("to a published port: %v", f.Tuple())
	}
	if d, _ := r.inside(1, packettest.ICMPEcho(alice, gw, 1, 1, nil)); d.Originate != packet.OriginEchoReply {
		t.Errorf("%+v", d)
	}

	// It takes sockets.
	r.router.UnplugUplink(natUplink)
	refused(syn(alice, gw, 4002, 53), packet.OriginReset)
	refused(syn(alice, gw, 4002, 8001), packet.OriginReset)
}

// TestHostItself is that a container reaches the host's own addresses as those of
// any other host, and published ports there without leaving.
func TestHostItself(t *testing.T) {
	for _, host := range []station{hostSelf, alsoHost} {
		r, _ := newSocketsRig(t, nat.Config{})
		wantPair(t, r.mustInside(1, syn(alice, host, 4000, 22)), hostSelf, 4000, host, 22)
		wantPair(t, r.mustOutside(synAck(host, hostSelf, 22, 4000)), host, 22, alice, 4000)
		wantPair(t, r.mustInside(1, packettest.ICMPEcho(alice, host, 7, 1, nil)), hostSelf, 7, host, 0)
		wantPair(t, r.mustOutside(packettest.ICMPEchoReply(host, hostSelf, 7, 1, nil)), host, 0, alice, 7)

		// The port of another's mapping is nobody's: its socket has another one.
		r.mustInside(2, syn(bob, server, 5000, 80))
		wantPair(t, r.mustInside(1, syn(alice, host, 4001, 5000)), hostSelf, 4001, host, 5000)

		r.publishAt(packet.ProtoTCP, packet.Addr{}, 8080, 80)
		f := r.mustInside(2, syn(bob, host, 4000, 8080))
		if k := f.Tuple(); k.Src != addrOf(hostSelf) || k.Dst != addrOf(alice) || k.DstPort != 80 {
			t.Errorf("to a published port: %v", k)
		}
		back := r.mustInside(1, synAck(alice, hostSelf, 80, f.SrcPort))
		wantPair(t, back, host, 8080, bob, 4000)

		// Its answer would go nowhere: it sees the gateway.
		r.gw.SetInternal(true)
		wantPair(t, r.mustInside(2, syn(bob, host, 4005, 8080)), gw, 4005, alice, 80)
	}
}

// TestPublishedSource is that who sends datagrams from a published port is seen
// at the port that is published.
func TestPublishedSource(t *testing.T) {
	type rigUp struct {
		r   *natRig
		own []station
	}
	raw := newNATRig(t, nat.Config{})
	socks, _ := newSocketsRig(t, nat.Config{})
	for name, x := range map[string]rigUp{"raw": {raw, []station{masqueraded}}, "sockets": {socks, []station{hostSelf, alsoHost}}} {
		r := x.r
		r.publishAt(packet.ProtoUDP, packet.Addr{}, 8053, 53)
		f := r.mustInside(1, packettest.UDP(alice, server, 53, 7000, nil))
		wantPair(t, f, masqueraded, 8053, server, 7000)
		wantPair(t, r.mustOutside(packettest.UDP(server, masqueraded, 7000, 8053, nil)), server, 7000, alice, 53)
		// Another sender at that port, and another port of the container.
		wantPair(t, r.mustOutside(packettest.UDP(someRouter, masqueraded, 7000, 8053, nil)), someRouter, 7000, alice, 53)
		wantPair(t, r.mustInside(1, packettest.UDP(alice, server, 54, 7000, nil)), masqueraded, r.lastSource(), server, 7000)
		if d, _ := r.inside(1, syn(alice, server, 53, 7000)); d.NAT.Kind != packet.NATMasquerade {
			t.Errorf("%s: TCP: %+v", name, d.NAT)
		}

		// Bound to an address: that one, if it can leave here.
		for i, at := range x.own {
			inside := uint16(60 + i)
			r.publishAt(packet.ProtoUDP, addrOf(at), 9000+inside, inside)
			wantPair(t, r.mustInside(1, packettest.UDP(alice, server, inside, 7000, nil)), at, 9000+inside, server, 7000)
		}
		for i, at := range []station{onHost, stationAt("192.0.2.99")} {
			inside := uint16(70 + i)
			r.publishAt(packet.ProtoUDP, addrOf(at), 9000+inside, inside)
			if d, _ := r.inside(1, packettest.UDP(alice, server, inside, 7000, nil)); d.NAT.Kind != packet.NATMasquerade || d.NAT.After.Src != addrOf(masqueraded) {
				t.Errorf("%s: bound to %v: %+v", name, at.IP, d.NAT)
			}
		}
	}
}

// lastSource is the outside port of the flow that was made last.
func (r *natRig) lastSource() uint16 {
	list := r.flows()
	return slices.MaxFunc(list, func(a, b nat.FlowInfo) int { return int(a.Number) - int(b.Number) }).Reply.DstPort
}
