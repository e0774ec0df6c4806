package dns

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"fairlead/packet"
)

// The host's names are the gateway's address while its loopback is to be reached,
// and nothing otherwise; they are never asked for elsewhere.
func TestHostNames(t *testing.T) {
	for _, name := range []string{"host.fairlead.internal.", "HOST.docker.internal."} {
		for _, c := range []struct {
			qtype    uint16
			loopback bool
			edns     bool
			rcode    int
			answer   string
		}{
			{dns.TypeA, true, false, dns.RcodeSuccess, "172.17.0.1"},
			{dns.TypeANY, true, true, dns.RcodeSuccess, "172.17.0.1"},
			{dns.TypeAAAA, true, true, dns.RcodeSuccess, ""},
			{dns.TypeMX, true, false, dns.RcodeSuccess, ""},
			{dns.TypeA, false, true, dns.RcodeNameError, ""},
			{dns.TypeAAAA, false, false, dns.RcodeNameError, ""},
		} {
			w := newWorld(t)
			w.f.SetNetwork(lab, Network{Gateway: netip.MustParsePrefix("172.17.0.1/16"), HostLoopback: c.loopback})
			m := question(name, c.qtype)
			if c.edns {
				m.SetEdns0(1400, true)
			}
			w.udp(m)
			r := w.ends(c.rcode)
			var got []string
			for _, rr := range r.Answer {
				got = append(got, rr.(*dns.A).A.String())
			}
			if s := strings.Join(got, " "); s != c.answer || !r.Authoritative || len(w.asks) != 0 {
				t.Errorf("%s %d: %v", name, c.qtype, r)
			}
			if opt := r.IsEdns0(); (opt != nil) != c.edns || c.edns && (!opt.Do() || opt.UDPSize() != ownUDP) {
				t.Errorf("%s %d: OPT %v", name, c.qtype, opt)
			}
			if want := c.loopback; (len(w.learned) == 1) != want {
				t.Errorf("%s %d: learned %q", name, c.qtype, w.learned)
			}
		}
	}
}

// What is asked of our own addresses is nobody's business outside.
func TestReverse(t *testing.T) {
	for name, ours := range map[string]bool{
		"2.0.17.172.in-addr.arpa.":                  true,
		"1.0.17.172.IN-ADDR.ARPA.":                  true,
		"0.17.172.in-addr.arpa.":                    true,
		"17.172.in-addr.arpa.":                      true,
		"b._dns-sd._udp.0.0.17.172.in-addr.arpa.":   true,
		"9.8.7.2.0.17.172.in-addr.arpa.":            true,
		"5.0.9.10.in-addr.arpa.":                    true, // another network's
		"172.in-addr.arpa.":                         false,
		"9.10.in-addr.arpa.":                        false,
		"5.1.9.10.in-addr.arpa.":                    false,
		"1.2.0.192.in-addr.arpa.":                   false,
		"300.17.172.in-addr.arpa.":                  true, // below a block of ours
		"x.172.in-addr.arpa.":                       false,
		"in-addr.arpa.":                             false,
		"1.0.17.172.in-addr.arpa.example.":          false,
		"1.0.17.172.ip6.arpa.":                      false,
		"2.0.17.172xin-addr.arpa.":                  false,
		"www.host.docker.internal.":                 false,
		"host.docker.internal.example.":             false,
		"-0.17.172.in-addr.arpa.":                   true,
		"+17.172.in-addr.arpa.":                     false,
		"1." + strings.Repeat("0.", 60) + "x.arpa.": false,
	} {
		w := newWorld(t)
		w.udp(question(name, dns.TypePTR))
		if ours {
			w.ends(dns.RcodeNameError)
		}
		if (len(w.asks) == 0) != ours {
			t.Errorf("%s: asks %v", name, w.asks)
		}
	}
}

// A container of an internal network has no way out, by DNS neither
// (CVE-2024-29018); and what is not known as a network has none.
func TestInternal(t *testing.T) {
	for _, network := range []packet.NetworkID{internal, 77} {
		for _, proto := range []packet.Proto{packet.ProtoUDP, packet.ProtoTCP} {
			w := newWorld(t)
			q := from(1, 4000, proto)
			q.Network = network
			w.query(q, packed(t, question("secret.example.", dns.TypeTXT)))
			w.ends(dns.RcodeServerFailure)
			if len(w.asks) != 0 || w.f.Stats().Kept != 1 {
				t.Errorf("asked %v; %+v", w.asks, w.f.Stats())
			}
		}
	}
	// Nor has a container whose policy lets nothing out.
	closed := newWorld(t, func(c *Config) { c.Closed = func(q *Question) bool { return q.Container == 1 } })
	closed.udp(question("secret.example.", dns.TypeA))
	closed.ends(dns.RcodeRefused)
	closed.query(from(2, 4000, packet.ProtoUDP), packed(t, question("secret.example.", dns.TypeA)))
	if len(closed.asks) != 1 {
		t.Errorf("asked %v", closed.asks)
	}
	// An identical query of another network does not open it.
	w := newWorld(t)
	w.udp(question("secret.example.", dns.TypeA))
	q := from(2, 4000, packet.ProtoUDP)
	q.Network = internal
	w.query(q, packed(t, question("secret.example.", dns.TypeA)))
	w.ends2(dns.RcodeServerFailure)
	w.f.RemoveNetwork(lab)
	w.replies = nil
	w.query(from(3, 4000, packet.ProtoUDP), packed(t, question("x.example.", dns.TypeA)))
	w.ends2(dns.RcodeServerFailure)
}

// ends2 is ends, while something else is in flight.
func (w *world) ends2(rcode int) {
	w.t.Helper()
	if r := w.reply(); r.Rcode != rcode {
		w.t.Errorf("replied %v, want %s", r, dns.RcodeToString[rcode])
	}
}

func TestReverseZones(t *testing.T) {
	for subnet, want := range map[string]string{
		"172.17.0.0/16":      "17.172.in-addr.arpa",
		"10.0.0.0/8":         "10.in-addr.arpa",
		"192.0.2.0/24":       "2.0.192.in-addr.arpa",
		"192.168.16.0/23":    "16.168.192.in-addr.arpa 17.168.192.in-addr.arpa",
		"10.1.2.252/31":      "252.2.1.10.in-addr.arpa 253.2.1.10.in-addr.arpa",
		"10.1.2.255/32":      "255.2.1.10.in-addr.arpa",
		"255.255.255.254/31": "254.255.255.255.in-addr.arpa 255.255.255.255.in-addr.arpa",
	} {
		if got := strings.Join(ReverseZones(netip.MustParsePrefix(subnet)), " "); got != want {
			t.Errorf("%s: %s, want %s", subnet, got, want)
		}
	}
}
