package gateway

import (
	"bytes"
	"net/netip"
	"reflect"
	"testing"

	"fairlead/nat"
	"fairlead/packet"
	"fairlead/packet/packettest"
)

type station = packettest.Station

var (
	subnet  = netip.MustParsePrefix("172.17.0.1/16")
	gw      = stationAt("172.17.0.1")
	alice   = stationAt("172.17.0.2")
	bob     = stationAt("172.17.0.3")
	outside = station{MAC: gw.MAC, IP: netip.MustParseAddr("192.0.2.1")} // behind the gateway
)

func stationAt(s string) station {
	ip := netip.MustParseAddr(s)
	return station{MAC: packet.MACFromIPv4(ip), IP: ip}
}

// with is a station with another address.
func with(s station, ip string) station { return station{MAC: s.MAC, IP: netip.MustParseAddr(ip)} }

// newGateway returns that of network 1, on a router of its own.
func newGateway(flows nat.Config) *Gateway {
	r := NewRouter(nat.New(flows), func(fn func()) { fn() })
	return New(Config{Network: 1, Name: "default", MAC: gw.MAC, Addr: subnet, MTU: 1500}, r)
}

// A rig is a gateway and what a switch does around it, at a time the test sets.
type rig struct {
	t   testing.TB
	gw  *Gateway
	now int64
	buf []byte
	out out
}

func newRig(t testing.TB) *rig {
	return &rig{t: t, gw: newGateway(nat.Config{Flows: 1024}), now: 1e9, buf: make([]byte, packet.MaxFrame)}
}

// frame is what the switch hands over: parsed, with the port it came in at.
func (r *rig) frame(port packet.PortID, b []byte) *packet.Frame {
	r.t.Helper()
	f := &packet.Frame{B: b, Time: r.now, Network: 1, Port: port, Container: packet.ContainerID(port)}
	if reason := packet.Parse(f); reason != packet.OK {
		r.t.Fatalf("malformed: %v\n% x", reason, b)
	}
	return f
}

// lookedUp is the decision the switch has come to when it asks the gateway.
func lookedUp(f *packet.Frame, hub bool) packet.Decision {
	switch {
	case hub:
		return packet.Decision{Verdict: packet.Flood, Reason: packet.HubMode, ToGateway: true}
	case f.Flags.Has(packet.Multicast):
		return packet.Decision{Verdict: packet.Flood, Reason: packet.ToGroup, ToGateway: true}
	}
	return packet.Decision{Verdict: packet.Gateway, Reason: packet.ForGateway}
}

// route decides on a frame; twice, and the second time nothing is different.
func (r *rig) route(f *packet.Frame, hub bool) packet.Decision {
	r.t.Helper()
	before, neighbours := f.Clone(nil), r.gw.Neighbours(r.now)
	d, again := lookedUp(f, hub), lookedUp(f, hub)
	r.gw.Route(f, &d)
	r.gw.Route(f, &again)
	if d != again {
		r.t.Errorf("decided %+v, then %+v", d, again)
	}
	if !reflect.DeepEqual(*f, before) || !reflect.DeepEqual(r.gw.Neighbours(r.now), neighbours) {
		r.t.Error("deciding has changed something")
	}
	return d
}

// send is a frame's whole way: the decision, and the answer if there is one.
func (r *rig) send(port packet.PortID, b []byte) (packet.Decision, []byte) {
	r.t.Helper()
	f := r.frame(port, b)
	d := r.route(f, false)
	return d, r.apply(f, &d)
}

// apply carries a decision out and returns a copy of the answer.
func (r *rig) apply(f *packet.Frame, d *packet.Decision) []byte {
	r.t.Helper()
	before, decided := f.Clone(nil), *d
	r.out = out{buf: r.buf}
	r.gw.Apply(f, d, &r.out)
	n := r.out.n
	if !reflect.DeepEqual(*f, before) || *d != decided {
		r.t.Error("applying has changed the frame or the decision")
	}
	if (n > 0) != (d.Originate != packet.OriginNone) {
		r.t.Errorf("answer of %d bytes for %q", n, d.Originate)
	}
	if n == 0 {
		return nil
	}
	return bytes.Clone(r.buf[:n])
}

// An out is a packet.Out that keeps the last frame.
type out struct {
	buf []byte
	n   int
	to  packet.Place
}

func (o *out) Room() []byte                     { return o.buf }
func (o *out) Originate(to packet.Place, n int) { o.to, o.n = to, n }
func (o *out) Resume(uint64)                    {}
func (o *out) Wake(packet.NetworkID, int64)     {}

// checkAnswer holds what is true of every answer.
func checkAnswer(t testing.TB, f *packet.Frame, answer []byte) *packet.Frame {
	t.Helper()
	a := &packet.Frame{B: answer}
	if reason := packet.Parse(a); reason != packet.OK {
		t.Fatalf("the answer is malformed: %v\n% x", reason, answer)
	}
	ether, asked := packet.Ethernet(a.Ether()), packet.Ethernet(f.Ether())
	if ether.Src() != gw.MAC || ether.Dst() != asked.Src() {
		t.Errorf("the answer goes from %v to %v, the question came from %v", ether.Src(), ether.Dst(), asked.Src())
	}
	if !a.VNet().IsZero() {
		t.Errorf("the answer's virtio-net header % x asks for something", []byte(a.VNet()))
	}
	if a.Tags != f.Tags || a.VLAN != f.VLAN {
		t.Errorf("tags %v, the question had %v", a.VLAN[:a.Tags], f.VLAN[:f.Tags])
	}
	if a.EtherType == packet.EtherTypeIPv4 {
		ip := packet.IPv4(a.Packet())
		if packettest.Sum(ip[:ip.HeaderLen()], 0) != 0xffff {
			t.Errorf("wrong IPv4 header checksum in the answer\n% x", answer)
		}
		if ip.Src() != gw.IP.As4() || ip.Dst() != packet.IPv4(f.Packet()).Src() {
			t.Errorf("the answer goes from %v to %v", ip.Src(), ip.Dst())
		}
		if ip.TTL() != 64 {
			t.Errorf("TTL %d in the answer", ip.TTL())
		}
	}
	return a
}

// checkICMP wants a right checksum over a whole message.
func checkICMP(t testing.TB, m []byte) {
	t.Helper()
	if packettest.Sum(m, 0) != 0xffff {
		t.Errorf("wrong ICMP checksum\n% x", m)
	}
}

// payload is the network packet of a frame that has no tags.
func payload(b []byte) []byte { return b[packet.VNetLen+packet.EthernetLen:] }

// resum writes the IPv4 header checksum of a frame that was edited.
func resum(b []byte) []byte {
	ip := packet.IPv4(payload(b))
	ip.SetChecksum(0)
	ip.SetChecksum(^packettest.Sum(ip[:ip.HeaderLen()], 0))
	return b
}
