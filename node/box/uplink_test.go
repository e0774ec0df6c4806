package box

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fairlead/link"
	"fairlead/packet"
	"fairlead/packet/packettest"
	"fairlead/test/lab"
)

// asUser calls fn on a host as somebody without capabilities: a plain user,
// where this machine has more than one. It returns who that is.
func asUser(t *testing.T, h *lab.Host, fn func() error) (uid int) {
	t.Helper()
	if os.Getenv("FAIRLEAD_WORLD") == "root" {
		uid = 1000
	}
	err := h.Do(func() error {
		// System calls of their own change this thread only.
		before, header, caps := capabilities(t)
		become := func(uid int, caps [2]unix.CapUserData) {
			const same = ^uintptr(0)
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, same, uintptr(uid), same); errno != 0 {
				t.Errorf("become user %d: %v", uid, errno)
			}
			if err := unix.Capset(&header, &caps[0]); err != nil {
				t.Errorf("set capabilities: %v", err)
			}
		}
		for i := range caps {
			caps[i].Effective = 0
		}
		// As on machines where everybody may open /dev/net/tun.
		caps[0].Effective = before[0].Effective & (1 << unix.CAP_DAC_OVERRIDE)
		become(uid, caps)
		defer become(0, before)
		return fn()
	})
	if err != nil {
		t.Error(err)
	}
	return uid
}

func capabilities(t *testing.T) (before [2]unix.CapUserData, header unix.CapUserHeader, caps [2]unix.CapUserData) {
	header = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&header, &before[0]); err != nil {
		t.Error(err)
	}
	return before, header, before
}

// A TAP that belongs to the user is opened, and used with all it can, without
// any right; it comes and goes as the user's interface.
func TestOpenUplinkTAP(t *testing.T) {
	lab.NoLeaks(t)
	lab.NeedTUN(t)
	lab.Need(t, "ip")
	router := lab.NewHost(t, "router")
	uid := asUser(t, router, func() error { return nil })
	router.Run(t, "ip", "tuntap", "add", "dev", "up0", "mode", "tap", "user", fmt.Sprint(uid))
	router.Run(t, "ip", "link", "set", "up0", "mtu", "1400", "up")
	for range 2 {
		var u *Uplink
		var tap *link.TAP
		asUser(t, router, func() (err error) {
			if u, err = OpenUplinkTAP("up0"); err != nil {
				return err
			}
			if _, err := OpenUplinkTAP("up0"); err == nil || err.Error() != "open uplink tap:up0: link: open interface up0: device or resource busy; another process has it open" {
				t.Errorf("opened twice: %v", err)
			}
			tap, err = link.AdoptTAP(u.FD)
			return err
		})
		if tap == nil {
			return
		}
		up0, err := router.Netlink.LinkByName("up0")
		if err != nil {
			t.Fatal(err)
		}
		if a := up0.Attrs(); u.Index != a.Index || u.MTU != 1400 || u.MAC != packet.MAC(a.HardwareAddr) || u.Name != "up0" {
			t.Errorf("uplink %+v of interface %+v", u, a)
		}
		if tap.Offload() != link.OffloadAll {
			t.Errorf("offload %v, want %v", tap.Offload(), link.OffloadAll)
		}
		for _, up := range []bool{true, false, true} {
			asUser(t, router, func() error { return tap.SetCarrier(up) })
			wantCarrier(t, router, up)
		}
		if err := tap.Close(); err != nil {
			t.Fatal(err)
		}
		wantCarrier(t, router, false) // and it is still there
	}
}

func wantCarrier(t *testing.T, h *lab.Host, want bool) {
	t.Helper()
	l, err := h.Netlink.LinkByName("up0")
	if err != nil {
		t.Fatal(err)
	}
	if has := l.Attrs().RawFlags&unix.IFF_LOWER_UP != 0; has != want {
		t.Errorf("carrier is %v, want %v", has, want)
	}
}

// Where there is no TAP that is the caller's, he is told what to run. None is
// made, also by who might.
func TestOpenUplinkTAPErrors(t *testing.T) {
	lab.NoLeaks(t)
	lab.NeedTUN(t)
	lab.Need(t, "ip")
	h := lab.NewHost(t, "h")
	const missing = "open uplink tap:up0: there is no such interface; `ip link` lists those there are, and this makes it: sudo ip tuntap add dev up0 mode tap user $USER"
	_ = h.Do(func() error {
		if _, err := OpenUplinkTAP("up0"); err == nil || err.Error() != missing {
			t.Errorf("got  %v\nwant %s", err, missing)
		}
		return nil
	})
	if _, err := h.Netlink.LinkByName("up0"); err == nil {
		t.Error("it was made")
	}
	if os.Getenv("FAIRLEAD_WORLD") == "root" { // there are other users
		h.Run(t, "ip", "tuntap", "add", "dev", "others", "mode", "tap", "user", "7")
	}
	for name, want := range map[string]string{
		"up0":    missing,
		"others": "open uplink tap:others: operation not permitted: the interface is another user's; make it yours: sudo ip tuntap del dev others mode tap && sudo ip tuntap add dev others mode tap user $USER",
		"lo":     "open uplink tap:lo: link: open interface lo: invalid argument; it exists and is no TAP of ours, or the name is not allowed",
		"a/b":    `"a/b" is no name for an interface (1 to 15 characters, no / : or space)`,
	} {
		if name == "others" && os.Getenv("FAIRLEAD_WORLD") != "root" {
			continue
		}
		asUser(t, h, func() error {
			if _, err := OpenUplinkTAP(name); err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
			return nil
		})
	}
}

// A TAP in a router's namespace is noticed when it goes: deleted by root there.
func TestUplinkTAPGone(t *testing.T) {
	lab.NoLeaks(t)
	lab.NeedTUN(t)
	lab.Need(t, "ip")
	router := lab.NewHost(t, "router")
	router.Run(t, "ip", "tuntap", "add", "dev", "up0", "mode", "tap")
	router.Up(t, "up0")
	u := lab.In(t, router, func() (*Uplink, error) { return OpenUplinkTAP("up0") })
	tap, err := link.AdoptTAP(u.FD)
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	router.Run(t, "ip", "link", "del", "up0")
	dead(t, tap)
	if n, err := tap.ReadBatch(packet.NewBatch()); n != 0 || !errors.Is(err, link.ErrGone) {
		t.Errorf("ReadBatch: %d, %v", n, err)
	}
}

// Segments cross a TAP in a router's namespace whole, in and out.
func TestUplinkTAPOffloads(t *testing.T) {
	lab.NoLeaks(t)
	lab.NeedTUN(t)
	router, inside := lab.NewHost(t, "router"), lab.NewHost(t, "inside")
	var taps [2]*link.TAP
	for i, h := range []*lab.Host{router, inside} {
		h.AddTAP(t, "up0")
		u := lab.In(t, h, func() (*Uplink, error) { return OpenUplinkTAP("up0") })
		var err error
		if taps[i], err = link.AdoptTAP(u.FD); err != nil {
			t.Fatal(err)
		}
		h.Addr(t, "up0", fmt.Sprintf("10.0.0.%d/24", i+1))
		h.Up(t, "up0")
	}
	done := make(chan struct{})
	var largest [2]int // the largest frame read, of the relays
	var relays []chan struct{}
	for i := range taps {
		ended := make(chan struct{})
		relays = append(relays, ended)
		go func() {
			defer close(ended)
			largest[i] = relay(t, taps[i], taps[1-i], done)
		}()
	}
	const size = 20 << 20
	listener := lab.In(t, inside, func() (net.Listener, error) { return net.Listen("tcp4", "10.0.0.2:7000") })
	echoed := make(chan error, 1)
	go func() {
		c, err := listener.Accept()
		if err == nil {
			// As much back as came.
			_, err = c.(*net.TCPConn).WriteTo(c)
			c.Close()
		}
		echoed <- err
	}()
	conn := lab.In(t, router, func() (net.Conn, error) { return net.DialTimeout("tcp4", "10.0.0.2:7000", 5*time.Second) })
	go func() {
		_, _ = conn.Write(make([]byte, size))
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	got, buf := 0, make([]byte, 1<<20)
	for {
		n, err := conn.Read(buf)
		got += n
		if err != nil {
			break
		}
	}
	if err := <-echoed; err != nil || got != size {
		t.Errorf("%d of %d bytes came back, %v", got, size, err)
	}
	conn.Close()
	listener.Close()
	close(done)
	for _, ended := range relays {
		<-ended
	}
	for i := range taps {
		if largest[i] < 10000 {
			t.Errorf("the largest frame from end %d had %d bytes", i, largest[i])
		}
		taps[i].Close()
	}
}

// relay carries frames until done is closed, and returns the largest one's size.
func relay(t *testing.T, from, to *link.TAP, done chan struct{}) (largest int) {
	batch := packet.NewBatch()
	for {
		select {
		case <-done:
			return largest
		default:
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(from.Fd()), Events: unix.POLLIN}}, 20)
		if _, err := from.ReadBatch(batch); err != nil {
			t.Error(err)
			return largest
		}
		for i := range batch.Frames {
			largest = max(largest, batch.Frames[i].Len())
			_, _ = to.WriteBatch([]*packet.Frame{&batch.Frames[i]})
		}
		batch.Reset()
	}
}

// A lan is a host whose interface has an uplink, and an ear that hears all it
// says and can say anything.
type lan struct {
	t       *testing.T
	host    *lab.Host
	hostMAC packet.MAC
	ear     *link.Packet
}

var (
	stranger9 = packettest.Station{MAC: packet.MAC{2, 9}, IP: netip.MustParseAddr("10.0.0.9")}
	uplink77  = packettest.Station{MAC: packet.MAC{2, 77}, IP: netip.MustParseAddr("10.0.0.77")}
)

func newLAN(t *testing.T) *lan {
	t.Helper()
	host, other := lab.NewHost(t, "host"), lab.NewHost(t, "other")
	for _, h := range []*lab.Host{host, other} {
		h.Sysctl(t, "net.ipv6.conf.default.disable_ipv6", "1")
	}
	lab.Join(t, host, "eth0", other, "eth0")
	host.Addr(t, "eth0", "10.0.0.1/24")
	fd := lab.In(t, other, func() (int, error) {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return -1, err
		}
		u, err := newUplink("eth0")
		if err != nil {
			return -1, err
		}
		return fd, errors.Join(unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: unix.ETH_P_ALL << 8, Ifindex: u.Index}))
	})
	ear, err := link.AdoptPacket(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ear.Close() })
	eth0, err := host.Netlink.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	return &lan{t, host, packet.MAC(eth0.Attrs().HardwareAddr), ear}
}

// open opens an uplink on the host's interface.
func (l *lan) open(mac packet.MAC, shared bool) *link.Packet {
	l.t.Helper()
	u := lab.In(l.t, l.host, func() (*Uplink, error) { return OpenPacket("eth0", mac, shared) })
	if u.MAC != l.hostMAC || u.MTU != 1500 || u.Index == 0 || u.Name != "eth0" {
		l.t.Errorf("uplink %+v on an interface with MAC %v", u, l.hostMAC)
	}
	q, err := link.AdoptPacket(u.FD)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { q.Close() })
	return q
}

// say writes a frame to the host.
func (l *lan) say(b []byte) {
	l.t.Helper()
	if _, err := l.ear.WriteBatch([]*packet.Frame{{B: b}}); err != nil {
		l.t.Fatal(err)
	}
}

// hear reads whatever a queue gets within some time.
func hear(t *testing.T, q *link.Packet, within time.Duration) (frames [][]byte) {
	t.Helper()
	batch := packet.NewBatch()
	for deadline := time.Now().Add(within); time.Now().Before(deadline); {
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(q.Fd()), Events: unix.POLLIN}}, int(max(0, time.Until(deadline).Milliseconds())))
		if _, err := q.ReadBatch(batch); err != nil {
			t.Fatal(err)
		}
		for i := range batch.Frames {
			frames = append(frames, slices.Clone(batch.Frames[i].Ether()))
		}
		batch.Reset()
	}
	return frames
}

// The socket hears what is for the uplink, with its own MAC or a shared one,
// and nothing else, not even from before it was set up.
func TestOpenPacketHears(t *testing.T) {
	lab.NoLeaks(t)
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprintf("shared %v", shared), func(t *testing.T) {
			l := newLAN(t)
			me, other := uplink77, packettest.Station{MAC: packet.MAC{2, 33}, IP: uplink77.IP}
			if shared {
				me.MAC = l.hostMAC
			}
			to := func(mac packet.MAC) packettest.Station { return packettest.Station{MAC: mac, IP: me.IP} }
			udp := func(dst packettest.Station) []byte { return packettest.UDP(stranger9, dst, 1, 2, make([]byte, 100)) }
			q := l.open(uplink77.MAC, shared)
			for _, c := range []struct {
				name  string
				frame []byte
				heard bool
			}{
				{"IPv4", udp(me), true},
				{"a segment train", packettest.GSO(packettest.TCP(stranger9, me, packettest.Segment{}, make([]byte, 30000)), 1448), true},
				{"an ARP answer", packettest.ARPReply(stranger9, me), true},
				{"an ARP question", packettest.ARPRequest(stranger9, me.IP), true},
				{"broadcast", udp(to(packet.BroadcastMAC)), true},
				{"all hosts", udp(to(packet.MAC{1, 0, 0x5e, 0, 0, 1})), true},
				{"with a priority", packettest.Tagged(udp(me), 0xe000), true},
				{"IPv4 of another station", udp(other), false},
				{"a MAC that begins alike", udp(to(packet.MAC{me.MAC[0], me.MAC[1], me.MAC[2], me.MAC[3], 0xee, 0xee})), false},
				{"half a broadcast", udp(to(packet.MAC{0xff, 0xff, 0xff, 0xff, 0, 1})), false},
				{"mDNS", udp(to(packet.MAC{1, 0, 0x5e, 0, 0, 0xfb})), false},
				{"of a VLAN", packettest.Tagged(udp(me), 7), false},
				{"IPv6", packettest.UDP(stranger9.IPv6(), packettest.Station{MAC: me.MAC, IP: me.IPv6().IP}, 1, 2, nil), false},
				{"LLDP", packettest.Ethernet(stranger9.MAC, me.MAC, 0x88cc, make([]byte, 46)), false},
			} {
				l.say(c.frame)
				got, want := hear(t, q, 20*time.Millisecond), c.frame[packet.VNetLen:]
				if c.heard != (len(got) == 1) || c.heard && string(got[0]) != string(want) {
					t.Errorf("%s: heard is %v: %x", c.name, !c.heard, got)
				}
			}
			// What the host itself says, such as who it looks for.
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
		})
	}
}

// No frame gets in beside the filter, also while the socket is being set up,
// and nobody takes the filter off.
func TestOpenPacketFilterHolds(t *testing.T) {
	lab.NoLeaks(t)
	l := newLAN(t)
	noise := packettest.UDP(stranger9, packettest.Station{MAC: packet.MAC{2, 33}, IP: uplink77.IP}, 1, 2, nil)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = l.ear.WriteBatch([]*packet.Frame{{B: noise}, {B: noise}})
			}
		}
	}()
	for range 30 {
		u := lab.In(t, l.host, func() (*Uplink, error) { return OpenPacket("eth0", uplink77.MAC, false) })
		if err := unix.SetsockoptInt(u.FD, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); !errors.Is(err, unix.EPERM) {
			t.Errorf("the filter can be taken off: %v", err)
		}
		if n, _, err := unix.Recvfrom(u.FD, make([]byte, 2000), unix.MSG_DONTWAIT); !errors.Is(err, unix.EAGAIN) {
			t.Errorf("%d bytes got in, %v", n, err)
		}
		u.Close()
	}
	close(stop)
	<-stopped
}

// The host's kernel leaves what is for the uplink alone: always when the MAC is
// the uplink's own; when it is shared as long as the interface does not forward,
// which is what OpenPacket asks.
func TestOpenPacketHostSilent(t *testing.T) {
	lab.NoLeaks(t)
	for _, c := range []struct {
		name    string
		shared  bool
		sysctls []string
	}{
		{"own MAC", false, nil},
		{"own MAC, a router", false, []string{"net.ipv4.ip_forward=1"}},
		{"shared MAC", true, nil},
		{"shared MAC, a router elsewhere", true, []string{"net.ipv4.ip_forward=1", "net.ipv4.conf.eth0.forwarding=0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLAN(t)
			for _, s := range c.sysctls {
				key, value, _ := strings.Cut(s, "=")
				l.host.Sysctl(t, key, value)
			}
			me := uplink77
			if c.shared {
				me.MAC = l.hostMAC
			}
			q := l.open(uplink77.MAC, c.shared)
			ask := func() [][]byte {
				l.say(packettest.ARPRequest(stranger9, me.IP))
				for range 3 {
					l.say(packettest.ICMPEcho(stranger9, me, 1, 1, nil))
					l.say(packettest.TCP(stranger9, me, packettest.Segment{SrcPort: 1, DstPort: 2, Flags: packet.TCPSyn}, nil))
				}
				if n := len(hear(t, q, 50*time.Millisecond)); n != 7 {
					t.Errorf("%d of 7 frames arrived", n)
				}
				return hear(t, l.ear, 300*time.Millisecond)
			}
			if said := ask(); len(said) > 0 {
				t.Errorf("the host says %d frames: %x", len(said), said[0])
			}
			if !c.shared {
				return
			}
			l.host.Sysctl(t, "net.ipv4.conf.eth0.forwarding", "1")
			want := "open uplink if:eth0: mac=shared: this host forwards packets of eth0, so it would answer those of the uplink with ICMP redirects and errors: " +
				"leave mac=shared out, or: sudo sysctl -w net/ipv4/conf/eth0/forwarding=0"
			_ = l.host.Do(func() error {
				if _, err := OpenPacket("eth0", uplink77.MAC, true); err == nil || err.Error() != want {
					t.Errorf("got  %v\nwant %s", err, want)
				}
				return nil
			})
			if said := ask(); len(said) == 0 {
				t.Error("the host is silent although it forwards: the refusal has no reason")
			}
		})
	}
}

func TestOpenPacketErrors(t *testing.T) {
	lab.NoLeaks(t)
	l := newLAN(t)
	try := func(name string, mac packet.MAC, shared bool, want string) func() error {
		return func() error {
			_, err := OpenPacket(name, mac, shared)
			if err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
			return nil
		}
	}
	for _, fn := range []func() error{
		try("eth9", uplink77.MAC, false, "open uplink if:eth9: find interface eth9: Link not found; `ip link` lists them"),
		try("lo", uplink77.MAC, false, "open uplink if:lo: interface lo is no Ethernet but loopback"),
		try("eth0", l.hostMAC, false, fmt.Sprintf("open uplink if:eth0: mac=%v is the interface's own: say mac=shared, or leave mac= out", l.hostMAC)),
		try("eth0", packet.MAC{}, false, "open uplink if:eth0: mac=00:00:00:00:00:00 is not an address of one station"),
		try("eth0", packet.MAC{1}, false, "open uplink if:eth0: mac=01:00:00:00:00:00 is not an address of one station"),
		try("an interface", packet.MAC{2}, false, `"an interface" is no name for an interface (1 to 15 characters, no / : or space)`),
	} {
		if err := l.host.Do(fn); err != nil {
			t.Fatal(err)
		}
	}
	asUser(t, l.host, try("eth0", uplink77.MAC, false,
		"open uplink if:eth0: operation not permitted: a packet socket takes CAP_NET_RAW: put `sudo --preserve-env=XDG_RUNTIME_DIR,FAIRLEAD_DIR setpriv --reuid $(id -u) --regid $(id -g) --init-groups --inh-caps +net_raw --ambient-caps +net_raw` in front of the command, or use a TAP: tap:NAME"))
}

// An interface that is down may be an uplink; it works when it comes up.
func TestOpenPacketDown(t *testing.T) {
	lab.NoLeaks(t)
	l := newLAN(t)
	eth0, err := l.host.Netlink.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.host.Netlink.LinkSetDown(eth0); err != nil {
		t.Fatal(err)
	}
	q := l.open(uplink77.MAC, false)
	if got := hear(t, q, 20*time.Millisecond); len(got) > 0 {
		t.Errorf("heard %x", got)
	}
	l.host.Up(t, "eth0")
	lab.Eventually(t, 10*time.Second, func() error {
		l.say(packettest.ICMPEcho(stranger9, uplink77, 1, 1, nil))
		if len(hear(t, q, 20*time.Millisecond)) == 0 {
			return errors.New("heard nothing")
		}
		return nil
	})
	// And it says when the interface goes.
	if err := l.host.Netlink.LinkDel(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0", Index: eth0.Attrs().Index}}); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, 10*time.Second, func() error {
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(q.Fd()), Events: unix.POLLIN}}, 2000)
		if _, err := q.ReadBatch(packet.NewBatch()); !errors.Is(err, link.ErrGone) {
			return fmt.Errorf("ReadBatch: %w", err)
		}
		return nil
	})
}
