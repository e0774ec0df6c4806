package trace

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

// The world outside: a router at 192.0.2.1, which we know as lan's next hop, our
// address there, and a host behind it.
var (
	router = packettest.Station{MAC: packet.MAC{0x52, 0x54, 0, 0, 0, 1}, IP: station("192.0.2.1").IP}
	our    = station("192.0.2.10")
	host   = station("198.51.100.7")
)

func addr(s packettest.Station) packet.Addr { return packet.AddrFromNetip(s.IP) }

func tuple(src packettest.Station, sport uint16, dst packettest.Station, dport uint16, p packet.Proto) packet.Tuple {
	return packet.Tuple{Src: addr(src), Dst: addr(dst), SrcPort: sport, DstPort: dport, Proto: p}
}

// via is a frame between a container and the outside as the gateway sees it.
func via(mac packet.MAC, b []byte) []byte {
	packet.Ethernet(b[packet.VNetLen:]).SetDst(mac)
	return b
}

// fromOutside takes down a frame that came in at the uplink.
func fromOutside(b []byte, d packet.Decision) *Record {
	f := packet.Frame{B: b, Port: 1, Network: outside}
	_ = packet.Parse(&f)
	return wall(NewRecord(&f, &d))
}

func wall(r Record) *Record {
	r.Wall = time.Date(2026, 1, 2, 15, 4, 5, 678_901_000, time.Local)
	return &r
}

// out is the decision on a packet that leaves by lan, in the flow of nat.
func out(nat packet.Translation) packet.Decision {
	nat.Out = outside
	return packet.Decision{
		Verdict: packet.Unicast, Reason: packet.Routed, Routed: true, AtGateway: true, Egress: packet.Place{Network: outside, Port: 1},
		SrcMAC: our.MAC, DstMAC: router.MAC, NextHop: addr(router), NAT: nat,
	}
}

// in is the decision on one that goes to web.
func in(nat packet.Translation) packet.Decision {
	nat.Out = inside
	return packet.Decision{
		Verdict: packet.Unicast, Reason: packet.Routed, Routed: true, AtGateway: true, Egress: packet.Place{Network: inside, Port: 1},
		SrcMAC: gw.MAC, DstMAC: web.MAC, NextHop: addr(web), NAT: nat,
	}
}

func TestWalkOutside(t *testing.T) {
	const tcp, udp, icmp = packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP
	syn := func(a, b packettest.Station, sport, dport uint16) []byte {
		return packettest.TCP(a, b, packettest.Segment{SrcPort: sport, DstPort: dport, Flags: packet.TCPSyn}, nil)
	}
	masquerade := packet.Translation{Kind: packet.NATMasquerade, New: true, Rule: 1,
		Before: tuple(web, 40000, host, 80, tcp), After: tuple(our, 40000, host, 80, tcp)}
	answer := packet.Translation{Kind: packet.NATMasquerade, Reply: true, Rule: 1, Flow: 12,
		Before: tuple(host, 80, our, 40000, tcp), After: tuple(host, 80, web, 40000, tcp)}
	echo := packet.Translation{Kind: packet.NATOneToOne, Rule: 4, Flow: 13,
		Before: tuple(web, 7, host, 7, icmp), After: tuple(our, 8, host, 8, icmp)}
	published := packet.Translation{Kind: packet.NATPublish, New: true, Rule: 3,
		Before: tuple(host, 5000, our, 8080, tcp), After: tuple(host, 5000, web, 80, tcp)}
	hairpin := packet.Translation{Kind: packet.NATHairpin, New: true, Rule: 3,
		Before: tuple(db, 5000, our, 8080, tcp), After: tuple(our, 5000, web, 80, tcp)}
	tracked := packet.Translation{Flow: 14, Before: tuple(web, 1, host, 2, udp), After: tuple(web, 1, host, 2, udp)}
	neighbours := packet.Translation{Before: tuple(db, 1, web, 2, udp), After: tuple(db, 1, web, 2, udp)}
	quoted := packet.Translation{Kind: packet.NATMasquerade, Rule: 1, Flow: 12, Quoted: true,
		Before: tuple(our, 40000, host, 80, tcp), After: tuple(web, 40000, host, 80, tcp)}
	unreachable := packettest.IP(host, our, icmp, append([]byte{packet.ICMPUnreachable, packet.ICMPPortUnreachable}, make([]byte, 34)...))

	cut := out(tracked)
	cut.MTU = 1400
	refused := func(r packet.Reason, o packet.Origin) packet.Decision {
		return packet.Decision{Verdict: packet.Drop, Reason: r, AtGateway: true, Originate: o}
	}
	tooLarge := refused(packet.FragNeeded, packet.OriginFragNeeded)
	tooLarge.MTU, tooLarge.NAT = 1400, masquerade
	masquerade.Out = outside
	waiting := packet.Decision{Verdict: packet.Hold, Reason: packet.NextHop, AtGateway: true, NextHop: addr(router), NAT: masquerade,
		Originate: packet.OriginARPRequest, To: packet.Place{Network: outside, Port: 1}}
	alsoHere := out(tracked)
	alsoHere.Verdict, alsoHere.Reason, alsoHere.ToGateway = packet.Flood, packet.HubMode, true
	inTurn := record(via(gw.MAC, syn(web, host, 40000, 80)), out(masquerade), 1)
	inTurn.frame.Flags |= packet.Resumed

	for _, c := range []struct {
		name, line, walk string
		record           *Record
	}{
		{"masquerade", "web → lan  172.17.0.2:40000 > 198.51.100.7:80 TCP SYN  unicast (routed); masquerade: 192.0.2.10:40000 > 198.51.100.7:80", `
1 parse      172.17.0.2:40000 > 198.51.100.7:80 TCP SYN, 54 bytes
2 guard      web may use source 02:42:ac:11:00:02
3 look up    02:42:ac:11:00:01 is the gateway
4 admit      nothing forbids it
5.1 for me   no, for 198.51.100.7
5.2 TTL      64 → 63
5.3 egress   nothing forbids it
5.4 NAT      masquerade by rule 1, new flow
             172.17.0.2:40000 > 198.51.100.7:80
             → 192.0.2.10:40000 > 198.51.100.7:80
5.5 MTU      40 bytes fit
5.6 next hop not on-link: default via 192.0.2.1 dev lan
             192.0.2.1 is at 52:54:00:00:00:01
5.7 uplink   leaves by lan, as 02:42:c0:00:02:0a
6 emit       unicast to lan`, record(via(gw.MAC, syn(web, host, 40000, 80)), out(masquerade), 1)},
		{"to the host", "web → lan  172.17.0.2:40000 > 172.17.0.1:22 TCP SYN  unicast (for-host)", `
3 look up    02:42:ac:11:00:01 is the gateway
4 admit      nothing forbids it
5.1 for me   no, for the host, which has this address too
5.4 NAT      not translated, new flow
6 emit       unicast to lan`, record(via(gw.MAC, syn(web, gw, 40000, 22)), packet.Decision{Verdict: packet.Unicast, Reason: packet.ForHost,
			AtGateway: true, Routed: true, ToHost: true, Egress: packet.Place{Network: outside, Port: 1},
			NAT: packet.Translation{New: true, Before: tuple(web, 40000, gw, 22, tcp), After: tuple(web, 40000, gw, 22, tcp)}}, 1)},
		{"from the host, whose port is taken", "web → lan  172.17.0.1:40000 > 172.17.0.2:80 TCP SYN  unicast (known-mac); another port: 172.17.0.1:1027 > 172.17.0.2:80", `
4 admit      nothing forbids it
5.4 NAT      another port, new flow
             172.17.0.1:40000 > 172.17.0.2:80
             → 172.17.0.1:1027 > 172.17.0.2:80
             the client is hidden: another connection has its address and port
6 emit       unicast to lan`, record(syn(gw, web, 40000, 80), packet.Decision{Verdict: packet.Unicast, Reason: packet.KnownMAC, AtGateway: true,
			Egress: packet.Place{Network: outside, Port: 1}, NAT: packet.Translation{New: true, Hidden: packet.HiddenPortTaken,
				Before: tuple(gw, 40000, web, 80, tcp), After: tuple(gw, 1027, web, 80, tcp)}}, 1)},
		{"answer", "lan → web  198.51.100.7:80 > 192.0.2.10:40000 TCP SYN  unicast (routed); masquerade: 198.51.100.7:80 > 172.17.0.2:40000", `
1 parse      198.51.100.7:80 > 192.0.2.10:40000 TCP SYN, 54 bytes
2 guard      lan is an uplink: any source may be behind it
3 look up    02:42:c0:00:02:0a is the uplink's own
4 admit      nothing forbids it
5.1 for me   192.0.2.10 is an address of ours
5.4 NAT      masquerade by rule 1, answer, flow 12
             198.51.100.7:80 > 192.0.2.10:40000
             → 198.51.100.7:80 > 172.17.0.2:40000
5.2 TTL      64 → 63
5.5 MTU      40 bytes fit
5.6 next hop on-link: 172.17.0.0/16 dev default
             172.17.0.2 is at 02:42:ac:11:00:02
3 look up    02:42:ac:11:00:02 is behind web
6 emit       unicast to web`, fromOutside(syn(host, our, 80, 40000), in(answer))},
		{"echo of a known flow", "web → lan  172.17.0.2 > 198.51.100.7 ICMP echo request  unicast (routed); one-to-one: 192.0.2.10 > 198.51.100.7 id 8", `
5.4 NAT      one-to-one by rule 4, known flow 13
             172.17.0.2 > 198.51.100.7 id 7
             → 192.0.2.10 > 198.51.100.7 id 8
5.5 MTU      28 bytes fit`, record(via(gw.MAC, packettest.ICMPEcho(web, host, 7, 1, nil)), out(echo), 1)},
		{"publish", "lan → web  198.51.100.7:5000 > 192.0.2.10:8080 TCP SYN  unicast (routed); publish: 198.51.100.7:5000 > 172.17.0.2:80", `
5.4 NAT      publish by rule 3, new flow
             198.51.100.7:5000 > 192.0.2.10:8080
             → 198.51.100.7:5000 > 172.17.0.2:80`, fromOutside(syn(host, our, 5000, 8080), in(published))},
		{"hairpin", "web → web  172.17.0.3:5000 > 192.0.2.10:8080 TCP SYN  unicast (routed); hairpin: 192.0.2.10:5000 > 172.17.0.2:80", `
5.4 NAT      hairpin by rule 3, new flow
             172.17.0.3:5000 > 192.0.2.10:8080
             → 192.0.2.10:5000 > 172.17.0.2:80
5.5 MTU      40 bytes fit
5.6 next hop on-link: 172.17.0.0/16 dev default
             172.17.0.2 is at 02:42:ac:11:00:02
3 look up    02:42:ac:11:00:02 is behind web
6 emit       unicast to web`, record(via(gw.MAC, syn(db, our, 5000, 8080)), in(hairpin), 1)},
		{"to a neighbour by way of the gateway", "web → web  172.17.0.3:1 > 172.17.0.2:2 UDP  unicast (routed)", `
5.1 for me   no, for 172.17.0.2
5.2 TTL      64 → 63
5.3 egress   nothing forbids it
5.4 NAT      not translated, stays on its network
5.5 MTU      28 bytes fit`, record(via(gw.MAC, packettest.UDP(db, web, 1, 2, nil)), in(neighbours), 1)},
		{"in fragments", "web → lan  172.17.0.2:1 > 198.51.100.7:2 UDP  unicast (routed); in fragments of 1400", `
5.4 NAT      not translated, known flow 14
5.5 MTU      1428 bytes are cut into fragments of at most 1400`,
			record(via(gw.MAC, packettest.UDP(web, host, 1, 2, make([]byte, 1400))), cut, 1)},
		{"in a hub", "web → db, cache, lan  172.17.0.2:1 > 198.51.100.7:2 UDP  flood (hub-mode)", `
5.4 NAT      not translated, known flow 14
5.5 MTU      28 bytes fit
5.6 next hop not on-link: default via 192.0.2.1 dev lan
             192.0.2.1 is at 52:54:00:00:00:01
5.7 uplink   leaves by lan, as 02:42:c0:00:02:0a
6 emit       flood to db, cache, lan`, record(via(gw.MAC, packettest.UDP(web, host, 1, 2, nil)), alsoHere, 2, 3)},
		{"an error", "lan → web  198.51.100.7 > 192.0.2.10 ICMP port unreachable  unicast (routed); masquerade: quotes 172.17.0.2:40000 > 198.51.100.7:80", `
5.4 NAT      masquerade by rule 1, an error about flow 12
             quoted: 192.0.2.10:40000 > 198.51.100.7:80
                   → 172.17.0.2:40000 > 198.51.100.7:80
5.2 TTL      64 → 63
5.5 MTU      56 bytes fit
5.6 next hop on-link: 172.17.0.0/16 dev default`, fromOutside(unreachable, in(quoted))},
		{"held", "web → nowhere yet  172.17.0.2:40000 > 198.51.100.7:80 TCP SYN  hold (next-hop); masquerade: 192.0.2.10:40000 > 198.51.100.7:80; asks who has 192.0.2.1 on lan", `
5.6 next hop not on-link: default via 192.0.2.1 dev lan
             waits for 192.0.2.1, next-hop: ` + packet.NextHop.Why() + `
6 emit       asks who has 192.0.2.1 on lan`, record(via(gw.MAC, syn(web, host, 40000, 80)), waiting)},
		{"held for a first fragment", "web → nowhere yet  172.17.0.2:1 > 198.51.100.7:2 UDP  hold (first-fragment)", `
5.4 NAT      waits, first-fragment: ` + packet.FirstFragment.Why(),
			record(via(gw.MAC, packettest.UDP(web, host, 1, 2, nil)), packet.Decision{Verdict: packet.Hold, Reason: packet.FirstFragment})},
		{"and goes on", "web → lan  172.17.0.2:40000 > 198.51.100.7:80 TCP SYN  unicast (routed); after waiting; masquerade: 192.0.2.10:40000 > 198.51.100.7:80", `
1 parse      it has waited, and begins again
1 parse      172.17.0.2:40000 > 198.51.100.7:80 TCP SYN, 54 bytes`, inTurn},
		{"too large", "web → nowhere  172.17.0.2:40000 > 198.51.100.7:80 TCP SYN  drop (frag-needed); masquerade: 192.0.2.10:40000 > 198.51.100.7:80; ICMP fragmentation needed (MTU 1400) to web", `
             → 192.0.2.10:40000 > 198.51.100.7:80
5.5 MTU      dropped, frag-needed: ` + packet.FragNeeded.Why() + `
             ` + packet.FragNeeded.Try() + `
6 emit       ICMP fragmentation needed (MTU 1400) to web`, record(via(gw.MAC, syn(web, host, 40000, 80)), tooLarge)},
		{"refused outside", "lan → nowhere  198.51.100.7:5000 > 192.0.2.10:22 TCP SYN  drop (refused); TCP reset to lan", `
2 guard      lan is an uplink: any source may be behind it
3 look up    02:42:c0:00:02:0a is the uplink's own
4 admit      nothing forbids it
5.1 for me   192.0.2.10 is an address of ours
5.4 NAT      dropped, refused: ` + packet.Refused.Why() + `
             ` + packet.Refused.Try() + `
6 emit       TCP reset to lan`, fromOutside(syn(host, our, 5000, 22), refused(packet.Refused, packet.OriginReset))},
		{"asked outside", "lan → router  ARP who has 192.0.2.10, tell 192.0.2.1  gateway (for-gateway)", `
2 guard      lan is an uplink: any source may be behind it
3 look up    ff:ff:ff:ff:ff:ff is the uplink's own
4 admit      nothing forbids it
5.1 for me   takes the sender into its ARP table, answers with ARP reply
6 emit       ARP reply to lan`, fromOutside(packettest.ARPRequest(router, our.IP),
			packet.Decision{Verdict: packet.Gateway, Reason: packet.ForGateway, Neighbour: true, Originate: packet.OriginARPReply})},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, want := c.record.Line(names), "15:04:05.678901  "+c.line; got != want {
				t.Errorf("line\n got %s\nwant %s", got, want)
			}
			if got := strings.Join(c.record.Walk(names), "\n"); !strings.Contains(got+"\n", c.walk[1:]+"\n") {
				t.Errorf("walk\n got\n%s\nwant\n%s", got, c.walk[1:])
			}
		})
	}
}

// TestWalkNamesTheRule: what a frame may pass by, and how many ports may not have
// a copy.
func TestWalkNamesTheRule(t *testing.T) {
	d := packet.Decision{Verdict: packet.Unicast, Reason: packet.KnownMAC, Admitted: 3}
	b := packettest.UDP(web, db, 1, 2, nil)
	for want, r := range map[string]*Record{
		"4 admit      rule 3 opens it: web → db:5432/tcp": record(b, d, 2),
		"4 admit      rule 4 opens it":                    func() *Record { d := d; d.Admitted = 4; return record(b, d, 2) }(),
		"             not for 2 ports, icc: " + packet.ICC.Why(): func() *Record {
			r := record(b, packet.Decision{Verdict: packet.Flood, Reason: packet.ToGroup}, 2)
			r.Withhold(packet.Isolated)
			r.Withhold(packet.ICC)
			return r
		}(),
	} {
		if lines := r.Walk(names); !slices.Contains(lines, want) {
			t.Errorf("no %q in\n%s", want, strings.Join(lines, "\n"))
		}
	}
}

// TestWalkOfEveryReason: each drop and each wait ends at the step its reason
// belongs to, for a frame from inside and for one from an uplink.
func TestWalkOfEveryReason(t *testing.T) {
	steps := map[packet.Reason]string{
		packet.SamePort: "3 look up", packet.ReservedGroup: "3 look up",
		packet.NotUnderstood: "5.1 for me", packet.DNSBusy: "5.1 for me", packet.DHCPBusy: "5.1 for me", packet.NotForUs: "5.1 for me", packet.Martian: "5.1 for me", packet.Refused: "5.4 NAT",
		packet.TTLExceeded: "5.2 TTL", packet.FragNeeded: "5.5 MTU",
		packet.NoRoute: "5.6 next hop", packet.NextHop: "5.6 next hop", packet.HostUnreachable: "5.6 next hop", packet.HoldFull: "5.6 next hop",
	}
	steps[packet.EgressDenied], steps[packet.NotCarried], steps[packet.SocketBudget] = "5.3 egress", "5.7 uplink", "5.7 uplink"
	steps[packet.PingForbidden], steps[packet.OtherNetwork] = "5.7 uplink", "5.3 egress"
	for r := packet.Truncated; r <= packet.BadTransport; r++ {
		steps[r] = "1 parse"
	}
	for r := packet.Loop; r <= packet.RogueDHCP; r++ {
		steps[r] = "2 guard"
	}
	for r := packet.Isolated; r <= packet.Oversize; r++ {
		steps[r] = "4 admit"
	}
	for r := packet.NotTranslatable; r <= packet.BadQuote; r++ {
		steps[r] = "5.4 NAT"
	}
	why := []packet.Reason{packet.KnownMAC, packet.UnknownMAC, packet.ToGroup, packet.HubMode, packet.ForGateway, packet.ForHost, packet.Routed}
	for r := packet.Truncated; r < packet.EgressDown; r++ { // from there on copies fail, and no frame is dropped
		if slices.Contains(why, r) {
			continue // not one to end for
		}
		for verdict, word := range map[packet.Verdict]string{packet.Drop: "dropped, ", packet.Hold: "waits(?: for 192.0.2.1)?, "} {
			d := packet.Decision{Verdict: verdict, Reason: r, NextHop: addr(router)}
			for _, r := range []*Record{record(ping, d), fromOutside(ping, d)} {
				if r.FromUplink() && (d.Reason == packet.EgressDenied || d.Reason == packet.OtherNetwork) {
					continue // no policy for what comes in
				}
				lines := r.Walk(names)
				at := slices.IndexFunc(lines, func(s string) bool { return strings.HasPrefix(s, steps[d.Reason]) })
				if at < 0 || at < len(lines)-2 || !regexp.MustCompile(word+d.Reason.String()+": ").MatchString(strings.Join(lines[at:], " ")) {
					t.Errorf("%v belongs to %q:\n%s", d.Reason, steps[d.Reason], strings.Join(lines, "\n"))
				}
			}
		}
	}
	noRoom := record(ping, packet.Decision{Verdict: packet.Drop, Reason: packet.HoldFull}).Walk(names)
	if !strings.HasPrefix(noRoom[len(noRoom)-2], "5.4 NAT") {
		t.Errorf("no room for a fragment:\n%s", strings.Join(noRoom, "\n"))
	}
}

// TestWordsOfPolicies: which rules have decided, and why a client is hidden.
func TestWordsOfPolicies(t *testing.T) {
	for _, c := range []struct {
		d    packet.Decision
		want string
	}{
		{packet.Decision{EgressRule: 3}, "5.3 egress   allowed by rule 3 of the network's policy"},
		{packet.Decision{EgressOwn: 3}, "5.3 egress   allowed by rule 3 of the container's own policy"},
		{packet.Decision{EgressOwn: 2, EgressRule: 2}, "5.3 egress   allowed by rule 2 of the container's own policy, allowed by rule 2 of the network's policy"},
		{packet.Decision{Verdict: packet.Drop, Reason: packet.EgressDenied, EgressOwn: 2}, " refused by rule 2 of the container's own policy"},
		{packet.Decision{Verdict: packet.Drop, Reason: packet.EgressDenied, EgressOwn: 2, EgressRule: 2},
			" allowed by rule 2 of the container's own policy\n             refused by rule 2 of the network's policy"},
		{packet.Decision{Verdict: packet.Gateway, Reason: packet.ForGateway, Query: true}, "5.1 for me   passes the question on to DNS"},
	} {
		if c.d.Reason == packet.OK {
			rules := c.d
			c.d = out(packet.Translation{})
			c.d.EgressOwn, c.d.EgressRule = rules.EgressOwn, rules.EgressRule
		}
		if got := strings.Join(record(ping, c.d).Walk(names), "\n"); !strings.Contains(got, c.want) {
			t.Errorf("%q is not in\n%s", c.want, got)
		}
	}
	asks := record(packettest.UDP(web, packettest.Broadcast, 68, 67, nil), packet.Decision{Verdict: packet.Flood, Reason: packet.ToGroup, ToGateway: true, AtGateway: true, Query: true})
	if got := strings.Join(asks.Walk(names), "\n"); !strings.Contains(got, "5.1 for me   passes the message on to DHCP") {
		t.Errorf("DHCP:\n%s", got)
	}
	for h := packet.HiddenNot + 1; h < packet.NumHidden; h++ {
		nat := packet.Translation{Kind: packet.NATPublish, Rule: 5, Hidden: h,
			Before: tuple(web, 1, host, 2, packet.ProtoUDP), After: tuple(our, 1, host, 2, packet.ProtoUDP)}
		if got := strings.Join(record(ping, out(nat)).Walk(names), "\n"); !strings.Contains(got, "the client is hidden: "+h.Why()) || h.Why() == "" || h.String() == "" {
			t.Errorf("%v is not in\n%s", h, got)
		}
	}
}

// TestWordsForAll: nothing that can be in a decision is left without a word.
func TestWordsForAll(t *testing.T) {
	says := func(d packet.Decision, want string) {
		t.Helper()
		for _, r := range []*Record{record(ping, d), fromOutside(ping, d)} {
			if all := strings.Join(append(r.Walk(names), r.Line(names)), "\n"); !strings.Contains(all, want) || strings.Contains(all, "?") {
				t.Errorf("%q is not in\n%s", want, all)
			}
		}
	}
	for o := packet.OriginARPReply; o < packet.NumOrigins; o++ {
		want := o.String() + " to "
		switch o {
		case packet.OriginARPRequest:
			want = "asks who has 192.0.2.1 on lan"
		case packet.OriginFragNeeded:
			want = o.String() + " (MTU 1280) to "
		}
		d := packet.Decision{Verdict: packet.Drop, Reason: packet.NoRoute, Originate: o, MTU: 1280, NextHop: addr(router), To: packet.Place{Network: outside, Port: 1}}
		says(d, want)
	}
	for v := packet.Drop; v < packet.NumVerdicts; v++ {
		d := out(packet.Translation{})
		d.Verdict = v
		says(d, v.String()+" (routed)")
	}
	for k := packet.NATNone; k < packet.NumNATKinds; k++ {
		before, after := tuple(web, 1, host, 2, packet.ProtoUDP), tuple(our, 1, host, 2, packet.ProtoUDP)
		want := k.String() + " by rule 5"
		if k == packet.NATNone {
			after, want = before, "not translated"
		}
		for _, nat := range []packet.Translation{{New: true}, {Reply: true}, {Quoted: true}, {}} {
			nat.Kind, nat.Rule, nat.Before, nat.After = k, 5, before, after
			says(out(nat), want)
		}
	}
}
