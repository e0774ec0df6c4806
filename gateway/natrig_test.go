package gateway

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"fairlead/nat"
	"fairlead/packet"
	"fairlead/packet/packettest"
)

const (
	natNetwork = packet.NetworkID(1) // of the containers
	natUplink  = packet.NetworkID(9)
	fromUplink = packet.PortID(90)
)

var (
	masqueraded = stationAt("192.0.2.7") // the router on the uplink
	isp         = stationAt("192.0.2.1") // its next hop
	server      = station{MAC: isp.MAC, IP: netip.MustParseAddr("203.0.113.5")}
	someRouter  = station{MAC: isp.MAC, IP: netip.MustParseAddr("198.51.100.1")}
)

// A fakeUplink is a segment with one station on it, whose MAC is known.
type fakeUplink struct{ mtu int }

func (u *fakeUplink) Network() packet.NetworkID { return natUplink }
func (u *fakeUplink) Name() string              { return "wan" }
func (u *fakeUplink) MTU() int                  { return u.mtu }
func (u *fakeUplink) MAC() packet.MAC           { return masqueraded.MAC }
func (u *fakeUplink) Addr() packet.Addr         { return packet.AddrFromNetip(masqueraded.IP) }
func (u *fakeUplink) Owns(a packet.Addr) bool   { return a == u.Addr() }
func (u *fakeUplink) Subnet() netip.Prefix      { return netip.PrefixFrom(masqueraded.IP, 24).Masked() }
func (u *fakeUplink) NextHop() packet.Addr      { return packet.AddrFromNetip(isp.IP) }
func (u *fakeUplink) Routes() []netip.Prefix    { return nil }

func (u *fakeUplink) Resolve(_ *packet.Frame, _ packet.Addr, d *packet.Decision) {
	d.SrcMAC, d.DstMAC, d.Egress = masqueraded.MAC, isp.MAC, packet.Place{Network: natUplink, Port: fromUplink}
}
func (u *fakeUplink) Ask(*packet.Frame, *packet.Decision, packet.Out) {}

// A natRig is a network of two containers behind a router with an uplink.
type natRig struct {
	t       testing.TB
	gw      *Gateway
	router  *Router
	inbound *Inbound
	uplink  *fakeUplink
	now     int64

	grace []func() // for when every worker has passed a turn

	sent    []sentFrame // by the router itself
	resumed []uint64
	wake    int64
}

type sentFrame struct {
	to packet.Place
	b  []byte
}

func newNATRig(t testing.TB, conf nat.Config) *natRig {
	conf.Seed = 1
	r := &natRig{t: t, uplink: &fakeUplink{mtu: 1500}, now: int64(1000 * time.Second)}
	r.router = NewRouter(nat.New(conf), func(fn func()) { r.grace = append(r.grace, fn) })
	g := New(Config{Network: natNetwork, Name: "default", MAC: gw.MAC, Addr: subnet, MTU: 1500}, r.router)
	r.gw = g
	r.router.PlugUplink(r.uplink)
	g.SetUplinks([]Uplink{r.uplink})
	r.inbound = r.router.Inbound(natUplink)
	r.later(0)
	return r
}

// later lets time pass. The containers are still there afterwards.
func (r *natRig) later(d time.Duration) {
	r.now += int64(d)
	before := len(r.sent)
	for port, s := range []station{alice, bob} {
		r.inside(packet.PortID(port+1), packettest.ARPRequest(s, gw.IP))
	}
	r.sent = r.sent[:before]
	r.gw.Tick(r.now, r.out())
	r.turn()
}

// turn has every worker pass a turn.
func (r *natRig) turn() {
	for len(r.grace) > 0 {
		fn := r.grace[0]
		r.grace = r.grace[1:]
		fn()
	}
}

// A natOut is the packet.Out of one call.
type natOut struct {
	*natRig
	room []byte
}

func (o *natOut) Room() []byte { return o.room }
func (o *natOut) Originate(to packet.Place, n int) {
	o.sent = append(o.sent, sentFrame{to, bytes.Clone(o.room[:n])})
}
func (o *natOut) Resume(key uint64)                 { o.resumed = append(o.resumed, key) }
func (o *natOut) Wake(_ packet.NetworkID, at int64) { o.wake = at }

func (r *natRig) out() *natOut { return &natOut{r, make([]byte, packet.MaxFrame)} }

// inside is the way of a frame a container sends: what was decided, and the
// frame as it leaves if it was passed on.
func (r *natRig) inside(port packet.PortID, b []byte) (packet.Decision, *packet.Frame) {
	r.t.Helper()
	f := r.frame(natNetwork, port, b)
	d := lookedUp(f, false)
	r.gw.Route(f, &d)
	r.gw.Apply(f, &d, r.out())
	return d, r.passed(f, &d)
}

// outside is the way of a frame that comes in on the uplink.
func (r *natRig) outside(b []byte) (packet.Decision, *packet.Frame) {
	r.t.Helper()
	f := r.frame(natUplink, fromUplink, b)
	d := packet.Decision{Verdict: packet.Gateway, Reason: packet.ForGateway}
	r.inbound.Route(f, &d)
	r.inbound.Apply(f, &d, r.out())
	return d, r.passed(f, &d)
}

func (r *natRig) frame(n packet.NetworkID, port packet.PortID, b []byte) *packet.Frame {
	r.t.Helper()
	f := &packet.Frame{B: bytes.Clone(b), Time: r.now, Network: n, Port: port}
	if n == natNetwork {
		f.Container = packet.ContainerID(port)
	}
	// Whoever sends to the router sends to its MAC.
	if e := packet.Ethernet(f.Ether()); !e.Dst().IsGroup() {
		e.SetDst(map[packet.NetworkID]packet.MAC{natNetwork: gw.MAC, natUplink: masqueraded.MAC}[n])
	}
	mustParse(r.t, f)
	return f
}

func mustParse(t testing.TB, f *packet.Frame) {
	t.Helper()
	if reason := packet.Parse(f); reason != packet.OK {
		t.Fatalf("malformed: %v\n% x", reason, f.B)
	}
}

func (r *natRig) passed(f *packet.Frame, d *packet.Decision) *packet.Frame {
	r.t.Helper()
	if !d.Routed || d.Verdict != packet.Unicast {
		return nil
	}
	was := *f
	if reason := packet.Parse(f); reason != packet.OK || f.SrcPort != was.SrcPort || f.DstPort != was.DstPort {
		r.t.Fatalf("what was passed on is %v, %+v, was taken for %+v", reason, *f, was)
	}
	checkSums(r.t, f)
	return f
}

// checkSums wants right checksums, as far as the frame is finished and whole.
func checkSums(t testing.TB, f *packet.Frame) {
	t.Helper()
	ip := packet.IPv4(f.Packet())
	if packettest.Sum(ip[:ip.HeaderLen()], 0) != 0xffff {
		t.Errorf("wrong IP checksum: % x", f.B)
	}
	if f.L4 == 0 || f.Flags.Has(packet.Fragment) || f.Flags.Has(packet.NeedsChecksum) {
		return
	}
	pseudo := uint16(0)
	if f.Proto != packet.ProtoICMP {
		pseudo = packettest.PseudoSum(f.Tuple().Src.Netip(), f.Tuple().Dst.Netip(), f.Proto, len(f.Transport()))
	}
	if packettest.Sum(f.Transport(), pseudo) != 0xffff {
		t.Errorf("wrong transport checksum: % x", f.B)
	}
}

// mustInside and mustOutside are for frames that have to be passed on.
func (r *natRig) mustInside(port packet.PortID, b []byte) *packet.Frame {
	r.t.Helper()
	d, f := r.inside(port, b)
	if f == nil {
		r.t.Fatalf("not passed on: %+v", d)
	}
	return f
}

func (r *natRig) mustOutside(b []byte) *packet.Frame {
	r.t.Helper()
	d, f := r.outside(b)
	if f == nil {
		r.t.Fatalf("not passed on: %+v", d)
	}
	return f
}

// answer is the one frame the router sent since the last call.
func (r *natRig) answer() *packet.Frame {
	r.t.Helper()
	if len(r.sent) != 1 {
		r.t.Fatalf("%d frames sent", len(r.sent))
	}
	f := &packet.Frame{B: r.sent[0].b}
	r.sent = nil
	mustParse(r.t, f)
	checkSums(r.t, f)
	return f
}

// wantICMP checks an ICMP error the router sent.
func wantICMP(t testing.TB, f *packet.Frame, dst station, kind, code uint8) packet.ICMP {
	t.Helper()
	m := packet.ICMP(f.Transport())
	if f.Proto != packet.ProtoICMP || m.Type() != kind || m.Code() != code || f.Tuple().Dst.Netip() != dst.IP {
		t.Fatalf("got %v, type %d code %d; want type %d code %d to %v", f.Tuple(), m.Type(), m.Code(), kind, code, dst.IP)
	}
	return m
}

func addrOf(s station) packet.Addr { return packet.AddrFromNetip(s.IP) }
