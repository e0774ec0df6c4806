package sockets

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/packet"
	"fairlead/test/lab"
)

// A dgPipe is a mapping's socket and a peer, both worked by hand: what moves
// between them allocates nothing.
type dgPipe struct {
	*dgRig
	p      *peer
	frames []*packet.Frame
	wake   chan struct{}
	buf    []byte
	timer  *time.Timer // of patience
}

func newDgPipe(t testing.TB, size, n int, change func(*Config)) *dgPipe {
	r := newDgRig(t, change)
	x := &dgPipe{dgRig: r, p: newPeer(t, "127.0.0.1:0"), wake: make(chan struct{}, 1), buf: make([]byte, 1<<16), timer: time.NewTimer(patience)}
	r.s.Notify(func() {
		select {
		case x.wake <- struct{}{}:
		default:
		}
	})
	for range n {
		x.frames = append(x.frames, r.udp(40000, x.p.at, pattern(1, size)))
	}
	return x
}

// up sends the frames and has the peer read them.
func (x *dgPipe) up() {
	if n, err := x.s.WriteBatch(x.frames); n != len(x.frames) || err != nil {
		x.t.Fatalf("%d taken: %v", n, err)
	}
}

// drain has the peer read n datagrams.
func (x *dgPipe) drain(n int) {
	for range n {
		if _, err := unix.Read(x.p.fd, x.buf); err != nil {
			x.t.Fatal(err)
		}
	}
}

// down reads what comes until it is n datagrams, and returns in how many frames.
func (x *dgPipe) down(n int) (frames int) {
	for n > 0 {
		x.batch.Reset()
		if _, err := x.s.ReadBatch(x.batch); err != nil {
			x.t.Fatal(err)
		}
		for i := range x.batch.Frames {
			f := &x.batch.Frames[i]
			f.Flags = 0
			if packet.Parse(f) != packet.OK {
				x.t.Fatal("malformed")
			}
			n -= f.Segments()
			frames++
		}
		if n > 0 && len(x.batch.Frames) == 0 {
			x.await("all datagrams")
		}
	}
	return frames
}

// await waits until there is something to read.
func (x *dgPipe) await(what string) {
	x.timer.Reset(patience)
	select {
	case <-x.wake:
	case <-x.timer.C:
		x.t.Fatalf("waiting for %s", what)
	}
}

// TestReleaseDatagramsAllocateNothing: neither out nor in, alone, as trains, or as
// trains that are taken apart.
func TestReleaseDatagramsAllocateNothing(t *testing.T) {
	lab.NeedRelease(t)
	for how, change := range map[string]func(*Config){
		"as trains": nil,
		"alone":     func(c *Config) { c.NoUDPOffload = true },
		"apart":     func(c *Config) { c.Joins = func() bool { return false } },
	} {
		x := newDgPipe(t, 1000, 16, change)
		x.up()
		from := x.p.recv().from
		x.drain(15)
		train := newTrain(from, pattern(1, 16*1000), 1000)
		for what, fn := range map[string]func(){
			"out": func() { x.up(); x.drain(16) },
			"in":  func() { train.send(t, x.p.fd); x.down(16) },
		} {
			if n := testing.AllocsPerRun(100, fn); n != 0 {
				t.Errorf("%s, %s: %v allocations", how, what, n)
			}
		}
	}
}

// BenchmarkUDPOut is one batch of datagrams of a flow to a socket. The peer does
// not read: what is measured ends in its receive buffer.
func BenchmarkUDPOut(b *testing.B) {
	for _, size := range []int{60, 1400} {
		for _, offload := range []bool{true, false} {
			b.Run(fmt.Sprintf("%d/offload=%v", size, offload), func(b *testing.B) {
				const n = 64
				x := newDgPipe(b, size, n, func(c *Config) { c.NoUDPOffload = !offload })
				for b.Loop() {
					x.up()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/datagram")
			})
		}
	}
}

// BenchmarkUDPIn is datagrams from a peer to frames: as the trains the kernel
// has made of them, one by one and made trains of here, and one by one. What the
// peer's sending costs is measured as well; it sends trains, which the kernel
// takes apart where they are to come one by one.
func BenchmarkUDPIn(b *testing.B) {
	for _, size := range []int{60, 1400} {
		for _, way := range []string{"trains", "joined", "alone"} {
			b.Run(fmt.Sprintf("%d/%s", size, way), func(b *testing.B) {
				const n = 40
				x := newDgPipe(b, size, 1, func(c *Config) { c.NoUDPOffload = way == "alone" })
				x.up()
				if way == "joined" {
					setInt(x.s.flows.slots[x.frames[0].Flow].e.common().fd, unix.SOL_UDP, unix.UDP_GRO, 0)
				}
				train := newTrain(x.p.recv().from, pattern(1, n*size), size)
				frames, before := 0, cpuTime()
				for b.Loop() {
					train.send(b, x.p.fd)
					frames += x.down(n)
				}
				b.ReportMetric(float64(cpuTime()-before)/float64(b.N)/n, "cpu-ns/datagram")
				b.ReportMetric(float64(n*b.N)/float64(frames), "datagrams/frame")
			})
		}
	}
}

// cpuTime is what this process has computed so far, in nanoseconds.
func cpuTime() int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
