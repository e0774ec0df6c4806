package main

import (
	"slices"
	"strings"
	"testing"

	"fairlead/node/api"
)

func TestParseUplinks(t *testing.T) {
	for args, want := range map[string]string{
		"none":                       "none",
		"":                           "",
		"tap:a,dhcp if:b,dhcp":       "tap:a,dhcp if:b,dhcp",
		"host tap:a,dhcp":            "tap:a,dhcp host",
		"host host":                  "uplink host is given twice",
		"host,dhcp":                  `uplink "host,dhcp": host takes nothing behind it: it is this host's sockets`,
		"if:host,dhcp":               `uplink "if:host,dhcp": an uplink called host is this host's sockets; give the device another name`,
		"tap:a,dhcp if:a,dhcp":       "uplink a is given twice",
		"none tap:a,dhcp":            `uplink "none": it begins with tap:NAME or if:NAME, such as tap:up0,ip=192.0.2.2/24,gw=192.0.2.1; or it is host`,
		"tap:a,dhcp tap:b,ip=192.0.": `uplink "tap:b,ip=192.0.": ip=192.0. is not an IPv4 address with a length, such as ip=192.0.2.2/24`,
	} {
		ways, err := parseUplinks(strings.Fields(args))
		var got string
		if err != nil {
			got = err.Error()
		} else {
			var words []string
			for _, s := range ways.links {
				words = append(words, s.String())
			}
			if ways.host {
				words = append(words, "host")
			}
			if ways.none {
				words = append(words, "none")
			}
			got = strings.Join(words, " ")
		}
		if got != want {
			t.Errorf("%s: %s, want %s", args, got, want)
		}
	}
}

// An uplink has the MAC it was given, or one that is the same every time and
// another one for each uplink and each node.
func TestUplinkMAC(t *testing.T) {
	mac := func(spec string) string {
		s, err := api.ParseUplink(spec)
		if err != nil {
			t.Fatal(err)
		}
		return uplinkMAC(s).String()
	}
	t.Setenv("FAIRLEAD_DIR", "/run/a")
	if got := mac("tap:a,ip=192.0.2.2/24,mac=02:00:00:00:00:09"); got != "02:00:00:00:00:09" {
		t.Error(got)
	}
	a, again, b := mac("tap:a,dhcp"), mac("if:a,ip=192.0.2.2/24,mtu=1400"), mac("tap:b,dhcp")
	t.Setenv("FAIRLEAD_DIR", "/run/b")
	if other := mac("tap:a,dhcp"); a != again || a == b || a == other || !strings.HasPrefix(a, "02:42:") {
		t.Error(a, again, b, other)
	}
}

func TestUplinkWords(t *testing.T) {
	for _, c := range []struct {
		u    api.Uplink
		want string
	}{
		{api.Uplink{State: "up", Address: "192.0.2.2/24"}, "192.0.2.2/24"},
		{api.Uplink{State: "up", Address: "192.0.2.2/24", Gateway: "192.0.2.1"}, "192.0.2.2/24, next hop 192.0.2.1"},
		{api.Uplink{State: "no-address", Why: "no DHCP server has answered so far"}, "no address yet: no DHCP server has answered so far"},
		{api.Uplink{State: "up", Kind: "host", Address: "192.0.2.7"}, "sockets of this host, as 192.0.2.7"},
		{api.Uplink{State: "up", Kind: "host", Why: "this host has no default route"}, "sockets of this host: this host has no default route"},
		{api.Uplink{State: "down", Gateway: "192.0.2.1", Why: "its interface was removed"}, "down: its interface was removed"},
	} {
		if got := uplinkWords(&c.u); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// What a published port is said to be, by who listens inside.
func TestListens(t *testing.T) {
	sockets := []api.Listener{
		{Proto: "tcp", Address: "0.0.0.0", Port: 80}, {Proto: "tcp", Address: "127.0.0.1", Port: 81}, {Proto: "tcp", Address: "::1", Port: 81},
		{Proto: "tcp", Address: "::", Port: 82}, {Proto: "udp", Address: "172.17.0.2", Port: 53}, {Proto: "udp", Address: "0.0.0.0", Port: 80},
	}
	for port, want := range map[uint16][2]bool{80: {true, false}, 81: {false, true}, 82: {true, false}, 53: {false, false}} {
		heard, inside := listens(sockets, &api.PublishedPort{Proto: "tcp", Port: port})
		if got := [2]bool{heard, inside}; got != want {
			t.Errorf("port %d: %v, want %v", port, got, want)
		}
	}
	want := "ports that are listened on: 80/tcp, 81/tcp (on loopback), 82/tcp, 53/udp, 80/udp"
	if got := listenedOn(sockets); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if !slices.Equal(places(&api.PublishedPort{HostIP: "0.0.0.0", HostPort: 80}), []string{"0.0.0.0:80"}) {
		t.Error("without an uplink a port is at 0.0.0.0")
	}
}
