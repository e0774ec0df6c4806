package gateway

import (
	"testing"

	"fairlead/nat"
	"fairlead/packet"
	"fairlead/packet/packettest"
)

// last is the decision on the last of some frames.
func (w *world) last(e *end, frames ...[]byte) packet.Decision {
	records := w.send(e, frames...)
	return records[len(records)-1].Decision
}

// Of two networks neither reaches the other, unless both are routed, and then as
// they are: not their gateways' addresses, nor all of them at once.
func TestRoutedNetworks(t *testing.T) {
	w := newTown(t, nat.Config{}).known()
	one, two := w.net.Gateway.(*Gateway), w.net2.Gateway.(*Gateway)
	there := packettest.UDP(w.alice.station, w.alice.to("172.18.0.2"), 4000, 5000, []byte("x"))
	apart := func(b []byte) {
		t.Helper()
		if d := w.last(w.alice, b); d.Verdict != packet.Drop || d.Reason != packet.OtherNetwork || d.Originate != packet.OriginNone {
			t.Errorf("%v, %v, answered by %v", d.Verdict, d.Reason, d.Originate)
		}
		if got := w.dave.got(); len(got) != 0 {
			t.Errorf("dave heard % x", got[0])
		}
	}
	apart(there)
	one.SetRouted(true)
	apart(there)
	two.SetRouted(true)
	if d := w.last(w.alice, there); d.Verdict != packet.Unicast || d.Reason != packet.Routed || d.NAT.Kind != packet.NATNone {
		t.Errorf("%+v", d)
	}
	got := w.dave.got()
	if len(got) != 1 {
		t.Fatalf("dave heard %d frames", len(got))
	}
	ip := packet.IPv4(payload(got[0]))
	if ip.Src() != w.alice.IP.As4() || ip.TTL() != 63 {
		t.Errorf("from %v with a TTL of %d", ip.Src(), ip.TTL())
	}
	apart(packettest.UDP(w.alice.station, w.alice.to("172.18.0.1"), 4000, 5000, nil))
	apart(packettest.UDP(w.alice.station, w.alice.to("172.18.255.255"), 4000, 5000, nil))
	// The answer is one, also when the way is closed again; the flow is ended by
	// who closes it.
	back := packettest.UDP(w.dave.station, w.dave.to("172.17.0.2"), 5000, 4000, nil)
	two.SetRouted(false)
	if d := w.last(w.dave, back); d.Reason != packet.Routed {
		t.Errorf("%+v", d)
	}
	w.router.Flows(func(table *nat.Table) {
		table.FlushUntranslated(2, func(n packet.NetworkID) bool { return n == 1 })
	})
	if d := w.last(w.dave, back); d.Reason != packet.OtherNetwork {
		t.Errorf("%+v", d)
	}
}

// Without masquerade a packet leaves as it is, and what answers it comes back.
// Nobody else comes in by a container's address, not even with an error.
func TestNotMasqueraded(t *testing.T) {
	w := newTown(t, nat.Config{}).known()
	w.net.Gateway.(*Gateway).SetMasquerade(false)
	far := w.alice.to("203.0.113.5")
	if d := w.last(w.alice, packettest.UDP(w.alice.station, far, 4000, 53, []byte("x"))); d.Reason != packet.Routed || d.NAT.Kind != packet.NATNone {
		t.Fatalf("%+v", d)
	}
	got := w.isp.got()
	if len(got) != 1 || packet.IPv4(payload(got[0])).Src() != w.alice.IP.As4() {
		t.Fatalf("%d frames left: % x", len(got), got)
	}
	inward := func(sport, dport uint16, to string) []byte {
		return packettest.UDP(w.isp.from("203.0.113.5"), w.isp.to(to), sport, dport, []byte("y"))
	}
	if d := w.last(w.isp, inward(53, 4000, "172.17.0.2")); d.Reason != packet.Routed {
		t.Errorf("the answer: %+v", d)
	}
	if got := w.alice.got(); len(got) != 1 {
		t.Errorf("alice heard %d answers", len(got))
	}
	for _, b := range [][]byte{inward(54, 4000, "172.17.0.2"), inward(53, 4001, "172.17.0.2"), inward(53, 4000, "172.17.0.3")} {
		if d := w.last(w.isp, b); d.Reason != packet.NotForUs || d.NAT != (packet.Translation{}) {
			t.Errorf("%+v", d)
		}
	}
	// A masqueraded flow is reached by the uplink's address only.
	w.net.Gateway.(*Gateway).SetMasquerade(true)
	w.send(w.alice, packettest.UDP(w.alice.station, far, 4009, 53, nil))
	if d := w.last(w.isp, inward(53, 4009, "172.17.0.2")); d.Reason != packet.NotForUs {
		t.Errorf("%+v", d)
	}
	w.drain()
}

// A container that leaves one of its networks keeps its connections on others.
func TestFlushContainerOn(t *testing.T) {
	w := newTown(t, nat.Config{}).known()
	c := w.alice.port.Config().Container
	w.publish(nat.Rule{Network: 2, Container: c, Proto: packet.ProtoTCP, OutsidePort: 8080, InsidePort: 80, Inside: addrOf(w.dave.station)})
	w.send(w.alice, packettest.UDP(w.alice.station, w.alice.to("203.0.113.5"), 4000, 53, nil))
	w.send(w.isp, packettest.TCP(w.isp.from("203.0.113.9"), w.isp.to("192.0.2.7"), packettest.Segment{SrcPort: 4000, DstPort: 8080, Flags: packet.TCPSyn}, nil))
	w.drain()
	count := func() (list []packet.NetworkID) {
		w.router.Flows(func(table *nat.Table) {
			for f := range table.Flows {
				list = append(list, f.From, f.To)
			}
		})
		return list
	}
	if got := count(); len(got) != 4 {
		t.Fatalf("flows on %v", got)
	}
	w.router.Flows(func(table *nat.Table) { table.FlushContainerOn(c, 3) })
	if got := count(); len(got) != 4 {
		t.Errorf("it is not on network 3, and has flows on %v left", got)
	}
	w.router.Flows(func(table *nat.Table) { table.FlushContainerOn(c, 2) })
	if got := count(); len(got) != 2 || got[0] != 1 {
		t.Errorf("flows on %v are left, want that of network 1", got)
	}
	w.router.Flows(func(table *nat.Table) { table.FlushContainerOn(c, 1) })
	if got := count(); len(got) != 0 {
		t.Errorf("flows on %v are left", got)
	}
}
