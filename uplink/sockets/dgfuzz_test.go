package sockets

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"fairlead/loop"
	"fairlead/packet"
	"fairlead/packet/packettest"
)

// controlMessage is one as the kernel writes it.
func controlMessage(level, kind uint32, data []byte) []byte {
	b := binary.NativeEndian.AppendUint64(nil, uint64(unix.CmsgLen(len(data))))
	b = binary.NativeEndian.AppendUint32(b, level)
	b = binary.NativeEndian.AppendUint32(b, kind)
	b = append(b, data...)
	return append(b, make([]byte, unix.CmsgSpace(len(data))-len(b))...)
}

// FuzzErrorQueue: whatever the kernel is taken to have said, the parser stays
// within it, and what becomes of it is an ICMP error the router understands, or
// nothing.
func FuzzErrorQueue(f *testing.F) {
	name := make([]byte, 16)
	binary.NativeEndian.PutUint16(name, unix.AF_INET)
	binary.BigEndian.PutUint16(name[2:], 9)
	copy(name[4:], []byte{198, 51, 100, 2})
	report := make([]byte, sizeofExtendedErr, 32)
	binary.NativeEndian.PutUint32(report, uint32(unix.EHOSTUNREACH))
	for _, x := range [][3]byte{{unix.SO_EE_ORIGIN_ICMP, 11, 0}, {unix.SO_EE_ORIGIN_ICMP, 3, 4}, {unix.SO_EE_ORIGIN_ICMP6, 1, 4},
		{unix.SO_EE_ORIGIN_ICMP6, 2, 0}, {unix.SO_EE_ORIGIN_LOCAL, 0, 0}} {
		copy(report[4:], x[:])
		data := append(bytes.Clone(report), name...)
		f.Add(append(controlMessage(unix.SOL_IP, unix.IP_TTL, []byte{63, 0, 0, 0}), controlMessage(unix.SOL_IP, unix.IP_RECVERR, data)...),
			name, []byte("payload"), []byte("head of eight..."), uint8(17))
		f.Add(controlMessage(unix.SOL_IP, unix.IP_RECVERR, data), name, []byte{8, 0, 0, 0, 0, 7, 0, 1, 'x'}, []byte{8, 0, 1, 2, 0, 7, 0, 1}, uint8(1))
	}
	s := New(Config{Network: testNetwork, Worker: new(loop.Worker)}, nil)
	b := packet.NewBatch()
	f.Fuzz(func(t *testing.T, control, name, payload, head []byte, proto uint8) {
		e, ok := parseError(control, name, payload)
		if len(e.payload) > len(payload) {
			t.Fatal("more payload than there is")
		}
		if !ok {
			return
		}
		me, peer := packet.AddrFromNetip(hostAddr), e.peer
		if !peer.Is4() {
			peer = packet.AddrFrom4([4]byte{198, 51, 100, 2})
		}
		p := []packet.Proto{packet.ProtoUDP, packet.ProtoICMP, packet.ProtoTCP}[proto%3]
		h := sent{src: [4]byte(me[12:]), dst: [4]byte(peer[12:]), id: 7, ttl: 9, proto: p, length: uint16(28 + len(head))}
		copy(h.head[:], head)
		if len(head) > transportHead {
			copy(h.data[:], head[transportHead:])
		}
		if p == packet.ProtoUDP && proto > 100 {
			h.flags |= sentPartial
		}
		if p == packet.ProtoICMP {
			packet.ICMP(h.head[:]).SetType(packet.ICMPEcho)
		}
		var r sentRing
		r.add(h)
		for _, h := range []*sent{r.find(&e, p), &h, nil} {
			k := packet.Tuple{Src: me, SrcPort: 40000, Dst: peer, DstPort: e.port, Proto: p}
			b.Reset()
			s.errorFrame(b, &e, &k, h)
			for i := range b.Frames {
				f := &b.Frames[i]
				if reason := packet.Parse(f); reason != packet.OK {
					t.Fatalf("an error that is malformed: %v", reason)
				}
				if got, ok := f.Quoted(); !ok || got.Src != k.Src || got.Dst != k.Dst || got.Proto != p {
					t.Fatalf("the router does not understand it: %v, %v", got, ok)
				}
				if n := len(f.Packet()); n > 576 {
					t.Fatalf("%d bytes", n)
				}
			}
		}
	})
}

// FuzzControl: the walk over control messages ends, and within its bytes.
func FuzzControl(f *testing.F) {
	f.Add(controlMessage(unix.SOL_IP, unix.IP_TTL, []byte{1, 0, 0, 0}))
	f.Add(append(controlMessage(unix.SOL_IP, unix.IP_TOS, []byte{1}), 1, 2, 3))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, seen := control(data), 0
		for {
			_, _, d, ok := c.next()
			if !ok {
				return
			}
			if seen += len(d) + unix.SizeofCmsghdr; seen > len(data) {
				t.Fatal("more than there is")
			}
		}
	})
}

// FuzzDatagramOut: whatever a container sends, frames are taken or refused with a
// reason, and no socket sees more than there is.
func FuzzDatagramOut(f *testing.F) {
	host := packettest.Station{MAC: routerMAC, IP: hostAddr}
	peer := packettest.Station{MAC: outsideMAC, IP: fragmentPeer.Addr()}
	udp := packettest.UDP(host, peer, 40000, 9, pattern(1, 100))
	f.Add(udp)
	f.Add(packettest.Partial(udp))
	f.Add(packettest.GSO(udp, 30))
	f.Add(packettest.ICMPEcho(host, peer, 7, 1, []byte("x")))
	f.Add(packettest.IPv4(host, peer, packet.ProtoUDP, []byte{7, 7, 4, 0, 0, 0, 0, 0}, udp[fragmentHeaders:]))
	r := newDgRig(f, nil)
	p := newPeer(f, "127.0.0.1:0")
	f.Fuzz(func(t *testing.T, b []byte) {
		frame := &packet.Frame{B: bytes.Clone(b), Network: testNetwork, Container: 7, Time: loop.Clock()}
		if packet.Parse(frame) != packet.OK || frame.EtherType != packet.EtherTypeIPv4 || frame.L3 != packet.EthernetLen {
			return
		}
		// The router lets no other addresses and protocols come here.
		ip := packet.IPv4(frame.Packet())
		ip.SetSrc(hostAddr.As4())
		ip.SetDst(p.at.Addr().As4())
		if !r.s.carries(frame) || frame.Proto == packet.ProtoTCP {
			return
		}
		if frame.L4 != 0 && frame.Proto == packet.ProtoUDP {
			packet.UDP(frame.Transport()).SetSrcPort(40000)
			packet.UDP(frame.Transport()).SetDstPort(p.at.Port())
			frame.SrcPort, frame.DstPort = 40000, p.at.Port()
		}
		frame.Flow = 1 + uint32(frame.Proto)
		frames := []*packet.Frame{frame, frame, frame}
		for len(frames) > 0 {
			n, err := r.s.WriteBatch(frames)
			if n > len(frames) || err == nil && n != len(frames) || err != nil && n == len(frames) {
				t.Fatalf("%d of %d taken, %v", n, len(frames), err)
			}
			frames = frames[min(n+1, len(frames)):]
		}
	})
}
