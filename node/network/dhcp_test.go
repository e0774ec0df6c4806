package network

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"fairlead/dhcp"
	"fairlead/packet"
)

func TestDHCPOptions(t *testing.T) {
	pairs := map[string]string{
		"dhcp": "on", "dhcp-lease": "12h0m0s", "dhcp-range": "172.30.0.100,172.30.0.200", "domain": "lab.example",
		"dhcp-host": "02:00:00:00:00:07,172.30.0.7,printer; id:ff:00:01,172.30.0.8;id:scanner,172.30.0.9", "dhcp-route": "10.0.0.0/8@172.30.0.2",
	}
	o, err := ParseOptions(pairs)
	if err != nil {
		t.Fatal(err)
	}
	if got := o.Pairs(); !maps.Equal(got, pairs) {
		t.Errorf("read %v, say %v", pairs, got)
	}
	conf, err := o.DHCP.Lending(netip.MustParsePrefix("172.30.0.1/16"), 1400, "other", false)
	if err != nil {
		t.Fatal(err)
	}
	hosts := []dhcp.Host{
		{MAC: packet.MAC{2, 0, 0, 0, 0, 7}, Addr: netip.MustParseAddr("172.30.0.7"), Name: "printer"},
		{ID: "\xff\x00\x01", Addr: netip.MustParseAddr("172.30.0.8")}, {ID: "scanner", Addr: netip.MustParseAddr("172.30.0.9")},
	}
	if !slices.Equal(conf.Hosts, hosts) || conf.First.String() != "172.30.0.100" || conf.Last.String() != "172.30.0.200" || conf.Domain != "lab.example" ||
		conf.Router.String() != "172.30.0.1" || conf.MTU != 1400 || len(conf.Routes) != 1 || conf.Lease.Hours() != 12 {
		t.Errorf("%+v", conf)
	}
	if conf, _ = new(DHCP).Lending(netip.MustParsePrefix("172.30.0.1/16"), 1400, "other", true); conf.Router.IsValid() || conf.Domain != "other" {
		t.Errorf("internal: %+v", conf)
	}
}

func TestDHCPOptionsRefused(t *testing.T) {
	for _, c := range []struct{ key, value, want string }{
		{"dhcp", "maybe", `option dhcp: "maybe" is neither on, off nor auto`},
		{"dhcp-lease", "1s", `option dhcp-lease: "1s" is not a time of at least 2m0s, such as 12h, nor the word infinite`},
		{"dhcp-range", "172.30.0.9,172.30.0.8", `option dhcp-range: "172.30.0.9,172.30.0.8" is not a range such as 172.30.0.100,172.30.0.200`},
		{"dhcp-range", "172.30.0.9", `option dhcp-range: "172.30.0.9" is not a range`},
		{"dhcp-host", "172.30.0.7", `option dhcp-host: "172.30.0.7" is not MAC,ADDRESS such as`},
		{"dhcp-host", "x,172.30.0.7", `option dhcp-host: "x" is not a MAC address`},
		{"dhcp-host", "01:00:00:00:00:07,172.30.0.7", `is not a MAC address`},
		{"dhcp-host", "02:00:00:00:00:07,host", `option dhcp-host: "host" is not an IPv4 address`},
		{"dhcp-host", "02:00:00:00:00:07,172.30.0.7,a b", `option dhcp-host: "a b" is not a host name`},
		{"dhcp-host", "id:x,172.30.0.7", `option dhcp-host: a client identifier has from 2 to 255 bytes`},
		{"dhcp-host", "id:aa,172.30.0.7;id:bb,172.30.0.7", `option dhcp-host: "id:bb,172.30.0.7" is reserved twice, or for two`},
		{"dhcp-route", "10.0.0.1/8@172.30.0.2", `option dhcp-route: "10.0.0.1/8@172.30.0.2" is not a route such as`},
		{"domain", "a..b", `option domain: "a..b" is not a domain such as lab.example`},
	} {
		if _, err := ParseOptions(map[string]string{c.key: c.value}); err == nil || !strings.HasPrefix(err.Error()[strings.Index(err.Error(), c.want)+1:], c.want[1:]) {
			t.Errorf("%s=%s: %v, want %s", c.key, c.value, err, c.want)
		}
	}
	for _, c := range []struct{ key, value, want string }{
		{"dhcp-range", "172.30.0.9,172.31.0.9", "option dhcp-range: 172.31.0.9 is not in the subnet 172.30.0.0/16"},
		{"dhcp-host", "id:aa,172.31.0.7", "option dhcp-host: 172.31.0.7 is not in the subnet 172.30.0.0/16"},
		{"dhcp-host", "id:aa,172.30.0.1", "option dhcp-host: 172.30.0.1 is the gateway's"},
		{"dhcp-host", "id:aa,172.30.255.255", "option dhcp-host: 172.30.255.255 is the network or broadcast address of 172.30.0.0/16"},
		{"dhcp-route", "10.0.0.0/8@172.31.0.1", "option dhcp-route: 172.31.0.1 is not in the subnet 172.30.0.0/16"},
	} {
		o, err := ParseOptions(map[string]string{c.key: c.value})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.DHCP.Lending(netip.MustParsePrefix("172.30.0.1/16"), 1500, "", false); err == nil || err.Error() != c.want {
			t.Errorf("%s=%s: %v, want %s", c.key, c.value, err, c.want)
		}
	}
}

// FuzzDHCPOptions: what is read of the options can be said again, and is the same
// then; nothing is lent outside the subnet.
func FuzzDHCPOptions(f *testing.F) {
	f.Add("172.30.0.100,172.30.0.200", "02:00:00:00:00:07,172.30.0.7,printer;id:ff:00:01,172.30.0.8", "10.0.0.0/8@172.30.0.2", "lab", "12h")
	f.Add("", "id:scanner,172.30.0.9", "", "", "infinite")
	f.Add("172.30.0.1,172.30.0.1", ";;", "0.0.0.0/0@172.30.0.2;", "a.b", "2m")
	f.Fuzz(func(t *testing.T, span, hosts, routes, domain, lease string) {
		o, err := ParseOptions(map[string]string{"dhcp-range": span, "dhcp-host": hosts, "dhcp-route": routes, "domain": domain, "dhcp-lease": lease})
		if err != nil {
			return
		}
		again, err := ParseOptions(o.Pairs())
		if err != nil || again != o {
			t.Errorf("%+v, then %+v, %v", o.DHCP, again.DHCP, err)
		}
		gw := netip.MustParsePrefix("172.30.0.1/16")
		conf, err := o.DHCP.Lending(gw, 1500, "", false)
		if err != nil {
			return
		}
		for _, h := range conf.Hosts {
			if !gw.Masked().Contains(h.Addr) || h.ID == "" && h.MAC.IsZero() {
				t.Errorf("%+v", h)
			}
		}
	})
}
