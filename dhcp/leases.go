package dhcp

import (
	"net/netip"
	"slices"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"fairlead/packet"
)

// A leaseState is what is between a server and a station.
type leaseState uint8

const (
	leaseReleased leaseState = iota // the address is only remembered
	leaseProbing                    // somebody else may have it
	leaseOffered
	leaseBound
	leaseDeclined // of nobody: who got it found that somebody has it
)

// An identity is what a lease is found by.
type identity struct {
	container packet.ContainerID
	by        byte // m a MAC, f one whose address is fixed, c a client identifier, d an address that was declined
	is        string
}

// A lease is a station's, and the address it holds.
type lease struct {
	id      identity
	mac     packet.MAC
	name    string // what it calls itself
	addr    netip.Addr
	state   leaseState
	until   int64     // when the state ends; 0 is never
	waiting *exchange // while its address is probed for
}

// fixed reports whether the station has the address without us: it is not held.
func (l *lease) fixed() bool { return l.id.by == 'f' }

// identity tells stations apart: those whose address is fixed by their MAC, others
// by what they say they are (RFC 2131 4.2). What one container says takes nothing
// from those behind another.
func (x *exchange) identity() identity {
	id := identity{container: x.from.Container, by: 'm', is: string(x.from.MAC[:])}
	if x.from.Fixed.IsValid() {
		id.by = 'f'
	} else if said := x.m.Options.Get(dhcpv4.OptionClientIdentifier); len(said) > 1 {
		id.by, id.is = 'c', string(said)
	}
	return id
}

// leaseOf is the station's lease, a new one if need be; nil when there is no room.
func (s *Server) leaseOf(x *exchange) *lease {
	id := x.identity()
	if l := s.leases[id]; l != nil {
		l.mac = x.from.MAC
		return l
	}
	if len(s.leases) >= maxLeases && !s.forgetOne(x.from.Container) {
		return nil
	}
	l := &lease{id: id, mac: x.from.MAC}
	s.leases[id] = l
	return l
}

// forgetOne makes room by a station that has no address: one of the same
// container, or else of anybody.
func (s *Server) forgetOne(c packet.ContainerID) bool {
	var other *lease
	for _, l := range s.leases {
		if l.state != leaseReleased {
			continue
		}
		if l.id.container == c {
			other = l
			break
		}
		other = l
	}
	if other != nil {
		delete(s.leases, other.id)
	}
	return other != nil
}

// choose finds an address for a station that asks for one: what is reserved for
// it, what it has or had, what it wants, or the next that is free. It returns
// false when there is none.
func (s *Server) choose(x *exchange, l *lease) bool {
	h := s.hostOf(x)
	if l.state != leaseReleased {
		if s.isFor(l.addr, h) && (h == nil || l.addr == h.Addr || s.byAddr[h.Addr] != nil) {
			return true
		}
		s.release(l) // there is a better one now, or it is another's
	}
	if h != nil && s.begin(x, l, h.Addr) {
		return true
	}
	for _, a := range []netip.Addr{l.addr, station(x.m.RequestedIPAddress())} {
		if s.isDynamic(a) && s.begin(x, l, a) {
			return true
		}
	}
	a := s.next
	for range maxTries {
		a = s.before(a)
		if !s.hasRoom(l.id.container) {
			return false
		}
		if s.begin(x, l, a) {
			s.next = a
			return true
		}
		if a == s.next {
			return false // once round
		}
		if !s.next.IsValid() {
			s.next = a
		}
	}
	s.next = a
	return false
}

// begin takes an address for a station, and asks who else has it.
func (s *Server) begin(x *exchange, l *lease, a netip.Addr) bool {
	if !s.claim(x, l, a) {
		return false
	}
	l.waiting = x
	s.set(l, leaseProbing, x.now+probeTime)
	s.segment.Probe(a)
	return true
}

// claim is take, where nobody is known to have the address.
func (s *Server) claim(x *exchange, l *lease, a netip.Addr) bool {
	before := l.addr
	if !s.take(l, a, s.hostOf(x)) {
		return false
	}
	holder, known := s.segment.Holder(a)
	if !known || holder == l.mac {
		return true
	}
	if s.quarantine(l, x.now, 0); before != a {
		l.addr = before
	}
	return false
}

// probed goes on with a station when whoever has its address would have said so.
func (s *Server) probed(l *lease, now int64) {
	x := l.waiting
	x.now, l.waiting = now, nil
	if holder, known := s.segment.Holder(l.addr); known && holder != l.mac {
		s.quarantine(l, now, 0)
		x.discover()
		return
	}
	s.set(l, leaseOffered, now+offerTime)
	x.offer(l.addr)
}

// mayHave decides on an address a station asks to be lent, by an offer or without.
func (s *Server) mayHave(x *exchange, want netip.Addr, byOffer bool) bool {
	if x.from.Fixed.IsValid() {
		return want == x.from.Fixed
	}
	l, h := s.leases[x.identity()], s.hostOf(x)
	if l != nil && (l.state == leaseOffered || l.state == leaseBound) {
		return want == l.addr && s.isFor(want, h)
	}
	// One that was forgotten has it again, if nobody else has it meanwhile.
	if byOffer || h != nil && want != h.Addr || h == nil && !s.isDynamic(want) {
		return false
	}
	l = s.leaseOf(x)
	return l != nil && l.state == leaseReleased && s.claim(x, l, want)
}

// take has a station hold an address, unless somebody has it, or too many are held.
func (s *Server) take(l *lease, a netip.Addr, h *Host) bool {
	if s.byAddr[a] != nil || !s.isFor(a, h) || !s.hasRoom(l.id.container) || s.reserved[a] == nil && !s.segment.Take(a) {
		return false
	}
	l.addr, s.byAddr[a] = a, l
	s.hold(l.id.container, 1)
	return true
}

// bind lends the station an address.
func (s *Server) bind(x *exchange, a netip.Addr) {
	l := s.leases[x.identity()]
	if x.from.Fixed.IsValid() {
		if l = s.leaseOf(x); l == nil {
			return // it has its address without being written down
		}
		l.addr = a
	}
	if name := hostName(x.m.HostName()); name != "" {
		l.name = name
	}
	until := int64(0)
	if length := s.length(x.m); length != forever {
		until = x.now + length
	}
	s.set(l, leaseBound, until)
}

// set changes the state of a lease.
func (s *Server) set(l *lease, to leaseState, until int64) {
	if to == leaseBound || l.state == leaseBound {
		s.changes++
	}
	l.state, l.until = to, until
	if until != 0 && (s.due == 0 || until < s.due) {
		s.due = until
	}
}

// release takes a station's address back. It is remembered.
func (s *Server) release(l *lease) {
	l.waiting = nil
	s.set(l, leaseReleased, 0)
	if l.fixed() {
		delete(s.leases, l.id)
		return
	}
	if s.byAddr[l.addr] != l {
		return
	}
	delete(s.byAddr, l.addr)
	if s.reserved[l.addr] == nil {
		s.segment.Give(l.addr)
	}
	s.hold(l.id.container, -1)
}

// hold counts an address for a container.
func (s *Server) hold(c packet.ContainerID, n int) {
	if s.held[c] += n; s.held[c] == 0 {
		delete(s.held, c)
	}
}

// drop forgets a lease.
func (s *Server) drop(l *lease) {
	if l.state != leaseReleased {
		s.release(l)
	}
	delete(s.leases, l.id)
}

// forget takes back what was offered to a station that wants none of it.
func (s *Server) forget(x *exchange) {
	if l := s.leases[x.identity()]; l != nil && (l.state == leaseOffered || l.state == leaseProbing) {
		s.release(l)
	}
}

// quarantine keeps an address that somebody has who did not get it here from being
// lent for a while. It counts as the container's whose station says so.
func (s *Server) quarantine(l *lease, now int64, by packet.ContainerID) {
	s.stats.Conflicts++
	bad := &lease{id: identity{by, 'd', l.addr.String()}, addr: l.addr}
	s.hold(l.id.container, -1)
	s.hold(by, 1)
	s.set(l, leaseReleased, 0)
	s.byAddr[bad.addr], s.leases[bad.id] = bad, bad
	l.addr, l.waiting = netip.Addr{}, nil
	s.set(bad, leaseDeclined, now+declineTime)
}

// expire ends what has ended.
func (s *Server) expire(now int64) {
	if s.due == 0 || now < s.due {
		return
	}
	s.due = 0
	var over []*lease
	for _, l := range s.leases {
		switch {
		case l.until == 0:
		case l.until <= now:
			over = append(over, l)
		case s.due == 0 || l.until < s.due:
			s.due = l.until
		}
	}
	slices.SortFunc(over, func(a, b *lease) int { return a.addr.Compare(b.addr) })
	for _, l := range over {
		switch {
		case l.until == 0 || l.until > now: // by one before it
		case l.state == leaseProbing:
			s.probed(l, now)
		case l.state == leaseDeclined:
			s.drop(l)
		default:
			s.release(l)
		}
	}
}

// hasRoom reports whether one more address may be held for a container.
func (s *Server) hasRoom(c packet.ContainerID) bool {
	all := s.size()
	return len(s.byAddr) < all && (c == 0 || s.held[c] < max(leastPerContainer, min(maxPerContainer, all/4)))
}

// size is how many addresses may be lent at once.
func (s *Server) size() int {
	if s.conf.First.IsValid() {
		return min(maxLeases, int(number(s.conf.Last)-number(s.conf.First))+1+len(s.reserved))
	}
	return min(maxLeases, max(1, 1<<(32-s.conf.Server.Bits()-1)-1)+len(s.reserved))
}

// hostOf is the reservation for a station.
func (s *Server) hostOf(x *exchange) *Host {
	id := string(x.m.Options.Get(dhcpv4.OptionClientIdentifier))
	for i := range s.conf.Hosts {
		if h := &s.conf.Hosts[i]; s.reserved[h.Addr] != nil && (h.ID != "" && h.ID == id || h.ID == "" && h.MAC == x.from.MAC) {
			return h
		}
	}
	return nil
}

// isFor reports whether an address may be lent to whom reservation h is for.
func (s *Server) isFor(a netip.Addr, h *Host) bool {
	if s.reserved[a] != nil {
		return h != nil && h.Addr == a
	}
	return s.isDynamic(a)
}

// isDynamic reports whether an address is one of those lent to anybody.
func (s *Server) isDynamic(a netip.Addr) bool {
	if !a.IsValid() || s.conf.First.IsValid() && (a.Less(s.conf.First) || s.conf.Last.Less(a)) {
		return false
	}
	return s.reserved[a] == nil && s.isHost(a)
}

// isHost reports whether a station of the subnet can have an address.
func (s *Server) isHost(a netip.Addr) bool {
	p := s.conf.Server
	return a.IsValid() && p.Masked().Contains(a) && a != p.Addr() && a != p.Masked().Addr() && a != broadcast(p)
}

// before is the address that is tried after a: downwards, because containers get
// theirs from the other end.
func (s *Server) before(a netip.Addr) netip.Addr {
	first, last := s.conf.First, s.conf.Last
	if !first.IsValid() {
		first, last = s.conf.Server.Masked().Addr().Next(), broadcast(s.conf.Server).Prev()
	}
	if !a.IsValid() || !first.Less(a) {
		return last
	}
	return a.Prev()
}
