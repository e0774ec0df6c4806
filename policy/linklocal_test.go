package policy

import (
	"net/netip"
	"testing"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

// A port has a few link-local addresses of its own making, goes on with those it has,
// and gets a further one now and then.
func TestLinkLocals(t *testing.T) {
	me := packettest.Station{MAC: packet.MAC{2, 0, 0, 0, 0, 1}}
	l, now := NewLinkLocals(), int64(1e9)
	from := func(ip netip.Addr) packet.Reason {
		f := packet.Frame{B: packettest.UDP(packettest.Station{MAC: me.MAC, IP: ip}, packettest.Station{MAC: packet.MAC{2}, IP: netip.MustParseAddr("fe80::9")}, 1, 2, nil), Time: now}
		if packet.Parse(&f) != packet.OK {
			t.Fatal("malformed")
		}
		isNew, r := l.Check(&f, me.MAC)
		if isNew && r == packet.OK {
			l.Take(&f)
		}
		return r
	}
	own := func(n int) netip.Addr { return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 15: byte(n)}) }
	for n := range mostLinkLocals {
		if r := from(own(n)); r != packet.OK {
			t.Fatalf("address %d: %v", n, r)
		}
	}
	for range 3 {
		if r := from(own(100)); r != packet.AddressLimit {
			t.Errorf("one too many: %v", r)
		}
		for n := range mostLinkLocals {
			if r := from(own(n)); r != packet.OK {
				t.Errorf("address %d, which it has: %v", n, r)
			}
		}
		for _, ip := range []netip.Addr{me.MAC.LinkLocal(), netip.MustParseAddr("2001:db8::1")} {
			if r := from(ip); r != packet.OK {
				t.Errorf("%v: %v", ip, r)
			}
		}
	}
	now += second
	if r := from(own(100)); r != packet.OK {
		t.Errorf("a second later: %v", r)
	}
	if r := from(own(0)); r != packet.AddressLimit {
		t.Errorf("the first, which made room: %v", r)
	}
}
