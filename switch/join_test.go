package vswitch

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"fairlead/link"
	"fairlead/packet"
	"fairlead/packet/packettest"
)

// inFlow has an IPv4 packet say that it may not be fragmented, as all of a Linux
// socket's do.
func inFlow(b []byte) []byte {
	return edited(b, func(ip packet.IPv4) { ip.SetFragment(true, false, 0) })
}

// edited is a copy with another IPv4 header, sound again.
func edited(b []byte, edit func(ip packet.IPv4)) []byte {
	b = bytes.Clone(b)
	f := packet.Frame{B: b}
	if packet.Parse(&f) != packet.OK || f.EtherType != packet.EtherTypeIPv4 {
		return b
	}
	ip := packet.IPv4(f.Ether()[f.L3:])
	edit(ip)
	ip.UpdateChecksum()
	return b
}

// datagramOf is one that may join others: size bytes that begin with n.
func datagramOf(from, to station, srcPort uint16, n, size int) []byte {
	return inFlow(packettest.Partial(packettest.UDP(from, to, srcPort, 7, numbered(n, size))))
}

// segmentOf is one of a stream that may join others.
func segmentOf(from, to station, seq uint32, size int, flags uint8) []byte {
	s := packettest.Segment{SrcPort: 40000, DstPort: 80, Seq: seq, Ack: 99, Flags: flags, Options: timestamps}
	return inFlow(packettest.Partial(packettest.TCP(from, to, s, numbered(int(seq), size))))
}

var timestamps = []byte{packet.TCPOptionNop, packet.TCPOptionNop, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}

func numbered(n, size int) []byte {
	b := bytes.Repeat([]byte{byte(n), byte(n >> 8), byte(size)}, size/3+1)
	return b[:size]
}

// readFrom parses frames as if port 1 had read them.
func readFrom(t testing.TB, list ...[]byte) []*packet.Frame {
	t.Helper()
	frames := make([]*packet.Frame, len(list))
	for i, b := range list {
		frames[i] = &packet.Frame{B: b, Port: 1<<16 | 1, Time: int64(i)}
		if r := packet.Parse(frames[i]); r != packet.OK {
			t.Fatalf("frame %d: %v\n% x", i, r, b)
		}
	}
	return frames
}

// members lists the frames of each train.
func (j *joiner) members(trains []train, frames int) (list [][]int) {
	if trains == nil {
		for i := range frames {
			list = append(list, []int{i})
		}
	}
	for _, t := range trains {
		m := []int{int(t.first)}
		for range t.frames - 1 {
			m = append(m, int(j.next[m[len(m)-1]]))
		}
		list = append(list, m)
	}
	return list
}

// packetsOf are the packets a frame is cut into, finished. What joining may change,
// the identification of IPv4, is left out. It works in dst.
func packetsOf(f *packet.Frame, dst []byte) (list [][]byte) {
	var s packet.Segmenter
	for s.Reset(f); ; {
		n, ok := s.Next(dst)
		if !ok {
			return list
		}
		b := bytes.Clone(dst[:n])
		if f.EtherType == packet.EtherTypeIPv4 {
			ip := packet.IPv4(b[packet.VNetLen+int(f.L3):])
			if ip.DontFragment() {
				ip.SetID(0)
				ip.UpdateChecksum()
			}
		}
		list = append(list, b)
	}
}

// checkJoined joins frames and holds what comes out against the frames themselves:
// trains, cut again, are the same packets in the same order, and whatever is no
// train is the very frame. It returns the members of each.
func checkJoined(t testing.TB, j *joiner, frames []*packet.Frame, o link.Offload) [][]int {
	t.Helper()
	dst := make([]byte, packet.MaxFrame)
	var before [][]byte
	for _, f := range frames {
		before = append(before, bytes.Clone(f.B))
	}
	out, trains := j.join(frames, o)
	members := j.members(trains, len(frames))
	if len(out) != len(members) {
		t.Fatalf("%d frames out, %d trains", len(out), len(members))
	}
	seen := make([]bool, len(frames))
	for k, m := range members {
		var want [][]byte
		for i, n := range m {
			if seen[n] || i > 0 && n <= m[i-1] {
				t.Fatalf("train %d is of frames %v: they are not each there once, in order", k, m)
			}
			seen[n] = true
			want = append(want, packetsOf(frames[n], dst)...)
		}
		f := *out[k]
		if len(m) == 1 {
			if out[k] != frames[m[0]] {
				t.Fatalf("frame %d, which joined none, is another", m[0])
			}
			continue
		}
		// What parses it anew finds the same as what its record says.
		again := packet.Frame{B: f.B, Port: f.Port, Time: f.Time}
		if r := packet.Parse(&again); r != packet.OK || again.Flags != f.Flags || again.Segments() != f.Segments() || again.L4 != f.L4 {
			t.Fatalf("train of %v: %v, %+v; its record says %+v\n% x", m, r, again, f, f.B[:100])
		}
		if got := packetsOf(&f, dst); !slices.EqualFunc(got, want, bytes.Equal) {
			for i := range got {
				if i < len(want) && !bytes.Equal(got[i], want[i]) {
					t.Fatalf("packet %d of %d of train %v:\n got % x\nwant % x", i, len(got), m, got[i], want[i])
				}
			}
			t.Fatalf("train of %v is cut into %d packets, want %d", m, len(got), len(want))
		}
		if len(want) > maxJoined || f.Len()-int(f.L3) > maxLength {
			t.Fatalf("train of %v has %d packets, %d bytes", m, len(want), f.Len())
		}
	}
	if i := slices.Index(seen, false); i >= 0 {
		t.Fatalf("frame %d is gone; trains %v", i, members)
	}
	for i, f := range frames {
		if !bytes.Equal(f.B, before[i]) {
			t.Fatalf("frame %d was written to", i)
		}
	}
	return members
}

// Each rule, by two frames or more that may join and what keeps them apart.
func TestJoinRules(t *testing.T) {
	a, b := stationOf(2), stationOf(3)
	six := func(s station) station { return s.IPv6() }
	const ack, psh = packet.TCPAck, packet.TCPPsh
	datagrams := func(sizes ...int) (list [][]byte) {
		for i, size := range sizes {
			list = append(list, datagramOf(a, b, 1000, i, size))
		}
		return list
	}
	segments := func(flags ...uint8) (list [][]byte) {
		for i, f := range flags {
			list = append(list, segmentOf(a, b, uint32(100+i*500), 500, f))
		}
		return list
	}
	sound := func(edit func(b []byte)) func([]byte) []byte { // of the frame behind the virtio-net header
		return func(b []byte) []byte {
			b = bytes.Clone(b)
			edit(b[packet.VNetLen:])
			return edited(b, func(packet.IPv4) {})
		}
	}
	second := func(list [][]byte, edit func([]byte) []byte) [][]byte {
		list[1] = edit(list[1])
		return list
	}
	ip := func(edit func(packet.IPv4)) func([]byte) []byte {
		return func(b []byte) []byte { return edited(b, edit) }
	}
	at := func(i int, x byte) func([]byte) []byte { return sound(func(b []byte) { b[i] ^= x }) }
	const l3, l4 = packet.EthernetLen, packet.EthernetLen + packet.IPv4MinLen
	to := func(port byte) (list [][]byte) {
		for _, b := range datagrams(9, 9) {
			list = append(list, at(l4+3, 7^port)(b))
		}
		return list
	}
	const one, two = 1, 2
	for _, c := range []struct {
		name   string
		frames [][]byte
		out    int
	}{
		{"two datagrams", datagrams(100, 100), one},
		{"the last one shorter", datagrams(100, 100, 1), one},
		{"a longer one", datagrams(100, 101), two},
		{"a shorter one in the middle", datagrams(100, 99, 100), two},
		{"an empty one", datagrams(100, 0), two},
		{"empty ones", datagrams(0, 0), two},
		{"of one byte", datagrams(1, 1, 1), one},
		{"as many as there may be", datagrams(slices.Repeat([]int{20}, 64)...), one},
		{"one too many", datagrams(slices.Repeat([]int{20}, 65)...), two},
		{"as long as may be", datagrams(slices.Repeat([]int{1472}, 44)...), one},
		{"too long", datagrams(slices.Repeat([]int{1472}, 45)...), two},
		{"large ones", datagrams(2100, 2100), two},
		{"over IPv6", [][]byte{datagramOf(six(a), six(b), 1, 1, 9), datagramOf(six(a), six(b), 1, 2, 9)}, one},
		{"another port", second(datagrams(9, 9), at(l4+1, 1)), two},
		{"another address", second(datagrams(9, 9), at(l3+19, 1)), two},
		{"another source MAC", second(datagrams(9, 9), at(11, 1)), two},
		{"another destination MAC", second(datagrams(9, 9), at(5, 1)), two},
		{"another TTL", second(datagrams(9, 9), ip(func(h packet.IPv4) { h.SetTTL(63) })), two},
		{"another TOS", second(datagrams(9, 9), ip(func(h packet.IPv4) { h.SetTOS(0x10) })), two},
		{"another ECN", second(datagrams(9, 9), ip(func(h packet.IPv4) { h.SetTOS(1) })), two},
		{"another identification", second(datagrams(9, 9), ip(func(h packet.IPv4) { h.SetID(7) })), one},
		{"DF off", second(datagrams(9, 9), ip(func(h packet.IPv4) { h.SetFragment(false, false, 0) })), two},
		{"DF off in both", [][]byte{edited(datagrams(9)[0], func(h packet.IPv4) { h.SetFragment(false, false, 0) }),
			edited(datagrams(9)[0], func(h packet.IPv4) { h.SetFragment(false, false, 0) })}, two},
		{"a reserved flag", second(datagrams(9, 9), at(l3+6, 0x80)), two},
		{"a damaged IPv4 header", second(datagrams(9, 9), func(b []byte) []byte { b[packet.VNetLen+l3+10] ^= 1; return b }), two},
		{"a wrong pseudo-header", second(datagrams(9, 9), func(b []byte) []byte { b[packet.VNetLen+l4+6] ^= 1; return b }), two},
		{"a finished checksum", second(datagrams(9, 9), finished), two},
		{"padding", second(datagrams(9, 9), func(b []byte) []byte { return append(b, 0) }), two},
		{"a UDP length short of the packet", second(datagrams(9, 9), at(l4+5, 17^16)), two},
		{"a tag", second(datagrams(9, 9), func(b []byte) []byte { return packettest.Tagged(b, 5) }), two},
		{"one tag", [][]byte{packettest.Tagged(datagrams(9)[0], 5), packettest.Tagged(datagrams(9)[0], 5)}, one},
		{"two tags", [][]byte{packettest.Tagged(datagrams(9)[0], 5, 6), packettest.Tagged(datagrams(9)[0], 5, 7)}, two},
		{"IP options", [][]byte{withOptions(a, b), withOptions(a, b)}, two},
		{"from a DHCP client", [][]byte{datagramOf(a, b, 68, 0, 300), datagramOf(a, b, 68, 0, 300)}, two},
		{"from a DHCP server", [][]byte{datagramOf(a, b, 67, 0, 300), datagramOf(a, b, 67, 0, 300)}, two},
		{"to a DHCP client", to(68), two},
		{"to a DHCP server", to(67), two},
		{"to another port", to(69), one},
		{"another flow label", [][]byte{datagramOf(six(a), six(b), 1, 1, 9),
			sound(func(b []byte) { b[l3+3]++ })(datagramOf(six(a), six(b), 1, 2, 9))}, two},
		{"another hop limit", [][]byte{datagramOf(six(a), six(b), 1, 1, 9),
			sound(func(b []byte) { b[l3+7]++ })(datagramOf(six(a), six(b), 1, 2, 9))}, two},
		{"UDP and TCP of the same ports", [][]byte{datagramOf(a, b, 1000, 1, 100),
			inFlow(packettest.Partial(packettest.TCP(a, b, packettest.Segment{SrcPort: 1000, DstPort: 7, Flags: ack}, make([]byte, 100))))}, two},
		{"trains", [][]byte{packettest.GSO(datagrams(900)[0], 300), packettest.GSO(datagrams(700)[0], 300)}, one},
		{"trains that do not fit", [][]byte{packettest.GSO(datagrams(900)[0], 300), packettest.GSO(datagrams(900)[0], 301)}, two},
		{"a train after its end", [][]byte{packettest.GSO(datagrams(700)[0], 300), packettest.GSO(datagrams(900)[0], 300)}, two},
		{"a train and one", [][]byte{packettest.GSO(datagrams(900)[0], 300), datagrams(300)[0]}, one},
		{"one and a train", [][]byte{datagrams(300)[0], packettest.GSO(datagrams(900)[0], 300)}, one},
		{"a train that is one", [][]byte{packettest.GSO(datagrams(200)[0], 300), datagrams(200)[0]}, one},

		{"two segments", segments(ack, ack), one},
		{"PSH on the last", segments(ack, ack, ack|psh), one},
		{"PSH on the first", segments(ack|psh, ack), two},
		{"FIN", segments(ack, ack|packet.TCPFin), two},
		{"SYN", segments(packet.TCPSyn, ack), two},
		{"RST", segments(ack, ack|packet.TCPRst), two},
		{"URG", segments(ack, ack|packet.TCPUrg), two},
		{"ECE", segments(ack|packet.TCPEce, ack|packet.TCPEce), two},
		{"CWR", segments(ack|packet.TCPCwr, ack), two},
		{"no ACK", segments(0, 0), two},
		{"a reserved bit", second(segments(ack, ack), at(l4+12, 1)), two},
		{"another acknowledgement", second(segments(ack, ack), at(l4+11, 1)), two},
		{"another window", second(segments(ack, ack), at(l4+15, 1)), two},
		{"another urgent pointer", second(segments(ack, ack), at(l4+19, 1)), two},
		{"another timestamp", second(segments(ack, ack), at(l4+27, 1)), two},
		{"the same again", [][]byte{segmentOf(a, b, 1, 500, ack), segmentOf(a, b, 1, 500, ack)}, two},
		{"a gap", [][]byte{segmentOf(a, b, 1, 500, ack), segmentOf(a, b, 502, 500, ack)}, two},
		{"round the end of the numbers", [][]byte{segmentOf(a, b, 1<<32-250, 500, ack), segmentOf(a, b, 250, 500, ack)}, one},
		{"nothing but ACK", [][]byte{segmentOf(a, b, 1, 0, ack), segmentOf(a, b, 1, 0, ack)}, two},
		{"data and nothing", [][]byte{segmentOf(a, b, 1, 500, ack), segmentOf(a, b, 501, 0, ack)}, two},
		{"segments over IPv6", [][]byte{segmentOf(six(a), six(b), 1, 500, ack), segmentOf(six(a), six(b), 501, 20, ack|psh)}, one},
		{"ECN said of a train", [][]byte{ecnTrain(packettest.GSO(segmentOf(a, b, 1, 500, ack), 250)), segmentOf(a, b, 501, 250, ack)}, two},
		{"other options", [][]byte{segmentOf(a, b, 1, 500, ack),
			inFlow(packettest.Partial(packettest.TCP(a, b, packettest.Segment{SrcPort: 40000, DstPort: 80, Seq: 501, Ack: 99, Flags: ack}, make([]byte, 500))))}, two},
	} {
		t.Run(c.name, func(t *testing.T) {
			members := checkJoined(t, newJoiner(), readFrom(t, c.frames...), link.OffloadAll)
			if len(members) != c.out {
				t.Errorf("%d frames became %v, want %d", len(c.frames), members, c.out)
			}
		})
	}
}

// finished is the same frame as who offloads nothing sends it.
func finished(b []byte) []byte {
	f := packet.Frame{B: bytes.Clone(b)}
	if packet.Parse(&f) != packet.OK {
		panic("not a packet")
	}
	packet.Complete(&f)
	return f.B
}

func withOptions(a, b station) []byte {
	udp := packettest.UDP(a, b, 1, 2, make([]byte, 50))[packet.VNetLen+packet.EthernetLen+packet.IPv4MinLen:]
	return inFlow(packettest.Partial(packettest.IPv4(a, b, packet.ProtoUDP, []byte{0x94, 4, 0, 0}, udp)))
}

func ecnTrain(b []byte) []byte {
	v := packet.VNet(b)
	v.SetGSOType(v.GSOType() | packet.GSOECN)
	return b
}

// What is known of a frame beside its bytes keeps it apart as well.
func TestJoinRecord(t *testing.T) {
	a, b := stationOf(2), stationOf(3)
	two := func() []*packet.Frame {
		return readFrom(t, datagramOf(a, b, 1, 1, 50), datagramOf(a, b, 1, 2, 50))
	}
	for name, c := range map[string]struct {
		edit func(f *packet.Frame)
		o    link.Offload
		want int
	}{
		"nothing":             {func(*packet.Frame) {}, link.OffloadAll, 1},
		"another port":        {func(f *packet.Frame) { f.Port++ }, link.OffloadAll, 2},
		"originated here":     {func(f *packet.Frame) { *f = packet.Frame{B: f.B} }, link.OffloadAll, 2},
		"for a group":         {func(f *packet.Frame) { f.Flags |= packet.Multicast }, link.OffloadAll, 2},
		"a kernel before 6.2": {func(*packet.Frame) {}, link.OffloadTCP, 2},
		"no offload":          {func(*packet.Frame) {}, 0, 2},
	} {
		frames := two()
		c.edit(frames[1])
		if got := checkJoined(t, newJoiner(), frames, c.o); len(got) != c.want {
			t.Errorf("%s: %v, want %d", name, got, c.want)
		}
	}
	for o, want := range map[link.Offload]int{
		link.OffloadTCP: 2, link.OffloadChecksum | link.OffloadTSO4: 3, link.OffloadChecksum | link.OffloadTSO6: 3, link.OffloadChecksum | link.OffloadUSO: 4,
	} {
		got := checkJoined(t, newJoiner(), readFrom(t,
			segmentOf(a, b, 1, 500, packet.TCPAck), segmentOf(a, b, 501, 500, packet.TCPAck),
			segmentOf(a.IPv6(), b.IPv6(), 1, 500, packet.TCPAck), segmentOf(a.IPv6(), b.IPv6(), 501, 500, packet.TCPAck)), o)
		if len(got) != want {
			t.Errorf("with %v: %v, want %d", o, got, want)
		}
	}
}

// Flows that come mixed are joined all the same, each in its order; and what may be
// part of any flow ends all trains.
func TestJoinOrder(t *testing.T) {
	a, b := stationOf(2), stationOf(3)
	of := func(port uint16, n, size int) []byte { return datagramOf(a, b, port, n, size) }
	fragment := func(more bool, offset int) []byte {
		return edited(packettest.IPv4(a, b, packet.ProtoUDP, nil, of(1, 9, 72)[packet.VNetLen+packet.EthernetLen+packet.IPv4MinLen:]),
			func(ip packet.IPv4) { ip.SetFragment(false, more, offset) })
	}
	for name, c := range map[string]struct {
		frames [][]byte
		want   [][]int
	}{
		"mixed":                    {[][]byte{of(1, 0, 9), of(2, 0, 20), of(1, 1, 9), of(2, 1, 20), of(1, 2, 8)}, [][]int{{0, 2, 4}, {1, 3}}},
		"one that cannot, between": {[][]byte{of(1, 0, 9), of(2, 0, 9), finished(of(1, 1, 9)), of(1, 2, 9), of(2, 1, 9)}, [][]int{{0}, {1}, {2}, {3}, {4}}},
		"another size, between":    {[][]byte{of(1, 0, 9), of(2, 0, 9), of(1, 1, 10), of(2, 1, 9), of(1, 2, 9)}, [][]int{{0}, {1, 3}, {2, 4}}},
		"another TTL, between": {[][]byte{of(1, 0, 9), edited(of(1, 1, 9), func(ip packet.IPv4) { ip.SetTTL(3) }), of(1, 2, 9), of(1, 3, 9)},
			[][]int{{0}, {1}, {2, 3}}},
		"a fragment, between":   {[][]byte{of(1, 0, 9), fragment(true, 0), fragment(false, 80), of(1, 1, 9), of(1, 2, 9)}, [][]int{{0}, {1}, {2}, {3, 4}}},
		"a question, between":   {[][]byte{of(1, 0, 9), packettest.ARPRequest(a, b.IP), of(1, 1, 9)}, [][]int{{0}, {1}, {2}}},
		"a large one, between":  {[][]byte{of(1, 0, 9), of(1, 1, 3000), of(1, 2, 9)}, [][]int{{0}, {1}, {2}}},
		"an empty one, between": {[][]byte{of(1, 0, 9), of(1, 1, 9), of(1, 1, 0), of(1, 2, 9), of(1, 3, 9)}, [][]int{{0, 1}, {2}, {3, 4}}},
	} {
		if got := checkJoined(t, newJoiner(), readFrom(t, c.frames...), link.OffloadAll); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// FuzzJoin: whatever two containers send one another, what is joined is cut into
// what was sent. The input is frames, each behind its length.
func FuzzJoin(f *testing.F) {
	seed := func(frames [][]byte) {
		var b []byte
		for _, x := range frames {
			b = append(binary.LittleEndian.AppendUint16(b, uint16(len(x))), x...)
		}
		f.Add(b)
	}
	for n := range uint64(20) {
		m := newMix(newRand(n))
		var list [][]byte
		for _, x := range m.batch(f, 8) {
			if len(x.B) < 3000 {
				list = append(list, x.B)
			}
		}
		seed(list)
	}
	j := newJoiner()
	f.Fuzz(func(t *testing.T, b []byte) {
		var frames []*packet.Frame
		for len(b) >= 2 && len(frames) < maxStaged {
			n := min(int(binary.LittleEndian.Uint16(b)), len(b)-2)
			x := &packet.Frame{B: bytes.Clone(b[2 : 2+n]), Port: 1}
			if b = b[2+n:]; packet.Parse(x) == packet.OK {
				frames = append(frames, x)
			}
		}
		checkJoined(t, j, frames, link.OffloadAll)
	})
}
