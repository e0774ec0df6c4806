package policy

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

// Containers of the tests.
const (
	cWeb packet.ContainerID = 1<<16 | 1 + iota
	cDB
	cCache
)

// allow is a rule that lets from open connections to ports of to.
func allow(number uint32, from, to packet.ContainerID, proto packet.Proto, ports ...uint16) AdmitRule {
	r := AdmitRule{Number: number, From: from, To: to, Proto: proto, Hits: NewHits(1)}
	if len(ports) > 0 {
		r.Ports = Ports{ports[0], ports[len(ports)-1]}
	}
	return r
}

func tcp(src, dst packettest.Station, from, to uint16, flags uint8) []byte {
	return packettest.TCP(src, dst, packettest.Segment{SrcPort: from, DstPort: to, Flags: flags}, nil)
}

func TestAdmit(t *testing.T) {
	a := NewAdmit([]AdmitRule{
		allow(7, cWeb, cDB, packet.ProtoTCP, 5432),
		allow(2, cWeb, cDB, packet.ProtoUDP, 53, 60),
		allow(9, 0, cCache, packet.ProtoTCP, 11211),
		allow(4, cCache, cWeb, 0),
	}, NewHits(1))
	const syn, synAck, ack = packet.TCPSyn, packet.TCPSyn | packet.TCPAck, packet.TCPAck
	x, y := me, other
	datagram := func(from, to uint16) []byte { return packettest.UDP(x, y, from, to, []byte("x")) }
	later := packettest.IPv4(x, y, packet.ProtoUDP, nil, make([]byte, 64))
	packet.IPv4(later[packet.VNetLen+packet.EthernetLen:]).SetFragment(false, false, 64) // its checksum nobody looks at
	about := packettest.ICMPError(x, y, packet.ICMPUnreachable, packet.ICMPPortUnreachable, 0, datagram(1, 2), 64)
	solicit := packettest.IP(x.IPv6(), y.IPv6(), packet.ProtoICMPv6, append([]byte{packet.ICMPv6NeighborSolicit, 0, 0, 0}, make([]byte, 20)...))
	for _, c := range []struct {
		name     string
		from, to packet.ContainerID
		frame    []byte
		rule     uint32
		reason   packet.Reason
	}{
		{"a connection begins", cWeb, cDB, tcp(x, y, 40000, 5432, syn), 7, packet.OK},
		{"and goes on", cWeb, cDB, tcp(x, y, 40000, 5432, ack), 7, packet.OK},
		{"and is accepted", cDB, cWeb, tcp(x, y, 5432, 40000, synAck), 7, packet.OK},
		{"and answered", cDB, cWeb, tcp(x, y, 5432, 40000, ack), 7, packet.OK},
		{"by IPv6", cWeb, cDB, tcp(x.IPv6(), y.IPv6(), 40000, 5432, syn), 7, packet.OK},
		{"tagged", cWeb, cDB, packettest.Tagged(tcp(x, y, 40000, 5432, syn), 5), 7, packet.OK},
		{"tagged, another port", cWeb, cDB, packettest.Tagged(tcp(x, y, 40000, 5433, syn), 5), 0, packet.ICC},
		{"a train of segments", cWeb, cDB, packettest.GSO(packettest.TCP(x, y, packettest.Segment{SrcPort: 40000, DstPort: 5432, Flags: ack}, make([]byte, 9000)), 1448), 7, packet.OK},
		{"from the open port, to begin one", cDB, cWeb, tcp(x, y, 5432, 22, syn), 0, packet.ICC},
		{"to another port", cWeb, cDB, tcp(x, y, 40000, 5433, syn), 0, packet.ICC},
		{"by another protocol", cWeb, cDB, datagram(40000, 5432), 0, packet.ICC},
		{"of who is not let", cDB, cWeb, tcp(x, y, 40000, 5432, syn), 0, packet.ICC},
		{"to somebody else", cWeb, cCache, tcp(x, y, 40000, 5432, syn), 0, packet.ICC},
		{"by UDP, first", cWeb, cDB, datagram(40000, 53), 2, packet.OK},
		{"by UDP, last", cWeb, cDB, datagram(40000, 60), 2, packet.OK},
		{"by UDP, beyond", cWeb, cDB, datagram(40000, 61), 0, packet.ICC},
		{"by UDP, answer", cDB, cWeb, datagram(53, 40000), 2, packet.OK},
		{"by UDP, from elsewhere", cDB, cWeb, datagram(52, 40000), 0, packet.ICC},
		{"anybody", cDB, cCache, tcp(x, y, 40000, 11211, syn), 9, packet.OK},
		{"anybody's answer", cCache, cDB, tcp(x, y, 11211, 40000, synAck), 9, packet.OK},
		{"the lower number", cWeb, cCache, tcp(x, y, 40000, 11211, ack), 4, packet.OK},
		{"everything", cCache, cWeb, tcp(x, y, 1, 2, syn), 4, packet.OK},
		{"everything, ping", cCache, cWeb, packettest.ICMPEcho(x, y, 1, 1, nil), 4, packet.OK},
		{"everything, its answer", cWeb, cCache, packettest.ICMPEchoReply(x, y, 1, 1, nil), 4, packet.OK},
		{"everything, the other way", cWeb, cCache, packettest.ICMPEcho(x, y, 1, 1, nil), 0, packet.ICC},
		{"everything, the other way by IPv6", cWeb, cCache, packettest.ICMPEcho(x.IPv6(), y.IPv6(), 1, 1, nil), 0, packet.ICC},
		{"everything, the other way by TCP", cWeb, cCache, tcp(x, y, 1, 2, syn), 0, packet.ICC},
		{"everything, another protocol", cCache, cWeb, packettest.IP(x, y, 47, make([]byte, 20)), 4, packet.OK},
		{"ping where a port is open", cWeb, cDB, packettest.ICMPEcho(x, y, 1, 1, nil), 0, packet.ICC},
		{"an error", cDB, cWeb, about, 2, packet.OK},
		{"an error to somebody else", cDB, cCache, about, 9, packet.OK},
		{"an error from nowhere", cDB, cDB + 7, about, 0, packet.ICC},
		{"a later fragment", cWeb, cDB, later, 2, packet.OK},
		{"a later fragment of an answer", cDB, cWeb, later, 2, packet.OK},
		{"a later fragment to nobody", cDB, cDB + 7, later, 0, packet.ICC},
		{"another protocol where a port is open", cWeb, cDB, packettest.IP(x, y, 47, make([]byte, 20)), 0, packet.ICC},
		{"ARP", cDB, cWeb, packettest.ARPRequest(x, y.IP), 0, packet.OK},
		{"neighbour discovery", cDB, cWeb, solicit, 0, packet.OK},
		{"no IP", cDB, cWeb, packettest.Ethernet(x.MAC, y.MAC, 0x88b5, make([]byte, 46)), 0, packet.OK},
		{"who is no container", 0, cWeb, tcp(x, y, 1, 2, syn), 0, packet.OK},
		{"to who is no container", cWeb, 0, tcp(x, y, 1, 2, syn), 0, packet.OK},
		{"itself", cWeb, cWeb, tcp(x, y, 1, 2, syn), 0, packet.OK},
	} {
		t.Run(c.name, func(t *testing.T) {
			if rule, r := a.Check(parsed(t, c.frame), c.from, c.to); rule != c.rule || r != c.reason {
				t.Errorf("rule %d, %v; want rule %d, %v", rule, r, c.rule, c.reason)
			}
		})
	}
}

// TestAdmitRandom holds the tables against going through all rules, one by one.
func TestAdmitRandom(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	who := []packet.ContainerID{0, cWeb, cDB, cCache, cCache + 1}
	passed := 0
	for range 200 {
		var rules []AdmitRule
		for n := range rng.IntN(12) {
			first := uint16(rng.IntN(1 << 16))
			rules = append(rules, allow(uint32(1+rng.IntN(20*n+1)), who[rng.IntN(5)], who[rng.IntN(5)],
				[]packet.Proto{0, packet.ProtoTCP, packet.ProtoUDP}[rng.IntN(3)], first, max(first, uint16(rng.IntN(1<<16)))))
		}
		a := NewAdmit(rules, NewHits(1))
		for range 100 {
			f := &packet.Frame{B: packettest.Good(rng, me, other)}
			if packet.Parse(f) != packet.OK {
				continue
			}
			from, to := who[1+rng.IntN(4)], who[1+rng.IntN(4)]
			var best uint32
			for i := range rules {
				r := &rules[i]
				is := func(want, have packet.ContainerID) bool { return want == 0 || want == have }
				if is(r.From, from) && is(r.To, to) && r.fits(f, false) || is(r.From, to) && is(r.To, from) && r.fits(f, true) {
					if best == 0 || r.Number < best {
						best = r.Number
					}
				}
			}
			want := packet.OK
			if from == to || !isIP(f) || isNeighbourDiscovery(f) {
				best = 0
			} else if best == 0 {
				want = packet.ICC
			}
			if rule, r := a.Check(f, from, to); rule != best || r != want {
				t.Fatalf("%+v\n% x from %x to %x: rule %d, %v; want rule %d, %v", rules, f.B, from, to, rule, r, best, want)
			}
			if best != 0 {
				passed++
			}
		}
	}
	if passed < 1000 {
		t.Errorf("only %d frames passed by a rule", passed)
	}
}

// FuzzAdmit: whatever Parse lets through can be judged.
func FuzzAdmit(f *testing.F) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		f.Add(packettest.Good(rng, me, other))
	}
	a := NewAdmit([]AdmitRule{allow(1, cWeb, cDB, packet.ProtoTCP, 1, 1000), allow(2, 0, cDB, packet.ProtoUDP, 1, 1000), allow(3, cDB, cCache, 0)}, NewHits(1))
	f.Fuzz(func(t *testing.T, b []byte) {
		frame := &packet.Frame{B: b}
		if packet.Parse(frame) != packet.OK {
			return
		}
		for _, to := range []packet.ContainerID{cDB, cCache} {
			if rule, r := a.Check(frame, cWeb, to); r != packet.OK && (r != packet.ICC || rule != 0) {
				t.Errorf("rule %d, %v", rule, r)
			}
		}
	})
}

func TestAdmitCounts(t *testing.T) {
	one, refused := allow(1, cWeb, cDB, packet.ProtoTCP, 1), NewHits(2)
	one.Hits = NewHits(2)
	again := one
	again.Ports = Ports{5, 9}
	a := NewAdmit([]AdmitRule{one, again}, refused)
	a.Count(1, packet.KnownMAC, 0, 1, 100)
	a.Count(1, packet.KnownMAC, 1, 1, 50)
	a.Count(0, packet.KnownMAC, 0, 1, 9)
	a.Count(0, packet.ICC, 1, 1, 60)
	a.Count(8, packet.KnownMAC, 1, 1, 60) // of a snapshot that is gone
	for _, c := range []struct {
		hits           *Hits
		packets, bytes uint64
	}{{one.Hits, 2, 150}, {refused, 1, 60}} {
		if packets, bytes := c.hits.Sum(); packets != c.packets || bytes != c.bytes {
			t.Errorf("%d packets, %d bytes; want %d, %d", packets, bytes, c.packets, c.bytes)
		}
	}
}

func TestAdmitAllocatesNothing(t *testing.T) {
	a := NewAdmit([]AdmitRule{allow(1, cWeb, cDB, packet.ProtoTCP, 5432), allow(2, 0, cCache, packet.ProtoUDP, 53)}, NewHits(1))
	frames := []*packet.Frame{
		parsed(t, tcp(me, other, 1, 5432, packet.TCPSyn)), parsed(t, udp(me, other)), parsed(t, tcp(me.IPv6(), other.IPv6(), 5432, 1, 0)),
	}
	if n := testing.AllocsPerRun(100, func() {
		for _, f := range frames {
			rule, r := a.Check(f, cWeb, cDB)
			a.Count(rule, r, 0, 1, f.Len())
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAdmit(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprint(n, " rules"), func(b *testing.B) {
			var rules []AdmitRule
			for i := range n {
				rules = append(rules, allow(uint32(i+1), cWeb+packet.ContainerID(i), cDB, packet.ProtoTCP, 5432))
			}
			a, f := NewAdmit(rules, NewHits(1)), parsed(b, tcp(me, other, 1, 5432, packet.TCPAck))
			b.ReportAllocs()
			for b.Loop() {
				if _, r := a.Check(f, cWeb, cDB); r != packet.OK {
					b.Fatal(r)
				}
			}
		})
	}
}
