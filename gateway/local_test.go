package gateway

import (
	"bytes"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"fairlead/nat"
	"fairlead/packet"
	"fairlead/packet/packettest"
)

// A fakeDNS keeps questions and their way back.
type fakeDNS struct {
	asked []Question
	reply []func([]byte)
	full  bool
}

func (n *fakeDNS) Query(q Question, reply func([]byte)) bool {
	if n.full {
		return false
	}
	n.asked, n.reply = append(n.asked, q), append(n.reply, reply)
	return true
}

func newDNSRig(t *testing.T) (*natRig, *fakeDNS, *int) {
	r, dns, woken := newNATRig(t, nat.Config{}), new(fakeDNS), new(int)
	r.gw.SetDNS(dns, func() { *woken++ })
	return r, dns, woken
}

func (r *natRig) tick() {
	r.gw.Tick(r.now, r.out())
}

func TestDNS(t *testing.T) {
	r, dns, woken := newDNSRig(t)
	question, reply := []byte("who is example.org?"), []byte("it is 203.0.113.5")
	for i, b := range [][]byte{
		packettest.UDP(alice, gw, 4000, 53, question),
		packettest.Partial(packettest.UDP(alice, gw, 4000, 53, question)),
		packettest.Tagged(packettest.UDP(alice, gw, 4000, 53, question), 7),
		withoutSum(packettest.UDP(alice, gw, 4000, 53, question)),
		withTTL(packettest.UDP(alice, gw, 4000, 53, question), 1),
	} {
		d, f := r.inside(1, b)
		if f != nil || d.Verdict != packet.Gateway || d.Reason != packet.ForGateway || !d.Query || d.NAT.New {
			t.Fatalf("%d: %+v", i, d)
		}
		want := Question{Network: natNetwork, Container: 1, Port: 1, MAC: alice.MAC,
			From: packet.Tuple{Src: addrOf(alice), Dst: addrOf(gw), SrcPort: 4000, DstPort: 53, Proto: packet.ProtoUDP}, Payload: question}
		if q := dns.asked[i]; q.Network != want.Network || q.Container != want.Container || q.From != want.From || q.Port != want.Port || q.MAC != want.MAC || !bytes.Equal(q.Payload, question) {
			t.Errorf("%d: asked %+v", i, q)
		}
		r.sent = nil
		dns.reply[i](reply)
		if *woken != i+1 {
			t.Errorf("%d: woken %d times", i, *woken)
		}
		r.tick()
		if len(r.sent) != 1 || r.sent[0].to != (packet.Place{Network: natNetwork, Port: 1}) {
			t.Fatalf("%d: sent %+v", i, r.sent)
		}
		a := r.answer()
		ether := packet.Ethernet(a.Ether())
		if u := packet.UDP(a.Transport()); !bytes.Equal(u.Payload(), reply) || ether.Src() != gw.MAC || ether.Dst() != alice.MAC ||
			packet.IPv4(a.Packet()).TTL() != 64 {
			t.Errorf("%d: % x", i, a.B)
		}
		wantPair(t, a, gw, 53, alice, 4000)
		if asked := r.frame(natNetwork, 1, b); a.Tags != asked.Tags || a.VLAN != asked.VLAN {
			t.Errorf("%d: tags %v", i, a.VLAN)
		}
	}
	if flows := r.flows(); len(flows) != 0 {
		t.Errorf("flows %+v", flows)
	}
}

// TestNameserver asks at the address containers have on their own loopback, for
// which no other packet may be.
func TestNameserver(t *testing.T) {
	r, dns, _ := newDNSRig(t)
	self := station{MAC: gw.MAC, IP: Nameserver}
	if d, _ := r.inside(1, packettest.UDP(alice, self, 4000, 53, []byte("who?"))); d.Verdict != packet.Gateway || !d.Query {
		t.Fatalf("%+v", d)
	}
	r.sent = nil
	dns.reply[0]([]byte("it is"))
	r.tick()
	a := r.answer()
	if packet.Ethernet(a.Ether()).Src() != gw.MAC {
		t.Errorf("% x", a.B)
	}
	wantPair(t, a, self, 53, alice, 4000)
	r.gw.SetDHCP(new(fakeDHCP), func() {})
	damaged := packettest.UDP(alice, self, 4000, 53, []byte("who?"))
	packet.IPv4(payload(damaged)).SetChecksum(1)
	for name, b := range map[string][]byte{
		"DHCP": packettest.UDP(alice, self, 68, 67, []byte("?")), "another port": packettest.UDP(alice, self, 4000, 54, nil),
		"from loopback": packettest.UDP(self, self, 4000, 53, []byte("who?")), "damaged": damaged,
		"another": packettest.UDP(alice, station{MAC: gw.MAC, IP: netip.MustParseAddr("127.0.0.12")}, 4000, 53, nil),
	} {
		if d, _ := r.inside(1, b); d.Reason != packet.Martian {
			t.Errorf("%s: %+v", name, d)
		}
	}
	r.gw.SetDNS(nil, nil)
	if d, _ := r.inside(1, packettest.UDP(alice, self, 4000, 53, nil)); d.Reason != packet.Martian {
		t.Errorf("without DNS: %+v", d)
	}
}

// A fakeDHCP keeps messages and their way back.
type fakeDHCP struct {
	asked []Question
	reply []func(Offer)
	full  bool
}

func (s *fakeDHCP) Message(q Question, reply func(Offer)) bool {
	if s.full {
		return false
	}
	s.asked, s.reply = append(s.asked, q), append(s.reply, reply)
	return true
}

func TestDHCP(t *testing.T) {
	r, server, woken := newNATRig(t, nat.Config{}), new(fakeDHCP), 0
	r.gw.SetDHCP(server, func() { woken++ })
	nobody := with(alice, "0.0.0.0")
	for i, c := range []struct {
		b   []byte
		to  station // whom the answer is for
		why packet.Reason
	}{
		{packettest.UDP(nobody, packettest.Broadcast, 68, 67, []byte("discover")), packettest.Broadcast, packet.ToGroup},
		{packettest.UDP(nobody, packettest.Broadcast, 68, 67, []byte("discover")), alice, packet.ToGroup},
		{packettest.UDP(alice, packettest.Broadcast, 68, 67, []byte("rebind")), alice, packet.ToGroup},
		{packettest.Tagged(packettest.UDP(nobody, packettest.Broadcast, 68, 67, []byte("tagged")), 7), packettest.Broadcast, packet.ToGroup},
		{packettest.UDP(alice, gw, 68, 67, []byte("renew")), alice, packet.ForGateway},
		{packettest.UDP(alice, gw, 1068, 67, []byte("as a plain user")), alice, packet.ForGateway},
	} {
		d, _ := r.inside(1, c.b)
		if !d.Query || d.Reason != c.why || d.Routed {
			t.Fatalf("%d: %+v", i, d)
		}
		asked := r.frame(natNetwork, 1, c.b)
		if q := server.asked[i]; q.MAC != alice.MAC || q.Port != 1 || q.Container != 1 || q.Network != natNetwork || q.From != asked.Tuple() {
			t.Errorf("%d: asked %+v", i, q)
		}
		r.sent = nil
		server.reply[i](Offer{Payload: []byte("offer"), MAC: c.to.MAC, Addr: c.to.IP})
		if r.tick(); woken != i+1 || len(r.sent) != 1 || r.sent[0].to != (packet.Place{Network: natNetwork, Port: 1}) {
			t.Fatalf("%d: sent %+v, woken %d times", i, r.sent, woken)
		}
		a := r.answer()
		if ether := packet.Ethernet(a.Ether()); ether.Src() != gw.MAC || ether.Dst() != c.to.MAC || a.Tags != asked.Tags {
			t.Errorf("%d: % x", i, a.B)
		}
		wantPair(t, a, gw, 67, c.to, 68)
	}

	// What else is for everybody stays theirs.
	n := len(server.asked)
	damaged := packettest.UDP(nobody, packettest.Broadcast, 68, 67, []byte("?"))
	damaged[len(damaged)-1] ^= 1
	first := packettest.UDP(nobody, packettest.Broadcast, 68, 67, make([]byte, 64))
	packet.IPv4(payload(first)).SetFragment(false, true, 0)
	header := packettest.UDP(nobody, packettest.Broadcast, 68, 67, []byte("?"))
	packet.IPv4(payload(header)).SetChecksum(1)
	for name, b := range map[string][]byte{
		"damaged": damaged, "its header damaged": header, "a first fragment": resum(first),
		"a server's":    packettest.UDP(alice, packettest.Broadcast, 67, 68, []byte("?")),
		"of the subnet": packettest.UDP(alice, station{MAC: packet.BroadcastMAC, IP: Broadcast(subnet)}, 68, 67, nil),
		"of a group":    packettest.UDP(alice, station{MAC: packet.MAC{1, 0, 0x5e, 0, 0, 1}, IP: packettest.Broadcast.IP}, 68, 67, nil),
		"for names":     packettest.UDP(alice, packettest.Broadcast, 4000, 53, []byte("?")),
		"not IPv4":      packettest.Ethernet(alice.MAC, packet.BroadcastMAC, 0x88b5, make([]byte, 46)),
	} {
		if d, _ := r.inside(1, b); d.Verdict != packet.Flood || d.Query {
			t.Errorf("%s: %+v", name, d)
		}
	}
	server.full = true
	if d, _ := r.inside(1, packettest.UDP(alice, packettest.Broadcast, 68, 67, []byte("?"))); d.Verdict != packet.Flood {
		t.Errorf("one too many, for everybody: %+v", d)
	}
	if d, _ := r.inside(1, packettest.UDP(alice, gw, 68, 67, []byte("?"))); d.Verdict != packet.Drop || d.Reason != packet.DHCPBusy {
		t.Errorf("one too many: %+v", d)
	}
	if len(server.asked) != n {
		t.Errorf("asked %+v", server.asked[n:])
	}
	r.gw.SetDHCP(nil, nil)
	if d, _ := r.inside(1, packettest.UDP(alice, gw, 68, 67, nil)); d.Reason != packet.Refused || d.Originate != packet.OriginPortUnreachable {
		t.Errorf("without DHCP: %+v", d)
	}
	if d, _ := r.inside(1, packettest.UDP(alice, packettest.Broadcast, 68, 67, nil)); d.Query {
		t.Errorf("without DHCP: %+v", d)
	}
}

// TestAsksDHCP is the gateway's side of a station that asks a server on the network.
func TestAsksDHCP(t *testing.T) {
	r := newNATRig(t, nat.Config{})
	r.gw.SayDHCP(alice.MAC, []byte("discover"))
	r.tick()
	to := r.sent[0].to
	a := r.answer()
	if ether := packet.Ethernet(a.Ether()); to != (packet.Place{Network: natNetwork}) || ether.Src() != alice.MAC || !ether.Dst().IsGroup() ||
		string(packet.UDP(a.Transport()).Payload()) != "discover" {
		t.Errorf("to %+v: % x", to, a.B)
	}
	wantPair(t, a, with(alice, "0.0.0.0"), 68, packettest.Broadcast, 67)

	var heard [][]byte
	offer := packettest.UDP(bob, packettest.Broadcast, 67, 68, []byte("offer"))
	if d, _ := r.inside(2, offer); d.Query {
		t.Errorf("nobody asked: %+v", d)
	}
	r.gw.SetDHCPClient(func(b []byte) { heard = append(heard, b) })
	if d, _ := r.inside(2, offer); !d.Query || d.Verdict != packet.Flood || len(heard) != 1 || string(heard[0]) != "offer" {
		t.Errorf("%+v, heard %q", d, heard)
	}
	for name, b := range map[string][]byte{
		"no server's": packettest.UDP(bob, packettest.Broadcast, 4000, 68, nil), "no server's, to us": packettest.UDP(bob, gw, 4000, 68, nil),
	} {
		if d, _ := r.inside(2, b); d.Query {
			t.Errorf("%s: %+v", name, d)
		}
	}
	r.gw.SetDHCPClient(nil)
	if r.inside(2, offer); len(heard) != 1 {
		t.Errorf("heard %q", heard)
	}
}

func withoutSum(b []byte) []byte {
	packet.UDP(payload(b)[packet.IPv4MinLen:]).SetChecksum(0)
	return b
}

// TestDNSTrain is several questions in one frame.
func TestDNSTrain(t *testing.T) {
	r, dns, _ := newDNSRig(t)
	train := packettest.GSO(packettest.UDP(alice, gw, 4000, 53, []byte("A?AAAA?MX")), 4)
	if _, _ = r.inside(1, train); len(dns.asked) != 3 || string(dns.asked[1].Payload) != "AA?M" || string(dns.asked[2].Payload) != "X" {
		t.Errorf("asked %+v", dns.asked)
	}
}

func TestDNSRefused(t *testing.T) {
	r, dns, _ := newDNSRig(t)
	damaged := packettest.UDP(alice, gw, 4000, 53, []byte("who?"))
	damaged[len(damaged)-1] ^= 1
	first := packettest.UDP(alice, gw, 4000, 53, make([]byte, 64))
	packet.IPv4(payload(first)).SetFragment(false, true, 0)
	for name, b := range map[string][]byte{
		"damaged": damaged, "a first fragment": resum(first), "too large": packettest.UDP(alice, gw, 4000, 53, make([]byte, maxQuestion)),
	} {
		if d, _ := r.inside(1, b); d.Verdict != packet.Drop || d.Reason != packet.NotUnderstood || d.Query {
			t.Errorf("%s: %+v", name, d)
		}
	}
	// A later one never sees the first.
	later := packettest.UDP(alice, gw, 4000, 53, make([]byte, 64))
	packet.IPv4(payload(later)).SetFragment(false, false, 8)
	f := r.frame(natNetwork, 1, resum(later))
	f.Flags |= packet.Resumed
	d := lookedUp(f, false)
	if r.gw.Route(f, &d); d.Reason != packet.FragmentOrphan {
		t.Errorf("a later fragment: %+v", d)
	}
	dns.full = true
	if d, _ := r.inside(1, packettest.UDP(alice, gw, 4000, 53, []byte("?"))); d.Verdict != packet.Drop || d.Reason != packet.DNSBusy {
		t.Errorf("one too many: %+v", d)
	}
	if len(dns.asked) != 0 {
		t.Errorf("asked %+v", dns.asked)
	}

	// Other ports, other addresses, other protocols are no question.
	r.sent = nil
	if d, _ := r.inside(1, packettest.UDP(alice, gw, 4000, 54, nil)); d.Reason != packet.Refused {
		t.Errorf("another port: %+v", d)
	}
	if d, _ := r.inside(1, packettest.UDP(alice, server, 4000, 53, nil)); d.Reason != packet.Routed {
		t.Errorf("another server: %+v", d)
	}
	r.gw.SetDNS(nil, nil)
	if d, _ := r.inside(1, packettest.UDP(alice, gw, 4000, 53, nil)); d.Reason != packet.Refused || d.Originate != packet.OriginPortUnreachable {
		t.Errorf("without DNS: %+v", d)
	}
	r.tick() // with answers under way
}

// TestDNSIsBounded has answers come faster than they are sent, from many
// goroutines.
func TestDNSIsBounded(t *testing.T) {
	r, dns, _ := newDNSRig(t)
	woken := make(chan struct{}, 10*maxAnswers)
	r.gw.SetDNS(dns, func() { woken <- struct{}{} })
	for range 2 * maxAnswers {
		r.inside(1, packettest.UDP(alice, gw, 4000, 53, []byte("?")))
	}
	var all sync.WaitGroup
	for some := range slices.Chunk(dns.reply, 64) {
		all.Go(func() {
			for _, reply := range some {
				reply([]byte("!"))
			}
		})
	}
	all.Wait()
	r.sent = nil
	if r.tick(); len(r.sent) != answersPerContainer || len(woken) != 1 {
		t.Errorf("%d answers, woken %d times", len(r.sent), len(woken))
	}
	r.sent = nil
	if r.tick(); len(r.sent) != 0 {
		t.Errorf("%d answers again", len(r.sent))
	}
	// What does not fit into the MTU stays here.
	dns.reply[0](make([]byte, 1500-28))
	dns.reply[1](make([]byte, 1500-27))
	if r.tick(); len(r.sent) != 1 {
		t.Errorf("%d answers", len(r.sent))
	}
}

// TestAnswersAreShared is that a container cannot keep the answers of others from
// being sent, and that all of them together are bounded.
func TestAnswersAreShared(t *testing.T) {
	var l answers
	by := func(c packet.ContainerID) answer { return answer{by: &asker{container: c}} }
	for range 2 * answersPerContainer {
		l.add(by(1), func() {})
	}
	l.add(by(2), func() {})
	if list := l.take(); len(list) != answersPerContainer+1 || list[len(list)-1].by.container != 2 {
		t.Errorf("%d answers", len(list))
	}
	for i := range 2 * maxAnswers {
		l.add(by(packet.ContainerID(i)), func() {})
	}
	if n := len(l.take()); n != maxAnswers {
		t.Errorf("%d answers", n)
	}
	l.add(by(1), func() {})
	if n := len(l.take()); n != 1 {
		t.Errorf("%d answers: who had his share has it no more", n)
	}
}

// TestDNSBeforePublished is that a container's port 53 does not take the place of
// the node's DNS, and the host's loopback neither.
func TestDNSBeforePublished(t *testing.T) {
	r, dns, _ := newDNSRig(t)
	r.gw.SetHostLoopback(true)
	r.publish(packet.ProtoUDP, 53)
	if r.inside(1, packettest.UDP(alice, gw, 4000, 53, []byte("?"))); len(dns.asked) != 1 {
		t.Error("the question went elsewhere")
	}
}
