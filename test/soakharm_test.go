package test

import (
	"fmt"
	"net/netip"

	"fairlead/node/api"
	"fairlead/packet"
	"fairlead/packet/packettest"
)

// soakHarm is what a container does that means harm, and the others do not notice.
var soakHarm = []struct {
	name   string
	frames func(me, victim packettest.Station) [][]byte
}{
	{"a flood of MACs", func(_, victim packettest.Station) [][]byte { return macFlood(victim, 2000) }},
	{"a flood of ARP", func(me, victim packettest.Station) (frames [][]byte) {
		a := me.IP.As4()
		for i := range 500 {
			a[3] = byte(i)
			to := netip.AddrFrom4(a)
			frames = append(frames, packettest.ARPRequest(me, to), packettest.ARPRequest(packettest.Station{MAC: me.MAC, IP: to}, victim.IP))
		}
		return frames
	}},
	{"a flood of DHCP", func(_, _ packettest.Station) [][]byte { return discovers(500) }},
	{"spoofing", func(me, victim packettest.Station) [][]byte {
		as := packettest.Station{MAC: me.MAC, IP: victim.IP}
		return [][]byte{
			packettest.ARPReply(as, packettest.Broadcast),
			packettest.UDP(as, packettest.Broadcast, 9, 9, nil),
			packettest.UDP(victim, me, 9, 9, nil),
			packettest.Discovery(me.IPv6(), victim.IPv6(), packet.ICMPv6NeighborAdvert, victim.MAC.LinkLocal(), me.MAC),
			packettest.Discovery(me.IPv6(), victim.IPv6(), packet.ICMPv6RouterAdvert, me.IPv6().IP, me.MAC),
			packettest.UDP(me, packettest.Broadcast, 67, 68, make([]byte, 300)),
		}
	}},
	{"a storm", func(me, _ packettest.Station) [][]byte {
		return [][]byte{packettest.UDP(me, packettest.Broadcast, 9, 9, nil)}
	}},
	{"tags", func(me, victim packettest.Station) (frames [][]byte) {
		for vlan := range uint16(1000) {
			frames = append(frames, packettest.Tagged(packettest.ARPRequest(me, victim.IP), vlan))
		}
		return frames
	}},
}

func harmless(b *soaked) bool { return b.assault == nil }

// doHarm has a container send what it may not as fast as it can, for a few steps.
// Only its own traffic may suffer.
func (s *soak) doHarm() bool {
	b := s.pickBox(func(b *soaked) bool { return b.home != nil && harmless(b) })
	if b == nil {
		return false
	}
	harm := soakHarm[s.rng.IntN(len(soakHarm))]
	victim := s.pickBox(func(x *soaked) bool { _, on := x.nets[b.home]; return on })
	b.until = s.step + 1 + s.rng.IntN(8)
	s.note(fmt.Sprintf("%s from %s, to the harm of %s, up to step %d", harm.name, b.name, victim.name, b.until))
	disturb(&b.well)
	b.assault = s.startAssault(b.name, harm.frames(s.stationOn(b.home, b), s.stationOn(b.home, victim)))
	return true
}

// endAssault has a container do no more harm.
func (s *soak) endAssault(b *soaked) {
	s.t.Helper()
	if b.assault == nil {
		return
	}
	s.dismiss(b.assault)
	b.assault = nil
}

// stationOn is what a container is to others on a network. Nothing is decided by it.
func (s *soak) stationOn(n *soakNet, b *soaked) packettest.Station {
	s.t.Helper()
	var i api.Inspect
	if err := s.ask("/v1/containers/"+b.name, &i); err != nil {
		s.t.Fatal(err)
	}
	on := i.NetworkSettings.Networks[n.name]
	mac, err := packet.ParseMAC(on.MacAddress)
	if err != nil {
		s.t.Fatal(err)
	}
	return packettest.Station{MAC: mac, IP: netip.MustParseAddr(on.IPAddress)}
}
