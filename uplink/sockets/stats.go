package sockets

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"fairlead/packet"
)

// Stats are counters of an uplink, and what there is at the moment.
type Stats struct {
	Descriptors int // of containers; published ports are not among them
	Flows       int // that have a socket

	// What sockets cannot keep of a packet. It went out without.
	Options    packet.Tally // IP options
	NoChecksum packet.Tally // UDP checksum 0

	Damaged   packet.Tally // packets of containers with a wrong checksum, which did not leave
	Overrun   packet.Tally // datagrams the host dropped because the worker did not come by in time
	Truncated packet.Tally // datagrams larger than IPv4 can say

	// Datagrams of containers that came in fragments: put together; given up,
	// because some were missing for too long or too many were on the way; lost,
	// because fragments overlapped.
	Reassembled             uint64
	Incomplete, Overlapping packet.Tally

	Unaccepted packet.Tally // connections to published ports that were reset, because descriptors were short

	// PingForbidden is set when the host lets this user have no ping sockets. It
	// is mended by: sysctl -w net.ipv4.ping_group_range="0 2147483647"
	PingForbidden bool
}

// Stats returns the counters.
func (s *Sockets) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.stats
	n.Descriptors = s.flows.total
	n.Reassembled, n.Incomplete, n.Overlapping = s.fragments.made, s.fragments.incomplete, s.fragments.overlapping
	n.PingForbidden = s.pings.forbidden.Load()
	for i := range s.flows.slots {
		if s.flows.slots[i].e != nil {
			n.Flows++
		}
	}
	return n
}

// Local is the address the host's socket of a flow has, for people.
func (s *Sockets) Local(number uint32) netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	if int(number) >= len(s.flows.slots) || s.flows.slots[number].e == nil {
		return netip.AddrPort{}
	}
	return sockname(s.flows.slots[number].e.common().fd)
}

// sockname is a socket's own address; of a ping socket the port is the
// identifier.
func sockname(fd int) netip.AddrPort {
	var b [unix.SizeofSockaddrInet6]byte
	size := uint32(len(b))
	_, _, errno := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&b)), uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return netip.AddrPort{}
	}
	a, port := parseSockaddr(b[:min(int(size), len(b))])
	if a == (packet.Addr{}) && port == 0 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a.Netip(), port)
}
