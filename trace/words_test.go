package trace

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

var (
	web = station("172.17.0.2")
	db  = station("172.17.0.3")
	gw  = station("172.17.0.1")
)

func station(s string) packettest.Station {
	ip := netip.MustParseAddr(s)
	return packettest.Station{MAC: packet.MACFromIPv4(ip), IP: ip}
}

// The numbers of the tests: one network, one uplink.
const (
	inside  packet.NetworkID = 1
	outside packet.NetworkID = 9
)

var names = Names{
	Port: func(p packet.Place) string {
		if p.Network == outside {
			return "lan"
		}
		return map[packet.PortID]string{1: "web", 2: "db", 3: "cache"}[p.Port]
	},
	Route: func(from, to packet.NetworkID, dst packet.Addr) string {
		return map[packet.NetworkID]string{inside: "172.17.0.0/16 dev default", outside: "default via 192.0.2.1 dev lan"}[to]
	},
	Rule: func(n packet.NetworkID, number uint32) string {
		return map[uint32]string{3: "web → db:5432/tcp"}[number]
	},
}

// record takes down a frame that came in at web, parsed as the switch does.
func record(b []byte, d packet.Decision, out ...packet.PortID) *Record {
	f := packet.Frame{B: b, Port: 1, Network: inside, Container: 7}
	_ = packet.Parse(&f) // malformed ones too
	r := NewRecord(&f, &d)
	for _, p := range out {
		r.AddEgress(p)
	}
	r.Wall = time.Date(2026, 1, 2, 15, 4, 5, 678_901_000, time.Local)
	return &r
}

func TestSummary(t *testing.T) {
	data := []byte("data")
	fragment := func(offset int) []byte {
		b := packettest.UDP(web, db, 1, 2, make([]byte, 64))
		packet.IPv4(b[packet.VNetLen+packet.EthernetLen:]).SetFragment(false, true, offset)
		return b
	}
	fragment6 := func(offset uint16) []byte {
		h := []byte{byte(packet.ProtoUDP), 0, 0, 1, 0, 0, 0, 1}
		binary.BigEndian.PutUint16(h[2:], offset|1)
		whole := packettest.UDP(web.IPv6(), db.IPv6(), 1, 2, make([]byte, 64))[packet.VNetLen+packet.EthernetLen+packet.IPv6Len:]
		return packettest.IP(web.IPv6(), db.IPv6(), packet.ProtoFragment, append(h, whole...))
	}
	message := func(kind, code byte) []byte {
		return packettest.IP(web, db, packet.ProtoICMP, append([]byte{kind, code}, make([]byte, 30)...))
	}
	hopByHop := append([]byte{byte(packet.ProtoUDP), 0, 5, 2, 0, 0, 1, 0},
		packettest.UDP(web.IPv6(), db.IPv6(), 7, 8, data)[packet.VNetLen+packet.EthernetLen+packet.IPv6Len:]...)
	inside := packettest.Tagged(packettest.TCP(db, gw, packettest.Segment{SrcPort: 1, DstPort: 2}, nil), 99)[packet.VNetLen:]
	for _, c := range []struct {
		frame []byte
		want  string
	}{
		{packettest.ARPRequest(web, gw.IP), "ARP who has 172.17.0.1, tell 172.17.0.2"},
		{packettest.ARPReply(web, db), "ARP 172.17.0.2 is at 02:42:ac:11:00:02"},
		{packettest.ICMPEcho(web, db, 7, 1, data), "172.17.0.2 > 172.17.0.3 ICMP echo request"},
		{packettest.ICMPEchoReply(web, db, 7, 1, data), "172.17.0.2 > 172.17.0.3 ICMP echo reply"},
		{packettest.ICMPEcho(web.IPv6(), db.IPv6(), 7, 1, data), "fe80::42:acff:fe11:2 > fe80::42:acff:fe11:3 ICMPv6 echo request"},
		{packettest.TCP(web, db, packettest.Segment{SrcPort: 40000, DstPort: 80, Flags: packet.TCPSyn}, nil),
			"172.17.0.2:40000 > 172.17.0.3:80 TCP SYN"},
		{packettest.TCP(web, db, packettest.Segment{SrcPort: 80, DstPort: 1, Flags: packet.TCPSyn | packet.TCPAck}, nil),
			"172.17.0.2:80 > 172.17.0.3:1 TCP SYN ACK"},
		{packettest.TCP(web, db, packettest.Segment{SrcPort: 80, DstPort: 1, Flags: 0xff}, nil),
			"172.17.0.2:80 > 172.17.0.3:1 TCP SYN FIN RST PSH ACK"},
		{packettest.TCP(web, db, packettest.Segment{SrcPort: 80, DstPort: 1}, nil), "172.17.0.2:80 > 172.17.0.3:1 TCP"},
		{packettest.TCP(web.IPv6(), db.IPv6(), packettest.Segment{SrcPort: 5, DstPort: 6, Flags: packet.TCPRst}, nil),
			"[fe80::42:acff:fe11:2]:5 > [fe80::42:acff:fe11:3]:6 TCP RST"},
		{packettest.GSO(packettest.TCP(web, db, packettest.Segment{SrcPort: 5, DstPort: 6, Flags: packet.TCPAck}, make([]byte, 9000)), 1448),
			"172.17.0.2:5 > 172.17.0.3:6 TCP ACK"},
		{packettest.UDP(web, db, 5353, 53, data), "172.17.0.2:5353 > 172.17.0.3:53 UDP"},
		{packettest.UDP(web, packettest.Broadcast, 68, 67, data), "172.17.0.2:68 > 255.255.255.255:67 UDP"},
		{packettest.IP(web, db, packet.ProtoESP, data), "172.17.0.2 > 172.17.0.3 ESP"},
		{packettest.IP(web.IPv6(), db.IPv6(), packet.ProtoNoNext, nil), "fe80::42:acff:fe11:2 > fe80::42:acff:fe11:3 no next header"},
		{packettest.IP(web.IPv6(), db.IPv6(), packet.ProtoHopByHop, hopByHop),
			"[fe80::42:acff:fe11:2]:7 > [fe80::42:acff:fe11:3]:8 UDP"},
		{fragment(0), "172.17.0.2:1 > 172.17.0.3:2 UDP, first fragment"},
		{fragment(1480), "172.17.0.2 > 172.17.0.3 UDP, later fragment"},
		{fragment6(0), "[fe80::42:acff:fe11:2]:1 > [fe80::42:acff:fe11:3]:2 UDP, first fragment"},
		{fragment6(1400), "fe80::42:acff:fe11:2 > fe80::42:acff:fe11:3 UDP, later fragment"},
		{packettest.IPv4(web, db, packet.ProtoUDP, []byte{0x94, 4, 0, 0},
			packettest.UDP(web, db, 1, 2, data)[packet.VNetLen+packet.EthernetLen+packet.IPv4MinLen:]), "172.17.0.2:1 > 172.17.0.3:2 UDP"},
		{packettest.Tagged(packettest.ICMPEcho(web, db, 7, 1, data), 0x2005), "vlan 5 172.17.0.2 > 172.17.0.3 ICMP echo request"},
		{packettest.Tagged(packettest.ARPRequest(web, db.IP), 5, 6), "vlan 5 vlan 6 ARP who has 172.17.0.3, tell 172.17.0.2"},
		{packettest.Tagged(packettest.Ethernet(web.MAC, db.MAC, 0x88cc, data), 5),
			"vlan 5 02:42:ac:11:00:02 > 02:42:ac:11:00:03 ethertype 0x88cc"},
		{packettest.Ethernet(web.MAC, db.MAC, 0x88cc, data), "02:42:ac:11:00:02 > 02:42:ac:11:00:03 ethertype 0x88cc"},
		{packettest.Ethernet(web.MAC, packet.MAC{1, 0x80, 0xc2}, 38, make([]byte, 38)), "02:42:ac:11:00:02 > 01:80:c2:00:00:00 802.3"},
		// What is inside a tunnel is its payload.
		{packettest.UDP(web, db, 9, 4789, append([]byte{8, 0, 0, 0, 0, 0, 1, 0}, inside...)), "172.17.0.2:9 > 172.17.0.3:4789 UDP"},
		{packettest.IP(web, db, 4, packettest.TCP(db, gw, packettest.Segment{SrcPort: 1, DstPort: 2}, nil)[packet.VNetLen+packet.EthernetLen:]),
			"172.17.0.2 > 172.17.0.3 IPv4"},
		{packettest.Ethernet(web.MAC, db.MAC, 0x8847, append([]byte{0, 1, 1, 64}, packettest.UDP(db, gw, 1, 2, nil)[packet.VNetLen+packet.EthernetLen:]...)),
			"02:42:ac:11:00:02 > 02:42:ac:11:00:03 ethertype 0x8847"},
		{message(packet.ICMPUnreachable, packet.ICMPPortUnreachable), "172.17.0.2 > 172.17.0.3 ICMP port unreachable"},
		{message(packet.ICMPUnreachable, 200), "172.17.0.2 > 172.17.0.3 ICMP unreachable"},
		{message(packet.ICMPTimeExceeded, 0), "172.17.0.2 > 172.17.0.3 ICMP time exceeded"},
		{message(42, 1), "172.17.0.2 > 172.17.0.3 ICMP type 42 code 1"},
		// Malformed.
		{make([]byte, packet.VNetLen), "0 bytes"},
		{make([]byte, 3), "0 bytes"},
		{packettest.UDP(web, db, 1, 2, data)[:packet.VNetLen+13], "13 bytes"},
		{packettest.UDP(web, db, 1, 2, data)[:packet.VNetLen+14+7], "02:42:ac:11:00:02 > 02:42:ac:11:00:03 IPv4"},
		{packettest.UDP(web, db, 1, 2, data)[:packet.VNetLen+14+20+3], "172.17.0.2 > 172.17.0.3 UDP"},
		{packettest.UDP(web.IPv6(), db.IPv6(), 1, 2, data)[:packet.VNetLen+14+39], "02:42:ac:11:00:02 > 02:42:ac:11:00:03 IPv6"},
		{packettest.ARPRequest(web, db.IP)[:packet.VNetLen+14+27], "02:42:ac:11:00:02 > ff:ff:ff:ff:ff:ff ARP"},
		{packettest.Tagged(packettest.UDP(web, db, 1, 2, data), 5)[:packet.VNetLen+16], "02:42:ac:11:00:02 > 02:42:ac:11:00:03"},
	} {
		if got := record(c.frame, packet.Decision{}).Summary(); got != c.want {
			t.Errorf("\n got %s\nwant %s", got, c.want)
		}
	}
}

// TestTooManyTags: a frame Parse gives up on is still named.
func TestTooManyTags(t *testing.T) {
	got := record(packettest.Tagged(packettest.UDP(web, db, 1, 2, nil), 1, 2, 3), packet.Decision{}).Summary()
	if want := "vlan 1 vlan 2 02:42:ac:11:00:02 > 02:42:ac:11:00:03"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// ping and ask are what most of the walks below are about.
var (
	ping = packettest.ICMPEcho(web, db, 7, 1, []byte("data"))
	ask  = packettest.ARPRequest(web, gw.IP)
	pong = packettest.ICMPEcho(web, gw, 7, 1, []byte("data"))
)

func TestLineAndWalk(t *testing.T) {
	drop := func(r packet.Reason) packet.Decision { return packet.Decision{Verdict: packet.Drop, Reason: r} }
	for _, c := range []struct {
		name   string
		record *Record
		line   string
		walk   string
	}{
		{"unicast", record(ping, packet.Decision{Verdict: packet.Unicast, Reason: packet.KnownMAC, Egress: packet.Place{Port: 2}}, 2),
			"web → db  172.17.0.2 > 172.17.0.3 ICMP echo request  unicast (known-mac)", `
1 parse      172.17.0.2 > 172.17.0.3 ICMP echo request, 46 bytes
2 guard      web may use source 02:42:ac:11:00:02
3 look up    02:42:ac:11:00:03 is behind db
4 admit      nothing forbids it
6 emit       unicast to db`},
		{"super-frame of a newcomer", record(packettest.GSO(packettest.TCP(web, db, packettest.Segment{SrcPort: 5, DstPort: 6, Flags: packet.TCPAck},
			make([]byte, 2900)), 1448), packet.Decision{Verdict: packet.Unicast, Reason: packet.KnownMAC, Egress: packet.Place{Port: 2}, Learn: packet.LearnNew}, 2),
			"web → db  172.17.0.2:5 > 172.17.0.3:6 TCP ACK  unicast (known-mac)", `
1 parse      172.17.0.2:5 > 172.17.0.3:6 TCP ACK, 2954 bytes in 3 segments
2 guard      web may use source 02:42:ac:11:00:02
             learned: 02:42:ac:11:00:02 is behind web
3 look up    02:42:ac:11:00:03 is behind db
4 admit      nothing forbids it
6 emit       unicast to db`},
		{"flood", record(ping, packet.Decision{Verdict: packet.Flood, Reason: packet.UnknownMAC, Learn: packet.LearnMoved}, 2, 3),
			"web → db, cache  172.17.0.2 > 172.17.0.3 ICMP echo request  flood (unknown-mac)", `
1 parse      172.17.0.2 > 172.17.0.3 ICMP echo request, 46 bytes
2 guard      web may use source 02:42:ac:11:00:02
             moved: 02:42:ac:11:00:02 is now behind web
3 look up    02:42:ac:11:00:03: The MAC table does not know the destination, so every port gets a copy.
4 admit      nothing forbids it
6 emit       flood to db, cache`},
		{"flood of one port", record(ping, packet.Decision{Verdict: packet.Flood, Reason: packet.UnknownMAC}),
			"web → nowhere  172.17.0.2 > 172.17.0.3 ICMP echo request  flood (unknown-mac)", `
1 parse      172.17.0.2 > 172.17.0.3 ICMP echo request, 46 bytes
2 guard      web may use source 02:42:ac:11:00:02
3 look up    02:42:ac:11:00:03: The MAC table does not know the destination, so every port gets a copy.
4 admit      nothing forbids it
6 emit       flood to nowhere`},
		{"who has the gateway", record(ask, packet.Decision{Verdict: packet.Flood, Reason: packet.ToGroup, ToGateway: true,
			Neighbour: true, Originate: packet.OriginARPReply}, 2),
			"web → db, gateway  ARP who has 172.17.0.1, tell 172.17.0.2  flood (to-group)", `
1 parse      ARP who has 172.17.0.1, tell 172.17.0.2, 42 bytes
2 guard      web may use source 02:42:ac:11:00:02
3 look up    ff:ff:ff:ff:ff:ff: The destination is a broadcast or multicast address, so every port gets a copy.
4 admit      nothing forbids it
5.1 for me   takes the sender into its ARP table, answers with ARP reply
6 emit       flood to db, gateway
6 emit       ARP reply to web`},
		{"ping of the gateway", record(pong, packet.Decision{Verdict: packet.Gateway, Reason: packet.ForGateway, Originate: packet.OriginEchoReply}),
			"web → gateway  172.17.0.2 > 172.17.0.1 ICMP echo request  gateway (for-gateway)", `
1 parse      172.17.0.2 > 172.17.0.1 ICMP echo request, 46 bytes
2 guard      web may use source 02:42:ac:11:00:02
3 look up    02:42:ac:11:00:01 is the gateway
4 admit      nothing forbids it
5.1 for me   answers with echo reply
6 emit       echo reply to web`},
		{"told to the gateway", record(packettest.ARPReply(web, gw), packet.Decision{Verdict: packet.Gateway, Reason: packet.ForGateway}),
			"web → gateway  ARP 172.17.0.2 is at 02:42:ac:11:00:02  gateway (for-gateway)", `
1 parse      ARP 172.17.0.2 is at 02:42:ac:11:00:02, 42 bytes
2 guard      web may use source 02:42:ac:11:00:02
3 look up    02:42:ac:11:00:01 is the gateway
4 admit      nothing forbids it
5.1 for me   has nothing to add`},
		{"learned by the gateway", record(packettest.ARPReply(web, gw), packet.Decision{Verdict: packet.Gateway, Reason: packet.ForGateway, Neighbour: true}),
			"web → gateway  ARP 172.17.0.2 is at 02:42:ac:11:00:02  gateway (for-gateway)", `
1 parse      ARP 172.17.0.2 is at 02:42:ac:11:00:02, 42 bytes
2 guard      web may use source 02:42:ac:11:00:02
3 look up    02:42:ac:11:00:01 is the gateway
4 admit      nothing forbids it
5.1 for me   takes the sender into its ARP table`},
		{"hub, ping of the gateway", record(pong, packet.Decision{Verdict: packet.Flood, Reason: packet.HubMode, ToGateway: true, Originate: packet.OriginEchoReply}, 2),
			"web → db, gateway  172.17.0.2 > 172.17.0.1 ICMP echo request  flood (hub-mode)", `
1 parse      172.17.0.2 > 172.17.0.1 ICMP echo request, 46 bytes
2 guard      web may use source 02:42:ac:11:00:02
3 look up    02:42:ac:11:00:01: The switch plays a hub: every port gets a copy of everything.
4 admit      nothing forbids it
5.1 for me   answers with echo reply
6 emit       flood to db, gateway
6 emit       echo reply to web`},

		{"drop in parse", record(ping[:packet.VNetLen+20], drop(packet.Truncated)),
			"web → nowhere  02:42:ac:11:00:02 > 02:42:ac:11:00:03 IPv4  drop (truncated)", `
1 parse      dropped, truncated: The frame ends before the headers it announces.
             Look at the sender: it wrote a cut-off frame.`},
		{"drop in guard", record(ping, drop(packet.SpoofedAddress)),
			"web → nowhere  172.17.0.2 > 172.17.0.3 ICMP echo request  drop (spoofed-address)", `
1 parse      172.17.0.2 > 172.17.0.3 ICMP echo request, 46 bytes
2 guard      dropped, spoofed-address: ` + packet.SpoofedAddress.Why() + `
             ` + packet.SpoofedAddress.Try()},
		{"drop in look up", record(ping, drop(packet.SamePort)),
			"web → nowhere  172.17.0.2 > 172.17.0.3 ICMP echo request  drop (same-port)", `
1 parse      172.17.0.2 > 172.17.0.3 ICMP echo request, 46 bytes
2 guard      web may use source 02:42:ac:11:00:02
3 look up    dropped, same-port: ` + packet.SamePort.Why() + `
             ` + packet.SamePort.Try()},
		// The gateway would have heard it, had it been let in.
		{"drop in admit", record(ask, packet.Decision{Verdict: packet.Drop, Reason: packet.FloodLimit, ToGateway: true}),
			"web → nowhere  ARP who has 172.17.0.1, tell 172.17.0.2  drop (flood-limit)", `
1 parse      ARP who has 172.17.0.1, tell 172.17.0.2, 42 bytes
2 guard      web may use source 02:42:ac:11:00:02
4 admit      dropped, flood-limit: ` + packet.FloodLimit.Why() + `
             ` + packet.FloodLimit.Try()},
		{"drop at the gateway", record(ping, packet.Decision{Verdict: packet.Drop, Reason: packet.NoRoute, Originate: packet.OriginNetUnreachable}),
			"web → nowhere  172.17.0.2 > 172.17.0.3 ICMP echo request  drop (no-route); ICMP net unreachable to web", `
1 parse      172.17.0.2 > 172.17.0.3 ICMP echo request, 46 bytes
2 guard      web may use source 02:42:ac:11:00:02
3 look up    02:42:ac:11:00:03 is the gateway
4 admit      nothing forbids it
5.1 for me   no, for 172.17.0.3
5.2 TTL      64 → 63
5.3 egress   nothing forbids it
5.6 next hop dropped, no-route: ` + packet.NoRoute.Why() + `
             ` + packet.NoRoute.Try() + `
6 emit       ICMP net unreachable to web`},
		{"drop at the gateway, silent", record(ping, drop(packet.NotUnderstood)),
			"web → nowhere  172.17.0.2 > 172.17.0.3 ICMP echo request  drop (not-understood)", `
1 parse      172.17.0.2 > 172.17.0.3 ICMP echo request, 46 bytes
2 guard      web may use source 02:42:ac:11:00:02
3 look up    02:42:ac:11:00:03 is the gateway
4 admit      nothing forbids it
5.1 for me   dropped, not-understood: ` + packet.NotUnderstood.Why() + `
             ` + packet.NotUnderstood.Try()},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, want := c.record.Line(names), "15:04:05.678901  "+c.line; got != want {
				t.Errorf("line\n got %s\nwant %s", got, want)
			}
			if got, want := strings.Join(c.record.Walk(names), "\n"), c.walk[1:]; got != want {
				t.Errorf("walk\n got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestToNamesAFewAndCountsTheRest(t *testing.T) {
	r := record(ping, packet.Decision{Verdict: packet.Flood, Reason: packet.ToGroup, ToGateway: true})
	for range maxEgress + 5 {
		r.AddEgress(2)
	}
	want := strings.Repeat("db, ", maxEgress) + "and 5 more, gateway"
	if got := r.To(names); got != want || r.Copies != maxEgress+5 || len(r.Named()) != maxEgress {
		t.Errorf("got %s, %d copies", got, r.Copies)
	}
}

// FuzzSummary: whatever is in a frame, it is put into one printable line.
func FuzzSummary(f *testing.F) {
	rng := rand.New(rand.NewPCG(7, 8))
	for range 100 {
		f.Add(packettest.Random(rng), byte(rng.IntN(256)), byte(rng.IntN(256)))
	}
	f.Add([]byte{}, byte(0), byte(1))
	f.Fuzz(func(t *testing.T, b []byte, verdict, reason byte) {
		if len(b) > packet.MaxFrame {
			return
		}
		whole := packet.Frame{B: b}
		r := record(b, packet.Decision{
			Verdict: packet.Verdict(verdict % packet.NumVerdicts), Reason: packet.Reason(reason % packet.NumReasons),
			Originate: packet.Origin(reason % packet.NumOrigins), Neighbour: reason%2 == 0, ToGateway: reason%3 == 0,
			Routed: reason%5 == 0 && packet.Parse(&whole) == packet.OK, MTU: uint16(verdict),
			NAT: packet.Translation{Kind: packet.NATKind(verdict % packet.NumNATKinds), Before: packet.Tuple{SrcPort: uint16(reason)}, Quoted: reason%7 == 0},
		}, 2, 3)
		for _, line := range append(r.Walk(names), r.Line(names), r.Summary()) {
			if line == "" || !utf8.ValidString(line) || strings.ContainsFunc(line, func(c rune) bool { return c < ' ' || c == 0x7f }) {
				t.Errorf("not one line of text: %q", line)
			}
		}
	})
}

// The head is cut off where it may be cut off: in the middle of any header.
func TestSummaryOfEveryHead(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	for range 60 {
		b := packettest.Good(rng)
		for n := packet.VNetLen; n < min(len(b), 150); n++ {
			r := record(b[:n:n], packet.Decision{Verdict: packet.Drop, Reason: packet.Truncated})
			if r.Summary() == "" {
				t.Fatalf("nothing to say of % x", b[:n])
			}
		}
	}
}
