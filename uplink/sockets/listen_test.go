package sockets

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/packet"
)

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
			if network == "tcp6" && (!packet.IsStandIn(k.Dst) || k.Src != packet.HostIPv6) {
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

// TestNoDescriptors: when the process has none left, connections are refused both
// ways and nothing spins.
func TestNoDescriptors(t *testing.T) {
	r := newRig(t, Config{})
	l := listenLocal(t)
	at := publish(r, "tcp4")
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(client)
	tv := unix.NsecToTimeval(int64(patience))
	_ = unix.SetsockoptTimeval(client, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	exhaust(t)

	g := newGuest(r, towards(l.Addr(), 40001))
	g.connect()
	r.read(func(f *packet.Frame) bool { return packet.TCP(f.Transport()).Flags()&packet.TCPRst != 0 })

	if err := unix.Connect(client, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Read(client, make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the client sees %v", err)
	}
	if n := r.s.Stats().Unaccepted.N; n != 1 {
		t.Errorf("%d refused", n)
	}
}

// exhaust has the process be out of descriptors until the test ends.
func exhaust(t *testing.T) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	next, err := unix.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(next)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(next), Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &old) })
}

// TestPublishedRefused: whom the router or the container refuses is reset, and so
// is who is never answered.
func TestPublishedRefused(t *testing.T) {
	rst := func(k packet.Tuple, iss uint32) []byte {
		return tcpFrame(k, seg{flags: packet.TCPRst | packet.TCPAck, ack: iss + 1})
	}
	for _, x := range []struct {
		name string
		do   func(r *rig, k packet.Tuple, iss uint32)
	}{
		{"by the container", func(r *rig, k packet.Tuple, iss uint32) { r.write(rst(k, iss)) }},
		{"by the router", func(r *rig, k packet.Tuple, iss uint32) {
			if _, err := r.s.WriteBatch([]*packet.Frame{{B: rst(k, iss)}}); err != nil { // not parsed, of no flow
				r.t.Error(err)
			}
		}},
		{"as unreachable", func(r *rig, k packet.Tuple, iss uint32) {
			b := packet.NewBatch()
			asked := k.Reverse()
			r.s.errorFrame(b, &hostError{origin: unix.SO_EE_ORIGIN_LOCAL, errno: unix.EHOSTUNREACH}, &asked, nil)
			if _, err := r.s.WriteBatch([]*packet.Frame{{B: slices.Clone(b.Frames[0].B)}}); err != nil {
				r.t.Error(err)
			}
		}},
		{"by silence", func(r *rig, k packet.Tuple, _ uint32) {
			for range synRetries - 1 {
				r.late(k)
				r.read(func(f *packet.Frame) bool { return packet.TCP(f.Transport()).Flags() == packet.TCPSyn })
			}
			r.late(k)
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := newRig(t, Config{})
			r.stopTime()
			at := publish(r, "tcp4")
			client, err := net.Dial("tcp4", at.String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			_ = client.SetDeadline(time.Now().Add(patience))
			var k packet.Tuple
			var iss uint32
			r.read(func(f *packet.Frame) bool {
				iss, k = packet.TCP(f.Transport()).Seq(), f.Tuple().Reverse()
				return true
			})
			x.do(r, k, iss)
			if _, err := client.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("the client sees %v", err)
			}
			r.eventually("the flow ends", func() bool { return r.isEnded(k) })
			r.nothingLeft()
		})
	}
}

// TestPublishedRemembered: a container that remembers an earlier connection with
// the client's port is told that it is over, and asked again at once.
func TestPublishedRemembered(t *testing.T) {
	r := newRig(t, Config{})
	r.stopTime()
	at := publish(r, "tcp4")
	client, err := net.Dial("tcp4", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var k packet.Tuple
	var iss uint32
	syn := func(f *packet.Frame) bool {
		iss, k = packet.TCP(f.Transport()).Seq(), f.Tuple().Reverse()
		return packet.TCP(f.Transport()).Flags() == packet.TCPSyn
	}
	r.read(syn)
	for again := range 2 {
		old := iss - 5000
		r.write(tcpFrame(k, seg{flags: packet.TCPAck, seq: 7777, ack: old, window: 100}))
		var flags []uint8
		reset := false
		count := func(f *packet.Frame) {
			s := packet.TCP(f.Transport())
			flags = append(flags, s.Flags())
			reset = reset || s.Flags() == packet.TCPRst && s.Seq() == old
		}
		for r.poll(count) {
		}
		if len(flags) != 2-again || !reset {
			t.Errorf("answer %d: flags %v, reset %v", again, flags, reset)
		}
	}
	r.write(tcpFrame(k, seg{flags: packet.TCPRst | packet.TCPAck, seq: 7777, ack: iss - 5000})) // of that one
	r.write(tcpFrame(k, seg{flags: packet.TCPSyn | packet.TCPAck, seq: 7777, ack: iss + 1, window: 100}))
	if got := r.state(k); got != established {
		t.Error(got)
	}
}

// TestSequenceGrows: the next connection between the same two begins behind the
// last one, one between others anywhere.
func TestSequenceGrows(t *testing.T) {
	r := newRig(t, Config{})
	c := &conn{tuple: packet.Tuple{SrcPort: 1, DstPort: 2}}
	c.s = r.s
	next := func() uint32 { c.initialSequence(); return c.una }
	first := next()
	for range 100 {
		last := c.una
		r.eventually("growth", func() bool { return after(next(), last) })
	}
	c.tuple.SrcPort++
	if far := int32(next() - first); -1<<20 < far && far < 1<<20 { // one of 2,048
		c.tuple.DstPort++
		if far := int32(next() - first); -1<<20 < far && far < 1<<20 {
			t.Error("another connection begins next to it")
		}
	}
}

// TestSpareDescriptorAgain: a spare descriptor that somebody else was faster to
// take is looked for again, lest the listener be ready for ever.
func TestSpareDescriptorAgain(t *testing.T) {
	var x tcp
	x.init(true)
	defer x.close()
	closeFd(x.spare)
	x.spare = -1
	l := listenLocal(t)
	raw, err := l.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if err := raw.Control(func(fd uintptr) {
		if !x.refuseOne(int(fd)) {
			t.Error("nobody is refused")
		}
	}); err != nil {
		t.Error(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Error(err)
	}
}
