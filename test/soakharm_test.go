package test

import (
	"fmt"
	"net/netip"

	"fairlead/node/api"
	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/test/lab"
)

// A harm is what a container does that means harm, and the others do not notice.
type harm struct {
	name    string
	frames  func(me, victim packettest.Station) [][]byte
	refused int      // of a hundred frames that are read, at least
	reasons []string // for which
}

var soakHarm = []harm{
	{"a flood of MACs", func(_, victim packettest.Station) [][]byte { return macFlood(victim, 2000) }, 90, []string{"spoofed-mac"}},
	{"a flood of ARP", func(me, victim packettest.Station) (frames [][]byte) {
		a := me.IP.As4()
		for i := range 500 {
			a[3] = byte(i)
			to := netip.AddrFrom4(a)
			frames = append(frames, packettest.ARPRequest(me, to), packettest.ARPRequest(packettest.Station{MAC: me.MAC, IP: to}, victim.IP))
		}
		return frames
	}, 20, []string{"spoofed-address"}},
	{"a flood of DHCP", func(_, _ packettest.Station) [][]byte { return discovers(500) }, 90, []string{"spoofed-mac"}},
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
	}, 90, []string{"spoofed-address", "spoofed-mac", "spoofed-neighbour", "rogue-router", "rogue-dhcp"}},
	{"a storm", func(me, _ packettest.Station) [][]byte {
		return [][]byte{packettest.UDP(me, packettest.Broadcast, 9, 9, nil)}
	}, 0, nil},
	{"tags", func(me, victim packettest.Station) (frames [][]byte) {
		for vlan := range uint16(1000) {
			frames = append(frames, packettest.Tagged(packettest.ARPRequest(me, victim.IP), vlan))
		}
		return frames
	}, 0, nil},
}

func harmless(b *soaked) bool { return b.assault == nil }

// doHarm has a container send what it may not as fast as it can, for a few steps.
// Only its own traffic may suffer.
func (s *soak) doHarm() bool {
	b := s.pickBox(func(b *soaked) bool { return b.home != nil && harmless(b) })
	if b == nil {
		return false
	}
	victim := s.pickBox(func(x *soaked) bool { _, on := x.nets[b.home]; return on && x != b })
	if victim == nil {
		return false
	}
	harm := &soakHarm[s.rng.IntN(len(soakHarm))]
	b.until = s.step + 1 + s.rng.IntN(8)
	s.note(fmt.Sprintf("%s from %s, to the harm of %s, up to step %d", harm.name, b.name, victim.name, b.until))
	disturb(&b.well)
	if b.before = nil; b.harm == nil {
		b.before = s.counted(b)
	}
	b.harm = harm
	b.assault = s.startAssault(b.name, harm.frames(s.stationOn(b.home, b), s.stationOn(b.home, victim)))
	b.assault.says("begun") // until then it needs the node
	return true
}

// endAssault has a container do no more harm.
func (s *soak) endAssault(b *soaked) {
	s.t.Helper()
	if b.assault == nil {
		return
	}
	s.judgeHarm(b)
	s.dismiss(b.assault)
	b.assault = nil
}

// judgeHarm waits until harm has been read, and compares how much of it was refused with how
// much was flooded: it is for everybody or for nobody, and what a container has to say is not.
// Only of its first: of a second one the interface may still be full of the first.
func (s *soak) judgeHarm(b *soaked) {
	s.t.Helper()
	const enough = 200                                          // frames; what a container floods for good reason is less
	if b.before == nil || b.harm.reasons == nil || b.home.hub { // a hub floods everything
		return
	}
	lab.Eventually(s.t, patience, func() error {
		now := s.counted(b)
		if now == nil {
			return nil // it has gone
		}
		if now.Read < b.before.Read {
			b.before = &api.Counts{} // another node counts anew
		}
		refused, flooded := 0, int(now.Flooded)-int(b.before.Flooded)
		for _, reason := range b.harm.reasons {
			n := int(now.Dropped[reason]) - int(b.before.Dropped[reason])
			if n <= 0 {
				return fmt.Errorf("of %s from %s nothing was refused as %s", b.harm.name, b.name, reason)
			}
			refused += n
		}
		if refused < enough {
			return fmt.Errorf("of %s from %s only %d frames were refused", b.harm.name, b.name, refused)
		}
		if (refused+flooded-enough)*b.harm.refused > refused*100 {
			s.t.Errorf("of %s from %s %d frames were refused, and %d flooded", b.harm.name, b.name, refused, flooded)
		}
		return nil
	})
}

// counted is what the port of a container has counted where it does harm; nil if it has none.
func (s *soak) counted(b *soaked) *api.Counts {
	s.t.Helper()
	for _, sw := range s.switches() {
		for i := range sw.Ports {
			if sw.Network == b.home.name && sw.Ports[i].Container == b.name {
				return &sw.Ports[i].Counts
			}
		}
	}
	return nil
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
