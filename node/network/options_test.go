package network

import (
	"maps"
	"strings"
	"testing"
)

// What may change while a network is used does, by our names and by Docker's.
func TestOptionsChanged(t *testing.T) {
	o, err := ParseOptions(map[string]string{"mtu": "1400", "com.docker.network.bridge.enable_icc": "false", "link": "veth", "offload": "on"})
	if err != nil || o.MTU != 1400 || !o.ICCOff || !o.Veth || o.Textbook || o.NotMasqueraded || o.Routed {
		t.Fatalf("%+v, %v", o, err)
	}
	want := map[string]string{"mtu": "1400", "icc": "off", "link": "veth"}
	if got := o.Pairs(); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	now, err := o.Changed(map[string]string{"icc": "on", "com.docker.network.bridge.enable_ip_masquerade": "false", "routed": "on"})
	if err != nil || now.ICCOff || !now.NotMasqueraded || !now.Routed || now.MTU != 1400 || !now.Veth {
		t.Errorf("%+v, %v", now, err)
	}
	set, err := o.Changed(map[string]string{"dhcp": "off", "dhcp-lease": "2h", "dhcp-range": "10.0.0.9,10.0.0.20", "dhcp-host": "id:ab,10.0.0.9", "dhcp-route": "10.1.0.0/16@10.0.0.2", "domain": "lab"})
	if err != nil || !set.DHCP.Off {
		t.Errorf("%+v, %v", set, err)
	}
	for _, word := range []string{"auto", ""} {
		back, err := set.Changed(map[string]string{"dhcp": word, "dhcp-lease": "", "dhcp-range": "", "dhcp-host": "", "dhcp-route": "", "domain": ""})
		if err != nil || back != o {
			t.Errorf("taken back with %q: %+v, %v", word, back, err)
		}
	}
	if same, err := o.Changed(nil); err != nil || same != o {
		t.Errorf("%+v, %v", same, err)
	}
	for key, text := range map[string]string{
		"mtu":   "option mtu cannot change while the network is there; ",
		"link":  "option link cannot change while the network is there; ",
		"color": `unknown option "color"; `,
	} {
		if _, err := o.Changed(map[string]string{key: "1"}); err == nil || !strings.HasPrefix(err.Error(), text) {
			t.Errorf("%s: %v", key, err)
		}
	}
	if _, err := ParseOptions(map[string]string{"icc": "on", "com.docker.network.bridge.enable_icc": "false"}); err == nil ||
		err.Error() != "option icc: it is given as com.docker.network.bridge.enable_icc too" {
		t.Errorf("both names: %v", err)
	}
	if _, err := ParseOptions(map[string]string{"link": "veth", "offload": "off"}); err == nil ||
		!strings.HasPrefix(err.Error(), "options offload=off and link=veth exclude each other: ") {
		t.Errorf("no link could have both: %v", err)
	}
}

// FuzzParseOptions: what is understood is listed so that it is understood again.
func FuzzParseOptions(f *testing.F) {
	for _, x := range [][2]string{{"mtu", "1400"}, {"icc", "off"}, {"ageing", "30s"}, {"flood-limit", "0"}, {"link", "veth"}, {"com.docker.network.driver.mtu", "9000"}, {"hub", "1"}} {
		f.Add(x[0], x[1], "guard", "off")
	}
	f.Fuzz(func(t *testing.T, key, value, other, second string) {
		o, err := ParseOptions(map[string]string{key: value, other: second})
		if err != nil {
			return
		}
		if again, err := ParseOptions(o.Pairs()); err != nil || again != o {
			t.Errorf("%s=%s %s=%s: %+v is listed as %v, which is %+v, %v", key, value, other, second, o, o.Pairs(), again, err)
		}
	})
}
