package link_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fairlead/link"
	"fairlead/link/linktest"
	"fairlead/packet"
)

// TestTraffic has two namespaces talk TCP through two queues, both ways at the
// same time, while root inside turns offloads on and off and changes MTU and
// MAC, and while we limit the offloads from outside. All bytes arrive.
func TestTraffic(t *testing.T) {
	needTAP(t)
	tap := func(ns *namespace) linktest.Queue { return ns.tap("eth0") }
	wire := func(ns *namespace) linktest.Queue { return ns.wire("eth0") }
	pkt := func(ns *namespace) linktest.Queue {
		outside := newNamespace(t)
		ns.veth("eth0", "port")
		var thread int
		outside.do(func() error { thread = unix.Gettid(); return nil })
		must(t, ns.nl.LinkSetNsPid(ns.link("port"), thread))
		outside.up("port")
		return outside.packet("port")
	}
	for name, open := range map[string][2]func(ns *namespace) linktest.Queue{
		"TAP and TAP":    {tap, tap},
		"TAP and wire":   {tap, wire},
		"wire and wire":  {wire, wire},
		"packet and TAP": {pkt, tap},
	} {
		t.Run(name, func(t *testing.T) {
			var hosts [2]*namespace
			var queues [2]linktest.Queue
			for i := range hosts {
				hosts[i] = newNamespace(t)
				queues[i] = open[i](hosts[i])
				must(t, hosts[i].nl.AddrAdd(hosts[i].link("eth0"), &netlink.Addr{IPNet: cidr(fmt.Sprintf("10.9.0.%d/24", i+1))}))
				hosts[i].up("eth0")
			}
			relay(t, queues[0], queues[1])
			a, b := connect(t, hosts[0], hosts[1], "10.9.0.2:7000")
			var enough atomic.Bool
			var wg sync.WaitGroup
			var sums [2][2][32]byte // sent and received, by end
			var sent atomic.Int64
			for i, c := range []*net.TCPConn{a, b} {
				wg.Go(func() { sums[i][0] = send(t, c, uint64(i), &sent, &enough) })
				wg.Go(func() { sums[i][1] = receive(t, c) })
			}
			rng := rand.New(rand.NewPCG(3, 4))
			for range 40 {
				i := rng.IntN(2)
				flip(t, hosts[i], queues[i], rng)
				time.Sleep(time.Duration(rng.IntN(30)) * time.Millisecond)
			}
			for late := time.Now().Add(20 * time.Second); sent.Load() < 1<<20 && time.Now().Before(late); {
				time.Sleep(10 * time.Millisecond) // a busy machine had no time for it so far
			}
			enough.Store(true)
			wg.Wait()
			if sums[0][0] != sums[1][1] || sums[1][0] != sums[0][1] {
				t.Error("the bytes that arrived are not those sent")
			}
			if sent.Load() < 1<<20 {
				t.Errorf("%d bytes were sent; nothing was tested", sent.Load())
			}
		})
	}
}

// relay carries frames between two queues until the end of the test.
func relay(t *testing.T, a, b linktest.Queue) {
	var stop atomic.Bool
	var wg sync.WaitGroup
	for _, q := range [][2]linktest.Queue{{a, b}, {b, a}} {
		wg.Go(func() {
			batch := packet.NewBatch()
			frames := make([]*packet.Frame, 0, packet.BatchFrames)
			fds := []unix.PollFd{{Fd: int32(q[0].(interface{ Fd() int }).Fd()), Events: unix.POLLIN}}
			for !stop.Load() {
				if _, err := unix.Poll(fds, 20); err != nil && !errors.Is(err, unix.EINTR) {
					t.Error(err)
					return
				}
				if _, err := q[0].ReadBatch(batch); err != nil {
					t.Error(err)
					return
				}
				frames = frames[:0]
				for i := range batch.Frames {
					frames = append(frames, &batch.Frames[i])
				}
				for len(frames) > 0 {
					n, err := q[1].WriteBatch(frames)
					if errors.Is(err, link.ErrRefused) {
						t.Errorf("a frame that was read is refused: %x", frames[n].B[:min(64, len(frames[n].B))])
					}
					frames = frames[min(n+1, len(frames)):]
				}
				batch.Reset()
			}
		})
	}
	t.Cleanup(func() { stop.Store(true); wg.Wait() })
}

// flip changes one thing that root inside can change, or we from outside.
func flip(t *testing.T, ns *namespace, q linktest.Queue, rng *rand.Rand) {
	t.Helper()
	const (
		setTXChecksum = 0x17 // ETHTOOL_STXCSUM and others, linux/ethtool.h
		setTSO        = 0x1f
		setGSO        = 0x24
		setGRO        = 0x2c
	)
	switch rng.IntN(8) {
	case 0, 1, 2, 3:
		cmd := []uint32{setTXChecksum, setTSO, setGSO, setGRO}[rng.IntN(4)]
		ns.do(func() error { return ethtool("eth0", cmd, uint32(rng.IntN(2))) })
	case 4, 5:
		tap, ok := q.(*link.TAP)
		if !ok {
			return
		}
		some := []link.Offload{link.OffloadAll, link.OffloadTCP, link.OffloadChecksum, 0}
		must(t, tap.SetOffload(some[rng.IntN(len(some))]))
	case 6:
		if _, ok := q.(*link.Packet); ok {
			return // a cable drops what is larger than the MTU of its other end
		}
		must(t, ns.nl.LinkSetMTU(ns.link("eth0"), []int{1500, 1400, 576, 9000}[rng.IntN(4)]))
	case 7:
		l := ns.link("eth0")
		own := l.Attrs().HardwareAddr
		must(t, ns.nl.LinkSetHardwareAddr(l, net.HardwareAddr{2, 0, 0, 0, 0, 99}))
		must(t, ns.nl.LinkSetHardwareAddr(l, own))
	}
}

// ethtool sets one feature, as `ethtool -K` does.
func ethtool(name string, cmd, value uint32) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	arg := struct{ cmd, value uint32 }{cmd, value}
	ifr := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&arg)}
	copy(ifr.name[:], name)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifr))); errno != 0 {
		return fmt.Errorf("ethtool command %#x on %s: %w", cmd, name, errno)
	}
	return nil
}

// connect opens a TCP connection from one namespace to the other.
func connect(t *testing.T, from, to *namespace, addr string) (a, b *net.TCPConn) {
	t.Helper()
	var l net.Listener
	to.do(func() (err error) { l, err = net.Listen("tcp4", addr); return err })
	defer func() { must(t, l.Close()) }()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			accepted <- c
		}
	}()
	from.do(func() error {
		c, err := net.DialTimeout("tcp4", addr, 10*time.Second)
		if err == nil {
			a = c.(*net.TCPConn)
		}
		return err
	})
	b = (<-accepted).(*net.TCPConn)
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return a, b
}

// send writes random bytes until it is enough and returns their hash.
func send(t *testing.T, c *net.TCPConn, seed uint64, sent *atomic.Int64, enough *atomic.Bool) [32]byte {
	rng := rand.NewChaCha8([32]byte{byte(seed)})
	sum := sha256.New()
	for buf := make([]byte, 64<<10); !enough.Load(); {
		_, _ = rng.Read(buf)
		sum.Write(buf)
		must := c.SetWriteDeadline(time.Now().Add(20 * time.Second))
		n, err := c.Write(buf)
		sent.Add(int64(n))
		if err = errors.Join(must, err); err != nil {
			t.Error(err)
			break
		}
	}
	if err := c.CloseWrite(); err != nil {
		t.Error(err)
	}
	return [32]byte(sum.Sum(nil))
}

// receive reads to the end and returns the hash.
func receive(t *testing.T, c *net.TCPConn) [32]byte {
	sum := sha256.New()
	if err := c.SetReadDeadline(time.Now().Add(40 * time.Second)); err != nil {
		t.Error(err)
	}
	if _, err := io.Copy(sum, c); err != nil {
		t.Error(err)
	}
	return [32]byte(sum.Sum(nil))
}

func cidr(s string) *net.IPNet {
	ip, n, err := net.ParseCIDR(s)
	if err != nil {
		panic(err)
	}
	n.IP = ip
	return n
}

// sendUDP sends one datagram from the namespace of the calling thread.
func sendUDP(to string) error {
	c, err := net.Dial("udp", to)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_, err = c.Write([]byte("hello"))
	return err
}
