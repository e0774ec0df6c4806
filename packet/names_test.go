package packet_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"fairlead/packet"
)

// TestReasons: every reason has a name of its own and a sentence, and one that says what
// to try, but for those by which a packet goes its way.
func TestReasons(t *testing.T) {
	seen := map[string]bool{}
	passes := []packet.Reason{
		packet.OK, packet.KnownMAC, packet.UnknownMAC, packet.ToGroup, packet.HubMode, packet.ForGateway, packet.ForHost,
		packet.Routed, packet.FirstFragment, packet.NextHop,
	}
	for r := range packet.Reason(packet.NumReasons) {
		name := r.String()
		if name == "" || seen[name] || strings.ToLower(name) != name || strings.Contains(name, " ") {
			t.Errorf("reason %d has the name %q", r, name)
		}
		seen[name] = true
		for _, s := range []string{r.Why(), r.Try()} {
			if s != "" && !strings.HasSuffix(s, ".") {
				t.Errorf("%v: %q is no sentence", r, s)
			}
		}
		if r.Why() == "" {
			t.Errorf("%v does not say why", r)
		}
		if (r.Try() == "") != slices.Contains(passes, r) {
			t.Errorf("%v says to try %q", r, r.Try())
		}
	}
	none := packet.Reason(packet.NumReasons)
	if none.String() != "?" || none.Why() != "" || none.Try() != "" {
		t.Error("a reason that does not exist has words")
	}
}

func TestDecisionNames(t *testing.T) {
	for v := range packet.Verdict(packet.NumVerdicts) {
		if v.String() == "" || v.String() == "?" {
			t.Errorf("verdict %d has no name", v)
		}
	}
	check(t, "no verdict", packet.Verdict(packet.NumVerdicts).String(), "?")
	check(t, "no origin", packet.Origin(packet.NumOrigins).String(), "?")
	check(t, "origin", packet.OriginARPReply.String(), "ARP reply")

	d := packet.Decision{Verdict: packet.Unicast, Reason: packet.KnownMAC}
	d.Refuse(packet.Isolated)
	check(t, "verdict", d.Verdict, packet.Drop)
	check(t, "reason", d.Reason, packet.Isolated)
}

func TestMAC(t *testing.T) {
	for _, s := range []string{"02:42:0a:00:00:02", "02-42-0A-00-00-02", "0242.0a00.0002"} {
		m, err := packet.ParseMAC(s)
		if err != nil || m != macA {
			t.Errorf("ParseMAC(%q) = %v, %v", s, m, err)
		}
	}
	for _, s := range []string{"", "02:42:0a:00:00", "02:42:0a:00:00:02:03:04", "zz:42:0a:00:00:02"} {
		if _, err := packet.ParseMAC(s); err == nil || !strings.Contains(err.Error(), s) {
			t.Errorf("ParseMAC(%q): %v, want an error that names it", s, err)
		}
	}
	check(t, "String", macA.String(), "02:42:0a:00:00:02")
	check(t, "from IPv4", packet.MACFromIPv4(netip.MustParseAddr("10.0.0.2")), macA)
	check(t, "and back", packet.MACFromUint64(macA.Uint64()), macA)
	check(t, "group", macA.IsGroup(), false)
	check(t, "broadcast", packet.BroadcastMAC.IsGroup(), true)
	check(t, "zero", packet.MAC{}.IsZero(), true)
	check(t, "not zero", macA.IsZero(), false)
	check(t, "link-local", macA.LinkLocal(), netip.MustParseAddr("fe80::42:aff:fe00:2"))
}

func TestAddr(t *testing.T) {
	for _, s := range []string{"10.0.0.2", "0.0.0.0", "fe80::1", "::", "2001:db8::a00:2"} {
		a := netip.MustParseAddr(s)
		got := packet.AddrFromNetip(a)
		check(t, "Netip", got.Netip(), a)
		check(t, "String", got.String(), s)
		check(t, "Is4", got.Is4(), a.Is4())
		if a.Is4() {
			check(t, "AddrFrom4", packet.AddrFrom4(a.As4()), got)
		}
	}
	check(t, "no address", packet.AddrFromNetip(netip.Addr{}), packet.Addr{})
	check(t, "zone", packet.AddrFromNetip(netip.MustParseAddr("fe80::1%eth0")), addr("fe80::1"))

	tuple := packet.Tuple{Src: addr("10.0.0.2"), Dst: addr("10.0.0.3"), SrcPort: 1, DstPort: 2, Proto: packet.ProtoTCP}
	check(t, "Reverse", tuple.Reverse(),
		packet.Tuple{Src: addr("10.0.0.3"), Dst: addr("10.0.0.2"), SrcPort: 2, DstPort: 1, Proto: packet.ProtoTCP})
	check(t, "Reverse twice", tuple.Reverse().Reverse(), tuple)
}
