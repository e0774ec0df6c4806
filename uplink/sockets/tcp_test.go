package sockets

import (
	"errors"
	"io"
	"testing"

	"fairlead/packet"
)

func TestConnectAndTalk(t *testing.T) {
	r := newRig(t, Config{})
	l := listenLocal(t)
	k := towards(l.Addr(), 40001)
	r.write(tcpFrame(k, seg{flags: packet.TCPSyn, seq: 1000, window: 64240, options: synOptions(1460, 7)}))
	var iss uint32
	r.read(func(f *packet.Frame) bool {
		s := packet.TCP(f.Transport())
		if s.Flags() != packet.TCPSyn|packet.TCPAck || s.Ack() != 1001 {
			t.Fatalf("flags %x ack %d", s.Flags(), s.Ack())
		}
		if mss, _ := s.MSS(); mss != 1460 {
			t.Fatalf("MSS %d", mss)
		}
		iss = s.Seq()
		return true
	})
	c := accept(t, l)
	r.write(tcpFrame(k, seg{flags: packet.TCPAck, seq: 1001, ack: iss + 1, window: 500}))
	r.write(tcpFrame(k, seg{flags: packet.TCPAck | packet.TCPPsh, seq: 1001, ack: iss + 1, window: 500, payload: []byte("hello")}))
	r.read(func(f *packet.Frame) bool { return packet.TCP(f.Transport()).Ack() == 1006 })
	buf := make([]byte, 5)
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "hello" {
		t.Fatal(string(buf), err)
	}
	if _, err := c.Write([]byte("world")); err != nil {
		t.Fatal(err)
	}
	r.read(func(f *packet.Frame) bool {
		s := packet.TCP(f.Transport())
		return string(s.Payload()) == "world" && s.Seq() == iss+1
	})
	r.write(tcpFrame(k, seg{flags: packet.TCPAck, seq: 1006, ack: iss + 6, window: 500}))
	r.write(tcpFrame(k, seg{flags: packet.TCPAck | packet.TCPFin, seq: 1006, ack: iss + 6, window: 500}))
	r.read(func(f *packet.Frame) bool { return packet.TCP(f.Transport()).Ack() == 1007 })
	if _, err := c.Read(buf); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	_ = c.Close()
	r.read(func(f *packet.Frame) bool { return packet.TCP(f.Transport()).Flags()&packet.TCPFin != 0 })
	r.write(tcpFrame(k, seg{flags: packet.TCPAck, seq: 1007, ack: iss + 7, window: 500}))
	r.eventually("the flow ends", func() bool { return r.isEnded(k) })
}

// TestSmallSegments: a container that takes small segments only gets no others, and
// no more of them in a train than links cut in one go.
func TestSmallSegments(t *testing.T) {
	r := newRig(t, Config{})
	l := listenLocal(t)
	k := towards(l.Addr(), 40001)
	const mss, most = 100, 128
	r.write(tcpFrame(k, seg{flags: packet.TCPSyn, seq: 1000, window: 64240, options: synOptions(mss, 7)}))
	var next uint32
	r.read(func(f *packet.Frame) bool {
		next = packet.TCP(f.Transport()).Seq() + 1
		return true
	})
	c := accept(t, l)
	ack := func() {
		r.write(tcpFrame(k, seg{flags: packet.TCPAck, seq: 1001, ack: next, window: 500}))
	}
	ack()
	if _, err := c.Write(make([]byte, 60000)); err != nil {
		t.Fatal(err)
	}
	for end := next + 60000; next != end; {
		r.read(func(f *packet.Frame) bool {
			s := packet.TCP(f.Transport())
			n, size := len(s.Payload()), len(s.Payload())
			if f.Flags.Has(packet.GSO) {
				size = int(f.VNet().GSOSize())
			}
			if size > mss || n > most*mss {
				t.Fatalf("%d bytes in segments of %d", n, size)
			}
			if s.Seq() == next {
				next += uint32(n)
			}
			return n > 0
		})
		ack()
	}
}
