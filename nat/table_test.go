package nat

import (
	"errors"
	"net/netip"
	"testing"

	"fairlead/packet"
)

// The lab of these tests: two networks, an uplink, a handful of containers.
const (
	net1, net2 packet.NetworkID = 1, 2
	lan        packet.NetworkID = 100
	lan2       packet.NetworkID = 101

	alice packet.ContainerID = 1<<16 | 1
	bob   packet.ContainerID = 1<<16 | 2
)

var (
	aliceAddr = addr("172.17.0.2")
	bobAddr   = addr("172.17.0.3")
	ours      = addr("192.0.2.10")
	oursToo   = addr("192.0.2.11")
	world     = addr("198.51.100.7")
	world2    = addr("198.51.100.8")
)

func addr(s string) packet.Addr { return packet.AddrFromNetip(netip.MustParseAddr(s)) }

func tuple(p packet.Proto, src packet.Addr, srcPort uint16, dst packet.Addr, dstPort uint16) packet.Tuple {
	return packet.Tuple{Src: src, Dst: dst, SrcPort: srcPort, DstPort: dstPort, Proto: p}
}

func tcp(src packet.Addr, srcPort uint16, dst packet.Addr, dstPort uint16) packet.Tuple {
	return tuple(packet.ProtoTCP, src, srcPort, dst, dstPort)
}

func udp(src packet.Addr, srcPort uint16, dst packet.Addr, dstPort uint16) packet.Tuple {
	return tuple(packet.ProtoUDP, src, srcPort, dst, dstPort)
}

func ping(src packet.Addr, id uint16, dst packet.Addr) packet.Tuple {
	return tuple(packet.ProtoICMP, src, id, dst, 0)
}

// A rig is a table with somebody who owns it.
type rig struct {
	*Table
	t   testing.TB
	now int64
}

func newRig(t testing.TB, c Config) *rig {
	c.Seed = 1
	return &rig{Table: New(c), t: t, now: 1000 * second}
}

// commit makes the flow of a plan that must be possible.
func (r *rig) commit(p Plan, reason packet.Reason) Flow {
	r.t.Helper()
	if reason != packet.OK {
		r.t.Fatalf("no plan: %v", reason)
	}
	f, reason := r.Commit(p, r.now)
	if reason != packet.OK {
		r.t.Fatalf("not committed: %v", reason)
	}
	want := p.Translation
	want.New, want.Flow = false, f.Number()
	if got := r.Translation(f); got != want {
		r.t.Fatalf("committed %+v, planned %+v", got, want)
	}
	return f
}

func (r *rig) out(c packet.ContainerID, k packet.Tuple) Flow {
	r.t.Helper()
	f := r.commit(r.PlanOut(net1, c, k, lan, ours))
	r.Seen(f, r.now, 1, 100, packet.TCPSyn)
	return f
}

func (r *rig) in(k packet.Tuple) Flow {
	r.t.Helper()
	f := r.commit(r.PlanIn(lan, k))
	r.Seen(f, r.now, 1, 100, packet.TCPSyn)
	return f
}

func (r *rig) find(scope packet.NetworkID, k packet.Tuple, flags uint8) Flow {
	r.t.Helper()
	f, ok := r.Find(scope, &k, r.now, flags)
	if !ok {
		r.t.Fatalf("no flow of %v on %d", k, scope)
	}
	return f
}

func (r *rig) publish(rule Rule) Rule {
	r.t.Helper()
	added, err := r.Publish(rule)
	if err != nil {
		r.t.Fatal(err)
	}
	return added
}

// establish has both sides of a TCP connection agree.
func (r *rig) establish(f Flow) {
	r.Seen(Flow{f.ref, true}, r.now, 1, 60, packet.TCPSyn|packet.TCPAck)
	r.Seen(f, r.now, 1, 60, packet.TCPAck)
}

// check compares a translation.
func (r *rig) check(f Flow, want packet.Translation) {
	r.t.Helper()
	want.Flow = f.Number()
	if got := r.Translation(f); got != want {
		r.t.Fatalf("translation\n got %+v\nwant %+v", got, want)
	}
}

func TestMasquerade(t *testing.T) {
	r := newRig(t, Config{})
	rule := r.Masquerade(net1, lan)
	k := tcp(aliceAddr, 40000, world, 80)
	f := r.out(alice, k)
	r.check(f, packet.Translation{Kind: packet.NATMasquerade, Rule: rule.Number, Container: alice, In: net1, Out: lan,
		Before: k, After: tcp(ours, 40000, world, 80)})
	if r.find(net1, k, 0) != f {
		t.Error("the next packet is of another flow")
	}
	back := r.find(lan, tcp(world, 80, ours, 40000), packet.TCPSyn|packet.TCPAck)
	r.check(back, packet.Translation{Kind: packet.NATMasquerade, Rule: rule.Number, Reply: true, Container: alice, In: lan, Out: net1,
		Before: tcp(world, 80, ours, 40000), After: tcp(world, 80, aliceAddr, 40000)})
	if _, ok := r.Find(net2, &k, r.now, 0); ok {
		t.Error("another network's packet is of this flow")
	}
}

func TestPublished(t *testing.T) {
	r := newRig(t, Config{})
	rule := r.publish(Rule{Network: net1, Container: alice, Proto: packet.ProtoTCP, OutsidePort: 8080, Inside: aliceAddr, InsidePort: 80})
	k := tcp(world, 50000, ours, 8080)
	f := r.in(k)
	r.check(f, packet.Translation{Kind: packet.NATPublish, Rule: rule.Number, Container: alice, In: lan, Out: net1,
		Before: k, After: tcp(world, 50000, aliceAddr, 80)})
	back := r.find(net1, tcp(aliceAddr, 80, world, 50000), packet.TCPSyn|packet.TCPAck)
	r.check(back, packet.Translation{Kind: packet.NATPublish, Rule: rule.Number, Reply: true, Container: alice, In: net1, Out: lan,
		Before: tcp(aliceAddr, 80, world, 50000), After: tcp(ours, 8080, world, 50000)})
	if _, reason := r.PlanIn(lan, udp(world, 50000, ours, 8080)); reason != packet.Refused {
		t.Errorf("UDP to a TCP port: %v", reason)
	}
}

// TestPublishConflicts: who may have which port of ours, and Docker's words.
func TestPublishConflicts(t *testing.T) {
	r := newRig(t, Config{})
	rule := func(c packet.ContainerID, outside packet.Addr, port uint16) Rule {
		return Rule{Network: net1, Container: c, Proto: packet.ProtoTCP, Outside: outside, OutsidePort: port, Inside: aliceAddr, InsidePort: 80}
	}
	loopback := addr("127.0.0.1")
	first := r.publish(rule(alice, packet.Addr{}, 8080))
	one := r.publish(rule(alice, ours, 81))
	r.publish(rule(bob, oursToo, 81))
	r.publish(rule(bob, loopback, 82))
	for _, tt := range []struct {
		rule Rule
		want string
	}{
		{rule(bob, packet.Addr{}, 8080), "Bind for 0.0.0.0:8080 failed: port is already allocated"},
		{rule(bob, ours, 8080), "Bind for 192.0.2.10:8080 failed: port is already allocated"},
		{rule(bob, ours, 81), "Bind for 192.0.2.10:81 failed: port is already allocated"},
		{rule(bob, addr("0.0.0.0"), 81), "Bind for 0.0.0.0:81 failed: port is already allocated"},
	} {
		if _, err := r.Publish(tt.rule); !errors.Is(err, ErrAllocated) || err.Error() != tt.want {
			t.Errorf("%v, want %s", err, tt.want)
		}
	}
	other := rule(bob, packet.Addr{}, 8080)
	other.Proto = packet.ProtoUDP
	r.publish(other) // another protocol's ports
	other.Inside = v6Of(bobAddr)
	if v6 := r.publish(other); v6.Outside != (packet.Addr{}) {
		t.Errorf("IPv6 is published at %v", v6.Outside)
	}
	if _, err := r.Publish(other); err == nil || err.Error() != "Bind for [::]:8080 failed: port is already allocated" {
		t.Error(err)
	}

	if !r.Unpublish(first.Number) || r.Unpublish(first.Number) || r.Unpublish(0) || r.Unpublish(99) {
		t.Error("a rule is taken back once")
	}
	if again := r.publish(rule(bob, packet.Addr{}, 8080)); again.Number != first.Number {
		t.Errorf("the free number is %d, got %d", first.Number, again.Number)
	}
	if _, err := r.Publish(rule(alice, packet.Addr{}, 0)); err == nil {
		t.Error("port 0 is published")
	}

	// The address that is named wins, and nobody outside is 127.0.0.1.
	if p, reason := r.PlanIn(lan, tcp(world, 5000, ours, 81)); reason != packet.OK || p.Rule != one.Number {
		t.Errorf("rule %d, %v", p.Rule, reason)
	}
	if _, reason := r.PlanIn(lan, tcp(world, 5000, ours, 82)); reason != packet.Refused {
		t.Errorf("published for the host only: %v", reason)
	}
}

func TestOneToOne(t *testing.T) {
	r := newRig(t, Config{})
	rule, err := r.OneToOne(Rule{Network: net1, Container: alice, Uplink: lan, Inside: aliceAddr, Outside: oursToo})
	if err != nil {
		t.Fatal(err)
	}
	want := packet.Translation{Kind: packet.NATOneToOne, Rule: rule.Number, Container: alice, In: net1, Out: lan}
	for _, proto := range []packet.Proto{packet.ProtoTCP, packet.ProtoICMP, 47} { // GRE too: nothing but addresses changes
		k := tuple(proto, aliceAddr, 0, world, 0)
		if proto != 47 {
			k.SrcPort = 500 // kept, below 1024 as well
		}
		want.Before, want.After = k, k
		want.After.Src = oursToo
		r.check(r.out(alice, k), want)
	}
	want.In, want.Out = lan, net1
	want.Before, want.After = ping(world, 7, oursToo), ping(world, 7, aliceAddr)
	r.check(r.in(want.Before), want)

	// Bob is masqueraded as before; by another uplink so is alice.
	if f := r.out(bob, udp(bobAddr, 5000, world, 7000)); r.Translation(f).After.Src != ours {
		t.Error("bob got alice's address")
	}
	if p, _ := r.PlanOut(net1, alice, udp(aliceAddr, 5000, world, 7000), lan2, ours); p.Kind != packet.NATMasquerade {
		t.Errorf("by the other uplink: %v", p.Kind)
	}
	// Bob meets alice at her outside address, and comes from his own.
	k := tcp(bobAddr, 5000, oursToo, 22)
	f := r.commit(r.PlanHairpin(net1, bob, k, lan, ours))
	if tr := r.Translation(f); tr.Kind != packet.NATHairpin || tr.After != tcp(ours, 5000, aliceAddr, 22) {
		t.Errorf("%+v", tr)
	}
	for _, again := range []Rule{
		{Network: net1, Container: bob, Uplink: lan, Inside: bobAddr, Outside: oursToo},
		{Network: net1, Container: alice, Uplink: lan, Inside: aliceAddr, Outside: addr("192.0.2.12")},
		{Network: net1, Container: bob, Uplink: lan, Inside: bobAddr, Outside: v6Of(ours)},
	} {
		if _, err := r.OneToOne(again); err == nil {
			t.Errorf("%+v was taken", again)
		}
	}
	if r.Unpublish(rule.Number); r.Stats().Flows != 1 {
		t.Errorf("%+v: flows of the rule are left", r.Stats())
	}
}

// TestMostSpecificRule: a port of one address goes before that address, and the
// address before a port of all addresses.
func TestMostSpecificRule(t *testing.T) {
	r := newRig(t, Config{})
	own, err := r.OneToOne(Rule{Network: net1, Container: alice, Uplink: lan, Inside: aliceAddr, Outside: oursToo})
	if err != nil {
		t.Fatal(err)
	}
	everywhere := r.publish(Rule{Network: net1, Container: bob, Proto: packet.ProtoTCP, OutsidePort: 80, Inside: bobAddr, InsidePort: 80})
	here := r.publish(Rule{Network: net1, Container: bob, Proto: packet.ProtoTCP, Outside: oursToo, OutsidePort: 81, Inside: bobAddr, InsidePort: 81})
	for _, tt := range []struct {
		k    packet.Tuple
		want Rule
	}{
		{tcp(world, 5000, oursToo, 80), own},
		{tcp(world, 5000, oursToo, 81), here},
		{tcp(world, 5000, oursToo, 82), own},
		{tcp(world, 5000, ours, 80), everywhere},
	} {
		if p, reason := r.PlanIn(lan, tt.k); reason != packet.OK || p.Rule != tt.want.Number || p.After.Dst != tt.want.Inside {
			t.Errorf("%v: %+v, %v, want rule %d", tt.k, p.Translation, reason, tt.want.Number)
		}
	}
}

// TestSameClientTwice: a client that comes from one port to two published ports
// which lead to one is two flows, and the container can tell them apart.
func TestSameClientTwice(t *testing.T) {
	r := newRig(t, Config{})
	for _, port := range []uint16{80, 8080} {
		r.publish(Rule{Network: net1, Container: alice, Proto: packet.ProtoTCP, OutsidePort: port, Inside: aliceAddr, InsidePort: 80})
	}
	first := r.in(tcp(world, 5000, ours, 80))
	r.establish(first)
	second := r.Translation(r.in(tcp(world, 5000, ours, 8080)))
	if second.After.Src != world || second.After.SrcPort == 5000 || second.After.SrcPort < 1024 {
		t.Fatalf("%+v", second)
	}
	if back := r.Translation(r.find(net1, second.After.Reverse(), packet.TCPAck)); back.After != second.Before.Reverse() {
		t.Errorf("the answer goes to %+v", back.After)
	}

	// When the first is over it does not count.
	r.Seen(first, r.now, 1, 60, packet.TCPFin|packet.TCPAck)
	r.Seen(Flow{first.ref, true}, r.now, 1, 60, packet.TCPFin|packet.TCPAck)
	r.end(r.find(lan, tcp(world, 5000, ours, 8080), packet.TCPAck).ref)
	third := r.Translation(r.in(tcp(world, 5000, ours, 8080)))
	if third.After.SrcPort != 5000 || r.Stats().Flows != 1 {
		t.Errorf("%+v, %+v", third, r.Stats())
	}
}

// TestTrack: a flow between containers that is not translated.
func TestTrack(t *testing.T) {
	r := newRig(t, Config{})
	k := tcp(aliceAddr, 5000, bobAddr, 80)
	f := r.commit(r.PlanTrack(net1, alice, k, net1))
	r.check(f, packet.Translation{Container: alice, In: net1, Out: net1, Before: k, After: k})
	if back := r.find(net1, k.Reverse(), 0); !back.Reply() || r.Translation(back).After != k.Reverse() {
		t.Error("the answer is of another flow")
	}
	if _, reason := r.PlanTrack(net1, bob, tcp(bobAddr, 1, bobAddr, 1), net1); reason != packet.NotTranslatable {
		t.Errorf("to itself from the same port: %v", reason)
	}
}

// TestBothFamilies: all addresses of IPv4 and all of IPv6 are published one by one.
func TestBothFamilies(t *testing.T) {
	for _, first := range []packet.Addr{addr("0.0.0.0"), packet.HostIPv6} {
		r := newRig(t, Config{})
		second := map[bool]packet.Addr{true: packet.HostIPv6, false: addr("0.0.0.0")}[first != packet.HostIPv6]
		four := Rule{Network: net1, Container: alice, Proto: packet.ProtoTCP, Outside: first, OutsidePort: 80, Inside: aliceAddr, InsidePort: 80}
		six := Rule{Network: net1, Container: bob, Proto: packet.ProtoTCP, Outside: second, OutsidePort: 80, Inside: bobAddr, InsidePort: 80}
		want := map[packet.Addr]packet.Addr{first: aliceAddr, second: bobAddr}
		r.publish(four)
		r.publish(six)
		for at, dst := range map[packet.Addr]packet.Addr{ours: want[addr("0.0.0.0")], packet.HostIPv6: want[packet.HostIPv6]} {
			if got := r.Translation(r.in(tcp(world, 5000, at, 80))); got.After.Dst != dst {
				t.Errorf("a client at %v gets %v, want %v", at, got.After.Dst, dst)
			}
		}
		if _, err := r.Publish(six); err == nil {
			t.Error("one of them twice")
		}
	}
}

// TestHost: the host keeps its port, unless the container sees that already.
func TestHost(t *testing.T) {
	r := newRig(t, Config{})
	k := tcp(world, 5000, aliceAddr, 80)
	f := r.commit(r.PlanHost(net1, alice, k))
	r.check(f, packet.Translation{Container: alice, In: net1, Out: net1, Before: k, After: k})
	r.end(f.ref)

	r.publish(Rule{Network: net1, Container: alice, Proto: packet.ProtoTCP, OutsidePort: 80, Inside: aliceAddr, InsidePort: 80})
	r.establish(r.in(tcp(world, 5000, ours, 80)))
	own := r.Translation(r.commit(r.PlanHost(net1, alice, k)))
	if own.Hidden != packet.HiddenPortTaken || own.After.Src != world || own.After.SrcPort == 5000 || own.Kind != packet.NATNone {
		t.Errorf("%+v", own)
	}
	if back := r.Translation(r.find(net1, own.After.Reverse(), packet.TCPAck)); back.After != k.Reverse() {
		t.Errorf("the answer goes to %+v", back.After)
	}
}

// TestUntranslatable is what no plan is made for.
func TestUntranslatable(t *testing.T) {
	r := newRig(t, Config{})
	for _, tt := range []struct {
		k       packet.Tuple
		outside packet.Addr
		want    packet.Reason
	}{
		{tuple(47, aliceAddr, 0, world, 0), ours, packet.NotTranslatable},
		{tuple(packet.ProtoICMP, aliceAddr, 0, world, 7), ours, packet.NoFlow}, // an answer to nothing
		{tcp(aliceAddr, 5000, world, 80), packet.Addr{}, packet.NoRoute},       // no lease yet
	} {
		if _, reason := r.PlanOut(net1, alice, tt.k, lan, tt.outside); reason != tt.want {
			t.Errorf("%+v: %v, want %v", tt.k, reason, tt.want)
		}
	}
}
