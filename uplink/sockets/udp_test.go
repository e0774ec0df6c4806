package sockets

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	"fairlead/packet"
	"fairlead/packet/packettest"
)

// TestUDPMapping: one port of a container is one port of the host, towards
// everybody (RFC 4787 REQ-1), and what comes there has the peer as source and
// the mapping as destination.
func TestUDPMapping(t *testing.T) {
	r := newDgRig(t, nil)
	a, b := newPeer(t, "127.0.0.1:0"), newPeer(t, "127.0.0.2:0")
	r.write(r.udp(40000, a.at, []byte("to a")), r.udp(40000, b.at, []byte("to b")))
	fromA, fromB := a.recv(), b.recv()
	if string(fromA.data) != "to a" || string(fromB.data) != "to b" {
		t.Fatalf("heard %q and %q", fromA.data, fromB.data)
	}
	if fromA.from.Port() != fromB.from.Port() {
		t.Errorf("two ports of the host, %v and %v, for one of the container", fromA.from, fromB.from)
	}
	for _, p := range []*peer{a, b} {
		p.send(fromA.from, []byte(p.at.String()))
		f, payload := r.datagram()
		k := f.Tuple()
		want := packet.Tuple{Src: packet.AddrFromNetip(p.at.Addr()), SrcPort: p.at.Port(), Dst: packet.AddrFromNetip(hostAddr), DstPort: 40000, Proto: packet.ProtoUDP}
		if k != want || string(payload) != p.at.String() {
			t.Errorf("came %v with %q, want %v", k, payload, want)
		}
	}
	if n := r.s.Stats(); n.Descriptors != 1 || n.Flows != 2 {
		t.Errorf("%+v, want one descriptor of two flows", n)
	}
}

// TestUDPEnd: the socket goes with its last flow.
func TestUDPEnd(t *testing.T) {
	r := newDgRig(t, nil)
	a, b := newPeer(t, "127.0.0.1:0"), newPeer(t, "127.0.0.1:0")
	toA, toB := r.udp(40000, a.at, []byte("1")), r.udp(40000, b.at, []byte("2"))
	r.write(toA, toB)
	a.recv()
	from := b.recv().from
	r.end(toA.Tuple())
	b.send(from, []byte("still there"))
	if _, payload := r.datagram(); string(payload) != "still there" {
		t.Fatalf("came %q", payload)
	}
	r.end(toB.Tuple())
	eventually(t, func() error {
		if n := r.s.Stats(); n.Descriptors != 0 || n.Flows != 0 {
			return fmt.Errorf("left: %+v", n)
		}
		return nil
	})
}

// TestUDPHeader: time to live, type of service with its ECN bits, and payload
// of any length go both ways.
func TestUDPHeader(t *testing.T) {
	for _, offload := range []bool{true, false} {
		r := newDgRig(t, func(c *Config) { c.NoUDPOffload = !offload })
		p := newPeer(t, "127.0.0.1:0")
		for i, size := range []int{0, 1, 1472, 9000, 65507} {
			payload := pattern(i, size)
			ttl, tos := uint8(3+i), uint8(i*37)
			f := r.with(r.udp(40000, p.at, payload), func(ip packet.IPv4) { ip.SetTTL(ttl); ip.SetTOS(tos) })
			r.write(f)
			h := p.recv()
			if h.ttl != ttl || h.tos != tos || !bytes.Equal(h.data, payload) {
				t.Errorf("%d bytes with TTL %d and TOS %#x became %d bytes with %d and %#x", size, ttl, tos, len(h.data), h.ttl, h.tos)
			}
			setOption(t, p.fd, ttl, tos)
			p.send(h.from, payload)
			back, got := r.datagram()
			ip := packet.IPv4(back.Packet())
			if ip.TTL() != ttl || ip.TOS() != tos || !bytes.Equal(got, payload) || ip.DontFragment() {
				t.Errorf("back: %d bytes with TTL %d and TOS %#x became %d bytes with %d and %#x, DF %v", size, ttl, tos, len(got), ip.TTL(), ip.TOS(), ip.DontFragment())
			}
		}
	}
}

// TestUDPTrains: frames of a flow leave together where they may, trains of a
// container leave whole, and the peer hears each datagram once and in order.
func TestUDPTrains(t *testing.T) {
	for _, offload := range []bool{true, false} {
		t.Run(fmt.Sprint("offload=", offload), func(t *testing.T) {
			r := newDgRig(t, func(c *Config) { c.NoUDPOffload = !offload })
			p := newPeer(t, "127.0.0.1:0")
			var want [][]byte
			var frames []*packet.Frame
			add := func(sizes ...int) {
				for _, n := range sizes {
					payload := pattern(len(want), n)
					want = append(want, payload)
					frames = append(frames, r.udp(40000, p.at, payload))
				}
			}
			train := func(size, total int) {
				payload := pattern(len(want), total)
				frames = append(frames, r.frame(packettest.GSO(r.udpBytes(40000, p.at, payload), size)))
				for ; len(payload) > size; payload = payload[size:] {
					want = append(want, payload[:size])
				}
				want = append(want, payload)
			}
			add(100, 100, 100, 60, 100, 0, 100, 200, 1)
			train(500, 2500)
			add(500, 499, 500)
			train(500, 700)
			train(1, 100) // more than the kernel takes at once
			add(1, 1)
			for range 70 {
				add(1200)
			}
			hop := r.udp(40000, p.at, pattern(len(want), 1200))
			want = append(want, pattern(len(want), 1200))
			frames = append(frames, r.with(hop, func(ip packet.IPv4) { ip.SetTTL(9) }))
			go r.write(frames...)
			for i := range want {
				h := p.recv()
				if !bytes.Equal(h.data, want[i]) {
					t.Fatalf("datagram %d: %d bytes, want %d", i, len(h.data), len(want[i]))
				}
				if i == len(want)-1 && h.ttl != 9 {
					t.Errorf("the last one has TTL %d", h.ttl)
				}
			}
		})
	}
}

// TestUDPTrainIn: a train of the peer's comes as one frame, or as datagrams
// where the kernel hands over no trains.
func TestUDPTrainIn(t *testing.T) {
	for _, offload := range []bool{true, false} {
		r := newDgRig(t, func(c *Config) { c.NoUDPOffload = !offload })
		p := newPeer(t, "127.0.0.1:0")
		r.write(r.udp(40000, p.at, []byte("hello")))
		from := p.recv().from
		payload := pattern(1, 10*1000+1)
		p.sendTrain(from, payload, 1000)
		var got []byte
		frames := 0
		for ; len(got) < len(payload); frames++ {
			f, part := r.datagram()
			got = append(got, part...)
			if offload && (f.Segments() != 11 || f.VNet().GSOSize() != 1000) {
				t.Errorf("a frame of %d segments of %d bytes", f.Segments(), f.VNet().GSOSize())
			}
		}
		if !bytes.Equal(got, payload) {
			t.Error("the payload is another")
		}
		if want := map[bool]int{true: 1, false: 11}[offload]; frames != want {
			t.Errorf("offload %v: %d frames, want %d", offload, frames, want)
		}
	}
}

// TestUDPAltered: what a socket cannot keep is counted, and a damaged datagram
// does not leave.
func TestUDPAltered(t *testing.T) {
	r := newDgRig(t, nil)
	p := newPeer(t, "127.0.0.1:0")
	b := r.udpBytes(40000, p.at, []byte("no sum"))
	f := r.frame(b)
	packet.UDP(f.Transport()).SetChecksum(0)
	r.write(f)
	if h := p.recv(); string(h.data) != "no sum" {
		t.Errorf("heard %q", h.data)
	}
	u := packet.UDP(r.frame(r.udpBytes(40000, p.at, []byte("options"))).Transport())
	f = r.frame(packettest.IPv4(packettest.Station{MAC: routerMAC, IP: hostAddr}, packettest.Station{MAC: outsideMAC, IP: p.at.Addr()},
		packet.ProtoUDP, []byte{7, 7, 4, 0, 0, 0, 0, 0}, u))
	r.write(f)
	if h := p.recv(); string(h.data) != "options" {
		t.Errorf("heard %q", h.data)
	}
	bad := r.frame(r.udpBytes(40000, p.at, []byte("damaged")))
	packet.UDP(bad.Transport())[10] ^= 1
	good := r.udp(40000, p.at, []byte("good"))
	if n, err := r.try(good, bad, good); n != 1 || err != packet.BadTransport { //nolint:errorlint // see switch
		t.Errorf("a damaged datagram: %d taken, %v", n, err)
	}
	if h := p.recv(); string(h.data) != "good" {
		t.Errorf("heard %q", h.data)
	}
	if n := r.s.Stats(); n.NoChecksum.N != 1 || n.Options.N != 1 || n.Damaged.N != 1 || n.Damaged.Last == 0 {
		t.Errorf("%+v, want one of each", n)
	}
}

// TestUDPBudget: a container at its bound gives up its oldest socket that was
// never answered, else it is refused; another one goes on.
func TestUDPBudget(t *testing.T) {
	r := newDgRig(t, func(c *Config) { c.Containers, c.Total = 3, 5 })
	p := newPeer(t, "127.0.0.1:0")
	for port := uint16(40000); port < 40003; port++ {
		r.write(r.udp(port, p.at, []byte("x")))
		p.recv()
	}
	r.write(r.udp(40003, p.at, []byte("x")))
	if k := r.over(); k.SrcPort != 40000 {
		t.Errorf("the flow of port %d ended, not that of the oldest", k.SrcPort)
	}
	p.recv()
	for port := uint16(40001); port < 40004; port++ {
		r.write(r.udp(port, p.at, []byte("y")))
		p.send(p.recv().from, []byte("answer"))
		r.datagram()
	}
	f := r.udp(40009, p.at, []byte("z"))
	x := packet.Translation{New: true, Container: r.c, After: f.Tuple()}
	if r.s.admits(&x) {
		t.Error("one more socket is admitted")
	}
	if n, err := r.try(f); n != 0 || err != packet.SocketBudget { //nolint:errorlint // see switch
		t.Errorf("one more socket: %v", err)
	}
	x.After = r.udp(40001, netip.MustParseAddrPort("127.0.0.9:9"), nil).Tuple()
	if !r.s.admits(&x) {
		t.Error("another flow of a socket there is was not admitted")
	}
	r.c = 8
	r.write(r.udp(40010, p.at, []byte("other")))
	if h := p.recv(); string(h.data) != "other" {
		t.Errorf("heard %q", h.data)
	}
}
