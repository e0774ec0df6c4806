package sockets

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"fairlead/packet"
)

// A said is a datagram as somebody outside sent it.
type said struct {
	by       uint16
	data     []byte
	ttl, tos uint8
	id       uint16 // set where it arrives
}

// cutFrame is what a frame stands for, datagram by datagram.
func cutFrame(t testing.TB, f *packet.Frame) (list []said) {
	t.Helper()
	if reason := packet.Parse(f); reason != packet.OK {
		t.Fatalf("came malformed: %v", reason)
	}
	var s packet.Segmenter
	buf := make([]byte, packet.MaxFrame)
	for s.Reset(f); ; {
		n, ok := s.Next(buf)
		if !ok {
			return list
		}
		one := packet.Frame{B: buf[:n]}
		if reason := packet.Parse(&one); reason != packet.OK {
			t.Fatalf("a piece is malformed: %v", reason)
		}
		ip, u := packet.IPv4(one.Packet()), packet.UDP(one.Transport())
		if packet.Sum(u, packet.PseudoSum4(ip.Src(), ip.Dst(), packet.ProtoUDP, len(u))) != 0xffff {
			t.Fatal("a piece has a wrong checksum")
		}
		if ip.DontFragment() {
			t.Fatal("a piece has DF")
		}
		list = append(list, said{one.SrcPort, bytes.Clone(u.Payload()), ip.TTL(), ip.TOS(), ip.ID()})
	}
}

// TestUDPJoined: what peers send one by one and as trains comes in the order it
// was sent, each datagram once, with its header and an identification of its own,
// however many make one frame and however little of it is read at once; and each by
// itself when it is read while none may go together.
func TestUDPJoined(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	frames, datagrams := 0, 0
	for round := range 120 {
		seldom := 1 + round%2*15 // how much more alike they are
		changing, joins := round%3 == 2, true
		x := newDgPipe(t, 1, 1, func(c *Config) { c.Joins = func() bool { return joins } })
		x.up()
		to := x.p.recv().from
		peers := []*peer{x.p, newPeer(t, "127.0.0.1:0"), newPeer(t, "127.0.0.2:0")}
		var want []said
		sizes, size := []int{0, 1, 60, 60, 60, 1400, 1400, 1400, 1399, 3000, 30000}, 60
		p, ttl, tos := peers[0], uint8(64), uint8(0)
		for queued := 0; queued < 100_000; { // all of it fits a receive buffer
			if rng.IntN(4*seldom) == 0 {
				p = peers[rng.IntN(len(peers))]
			}
			if rng.IntN(6*seldom) == 0 {
				ttl, tos = uint8(60+rng.IntN(3)), uint8(rng.IntN(3))
			}
			setOption(t, p.fd, ttl, tos)
			if rng.IntN(seldom) == 0 {
				size = sizes[rng.IntN(len(sizes))]
			}
			data := pattern(rng.IntN(256), size)
			if rng.IntN(5*seldom) == 0 {
				size := 60 + 1340*rng.IntN(2)
				data = pattern(rng.IntN(256), size*(1+rng.IntN(4))+rng.IntN(size))
				p.sendTrain(to, data, size)
				for ; len(data) > size; data = data[size:] {
					want = append(want, said{by: p.at.Port(), data: data[:size], ttl: ttl, tos: tos})
				}
			} else {
				p.send(to, data)
			}
			want = append(want, said{by: p.at.Port(), data: data, ttl: ttl, tos: tos})
			queued += len(data) + 2000
		}
		last := uint16(0)
		for got := 0; got < len(want); {
			joins = !changing || rng.IntN(2) == 0
			x.batch.Reset()
			x.batch.Limit(1 + rng.IntN(8))
			if _, err := x.s.ReadBatch(x.batch); err != nil {
				t.Fatal(err)
			}
			for i := range x.batch.Frames {
				list := cutFrame(t, &x.batch.Frames[i])
				if !joins && len(list) > 1 {
					t.Fatalf("%d datagrams came in one frame", len(list))
				}
				if !changing {
					frames++
					datagrams += len(list)
				}
				for _, s := range list {
					if got == len(want) {
						t.Fatal("more came than was sent")
					}
					if w := want[got]; s.by != w.by || s.ttl != w.ttl || s.tos != w.tos || !bytes.Equal(s.data, w.data) {
						t.Fatalf("datagram %d of %d: %d bytes of %d with TTL %d, want %d of %d with %d", got, len(want), len(s.data), s.by, s.ttl, len(w.data), w.by, w.ttl)
					}
					if got++; got > 1 && s.id != last+1 {
						t.Fatalf("datagram %d has the identification %d behind %d", got, s.id, last)
					}
					last = s.id
				}
			}
			if len(x.batch.Frames) == 0 && got < len(want) {
				x.await(fmt.Sprintf("datagram %d of %d", got, len(want)))
			}
		}
	}
	t.Logf("%d datagrams in %d frames", datagrams, frames)
	if frames*4 > datagrams*3 {
		t.Errorf("%d datagrams made %d frames: hardly any were joined", datagrams, frames)
	}
}

// TestUDPOfDHCP: datagrams of DHCP come one by one, whatever the kernel makes of them.
func TestUDPOfDHCP(t *testing.T) {
	for port, want := range map[uint16]int{67: 5, 68: 5, 69: 1} {
		x := newDgPipe(t, 1, 1, nil)
		x.write(x.udp(port, x.p.at, []byte("hi")))
		x.p.sendTrain(x.p.recv().from, pattern(1, 5*60), 60)
		if frames := x.down(5); frames != want {
			t.Errorf("port %d: %d frames, want %d", port, frames, want)
		}
	}
}

// TestUDPTurns: a socket with much to say does not keep others waiting, even if
// what is read ahead never joins.
func TestUDPTurns(t *testing.T) {
	for _, c := range []struct {
		name  string
		peers int
		size  func(i int) int
	}{
		{"each longer than the one before", 1, func(i int) int { return 10 + i }},
		{"two peers in turn", 2, func(int) int { return 100 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newDgPipe(t, 1, 1, nil)
			quiet := newPeer(t, "127.0.0.1:0")
			x.up()
			loud := x.p.recv().from
			x.write(x.udp(40001, quiet.at, []byte("hi")))
			to := quiet.recv().from
			peers := []*peer{x.p, newPeer(t, "127.0.0.1:0")}
			for i := range 150 {
				peers[i%c.peers].send(loud, pattern(1, c.size(i)))
			}
			quiet.send(to, []byte("me too"))
			eventually(t, func() error {
				x.s.mu.Lock()
				defer x.s.mu.Unlock()
				if n := len(x.s.ready.list) - x.s.ready.head; n < 2 {
					return fmt.Errorf("%d have something to say", n)
				}
				return nil
			})
			for before := 0; ; {
				x.batch.Reset()
				if n, err := x.s.ReadBatch(x.batch); n == 0 || err != nil {
					t.Fatalf("it never came: %v", err)
				}
				for i := range x.batch.Frames {
					list := cutFrame(t, &x.batch.Frames[i])
					if list[0].by != quiet.at.Port() {
						before += len(list)
						continue
					}
					if before > sendAtOnce+maxAhead {
						t.Errorf("%d datagrams came before", before)
					}
					return
				}
			}
		})
	}
}

// TestUDPJoinedThenClosed: a datagram that was read behind others is lost with
// its socket, and nobody waits for it.
func TestUDPJoinedThenClosed(t *testing.T) {
	x := newDgPipe(t, 1, 1, nil)
	x.up()
	to := x.p.recv().from
	for _, n := range []int{2000, 2000, 3000} {
		x.p.send(to, pattern(1, n))
	}
	eventually(t, func() error {
		x.batch.Reset()
		_, err := x.s.ReadBatch(x.batch)
		if err == nil && len(x.batch.Frames) == 0 {
			err = fmt.Errorf("nothing came")
		}
		return err
	})
	if n := len(cutFrame(t, &x.batch.Frames[0])); n != 2 || x.s.carried.e == nil {
		t.Fatalf("%d datagrams came, carried %v", n, x.s.carried.e)
	}
	x.end(x.frames[0].Tuple())
	x.batch.Reset()
	if n, err := x.s.ReadBatch(x.batch); n != 0 || err != nil {
		t.Errorf("%d frames of a closed socket, %v", n, err)
	}
	if x.s.carried.e != nil || x.s.Stats().Descriptors != 0 {
		t.Error("something is left")
	}
}

// TestUDPOverrun: each datagram came or is counted as lost for lack of room.
func TestUDPOverrun(t *testing.T) {
	x := newDgPipe(t, 1, 1, nil)
	x.up()
	to := x.p.recv().from
	const sent = 2000
	for i := range sent {
		x.p.send(to, pattern(i, 1400))
	}
	came := 0
	read := func() {
		x.batch.Reset()
		if _, err := x.s.ReadBatch(x.batch); err != nil {
			t.Fatal(err)
		}
		for i := range x.batch.Frames {
			came += len(cutFrame(t, &x.batch.Frames[i]))
		}
	}
	more := func() {
		for x.await("datagrams"); ; {
			if read(); len(x.batch.Frames) == 0 {
				return
			}
		}
	}
	more()
	x.p.send(to, []byte("one more")) // how many were lost the kernel says with the next that comes
	for before := came; came == before; {
		more()
	}
	if lost := x.s.Stats().Overrun.N; lost == 0 || int(lost)+came != sent+1 {
		t.Errorf("%d came and %d are counted as lost of %d", came, lost, sent+1)
	}
}
