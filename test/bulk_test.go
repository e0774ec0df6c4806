package test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The parts of this file send bytes that can be told apart by their place in
// the stream, and say where the first wrong one is.

// pieceLen is what one write sends: more than a segment of 64 KiB, so that the
// kernel always finds a whole one.
const pieceLen = 1 << 20

// pool is what pieces are cut from, random and always the same.
var pool = func() []byte {
	b := make([]byte, pieceLen+1<<16)
	_, _ = rand.NewChaCha8([32]byte{'f', 'a', 'i', 'r'}).Read(b)
	return b
}

// A stream is an endless sequence of bytes, piece after piece.
type stream struct {
	pool []byte
	at   int64
}

// next returns the following bytes, at most n.
func (s *stream) next(n int) []byte {
	piece, within := s.at/pieceLen, int(s.at%pieceLen)
	shift := int(piece*4099) % (1 << 16)
	b := s.pool[shift+within : shift+pieceLen]
	b = b[:min(n, len(b))]
	s.at += int64(len(b))
	return b
}

// sendStream writes the first n bytes of the stream.
func sendStream(w io.Writer, n int64) (hash.Hash, error) {
	s, h := stream{pool: pool()}, sha256.New()
	for s.at < n {
		b := s.next(int(min(n-s.at, pieceLen)))
		if _, err := w.Write(b); err != nil {
			return nil, fmt.Errorf("send at byte %d: %w", s.at, err)
		}
		_, _ = h.Write(b)
	}
	return h, nil
}

// receiveStream reads the first n bytes of the stream.
func receiveStream(r io.Reader, n int64) (hash.Hash, error) {
	s, h := stream{pool: pool()}, sha256.New()
	buf := make([]byte, 256<<10)
	for s.at < n {
		size, err := r.Read(buf[:min(n-s.at, int64(len(buf)))])
		for got := buf[:size]; len(got) > 0; {
			at := s.at
			want := s.next(len(got))
			if !bytes.Equal(got[:len(want)], want) {
				return nil, fmt.Errorf("the stream is wrong in the %d bytes from byte %d", len(want), at)
			}
			got = got[len(want):]
		}
		_, _ = h.Write(buf[:size])
		if err != nil && s.at < n {
			return nil, fmt.Errorf("receive at byte %d: %w", s.at, err)
		}
	}
	return h, nil
}

// sink serves transfer, one connection after the other.
func sink(args []string) error {
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	fmt.Println("listening")
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		if err := serveTransfer(conn); err != nil {
			return err
		}
	}
}

func serveTransfer(conn net.Conn) error {
	defer conn.Close()
	var n int64
	if err := binary.Read(conn, binary.BigEndian, &n); err != nil {
		return err
	}
	h, err := receiveStream(conn, n)
	if err != nil {
		return err
	}
	if _, err := conn.Write(h.Sum(nil)); err != nil {
		return err
	}
	if h, err = sendStream(conn, n); err != nil {
		return err
	}
	_, err = conn.Write(h.Sum(nil))
	return err
}

// transfer sends a number of bytes to a sink and has it send as many back, and
// compares the hashes made at both ends.
func transfer(args []string) error {
	n, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	conn, err := net.Dial("tcp", args[0])
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := binary.Write(conn, binary.BigEndian, n); err != nil {
		return err
	}
	start := time.Now()
	sent, err := sendStream(conn, n)
	if err != nil {
		return err
	}
	if err := sameHash(conn, sent); err != nil {
		return fmt.Errorf("there: %w", err)
	}
	there := time.Since(start)
	received, err := receiveStream(conn, n)
	if err != nil {
		return err
	}
	if err := sameHash(conn, received); err != nil {
		return fmt.Errorf("back: %w", err)
	}
	fmt.Printf("equal hashes; %.2f Gbit/s there, %.2f back\n", gbits(n, there), gbits(n, time.Since(start)-there))
	return nil
}

// transfers does so again and again until its standard input ends.
func transfers(args []string) error {
	var over atomic.Bool
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		over.Store(true)
	}()
	for !over.Load() {
		if err := transfer(args); err != nil {
			return err
		}
	}
	return nil
}

func sameHash(r io.Reader, h hash.Hash) error {
	other := make([]byte, sha256.Size)
	if _, err := io.ReadFull(r, other); err != nil {
		return fmt.Errorf("read the other end's hash: %w", err)
	}
	if mine := h.Sum(nil); !bytes.Equal(mine, other) {
		return fmt.Errorf("hash %x here, %x at the other end", mine, other)
	}
	return nil
}

func gbits(n int64, d time.Duration) float64 { return 8 * float64(n) / 1e9 / d.Seconds() }

// datagramMax is the largest UDP datagram IPv4 carries.
const datagramMax = 65535 - 20 - 8

// datagrams sends a number of datagrams of random sizes, one at a time, to an
// echo server, then trains of equal ones that the kernel may carry as one frame
// (UDP_SEGMENT). Each must come back as it was.
func datagrams(args []string) error {
	count, err1 := strconv.Atoi(args[1])
	seed, err2 := strconv.ParseUint(args[2], 10, 64)
	conn, err3 := net.Dial("udp", args[0])
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	defer conn.Close()
	rng, random := rand.New(rand.NewPCG(seed, 0)), pool()
	// The edges of what one, two and all fragments hold.
	sizes := []int{0, 1, 2, 7, 8, 1471, 1472, 1473, 1480, 1481, 2952, 2953, 65506, datagramMax}
	for range count {
		size := rng.IntN(datagramMax + 1)
		if rng.IntN(2) == 0 {
			size = rng.IntN(3000)
		}
		sizes = append(sizes, size)
	}
	echo := make([]byte, 1<<16)
	for i, size := range sizes {
		at := rng.IntN(pieceLen)
		if err := exchange(conn, random[at:at+size], size, echo); err != nil {
			return fmt.Errorf("datagram %d of %d bytes: %w", i, size, err)
		}
	}
	for _, size := range []int{1, 500, 1000, 1472} {
		if err := setSegment(conn, size); err != nil {
			return err
		}
		// Half of them end with a shorter one.
		train := min(40*size, datagramMax)
		for _, length := range []int{train - train%size, train - train%size - size/2} {
			at := rng.IntN(pieceLen)
			if err := exchange(conn, random[at:at+length], size, echo); err != nil {
				return fmt.Errorf("train of %d bytes in datagrams of %d: %w", length, size, err)
			}
		}
	}
	fmt.Printf("%d datagrams and 8 trains came back\n", len(sizes))
	return nil
}

// exchange writes data, which leaves as datagrams of size bytes, and reads them
// back.
func exchange(conn net.Conn, data []byte, size int, buf []byte) error {
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write(data); err != nil {
		return err
	}
	for rest := data; ; {
		want := rest[:min(size, len(rest))]
		n, err := conn.Read(buf)
		if err != nil {
			return fmt.Errorf("with %d of %d bytes to come: %w", len(rest), len(data), err)
		}
		if !bytes.Equal(buf[:n], want) {
			return fmt.Errorf("%d bytes came back that are not the %d sent", n, len(want))
		}
		if rest = rest[len(want):]; len(rest) == 0 {
			return nil
		}
	}
}

// setSegment has the kernel cut what is written into datagrams of size bytes.
func setSegment(conn net.Conn, size int) error {
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = raw.Control(func(fd uintptr) { serr = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size) })
	return errors.Join(err, serr)
}
