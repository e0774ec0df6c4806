package uplink

import (
	"fairlead/arp"
	"fairlead/dhcp"
	"fairlead/packet"
)

// Prefetch has the router prepare for frames. See vswitch.Gateway.
func (u *Raw) Prefetch(frames []packet.Frame) { u.inbound.Prefetch(frames) }

// Route decides on a frame from the segment, for the uplink's MAC or for a group.
// See vswitch.Gateway.
func (u *Raw) Route(f *packet.Frame, d *packet.Decision) {
	toUs := packet.Ethernet(f.Ether()).Dst() == u.conf.MAC
	switch {
	case f.Tags > 0: // of another segment, which only uses the same cable
		d.RefuseCopy(packet.NotForUs)
	case f.EtherType == packet.EtherTypeARP:
		u.routeARP(f, d)
	case u.isDHCP(f):
		d.EndAtGateway()
	case toUs && f.EtherType == packet.EtherTypeIPv4:
		u.inbound.Route(f, d)
	default:
		d.RefuseCopy(packet.NotForUs)
	}
}

// routeARP answers requests for the uplink's addresses, and hears what others
// say of theirs.
func (u *Raw) routeARP(f *packet.Frame, d *packet.Decision) {
	a := packet.ARP(f.Ether()[f.L3:])
	d.EndAtGateway()
	if a.SenderMAC().IsGroup() || a.SenderMAC() == u.conf.MAC {
		return
	}
	sender := packet.AddrFrom4(a.SenderIP())
	forUs := u.Owns(packet.AddrFrom4(a.TargetIP()))
	if u.Owns(sender) {
		return // a conflict, which Apply defends against
	}
	if a.Op() == packet.ARPRequest && forUs {
		d.Originate = packet.OriginARPReply
	}
	if !u.facts.Load().reaches(sender) {
		return
	}
	// RFC 826: merge what is known already, add only who talks to us.
	u.mu.Lock()
	known, state := u.neighbours.Resolve(f.Time, a.SenderIP())
	u.mu.Unlock()
	fresh := state == arp.Reachable && known.MAC == a.SenderMAC() && known.Port == f.Port && f.Time-known.Seen < 1e9
	d.Neighbour = (forUs || state != arp.Unknown) && !fresh
}

// isDHCP reports whether the frame is for the DHCP client.
func (u *Raw) isDHCP(f *packet.Frame) bool {
	return u.client != nil && f.EtherType == packet.EtherTypeIPv4 && f.Proto == packet.ProtoUDP &&
		f.L4 != 0 && !f.Flags.Has(packet.Fragment) &&
		f.SrcPort == dhcp.ServerPort && f.DstPort == dhcp.ClientPort
}

// Apply carries out what Route decided. See vswitch.Gateway.
func (u *Raw) Apply(f *packet.Frame, d *packet.Decision, out packet.Out) {
	switch {
	case f.Tags > 0:
	case f.EtherType == packet.EtherTypeARP:
		u.applyARP(f, d, out)
	case u.isDHCP(f):
		u.hearServer(f, out)
	case f.EtherType == packet.EtherTypeIPv4 && packet.Ethernet(f.Ether()).Dst() == u.conf.MAC:
		u.inbound.Apply(f, d, out)
	}
}

func (u *Raw) applyARP(f *packet.Frame, d *packet.Decision, out packet.Out) {
	a := packet.ARP(f.Ether()[f.L3:])
	due, waited := false, false
	u.mu.Lock()
	for i := range u.claims {
		due = u.claims[i].Heard(f.Time, a) || due
	}
	for _, p := range u.probes {
		due = p.claim.Heard(f.Time, a) || due
	}
	if d.Neighbour {
		waited = u.neighbours.Learn(arp.Entry{Addr: a.SenderIP(), MAC: a.SenderMAC(), Port: f.Port, Seen: f.Time})
	}
	u.mu.Unlock()
	if due {
		out.Wake(u.conf.Network, f.Time)
	}
	if waited {
		out.Resume(packet.ARPKey(u.conf.Network, a.SenderIP()))
	}
	if d.Originate == packet.OriginARPReply {
		u.originate(u.arpReply(out.Room(), a), out)
	}
}

// arpReply writes the answer to a request into buf.
func (u *Raw) arpReply(buf []byte, a packet.ARP) int {
	clear(buf[:packet.VNetLen])
	ether := packet.Ethernet(buf[packet.VNetLen:arp.FrameLen])
	ether.SetDst(a.SenderMAC())
	ether.SetSrc(u.conf.MAC)
	ether.SetType(packet.EtherTypeARP)
	arp.Answer(packet.ARP(ether[packet.EthernetLen:]), a, u.conf.MAC)
	return arp.FrameLen
}

// hearServer gives a DHCP message to the client.
func (u *Raw) hearServer(f *packet.Frame, out packet.Out) {
	m := packet.UDP(f.Transport())
	ip := packet.IPv4(f.Packet())
	// A server on this host leaves the sum to the link, which has no errors.
	if !f.Flags.Has(packet.NeedsChecksum) && m.Checksum() != 0 &&
		packet.Sum(m[:m.Len()], packet.PseudoSum4(ip.Src(), ip.Dst(), packet.ProtoUDP, m.Len())) != 0xffff {
		return
	}
	u.mu.Lock()
	due := u.client.Receive(f.Time, m.Payload())
	if due {
		u.server = packet.Ethernet(f.Ether()).Src()
	}
	u.mu.Unlock()
	if due {
		out.Wake(u.conf.Network, f.Time)
	}
}

// FlushPort forgets the neighbours behind a port that has gone.
func (u *Raw) FlushPort(port packet.PortID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.neighbours.FlushPort(port)
}
