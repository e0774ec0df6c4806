package dns

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"fairlead/packet"
)

// Networks of the tests: front and back have names, the default one has none.
const (
	front packet.NetworkID = 11
	back  packet.NetworkID = 12
)

func addrs(list ...string) (addrs []netip.Addr) {
	for _, s := range list {
		addrs = append(addrs, netip.MustParseAddr(s))
	}
	return addrs
}

// A segment is a network with names in a test, and a view what one container sees.
type (
	segment struct {
		NetworkName
		hosts []Host
	}
	view struct {
		container packet.ContainerID
		on        []Attached
	}
)

// zoneOf is a zone with each host a container of its own, and others with views.
func zoneOf(segments []segment, views []view) *Zone {
	z := NewZone()
	var list []NetworkName
	for _, s := range segments {
		list = append(list, s.NetworkName)
	}
	z.SetNetworks(list)
	next := packet.ContainerID(1000)
	for _, s := range segments {
		for _, h := range s.hosts {
			h.Network = s.Network
			z.Set(next, &Station{Hosts: []Host{h}})
			next++
		}
	}
	for _, v := range views {
		z.Set(v.container, &Station{View: v.on})
	}
	return z
}

// named is a host, on the network of its segment.
func named(addrs []netip.Addr, names ...string) Host { return Host{Names: names, Addrs: addrs} }

// withZone is a world with containers: 1 on the default network, 2 on front, 3 on
// back, 4 on both, 5 on back and the default one.
func withZone(t *testing.T, change ...func(*Config)) *world {
	w := newWorld(t, change...)
	w.f.SetNetwork(front, Network{Gateway: netip.MustParsePrefix("172.18.0.1/16"), HostLoopback: true})
	w.f.SetNetwork(back, Network{Gateway: netip.MustParsePrefix("172.19.0.1/16"), Internal: true})
	w.f.SetZone(zoneOf([]segment{
		{NetworkName{lab, "default", true}, []Host{
			named(addrs("172.17.0.2"), "plain"),
			named(addrs("172.17.0.5"), "five"),
		}},
		{NetworkName{front, "front", false}, []Host{
			named(addrs("172.18.0.2", "2001:db8::2"), "Web1", "www", "c0ffee000002", "web1"),
			named(addrs("172.18.0.4"), "both", "www"),
			named(addrs("172.18.0.6"), "a.b", "x."+strings.Repeat("y", 64), "ü", `b\s`),
			named(nil, "soon"),
			named(addrs("2001:db8::6"), "six"),
		}},
		{NetworkName{back, "Back.End", false}, []Host{
			named(addrs("172.19.0.3"), "db", "www"),
			named(addrs("172.19.0.4"), "both"),
			named(addrs("172.19.0.6"), "a"),
			named(addrs("172.19.0.5"), "five"),
		}},
	}, []view{
		{1, []Attached{{Network: lab}}},
		{2, []Attached{{Network: front, Links: map[string]string{"Mine": "WEB1", "both": "web1", "gone": "nobody"}}}},
		{3, []Attached{{Network: back}}},
		{4, []Attached{{Network: back}, {Network: front}}},
		{5, []Attached{{Network: back}, {Network: lab}}},
	}))
	return w
}

// at are the networks containers ask by.
var at = map[packet.ContainerID]packet.NetworkID{0: HostNetwork, 1: lab, 2: front, 3: back, 4: back, 5: lab, 99: front, 98: lab}

// said is an answer in one line: its code, what it says, and how long that holds.
func said(r *dns.Msg) string {
	var list []string
	var ttl []string
	for _, rr := range r.Answer {
		list = append(list, strings.TrimPrefix(rr.String(), rr.Header().String()))
		ttl = append(ttl, fmt.Sprint(rr.Header().Ttl))
	}
	slices.Sort(list)
	s := strings.Join(append([]string{dns.RcodeToString[r.Rcode]}, list...), " ")
	if len(ttl) > 0 {
		s += " " + strings.Join(slices.Compact(ttl), " ") + "s"
	}
	return s
}

func TestZone(t *testing.T) {
	const forwarded = "forwarded"
	for _, c := range []struct {
		container packet.ContainerID
		name      string
		qtype     uint16
		want      string
	}{
		// Names, with the network's behind them, and in any case.
		{2, "web1.", dns.TypeA, "NOERROR 172.18.0.2 600s"},
		{2, "WEB1.", dns.TypeA, "NOERROR 172.18.0.2 600s"},
		{2, "web1.front.", dns.TypeA, "NOERROR 172.18.0.2 600s"},
		{2, "web1.Front.", dns.TypeA, "NOERROR 172.18.0.2 600s"},
		{2, "www.", dns.TypeA, "NOERROR 172.18.0.2 172.18.0.4 600s"},
		{2, "c0ffee000002.", dns.TypeA, "NOERROR 172.18.0.2 600s"},
		{2, "a.b.", dns.TypeA, "NOERROR 172.18.0.6 600s"},
		{2, "a.b.front.", dns.TypeA, "NOERROR 172.18.0.6 600s"},
		{2, `\195\188.`, dns.TypeA, "NOERROR 172.18.0.6 600s"},
		{2, `b\\s.`, dns.TypeA, "NOERROR 172.18.0.6 600s"},
		{2, `a\.b.`, dns.TypeA, forwarded},
		{2, "front.", dns.TypeA, forwarded},
		{2, "web1.back.end.", dns.TypeA, forwarded},
		{2, "web2.front.", dns.TypeA, forwarded},
		{2, "example.web1.", dns.TypeA, forwarded},
		{2, "_http._tcp.web1.", dns.TypeSRV, forwarded},

		// A name that is known has something to say to every type, if only nothing.
		{2, "web1.", dns.TypeAAAA, "NOERROR 2001:db8::2 600s"},
		{2, "both.", dns.TypeAAAA, "NOERROR 2001:db8::2 600s"}, // the link
		{2, "a.b.", dns.TypeAAAA, "NOERROR"},
		{2, "six.", dns.TypeA, "NOERROR"},
		{2, "soon.", dns.TypeA, "NOERROR"},
		{2, "web1.", dns.TypeMX, "NOERROR"},
		{2, "web1.", dns.TypeSRV, "NOERROR"},
		{2, "web1.", dns.TypeTXT, "NOERROR"},
		{2, "web1.", dns.TypeHTTPS, "NOERROR"},
		{2, "web1.", dns.TypeANY, "NOERROR 172.18.0.2 2001:db8::2 600s"},

		// Links are names of one container.
		{2, "mine.", dns.TypeA, "NOERROR 172.18.0.2 600s"},
		{2, "MINE.front.", dns.TypeA, "NOERROR 172.18.0.2 600s"},
		{2, "both.", dns.TypeA, "NOERROR 172.18.0.2 600s"},
		{2, "gone.", dns.TypeA, forwarded},
		{4, "mine.", dns.TypeA, "forwarded"},
		{4, "both.front.", dns.TypeA, "NOERROR 172.18.0.4 600s"},

		// Addresses.
		{2, "2.0.18.172.in-addr.arpa.", dns.TypePTR, "NOERROR Web1.front. 600s"},
		{2, "2.0.18.172.IN-ADDR.arpa.", dns.TypePTR, "NOERROR Web1.front. 600s"},
		{2, "2.0.18.172.in-addr.arpa.", dns.TypeA, "NOERROR"},
		{2, "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.", dns.TypePTR, "NOERROR Web1.front. 600s"},
		{2, "3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.", dns.TypePTR, forwarded},
		{2, "9.0.18.172.in-addr.arpa.", dns.TypePTR, "NXDOMAIN"},
		{2, "02.0.18.172.in-addr.arpa.", dns.TypePTR, "NXDOMAIN"},
		{2, "1.2.0.18.172.in-addr.arpa.", dns.TypePTR, "NXDOMAIN"},
		{2, "3.0.19.172.in-addr.arpa.", dns.TypePTR, "NXDOMAIN"},
		{2, "2.0.17.172.in-addr.arpa.", dns.TypePTR, "NXDOMAIN"},

		// A container sees the networks it is on, and asks outside by them.
		{3, "db.", dns.TypeA, "NOERROR 172.19.0.3 600s"},
		{3, "db.BACK.end.", dns.TypeA, "NOERROR 172.19.0.3 600s"},
		{3, "a.back.end.", dns.TypeA, "NOERROR 172.19.0.6 600s"},
		{3, "db.end.", dns.TypeA, "SERVFAIL"},
		{3, "web1.", dns.TypeA, "SERVFAIL"},
		{3, "web1.front.", dns.TypeA, "SERVFAIL"},
		{3, "www.example.", dns.TypeA, "SERVFAIL"},
		{3, "2.0.18.172.in-addr.arpa.", dns.TypePTR, "NXDOMAIN"},
		{3, "3.0.19.172.in-addr.arpa.", dns.TypePTR, "NOERROR db.Back.End. 600s"},
		{4, "both.", dns.TypeA, "NOERROR 172.19.0.4 600s"},
		{4, "web1.", dns.TypeA, "NOERROR 172.18.0.2 600s"},
		{4, "www.", dns.TypeA, "NOERROR 172.19.0.3 600s"},
		{4, "www.front.", dns.TypeA, "NOERROR 172.18.0.2 172.18.0.4 600s"},
		{4, "www.example.", dns.TypeA, forwarded}, // it asks by back, and has front
		{5, "db.", dns.TypeA, "NOERROR 172.19.0.3 600s"},
		{5, "web1.", dns.TypeA, forwarded},

		// The default network has no names.
		{1, "plain.", dns.TypeA, forwarded},
		{1, "plain.default.", dns.TypeA, forwarded},
		{1, "2.0.17.172.in-addr.arpa.", dns.TypePTR, "NXDOMAIN"},
		{5, "five.default.", dns.TypeA, forwarded},

		// Stations nobody has given an address hear what the network has.
		{99, "web1.", dns.TypeA, "NOERROR 172.18.0.2 600s"},
		{99, "mine.", dns.TypeA, forwarded},
		{99, "db.", dns.TypeA, forwarded},
		{98, "plain.", dns.TypeA, forwarded},

		// Below the domain the host hears all names; it knows itself whom else to ask.
		{0, "plain.fairlead.internal.", dns.TypeA, "NOERROR 172.17.0.2 0s"},
		{0, "plain.default.FAIRLEAD.internal.", dns.TypeA, "NOERROR 172.17.0.2 0s"},
		{0, "both.fairlead.internal.", dns.TypeA, "NOERROR 172.18.0.4 0s"},
		{0, "both.back.end.fairlead.internal.", dns.TypeA, "NOERROR 172.19.0.4 0s"},
		{0, "2.0.17.172.in-addr.arpa.", dns.TypePTR, "NOERROR plain.default.fairlead.internal. 0s"},
		{0, "nobody.fairlead.internal.", dns.TypeA, "NXDOMAIN"},
		{0, "mine.fairlead.internal.", dns.TypeA, "NXDOMAIN"},
		{0, "fairlead.internal.", dns.TypeSOA, "NOERROR"},
		{0, "host.fairlead.internal.", dns.TypeA, "NXDOMAIN"},
		{0, "notfairlead.internal.", dns.TypeA, "REFUSED"},
		{0, "plain.", dns.TypeA, "REFUSED"},
		{0, "web1.front.", dns.TypeA, "REFUSED"},
		{0, "host.docker.internal.", dns.TypeA, "REFUSED"},
		{0, "9.0.17.172.in-addr.arpa.", dns.TypePTR, "NXDOMAIN"},
		{2, "web1.fairlead.internal.", dns.TypeA, "NOERROR 172.18.0.2 600s"},
		{2, "web1.front.fairlead.internal.", dns.TypeA, "NOERROR 172.18.0.2 600s"},
		{2, "host.fairlead.internal.", dns.TypeA, "NOERROR 172.18.0.1 600s"},
		{2, "db.back.end.fairlead.internal.", dns.TypeA, "NXDOMAIN"},
		{2, "plain.fairlead.internal.", dns.TypeA, "NXDOMAIN"},
		{1, "plain.fairlead.internal.", dns.TypeA, "NXDOMAIN"},
	} {
		w := withZone(t)
		q := from(c.container, 4000, packet.ProtoUDP)
		q.Network = at[c.container]
		w.query(q, packed(t, question(c.name, c.qtype)))
		got := forwarded
		if len(w.asks) == 0 {
			got = said(w.reply())
		}
		if got != c.want {
			t.Errorf("container %d asks for %s %s: %s, want %s", c.container, c.name, dns.TypeToString[c.qtype], got, c.want)
		}
	}
}

// Several addresses come in a new order each time, and as many as fit.
func TestZoneShuffles(t *testing.T) {
	var many Host
	many.Names = []string{"many"}
	for i := range 100 {
		many.Addrs = append(many.Addrs, netip.AddrFrom4([4]byte{172, 18, 1, byte(i)}))
	}
	w := newWorld(t)
	w.f.SetZone(zoneOf([]segment{{NetworkName{Network: lab, Name: "lab"}, []Host{many}}}, nil))
	first := map[string]bool{}
	for range 50 {
		w.replies, w.raw = nil, nil
		w.udp(question("many.", dns.TypeA))
		r := w.reply()
		if len(r.Answer) != 30 || !r.Truncated || len(w.raw[0]) > leastUDP {
			t.Fatalf("%d answers in %d bytes, truncated %t", len(r.Answer), len(w.raw[0]), r.Truncated)
		}
		first[r.Answer[0].(*dns.A).A.String()] = true
	}
	if len(first) < 10 {
		t.Errorf("only %d addresses were ever the first", len(first))
	}
	for _, size := range []uint16{1232, 4096} {
		w.replies = nil
		m := question("many.", dns.TypeA)
		m.SetEdns0(size, false)
		w.udp(m)
		if r := w.reply(); r.Truncated != (size < 1700) || r.IsEdns0() == nil {
			t.Errorf("%d bytes: %d answers, truncated %t", size, len(r.Answer), r.Truncated)
		}
	}
	w.replies = nil
	w.tcp(question("many.", dns.TypeA))
	if r := w.reply(); len(r.Answer) != 100 || r.Truncated {
		t.Errorf("by TCP %d answers", len(r.Answer))
	}
}

// A policy hears of a name by each network of the asker's, and one that lets
// nothing out does not close the others.
func TestZonePolicies(t *testing.T) {
	var learned []string
	w := withZone(t, func(c *Config) {
		c.Wants = func(q *Question, name string) bool { return q.Network != lab }
		c.Learn = func(q *Question, name string, addrs []packet.Addr, ttl time.Duration) {
			learned = append(learned, fmt.Sprint(q.Network, " ", name, " ", addrs, " ", ttl))
		}
		c.Closed = func(q *Question) bool { return q.Network == front }
	})
	ask := func(c packet.ContainerID, name, want string) {
		t.Helper()
		w.replies, w.asks = nil, nil
		q := from(c, 4000, packet.ProtoUDP)
		q.Network = at[c]
		w.query(q, packed(t, question(name, dns.TypeA)))
		got := "forwarded"
		if len(w.asks) == 0 {
			got = said(w.reply())
		}
		if got != want {
			t.Errorf("container %d asks for %s: %s, want %s", c, name, got, want)
		}
	}
	ask(2, "www.example.", "REFUSED")
	ask(3, "www.example.", "SERVFAIL")
	ask(4, "www.example.", "REFUSED") // front is closed, back is internal
	ask(5, "www.example.", "forwarded")
	ask(4, "db.", "NOERROR 172.19.0.3 600s")
	ask(5, "five.", "NOERROR 172.19.0.5 600s")
	ask(0, "db.fairlead.internal.", "NOERROR 172.19.0.3 0s")
	want := []string{"12 db [172.19.0.3] 10m0s", "11 db [172.19.0.3] 10m0s", "12 five [172.19.0.5] 10m0s"}
	if !slices.Equal(learned, want) {
		t.Errorf("learned %q\nwant %q", learned, want)
	}
}

// Whatever containers are called, there is a zone, and who fits into a message is
// found by every name in it.
func FuzzZone(f *testing.F) {
	f.Add("web1", "front", "www")
	f.Add("a.b", "c.d", `\`)
	f.Add("", ".", "..")
	f.Add("ü\x00", `\046`, strings.Repeat("x", 64))
	f.Add(strings.Repeat("x.", 126), strings.Repeat("y.", 126), "a.")
	for n := range 7 { // together a little shorter and longer than a name may be
		f.Add(strings.Repeat("x.", 124), strings.Repeat("y", n+1), "a.")
	}
	f.Fuzz(func(t *testing.T, name, network, link string) {
		fw := New(Config{Containers: 4, Total: 4})
		fw.SetNetwork(front, Network{Gateway: netip.MustParsePrefix("172.18.0.1/16")})
		fw.SetZone(zoneOf(
			[]segment{{NetworkName{Network: front, Name: network}, []Host{named(addrs("172.18.0.2"), name, "sure")}}},
			[]view{{2, []Attached{{front, map[string]string{link: "sure"}}}}}))
		ask := func(name string, qtype uint16) *dns.Msg {
			q := from(2, 4000, packet.ProtoUDP)
			q.Network, q.Payload = front, packed(t, question(name, qtype))
			r := new(dns.Msg)
			for _, reply := range fw.Query(0, q, nil).Replies {
				if err := r.Unpack(reply.Message); err != nil {
					t.Fatal(err)
				}
			}
			return r
		}
		for _, s := range []string{name, link, "sure"} {
			asked := spelled(s)
			if asked == "" || slices.Contains(hostNames, plain(asked)) {
				continue
			}
			if r := ask(asked, dns.TypeA); r.Rcode != dns.RcodeSuccess || len(r.Answer) != 1 {
				t.Errorf("%q, which is %s: %v", s, asked, r)
			}
		}
		if r := ask("2.0.18.172.in-addr.arpa.", dns.TypePTR); r.Rcode == dns.RcodeNameError {
			t.Errorf("%q.%q has an address, and %v", name, network, r)
		}
	})
}

// crowd is a zone with so many containers on a network.
func crowd(n int) *Zone {
	z := NewZone()
	z.SetNetworks([]NetworkName{{Network: front, Name: "front"}})
	for i := range n {
		z.Set(one(i))
	}
	return z
}

func one(i int) (packet.ContainerID, *Station) {
	id := fmt.Sprintf("%012x", i)
	at := Host{front, []string{fmt.Sprintf("web%d", i), id, id}, []netip.Addr{netip.AddrFrom4([4]byte{172, 18, byte(i >> 8), byte(i)})}}
	return packet.ContainerID(i + 1), &Station{Hosts: []Host{at}, View: []Attached{{Network: front}}}
}

// What is said of one container costs no more where there are thousands.
func TestZoneOfMany(t *testing.T) {
	change := func(n int) float64 {
		z, c := crowd(n), packet.ContainerID(n)
		_, s := one(n - 1)
		return testing.AllocsPerRun(100, func() { z.Set(c, nil); z.Set(c, s) })
	}
	if few, many := change(10), change(10_000); many > few+1 { // a map may grow
		t.Errorf("%v allocations among ten, %v among ten thousand", few, many)
	}
}

// A zone in which containers have come, changed and gone in any order is the one that
// has what is left.
func TestZoneChanges(t *testing.T) {
	networks := []NetworkName{{lab, "default", true}, {front, "front", false}, {back, "back", false}}
	rng := rand.New(rand.NewPCG(1, 2))
	some := func(c packet.ContainerID) *Station {
		s := new(Station)
		for _, n := range networks {
			if rng.IntN(2) == 0 {
				continue
			}
			h := Host{Network: n.Network, Names: []string{fmt.Sprintf("web%d", rng.IntN(4)), fmt.Sprintf("alias%d", rng.IntN(3))}}
			if rng.IntN(4) > 0 {
				h.Addrs = addrs(fmt.Sprintf("10.%d.0.%d", n.Network, c))
			}
			s.Hosts = append(s.Hosts, h)
			s.View = append(s.View, Attached{n.Network, map[string]string{"mine": fmt.Sprintf("web%d", rng.IntN(4))}})
		}
		return s
	}
	z, now := NewZone(), map[packet.ContainerID]*Station{}
	z.SetNetworks(networks)
	for range 2000 {
		c := packet.ContainerID(1 + rng.IntN(8))
		if now[c] = nil; rng.IntN(3) > 0 {
			now[c] = some(c)
		}
		z.Set(c, now[c])
		fresh := NewZone()
		fresh.SetNetworks(networks)
		for c, s := range now {
			fresh.Set(c, s)
		}
		if got, want := everything(z), everything(fresh); got != want {
			t.Fatalf("after a change it says\n%s\nwant\n%s", got, want)
		}
	}
	for c := range now {
		z.Set(c, nil)
	}
	for _, n := range z.networks {
		if len(n.hosts)+len(n.of) > 0 {
			t.Errorf("nobody is left, and %v and %v", n.hosts, n.of)
		}
	}
	z.SetNetworks(nil)
	if len(z.networks)+len(z.order)+len(z.known) > 0 {
		t.Errorf("left is %+v", z)
	}
}

// everything is what containers and the host hear of the names in TestZoneChanges.
func everything(z *Zone) string {
	var b strings.Builder
	for c := range packet.ContainerID(9) {
		q := &Question{Container: c, Network: front}
		if c == 0 {
			q.Network = HostNetwork
		}
		for _, name := range []string{"web0", "web1", "web2", "web3", "alias0", "alias1", "alias2", "mine", "web0.back", "alias1.front"} {
			list, known := z.lookUp(q, name)
			slices.SortFunc(list, func(a, b packet.Addr) int { return bytes.Compare(a[:], b[:]) })
			fmt.Fprintln(&b, c, name, list, known)
		}
		for _, n := range []packet.NetworkID{lab, front, back} {
			for i := range 9 {
				fmt.Fprintln(&b, c, n, i, z.nameOf(q, packet.AddrFrom4([4]byte{10, byte(n), 0, byte(i)})))
			}
		}
	}
	return b.String()
}

func BenchmarkZone(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			z := crowd(n)
			c, s := one(n - 1)
			b.ReportAllocs()
			for b.Loop() {
				z.Set(c, s)
			}
		})
	}
}
