package arp

import (
	"bytes"
	"net/netip"
	"testing"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

const tenth = second / 10

var (
	us    = packettest.Station{MAC: station(1), IP: netip.AddrFrom4(addr(1))}
	rival = packettest.Station{MAC: station(66), IP: us.IP}
	other = packettest.Station{MAC: station(5), IP: netip.AddrFrom4(addr(5))}
	prove = packettest.Station{MAC: station(66), IP: netip.AddrFrom4([4]byte{})} // sender of a probe
)

func arpOf(frame []byte) packet.ARP {
	return packet.ARP(frame[packet.VNetLen+packet.EthernetLen:])
}

// A claimStep is a moment of a claim: what is heard, then what Tick does.
type claimStep struct {
	at    int64
	hear  []byte // nil: nothing
	send  string // "", "probe", "announce"
	state ClaimState
	next  int64
}

func TestClaim(t *testing.T) {
	claimed := []claimStep{
		{0, nil, "probe", Probing, tenth},
		{tenth / 2, nil, "", Probing, tenth},
		{tenth, nil, "probe", Probing, 2 * tenth},
		{2 * tenth, nil, "probe", Probing, 3 * tenth},
		{3 * tenth, nil, "announce", Claimed, 23 * tenth},
		{23 * tenth, nil, "announce", Claimed, 0},
	}
	for _, c := range []struct {
		name  string
		steps []claimStep
		rival bool // known at the end
	}{
		{"nobody objects", claimed, false},
		{"it is in use", []claimStep{
			{0, nil, "probe", Probing, tenth},
			{tenth / 2, packettest.ARPReply(rival, us), "", Conflicting, tenth/2 + 60*second},
			{60 * second, nil, "", Conflicting, tenth/2 + 60*second},
			{61 * second, nil, "probe", Probing, 61*second + tenth},
			{61*second + tenth, nil, "probe", Probing, 61*second + 2*tenth},
			{61*second + 2*tenth, nil, "probe", Probing, 61*second + 3*tenth},
			{61*second + 3*tenth, nil, "announce", Claimed, 63*second + 3*tenth},
		}, false},
		{"another wants it too", []claimStep{
			{0, nil, "probe", Probing, tenth},
			{1, packettest.ARPRequest(prove, us.IP), "", Conflicting, 1 + 60*second},
		}, true},
		{"it is announced by another", []claimStep{
			{0, nil, "probe", Probing, tenth},
			{1, packettest.ARPRequest(rival, rival.IP), "", Conflicting, 1 + 60*second},
		}, true},
		{"others talk of others", []claimStep{
			{0, packettest.ARPRequest(other, us.IP), "probe", Probing, tenth},
			{1, packettest.ARPReply(other, us), "", Probing, tenth},
			{2, packettest.ARPRequest(prove, other.IP), "", Probing, tenth},
			{3, packettest.ARPRequest(us, us.IP), "", Probing, tenth}, // our own, come back
			{tenth, nil, "probe", Probing, 2 * tenth},
		}, false},
		{"a conflict in use is answered at most every ten seconds", append(append([]claimStep{}, claimed...),
			claimStep{30 * second, packettest.ARPReply(rival, other), "announce", Claimed, 0},
			claimStep{31 * second, packettest.ARPReply(rival, other), "", Claimed, 0},
			claimStep{39 * second, packettest.ARPRequest(rival, other.IP), "", Claimed, 0},
			claimStep{40 * second, packettest.ARPRequest(rival, other.IP), "announce", Claimed, 0},
		), true},
		{"a probe of another is no conflict once it is ours", append(append([]claimStep{}, claimed...),
			claimStep{30 * second, packettest.ARPRequest(prove, us.IP), "", Claimed, 0},
		), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			const start = 5 * second
			var claim Claim
			claim.Start(start, us.IP.As4(), us.MAC)
			var now int64
			for i, s := range c.steps {
				now = start + s.at
				if s.hear != nil {
					before, concerns := claim, claim.Concerns(arpOf(s.hear))
					if claim.Heard(now, arpOf(s.hear)); concerns != (claim != before) {
						t.Errorf("step %d: concerns %v, %+v → %+v", i, concerns, before, claim)
					}
				}
				send, sender, next := claim.Tick(now)
				want := map[string][4]byte{"announce": us.IP.As4()}[s.send]
				if s.next != 0 {
					s.next += start
				}
				if send != (s.send != "") || sender != want || next != s.next || claim.State() != s.state {
					t.Errorf("step %d: sends %v %v, next %d, %v; want %q, next %d, %v",
						i, send, sender, next, claim.State(), s.send, s.next, s.state)
				}
			}
			if mac, ok := claim.Rival(now); ok != c.rival || ok && mac != rival.MAC {
				t.Errorf("rival %v, %v", mac, ok)
			}
			if _, ok := claim.Rival(now + 61*second); ok {
				t.Error("a rival not heard for a minute is still told")
			}
		})
	}
}

func TestUnclaimed(t *testing.T) {
	var c Claim
	for range 2 {
		if send, _, next := c.Tick(1); send || next != 0 || c.State() != Unclaimed {
			t.Errorf("no address, and %v, %d, %v", send, next, c.State())
		}
		if c.Heard(1, arpOf(packettest.ARPRequest(prove, netip.AddrFrom4([4]byte{})))) {
			t.Error("no address, and a conflict")
		}
		c.Start(1, addr(1), us.MAC)
		if c.Addr() != addr(1) {
			t.Error("wrong address")
		}
		c.Stop()
	}
}

// FuzzClaim: whatever is heard and whenever, an address is used only after three
// probes nobody objected to, and defended at most every ten seconds.
func FuzzClaim(f *testing.F) {
	f.Add([]byte{10, 0, 110, 0, 110, 0, 110, 1, 10, 1, 200, 2}, []byte(arpOf(packettest.ARPReply(rival, us))))
	f.Add([]byte{110, 0, 110, 0, 110, 0, 110, 0}, []byte(arpOf(packettest.ARPRequest(prove, us.IP))))
	f.Fuzz(func(t *testing.T, script, b []byte) {
		a := packet.ARP(b)
		if !a.Valid() {
			return
		}
		before := bytes.Clone(b)
		var c Claim
		now := second
		c.Start(now, us.IP.As4(), us.MAC)
		probes, announced := 0, []int64{}
		for i := 0; i+1 < len(script); i += 2 {
			now += int64(script[i]) * second / 1000 << (script[i+1] >> 4 & 7)
			if script[i+1]&1 != 0 && c.Heard(now, a) && c.State() == Conflicting {
				probes = 0
			}
			if send, sender, _ := c.Tick(now); send && sender == ([4]byte{}) {
				probes++
			} else if send {
				announced = append(announced, now)
			}
			if c.State() == Claimed && probes < probeNum {
				t.Fatalf("claimed after %d probes", probes)
			}
		}
		for i := 4; i < len(announced); i++ { // two of them are no defence
			if announced[i]-announced[i-2] < defendEvery {
				t.Fatalf("announced at %v", announced)
			}
		}
		if !bytes.Equal(b, before) {
			t.Error("the packet was changed")
		}
	})
}
