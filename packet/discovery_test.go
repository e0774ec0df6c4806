package packet_test

import (
	"net/netip"
	"testing"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

func discovery(kind uint8, macs ...packet.MAC) packet.Discovery {
	a, b := packettest.Station{IP: netip.MustParseAddr("fe80::1")}, packettest.Station{IP: netip.MustParseAddr("fe80::2")}
	f := packet.Frame{B: packettest.Discovery(a, b, kind, b.IP, macs...)}
	if r := packet.Parse(&f); r != packet.OK {
		panic(r)
	}
	return f.Transport()
}

func TestDiscovery(t *testing.T) {
	one, two := packet.MAC{2, 0, 0, 0, 0, 1}, packet.MAC{2, 0, 0, 0, 0, 2}
	for kind := uint8(packet.ICMPv6RouterSolicit); kind <= packet.ICMPv6Redirect; kind++ {
		m := discovery(kind, one, two)
		if !packet.ICMP(m).IsDiscovery() || !m.Valid() {
			t.Fatalf("type %d: not valid", kind)
		}
		if kind >= packet.ICMPv6NeighborSolicit && m.Target().String() != "fe80::2" {
			t.Errorf("type %d: target %v", kind, m.Target())
		}
		o := m.Options()
		for _, want := range []packet.MAC{one, two} {
			if mac, ok := o.MAC(); !ok || mac != want {
				t.Errorf("type %d: option of %v, %v, want %v", kind, mac, ok, want)
			}
			o = o.Next()
		}
		if len(o) > 0 {
			t.Errorf("type %d: % x is left", kind, o)
		}
		for n := packet.ICMPLen; n < len(m); n++ {
			whole := n == len(m)-8 || n == len(m)-16
			if m[:n].Valid() != whole {
				t.Errorf("type %d: %d of %d bytes: valid %v", kind, n, len(m), !whole)
			}
		}
		last := m.Options().Next()
		for length, valid := range map[byte]bool{0: false, 1: true, 2: false} {
			if last[1] = length; m.Valid() != valid {
				t.Errorf("type %d: a MAC of %d times eight bytes: valid %v", kind, length, !valid)
			}
		}
		if last[0], last[1] = 5, 1; !m.Valid() {
			t.Errorf("type %d with an MTU: not valid", kind)
		} else if _, is := last.MAC(); is {
			t.Errorf("type %d: the MTU is a MAC", kind)
		}
	}
	for _, kind := range []uint8{packet.ICMPv6RouterSolicit - 1, packet.ICMPv6Redirect + 1} {
		if packet.ICMP([]byte{kind, 0, 0, 0, 0, 0, 0, 0}).IsDiscovery() {
			t.Errorf("type %d is neighbour discovery", kind)
		}
	}
}

// FuzzDiscovery: what is valid can be walked through to its end.
func FuzzDiscovery(f *testing.F) {
	for kind := uint8(packet.ICMPv6RouterSolicit); kind <= packet.ICMPv6Redirect; kind++ {
		f.Add([]byte(discovery(kind)))
		f.Add([]byte(discovery(kind, packet.MAC{2}, packet.MAC{4})))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if !packet.ICMP(b).Valid() || !packet.ICMP(b).IsDiscovery() || !packet.Discovery(b).Valid() {
			return
		}
		for o := packet.Discovery(b).Options(); len(o) > 0; o = o.Next() {
			o.MAC()
		}
		if b[0] >= packet.ICMPv6NeighborSolicit {
			_ = packet.Discovery(b).Target()
		}
	})
}

func TestFormedFrom(t *testing.T) {
	mac := packet.MAC{2, 0x42, 172, 17, 0, 3}
	if got, ok := packet.AddrFromNetip(mac.LinkLocal()).FormedFrom(); !ok || got != mac {
		t.Errorf("%v, %v", got, ok)
	}
	if mac, ok := packet.AddrFromNetip(netip.MustParseAddr("fe80::1234")).FormedFrom(); ok {
		t.Errorf("fe80::1234 is formed from %v", mac)
	}
}
