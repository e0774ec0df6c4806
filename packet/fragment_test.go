package packet_test

import (
	"bytes"
	"fmt"
	"testing"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

// fragments cuts a frame and copies every piece.
func fragments(t testing.TB, b []byte, mtu int) (all [][]byte) {
	t.Helper()
	f := parse(t, bytes.Clone(b))
	var s packet.Fragmenter
	if !s.Reset(&f, mtu) {
		t.Fatal("Reset refused")
	}
	dst := bytes.Repeat([]byte{0xee}, packet.MaxFrame)
	for n, ok := s.Next(dst); ok; n, ok = s.Next(dst) {
		all = append(all, bytes.Clone(dst[:n]))
	}
	if _, ok := s.Next(dst); ok {
		t.Error("Next gives more after the last fragment")
	}
	if !bytes.Equal(f.B, b) {
		t.Error("the fragmenter wrote to the frame")
	}
	return all
}

// reassemble puts fragments, in order, together again (RFC 791 section 3.2) and
// checks each. The options are those of the first.
func reassemble(t testing.TB, pieces [][]byte, mtu, offset int, more bool) []byte {
	t.Helper()
	var payload []byte
	for i, b := range pieces {
		checkFinished(t, b)
		f := parse(t, b)
		ip := packet.IPv4(f.Packet())
		last := i == len(pieces)-1
		check(t, "bytes behind the fragment", f.Len(), int(f.L3)+len(ip))
		if len(ip) > mtu {
			t.Errorf("fragment %d is %d bytes, the MTU %d", i, len(ip), mtu)
		}
		if !last && len(ip) <= mtu-8 {
			t.Errorf("fragment %d is %d bytes, room for eight more in %d", i, len(ip), mtu)
		}
		check(t, "more fragments", ip.MoreFragments(), !last || more)
		check(t, "offset", ip.FragmentOffset(), offset+len(payload))
		payload = append(payload, ip.Payload()...)
	}
	return payload
}

func TestFragmenter(t *testing.T) {
	options := unhex("0707040000000000 94040000 830704 0a000001 00")
	for _, tt := range []struct {
		name  string
		frame []byte
		mtu   int
		count int
	}{
		{"fits", packettest.UDP(alice, bob, 1, 2, pattern(1472)), 1500, 1},
		{"by one byte", packettest.UDP(alice, bob, 1, 2, pattern(1473)), 1500, 2},
		{"three", packettest.UDP(alice, bob, 1, 2, pattern(3000)), 1500, 3},
		{"exactly two", packettest.UDP(alice, bob, 1, 2, pattern(2*1480-8)), 1500, 2},
		{"odd MTU", packettest.UDP(alice, bob, 1, 2, pattern(3000)), 577, 6},
		{"least MTU", packettest.UDP(alice, bob, 1, 2, pattern(1000)), 68, 21},
		{"unfinished UDP", packettest.Partial(packettest.UDP(alice, bob, 1, 2, pattern(3000))), 1500, 3},
		{"unfinished TCP", packettest.Partial(tcpFrame(alice, bob, 3000)), 1500, 3},
		{"unfinished and fits", packettest.Partial(tcpFrame(alice, bob, 3)), 1500, 1},
		{"ICMP with tags", packettest.Tagged(packettest.ICMPEcho(alice, bob, 1, 2, pattern(3000)), 7, 8), 1500, 3},
		{"padded", append(packettest.UDP(alice, bob, 1, 2, pattern(1473)), "padding"...), 1500, 2},
		{"options", packettest.IPv4(alice, bob, 47, options, pattern(3000)), 1500, 3},
		{"least MTU with all options", packettest.IPv4(alice, bob, 47, append([]byte{0x83, 39}, make([]byte, 38)...), pattern(81)), 68, 11},
		{"no payload", packettest.IPv4(alice, bob, 47, nil, nil), 68, 1},
		{"the largest", packettest.IPv4(alice, bob, 47, nil, pattern(65515)), 1500, 45},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pieces := fragments(t, tt.frame, tt.mtu)
			check(t, "fragments", len(pieces), tt.count)

			f := parse(t, bytes.Clone(tt.frame))
			packet.Complete(&f)
			whole := packet.IPv4(f.Packet())
			got := reassemble(t, pieces, tt.mtu, 0, false)
			if !bytes.Equal(got, whole.Payload()) {
				t.Error("reassembled payload differs")
			}
			first := packet.IPv4(parsePacket(t, pieces[0]))
			check(t, "options of the first", string(first.Options()), string(whole.Options()))
			check(t, "ID", first.ID(), whole.ID())
			check(t, "Ethernet", string(pieces[0][packet.VNetLen:][:f.L3]), string(tt.frame[packet.VNetLen:][:f.L3]))
		})
	}
}

func parsePacket(t testing.TB, b []byte) []byte {
	f := parse(t, b)
	return f.Packet()
}

// TestFragmenterOptions: only options with the copied flag are in later
// fragments (RFC 791 section 3.1).
func TestFragmenterOptions(t *testing.T) {
	for _, tt := range []struct{ name, options, later string }{
		{"none", "", ""},
		{"record route is not copied", "07 07 04 00000000 00", ""},
		{"loose source route is", "83 07 04 0a000001 00", "83 07 04 0a000001 00"},
		{"only some", "01 44 04 05 00 94 04 00 00 83 03 04", "94040000 83030400"},
		{"behind the end", "00 94040000 000000", ""},
		{"length zero", "94040000 94000000", "94040000"},
		{"length one", "94040000 94010000", "94040000"},
		{"longer than the header", "94040000 94050000", "94040000"},
		{"cut off", "94040000 01010194", "94040000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			options := unhex(tt.options)
			pieces := fragments(t, packettest.IPv4(alice, bob, 47, options, pattern(200)), 100)
			for i, b := range pieces {
				want := unhex(tt.later)
				if i == 0 {
					want = options
				}
				if got := packet.IPv4(parsePacket(t, b)).Options(); !bytes.Equal(got, want) {
					t.Errorf("fragment %d has options %x, want %x", i, got, want)
				}
			}
		})
	}
}

// TestFragmenterAgain cuts fragments into smaller ones.
func TestFragmenterAgain(t *testing.T) {
	whole := packettest.UDP(alice, bob, 1, 2, pattern(5000))
	var small [][]byte
	for _, b := range fragments(t, whole, 1500) {
		f := parse(t, b)
		ip := packet.IPv4(f.Packet())
		pieces := fragments(t, b, 576)
		reassemble(t, pieces, 576, ip.FragmentOffset(), ip.MoreFragments())
		small = append(small, pieces...)
	}
	var got []byte
	for _, b := range small {
		got = append(got, packet.IPv4(parsePacket(t, b)).Payload()...)
	}
	if !bytes.Equal(got, packet.IPv4(payload(whole)).Payload()) {
		t.Error("reassembled payload differs")
	}
}

func TestFragmenterRefuses(t *testing.T) {
	df := packettest.UDP(alice, bob, 1, 2, pattern(1473))
	packet.IPv4(payload(df)).SetFragment(true, false, 0)
	for _, tt := range []struct {
		name  string
		frame []byte
		mtu   int
		want  bool
	}{
		{"don't fragment", df, 1500, false},
		{"don't fragment, fits", df, 1501, true},
		{"IPv6", packettest.UDP(alice.IPv6(), bob.IPv6(), 1, 2, pattern(3000)), 1500, false},
		{"ARP", packettest.ARPRequest(alice, bob.IP), 1500, false},
		{"super-frame", packettest.GSO(packettest.UDP(alice, bob, 1, 2, pattern(3000)), 1000), 1500, false},
		{"MTU 67", packettest.UDP(alice, bob, 1, 2, pattern(3000)), 67, false},
		{"MTU 0", packettest.UDP(alice, bob, 1, 2, nil), 0, false},
	} {
		f := parse(t, tt.frame)
		var s packet.Fragmenter
		if got := s.Reset(&f, tt.mtu); got != tt.want {
			t.Errorf("%s: Reset = %v, want %v", tt.name, got, tt.want)
		}
		if _, ok := s.Next(make([]byte, packet.MaxFrame)); ok != tt.want {
			t.Errorf("%s: Next = %v, want %v", tt.name, ok, tt.want)
		}
	}
}

// ExampleFragmenter cuts a large ping for a link with a small MTU.
func ExampleFragmenter() {
	f := packet.Frame{B: packettest.ICMPEcho(alice, bob, 7, 1, make([]byte, 3000))}
	if r := packet.Parse(&f); r != packet.OK {
		fmt.Println(r.Why())
		return
	}

	dst := make([]byte, packet.MaxFrame)
	var s packet.Fragmenter
	s.Reset(&f, 1500)
	for n, ok := s.Next(dst); ok; n, ok = s.Next(dst) {
		fmt.Println(n - packet.VNetLen - packet.EthernetLen)
	}
	// Output:
	// 1500
	// 1500
	// 68
}

func TestFragmentID(t *testing.T) {
	for _, b := range fragments(t, packettest.UDP(alice, bob, 1, 2, pattern(3000)), 1500) {
		f := parse(t, b)
		check(t, "identification", f.FragmentID(), 0x1234)
	}
	for _, b := range [][]byte{
		ip6(packet.ProtoFragment, "11 00 0001 cafebabe 0001 0002 0010 0000"),
		ip6(packet.ProtoFragment, "11 00 0010 cafebabe 0001 0002 0010 0000"),
		ip6(packet.ProtoHopByHop, "2c 00 0104 00000000 11 00 0010 cafebabe 0001 0002 0010 0000"),
	} {
		f := parse(t, b)
		check(t, "identification", f.FragmentID(), 0xcafebabe)
	}
}
