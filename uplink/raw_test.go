package uplink

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"fairlead/arp"
	"fairlead/gateway"
	"fairlead/packet"
	"fairlead/packet/packettest"
	vswitch "fairlead/switch"
)

var (
	_ vswitch.Gateway = (*Raw)(nil)
	_ gateway.Uplink  = (*Raw)(nil)
)

// TestStart: an address is probed for three times, is ours after 300 ms, and is
// announced twice. Then there is silence.
func TestStart(t *testing.T) {
	r := newRig(t, static)
	r.run(299 * second / 1000)
	if r.u.Owns(addrOf(us)) || r.u.Addr() != (packet.Addr{}) || r.u.Subnet().IsValid() || r.u.NextHop() != (packet.Addr{}) {
		t.Error("the address is used while it is probed for")
	}
	if d := r.resolve(1, addrOf(router)); d.Reason != packet.HostUnreachable {
		t.Errorf("without an address the router is %v", d.Reason)
	}
	if s := r.u.State(r.now); len(s.Claims) != 2 || s.Claims[0].State != arp.Probing || s.Addr.IsValid() || s.Problem != nil {
		t.Errorf("%+v", s)
	}
	select {
	case <-r.u.Ready():
		t.Error("ready while it probes")
	default:
	}
	r.run(second / 1000)
	<-r.u.Ready()
	if r.u.Addr() != addrOf(us) || !r.u.Owns(addrOf(us)) || !r.u.Owns(addrOf(extra)) || r.u.Owns(addrOf(alice)) ||
		r.u.Subnet() != netip.MustParsePrefix("192.0.2.0/24") || r.u.NextHop() != addrOf(router) {
		t.Error("after 300 ms the address is not ours")
	}
	r.run(3600 * second)
	var want []string
	for range 3 {
		want = append(want, "probe 192.0.2.2", "probe 192.0.2.50")
	}
	for range 2 {
		want = append(want, "announce 192.0.2.2", "announce 192.0.2.50")
	}
	if got := r.arps(); !slices.Equal(got, want) {
		t.Errorf("said\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if r.wake != 0 {
		t.Error("an idle uplink has itself woken")
	}
	s := r.u.State(r.now)
	if s.Addr != static.Addr || s.Gateway != router.IP || s.MTU != 1500 || s.DHCP != "" || s.Problem != nil {
		t.Errorf("%+v", s)
	}
	if r.u.Name() != "up0" || r.u.Network() != network || r.u.MAC() != us.MAC || r.u.MTU() != 1500 || r.u.Routes() != nil {
		t.Error("it does not say what it was made from")
	}
}

func TestRefusedConfigurations(t *testing.T) {
	six := netip.MustParseAddr("2001:db8::1")
	for _, conf := range []Config{
		{Name: "up0"},
		{Name: "up0", Addr: netip.PrefixFrom(six, 64)},
		{Name: "up0", Addr: static.Addr, Extra: []netip.Addr{six}},
	} {
		if _, err := New(conf, nil); err == nil || !strings.Contains(err.Error(), "up0") || !strings.Contains(err.Error(), "192.0.2.") {
			t.Errorf("%+v: %v", conf, err)
		}
	}
}

// TestAnswers: who gets an answer, and who is taken into the table.
func TestAnswers(t *testing.T) {
	ask := func(s, about station) []byte { return packettest.ARPRequest(s, about.IP) }
	group := station{MAC: packet.MAC{1, 0, 0, 0, 0, 9}, IP: alice.IP}
	far := stationAt("198.51.100.9")
	for _, c := range []struct {
		name   string
		frame  []byte
		answer string
		learns bool
	}{
		{"asks for us", ask(alice, us), "192.0.2.2 is at " + us.MAC.String(), true},
		{"asks for a further address", ask(alice, extra), "192.0.2.50 is at " + us.MAC.String(), true},
		{"asks for another", ask(alice, bob), "", false},
		{"announces itself", ask(alice, alice), "", false},
		{"answers us, unasked", packettest.ARPReply(alice, us), "", true},
		{"answers another", packettest.ARPReply(alice, bob), "", false},
		{"probes for our address", ask(station{MAC: alice.MAC, IP: nobody}, us), "192.0.2.2 is at " + us.MAC.String(), false},
		{"of another subnet", ask(far, us), "192.0.2.2 is at " + us.MAC.String(), false},
		{"with a group's MAC", ask(group, us), "", false},
		{"of another VLAN", packettest.Tagged(ask(alice, us), 7), "", false},
		{"with the broadcast address", ask(station{MAC: alice.MAC, IP: netip.MustParseAddr("192.0.2.255")}, us), "192.0.2.2 is at " + us.MAC.String(), false},
		{"with our address", ask(rival, extra), "announce 192.0.2.2", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := up(t, static)
			r.receive(c.frame)
			r.run(second / 1000)
			if got := strings.Join(r.arps(), ", "); got != c.answer {
				t.Errorf("said %q, want %q", got, c.answer)
			}
			if n := len(r.u.State(r.now).Neighbours); (n == 1) != c.learns || n > 1 {
				t.Errorf("%d neighbours", n)
			}
		})
	}
	r := newRig(t, static) // while it is probed for
	r.run(second / 10)
	r.sent = nil
	r.receive(ask(alice, us))
	if got := r.arps(); got != nil {
		t.Errorf("said %v for an address that is not ours yet", got)
	}
}

// TestWhatElseComes: IPv4 for our MAC goes on to the router, nothing else does.
func TestWhatElseComes(t *testing.T) {
	group := station{MAC: packet.MAC{1, 0, 0x5e, 0, 0, 1}, IP: netip.MustParseAddr("224.0.0.1")}
	sharing := station{MAC: us.MAC, IP: netip.MustParseAddr("192.0.2.99")}
	for _, c := range []struct {
		name   string
		frame  []byte
		reason packet.Reason
		routed bool
	}{
		{"for us", packettest.UDP(alice, us, 5, 6, nil), packet.Routed, true},
		{"for another address", packettest.ICMPEcho(alice, sharing, 1, 1, nil), packet.Routed, true},
		{"DHCP, and there is no client", packettest.UDP(alice, us, 67, 68, nil), packet.Routed, true},
		{"IPv6", packettest.ICMPEcho(alice.IPv6(), us.IPv6(), 1, 1, nil), packet.NotForUs, false},
		{"something", packettest.Ethernet(alice.MAC, us.MAC, 0x88cc, make([]byte, 46)), packet.NotForUs, false},
		{"of another VLAN", packettest.Tagged(packettest.UDP(alice, us, 5, 6, nil), 7), packet.NotForUs, false},
		{"to everybody", packettest.UDP(alice, packettest.Broadcast, 5, 6, nil), packet.ToGroup, false},
		{"to a group", packettest.UDP(alice, group, 5, 6, nil), packet.ToGroup, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := up(t, static)
			if d := r.receive(c.frame); d.Reason != c.reason {
				t.Errorf("%v, want %v", d.Reason, c.reason)
			}
			if (r.applied == 1) != c.routed || r.applied > 1 || (r.routed > 0) != c.routed {
				t.Errorf("the router has %d frames", r.applied)
			}
			if len(r.sent) > 0 {
				t.Errorf("sent % x", r.sent)
			}
		})
	}
}

// TestResolve asks for a next hop: the packet waits until the answer is here.
func TestResolve(t *testing.T) {
	r := up(t, static)
	key := packet.ARPKey(network, router.IP.As4())
	d := r.resolve(1, addrOf(router))
	if d.Verdict != packet.Hold || d.Reason != packet.NextHop || d.HoldKey != key {
		t.Errorf("%+v", d)
	}
	if d := r.resolve(2, addrOf(router)); d.Verdict != packet.Hold || d.Originate != packet.OriginNone {
		t.Errorf("the second packet: %+v", d)
	}
	if got := r.arps(); !slices.Equal(got, []string{"who has 192.0.2.1 tell 192.0.2.2"}) {
		t.Errorf("said %v", got)
	}
	if d := r.receive(packettest.ARPReply(router, us)); !d.Neighbour || d.Reason != packet.ForGateway {
		t.Errorf("%+v", d)
	}
	if !slices.Equal(r.resumed, []uint64{key}) {
		t.Errorf("resumed %v", r.resumed)
	}
	d = r.resolve(1, addrOf(router))
	want := packet.Decision{Verdict: packet.Gateway, Reason: packet.ForGateway, NextHop: addrOf(router),
		SrcMAC: us.MAC, DstMAC: router.MAC, Egress: packet.Place{Network: network, Port: port}}
	if d != want {
		t.Errorf("got  %+v\nwant %+v", d, want)
	}
	r.run(10 * second)
	if n := len(r.arps()); n != 1 {
		t.Errorf("asked %d times", n)
	}

	// A minute later it is asked again, and used meanwhile.
	r.run(60 * second)
	d = r.resolve(1, addrOf(router))
	if d.DstMAC != router.MAC || d.Verdict != packet.Gateway || len(r.arps()) != 2 {
		t.Errorf("%+v, %v", d, r.arps())
	}
	if d := r.resolve(1, addrOf(router)); d.Originate != packet.OriginNone || d.DstMAC != router.MAC {
		t.Errorf("asked already: %+v", d)
	}

	r.u.FlushPort(port)
	if e := r.neighbour(router); e.State != arp.Incomplete { // it was just being asked
		t.Errorf("%v", e.State)
	}
}

// Copies of a flooded frame do not wait: the router's is lost, but asks.
func TestResolveFlooded(t *testing.T) {
	r := up(t, static)
	f := &packet.Frame{Time: r.now}
	for _, hop := range []station{router, stationAt("192.0.2.255")} {
		d := packet.Decision{Verdict: packet.Flood, Reason: packet.HubMode, NextHop: addrOf(hop)}
		r.u.Resolve(f, addrOf(hop), &d)
		if d.Verdict != packet.Flood || d.Egress != (packet.Place{}) || (d.Originate == packet.OriginARPRequest) != (hop == router) {
			t.Errorf("%v: %+v", hop.IP, d)
		}
	}
}

// TestReaches: which addresses are stations of the segment.
func TestReaches(t *testing.T) {
	for _, c := range []struct {
		prefix, router, hop string
		want                bool
	}{
		{"192.0.2.2/24", "192.0.2.1", "192.0.2.1", true},
		{"192.0.2.2/24", "192.0.2.1", "192.0.2.200", true},
		{"192.0.2.2/24", "192.0.2.1", "192.0.2.2", false},  // us
		{"192.0.2.2/24", "192.0.2.1", "192.0.2.50", false}, // us as well
		{"192.0.2.2/24", "192.0.2.1", "192.0.2.255", false},
		{"192.0.2.2/24", "192.0.2.1", "192.0.2.0", false},
		{"192.0.2.2/24", "192.0.2.1", "192.0.3.1", false},
		{"192.0.2.2/24", "192.0.2.1", "fe80::1", false},
		{"192.0.2.2/31", "192.0.2.3", "192.0.2.3", true}, // RFC 3021
		{"192.0.2.2/32", "198.51.100.1", "198.51.100.1", true},
		{"192.0.2.2/32", "198.51.100.1", "198.51.100.2", false},
	} {
		conf := static
		conf.Addr, conf.Gateway = netip.MustParsePrefix(c.prefix), netip.MustParseAddr(c.router)
		r := up(t, conf)
		hop := packet.AddrFromNetip(netip.MustParseAddr(c.hop))
		if d := r.resolve(1, hop); (d.Verdict == packet.Hold) != c.want {
			t.Errorf("from %s to %s: %v", c.prefix, c.hop, d.Reason)
		}
	}
}

// TestNobodyAnswers: three requests, then the packets that wait go on and are
// refused, and the station is left alone for three seconds.
func TestNobodyAnswers(t *testing.T) {
	r := up(t, static)
	began := r.now
	r.resolve(1, addrOf(router))
	r.run(3*second - 1)
	if len(r.resumed) != 0 || r.neighbour(router).State != arp.Incomplete {
		t.Error("given up too early")
	}
	r.run(1)
	if !slices.Equal(r.resumed, []uint64{packet.ARPKey(network, router.IP.As4())}) {
		t.Errorf("resumed %v", r.resumed)
	}
	if d := r.resolve(1, addrOf(router)); d.Verdict != packet.Drop || d.Reason != packet.HostUnreachable || d.Originate != packet.OriginNone {
		t.Errorf("%+v", d)
	}
	if err := r.u.State(r.now).Problem; err == nil || !strings.Contains(err.Error(), "192.0.2.1") {
		t.Errorf("the problem is told as %v", err)
	}
	r.run(3 * second)
	if n := len(r.sent); n != 3 || r.at[0] != began || r.at[1] != began+second || r.at[2] != began+2*second {
		t.Errorf("%d requests at %v, from %d on", n, r.at, began)
	}
	if d := r.resolve(1, addrOf(router)); d.Verdict != packet.Hold || len(r.sent) != 4 {
		t.Errorf("after the silence: %+v", d)
	}
	if r.u.State(r.now).Problem != nil {
		t.Error("it is being asked again, and called a problem")
	}
}

// TestFlood: ARP made up by a station of the segment fills a bounded table and
// does not push out whom we talk to.
func TestFlood(t *testing.T) {
	conf := static
	conf.Addr = netip.MustParsePrefix("10.1.0.2/16")
	conf.Gateway, conf.Extra = netip.MustParseAddr("10.1.0.1"), nil
	r := up(t, conf)
	gw := stationAt("10.1.0.1")
	r.resolve(1, addrOf(gw))
	r.receive(packettest.ARPReply(gw, station{MAC: us.MAC, IP: conf.Addr.Addr()}))
	b := packettest.ARPRequest(alice, conf.Addr.Addr())
	a := packet.ARP(b[packet.VNetLen+packet.EthernetLen:])
	for n := range 5000 {
		a.SetSenderIP([4]byte{10, 1, byte(1 + n>>8), byte(n)})
		d := lookedUp(r.frame(b))
		r.u.Route(r.frame(b), &d)
		r.u.Apply(r.frame(b), &d, r)
	}
	if n := len(r.u.State(r.now).Neighbours); n != maxNeighbours {
		t.Errorf("%d neighbours", n)
	}
	if d := r.resolve(1, addrOf(gw)); d.DstMAC != gw.MAC {
		t.Errorf("the router was pushed out: %+v", d)
	}
}

// TestScan: a container that looks for stations asks for a bounded number, and
// is told at once that the others are unreachable. Other containers ask all the
// same.
func TestScan(t *testing.T) {
	r := up(t, static)
	for n := range 200 {
		d := r.resolve(66, packet.AddrFrom4([4]byte{192, 0, 2, byte(n + 51)}))
		if waits := d.Verdict == packet.Hold; waits != (n < arp.MaxAsking) || !waits && (d.Verdict != packet.Drop || d.Reason != packet.HostUnreachable) {
			t.Fatalf("packet %d: %+v", n, d)
		}
	}
	if n := len(r.sent); n != arp.MaxAsking {
		t.Errorf("%d requests at once", n)
	}
	r.resolve(1, addrOf(router))
	if n := len(r.sent); n != arp.MaxAsking+1 {
		t.Error("another container may not ask")
	}
}

// TestConflictAtStart: an address that somebody has is not used, and tried again
// after a minute.
func TestConflictAtStart(t *testing.T) {
	r := newRig(t, static)
	r.answer = func(b []byte) {
		if words(packet.ARP(r.frame(b).Packet())) == "probe 192.0.2.2" {
			r.waiting = append(r.waiting, packettest.ARPReply(rival, station{MAC: us.MAC, IP: nobody}))
		}
	}
	r.run(10 * second)
	if r.u.Owns(addrOf(us)) || r.u.Addr() != (packet.Addr{}) || !r.u.Owns(addrOf(extra)) {
		t.Error("the address is used, or the other one is not")
	}
	s := r.u.State(r.now)
	if s.Claims[0].State != arp.Conflicting || s.Claims[0].Rival != rival.MAC || s.Problem == nil ||
		!strings.Contains(s.Problem.Error(), rival.MAC.String()) || !strings.Contains(s.Problem.Error(), "in use") {
		t.Errorf("%+v", s)
	}
	r.answer = nil // it is taken off there
	r.run(60 * second)
	if r.u.Addr() != addrOf(us) || r.u.State(r.now).Problem != nil {
		t.Errorf("it is free now: %+v", r.u.State(r.now))
	}
}

// TestProbe: whether an address is free is found out before it is the uplink's,
// and it is neither announced nor answered for.
func TestProbe(t *testing.T) {
	r := up(t, static)
	r.answer = func(b []byte) {
		if words(packet.ARP(r.frame(b).Packet())) == "probe 192.0.2.10" {
			r.waiting = append(r.waiting, packettest.ARPReply(alice, station{MAC: us.MAC, IP: nobody}))
		}
	}
	taken, free := r.u.Probe(alice.IP), r.u.Probe(bob.IP)
	r.wake = r.now
	r.run(second)
	if err := <-taken; err == nil || !strings.HasPrefix(err.Error(), "192.0.2.10 is in use by "+alice.MAC.String()+"; ") {
		t.Errorf("the one that is in use: %v", err)
	}
	if err := <-free; err != nil {
		t.Errorf("the one that is free: %v", err)
	}
	if got := r.arps(); !slices.Equal(got, []string{"probe 192.0.2.10", "probe 192.0.2.11", "probe 192.0.2.11", "probe 192.0.2.11"}) {
		t.Errorf("said %v", got)
	}
	if r.u.Owns(addrOf(bob)) || len(r.u.probes) != 0 || r.u.State(r.now).Problem != nil {
		t.Errorf("%+v", r.u.State(r.now))
	}
	r.run(60 * second)
	if len(r.sent) != 4 {
		t.Errorf("and then %v", r.arps())
	}
}

// TestConflictInUse: an address in use is defended, once in ten seconds, and
// never given up.
func TestConflictInUse(t *testing.T) {
	r := up(t, static)
	for range 30 {
		r.receive(packettest.ARPRequest(rival, alice.IP))
		r.run(second)
	}
	if got := r.arps(); !slices.Equal(got, slices.Repeat([]string{"announce 192.0.2.2"}, 3)) {
		t.Errorf("said %v", got)
	}
	s := r.u.State(r.now)
	if !r.u.Owns(addrOf(us)) || len(s.Neighbours) != 0 || s.Problem == nil || !strings.Contains(s.Problem.Error(), "as well") {
		t.Errorf("%+v", s)
	}
	r.run(61 * second)
	if r.u.State(r.now).Problem != nil {
		t.Error("told still, although it is over")
	}
}

// TestAllocations: what is asked for each packet costs no memory.
func TestAllocations(t *testing.T) {
	r := up(t, static)
	r.resolve(1, addrOf(router))
	r.receive(packettest.ARPReply(router, us))
	f := &packet.Frame{Time: r.now, Container: 1}
	hop, far := addrOf(router), addrOf(stationAt("192.0.2.77"))
	var d packet.Decision
	n := testing.AllocsPerRun(100, func() {
		d = packet.Decision{Verdict: packet.Gateway}
		r.u.Resolve(f, hop, &d)
		d = packet.Decision{Verdict: packet.Gateway}
		r.u.Resolve(f, far, &d)
		_ = r.u.Owns(hop) || r.u.Addr() == hop || r.u.NextHop() == hop || r.u.Subnet().Contains(hop.Netip()) || r.u.MTU() == 0
	})
	if n != 0 {
		t.Errorf("%v allocations for a packet that leaves", n)
	}
	in := r.frame(packettest.UDP(alice, us, 5, 6, nil))
	ask := r.frame(packettest.ARPRequest(router, us.IP))
	if n := testing.AllocsPerRun(100, func() {
		d = packet.Decision{Verdict: packet.Gateway}
		r.u.Route(in, &d)
		r.u.Apply(in, &d, r)
		d = packet.Decision{Verdict: packet.Flood}
		r.u.Route(ask, &d)
	}); n != 0 {
		t.Errorf("%v allocations for a packet that comes in", n)
	}
}

func BenchmarkResolve(b *testing.B) {
	r := up(b, static)
	r.resolve(1, addrOf(router))
	r.receive(packettest.ARPReply(router, us))
	f, hop := &packet.Frame{Time: r.now}, addrOf(router)
	b.ReportAllocs()
	for b.Loop() {
		d := packet.Decision{Verdict: packet.Gateway}
		r.u.Resolve(f, hop, &d)
	}
}
