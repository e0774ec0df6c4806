package test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"fairlead/node/api"
	"fairlead/test/lab"
)

// An uplink gets its address, router and MTU from a server many networks have,
// leads outside with it, and gives it back.
func TestUplinkByDHCP(t *testing.T) {
	lab.Need(t, "dnsmasq", "ping", "curl")
	lab.NeedTUN(t)
	for _, c := range []struct{ name, spec string }{
		{"TAP", "tap:up0,dhcp"},
		{"interface", "if:eth7,dhcp"},
		{"interface and its MAC", "if:eth7,dhcp,mac=shared"},
	} {
		t.Run(c.name, func(t *testing.T) {
			// The machine fairlead is called on has eth7 and up0, both to the router.
			o := lab.NewOutside(t)
			machine, dev, addr := o.Router.Host, "up0", o.Router.Addr
			if strings.HasPrefix(c.spec, "if:") {
				machine, dev, addr = lab.NewHost(t, "machine"), "lan7", "203.0.113.1"
				lab.Join(t, machine, "eth7", o.Router.Host, dev)
				o.Router.Host.Addr(t, dev, addr+"/24")
			}
			n := newNode(t)
			testLease(t, n, o, machine, dev, addr, c.spec)
		})
	}
}

// testLease gives a node an uplink by DHCP, with a server on the router's device
// dev, which has addr.
func testLease(t *testing.T, n *node, o *lab.Outside, machine *lab.Host, dev, addr, spec string) {
	subnet := netip.PrefixFrom(netip.MustParseAddr(addr), 24).Masked()
	first, last := subnet.Addr().As4(), subnet.Addr().As4()
	first[3], last[3] = 100, 120
	server := o.Router.Serve(t, "dnsmasq", "--no-daemon", "--user=root", "--conf-file=/dev/null", "--port=0",
		"--interface="+dev, "--bind-interfaces", "--no-ping", "--log-dhcp",
		"--dhcp-leasefile="+filepath.Join(t.TempDir(), "leases"), "--dhcp-authoritative", "--dhcp-option=option:mtu,1400",
		fmt.Sprintf("--dhcp-range=%v,%v,2m", netip.AddrFrom4(first), netip.AddrFrom4(last)))
	n.says(server, "sockets bound exclusively to interface "+dev)
	n.serveHTTP(o.Host, 80)
	n.start("a")

	if out, status := n.on(machine, "network", "set", "default", "--uplink", spec); status != 0 {
		t.Fatal(out)
	}
	name, _, _ := strings.Cut(spec[strings.Index(spec, ":")+1:], ",")
	up := n.uplink(name)
	lease, err := netip.ParsePrefix(up.Address)
	if err != nil || up.State != "up" || up.Why != "" || up.Gateway != addr || up.MTU != 1400 ||
		lease.Bits() != 24 || lease.Addr().Less(netip.AddrFrom4(first)) || netip.AddrFrom4(last).Less(lease.Addr()) {
		t.Fatalf("%+v", up)
	}
	greeted(t, n.exec("a", "curl", "-sS", "--max-time", "5", "http://"+o.Router.FarHost+"/"), lease.Addr().String())
	r := n.try("exec", "a", "ping", "-c", "1", "-W", "5", "-M", "do", "-s", "1400", o.Router.FarHost)
	if err := contains(r.stdout+r.stderr, "mtu", "1400"); err != nil {
		t.Errorf("the lease's MTU is not told: %v", err)
	}
	if out, status := n.on(machine, "network", "set", "default", "--uplink", "none"); status != 0 {
		t.Fatal(out)
	}
	n.says(server, "DHCPRELEASE("+dev+") "+lease.Addr().String())
}

// An address that a station has already is not taken from it.
func TestUplinkAddressInUse(t *testing.T) {
	lab.NeedTUN(t)
	o := lab.NewOutside(t)
	o.Router.Host.Addr(t, o.Router.TAP, o.Router.Uplink+"/32") // the router itself has it
	n := newNode(t)
	out, status := n.on(o.Router.Host, "network", "set", "default", "--uplink", o.Router.Spec())
	if status != 125 || !strings.Contains(out, "uplink "+o.Router.TAP+": "+o.Router.Uplink+" is in use by") {
		t.Errorf("exit status %d\n%s", status, out)
	}
}

// uplink is the one on an interface, as `network ls` lists it.
func (n *node) uplink(name string) api.Uplink {
	n.t.Helper()
	var lines []struct{ Uplinks []api.Uplink }
	n.json(&lines, "network", "ls")
	for _, l := range lines {
		for _, u := range l.Uplinks {
			if u.Name == name {
				return u
			}
		}
	}
	n.t.Fatalf("no uplink %s in %+v", name, lines)
	return api.Uplink{}
}
