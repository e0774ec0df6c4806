package sockets

import (
	"encoding/binary"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"fairlead/packet"
)

// A hostError is what the host's kernel says about a packet that left by one of
// its sockets: an ICMP error that came back, or its own refusal.
type hostError struct {
	origin     uint8 // unix.SO_EE_ORIGIN_…
	kind, code uint8 // of the ICMP message
	errno      unix.Errno
	info       uint32 // the MTU, of a packet that was too large

	offender packet.Addr // who said so; zero is the host itself
	local    packet.Addr // where the packet left from; zero is not known
	peer     packet.Addr // where it went
	port     uint16
	ttl, tos uint8 // of the message; a ttl of 0 is not known

	// payload is what the message quotes behind the transport header (of ping
	// sockets with it). Borrowed until the next error is read.
	payload []byte
}

// maxQuoted is how much payload a rebuilt error has: with it the message is as
// long as RFC 1812 4.3.2.3 wants it at most, 576 bytes.
const maxQuoted = 576 - 2*packet.IPv4MinLen - packet.ICMPLen - transportHead

// transportHead is what every error quotes of a transport header (RFC 792).
const transportHead = 8

// An errorReader is the memory errors are read into.
type errorReader struct {
	msg     unix.Msghdr
	iov     unix.Iovec
	name    [unix.SizeofSockaddrInet6]byte
	payload [maxQuoted]byte
	control [256]byte
}

// readError takes the oldest error off a socket's queue; false when there is
// none that can be understood. The queue may have others behind it then: it is
// empty when errno is EAGAIN.
func (s *Sockets) readError(fd int) (e hostError, ok bool, errno unix.Errno) {
	r := &s.errors
	r.iov.Base = &r.payload[0]
	r.iov.SetLen(len(r.payload))
	r.msg = unix.Msghdr{Name: &r.name[0], Namelen: uint32(len(r.name)), Iov: &r.iov, Control: &r.control[0]}
	r.msg.SetIovlen(1)
	r.msg.SetControllen(len(r.control))
	n, errno := recvmsg(fd, &r.msg, unix.MSG_ERRQUEUE)
	runtime.KeepAlive(r)
	if errno != 0 {
		return e, false, errno
	}
	e, ok = parseError(r.control[:min(int(r.msg.Controllen), len(r.control))], r.name[:min(int(r.msg.Namelen), len(r.name))], r.payload[:min(n, len(r.payload))])
	return e, ok, 0
}

// parseError reads what the kernel says beside an error: control messages, the
// address the packet went to, and what is quoted of it, which is borrowed.
func parseError(c control, name, payload []byte) (e hostError, ok bool) {
	for {
		level, kind, data, more := c.next()
		if !more {
			break
		}
		switch {
		case level == unix.SOL_IP && kind == unix.IP_RECVERR, level == unix.SOL_IPV6 && kind == unix.IPV6_RECVERR:
			if len(data) < sizeofExtendedErr {
				return e, false
			}
			e.errno = unix.Errno(binary.NativeEndian.Uint32(data))
			e.origin, e.kind, e.code = data[4], data[5], data[6]
			e.info = binary.NativeEndian.Uint32(data[8:])
			e.offender, _ = parseSockaddr(data[sizeofExtendedErr:])
			ok = true
		case level == unix.SOL_IP && kind == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			e.local = packet.AddrFrom4([4]byte(data[8:]))
		case level == unix.SOL_IPV6 && kind == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			e.local = packet.Addr(data[:16])
		default:
			readHop(level, kind, data, &e.ttl, &e.tos)
		}
	}
	e.peer, e.port = parseSockaddr(name)
	e.payload = payload
	return e, ok
}

// sizeofExtendedErr is that of struct sock_extended_err (linux/errqueue.h); the
// offender's address follows it.
const sizeofExtendedErr = 16

// localError is the host's own refusal of a packet that would have gone to peer.
func localError(errno unix.Errno, mtu uint32) hostError {
	return hostError{origin: unix.SO_EE_ORIGIN_LOCAL, errno: errno, info: mtu}
}

// icmp is the error as an ICMP message of IPv4: its type and code, and the four
// bytes behind its checksum. It is false when the container need not know.
func (e *hostError) icmp() (kind, code uint8, rest uint32, ok bool) {
	switch e.origin {
	case unix.SO_EE_ORIGIN_ICMP:
		switch {
		case e.kind == packet.ICMPUnreachable && e.code == packet.ICMPFragNeeded:
			return e.kind, e.code, min(e.info, maxPacket), true
		case e.kind == packet.ICMPUnreachable, e.kind == packet.ICMPTimeExceeded:
			return e.kind, e.code, 0, true
		case e.kind == packet.ICMPParameter:
			return e.kind, e.code, e.info << 24, true // the place of the fault
		}
	case unix.SO_EE_ORIGIN_ICMP6:
		return e.icmp6()
	case unix.SO_EE_ORIGIN_LOCAL:
		return e.refusal()
	}
	return 0, 0, 0, false
}

// icmp6 translates an ICMPv6 error as RFC 7915 section 5.2 does.
func (e *hostError) icmp6() (kind, code uint8, rest uint32, ok bool) {
	switch e.kind {
	case packet.ICMPv6Unreachable:
		switch e.code {
		case packet.ICMPv6AdminProhibited:
			return packet.ICMPUnreachable, packet.ICMPAdminProhibited, 0, true
		case packet.ICMPv6PortUnreachable:
			return packet.ICMPUnreachable, packet.ICMPPortUnreachable, 0, true
		}
		return packet.ICMPUnreachable, packet.ICMPHostUnreachable, 0, true
	case packet.ICMPv6PacketTooBig:
		mtu := max(e.info, packet.IPv6Len) - (packet.IPv6Len - packet.IPv4MinLen)
		return packet.ICMPUnreachable, packet.ICMPFragNeeded, min(mtu, maxPacket), true
	case packet.ICMPv6TimeExceeded:
		return packet.ICMPTimeExceeded, e.code, 0, true
	case packet.ICMPv6Parameter:
		return packet.ICMPUnreachable, packet.ICMPProtoUnreachable, 0, true
	}
	return 0, 0, 0, false
}

// refusal says for the host what a router in its place would say.
func (e *hostError) refusal() (kind, code uint8, rest uint32, ok bool) {
	code = packet.ICMPHostUnreachable
	switch e.errno {
	case unix.EMSGSIZE:
		code, rest = packet.ICMPFragNeeded, min(e.info, maxPacket)
	case unix.ENETUNREACH:
		code = packet.ICMPNetUnreachable
	case unix.EACCES, unix.EPERM:
		code = packet.ICMPAdminProhibited
	case unix.ECONNREFUSED:
		code = packet.ICMPPortUnreachable
	case unix.EHOSTUNREACH, unix.EHOSTDOWN, unix.ENETDOWN, unix.ETIMEDOUT:
	default:
		return 0, 0, 0, false
	}
	return packet.ICMPUnreachable, code, rest, true
}

// errorFrame adds an ICMP error for the container to b: it comes from the
// offender and quotes the packet with tuple t, from the router to outside, whose
// header was h.
func (s *Sockets) errorFrame(b *packet.Batch, e *hostError, t *packet.Tuple, h *sent) {
	kind, code, rest, ok := e.icmp()
	if !ok || !t.Src.Is4() || !t.Dst.Is4() {
		return
	}
	from := e.offender
	switch {
	case from.Is4():
	case e.origin == unix.SO_EE_ORIGIN_LOCAL:
		from = s.Addr()
	default:
		from = t.Dst
	}
	payload := e.payload[:min(len(e.payload), maxQuoted)]
	if len(payload) == 0 && h != nil {
		payload = h.data[:min(len(h.data), int(h.length)-packet.IPv4MinLen-transportHead)]
	}
	out := ipv4{
		tuple:  packet.Tuple{Src: from, Dst: t.Src, Proto: packet.ProtoICMP},
		length: packet.ICMPLen + packet.IPv4MinLen + transportHead + len(payload),
		tos:    e.tos, ttl: e.ttl, id: s.nextID(1),
	}
	if out.ttl == 0 {
		out.ttl = defaultTTL
	}
	message := packet.ICMP(headers(b.Room(), &out))
	clear(message[:packet.ICMPLen])
	message.SetType(kind)
	message.SetCode(code)
	message.SetMTU(rest)
	h.quote(message.Data(), t, payload, kind == packet.ICMPTimeExceeded)
	message.UpdateChecksum(0)
	b.Add(headRoom + packet.IPv4MinLen + out.length)
}

// defaultTTL is that of packets of the host's own.
const defaultTTL = 64

// A sent is the header of a packet that left by a socket: what an error about it
// quotes, and programs that trace routes know their packets by. 32 bytes.
type sent struct {
	src, dst   [4]byte
	head, data [8]byte // what the transport header and the payload begin with
	id, length uint16
	tos, ttl   uint8
	flags      sentFlags
	proto      packet.Proto
}

type sentFlags uint8

const (
	sentDF      sentFlags = 1 << iota
	sentPartial           // its checksum was unfinished
	sentQuoted            // an error was about it
)

// headerOf is the header of a parsed frame, of a train that of its first packet.
func headerOf(f *packet.Frame) (h sent) {
	ip := packet.IPv4(f.Packet())
	h = sent{src: ip.Src(), dst: ip.Dst(), id: ip.ID(), tos: ip.TOS(), ttl: ip.TTL(), proto: ip.Proto()}
	h.length = uint16(ip.TotalLen() - len(ip.Options())) // of what is quoted
	if ip.DontFragment() {
		h.flags |= sentDF
	}
	t := f.Transport()
	copy(h.head[:], t)
	if len(t) > transportHead {
		copy(h.data[:], t[transportHead:])
	}
	if f.Flags.Has(packet.NeedsChecksum) && f.Proto == packet.ProtoUDP {
		h.flags |= sentPartial
		if f.Segments() > 1 {
			size := packet.UDPLen + int(f.VNet().GSOSize())
			packet.UDP(h.head[:]).SetLen(size)
			h.length = uint16(packet.IPv4MinLen + size)
		}
	}
	return h
}

// quote writes the packet as an error quotes it: IPv4 header, the first bytes of
// the transport header, and payload. A router that found the time exceeded had
// it as 1 (expired). With a nil h nothing is known but the tuple.
func (h *sent) quote(dst []byte, t *packet.Tuple, payload []byte, expired bool) {
	var unknown sent
	if h == nil {
		h = &unknown
		h.length, h.ttl = uint16(packet.IPv4MinLen+transportHead+len(payload)), 1
		binary.BigEndian.PutUint16(h.head[0:], t.SrcPort)
		binary.BigEndian.PutUint16(h.head[2:], t.DstPort)
		switch t.Proto {
		case packet.ProtoUDP:
			packet.UDP(h.head[:]).SetLen(transportHead + len(payload))
		case packet.ProtoICMP:
			h.head = [8]byte{0: packet.ICMPEcho, 4: byte(t.SrcPort >> 8), 5: byte(t.SrcPort)}
		}
	}
	ip := packet.IPv4(dst)
	clear(ip[:packet.IPv4MinLen])
	ip.SetHeaderLen(packet.IPv4MinLen)
	ip.SetTOS(h.tos)
	ip.SetTotalLen(int(h.length))
	ip.SetID(h.id)
	ip.SetFragment(h.flags&sentDF != 0, false, 0)
	ip.SetTTL(h.ttl)
	if expired {
		ip.SetTTL(1)
	}
	ip.SetProto(t.Proto)
	ip.SetSrc([4]byte(t.Src[12:]))
	ip.SetDst([4]byte(t.Dst[12:]))
	ip.UpdateChecksum()
	transport := dst[packet.IPv4MinLen:]
	copy(transport, h.head[:])
	copy(transport[transportHead:], payload)
	if h.flags&sentPartial != 0 {
		finish(packet.UDP(transport), t)
	}
}

// finish computes the checksum of a quoted datagram that had an unfinished one,
// if all of it is quoted; else it has none (RFC 768).
func finish(u packet.UDP, t *packet.Tuple) {
	if u.Len() > len(u) || u.Len() < packet.UDPLen {
		u.SetChecksum(0)
		return
	}
	u.UpdateChecksum(packet.PseudoSum4([4]byte(t.Src[12:]), [4]byte(t.Dst[12:]), packet.ProtoUDP, u.Len()))
}

// A sentRing is the headers that left by a socket last: as many as traceroute
// has on the way at once.
type sentRing struct {
	list [16]sent
	next uint8
}

func (r *sentRing) add(h sent) {
	r.list[r.next%uint8(len(r.list))] = h
	r.next++
}

// find returns the header an error is about: the oldest of those it fits that no
// error was about yet, else the newest. It is nil when none fits.
func (r *sentRing) find(e *hostError, proto packet.Proto) (best *sent) {
	if r == nil {
		return nil
	}
	if e.origin == unix.SO_EE_ORIGIN_LOCAL {
		// It came from the call that was to send the packet, and quotes nothing.
		h := &r.list[(r.next-1)%uint8(len(r.list))]
		if h.length == 0 || packet.AddrFrom4(h.dst) != e.peer {
			return nil
		}
		return h
	}
	for i := range r.list {
		h := &r.list[(int(r.next)+i)%len(r.list)]
		if h.length == 0 || packet.AddrFrom4(h.dst) != e.peer || !h.begins(e, proto) {
			continue
		}
		if h.flags&sentQuoted == 0 {
			h.flags |= sentQuoted
			return h
		}
		best = h
	}
	return best
}

// begins reports whether the packet began with what an error quotes.
func (h *sent) begins(e *hostError, proto packet.Proto) bool {
	quoted := e.payload
	if proto == packet.ProtoICMP { // the sequence number; the identifier was the host's own
		if len(quoted) < packet.ICMPLen || packet.ICMP(quoted).Seq() != packet.ICMP(h.head[:]).Seq() {
			return false
		}
		quoted = quoted[packet.ICMPLen:]
	} else if binary.BigEndian.Uint16(h.head[2:]) != e.port {
		return false
	}
	n := min(len(quoted), len(h.data), max(0, int(h.length)-packet.IPv4MinLen-transportHead))
	return string(quoted[:n]) == string(h.data[:n])
}

// A control is what the kernel says beside a message (cmsg(3)).
type control []byte

// next returns the first control message and takes it off.
func (c *control) next() (level, kind int32, data []byte, ok bool) {
	const header = unix.SizeofCmsghdr
	b := *c
	if len(b) < header {
		return 0, 0, nil, false
	}
	size := nativeLen(b)
	if size < header || size > uint64(len(b)) {
		return 0, 0, nil, false
	}
	at := int(unsafe.Sizeof(uintptr(0))) // of the level, behind the length
	level, kind = int32(binary.NativeEndian.Uint32(b[at:])), int32(binary.NativeEndian.Uint32(b[at+4:]))
	*c = b[min(unix.CmsgSpace(int(size)-header), len(b)):]
	return level, kind, b[header:size], true
}

// nativeLen reads a size_t.
func nativeLen(b []byte) uint64 {
	if unsafe.Sizeof(uintptr(0)) == 4 {
		return uint64(binary.NativeEndian.Uint32(b))
	}
	return binary.NativeEndian.Uint64(b)
}

// readHop reads a message's time to live and type of service, if it is that.
func readHop(level, kind int32, data []byte, ttl, tos *uint8) {
	switch {
	case len(data) == 0:
	case level == unix.SOL_IP && kind == unix.IP_TOS:
		*tos = data[0]
	case len(data) < 4:
	case level == unix.SOL_IP && kind == unix.IP_TTL, level == unix.SOL_IPV6 && kind == unix.IPV6_HOPLIMIT:
		*ttl = uint8(binary.NativeEndian.Uint32(data))
	case level == unix.SOL_IPV6 && kind == unix.IPV6_TCLASS:
		*tos = uint8(binary.NativeEndian.Uint32(data))
	}
}

// parseSockaddr reads an IPv4 or IPv6 address as the kernel has it; zero when it
// is none.
func parseSockaddr(b []byte) (a packet.Addr, port uint16) {
	if len(b) < 2 {
		return a, 0
	}
	switch family := binary.NativeEndian.Uint16(b); {
	case family == unix.AF_INET && len(b) >= 8:
		return packet.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:])
	case family == unix.AF_INET6 && len(b) >= 24:
		return packet.Addr(b[8:24]), binary.BigEndian.Uint16(b[2:])
	}
	return a, 0
}
