// Package uplink is the router's side on a network that is not its own: a way
// out.
package uplink

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"

	"fairlead/arp"
	"fairlead/packet"
)

// A Config says what a raw uplink is.
type Config struct {
	Network packet.NetworkID // of its segment
	Name    string           // of its interface
	MAC     packet.MAC
	MTU     int
	Addr    netip.Prefix // address and length of the subnet; not with DHCP
	Gateway netip.Addr   // the next router; the zero Addr is none
	Extra   []netip.Addr // further addresses of the router there
	Routes  []netip.Prefix
	DHCP    bool
}

// An Inbound takes the IPv4 packets that come in by an uplink.
type Inbound interface {
	// Route decides on a packet for the uplink's MAC. It changes nothing but d.
	Route(f *packet.Frame, d *packet.Decision)
	// Apply carries out what was decided.
	Apply(f *packet.Frame, d *packet.Decision, out packet.Out)
}

// A Raw is an uplink on a real L2 network, with a MAC and addresses of its own.
type Raw struct {
	conf    Config
	inbound Inbound
	port    atomic.Uint32
	lease   atomic.Pointer[lease]

	mu         sync.Mutex
	neighbours *arp.Table
}

// A lease is what addresses the uplink has: a snapshot.
type lease struct {
	addr    packet.Addr // of masquerade; zero is none
	subnet  netip.Prefix
	nextHop packet.Addr
	extra   []packet.Addr
}

// New returns an uplink that hands what comes in to inbound.
func New(conf Config, inbound Inbound) (*Raw, error) {
	if !conf.DHCP && !conf.Addr.Addr().Is4() {
		return nil, errors.New("it has no IPv4 address")
	}
	u := &Raw{conf: conf, inbound: inbound, neighbours: arp.NewTableOf(1024)}
	l := &lease{addr: packet.AddrFromNetip(conf.Addr.Addr()), subnet: conf.Addr.Masked(), nextHop: packet.AddrFromNetip(conf.Gateway)}
	for _, a := range conf.Extra {
		l.extra = append(l.extra, packet.AddrFromNetip(a))
	}
	u.lease.Store(l)
	return u, nil
}

// SetPort says which port of the segment is the uplink's link.
func (u *Raw) SetPort(p packet.PortID) { u.port.Store(uint32(p)) }

func (u *Raw) Network() packet.NetworkID { return u.conf.Network }
func (u *Raw) Name() string              { return u.conf.Name }
func (u *Raw) MTU() int                  { return u.conf.MTU }
func (u *Raw) MAC() packet.MAC           { return u.conf.MAC }
func (u *Raw) Addr() packet.Addr         { return u.lease.Load().addr }
func (u *Raw) Subnet() netip.Prefix      { return u.lease.Load().subnet }
func (u *Raw) NextHop() packet.Addr      { return u.lease.Load().nextHop }
func (u *Raw) Routes() []netip.Prefix    { return u.conf.Routes }

// Owns reports whether an address is the uplink's.
func (u *Raw) Owns(a packet.Addr) bool {
	l := u.lease.Load()
	if a == l.addr {
		return a != packet.Addr{}
	}
	for _, x := range l.extra {
		if a == x {
			return true
		}
	}
	return false
}

// Route decides on a frame that came in by the link.
func (u *Raw) Route(f *packet.Frame, d *packet.Decision) {
	switch {
	case f.EtherType == packet.EtherTypeARP:
		u.routeARP(f, d)
	case packet.Ethernet(f.Ether()).Dst() != u.conf.MAC:
		// a group: heard and not routed
	case f.EtherType == packet.EtherTypeIPv4:
		u.inbound.Route(f, d)
	default:
		d.Refuse(packet.NotUnderstood)
	}
}

func (u *Raw) routeARP(f *packet.Frame, d *packet.Decision) {
	a := packet.ARP(f.Ether()[f.L3:])
	forMe := u.Owns(packet.AddrFrom4(a.TargetIP()))
	if a.Op() == packet.ARPRequest && forMe {
		d.Originate = packet.OriginARPReply
	}
	if d.Verdict != packet.Flood {
		d.Verdict, d.Reason = packet.Gateway, packet.ForGateway
	}
	sender := a.SenderIP()
	if sender == ([4]byte{}) || a.SenderMAC().IsGroup() || !u.Subnet().Contains(netip.AddrFrom4(sender)) || u.Owns(packet.AddrFrom4(sender)) {
		return
	}
	u.mu.Lock()
	known, ok := u.neighbours.Lookup(f.Time, sender)
	_, state := u.neighbours.Resolve(f.Time, sender)
	u.mu.Unlock()
	wanted := ok || state == arp.Incomplete || state == arp.Failed
	d.Neighbour = (forMe || wanted) && !(known.MAC == a.SenderMAC() && f.Time-known.Seen < 1e9)
}

// Apply carries out what Route decided.
func (u *Raw) Apply(f *packet.Frame, d *packet.Decision, out packet.Out) {
	if f.EtherType != packet.EtherTypeARP {
		u.inbound.Apply(f, d, out)
		return
	}
	a := packet.ARP(f.Ether()[f.L3:])
	if d.Neighbour {
		u.mu.Lock()
		waited := u.neighbours.Learn(arp.Entry{Addr: a.SenderIP(), MAC: a.SenderMAC(), Port: f.Port, Seen: f.Time})
		u.mu.Unlock()
		if waited {
			out.Resume(packet.ARPKey(u.conf.Network, a.SenderIP()))
		}
	}
	if d.Originate == packet.OriginARPReply {
		buf := out.Room()
		n := packet.VNetLen + int(f.L3) + packet.ARPLen
		copy(buf[:n], f.B)
		clear(buf[:packet.VNetLen])
		ether := packet.Ethernet(buf[packet.VNetLen:n])
		ether.SetDst(packet.Ethernet(f.Ether()).Src())
		ether.SetSrc(u.conf.MAC)
		reply := packet.ARP(ether[f.L3:])
		arp.Answer(reply, reply, u.conf.MAC)
		out.Originate(packet.Place{Network: f.Network, Port: f.Port}, n)
	}
}

// Resolve fills in how a packet gets to a station of the segment.
func (u *Raw) Resolve(f *packet.Frame, hop packet.Addr, d *packet.Decision) {
	addr := [4]byte(hop[12:])
	u.mu.Lock()
	e, state := u.neighbours.Resolve(f.Time, addr)
	u.mu.Unlock()
	at := packet.Place{Network: u.conf.Network, Port: packet.PortID(u.port.Load())}
	ask := func() {
		if d.Originate == packet.OriginNone {
			d.Originate, d.To = packet.OriginARPRequest, at
		}
	}
	switch state {
	case arp.Reachable, arp.Permanent, arp.Stale:
		d.SrcMAC, d.DstMAC, d.Egress = u.conf.MAC, e.MAC, at
		if state == arp.Stale {
			ask()
		}
	case arp.Failed:
		if d.Verdict != packet.Flood {
			d.Refuse(packet.HostUnreachable)
		}
	default:
		if d.Verdict != packet.Flood {
			d.Verdict, d.Reason, d.HoldKey = packet.Hold, packet.NextHop, packet.ARPKey(u.conf.Network, addr)
		}
		if state == arp.Unknown {
			ask()
		}
	}
}

// Ask applies an OriginARPRequest of Resolve.
func (u *Raw) Ask(f *packet.Frame, d *packet.Decision, out packet.Out) {
	addr := [4]byte(d.NextHop[12:])
	u.mu.Lock()
	next, ok := u.neighbours.Asked(f.Time, addr, f.Container)
	u.mu.Unlock()
	if ok {
		u.ask(addr, out)
		out.Wake(u.conf.Network, next)
	}
}

func (u *Raw) ask(addr [4]byte, out packet.Out) {
	me := u.Addr()
	n := arp.Request(out.Room(), u.conf.MAC, [4]byte(me[12:]), addr)
	out.Originate(packet.Place{Network: u.conf.Network, Port: packet.PortID(u.port.Load())}, n)
}

// Tick asks again for neighbours that did not answer.
func (u *Raw) Tick(now int64, out packet.Out) {
	var ask, failed [][4]byte
	u.mu.Lock()
	next := u.neighbours.Tick(now,
		func(a [4]byte) { ask = append(ask, a) },
		func(a [4]byte) { failed = append(failed, a) })
	u.mu.Unlock()
	for _, a := range ask {
		u.ask(a, out)
	}
	for _, a := range failed {
		out.Resume(packet.ARPKey(u.conf.Network, a))
	}
	if next != 0 {
		out.Wake(u.conf.Network, next)
	}
}

// FlushPort forgets the neighbours: the link has gone.
func (u *Raw) FlushPort(p packet.PortID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.neighbours.FlushPort(p)
}
