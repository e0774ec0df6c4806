package dns

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"fairlead/packet"
)

// seeds are messages of every kind.
func seeds(f *testing.F) [][]byte {
	q := question("www.example.org.", dns.TypeA)
	long := new(dns.Msg).SetReply(q)
	long.Answer = append(long.Answer, txt("www.example.org.", 3000))
	chain := new(dns.Msg).SetReply(q)
	chain.Answer = append(chain.Answer, &dns.CNAME{Hdr: dns.RR_Header{Name: "www.example.org.", Rrtype: dns.TypeCNAME, Class: 1, Ttl: 5}, Target: "b."}, a("b.", 1))
	chain.Compress = true
	axfr := new(dns.Msg).SetAxfr("example.org.")
	return [][]byte{
		packed(f, q), packed(f, q.Copy().SetEdns0(4096, true)), packed(f, long), packed(f, chain), packed(f, axfr),
		packed(f, question("host.docker.internal.", dns.TypeANY)), packed(f, question("1.0.17.172.in-addr.arpa.", dns.TypePTR)),
		packed(f, question("web1.", dns.TypeAAAA)), packed(f, question("www.LAB.", dns.TypeANY)), packed(f, question("web1.fairlead.internal.", dns.TypeA)),
		packed(f, question("2.0.17.172.in-addr.arpa.", dns.TypePTR)),
		packed(f, question("2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.", dns.TypePTR)),
		// Names that are pointers: to themselves, to the id, to the flags.
		[]byte("\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"),
		[]byte("\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x01\x00\x01\x0c\x00"),
		[]byte("\x0c\x00\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x00\x07\x01\x00\x01"),
		// A TSIG record of nothing, which the library reads and writes differently.
		[]byte("\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\x01x\x00\x00\x01\x00\x01\x00\x00\xfa\x00\xff\x00\x00\x00\x00\x00\x00"),
		{}, make([]byte, headerLen), make([]byte, 65535),
	}
}

// Whatever a container asks, nothing panics, and there is one reply, not longer
// than the asker takes and well formed.
func FuzzQuery(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b, false)
		f.Add(b, true)
	}
	f.Fuzz(func(t *testing.T, b []byte, tcp bool) {
		fw := New(Config{Containers: 4, Total: 4})
		fw.SetNetwork(lab, Network{Gateway: netip.MustParsePrefix("172.17.0.1/16"), HostLoopback: true})
		fw.SetZone(zoneOf([]segment{{NetworkName{Network: lab, Name: "lab"}, []Host{named(addrs("172.17.0.2", "2001:db8::2"), "web1", "www")}}}, nil))
		fw.SetServers(Servers{Addrs: []netip.AddrPort{first}, Timeout: perTry, Attempts: 1})
		q := from(1, 4000, packet.ProtoUDP)
		if tcp {
			q.From.Proto = packet.ProtoTCP
		}
		q.Payload = slices.Clone(b)
		replies := 0
		do := func(s Step) {
			for _, r := range s.Replies {
				replies++
				if r.Message == nil {
					continue
				}
				var m dns.Msg
				if err := m.Unpack(r.Message); err != nil || !m.Response {
					t.Errorf("replied % x: %v", r.Message, err)
				}
				if len(r.Message) > dns.MaxMsgSize || !tcp && len(r.Message) > MaxUDP {
					t.Errorf("replied %d bytes", len(r.Message))
				}
				if len(b) >= 2 && (r.Message[0] != b[0] || r.Message[1] != b[1]) {
					t.Errorf("the reply has another id")
				}
			}
		}
		s := fw.Query(0, q, func([]byte) {})
		do(s)
		if s.Ask != nil {
			var m dns.Msg
			if err := m.Unpack(s.Ask.Message); err != nil || len(m.Question) != 1 || len(s.Ask.Message) != len(b) {
				t.Errorf("asked %d bytes: %v", len(s.Ask.Message), err)
			}
			do(fw.Failed(0, s.Ask.Try))
		}
		if replies != 1 || fw.InFlight() != 0 {
			t.Errorf("%d replies, %d in flight", replies, fw.InFlight())
		}
	})
}

// Whatever a server answers, nothing panics, and what is taken ends the query or
// leads to another try: there are no rounds without end (CVE-2026-35406).
func FuzzAnswer(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b, uint16(512))
		f.Add(b, uint16(4096))
	}
	f.Fuzz(func(t *testing.T, b []byte, size uint16) {
		learned := 0
		fw := New(Config{Containers: 4, Total: 4,
			Wants: func(*Question, string) bool { return true },
			Learn: func(_ *Question, _ string, addrs []packet.Addr, _ time.Duration) { learned += len(addrs) }})
		fw.SetNetwork(lab, Network{Gateway: netip.MustParsePrefix("172.17.0.1/16")})
		fw.SetServers(Servers{Addrs: []netip.AddrPort{first, second}, Timeout: perTry, Attempts: 2})
		m := question("www.example.org.", dns.TypeA)
		if size != 0 {
			m.SetEdns0(size, false)
		}
		q := from(1, 4000, packet.ProtoUDP)
		q.Payload = packed(t, m)
		s := fw.Query(0, q, func(b []byte) {})
		for range 10 {
			if s.Ask == nil {
				break
			}
			again := slices.Clone(b)
			if len(again) >= headerLen {
				copy(again, s.Ask.Message[:2]) // it guessed the id
			}
			var ok bool
			if s, ok = fw.Answer(0, s.Ask.Try, again); !ok {
				return
			}
		}
		if s.Ask != nil || len(s.Replies) != 1 || fw.InFlight() != 0 {
			t.Fatalf("no end: %+v", s)
		}
		if n := len(s.Replies[0].Message); n > MaxUDP || n < headerLen {
			t.Errorf("replied %d bytes", n)
		}
		if learned > len(b)/4 {
			t.Errorf("learned %d addresses of %d bytes", learned, len(b))
		}
	})
}

func FuzzParseResolvConf(f *testing.F) {
	f.Add("nameserver 192.0.2.1\noptions timeout:1 attempts:3 rotate\nsearch a\n")
	f.Add("nameserver fe80::1%eth0\n# x\n;\n")
	f.Fuzz(func(t *testing.T, text string) {
		s := ParseResolvConf(text)
		if len(s.Addrs) < 1 || len(s.Addrs) > maxServers || s.Timeout <= 0 || s.Timeout > perTry || s.Attempts < 1 || s.Attempts > maxAttempts {
			t.Errorf("%q is %+v", text, s)
		}
	})
}
