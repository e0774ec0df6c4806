package gateway

import (
	"bytes"
	"net/netip"
	"slices"

	"fairlead/arp"
	"fairlead/packet"
)

// routeARP answers requests for the gateway's address and hears what others
// say of theirs.
func (g *Gateway) routeARP(f *packet.Frame, d *packet.Decision) {
	a := packet.ARP(f.Ether()[f.L3:])
	forMe := a.TargetIP() == g.addr
	if a.Op() == packet.ARPRequest && forMe {
		d.Originate = packet.OriginARPReply
	}
	d.EndAtGateway()
	if forMe && a.Op() == packet.ARPReply && packet.Ethernet(f.Ether()).Dst() == g.mac && g.host.Load() != 0 {
		g.toHost(f, d) // who asked? one of the two
	}
	// RFC 826: merge what is known already, add only who talks to us. Nobody is
	// behind a group's MAC (RFC 1812 3.3.2).
	sender := a.SenderIP()
	if sender == ([4]byte{}) || a.SenderMAC().IsGroup() || !g.subnet.Contains(netip.AddrFrom4(sender)) {
		return
	}
	g.mu.Lock()
	known, ok := g.neighbours.Lookup(f.Time, sender)
	g.mu.Unlock()
	d.Neighbour = (forMe || ok) && !(known.MAC == a.SenderMAC() && known.Port == f.Port && f.Time-known.Seen < 1e9)
}

// learn takes the sender of an ARP packet into the neighbour table, and has
// packets go on that waited for it.
func (g *Gateway) learn(f *packet.Frame, out packet.Out) {
	a := packet.ARP(f.Ether()[f.L3:])
	g.mu.Lock()
	waited := g.neighbours.Learn(arp.Entry{
		Addr: a.SenderIP(), MAC: a.SenderMAC(), Port: f.Port, Container: f.Container, Seen: f.Time,
	})
	g.mu.Unlock()
	if waited {
		out.Resume(packet.ARPKey(g.network, a.SenderIP()))
	}
}

// Resolve fills in how a packet gets to a station of the network. See Uplink.
func (g *Gateway) Resolve(f *packet.Frame, hop packet.Addr, d *packet.Decision) {
	addr := [4]byte(hop[12:])
	if !hop.Is4() || !g.subnet.Contains(netip.AddrFrom4(addr)) || addr == g.addr || addr == g.broadcast {
		d.Refuse(packet.HostUnreachable)
		return
	}
	g.mu.Lock()
	e, state := g.neighbours.Resolve(f.Time, addr)
	if state == arp.Unknown && !g.neighbours.MayAsk(f.Container) {
		state = arp.Failed // it would wait for an answer to nothing
	}
	g.mu.Unlock()
	d.SrcMAC, d.DstMAC, d.Egress = g.mac, e.MAC, packet.Place{Network: g.network, Port: e.Port}
	switch state {
	case arp.Reachable, arp.Permanent:
	case arp.Stale:
		g.askFor(d, e.Port) // is it still there?
	case arp.Failed:
		d.Egress = packet.Place{}
		d.Refuse(packet.HostUnreachable)
	default:
		d.Egress = packet.Place{}
		if d.Verdict != packet.Flood {
			d.Verdict, d.Reason, d.HoldKey = packet.Hold, packet.NextHop, packet.ARPKey(g.network, addr)
		}
		if state == arp.Unknown {
			g.askFor(d, 0)
		}
	}
}

func (g *Gateway) askFor(d *packet.Decision, port packet.PortID) {
	if d.Originate == packet.OriginNone {
		d.Originate, d.To = packet.OriginARPRequest, packet.Place{Network: g.network, Port: port}
	}
}

// Ask applies an OriginARPRequest of Resolve.
func (g *Gateway) Ask(f *packet.Frame, d *packet.Decision, out packet.Out) {
	addr := [4]byte(d.NextHop[12:])
	g.mu.Lock()
	next, ok := g.neighbours.Asked(f.Time, addr, f.Container)
	g.mu.Unlock()
	if ok {
		g.ask(addr, d.To.Port, out)
		out.Wake(g.network, next)
	}
}

// ask sends an ARP request to a port, or with port zero to the whole network.
func (g *Gateway) ask(addr [4]byte, port packet.PortID, out packet.Out) {
	n := arp.Request(out.Room(), g.mac, g.addr, addr)
	out.Originate(packet.Place{Network: g.network, Port: port}, n)
}

// Probe has the next Tick ask the network who has an address, of whom nothing is
// known until there is an answer. Neighbour is who is known to have one.
func (g *Gateway) Probe(addr [4]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.probes) < maxProbes { // else it is as if nobody answered
		g.probes = append(g.probes, addr)
		g.neighbours.Remove(addr)
	}
}

func (g *Gateway) Neighbour(now int64, addr [4]byte) (arp.Entry, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.neighbours.Lookup(now, addr)
}

// maxProbes bounds the questions of Probe that wait for a Tick.
const maxProbes = 64

// AddNeighbour takes a station down for good, until its port is flushed: nobody asks
// for it, and what comes for it never has to wait.
func (g *Gateway) AddNeighbour(e arp.Entry) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.neighbours.Add(e)
}

// FlushNeighbours forgets every station for which gone is true and returns how many
// they were. Gone must not use the gateway.
func (g *Gateway) FlushNeighbours(gone func(arp.Entry) bool) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.neighbours.Flush(gone)
}

// FlushPort forgets the neighbours behind a port that has gone.
func (g *Gateway) FlushPort(port packet.PortID) {
	g.mu.Lock()
	g.neighbours.FlushPort(port)
	g.mu.Unlock()
	g.router.forgetPort(packet.Place{Network: g.network, Port: port})
	g.host.CompareAndSwap(uint32(port), 0) // it may have been the host's
}

// Neighbours lists the neighbour table at time now, by address.
func (g *Gateway) Neighbours(now int64) []arp.Entry {
	g.mu.Lock()
	list := g.neighbours.Entries(now)
	g.mu.Unlock() // workers may be waiting
	slices.SortFunc(list, func(a, b arp.Entry) int { return bytes.Compare(a.Addr[:], b.Addr[:]) })
	return list
}
