package main

import (
	"bytes"
	"io"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"fairlead/node/api"
)

// What a node with three networks answers.
func testNetworks() []api.NetworkInspect {
	created := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	one := func(name, id, subnet string) api.NetworkInspect {
		return api.NetworkInspect{
			Name: name, ID: strings.Repeat(id, 64), Created: created, Scope: "local", Driver: "bridge",
			IPAM: api.NetworkIPAM{Config: []api.NetworkIPAMConfig{{Subnet: subnet}}},
		}
	}
	list := []api.NetworkInspect{one("default", "a", "172.17.0.0/16"), one("empty", "b", "172.18.0.0/16"), one("backend", "c", "10.1.0.0/16")}
	list[0].Containers = map[string]api.NetworkContainer{"1": {}, "2": {}}
	list[2].Internal, list[2].Labels = true, map[string]string{"stage": "test", "team": ""}
	return list
}

func TestNetworkTable(t *testing.T) {
	why := api.Uplink{Network: "empty", Kind: "if", Name: "eth1", State: "down", Why: "the interface was removed"} // the same as of another network
	golden(t, `
		|NETWORK ID    NAME     DRIVER  SCOPE  SUBNET         PORTS  UPLINK    STATE  ADDRESS
		|aaaaaaaaaaaa  default  bridge  local  172.17.0.0/16  2      tap:up0   up     192.0.2.2/24
		|                                                                             192.0.2.50
		|                                                            if:eth1   down   -
		|bbbbbbbbbbbb  empty    bridge  local  172.18.0.0/16  0      if:eth1   down   -
		|cccccccccccc  backend  bridge  local  10.1.0.0/16    0      internal  -      -
		|bbbbbbbbbbbb  empty    bridge  local  172.18.0.0/16  0      -         -      -
		|
		|if:eth1: the interface was removed`,
		func(w io.Writer) error {
			lines := networkLines(testNetworks(), append(slices.Clone(testUplinks), why))
			return networkTable(w, append(lines, networkLines(testNetworks()[1:2], nil)...), false)
		})
}

func TestNetworkJSON(t *testing.T) {
	text, err := toJSON(networkLines(testNetworks(), nil)[0])
	if err != nil || !strings.Contains(text, `"created":"2026-11-21T12:00:00Z"`) {
		t.Errorf("%s, %v", text, err)
	}
}

func TestNetworkFormat(t *testing.T) {
	lines := networkLines(testNetworks(), testUplinks)
	for format, want := range map[string]string{
		"{{.Name}} {{.ID}}":                                         "default aaaaaaaaaaaa\nempty bbbbbbbbbbbb\nbackend cccccccccccc\n",
		`table {{.Name}}\t{{.Subnet}}\t{{.Uplinks}}`:                "default\t172.17.0.0/16\ttap:up0,if:eth1\nempty\t172.18.0.0/16\t\nbackend\t10.1.0.0/16\t\n",
		"{{.Driver}} {{.Scope}} {{.Internal}} {{.IPv6}}{{.Labels}}": "bridge local false false\nbridge local false false\nbridge local true falsestage=test,team=\n",
		"{{.Containers}} {{.CreatedAt}}":                            strings.Repeat("2 2026-11-21 12:00:00 +0000 UTC\n", 1) + strings.Repeat("0 2026-11-21 12:00:00 +0000 UTC\n", 2),
	} {
		var out bytes.Buffer
		cmd := &cobra.Command{Use: "ls"}
		cmd.SetOut(&out)
		if err := printNetworkLines(cmd, format, lines, false); err != nil || out.String() != want {
			t.Errorf("%s: %q, %v, want %q", format, &out, err, want)
		}
	}
	var out bytes.Buffer
	cmd := &cobra.Command{Use: "ls"}
	cmd.SetOut(&out)
	if err := printNetworkLines(cmd, "json", lines[:1], true); err != nil || !strings.HasPrefix(out.String(), `{"ID":"aaaaaaaaaaaaa`) {
		t.Errorf("%s, %v", &out, err)
	}
	for _, format := range []string{"{{.Name", "{{.Colour}}", "{{nosuch}}"} {
		if err := printNetworkLines(cmd, format, lines, false); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", format, err)
		}
	}
}

func TestNetworkFilters(t *testing.T) {
	for args, want := range map[string]string{
		"":                           "default empty backend",
		"name=e":                     "default empty backend",
		"name=mpt":                   "empty",
		"name=mpt name=back":         "empty backend",
		"id=cc":                      "backend",
		"label=stage":                "backend",
		"label=stage=test":           "backend",
		"label=stage=live":           "",
		"label=team=":                "backend",
		"driver=bridge":              "default empty backend",
		"driver=overlay":             "",
		"scope=local type=custom":    "empty backend",
		"type=builtin":               "default",
		"dangling=true":              "empty backend",
		"dangling=0 name=d":          "default",
		"dangling=true label=stage=": "",
	} {
		f, err := parseFilters(strings.Fields(args))
		if err != nil {
			t.Errorf("%s: %v", args, err)
			continue
		}
		var got []string
		for _, l := range networkLines(testNetworks(), nil) {
			if f.fit(&l) {
				got = append(got, l.Network)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", args, got, want)
		}
	}
	for arg, want := range map[string]string{
		"lab":          `invalid argument "lab" for --filter: it is KEY=VALUE, such as name=lab`,
		"name=":        `invalid argument "name=" for --filter: it is KEY=VALUE, such as name=lab`,
		"color=red":    "invalid filter 'color': there are name, id, label, driver, scope, type and dangling",
		"type=all":     "invalid filter: type=all: it is custom or builtin",
		"dangling=may": "invalid filter 'dangling=[may]': it is true or false",
	} {
		if _, err := parseFilters([]string{arg}); err == nil || err.Error() != want {
			t.Errorf("%s: %v", arg, err)
		}
	}
}

func TestParseAt(t *testing.T) {
	ip := netip.MustParseAddr
	for s, want := range map[string]at{
		"":                       {},
		"dhcp":                   {dhcp: true},
		"10.1.0.9":               {addr: ip("10.1.0.9")},
		"10.1.0.9/24":            {addr: ip("10.1.0.9"), bits: 24},
		"10.1.0.9/24@10.1.0.254": {addr: ip("10.1.0.9"), bits: 24, gateway: ip("10.1.0.254")},
	} {
		if got, err := parseAt(s); err != nil || got != want {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
	}
	form := ": it is ADDRESS, ADDRESS/LENGTH, ADDRESS/LENGTH@GATEWAY or dhcp"
	for s, want := range map[string]string{
		"host":                 "invalid IPv4 address: host",
		"::1":                  "invalid IPv4 address: ::1",
		"10.1.0.9/":            `invalid address "10.1.0.9/"` + form,
		"10.1.0.9/33":          `invalid address "10.1.0.9/33"` + form,
		"10.1.0.9/0":           `invalid address "10.1.0.9/0"` + form,
		"10.1.0.9@10.1.0.1":    `invalid address "10.1.0.9@10.1.0.1"` + form,
		"10.1.0.9/24@":         `invalid address "10.1.0.9/24@"` + form,
		"10.1.0.9/24@::1":      `invalid address "10.1.0.9/24@::1"` + form,
		"10.1.0.9/24@10.2.0.1": `invalid address "10.1.0.9/24@10.2.0.1": 10.2.0.1 is no other station of 10.1.0.0/24`,
		"10.1.0.9/24@10.1.0.9": `invalid address "10.1.0.9/24@10.1.0.9": 10.1.0.9 is no other station of 10.1.0.0/24`,
	} {
		if _, err := parseAt(s); err == nil || err.Error() != want {
			t.Errorf("%s: %v", s, err)
		}
	}
}

func FuzzParseAt(f *testing.F) {
	for _, s := range []string{"", "dhcp", "10.1.0.9", "10.1.0.9/24@10.1.0.254", "10.1.0.9/24", "@", "/@/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := parseAt(s)
		if err != nil {
			if a != (at{}) && a.gateway.IsValid() {
				t.Errorf("%q is wrong and has a gateway", s)
			}
			return
		}
		if a.gateway.IsValid() && !netip.PrefixFrom(a.addr, a.bits).Masked().Contains(a.gateway) {
			t.Errorf("%q: the gateway is elsewhere", s)
		}
	})
}

func FuzzParseFilters(f *testing.F) {
	f.Add("name=lab")
	f.Add("label=a=b")
	f.Add("dangling=true")
	f.Fuzz(func(t *testing.T, s string) {
		if wanted, err := parseFilters([]string{s}); err == nil {
			for _, l := range networkLines(testNetworks(), nil) {
				wanted.fit(&l)
			}
		}
	})
}

// What --network of run says, as the node is asked for it.
func TestRunNetworks(t *testing.T) {
	for args, want := range map[string]api.CreateRequest{
		"sh":                             {Network: "default"},
		"--net none sh":                  {Network: "none"},
		"--net container:web sh":         {Network: "container:web"},
		"--network lab --ip 10.1.0.9 sh": {Network: "lab", IP: "10.1.0.9"},
		"--network name=lab,ip=10.1.0.9,mac-address=02:00:00:00:00:01 sh": {Network: "lab", IP: "10.1.0.9", MAC: "02:00:00:00:00:01"},
		"--network lab --network-alias db --net-alias sql sh":             {Networks: []api.EndpointRequest{{Network: "lab", Aliases: []string{"db", "sql"}}}},
		"--network lab --ip dhcp sh":                                      {Networks: []api.EndpointRequest{{Network: "lab", DHCP: true}}},
		"--network lab --network backend --ip 10.1.0.9 --mac 02:00:00:00:00:01 sh": {Networks: []api.EndpointRequest{
			{Network: "lab", IP: "10.1.0.9", MAC: "02:00:00:00:00:01"}, {Network: "backend"}}},
		"--network name=lab,alias=db,alias=sql,link=web:www,ifname=lab0,gw-priority=-1,route=10.9.0.0/16@10.1.0.2 sh": {Networks: []api.EndpointRequest{{
			Network: "lab", Aliases: []string{"db", "sql"}, Links: []string{"web:www"}, Interface: "lab0", Priority: -1, Routes: []string{"10.9.0.0/16@10.1.0.2"}}}},
		"--opt isolated=on --network name=lab,driver-opt=offload=off --network backend sh": {Options: map[string]string{"isolated": "on"}, Networks: []api.EndpointRequest{
			{Network: "lab", Options: map[string]string{"isolated": "on", "offload": "off"}}, {Network: "backend"}}},
	} {
		o, err := parseRun(t, strings.Fields(args)...)
		if err != nil {
			t.Errorf("%s: %v", args, err)
			continue
		}
		got := o.request()
		if got.Network != want.Network || got.IP != want.IP || got.MAC != want.MAC || !reflect.DeepEqual(got.Networks, want.Networks) || !reflect.DeepEqual(got.Options, want.Options) {
			t.Errorf("%s: %+v", args, got)
		}
	}
	for args, want := range map[string]string{
		"--network= sh":                                             "no name set for network",
		"--network container: sh":                                   `--network "container:": invalid container format container:<name|id>`,
		"--network ip=10.1.0.9 sh":                                  `--network: network name required: "ip=10.1.0.9" has no name=`,
		"--network name=lab,color=red sh":                           "--network: invalid field color=red: invalid field key color",
		"--ip 10.1.0.8 --network name=lab,ip=10.1.0.9 sh":           "conflicting options: cannot specify both --ip and per-network IPv4 address",
		"--network-alias a --network name=lab,alias=b sh":           "conflicting options: cannot specify both --network-alias and per-network alias",
		"--mac 02::1 --network name=lab,mac-address=02:0:0:0:0:1 x": "conflicting options: cannot specify both --mac-address and per-network MAC address",
	} {
		if _, err := parseRun(t, strings.Fields(args)...); err == nil || !strings.HasPrefix(err.Error(), "run: "+want) {
			t.Errorf("%s: %v", args, err)
		}
	}
}

// What network create says, as the node is asked for it.
func TestNetworkCreateRequest(t *testing.T) {
	for _, c := range []struct {
		o    createOptions
		want api.NetworkCreate
	}{
		{createOptions{}, api.NetworkCreate{Name: "lab"}},
		{createOptions{bip: "10.1.0.254/24"}, api.NetworkCreate{Name: "lab", Subnet: "10.1.0.0/24", Gateway: "10.1.0.254"}},
		{createOptions{driver: "bridge", subnets: []string{"10.1.0.0/16"}, gateway: "10.1.0.9", ipRange: "10.1.5.0/24", aux: []string{"a=10.1.5.1", "b=10.1.5.2"},
			opts: []string{"mtu=1400", "com.docker.network.bridge.enable_icc=false"}, labels: []string{"stage=test", "bare"}, internal: true},
			api.NetworkCreate{Name: "lab", Driver: "bridge", Subnet: "10.1.0.0/16", Gateway: "10.1.0.9", IPRange: "10.1.5.0/24", Internal: true,
				AuxAddresses: map[string]string{"a": "10.1.5.1", "b": "10.1.5.2"}, Options: map[string]string{"mtu": "1400", "com.docker.network.bridge.enable_icc": "false"},
				Labels: map[string]string{"stage": "test", "bare": ""}}},
	} {
		c.o.accepted[1] = true
		got, err := c.o.request(newNetworkCreate(), "lab")
		if err != nil || !reflect.DeepEqual(*got, c.want) {
			t.Errorf("%+v, %v, want %+v", got, err, c.want)
		}
	}
	for _, c := range []struct {
		o    createOptions
		want string
	}{
		{createOptions{subnets: []string{"10.1.0.0/16", "10.2.0.0/16"}}, "create: a network has one subnet, and --subnet names 2"},
		{createOptions{bip: "10.1.0.254"}, `create: --bip "10.1.0.254" is not an address with a length, such as 172.30.0.1/16`},
		{createOptions{bip: "10.1.0.254/24", gateway: "10.1.0.1"}, "create: --bip says gateway and subnet, so leave out --gateway and --subnet"},
		{createOptions{aux: []string{"10.1.0.1"}}, `create: --aux-address "10.1.0.1" is not KEY=VALUE`},
		{createOptions{opts: []string{"mtu=1", "mtu=2"}}, "create: --opt mtu is given twice"},
		{createOptions{labels: []string{"=x"}}, `create: --label "=x" is not KEY=VALUE`},
		{createOptions{labels: []string{"fairlead.lab=t1"}}, `create: --label "fairlead.lab=t1" is no label of yours: those that begin with fairlead. are fairlead's`},
	} {
		c.o.accepted[1] = true
		if _, err := c.o.request(newNetworkCreate(), "lab"); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
}
