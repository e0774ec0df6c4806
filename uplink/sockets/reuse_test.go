package sockets

import (
	"io"
	"net"
	"testing"
	"time"

	"fairlead/packet"
)

// TestPublishedPortUsedAgain: a client that resets its connection may have the next one
// from the same port at once. What ends the first must not end the second, whose
// flow has the same tuple.
func TestPublishedPortUsedAgain(t *testing.T) {
	r := newRig(t, Config{})
	at := publish(r, "tcp4")
	dial := func(from net.Addr) *net.TCPConn {
		t.Helper()
		d := net.Dialer{LocalAddr: from, Timeout: patience}
		conn, err := d.Dial("tcp4", at.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(patience))
		return conn.(*net.TCPConn)
	}
	// shake answers the SYN that comes, and returns the tuple of the container's
	// segments and what it has to acknowledge.
	shake := func(seq uint32) (k packet.Tuple, ack uint32) {
		r.read(func(f *packet.Frame) bool {
			t := packet.TCP(f.Transport())
			k, ack = f.Tuple().Reverse(), t.Seq()+1
			if t.Flags() != packet.TCPSyn {
				return false
			}
			r.isEnded(k) // what was told before this SYN is of the connection before
			return true
		})
		r.write(tcpFrame(k, seg{flags: packet.TCPSyn | packet.TCPAck, seq: seq, ack: ack, window: 60000, options: synOptions(1460, 7)}))
		return k, ack
	}
	first := dial(nil)
	k, _ := shake(100)
	r.read(func(f *packet.Frame) bool { return packet.TCP(f.Transport()).Flags() == packet.TCPAck })

	// Both are there when the sockets are looked at again.
	from := first.LocalAddr()
	_ = first.SetLinger(0)
	_ = first.Close()
	second := dial(from)
	again, ack := shake(7000)
	if again != k {
		t.Fatalf("the second connection has the tuple %v, the first had %v", again, k)
	}
	r.write(tcpFrame(k, seg{flags: packet.TCPAck, seq: 7001, ack: ack, window: 60000, payload: []byte("hi")}))
	said := make([]byte, 2)
	if _, err := io.ReadFull(second, said); err != nil || string(said) != "hi" {
		t.Errorf("the second connection has %q, %v", said, err)
	}
	for r.poll(func(*packet.Frame) {}) {
	}
	if r.isEnded(k) {
		t.Error("the flow of the second connection was ended with the first")
	}
}

// TestOlderAcknowledgement: a container that goes on with an earlier connection
// while we have answered its SYN for the next one is told so by RST. Else both
// would wait until the handshake is given up.
func TestOlderAcknowledgement(t *testing.T) {
	r := newRig(t, Config{})
	l := listenLocal(t)
	k := towards(l.Addr(), 40001)
	r.write(tcpFrame(k, seg{flags: packet.TCPSyn, seq: 100, window: 60000, options: synOptions(1460, 7)}))
	var iss uint32
	r.read(func(f *packet.Frame) bool {
		iss = packet.TCP(f.Transport()).Seq()
		return packet.TCP(f.Transport()).Flags() == packet.TCPSyn|packet.TCPAck
	})
	r.write(tcpFrame(k, seg{flags: packet.TCPAck, seq: 101, ack: iss - 5000, window: 60000, payload: []byte("old")}))
	r.read(func(f *packet.Frame) bool {
		s := packet.TCP(f.Transport())
		return s.Flags() == packet.TCPRst && s.Seq() == iss-5000
	})
	r.write(tcpFrame(k, seg{flags: packet.TCPAck, seq: 101, ack: iss + 1, window: 60000, payload: []byte("new")}))
	c := accept(t, l)
	said := make([]byte, 3)
	if _, err := io.ReadFull(c, said); err != nil || string(said) != "new" {
		t.Errorf("the next connection has %q, %v", said, err)
	}
}

// TestLateReset: a reset of an earlier connection with the same port does not meddle
// with the next one, while the host connects or after. One that is of this connection
// ends it, and the next may begin right behind it.
func TestLateReset(t *testing.T) {
	r := newRig(t, Config{})
	l := listenLocal(t)
	k := towards(l.Addr(), 40001)
	syn := func(seq uint32) []byte {
		return tcpFrame(k, seg{flags: packet.TCPSyn, seq: seq, window: 60000, options: synOptions(1460, 7)})
	}
	reset := func(seq uint32) []byte { return tcpFrame(k, seg{flags: packet.TCPRst, seq: seq}) }
	// answer is the sequence number of what answers a SYN.
	answer := func(seq uint32) (iss uint32) {
		r.read(func(f *packet.Frame) bool {
			s := packet.TCP(f.Transport())
			iss = s.Seq()
			return s.Flags() == packet.TCPSyn|packet.TCPAck && s.Ack() == seq+1
		})
		return iss
	}
	r.write(syn(5000), reset(101))
	iss := answer(5000)
	r.write(reset(101), syn(5000))
	if again := answer(5000); again != iss {
		t.Errorf("a SYN that was sent again is answered by %d, first by %d", again, iss)
	}
	r.write(reset(5001), syn(9000))
	if next := answer(9000); next == iss {
		t.Errorf("the next connection is answered as the one before")
	}
}
