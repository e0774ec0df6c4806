package sockets

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"fairlead/packet"
)

// A udpSocket is the host's socket of one mapping of NAT: what a container sends
// from one port leaves by it, to whomever (RFC 4787 REQ-1), and what comes is
// given to the router, which filters. A published port's is one too, see
// udplisten.go.
type udpSocket struct {
	shared
	// tooLarge bounds what trains are made of: datagrams of that size were
	// refused as one. Zero is no bound yet.
	tooLarge int
	ahead    uint8 // how many datagrams are read at once behind others, as a power of two
}

// udpEndpoint returns the socket of the mapping a datagram leaves by.
func (s *Sockets) udpEndpoint(f *packet.Frame, k packet.Tuple) (endpoint, packet.Reason) {
	at := localAddr{addr: k.Src, port: k.SrcPort, proto: packet.ProtoUDP}
	have, free := s.find(at, f.Container)
	if !free {
		return nil, packet.SocketBudget
	}
	e, _ := have.(*udpSocket)
	if e == nil {
		e = s.publishedUDP(&k)
	}
	if e == nil {
		e = new(udpSocket)
		if reason := s.openShared(e, at, f.Container, func() (int, unix.Errno) { return s.newUDP(k.SrcPort) }); reason != packet.OK {
			return nil, reason
		}
	}
	s.join(e, f.Flow, k)
	return e, packet.OK
}

// newUDP opens a socket of a mapping, on the same port as the mapping if the
// host has it free (RFC 4787 section 4.2.1: port preservation).
func (s *Sockets) newUDP(port uint16) (int, unix.Errno) {
	fd, errno := newDatagram(unix.AF_INET, unix.IPPROTO_UDP)
	if errno != 0 {
		return -1, errno
	}
	s.offloadUDP(fd)
	if port < firstUnprivileged || bind4(fd, [4]byte{}, port) != 0 {
		if errno := bind4(fd, [4]byte{}, 0); errno != 0 {
			closeFd(fd)
			return -1, errno
		}
	}
	return fd, 0
}

// firstUnprivileged is the first port that is nobody's service. A node that may
// take the others leaves them to whoever is asked to serve there.
const firstUnprivileged = 1024

// offloadUDP has the kernel hand over trains of datagrams as it got them.
func (s *Sockets) offloadUDP(fd int) {
	setInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1)
	if !s.conf.NoUDPOffload {
		setInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1) // not before Linux 5.0
	}
}

// write sends datagrams, as many as possible by one call.
func (e *udpSocket) write(frames []*packet.Frame, _ int64) (done int, reason packet.Reason) {
	for done < len(frames) {
		n, reason := e.writeTrain(frames[done:])
		done += n
		if reason != packet.OK {
			return done, reason
		}
	}
	return done, packet.OK
}

// A datagrams is what a frame has for a socket.
type datagrams struct {
	payload  []byte
	size     int // of each, the last one may be shorter
	ttl, tos uint8
	df       bool

	options, noChecksum bool // which a socket does not keep
}

// look reads a frame; false when its checksum is wrong.
func look(f *packet.Frame) (d datagrams, ok bool) {
	ip, u := packet.IPv4(f.Packet()), packet.UDP(f.Transport())
	d = datagrams{payload: u.Payload(), ttl: ip.TTL(), tos: ip.TOS(), df: ip.DontFragment()}
	d.size = len(d.payload)
	if f.Flags.Has(packet.GSO) {
		d.size = min(d.size, int(f.VNet().GSOSize()))
	}
	d.options = len(ip.Options()) > 0
	switch {
	case f.Flags.Has(packet.NeedsChecksum):
	case u.Checksum() == 0:
		d.noChecksum = true
	case packet.Sum(u[:u.Len()], packet.PseudoSum4(ip.Src(), ip.Dst(), packet.ProtoUDP, u.Len())) != 0xffff:
		return d, false
	}
	return d, true
}

// altered counts what was not kept of a frame that left.
func (s *Sockets) altered(f *packet.Frame, d *datagrams) {
	if d.options {
		s.stats.Options.Add(1, f.Time)
	}
	if d.noChecksum {
		s.stats.NoChecksum.Add(1, f.Time)
	}
}

// writeTrain sends the first frame, and with it those behind it that differ in
// nothing but payload (UDP_SEGMENT, udp(7)).
func (e *udpSocket) writeTrain(frames []*packet.Frame) (n int, reason packet.Reason) {
	first, ok := look(frames[0])
	if !ok {
		e.s.stats.Damaged.Add(1, frames[0].Time)
		return 0, packet.BadTransport
	}
	if !e.joins(&first) || len(first.payload) > maxTrain*first.size {
		return e.writeOne(frames[0], &first)
	}
	io := &e.s.datagrams
	io.begin()
	io.piece(first.payload)
	n, segments := 1, (len(first.payload)+first.size-1)/first.size
	for n < len(frames) && io.size%first.size == 0 { // else the last one was shorter
		next, ok := look(frames[n])
		if !ok || !next.like(&first) {
			break
		}
		segments += (len(next.payload) + first.size - 1) / first.size
		if segments > maxTrain || io.size+len(next.payload) > maxPayload {
			break
		}
		io.piece(next.payload)
		e.s.altered(frames[n], &next)
		n++
	}
	if segments == 1 {
		return e.writeOne(frames[0], &first)
	}
	e.address(io, frames[0], &first)
	putTrain(io, first.size)
	switch errno := io.send(e.fd); errno {
	case 0:
		e.s.altered(frames[0], &first)
		return n, packet.OK
	case unix.EINVAL, unix.EMSGSIZE, unix.EIO:
		e.refusedTrain(errno, first.size)
		return 0, packet.OK // once more, one by one
	default:
		return 0, e.refuse(frames[0], errno)
	}
}

// joins reports whether datagrams like that can be part of a train.
func (e *udpSocket) joins(d *datagrams) bool {
	return !e.s.conf.NoUDPOffload && d.size > 0 && (e.tooLarge == 0 || d.size < e.tooLarge)
}

// refusedTrain notes that trains of datagrams of a size do not leave: they are
// larger than the way's MTU, or the device cannot sum (EIO).
func (e *udpSocket) refusedTrain(errno unix.Errno, size int) {
	e.tooLarge = size
	if errno == unix.EIO {
		e.tooLarge = 1
	}
}

// like reports whether datagrams can follow others in a train.
func (d *datagrams) like(first *datagrams) bool {
	return d.ttl == first.ttl && d.tos == first.tos && d.df == first.df && len(d.payload) > 0 &&
		(d.size == first.size || d.size < first.size && d.size == len(d.payload))
}

// writeOne sends the datagrams of one frame, in as few calls as possible.
func (e *udpSocket) writeOne(f *packet.Frame, d *datagrams) (n int, reason packet.Reason) {
	step := d.size
	if e.joins(d) {
		step *= min(maxTrain, maxPayload/d.size)
	}
	io := &e.s.datagrams
	for rest := d.payload; ; {
		part := rest[:min(step, len(rest))]
		io.begin()
		io.piece(part)
		e.address(io, f, d)
		if len(part) > d.size {
			putTrain(io, d.size)
		}
		errno := io.send(e.fd)
		if len(part) > d.size && (errno == unix.EINVAL || errno == unix.EMSGSIZE || errno == unix.EIO) {
			e.refusedTrain(errno, d.size)
			step = d.size
			continue
		}
		if errno != 0 {
			return 0, e.refuse(f, errno)
		}
		if rest = rest[len(part):]; len(rest) == 0 {
			e.s.altered(f, d)
			return 1, packet.OK
		}
	}
}

// putTrain has the kernel cut a message into datagrams.
func putTrain(io *datagramIO, size int) {
	binary.NativeEndian.PutUint16(io.option(unix.SOL_UDP, unix.UDP_SEGMENT, 2), uint16(size))
}

// address says where a message goes and with which header.
func (e *udpSocket) address(io *datagramIO, f *packet.Frame, d *datagrams) {
	ip := packet.IPv4(f.Packet())
	e.sends(f)
	e.df.set(e.fd, e.family, d.df)
	if e.family == unix.AF_INET6 {
		e.address6(io, f, d)
		return
	}
	io.to4(ip.Dst(), f.DstPort)
	io.number(unix.SOL_IP, unix.IP_TTL, int(d.ttl))
	io.number(unix.SOL_IP, unix.IP_TOS, int(d.tos))
	if e.kept {
		e.speakFrom(io, ip.Src())
	}
}
