package api

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseEndpoint(t *testing.T) {
	for s, want := range map[string]EndpointRequest{
		"lab":                 {Network: "lab"},
		"":                    {},
		"name=lab":            {Network: "lab"},
		"Name=lab":            {Network: "lab"},
		"name= lab ":          {Network: "lab"},
		"ip=1.2.3.4,name=lab": {Network: "lab", IP: "1.2.3.4"},
		"name=lab,ip=dhcp":    {Network: "lab", DHCP: true},
		"name=lab,alias=db,alias=sql,mac-address=02:00:00:00:00:01,gw-priority=-5,ifname=x0,link=web:www,route=10.0.0.0/8@172.18.0.2,route=10.9.0.0/16,driver-opt=offload=off,driver-opt=isolated=on": {
			Network: "lab", Aliases: []string{"db", "sql"}, MAC: "02:00:00:00:00:01", Priority: -5, Interface: "x0", Links: []string{"web:www"},
			Routes: []string{"10.0.0.0/8@172.18.0.2", "10.9.0.0/16"}, Options: map[string]string{"offload": "off", "isolated": "on"}},
		`name=lab,"alias=a,b"`: {Network: "lab", Aliases: []string{"a,b"}}, // the node's to judge
	} {
		got, err := ParseEndpoint(s)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
		if again, err := ParseEndpoint(got.String()); err != nil || !reflect.DeepEqual(again, want) {
			t.Errorf("%s: written as %s", s, got)
		}
	}
	for s, want := range map[string]string{
		"ip=1.2.3.4":               `network name required: "ip=1.2.3.4" has no name=`,
		"name=":                    "invalid field name=: its value is missing",
		"name=lab,":                "invalid field : it is no KEY=VALUE",
		"name=lab,alias":           "invalid field alias: it is no KEY=VALUE",
		"name=lab,name=b":          "invalid field name=b: there is one already",
		"name=lab,ip=x":            "invalid field ip=x: invalid IPv4 address: x",
		"name=lab,ip=::1":          "invalid field ip=::1: invalid IPv4 address: ::1",
		"name=lab,gw-priority=x":   `invalid field gw-priority=x: "x" is not a whole number`,
		"name=lab,route=10.0.0.1":  "invalid field route=10.0.0.1: invalid route 10.0.0.1: \"10.0.0.1\" is no subnet",
		"name=lab,driver-opt=x":    `invalid field driver-opt=x: "x" is no option`,
		"name=lab,colour=red":      "invalid field colour=red: invalid field key colour",
		`name=lab,"alias`:          `invalid network "name=lab,\"alias": `,
		"name=lab,ip=1.2.3.4\nx=y": "invalid network",
	} {
		if e, err := ParseEndpoint(s); err == nil || !strings.HasPrefix(err.Error(), want) || !strings.HasSuffix(err.Error(), endpointForm) {
			t.Errorf("%q: %+v, %v", s, e, err)
		}
	}
}

func TestParseRoute(t *testing.T) {
	for s, want := range map[string]string{
		"10.0.0.0/8@172.18.0.2": "10.0.0.0/8 172.18.0.2",
		"10.9.0.0/16":           "10.9.0.0/16 invalid IP",
		"0.0.0.0/0@172.18.0.2":  "0.0.0.0/0 172.18.0.2",
	} {
		to, via, err := ParseRoute(s)
		if err != nil || to.String()+" "+via.String() != want {
			t.Errorf("%s: %v, %v, %v", s, to, via, err)
		}
	}
	for _, s := range []string{"", "@", "10.0.0.0@1.2.3.4", "10.0.0.1/8@1.2.3.4", "10.0.0.0/8@", "10.0.0.0/8@router", "10.0.0.0/8@::1", "2001:db8::/32@::1"} {
		if to, via, err := ParseRoute(s); err == nil || to.IsValid() || via.IsValid() || !strings.HasPrefix(err.Error(), "invalid route "+s) {
			t.Errorf("%s: %v, %v, %v", s, to, via, err)
		}
	}
}

// FuzzParseEndpoint: what is understood can be written and understood again.
func FuzzParseEndpoint(f *testing.F) {
	f.Add("lab")
	f.Add("name=lab,ip=172.18.0.9,alias=db,mac-address=02:42:00:00:00:09,gw-priority=1,ifname=lab0")
	f.Add(`name=lab,"alias=a,""b"`)
	f.Add("name=lab,route=10.0.0.0/8@172.18.0.2,driver-opt=offload=off,ip=dhcp,link=a:b")
	f.Fuzz(func(t *testing.T, s string) {
		e, err := ParseEndpoint(s)
		if err != nil {
			if strings.Contains(s, "=") && !strings.HasSuffix(err.Error(), endpointForm) {
				t.Errorf("%q: %v", s, err)
			}
			return
		}
		again, err := ParseEndpoint(e.String())
		if err != nil || !reflect.DeepEqual(again, e) {
			t.Errorf("%q is %+v, written as %q, which is %+v, %v", s, e, e.String(), again, err)
		}
	})
}

func FuzzParseRoute(f *testing.F) {
	f.Add("10.0.0.0/8@172.18.0.2")
	f.Add("10.9.0.0/16")
	f.Fuzz(func(t *testing.T, s string) {
		to, via, err := ParseRoute(s)
		if err == nil && (to != to.Masked() || via.IsValid() && !via.Is4()) {
			t.Errorf("%q: %v, %v", s, to, via)
		}
	})
}
