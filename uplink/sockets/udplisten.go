package sockets

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"fairlead/loop"
	"fairlead/packet"
)

// A published UDP port is one socket that stays. What a client sends becomes a
// frame from it to the address it spoke to; what a container sends from there,
// as an answer or on its own, leaves by it with that source. So nothing is kept
// of a client, and a flood of forged ones fills no table here.

// listenUDP opens the socket of a published port. The error is the kernel's:
// EADDRINUSE, EACCES.
func (s *Sockets) listenUDP(at netip.AddrPort) error {
	s.mu.Lock()
	defer s.unlock()
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	key := publishedAt(at)
	if s.closed {
		return fmt.Errorf("publish UDP %v: %w", at, unix.ESHUTDOWN)
	}
	if s.flows.udp[key] != nil {
		return fmt.Errorf("publish UDP %v: %w", at, unix.EADDRINUSE)
	}
	fd, errno := s.bindPublished(at)
	if errno == unix.EADDRINUSE && s.giveWay(at.Port()) {
		fd, errno = s.bindPublished(at)
	}
	if errno != 0 {
		return fmt.Errorf("publish UDP %v: %w", at, os.NewSyscallError("bind", errno))
	}
	return s.receiveFrom(fd, at)
}

// receiveFrom has datagrams to a socket that is bound be received. The
// descriptor is closed after an error.
func (s *Sockets) receiveFrom(fd int, at netip.AddrPort) error {
	key := publishedAt(at)
	e := &udpSocket{shared: shared{local: key, family: familyOf(at), kept: true}}
	e.s, e.self = s, e
	if err := s.register(e, fd, loop.In|loop.Edge); err != nil {
		closeFd(fd)
		return fmt.Errorf("publish UDP %v: %w", at, err)
	}
	s.flows.udp[key] = e
	return nil
}

// unlistenUDP closes the socket of a published port, and with it its flows.
func (s *Sockets) unlistenUDP(at netip.AddrPort) {
	s.mu.Lock()
	defer s.unlock()
	if e := s.flows.udp[publishedAt(at)]; e != nil {
		e.close()
	}
}

// unlock ends what somebody did who is not the worker: it has the port read if
// flows are to be ended.
func (s *Sockets) unlock() {
	var notify func()
	if len(s.ended) > 0 {
		notify = s.notify
	}
	s.mu.Unlock()
	if notify != nil {
		notify()
	}
}

// publishedAt is what the socket of a published port is found by. The address
// may be unspecified.
func publishedAt(at netip.AddrPort) localAddr {
	return localAddr{addr: packet.AddrFromNetip(at.Addr()), port: at.Port(), proto: packet.ProtoUDP}
}

func familyOf(at netip.AddrPort) int {
	if at.Addr().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// publishedOptions has a socket tell of each datagram whom the client spoke to.
func (s *Sockets) publishedOptions(fd, family int) {
	s.offloadUDP(fd)
	if family == unix.AF_INET {
		setInt(fd, unix.SOL_IP, unix.IP_PKTINFO, 1)
	}
}

func (s *Sockets) bindPublished(at netip.AddrPort) (fd int, errno unix.Errno) {
	family := familyOf(at)
	if fd, errno = newDatagram(family, unix.IPPROTO_UDP); errno != 0 {
		return -1, errno
	}
	s.publishedOptions(fd, family)
	if family == unix.AF_INET6 {
		errno = bind6(fd, at.Addr().As16(), at.Port(), zoneOf(at.Addr()))
	} else {
		errno = bind4(fd, at.Addr().As4(), at.Port())
	}
	if errno != 0 {
		closeFd(fd)
		return -1, errno
	}
	return fd, 0
}

// zoneOf is the number of the interface that is an address's zone; 0 is none.
func zoneOf(a netip.Addr) uint32 {
	if a.Zone() == "" {
		return 0
	}
	if n, err := strconv.ParseUint(a.Zone(), 10, 32); err == nil {
		return uint32(n)
	}
	dev, err := net.InterfaceByName(a.Zone())
	if err != nil {
		return 0
	}
	return uint32(dev.Index)
}

// giveWay closes those sockets of containers that have a port of the host only
// because it was free.
func (s *Sockets) giveWay(port uint16) (gave bool) {
	for _, e := range s.flows.udp {
		u, ok := e.(*udpSocket)
		if ok && !u.kept && sockname(u.fd).Port() == port {
			u.close()
			gave = true
		}
	}
	return gave
}

// anyAddr4 is 0.0.0.0.
var anyAddr4 = packet.AddrFrom4([4]byte{})

// publishedUDP returns the published port a packet leaves from: that of the
// client it goes to, or of its source.
func (s *Sockets) publishedUDP(k *packet.Tuple) *udpSocket {
	if c := s.standIns.client(k.Dst, k.DstPort); c != nil {
		e, _ := s.flows.udp[c.at].(*udpSocket)
		return e
	}
	e, _ := s.flows.udp[localAddr{addr: anyAddr4, port: k.SrcPort, proto: packet.ProtoUDP}].(*udpSocket)
	return e
}

// socketAt reports whether there is a socket for datagrams with a tuple.
func (s *Sockets) socketAt(k *packet.Tuple) bool {
	return s.flows.udp[localAddr{addr: k.Src, port: k.SrcPort, proto: k.Proto}] != nil ||
		k.Proto == packet.ProtoUDP && s.publishedUDP(k) != nil
}

// speakFrom has a message leave from an address of the host's (ip(7),
// IP_PKTINFO): the one the client spoke to.
func (e *udpSocket) speakFrom(io *datagramIO, from [4]byte) {
	if packet.AddrFrom4(from) == placeholder {
		return // the host has no address of its own; its routes know better
	}
	b := io.option(unix.SOL_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
	clear(b)
	copy(b[4:8], from[:]) // ipi_spec_dst
}

// spokenTo completes the tuple of what came to a published port: whom the client
// spoke to, and of a client of IPv6 who stands in for it.
func (e *udpSocket) spokenTo(t *packet.Tuple, a *arrival) bool {
	if e.family == unix.AF_INET {
		t.Dst = a.local
		return a.local.Is4()
	}
	c := client{addr: a.src, port: a.port, zone: a.zone, local: a.local, at: e.local}
	shown, replaced := e.s.standIns.standIn(c)
	if replaced != (packet.Tuple{}) {
		replaced.Dst = packet.HostIPv6
		e.s.ended = append(e.s.ended, replaced)
	}
	t.Src, t.Dst = shown, packet.HostIPv6
	return true
}

// address6 has a message go to a client of IPv6, from where it spoke to.
func (e *udpSocket) address6(io *datagramIO, f *packet.Frame, d *datagrams) {
	k := f.Tuple()
	c := e.s.standIns.client(k.Dst, k.DstPort)
	if c == nil {
		c = &client{} // the kernel refuses that
	}
	io.to6(c.addr, c.port, c.zone)
	io.number(unix.SOL_IPV6, unix.IPV6_HOPLIMIT, int(d.ttl))
	io.number(unix.SOL_IPV6, unix.IPV6_TCLASS, int(d.tos))
	b := io.option(unix.SOL_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
	copy(b, c.local[:])
	binary.NativeEndian.PutUint32(b[16:], c.zone)
}

// shown makes the addresses of an error about a packet to a client of IPv6 those
// the container knows; false when it does not know them anymore.
func (s *Sockets) shown(e *shared, report *hostError) bool {
	shown, ok := s.standIns.shown(client{addr: report.peer, port: report.port, local: report.local, at: e.local})
	report.peer, report.local = shown, packet.HostIPv6
	return ok
}
