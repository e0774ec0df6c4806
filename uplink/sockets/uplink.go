package sockets

import (
	"net/netip"

	"fairlead/packet"
)

// routerMAC and outsideMAC are the addresses of the segment's two stations, the
// router and everybody outside. Nobody sees them but traces.
var (
	routerMAC  = packet.MAC{0x02, 'r', 'o', 'u', 't', 'e'}
	outsideMAC = packet.MAC{0x02, 'h', 'o', 's', 't', 's'}
)

// MAC is the router's on the segment. See vswitch.Gateway.
func (s *Sockets) MAC() packet.MAC { return routerMAC }

// Prefetch has the router prepare for frames, Route and Apply give it what came out
// of a socket. See vswitch.Gateway.
func (s *Sockets) Prefetch(frames []packet.Frame) { s.inbound.Prefetch(frames) }

func (s *Sockets) Route(f *packet.Frame, d *packet.Decision) { s.inbound.Route(f, d) }

func (s *Sockets) Apply(f *packet.Frame, d *packet.Decision, out packet.Out) {
	s.inbound.Apply(f, d, out)
}

// Tick does nothing: endpoints have their own time. See vswitch.Gateway.
func (s *Sockets) Tick(int64, packet.Out) {}

// FlushPort does nothing: the port's neighbours are everybody.
func (s *Sockets) FlushPort(packet.PortID) {}

// Network is the number of the segment, Name what people call the uplink.
func (s *Sockets) Network() packet.NetworkID { return s.conf.Network }
func (s *Sockets) Name() string              { return s.conf.Name }

// MTU is as large as a packet can be: what the host's links carry is the host's
// business.
func (s *Sockets) MTU() int { return maxPacket }

// Addr stands for the host in flows.
func (s *Sockets) Addr() packet.Addr { return *s.addr.Load() }

// Owns reports whether an address is one of the host's.
func (s *Sockets) Owns(a packet.Addr) bool {
	if a == s.Addr() {
		return true
	}
	have := s.owned.Load()
	return have != nil && (*have)[a]
}

// SetHostAddrs says which addresses the host has.
func (s *Sockets) SetHostAddrs(list []packet.Addr) {
	have := make(map[packet.Addr]bool, len(list))
	for _, a := range list {
		have[a] = true
	}
	s.owned.Store(&have)
}

// Subnet is everything: sockets know no next hop.
func (s *Sockets) Subnet() netip.Prefix { return everything }

// NextHop is none, Routes are none.
func (s *Sockets) NextHop() packet.Addr   { return packet.Addr{} }
func (s *Sockets) Routes() []netip.Prefix { return nil }

var everything = netip.PrefixFrom(netip.IPv4Unspecified(), 0)

// maxPacket is the largest packet IPv4 can write the length of.
const maxPacket = 65535

// KeepsFlows tells that connections end with their sockets, not by time.
func (s *Sockets) KeepsFlows() bool { return true }

// Resolve sends every packet to the segment's port, but for what sockets cannot
// carry and for a connection its container may not have. It changes nothing but
// d.
func (s *Sockets) Resolve(f *packet.Frame, _ packet.Addr, d *packet.Decision) {
	switch {
	case !s.carries(f):
		d.RefuseCopy(packet.NotCarried)
	case f.Proto == packet.ProtoICMP && s.pings.refused(f.Time, d.NAT.New):
		d.RefuseCopy(packet.PingForbidden)
	case d.NAT.New && !s.admits(&d.NAT):
		d.RefuseCopy(packet.SocketBudget)
	default:
		d.SrcMAC, d.DstMAC = routerMAC, outsideMAC
		d.Egress = packet.Place{Network: s.conf.Network, Port: packet.PortID(s.port.Load())}
	}
}

// carries reports whether there are sockets for a packet: TCP, UDP and ICMP echo.
// ICMP errors of a container's are none of the host's: it makes its own.
func (s *Sockets) carries(f *packet.Frame) bool {
	switch f.Proto {
	case packet.ProtoTCP, packet.ProtoUDP:
		return true
	case packet.ProtoICMP:
		if f.L4 == 0 {
			return true // a later fragment of an echo
		}
		t := packet.ICMP(f.Transport()).Type()
		return t == packet.ICMPEcho || t == packet.ICMPEchoReply
	}
	return false
}

// Ask does nothing: Resolve never asks.
func (s *Sockets) Ask(*packet.Frame, *packet.Decision, packet.Out) {}

// SetPort tells which port of the segment is the uplink's.
func (s *Sockets) SetPort(p packet.PortID) { s.port.Store(uint32(p)) }
