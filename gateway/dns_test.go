package gateway

import (
	"bytes"
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
		want := Question{natNetwork, 1, packet.Tuple{Src: addrOf(alice), Dst: addrOf(gw), SrcPort: 4000, DstPort: 53, Proto: packet.ProtoUDP}, question}
		if q := dns.asked[i]; q.Network != want.Network || q.Container != want.Container || q.From != want.From || !bytes.Equal(q.Payload, question) {
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
		"damaged": damaged, "a first fragment": resum(first), "too large": packettest.UDP(alice, gw, 4000, 53, make([]byte, maxQuery)),
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
	if r.tick(); len(r.sent) != maxAnswers || len(woken) != 1 {
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
