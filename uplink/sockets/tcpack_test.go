package sockets

import (
	"io"
	"testing"
	"time"

	"fairlead/packet"
)

// Where answers follow requests at once the acknowledgement of a request comes
// with the answer, and where one fails to come it comes alone.
func TestAcknowledgementRidesAlong(t *testing.T) {
	r := newRig(t, Config{})
	l := listenLocal(t)
	g := newGuest(r, towards(l.Addr(), 40001))
	g.connect()
	g.run("connected", func() bool { return g.open })
	k, seq, ack := g.k, g.nxt, g.rcvNxt
	c := accept(t, l)
	buf := make([]byte, 1)
	// round sends a byte, and another back, and reports whether an acknowledgement
	// came alone.
	round := func() (alone bool) {
		r.write(tcpFrame(k, seg{flags: packet.TCPAck | packet.TCPPsh, seq: seq, ack: ack, window: 500, payload: []byte("?")}))
		seq++
		for r.poll(func(*packet.Frame) { alone = true }) {
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("!")); err != nil {
			t.Fatal(err)
		}
		r.read(func(f *packet.Frame) bool {
			s := packet.TCP(f.Transport())
			if len(s.Payload()) == 0 {
				alone = true
				return false
			}
			if s.Ack() != seq {
				t.Fatalf("the answer acknowledges %d, not %d", s.Ack(), seq)
			}
			return true
		})
		ack++
		return alone
	}
	if !round() {
		t.Error("the first request was not acknowledged at once")
	}
	for deadline := time.Now().Add(10 * time.Second); round(); {
		if time.Now().After(deadline) {
			t.Fatal("no answer has taken the acknowledgement along")
		}
	}
	r.write(tcpFrame(k, seg{flags: packet.TCPAck | packet.TCPPsh, seq: seq, ack: ack, window: 500, payload: []byte("?")}))
	seq++
	r.read(func(f *packet.Frame) bool { return packet.TCP(f.Transport()).Ack() == seq })
	if !round() {
		t.Error("without an answer, the next request was not acknowledged at once")
	}
}

// An upload that follows requests has the window go on with it, as one that follows
// none.
func TestWindowFollowsAnUpload(t *testing.T) {
	r := newRig(t, Config{})
	l := listenLocal(t)
	g := newGuest(r, towards(l.Addr(), 40001))
	g.connect()
	g.run("connected", func() bool { return g.open })
	seq, ack, edge := g.nxt, g.rcvNxt, uint32(0)
	c := accept(t, l)
	// send has the server receive something, and waits until it is acknowledged.
	send := func(payload []byte, answer string) {
		r.write(tcpFrame(g.k, seg{flags: packet.TCPAck | packet.TCPPsh, seq: seq, ack: ack, window: 500, payload: payload, train: 1460}))
		seq += uint32(len(payload))
		if _, err := io.ReadFull(c, make([]byte, len(payload))); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, answer); err != nil {
			t.Fatal(err)
		}
		r.read(func(f *packet.Frame) bool {
			s := packet.TCP(f.Transport())
			edge = s.Ack() + uint32(s.Window())<<windowShift
			return s.Ack() == seq && len(s.Payload()) == len(answer)
		})
		ack += uint32(len(answer))
	}
	for range 4 * pingpongs {
		send([]byte("?"), "!")
	}
	const part = 10 * 1460
	before := edge
	for range 20 {
		send(make([]byte, part), "")
	}
	if edge-before < 10*part { // some may be in the socket still
		t.Errorf("%d bytes were taken, and the window ends %d further", 20*part, edge-before)
	}
}
