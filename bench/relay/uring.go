package relay

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Uring joins two TAPs as Raw does, with batches of an io_uring instead of a call
// for each read and write: all reads of a batch are one io_uring_enter, and so are
// all its writes. Each says RWF_NOWAIT, so the kernel does them in turn within that
// call and their order is kept: O_NONBLOCK alone has io_uring wait for data. The wait
// is poll(2). It is done when a descriptor fails.
func Uring(taps [2]int, crossed *Crossed) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r, err := newUring()
	if err != nil {
		return err
	}
	var fds [2]unix.PollFd
	for i, fd := range taps {
		fds[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	}
	var bufs [uringBatch][]byte
	for i := range bufs {
		bufs[i] = make([]byte, 10+14+4+4+65535)
	}
	ask := [2]int{1, 1} // how many reads are tried: one more than had something
	for {
		if _, err := unix.Poll(fds[:], -1); err != nil && err != unix.EINTR {
			return fmt.Errorf("poll: %w", err)
		}
		for busy := true; busy; {
			busy = false
			for i := range taps {
				n, err := r.relay(taps[i], taps[1-i], bufs[:ask[i]], crossed)
				if err != nil {
					return err
				}
				busy = busy || n == ask[i]
				ask[i] = min(uringBatch, 2*n+1)
			}
		}
	}
}

// uringBatch is how many reads or writes are one call at most.
const uringBatch = 32

// relay reads as many frames as there are buffers, writes those that came, and
// returns how many did.
func (r *uring) relay(from, to int, bufs [][]byte, crossed *Crossed) (n int, err error) {
	for i, b := range bufs {
		r.put(i, opRead, from, b)
	}
	if err := r.enter(len(bufs)); err != nil {
		return 0, err
	}
	sizes := r.results
	bytes := 0
	for i, b := range bufs {
		switch size := sizes[i]; {
		case size > 0:
			r.put(n, opWrite, to, b[:size])
			n, bytes = n+1, bytes+int(size)
		case unix.Errno(-size) != unix.EAGAIN && unix.Errno(-size) != unix.EIO: // EIO: the interface is down
			return n, fmt.Errorf("read by io_uring: %w", unix.Errno(-size))
		}
	}
	if n == 0 {
		return 0, nil
	}
	if err := r.enter(n); err != nil {
		return n, err
	}
	for _, size := range r.results[:n] {
		if size < 0 && unix.Errno(-size) != unix.EIO {
			return n, fmt.Errorf("write by io_uring: %w", unix.Errno(-size))
		}
	}
	crossed.Frames.Add(uint64(n))
	crossed.Bytes.Add(uint64(bytes))
	return n, nil
}

// Numbers of linux/io_uring.h.
const (
	opRead, opWrite = 22, 23
	enterGetEvents  = 1
	offSQ, offSQEs  = 0, 0x10000000
	featSingleMmap  = 1
)

// A uring is an io_uring whose entries all are done when enter returns. It belongs
// to one thread.
type uring struct {
	fd      int
	ring    []byte // both queues
	sqes    []sqe
	params  uringParams
	results [uringBatch]int32 // of the entries of the last enter, in their order
}

// An sqe is an entry of the submission queue.
type sqe struct {
	op, flags uint8
	ioprio    uint16
	fd        int32
	off, addr uint64
	len, rw   uint32
	user      uint64
	_         [3]uint64
}

// uringParams is struct io_uring_params.
type uringParams struct {
	sqEntries, cqEntries, flags, threadCPU, threadIdle, features, wq uint32
	_                                                                [3]uint32
	sq                                                               struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

func newUring() (*uring, error) {
	r := &uring{}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uringBatch, uintptr(unsafe.Pointer(&r.params)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("io_uring_setup: %w; see kernel.io_uring_disabled", errno)
	}
	r.fd = int(fd)
	if r.params.features&featSingleMmap == 0 {
		return nil, fmt.Errorf("io_uring_setup: this kernel maps its queues apart")
	}
	p := &r.params
	size := max(p.sq.array+4*p.sqEntries, p.cq.cqes+16*p.cqEntries)
	var err error
	if r.ring, err = unix.Mmap(r.fd, offSQ, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return nil, fmt.Errorf("map the queues of io_uring: %w", err)
	}
	const each = int(unsafe.Sizeof(sqe{}))
	entries, err := unix.Mmap(r.fd, offSQEs, each*int(p.sqEntries), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("map the entries of io_uring: %w", err)
	}
	r.sqes = unsafe.Slice((*sqe)(unsafe.Pointer(&entries[0])), p.sqEntries)
	for i := range p.sqEntries { // entry i is always at place i
		*r.word(p.sq.array + 4*i) = i
	}
	return r, nil
}

// word is a 32-bit word of the queues.
func (r *uring) word(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.ring[offset])) }

// put makes entry i of the next enter: a read or write at no position.
func (r *uring) put(i int, op uint8, fd int, b []byte) {
	at := (atomic.LoadUint32(r.word(r.params.sq.tail)) + uint32(i)) & *r.word(r.params.sq.mask)
	r.sqes[at] = sqe{op: op, fd: int32(fd), off: ^uint64(0), addr: uint64(uintptr(unsafe.Pointer(&b[0]))), len: uint32(len(b)), rw: unix.RWF_NOWAIT, user: uint64(i)}
}

// enter has n entries done and takes what became of them.
func (r *uring) enter(n int) error {
	p := &r.params
	atomic.AddUint32(r.word(p.sq.tail), uint32(n))
	for submitted, done := 0, 0; done < n; {
		got, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(n-submitted), uintptr(n-done), enterGetEvents, 0, 0)
		if errno != 0 && errno != unix.EINTR {
			return fmt.Errorf("io_uring_enter: %w", errno)
		}
		if errno == 0 {
			submitted += int(got)
		}
		head, tail := *r.word(p.cq.head), atomic.LoadUint32(r.word(p.cq.tail))
		for ; head != tail; head++ {
			c := p.cq.cqes + 16*(head&*r.word(p.cq.mask)) // user_data, res, flags
			r.results[*(*uint64)(unsafe.Pointer(&r.ring[c]))] = int32(*r.word(c + 8))
			done++
		}
		atomic.StoreUint32(r.word(p.cq.head), head)
	}
	return nil
}
