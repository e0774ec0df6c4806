package sockets

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"fairlead/packet"
)

// TestShares: what is for whoever comes first may be used up; a container then
// still has its share, and no more.
func TestShares(t *testing.T) {
	r := newDgRig(t, func(c *Config) { c.Containers, c.Total, c.Shares = 100, 16, 4 }) // 2 each, 8 for all
	p := newPeer(t, "127.0.0.1:0")
	from := uint16(20000)
	// most is how many sockets a container gets whose sockets are all answered.
	most := func(c packet.ContainerID) (n int) {
		r.c = c
		for ; ; n++ {
			from++
			f := r.from(netip.AddrPortFrom(hostAddr, from), p.at, "q")
			if _, err := r.try(f); err != nil {
				if err != packet.SocketBudget { //nolint:errorlint // see switch
					t.Fatal(err)
				}
				x := packet.Translation{Container: c, After: f.Tuple()}
				if r.s.admits(&x) {
					t.Errorf("container %d is admitted, and refused", c)
				}
				return n
			}
			p.send(p.recv().from, []byte("a"))
			r.datagram()
		}
	}
	if got := most(1); got != 2+8 {
		t.Errorf("container 1 has %d, want 10", got)
	}
	for c := packet.ContainerID(2); c <= 4; c++ {
		if got := most(c); got != 2 {
			t.Errorf("container %d has %d, want its share, 2", c, got)
		}
	}
	if s := r.s.Stats(); s.Descriptors != 16 {
		t.Errorf("%d descriptors", s.Descriptors)
	}
}

// TestListenAfterClose: nothing is opened that nobody would close.
func TestListenAfterClose(t *testing.T) {
	r := newRig(t, Config{})
	r.close()
	at := netip.MustParseAddrPort("127.0.0.1:0")
	for _, proto := range []packet.Proto{packet.ProtoTCP, packet.ProtoUDP} {
		if err := r.s.Listen(proto, at); err == nil {
			t.Errorf("%v is listened on", proto)
		}
		fd, _, _ := unix.RawSyscall(unix.SYS_EVENTFD2, 0, unix.EFD_CLOEXEC, 0)
		if err := r.s.Adopt(proto, at, int(fd)); err == nil {
			t.Errorf("%v is adopted", proto)
		}
		if _, err := unix.FcntlInt(fd, unix.F_GETFD, 0); err == nil {
			t.Errorf("%v: the descriptor is left", proto)
		}
	}
}

// TestSpareComesBack: the descriptor clients are refused by is opened anew when
// it was lost.
func TestSpareComesBack(t *testing.T) {
	r := newRig(t, Config{})
	at := publish(r, "tcp4")
	r.s.mu.Lock()
	closeFd(r.s.tcp.spare)
	r.s.tcp.spare = -1
	r.s.mu.Unlock()
	client, err := net.Dial("tcp4", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	r.eventually("there is one", func() bool {
		r.s.mu.Lock()
		defer r.s.mu.Unlock()
		return r.s.tcp.spare >= 0
	})
}

// TestUDPBroadcast: who asked the host's network is answered from the address the
// host has there.
func TestUDPBroadcast(t *testing.T) {
	r := newDgRig(t, nil)
	at := r.publish("0.0.0.0")
	p := newPeer(t, "127.0.0.1:0")
	if err := unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1); err != nil {
		t.Fatal(err)
	}
	p.send(netip.AddrPortFrom(netip.MustParseAddr("127.255.255.255"), at.Port()), []byte("who is there"))
	if f, _ := r.datagram(); f.Tuple().Dst.Netip() != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("came to %v", f.Tuple().Dst.Netip())
	}
}

// TestPortOfAnother: a container does not get the socket another one uses, nor
// has it closed.
func TestPortOfAnother(t *testing.T) {
	r := newDgRig(t, nil)
	p, q := newPeer(t, "127.0.0.1:0"), newPeer(t, "127.0.0.1:0")
	at := netip.AddrPortFrom(hostAddr, 20001)
	r.write(r.from(at, p.at, "mine"))
	p.recv()
	r.c++
	if _, err := r.try(r.from(at, q.at, "mine too")); err == nil {
		t.Error("two containers have one socket")
	}
	if n := r.s.Stats(); n.Descriptors != 1 || n.Flows != 1 {
		t.Errorf("%+v", n)
	}
}
