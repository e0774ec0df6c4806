package sockets

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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

func TestPublished(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6"} {
		t.Run(network, func(t *testing.T) {
			r := newRig(t, Config{})
			at := publish(r, network)
			if err := r.s.Listen(packet.ProtoTCP, at); !errors.Is(err, unix.EADDRINUSE) {
				t.Errorf("published twice: %v", err)
			}
			client, err := net.Dial(network, at.String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			_ = client.SetDeadline(time.Now().Add(patience))
			var k packet.Tuple
			var iss uint32
			r.read(func(f *packet.Frame) bool {
				if packet.TCP(f.Transport()).Flags() != packet.TCPSyn {
					t.Fatalf("flags %x", packet.TCP(f.Transport()).Flags())
				}
				iss, k = packet.TCP(f.Transport()).Seq(), f.Tuple().Reverse()
				return true
			})
			from := client.LocalAddr().(*net.TCPAddr).AddrPort()
			if network == "tcp4" && (k.Dst.Netip() != from.Addr() || k.DstPort != from.Port() || k.Src.Netip() != at.Addr() || k.SrcPort != at.Port()) {
				t.Errorf("the container sees %v of %v", k, from)
			}
			if network == "tcp6" && (!packet.IsStandIn(k.Dst) || k.Src.Netip() != outside) {
				t.Errorf("the container sees %v", k)
			}
			r.write(tcpFrame(k, seg{flags: packet.TCPSyn | packet.TCPAck, seq: 77, ack: iss + 1, window: 60000, options: synOptions(1460, 7)}))
			r.read(func(f *packet.Frame) bool {
				return packet.TCP(f.Transport()).Flags() == packet.TCPAck && packet.TCP(f.Transport()).Ack() == 78
			})
			r.write(tcpFrame(k, seg{flags: packet.TCPAck, seq: 78, ack: iss + 1, window: 60000, payload: []byte("hi")}))
			buf := make([]byte, 2)
			if _, err := io.ReadFull(client, buf); err != nil || string(buf) != "hi" {
				t.Fatal(string(buf), err)
			}
			r.write(tcpFrame(k, seg{flags: packet.TCPRst, seq: 80}))
			if _, err := client.Read(buf); !errors.Is(err, unix.ECONNRESET) {
				t.Error(err)
			}
			r.eventually("the flow ends", func() bool { return r.isEnded(k) })
			r.s.Unlisten(packet.ProtoTCP, at)
			if c, err := net.Dial(network, at.String()); err == nil {
				_ = c.Close()
				t.Error("the port is still open")
			}
		})
	}
}

// publish publishes a port of the loopback that nobody listens on.
func publish(r *rig, network string) netip.AddrPort {
	r.t.Helper()
	for range 100 { // somebody may take it in between
		l, err := net.Listen(network, map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0"}[network])
		if err != nil {
			r.t.Fatal(err)
		}
		at := l.Addr().(*net.TCPAddr).AddrPort()
		_ = l.Close()
		if err = r.s.Listen(packet.ProtoTCP, at); err == nil {
			return at
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			r.t.Fatal(err)
		}
	}
	r.t.Fatal("no port is free")
	return netip.AddrPort{}
}
