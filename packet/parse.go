package packet

import "encoding/binary"

// Parse reads the frame's headers once and fills the record beside the bytes.
// It returns OK, or why the frame is malformed; the record is valid after OK
// only.
//
// L4 is set exactly when a whole TCP, UDP, ICMP (in IPv4) or ICMPv6 (in IPv6)
// header is there to read. Any other protocol, a later fragment, an EtherType
// that is not IP and an IEEE 802.3 frame (EtherType 0) are no faults: a switch
// forwards them, with L4 zero. Nor is padding behind the network packet.
// Checksums are for the receiver to verify.
func Parse(f *Frame) Reason {
	f.L3, f.L4, f.SrcPort, f.DstPort = 0, 0, 0, 0
	f.EtherType, f.Proto, f.Flags = 0, 0, f.Flags&Resumed
	f.VLAN, f.Tags = [MaxVLANTags]uint16{}, 0
	if len(f.B) < VNetLen+EthernetLen {
		return Truncated
	}
	r := f.parseEthernet()
	if r != OK {
		return r
	}
	switch f.EtherType {
	case EtherTypeIPv4:
		r = f.parseIPv4()
	case EtherTypeIPv6:
		r = f.parseIPv6()
	case EtherTypeARP:
		if !ARP(f.Ether()[f.L3:]).Valid() {
			r = BadARP
		}
	}
	if r != OK || f.VNet().IsZero() {
		return r
	}
	return f.parseVNet()
}

// parseEthernet reads MACs and tags.
func (f *Frame) parseEthernet() Reason {
	b := f.Ether()
	if dst := Ethernet(b).Dst(); dst.IsGroup() {
		f.Flags |= Multicast
		if dst == BroadcastMAC {
			f.Flags |= Broadcast
		}
	}
	t, l3 := Ethernet(b).Type(), EthernetLen
	for t.IsTag() {
		if f.Tags == MaxVLANTags {
			return TooManyTags
		}
		if len(b) < l3+VLANLen {
			return Truncated
		}
		f.VLAN[f.Tags] = binary.BigEndian.Uint16(b[l3:])
		f.Tags++
		t = EtherType(binary.BigEndian.Uint16(b[l3+2:]))
		l3 += VLANLen
	}
	if t < minEtherType {
		t = 0
	}
	f.EtherType, f.L3 = t, uint8(l3)
	return OK
}

func (f *Frame) parseIPv4() Reason {
	ip := IPv4(f.Ether()[f.L3:])
	if len(ip) < IPv4MinLen {
		return Truncated
	}
	if !ip.Valid() {
		return BadIPv4
	}
	f.Proto = ip.Proto()
	payload := ip.Payload()
	if ip.IsFragment() {
		offset := ip.FragmentOffset()
		// The whole datagram's total length has to fit sixteen bits too.
		if offset+ip.TotalLen() > 65535 {
			return BadFragment
		}
		if r := f.parseFragment(offset, len(payload), ip.MoreFragments()); r != OK {
			return r
		}
	}
	return f.parseTransport(int(f.L3)+ip.HeaderLen(), payload)
}

func (f *Frame) parseIPv6() Reason {
	ip := IPv6(f.Ether()[f.L3:])
	if len(ip) < IPv6Len {
		return Truncated
	}
	if !ip.Valid() {
		return BadIPv6
	}
	end := IPv6Len + ip.PayloadLen()
	upper, r := ip.upperLayer(end)
	if r != OK {
		return r
	}
	f.Proto = upper.proto
	if upper.fragment != 0 {
		h := fragmentHeader(ip[upper.fragment:])
		part := upper.fragment + fragmentHeaderLen
		// The whole packet's payload length has to fit sixteen bits too.
		if h.offset()+end-IPv6Len-fragmentHeaderLen > 65535 {
			return BadFragment
		}
		// Neither offset nor more to come: an atomic fragment, which is whole
		// (RFC 6946).
		if h.offset() != 0 || h.more() {
			if r := f.parseFragment(h.offset(), end-part, h.more()); r != OK {
				return r
			}
		}
	}
	return f.parseTransport(int(f.L3)+upper.offset, ip[upper.offset:end])
}

// parseFragment checks and flags one fragment: size bytes at offset.
func (f *Frame) parseFragment(offset, size int, more bool) Reason {
	if size == 0 || more && size%8 != 0 {
		return BadFragment
	}
	// At offset 8 it would overwrite the flags of a TCP header that a filter
	// has seen in the first fragment (RFC 1858).
	if offset == 8 && f.Proto == ProtoTCP {
		return BadFragment
	}
	f.Flags |= Fragment
	if offset != 0 {
		f.Flags |= LaterFragment
	}
	return OK
}

// parseTransport reads ports from t, the payload of the network packet, which
// begins l4 bytes into the frame.
func (f *Frame) parseTransport(l4 int, t []byte) Reason {
	if f.Flags.Has(LaterFragment) {
		return OK
	}
	switch f.Proto {
	case ProtoTCP:
		if !TCP(t).Valid() {
			return BadTransport
		}
		f.SrcPort, f.DstPort = TCP(t).SrcPort(), TCP(t).DstPort()
	case ProtoUDP:
		// The length of a first fragment is that of the whole datagram.
		u := UDP(t)
		if len(u) < UDPLen || u.Len() < UDPLen || u.Len() > len(u) && !f.Flags.Has(Fragment) {
			return BadTransport
		}
		f.SrcPort, f.DstPort = u.SrcPort(), u.DstPort()
	case ProtoICMP, ProtoICMPv6:
		if (f.Proto == ProtoICMP) != (f.EtherType == EtherTypeIPv4) {
			return OK // the other family's: nothing anybody understands
		}
		m := ICMP(t)
		if !m.Valid() {
			return BadTransport
		}
		f.SrcPort, f.DstPort = m.ports(f.Proto)
	default:
		return OK
	}
	f.L4 = uint16(l4)
	return OK
}

// parseVNet checks a virtio-net header that says something against the frame.
// It refuses what the kernel refuses (__virtio_net_hdr_to_skb and
// tun_vnet_hdr_get), and what contradicts the headers read before.
func (f *Frame) parseVNet() Reason {
	v, size := f.VNet(), f.Len()
	if v.Flags()&^(VNetNeedsCSum|VNetDataValid) != 0 {
		return BadVNet
	}
	hdrLen := int(v.HdrLen())
	if v.Flags()&VNetNeedsCSum != 0 {
		if !f.checksumStartOK() {
			return BadVNet
		}
		hdrLen = max(hdrLen, int(v.CSumStart())+int(v.CSumOffset())+2)
	}
	if hdrLen > size || hdrLen != 0 && hdrLen < EthernetLen {
		return BadVNet
	}
	if v.GSOType() != GSONone {
		if !f.gsoOK() {
			return BadVNet
		}
		f.Flags |= GSO
	}
	return OK
}

// checksumStartOK checks where a NEEDS_CSUM header wants the sum, and flags a
// frame whose own transport checksum it is.
//
// The sum may also begin deeper: a container's tunnel (VXLAN, GRE) leaves the
// inner packet's checksum unfinished, and that of the outer UDP header, if it
// has one, is final. Such a frame passes without the flag.
func (f *Frame) checksumStartOK() bool {
	v := f.VNet()
	start, offset := int(v.CSumStart()), int(v.CSumOffset())
	if f.Flags.Has(Fragment) || f.EtherType == EtherTypeARP {
		return false
	}
	if f.L4 != 0 && start == int(f.L4) {
		f.Flags |= NeedsChecksum
		return f.Proto == ProtoTCP && offset == TCPChecksumOffset ||
			f.Proto == ProtoUDP && offset == UDPChecksumOffset
	}
	least := int(f.L3) + IPv4MinLen // no network header is shorter
	switch {
	case f.L4 != 0 && f.Proto != ProtoUDP:
		return false // no tunnel
	case f.L4 != 0:
		least = int(f.L4) + UDPLen
	case f.EtherType == EtherTypeIPv6:
		least = int(f.L3) + IPv6Len
	}
	return start >= least && start+offset+2 <= f.packetEnd()
}

// gsoOK checks what a GSO header says of a frame whose checksum was checked.
func (f *Frame) gsoOK() bool {
	v := f.VNet()
	// 0xffff is the kernel's mark GSO_BY_FRAGS. A packet that does not end
	// with the frame, or whose checksum is finished, was not made by a kernel.
	if v.GSOSize() == 0 || v.GSOSize() == 0xffff ||
		!f.Flags.Has(NeedsChecksum) || f.packetEnd() != f.Len() {
		return false
	}
	switch v.GSOType() {
	case GSOTCPv4, GSOTCPv4 | GSOECN:
		return f.Proto == ProtoTCP && f.EtherType == EtherTypeIPv4
	case GSOTCPv6, GSOTCPv6 | GSOECN:
		return f.Proto == ProtoTCP && f.EtherType == EtherTypeIPv6
	case GSOUDPL4:
		u := f.Transport()
		return f.Proto == ProtoUDP && UDP(u).Len() == len(u) &&
			len(u)-UDPLen <= int(v.GSOSize())*USOMaxSegments
	}
	return false
}

// packetEnd is where the network packet ends and padding begins, counted from
// the Ethernet header. Without IP it is the end of the frame.
func (f *Frame) packetEnd() int {
	switch f.EtherType {
	case EtherTypeIPv4:
		return int(f.L3) + IPv4(f.Ether()[f.L3:]).TotalLen()
	case EtherTypeIPv6:
		return int(f.L3) + IPv6Len + IPv6(f.Ether()[f.L3:]).PayloadLen()
	}
	return f.Len()
}

// Packet returns the network packet without padding. Borrowed like B. Valid
// after Parse returned OK.
func (f *Frame) Packet() []byte { return f.Ether()[f.L3:f.packetEnd()] }

// Transport returns the transport header and what follows it, without padding.
// Borrowed like B. Valid after Parse returned OK with L4 set.
func (f *Frame) Transport() []byte { return f.Ether()[f.L4:f.packetEnd()] }

// FragmentID is the identification that the fragments of a datagram share. Valid
// after Parse returned OK for frames with Flags.Fragment.
func (f *Frame) FragmentID() uint32 {
	if f.EtherType == EtherTypeIPv4 {
		return uint32(IPv4(f.Ether()[f.L3:]).ID())
	}
	ip := IPv6(f.Packet())
	upper, _ := ip.upperLayer(len(ip))
	return fragmentHeader(ip[upper.fragment:]).id()
}
