package policy

import "fairlead/packet"

// LinkLocals are the link-local addresses of IPv6 that one port has lately sent from,
// but for the one its MAC forms. A host has a few of its own making (RFC 7217, RFC
// 8981), which nobody could tell the guard, and each is an entry in the neighbour table
// of whoever is sent something by it, and a question to everybody on the segment when
// that answers. So there may be few, or others' tables and floods are used up by who
// has a new one for each packet.
//
// Bound: mostLinkLocals; the one that came first makes room, newLinkLocals a second.
// Used by one worker.
type LinkLocals struct {
	known [mostLinkLocals]packet.Addr
	next  int
	rate  Rate
}

const (
	mostLinkLocals = 8
	newLinkLocals  = 1
)

// NewLinkLocals knows none yet, and has room for all there may be.
func NewLinkLocals() LinkLocals { return LinkLocals{rate: NewRate(newLinkLocals, mostLinkLocals)} }

// Check judges the source of a parsed frame of IPv6 from a port that has a MAC: whether
// the address is a new one that Take has to be told of, and OK or the reason to drop
// the frame. It changes nothing.
func (l *LinkLocals) Check(f *packet.Frame, mac packet.MAC) (isNew bool, r packet.Reason) {
	a := packet.IPv6(f.Ether()[f.L3:]).Src()
	if !isLinkLocal6(a) || a == packet.AddrFromNetip(mac.LinkLocal()) || contains(l.known[:], a) {
		return false, packet.OK
	}
	if !l.rate.Allows(f.Time) {
		return true, packet.AddressLimit
	}
	return true, packet.OK
}

// Take takes in the source of a frame.
func (l *LinkLocals) Take(f *packet.Frame) {
	l.rate.Take(f.Time, 1)
	l.known[l.next] = packet.IPv6(f.Ether()[f.L3:]).Src()
	l.next = (l.next + 1) % len(l.known)
}
