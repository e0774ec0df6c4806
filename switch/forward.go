package vswitch

import (
	"slices"

	"fairlead/packet"
)

// forward is the forwarding path: it decides what becomes of frame f that came
// in at port in. It reads the tables and fills d; it changes nothing else but
// the record Parse fills beside the bytes, and takes a priority tag off. The steps are
// those of the package comment.
func (s *Switch) forward(f *packet.Frame, in *Port, ports *portTable, d *packet.Decision) {
	// 1 parse
	if r := packet.Parse(f); r != packet.OK {
		d.Refuse(r)
		return
	}
	if f.Tags == 1 && f.VID() == 0 {
		f.PopTag() // it says a priority and no VLAN (IEEE 802.1Q-2018, 6.9): here is no use for that
	}
	ether := packet.Ethernet(f.Ether())
	dst, src := ether.Dst(), ether.Src()

	// 2 guard
	if in.isBlocked(f.Time) {
		d.Refuse(packet.Loop)
		return
	}
	var carried bool
	if d.VLAN, carried = ports.vlanOf(f, in); !carried {
		d.Refuse(packet.WrongVLAN)
		return
	}
	probe, vlan := s.probeOf(f)
	if probe != 0 && vlan == d.VLAN {
		d.Looped = probe
		d.Refuse(packet.Loop)
		return
	}
	if probe == 0 { // in another VLAN than it left in it goes on, until it comes back
		r := in.guardOf(f).Check(f)
		if r == packet.OK && f.EtherType == packet.EtherTypeIPv6 && in.conf.Guard.Strict {
			d.NewAddr, r = in.linkLocals.Check(f, in.conf.Guard.MAC)
		}
		if r != packet.OK {
			d.Refuse(r)
			return
		}
	}
	if isReservedGroup(dst) {
		d.Refuse(packet.ReservedGroup)
		return
	}
	if !s.hub && !in.conf.Host && probe == 0 {
		d.Learn = s.macs.judge(stationKey(d.VLAN, src), in.id, f.Time)
	}

	// 3 look up
	var out *Port
	forGateway := s.gateway != nil && d.VLAN == 0 && dst == s.gateway.MAC()
	switch {
	case s.hub:
		d.Verdict, d.Reason = packet.Flood, packet.HubMode
		d.ToGateway = forGateway || d.VLAN == 0 && f.Flags.Has(packet.Multicast)
	case forGateway && in.conf.Host:
		out = in // it is the host's own MAC too
	case forGateway:
		d.Verdict, d.Reason = packet.Gateway, packet.ForGateway
	case f.Flags.Has(packet.Multicast):
		d.Verdict, d.Reason, d.ToGateway = packet.Flood, packet.ToGroup, d.VLAN == 0
	default:
		if hop, known := s.macs.lookup(stationKey(d.VLAN, dst), f.Time); known {
			out = ports.find(hop.port)
		}
		if out == nil {
			d.Verdict, d.Reason = packet.Flood, packet.UnknownMAC
		} else {
			d.Verdict, d.Reason = packet.Unicast, packet.KnownMAC
			d.Egress = packet.Place{Network: s.conf.ID, Port: out.id}
		}
	}

	// 4 admit
	switch {
	case f.PacketLen() > s.mtu:
		d.Refuse(packet.Oversize)
		return
	case out == in:
		d.Refuse(packet.SamePort)
		return
	case d.Verdict == packet.Flood && !in.mayFlood(f.Time):
		d.Refuse(packet.FloodLimit)
		return
	case out != nil:
		rule, r := ports.admits(f, d.VLAN, in, out)
		if d.Admitted = rule; r != packet.OK {
			d.Refuse(r)
			return
		}
	}

	// 5 gateway
	if s.gateway != nil && (d.Verdict == packet.Gateway || d.ToGateway || in.conf.Host) {
		d.AtGateway = true
		s.gateway.Route(f, d)
		if d.Verdict == packet.Hold && !s.lanes.holds.accepts(f) {
			d.Refuse(packet.HoldFull)
		}
		// The way over the gateway is no way round the admission of ports, unless
		// it is one that was opened for everybody.
		if d.Routed && d.Egress.Network == s.conf.ID && (d.NAT.Kind == packet.NATNone || d.NAT.ToMapping) {
			if out := ports.find(d.Egress.Port); out != nil {
				rule, r := ports.admits(f, d.VLAN, in, out)
				if d.Admitted = rule; r != packet.OK {
					d.Routed = false
					d.RefuseCopy(r)
				}
			}
		}
	}

	// 6 emit: d.Egress, or every other port that admits lets it pass to; apply acts.
}

// admits is the admission of one port's frames to another: of their VLAN only; isolated ports do not
// hear one another (as the kernel bridge's `isolated` flag), and containers
// only as the network's policy has it, where there is one. The host is no
// container.
func (t *portTable) admits(f *packet.Frame, vlan uint16, in, out *Port) (rule uint32, r packet.Reason) {
	switch {
	case !t.carries(f, vlan, out):
		return 0, packet.WrongVLAN
	case in.conf.Isolated && out.conf.Isolated:
		return 0, packet.Isolated
	case t.admit == nil || in.conf.Host || out.conf.Host:
		return 0, packet.OK
	}
	return t.admit.Check(f, in.conf.Container, out.conf.Container)
}

// hears reports whether a flooded frame is for a port: not for that it came from.
// The host is no station that had to be found; it hears what is for everybody, but
// for questions who has the gateway's address, which the gateway answers.
func (s *Switch) hears(f *packet.Frame, in, out *Port) bool {
	if !out.conf.Host || out == in {
		return out != in
	}
	if f.EtherType == packet.EtherTypeARP {
		a := packet.ARP(f.Ether()[f.L3:])
		if a.Op() == packet.ARPRequest && slices.Contains(s.conf.GatewayAddrs, packet.AddrFrom4(a.TargetIP())) {
			return false
		}
	}
	return f.Flags.Has(packet.Multicast)
}

// isReservedGroup reports whether dst is one of the addresses that end at the
// first bridge: 01:80:c2:00:00:00 to 0f (IEEE 802.1D table 7-10).
func isReservedGroup(dst packet.MAC) bool {
	return dst.Uint64()&^0xf == 0x0180c2000000
}
