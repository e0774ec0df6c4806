package sockets

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/test/lab"
)

// pattern is n bytes that differ from those of another i.
func pattern(i, n int) []byte {
	b := make([]byte, n)
	for j := range b {
		b[j] = byte(i*131 + j + j>>8)
	}
	return b
}

// eventually waits for a condition that another goroutine brings about.
func eventually(t testing.TB, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %v", patience, err)
		}
		time.Sleep(pause)
	}
}

// setOption has a socket send with another header.
func setOption(t testing.TB, fd int, ttl, tos uint8) {
	t.Helper()
	for _, o := range []struct{ name, value int }{{unix.IP_TTL, int(ttl)}, {unix.IP_TOS, int(tos)}} {
		if err := unix.SetsockoptInt(fd, unix.SOL_IP, o.name, o.value); err != nil {
			t.Fatal(err)
		}
	}
}

// sendTrain sends several datagrams by one call.
func (p *peer) sendTrain(to netip.AddrPort, data []byte, size int) {
	p.t.Helper()
	oob := make([]byte, unix.CmsgSpace(2))
	binary.NativeEndian.PutUint64(oob, uint64(unix.CmsgLen(2)))
	binary.NativeEndian.PutUint32(oob[8:], unix.SOL_UDP)
	binary.NativeEndian.PutUint32(oob[12:], unix.UDP_SEGMENT)
	binary.NativeEndian.PutUint16(oob[16:], uint16(size))
	sa := &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	if err := unix.Sendmsg(p.fd, data, oob, sa, 0); err != nil {
		p.t.Fatal(err)
	}
}

// peerOn opens a socket on a host of the lab's.
func (w *wide) peerOn(h *lab.Host, p **peer, at netip.AddrPort) {
	w.t.Helper()
	if err := h.Do(func() error { *p = newPeer(w.t, at.String()); return nil }); err != nil {
		w.t.Fatal(err)
	}
}

// A trainSender sends the same train again and again without allocating.
type trainSender struct {
	io   datagramIO
	data []byte
}

func newTrain(to netip.AddrPort, data []byte, size int) *trainSender {
	s := &trainSender{data: data}
	s.io.begin()
	s.io.piece(data)
	s.io.to4(to.Addr().As4(), to.Port())
	putTrain(&s.io, size)
	return s
}

func (s *trainSender) send(t testing.TB, fd int) {
	if errno := s.io.send(fd); errno != 0 {
		t.Fatal(errno)
	}
}
