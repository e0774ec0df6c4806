package gateway

import (
	"fairlead/nat"
	"fairlead/packet"
)

// pass decides how a translated packet leaves: steps 5.5 to 5.7.
func (r *Router) pass(f *packet.Frame, d *packet.Decision) {
	out := r.link(d.NAT.Out)
	if f.Tags > 0 {
		d.RefuseCopy(packet.NotUnderstood) // no VLAN leaves its segment
		return
	}
	if out == nil {
		r.refuse(f, d, packet.NoRoute, packet.OriginNetUnreachable)
		return
	}

	// 5.5 MTU: that of one segment counts, not the length of the frame.
	if mtu := out.MTU(); f.PacketLen() > mtu {
		d.MTU = uint16(mtu)
		if packet.IPv4(f.Ether()[f.L3:]).DontFragment() {
			r.refuse(f, d, packet.FragNeeded, packet.OriginFragNeeded)
			return
		}
	}

	// 5.6 next hop  5.7 uplink
	hop := d.NAT.After.Dst
	if d.NAT.Quoted {
		hop = d.NAT.After.Src // who sent the packet the error is about
	}
	if up, ok := out.(Uplink); ok {
		switch subnet := up.Subnet(); {
		case !subnet.Contains(hop.Netip()):
			hop = up.NextHop()
		case isBroadcast(subnet, [4]byte(hop[12:])):
			d.RefuseCopy(packet.Martian) // no directed broadcasts (RFC 2644)
			return
		}
		if hop == (packet.Addr{}) {
			r.refuse(f, d, packet.NoRoute, packet.OriginNetUnreachable)
			return
		}
	}
	verdict, why := d.Verdict, d.Reason
	d.NextHop = hop
	out.Resolve(f, hop, d)
	refused, reason := d.Verdict == packet.Drop, d.Reason
	if verdict == packet.Flood {
		d.Verdict, d.Reason = verdict, why // the copies for others go on
	}
	switch {
	case refused:
		r.refuse(f, d, reason, answerTo(reason, f))
	case d.Egress == (packet.Place{}):
		// It waits; or is lost, being a hub's copy.
	default:
		d.Routed = true
		if verdict != packet.Flood {
			d.Verdict, d.Reason = packet.Unicast, packet.Routed
		}
	}
}

// link returns the router's side of a number, nil when it is gone.
func (r *Router) link(n packet.NetworkID) link {
	p := r.plugs.Load()
	if g := p.gateway(n); g != nil {
		return g
	}
	if up := p.uplink(n); up != nil {
		return up
	}
	return nil
}

// apply carries out what was decided of a packet, for gateway and uplink
// alike.
func (r *Router) apply(f *packet.Frame, d *packet.Decision, out packet.Out) {
	if (d.Routed || d.Originate == packet.OriginEchoReply) &&
		f.Flags.Has(packet.Fragment) && !f.Flags.Has(packet.LaterFragment) {
		r.firstFragment(f, out) // by the addresses it has now
	}
	if d.Routed {
		r.rewrite(f, d, out)
	}
	switch {
	case d.Originate == packet.OriginNone:
	case d.Originate == packet.OriginARPRequest:
		if l := r.link(d.To.Network); l != nil {
			l.Ask(f, d, out)
		}
	default:
		r.answer(f, d, out)
	}
	if d.Reason == packet.Filtered && f.Proto == packet.ProtoTCP {
		r.unsolicited(f, out)
	}
}

// saw counts a packet of a flow, of a train each as it is on a wire.
func (r *Router) saw(f *packet.Frame, d *packet.Decision) {
	if d.NAT.Flow != 0 && !d.NAT.Quoted {
		f.Flow = d.NAT.Flow
		packets := f.Segments()
		bytes := f.Len() + f.TrainHeaders() - packets*int(f.L3)
		r.flows.Seen(nat.FlowOf(d.NAT.Flow, d.NAT.Reply), f.Time, packets, bytes, tcpFlags(f))
	}
}

// rewrite makes the frame what it is on the next link.
func (r *Router) rewrite(f *packet.Frame, d *packet.Decision, out packet.Out) {
	if d.NAT.New {
		if reason := r.commit(f, d, out); reason != packet.OK {
			d.Routed = false
			d.RefuseCopy(reason)
			return
		}
	}
	r.saw(f, d)
	if d.ToHost {
		d.NAT.Edit(f)
		return
	}
	ether := packet.Ethernet(f.Ether())
	ether.SetSrc(d.SrcMAC)
	ether.SetDst(d.DstMAC)
	packet.IPv4(ether[f.L3:]).DecrementTTL()
	d.NAT.Edit(f)
	if d.MTU != 0 && f.Proto == packet.ProtoTCP && f.Segments() > 1 {
		// A byte stream is cut elsewhere instead (skb_decrease_gso_size).
		f.VNet().SetGSOSize(uint16(int(f.VNet().GSOSize()) - (f.PacketLen() - int(d.MTU))))
		d.MTU = 0
	}
}
