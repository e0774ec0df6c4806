package vswitch

import (
	"testing"

	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/policy"
)

// inVLANs puts a port into VLANs.
func inVLANs(t *testing.T, words string) func(*PortConfig) {
	v, err := policy.ParseVLANs(words)
	if err != nil {
		t.Fatal(err)
	}
	return func(c *PortConfig) { c.VLANs = v }
}

// A frame with two tags does not get into the inner one's VLAN by losing the outer.
func TestVLANHopping(t *testing.T) {
	r := newRig(t)
	open := func(c *PortConfig) { c.Guard.Strict = false }
	attacker := r.add(2, inVLANs(t, "trunk=10"), open)
	native, victim := r.add(3, inVLANs(t, "trunk=20,native=10"), open), r.add(4, inVLANs(t, "vlan=20"), open)
	r.send(attacker, packettest.Tagged(packettest.ARPRequest(attacker.station, victim.IP), 10, 20))
	native.expect(t)
	victim.expect(t)
	access := r.add(5, inVLANs(t, "vlan=10"), open)
	for _, b := range [][]byte{
		packettest.Tagged(packettest.ARPRequest(access.station, victim.IP), 10, 20), packettest.Tagged(packettest.ARPRequest(access.station, victim.IP), 0, 20),
		packettest.Tagged(packettest.ARPRequest(access.station, victim.IP), 20),
	} {
		before := access.drops(packet.WrongVLAN)
		if r.send(access, b); access.drops(packet.WrongVLAN) != before+1 {
			t.Errorf("% x was taken", b[packet.VNetLen:][12:22])
		}
	}
	victim.expect(t)
}

// The gateway is in the untagged VLAN: others neither hear it nor reach it.
func TestVLANWithoutGateway(t *testing.T) {
	r := newRig(t)
	access, trunk := r.add(2, inVLANs(t, "vlan=10")), r.add(3, inVLANs(t, "trunk=10"))
	gw := station{MAC: r.gw.MAC(), IP: gatewayAddr.Addr()}
	ask := packettest.ARPRequest(access.station, gw.IP)
	r.send(access, ask)
	access.expect(t)
	trunk.expect(t, packettest.Tagged(ask, 10))
	r.send(access, ping(access.station, gw))
	access.expect(t)
	trunk.expect(t, packettest.Tagged(ping(access.station, gw), 10)) // nobody has that MAC there
	r.send(trunk, ping(trunk.station, gw))
	if got := trunk.got(t); len(got) != 1 {
		t.Errorf("the gateway answered %d times without a tag", len(got))
	}
}

// A loop within a tagged VLAN is found as well. A container that joins two VLANs makes
// none, and two that do make one.
func TestLoopGuardInVLANs(t *testing.T) {
	for _, c := range []struct {
		joined [][2]string
		loops  int
	}{
		{[][2]string{{"trunk=10", "trunk=10"}}, 1},
		{[][2]string{{"vlan=10", "vlan=10"}}, 1},
		{[][2]string{{"vlan=10", "vlan=20"}}, 0},
		{[][2]string{{"vlan=10", "vlan=20"}, {"vlan=20", "vlan=30"}}, 0},
		{[][2]string{{"vlan=10", "vlan=20"}, {"vlan=20", "vlan=10"}}, 1},
		{[][2]string{{"vlan=10", "vlan=20"}, {"vlan=20", "vlan=30"}, {"vlan=30", "vlan=10"}}, 1},
	} {
		var found []Loop
		r := newRig(t, func(conf *Config) { conf.LoopGuard, conf.LoopFound = true, func(l Loop) { found = append(found, l) } })
		open := func(c *PortConfig) { c.Guard.Strict = false }
		other := r.add(2, inVLANs(t, "vlan=10"), open)
		var cables [][2]*end
		for i, words := range c.joined {
			cables = append(cables, [2]*end{r.add(3+2*i, inVLANs(t, words[0]), open), r.add(4+2*i, inVLANs(t, words[1]), open)})
		}
		for range 60 {
			r.send(other, packettest.ARPRequest(other.station, stationOf(9).IP))
			for range 4 {
				for _, cable := range cables {
					r.send(cable[1], cable[0].got(t)...)
					r.send(cable[0], cable[1].got(t)...)
				}
			}
			r.now += 1e6
		}
		if len(found) != c.loops {
			t.Errorf("%v: found %v", c.joined, found)
		}
	}
}

// A tag of VLAN 0 says a priority: on every kind of port the frame is one without a
// tag, to the gateway as to others.
func TestPriorityTag(t *testing.T) {
	gwStation := func(r *rig) station { return station{MAC: r.gw.MAC(), IP: gatewayAddr.Addr()} }
	for _, words := range []string{"", "vlan=10", "trunk=10"} {
		r := newRig(t)
		from, to := r.add(2, inVLANs(t, words)), r.add(3, inVLANs(t, words))
		ask := packettest.ARPRequest(from.station, to.IP)
		r.send(from, packettest.Tagged(ask, 0))
		to.expect(t, ask)
		if words != "vlan=10" {
			r.send(from, packettest.Tagged(ping(from.station, gwStation(r)), 0))
			if got := from.got(t); len(got) != 1 || from.drops(packet.NotUnderstood) != 0 {
				t.Errorf("%q: the gateway answered %d times", words, len(got))
			}
		}
		segment := packettest.GSO(packettest.TCP(from.station, to.station, packettest.Segment{}, make([]byte, 60_000)), 1448)
		r.send(to, packettest.ARPRequest(to.station, from.IP))
		from.got(t)
		r.send(from, packettest.Tagged(segment, 0))
		to.expect(t, segment)
	}
}
