package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"fairlead/packet"
	"fairlead/packet/packettest"
	hosts "fairlead/test/lab"
)

// sprayed is the length of the frames a spray sends: 18 bytes of payload by UDP,
// what an Ethernet frame has at least.
const sprayed = 60

// A spray sends small frames from inside a container, as many as its interface
// takes, one of them after the other and then from the first again.
type spray struct {
	fd     int
	frames []byte // of sprayed bytes each
	next   int
	random *rand.Rand

	messages [64]struct {
		header unix.Msghdr
		length uint32
		_      [4]byte
	}
	iovecs [64]unix.Iovec
}

// newSpray makes one of count frames, which build makes, in random order.
func newSpray(l *lab, h *hosts.Host, count int, build func(i int) []byte) *spray {
	s := &spray{frames: make([]byte, 0, count*sprayed), random: rand.New(rand.NewPCG(1, uint64(count)))}
	for _, i := range s.random.Perm(count) {
		frame := build(i)[packet.VNetLen:]
		if len(frame) != sprayed {
			l.Fatalf("a frame has %d bytes instead of %d", len(frame), sprayed)
		}
		s.frames = append(s.frames, frame...)
	}
	eth0, err := h.Netlink.LinkByName("eth0")
	l.check(err, "find eth0 of %s", h.Name)
	s.fd = hosts.In(l, h, func() (int, error) {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) // protocol 0 hears nothing
		if err != nil {
			return -1, fmt.Errorf("make a packet socket: %w", err)
		}
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: eth0.Attrs().Index}); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("bind a packet socket to eth0: %w", err)
		}
		return fd, nil
	})
	l.Cleanup(func() { unix.Close(s.fd) })
	for i := range s.messages {
		s.messages[i].header.Iov = &s.iovecs[i]
		s.messages[i].header.SetIovlen(1)
		s.iovecs[i].SetLen(sprayed)
	}
	return s
}

// shuffle puts the frames into another random order.
func (s *spray) shuffle() {
	at := func(i int) *[sprayed]byte { return (*[sprayed]byte)(s.frames[i*sprayed:]) }
	s.random.Shuffle(s.count(), func(i, j int) { *at(i), *at(j) = *at(j), *at(i) })
}

func (s *spray) count() int { return len(s.frames) / sprayed }

// send sends up to so many frames and returns how many the interface took. When
// it has no room it waits a moment: a full queue lasts longer.
func (s *spray) send(most int) (int, error) {
	n := min(most, len(s.messages))
	for i := range n {
		s.iovecs[i].Base = &s.frames[(s.next+i)%s.count()*sprayed]
	}
	sent, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.messages)), uintptr(n), 0, 0, 0)
	switch errno {
	case 0:
		s.next = (s.next + int(sent)) % s.count()
		if int(sent) == n {
			return n, nil
		}
	case unix.EINTR:
		return 0, nil
	case unix.ENOBUFS, unix.EAGAIN:
		sent = 0
	default:
		return 0, fmt.Errorf("send frames: %w", errno)
	}
	pause := unix.NsecToTimespec(50_000)
	_ = unix.Nanosleep(&pause, nil)
	return int(sent), nil
}

// once sends each frame once. A TAP throws away in silence what its queue has no
// room for, so it waits in between until the far container has received them, or
// lost some.
func (s *spray) once(received func() (crossed, error)) error {
	const window, patience = 512, 20 * time.Millisecond
	s.next = 0
	for left := s.count(); left > 0; {
		before, err := received()
		if err != nil {
			return err
		}
		sent := 0
		for sent < min(window, left) {
			n, err := s.send(min(window, left) - sent)
			if err != nil {
				return err
			}
			sent += n
		}
		left -= sent
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
			now, err := received()
			if err != nil {
				return err
			}
			if now.Frames-before.Frames >= uint64(sent) {
				break
			}
		}
	}
	return nil
}

// received counts what an end of a cable received.
func (c *cable) received(i int) func() (crossed, error) {
	return func() (crossed, error) { return receivedBy(c.ends[i], "eth0") }
}

// countedLate is how many frames have arrived at most that the path, which counts
// what it has written, has not counted yet.
const countedLate = 2 * packet.BatchFrames

// measure sends for a time, and counts what the far container received. That it
// crossed the path is proved by the path's own counters.
func (s *spray) measure(c *cable, d time.Duration) (q sample, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := c.crossed()
	if err != nil {
		return q, err
	}
	first, err := c.received(1)()
	if err != nil {
		return q, err
	}
	start := time.Now()
	for time.Since(start) < d {
		if _, err := s.send(len(s.messages)); err != nil {
			return q, err
		}
	}
	took := time.Since(start)
	last, err := c.received(1)()
	if err != nil {
		return q, err
	}
	after, err := c.crossed()
	if err != nil {
		return q, err
	}
	n, got := after.minus(before), last.minus(first)
	switch {
	case got.Frames == 0:
		return q, errors.New("no frame arrived")
	case n.Frames+countedLate < got.Frames:
		return q, fmt.Errorf("%d frames arrived and %d crossed the path: the traffic went another way, and is not reported", got.Frames, n.Frames)
	}
	return sample{Value: float64(got.Frames) / took.Seconds() / 1e3, Bytes: float64(got.Bytes), Frames: float64(n.Frames), spent: n.spent}, nil
}

// small is a frame from a container's address to one that nobody has, so that the
// far container's kernel throws it away in silence.
func small(src, dst packettest.Station, srcPort, dstPort uint16) []byte {
	return packettest.UDP(src, dst, srcPort, dstPort, make([]byte, sprayed-packet.EthernetLen-packet.IPv4MinLen-packet.UDPLen))
}

// mac is the address of eth0 of a container.
func (c *cable) mac(l *lab, i int) packet.MAC {
	eth0, err := c.ends[i].Netlink.LinkByName("eth0")
	l.check(err, "find eth0 of %s", c.ends[i].Name)
	return packet.MAC(eth0.Attrs().HardwareAddr)
}
