package main

import (
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"fairlead/link"
	"fairlead/loop"
	"fairlead/packet"
	"fairlead/packet/packettest"
	hosts "fairlead/test/lab"
)

// The forwarding path allocates nothing: a million frames through two TAPs and
// a whole network leave the garbage collector nothing to do. What little the
// runtime allocates meanwhile is not the path's.
func TestReleaseNoAllocations(t *testing.T) {
	const frames, most = 1_000_000, 100
	hosts.NeedRelease(t)
	l, _, n, err := newNetwork(workers)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	defer n.Close()
	var containers [2]*hosts.Host
	var stations [2]packettest.Station
	for i := range containers {
		h := hosts.NewHost(t, "container")
		tap := hosts.In(t, h, func() (*link.TAP, error) { return link.CreateTAP(link.TAPConfig{Name: "eth0"}) })
		h.Up(t, "eth0")
		eth0, err := h.Netlink.LinkByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		e := end{MAC: packet.MAC(eth0.Attrs().HardwareAddr), Addr: addrs[i]}
		if _, err := n.Attach(e.endpoint(i, tap)); err != nil {
			t.Fatal(err)
		}
		containers[i], stations[i] = h, packettest.Station{MAC: e.MAC, IP: e.Addr}
	}
	sw := n.Switch()
	wait := func(what string, until uint64, have func() uint64) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); have() < until; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d of %d within a minute", what, have(), until)
			}
		}
	}
	unicast := func() uint64 { return sw.Totals().Unicast }

	// One frame from the far side, so that the switch knows where it is.
	frameSender(t, containers[1], packettest.UDP(stations[1], stations[0], 2, 1, nil)).send(t)
	wait("stations learned", 1, func() uint64 { return uint64(len(sw.MACs(loop.Clock()))) })

	// Small frames, of which a switch has the most work. The far container has
	// no address, so its kernel throws them away in silence.
	s := frameSender(t, containers[0], packettest.UDP(stations[0], stations[1], 1, 2, make([]byte, 18)))
	stop, stopped := make(chan struct{}), make(chan struct{})
	defer func() { close(stop); <-stopped }()
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				s.send(t)
			}
		}
	}()

	wait("frames to warm up", 10_000, unicast) // what is allocated once is allocated by now
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	first, start := unicast(), time.Now()
	wait("frames", first+frames, unicast)
	runtime.ReadMemStats(&after)
	got, took, allocs := unicast()-first, time.Since(start), after.Mallocs-before.Mallocs
	t.Logf("%d frames in %v, %.0f a second: %d allocations", got, took.Round(time.Millisecond), float64(got)/took.Seconds(), allocs)
	if allocs > most {
		t.Errorf("%d allocations over %d frames, want at most %d", allocs, got, most)
	}
}

// A sender sends one frame again and again from inside a container, without
// allocating. Frames for which its TAP has no room are lost.
type sender struct {
	fd       int
	frame    []byte
	iovec    unix.Iovec
	messages [64]struct {
		header unix.Msghdr
		length uint32
		_      [4]byte
	}
}

// frameSender makes a sender on eth0 of a container. The frame's virtio-net
// header stays here.
func frameSender(t *testing.T, h *hosts.Host, frame []byte) *sender {
	t.Helper()
	eth0, err := h.Netlink.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sender{frame: frame[packet.VNetLen:]}
	s.fd = hosts.In(t, h, func() (int, error) {
		// Protocol 0: it hears nothing.
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return -1, err
		}
		return fd, unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: eth0.Attrs().Index})
	})
	t.Cleanup(func() { unix.Close(s.fd) })
	s.iovec.Base = unsafe.SliceData(s.frame)
	s.iovec.SetLen(len(s.frame))
	for i := range s.messages {
		s.messages[i].header.Iov = &s.iovec
		s.messages[i].header.SetIovlen(1)
	}
	return s
}

// send sends as many frames as there are messages.
func (s *sender) send(t *testing.T) {
	_, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(s.fd),
		uintptr(unsafe.Pointer(&s.messages[0])), uintptr(len(s.messages)), 0, 0, 0)
	if errno != 0 && errno != unix.ENOBUFS && errno != unix.EINTR {
		t.Errorf("sendmmsg: %v", errno)
	}
}
