package link_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fairlead/link"
	"fairlead/packet"
	"fairlead/packet/packettest"
)

// aFrame is a frame any interface takes.
func aFrame() *packet.Frame {
	return &packet.Frame{B: packettest.Ethernet(packet.MAC{2, 1}, packet.MAC{2, 2}, 0x88b5, make([]byte, 46))}
}

// TestNeverBlocks: whoever has a copy of the descriptor can clear O_NONBLOCK,
// and reading still does not wait.
func TestNeverBlocks(t *testing.T) {
	needTAP(t)
	ns := newNamespace(t)
	tap, wire := ns.tap("tap0"), ns.wire("wire0")
	for _, fd := range []int{tap.Fd(), wire.Fd()} {
		must(t, unix.SetNonblock(fd, false))
	}
	if n, err := tap.ReadBatch(packet.NewBatch()); n != 0 || err != nil {
		t.Errorf("TAP: %d, %v", n, err)
	}
	if n, err := wire.ReadBatch(packet.NewBatch()); n != 0 || err != nil {
		t.Errorf("wire: %d, %v", n, err)
	}
}

// TestDown: writing to an interface that is down says so, reading finds
// nothing, and it works when it is up.
func TestDown(t *testing.T) {
	needTAP(t)
	ns := newNamespace(t)
	tap := ns.tap("tap0")
	write := func(want error) {
		t.Helper()
		n, err := tap.WriteBatch([]*packet.Frame{aFrame()})
		if !errors.Is(err, want) || (n == 1) != (want == nil) {
			t.Errorf("WriteBatch: %d, %v, want %v", n, err, want)
		}
	}
	write(link.ErrDown)
	ns.up("tap0")
	write(nil)
	// A frame of the kernel's waits when the interface goes down: it goes too.
	must(t, ns.nl.AddrAdd(ns.link("tap0"), &netlink.Addr{IPNet: cidr("10.1.0.1/24")}))
	ns.do(func() error { return sendUDP("10.1.0.9:9") }) // asks by ARP
	must(t, ns.nl.LinkSetDown(ns.link("tap0")))
	if _, err := tap.ReadBatch(packet.NewBatch()); err != nil {
		t.Errorf("ReadBatch: %v", err)
	}
	write(link.ErrDown)
	if n, err := tap.ReadBatch(packet.NewBatch()); n != 0 || err != nil {
		t.Errorf("ReadBatch: %d, %v, want 0, nil", n, err)
	}
}

// TestGone: when the interface is deleted the descriptor becomes ready with an
// error, and reading and writing say that it is gone.
func TestGone(t *testing.T) {
	needTAP(t)
	ns := newNamespace(t)
	tap := ns.tap("tap0")
	ns.up("tap0")
	must(t, ns.nl.LinkDel(ns.link("tap0")))
	fds := []unix.PollFd{{Fd: int32(tap.Fd()), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 1000); n != 1 || fds[0].Revents&unix.POLLERR == 0 {
		t.Errorf("poll: %d, %v, events %#x, want POLLERR", n, err, fds[0].Revents)
	}
	if n, err := tap.ReadBatch(packet.NewBatch()); n != 0 || !errors.Is(err, link.ErrGone) {
		t.Errorf("ReadBatch: %d, %v, want %v", n, err, link.ErrGone)
	}
	if n, err := tap.WriteBatch([]*packet.Frame{aFrame()}); n != 0 || !errors.Is(err, link.ErrGone) {
		t.Errorf("WriteBatch: %d, %v, want %v", n, err, link.ErrGone)
	}
	if _, err := tap.Name(); !errors.Is(err, link.ErrGone) {
		t.Errorf("Name: %v, want %v", err, link.ErrGone)
	}
	if err := tap.SetCarrier(true); err == nil {
		t.Error("SetCarrier on a deleted interface succeeded")
	}
	if err := tap.SetPersist(true); err == nil {
		t.Error("SetPersist on a deleted interface succeeded")
	}
	if err := tap.SetOffload(0); err == nil {
		t.Error("SetOffload on a deleted interface succeeded")
	}
}

// TestNamespaceEnds: a TAP that was born in one namespace and moved into another
// works there, does not keep it alive, and is gone with it.
func TestNamespaceEnds(t *testing.T) {
	needTAP(t)
	nursery, container := newNamespace(t), newNamespace(t)
	tap := nursery.tap("tap0")
	var thread int
	container.do(func() error { thread = unix.Gettid(); return nil })
	must(t, nursery.nl.LinkSetNsPid(nursery.link("tap0"), thread))
	container.up("tap0")
	must(t, tap.SetCarrier(true))
	if n, err := tap.WriteBatch([]*packet.Frame{aFrame()}); n != 1 || err != nil {
		t.Errorf("WriteBatch into the other namespace: %d, %v", n, err)
	}
	container.end()
	batch := packet.NewBatch()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		_, err := tap.ReadBatch(batch)
		batch.Reset()
		if errors.Is(err, link.ErrGone) {
			return
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("the namespace is gone, and reading says %v", err)
		}
	}
}

// TestCarrier: an interface has no carrier until it is given one, also on a
// kernel that does not know IFF_NO_CARRIER.
func TestCarrier(t *testing.T) {
	needTAP(t)
	ns := newNamespace(t)
	for name, create := range map[string]func() (*link.TAP, error){
		"new": func() (*link.TAP, error) { return link.CreateTAP(link.TAPConfig{Name: "new"}) },
		"old": func() (*link.TAP, error) { return link.WithoutNoCarrier("old") },
	} {
		var tap *link.TAP
		ns.do(func() (err error) { tap, err = create(); return err })
		ns.up(name)
		for _, up := range []bool{false, true, false} {
			if up {
				must(t, tap.SetCarrier(true))
			} else {
				must(t, tap.SetCarrier(false))
			}
			if has := ns.link(name).Attrs().RawFlags&unix.IFF_LOWER_UP != 0; has != up {
				t.Errorf("%s: carrier is %v, want %v", name, has, up)
			}
		}
		must(t, tap.Close())
	}
	var tap *link.TAP
	ns.do(func() (err error) { tap, err = link.CreateTAP(link.TAPConfig{}); return err })
	name, err := tap.Name()
	must(t, err)
	ns.up(name)
	if ns.link(name).Attrs().RawFlags&unix.IFF_LOWER_UP != 0 {
		t.Errorf("%s has carrier before it was given any", name)
	}
	must(t, tap.Close())
}

// TestPersist: a persistent interface outlives its descriptor, can be opened
// again by name with everything it had, and goes when told so.
func TestPersist(t *testing.T) {
	needTAP(t)
	ns := newNamespace(t)
	create := func() *link.TAP {
		var tap *link.TAP
		ns.do(func() (err error) {
			tap, err = link.CreateTAP(link.TAPConfig{Name: "eth0", Persist: true})
			return err
		})
		return tap
	}
	tap := create()
	ns.up("eth0")
	index := ns.link("eth0").Attrs().Index
	must(t, unix.IoctlSetPointerInt(tap.Fd(), unix.TUNSETVNETHDRSZ, 12))
	ns.do(func() error {
		_, err := link.CreateTAP(link.TAPConfig{Name: "eth0"})
		if !errors.Is(err, unix.EBUSY) {
			t.Errorf("opened twice: %v, want EBUSY", err)
		}
		return nil
	})
	must(t, tap.Close())
	tap = create()
	if got := ns.link("eth0").Attrs().Index; got != index {
		t.Errorf("interface %d came back as %d", index, got)
	}
	if n, err := unix.IoctlGetInt(tap.Fd(), unix.TUNGETVNETHDRSZ); n != packet.VNetLen || err != nil {
		t.Errorf("virtio-net header of %d bytes, %v, want %d", n, err, packet.VNetLen)
	}
	if ns.link("eth0").Attrs().RawFlags&unix.IFF_LOWER_UP != 0 {
		t.Error("the interface has carrier before anybody reads")
	}
	must(t, tap.SetPersist(false))
	must(t, tap.Close())
	if _, err := ns.nl.LinkByName("eth0"); err == nil {
		t.Error("the interface is still there")
	}
}

// TestName: the interface's name is asked for, since root inside can change it.
func TestName(t *testing.T) {
	needTAP(t)
	ns := newNamespace(t)
	tap := ns.tap("before")
	must(t, ns.nl.LinkSetName(ns.link("before"), "after"))
	if name, err := tap.Name(); name != "after" || err != nil {
		t.Errorf("Name: %q, %v, want after", name, err)
	}
}

func TestCreateErrors(t *testing.T) {
	needTAP(t)
	ns := newNamespace(t)
	ns.tap("busy")
	for _, test := range []struct{ name, want string }{
		{"sixteen-bytes-xx", `"sixteen-bytes-xx" is longer than 15 bytes`},
		{"busy", "open interface busy: device or resource busy; another process has it open"},
		{"lo", "open interface lo: invalid argument; it exists and is no TAP of ours"},
		{"a/b", "a/b: invalid argument; it exists and is no TAP of ours, or the name is not allowed"},
	} {
		ns.do(func() error {
			if _, err := link.CreateTAP(link.TAPConfig{Name: test.name}); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("CreateTAP(%q): %v, want %s", test.name, err, test.want)
			}
			if _, err := link.CreateWire(link.WireConfig{Name: test.name}); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("CreateWire(%q): %v, want %s", test.name, err, test.want)
			}
			return nil
		})
	}
	before := descriptors(t)
	for range 5 {
		ns.do(func() error {
			_, _ = link.CreateTAP(link.TAPConfig{Name: "lo"})
			_, _ = link.CreateWire(link.WireConfig{Name: "lo"})
			w, err := link.CreateWire(link.WireConfig{})
			if err == nil {
				err = w.Close()
			}
			return err
		})
	}
	// water does not close the descriptor when TUNSETIFF fails.
	if now := descriptors(t); now > before+5 {
		t.Errorf("%d descriptors before, %d after", before, now)
	}
}

// TestAdopt: a descriptor that was handed over is looked at before it is used.
func TestAdopt(t *testing.T) {
	needTAP(t)
	ns := newNamespace(t)
	open := func(flags uint16) int { // 0 for no interface
		var fd int
		ns.do(func() (err error) {
			if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR, 0); err != nil || flags == 0 {
				return err
			}
			ifr, _ := unix.NewIfreq("")
			ifr.SetUint16(flags)
			return unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
		})
		t.Cleanup(func() { _ = unix.Close(fd) })
		return fd
	}
	null, err := os.Open(os.DevNull)
	must(t, err)
	defer func() { must(t, null.Close()) }()
	const tap, wire = unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR, unix.IFF_TAP | unix.IFF_NO_PI
	for _, test := range []struct {
		name              string
		fd                int
		tapError, wireErr string // empty when it is one
	}{
		{"closed", 1 << 20, "bad file descriptor", "bad file descriptor"},
		{"no character device", pipeEnd(t), "not of /dev/net/tun", "not of /dev/net/tun"},
		{"another character device", int(null.Fd()), "not of /dev/net/tun", "not of /dev/net/tun"},
		{"no interface", open(0), "has no interface", "has no interface"},
		{"a TUN", open(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR), "has flags 0x5", "has flags 0x5"},
		{"with packet information", open(unix.IFF_TAP | unix.IFF_VNET_HDR), "has flags 0x4", "has flags 0x4"},
		{"with NAPI", open(tap | unix.IFF_NAPI), "none of 0x30", "none of"},
		{"a TAP", open(tap), "", "none of 0x4030"},
		{"a wire", open(wire), "want 0x5002", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var ends []interface{ Close() error }
			a, err := link.AdoptTAP(test.fd)
			if ends = append(ends, a); !says(err, test.tapError) {
				t.Errorf("AdoptTAP: %v, want %q", err, test.tapError)
			}
			if err == nil {
				return
			}
			w, err := link.AdoptWire(test.fd)
			if ends = append(ends, w); !says(err, test.wireErr) {
				t.Errorf("AdoptWire: %v, want %q", err, test.wireErr)
			}
			_ = ends
		})
	}
	fd := open(tap)
	a, err := link.AdoptTAP(fd)
	must(t, err)
	if a.Fd() != fd {
		t.Errorf("adopted descriptor %d, got %d", fd, a.Fd())
	}
	for cmd, want := range map[int]int{unix.F_GETFD: unix.FD_CLOEXEC, unix.F_GETFL: unix.O_NONBLOCK} {
		if flags, err := unix.FcntlInt(uintptr(fd), cmd, 0); err != nil || flags&want == 0 {
			t.Errorf("fcntl %d: flags %#x, %v: %#x is missing", cmd, flags, err, want)
		}
	}
	if a.Offload() != link.OffloadAll {
		t.Errorf("offload %v, want %v", a.Offload(), link.OffloadAll)
	}
}

// TestRefusedHeader: a virtio-net header that contradicts its frame is the
// kernel's to refuse, and the next frame passes.
func TestRefusedHeader(t *testing.T) {
	needTAP(t)
	ns := newNamespace(t)
	tap := ns.tap("tap0")
	ns.up("tap0")
	bad := aFrame()
	bad.VNet().SetHdrLen(1000)
	if n, err := tap.WriteBatch([]*packet.Frame{aFrame(), bad, aFrame()}); n != 1 || !errors.Is(err, link.ErrRefused) {
		t.Errorf("WriteBatch: %d, %v, want 1, %v", n, err, link.ErrRefused)
	}
}

// TestFull: the kernel has no room at the moment.
func TestFull(t *testing.T) {
	near, _ := datagrams(t)
	tap := link.NewTAPOn(near)
	for range 10000 {
		if _, err := tap.WriteBatch([]*packet.Frame{aFrame()}); err != nil {
			if !errors.Is(err, link.ErrFull) {
				t.Errorf("WriteBatch: %v, want %v", err, link.ErrFull)
			}
			return
		}
	}
	t.Error("10,000 frames that nobody reads were taken")
}

// TestLost: what fills the whole room was cut off by the kernel and is not
// delivered; nor is what is shorter than a virtio-net header.
func TestLost(t *testing.T) {
	for _, test := range []struct {
		name string
		make func(fd int) interface {
			ReadBatch(*packet.Batch) (int, error)
			Lost() uint64
		}
		whole int // of the frame, as the device has it
	}{
		{"TAP", func(fd int) interface {
			ReadBatch(*packet.Batch) (int, error)
			Lost() uint64
		} {
			return link.NewTAPOn(fd)
		}, packet.MaxFrame},
		{"wire", func(fd int) interface {
			ReadBatch(*packet.Batch) (int, error)
			Lost() uint64
		} {
			return link.NewWireOn(fd)
		}, packet.MaxFrame - packet.VNetLen},
	} {
		t.Run(test.name, func(t *testing.T) {
			near, far := datagrams(t)
			q := test.make(near)
			for _, size := range []int{100, test.whole, test.whole + 1, test.whole - 1, 100} {
				_, err := unix.Write(far, make([]byte, size))
				must(t, err)
			}
			batch := packet.NewBatch()
			total := 0
			for range 5 {
				n, err := q.ReadBatch(batch)
				must(t, err)
				total += n
				batch.Reset()
			}
			if total != 3 || q.Lost() != 2 {
				t.Errorf("%d frames read, %d lost, want 3 and 2", total, q.Lost())
			}
		})
	}
}

func says(err error, want string) bool {
	return err == nil && want == "" || err != nil && want != "" && strings.Contains(err.Error(), want)
}

// datagrams returns a pair of sockets that keep the boundaries of frames, as
// TAPs do. They do not block.
func datagrams(t testing.TB) (near, far int) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = unix.Close(p[0]), unix.Close(p[1]) })
	return p[0], p[1]
}

func pipeEnd(t *testing.T) int {
	t.Helper()
	var p [2]int
	must(t, unix.Pipe2(p[:], unix.O_CLOEXEC))
	t.Cleanup(func() { _, _ = unix.Close(p[0]), unix.Close(p[1]) })
	return p[0]
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}
