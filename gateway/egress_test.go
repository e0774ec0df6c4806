package gateway

import (
	"io"
	"os"
	"strings"
	"testing"

	"fairlead/nat"
	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/policy"
)

func mustEgress(t testing.TB, spec string, file string) *policy.Egress {
	t.Helper()
	e, err := policy.ParseEgress(spec, func(string) (io.ReadCloser, error) {
		if file == "" {
			return nil, os.ErrNotExist
		}
		return io.NopCloser(strings.NewReader(file)), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEgress(t *testing.T) {
	r, _ := newSocketsRig(t, nat.Config{})
	r.router.SetServices(5353)
	r.gw.SetHostLoopback(true)
	r.publish(packet.ProtoTCP, 8080) // bob's
	const list = "allow 203.0.113.0/24 80/tcp\nallow 172.17.0.1 8000\nallow 198.51.100.1"

	type verdict struct {
		ok        bool
		own, rule uint16
	}
	yes, deny := verdict{ok: true}, func(rule uint16) verdict { return verdict{rule: rule} }
	allow := func(rule uint16) verdict { return verdict{ok: true, rule: rule} }
	port := uint16(30000)
	for _, x := range []struct {
		spec, own string
		frame     func(sport uint16) []byte
		want      verdict
	}{
		{"", "", func(p uint16) []byte { return syn(alice, server, p, 80) }, yes},
		{"all", "", func(p uint16) []byte { return syn(alice, server, p, 80) }, allow(1)},
		{"none", "", func(p uint16) []byte { return syn(alice, server, p, 80) }, deny(1)},
		{"none", "", func(p uint16) []byte { return packettest.UDP(alice, server, p, 80, nil) }, deny(1)},
		{"none", "", func(p uint16) []byte { return packettest.ICMPEcho(alice, server, p, 1, nil) }, deny(1)},
		// The gateway's own services, but not what is behind it.
		{"none", "", func(p uint16) []byte { return syn(alice, gw, p, 53) }, yes},
		{"none", "", func(p uint16) []byte { return packettest.UDP(alice, gw, p, 53, nil) }, yes},
		{"none", "", func(p uint16) []byte { return syn(alice, gw, p, 8000) }, deny(1)},
		{"none", "", func(p uint16) []byte { return syn(alice, gw, p, 8080) }, deny(1)},
		{"none", "", func(p uint16) []byte { return syn(alice, hostSelf, p, 8080) }, deny(1)},
		{"none", "", func(p uint16) []byte { return syn(alice, hostSelf, p, 22) }, deny(1)},
		// Of a list the line, and whatever else.
		{list, "", func(p uint16) []byte { return syn(alice, server, p, 80) }, allow(1)},
		{list, "", func(p uint16) []byte { return syn(alice, server, p, 81) }, deny(4)},
		{list, "", func(p uint16) []byte { return syn(alice, gw, p, 8000) }, allow(2)},
		{list, "", func(p uint16) []byte { return packettest.ICMPEcho(alice, someRouter, p, 1, nil) }, allow(3)},
		// The container's own is asked first, and both have to agree.
		{list, "all", func(p uint16) []byte { return syn(alice, server, p, 80) }, verdict{true, 1, 1}},
		{list, "all", func(p uint16) []byte { return syn(alice, server, p, 81) }, verdict{false, 1, 4}},
		{list, "none", func(p uint16) []byte { return syn(alice, server, p, 80) }, verdict{false, 1, 0}},
		{"", "none", func(p uint16) []byte { return syn(alice, server, p, 80) }, verdict{false, 1, 0}},
		{"", "all", func(p uint16) []byte { return syn(alice, server, p, 80) }, verdict{true, 1, 0}},
	} {
		made := func(spec string) *policy.Egress {
			switch {
			case spec == "":
				return nil
			case strings.Contains(spec, " "):
				return mustEgress(t, "allow:list", spec)
			}
			return mustEgress(t, spec, "")
		}
		all, own := made(x.spec), made(x.own)
		r.gw.SetEgress(all)
		r.router.SetEgress(1, own)
		r.router.SetEgress(2, mustEgress(t, "none", "")) // another's
		port++
		d, f := r.inside(1, x.frame(port))
		if got := (verdict{f != nil, d.EgressOwn, d.EgressRule}); got != x.want {
			t.Errorf("%q and own %q: %v to %v: %+v, want %+v", x.spec, x.own, d.Reason, d.NAT.Before, got, x.want)
		}
		if !x.want.ok {
			if d.Reason != packet.EgressDenied {
				t.Errorf("refused by %v", d.Reason)
			}
			wantICMP(t, r.answer(), alice, packet.ICMPUnreachable, packet.ICMPAdminProhibited)
		}
		for e, rule := range map[*policy.Egress]uint16{all: x.want.rule, own: x.want.own} {
			if e == nil {
				continue
			}
			for i, counted := range e.Rules() {
				decided := uint16(i+1) == rule && !(e == own && x.want.rule != 0 && !x.want.ok)
				if counted.Hits != map[bool]uint64{true: 1}[decided] {
					t.Errorf("%q and own %q: %+v", x.spec, x.own, counted)
				}
			}
		}
	}
}

// TestEgressIsAskedOnce is that a connection goes on that has begun, both ways,
// and what comes in is not asked about.
func TestEgressIsAskedOnce(t *testing.T) {
	r, _ := newSocketsRig(t, nat.Config{})
	r.publish(packet.ProtoTCP, 8080) // bob's
	r.mustInside(1, syn(alice, server, 4000, 80))
	none := mustEgress(t, "none", "")
	r.gw.SetEgress(none)
	r.mustOutside(synAck(server, hostSelf, 80, 4000))
	r.mustInside(1, packettest.TCP(alice, server, packettest.Segment{SrcPort: 4000, DstPort: 80, Flags: packet.TCPAck}, nil))
	r.mustOutside(syn(server, hostSelf, 5000, 8080))
	r.mustInside(2, synAck(bob, server, 80, 5000))
	r.mustInside(1, packettest.UDP(alice, with(gw, "172.17.0.3"), 1, 2, nil)) // stays on its network
	if n := none.Rules()[0].Hits; n != 0 {
		t.Errorf("counted %d", n)
	}

	// A container's own policy goes with it.
	r.gw.SetEgress(nil)
	r.router.SetEgress(1, none)
	r.router.FlushContainer(1)
	r.mustInside(1, syn(alice, server, 4001, 80))
}

func TestEgressByName(t *testing.T) {
	r, _ := newSocketsRig(t, nat.Config{})
	e := mustEgress(t, "allow:list", "allow example.org 443/tcp")
	r.gw.SetEgress(e)
	if d, _ := r.inside(1, syn(alice, server, 4000, 443)); d.Reason != packet.EgressDenied {
		t.Fatalf("%+v", d)
	}
	e.Learn("example.org", addrOf(server), r.now+60e9)
	r.mustInside(1, syn(alice, server, 4000, 443))
	r.later(61e9)
	if d, _ := r.inside(1, syn(alice, server, 4001, 443)); d.Reason != packet.EgressDenied {
		t.Errorf("%+v", d)
	}
}

// What a container asks our DNS concerns its own policy and that of its network.
func TestEgressNames(t *testing.T) {
	r, _ := newSocketsRig(t, nat.Config{})
	if r.gw.Closed(1) || r.gw.WantsName(1, "a.example") {
		t.Error("without a policy there is one")
	}
	r.gw.SetEgress(mustEgress(t, "allow:x", "allow a.example\nallow b.example"))
	own := mustEgress(t, "allow:x", "allow b.example\nallow c.example")
	r.router.SetEgress(1, own)
	for name, want := range map[string][2]bool{"a.example": {true, true}, "b.example": {true, true}, "c.example": {true, false}, "d.example": {}} {
		if got := [2]bool{r.gw.WantsName(1, name), r.gw.WantsName(2, name)}; got != want {
			t.Errorf("%s is wanted %v, want %v", name, got, want)
		}
	}
	r.gw.LearnName(1, "c.example", addrOf(server), r.now+1)
	if _, ok := own.Check(addrOf(server), 80, packet.ProtoTCP, r.now); !ok {
		t.Error("its own policy has not heard of it")
	}
	r.router.SetEgress(1, mustEgress(t, "none", ""))
	if !r.gw.Closed(1) || r.gw.Closed(2) {
		t.Errorf("closed: %v and %v", r.gw.Closed(1), r.gw.Closed(2))
	}
}

func TestEgressInternet(t *testing.T) {
	r, _ := newSocketsRig(t, nat.Config{})
	r.gw.SetEgress(mustEgress(t, "internet", ""))
	r.gw.SetHostLoopback(true)
	public := stationAt("8.8.8.8")
	r.mustInside(1, syn(alice, public, 4000, 443))
	for _, dst := range []station{hostSelf, alsoHost, gw, stationAt("169.254.169.254"), stationAt("192.168.1.1")} {
		if d, _ := r.inside(1, syn(alice, dst, 4000, 443)); d.Reason != packet.EgressDenied {
			t.Errorf("%v: %+v", dst.IP, d)
		}
	}
}
