package dns

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"fairlead/packet"
)

// Queries that are no good are answered with the code that says why.
func TestMalformedQueries(t *testing.T) {
	for name, c := range map[string]struct {
		change func(m *dns.Msg)
		rcode  int
	}{
		"notify":         {func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }, dns.RcodeNotImplemented},
		"update":         {func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }, dns.RcodeNotImplemented},
		"no question":    {func(m *dns.Msg) { m.Question = nil }, dns.RcodeFormatError},
		"two questions":  {func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, dns.RcodeFormatError},
		"with an answer": {func(m *dns.Msg) { m.Answer = append(m.Answer, a("x.", 1)) }, dns.RcodeFormatError},
		"truncated":      {func(m *dns.Msg) { m.Truncated = true }, dns.RcodeFormatError},
		"two OPT":        {func(m *dns.Msg) { m.SetEdns0(512, false).SetEdns0(512, false) }, dns.RcodeFormatError},
		"OPT of a name":  {func(m *dns.Msg) { m.SetEdns0(512, false).IsEdns0().Hdr.Name = "x." }, dns.RcodeFormatError},
		"EDNS 1":         {func(m *dns.Msg) { m.SetEdns0(512, false).IsEdns0().SetVersion(1) }, dns.RcodeBadVers},
		"AXFR":           {func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAXFR }, dns.RcodeRefused},
		"IXFR":           {func(m *dns.Msg) { m.SetIxfr("x.", 1, "a.", "b."); m.Id = 7 }, dns.RcodeRefused},
		"long":           {func(m *dns.Msg) { m.Extra = append(m.Extra, txt("x.", 2*MaxQuery)) }, dns.RcodeFormatError},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			m := question("x.example.", dns.TypeA)
			c.change(m)
			w.udp(m)
			r := w.ends(c.rcode)
			if r.Opcode != m.Opcode || m.Opcode == dns.OpcodeQuery && !r.RecursionDesired || len(w.asks) != 0 {
				t.Errorf("replied %v", r)
			}
			if c.rcode == dns.RcodeBadVers && (r.IsEdns0() == nil || r.IsEdns0().Version() != 0) {
				t.Errorf("replied %v, without the version we speak", r)
			}
			if w.f.Stats().Malformed != 1 {
				t.Errorf("%+v", w.f.Stats())
			}
		})
	}
}

// What ends before the header says, and what is no query, is told so or not
// answered at all.
func TestBrokenQueries(t *testing.T) {
	good := packed(t, question("www.example.org.", dns.TypeA).SetEdns0(1232, false))
	for n := range good {
		w := newWorld(t)
		w.query(from(1, 4000, packet.ProtoUDP), slices.Clone(good[:n]))
		if n < headerLen {
			if len(w.replies) != 0 || w.unanswered != 1 {
				t.Errorf("%d bytes were answered: %v", n, w.replies)
			}
			continue
		}
		w.ends(dns.RcodeFormatError)
	}
	w := newWorld(t)
	w.query(from(1, 4000, packet.ProtoUDP), append(slices.Clone(good), 0))
	w.ends(dns.RcodeFormatError)
	w = newWorld(t)
	answer := slices.Clone(good)
	answer[2] |= 0x80
	w.query(from(1, 4000, packet.ProtoUDP), answer)
	if len(w.replies)+len(w.asks) != 0 || w.unanswered != 1 {
		t.Errorf("an answer was answered: %v", w.replies)
	}
}

// The asked name opens the addresses at the end of its chain of aliases, and no
// others.
func TestAddresses(t *testing.T) {
	record := func(s string) dns.RR {
		rr, err := dns.NewRR(s)
		if err != nil {
			t.Fatal(err)
		}
		return rr
	}
	for _, c := range []struct {
		records string
		want    string
		ttl     time.Duration
	}{
		{"a. 300 A 192.0.2.1; a. 300 A 192.0.2.2", "192.0.2.1 192.0.2.2", 300 * time.Second},
		{"A. 300 AAAA 2001:db8::1", "2001:db8::1", 300 * time.Second},
		{"c. 300 A 192.0.2.1; b. 60 CNAME c.; a. 90 CNAME B.", "192.0.2.1", time.Minute},
		{"a. 0 A 192.0.2.1", "192.0.2.1", leastTTL},
		{"b. 300 A 192.0.2.1", "", 0},
		{"a. 300 A 192.0.2.1; other. 1 A 192.0.2.9; a. 300 TXT no", "192.0.2.1", 300 * time.Second},
		{"a. 300 CNAME b.; b. 300 CNAME a.; c. 300 A 192.0.2.1", "", 0}, // round and round
		{"a. 300 CNAME a.; a. 200 A 192.0.2.1", "192.0.2.1", 200 * time.Second},
	} {
		m := new(dns.Msg).SetReply(question("a.", dns.TypeA))
		for s := range strings.SplitSeq(c.records, "; ") {
			m.Answer = append(m.Answer, record(s))
		}
		m.Extra = append(m.Extra, record("a. 1 A 192.0.2.66")) // not of the answer
		m.Compress = true
		b := packed(t, m)
		addrs, ttl := addresses(b, "a")
		var got []string
		for _, a := range addrs {
			got = append(got, a.String())
		}
		if s := strings.Join(got, " "); s != c.want || len(addrs) > 0 && ttl != c.ttl {
			t.Errorf("%s: %s for %v, want %s for %v", c.records, s, ttl, c.want, c.ttl)
		}
		for n := headerLen; n < len(b); n++ { // what is cut off says no more than the whole
			if cut, _ := addresses(slices.Clone(b[:n]), "a"); len(cut) > len(addrs) {
				t.Errorf("%s: %d of %d bytes give %v", c.records, n, len(b), cut)
			}
		}
	}
}

// A name nobody cares for is not looked at.
func TestWants(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.Wants = func(q *Question, name string) bool { return q.Container == 2 && name == "x.example" }
	})
	for c := range packet.ContainerID(4) {
		w.query(from(c, 4000, packet.ProtoUDP), packed(t, question("X.example.", dns.TypeA)))
	}
	w.answer(func(m *dns.Msg) { m.Answer = append(m.Answer, a("x.example.", 1)) })
	if want := []string{"x.example 192.0.2.1 30s"}; !slices.Equal(w.learned, want) || len(w.replies) != 4 {
		t.Errorf("learned %q, want %q", w.learned, want)
	}
}

func TestParseResolvConf(t *testing.T) {
	at := func(list ...string) (servers []netip.AddrPort) {
		for _, s := range list {
			servers = append(servers, netip.AddrPortFrom(netip.MustParseAddr(s), 53))
		}
		return servers
	}
	for _, c := range []struct {
		text string
		want Servers
	}{
		{"", Servers{Addrs: at("127.0.0.1"), Timeout: perTry, Attempts: 2}},
		{"# none\nnameserver\nnameserver nonsense\n", Servers{Addrs: at("127.0.0.1"), Timeout: perTry, Attempts: 2}},
		{"nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch a b\n", Servers{Addrs: at("127.0.0.53"), Timeout: perTry, Attempts: 2}},
		{"nameserver\t192.0.2.1 # x\n;nameserver 192.0.2.9\nnameserver fe80::1%eth0\nnameserver 192.0.2.1\nnameserver ::1\nnameserver 192.0.2.4",
			Servers{Addrs: at("192.0.2.1", "fe80::1%eth0", "::1"), Timeout: perTry, Attempts: 2}},
		{"options timeout:1 rotate\noptions attempts:9\nnameserver 192.0.2.1\n", Servers{Addrs: at("192.0.2.1"), Timeout: time.Second, Attempts: 5, Rotate: true}},
		{"options timeout:99999999999999999999 attempts:0 timeout attempts:-1\nnameserver 192.0.2.1\n", Servers{Addrs: at("192.0.2.1"), Timeout: perTry, Attempts: 2}},
		{"options timeout:20\nnameserver 192.0.2.1\n", Servers{Addrs: at("192.0.2.1"), Timeout: perTry, Attempts: 2}},
	} {
		got := ParseResolvConf(c.text)
		if !slices.Equal(got.Addrs, c.want.Addrs) || got.Timeout != c.want.Timeout || got.Attempts != c.want.Attempts || got.Rotate != c.want.Rotate {
			t.Errorf("%q\nis  %+v\nnot %+v", c.text, got, c.want)
		}
	}
}
