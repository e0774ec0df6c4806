package vswitch

import (
	"testing"

	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/policy"
)

// What containers may send one another holds on every way between them: the
// direct one, among the copies of a flood, and over the gateway.
func TestAdmitOnEveryWay(t *testing.T) {
	r := newRig(t)
	a, b, c := r.add(2), r.add(3), r.add(4)
	r.known(a, b, c)
	opened, refused := policy.NewHits(1), policy.NewHits(1)
	r.sw.SetAdmit(policy.NewAdmit([]policy.AdmitRule{{
		Number: 7, From: a.port.Config().Container, To: b.port.Config().Container, Proto: packet.ProtoUDP, Ports: policy.Ports{First: 53, Last: 53}, Hits: opened,
	}}, refused))
	r.add(5) // a new port is held to it as well

	byGateway := func(to station) station { return station{MAC: r.gw.MAC(), IP: to.IP} }
	somebody := func(to station) station { return station{MAC: stationOf(99).MAC, IP: to.IP} } // whom the switch does not know
	everybody := func(to station) station { return station{MAC: packet.BroadcastMAC, IP: to.IP} }
	for _, way := range []struct {
		name      string
		to        func(station) station
		copies    uint64 // there are for others than b
		unicast   bool
		isFlooded bool
	}{
		{"direct", func(to station) station { return to }, 0, true, false},
		{"by the gateway", byGateway, 0, true, false},
		{"unknown", somebody, 2, false, true},
		{"broadcast", everybody, 2, false, true},
	} {
		t.Run(way.name, func(t *testing.T) {
			open, closed := counted(opened), counted(refused)
			drops := a.drops(packet.ICC)
			records := r.recorded(func() { r.send(a, packettest.UDP(a.station, way.to(b.station), 5000, 53, nil)) })
			if len(b.got(t)) != 1 || len(c.got(t)) != 0 {
				t.Error("what a rule opens does not arrive, or at others too")
			}
			if counted(opened) != open+1 || counted(refused) != closed+way.copies {
				t.Errorf("%d packets by the rule, %d refused", counted(opened)-open, counted(refused)-closed)
			}
			if d := records[0].Decision; way.unicast && d.Admitted != 7 || way.isFlooded && records[0].Withheld != int(way.copies) {
				t.Errorf("recorded: rule %d, %d withheld", d.Admitted, records[0].Withheld)
			}
			r.send(a, packettest.UDP(a.station, way.to(b.station), 5000, 54, nil))
			if len(b.got(t)) != 0 || len(c.got(t)) != 0 {
				t.Error("what no rule opens arrives")
			}
			if way.unicast && a.drops(packet.ICC) != drops+1 {
				t.Error("it is not counted as such")
			}
			if counted(refused) == closed+way.copies {
				t.Error("the policy does not count it")
			}
		})
	}

	// The gateway and ARP are not asked about.
	r.send(a, ping(a.station, station{MAC: r.gw.MAC(), IP: gatewayAddr.Addr()}), packettest.ARPRequest(a.station, c.IP))
	if len(a.got(t)) != 1 || len(c.got(t)) != 1 {
		t.Error("the gateway does not answer, or a neighbour is not asked for")
	}
	r.sw.SetAdmit(nil)
	r.send(a, ping(a.station, c.station))
	if len(c.got(t)) != 1 {
		t.Error("without a policy it does not arrive")
	}
}

func counted(h *policy.Hits) uint64 {
	n, _ := h.Sum()
	return n
}

// A frame that is flooded and for the gateway (in hub mode) does not come to a
// container by the one's way where it may not by the other's.
func TestAdmitOfAHub(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Hub = true })
	a, b := r.add(2), r.add(3)
	r.known(a, b)
	r.sw.SetAdmit(policy.NewAdmit(nil, policy.NewHits(1)))
	records := r.recorded(func() {
		r.send(a, packettest.UDP(a.station, station{MAC: r.gw.MAC(), IP: b.IP}, 1, 2, nil))
	})
	if d := records[0].Decision; len(b.got(t)) != 0 || d.Routed || d.Verdict != packet.Flood {
		t.Errorf("%v, routed %v", d.Verdict, d.Routed)
	}
}

// Packets of a train count one by one, as those of flows do, with all their headers.
func TestAdmitCountsTrains(t *testing.T) {
	r := newRig(t)
	a, b := r.add(2), r.add(3)
	opened := policy.NewHits(1)
	r.sw.SetAdmit(policy.NewAdmit([]policy.AdmitRule{{
		Number: 7, From: a.port.Config().Container, To: b.port.Config().Container, Proto: packet.ProtoUDP, Ports: policy.Ports{First: 53, Last: 53}, Hits: opened,
	}}, policy.NewHits(1)))
	const size, n, headers = 300, 4, 14 + 20 + 8
	train := packettest.GSO(packettest.UDP(a.station, b.station, 5000, 53, make([]byte, size*n)), size)
	for i, way := range []string{"flooded", "direct"} {
		r.send(a, train)
		want := uint64(i + 1)
		if packets, bytes := opened.Sum(); packets != want*n || bytes != want*n*(headers+size) {
			t.Errorf("%s: %d packets of %d bytes together", way, packets, bytes)
		}
		r.known(a, b)
	}
}
