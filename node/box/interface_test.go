package box

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"fairlead/link"
	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/test/lab"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A port on a real interface hears all of the LAN, tags included, but what is for
// the host, and what it says all of the LAN hears.
func TestS35_OpenInterface(t *testing.T) {
	lab.NoLeaks(t)
	l := newLAN(t)
	var u *Uplink
	if err := l.host.Do(func() (err error) { u, err = OpenInterface("eth0"); return err }); err != nil {
		t.Fatal(err)
	}
	if u.MAC != l.hostMAC || u.MTU != 1500 || u.Name != "eth0" {
		t.Errorf("got %+v", u)
	}
	q, err := link.AdoptPacket(u.FD)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	to := func(mac packet.MAC) packettest.Station { return packettest.Station{MAC: mac, IP: uplink77.IP} }
	udp := func(mac packet.MAC) []byte { return packettest.UDP(stranger9, to(mac), 1, 2, make([]byte, 100)) }
	inside, other := packet.MAC{2, 33}, packet.MAC{2, 44}
	for _, c := range []struct {
		name  string
		frame []byte
		heard bool
	}{
		{"of a container", udp(inside), true},
		{"of another station", udp(other), true},
		{"a segment train", packettest.GSO(packettest.TCP(stranger9, to(inside), packettest.Segment{}, make([]byte, 30000)), 1448), true},
		{"broadcast", udp(packet.BroadcastMAC), true},
		{"mDNS", udp(packet.MAC{1, 0, 0x5e, 0, 0, 0xfb}), true},
		{"of a VLAN", packettest.Tagged(udp(inside), 7), true},
		{"of a VLAN in another", packettest.Tagged(udp(inside), 7, 8), true},
		{"IPv6", packettest.UDP(stranger9.IPv6(), packettest.Station{MAC: inside, IP: uplink77.IPv6().IP}, 1, 2, nil), true},
		{"the host's", udp(l.hostMAC), false},
		{"the host's, of a VLAN", packettest.Tagged(udp(l.hostMAC), 7), false},
	} {
		l.say(c.frame)
		got, want := hear(t, q, 20*time.Millisecond), c.frame[packet.VNetLen:]
		if c.heard != (len(got) == 1) || c.heard && string(got[0]) != string(want) {
			t.Errorf("%s: heard is %v: %x", c.name, !c.heard, got)
		}
	}
	// What the host itself says.
	if err := l.host.Do(func() error {
		c, err := net.Dial("udp", "10.0.0.200:9")
		if err == nil {
			_, err = c.Write([]byte("hello"))
			c.Close()
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if got := hear(t, q, 20*time.Millisecond); len(got) > 0 {
		t.Errorf("heard the host itself: %x", got)
	}
	hear(t, l.ear, 20*time.Millisecond) // who the host looked for
	said := packettest.Tagged(packettest.UDP(to(inside), stranger9, 1, 2, make([]byte, 100)), 9)
	if _, err := q.WriteBatch([]*packet.Frame{{B: said}}); err != nil {
		t.Fatal(err)
	}
	if got := hear(t, l.ear, 20*time.Millisecond); len(got) != 1 || string(got[0]) != string(said[packet.VNetLen:]) {
		t.Errorf("the LAN heard %x, want %x", got, said[packet.VNetLen:])
	}
}

func TestOpenInterfaceErrors(t *testing.T) {
	lab.NoLeaks(t)
	h := lab.NewHost(t, "h")
	for name, want := range map[string]string{
		"":     `open if:: "" is no name for an interface (1 to 15 characters, no / : or space)`,
		"lo":   "open if:lo: interface lo is no Ethernet but loopback",
		"eth9": "open if:eth9: find interface eth9: Link not found; `ip link` lists them",
	} {
		if err := h.Do(func() error { _, err := OpenInterface(name); return err }); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// One end of a pair that somebody made goes where no host sees it, with all it
// hears, and takes the other with it in the end.
func TestS04_TakeVeth(t *testing.T) {
	lab.NoLeaks(t)
	h := lab.NewHost(t, "h")
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "inner"
	if err := h.Netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "outer"}); err != nil {
		t.Fatal(err)
	}
	if err := h.Do(func() error { _, err := TakeVeth("lo"); return err }); err == nil || !strings.Contains(err.Error(), "interface lo is no Ethernet") {
		t.Errorf("lo: %v", err)
	}
	bridge := netlink.NewLinkAttrs()
	bridge.Name = "br0"
	if err := h.Netlink.LinkAdd(&netlink.Bridge{LinkAttrs: bridge}); err != nil {
		t.Fatal(err)
	}
	if err := h.Do(func() error { _, err := TakeVeth("br0"); return err }); err == nil ||
		err.Error() != "take veth:br0: interface br0 is no end of a veth pair but bridge: `if:br0` makes it a port and leaves it here" {
		t.Errorf("a bridge: %v", err)
	}
	var u *Uplink
	h.Up(t, "outer")
	if err := h.Do(func() (err error) { // what nobody takes is where and as it was
		if u, err = TakeVeth("outer"); err == nil {
			err = u.GiveBack()
			u.Close()
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if l, err := h.Netlink.LinkByName("outer"); err != nil || l.Attrs().RawFlags&(unix.IFF_UP|unix.IFF_NOARP) != unix.IFF_UP {
		t.Fatalf("given back: %+v, %v", l, err)
	}
	if err := h.Do(func() (err error) { u, err = TakeVeth("outer"); return err }); err != nil {
		t.Fatal(err)
	}
	q, err := link.AdoptPacket(u.FD)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if _, err := h.Netlink.LinkByName("outer"); err == nil {
		t.Error("the end is still where it was")
	}
	h.Addr(t, "inner", "10.9.0.1/24")
	h.Up(t, "inner")
	lab.Eventually(t, patience, func() error {
		l, err := h.Netlink.LinkByName("inner")
		if err == nil && l.Attrs().RawFlags&unix.IFF_LOWER_UP == 0 {
			err = os.ErrDeadlineExceeded
		}
		return err
	})
	if err := h.Do(func() error {
		c, err := net.Dial("udp", "10.9.0.255:9")
		if err == nil {
			c.Close()
		}
		c, err = net.Dial("udp", "10.9.0.7:9")
		if err == nil {
			_, err = c.Write([]byte("hello"))
			c.Close()
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	asked := false
	for _, f := range hear(t, q, 100*time.Millisecond) {
		asked = asked || packet.Ethernet(f).Type() == packet.EtherTypeARP
	}
	if !asked {
		t.Error("nobody was asked who has 10.9.0.7")
	}
	if err := q.Close(); err != nil {
		t.Error(err)
	}
	lab.Eventually(t, patience, func() error {
		if _, err := h.Netlink.LinkByName("inner"); err == nil {
			return os.ErrExist
		}
		return nil
	})
}
