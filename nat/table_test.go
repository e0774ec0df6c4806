package nat

import (
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
	r.Seen(f, r.now, 100, packet.TCPSyn)
	return f
}

func (r *rig) in(k packet.Tuple) Flow {
	r.t.Helper()
	f := r.commit(r.PlanIn(lan, k))
	r.Seen(f, r.now, 100, packet.TCPSyn)
	return f
}

func (r *rig) find(scope packet.NetworkID, k packet.Tuple, flags uint8) Flow {
	r.t.Helper()
	f, ok := r.Find(scope, k, r.now, flags)
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
	if _, ok := r.Find(net2, k, r.now, 0); ok {
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
