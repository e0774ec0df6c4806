package api

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseUplink(t *testing.T) {
	for arg, want := range map[string]string{ // empty: taken, and written the same
		"tap:up0,ip=192.0.2.2/24,gw=192.0.2.1": "",
		"tap:up0,ip=192.0.2.2/24":              "",
		"tap:up0,ip=192.0.2.2/31,gw=192.0.2.3": "",
		"tap:up0,ip=192.0.2.2/32":              "",
		"if:eth0,dhcp":                         "",
		"if:eth0.7,dhcp,mac=shared,mtu=9000":   "",
		"tap:up0,dhcp,route=10.0.0.0/8":        "",
		"if:eth0,ip=10.1.0.2/16,gw=10.1.0.1,mac=02:42:0a:01:00:02,mtu=1400,route=10.0.0.0/8,route=0.0.0.0/0,addr=10.1.0.50,addr=10.1.0.51": "",

		"":                      "it begins with tap:NAME or if:NAME, ",
		"eth0,dhcp":             "it begins with tap:NAME or if:NAME, ",
		"veth:eth0,dhcp":        "it begins with tap:NAME or if:NAME, ",
		"tap:,dhcp":             `"" is no name for an interface`,
		"tap:a/b,dhcp":          `"a/b" is no name for an interface`,
		"tap:0123456789abcdef":  `"0123456789abcdef" is no name for an interface`,
		"tap:a b,dhcp":          `"a b" is no name for an interface`,
		"tap:up0":               "it has no address: say ip=ADDRESS/LENGTH or dhcp, such as ",
		"tap:up0,gw=192.0.2.1":  "it has no address: ",
		"tap:up0,":              "there is an empty field; ",
		"tap:up0,,dhcp":         "there is an empty field; ",
		"tap:up0,address=1":     `unknown field "address"; an uplink has ip, gw, dhcp, `,
		"tap:up0,192.0.2.2/24":  `unknown field "192.0.2.2/24"; `,
		"tap:up0,dhcp=yes":      "dhcp=yes: dhcp takes no value, ",
		"tap:up0,dhcp,dhcp":     "dhcp is given twice",
		"tap:up0,ip=192.0.2.2":  "ip=192.0.2.2 is not an IPv4 address with a length, such as ip=192.0.2.2/24",
		"tap:up0,ip=":           "ip= is not an IPv4 address with a length, ",
		"tap:up0,ip=fe80::1/64": "ip=fe80::1/64 is not an IPv4 address with a length, ",
		"tap:up0,ip=192.0.2.2/24,ip=192.0.2.3/24":             "ip is given twice",
		"tap:up0,ip=192.0.2.0/24":                             "ip=192.0.2.0/24 is not an address a station can have, ",
		"tap:up0,ip=192.0.2.255/24":                           "ip=192.0.2.255/24 is not an address a station can have, ",
		"tap:up0,ip=127.0.0.1/8":                              "ip=127.0.0.1/8 is not an address a station can have, ",
		"tap:up0,ip=10.0.0.1/7":                               "ip=10.0.0.1/7 is not an address a station can have, ",
		"tap:up0,ip=192.0.2.2/24,gw=router":                   "gw=router is not an IPv4 address, such as gw=192.0.2.1",
		"tap:up0,ip=192.0.2.2/24,gw=192.0.3.1":                "gw=192.0.3.1 is no station of 192.0.2.0/24, where the uplink is",
		"tap:up0,ip=192.0.2.2/24,gw=192.0.2.255":              "gw=192.0.2.255 is no station of 192.0.2.0/24",
		"tap:up0,ip=192.0.2.2/24,gw=192.0.2.2":                "gw=192.0.2.2 is the uplink's own address; ",
		"tap:up0,ip=192.0.2.2/24,dhcp":                        "ip and dhcp contradict each other; ",
		"tap:up0,dhcp,gw=192.0.2.1":                           "gw and dhcp contradict each other: ",
		"tap:up0,dhcp,mac=shared":                             "mac=shared is for if:NAME: ",
		"if:eth0,dhcp,mac=shared,mac=02:00:00:00:00:01":       "mac is given twice",
		"if:eth0,dhcp,mac=02:42":                              "mac=02:42 is not a MAC address a station can have, ",
		"if:eth0,dhcp,mac=01:00:5e:00:00:01":                  "mac=01:00:5e:00:00:01 is not a MAC address a station can have, ",
		"if:eth0,dhcp,mac=00:00:00:00:00:00":                  "mac=00:00:00:00:00:00 is not a MAC address a station can have, ",
		"if:eth0,dhcp,mac=00:00:00:00:fe:80:00:00":            "mac=00:00:00:00:fe:80:00:00 is not a MAC address a station can have, ",
		"if:eth0,dhcp,mtu=100":                                "mtu=100 is not a number from 576 to 65521, ",
		"if:eth0,dhcp,mtu=big":                                "mtu=big is not a number from 576 to 65521, ",
		"if:eth0,dhcp,route=10.0.0.0":                         "route=10.0.0.0 is not an IPv4 subnet, ",
		"if:eth0,dhcp,route=10.0.0.1/8":                       "route=10.0.0.1/8 has bits behind its length; route=10.0.0.0/8 is the subnet",
		"if:eth0,dhcp,route=10.0.0.0/8,route=10.0.0.0/8":      "route=10.0.0.0/8 is given twice",
		"if:eth0,dhcp,route=default,route=0.0.0.0/0":          "route=0.0.0.0/0 is given twice",
		"tap:up0,ip=192.0.2.2/24,route=10.0.0.0/8":            "route=10.0.0.0/8 leads to no router: say gw=ADDRESS too",
		"if:eth0,dhcp,addr=10.0.0.300":                        "addr=10.0.0.300 is not an IPv4 address a station can have, ",
		"if:eth0,dhcp,addr=224.0.0.1":                         "addr=224.0.0.1 is not an IPv4 address a station can have, ",
		"if:eth0,dhcp,addr=10.0.0.3,addr=10.0.0.3":            "addr=10.0.0.3 is given twice",
		"tap:up0,ip=192.0.2.2/24,addr=192.0.2.2":              "addr= is for further addresses; ",
		"tap:up0,ip=192.0.2.2/24,gw=192.0.2.1,addr=192.0.2.1": "addr= is for further addresses; ",
		"tap:" + strings.Repeat("x", maxUplinkSpec):           "4096 are the most",
		"if:eth0,dhcp" + strings.Repeat(",route=default", 2):  "route=default is given twice",
	} {
		u, err := ParseUplink(arg)
		switch {
		case want == "" && (err != nil || u.String() != arg):
			t.Errorf("%s: %v, %v", arg, u, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %s", arg, err, want)
		}
	}
	u, err := ParseUplink("if:eth0,addr=10.1.0.50,route=default,mtu=1400,gw=10.1.0.1,mac=02-42-0A-01-00-02,ip=10.1.0.2/16")
	if want := "if:eth0,ip=10.1.0.2/16,gw=10.1.0.1,mac=02:42:0a:01:00:02,mtu=1400,route=0.0.0.0/0,addr=10.1.0.50"; err != nil || u.String() != want {
		t.Errorf("%v, %v; want %s", u, err, want)
	}
}

// What is taken is written so that it is taken again, and means the same.
func FuzzParseUplink(f *testing.F) {
	for _, seed := range []string{"tap:up0,ip=192.0.2.2/24,gw=192.0.2.1", "if:eth0,dhcp,mac=shared", "tap:a,ip=::1/1",
		"if:e,ip=10.1.0.2/16,gw=10.1.0.1,mac=02:42:0a:01:00:02,mtu=1400,route=10.0.0.0/8,route=default,addr=10.1.0.50", "tap:,,,=,="} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, arg string) {
		u, err := ParseUplink(arg)
		if err != nil {
			return
		}
		if again, err := ParseUplink(u.String()); err != nil || !reflect.DeepEqual(again, u) {
			t.Errorf("%q is written %s, which is %+v, %v", arg, u, again, err)
		}
		if u.DHCP == u.Addr.IsValid() {
			t.Errorf("%q has no address, or two: %+v", arg, u)
		}
	})
}
