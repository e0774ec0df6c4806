package main

import (
	"net/netip"
	"testing"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

// Every flood is of frames that are read, however they are changed, and no two of
// those of ten million MACs follow one another from the same.
func TestAttackFrames(t *testing.T) {
	station := func(s string) packettest.Station {
		a := netip.MustParseAddr(s)
		return packettest.Station{MAC: packet.MACFromIPv4(a), IP: a}
	}
	stage := theatre{Own: station("172.17.0.4"), Victim: station("172.17.0.2"), Gateway: station("172.17.0.1")}
	for _, a := range attacks {
		if a.kind == "ask" || a.kind == "interface" {
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
			macs[packet.Ethernet(f.Ether()).Src()] = true
		}
		if a.kind == "macs" && len(macs) != 1000 {
			t.Errorf("%s: 1000 frames of %d MACs", a.name, len(macs))
		}
	}
	if frames, _ := stage.frames("none"); frames != nil {
		t.Error("there is an attack of no name")
	}
}
