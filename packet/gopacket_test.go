package packet_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

// TestParseAgainstGopacket has an independent decoder read every kind of
// well-formed frame and compares what it finds with Parse and the views.
func TestParseAgainstGopacket(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	seen := map[packet.Proto]int{}
	for range 5000 {
		b := packettest.Good(rng)
		f := parse(t, b)
		compare(t, &f)
		if t.Failed() {
			t.Fatalf("frame %x", b[:min(len(b), 150)])
		}
		seen[f.Proto]++
	}
	for _, p := range []packet.Proto{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP, packet.ProtoICMPv6} {
		if seen[p] < 100 {
			t.Errorf("only %d frames of %v were compared", seen[p], p)
		}
	}
}

// decode has gopacket read a frame, virtio-net header cut off.
func decode(b []byte) gopacket.Packet {
	return gopacket.NewPacket(b[packet.VNetLen:], layers.LayerTypeEthernet, gopacket.NoCopy)
}

func compare(t *testing.T, f *packet.Frame) {
	t.Helper()
	p := decode(f.B)
	var tags []uint16
	etherType := layers.EthernetType(0)
	transport := false
frame:
	for _, l := range p.Layers() {
		switch l.LayerType() {
		case layers.LayerTypeVXLAN, layers.LayerTypeGRE, layers.LayerTypeMPLS:
			break frame // what is inside a tunnel is the container's business
		}
		switch l := l.(type) {
		case *layers.Ethernet:
			e := packet.Ethernet(f.Ether())
			check(t, "destination MAC", e.Dst(), packet.MAC(l.DstMAC))
			check(t, "source MAC", e.Src(), packet.MAC(l.SrcMAC))
			etherType = l.EthernetType
		case *layers.Dot1Q:
			tci := uint16(l.Priority)<<13 | l.VLANIdentifier
			if l.DropEligible {
				tci |= 1 << 12
			}
			tags = append(tags, tci)
			etherType = l.Type
		case *layers.ARP:
			a := packet.ARP(f.Packet())
			check(t, "ARP operation", a.Op(), l.Operation)
			check(t, "ARP sender", a.SenderIP(), [4]byte(l.SourceProtAddress))
			check(t, "ARP target", a.TargetIP(), [4]byte(l.DstProtAddress))
		case *layers.IPv4:
			ip := packet.IPv4(f.Packet())
			check(t, "EtherType", f.EtherType, packet.EtherTypeIPv4)
			check(t, "total length", len(ip), int(l.Length))
			check(t, "protocol", f.Proto, packet.Proto(l.Protocol))
			check(t, "checksum", ip.Checksum(), l.Checksum)
			check(t, "offset", ip.FragmentOffset(), int(l.FragOffset)*8)
			check(t, "payload", string(ip.Payload()), string(l.Payload))
			check(t, "fragment", f.Flags.Has(packet.Fragment), l.FragOffset != 0 || l.Flags&layers.IPv4MoreFragments != 0)
			check(t, "later fragment", f.Flags.Has(packet.LaterFragment), l.FragOffset != 0)
			compareAddrs(t, f, l.SrcIP, l.DstIP)
		case *layers.IPv6:
			check(t, "EtherType", f.EtherType, packet.EtherTypeIPv6)
			check(t, "packet length", len(f.Packet()), packet.IPv6Len+int(l.Length))
			compareAddrs(t, f, l.SrcIP, l.DstIP)
		case *layers.IPv6Fragment:
			check(t, "fragment", f.Flags.Has(packet.Fragment), l.FragmentOffset != 0 || l.MoreFragments)
			check(t, "later fragment", f.Flags.Has(packet.LaterFragment), l.FragmentOffset != 0)
		case *layers.TCP:
			transport = true
			check(t, "protocol", f.Proto, packet.ProtoTCP)
			s := packet.TCP(f.Transport())
			check(t, "source port", f.SrcPort, uint16(l.SrcPort))
			check(t, "destination port", f.DstPort, uint16(l.DstPort))
			check(t, "sequence", s.Seq(), l.Seq)
			check(t, "header length", s.HeaderLen(), int(l.DataOffset)*4)
			check(t, "payload", string(s.Payload()), string(l.Payload))
		case *layers.UDP:
			transport = true
			check(t, "protocol", f.Proto, packet.ProtoUDP)
			u := packet.UDP(f.Transport())
			check(t, "source port", f.SrcPort, uint16(l.SrcPort))
			check(t, "destination port", f.DstPort, uint16(l.DstPort))
			check(t, "payload", string(u.Payload()), string(l.Payload))
		case *layers.ICMPv4:
			transport = true
			check(t, "protocol", f.Proto, packet.ProtoICMP)
			check(t, "identifier", f.SrcPort|f.DstPort, l.Id)
			check(t, "sequence", packet.ICMP(f.Transport()).Seq(), l.Seq)
		case *layers.ICMPv6Echo:
			transport = true
			check(t, "protocol", f.Proto, packet.ProtoICMPv6)
			check(t, "identifier", f.SrcPort|f.DstPort, l.Identifier)
			check(t, "sequence", packet.ICMP(f.Transport()).Seq(), l.SeqNumber)
		case *layers.ICMPv6NeighborSolicitation:
			transport = true
			compareDiscovery(t, f, l.TargetAddress, l.Options)
		case *layers.ICMPv6NeighborAdvertisement:
			transport = true
			compareDiscovery(t, f, l.TargetAddress, l.Options)
		}
	}
	check(t, "number of tags", int(f.Tags), len(tags))
	for i := range tags {
		check(t, "tag", f.VLAN[i], tags[i])
	}
	if etherType >= 0x600 {
		check(t, "EtherType", f.EtherType, packet.EtherType(etherType))
	}
	// gopacket looks into no fragment, not even an atomic one.
	if !f.Flags.Has(packet.Fragment) && p.Layer(layers.LayerTypeIPv6Fragment) == nil {
		check(t, "has a transport header", f.L4 != 0, transport)
	}
}

func compareDiscovery(t *testing.T, f *packet.Frame, target []byte, options layers.ICMPv6Options) {
	t.Helper()
	check(t, "protocol", f.Proto, packet.ProtoICMPv6)
	m := packet.Discovery(f.Transport())
	check(t, "discovery", packet.ICMP(m).IsDiscovery() && m.Valid(), true)
	check(t, "target", m.Target(), packet.Addr(target))
	o := m.Options()
	for _, want := range options {
		mac, is := o.MAC()
		check(t, "is a MAC", is, want.Type == layers.ICMPv6OptSourceAddress || want.Type == layers.ICMPv6OptTargetAddress)
		check(t, "MAC", string(mac[:]), string(want.Data))
		o = o.Next()
	}
	check(t, "bytes behind the options", len(o), 0)
}

func compareAddrs(t *testing.T, f *packet.Frame, src, dst []byte) {
	t.Helper()
	s, _ := netip.AddrFromSlice(src)
	d, _ := netip.AddrFromSlice(dst)
	tuple := f.Tuple()
	check(t, "source", tuple.Src.Netip(), s)
	check(t, "destination", tuple.Dst.Netip(), d)
}
