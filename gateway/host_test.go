package gateway

import (
	"bytes"
	"testing"

	"fairlead/nat"
	"fairlead/packet"
	"fairlead/packet/packettest"
)

// A linked is a town whose first network has a link to the host.
type linked struct {
	*town
	self *end
}

func newLinked(t *testing.T) *linked {
	w := newTown(t, nat.Config{}).known()
	return &linked{w, w.attachHost(w.net)}
}

// delivered wants a frame at one end as it was sent, and nothing anywhere else.
func (w *linked) delivered(to *end, b []byte) {
	w.t.Helper()
	for _, e := range w.ends {
		got := e.got()
		if want := e == to; want != (len(got) == 1) || want && !bytes.Equal(got[0], b) {
			w.t.Errorf("%v got %d frames, it was for %v:\n% x", e.IP, len(got), to.IP, got)
		}
	}
}

// A connection of the host's to a container, and one the other way, cross as they
// are: to both the other is a neighbour, with all of the TTL.
func TestHostLink(t *testing.T) {
	w := newLinked(t)
	self, alice := w.self, w.alice
	for _, c := range []struct {
		from, to *end
		b        []byte
		want     packet.Reason
	}{
		{self, alice, syn(self.station, alice.station, 4000, 80), packet.KnownMAC},
		{alice, self, synAck(alice.station, self.station, 80, 4000), packet.ForHost},
		{self, alice, packettest.Partial(packettest.UDP(self.station, alice.station, 4000, 53, nil)), packet.KnownMAC},
		{alice, self, withTTL(packettest.UDP(alice.station, self.station, 53, 4000, nil), 1), packet.ForHost},
		{self, alice, packettest.ICMPEcho(self.station, alice.station, 7, 1, nil), packet.KnownMAC},
		{alice, self, packettest.ICMPEchoReply(alice.station, self.station, 7, 1, nil), packet.ForHost},
		{alice, self, syn(alice.station, self.station, 5000, 22), packet.ForHost},
		{self, alice, synAck(self.station, alice.station, 22, 5000), packet.KnownMAC},
		{alice, self, packettest.ICMPError(alice.station, self.station, 3, 3, 0, packettest.UDP(self.station, alice.station, 4000, 53, nil), 576), packet.ForHost},
		{self, alice, packettest.ICMPError(self.station, alice.station, 3, 3, 0, syn(alice.station, self.station, 5000, 22), 576), packet.KnownMAC},
		{alice, self, packettest.ARPReply(alice.station, self.station), packet.ForHost},
	} {
		if d := w.one(c.from, c.b); d.Verdict != packet.Unicast || d.Reason != c.want {
			t.Errorf("from %v: %+v", c.from.IP, d)
		}
		w.delivered(c.to, c.b)
	}
	// ARP and ping of their common address are the gateway's, who does not tell the
	// host either.
	for _, b := range [][]byte{
		packettest.ARPRequest(alice.station, netAddr(w.net)),
		packettest.ICMPEcho(alice.station, self.station, 7, 1, nil),
	} {
		if d := w.one(alice, b); d.Originate == packet.OriginNone || d.Routed {
			t.Errorf("%+v", d)
		}
		if got := self.got(); len(got) != 0 {
			t.Errorf("the host got % x", got)
		}
		w.drain()
	}
}

// The link is for the host alone: it forwards nothing by it, and nobody else has
// its addresses.
func TestHostLinkIsNoWayThrough(t *testing.T) {
	w := newLinked(t)
	self, alice := w.self, w.alice
	abroad := self.from("203.0.113.5")
	for _, c := range []struct {
		from *end
		b    []byte
		want packet.Reason
	}{
		{self, syn(abroad, alice.station, 1, 80), packet.SpoofedAddress},
		{self, packettest.ARPReply(abroad, alice.station), packet.SpoofedAddress},
		{self, syn(station{MAC: alice.MAC, IP: self.IP}, w.bob.station, 1, 80), packet.SpoofedMAC},
		{self, syn(self.station, self.to("203.0.113.5"), 1, 80), packet.SamePort},
		{alice, syn(self.station, w.bob.station, 1, 80), packet.SpoofedGateway},
		{alice, packettest.ARPReply(self.station, w.bob.station), packet.SpoofedGateway},
		{alice, syn(alice.station, alice.to("172.18.0.2"), 1, 80), packet.OtherNetwork},
		{alice, syn(alice.station, alice.to("203.0.113.5"), 1, 80), packet.Routed}, // by the uplink
	} {
		if d := w.one(c.from, c.b); d.Reason != c.want || d.ToHost {
			t.Errorf("%+v, want %v", d, c.want)
		}
		if got := self.got(); len(got) != 0 {
			t.Errorf("the host got % x", got)
		}
	}
	// What would meet the host in a VLAN of its own ends here.
	for want, vlans := range map[packet.Reason][]uint16{packet.NotUnderstood: {0, 0}, packet.UnknownMAC: {7}} {
		if d := w.one(alice, packettest.Tagged(syn(alice.station, self.station, 1, 22), vlans...)); d.Reason != want || d.ToHost || len(self.got()) != 0 {
			t.Errorf("tagged %d: %+v", vlans, d)
		}
	}
}

// Published ports and the gateway's services come before the host's, and its own
// flows after those of clients that containers see from its address.
func TestHostLinkComesLast(t *testing.T) {
	w := newLinked(t)
	self, alice := w.self, w.alice
	w.publish(leads(w.bob, packet.ProtoTCP, 8080, 80))
	if d := w.one(alice, syn(alice.station, self.station, 40000, 8080)); d.NAT.Kind != packet.NATHairpin || d.ToHost {
		t.Fatalf("%+v", d)
	}
	b := w.bob.got()
	if len(b) != 1 {
		t.Fatalf("bob got %d frames", len(b))
	}
	seen := packet.Frame{B: b[0]}
	mustParse(t, &seen)
	w.drain()
	// The host happens to choose the port that bob sees already. As long as nobody
	// knows where he is that cannot be mended in the copies for everybody.
	w.net.sw.FlushMACs(false)
	d := w.one(self, syn(self.station, w.bob.station, seen.SrcPort, 80))
	if d.Reason != packet.PortsExhausted || d.Originate != packet.OriginReset || len(self.got()) != 1 || len(w.bob.got()) != 0 {
		t.Errorf("%+v", d)
	}
	w.known()
	d = w.one(self, syn(self.station, w.bob.station, seen.SrcPort, 80))
	if d.Verdict != packet.Unicast || d.NAT.Hidden != packet.HiddenPortTaken {
		t.Fatalf("%+v", d)
	}
	f := packet.Frame{B: w.bob.got()[0]}
	mustParse(t, &f)
	if checkSums(t, &f); f.SrcPort == seen.SrcPort {
		t.Errorf("bob cannot tell %v from %v", f.Tuple(), seen.Tuple())
	}
	w.one(w.bob, synAck(w.bob.station, self.station, 80, f.SrcPort))
	back := self.got()
	if len(back) != 1 {
		t.Fatalf("the host got %d frames", len(back))
	}
	answer := packet.Frame{B: back[0]}
	mustParse(t, &answer)
	if checkSums(t, &answer); answer.DstPort != seen.SrcPort {
		t.Errorf("the answer is for %v", answer.Tuple())
	}
	w.router.FlushContainer(w.bob.port.Config().Container)
	w.router.Flows(func(t *nat.Table) {
		for f := range t.Flows {
			w.t.Errorf("bob has gone, and there is %+v", f)
		}
	})
}

// A container answers the host whatever it may begin itself.
func TestHostLinkAndEgress(t *testing.T) {
	w := newLinked(t)
	self, alice := w.self, w.alice
	w.net.Gateway.(*Gateway).SetEgress(mustEgress(t, "none", ""))
	if d := w.one(alice, packettest.UDP(alice.station, self.station, 1, 99, nil)); d.Reason != packet.EgressDenied {
		t.Errorf("%+v", d)
	}
	w.one(self, packettest.UDP(self.station, alice.station, 4000, 53, nil))
	if d := w.one(alice, packettest.UDP(alice.station, self.station, 53, 4000, nil)); d.Reason != packet.ForHost {
		t.Errorf("%+v", d)
	}
}

// Its port gone, the gateway's address is the gateway's alone.
func TestHostLinkGoes(t *testing.T) {
	w := newLinked(t)
	self, alice := w.self, w.alice
	w.one(alice, syn(alice.station, self.station, 5000, 22))
	w.net.sw.RemovePort(self.port, nil)
	for range 2 { // of a flow that began before, and of a new one
		if d := w.one(alice, syn(alice.station, self.station, 5000, 22)); d.Reason != packet.Refused || d.Originate != packet.OriginReset {
			t.Errorf("%+v", d)
		}
		w.router.FlushContainer(alice.port.Config().Container)
	}
}

// In a hub everybody hears everything, but the host does not hear what it might
// forward.
func TestHostLinkOfHub(t *testing.T) {
	world := newWorld(t, nat.Config{})
	world.hub = true
	w := &linked{town: buildTown(world).known()}
	w.self = w.attachHost(w.net)
	self, alice := w.self, w.alice
	b := syn(alice.station, self.station, 5000, 22)
	if d := w.one(alice, b); d.Verdict != packet.Flood || !d.ToHost {
		t.Errorf("%+v", d)
	}
	for _, e := range []*end{self, w.bob} {
		if got := e.got(); len(got) != 1 || !bytes.Equal(got[0], b) {
			t.Errorf("%v got % x", e.IP, got)
		}
	}
	w.drain()
	w.one(alice, syn(alice.station, alice.to("203.0.113.5"), 5000, 22))
	w.one(alice, syn(alice.station, w.bob.station, 5000, 22))
	if got := self.got(); len(got) != 0 {
		t.Errorf("the host got % x", got)
	}
}
