package uplink

import (
	"bytes"
	"net/netip"
	"reflect"
	"testing"

	"fairlead/arp"
	"fairlead/packet"
	"fairlead/packet/packettest"
)

const (
	second  = int64(1e9)
	network = packet.NetworkID(4096)
	port    = packet.PortID(1<<16 | 1)
)

type station = packettest.Station

func stationAt(s string) station {
	ip := netip.MustParseAddr(s)
	return station{MAC: packet.MACFromIPv4(ip), IP: ip}
}

func addrOf(s station) packet.Addr { return packet.AddrFromNetip(s.IP) }

var (
	us     = stationAt("192.0.2.2")
	router = stationAt("192.0.2.1")
	alice  = stationAt("192.0.2.10")
	bob    = stationAt("192.0.2.11")
	extra  = station{MAC: us.MAC, IP: netip.MustParseAddr("192.0.2.50")}
	rival  = station{MAC: packet.MAC{2, 0, 0, 0, 0, 66}, IP: us.IP}
	nobody = netip.IPv4Unspecified()

	static = Config{
		Network: network, Name: "up0", MAC: us.MAC, MTU: 1500,
		Addr: netip.MustParsePrefix("192.0.2.2/24"), Gateway: router.IP, Extra: []netip.Addr{extra.IP},
	}
	lending = Config{Network: network, Name: "up0", MAC: us.MAC, MTU: 1500, DHCP: true}
)

// A rig is an uplink, and what switch, router and loop do around it, at a time
// the test sets. It is the packet.Out as well.
type rig struct {
	t   testing.TB
	u   *Raw
	now int64

	room    []byte
	sent    [][]byte // by the uplink, in order
	at      []int64  // when
	resumed []uint64
	wake    int64 // when Tick is due; 0 is never

	routed, applied int // frames that went on to the router
	gone            []packet.Addr
	answer          func(frame []byte) // the segment's reaction to what is sent; nil is silence
	waiting         [][]byte           // frames on their way to the uplink
}

func newRig(t testing.TB, conf Config) *rig {
	r := &rig{t: t, now: 100 * second, room: make([]byte, packet.MaxFrame)}
	var err error
	if r.u, err = New(conf, r.inbound()); err != nil {
		t.Fatal(err)
	}
	r.wake = r.now
	return r
}

// up is a rig whose uplink has claimed its addresses.
func up(t testing.TB, conf Config) *rig {
	t.Helper()
	r := newRig(t, conf)
	r.run(5 * second)
	if r.u.Addr() == (packet.Addr{}) {
		t.Fatalf("no address: %+v", r.u.State(r.now))
	}
	r.sent, r.at = nil, nil
	return r
}

func (r *rig) Room() []byte { return r.room }

func (r *rig) Originate(to packet.Place, n int) {
	if to != (packet.Place{Network: network}) {
		r.t.Errorf("sent to %v", to)
	}
	b := bytes.Clone(r.room[:n])
	for i := range r.room[:n] {
		r.room[i] = 0xee // stale bytes of others
	}
	f := packet.Frame{B: b}
	if reason := packet.Parse(&f); reason != packet.OK {
		r.t.Fatalf("sent a malformed frame: %v\n% x", reason, b)
	}
	if e := packet.Ethernet(f.Ether()); e.Src() != us.MAC || e.Dst() == us.MAC || !f.VNet().IsZero() {
		r.t.Errorf("sent from %v to %v, % x", e.Src(), e.Dst(), []byte(f.VNet()))
	}
	r.sent, r.at = append(r.sent, b), append(r.at, r.now)
	if r.answer != nil {
		r.answer(b)
	}
}

func (r *rig) Resume(key uint64) { r.resumed = append(r.resumed, key) }

func (r *rig) Wake(n packet.NetworkID, at int64) {
	if n != network {
		r.t.Errorf("wakes network %v", n)
	}
	if r.wake == 0 || at < r.wake {
		r.wake = at
	}
}

// router is the Inbound: it counts, and lets all packets pass.
type inbound struct{ r *rig }

func (r *rig) inbound() Inbound { return inbound{r} }

func (in inbound) Prefetch([]packet.Frame) {}

func (in inbound) Route(_ *packet.Frame, d *packet.Decision) {
	in.r.routed++
	d.Verdict, d.Reason = packet.Unicast, packet.Routed
}
func (in inbound) Apply(*packet.Frame, *packet.Decision, packet.Out) { in.r.applied++ }
func (in inbound) AddressGone(a packet.Addr)                         { in.r.gone = append(in.r.gone, a) }

// run lets time pass: everything due happens in its order.
func (r *rig) run(d int64) {
	r.t.Helper()
	until := r.now + d
	for steps := 0; ; steps++ {
		for len(r.waiting) > 0 {
			b := r.waiting[0]
			r.waiting = r.waiting[1:]
			r.receive(b)
		}
		if r.wake == 0 || r.wake > until {
			break
		}
		if steps > 100_000 {
			r.t.Fatal("it does not come to rest")
		}
		r.now, r.wake = max(r.now, r.wake), 0
		r.u.Tick(r.now, r)
	}
	r.now = until
}

// receive is a frame's whole way. Deciding twice gives the same, and changes
// nothing.
func (r *rig) receive(b []byte) packet.Decision {
	r.t.Helper()
	f := r.frame(b)
	state := r.u.State(r.now)
	d, again := lookedUp(f), lookedUp(f)
	r.u.Route(f, &d)
	r.u.Route(f, &again)
	if d != again {
		r.t.Errorf("decided %+v, then %+v", d, again)
	}
	if after := r.u.State(r.now); !reflect.DeepEqual(state, after) {
		r.t.Errorf("deciding has changed %+v to %+v", state, after)
	}
	before, decided, sent := f.Clone(nil), d, len(r.sent)
	r.u.Apply(f, &d, r)
	if !bytes.Equal(f.B, before.B) || d != decided {
		r.t.Error("applying has changed the frame or the decision")
	}
	if n := len(r.sent) - sent; n > 1 || n == 1 && d.Originate == packet.OriginNone {
		r.t.Errorf("%d frames for %q", n, d.Originate)
	}
	return d
}

// frame is what the switch hands over.
func (r *rig) frame(b []byte) *packet.Frame {
	r.t.Helper()
	f := &packet.Frame{B: b, Time: r.now, Port: port, Network: network}
	if reason := packet.Parse(f); reason != packet.OK {
		r.t.Fatalf("malformed: %v\n% x", reason, b)
	}
	return f
}

// lookedUp is the decision the switch has come to when it asks the uplink.
func lookedUp(f *packet.Frame) packet.Decision {
	if f.Flags.Has(packet.Multicast) {
		return packet.Decision{Verdict: packet.Flood, Reason: packet.ToGroup, ToGateway: true, AtGateway: true}
	}
	return packet.Decision{Verdict: packet.Gateway, Reason: packet.ForGateway, AtGateway: true}
}

// resolve is what the router does with a packet of a container for a next hop.
func (r *rig) resolve(container packet.ContainerID, hop packet.Addr) packet.Decision {
	f := &packet.Frame{Time: r.now, Container: container}
	d := packet.Decision{Verdict: packet.Gateway, Reason: packet.ForGateway, NextHop: hop}
	r.u.Resolve(f, hop, &d)
	if d.Originate == packet.OriginARPRequest {
		if d.To != (packet.Place{Network: network}) {
			r.t.Errorf("asks at %v", d.To)
		}
		r.u.Ask(f, &d, r)
	}
	return d
}

// arps are the ARP packets among what was sent, in words.
func (r *rig) arps() (list []string) {
	for _, b := range r.sent {
		if f := r.frame(b); f.EtherType == packet.EtherTypeARP {
			list = append(list, words(packet.ARP(f.Packet())))
		}
	}
	return list
}

func words(a packet.ARP) string {
	sender, target := netip.AddrFrom4(a.SenderIP()), netip.AddrFrom4(a.TargetIP())
	switch {
	case a.Op() == packet.ARPReply:
		return sender.String() + " is at " + a.SenderMAC().String()
	case sender == nobody:
		return "probe " + target.String()
	case sender == target:
		return "announce " + target.String()
	}
	return "who has " + target.String() + " tell " + sender.String()
}

// neighbour is what the uplink knows of a station.
func (r *rig) neighbour(s station) arp.Entry {
	for _, e := range r.u.State(r.now).Neighbours {
		if e.Addr == s.IP.As4() {
			return e
		}
	}
	return arp.Entry{State: arp.Unknown}
}
