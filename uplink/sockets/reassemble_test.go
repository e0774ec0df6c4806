package sockets

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

var fragmentPeer = netip.MustParseAddrPort("127.0.0.1:9")

// A cut is one fragment of a datagram: where it begins and ends, and whether it
// says that there is more.
type cut struct {
	from, to int
	more     bool
}

// fragment makes one of a container's, whose content is that of whole as far as
// that goes.
func fragment(t testing.TB, whole []byte, proto packet.Proto, id uint16, c cut) (*packet.Frame, bool) {
	t.Helper()
	payload := make([]byte, c.to-c.from)
	if c.from < len(whole) {
		copy(payload, whole[c.from:])
	}
	b := packettest.IPv4(packettest.Station{MAC: routerMAC, IP: hostAddr}, packettest.Station{MAC: outsideMAC, IP: fragmentPeer.Addr()}, proto, nil, payload)
	ip := packet.IPv4(b[headRoom:])
	ip.SetID(id)
	ip.SetFragment(false, c.more, c.from)
	ip.UpdateChecksum()
	f := &packet.Frame{B: b, Container: 7, Flow: 1}
	return f, packet.Parse(f) == packet.OK && f.Flags.Has(packet.Fragment)
}

// cutUp cuts a datagram of n bytes at random places.
func cutUp(rng *rand.Rand, n, pieces int) (list []cut) {
	at := 0
	for i := range pieces - 1 {
		room := (n-at)/8 - (pieces - 1 - i)
		if room < 1 {
			break
		}
		to := at + 8*(1+rng.IntN(room))
		list = append(list, cut{at, to, true})
		at = to
	}
	return append(list, cut{at, n, false})
}

// bareDatagram is a UDP datagram without its IP header.
func bareDatagram(size int) []byte {
	b := packettest.UDP(packettest.Station{MAC: routerMAC, IP: hostAddr}, packettest.Station{MAC: outsideMAC, IP: fragmentPeer.Addr()},
		40000, fragmentPeer.Port(), pattern(size, size))
	return b[fragmentHeaders:]
}

// TestReassemblyUsedAgain: an id is used again by another flow, whose later
// fragments come before the first one and are taken for the old flow's.
func TestReassemblyUsedAgain(t *testing.T) {
	var r reassembler
	whole := bareDatagram(3000)
	for i, c := range []cut{{1480, len(whole), false}, {0, 1480, true}} {
		f, ok := fragment(t, whole, packet.ProtoUDP, 5, c)
		if !ok {
			t.Fatal("not a fragment")
		}
		if f.Flow = 1; i == 1 {
			f.Flow = 2
		}
		switch got, reason := r.add(f); {
		case reason != packet.OK || (got != nil) != (i == 1):
			t.Errorf("fragment %d: %v, %v", i, got, reason)
		case got != nil && got.Flow != 2:
			t.Errorf("it is of flow %d", got.Flow)
		}
	}
}

// TestReassembly: a datagram comes out whole whatever the order of its fragments,
// and once, also when some come twice.
func TestReassembly(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var r reassembler
	for id := range uint16(2000) {
		size := []int{24, 1000, 1480, 8000, 65500}[int(id)%5] + rng.IntN(8)
		whole := bareDatagram(size - packet.UDPLen)
		cuts := cutUp(rng, len(whole), 2+rng.IntN(5))
		if len(cuts) < 2 {
			continue
		}
		rng.Shuffle(len(cuts), func(i, j int) { cuts[i], cuts[j] = cuts[j], cuts[i] })
		if id%3 == 0 {
			twice := rng.IntN(len(cuts) - 1)
			cuts = slices.Insert(cuts, twice, cuts[twice])
		}
		for i, c := range cuts {
			f, ok := fragment(t, whole, packet.ProtoUDP, id, c)
			if !ok {
				t.Fatalf("a bad fragment: %v", c)
			}
			got, reason := r.add(f)
			if reason != packet.OK || (got != nil) != (i == len(cuts)-1) {
				t.Fatalf("fragment %d of %v: %v, %v", i, cuts, got != nil, reason)
			}
			if got != nil && (!bytes.Equal(got.Transport(), whole) || got.Flags.Has(packet.Fragment) || got.Flow != 1 || got.Container != 7 || got.DstPort != fragmentPeer.Port()) {
				t.Fatalf("datagram %d came out as another", id)
			}
		}
	}
	if len(r.pending) != 0 || r.incomplete.N != 0 || r.overlapping.N != 0 {
		t.Errorf("left: %d, %d incomplete, %d overlapping", len(r.pending), r.incomplete, r.overlapping)
	}
}

// TestReassemblyLies: nothing comes out of fragments that overlap or contradict
// each other, also not with the honest rest.
func TestReassemblyLies(t *testing.T) {
	whole := bareDatagram(1000)
	n := len(whole)
	for id, lie := range [][]cut{
		{{0, 512, true}, {504, n, false}},                     // overlaps
		{{0, 512, true}, {0, 256, true}},                      // part of another
		{{0, 256, true}, {256, 512, true}, {0, 512, true}},    // two as one
		{{512, n, false}, {0, n + 8 - n%8, true}},             // beyond the end
		{{512, n, false}, {512, n - 8, false}},                // two ends
		{{0, 512, true}, {8, 256, false}},                     // an end before what there is
		{{512, 600, true}, {512, 600, false}},                 // the same, but the last
		{{504, 1000, false}, {0, 504, true}, {504, n, false}}, // comes out before the lie, see below
	} {
		var r reassembler
		outs := 0
		add := func(c cut) {
			f, ok := fragment(t, whole, packet.ProtoUDP, uint16(id), c)
			if !ok {
				t.Fatalf("a bad fragment: %v", c)
			}
			got, reason := r.add(f)
			if got != nil {
				outs++
			} else if reason == packet.BadTransport {
				outs = -100 // whole, and its own header says so
			}
		}
		for _, c := range lie {
			add(c)
		}
		add(cut{0, 512, true})
		add(cut{512, n, false})
		if outs > 0 {
			t.Errorf("%v: %d datagrams came out", lie, outs)
		}
	}
}

// TestReassemblyBounds: each container has its own bound, time runs out for all,
// and memory is given back.
func TestReassemblyBounds(t *testing.T) {
	var r reassembler
	begin := func(c packet.ContainerID, id uint16, now int64) {
		f, _ := fragment(t, bareDatagram(1000), packet.ProtoUDP, id, cut{0, 512, true})
		f.Container, f.Flow, f.Time = c, uint32(c), now
		if got, reason := r.add(f); got != nil || reason != packet.OK {
			t.Fatalf("a first fragment: %v", reason)
		}
	}
	begin(99, 1, 1)
	for id := range uint16(1000) {
		begin(7, id, 2)
	}
	if len(r.pending) != 1+pendingOfOne || r.incomplete.N != 1000-pendingOfOne {
		t.Errorf("%d on the way, %d given up", len(r.pending), r.incomplete)
	}
	if p := r.pending[0]; p.container != 99 {
		t.Error("another container paid")
	}
	if p := r.pending[1]; p.key.id != 1000-pendingOfOne {
		t.Errorf("datagram %d is the oldest", p.key.id)
	}
	for c := packet.ContainerID(100); c < 1000; c++ {
		begin(c, 1, 3)
	}
	if len(r.pending) != pendingOfAll {
		t.Errorf("%d on the way in all", len(r.pending))
	}
	begin(7, 1, 3+fragmentTime)
	if len(r.pending) != 1 || len(r.spare) > spareBuffers {
		t.Errorf("%d on the way after their time, %d buffers kept", len(r.pending), len(r.spare))
	}
}

// A reassemblyModel is one datagram by RFC 791 and RFC 5722, as plain as can be.
type reassemblyModel struct {
	taken   []cut
	end     int
	spoiled bool
}

func (m *reassemblyModel) add(c cut) (whole bool) {
	if m.spoiled || slices.Contains(m.taken, c) {
		return false
	}
	blocks := func(x int) int { return (x + 7) / 8 }
	for _, x := range m.taken {
		overlap := c.from/8 < blocks(x.to) && x.from/8 < blocks(c.to)
		m.spoiled = m.spoiled || overlap || !c.more && x.to > c.to || !x.more && (c.to > x.to || c.more && c.to == x.to)
	}
	if m.spoiled {
		return false
	}
	m.taken = append(m.taken, c)
	sum := 0
	for _, x := range m.taken {
		sum += x.to - x.from
		if !x.more {
			m.end = x.to
		}
	}
	return m.end != 0 && sum == m.end
}

// FuzzReassembly: whatever the fragments say, a datagram comes out when it does
// in the model, with the bytes of those the model took.
func FuzzReassembly(f *testing.F) {
	f.Add([]byte{0, 1, 1, 1, 1, 0})
	f.Add([]byte{1, 1, 0, 0, 1, 1})
	f.Add([]byte{0, 3, 1, 1, 1, 1, 3, 2, 0})
	f.Add([]byte{0, 1, 1, 0, 1, 0, 1, 1, 0})
	f.Add([]byte{255, 255, 1, 254, 255, 0})
	whole := pattern(3, 1<<16)
	f.Fuzz(func(t *testing.T, data []byte) {
		var r reassembler
		var m reassemblyModel
		for ; len(data) >= 3 && len(m.taken) < 64; data = data[3:] {
			c := cut{from: int(data[0]) * 8, more: data[2]&1 == 1}
			if data[2]&2 != 0 {
				c.from *= 32
			}
			c.to = c.from + int(data[1])
			if c.more {
				c.to = c.from + int(data[1])*8
			}
			if c.to == c.from || c.to > 65515 {
				continue
			}
			frame, ok := fragment(t, whole, 253, 1, c)
			if !ok {
				continue
			}
			got, reason := r.add(frame)
			want := m.add(c)
			if (got != nil) != want || m.spoiled != (reason == packet.FragmentOrphan) {
				t.Fatalf("after %v: %v and %v, the model has %v, spoiled %v", m.taken, got != nil, reason, want, m.spoiled)
			}
			if want {
				if !bytes.Equal(packet.IPv4(got.Packet()).Payload(), whole[:m.end]) {
					t.Fatal("other bytes")
				}
				m = reassemblyModel{}
			}
			if len(r.pending) > 1 {
				t.Fatalf("%d datagrams of one", len(r.pending))
			}
		}
	})
}

// TestFragmentsLeave: fragments of a container are one datagram to the peer, in
// any order, among other packets of the flow; one that never becomes whole is
// counted.
func TestFragmentsLeave(t *testing.T) {
	r := newDgRig(t, nil)
	p := newPeer(t, "127.0.0.1:0")
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range 20 {
		payload := pattern(i, 3000+i*3000)
		b := r.udpBytes(40000, p.at, payload)
		first := r.frame(b)
		whole := bytes.Clone(first.Transport())
		var frames []*packet.Frame
		for _, c := range cutUp(rng, len(whole), 6) {
			x := packettest.IPv4(packettest.Station{MAC: routerMAC, IP: hostAddr}, packettest.Station{MAC: outsideMAC, IP: p.at.Addr()},
				packet.ProtoUDP, nil, whole[c.from:c.to])
			ip := packet.IPv4(x[headRoom:])
			ip.SetID(uint16(i))
			ip.SetFragment(false, c.more, c.from)
			ip.SetTTL(uint8(10 + i))
			ip.UpdateChecksum()
			f := r.frame(x)
			f.Flow = first.Flow
			frames = append(frames, f)
		}
		rng.Shuffle(len(frames), func(i, j int) { frames[i], frames[j] = frames[j], frames[i] })
		frames = slices.Insert(frames, 2, r.udp(40000, p.at, []byte("between")))
		r.write(frames...)
		if h := p.recv(); string(h.data) != "between" {
			t.Fatalf("heard %d bytes", len(h.data))
		}
		if h := p.recv(); !bytes.Equal(h.data, payload) || h.ttl != uint8(10+i) {
			t.Fatalf("datagram %d: heard %d bytes with TTL %d, want %d", i, len(h.data), h.ttl, len(payload))
		}
	}
	if n := r.s.Stats(); n.Reassembled != 20 || n.Incomplete.N != 0 {
		t.Errorf("%+v", n)
	}
	lonely, _ := fragment(t, bareDatagram(100), packet.ProtoUDP, 999, cut{0, 64, true})
	lonely.Time -= fragmentTime
	r.write(lonely)
	eventually(t, func() error {
		if n := r.s.Stats(); n.Incomplete.N != 1 || n.Incomplete.Last == 0 {
			return fmt.Errorf("%+v, want one that never became whole", n)
		}
		return nil
	})
}
