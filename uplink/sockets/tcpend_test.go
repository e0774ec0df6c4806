package sockets

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"golang.org/x/sys/unix"

	"fairlead/loop"
	"fairlead/packet"
)

func TestHalfClose(t *testing.T) {
	t.Run("with peek offset", func(t *testing.T) { halfClose(t, Config{}) })
	t.Run("without", func(t *testing.T) { halfClose(t, Config{NoPeekOffset: true}) })
}

func halfClose(t *testing.T, conf Config) {
	up, down := random(200_000, 1), random(300_000, 2)
	t.Run("container first", func(t *testing.T) {
		r := newRig(t, conf)
		r.stopTime()
		g, c := talk(t, r, 40001)
		g.out, g.finish = up, true
		g.run("the FIN is acknowledged", g.finished)
		if got := r.state(g.k); got != closeWait {
			t.Errorf("%v", got)
		}
		if swallow(c) != sum256(up) {
			t.Error("other data")
		}
		go pump(c, down)
		g.run("the host's FIN", func() bool { return g.sawFin })
		g.run("the flow ends", func() bool { return r.isEnded(g.k) })
		if !bytes.Equal(g.in, down) {
			t.Error("other data")
		}
		r.nothingLeft()
	})
	t.Run("host first", func(t *testing.T) {
		r := newRig(t, conf)
		r.stopTime()
		g, c := talk(t, r, 40001)
		pump(c, down)
		g.run("the host's FIN", func() bool { return g.sawFin && r.state(g.k) == finWait2 })
		g.out, g.finish = up, true
		g.run("the FIN is acknowledged", g.finished)
		if got := r.state(g.k); got != timeWait {
			t.Errorf("%v", got)
		}
		if swallow(c) != sum256(up) {
			t.Error("other data")
		}
		g.segment(packet.TCPAck|packet.TCPFin, g.nxt-1, nil) // as if the answer was lost
		r.read(func(f *packet.Frame) bool { return packet.TCP(f.Transport()).Ack() == g.nxt })
		r.late(g.k)
		g.run("the flow ends", func() bool { return r.isEnded(g.k) })
		r.nothingLeft()
	})
	t.Run("together", func(t *testing.T) {
		r := newRig(t, conf)
		r.stopTime()
		g, c := talk(t, r, 40001)
		_ = c.CloseWrite()
		r.eventually("the host's FIN", func() bool { return r.state(g.k) == finWait1 })
		g.segment(packet.TCPAck|packet.TCPFin, g.nxt, nil)
		if got := r.state(g.k); got != closing {
			t.Errorf("%v", got)
		}
		g.rcvNxt++
		g.nxt++
		g.segment(packet.TCPAck, g.nxt, nil)
		if got := r.state(g.k); got != timeWait {
			t.Errorf("%v", got)
		}
		r.late(g.k)
		r.eventually("the flow ends", func() bool { return r.isEnded(g.k) })
		r.nothingLeft()
	})
}

// TestEndBehindData: the FIN that came with data is sent with it, before any of it
// is acknowledged.
func TestEndBehindData(t *testing.T) {
	for _, no := range []bool{false, true} {
		r := newRig(t, Config{NoPeekOffset: no})
		g, c := talk(t, r, 40001)
		if _, err := c.Write([]byte("an answer")); err != nil {
			t.Fatal(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		g.listen("a FIN", func() bool { return g.sawFin })
		if string(g.in) != "an answer" {
			t.Errorf("%q came", g.in)
		}
	}
}

// TestEndBehindUrgentData: what ends a peek early does not have the FIN be
// forgotten.
func TestEndBehindUrgentData(t *testing.T) {
	for _, no := range []bool{false, true} {
		r := newRig(t, Config{NoPeekOffset: no})
		g, c := talk(t, r, 40001)
		urgently(t, c)
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		g.run("all of it and the FIN", func() bool { return string(g.in) == "before ! behind" && g.sawFin })
	}
}

// TestPortUsedAgain: a SYN in TIME-WAIT begins the next connection.
func TestPortUsedAgain(t *testing.T) {
	r := newRig(t, Config{Containers: 1})
	r.stopTime()
	l := listenLocal(t)
	k := towards(l.Addr(), 40001)
	for range 2 {
		g := newGuest(r, k)
		r.look(k, func(c *conn) { g.iss = c.rcvNxt + 1 })
		g.connect()
		g.run("connected", func() bool { return g.open })
		c := accept(t, l)
		_ = c.CloseWrite()
		g.run("the host's FIN", func() bool { return g.sawFin && r.state(k) == finWait2 })
		g.finish = true
		g.run("the FIN is acknowledged", g.finished)
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	}
	r.late(k)
	r.eventually("the flow ends", func() bool { return r.isEnded(k) })
	r.nothingLeft()
}

func TestResetByContainer(t *testing.T) {
	r := newRig(t, Config{})
	g, c := talk(t, r, 40001)
	g.transmit(seg{flags: packet.TCPRst, seq: g.nxt + 100}) // a guess (RFC 5961)
	r.read(func(f *packet.Frame) bool { return packet.TCP(f.Transport()).Flags() == packet.TCPAck })
	g.transmit(seg{flags: packet.TCPRst, seq: g.nxt - 100})
	if r.state(g.k) != established {
		t.Fatal("a guessed RST has ended the connection")
	}
	g.transmit(seg{flags: packet.TCPRst, seq: g.nxt})
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Error(err)
	}
	r.eventually("the flow ends", func() bool { return r.isEnded(g.k) })
	r.nothingLeft()
}

// TestResetByHost: what was sent before it is not lost.
func TestResetByHost(t *testing.T) {
	for _, half := range []bool{false, true} {
		r := newRig(t, Config{})
		g, c := talk(t, r, 40001)
		if half {
			_ = c.CloseWrite()
			g.run("the host's FIN", func() bool { return g.sawFin })
		} else if _, err := c.Write([]byte("last words")); err != nil {
			t.Fatal(err)
		}
		_ = c.SetLinger(0)
		_ = c.Close()
		g.run("a reset", func() bool { return g.reset })
		if !half && string(g.in) != "last words" {
			t.Errorf("%q came before the reset", g.in)
		}
		r.eventually("the flow ends", func() bool { return r.isEnded(g.k) })
		r.nothingLeft()
	}
}

// TestResetBehindAClosedWindow: a reset waits for no window, though the data
// before it does.
func TestResetBehindAClosedWindow(t *testing.T) {
	r := newRig(t, Config{})
	g, c := talk(t, r, 40001)
	g.room = 0
	g.segment(packet.TCPAck, g.nxt, nil)
	if _, err := c.Write([]byte("never read")); err != nil {
		t.Fatal(err)
	}
	e := r.conn(g.k)
	g.run("the window is asked for", func() bool {
		r.s.mu.Lock()
		defer r.s.mu.Unlock()
		return e.bits.has(probing)
	})
	_ = c.SetLinger(0)
	_ = c.Close()
	g.run("a reset", func() bool { return g.reset })
	r.eventually("the flow ends", func() bool { return r.isEnded(g.k) })
	r.nothingLeft()
}

func TestFlowEnded(t *testing.T) {
	r := newRig(t, Config{})
	g, c := talk(t, r, 40001)
	r.s.FlowEnded(r.numbers[g.k])
	r.eventually("the socket is closed", func() bool { return r.s.Stats().Descriptors == 0 })
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Error(err)
	}
	if r.isEnded(g.k) {
		t.Error("NAT is told of the end it told of")
	}
	r.nothingLeft()
}

// TestSilentContainer: a container that answers nothing is given up in the end.
func TestSilentContainer(t *testing.T) {
	r := newRig(t, Config{})
	r.stopTime()
	g, c := talk(t, r, 40001)
	if _, err := c.Write([]byte("anybody?")); err != nil {
		t.Fatal(err)
	}
	sent := 0
	for range maxRetries + 1 {
		r.read(func(f *packet.Frame) bool {
			if string(packet.TCP(f.Transport()).Payload()) == "anybody?" {
				sent++
				return true
			}
			return false
		})
		r.late(g.k)
	}
	r.read(func(f *packet.Frame) bool { return packet.TCP(f.Transport()).Flags()&packet.TCPRst != 0 })
	if sent != maxRetries+1 {
		t.Errorf("sent %d times", sent)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Error(err)
	}
	r.eventually("the flow ends", func() bool { return r.isEnded(g.k) })
	r.nothingLeft()
}

// TestClose: an uplink that goes resets what it has.
func TestClose(t *testing.T) {
	r := newRig(t, Config{})
	_, c := talk(t, r, 40001)
	if err := r.s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Error(err)
	}
	if _, err := r.s.WriteBatch([]*packet.Frame{{Time: loop.Clock()}}); err == nil {
		t.Error("it takes frames still")
	}
}
