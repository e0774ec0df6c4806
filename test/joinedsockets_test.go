package test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"fairlead/loop"
	"fairlead/node/api"
	"fairlead/test/lab"
)

// A train that comes to a published port of host sockets gets to the container as
// one, but not where its datagrams are to be seen as they came: what a packet socket
// inside sees says so, and the trace.
func TestJoinedBySockets(t *testing.T) {
	o := newHostOutside(t)
	o.start("server", "-p", "5353:5000/udp", "--", "fairlead", "probe", "udp-echo", "--addr", ":5000")
	o.start("other", quiet)
	o.logSays("server", "echoing on")
	inside := o.ear("ear", "arp or udp dst port 5000", "--network", "container:server")

	const train, size = 20, 100
	conn := lab.In(t, o.Machine, func() (net.Conn, error) { return net.Dial("udp", "127.0.0.1:5353") })
	defer conn.Close()
	if err := setSegment(conn, size); err != nil {
		t.Fatal(err)
	}
	// arrives has a train arrive, and come back.
	arrives := func(when string, frames, datagrams int) {
		t.Helper()
		if err := exchange(conn, make([]byte, train*size), size, make([]byte, 1<<16)); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		seen, length := 0, fmt.Sprintf("UDP, length %d", datagrams*size)
		for _, line := range inside.since("other") {
			if strings.HasSuffix(line, length) {
				seen++
			}
		}
		if seen != frames {
			t.Errorf("%s: the container sees %d frames of %d datagrams, want %d", when, seen, datagrams, frames)
		}
	}

	if loop.Plain {
		arrives("plain", train, 1)
	} else {
		arrives("as it is", 1, train)
	}
	o.run("network", "set", "-o", "join=off", "default")
	arrives("join=off", train, 1)
	o.run("network", "set", "-o", "join=on", "default")
	o.run("network", "create", "-o", "hub=on", "shown")
	arrives("another network is a hub", train, 1)
	o.run("network", "rm", "shown")

	trace := o.trace("--json")
	uplinked := func(least int) (lines int) {
		for _, l := range traceLines(t, trace) {
			if l.Network != api.HostUplink || l.Bytes < least {
				continue
			}
			if lines++; l.Segments != 1 {
				t.Fatalf("the trace has %d datagrams as one packet: %+v", l.Segments, l)
			}
		}
		return lines
	}
	lab.Eventually(t, 10*time.Second, func() error { // until it has begun at the uplink, too
		if err := exchange(conn, make([]byte, 1), size, make([]byte, 1<<16)); err != nil {
			t.Fatal(err)
		}
		if uplinked(0) == 0 {
			return errors.New("the trace has nothing of the uplink")
		}
		return nil
	})
	arrives("traced", train, 1)
	lab.Eventually(t, 10*time.Second, func() error {
		if lines := uplinked(size); lines != train {
			return fmt.Errorf("the trace has %d packets, want %d", lines, train)
		}
		return nil
	})
}
