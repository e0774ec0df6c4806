package main

import (
	"net/netip"
	"testing"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

// Every flood is of frames that are read, however they are changed. Those of ten million
// MACs are all of different ones, however many were sent before, and who asks for a lease
// asks for himself: else no server hears him.
func TestAttackFrames(t *testing.T) {
	station := func(s string) packettest.Station {
		a := netip.MustParseAddr(s)
		return packettest.Station{MAC: packet.MACFromIPv4(a), IP: a}
	}
	stage := theatre{Own: station("172.17.0.4"), Victim: station("172.17.0.2"), Gateway: station("172.17.0.1")}
	for _, a := range attacks {
		if a.kind == "ask" || a.kind == "interface" || a.api {
			continue
		}
		frames, change := stage.frames(a.kind)
		if len(frames) == 0 {
			t.Errorf("%s: there are no frames", a.name)
		}
		macs := map[packet.MAC]bool{}
		for i := range uint64(1000) {
			f := packet.Frame{B: frames[i%uint64(len(frames))]}
			change(f.Ether(), i)
			if r := packet.Parse(&f); r != packet.OK {
				t.Fatalf("%s: frame %d: %v", a.name, i, r)
			}
			src := packet.Ethernet(f.Ether()).Src()
			macs[src] = true
			const chaddr = packet.UDPLen + 28 // RFC 2131 2
			if a.kind == "dhcp" && packet.MAC(f.Ether()[f.L4+chaddr:]) != src {
				t.Fatalf("%s: a frame of %v asks for % x", a.name, src, f.Ether()[f.L4+chaddr:][:6])
			}
			change(f.Ether(), i+10_000_000)
			macs[packet.Ethernet(f.Ether()).Src()] = true
		}
		if (a.kind == "macs" || a.kind == "dhcp") && len(macs) != 2000 {
			t.Errorf("%s: 2000 frames of %d MACs", a.name, len(macs))
		}
	}
	if frames, _ := stage.frames("none"); frames != nil {
		t.Error("there is an attack of no name")
	}
}
