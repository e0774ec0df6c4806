package link_test

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"fairlead/link"
	"fairlead/packet"
	"fairlead/packet/packettest"
)

var (
	alice = packettest.Station{MAC: packet.MAC{2, 1}, IP: netip.MustParseAddr("10.0.0.1")}
	bob   = packettest.Station{MAC: packet.MAC{2, 2}, IP: netip.MustParseAddr("10.0.0.2")}
)

// TestWireCreate: the device water made is ours alone, and has no carrier.
func TestWireCreate(t *testing.T) {
	needTAP(t)
	ns := newNamespace(t)
	before := descriptors(t)
	var w *link.Wire
	ns.do(func() (err error) {
		w, err = link.CreateWire(link.WireConfig{Name: "eth0", Persist: true})
		return err
	})
	if now := descriptors(t); now != before+1 {
		t.Errorf("%d descriptors for one wire", now-before)
	}
	ns.up("eth0")
	if ns.link("eth0").Attrs().RawFlags&unix.IFF_LOWER_UP != 0 {
		t.Error("the interface has carrier before anybody reads")
	}
	if flags, err := unix.FcntlInt(uintptr(w.Fd()), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("the descriptor would be inherited by other programs: %#x, %v", flags, err)
	}
	if w.Offload() != 0 {
		t.Errorf("offload %v, want none", w.Offload())
	}
	must(t, w.Close())
	ns.link("eth0") // is still there
	ns.do(func() (err error) { w, err = link.CreateWire(link.WireConfig{Name: "eth0"}); return err })
	must(t, w.SetPersist(false))
	must(t, w.Close())
}

// TestWireRefuses: what cannot be finished is not written, nor is what would
// take forever.
func TestWireRefuses(t *testing.T) {
	near, far := datagrams(t)
	w := link.NewWireOn(near)
	lying := packettest.Partial(packettest.UDP(alice, bob, 1, 2, make([]byte, 100)))
	packet.VNet(lying).SetCSumStart(60000)
	tiny := packettest.GSO(packettest.TCP(alice, bob, packettest.Segment{Flags: packet.TCPAck}, make([]byte, 60000)), 8)
	for _, c := range []struct {
		name  string
		frame []byte
		want  packet.Reason
	}{{"lying header", lying, link.ErrRefused}, {"7,500 segments", tiny, packet.EgressSegments}} {
		if n, err := w.WriteBatch([]*packet.Frame{{B: c.frame}}); n != 0 || !errors.Is(err, c.want) {
			t.Errorf("%s: %d, %v, want %v", c.name, n, err, c.want)
		}
	}
	if n, err := unix.Read(far, make([]byte, 100)); err == nil {
		t.Errorf("%d bytes were written all the same", n)
	}
}

// TestWireFails: when a segment cannot be written the frame counts as failed.
func TestWireFails(t *testing.T) {
	near, _ := datagrams(t)
	w := link.NewWireOn(near)
	b := packettest.GSO(packettest.TCP(alice, bob, packettest.Segment{Flags: packet.TCPAck}, make([]byte, 60000)), 120)
	// The other end holds far fewer datagrams than the 500 this is cut into.
	if n, err := w.WriteBatch([]*packet.Frame{{B: b}}); n != 0 || !errors.Is(err, link.ErrFull) {
		t.Errorf("WriteBatch: %d, %v, want 0, %v", n, err, link.ErrFull)
	}
}

// FuzzWire writes any bytes to a wire: nothing may panic, the bytes stay as
// they are, and what comes out is no larger than a frame.
func FuzzWire(f *testing.F) {
	payload := make([]byte, 5000)
	for _, b := range [][]byte{
		packettest.UDP(alice, bob, 1, 2, payload[:100]),
		packettest.Partial(packettest.UDP(alice, bob, 1, 2, payload[:100])),
		packettest.Partial(packettest.TCP(alice.IPv6(), bob.IPv6(), packettest.Segment{}, payload[:100])),
		packettest.GSO(packettest.TCP(alice, bob, packettest.Segment{Flags: packet.TCPCwr | packet.TCPFin}, payload), 1000),
		packettest.GSO(packettest.UDP(alice.IPv6(), bob.IPv6(), 1, 2, payload), 100),
		packettest.Tagged(packettest.GSO(packettest.UDP(alice, bob, 1, 2, payload), 100), 7),
		{},
		make([]byte, packet.VNetLen),
	} {
		f.Add(b)
	}
	near, far := datagrams(f)
	w := link.NewWireOn(near)
	out := make([]byte, packet.MaxFrame+1)
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		n, err := w.WriteBatch([]*packet.Frame{{B: b}})
		if (n == 1) != (err == nil) {
			t.Errorf("WriteBatch: %d, %v", n, err)
		}
		if !bytes.Equal(b, before) {
			t.Error("WriteBatch changed the bytes of its frame")
		}
		for {
			n, err := unix.Read(far, out)
			if err != nil {
				break
			}
			if n < packet.EthernetLen || n > packet.MaxFrame-packet.VNetLen {
				t.Errorf("%d bytes were written", n)
			}
		}
	})
}
