package test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"fairlead/test/lab"
)

// summed answers everything it is sent with its SHA-256, by TCP and by UDP, on
// one port:
//
//	PORT
//
// By TCP a message begins with its length in eight bytes.
func summed(args []string) error {
	l, err := net.Listen("tcp4", ":"+args[0])
	if err != nil {
		return err
	}
	c, err := net.ListenPacket("udp4", ":"+args[0])
	if err != nil {
		return err
	}
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			sum := sha256.Sum256(b[:n])
			_, _ = c.WriteTo(sum[:], from) // else it is asked again
		}
	}()
	fmt.Println("listening")
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			for {
				var size uint64
				h := sha256.New()
				if binary.Read(conn, binary.BigEndian, &size) != nil {
					return
				}
				if _, err := io.CopyN(h, conn, int64(size)); err != nil {
					return
				}
				if _, err := conn.Write(h.Sum(nil)); err != nil {
					return
				}
			}
		}()
	}
}

// sums sends random bytes to a summed and holds its answers against their own
// sums:
//
//	tcp|udp ADDRESS:PORT BYTES SEED
func sums(args []string) error {
	size, err1 := strconv.Atoi(args[2])
	seed, err2 := strconv.ParseUint(args[3], 10, 64)
	conn, err3 := net.DialTimeout(args[0]+"4", args[1], 20*time.Second)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	defer conn.Close()
	fmt.Println("begun")
	rng := rand.New(rand.NewPCG(seed, 0))
	if args[0] == "udp" {
		return hashDatagrams(conn, rng, size)
	}
	_ = conn.SetDeadline(time.Now().Add(60 * time.Second))
	for size > 0 {
		b := randomBytes(rng, min(size, 1+rng.IntN(200_000)))
		size -= len(b)
		message := append(binary.BigEndian.AppendUint64(nil, uint64(len(b))), b...)
		if _, err := conn.Write(message); err != nil {
			return err
		}
		answer := make([]byte, sha256.Size)
		if _, err := io.ReadFull(conn, answer); err != nil {
			return fmt.Errorf("the sum of %d bytes: %w", len(b), err)
		}
		if sum := sha256.Sum256(b); string(answer) != string(sum[:]) {
			return fmt.Errorf("DAMAGED: %d bytes have another sum at the other end", len(b))
		}
	}
	return nil
}

// hashDatagrams does the same by datagrams. One that is lost is sent again; an
// answer is right or belongs to a datagram before.
func hashDatagrams(conn net.Conn, rng *rand.Rand, size int) error {
	sent := map[string]bool{}
	for size > 0 {
		b := randomBytes(rng, min(size, 1+rng.IntN(4000)))
		size -= len(b)
		sum := sha256.Sum256(b)
		sent[string(sum[:])] = true
		answer := make([]byte, 2*sha256.Size)
		for try := 0; ; try++ {
			if _, err := conn.Write(b); err != nil && try > 20 {
				return err
			}
			_ = conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
			n, err := conn.Read(answer)
			switch {
			case err == nil && string(answer[:n]) == string(sum[:]):
			case err == nil && !sent[string(answer[:n])]:
				return fmt.Errorf("DAMAGED: a datagram of %d bytes has another sum at the other end", len(b))
			case try > 20:
				return fmt.Errorf("a datagram of %d bytes has no answer: %w", len(b), err)
			default:
				continue
			}
			break
		}
	}
	return nil
}

func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n+7)
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], rng.Uint64())
	}
	return b[:n]
}

// A flight is traffic on its way. Whoever does something to what it needs spoils
// it: then it may fail, but nothing may come out damaged.
type flight struct {
	step  int
	what  string
	needs []*uint64 // counted up by whoever disturbs
	were  []uint64
	said  *transcript
	done  chan string // what it said if it failed, else nothing
}

// fly starts traffic in the background. needs are what it takes: see disturb.
func (s *soak) fly(what string, cmd interface {
	Start() error
	Wait() error
}, said *transcript, needs ...*uint64) {
	f := &flight{step: s.step, what: what, needs: needs, said: said, done: make(chan string, 1)}
	for _, n := range needs {
		f.were = append(f.were, *n)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		if err := cmd.Wait(); err != nil {
			f.done <- fmt.Sprintf("%v: %s", err, said.String())
		} else {
			f.done <- ""
		}
	}()
	s.flights = append(s.flights, f)
}

// inside is a command in a container, host one of a host's, for fly.
func (s *soak) inside(name string, command []string) (*exec.Cmd, *transcript) {
	said := new(transcript)
	cmd := s.command(s.t.Context(), append([]string{"exec", name}, command...)...)
	cmd.Stdout, cmd.Stderr = said, said
	return cmd, said
}

func (s *soak) host(h *lab.Host, command []string) (*lab.Cmd, *transcript) {
	said := new(transcript)
	cmd := h.Command(context.WithoutCancel(s.t.Context()), command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = said, said
	return cmd, said
}

// begun waits until all traffic has begun: until then exec needs the node.
func (s *soak) begun() {
	s.t.Helper()
	for _, f := range s.flights {
		lab.Eventually(s.t, patience, func() error {
			if len(f.done) == 0 && !strings.Contains(f.said.String(), "begun") {
				return fmt.Errorf("%d: %s has not begun", f.step, f.what)
			}
			return nil
		})
	}
}

// mostFlights is how much traffic there is at a time.
const mostFlights = 4

// land waits until no more than most flights are left, the oldest first.
func (s *soak) land(most int) {
	s.t.Helper()
	for len(s.flights) > most {
		f := s.flights[0]
		s.flights = s.flights[1:]
		select {
		case said := <-f.done:
			spoiled := false
			for i, n := range f.needs {
				spoiled = spoiled || *n != f.were[i]
			}
			if spoiled && said != "" {
				s.done["traffic that was cut short"]++
			}
			if said != "" && (!spoiled || strings.Contains(said, "DAMAGED")) {
				s.t.Fatalf("%d: %s: %s", f.step, f.what, said)
			}
		case <-time.After(4 * patience):
			s.t.Fatalf("%d: %s has not ended after %v", f.step, f.what, 4*patience)
		}
	}
}

// disturb tells flights that need it that they may fail.
func disturb(n *uint64) { *n++ }
