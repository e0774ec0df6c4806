package gateway

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"fairlead/arp"
	"fairlead/nat"
	"fairlead/packet"
	"fairlead/packet/packettest"
)

func TestS23_GatewayAnswersARP(t *testing.T) {
	r := newRig(t)
	request := packettest.ARPRequest(alice, gw.IP)
	d, answer := r.send(1, request)
	if d.Verdict != packet.Flood || d.Reason != packet.ToGroup || d.Originate != packet.OriginARPReply || !d.Neighbour {
		t.Errorf("decided %+v", d)
	}
	if want := packettest.ARPReply(gw, alice); !bytes.Equal(answer, want) {
		t.Errorf("\n got % x\nwant % x", answer, want)
	}

	// Asked directly, as Linux does before it forgets a neighbour.
	direct := bytes.Clone(request)
	packet.Ethernet(direct[packet.VNetLen:]).SetDst(gw.MAC)
	d, answer = r.send(1, direct)
	if d.Verdict != packet.Gateway || d.Reason != packet.ForGateway || !bytes.Equal(answer, packettest.ARPReply(gw, alice)) {
		t.Errorf("decided %+v, answered % x", d, answer)
	}
	padded := append(bytes.Clone(request), make([]byte, 18)...) // to 60 bytes, as on a wire
	if _, answer = r.send(1, padded); !bytes.Equal(answer, packettest.ARPReply(gw, alice)) {
		t.Errorf("to a padded request: % x", answer)
	}
	for _, tags := range [][]uint16{{7}, {0x2007, 9}} {
		f := packettest.Tagged(request, tags...)
		if _, answer = r.send(1, f); !bytes.Equal(answer, packettest.Tagged(packettest.ARPReply(gw, alice), tags...)) {
			t.Errorf("to a request with tags %v: % x", tags, answer)
		}
	}
	// A probe for our address is told that it is taken (RFC 5227 2.1.1).
	_, answer = r.send(1, packettest.ARPRequest(with(alice, "0.0.0.0"), gw.IP))
	if want := packettest.ARPReply(gw, with(alice, "0.0.0.0")); !bytes.Equal(answer, want) {
		t.Errorf("to a probe: % x", answer)
	}
}

func TestARPForOthersIsLeftAlone(t *testing.T) {
	r := newRig(t)
	for name, b := range map[string][]byte{
		"request for another": packettest.ARPRequest(alice, bob.IP),
		"gratuitous":          packettest.ARPRequest(alice, alice.IP),
		"reply to another":    packettest.ARPReply(alice, bob),
		"reply to us":         packettest.ARPReply(alice, gw),
	} {
		if d, answer := r.send(1, b); answer != nil {
			t.Errorf("%s: %+v, answered % x", name, d, answer)
		}
	}
}

// TestNeighbours are the rules of RFC 826: who talks to us is taken in, who is
// known is followed, nobody else is.
func TestNeighbours(t *testing.T) {
	aliceAt := func(port packet.PortID, mac packet.MAC, seen int64) arp.Entry {
		return arp.Entry{Addr: alice.IP.As4(), MAC: mac, Port: port, Container: packet.ContainerID(port), Seen: seen}
	}
	group := packet.MAC{1, 0, 0x5e, 1, 2, 3}
	moved := station{MAC: bob.MAC, IP: alice.IP}
	const second = int64(time.Second)
	type step struct {
		after int64 // the step before
		port  packet.PortID
		frame []byte
		want  bool // the table takes something
	}
	for _, c := range []struct {
		name  string
		steps []step
		want  []arp.Entry // at the end; times from the first step on
	}{
		{"asks us", []step{{0, 1, packettest.ARPRequest(alice, gw.IP), true}}, []arp.Entry{aliceAt(1, alice.MAC, 0)}},
		{"answers us", []step{{0, 1, packettest.ARPReply(alice, gw), true}}, []arp.Entry{aliceAt(1, alice.MAC, 0)}},
		{"asks another", []step{{0, 1, packettest.ARPRequest(alice, bob.IP), false}}, nil},
		{"says its own", []step{{0, 1, packettest.ARPRequest(alice, alice.IP), false}}, nil},
		{"known asks another", []step{
			{0, 1, packettest.ARPRequest(alice, gw.IP), true},
			{2 * second, 1, packettest.ARPRequest(alice, bob.IP), true},
		}, []arp.Entry{aliceAt(1, alice.MAC, 2*second)}},
		{"known within the second", []step{
			{0, 1, packettest.ARPRequest(alice, gw.IP), true},
			{second - 1, 1, packettest.ARPRequest(alice, gw.IP), false},
			{1, 1, packettest.ARPRequest(alice, gw.IP), true},
		}, []arp.Entry{aliceAt(1, alice.MAC, second)}},
		{"known says another MAC", []step{
			{0, 1, packettest.ARPRequest(alice, gw.IP), true},
			{1, 1, packettest.ARPRequest(moved, moved.IP), true},
		}, []arp.Entry{aliceAt(1, bob.MAC, 1)}},
		{"known moves", []step{
			{0, 1, packettest.ARPRequest(alice, gw.IP), true},
			{1, 2, packettest.ARPRequest(alice, alice.IP), true},
		}, []arp.Entry{aliceAt(2, alice.MAC, 1)}},
		{"known and aged says its own", []step{
			{0, 1, packettest.ARPRequest(alice, gw.IP), true},
			{arp.MaxAge + 1, 1, packettest.ARPRequest(alice, alice.IP), false},
		}, nil},
		{"aged asks us", []step{
			{0, 1, packettest.ARPRequest(alice, gw.IP), true},
			{arp.MaxAge + 1, 1, packettest.ARPRequest(alice, gw.IP), true},
		}, []arp.Entry{aliceAt(1, alice.MAC, arp.MaxAge+1)}},
		{"probe", []step{{0, 1, packettest.ARPRequest(with(alice, "0.0.0.0"), gw.IP), false}}, nil},
		{"not of the subnet", []step{{0, 1, packettest.ARPRequest(with(alice, "10.9.9.9"), gw.IP), false}}, nil},
		// RFC 1812 3.3.2: nobody is behind a group's MAC.
		{"says a group's MAC", []step{{0, 1, packettest.ARPRequest(station{MAC: group, IP: alice.IP}, gw.IP), false}}, nil},
		{"tagged", []step{{0, 1, packettest.Tagged(packettest.ARPRequest(alice, gw.IP), 5), true}}, []arp.Entry{aliceAt(1, alice.MAC, 0)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			start := r.now
			for i, s := range c.steps {
				r.now += s.after
				if d, _ := r.send(s.port, s.frame); d.Neighbour != s.want {
					t.Errorf("step %d: %+v, want Neighbour %v", i, d, s.want)
				}
			}
			for i := range c.want {
				c.want[i].Seen += start
			}
			if got := r.gw.Neighbours(r.now); len(got) != len(c.want) || len(got) > 0 && got[0] != c.want[0] {
				t.Errorf("\n got %v\nwant %v", got, c.want)
			}
		})
	}
}

func TestFlushPort(t *testing.T) {
	r := newRig(t)
	r.send(1, packettest.ARPRequest(alice, gw.IP))
	r.send(2, packettest.ARPRequest(bob, gw.IP))
	r.send(1, packettest.UDP(alice, outside, 1, 2, nil))
	r.gw.FlushPort(1)
	r.gw.FlushPort(9)
	if got := r.gw.Neighbours(r.now); len(got) != 1 || got[0].Port != 2 {
		t.Errorf("left: %v", got)
	}
	if len(r.gw.router.rates) != 0 {
		t.Errorf("rates of %d ports are left", len(r.gw.router.rates))
	}
}

func TestEcho(t *testing.T) {
	r := newRig(t)
	wrong := packettest.ICMPEcho(alice, gw, 1, 1, []byte("abc"))
	wrong[len(wrong)-1] ^= 0xff
	for name, b := range map[string][]byte{
		"plain":     packettest.ICMPEcho(alice, gw, 7, 1, []byte("sixteen bytes!!!")),
		"no data":   packettest.ICMPEcho(alice, gw, 7, 1, nil),
		"odd":       packettest.ICMPEcho(alice, gw, 7, 1, []byte("odd")),
		"all zero":  packettest.ICMPEcho(alice, gw, 0, 0, make([]byte, 56)),
		"large":     packettest.ICMPEcho(alice, gw, 1, 0xffff, make([]byte, 1472)),
		"jumbo":     packettest.ICMPEcho(alice, gw, 1, 2, bytes.Repeat([]byte{0xff, 0x10}, 32000)),
		"tagged":    packettest.Tagged(packettest.ICMPEcho(alice, gw, 7, 1, []byte("x")), 5),
		"two tags":  packettest.Tagged(packettest.ICMPEcho(alice, gw, 7, 1, []byte("x")), 5, 6),
		"wrong sum": wrong, // answered as wrongly: whoever asked finds out
		"from afar": packettest.ICMPEcho(with(alice, "10.1.2.3"), gw, 7, 1, nil),
		"with a hint": func() []byte {
			b := packettest.ICMPEcho(alice, gw, 7, 1, nil)
			packet.VNet(b).SetFlags(packet.VNetDataValid)
			return b
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			d, answer := r.send(1, b)
			if d.Verdict != packet.Gateway || d.Reason != packet.ForGateway || d.Originate != packet.OriginEchoReply {
				t.Fatalf("decided %+v", d)
			}
			f := r.frame(1, b)
			a := checkAnswer(t, f, answer)
			asked, got := packet.ICMP(f.Transport()), packet.ICMP(a.Transport())
			if got.Type() != packet.ICMPEchoReply || got.Code() != 0 || !bytes.Equal(got[4:], asked[4:]) {
				t.Errorf("answered\n% x, asked\n% x", []byte(got), []byte(asked))
			}
			if name != "wrong sum" {
				checkICMP(t, got)
			} else if packettest.Sum(got, 0) == 0xffff {
				t.Error("a wrong checksum was made right")
			}
		})
	}
}

// TestEchoWithOptions: the header is as long as the question's.
func TestEchoWithOptions(t *testing.T) {
	r := newRig(t)
	options := []byte{7, 7, 4, 0, 0, 0, 0, 1} // record route, not yet used
	b := packettest.IPv4(alice, gw, packet.ProtoICMP, options,
		payload(packettest.ICMPEcho(alice, gw, 3, 4, []byte("data")))[packet.IPv4MinLen:])
	_, answer := r.send(1, b)
	a := checkAnswer(t, r.frame(1, b), answer)
	ip := packet.IPv4(a.Packet())
	if !bytes.Equal(ip.Options(), options) {
		t.Errorf("options % x", ip.Options())
	}
	checkICMP(t, ip.Payload())
}

// TestEchoInFragments: each fragment is answered by itself, in any order, and
// the answers are the fragments of one valid reply.
func TestEchoInFragments(t *testing.T) {
	for _, data := range [][]byte{bytes.Repeat([]byte("fragment"), 600), make([]byte, 4000), bytes.Repeat([]byte{1, 2, 3}, 1001)} {
		whole := packettest.ICMPEcho(alice, gw, 77, 5, data)
		r := newRig(t)
		var fragments [][]byte
		var cut packet.Fragmenter
		if !cut.Reset(r.frame(1, whole), 1500) {
			t.Fatal("cannot be cut")
		}
		for {
			n, ok := cut.Next(r.buf)
			if !ok {
				break
			}
			fragments = append(fragments, bytes.Clone(r.buf[:n]))
		}
		rand.New(rand.NewPCG(1, 2)).Shuffle(len(fragments), func(i, j int) { fragments[i], fragments[j] = fragments[j], fragments[i] })

		message, last := make([]byte, packet.ICMPLen+len(data)), false
		for _, b := range fragments {
			d, answer := r.send(1, b)
			if d.Verdict != packet.Gateway || d.Originate != packet.OriginEchoReply {
				t.Fatalf("decided %+v", d)
			}
			f := r.frame(1, b)
			a := packet.IPv4(checkAnswer(t, f, answer).Packet())
			asked := packet.IPv4(f.Packet())
			if a.ID() != asked.ID() || a.FragmentOffset() != asked.FragmentOffset() || a.MoreFragments() != asked.MoreFragments() {
				t.Errorf("answered with fragment % x", []byte(a[:a.HeaderLen()]))
			}
			copy(message[a.FragmentOffset():], a.Payload())
			last = last || !a.MoreFragments()
		}
		checkICMP(t, message)
		m := packet.ICMP(message)
		if !last || m.Type() != packet.ICMPEchoReply || m.ID() != 77 || m.Seq() != 5 || !bytes.Equal(m.Data(), data) {
			t.Errorf("%d answers do not make the reply", len(fragments))
		}
	}
}

// TestNotUnderstood are the frames to the gateway's MAC that a router must not
// act upon.
func TestNotUnderstood(t *testing.T) {
	r := newRig(t)
	badSum := packettest.ICMPEcho(alice, gw, 1, 1, nil)
	packet.IPv4(payload(badSum)).SetTTL(63)
	for name, b := range map[string][]byte{
		"IPv6":                     packettest.UDP(alice.IPv6(), gw.IPv6(), 1, 2, nil),
		"LLDP":                     packettest.Ethernet(alice.MAC, gw.MAC, 0x88cc, make([]byte, 46)),
		"IEEE 802.3":               packettest.Ethernet(alice.MAC, gw.MAC, 46, make([]byte, 46)),
		"multicast":                packettest.UDP(alice, with(gw, "224.0.0.251"), 5353, 5353, nil),
		"class E":                  packettest.UDP(alice, with(gw, "240.0.0.1"), 1, 2, nil),
		"limited broadcast":        packettest.UDP(alice, with(gw, "255.255.255.255"), 1, 2, nil),
		"broadcast of the subnet":  packettest.UDP(alice, with(gw, "172.17.255.255"), 1, 2, nil),
		"this network":             packettest.UDP(alice, with(gw, "0.0.0.0"), 1, 2, nil),
		"from nobody":              packettest.UDP(with(alice, "0.0.0.0"), outside, 1, 2, nil),
		"from a group":             packettest.UDP(with(alice, "224.0.0.1"), outside, 1, 2, nil),
		"from everybody":           packettest.UDP(with(alice, "255.255.255.255"), outside, 1, 2, nil),
		"from the subnet at large": packettest.UDP(with(alice, "172.17.255.255"), outside, 1, 2, nil),
		"ping from the subnet":     packettest.ICMPEcho(with(alice, "172.17.255.255"), gw, 1, 1, nil),
		"wrong header checksum":    badSum, // RFC 1812 5.2.2
	} {
		want := packet.Martian
		if f := r.frame(1, b); f.EtherType != packet.EtherTypeIPv4 {
			want = packet.NotUnderstood
		}
		if d, answer := r.send(1, b); d.Verdict != packet.Drop || d.Reason != want || answer != nil {
			t.Errorf("%s: decided %+v, answered % x", name, d, answer)
		}
	}
}

// TestNetUnreachable: what is meant for outside, or for a port of the gateway,
// is refused with an ICMP error.
func TestNetUnreachable(t *testing.T) {
	segment := packettest.Segment{SrcPort: 1000, DstPort: 80, Flags: packet.TCPSyn}
	for name, b := range map[string][]byte{
		"UDP":         packettest.UDP(alice, outside, 1, 53, []byte("query")),
		"TCP":         packettest.TCP(alice, outside, segment, nil),
		"unfinished":  packettest.Partial(packettest.TCP(alice, outside, segment, nil)),
		"large":       packettest.UDP(alice, outside, 1, 2, make([]byte, 1472)),
		"super-frame": packettest.GSO(packettest.TCP(alice, outside, segment, make([]byte, 60000)), 1448),
		"ping":        packettest.ICMPEcho(alice, outside, 1, 1, nil),
		"protocol":    packettest.IP(alice, outside, packet.ProtoESP, make([]byte, 40)),
		"first fragment": func() []byte {
			b := packettest.UDP(alice, outside, 1, 2, make([]byte, 64))
			packet.IPv4(payload(b)).SetFragment(false, true, 0)
			return resum(b)
		}(),
		"tagged": packettest.Tagged(packettest.UDP(alice, outside, 1, 2, nil), 9),
		"options": packettest.IPv4(alice, outside, packet.ProtoUDP, []byte{0x94, 4, 0, 0},
			payload(packettest.UDP(alice, outside, 1, 2, nil))[packet.IPv4MinLen:]),
		"padded": append(packettest.UDP(alice, outside, 1, 2, nil), make([]byte, 18)...),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			d, answer := r.send(1, b)
			if d.Verdict != packet.Drop || d.Reason != packet.NoRoute || d.Originate != packet.OriginNetUnreachable {
				t.Fatalf("decided %+v", d)
			}
			f := r.frame(1, b)
			ip := packet.IPv4(checkAnswer(t, f, answer).Packet())
			if len(ip) > 576 || ip.HeaderLen() != packet.IPv4MinLen || ip.TOS() != 0xc0 || ip.IsFragment() || ip.Proto() != packet.ProtoICMP {
				t.Errorf("%d bytes, header % x", len(ip), []byte(ip[:packet.IPv4MinLen]))
			}
			if len(answer) != packet.VNetLen+int(f.L3)+len(ip) {
				t.Errorf("%d bytes behind the packet", len(answer)-packet.VNetLen-int(f.L3)-len(ip))
			}
			m := packet.ICMP(ip.Payload())
			checkICMP(t, m)
			if m.Type() != packet.ICMPUnreachable || m.Code() != packet.ICMPNetUnreachable || m.MTU() != 0 {
				t.Errorf("message % x", []byte(m[:packet.ICMPLen]))
			}
			about := f.Packet()
			if want := about[:min(len(about), 576-20-8)]; !bytes.Equal(m.Data(), want) {
				t.Errorf("quotes %d bytes, want %d\n% x", len(m.Data()), len(want), m.Data())
			}
		})
	}
}

// TestNoErrorAbout are the packets about which no ICMP error may be sent
// (RFC 1122 3.2.2).
func TestNoErrorAbout(t *testing.T) {
	r := newRig(t)
	message := func(kind byte) []byte {
		m := append([]byte{kind, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 28)...)
		packet.ICMP(m).UpdateChecksum(0)
		return packettest.IP(alice, outside, packet.ProtoICMP, m)
	}
	frames := map[string][]byte{
		"later fragment": func() []byte {
			b := packettest.IP(alice, outside, packet.ProtoUDP, make([]byte, 64))
			packet.IPv4(payload(b)).SetFragment(false, true, 1480)
			return resum(b)
		}(),
	}
	for name, kind := range map[string]byte{
		"unreachable": packet.ICMPUnreachable, "source quench": packet.ICMPSourceQuench, "redirect": packet.ICMPRedirect,
		"time exceeded": packet.ICMPTimeExceeded, "parameter problem": packet.ICMPParameter,
	} {
		frames[name] = message(kind)
	}
	for name, b := range frames {
		if d, answer := r.send(1, b); d.Verdict != packet.Drop || d.Reason != packet.NoRoute || answer != nil {
			t.Errorf("about %s: decided %+v, answered % x", name, d, answer)
		}
	}
	// What came to a group's MAC is not routed, and nothing is said about it.
	for name, to := range map[string]station{
		"broadcast":                    packettest.Broadcast,
		"broadcast MAC, address of us": {MAC: packet.BroadcastMAC, IP: gw.IP},
		"broadcast MAC, outside":       {MAC: packet.BroadcastMAC, IP: outside.IP},
		"multicast MAC, outside":       {MAC: packet.MAC{1, 0, 0x5e, 0, 0, 1}, IP: outside.IP},
	} {
		for _, b := range [][]byte{packettest.UDP(alice, to, 1, 2, nil), packettest.ICMPEcho(alice, to, 1, 1, nil)} {
			if d, answer := r.send(1, b); d.Verdict != packet.Flood || d.Reason != packet.ToGroup || answer != nil {
				t.Errorf("to %s: decided %+v, answered % x", name, d, answer)
			}
		}
	}
	if len(r.gw.router.rates) != 0 {
		t.Error("silence was counted against the port's rate")
	}
}

func TestErrorsAreRateLimited(t *testing.T) {
	r := newRig(t)
	answers := func(port packet.PortID, n int) (answered int) {
		for range n {
			if d, answer := r.send(port, packettest.UDP(alice, outside, 1, 2, nil)); d.Reason != packet.NoRoute {
				t.Fatalf("decided %+v", d)
			} else if answer != nil {
				answered++
			}
		}
		return answered
	}
	if n := answers(1, 200); n != errorsBurst {
		t.Errorf("%d answers at once, want %d", n, errorsBurst)
	}
	if n := answers(2, 200); n != errorsBurst {
		t.Errorf("another port got %d, want %d", n, errorsBurst)
	}
	r.now += int64(time.Second) / 10
	if n := answers(1, 200); n != errorsPerSecond/10 {
		t.Errorf("%d answers after a tenth of a second, want %d", n, errorsPerSecond/10)
	}
	if _, answer := r.send(1, packettest.ICMPEcho(alice, gw, 1, 1, nil)); answer == nil {
		t.Error("the limit of errors holds back a ping")
	}
	if _, answer := r.send(1, packettest.ARPRequest(alice, gw.IP)); answer == nil {
		t.Error("the limit of errors holds back ARP")
	}
}

// TestFloodedFramesStayFlooded: in hub mode everybody sees everything, whatever
// the gateway makes of its copy.
func TestFloodedFramesStayFlooded(t *testing.T) {
	for name, c := range map[string]struct {
		frame  []byte
		answer packet.Origin
	}{
		"ping":      {packettest.ICMPEcho(alice, gw, 1, 1, nil), packet.OriginEchoReply},
		"outside":   {packettest.UDP(alice, outside, 1, 2, nil), packet.OriginNetUnreachable},
		"ARP":       {packettest.ARPRequest(alice, gw.IP), packet.OriginARPReply},
		"no use":    {packettest.UDP(alice.IPv6(), gw.IPv6(), 1, 2, nil), packet.OriginNone},
		"broadcast": {packettest.UDP(alice, packettest.Broadcast, 1, 2, nil), packet.OriginNone},
	} {
		r := newRig(t)
		f := r.frame(1, c.frame)
		d := r.route(f, true)
		if d.Verdict != packet.Flood || d.Reason != packet.HubMode || d.Originate != c.answer {
			t.Errorf("%s: decided %+v", name, d)
		}
		if answer := r.apply(f, &d); answer != nil {
			checkAnswer(t, f, answer)
		}
	}
}

func TestBroadcast(t *testing.T) {
	for prefix, want := range map[string]string{
		"172.17.0.1/16": "172.17.255.255", "10.0.0.1/8": "10.255.255.255", "192.168.1.130/25": "192.168.1.255",
		"192.168.1.5/30": "192.168.1.7", "1.2.3.4/32": "1.2.3.4", "1.2.3.4/0": "255.255.255.255",
	} {
		if got := Broadcast(netip.MustParsePrefix(prefix)); got.String() != want {
			t.Errorf("broadcast address of %s is %v, want %s", prefix, got, want)
		}
	}
}

// TestManyAtOnce has workers, a show command and a leaving port use a gateway
// at the same time; it is for the race detector.
func TestManyAtOnce(t *testing.T) {
	g := newGateway(nat.Config{})
	var workers sync.WaitGroup
	for port := range packet.PortID(4) {
		workers.Add(1)
		go func() {
			defer workers.Done()
			r := &rig{t: t, gw: g, buf: make([]byte, packet.MaxFrame)}
			from := with(alice, netip.AddrFrom4([4]byte{172, 17, 1, byte(port)}).String())
			for i := range int64(200) {
				r.now = 1e9 + i*1e8
				for _, b := range [][]byte{
					packettest.ARPRequest(from, gw.IP), packettest.ICMPEcho(from, gw, 1, 1, nil), packettest.UDP(from, outside, 1, 2, nil),
				} {
					f := r.frame(port, b)
					d := lookedUp(f, false)
					g.Route(f, &d)
					r.apply(f, &d)
				}
				g.Neighbours(r.now)
				if i%50 == 0 {
					g.FlushPort(port)
				}
			}
		}()
	}
	workers.Wait()
	if n := len(g.Neighbours(1e9 + 199*1e8)); n != 4 {
		t.Errorf("%d neighbours, want 4", n)
	}
}

func BenchmarkEcho(b *testing.B) {
	r := newRig(b)
	f := r.frame(1, packettest.ICMPEcho(alice, gw, 1, 1, make([]byte, 56)))
	b.ReportAllocs()
	for b.Loop() {
		d := lookedUp(f, false)
		r.gw.Route(f, &d)
		r.gw.Apply(f, &d, &out{buf: r.buf})
	}
}
