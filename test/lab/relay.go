package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/packet"
)

// A Line is what a Relay makes of the way between its ends, in each direction
// alike. The zero Line is a good one.
type Line struct {
	Delay   time.Duration // of every packet
	Loss    float64       // part of the packets that get lost,
	Reorder float64       // part that arrives up to Late later than the others,
	Late    time.Duration
	Shrink  float64 // and part of the TCP segments whose window gets smaller

	Queue int    // bytes that wait for the end of their delay; 0 is 64 MiB
	Seed  uint64 // of all that happens by chance
}

// A Relay is a bad line between two interfaces: packets are late, some are lost,
// come in another order, or say that their sender takes less than it said
// before, which RFC 9293 discourages and everybody has to bear.
//
// What the kernel hands over in one piece of up to 64 KiB crosses in one piece
// unless packets get lost or out of order: those are what a wire would carry.
//
// Two threads carry, one for each direction. Stats may be called meanwhile.
type Relay struct {
	ways [2]*way
	stop int // an eventfd both wait for
	done sync.WaitGroup
}

// RelayStats count packets of both directions: those carried, and those to which
// something happened.
type RelayStats struct {
	Carried, Lost, Reordered, Shrunk uint64
	Full                             uint64 // lost because too many waited
}

// A RelayEnd is an interface a Relay reads and writes, with virtio-net headers.
type RelayEnd struct{ fd int }

// NewRelayTAP makes a TAP on the host for a relay: what the host sends there,
// the relay reads. It is up.
func NewRelayTAP(t T, h *Host, name string) RelayEnd {
	t.Helper()
	NeedTUN(t)
	e := RelayEnd{In(t, h, func() (int, error) { return openTAP(name) })}
	t.Cleanup(func() { unix.Close(e.fd) })
	h.Up(t, name)
	return e
}

// NewRelayPort has a relay hear what an interface of a host receives, and send
// there. The host hears it too, so it should have no address on it.
func NewRelayPort(t T, h *Host, name string) RelayEnd {
	t.Helper()
	index := h.link(t, name).Attrs().Index
	e := RelayEnd{In(t, h, func() (int, error) { return openPort(index) })}
	t.Cleanup(func() { unix.Close(e.fd) })
	return e
}

func openTAP(name string) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err == nil {
		err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4|unix.TUN_F_TSO6)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("make TAP %s: %w", name, err)
	}
	return fd, nil
}

func openPort(index int) (int, error) {
	// Protocol 0: it hears nothing before it is bound.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open a packet socket: %w", err)
	}
	for _, o := range []struct{ level, name, value int }{
		{unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1},
		{unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1},
		{unix.SOL_SOCKET, unix.SO_RCVBUF, 4 << 20},
		{unix.SOL_SOCKET, unix.SO_SNDBUF, 4 << 20},
	} {
		if err == nil {
			err = unix.SetsockoptInt(fd, o.level, o.name, o.value)
		}
	}
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index})
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("set up a packet socket: %w", err)
	}
	return fd, nil
}

// NewRelay begins to carry between two ends, until the test ends.
func NewRelay(t T, a, b RelayEnd, line Line) *Relay {
	t.Helper()
	if line.Queue == 0 {
		line.Queue = 64 << 20
	}
	r := &Relay{}
	var running sync.WaitGroup
	var err error
	r.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	must(t, err, "make a relay")
	for i, ends := range [2][2]RelayEnd{{a, b}, {b, a}} {
		w := &way{
			line: line, from: ends[0].fd, to: ends[1].fd, stop: r.stop,
			rng: rand.New(rand.NewPCG(line.Seed, uint64(i))), piece: make([]byte, packet.MaxFrame),
		}
		r.ways[i] = w
		running.Add(1)
		r.done.Go(func() {
			_ = onThread(func() error {
				running.Done()
				return w.carry()
			})
		})
	}
	running.Wait()
	t.Cleanup(func() {
		_, _ = unix.Write(r.stop, binary.NativeEndian.AppendUint64(nil, 1))
		r.done.Wait()
		unix.Close(r.stop)
	})
	return r
}

// Stats are the counts so far.
func (r *Relay) Stats() (s RelayStats) {
	for _, w := range r.ways {
		s.Carried += w.carried.Load()
		s.Lost += w.lost.Load()
		s.Reordered += w.reordered.Load()
		s.Shrunk += w.shrunk.Load()
		s.Full += w.full.Load()
	}
	return s
}

// A way is one direction of a relay, on a thread of its own.
type way struct {
	line           Line
	from, to, stop int
	rng            *rand.Rand

	waiting queue   // those in order
	late    []delay // the others, by time, the next one last
	piece   []byte  // one packet of a larger piece

	carried, lost, reordered, shrunk, full atomic.Uint64
}

// A delay is a frame that waits.
type delay struct {
	due   time.Time
	frame []byte
}

// turn bounds how many frames are read before those that are due are sent.
const turn = 64

func (w *way) carry() error {
	for {
		wait := w.send(time.Now())
		fds := []unix.PollFd{{Fd: int32(w.from), Events: unix.POLLIN}, {Fd: int32(w.stop), Events: unix.POLLIN}}
		var timeout *unix.Timespec
		if wait >= 0 {
			ts := unix.NsecToTimespec(wait.Nanoseconds())
			timeout = &ts
		}
		if _, err := unix.Ppoll(fds, timeout, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if fds[1].Revents != 0 {
			return nil
		}
		if fds[0].Revents != 0 {
			w.receive()
		}
	}
}

// receive reads frames and decides what becomes of each.
func (w *way) receive() {
	now := time.Now()
	for range turn {
		b := w.waiting.get(packet.MaxFrame)
		n, err := unix.Read(w.from, b)
		if err != nil { // none is left, or one the kernel could not describe
			w.waiting.put(b)
			return
		}
		f := packet.Frame{B: b[:n]}
		known := n >= packet.VNetLen && packet.Parse(&f) == packet.OK
		if known && w.line.Loss+w.line.Reorder > 0 {
			w.cut(&f, now)
			w.waiting.put(b)
			continue
		}
		if known {
			w.shrink(&f)
		}
		if n > smallFrame && w.waiting.bytes <= w.line.Queue {
			w.waiting.add(f.B, now.Add(w.line.Delay)) // the buffer with it
			continue
		}
		w.keep(f.B, now)
		w.waiting.put(b)
	}
}

// cut handles what was handed over in one piece packet by packet.
func (w *way) cut(f *packet.Frame, now time.Time) {
	var cutter packet.Segmenter
	for cutter.Reset(f); ; {
		n, ok := cutter.Next(w.piece)
		if !ok {
			return
		}
		one := packet.Frame{B: w.piece[:n]}
		if packet.Parse(&one) == packet.OK {
			w.shrink(&one)
		}
		if !w.bad(one.B, now) {
			w.keep(one.B, now)
		}
	}
}

// keep has a frame wait, or loses it when too much waits already.
func (w *way) keep(frame []byte, now time.Time) {
	if w.waiting.bytes > w.line.Queue {
		w.full.Add(1)
		return
	}
	b := w.waiting.get(len(frame))
	w.waiting.add(b[:copy(b, frame)], now.Add(w.line.Delay))
}

// bad loses the frame, or has it come late, by chance.
func (w *way) bad(frame []byte, now time.Time) bool {
	switch {
	case w.line.Loss > 0 && w.rng.Float64() < w.line.Loss:
		w.lost.Add(1)
		return true
	case w.line.Reorder > 0 && w.rng.Float64() < w.line.Reorder:
		w.reordered.Add(1)
		d := delay{now.Add(w.line.Delay + time.Duration(w.rng.Int64N(int64(w.line.Late)))), slices.Clone(frame)}
		at, _ := slices.BinarySearchFunc(w.late, d.due, func(x delay, due time.Time) int { return due.Compare(x.due) })
		w.late = slices.Insert(w.late, at, d)
		return true
	}
	return false
}

// shrink takes from the window of a TCP segment, by chance, and now and then all
// of it. A connection's first segments stay: they say how to read the window.
func (w *way) shrink(f *packet.Frame) {
	if w.line.Shrink == 0 || f.Proto != packet.ProtoTCP || f.L4 == 0 || w.rng.Float64() >= w.line.Shrink {
		return
	}
	t := packet.TCP(f.Ether()[f.L4:])
	if !t.Valid() || t.Flags()&packet.TCPSyn != 0 {
		return
	}
	w.shrunk.Add(1)
	was, window := t.Window(), uint16(0)
	if w.rng.IntN(10) > 0 {
		window = uint16(w.rng.IntN(int(was) + 1))
	}
	binary.BigEndian.PutUint16(t[14:], window)
	if !f.Flags.Has(packet.NeedsChecksum) { // else it holds none of the window yet
		sum := packet.Delta(0).Replace16(was, window).Update(t.Checksum())
		binary.BigEndian.PutUint16(t[packet.TCPChecksumOffset:], sum)
	}
}

// send writes what is due and returns how long the next frame has to wait, -1
// when there is none.
func (w *way) send(now time.Time) time.Duration {
	for {
		first, ok := w.waiting.first()
		late := len(w.late) > 0 && (!ok || w.late[len(w.late)-1].due.Before(first.due))
		if late {
			first = w.late[len(w.late)-1]
		}
		if !ok && !late {
			return -1
		}
		if wait := first.due.Sub(now); wait > 0 {
			return wait
		}
		// What the other side has no room for is lost, as on a wire.
		if _, err := unix.Write(w.to, first.frame); err != nil {
			w.full.Add(1)
		} else {
			w.carried.Add(1)
		}
		if late {
			w.late = w.late[:len(w.late)-1]
		} else {
			w.waiting.drop()
		}
	}
}

// A queue holds frames in the order in which they came, in buffers of two sizes
// that are used again.
type queue struct {
	frames       []delay
	head         int // of those that are gone
	bytes        int // of the buffers in use
	large, small [][]byte
}

// smallFrame is the most bytes a small buffer holds: a packet at the usual MTU.
const smallFrame = 2048

// get returns a buffer for n bytes.
func (q *queue) get(n int) []byte {
	list, size := &q.large, packet.MaxFrame
	if n <= smallFrame {
		list, size = &q.small, smallFrame
	}
	q.bytes += size
	if last := len(*list) - 1; last >= 0 {
		b := (*list)[last]
		*list = (*list)[:last]
		return b
	}
	return make([]byte, size)
}

// put takes a buffer back.
func (q *queue) put(b []byte) {
	b = b[:cap(b)]
	q.bytes -= len(b)
	if len(b) == smallFrame {
		q.small = append(q.small, b)
	} else {
		q.large = append(q.large, b)
	}
}

// add keeps a frame that lies in a buffer of this queue.
func (q *queue) add(frame []byte, due time.Time) {
	if q.head > 1024 && q.head > len(q.frames)/2 {
		q.frames = slices.Delete(q.frames, 0, q.head)
		q.head = 0
	}
	q.frames = append(q.frames, delay{due, frame})
}

// first is the oldest frame.
func (q *queue) first() (delay, bool) {
	if q.head == len(q.frames) {
		return delay{}, false
	}
	return q.frames[q.head], true
}

// drop takes the oldest frame out.
func (q *queue) drop() {
	q.put(q.frames[q.head].frame)
	q.head++
}
