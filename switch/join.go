package vswitch

import (
	"encoding/binary"

	"fairlead/link"
	"fairlead/packet"
)

// Bounds of a train.
const (
	// maxJoined is how many packets it may have: the most datagrams kernels before
	// 6.9 take as one frame (UDP_MAX_SEGMENTS).
	maxJoined = 64
	// maxCopied is how long a frame may be that is copied into one. To copy more
	// costs more than the write it saves.
	maxCopied = 2048
	// maxLength is the most a length field of IP can say.
	maxLength = 65535
)

// A joiner makes trains of the frames that go to one port at the same time:
// datagrams of a flow become one frame with USO, TCP segments one with TSO. The
// receiver's network stack runs inside the write, once for each frame, and that
// is most of what a small one costs.
//
// What it makes is cut into the very packets it was made of (packet.Segmenter, and
// every kernel), but for one field: the identifications of IPv4 count up from the
// first one's. They mean nothing in a packet that may not be fragmented, and
// nobody may rely on them (RFC 6864 section 4.1). So it joins only what is alike:
//
//   - read from one port in one batch, each for one receiver
//   - TCP or UDP with an unfinished checksum: nobody has to verify it, and what was
//     damaged on its way here does not come out sound
//   - the same MACs, VLAN tags, addresses, ports, TTL, TOS and ECN, flow label; no IP
//     options, no extension headers, DF set, a sound header checksum
//   - UDP: not of DHCP, whose clients read packet sockets, and no empty datagrams
//   - TCP: data, ACK and nothing else set but PSH on the last one; next to one
//     another, with the same acknowledgement, window and option bytes
//   - all but the last one are of one size
//
// A frame of a flow that cannot join ends the flow's train, so a flow stays in
// order. A frame that is not known to belong to one ends them all: it could be a
// fragment. Frames of different flows may pass one another.
//
// It allocates nothing, and is part of a lane. What it returns borrows its room
// and the frames it was given until it is called again.
type joiner struct {
	slots   [256]uint8 // by hash of the flow: its last train, counted from 1; 0 is free
	trains  []train    // in the order of their first frames
	barrier int        // trains before it are closed
	next    [maxStaged]uint8

	out    []*packet.Frame
	joined []packet.Frame
	room   []byte // bytes of joined
}

// A train is one of the frames that were given, or several joined.
type train struct {
	first, last uint8 // of the frames; joiner.next leads from one to the other
	frames      uint8
	open        bool // one more may join
	looked      bool // what follows is known; a lone frame is not looked at

	part           // of all frames together
	seq     uint32 // TCP: of what may join
	pseudo  uint16 // see pseudoSum
	packets int
}

// A part is what a frame brings into a train.
type part struct {
	headers int // their length, from the Ethernet header on
	size    int // payload of each packet, but for the last one
	payload int
	end     bool // nothing may follow: it ends with a shorter packet, or PSH
}

func newJoiner() *joiner {
	return &joiner{
		trains: make([]train, 0, maxStaged),
		out:    make([]*packet.Frame, 0, maxStaged),
		joined: make([]packet.Frame, 0, maxStaged/2),
		room:   make([]byte, maxStaged*maxCopied),
	}
}

// join returns the frames to write instead of those given, at most maxStaged, to a
// link that takes o, and beside each the train it is. Where nothing is joined it
// returns the frames themselves and no trains.
func (j *joiner) join(frames []*packet.Frame, o link.Offload) ([]*packet.Frame, []train) {
	j.slots, j.trains, j.barrier = [256]uint8{}, j.trains[:0], 0
	for i, f := range frames {
		j.add(frames, i, mayJoin(f, o))
	}
	if len(j.trains) == len(frames) {
		return frames, nil
	}
	j.out, j.joined = j.out[:0], j.joined[:0]
	used := 0
	for i := range j.trains {
		t := &j.trains[i]
		f := frames[t.first]
		if t.frames > 1 {
			j.joined = append(j.joined, j.build(frames, t, j.room[used:]))
			f = &j.joined[len(j.joined)-1]
			used += len(f.B)
		}
		j.out = append(j.out, f)
	}
	return j.out, j.trains
}

// add puts frame i into the train of its flow, or begins one.
func (j *joiner) add(frames []*packet.Frame, i int, may bool) {
	n := len(j.trains)
	if !may {
		j.barrier = n + 1
		j.trains = append(j.trains, train{first: uint8(i), last: uint8(i), frames: 1})
		return
	}
	f := frames[i]
	slot := flowHash(f)
	for ; j.slots[slot] != 0; slot++ { // there are twice as many as frames
		k := int(j.slots[slot]) - 1
		t := &j.trains[k]
		first := frames[t.first]
		if !sameFlow(first, f) {
			continue
		}
		if k >= j.barrier && t.open && t.take(first, f) {
			j.next[t.last] = uint8(i)
			t.last = uint8(i)
			t.frames++
			return
		}
		break
	}
	j.slots[slot] = uint8(n + 1)
	j.trains = append(j.trains, train{first: uint8(i), last: uint8(i), frames: 1, open: true})
}

// mayJoin is what costs nothing to ask: whether a frame could be joined with one of
// its flow, on its way to a link that takes o.
func mayJoin(f *packet.Frame, o link.Offload) bool {
	const flags = packet.NeedsChecksum | packet.Multicast | packet.Fragment
	if f.Flags&flags != packet.NeedsChecksum || f.Port == 0 || len(f.B) > maxCopied {
		return false
	}
	need := link.OffloadUSO
	if f.Proto == packet.ProtoTCP {
		if need = link.OffloadTSO4; f.EtherType == packet.EtherTypeIPv6 {
			need = link.OffloadTSO6
		}
	}
	return o&need == need
}

// flowHash is where a flow's slot may be. Who chooses addresses so that many flows
// have the same makes his own batches slower to look through, and nobody else's.
func flowHash(f *packet.Frame) uint8 {
	const odd = 0x9e3779b97f4a7c15 // 2^64 by the golden ratio (Knuth, volume 3, section 6.4)
	b := f.Ether()
	h := uint64(binary.LittleEndian.Uint32(b[f.L4:])) * odd
	if f.EtherType == packet.EtherTypeIPv4 {
		h ^= binary.LittleEndian.Uint64(b[f.L3+12:])
	} else {
		a := b[f.L3+8:]
		h ^= binary.LittleEndian.Uint64(a) ^ binary.LittleEndian.Uint64(a[8:]) ^
			binary.LittleEndian.Uint64(a[16:])*3 ^ binary.LittleEndian.Uint64(a[24:])*5
	}
	return uint8(h * odd >> 56)
}

// sameFlow reports whether two frames are of one flow, however else they differ.
func sameFlow(a, b *packet.Frame) bool {
	x, y := a.Ether(), b.Ether()
	if a.EtherType != b.EtherType || a.Proto != b.Proto ||
		binary.LittleEndian.Uint32(x[a.L4:]) != binary.LittleEndian.Uint32(y[b.L4:]) {
		return false
	}
	x, y = x[a.L3:], y[b.L3:]
	if a.EtherType == packet.EtherTypeIPv4 {
		return binary.LittleEndian.Uint64(x[12:]) == binary.LittleEndian.Uint64(y[12:])
	}
	return string(x[8:40]) == string(y[8:40])
}

// take makes f the last of a train of its flow, whose first frame is first, or
// returns false and ends the train.
func (t *train) take(first, f *packet.Frame) bool {
	if !t.looked {
		t.looked = true
		t.open = t.part.look(first)
		t.packets = t.part.packets()
		t.pseudo = pseudoSum(first)
		if first.Proto == packet.ProtoTCP {
			t.seq = packet.TCP(first.Ether()[first.L4:]).Seq() + uint32(t.payload)
		}
	}
	var p part
	if !t.open || t.end || !p.look(f) || !t.fits(&p) || t.pseudo != pseudoSum(f) || !alike(first, f, p.headers, t.seq) {
		t.open = false
		return false
	}
	t.payload += p.payload
	t.packets += p.packets()
	t.seq += uint32(p.payload)
	t.end = p.end || p.size < t.size
	return true
}

// fits reports whether what a frame brings is of the train's size, and not too much.
func (t *train) fits(p *part) bool {
	sized := p.size == t.size || p.size == p.payload && p.payload < t.size
	return sized && p.headers == t.headers && t.packets+p.packets() <= maxJoined &&
		t.headers+t.payload+p.payload <= maxLength
}

// packets is how many the part is cut into.
func (p *part) packets() int {
	if p.size == 0 {
		return 1 // nobody has looked
	}
	return (p.payload + p.size - 1) / p.size
}

// look finds out what a frame that may join brings; false is that it must not.
func (p *part) look(f *packet.Frame) bool {
	v, b := f.VNet(), f.Ether()
	if v.Flags() != packet.VNetNeedsCSum {
		return false
	}
	ip, transport := b[f.L3:f.L4], b[f.L4:]
	if f.EtherType == packet.EtherTypeIPv4 {
		const dontFragment = 0x4000 // and nothing beside it
		h := packet.IPv4(b[f.L3:])
		if len(ip) != packet.IPv4MinLen || h.TotalLen() != len(h) ||
			binary.BigEndian.Uint16(h[6:]) != dontFragment || packet.Sum(ip, 0) != 0xffff {
			return false
		}
	} else if h := packet.IPv6(b[f.L3:]); len(ip) != packet.IPv6Len || packet.IPv6Len+h.PayloadLen() != len(h) {
		return false
	}
	header := packet.UDPLen
	if f.Proto == packet.ProtoTCP {
		h := packet.TCP(transport)
		if h.Flags()&^packet.TCPPsh != packet.TCPAck || h[12]&0xf != 0 { // reserved bits
			return false
		}
		header, p.end = h.HeaderLen(), h.Flags()&packet.TCPPsh != 0
	} else if h := packet.UDP(transport); h.Len() != len(h) || isDHCP(h.SrcPort()) || isDHCP(h.DstPort()) {
		return false
	}
	p.headers, p.payload = int(f.L4)+header, len(transport)-header
	p.size = p.payload
	if f.Flags.Has(packet.GSO) && int(v.GSOSize()) < p.payload {
		if v.GSOType()&packet.GSOECN != 0 {
			return false
		}
		p.size = int(v.GSOSize())
		p.end = p.end || p.payload%p.size != 0
	}
	return p.payload > 0
}

// isDHCP reports whether a port is the server's or the client's.
func isDHCP(port uint16) bool { return port == 67 || port == 68 }

// alike reports whether headers of f are what cutting a train that begins with
// first, a frame of the same flow, makes of those of first; of TCP with data from
// seq on.
func alike(first, f *packet.Frame, headers int, seq uint32) bool {
	if f.Port != first.Port || f.L3 != first.L3 || f.L4 != first.L4 {
		return false
	}
	a, b := first.Ether()[:headers], f.Ether()[:headers]
	if string(a[:f.L3]) != string(b[:f.L3]) { // MACs, VLAN tags
		return false
	}
	x, y := a[f.L3:], b[f.L3:]
	if f.EtherType == packet.EtherTypeIPv4 {
		if x[1] != y[1] || x[8] != y[8] { // TOS and ECN, TTL
			return false
		}
	} else if string(x[:4]) != string(y[:4]) || x[7] != y[7] { // traffic class, flow label; hop limit
		return false
	}
	if f.Proto == packet.ProtoUDP {
		return true
	}
	x, y = a[f.L4:], b[f.L4:]
	return packet.TCP(y).Seq() == seq &&
		string(x[8:13]) == string(y[8:13]) && // acknowledgement, data offset
		string(x[14:16]) == string(y[14:16]) && string(x[18:]) == string(y[18:]) // window; urgent pointer, options
}

// pseudoSum is the unfinished checksum without the length in it, which is all that
// may differ within a flow.
func pseudoSum(f *packet.Frame) uint16 {
	t, at := f.Ether()[f.L4:], packet.UDPChecksumOffset
	if f.Proto == packet.ProtoTCP {
		at = packet.TCPChecksumOffset
	}
	field := binary.BigEndian.Uint16(t[at:])
	if s := packet.Delta(0).Replace16(uint16(len(t)), 0).UpdatePartial(field); s != 0xffff {
		return s
	}
	return 0 // the same in ones' complement
}

// build writes a train of several frames into room.
func (j *joiner) build(frames []*packet.Frame, t *train, room []byte) packet.Frame {
	f := *frames[t.first] // the record fits: its headers are as long
	before := f.Len()
	n := copy(room, f.B)
	for i := t.first; i != t.last; {
		i = j.next[i]
		n += copy(room[n:], frames[i].B[packet.VNetLen+t.headers:])
	}
	f.B = room[:n:n]
	f.Flags |= packet.GSO

	v := f.VNet()
	v.SetHdrLen(uint16(t.headers))
	v.SetGSOSize(uint16(t.size))
	b := f.Ether()
	if f.EtherType == packet.EtherTypeIPv4 {
		ip := packet.IPv4(b[f.L3:])
		ip.SetTotalLen(len(ip))
		ip.UpdateChecksum()
	} else {
		ip := packet.IPv6(b[f.L3:])
		ip.SetPayloadLen(len(ip) - packet.IPv6Len)
	}
	longer := packet.Delta(0).Replace16(uint16(before-int(f.L4)), uint16(f.Len()-int(f.L4)))
	if f.Proto == packet.ProtoUDP {
		v.SetGSOType(packet.GSOUDPL4)
		u := packet.UDP(b[f.L4:])
		u.SetLen(len(u))
		u.SetChecksum(longer.UpdatePartial(u.Checksum()))
		return f
	}
	v.SetGSOType(packet.GSOTCPv4)
	if f.EtherType == packet.EtherTypeIPv6 {
		v.SetGSOType(packet.GSOTCPv6)
	}
	h, last := packet.TCP(b[f.L4:]), frames[t.last]
	h.SetFlags(packet.TCP(last.Ether()[last.L4:]).Flags()) // the last one's PSH
	h.SetChecksum(longer.UpdatePartial(h.Checksum()))
	return f
}
