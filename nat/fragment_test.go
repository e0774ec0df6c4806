package nat

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

const second = int64(time.Second)

func host(ip string) packettest.Station {
	return packettest.Station{MAC: packet.MAC{2, 0, 0, 0, 0, 1}, IP: netip.MustParseAddr(ip)}
}

var (
	inside  = host("10.88.0.2")
	outside = host("203.0.113.5")
)

func parsed(t testing.TB, b []byte) packet.Frame {
	t.Helper()
	f := packet.Frame{B: b}
	if r := packet.Parse(&f); r != packet.OK {
		t.Fatalf("Parse: %v: %s", r, r.Why())
	}
	return f
}

// cut is a datagram in fragments.
func cut(t testing.TB, b []byte) (pieces []packet.Frame) {
	t.Helper()
	whole := parsed(t, b)
	var s packet.Fragmenter
	if !s.Reset(&whole, 576) {
		t.Fatal("the fragmenter refused")
	}
	dst := make([]byte, packet.MaxFrame)
	for n, ok := s.Next(dst); ok; n, ok = s.Next(dst) {
		pieces = append(pieces, parsed(t, bytes.Clone(dst[:n])))
	}
	return pieces
}

// fragment is one of a datagram by its parts.
func fragment(t testing.TB, src, dst packettest.Station, proto packet.Proto, id uint16, offset int) packet.Frame {
	t.Helper()
	transport := packettest.UDP(src, dst, 1000, 53, make([]byte, 24))[packet.VNetLen+packet.EthernetLen+packet.IPv4MinLen:]
	b := packettest.IPv4(src, dst, proto, nil, transport)
	ip := packet.IPv4(b[packet.VNetLen+packet.EthernetLen:])
	ip.SetID(id)
	ip.SetFragment(false, true, offset)
	ip.UpdateChecksum()
	return parsed(t, b)
}

// TestFragmentsAnyOrder is RFC 4787 REQ-14: whatever comes behind the first
// fragment has its ports, and what comes before it knows what it waits for.
func TestFragmentsAnyOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for name, b := range map[string][]byte{
		"UDP":  packettest.UDP(inside, outside, 4000, 53, make([]byte, 4000)),
		"TCP":  packettest.TCP(inside, outside, packettest.Segment{SrcPort: 4000, DstPort: 53}, make([]byte, 4000)),
		"echo": packettest.ICMPEcho(inside, outside, 4000, 1, make([]byte, 4000)),
	} {
		whole := parsed(t, b)
		for range 20 {
			pieces := cut(t, b)
			rng.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
			fr, known := NewFragments(), false
			for _, f := range pieces {
				if f.L4 != 0 {
					fr.Learn(7, &f, second)
					known = true
				}
				src, dst, ok := fr.Ports(7, &f, second)
				if ok != known || ok && (src != whole.SrcPort || dst != whole.DstPort) {
					t.Fatalf("%s: Ports = %d, %d, %v; first fragment seen: %v", name, src, dst, ok, known)
				}
				if fr.Key(7, &f) != fr.Key(7, &pieces[0]) || fr.Key(7, &f)>>63 != 1 {
					t.Fatalf("%s: fragments of one datagram wait for different things", name)
				}
			}
		}
	}
}

func TestFragmentsOfIPv6(t *testing.T) {
	six := [2]packettest.Station{inside.IPv6(), host("fe80::1")}
	piece := func(id uint32, offset uint16) packet.Frame {
		h := []byte{byte(packet.ProtoUDP), 0, 0, 0, 0, 0, 0, 0}
		binary.BigEndian.PutUint16(h[2:], offset|1)
		binary.BigEndian.PutUint32(h[4:], id)
		u := []byte{0x0f, 0xa0, 0, 53, 1, 0, 0, 0}
		return parsed(t, packettest.IP(six[0], six[1], packet.ProtoFragment, append(h, u...)))
	}
	fr := NewFragments()
	first, later, other := piece(1<<20, 0), piece(1<<20, 8), piece(1, 8)
	fr.Learn(7, &first, 0)
	if src, dst, ok := fr.Ports(7, &later, 1); !ok || src != 4000 || dst != 53 {
		t.Errorf("Ports = %d, %d, %v", src, dst, ok)
	}
	if _, _, ok := fr.Ports(7, &other, 1); ok {
		t.Error("a fragment of another packet has ports")
	}
}

func TestFragmentsExpire(t *testing.T) {
	fr := NewFragments()
	first, later := fragment(t, inside, outside, packet.ProtoUDP, 1, 0), fragment(t, inside, outside, packet.ProtoUDP, 1, 64)
	fr.Learn(7, &first, second)
	for at, want := range map[int64]bool{second: true, 31*second - 1: true, 31 * second: false, 1000 * second: false} {
		if _, _, ok := fr.Ports(7, &later, at); ok != want {
			t.Errorf("after %v: %v", time.Duration(at-second), ok)
		}
	}
}

// TestFragmentsKey: only fragments of the same datagram have the same ports,
// and wait for the same thing.
func TestFragmentsKey(t *testing.T) {
	fr := NewFragments()
	first := fragment(t, inside, outside, packet.ProtoUDP, 1, 0)
	fr.Learn(7, &first, 0)
	for name, tt := range map[string]struct {
		scope packet.NetworkID
		f     packet.Frame
	}{
		"network":     {8, fragment(t, inside, outside, packet.ProtoUDP, 1, 64)},
		"source":      {7, fragment(t, host("10.88.0.3"), outside, packet.ProtoUDP, 1, 64)},
		"destination": {7, fragment(t, inside, host("203.0.113.6"), packet.ProtoUDP, 1, 64)},
		"ID":          {7, fragment(t, inside, outside, packet.ProtoUDP, 2, 64)},
		"protocol":    {7, fragment(t, inside, outside, packet.ProtoTCP, 1, 64)},
	} {
		if _, _, ok := fr.Ports(tt.scope, &tt.f, 1); ok {
			t.Errorf("another %s, the same ports", name)
		}
		if fr.Key(tt.scope, &tt.f) == fr.Key(7, &first) {
			t.Errorf("another %s, the same key", name)
		}
	}
}

// TestFragmentsReplaced: identifications come round, and the last datagram with
// one is meant.
func TestFragmentsReplaced(t *testing.T) {
	fr := NewFragments()
	first := fragment(t, inside, outside, packet.ProtoUDP, 1, 0)
	fr.Learn(7, &first, 0)
	first.SrcPort = 2000
	fr.Learn(7, &first, 20*second)
	if src, _, ok := fr.Ports(7, &first, 40*second); !ok || src != 2000 {
		t.Errorf("Ports = %d, %v, want 2000", src, ok)
	}
}

// TestFragmentsIgnored: whole packets, and fragments that have no ports.
func TestFragmentsIgnored(t *testing.T) {
	fr := NewFragments()
	for _, f := range []packet.Frame{
		parsed(t, packettest.UDP(inside, outside, 1, 2, nil)),
		fragment(t, inside, outside, packet.ProtoUDP, 1, 64),
		fragment(t, inside, outside, packet.ProtoESP, 1, 0),
	} {
		fr.Learn(7, &f, 0)
	}
	if fr.sets != NewFragments().sets {
		t.Error("something was learned")
	}
}

// TestFragmentsFlood is RFC 4787 REQ-14a. One source cannot push out another
// one's fragments, not even in the same set; and a flood from everywhere does
// not come between fragments that follow each other.
func TestFragmentsFlood(t *testing.T) {
	fr := NewFragments()
	victim := fragment(t, inside, outside, packet.ProtoUDP, 1, 0)
	neighbour := inside
	for i := 0; ; i++ { // a source in the same set
		neighbour.IP = netip.AddrFrom4([4]byte{10, 88, byte(i >> 8), byte(i)})
		key := keyOf(7, &victim)
		other := fragmentSource{7, packet.AddrFromNetip(neighbour.IP)}
		if neighbour != inside && fr.set(key.source) == fr.set(other) {
			break
		}
	}
	fr.Learn(7, &victim, 0)
	for id := range 10_000 {
		f := fragment(t, neighbour, outside, packet.ProtoUDP, uint16(id), 0)
		fr.Learn(7, &f, 1)
	}
	if _, _, ok := fr.Ports(7, &victim, 2); !ok {
		t.Error("one source pushed out what another one has")
	}

	held := 0
	for _, e := range fr.set(keyOf(7, &victim).source) {
		if e.expires > 1 {
			held++
		}
	}
	if held > fragmentWays || held < fragmentShare {
		t.Errorf("the set holds %d", held)
	}

	rng := rand.New(rand.NewPCG(3, 4))
	flood := func(n int) {
		for range n {
			from := outside
			from.IP = netip.AddrFrom4([4]byte{byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32())})
			f := fragment(t, from, inside, packet.ProtoUDP, uint16(rng.Uint32()), 0)
			fr.Learn(9, &f, 3)
		}
	}
	flood(20_000)
	for id := range uint16(100) {
		first, later := fragment(t, inside, outside, packet.ProtoUDP, id, 0), fragment(t, inside, outside, packet.ProtoUDP, id, 64)
		fr.Learn(7, &first, 3)
		flood(100)
		if _, _, ok := fr.Ports(7, &later, 3); !ok {
			t.Fatal("a flood of fragments stops those that come in order")
		}
	}
}

// TestTinyFragments: a first fragment with half a header (RFC 1858, RFC 3128)
// does not get as far as the table, so its ports cannot be others than those
// that were looked at.
func TestTinyFragments(t *testing.T) {
	for name, tt := range map[string]struct {
		proto  packet.Proto
		size   int
		offset int
		want   packet.Reason
	}{
		"TCP ports only":          {packet.ProtoTCP, 8, 0, packet.BadTransport},
		"TCP without flags":       {packet.ProtoTCP, 16, 0, packet.BadTransport},
		"over the TCP flags":      {packet.ProtoTCP, 16, 8, packet.BadFragment},
		"over a TCP header again": {packet.ProtoTCP, 8, 0, packet.BadTransport},
		"empty":                   {packet.ProtoUDP, 0, 0, packet.BadFragment},
	} {
		b := packettest.IP(inside, outside, tt.proto, make([]byte, tt.size))
		ip := packet.IPv4(b[packet.VNetLen+packet.EthernetLen:])
		ip.SetFragment(false, true, tt.offset)
		ip.UpdateChecksum()
		if r := packet.Parse(&packet.Frame{B: b}); r != tt.want {
			t.Errorf("%s: Parse = %v, want %v", name, r, tt.want)
		}
	}
}

func TestFragmentsAllocateNothing(t *testing.T) {
	fr := NewFragments()
	first, later := fragment(t, inside, outside, packet.ProtoUDP, 1, 0), fragment(t, inside, outside, packet.ProtoUDP, 1, 64)
	if n := testing.AllocsPerRun(100, func() {
		fr.Learn(7, &first, 0)
		fr.Ports(7, &later, 1)
		fr.Key(7, &later)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkFragmentsFull(b *testing.B) {
	fr := NewFragments()
	for id := range uint16(fragmentWays) {
		f := fragment(b, inside, outside, packet.ProtoUDP, id, 0)
		fr.Learn(7, &f, 0)
	}
	later := fragment(b, inside, outside, packet.ProtoUDP, 9999, 64)
	for b.Loop() {
		fr.Ports(7, &later, 1)
	}
}
