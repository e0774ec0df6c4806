package sockets

import (
	"fmt"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"fairlead/loop"
	"fairlead/packet"
)

// Listen opens the host's socket of a published port. An unspecified IPv6
// address is of IPv6 alone; IPv4 has a listener of its own. The error wraps the
// kernel's: EADDRINUSE, EACCES, EMFILE.
//
// The host's kernel completes a TCP handshake before the container is asked. A
// client that is refused then sees its connection reset.
func (s *Sockets) Listen(proto packet.Proto, at netip.AddrPort) error {
	switch proto {
	case packet.ProtoTCP:
		return s.listenTCP(at)
	case packet.ProtoUDP:
		return s.listenUDP(at)
	}
	return fmt.Errorf("publish %v %v: %w", proto, at, unix.EPROTONOSUPPORT)
}

// Adopt is Listen with a socket that is bound to the address already, by somebody
// who may have such a port. The descriptor is the uplink's in every case. One of
// IPv6 may be of IPv4 too. It must be non-blocking, and stay so: accept(2) cannot
// be told not to wait.
func (s *Sockets) Adopt(proto packet.Proto, at netip.AddrPort, fd int) error {
	switch proto {
	case packet.ProtoTCP:
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.closed && s.tcp.listeners[at] == nil {
			return s.acceptFrom(fd, at)
		}
	case packet.ProtoUDP:
		s.mu.Lock()
		defer s.unlock()
		if !s.closed && s.flows.udp[publishedAt(at)] == nil {
			datagramOptions(fd, familyOf(at))
			s.publishedOptions(fd, familyOf(at))
			return s.receiveFrom(fd, at)
		}
	}
	closeFd(fd)
	return fmt.Errorf("publish %v %v: %w", proto, at, unix.EADDRINUSE)
}

// A Published is the host's socket of a published port.
type Published struct {
	Proto packet.Proto
	At    netip.AddrPort
	FD    int // the uplink's, valid while nobody calls Unlisten
}

// Published lists the sockets of published ports.
func (s *Sockets) Published() (list []Published) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for at, l := range s.tcp.listeners {
		list = append(list, Published{packet.ProtoTCP, at, l.fd})
	}
	for at, e := range s.flows.udp {
		if e, ok := e.(*udpSocket); ok && e.kept {
			list = append(list, Published{packet.ProtoUDP, netip.AddrPortFrom(at.addr.Netip(), at.port), e.fd})
		}
	}
	return list
}

// Unlisten closes the socket of a published port. TCP connections that it has
// accepted go on: they end with their flows.
func (s *Sockets) Unlisten(proto packet.Proto, at netip.AddrPort) {
	switch proto {
	case packet.ProtoTCP:
		s.unlistenTCP(at)
	case packet.ProtoUDP:
		s.unlistenUDP(at)
	}
}

// A listener is the socket of a published TCP port.
type listener struct {
	s      *Sockets
	fd     int
	source *loop.Source
	local  packet.Addr // what clients speak to; unspecified if each is asked
	port   uint16
	six    bool
}

const (
	// backlog is how many connections wait to be accepted; the kernel has its own
	// bound below that (net.core.somaxconn).
	backlog = 4096
	// acceptAtOnce bounds how many one turn accepts.
	acceptAtOnce = 32
)

func (s *Sockets) listenTCP(at netip.AddrPort) error {
	fail := func(call string, errno unix.Errno) error {
		return fmt.Errorf("publish TCP %v: %w", at, os.NewSyscallError(call, errno))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fail("socket", unix.ESHUTDOWN)
	}
	if s.tcp.listeners[at] != nil {
		return fail("bind", unix.EADDRINUSE)
	}
	fd, errno := newSocket(familyOf(at), unix.SOCK_STREAM, 0)
	if errno != 0 {
		return fail("socket", errno)
	}
	// Connections of an earlier listener may linger.
	setInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if at.Addr().Is4() {
		errno = bind4(fd, at.Addr().As4(), at.Port())
	} else {
		setInt(fd, unix.SOL_IPV6, unix.IPV6_V6ONLY, 1)
		errno = bind6(fd, at.Addr().As16(), at.Port(), zoneOf(at.Addr()))
	}
	if errno != 0 {
		closeFd(fd)
		return fail("bind", errno)
	}
	return s.acceptFrom(fd, at)
}

// acceptFrom has connections to a socket that is bound be accepted. The
// descriptor is closed after an error.
func (s *Sockets) acceptFrom(fd int, at netip.AddrPort) error {
	if errno := listenOn(fd); errno != 0 {
		closeFd(fd)
		return fmt.Errorf("publish TCP %v: %w", at, os.NewSyscallError("listen", errno))
	}
	l := &listener{s: s, fd: fd, local: packet.AddrFromNetip(at.Addr()), port: at.Port(), six: !at.Addr().Is4()}
	source, err := s.conf.Worker.Add(fd, loop.In, l)
	if err != nil {
		closeFd(fd)
		return fmt.Errorf("publish TCP %v: %w", at, err)
	}
	l.source = source
	s.tcp.listeners[at] = l
	return nil
}

func (s *Sockets) unlistenTCP(at netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.tcp.listeners[at]; l != nil {
		delete(s.tcp.listeners, at)
		l.close()
	}
}

func (l *listener) close() {
	l.source.Remove()
	closeFd(l.fd)
	l.fd = -1
}

// Ready accepts connections, called by the worker.
func (l *listener) Ready(int64, uint32) (again bool) {
	s := l.s
	s.mu.Lock()
	for range acceptAtOnce {
		if again = l.accept(); !again {
			break
		}
	}
	var notify func()
	if !s.ready.empty() {
		notify = s.notify
	}
	s.mu.Unlock()
	if notify != nil {
		notify()
	}
	return again
}

// accept takes one connection; false when there is none.
func (l *listener) accept() bool {
	if l.fd < 0 {
		return false
	}
	s := l.s
	var name [unix.SizeofSockaddrInet6]byte
	fd, size, errno := accept4(l.fd, &name)
	switch errno {
	case 0:
		s.tcp.keepSpare()
	case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
		if !s.tcp.refuseOne(l.fd) {
			return false
		}
		s.stats.Unaccepted.Add(1, loop.Clock())
		return true
	default: // the client may have left already (accept(2))
		return errno != unix.EAGAIN && errno != unix.EBADF && errno != unix.EINVAL
	}
	s.begun(l, fd, name[:size])
	return true
}

// begun makes a connection that was accepted one of a container.
func (s *Sockets) begun(l *listener, fd int, name []byte) {
	client, port := parseSockaddr(name)
	local := l.local
	switch {
	case l.six && !client.Is4():
		client, local = clientStandIn(fd), packet.HostIPv6
	case l.six || local == anyAddr4:
		local = packet.AddrFromNetip(sockname(fd).Addr())
	}
	c := &conn{state: synSent, bits: inbound | reopen, mss: defaultMSS}
	c.s, c.self, c.fd, c.unanswered = s, c, fd, true
	c.tuple = packet.Tuple{Src: client, SrcPort: port, Dst: local, DstPort: l.port, Proto: packet.ProtoTCP}
	// Whose it is the router knows, when the container answers.
	if !s.charge(0, c) || s.register(c, fd, connEvents) != nil {
		s.stats.Unaccepted.Add(1, loop.Clock())
		lingerNot(fd)
		c.hangUp()
		return
	}
	c.options()
	s.tcp.io.usePeekOffset(fd)
	c.initialSequence()
	s.spare(c.tuple)
	s.tcp.unnumbered[c.tuple.Reverse()] = c
	c.wake()
}

// fromRouter takes a packet that is of no flow: the router's own word on a
// connection from outside that it does not let in, or an ICMP error about one
// that was not answered yet.
func (s *Sockets) fromRouter(f *packet.Frame) {
	if f.L3 == 0 && packet.Parse(f) != packet.OK || f.L4 == 0 {
		return
	}
	k, refused := f.Tuple(), false
	switch f.Proto {
	case packet.ProtoTCP:
		refused = packet.TCP(f.Transport()).Flags()&packet.TCPRst != 0
	case packet.ProtoICMP:
		about, ok := f.Quoted()
		k, refused = about.Reverse(), ok && packet.ICMP(f.Transport()).Code() != packet.ICMPFragNeeded
	}
	if c := s.tcp.unnumbered[k]; c != nil && refused {
		c.abort(nothing)
	}
}

// clientStandIn is an address for a client of IPv6, which the container's packets
// cannot have: no other connection has the same as long as the descriptor is open.
func clientStandIn(fd int) packet.Addr { return packet.StandIn(uint32(fd) & 0x7fffff) }

// refuseOne resets a client when all descriptors but the spare one are in use:
// else the listener would be ready for ever. It is false when there is none, or
// nothing to accept it by.
func (t *tcp) refuseOne(listener int) bool {
	if t.spare < 0 {
		t.spare = openSpare() // somebody else was faster the last time
	}
	if t.keepSpare(); t.spare < 0 {
		return false
	}
	closeFd(t.spare)
	var name [unix.SizeofSockaddrInet6]byte
	fd, _, errno := accept4(listener, &name)
	if errno == 0 {
		lingerNot(fd)
		closeFd(fd)
	}
	t.spare = openSpare()
	return errno == 0
}

// keepSpare opens the spare descriptor again if another thread was faster when it
// was free for a moment.
func (t *tcp) keepSpare() {
	if t.spare < 0 {
		t.spare = openSpare()
	}
}

// openSpare opens a descriptor of nothing.
func openSpare() int {
	fd, _, errno := unix.RawSyscall(unix.SYS_EVENTFD2, 0, unix.EFD_CLOEXEC, 0)
	if errno != 0 {
		return -1
	}
	return int(fd)
}

func listenOn(fd int) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_LISTEN, uintptr(fd), backlog, 0)
	return errno
}

func accept4(fd int, name *[unix.SizeofSockaddrInet6]byte) (got, size int, errno unix.Errno) {
	length := uint32(len(name))
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(&length)),
			unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		if errno != unix.EINTR {
			return int(n), min(int(length), len(name)), errno
		}
	}
}
