package test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// parts are the programs that no package of the machine has: the test binary
// plays them inside containers, which see the same files.
var parts = map[string]func(args []string) error{
	"ask":       ask,
	"assault":   assault,
	"beat":      beat,
	"besiege":   besiege,
	"crowd":     crowd,
	"datagrams": datagrams,
	"deaf":      deaf,
	"echoes":    echoes,
	"filter":    filter,
	"hammer":    hammer,
	"hoard":     hoard,
	"hurry":     hurry,
	"inject":    inject,
	"knock":     knock,
	"mdns":      mdns,
	"mix":       mix,
	"mixed":     mixed,
	"odd":       odd,
	"oddities":  oddServer,
	"parrot":    parrot,
	"pour":      pour,
	"persist":   persist,
	"pieces":    pieces,
	"reach":     reach,
	"resident":  resident,
	"sink":      sink,
	"stuff":     stuff,
	"summed":    summed,
	"sums":      sums,
	"swarm":     swarm,
	"swarmed":   swarmed,
	"talk":      talk,
	"transfer":  transfer,
	"transfers": transfers,
	"twice":     twice,
	"upgrade":   upgrade,
	"visit":     visit,
	"who":       who,
}

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "play" {
		if err := parts[os.Args[2]](os.Args[3:]); err != nil {
			fmt.Fprintf(os.Stderr, "play %s: %v\n", strings.Join(os.Args[2:], " "), err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// play is the command line of a part.
func play(t *testing.T, part string, args ...string) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if parts[part] == nil {
		t.Fatalf("there is no part %q to play", part)
	}
	return append([]string{self, "play", part}, args...)
}

// waitForInput waits until standard input ends.
func waitForInput() { _, _ = io.Copy(io.Discard, os.Stdin) }

// beatEvery is the time between two packets of a heartbeat.
const beatEvery = 2 * time.Millisecond

// beat sends numbered datagrams to a UDP echo server until its standard input
// ends, and prints how many came back and the longest time none did.
func beat(args []string) error {
	conn, err := net.Dial("udp", args[0])
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		waitForInput()
		close(ended)
	}()
	type seen struct {
		received int
		gap      time.Duration
	}
	result := make(chan seen)
	go func() {
		var s seen
		last, b := time.Now(), make([]byte, 64)
		for {
			if _, err := conn.Read(b); errors.Is(err, os.ErrDeadlineExceeded) {
				result <- s
				return
			} else if err != nil {
				continue // the echo server is not there yet, say
			}
			s.received++
			s.gap, last = max(s.gap, time.Since(last)), time.Now()
		}
	}()
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for sent := 0; ; {
		select {
		case <-tick.C:
			if _, err := fmt.Fprintf(conn, "%d", sent); err == nil {
				sent++
			}
		case <-ended:
			if err := conn.SetReadDeadline(time.Now()); err != nil {
				return err
			}
			s := <-result
			// Those under way are waited for.
			if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				return err
			}
			for b := make([]byte, 64); s.received < sent; {
				if _, err := conn.Read(b); err == nil {
					s.received++
				} else if errors.Is(err, os.ErrDeadlineExceeded) {
					break
				}
			}
			fmt.Printf("sent %d received %d gap %v\n", sent, s.received, s.gap)
			return nil
		}
	}
}

// A heartbeat is traffic between two containers that must not stop.
type heartbeat struct {
	c       *client
	refused func() int // packets that the switch says it held back; nil is none
}

// beating starts containers of the given names and a heartbeat between them.
func (n *node) beating(from, to string) *heartbeat {
	n.t.Helper()
	n.start(from)
	n.start(to, "--", "fairlead", "probe", "udp-echo")
	n.logSays(to, "echoing on")
	addr := n.containers()[to].IP + ":7"
	// The first packet asks for the neighbour, which is not what is measured.
	n.exec(from, "fairlead", "probe", "udp-echo", addr)
	h := &heartbeat{c: n.background(append([]string{"exec", "-i", from}, play(n.t, "beat", addr)...)...)}
	if raced(n.t, n.bin) { // which makes writing so dear, beside other tests, that a receiver may look slow
		h.refused = func() (slow int) {
			for _, name := range []string{from, to} {
				slow += int(n.port(name).Counts.Failed["slow-receiver"])
			}
			return slow
		}
	}
	return h
}

// stop ends the heartbeat, all of which must have come back, but for what was held back.
func (h *heartbeat) stop() {
	t := h.c.t
	t.Helper()
	h.c.in.Close()
	if code := h.c.wait(); code != 0 {
		t.Fatalf("the heartbeat ended with %d: %s", code, h.c.errors.String())
	}
	var sent, received int
	var gap string
	line, _ := bufio.NewReader(strings.NewReader(h.c.out.String())).ReadString('\n')
	if _, err := fmt.Sscanf(line, "sent %d received %d gap %s", &sent, &received, &gap); err != nil || sent == 0 {
		t.Fatalf("the heartbeat says %q: %v", line, err)
	}
	t.Logf("heartbeat: %d packets, longest pause %s", sent, gap)
	lost := sent - received
	if h.refused != nil && lost > 0 {
		lost -= min(lost, h.refused())
	}
	if lost != 0 {
		t.Errorf("the heartbeat lost %d of %d packets", lost, sent)
	}
}
