package node

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	mdns "github.com/miekg/dns"

	"fairlead/dns"
	"fairlead/node/api"
)

// This host asks at an address of its loopback, by UDP and TCP, until it is off.
func TestNamesForTheHost(t *testing.T) {
	resolver(t, "127.0.2.1", says(1))
	d := nameserverOf(t, "nameserver 127.0.2.1\n")
	d.setNetworks([]known{{
		dns.NetworkName{Network: outgoing, Name: "default", Hidden: true},
		dns.Network{Gateway: netip.MustParsePrefix("172.17.0.1/16")}, allowsAll{},
	}})
	web := dns.Host{Network: outgoing, Names: []string{"web1", "www"}, Addrs: []netip.Addr{netip.MustParseAddr("172.17.0.2")}}
	d.setStation(1, &dns.Station{Hosts: []dns.Host{web}})
	n := &Node{dns: d}
	const at = "127.0.2.17:1053"
	for _, spec := range []string{at, at, "127.0.2.17", "on", ""} { // it is there already
		if err := n.useNames(spec); err != nil {
			t.Fatalf("%q: %v", spec, err)
		}
		if got := d.stubAt().String(); got != at {
			t.Fatalf("%q: at %s", spec, got)
		}
	}
	for _, network := range []string{"udp", "tcp"} {
		c := mdns.Client{Net: network, Timeout: patience}
		for name, want := range map[string]string{
			"web1.fairlead.internal.":            "NOERROR 172.17.0.2",
			"WWW.default.fairlead.internal.":     "NOERROR 172.17.0.2",
			"nobody.fairlead.internal.":          "NXDOMAIN",
			"web1.":                              "REFUSED",
			"www.example.":                       "REFUSED",
			"host.docker.internal.":              "REFUSED",
			"x" + strings.Repeat(".y", 60) + ".": "REFUSED",
		} {
			r, _, err := c.Exchange(asks(name, mdns.TypeA), at)
			if err != nil {
				t.Errorf("%s by %s: %v", name, network, err)
			} else if got := answered(r); got != want {
				t.Errorf("%s by %s: %s, want %s", name, network, got, want)
			}
		}
	}
	// What is no question has no answer, and harms nobody.
	conn, err := net.Dial("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, b := range [][]byte{{}, {1}, make([]byte, 5000)} {
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	// Another address takes the place of this one, and one that is taken does not.
	if err := n.useNames("127.0.2.18:1053"); err != nil {
		t.Fatal(err)
	}
	taken, err := net.ListenPacket("udp", at) // it is free again
	if err != nil {
		t.Fatal(err)
	}
	if err := n.useNames(at); err == nil || !strings.Contains(err.Error(), "address already in use; say another address") {
		t.Errorf("an address that is taken: %v", err)
	}
	_ = taken.Close()
	r, _, err := (&mdns.Client{Timeout: patience}).Exchange(asks("web1.fairlead.internal.", mdns.TypeAAAA), "127.0.2.18:1053")
	if err != nil || answered(r) != "NOERROR" {
		t.Errorf("%v, %v", r, err)
	}
	if err := n.useNames(api.NamesOff); err != nil || d.stubAt().IsValid() {
		t.Errorf("off: %v at %v", err, d.stubAt())
	}
	again, err := listenStub(netip.MustParseAddrPort("127.0.2.18:1053"))
	if err != nil {
		t.Fatal(err)
	}
	again.close()
}

func TestNamesWhere(t *testing.T) {
	for spec, want := range map[string]string{
		"0.0.0.0":       "0.0.0.0 is no address of the loopback",
		"192.0.2.1:53":  "192.0.2.1 is no address of the loopback",
		"::1%lo":        "::1%lo is no address of the loopback",
		"127.0.0.1:0":   "neither on, off, ADDRESS nor ADDRESS:PORT",
		"yes":           "neither on, off, ADDRESS nor ADDRESS:PORT",
		"127.0.0.1:dns": "neither on, off, ADDRESS nor ADDRESS:PORT",
		"127.0.0.1:":    "neither on, off, ADDRESS nor ADDRESS:PORT",
	} {
		s, err := openStub(spec)
		if s != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v; want %q", spec, s, err, want)
		}
	}
}

// The host's own questions have a share, as those of a container: who sends
// datagrams as fast as he can keeps nobody else from asking.
func TestNamesForTheHostAreBounded(t *testing.T) {
	resolver(t, "127.0.2.1", saysNothing)
	d := nameserverOf(t, "nameserver 127.0.2.1\n")
	n := &Node{dns: d}
	if err := n.useNames("127.0.2.19:1053"); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("udp", "127.0.2.19:1053")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b, err := asks("web1.fairlead.internal.", mdns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	for range 5000 {
		_, _ = conn.Write(b)
	}
	d.expect(t, fromOne, "host.docker.internal.", "NXDOMAIN")
}
