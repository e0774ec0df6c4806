package policy

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"

	"fairlead/packet"
)

func files(content map[string]string) func(string) (io.ReadCloser, error) {
	return func(name string) (io.ReadCloser, error) {
		text, ok := content[name]
		if !ok {
			return nil, &os.PathError{Op: "open", Path: name, Err: os.ErrNotExist}
		}
		return io.NopCloser(strings.NewReader(text)), nil
	}
}

func mustEgress(t testing.TB, spec, text string) *Egress {
	t.Helper()
	e, err := ParseEgress(spec, files(map[string]string{"list": text}))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func addr(s string) packet.Addr { return packet.AddrFromNetip(netip.MustParseAddr(s)) }

// wantCheck asks an Egress about a connection.
func wantCheck(t *testing.T, e *Egress, dst string, port uint16, proto packet.Proto, now int64, rule int, ok bool) {
	t.Helper()
	if r, o := e.Check(addr(dst), port, proto, now); r != rule || o != ok {
		t.Errorf("%s: %s port %d %v at %d: rule %d, %v; want %d, %v", e, dst, port, proto, now, r, o, rule, ok)
	}
}

func TestEgressWords(t *testing.T) {
	wantCheck(t, mustEgress(t, "all", ""), "10.0.0.1", 80, packet.ProtoTCP, 0, 1, true)
	wantCheck(t, mustEgress(t, "none", ""), "8.8.8.8", 80, packet.ProtoTCP, 0, 1, false)

	e := mustEgress(t, "internet", "")
	rest := len(special) + 2
	for _, a := range []string{"8.8.8.8", "1.0.0.0", "172.15.255.255", "172.32.0.0", "100.63.255.255", "100.128.0.0", "192.167.255.255",
		"198.17.255.255", "198.20.0.0", "223.255.255.255", "126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0", "2606:4700::1111"} {
		wantCheck(t, e, a, 443, packet.ProtoTCP, 0, rest, true)
		if r, ok := e.CheckOwn(addr(a), 443, packet.ProtoTCP, 0); ok || r != rest-1 {
			t.Errorf("the host's %s: rule %d, %v", a, r, ok)
		}
	}
	for _, a := range []string{"169.254.169.254", "168.63.129.16", "0.0.0.1", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.127.255.255",
		"127.0.0.1", "169.254.0.1", "172.16.0.0", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.168.0.1", "198.18.0.0", "198.19.255.255",
		"198.51.100.1", "203.0.113.255", "224.0.0.251", "239.1.1.1", "240.0.0.1", "255.255.255.255", "::", "::1", "::ffff:10.0.0.1",
		"fe80::1", "fd00:ec2::254", "ff02::1", "2001:db8::1", "64:ff9b::a00:1", "2002:a00:1::"} {
		rule, ok := e.Check(addr(a), 443, packet.ProtoTCP, 0)
		if ok || !netip.MustParsePrefix(special[rule-1].prefix).Contains(addr(a).Netip()) {
			t.Errorf("%s: rule %d, %v", a, rule, ok)
		}
	}
	if r, _ := e.Check(addr("169.254.169.254"), 80, packet.ProtoTCP, 0); !strings.Contains(e.Rules()[r-1].To, "metadata") {
		t.Errorf("metadata is refused by %+v", e.Rules()[r-1])
	}
	for _, spec := range []string{"", "ALL", "some", "allow", "allow:", "all:list"} {
		if _, err := ParseEgress(spec, files(nil)); err == nil {
			t.Errorf("%q is understood", spec)
		}
	}
}

func TestEgressClosed(t *testing.T) {
	for spec, want := range map[string]bool{"all": false, "none": true, "internet": false, "allow:x": true} {
		e, err := ParseEgress(spec, files(map[string]string{"x": "# nobody"}))
		if err != nil || e.Closed() != want {
			t.Errorf("%s: closed %v, %v", spec, e.Closed(), err)
		}
	}
}

const someFile = `# where builds go
allow example.org 443/tcp
allow 192.0.2.0/24 53          # both protocols
allow 198.51.100.7
allow 2001:db8::/32 443/tcp

	allow EXAMPLE.org. 80/tcp
allow 0.0.0.0/0 123/udp
`

func TestEgressFile(t *testing.T) {
	e := mustEgress(t, "allow:list", someFile)
	const minute = 60e9
	e.Learn("Example.ORG", addr("203.0.113.5"), 5*minute)
	for _, x := range []struct {
		dst   string
		port  uint16
		proto packet.Proto
		now   int64
		rule  int
		ok    bool
	}{
		{"192.0.2.1", 53, packet.ProtoUDP, 0, 2, true},
		{"192.0.2.255", 53, packet.ProtoTCP, 0, 2, true},
		{"192.0.2.1", 53, packet.ProtoICMP, 0, 7, false},
		{"192.0.2.1", 54, packet.ProtoUDP, 0, 7, false},
		{"192.0.3.1", 53, packet.ProtoUDP, 0, 7, false},
		{"198.51.100.7", 0, packet.ProtoICMP, 0, 3, true},
		{"198.51.100.7", 22, packet.ProtoTCP, 0, 3, true},
		{"198.51.100.8", 22, packet.ProtoTCP, 0, 7, false},
		{"2001:db8:1::1", 443, packet.ProtoTCP, 0, 4, true},
		{"2001:db8:1::1", 443, packet.ProtoUDP, 0, 7, false},
		{"9.9.9.9", 123, packet.ProtoUDP, 0, 6, true},
		{"9.9.9.9", 123, packet.ProtoTCP, 0, 7, false},
		{"203.0.113.5", 443, packet.ProtoTCP, 0, 1, true},
		{"203.0.113.5", 443, packet.ProtoTCP, 5 * minute, 1, true},
		{"203.0.113.5", 80, packet.ProtoTCP, 5 * minute, 5, true},
		{"203.0.113.5", 80, packet.ProtoTCP, 5*minute + 1, 7, false},
		{"203.0.113.5", 443, packet.ProtoUDP, 0, 7, false},
		{"203.0.113.5", 22, packet.ProtoTCP, 0, 7, false},
		{"203.0.113.6", 443, packet.ProtoTCP, 0, 7, false},
	} {
		wantCheck(t, e, x.dst, x.port, x.proto, x.now, x.rule, x.ok)
	}
	for name, want := range map[string]bool{"example.org": true, "EXAMPLE.ORG.": true, "www.example.org": false, "org": false, "": false} {
		if e.Wants(name) != want {
			t.Errorf("Wants(%q) = %v", name, !want)
		}
	}
	e.Count(2)
	e.Count(2)
	e.Count(0)
	e.Count(8)
	want := []EgressRule{
		{1, true, "example.org", 443, packet.ProtoTCP, 2, 0}, {2, true, "192.0.2.0/24", 53, 0, 3, 2}, {3, true, "198.51.100.7", 0, 0, 4, 0},
		{4, true, "2001:db8::/32", 443, packet.ProtoTCP, 5, 0}, {5, true, "EXAMPLE.org.", 80, packet.ProtoTCP, 7, 0},
		{6, true, "0.0.0.0/0", 123, packet.ProtoUDP, 8, 0}, {7, false, "everything else", 0, 0, 0, 0},
	}
	for i, r := range e.Rules() {
		if r != want[i] {
			t.Errorf("got %+v, want %+v", r, want[i])
		}
	}
}

// TestEgressRebinding is that a name opens no address that nobody can have on
// purpose there.
func TestEgressRebinding(t *testing.T) {
	e := mustEgress(t, "allow:list", "allow example.org")
	for _, a := range []string{"169.254.169.254", "127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "::1", "fe80::1", "::"} {
		e.Learn("example.org", addr(a), 100)
		wantCheck(t, e, a, 80, packet.ProtoTCP, 0, 2, false)
	}
	e.Learn("example.org", addr("10.1.2.3"), 100) // a name of a company's
	wantCheck(t, e, "10.1.2.3", 80, packet.ProtoTCP, 0, 1, true)
	e.Learn("example.com", addr("8.8.8.8"), 100)
	wantCheck(t, e, "8.8.8.8", 80, packet.ProtoTCP, 0, 2, false)
}

// TestEgressIsBounded has a name with addresses without end.
func TestEgressIsBounded(t *testing.T) {
	e := mustEgress(t, "allow:list", "allow a.example 1\nallow b.example 2")
	e.Learn("b.example", packet.AddrFrom4([4]byte{10, 0, 0, 1}), 1)
	for i := range 10 * maxLearned {
		e.Learn("a.example", packet.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), int64(1000+i))
	}
	if n := e.names["a.example"]; len(n.until) != maxLearned || len(e.open) > maxLearned+1 {
		t.Errorf("%d addresses, %d in the index", len(n.until), len(e.open))
	}
	wantCheck(t, e, "10.0.0.1", 2, packet.ProtoTCP, 0, 2, true) // another name's stays
	wantCheck(t, e, "10.0.0.1", 1, packet.ProtoTCP, 0, 3, false)
	last := 10*maxLearned - 1
	wantCheck(t, e, fmt.Sprintf("10.0.%d.%d", last>>8, last&255), 1, packet.ProtoTCP, 0, 1, true)
	// What is answered again lives longer, never shorter.
	a := fmt.Sprintf("10.0.%d.%d", last>>8, last&255)
	e.Learn("a.example", addr(a), 5)
	wantCheck(t, e, a, 1, packet.ProtoTCP, int64(1000+last), 1, true)
}

func TestEgressFileErrors(t *testing.T) {
	for text, want := range map[string]string{
		"deny 192.0.2.1":                      `list:1: "deny": a rule begins with allow`,
		"\n\nallow":                           "list:3: allow whom?",
		"allow a.example 80 tcp":              `list:1: "tcp": a rule is`,
		"allow a.example 0":                   `"0" is no port`,
		"allow a.example 65536":               `"65536" is no port`,
		"allow a.example http":                `"http" is no port`,
		"allow a.example 80/sctp":             `"sctp" is neither tcp nor udp`,
		"allow a.example 80/":                 `"" is neither tcp nor udp`,
		"allow 192.0.2.1/24":                  "192.0.2.0/24 is meant, or 192.0.2.1/32",
		"allow 192.0.2.0/33":                  "is no prefix",
		"allow ::ffff:192.0.2.0/120":          "write the IPv4 prefix as such",
		"allow fe80::1%eth0":                  "has no zone",
		"allow 1:2":                           "is no prefix",
		"allow *.example.org":                 "there is no *",
		"allow 192.0.2":                       "neither a host name nor an address",
		"allow -a.example":                    "neither a host name nor an address",
		"allow a..example":                    "neither a host name nor an address",
		"allow .":                             "neither a host name nor an address",
		"allow bücher.example":                "neither a host name nor an address",
		"allow " + strings.Repeat("a.", 140):  "at most 253",
		strings.Repeat("allow a\n", 4097):     "list:4097: more than 4096 rules",
		strings.Repeat("# much\n", 1<<20/7+1): "list: larger than 1024 KiB",
	} {
		_, err := ParseEgress("allow:list", files(map[string]string{"list": text}))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %s", text, err, want)
		}
	}
	if _, err := ParseEgress("allow:missing", files(nil)); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "missing") {
		t.Errorf("a missing file: %v", err)
	}
}

func TestEgressAllocatesNothing(t *testing.T) {
	e := mustEgress(t, "allow:list", someFile)
	a := addr("203.0.113.5")
	e.Learn("example.org", a, 1e9)
	if n := testing.AllocsPerRun(100, func() {
		e.Check(a, 443, packet.ProtoTCP, 0)
		e.Check(a, 444, packet.ProtoTCP, 0)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzEgress reads any file, and asks about any address: what is refused names
// its line, what is understood is a list of rules of which the last fits all.
func FuzzEgress(f *testing.F) {
	f.Add(someFile, []byte{192, 0, 2, 1}, uint16(53))
	f.Add("allow example.org\nallow ::/0 1/udp", make([]byte, 16), uint16(1))
	f.Add("allow 10.0.0.0/8 # x\r\nallow a_b.c-d 9", []byte{10, 0, 0, 1}, uint16(0))
	f.Fuzz(func(t *testing.T, text string, a []byte, port uint16) {
		e, err := ParseEgress("allow:list", files(map[string]string{"list": text}))
		if err != nil {
			if !strings.HasPrefix(err.Error(), "egress: list:") {
				t.Errorf("%v names no line", err)
			}
			return
		}
		var dst packet.Addr
		if len(a) == 4 {
			dst = packet.AddrFrom4([4]byte(a))
		} else {
			copy(dst[:], a)
		}
		rules := e.Rules()
		for _, proto := range []packet.Proto{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP} {
			rule, ok := e.Check(dst, port, proto, 0)
			if rule < 1 || rule > len(rules) || ok != rules[rule-1].Allow || ok == (rule == len(rules)) {
				t.Fatalf("rule %d of %d, %v", rule, len(rules), ok)
			}
			if !ok {
				continue
			}
			r := rules[rule-1]
			p, err := netip.ParsePrefix(r.To)
			if one, oneErr := netip.ParseAddr(r.To); oneErr == nil {
				p, err = netip.PrefixFrom(one.Unmap(), one.Unmap().BitLen()), nil
			}
			if err != nil || !p.Contains(dst.Netip()) || r.Port != 0 && r.Port != port || r.Proto != 0 && r.Proto != proto {
				t.Errorf("%v port %d %v is let through by %+v", dst, port, proto, r)
			}
		}
		for name := range e.names {
			if !e.Wants(strings.ToUpper(name) + ".") {
				t.Errorf("%q is not wanted", name)
			}
			e.Learn(name, addr("8.8.4.4"), 10)
		}
		if len(e.names) > 0 && len(e.open) != 1 {
			t.Errorf("%d addresses are open", len(e.open))
		}
	})
}
